"""A step-by-step trace of one forward, and where two traces first differ.

A trace can come from any implementation of the model: `Trace.of` takes names and arrays. tools/trace_transformers.py
takes one from transformers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointFormatError, InputError
from ..files import parse_json, read_json, write_json
from ..inputs import as_array
from .recorded import all_steps

FORMAT = "npprelnorm-trace-1"
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}  # those of the tests against transformers


@dataclass(frozen=True, eq=False)
class TraceStep:
    """One intermediate value of a forward.

    Attributes
    ----------
    name : str
        The checkpoint's name of what computed it, without the model's prefix, such as
        ``encoder.layer.0.attention.self.query``; ``...self.weights`` and ``...self.context`` for the attention
        weights and their average of the values, ``...residual`` for the stream after an addition.
    shape : tuple of int
    dtype : str
    mean, norm : float
        Mean, and Euclidean norm, of all its numbers.
    probe : float
        Sum of each number times the cosine of its index: unlike the two above it also changes when numbers trade
        places.
    value : numpy.ndarray, optional
        The numbers themselves, if they were kept.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    norm: float
    probe: float
    value: np.ndarray | None = None

    @classmethod
    def of(cls, name: str, value: np.ndarray, *, keep: bool = True) -> TraceStep:
        """The step of an array."""
        flat = np.asarray(value, np.float64).reshape(-1)
        with np.errstate(invalid="ignore"):  # infinities are what a trace is there to find
            probe = float(flat @ np.cos(np.arange(flat.size)))
            mean = float(flat.sum()) / max(1, flat.size)
            norm = float(np.linalg.norm(flat))
        return cls(name, value.shape, value.dtype.name, mean, norm, probe, value if keep else None)


@dataclass(frozen=True, eq=False)
class Trace:
    """The steps of one forward, in the order of computation; ``str(trace)`` is a table of them.

    Attributes
    ----------
    steps : tuple of TraceStep
        Each name once.
    """

    steps: tuple[TraceStep, ...]

    @classmethod
    def of(cls, steps: Iterable[tuple[str, np.ndarray]], *, keep: bool = True) -> Trace:
        """A trace of names and arrays from anywhere.

        Parameters
        ----------
        steps : iterable of (str, array)
            In the order of computation.
        keep : bool
            Whether to keep the numbers beside their summaries.

        Raises
        ------
        InputError
            If a name comes twice, or something is no array of numbers.

        Examples
        --------
        >>> import numpy as np
        >>> one = Trace.of([("a", np.ones((2, 3)))])
        >>> one["a"].shape, one["a"].mean
        ((2, 3), 1.0)
        """
        made = tuple(TraceStep.of(name, _numbers(name, value), keep=keep) for name, value in steps)
        names = [step.name for step in made]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"the step {twice!r} comes twice; each needs a name of its own")
        return cls(made)

    @property
    def names(self) -> list[str]:
        """The names of all steps, in order."""
        return [step.name for step in self.steps]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[TraceStep]:
        return iter(self.steps)

    def __getitem__(self, name: str) -> TraceStep:
        for step in self.steps:
            if step.name == name:
                return step
        raise InputError(f"the trace has no step {name!r}; `names` lists those it has")

    def __str__(self) -> str:
        width = max((len(step.name) for step in self.steps), default=0)
        return "\n".join(
            f"{step.name:{width}}  {'x'.join(map(str, step.shape)) or 'scalar':>16}  {step.dtype}"
            f"  mean {step.mean:+.6g}  norm {step.norm:.6g}"
            for step in self.steps
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace.

        Parameters
        ----------
        path : path
            ``.json`` for the summaries alone, ``.safetensors`` for the numbers too.

        Raises
        ------
        InputError
            For another ending, or ``.safetensors`` where the numbers were not kept.
        """
        summary: dict[str, Any] = {"format": FORMAT, "steps": [_as_json(step) for step in self.steps]}
        if _ending(path) == ".json":
            write_json(path, summary)
            return
        values = {step.name: step.value for step in self.steps if step.value is not None}
        if len(values) < len(self.steps) or not values:
            raise InputError(f"{path} would hold the numbers, which this trace did not keep; save it as .json")
        from ..checkpoint.safetensors_file import write_safetensors

        write_safetensors(path, values, {"trace": json.dumps(summary, allow_nan=False)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read what `save` wrote.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged or no trace.
        InputError
            If its name ends neither in ``.json`` nor in ``.safetensors``.
        """
        if _ending(path) == ".json":
            return _from_json(read_json(path), path, {})
        from ..checkpoint.safetensors_file import SafetensorsFile

        file = SafetensorsFile(path)
        try:
            if "trace" not in file.metadata:
                raise CheckpointFormatError(f"{path} is no trace: its metadata has no 'trace'")
            summary = parse_json(file.metadata["trace"].encode(), f"the trace in {path}")
            return _from_json(summary, path, {name: np.array(file.read(name)) for name in file.names()})
        finally:
            file.close()


def _numbers(name: str, value: Any) -> np.ndarray:
    array = as_array(f"the step {name!r}", value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"the step {name!r} has dtype {array.dtype}; a trace holds real numbers")
    return array


def _ending(path: str | os.PathLike[str]) -> str:
    ending = Path(path).suffix
    if ending not in (".json", ".safetensors"):
        raise InputError(f"{path} ends in {ending!r}; a trace is a .json (summaries) or a .safetensors (numbers too)")
    return ending


def _as_json(step: TraceStep) -> dict[str, Any]:
    numbers = {"mean": step.mean, "norm": step.norm, "probe": step.probe}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"name": step.name, "shape": list(step.shape), "dtype": step.dtype, **finite}


