"""The ops that training spends its time in, as layers, heads and the optimizer call them: those of `ops`, or twins.

A twin is a kernel with the name, the arguments and the results of its reference. It runs where `backend` has chosen
Numba and the numbers are float32; the reference runs everywhere else. What one keeps for the backward the other takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from . import backend
from .ops import activations, embedding, losses, normalization, packed
from .ops import adamw as optimizer
from .ops import attention as ops_attention

P = ParamSpec("P")
R = TypeVar("R")


def either(reference: Callable[P, R]) -> Callable[P, R]:
    """The op itself, or its twin where there is one in use; the first argument's dtype counts."""

    @functools.wraps(reference)
    def op(*args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0]
        if first.dtype == np.float32:
            twins = backend.twins_in_use()
            if twins is not None:
                result: R = getattr(twins, reference.__name__)(*args, **kwargs, threads=backend.threads())
                return result
        return reference(*args, **kwargs)

    return op


attention = either(ops_attention.attention)
attention_backward = either(ops_attention.attention_backward)
packed_attention = functools.partial(packed.packed_attention, attend=attention)
packed_attention_backward = functools.partial(packed.packed_attention_backward, attend_backward=attention_backward)
layer_norm = either(normalization.layer_norm)
layer_norm_backward = either(normalization.layer_norm_backward)
embedding_backward = either(embedding.embedding_backward)
cross_entropy = either(losses.cross_entropy)
cross_entropy_backward = either(losses.cross_entropy_backward)
adamw = either(optimizer.adamw)
tanh = either(activations.tanh)
tanh_backward = either(activations.tanh_backward)
ACTIVATIONS = {name: (either(f), either(f_backward)) for name, (f, f_backward) in activations.ACTIVATIONS.items()}
