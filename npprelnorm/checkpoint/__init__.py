"""Files to arrays and back: readers that run nothing, name maps, and the folder layout of published checkpoints."""
