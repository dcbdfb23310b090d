"""Read mutated files by the hundred thousand; anything but acceptance or one of our errors is a failure.

    python tools/fuzz.py                                        100,000 cases of each format
    python tools/fuzz.py bin --cases 5000 --seed 7              fewer, of one format, others than usual
    python tools/fuzz.py bin --seed 7 --case 1234               one case again, with its traceback, in this process

The cases run in a child process under a memory limit, so that a blow-up, a crash of the interpreter and a hang are
failures like any other: they are reported with the case that caused them, and the run goes on behind it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import fuzzing  # noqa: E402  (it lives in tests/)

MEMORY_BYTES = 512 << 20  # above what the process has when it starts; the files are of a few kilobytes
HANG_SECONDS = 30
MAX_FAILURES = 20


def main() -> int:
    parser = argparse.ArgumentParser(description="Read mutated files; only our own errors may come out.")
    parser.add_argument("formats", nargs="*", help=f"any of {', '.join(fuzzing.FORMATS)}; all if none is named")
    parser.add_argument("--cases", type=int, default=100_000, help="cases of each format (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other cases (default 0)")
    parser.add_argument("--seconds", type=float, help="stop each format after this time")
    parser.add_argument("--case", type=int, help="run only this case, and show what comes out")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.formats) - fuzzing.FORMATS.keys())
    if unknown:
        parser.error(f"no format is called {unknown[0]!r}; there are {', '.join(fuzzing.FORMATS)}")
    formats = arguments.formats or list(fuzzing.FORMATS)
    failures = 0
    for name in formats:
        if arguments.case is not None:
            with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
                outcome = fuzzing.run_case(name, arguments.seed, arguments.case, Path(folder))
            print(f"{name}: {outcome.kind}\n{outcome.details}".strip())
            failures += outcome.kind == "FAILED"
        else:
            with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
                failures += fuzz(name, arguments.seed, arguments.cases, arguments.seconds, Path(folder))
    return 1 if failures else 0


def fuzz(name: str, seed: int, cases: int, seconds: float | None, folder: Path) -> int:
    """Run all cases of a format, print the counts, return the number of failures."""
    began = time.monotonic()
    deadline = None if seconds is None else began + seconds
    counts: collections.Counter[str] = collections.Counter()
    done = 0
    while done < cases and counts["FAILED"] < MAX_FAILURES and (deadline is None or time.monotonic() < deadline):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (name, seed, range(done, cases), folder, sender)
        child = multiprocessing.Process(target=work, args=arguments, daemon=True)
        child.start()
        sender.close()
        try:
            while done < cases and (deadline is None or time.monotonic() < deadline):
                if not receiver.poll(HANG_SECONDS):
                    outcome = fuzzing.Outcome("FAILED", f"no result within {HANG_SECONDS} seconds")
                else:
                    outcome = receiver.recv()
                counts[outcome.kind] += 1
                if outcome.kind == "FAILED":
                    report(name, seed, done, outcome.details)
                done += 1
                if outcome.kind == "FAILED":
                    break
        except EOFError:
            child.join()
            counts["FAILED"] += 1
            report(name, seed, done, f"the process ended with exit code {child.exitcode}")
            done += 1
        finally:
            child.kill()
            child.join()
            receiver.close()
    elapsed = time.monotonic() - began
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
    print(f"{name}: {done} cases, seed {seed}, {elapsed:.0f} s: {kinds}", flush=True)
    return counts["FAILED"]


def report(name: str, seed: int, number: int, details: str) -> None:
    print(
        f"{name}: FAILED, again with: python tools/fuzz.py {name} --seed {seed} --case {number}\n{details}", flush=True
    )


def work(name: str, seed: int, numbers: range, folder: Path, sender: Connection) -> None:
    """The child: send the outcome of each case."""
    limit_memory()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # Rust prints its panics, which are expected
    with contextlib.suppress(BrokenPipeError):  # the parent has seen enough
        for _, outcome in fuzzing.run_cases(name, seed, numbers, folder):
            sender.send(outcome)


def limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        used = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


if __name__ == "__main__":
    sys.exit(main())
