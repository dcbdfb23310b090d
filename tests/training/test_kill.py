"""A killed run: whenever it is killed, what is on disk is whole, and the same command ends with the same bits.

``NPPRELNORM_KILLS=20`` kills so often; by default it is less, so that the suite stays quick.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npprelnorm.checkpoint.safetensors_file import SafetensorsFile

KILLS = int(os.environ.get("NPPRELNORM_KILLS", "5"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed as POSIX has it")

# imports everything once, and forks a process for each run: to be killed while it trains, not while it imports
NURSERY = """
import os, sys
import npprelnorm.auto, npprelnorm.tokenizer, npprelnorm.training.loop, npprelnorm.training.tasks.classification
from npprelnorm.commands import main

for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(2, 1)  # what the command prints is no answer of ours
        os._exit(main([*sys.argv[1:], "--out", line.strip()]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Starts runs of one command in different folders."""

    def __init__(self, arguments: list[str], errors: Path) -> None:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.errors = open(errors, "wb")  # noqa: SIM115  # closed below
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=environment,
        )  # fmt: skip

    def run(self, folder: Path, seconds: float | None) -> int | None:
        """The exit code of a run, or None if it was killed after so many seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{folder}\n".encode())
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        finished, _, _ = select.select([self.process.stdout], [], [], 120.0 if seconds is None else seconds)
        if not finished:
            assert seconds is not None, "a run takes longer than two minutes"
            os.kill(child, signal.SIGKILL)
        code = int(self.process.stdout.readline())
        return None if code == -signal.SIGKILL else code

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        self.errors.close()


@pytest.fixture
def runs(tmp_path: Path, tiny_checkpoint: Path, write_lines: Callable[..., Path], examples: Any) -> Iterator[Runs]:
    files = [write_lines(f"{seed}.jsonl", examples("single", 48, seed)) for seed in (0, 1)]
    options = f"classification --train {files[0]} --eval {files[1]} --model {tiny_checkpoint} --epochs 8 --seed 3"
    options += " --learning-rate 0.02 --batch-size 8 --accumulate 2 --save-every 2 --eval-every 3 --log-every 1"
    started = Runs(["train", *options.split()], tmp_path / "errors")
    yield started
    started.close()


def tensors(path: Path) -> dict[str, np.ndarray]:
    file = SafetensorsFile(path)
    return {name: file.read(name) for name in file.names()}


def require_whole(folder: Path) -> int:
    """Everything that has its final name can be read to the end; returns the newest checkpoint's step."""
    newest = 0
    for item in [*folder.glob("*.json"), *folder.glob("checkpoints/*/*.json")]:
        if ".tmp" not in item.parent.name and not item.name.startswith("."):
            assert isinstance(json.loads(item.read_text(encoding="utf-8")), dict)
    for kind in ("step", "best"):
        for checkpoint in folder.glob(f"checkpoints/{kind}-*"):
            progress = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
            assert checkpoint.name == f"{kind}-{progress['step']:08d}"
            assert all(np.isfinite(value).all() for value in tensors(checkpoint / "model.safetensors").values())
            if kind == "step":
                moments = tensors(checkpoint / "optimizer.safetensors")
                assert {name.partition(".")[0] for name in moments} == {"mean", "square"}
                newest = max(newest, progress["step"])
    if (folder / "model.safetensors").exists():
        assert tensors(folder / "model.safetensors")
    return newest


def test_killed_runs_end_with_the_same_bits(runs: Runs, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    began = time.perf_counter()
    assert runs.run(whole, None) == 0, (tmp_path / "errors").read_text(encoding="utf-8")
    duration = time.perf_counter() - began
    expected = {name: (whole / name).read_bytes() for name in ("model.safetensors", "config.json", "metrics.json")}

    generator = random.Random(7)
    kills, attempt, midway, resumed = 0, 0, 0, False
    while kills < KILLS or resumed:
        folder = tmp_path / f"run-{attempt}"
        # a run that was resumed often enough is let finish
        patience = generator.uniform(0.0, 0.7 * duration) if kills < KILLS else None
        code = runs.run(folder, patience)
        if code is None:
            kills += 1
            resumed = True
            midway += 0 < require_whole(folder)
            continue
        assert code == 0, (tmp_path / "errors").read_text(encoding="utf-8")
        assert {name: (folder / name).read_bytes() for name in expected} == expected
        assert sorted(item.name for item in folder.iterdir()) == sorted(item.name for item in whole.iterdir())
        attempt += 1
        resumed = False
    assert attempt > 0
    assert midway > 0, "no run was killed after its first checkpoint, so that nothing was resumed"