def _from_json(summary: dict[str, Any], path: str | os.PathLike[str], values: dict[str, np.ndarray]) -> Trace:
    if summary.get("format") != FORMAT or not isinstance(summary.get("steps"), list):
        raise CheckpointFormatError(f"{path} is no trace: its format is {summary.get('format')!r}, not {FORMAT!r}")
    steps = []
    for number, entry in enumerate(summary["steps"]):
        step = _step_from_json(entry)
        if step is None:
            raise CheckpointFormatError(f"{path}: step {number} is not {{name, shape, dtype, mean, norm, probe}}")
        value = values.get(step.name)
        if values and (value is None or value.shape != step.shape):
            raise CheckpointFormatError(f"{path}: the numbers of step {step.name!r} are missing or of another shape")
        # the summary is made anew of the numbers, where there are any: the two cannot disagree
        steps.append(step if value is None else TraceStep.of(step.name, value))
    if len({step.name for step in steps}) < len(steps):
        raise CheckpointFormatError(f"{path}: two steps have the same name")
    return Trace(tuple(steps))


def _step_from_json(entry: Any) -> TraceStep | None:
    """None where the entry is no step."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not isinstance(entry.get("dtype"), str):
        return None
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        return None
    numbers = [entry.get(key) for key in ("mean", "norm", "probe")]
    if not all(value is None or type(value) in (int, float) for value in numbers):
        return None
    mean, norm, probe = (math.nan if value is None else float(value) for value in numbers)
    return TraceStep(entry["name"], tuple(shape), entry["dtype"], mean, norm, probe)


def trace(model: Any, *, keep: bool = True, **inputs: Any) -> Trace:
    """Trace one forward: every intermediate value, by name.

    The weights count with all their bits here, also where ``weight_dtype`` stores them in fewer for inference.

    Parameters
    ----------
    model : any model class of this package
    keep : bool
        Whether to keep the numbers themselves. They take about as much memory as a forward that records for a
        backward; without them two traces are compared by their summaries.
    **inputs
        As for calling the model, labels included.

    Returns
    -------
    Trace

    Raises
    ------
    InputError
        For inputs that the model cannot use, and for ``past_key_values``.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> steps = nl.inspect.trace(model, input_ids=[[0, 298, 2]])
    >>> steps["encoder.layer.0.attention.self.weights"].shape
    (1, 4, 3, 3)
    >>> steps.names[-1]
    'logits'
    """
    return Trace.of(all_steps(model, inputs), keep=keep)


@dataclass(frozen=True)
class StepDifference:
    """How far two traces are apart at one step.

    Attributes
    ----------
    name : str
    error : float
        With both sides' numbers, the largest absolute difference; with summaries alone, the largest difference of
        norm, probe and sqrt(size) * mean, over sqrt(size). NaN where either side has one.
    allowed : float
        The largest error that still passes.
    note : str
        What is wrong besides numbers (another shape), or empty.
    """

    name: str
    error: float
    allowed: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the step passes; NaN never does."""
        return not self.note and self.error <= self.allowed


