"""The fast path in Numba: the same results as `ops`, from hand-scheduled loops over packed weights.

Nothing here is imported before `backend` has decided for it, and nothing here holds mathematics that `ops` lacks.
"""

from __future__ import annotations

from .encoder import body_weights, encoder
from .self_test import prepare

__all__ = ["body_weights", "encoder", "prepare"]
