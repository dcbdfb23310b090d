"""The fast path in Numba: the same results as `ops`, from hand-scheduled loops over packed weights.

Nothing here is imported before `backend` has decided for it, and nothing here holds mathematics that `ops` lacks.
"""

from __future__ import annotations

from .body_weights import body_weights
from .dots import FEW_ROWS, few_rows_linear, linear_top_k
from .encoder import encoder
from .linear import linear
from .self_test import prepare
from .storage import supported

__all__ = [
    "FEW_ROWS",
    "body_weights",
    "encoder",
    "few_rows_linear",
    "linear",
    "linear_top_k",
    "prepare",
    "supported",
]
