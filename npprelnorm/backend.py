"""Which implementation runs: the NumPy reference, or the kernels in Numba; and on how many threads.

This module never imports Numba itself. It is asked by whoever has a fast path (`kernels_for`), and answers with the
package of kernels or with None, which means: the reference.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import warnings
from types import ModuleType, TracebackType
from typing import Any

from .errors import BackendWarning, InputError

BACKENDS = ("numpy", "numba", "auto")

# What it costs to change over to Numba, counted in floating-point operations that NumPy does in that time (it does
# some 50 to 100 thousand million a second): loading Numba and machine code from disk and packing the weights takes a
# second; compiling first takes forty more.
LOADING = 50e9
COMPILING = 2500e9

_lock = threading.RLock()
_chosen: str | None = None  # by `use_backend`; None: by the environment
_kernels: ModuleType | None = None
_failed = False  # Numba is missing or broken
_fallen_back: set[tuple[str, str]] = set()  # weight types, and why they are not used: each was told of once
_done = 0.0  # work done by the reference where Numba might have done it
_twins: ModuleType | None = None  # the kernels that training uses besides
_twins_failed = False
_trained = 0.0  # work of training done by the reference
_threads: int | None = None


class use_backend:
    """Choose what computes: a call for the whole process, or a ``with`` block that ends the choice again.

    Parameters
    ----------
    name : {"numpy", "numba", "auto"}
        "numpy": the reference. "numba": compiled kernels, wherever there are any for what is asked; without a
        working Numba the reference runs, with one warning. "auto" (the default): the reference until it has done as
        much work as getting the kernels ready costs, and the kernels from then on; a single large call changes over
        at once. The numbers of the two differ in their last digits.

    Raises
    ------
    InputError
        For another name.

    Notes
    -----
    Without a call, the environment variable NPPRELNORM_BACKEND decides. The choice holds for all threads.
    """

    def __init__(self, name: str) -> None:
        global _chosen
        _check(name, "the backend")
        with _lock:
            self._before, _chosen = _chosen, name

    def __enter__(self) -> use_backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _chosen
        _chosen = self._before


def _check(name: Any, what: str) -> None:
    if name not in BACKENDS:
        raise InputError(f"{what} is {name!r}; allowed: {', '.join(map(repr, BACKENDS))}")


def chosen_backend() -> str:
    """The name that `use_backend` or else NPPRELNORM_BACKEND chose; "auto" by default.

    Raises
    ------
    InputError
        If the environment variable holds another name.
    """
    if _chosen is not None:
        return _chosen
    name = os.environ.get("NPPRELNORM_BACKEND") or "auto"
    _check(name, "NPPRELNORM_BACKEND")
    return name


def kernels_for(work: float) -> ModuleType | None:
    """The kernels, if they are to do the work that the caller is about to do; None: the reference is to.

    Parameters
    ----------
    work : float
        Floating-point operations.
    """
    global _done
    _share_threads()
    name = chosen_backend()
    if name == "numpy" or _failed:
        return None
    if _kernels is None and name == "auto":
        with _lock:
            _done += work
        if _done < LOADING or (_done < COMPILING and not _compiled("run_encoder", "run_dots", "run_top_k")):
            return None
    return load_kernels(name == "numba")


def kernels_in_use() -> ModuleType | None:
    """The kernels, if they compute already or are wanted by name; None: the reference is to.

    For what is a part of a forward whose work `kernels_for` has been told of: with "auto" it never changes over.
    """
    _share_threads()
    name = chosen_backend()
    if name == "numpy" or _failed:
        return None
    return load_kernels(True) if _kernels is None and name == "numba" else _kernels


def count_training(work: float) -> None:
    """Say that a forward and backward of that many floating-point operations begins.

    With "auto" it decides, as `kernels_for` does for forwards, whether `twins_in_use` has any from now on.
    """
    global _trained
    _share_threads()
    if _twins is None and not _twins_failed and chosen_backend() == "auto":
        with _lock:
            _trained += work
        if _trained >= COMPILING or (_trained >= LOADING and _compiled("run_adamw")):
            load_twins(False)


def twins_in_use() -> ModuleType | None:
    """The kernels' twins of single ops, where they are to compute; None: the reference is to."""
    name = chosen_backend()
    if name == "numpy" or _twins_failed:
        return None
    return load_twins(True) if _twins is None and name == "numba" else _twins


