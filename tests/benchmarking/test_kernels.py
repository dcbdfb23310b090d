"""`python -m benchmarks kernels`: its arithmetic, what it compares with, and a run on small products."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_modules import command, kernels, products

pytest.importorskip("numba")
child_side, ceilings = (importlib.import_module(f"benchmarks.engines.{name}") for name in ("products", "ceilings"))
NAMES = [contender.name for contender in products.CONTENDERS]
BLAS, PACKED, HALF = "BLAS", "packed", "packed float16"


def test_products_are_those_of_the_base_model() -> None:
    every = {product.name: product for product in products.products()}
    for rows in (1, 12, 24, 126, 1020):
        for shape in ("768x768", "768x3072", "3072x768"):
            assert every[f"{rows}x{shape}"].weights == 1
    assert {"1x768x50265", "12x768x50265"} < every.keys()
    for name in ("1x768x768-memory", "12x768x3072-memory"):
        product = every[name]
        assert product.weights * 4 * product.weight_numbers >= products.FROM_MEMORY
    assert len(products.products(quick=True)) == len({one.name for one in products.products(quick=True)})
    assert products.Product(3, 5, 7).work == 2 * 3 * 5 * 7


def example_row() -> dict[str, Any]:
    """1e9 operations on 5e7 numbers; in the second round everything took twice the time."""
    slow = {products.PEAK: [0.1, 0.2], products.PEAK_1: [0.2, 0.4], products.MEMORY: [0.05, 0.1]}
    slow |= {BLAS: [0.04, 0.08], PACKED: [0.02, 0.04], HALF: [0.0125, 0.025]}
    row = {
        "title": "1 x 2 x 3",
        "work": 1e9,
        "weight_numbers": 5e7,
        "date": "2026-01-02T03:04:05",
        "busy_before": 0.02,
        "samples": {name: [[seconds] for seconds in both] for name, both in slow.items()},
        "amounts": {products.PEAK: 1e10, products.PEAK_1: 1e10, products.MEMORY: 1e9},
        "errors": {BLAS: 1e-7, PACKED: 2e-7, HALF: 3e-4},
        "problems": {"packed 12 bit": "cannot store int12 on this processor", "ops.linear": "differs | much"},
    }
    return row | {"summary": products.row_summary(row)}


def test_shares_and_ratios_are_taken_within_each_round() -> None:
    summary = example_row()["summary"]
    assert list(summary) == [BLAS, PACKED, HALF]
    # the peak: 1e11 a second, so 0.01 s for this work; the memory: 2e10 bytes a second
    for name, of_peak, of_memory, to_blas, rate in (
        (BLAS, 0.25, 0.25, 1.0, 1 / 0.06),
        (PACKED, 0.5, 0.5, 2.0, 1 / 0.03),
        (HALF, 0.8, 0.4, 3.2, 1 / 0.01875),
    ):
        figures = summary[name]
        assert figures["of_peak"] == pytest.approx(of_peak)
        assert figures["of_memory"] == pytest.approx(of_memory)
        assert figures["to_blas"] == pytest.approx(to_blas)
        assert figures["gflops"] == pytest.approx(rate)
        assert figures["samples"] == 2
    assert products.ceilings([example_row()]) == pytest.approx(
        {products.PEAK: 75.0, products.PEAK_1: 37.5, products.MEMORY: 15.0}
    )


def test_tables() -> None:
    results = {
        "setup": {
            "threads": 2, "processor": "P", "extensions": [], "cores": 2, "memory_gb": 8.0, "system": "S",
            "python": "3", "blas": "B", "versions": {"numpy": "2.0"},
        },
        "rows": {"a": example_row()},
    }  # fmt: skip
    assert kernels.overview(results).splitlines() == [
        "| GFLOP/s | BLAS | packed | packed float16 |",
        "| --- | ---: | ---: | ---: |",
        "| 1 x 2 x 3 | 16.7 (25%) | 33.3 (50%, 2.00x) | 53.3 (80%, 3.20x) |",
    ]
    lines = kernels.details(results).splitlines()
    assert "| 1 x 2 x 3 | packed | 30.0 ms | 25.0 ms - 35.0 ms | 2 | 50% | 50% | 2.00x | 2.0e-07 |" in lines
    assert any("ops.linear | differs / much" in line for line in lines)
    assert len({line.count("|") for line in lines}) == 1
    text = kernels.document(results)
    assert "| FMA peak | 75.0 GFLOP/s |" in text
    assert "| memory read | 15.0 GB/s |" in text
    assert "2 thread(s)" in text


def test_the_peak_does_the_operations_that_it_counts() -> None:
    numbers = ceilings.begun()
    assert len(np.unique(numbers[:-2])) == ceilings.CHAINS * ceilings.LANES, "equal chains would be one for LLVM"
    assert ceilings.OPERATIONS == 2 * ceilings.CHAINS * ceilings.LANES
    expected = numbers.copy()
    for _ in range(3):
        expected[:-2] = expected[:-2] * np.float32(0.5) + np.float32(1)
    ceilings.run_chains(numbers, 3)
    assert np.array_equal(numbers, expected)
    ceilings.run_chains(numbers, 1000)
    assert (numbers[:-2] == 2).all(), "no number may become one that a processor is slow with"


@pytest.mark.parametrize("threads", [1, 3])
def test_ceilings_of_threads_together(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ceilings.Ceilings(threads, 4 * 1000)
    assert sorted(part.size for part in limits._parts) == ([1000] if threads == 1 else [333, 333, 334])
    assert limits.read() == 4000
    assert [float(ceilings.sum_of(part)) for part in limits._parts] == [part.size for part in limits._parts]
    runs: list[int] = []
    monkeypatch.setattr(ceilings, "run_chains", lambda numbers, steps: runs.append(steps))
    assert limits.peak(threads, 7) == threads * 7 * ceilings.OPERATIONS
    assert runs == [7] * threads
    assert limits.peak(1, 5) == 5 * ceilings.OPERATIONS
    assert runs == [7] * threads + [5]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting: what these tests look at is not how long anything takes."""
    monkeypatch.setattr(child_side, "PAUSE", 0.0)


