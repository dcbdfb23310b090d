"""Our numbers beside others': recorded slices of known checkpoints, or transformers where it is installed.

transformers runs in a child process. `_run_transformers`, which only the child calls, is the one place of the package
that imports torch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint.model_types import config_class
from .config import RobertaPreLayerNormConfig
from .errors import CheckpointError, NpprelnormError
from .files import read_json
from .stored import WEIGHT_DTYPES

SLICE_TOLERANCE = 1e-4  # absolute plus relative, as in the tests that published the slices
LIVE_TOLERANCE = 2e-5  # times the largest value of the tensor, if that is above 1
CHILD_SECONDS = 3600


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference in one tensor, and the largest that still passes."""

    name: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the difference passes; NaN never does."""
        return self.error <= self.allowed


@dataclass(frozen=True)
class Recorded:
    """Numbers that another implementation gave: the first 3 x 3 values of one row of logits and hidden states."""

    source: str
    input_ids: tuple[int, ...]
    logits: tuple[tuple[float, ...], ...]
    last_hidden_state: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Rounding:
    """What weights in fewer bits change in one tensor, against float32 of the same checkpoint.

    Attributes
    ----------
    weight_dtype : str
    name : str
        "hidden states" (of real tokens, after the last layer) or an output.
    largest : float
        The largest absolute difference.
    rms : float
        The root of the mean squared difference, relative to that of the float32 numbers.
    """

    weight_dtype: str
    name: str
    largest: float
    rms: float


# the integration tests of transformers; those of its TensorFlow and Flax ports hold the same values
PUBLISHED = {
    "andreasmadsen/efficient_mlm_m0.40": Recorded(
        source="the tests of transformers",
        input_ids=(0, 31414, 232, 328, 740, 1140, 12695, 69, 46078, 1588, 2),
        logits=((40.4880, 18.0199, -5.2367), (-1.8877, -4.0885, 10.7085), (-2.2613, -5.6110, 7.2665)),
        last_hidden_state=((0.0208, -0.0356, 0.0237), (-0.1569, -0.0411, -0.2626), (0.1879, 0.0125, -0.0089)),
    )
}

# "The capital of France is <mask>."
EMBEDDED = Recorded(
    source="transformers 5.2.0",
    input_ids=(0, 298, 380, 285, 1389, 276, 6143, 17, 2),
    logits=((-7.32491, -5.11160, -9.74641), (-6.37304, -9.50169, -9.62921), (-9.28208, -6.22031, -9.69694)),
    last_hidden_state=((1.31043, 1.17923, -0.50260), (0.87374, 0.79838, 0.48365), (0.37037, 1.09869, -1.07520)),
)


def compare_recorded(folder: str | os.PathLike[str], recorded: Recorded) -> list[Difference]:
    """Run the masked language model in `folder` on the recorded ids and compare the recorded values.

    Raises
    ------
    CheckpointError
        If the folder holds no masked language model that can be loaded.
    """
    from .language_models import RobertaPreLayerNormForMaskedLM

    model = RobertaPreLayerNormForMaskedLM.from_pretrained(folder)
    out = model(input_ids=[list(recorded.input_ids)], output_hidden_states=True)
    ours = {"logits": out.logits, "last_hidden_state": out.hidden_states[-1]}
    return [_slice_difference(name, array[0], getattr(recorded, name)) for name, array in ours.items()]


def _slice_difference(name: str, ours: np.ndarray, values: tuple[tuple[float, ...], ...]) -> Difference:
    theirs = np.array(values, np.float64)
    if ours.ndim != 2 or any(have < want for have, want in zip(ours.shape, theirs.shape, strict=True)):
        return Difference(f"{name}[:3, :3]", float("nan"), 0.0)
    error = np.abs(ours[: theirs.shape[0], : theirs.shape[1]] - theirs)
    allowed = SLICE_TOLERANCE + SLICE_TOLERANCE * np.abs(theirs)
    worst = np.unravel_index(np.argmax(error - allowed), error.shape)
    return Difference(f"{name}[:3, :3]", float(error[worst]), float(allowed[worst]))


def transformers_is_installed() -> bool:
    """Whether torch and transformers can be imported (without importing them)."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def compare_with_transformers(folder: str | os.PathLike[str]) -> tuple[str, list[Difference]]:
    """Run the checkpoint in `folder` here and in transformers, on the same random input, and compare layer by layer.

    Returns
    -------
    version : str
        The version of transformers that ran.
    differences : list of Difference
        One for the embeddings, for each layer and for each output.

    Raises
    ------
    NpprelnormError
        If transformers is not installed, cannot load the checkpoint, or is of a version that lacks what it needs.
    """
    if not transformers_is_installed():
        raise NpprelnormError('torch and transformers are not installed: pip install "npprelnorm[reference]"')
    folder = Path(folder).resolve()
    pre_ln = config_class(folder) is RobertaPreLayerNormConfig
    if pre_ln and read_json(folder / "config.json").get("model_type") == "roberta":
        raise CheckpointError(
            f"{folder} has model_type roberta but pre-LN weights, which transformers loads without complaint and "
            "computes wrongly; `npprelnorm convert` it first and verify the result"
        )
    version = importlib.metadata.version("transformers")
    convention = "v4" if version.startswith("4.") else "v5"
    model = _load(folder)
    if convention == "v5" and model.config.position_embedding_type != "absolute":
        raise NpprelnormError(f"transformers {version} has no relative positions; install transformers 4.56 to compare")
    class_name, inputs = type(model).__name__, example_inputs(model)
    ours = _named(model(**inputs, output_hidden_states=True, hidden_states_convention=convention))
    del model  # two copies of a large model need not fit into memory at once
    return version, _differences(ours, _in_child(folder, class_name, inputs))


