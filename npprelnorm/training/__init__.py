"""Training without autodiff: masking, batches, AdamW, schedules, and a loop that survives being killed."""
