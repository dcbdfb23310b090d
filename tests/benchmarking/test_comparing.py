"""The arithmetic of the benchmarks, and whether two engines gave the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmark_modules import INT8, NUMPY, ONNX, TORCH, compare, engines, errors, runner, statistics, worker, workloads


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
