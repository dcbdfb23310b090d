"""The parent's side of a worker: starting it with equal threads, asking it, watching its memory, ending it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from .engines import Engine
from .errors import BenchmarkError
from .workloads import Workload

ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}


def environment(threads: int, extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of every child: as many threads for each library, and nothing from the network.

    Bytecode may be written: what pip installs has it, and a cold start of a source tree shall not do without.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **QUIET, **(extra or {})}


class Child:
    """One engine in a process of its own; a context manager that ends it.

    Parameters
    ----------
    engine : Engine
    workload : Workload
        Its task and options.
    folder : Path
        The model.
    threads : int
    timeout : float
        Seconds that an answer may take; after that the process is killed.

    Raises
    ------
    BenchmarkError
        From `ask`, when the process has ended or was killed; with the last line that it wrote.
    """

    def __init__(self, engine: Engine, workload: Workload, folder: Path, *, threads: int, timeout: float) -> None:
        self.name, self.timeout, self._timed_out = engine.name, timeout, False
        arguments = {
            "module": engine.module,
            "task": workload.task,
            "folder": str(folder),
            "threads": threads,
            "options": dict(workload.options),
        }
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed in close
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(arguments)],
            cwd=ROOT,
            env=environment(threads, dict(engine.environment)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ready(self) -> None:
        """Wait until the model is loaded."""
        self._reply()

    def answers(self, inputs: dict[str, Any], calls: int) -> list[dict[str, Any]]:
        """The answers of the first calls on these inputs, which later calls use again."""
        return list(self._ask({"inputs": inputs, "calls": calls})["answers"])

    def turn(self, seconds: float) -> list[float]:
        """Durations of the calls of one turn."""
        return list(self._ask({"seconds": seconds})["seconds"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failure() from None
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(self.timeout, self._kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise self._failure()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _kill(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _failure(self) -> BenchmarkError:
        code = self._end()
        if self._timed_out:
            return BenchmarkError(f"no answer within {self.timeout:g} s")
        self._log.seek(0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        return BenchmarkError(f"ended with exit code {code}: {lines[-1].strip()[:200] if lines else 'no message'}")

    def close(self) -> None:
        """End the process: by ending its input, or else by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # what was still to be written to a process that is gone
            self._process.stdin.close()
        self._end()
        self._process.stdout.close()
        self._log.close()

    def _end(self) -> int:
        """Wait for a process that has no reason to live on, not for ever; returns its exit code."""
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def private_bytes(pid: int) -> int | None:
    """Memory that only this process has, mapped files included; None where the system does not tell, or it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


class PeakMemory:
    """Context manager: the largest `private_bytes` of a process, looked up again and again."""

    def __init__(self, pid: int, every: float = 0.005) -> None:
        self.pid, self.every, self.peak = pid, every, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            self.peak = max(self.peak, private_bytes(self.pid) or 0)
            # looking through gigabytes takes milliseconds, which shall not slow the process down for long
            self._stop.wait(max(self.every, 4 * (time.perf_counter() - started)))

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
