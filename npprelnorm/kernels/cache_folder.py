"""Where compiled kernels are kept for the next process. This module does not need Numba, and does not import it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import warnings
from pathlib import Path

from ..errors import BackendWarning


@functools.cache
def cache_folder() -> Path | None:
    """The folder of this version's machine code, made if need be; None where none can be written, with a warning.

    It lies in the folder that the environment names (NUMBA_CACHE_DIR), or else beside this package, or else in the
    user's cache.
    """
    bases = _bases()
    for base in bases:
        if _writable(base / _name()):
            return base / _name()
    warnings.warn(
        f"compiled kernels cannot be kept, so each process compiles them anew: {', '.join(map(str, bases))} cannot be "
        "written to; set NUMBA_CACHE_DIR to a folder that can",
        BackendWarning,
        stacklevel=2,
    )
    return None


def is_compiled(kernel: str) -> bool:
    """Whether an earlier process has kept the machine code of the kernel (a function) of that name."""
    return any(next((base / _name()).glob(f"**/*.{kernel}-*.nbi"), None) is not None for base in _bases())


def _bases() -> list[Path]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return [Path(chosen)]
    bases = [Path(__file__).parent / "__pycache__"]
    user = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # a user without a home
        bases.append((Path(user) if user else Path.home() / ".cache") / "npprelnorm")
    return bases


@functools.cache
def _name() -> str:
    """A name that changes with all that machine code depends on.

    Numba itself looks at the file of the function that it is asked for, and not at those of the functions that are
    compiled into it.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for other in (importlib.metadata.version("numba"), sys.implementation.cache_tag, platform.machine()):
        digest.update(str(other).encode())
    return f"npprelnorm-{digest.hexdigest()[:16]}"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
