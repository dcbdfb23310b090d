"""Which backend runs. Nothing here needs Numba."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import npprelnorm as nl
from npprelnorm import backend
from npprelnorm.errors import BackendWarning, InputError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process whose environment says nothing."""
    for name, value in {"_chosen": None, "_kernels": None, "_failed": False, "_done": 0.0, "_threads": None}.items():
        monkeypatch.setattr(backend, name, value)
    for name in ("NPPRELNORM_BACKEND", "NPPRELNORM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


KERNELS: Any = SimpleNamespace(prepare=lambda: None)


def stand_in(monkeypatch: pytest.MonkeyPatch, kernels: Any = KERNELS) -> None:
    monkeypatch.setattr(backend.importlib, "import_module", lambda *_: kernels)


def test_choices_nest_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.chosen_backend() == "auto"
    monkeypatch.setenv("NPPRELNORM_BACKEND", "numpy")
    assert backend.chosen_backend() == "numpy"
    with nl.use_backend("numba"):
        assert backend.chosen_backend() == "numba"
        with nl.use_backend("auto"):
            assert backend.chosen_backend() == "auto"
        assert backend.chosen_backend() == "numba"
    assert backend.chosen_backend() == "numpy"
    nl.use_backend("numba")
    assert backend.chosen_backend() == "numba"


def test_wrong_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="the backend is 'cuda'; allowed: 'numpy', 'numba', 'auto'"):
        nl.use_backend("cuda")
    monkeypatch.setenv("NPPRELNORM_BACKEND", "fast")
    with pytest.raises(InputError, match="NPPRELNORM_BACKEND is 'fast'"):
        backend.kernels_for(1.0)


def test_by_name_at_once_and_never(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    with nl.use_backend("numpy"):
        assert backend.kernels_for(1e18) is None
    with nl.use_backend("numba"):
        assert backend.kernels_for(1.0) is KERNELS


@pytest.mark.parametrize(("compiled", "price"), [(True, backend.LOADING), (False, backend.COMPILING)])
def test_auto_changes_over_when_the_reference_has_done_as_much(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, price: float
) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(backend, "_compiled", lambda: compiled)
    assert backend.kernels_for(0.4 * price) is None
    assert backend.kernels_for(0.4 * price) is None
    assert backend.kernels_for(0.4 * price) is KERNELS
    assert backend.kernels_for(1.0) is KERNELS


def test_auto_takes_a_large_call_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(backend, "_compiled", lambda: False)
    assert backend.kernels_for(backend.COMPILING) is KERNELS


def broken() -> None:
    raise RuntimeError("no code for this\nprocessor")


def test_what_cannot_run_is_said_once_and_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, SimpleNamespace(prepare=broken))
    assert backend.kernels_for(1e18) is None  # "auto" says nothing
    monkeypatch.setattr(backend, "_failed", False)
    with nl.use_backend("numba"):
        with pytest.warns(BackendWarning, match=r"cannot be used \(RuntimeError: no code for this\); NumPy computes"):
            assert backend.kernels_for(1.0) is None
        assert backend.kernels_for(1.0) is None


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.threads() >= 1
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert backend.threads() == 3
    monkeypatch.setenv("NPPRELNORM_THREADS", "5")
    assert backend.threads() == 5
    nl.set_threads(2)
    assert backend.threads() == 2
    nl.set_threads(None)
    assert backend.threads() == 5
    monkeypatch.setenv("NPPRELNORM_THREADS", "many")
    with pytest.raises(InputError, match="NPPRELNORM_THREADS is 'many'; give a whole number"):
        backend.threads()