def compare_weight_dtypes(folder: str | os.PathLike[str]) -> list[Rounding]:
    """Run the checkpoint in `folder` with weights of float32 and of fewer bits, and compare the numbers.

    Returns
    -------
    list of Rounding
        Of every ``weight_dtype`` that can be used here; none where the backend is "numpy" or Numba does not work.
    """
    from . import backend

    kernels = None if backend.chosen_backend() == "numpy" else backend.load_kernels(by_name=False)
    if kernels is None:
        return []
    result = []
    with backend.use_backend("numba"):
        exact = _outputs(_load(Path(folder)))
        for weight_dtype in WEIGHT_DTYPES:
            if weight_dtype != "float32" and weight_dtype in kernels.supported():
                rounded = _outputs(_load(Path(folder), weight_dtype=weight_dtype))
                result += [_rounding(weight_dtype, name, rounded[name], exact[name]) for name in exact]
    return result


def _outputs(model: Any) -> dict[str, np.ndarray]:
    """Hidden states of real tokens, and what the head makes of them."""
    inputs = example_inputs(model)
    rows = {name: array.reshape(-1, array.shape[-1]) for name, array in inputs.items()}
    hidden = model.base(**rows).last_hidden_state[rows["attention_mask"] != 0]
    out = model(**inputs)
    return {"hidden states": hidden} | {n: out[n] for n in ("logits", "start_logits", "end_logits") if n in out}


def _rounding(weight_dtype: str, name: str, rounded: np.ndarray, exact: np.ndarray) -> Rounding:
    difference, truth = (array.astype(np.float64) for array in (rounded - exact, exact))
    rms = float(np.sqrt(np.mean(difference**2) / max(float(np.mean(truth**2)), np.finfo(np.float64).tiny)))
    return Rounding(weight_dtype, name, float(np.abs(difference).max()), rms)


