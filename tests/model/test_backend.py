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
    for name, value in {
        "_chosen": None, "_kernels": None, "_failed": False, "_done": 0.0, "_threads": None,
        "_twins": None, "_twins_failed": False, "_trained": 0.0,
    }.items():  # fmt: skip
        monkeypatch.setattr(backend, name, value)
    for name in ("NPPRELNORM_BACKEND", "NPPRELNORM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


KERNELS: Any = SimpleNamespace(prepare=lambda: None)


def stand_in(monkeypatch: pytest.MonkeyPatch, kernels: Any = KERNELS) -> None:
    # for this module alone: the package itself imports its parts on first use
    monkeypatch.setattr(backend, "importlib", SimpleNamespace(import_module=lambda *_: kernels))


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
    monkeypatch.setattr(backend, "_compiled", lambda *kernels: compiled)
    assert backend.kernels_for(0.4 * price) is None
    assert backend.kernels_for(0.4 * price) is None
    assert backend.kernels_for(0.4 * price) is KERNELS
    assert backend.kernels_for(1.0) is KERNELS


def test_auto_takes_a_large_call_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(backend, "_compiled", lambda *kernels: False)
    assert backend.kernels_for(backend.COMPILING) is KERNELS


def test_kernels_in_use_are_those_that_compute_already(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    assert backend.kernels_in_use() is None
    with nl.use_backend("numba"):
        assert backend.kernels_in_use() is KERNELS
    assert backend.kernels_in_use() is KERNELS
    with nl.use_backend("numpy"):
        assert backend.kernels_in_use() is None
    monkeypatch.setattr(backend, "_failed", True)
    assert backend.kernels_in_use() is None


def test_a_cache_that_lacks_any_kernel_of_the_forward_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    for lacking in ("run_encoder", "run_dots", "run_top_k"):
        monkeypatch.setattr(backend, "_compiled", lambda *kernels, lacking=lacking: lacking not in kernels)
        monkeypatch.setattr(backend, "_done", 0.0)
        assert backend.kernels_for(1.1 * backend.LOADING) is None


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


def test_twins_by_name_at_once_and_never(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    with nl.use_backend("numpy"):
        backend.count_training(1e18)
        assert backend.twins_in_use() is None
    assert backend.twins_in_use() is None
    with nl.use_backend("numba"):
        assert backend.twins_in_use() is KERNELS
    assert backend.twins_in_use() is KERNELS
    with nl.use_backend("numpy"):
        assert backend.twins_in_use() is None


@pytest.mark.parametrize(("compiled", "price"), [(True, backend.LOADING), (False, backend.COMPILING)])
def test_auto_takes_twins_when_training_has_done_as_much(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, price: float
) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(backend, "_compiled", lambda *kernels: compiled)
    for _ in range(2):
        backend.count_training(0.4 * price)
        assert backend.twins_in_use() is None
    backend.count_training(0.4 * price)
    assert backend.twins_in_use() is KERNELS


def test_twins_that_cannot_run_are_named_once_and_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, package: str) -> Any:
        return KERNELS if name == ".kernels" else SimpleNamespace(prepare=broken)

    monkeypatch.setattr(backend.importlib, "import_module", load)
    with nl.use_backend("numba"):
        with pytest.warns(BackendWarning, match="kernels for training cannot be used"):
            assert backend.twins_in_use() is None
        assert backend.twins_in_use() is None
        assert backend.kernels_for(1.0) is KERNELS


def test_a_run_settles_for_one_backend_whatever_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(backend, "_compiled", lambda kernel: True)
    for before in (0.0, 1e18):
        backend.count_training(before)
        with backend.settled(0.9 * backend.COMPILING):
            assert backend.chosen_backend() == "numpy"
    with backend.settled(backend.COMPILING):
        assert backend.chosen_backend() == "numba"
    assert backend.chosen_backend() == "auto"
    for name in ("numpy", "numba"):
        with backend.use_backend(name), backend.settled(1.0):
            assert backend.chosen_backend() == name


def test_a_run_settles_for_the_reference_where_numba_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, SimpleNamespace(prepare=broken))
    with backend.settled(1e18):
        assert backend.chosen_backend() == "numpy"


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
