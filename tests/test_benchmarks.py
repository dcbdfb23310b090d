"""The benchmarks: their arithmetic and tables, and a run on a toy model with this package alone. Nothing is timed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # last, so that an installed npprelnorm stays the one that is tested

child, command, compare, engines, errors, installed, machine, models, report, runner, statistics, worker, workloads = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "child",
        "__main__",
        "compare",
        "engines",
        "errors",
        "installed",
        "machine",
        "models",
        "report",
        "runner",
        "statistics",
        "worker",
        "workloads",
    )
)

NUMPY, NUMBA, TORCH, ONNX, VINO, INT8, *REDUCED = (engine.name for engine in engines.ENGINES)
OURS = engines.ENGINES[0]


# arithmetic


def test_median_and_quartiles_are_of_all_samples() -> None:
    rounds = [[5.0, 1.0], [2.0], [4.0, 3.0]]
    assert statistics.middle(rounds) == 3.0
    assert statistics.quartiles(rounds) == (2.0, 4.0)
    assert statistics.quartiles([[1.0], [2.0]]) == (1.25, 1.75)
    assert statistics.quartiles([[7.0]]) == (7.0, 7.0)


def test_ratio_is_taken_within_each_round() -> None:
    own, peer = [[1.0, 1.0, 4.0], [10.0], [1.0]], [[3.0], [30.0, 30.0], [3.0]]  # the machine was slow in round 2
    assert statistics.ratio(peer, own) == 3.0
    assert statistics.ratio(own, peer) == pytest.approx(1 / 3)
    # two engines of which each was measured alone in a slow time: medians of everything would say 1
    assert statistics.ratio([[2.0], [20.0], [2.0]], [[1.0], [2.0], [20.0]]) == 2.0


def test_best_peer_is_neither_ours_nor_imprecise() -> None:
    samples = {NUMPY: [[1.0]], INT8: [[0.5]], TORCH: [[3.0]], ONNX: [[2.0]]}
    assert statistics.best_peer(samples) == ONNX
    assert statistics.best_peer({NUMPY: [[1.0]], INT8: [[0.5]]}) is None


def test_summary_has_both_ratios() -> None:
    figures = statistics.summary({NUMPY: [[1.0], [2.0]], TORCH: [[3.0], [6.0]], ONNX: [[1.5], [1.5]]})
    assert figures[NUMPY] == {
        "median": 1.5,
        "quartiles": [1.25, 1.75],
        "samples": 2,
        "to_torch": 3.0,
        "to_best_peer": 1.125,  # the mean of 1.5 and 0.75
    }
    assert figures[TORCH]["to_torch"] == 1.0
    alone = statistics.summary({NUMPY: [[1.0]]})[NUMPY]
    assert alone["to_torch"] is None
    assert alone["to_best_peer"] is None


def test_timed_calls_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0.0, 1000.0, 0.25).tolist())
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    assert worker.timed(lambda x: calls.append(x), {"x": 3}, 0.0) == [0.25]
    assert worker.timed(lambda x: calls.append(x), {"x": 3}, 0.6) == [0.25] * 3
    assert worker.timed(lambda x: calls.append(x), {"x": 3}, 1e9) == [0.25] * worker.MOST_CALLS
    assert calls == [3] * (4 + worker.MOST_CALLS)


# comparing answers


def test_difference_is_relative_to_the_largest_number() -> None:
    assert compare.difference([{"logits": [[1.0, -3.99]]}], [{"logits": [[1.0, -4.0]]}]) == pytest.approx(0.0025)
    assert compare.difference([{"loss": 2.0}, {"loss": 1.5}], [{"loss": 2.0}, {"loss": 1.0}]) == 0.25
    with pytest.raises(errors.BenchmarkError, match=r"shape \(1, 2\), the reference's \(2, 1\)"):
        compare.difference([{"logits": [[1.0, 2.0]]}], [{"logits": [[1.0], [2.0]]}])
    with pytest.raises(errors.BenchmarkError, match="not finite"):
        compare.difference([{"loss": float("nan")}], [{"loss": 1.0}])


def test_same_candidates_lets_ties_change_places() -> None:
    reference = [{"ids": [[4, 5, 6, 7]], "scores": [[0.4, 0.3, 0.3 - 1e-7, 0.1]]}]

    def same(*ids: int) -> bool:
        return compare.same_candidates([{"ids": [list(ids)]}], reference, 1e-4)

    assert same(4, 5, 6, 7)
    assert same(4, 6, 5, 7)
    assert same(4, 5, 6, 8)  # an equal score outside the list is possible
    assert not same(5, 4, 6, 7)
    assert not same(9, 5, 6, 7)
    assert not same(4, 5, 6)
    assert compare.same_candidates([{"loss": 1.0}], [{"loss": 1.0}], 1e-4)
    rows = [{"ids": [[4, 5], [6, 7]]}]  # without scores every token counts
    assert compare.same_candidates([{"ids": [[4, 5], [6, 7]]}], rows, 1e-4)
    assert not compare.same_candidates([{"ids": [[4, 5], [6, 8]]}], rows, 1e-4)
    assert compare.difference(rows, rows) == 0.0


def test_a_wrong_engine_is_excluded_and_an_imprecise_one_is_not(tmp_path: Path) -> None:
    by_name = {engine.name: engine for engine in engines.ENGINES}
    workload = workloads.workloads(quick=True)[1]
    row = runner._Row(workload, runner.Plan([], 1, 1, tmp_path, 1.0, lambda text: None))
    row._check(by_name[TORCH], [{"logits": [[1.0, 2.0]]}])
    row._check(by_name[NUMPY], [{"logits": [[1.0, 2.0001]]}])
    with pytest.raises(errors.BenchmarkError, match=r"differs from torch by 5\.0e-03, more than 0\.0001"):
        row._check(by_name[ONNX], [{"logits": [[1.0, 2.01]]}])
    row._check(by_name[INT8], [{"logits": [[1.0, 2.2]]}])
    assert row.reference_name == TORCH
    assert row.errors == pytest.approx({TORCH: 0.0, NUMPY: 5e-5, ONNX: 5e-3, INT8: 0.1})


# workloads and what goes through them


def test_quick_has_the_same_kinds_of_rows() -> None:
    full, quick = workloads.workloads(), workloads.workloads(quick=True)
    for every in (full, quick):
        assert len({one.name for one in every}) == len(every)
    kinds = [[(w.task, w.measure, w.group, w.tolerance) for w in ws if w.group != "growth"] for ws in (full, quick)]
    assert kinds[0] == kinds[1]
    assert {w.group for w in quick} == {"main", "training", "growth"}
    lengths = next(w for w in full if w.name == "classify-ragged").lengths
    assert (len(lengths), len(set(lengths)), min(lengths), max(lengths)) == (16, 16, 8, 256)
    assert list(lengths) != sorted(lengths)


def test_inputs_have_the_lengths_of_the_workload(tmp_path: Path) -> None:
    nl = importlib.import_module("npprelnorm")
    for workload in workloads.workloads(quick=True):
        folder = models.checkpoint(tmp_path, workload.size, workload.task)
        given = models.inputs(workload, folder)
        assert given == models.inputs(workload, folder)
        assert json.loads(json.dumps(given)) == given
        if workload.task == "fill-mask":
            ids = nl.Tokenizer.from_pretrained(folder)(given["texts"])["input_ids"]
            assert [len(row) for row in ids] == list(workload.lengths)
            assert all("<mask>" in text for text in given["texts"])
            continue
        ids, mask = np.array(given["input_ids"]), np.array(given["attention_mask"])
        assert mask.sum(1).tolist() == list(workload.lengths)
        assert ((ids == 1) == (mask == 0)).all()
        if workload.task == "train":
            labels = np.array(given["labels"])
            assert (labels != -100).any()
            assert ((ids == nl.Tokenizer.from_pretrained(folder).mask_token_id) == (labels != -100)).all()


def test_half_a_checkpoint_is_made_again(tmp_path: Path) -> None:
    folder = models.checkpoint(tmp_path, "toy", "classify")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "benchmark.json").unlink()
    (folder / "model.safetensors").write_bytes(weights[:100])
    assert models.checkpoint(tmp_path, "toy", "classify") == folder
    assert (folder / "model.safetensors").read_bytes() == weights
    before = (folder / "model.safetensors").stat().st_mtime_ns
    models.checkpoint(tmp_path, "toy", "classify")
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_an_old_checkpoint_does_not_pass_for_the_new_one_when_making_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.checkpoint(tmp_path, "toy", "classify")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(models, "SEED", models.SEED + 1)
    with monkeypatch.context() as inner:
        inner.setattr(models._CLASSES["classify"], "save_pretrained", full)
        with pytest.raises(OSError, match="no space"):
            models.checkpoint(tmp_path, "toy", "classify")
    monkeypatch.undo()
    before = (tmp_path / "toy-sequenceclassification" / "model.safetensors").stat().st_mtime_ns
    folder = models.checkpoint(tmp_path, "toy", "classify")
    assert (folder / "model.safetensors").stat().st_mtime_ns != before


# the child processes


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
        child.time.sleep(0.1)
    assert 60 << 20 < after - before < 70 << 20
    assert watch.peak >= before + (60 << 20)
    assert held[0] == 1.0


# a whole run


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
    assert all(w.name in out for w in workloads.workloads())
    assert all(engine.name in out for engine in engines.ENGINES)


# the report


def example_results() -> dict[str, Any]:
    samples = {NUMPY: [[0.05], [0.05]], TORCH: [[0.1], [0.1]], ONNX: [[0.04], [0.04]]}
    row = {"group": "main", "unit": "s", "date": "2026-01-02T03:04:05", "reference": TORCH, "busy_before": 0.02}
    timed = row | {
        "title": "classify, 1x12",
        "samples": samples,
        "summary": statistics.summary(samples),
        "errors": {NUMPY: 2e-6, TORCH: 0.0, ONNX: 1e-6},
        "problems": {VINO: "not installed: openvino"},
    }
    few = {NUMPY: [[1234.5]], TORCH: [[2469.0]]}
    memory = row | {
        "title": "memory",
        "group": "training",
        "unit": "MB",
        "samples": few,
        "summary": statistics.summary(few),
        "errors": {NUMPY: 0.0, TORCH: 0.0},
        "problems": {ONNX: "cannot train"},
    }
    setup = {"threads": 2, "processor": "P", "extensions": ["fma"], "cores": 2, "memory_gb": 8.0, "system": "S"}
    setup |= {"python": "3", "blas": "B", "versions": {"numpy": "2.0"}}
    return {"setup": setup, "installed_mb": {"one": 70.4, "two": "not installed: x"}, "rows": {"a": timed, "b": memory}}


def test_amounts_and_ratios() -> None:
    assert [report.amount(s, "s") for s in (0.00123, 0.0312, 0.867, 1.534, 12.34)] == [
        "1.23 ms",
        "31.2 ms",
        "867 ms",
        "1.53 s",
        "12.3 s",
    ]
    assert report.amount(1234.5, "MB") == "1,234 MB"
    assert [report.times(x) for x in (0.856, 9.99, 12.34)] == ["0.86x", "9.99x", "12.3x"]


def test_overview_is_the_table_of_the_readme() -> None:
    assert report.overview(example_results(), ("main", "training")).splitlines() == [
        f"| work | {NUMPY} | torch | onnxruntime |",
        "| --- | ---: | ---: | ---: |",
        "| classify, 1x12 | 50.0 ms (2.00x / 0.80x) | 100 ms | **40.0 ms** |",
        "| memory | 1,234 MB (2.00x / 2.00x) | **2,469 MB** | - |",
    ]


def test_details_name_errors_and_engines_without_figures() -> None:
    lines = report.details(example_results()).splitlines()
    assert "| classify, 1x12 | torch | 100 ms | 100 ms - 100 ms | 2 | 1.00x | 0.40x | reference |" in lines
    assert "| classify, 1x12 | onnxruntime | 40.0 ms | 40.0 ms - 40.0 ms | 2 | 2.50x | 1.00x | 1.0e-06 |" in lines
    assert any("OpenVINO | not installed: openvino" in line for line in lines)
    assert len({line.count("|") for line in lines}) == 1


def test_figures_from_a_busy_machine_are_marked() -> None:
    results = example_results()
    assert "Other work" not in report.explanation(results)
    results["rows"]["b"]["busy_before"] = 0.35
    assert "Other work took up to 35% of the machine" in report.explanation(results)
    results["rows"]["b"]["busy_before"] = None  # unknown
    assert "Other work" not in report.explanation(results)


def test_busy_is_a_share_of_the_processors_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(100, 1000), (130, 1200), None, None])
    monkeypatch.setattr(machine, "_processor_times", lambda: next(times))
    assert machine.busy(0.0) == pytest.approx(1 - 30 / 200)
    assert machine.busy(0.0) is None


def test_readme_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nrest\n", encoding="utf-8")
    for text in ("first", report.for_readme(example_results())):
        report.write_readme(readme, text)
        assert readme.read_text(encoding="utf-8") == f"# Title\n\n{report.BEGIN}\n{text}\n{report.END}\n\nrest\n"
    assert "50.0 ms (2.00x / 0.80x)" in readme.read_text(encoding="utf-8")
    for damaged in (
        "no marks",
        f"{report.END} {report.BEGIN}",
        f"{report.BEGIN} {report.BEGIN} {report.END}",
        f"{report.BEGIN} {report.END} {report.END}",
    ):
        readme.write_text(damaged, encoding="utf-8")
        with pytest.raises(errors.BenchmarkError, match="once each and in this order"):
            report.write_readme(readme, "text")
        assert readme.read_text(encoding="utf-8") == damaged


# installed sizes


def test_installed_size_counts_each_requirement_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str, size: int, *requires: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
        (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / f"{name}.py").write_bytes(b"#" * size)
        (info / "RECORD").write_text(f"{name}.py,,\ngone.py,,\n", encoding="utf-8")

    distribution("bench_a", 1000, "bench_b>=1", "bench-c; extra == 'more'", "bench_d; python_version < '3'")
    distribution("bench_b", 200, "bench_a")  # they need each other
    distribution("bench_c", 30, "bench_missing")
    monkeypatch.syspath_prepend(str(tmp_path))
    found: dict[str, int] = {}
    assert installed._collect("bench_a", found) == []
    assert found == {"bench-a": 1000, "bench-b": 200}
    found = {}
    assert installed._collect("bench-a[more]>=1", found) == ["bench-missing"]
    assert found == {"bench-a": 1000, "bench-b": 200, "bench-c": 30}


def test_installed_sizes_of_this_package() -> None:
    sizes = installed.installed_sizes(ROOT)
    assert sizes["npprelnorm"] > 10  # NumPy alone is more
    assert list(sizes) == ["npprelnorm", "npprelnorm[numba]", "npprelnorm[plot]", *installed.PEERS]
    for value in sizes.values():
        assert isinstance(value, float) or value.startswith("not installed: ")