def _load(folder: Path, **options: Any) -> Any:
    """The checkpoint as the class that its config.json names, or as a base model."""
    import npprelnorm

    config = config_class(folder).from_pretrained(folder)
    if not config.architectures:
        return npprelnorm.AutoModel.from_pretrained(folder, **options)
    name = config.architectures[0]
    if name not in npprelnorm.__all__:
        raise CheckpointError(f"{folder} is of class {name}, which this package does not have")
    return getattr(npprelnorm, name).from_pretrained(folder, **options)


def example_inputs(model: Any) -> dict[str, np.ndarray]:
    """Two rows of seeded random ids, the second padded on the right, of a shape that `model` takes."""
    config = model.config
    pad = config.pad_token_id if config.pad_token_id is not None else -1
    length = min(16, config.max_tokens)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, length))
    ids[ids == pad] = (pad + 1) % config.vocab_size
    mask = np.ones_like(ids)
    padded = length // 3
    if pad >= 0 and padded:
        ids[1, -padded:], mask[1, -padded:] = pad, 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if config.family.pairs_by_token_type:
        inputs["token_type_ids"] = np.arange(length) * config.type_vocab_size // length + np.zeros_like(ids)
    if type(model).__name__.endswith("ForMultipleChoice"):  # (B, C, T): one question with two choices
        return {name: array[None] for name, array in inputs.items()}
    return inputs


def _named(out: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of an output (ours, or theirs as NumPy arrays) under the names that the report shows."""
    states = out["hidden_states"]
    named = {"embeddings" if layer == 0 else f"layer {layer}": state for layer, state in enumerate(states)}
    for name in ("last_hidden_state", "logits", "start_logits", "end_logits"):
        if name in out:
            named[name] = out[name]
    return named


def _differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[Difference]:
    if ours.keys() != theirs.keys():
        raise NpprelnormError(f"transformers returned {sorted(theirs)}, this package {sorted(ours)}")
    result = []
    for name, array in ours.items():
        if array.shape != theirs[name].shape:
            raise NpprelnormError(f"{name}: shape {array.shape} here, {theirs[name].shape} in transformers")
        error = float(np.abs(array - theirs[name]).max())
        result.append(Difference(name, error, LIVE_TOLERANCE * max(1.0, float(np.abs(theirs[name]).max()))))
    return result


def _in_child(folder: Path, class_name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `_run_transformers` returns, run by a second interpreter."""
    with tempfile.TemporaryDirectory(prefix="npprelnorm-verify-") as scratch:
        request, answer = Path(scratch, "request.npz"), Path(scratch, "answer.npz")
        np.savez(request, **inputs)  # type: ignore[arg-type]  # NumPy 1.26 has no allow_pickle here
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "npprelnorm.verify", str(folder), class_name, str(request), str(answer)],
            cwd=Path(__file__).parents[1],  # -m puts the current folder on the path: let that be where we come from
            env={**os.environ, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=CHILD_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stdout.strip().splitlines() or ["it printed nothing"])[-1]
            raise NpprelnormError(f"transformers could not run {folder} (exit code {done.returncode}): {last}")
        with np.load(answer, allow_pickle=False) as loaded:
            return dict(loaded)


def _run_transformers(folder: str, class_name: str, request: str, answer: str) -> None:
    """In the child: run `class_name` of transformers on the arrays in `request`, write its numbers to `answer`."""
    import torch
    import transformers

    model = getattr(transformers, class_name).from_pretrained(
        folder, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    )
    model.eval()
    with np.load(request, allow_pickle=False) as inputs, torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        out = model(
            **tensors,
            output_hidden_states=True,
            return_dict=True,
            **({"use_cache": False} if model.config.is_decoder else {}),
        )
    arrays = {
        name: tuple(t.numpy() for t in value) if isinstance(value, tuple) else value.numpy()
        for name, value in out.items()
        if value is not None
    }
    np.savez(answer, **_named(arrays))  # type: ignore[arg-type]


if __name__ == "__main__":
    _run_transformers(*sys.argv[1:])
