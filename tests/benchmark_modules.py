"""The modules of benchmarks/, which is no part of the installed package, and the names of its engines."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # last, so that an installed npprelnorm stays the one that is tested

child, command, compare, engines, errors, installed, kernels, machine, models, products, report, runner = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "child",
        "__main__",
        "compare",
        "engines",
        "errors",
        "installed",
        "kernels",
        "machine",
        "models",
        "products",
        "report",
        "runner",
    )
)
statistics, worker, workloads = (
    importlib.import_module(f"benchmarks.{name}") for name in ("statistics", "worker", "workloads")
)

NUMPY, NUMBA, TORCH, ONNX, VINO, INT8, *REDUCED = (engine.name for engine in engines.ENGINES)
OURS = engines.ENGINES[0]
