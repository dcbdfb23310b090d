"""The tables of the benchmarks, and the sizes of installations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmark_modules import NUMPY, ONNX, ROOT, TORCH, VINO, errors, installed, machine, report, statistics


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
    assert [report.amount(s, "s") for s in (0.0000456, 0.00123, 0.0312, 0.867, 1.534, 12.34)] == [
        "45.6 µs",
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
