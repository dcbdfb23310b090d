"""What a forward costs: floating-point operations, counted from the shapes, and the time of each op, measured.

Only matrix products are counted, a multiplication and an addition as two operations, as is usual (Kaplan et al. 2020,
arXiv:2001.08361, table 1): all else is a few operations an element.

Legend: B batch, T tokens, E encoder tokens, C hidden, H heads, D head size, R distances, V vocabulary.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import InputError
from .recorded import require_model

_OPS = str(Path(ops.__file__).parent)
_KERNELS = str(Path(ops.__file__).parents[1] / "kernels")  # not imported here: that would load Numba


def forward_flops(model: Any, *, batch: int, tokens: int, encoder_tokens: int = 0) -> dict[str, int]:
    """Floating-point operations of one forward, by the place where they happen.

    Parameters
    ----------
    model : any model class of this package
    batch, tokens : int
        Shape of the input ids; every position counts, padding too. (For multiple choice, `batch` is that of the
        sequences: questions times choices.)
    encoder_tokens : int
        For a decoder with cross-attention: tokens of the encoder's states.

    Returns
    -------
    dict of str to int
        By names such as ``encoder.layer.0.attention.self.query``; the products of the attention itself are under
        ``encoder.layer.0.attention.self``. Their sum is the whole forward.

    Raises
    ------
    InputError
        For sizes below 1.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> flops = nl.inspect.forward_flops(model, batch=1, tokens=16)
    >>> flops["encoder.layer.0.attention.self.query"] == 2 * 16 * 128 * 128
    True
    """
    require_model(model)
    for name, value, least in (("batch", batch, 1), ("tokens", tokens, 1), ("encoder_tokens", encoder_tokens, 0)):
        if type(value) is not int or value < least:
            raise InputError(f"{name} is {value!r}; it must be a whole number from {least}")
    config = model.config
    result: dict[str, int] = {}
    prefix = model.base_prefix
    # of the last layer a classifier reads the first row of each sequence, and nothing else is computed
    first_alone = _classifies_rows(model) and config.position_embedding_type == "absolute"
    last = f"encoder.layer.{config.num_hidden_layers - 1}."
    for full_name, parameter in model.params.items():
        name = full_name.removeprefix(prefix)
        if "crossattention." in name and not encoder_tokens:
            continue
        keys = encoder_tokens if "crossattention." in name else tokens
        if name.endswith("distance_embedding.weight") or name.startswith("embeddings.") or parameter.ndim != 2:
            continue
        name = name.removesuffix(".weight")
        queries = 1 if first_alone and name.startswith(last) else tokens
        rows = batch * queries
        if name.endswith(("self.key", "self.value")):
            rows = batch * keys
        elif name.startswith("pooler.") or (name.startswith("classifier") and _classifies_rows(model)):
            rows = batch
        result[name] = 2 * rows * parameter.size
        if name.endswith("self.value"):
            place = name.removesuffix(".value")
            relative = place + ".distance_embedding.weight"
            table = prefix + relative in model.params and config.position_embedding_type
            result[place] = _attention_flops(batch, queries, keys, config.hidden_size, table or "absolute")
    if hasattr(model, "lm_head") and config.tie_word_embeddings:
        result[config.family.lm_head.decoder] = 2 * batch * tokens * config.hidden_size * config.vocab_size
    return result


def _classifies_rows(model: Any) -> bool:
    """Whether there is a classifier that sees one vector a sequence, instead of each token's."""
    return "classifier.out_proj.weight" in model.params or (model.has_pooler and "classifier.weight" in model.params)


def _attention_flops(batch: int, tokens: int, keys: int, width: int, position_type: str) -> int:
    """Scores q k^T and their average of the values; with relative positions each query (and key) meets R distances."""
    flops = 2 * (2 * batch * tokens * keys * width)
    distances = tokens + keys - 1
    if position_type != "absolute":
        flops += 2 * batch * tokens * distances * width
    if position_type == "relative_key_query":
        flops += 2 * batch * keys * distances * width
    return flops


class OpTime(NamedTuple):
    """One op at one place of a forward.

    Attributes
    ----------
    name : str
        The parameters that it uses, without the model's prefix (``encoder.layer.0.attention.self.query``); for an op
        without parameters the module around it (``encoder.layer.0.attention.self``); for a compiled kernel that runs
        all layers at once, ``kernels``.
    op : str
        The function of `npprelnorm.ops` or `npprelnorm.kernels`.
    calls : int
    seconds : float
        Of all these calls together.
    """

    name: str
    op: str
    calls: int
    seconds: float


