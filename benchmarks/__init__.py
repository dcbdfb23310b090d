"""Measurements of this package beside other CPU engines: ``python -m benchmarks``, from the root of the repository."""