@dataclass(frozen=True)
class TraceComparison:
    """Two traces side by side; ``str(comparison)`` says where they first differ.

    Attributes
    ----------
    steps : tuple of StepDifference
        Of the steps that both have, in the order of the first trace.
    only_first, only_second : tuple of str
        Steps that the other trace lacks. They are no difference: implementations need not show the same steps.
    """

    steps: tuple[StepDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def first_difference(self) -> StepDifference | None:
        """The first step at which the two differ, or None."""
        return next((step for step in self.steps if not step.ok), None)

    def __str__(self) -> str:
        first = self.first_difference
        if first is None:
            text = f"all {len(self.steps)} common steps agree"
        else:
            number = self.steps.index(first) + 1
            what = first.note or f"error {first.error:.3g}, allowed {first.allowed:.3g}"
            text = f"first difference at {first.name}, step {number} of {len(self.steps)}: {what}"
        for side, names in (("first", self.only_first), ("second", self.only_second)):
            if names:
                text += f"; only in the {side} trace: {', '.join(names[:3])}"
                text += f" and {len(names) - 3} more" if len(names) > 3 else ""
        return text


def compare_traces(first: Trace, second: Trace, *, tolerance: float | None = None) -> TraceComparison:
    """Compare two traces step by step.

    Parameters
    ----------
    first, second : Trace
        Of the same inputs, from two models, two versions, two backends or two libraries.
    tolerance : float, optional
        A step passes if its error is at most this, times the largest absolute value of the second trace's step if
        that is above 1 (for summaries, times the root mean square if that is above 1). By default 2e-5, or 1e-10
        where both sides are float64.

    Returns
    -------
    TraceComparison

    Raises
    ------
    InputError
        If the traces have no step in common, for what is no trace, and a tolerance that is no number from 0.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> before = nl.inspect.trace(model, input_ids=[[0, 298, 2]])
    >>> model.params["roberta_prelayernorm.encoder.layer.1.output.dense.weight"][3, 7] += 0.5
    >>> after = nl.inspect.trace(model, input_ids=[[0, 298, 2]])
    >>> nl.inspect.compare_traces(before, after).first_difference.name
    'encoder.layer.1.output.dense'
    """
    for side in (first, second):
        if not isinstance(side, Trace):
            raise InputError(f"one of the two is a {type(side).__name__}; give two traces, such as `trace` makes")
    if tolerance is not None and not (isinstance(tolerance, int | float | np.integer | np.floating) and tolerance >= 0):
        raise InputError(f"tolerance is {tolerance!r}; it must be a number from 0")
    others = {step.name: step for step in second}
    common = [step for step in first if step.name in others]
    if not common:
        raise InputError(f"the traces have no step in common: {first.names[:3]} ... and {second.names[:3]} ...")
    own = set(first.names)
    return TraceComparison(
        tuple(_difference(step, others[step.name], tolerance) for step in common),
        tuple(step.name for step in first if step.name not in others),
        tuple(step.name for step in second if step.name not in own),
    )


def _difference(one: TraceStep, other: TraceStep, tolerance: float | None) -> StepDifference:
    if tolerance is None:
        both_double = one.dtype == other.dtype == "float64"
        tolerance = TOLERANCE["float64" if both_double else "float32"]
    if one.shape != other.shape:
        return StepDifference(one.name, math.nan, tolerance, f"shape {one.shape} against {other.shape}")
    if one.value is not None and other.value is not None:
        a, b = np.asarray(one.value, np.float64), np.asarray(other.value, np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf: NaN, which never passes
            error = float(np.abs(a - b).max(initial=0.0))
        return StepDifference(one.name, error, tolerance * max(1.0, float(np.abs(b).max(initial=0.0))))
    root = math.sqrt(max(1, math.prod(one.shape)))
    gaps = (one.norm - other.norm, one.probe - other.probe, root * (one.mean - other.mean))
    error = math.nan if any(map(math.isnan, gaps)) else max(map(abs, gaps)) / root
    return StepDifference(one.name, error, tolerance * max(1.0, other.norm / root))
