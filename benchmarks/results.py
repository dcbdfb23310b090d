"""The file of results, which later measurements on the same machine add to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from npprelnorm.files import read_json

from .errors import BenchmarkError
from .machine import setup

RESULT_BYTES = 64 << 20


def load_results(path: Path, threads: int, order: Sequence[str], *, report: bool) -> dict[str, Any]:
    """What was measured before with the same set-up, rows in the given order; an empty table if nothing was.

    Raises
    ------
    BenchmarkError
        If it was another set-up, or if there is nothing of which a `report` could be made.
    """
    if report:
        if not path.exists():
            raise BenchmarkError(f"{path} does not exist; run without --report first")
        return _in_order(read_json(path, max_bytes=RESULT_BYTES), order)
    now = setup(threads)
    if not path.exists():
        return {"setup": now, "rows": {}}
    before = read_json(path, max_bytes=RESULT_BYTES)
    if before["setup"] != now:
        changed = sorted(key for key in now if before["setup"].get(key) != now[key])
        raise BenchmarkError(
            f"{path} was measured with another {', '.join(changed)}; rows are only comparable on one set-up: "
            "move the file away, or name another --work"
        )
    return _in_order(before, order)


def put_row(results: dict[str, Any], name: str, row: Mapping[str, Any], order: Sequence[str]) -> None:
    """Add a row at its place in the order, whatever was measured when."""
    results["rows"][name] = row
    _in_order(results, order)


def _in_order(results: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """Rows as the list has them: a file has its keys sorted. What is no more in the list is left out."""
    results["rows"] = {name: results["rows"][name] for name in order if name in results["rows"]}
    return results


def matching(patterns: Sequence[str] | None, names: Sequence[str], kind: str) -> list[str]:
    """The names that any of the patterns fits, large and small letters being the same; all without patterns.

    Raises
    ------
    BenchmarkError
        For a pattern that fits none.
    """
    for pattern in patterns or ():
        if not any(fnmatch(name.lower(), pattern.lower()) for name in names):
            raise BenchmarkError(f"no {kind} is called {pattern!r}; there are: {', '.join(names)}")
    return [n for n in names if not patterns or any(fnmatch(n.lower(), p.lower()) for p in patterns)]
