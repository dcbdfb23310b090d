"""The engines, one row each. A module of this folder has one function for each task that it knows:

    fill_mask(folder, threads), classify(folder, threads), train(folder, threads, dropout=..., recompute=...),
    generate(folder, threads, new_tokens=...), next_token(folder, threads)

Each loads the model and returns ``run``, which takes the workload's inputs by name and returns the answer as lists.
Only a child process calls them, so that an engine's libraries are imported there and nowhere else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..workloads import TASKS


@dataclass(frozen=True)
class Engine:
    """How to run one engine.

    Attributes
    ----------
    name : str
        What the table calls it.
    module : str
        The module in this folder.
    packages : tuple of str
        What has to be installed, as it is imported.
    tasks : tuple of str
    ours : bool
        Whether it is this package; all others are its peers.
    exact : bool
        False where the engine computes with fewer digits than float32: its error is shown and not judged, and it is
        not among the peers that ratios are taken to.
    model : {"checkpoint", "onnx", "onnx-int8"}
        What ``folder`` holds.
    environment : mapping of str to str
        Environment variables of its process.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    tasks: tuple[str, ...] = TASKS
    ours: bool = False
    exact: bool = True
    model: str = "checkpoint"
    environment: Mapping[str, str] = field(default_factory=dict)


TORCH = "torch"
NUMPY = "npprelnorm (NumPy)"
NUMBA = "npprelnorm (Numba)"


def _stored(name: str, weight_dtype: str) -> Engine:
    """This package with weights in fewer bits."""
    return Engine(
        f"npprelnorm (Numba, {name})",
        "ours",
        ("npprelnorm", "numba"),
        ("fill-mask", "classify", "generate", "next-token"),
        ours=True,
        exact=False,
        environment={"NPPRELNORM_BACKEND": "numba", "BENCHMARK_WEIGHT_DTYPE": weight_dtype},
    )


ENGINES = (
    # another backend of this package is another row, told apart by its environment
    Engine(NUMPY, "ours", ("npprelnorm",), ours=True, environment={"NPPRELNORM_BACKEND": "numpy"}),
    Engine(NUMBA, "ours", ("npprelnorm", "numba"), ours=True, environment={"NPPRELNORM_BACKEND": "numba"}),
    Engine(TORCH, "torch_transformers", ("torch", "transformers")),
    Engine("onnxruntime", "onnx_runtime", ("onnxruntime", "tokenizers"), ("fill-mask", "classify"), model="onnx"),
    Engine("OpenVINO", "open_vino", ("openvino", "tokenizers"), ("fill-mask", "classify"), model="onnx"),
    Engine(
        "onnxruntime int8",
        "onnx_runtime",
        ("onnxruntime", "tokenizers"),
        ("fill-mask", "classify"),
        exact=False,
        model="onnx-int8",
    ),
    _stored("12 bit", "int12"),
    _stored("float16 weights", "float16"),
    _stored("bfloat16 weights", "bfloat16"),
)


def missing_packages(engine: Engine) -> list[str]:
    """What of the engine's packages is not installed; nothing is imported to find out."""
    return [name for name in engine.packages if importlib.util.find_spec(name) is None]
