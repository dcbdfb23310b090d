"""The fast path in Numba: the same results as `ops`, from hand-scheduled loops over packed weights.

Nothing here is imported before `backend` has decided for it, and nothing here holds mathematics that `ops` lacks.
"""

from __future__ import annotations

from .body_weights import body_weights
from .encoder import encoder
from .linear import linear
from .self_test import prepare
from .storage import supported

__all__ = ["body_weights", "encoder", "linear", "prepare", "supported"]
