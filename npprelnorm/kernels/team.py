"""A few threads that run one kernel together, and how they share its work.

A kernel that a team runs is one long function without the interpreter's lock. Its work is cut into stages, and each
stage into tasks that whoever is free takes next; a stage is over when its last task is done, not when every thread has
come by. So a thread that wakes late, or that the system takes its processor from, holds up one task at most. What a
task computes never depends on who runs it, so that results are bit-identical whatever the number of threads.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .compiling import inline, part
from .primitives import fetch, fetch_add, integers, pause, yield_processor

# Counters of a stage, each on a cache line of its own (two lines, which some processors fetch together).
_STRIDE = 16
_SMALL = 1 << 17  # numbers that one thread is through with before another is awake
_PATIENCE = 2000  # looks at a counter before the processor is offered to another thread


def counters(stages: int) -> np.ndarray:
    """Zeroed counters for `stages` stages of one run; a kernel gets their address."""
    return np.zeros(2 * _STRIDE * stages, np.int64)


@inline
def take(counters: Any, stage: int) -> Any:
    """The number of a task of this stage that nobody has taken yet; there may be none of that number."""
    return fetch_add(counters, 2 * _STRIDE * stage, 1)


@inline
def hand_in(counters: Any, stage: int) -> None:
    """Count one task of this stage as done."""
    fetch_add(counters, 2 * _STRIDE * stage + _STRIDE, 1)


@part
def wait(counters: Any, stage: int, tasks: int) -> None:
    """Return when all tasks of this stage are done; what they wrote can be read then."""
    looks = 0
    while fetch(counters, 2 * _STRIDE * stage + _STRIDE) < tasks:
        looks += 1
        if looks > _PATIENCE:
            yield_processor()
        else:
            pause()


@inline
def stages_at(address: int, stages: int) -> Any:
    """The counters whose address a kernel was given."""
    return integers(address, 2 * _STRIDE * stages)


class Team:
    """Threads that wait for work; the caller of `run` is one of them.

    Parameters
    ----------
    size : int
        Threads, the caller included.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._busy = _thread.allocate_lock()
        self._task: Callable[[int], None] | None = None
        self._errors: list[BaseException] = []
        self._go = [_thread.allocate_lock() for _ in range(1, size)]
        self._done = [_thread.allocate_lock() for _ in range(1, size)]
        for lock in (*self._go, *self._done):
            lock.acquire()
        for index in range(1, size):
            threading.Thread(target=self._serve, args=(index,), name=f"npprelnorm-{index}", daemon=True).start()

    def run(self, task: Callable[[int], None]) -> None:
        """Call ``task(thread)`` in each thread, from 0 (the caller) on, and return when all have returned.

        `task` must be complete whoever takes part: where the team is busy with another caller's task, this one runs
        in the caller's thread alone, and a member that has not woken by the time the caller is through stays asleep.
        """
        if not self._busy.acquire(blocking=False):
            task(0)
            return
        self._task, self._errors = task, []
        rested = False
        try:
            for go in self._go:
                go.release()
            try:
                task(0)
            finally:
                for go, done in zip(self._go, self._done, strict=True):
                    if not go.acquire(blocking=False):  # it has woken: its part of the task is under way, or over
                        done.acquire()
                rested = True
        finally:
            if rested:
                self._task = None
                self._busy.release()
            else:  # interrupted while members were at work: they are left to finish, and nobody calls them again
                _forget_team(self)
        if self._errors:
            raise self._errors[0]

    def dismiss(self) -> None:
        """End the threads, once the present task is over; `run` works in its caller's thread from then on."""
        self._busy.acquire()
        self._task = None
        for go in self._go:
            go.release()

    def _serve(self, index: int) -> None:
        go, done = self._go[index - 1], self._done[index - 1]
        while True:
            go.acquire()
            try:
                task = self._task
                if task is None:
                    return
                task(index)
                del task
            except BaseException as error:
                self._errors.append(error)
            finally:
                done.release()


_team: Team | None = None
_team_lock = threading.Lock()


def team(size: int) -> Team:
    """The process's team of that size: made when it is first needed, and anew after a fork or a change of size."""
    global _team
    with _team_lock:
        if _team is not None and _team.size != size:
            _team.dismiss()
            _team = None
        if _team is None:
            _team = Team(size)
        return _team


def spread(task: Callable[[int], None], work: int, threads: int) -> None:
    """Run a task by a team, where its work (numbers that it touches) is worth waking one."""
    if threads > 1 and work > _SMALL:
        team(threads).run(task)
    else:
        task(0)


def _forget_team(broken: Team) -> None:
    global _team
    with _team_lock:
        if _team is broken:
            _team = None


def _after_fork() -> None:
    """A forked child has its parent's memory, but not its threads."""
    global _team, _team_lock
    _team, _team_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
