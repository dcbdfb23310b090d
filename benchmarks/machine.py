"""What a measurement depends on: the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

DISTRIBUTIONS = (
    "npprelnorm",
    "numpy",
    "numba",
    "tokenizers",
    "safetensors",
    "torch",
    "transformers",
    "onnxruntime",
    "openvino",
)
EXTENSIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd")

BUSY = 0.1  # share of the processors in other use from which figures are marked


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def setup(threads: int) -> dict[str, Any]:
    """The machine, the versions and the number of threads, for the results file."""
    described = _processor()
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "processor": described.get("model name") or platform.processor() or platform.machine(),
        "extensions": [name for name in EXTENSIONS if name in described.get("flags", "").split()],
        "cores": cores(),
        "threads": threads,
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of what is installed among the packages that matter; our own even where it is not installed."""
    from npprelnorm import __version__

    result = {}
    for name in DISTRIBUTIONS:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"npprelnorm": __version__} | result


def busy(seconds: float = 1.0) -> float | None:
    """Share of the processors' time that is in use now, by others if we wait; None where the system does not tell."""
    before = _processor_times()
    time.sleep(seconds)
    after = _processor_times()
    if before is None or after is None or after[1] == before[1]:
        return None
    return 1.0 - (after[0] - before[0]) / (after[1] - before[1])


def _processor_times() -> tuple[int, int] | None:
    """Idle time and all time since the start of the machine, in ticks."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    ticks = [int(field) for field in first.split()[1:9]]  # user, nice, system, idle, waiting for a disk, ..., stolen
    return ticks[3] + ticks[4], sum(ticks)


def _processor() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().replace("Features", "flags"), value.strip())
    return fields


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
