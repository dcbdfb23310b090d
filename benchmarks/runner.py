"""Measuring one workload: every engine checked, then all of them in turn, round after round."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import models
from .child import ROOT, Child, PeakMemory, environment, private_bytes
from .compare import Answers, difference, same_candidates
from .engines import NUMPY, TORCH, Engine, missing_packages
from .errors import BenchmarkError
from .machine import BUSY, busy
from .statistics import summary
from .workloads import Workload

REFERENCES = (TORCH, NUMPY)  # what the answers are compared with: the first of these that is there
PAUSE = 0.1  # seconds before a turn, in which the threads of the engine before stop spinning
TURN = 0.5  # seconds of calls in a turn, where one call takes less


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    engines: list[Engine]
    rounds: int
    threads: int
    work: Path
    timeout: float
    say: Callable[[str], None]


def measure(workload: Workload, plan: Plan) -> dict[str, Any]:
    """One row of the results: samples of each engine, its error, and why an engine has none."""
    row = _Row(workload, plan)
    started = datetime.datetime.now(datetime.timezone.utc)
    row.prepare()
    others = busy()
    if others is not None and others > BUSY:
        plan.say(f"  other work takes {others:.0%} of this machine: the figures will be poor")
    if workload.measure == "time":
        row.warm()
    else:
        row.cold()
    return {
        "title": workload.title,
        "group": workload.group,
        "unit": "MB" if workload.measure == "memory" else "s",
        "date": started.isoformat(timespec="seconds"),
        "busy_before": others,
        "reference": row.reference_name,
        "samples": row.samples,
        "errors": row.errors,
        "problems": row.problems,
        "summary": summary(row.samples),
    }


class _Row:
    def __init__(self, workload: Workload, plan: Plan) -> None:
        self.workload, self.plan = workload, plan
        self.samples: dict[str, list[list[float]]] = {}
        self.errors: dict[str, float] = {}
        self.problems: dict[str, str] = {}
        self.folders: dict[str, Path] = {}
        self.reference_name: str | None = None
        self._reference: Answers = []

    def _problem(self, engine: Engine, reason: str) -> None:
        self.problems[engine.name] = reason
        self.samples.pop(engine.name, None)
        self.plan.say(f"  {engine.name}: {reason}")

    def prepare(self) -> None:
        """Make the models; note the engines that cannot take part, and why."""
        workload, work = self.workload, self.plan.work
        source = models.checkpoint(work, workload.size, workload.task)
        self.inputs = models.inputs(workload, source)
        for engine in self.plan.engines:
            missing = missing_packages(engine)
            if workload.task not in engine.tasks:
                self.problems[engine.name] = f"cannot {workload.task}"
            elif missing:
                self._problem(engine, f"not installed: {', '.join(missing)}")
            else:
                try:
                    self.folders[engine.name] = _model(engine, source, workload.task)
                except BenchmarkError as error:
                    self._problem(engine, f"no model: {error}")

    def _engines(self) -> list[Engine]:
        """Those that still take part; the one to compare with first."""
        engines = [engine for engine in self.plan.engines if engine.name in self.folders]
        engines = [engine for engine in engines if engine.name not in self.problems]
        order = {name: place for place, name in enumerate(REFERENCES)}
        return sorted(engines, key=lambda engine: order.get(engine.name, len(order)))

    def _start(self, engine: Engine) -> Child:
        folder, plan = self.folders[engine.name], self.plan
        return Child(engine, self.workload, folder, threads=plan.threads, timeout=plan.timeout)

    def _check(self, engine: Engine, answers: Answers) -> None:
        if self.reference_name is None:
            self.reference_name, self._reference = engine.name, answers
        tolerance = self.workload.tolerance
        error = difference(answers, self._reference)
        self.errors[engine.name] = max(error, self.errors.get(engine.name, 0.0))
        if not engine.exact:
            return
        if error > tolerance:
            raise BenchmarkError(f"differs from {self.reference_name} by {error:.1e}, more than {tolerance:g}")
        if not same_candidates(answers, self._reference, tolerance):
            raise BenchmarkError(f"finds other tokens than {self.reference_name}")

    @contextlib.contextmanager
    def _excluding(self, engine: Engine) -> Iterator[None]:
        """What goes wrong inside ends this engine's part in the row, and nothing else."""
        try:
            yield
        except BenchmarkError as error:
            self._problem(engine, str(error))

    def warm(self) -> None:
        """Durations of calls, in processes that stay."""
        with contextlib.ExitStack() as stack:
            children: dict[str, Child] = {}
            for engine in self._engines():
                child = stack.enter_context(self._start(engine))
                with self._excluding(engine):
                    child.ready()
                    self._check(engine, child.answers(self.inputs, self.workload.calls))
                    children[engine.name] = child
            for engine, number in self._turns():
                with self._excluding(engine):
                    time.sleep(PAUSE)
                    seconds = children[engine.name].turn(TURN if number else 0.0)  # a first call to warm up
                    if number:
                        self.samples.setdefault(engine.name, []).append(seconds)

    def cold(self) -> None:
        """Seconds to the first answer, or peak memory, of a new process each time."""
        memory = self.workload.measure == "memory"
        if memory and private_bytes(os.getpid()) is None:
            raise BenchmarkError("this system does not tell a process's private memory (no /proc/.../smaps_rollup)")
        for engine, number in self._turns():
            with self._excluding(engine), self._start(engine) as child:
                with PeakMemory(child.pid) if memory else contextlib.nullcontext() as watch:
                    child.ready()
                    answers = child.answers(self.inputs, self.workload.calls)
                    seconds = time.perf_counter() - child.started
                self._check(engine, answers)
                if number:  # the first has read the files into the system's cache
                    self.samples.setdefault(engine.name, []).append([watch.peak / 1e6 if watch else seconds])

    def _turns(self) -> Iterator[tuple[Engine, int]]:
        """Each engine once in each round, another one first each time; round 0 warms up, and does not count."""
        for number in range(self.workload.measure == "memory", self.plan.rounds + 1):
            engines = self._engines()
            if not engines:
                return
            first = number % len(engines) if number else 0
            for engine in engines[first:] + engines[:first]:
                yield engine, number


def _model(engine: Engine, source: Path, task: str) -> Path:
    """The folder that this engine loads; exported if need be."""
    if engine.model == "checkpoint":
        return source
    onnx = _exported(source, source.with_name(f"{source.name}-{task}-onnx"), task, "float32")
    if engine.model == "onnx":
        return onnx
    return _exported(onnx, onnx.with_name(f"{onnx.name}-int8"), task, "int8")


def _exported(source: Path, target: Path, task: str, kind: str) -> Path:
    made = source / ("benchmark.json" if kind == "float32" else "model.onnx")
    if target.exists() and (target / "model.onnx").stat().st_mtime >= made.stat().st_mtime:
        return target
    shutil.rmtree(target, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.export", task, str(source), str(target), kind],
        cwd=ROOT,
        env=environment(threads=1),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise BenchmarkError(f"the export as ONNX failed: {lines[-1].strip()[:200] if lines else 'no message'}")
    return target
