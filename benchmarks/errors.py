"""The one error of this room."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Something cannot be measured, or the arguments do not fit; the message is all that is shown."""
