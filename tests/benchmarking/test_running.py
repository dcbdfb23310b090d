"""The benchmarks' child processes, and a run on a toy model with this package alone. Nothing is timed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_modules import NUMPY, ONNX, OURS, ROOT, TORCH, child, command, engines, runner, statistics, workloads


def test_a_worker_imports_nothing_before_its_engine() -> None:
    code = "import sys, benchmarks.worker; print(*{'numpy', 'torch', 'npprelnorm', 'tokenizers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_children_get_equal_threads_and_no_network() -> None:
    variables = child.environment(3, {"NPPRELNORM_BACKEND": "numpy"})
    assert {variables[name] for name in child.THREAD_VARIABLES} == {"3"}
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["NPPRELNORM_BACKEND"] == "numpy"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting: what these tests look at is not how long anything takes."""
    monkeypatch.setattr(runner, "busy", lambda: 0.0)
    monkeypatch.setattr(runner, "PAUSE", 0.0)
    monkeypatch.setattr(runner, "TURN", 0.01)


def plan(folder: Path, *chosen: Any, rounds: int = 1, timeout: float = 60.0) -> Any:
    return runner.Plan(list(chosen), rounds, 1, folder, timeout, lambda text: None)


@pytest.mark.usefixtures("short")
def test_an_engine_that_cannot_take_part_is_named_with_the_reason(tmp_path: Path) -> None:
    absent = dataclasses.replace(OURS, name="absent", packages=("npprelnorm", "no_such_package"))
    unable = dataclasses.replace(OURS, name="unable", tasks=("train",))
    broken = dataclasses.replace(OURS, name="broken", module="no_such_module")
    workload = workloads.workloads(quick=True)[0]
    for measure in ("time", "cold"):
        one = dataclasses.replace(workload, measure=measure)
        row = runner.measure(one, plan(tmp_path, absent, unable, broken, OURS))
        assert row["problems"]["absent"] == "not installed: no_such_package"
        assert row["problems"]["unable"] == "cannot fill-mask"
        assert row["problems"]["broken"].startswith("ended with exit code 1: ModuleNotFoundError")
        assert list(row["samples"]) == [NUMPY]


@pytest.mark.usefixtures("short")
def test_an_engine_that_does_not_answer_is_killed(tmp_path: Path) -> None:
    row = runner.measure(workloads.workloads(quick=True)[0], plan(tmp_path, OURS, timeout=0.01))
    assert row["problems"] == {NUMPY: "no answer within 0.01 s"}
    assert row["samples"] == {}


def test_engines_take_turns_and_begin_by_turns(tmp_path: Path) -> None:
    three = [engine for engine in engines.ENGINES if engine.name in (NUMPY, TORCH, ONNX)]
    row = runner._Row(workloads.workloads(quick=True)[0], plan(tmp_path, *three, rounds=3))
    row.folders = dict.fromkeys((NUMPY, TORCH, ONNX), tmp_path)
    turns = [(engine.name, number) for engine, number in row._turns()]
    assert [[name for name, number in turns if number == n] for n in range(4)] == [
        [TORCH, NUMPY, ONNX],  # the one to compare with comes first where answers are checked
        [NUMPY, ONNX, TORCH],
        [ONNX, TORCH, NUMPY],
        [TORCH, NUMPY, ONNX],
    ]


@pytest.mark.skipif(child.private_bytes(child.os.getpid()) is None, reason="this system does not tell private memory")
def test_private_memory_is_seen_to_grow() -> None:
    with child.PeakMemory(child.os.getpid()) as watch:
        before = child.private_bytes(child.os.getpid())
        held = np.ones(8 << 20)  # 64 MiB
        after = child.private_bytes(child.os.getpid())
        limit = child.time.monotonic() + 20.0  # it looks rarely where a look takes long
        while watch.peak < before + (60 << 20) and child.time.monotonic() < limit:
            child.time.sleep(0.02)
    assert 60 << 20 < after - before < 70 << 20
    assert watch.peak >= before + (60 << 20)
    assert held[0] == 1.0


@pytest.mark.usefixtures("short")
def test_a_run_with_this_package_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--quick", "--work", str(tmp_path), "--threads", "1", "--engines", "*(numpy)", "--growth"]
    assert (
        command.main(
            [
                *base,
                "--rounds",
                "1",
                "--only",
                "fill-mask-1x12",
                "classify-ragged",
                "cold-memory",
                "train-*",
                "generate",
            ]
        )
        == 0
    )
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    assert set(rows) == {
        "fill-mask-1x12",
        "classify-ragged",
        "generate",
        "cold-memory",
        "train-2x24",
        "train-dropout-2x24",
        "train-memory",
        "train-memory-recompute",
    }
    for name, row in rows.items():
        assert row["problems"] == {}, name
        assert row["reference"] == NUMPY
        (samples,) = row["samples"][NUMPY]
        assert samples, name
        assert all(0 < sample < 1e4 for sample in samples), name
        assert row["summary"][NUMPY]["median"] == statistics.middle([samples])
        assert row["unit"] == ("MB" if "memory" in name else "s")
    assert results["setup"]["threads"] == 1
    assert results["setup"]["versions"]["numpy"] == np.__version__
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert all(f"| {row['title']} |" in text for row in rows.values())
    assert text in capsys.readouterr().out

    # other rows join those that are there
    assert command.main([*base, "--rounds", "2", "--only", "growth-position-40"]) == 0
    more = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert more["rows"] == rows | {"growth-position-40": more["rows"]["growth-position-40"]}
    assert len(more["rows"]["growth-position-40"]["samples"][NUMPY]) == 2
    assert "## Growth" in (tmp_path / "results.md").read_text(encoding="utf-8")

    # but not those of another set-up
    kept = (tmp_path / "results.json").read_bytes()
    assert command.main([*base, "--only", "growth-position-40", "--threads", "2"]) == 1
    assert "another threads" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nonsense"], "no workload is called 'nonsense'; there are: fill-mask-1x12, "),
        (
            ["--engines", "nonsense"],
            "no engine is called 'nonsense'; there are: npprelnorm (NumPy), npprelnorm (Numba), ",
        ),
        (["--report"], "results.json does not exist"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--quick", "--work", str(tmp_path), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_list_names_every_workload_and_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--growth"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    names = [*(workload.name for workload in workloads.workloads()), *(engine.name for engine in engines.ENGINES)]
    for name in (*names, "kernels"):
        assert any(line.startswith(f"{name}  ") for line in lines), f"{name} is not there, or too long for its column"