def settled(work: float) -> use_backend:
    """A ``with`` block of training in which "auto" means one backend throughout, whatever the process did before.

    So a run that is taken up by another process goes on in the same numbers. The choice of a name is left alone.

    Parameters
    ----------
    work : float
        Floating-point operations of the whole run, the part that is over included.
    """
    name = chosen_backend()
    if name == "auto":
        name = "numba" if work >= COMPILING and load_twins(False) is not None else "numpy"
    return use_backend(name)


def load_twins(by_name: bool = True) -> ModuleType | None:
    """The kernels' twins of single ops, compiled and tried out, as `load_kernels` does with the rest."""
    global _twins, _twins_failed
    with _lock:
        if _twins is None and not _twins_failed:
            if load_kernels(by_name) is None:
                _twins_failed = True
                return None
            try:
                module = importlib.import_module(".kernels.training", __package__)
                module.prepare()
                _twins = module
            except Exception as error:
                _twins_failed = True
                if by_name:
                    _warn(error, "for training")
        return _twins


def _compiled(*kernels: str) -> bool:
    if importlib.util.find_spec("numba") is None:
        return False
    from .kernels.cache_folder import is_compiled

    return all(map(is_compiled, kernels))


def _warn(error: Exception, which: str = "") -> None:
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    warnings.warn(
        f"the Numba kernels {which + ' ' if which else ''}cannot be used ({reason}); NumPy computes instead. "
        "`pip install numba` installs Numba; use_backend('numpy') avoids this warning",
        BackendWarning,
        stacklevel=3,
    )


def load_kernels(by_name: bool = True) -> ModuleType | None:
    """The kernels, compiled and tried out; None if they cannot run here, with one warning if they are wanted by name.

    They are compared with the reference on a small example, so that a Numba that is missing, broken or wrong is never
    more than slow.
    """
    global _kernels, _failed
    with _lock:
        if _kernels is None and not _failed:
            try:
                module = importlib.import_module(".kernels", __package__)
                module.prepare()
                _kernels = module
            except Exception as error:
                _failed = True
                if by_name:
                    _warn(error)
        return _kernels


def reduced_kernels(weight_dtype: str) -> ModuleType | None:
    """The kernels, if they can store weights so; None, with one warning for each cause: weights are float32.

    Whoever asks for fewer bits asks for the kernels: with "auto" they are loaded at once, so that the numbers do not
    change along the way.
    """
    if chosen_backend() == "numpy":
        reason, remedy = "the backend is 'numpy'", "choose another with use_backend or NPPRELNORM_BACKEND"
    else:
        kernels = load_kernels(by_name=False)  # what is said below is enough
        if kernels is not None and weight_dtype in kernels.supported():
            return kernels
        if kernels is None:
            reason, remedy = "the Numba kernels cannot be used", "`npprelnorm warmup` says why"
        else:
            able = ", ".join(map(repr, sorted(kernels.supported())))
            reason, remedy = "this processor lacks the instruction", f"here there are {able}"
    with _lock:
        told = (weight_dtype, reason) in _fallen_back
        _fallen_back.add((weight_dtype, reason))
    if not told:
        warnings.warn(
            f"weight_dtype {weight_dtype!r} is not used, since {reason}: weights stay float32; {remedy}",
            BackendWarning,
            stacklevel=2,
        )
    return None


def set_threads(count: int | None) -> None:
    """How many threads compute, in the kernels and (where threadpoolctl is installed) in NumPy's products.

    Parameters
    ----------
    count : int, optional
        At least 1; None: as the environment says.

    Raises
    ------
    InputError
        For less than 1.

    Notes
    -----
    Without a call, the environment variable NPPRELNORM_THREADS decides; without it those of the BLAS libraries
    (OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, MKL_NUM_THREADS), so that both agree; without any, all processors that
    this process may use. Results do not depend on it.
    """
    global _threads
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"the number of threads is {count!r}; give a whole number of at least 1")
    _threads = count
    _limit_blas(threads())


def threads() -> int:
    """How many threads compute; see `set_threads`."""
    if _threads is not None:
        return _threads
    for name in ("NPPRELNORM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
        if value and name == "NPPRELNORM_THREADS":
            raise InputError(f"NPPRELNORM_THREADS is {value!r}; give a whole number of at least 1")
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_shared = False


def _share_threads() -> None:
    """Tell BLAS what NPPRELNORM_THREADS says, once; it has read its own variables by itself."""
    global _shared
    if not _shared:
        _shared = True
        if os.environ.get("NPPRELNORM_THREADS"):
            _limit_blas(threads())


def _limit_blas(count: int) -> None:
    try:
        import threadpoolctl
    except ImportError:
        return
    threadpoolctl.threadpool_limits(count, user_api="blas")
