"""Deliberate bugs, one at a time, each of which a named test must notice.

    python tools/mutants.py                       all of tests/mutants.json
    python tools/mutants.py --sample 6 --seed 3   some of them, chosen by the seed
    python tools/mutants.py --only NAME           one (may be repeated)

An entry of tests/mutants.json is a bug: in `file` (below the package) the text `old`, which must occur exactly once,
becomes `new`, and the `tests` (pytest ids below tests/) must then fail, though they pass without it. Package and tests
are copied to a temporary folder for that; the work tree is never touched. Exit status 1 if a bug survives, if a test
fails without any, or if an entry no longer fits the code.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "npprelnorm"
LIST = Path("tests") / "mutants.json"
SECONDS = 300  # a bug that makes its test run longer than this counts as noticed

# A found bug need not be shrunk, and the same examples each time make the answer repeatable. The conftest of the
# tests loads the profile that HYPOTHESIS_PROFILE names; this plugin registers it before that.
PROFILE = """
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
"""


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path(PACKAGE) / self.file


def read_list(path: Path) -> list[Mutant]:
    """All entries, checked for names that occur twice."""
    entries = json.loads(path.read_text("utf-8"))
    mutants = [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
    names = [mutant.name for mutant in mutants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SystemExit(f"{path}: more than one mutant is named {', '.join(twice)}")
    return mutants


def misfits(mutants: list[Mutant], root: Path) -> list[str]:
    """What is wrong with entries, before anything is run."""
    problems = []
    for mutant in mutants:
        path = root / mutant.path
        count = path.read_text("utf-8").count(mutant.old) if path.is_file() else -1
        if count < 0:
            problems.append(f"{mutant.name}: there is no file {mutant.path}")
        elif count != 1:
            problems.append(f"{mutant.name}: its text occurs {count} times in {mutant.path}, not once: {mutant.old!r}")
        if mutant.old == mutant.new:
            problems.append(f"{mutant.name}: the replacement is the text itself")
        if not mutant.tests:
            problems.append(f"{mutant.name}: it names no test")
    return problems


def run_tests(folder: Path, tests: list[str], *options: str) -> tuple[int | None, str]:
    """pytest's exit status (None: out of time) and output, with the package and the tests of `folder`."""
    environment = os.environ | {
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTHONDONTWRITEBYTECODE": "1",  # bytecode is told apart by seconds and sizes, which two bugs may share
        "PYTHONPATH": str(folder),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mutants_profile", *options]
    command += [f"tests/{test}" for test in tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout.decode("utf-8", "replace")


def copy_tree(folder: Path) -> None:
    """Package, tests and settings; no bytecode, no example database."""
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis", ".pytest_cache")
    for name in (PACKAGE, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "mutants_profile.py").write_text(PROFILE, encoding="utf-8")


def judge(mutant: Mutant, folder: Path) -> str | None:
    """Put the bug in, run its tests, take it out again: None if they notice, or else what happened."""
    path = folder / mutant.path
    source = path.read_text("utf-8")
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        status, output = run_tests(folder, list(mutant.tests), "-x")
    finally:
        path.write_text(source, encoding="utf-8")
    if status is None or status == 1:
        return None
    if status == 0:
        return "survived"
    return f"its tests could not be run (pytest exit status {status}):\n{output}"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them")
    parser.add_argument("--seed", type=int, help="which N; by default other ones each time")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one; may be repeated")
    options = parser.parse_args()

    mutants = read_list(ROOT / LIST)
    problems = misfits(mutants, ROOT)
    if options.only:
        unknown = sorted(set(options.only) - {mutant.name for mutant in mutants})
        if unknown:
            parser.error(f"there is no mutant named {', '.join(unknown)}")
        mutants = [mutant for mutant in mutants if mutant.name in options.only]
    if options.sample is not None:
        if options.sample < 1:
            parser.error("--sample needs at least 1")
        seed = random.randrange(1 << 32) if options.seed is None else options.seed
        print(f"sample of {min(options.sample, len(mutants))} with --seed {seed}")
        mutants = random.Random(seed).sample(mutants, min(options.sample, len(mutants)))
    for problem in problems:
        print(f"does not fit: {problem}")
    if problems:
        return 1

    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        status, output = run_tests(folder, tests)
        if status != 0:
            print(f"without any bug {len(tests)} tests must pass, but pytest ended with status {status}:\n{output}")
            return 1
        print(f"{len(tests)} tests pass without a bug")
        failures = 0
        for mutant in mutants:
            start = time.perf_counter()
            verdict = judge(mutant, folder)
            failures += verdict is not None
            print(f"{verdict or 'killed':8s} {time.perf_counter() - start:5.1f} s  {mutant.name}", flush=True)
    print(f"{len(mutants) - failures} of {len(mutants)} killed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
