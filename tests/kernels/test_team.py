"""The team of threads: every task once, whoever comes late; concurrent callers, errors, forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm.errors import InputError
from npprelnorm.kernels.team import Team, team


def test_every_member_runs_the_task_once() -> None:
    crew, seen, together = Team(3), [], threading.Barrier(3, timeout=30)

    def task(thread: int) -> None:
        together.wait()
        seen.append((thread, threading.current_thread()))

    for _ in range(20):
        seen.clear()
        crew.run(task)
        assert sorted(thread for thread, _ in seen) == [0, 1, 2]
        assert len({who for _, who in seen}) == 3
    crew.dismiss()


def test_a_busy_team_leaves_a_caller_to_itself() -> None:
    crew, inner = Team(2), []
    crew.run(lambda thread: crew.run(inner.append) if thread == 0 else None)
    assert inner == [0]
    crew.dismiss()
    crew.run(inner.append)
    assert inner == [0, 0]


def test_an_error_in_any_thread_reaches_the_caller_and_the_team_lives_on() -> None:
    crew, together = Team(2), threading.Barrier(2, timeout=30)
    for bad in (0, 1):

        def task(thread: int) -> None:
            together.wait()
            if thread == bad:  # noqa: B023
                raise ValueError(f"from {thread}")

        with pytest.raises(ValueError, match=f"from {bad}"):
            crew.run(task)
    seen: list[int] = []
    crew.run(lambda thread: (together.wait(), seen.append(thread))[0] and None)
    assert sorted(seen) == [0, 1]
    crew.dismiss()


def test_dismissed_threads_end() -> None:
    crew = team(4)
    assert team(4) is crew
    other = team(2)
    assert other is not crew
    deadline = time.monotonic() + 30
    while sum(thread.name.startswith("npprelnorm-") for thread in threading.enumerate()) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_eight_threads_with_two_hundred_calls_each_get_the_serial_bits() -> None:
    model = random_model("ForMaskedLM", tiny_config(hidden_size=48, intermediate_size=64), 0, "float32")
    rng = np.random.default_rng(0)
    inputs = [rng.integers(3, 23, (int(rng.integers(1, 4)), int(rng.integers(1, 12)))) for _ in range(8)]
    masks = [np.ones_like(ids) for ids in inputs]
    wrong: list[str] = []
    with nl.use_backend("numba"):
        nl.set_threads(1)
        serial = [model.base(ids, mask).last_hidden_state for ids, mask in zip(inputs, masks, strict=True)]
        nl.set_threads(3)

        def call(mine: int) -> None:
            for turn in range(200):
                which = (mine + turn) % 8
                if not np.array_equal(model.base(inputs[which], masks[which]).last_hidden_state, serial[which]):
                    wrong.append(f"thread {mine}, call {turn}")

        callers = [threading.Thread(target=call, args=(index,)) for index in range(8)]
        try:
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
        finally:
            nl.set_threads(None)
    assert not wrong


FORKING = """
import os, sys, warnings
warnings.simplefilter("ignore")  # Python says that forking a process of several threads is a risk
import numpy as np, npprelnorm as nl
nl.use_backend("numba"); nl.set_threads(3)
config = nl.RobertaPreLayerNormConfig(vocab_size=40, hidden_size=48, num_hidden_layers=2, num_attention_heads=3,
                                      intermediate_size=64, max_position_embeddings=40)
model = nl.RobertaPreLayerNormModel(config)
ids = np.arange(3, 33)[None]
before = model.base(ids).last_hidden_state
child = os.fork()
if child == 0:
    same = all(np.array_equal(model.base(ids).last_hidden_state, before) for _ in range(20))
    os._exit(0 if same else 3)
_, status = os.waitpid(child, 0)
assert np.array_equal(model.base(ids).last_hidden_state, before)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_computes_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_numbers_of_threads() -> None:
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(InputError, match="whole number of at least 1"):
            nl.set_threads(bad)  # type: ignore[arg-type]