class ForwardProfile(NamedTuple):
    """Where the time of a forward went.

    Attributes
    ----------
    ops : list of OpTime
        In the order in which they first ran.
    seconds : float
        Of the whole forward.
    """

    ops: list[OpTime]
    seconds: float

    @property
    def other(self) -> float:
        """Seconds outside of the ops: additions to the stream, checks of the inputs, Python."""
        return self.seconds - sum(row.seconds for row in self.ops)

    def by_op(self) -> dict[str, float]:
        """Seconds by kind of op, largest first."""
        totals: dict[str, float] = {}
        for row in self.ops:
            totals[row.op] = totals.get(row.op, 0.0) + row.seconds
        return dict(sorted(totals.items(), key=lambda item: -item[1]))


def profile_forward(model: Any, *, repeats: int = 5, **inputs: Any) -> ForwardProfile:
    """Run a forward several times, and time each op of the fastest run.

    The ops are left as they are: the interpreter itself reports when one of their functions is entered and left
    (``sys.setprofile``). That costs about a microsecond a call, so the times of very small models are a little high.
    Where the Numba backend runs the whole encoder in one kernel, that is one op; the layers show within
    ``with npprelnorm.use_backend("numpy")``.

    Parameters
    ----------
    model : any model class of this package
    repeats : int
        How many runs, after one that warms up.
    **inputs
        As for calling the model.

    Returns
    -------
    ForwardProfile

    Raises
    ------
    InputError
        For `repeats` below 1, or inputs that the model cannot use.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> with nl.use_backend("numpy"):
    ...     profile = nl.inspect.profile_forward(model, input_ids=[[0, 298, 2]], repeats=2)
    >>> {"linear", "packed_attention", "layer_norm"} <= profile.by_op().keys()
    True
    """
    require_model(model)
    if type(repeats) is not int or repeats < 1:
        raise InputError(f"repeats is {repeats!r}; it must be a whole number from 1")
    model(**inputs)
    names = {id(array): name for name, array in model.params.items()}
    runs = [_timed(model, inputs, names) for _ in range(repeats)]
    return min(runs, key=lambda run: run.seconds)


def _timed(model: Any, inputs: dict[str, Any], names: dict[int, str]) -> ForwardProfile:
    timer = _OpTimer(names, model.base_prefix, model.config.family.lm_head.decoder)
    earlier = sys.getprofile()
    start = time.perf_counter()
    sys.setprofile(timer)
    try:
        model(**inputs)
    finally:
        sys.setprofile(earlier)
    seconds = time.perf_counter() - start
    rows = [OpTime(name, op, calls, spent) for (name, op), (calls, spent) in timer.rows.items()]
    return ForwardProfile(rows, seconds)


class _OpTimer:
    """A profile function: times the outermost op, whatever that calls in turn."""

    def __init__(self, names: dict[int, str], prefix: str, decoder: str) -> None:
        self.rows: dict[tuple[str, str], tuple[int, float]] = {}
        self._names = names
        self._prefix = prefix
        self._decoder = decoder
        self._place = "embeddings"  # what runs before any parameter is used prepares them
        self._frame: FrameType | None = None
        self._key = ("", "")
        self._start = 0.0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self._frame is None:
            code = frame.f_code
            if event == "call" and code.co_filename.startswith((_OPS, _KERNELS)):
                self._key = (self._name(frame), code.co_name)
                self._frame = frame
                self._start = time.perf_counter()
        elif frame is self._frame and event == "return":
            spent = time.perf_counter() - self._start
            calls, before = self.rows.get(self._key, (0, 0.0))
            self.rows[self._key] = (calls + 1, before + spent)
            self._frame = None

    def _name(self, frame: FrameType) -> str:
        """By the parameter among the arguments; without one, the module of the parameter used last."""
        arguments = list(frame.f_locals.values())
        if frame.f_code.co_filename.startswith(_KERNELS) and not isinstance(next(iter(arguments), None), np.ndarray):
            return "kernels"  # it has no twin in `ops`: all layers at once, or the packing of their weights
        for value in arguments:
            if isinstance(value, np.ndarray) and id(value) in self._names:
                name = self._names[id(value)].removeprefix(self._prefix)
                name = name.removesuffix(".weight").removesuffix(".bias")
                if name.startswith("embeddings.") and "linear" in frame.f_code.co_name:
                    return self._decoder  # tied: the word embeddings are its weights
                self._place = name.rpartition(".")[0]
                return name
        return self._place
