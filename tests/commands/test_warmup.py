"""`npprelnorm warmup`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from npprelnorm import backend
from npprelnorm.commands import main


def test_without_numba_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'numba'")

    monkeypatch.setattr(backend, "_kernels", None)
    monkeypatch.setattr(backend, "_failed", False)
    monkeypatch.setattr(backend, "importlib", SimpleNamespace(import_module=missing))
    for _ in range(2):  # the reason is told once, but the failure every time
        assert main(["warmup"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("npprelnorm: error: the Numba kernels cannot be used")
        assert "`pip install numba`" in error
        assert error.count("\n") == 1


if importlib.util.find_spec("numba") is not None:

    def test_it_says_where_the_machine_code_is_kept() -> None:
        done = subprocess.run(
            [sys.executable, "-m", "npprelnorm", "warmup"],
            capture_output=True, text=True, check=True, env={**os.environ, "NPPRELNORM_BACKEND": "numpy"},
        )  # fmt: skip
        assert done.stdout.startswith("kernels ready after ")
        folder = Path(done.stdout.rstrip("\n").partition("kept in ")[2])
        for kernel in ("run_encoder", "run_adamw"):
            assert any(kernel in path.name for path in folder.rglob("*.nbi"))