def measured(contenders: list[str], rows: int = 3, weights: int = 1, rounds: int = 2) -> dict[str, Any]:
    run = child_side.products(Path(), 1, read_bytes=4000, steps=10)
    answer: dict[str, Any] = run(
        rows=rows, depth=20, columns=33, weights=weights, contenders=contenders, rounds=rounds, seconds=0.0
    )
    return answer


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("weights", [1, 3])
def test_contenders_are_compared_with_float64_and_take_turns(weights: int, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = [*NAMES, *products.CEILINGS]
    turns: list[str] = []
    used: dict[str, set[int]] = {name: set() for name in NAMES}
    plain = child_side._in_turn

    def timed(call: Any, inputs: Any, seconds: float) -> list[float]:
        turns.append(next(name for name, known in calls.items() if known is call))
        return [1.0]

    calls: dict[str, Any] = {}
    monkeypatch.setattr(child_side, "timed", timed)
    original = child_side._turns
    monkeypatch.setattr(child_side, "_turns", lambda given, *rest: calls.update(given) or original(given, *rest))

    def in_turn(made: list[Any]) -> Any:
        name = NAMES[len(made_for)]
        made_for.append(name)
        return plain([lambda index=index, one=one: (used[name].add(index), one())[1] for index, one in enumerate(made)])

    made_for: list[str] = []
    monkeypatch.setattr(child_side, "_in_turn", in_turn)
    answer = measured(NAMES, weights=weights)
    assert answer["problems"] == {}
    assert list(answer["samples"]) == everyone
    assert all(answer["samples"][name] == [[1.0], [1.0]] for name in everyone)
    assert turns == everyone + everyone[1:] + everyone[:1]
    assert all(indices == set(range(weights)) for indices in used.values())
    for name in (BLAS, "ops.linear", PACKED, "few rows, not packed"):
        assert 0 < answer["errors"][name] < 1e-6
    for name, least in ((HALF, 1e-5), ("packed bfloat16", 1e-4), ("packed 12 bit", 1e-5)):
        assert least < answer["errors"][name] < 2e-3


@pytest.mark.usefixtures("short")
def test_a_contender_that_is_wrong_or_unable_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    few, odd = (dataclasses.replace(products.CONTENDERS[0], name=name) for name in ("few", "odd"))
    few, odd = dataclasses.replace(few, most_rows=2), dataclasses.replace(odd, weight_dtype="int7")
    wrong = dataclasses.replace(products.CONTENDERS[0], name="wrong", run="wrong")
    monkeypatch.setattr(child_side, "CONTENDERS", (*products.CONTENDERS[:1], few, odd, wrong))
    blas = child_side.RUNS["blas"]
    monkeypatch.setitem(child_side.RUNS, "wrong", lambda *given: lambda: blas(*given)() * np.float32(1.001))
    answer = measured([BLAS, "few", "odd", "wrong"])
    assert list(answer["samples"]) == [BLAS, *products.CEILINGS]
    assert answer["problems"] == {
        "few": "cannot multiply more than 2 rows",
        "odd": "cannot store int7 on this processor",
        "wrong": "differs from float64 by 1.0e-03, more than 5.0e-06",
    }
    monkeypatch.setitem(child_side.RUNS, "wrong", lambda *given: lambda: blas(*given)() * np.float32("nan"))
    assert "differs from float64 by nan" in measured(["wrong"])["problems"]["wrong"]
    assert "few" in measured(["few"], rows=2)["samples"]


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "busy", lambda: 0.5)
    monkeypatch.setattr(kernels, "TURN", 0.0)
    base = ["kernels", "--quick", "--work", str(tmp_path), "--threads", "1"]
    assert command.main([*base, "--rounds", "1", "--only", "7x48x48", "--engines", "blas", "packed"]) == 0
    out = capsys.readouterr().out
    assert "other work takes 50%" in out
    results = json.loads((tmp_path / "kernels.json").read_text(encoding="utf-8"))
    assert list(results["rows"]) == ["7x48x48"]
    row = results["rows"]["7x48x48"]
    assert row["work"] == 2 * 7 * 48 * 48
    assert set(row["summary"]) == {BLAS, PACKED}
    assert all(len(rounds) == 1 and rounds[0][0] > 0 for rounds in row["samples"].values())
    assert row["summary"] == products.row_summary(row)
    text = (tmp_path / "kernels.md").read_text(encoding="utf-8")
    assert text in out
    assert "| 7 x 48 x 48 |" in text

    # other rows join those that are there, in the order of the list; a report measures nothing
    assert command.main([*base, "--rounds", "1", "--only", "1x48x80-*", "1x48x48", "--engines", "blas"]) == 0
    more = json.loads((tmp_path / "kernels.json").read_text(encoding="utf-8"))
    assert set(more["rows"]) == {"1x48x48", "7x48x48", "1x48x80-memory"}
    assert more["rows"]["7x48x48"] == row
    text = (tmp_path / "kernels.md").read_text(encoding="utf-8")
    places = [
        text.index(f"| {title} |") for title in ("1 x 48 x 48", "7 x 48 x 48", "1 x 48 x 80, weights from memory")
    ]
    assert places == sorted(places)
    (tmp_path / "kernels.md").unlink()
    assert command.main([*base, "--report"]) == 0
    assert json.loads((tmp_path / "kernels.json").read_text(encoding="utf-8")) == more
    assert (tmp_path / "kernels.md").read_text(encoding="utf-8") == text

    assert command.main([*base[:-1], "2", "--only", "7x48x48"]) == 1
    assert "another threads" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nonsense"], "no product is called 'nonsense'; there are: 1x48x48, "),
        (["--engines", "torch"], "no contender is called 'torch'; there are: BLAS, ops.linear, packed"),
        (["--report"], "kernels.json does not exist"),
        (["--write-readme"], "--growth and --write-readme are for the table of engines"),
        (["--growth"], "--growth and --write-readme are for the table of engines"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["kernels", "--quick", "--work", str(tmp_path), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_numba_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "ENGINE", dataclasses.replace(kernels.ENGINE, packages=("no_such_package",)))
    assert command.main(["kernels", "--quick", "--work", str(tmp_path)]) == 1
    assert "no_such_package is not installed; `pip install no_such_package`" in capsys.readouterr().err


def test_a_child_that_fails_ends_the_run_with_its_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "ENGINE", dataclasses.replace(kernels.ENGINE, module="no_such_module"))
    assert command.main(["kernels", "--quick", "--work", str(tmp_path)]) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_list_names_every_product_and_contender(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["kernels", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (*(product.name for product in products.products()), *NAMES):
        assert any(line.startswith(f"{name} ") for line in lines), name
