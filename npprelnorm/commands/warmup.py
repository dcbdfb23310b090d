"""`npprelnorm warmup`: compile the Numba kernels ahead of their first use."""

from __future__ import annotations

import argparse
import sys
import time

from ..errors import BackendWarning, NpprelnormError

SUMMARY = "compile the Numba kernels now, so that no later process has to"
DESCRIPTION = """\
Compile the Numba kernels for this processor, compare their numbers with the reference's, and keep the machine code on
disk, where later processes find it: in the folder NUMBA_CACHE_DIR if it is set, or else beside the package, or else in
the user's cache. Without this, the first process that has enough work does it by itself, in ten seconds or more."""
EXAMPLES = """\
examples:
  npprelnorm warmup
  NUMBA_CACHE_DIR=/var/cache/kernels npprelnorm warmup"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command: none."""


def run(args: argparse.Namespace) -> int:
    """Compile, or load what was compiled, and say where it lies."""
    import warnings

    from .. import backend

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error", BackendWarning)  # here they are what was asked about
        try:
            kernels = backend.load_kernels() and backend.load_twins()
        except BackendWarning as warning:
            raise NpprelnormError(str(warning)) from None
    if kernels is None:
        raise NpprelnormError("the Numba kernels cannot be used here; `pip install numba` installs Numba")
    seconds = time.perf_counter() - start
    from ..kernels.cache_folder import cache_folder

    sys.stdout.write(f"kernels ready after {seconds:.1f} s, kept in {cache_folder()}\n")
    return 0
