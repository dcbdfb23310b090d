"""`npprelnorm pretrain` killed at random moments: the same command goes on, and ends with the same bits.

A few kills here; `make kills` asks for all 20 (NPPRELNORM_KILLS=20).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import npprelnorm

KILLS = int(os.environ.get("NPPRELNORM_KILLS", "3"))
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(npprelnorm.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
}
RESULT = ["config.json", "metrics.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def command(out: Path) -> list[str]:
    """A run of which tokenizer, packing, steps, evaluations and checkpoints each take a part worth a kill."""
    sizes = ["--hidden-size", "16", "--num-hidden-layers", "2", "--num-attention-heads", "2"]
    sizes += ["--intermediate-size", "24", "--sequence-length", "32", "--vocab-size", "500"]
    steps = ["--steps", "60", "--save-every", "3", "--eval-every", "10", "--log-every", "5", "--batch-size", "8"]
    text = ["--smallworld", "1500", "--whole-words", "--mask-rate", "0.15", "0.3"]
    return [sys.executable, "-m", "npprelnorm", "pretrain", "--out", str(out), *text, *sizes, *steps]


def start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(out), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_ends_with_the_same_parameters(tmp_path: Path) -> None:
    began = time.monotonic()
    with start(tmp_path / "whole") as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    seconds = time.monotonic() - began

    generator = random.Random(KILLS)
    killed, midway, rounds = 0, 0, 0
    out = tmp_path / "killed0"
    while killed < KILLS or not midway:
        rounds += 1
        assert rounds < 20 * KILLS, f"of {rounds} runs {killed} could be killed, {midway} of them with a checkpoint"
        with start(out) as process:
            try:
                # somewhere in a run of full length, so that what is left of one often ends before it
                process.wait(generator.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
        if process.returncode == -signal.SIGKILL:
            killed += 1
            midway += any(out.glob("checkpoints/step-*"))
            continue
        assert process.returncode == 0, errors
        assert_same(tmp_path / "whole", out)
        out = tmp_path / f"killed{rounds}"  # begin again
    with start(out) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert_same(tmp_path / "whole", out)


def assert_same(expected: Path, found: Path) -> None:
    for name in RESULT:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    lines = [without_seconds(folder / "metrics.jsonl") for folder in (expected, found)]
    assert lines[0] == lines[1]
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in expected.iterdir())


def without_seconds(log: Path) -> list[str]:
    """The lines of a log, but for how long a step took."""
    return [line.partition(', "seconds"')[0] for line in log.read_text().splitlines()]
