"""`python -m benchmarks kernels`: products measured in a child process, and their report."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npprelnorm.files import write_json, write_text

from .child import Child
from .engines import Engine, missing_packages
from .errors import BenchmarkError
from .machine import BUSY, busy
from .products import BLAS, CEILINGS, CONTENDERS, MEMORY, PEAK, Product, ceilings, products, row_summary
from .report import amount, circumstances, line, times
from .results import load_results, matching, put_row
from .workloads import Workload

ENGINE = Engine("kernels", "products", ("npprelnorm", "numba"), ("products",), ours=True)
NAMES = [contender.name for contender in CONTENDERS]
TURN = 0.1  # seconds of calls in a turn


def run(
    work: Path,
    *,
    threads: int,
    rounds: int,
    timeout: float,
    quick: bool,
    only: list[str] | None,
    engines: list[str] | None,
    report: bool,
) -> None:
    """Measure what `only` and `engines` choose, or with `report` nothing; write kernels.json and kernels.md.

    Raises
    ------
    BenchmarkError
        For names that nothing has, without Numba, or if the child process fails.
    """
    every = products(quick=quick)
    names = [product.name for product in every]
    wanted, contenders = matching(only, names, "product"), matching(engines, NAMES, "contender")
    path = work / "kernels.json"
    results = load_results(path, threads, names, report=report)
    if not report:
        if missing := missing_packages(ENGINE):
            raise BenchmarkError(f"{', '.join(missing)} is not installed; `pip install {' '.join(missing)}`")
        small = {"read_bytes": 4 << 20, "steps": 20_000} if quick else {}
        task = Workload("kernels", "", "products", "", (), options=small)
        with Child(ENGINE, task, work, threads=threads, timeout=timeout) as child:
            child.ready()
            for product in every:
                if product.name in wanted:
                    print(product.title, flush=True)
                    row = measure(product, child, contenders, rounds)
                    put_row(results, product.name, row, names)
                    write_json(path, results)
                    print(overview({"rows": {product.name: row}}), flush=True)
    if not results["rows"]:
        raise BenchmarkError(f"{path} has no results; run without --report first")
    text = document(results)
    write_text(work / "kernels.md", text)
    print(f"\n{text}\n(in {work / 'kernels.md'}, every sample in {path})")


def measure(product: Product, child: Child, contenders: list[str], rounds: int) -> dict[str, Any]:
    """One row of the results."""
    started = datetime.datetime.now(datetime.timezone.utc)
    others = busy()
    if others is not None and others > BUSY:
        print(f"  other work takes {others:.0%} of this machine: the figures will be poor", flush=True)
    request = {"rows": product.rows, "depth": product.depth, "columns": product.columns, "weights": product.weights}
    (answer,) = child.answers({**request, "contenders": contenders, "rounds": rounds, "seconds": TURN}, 1)
    for name, reason in answer["problems"].items():
        print(f"  {name}: {reason}", flush=True)
    row = {
        "title": product.title,
        "work": product.work,
        "weight_numbers": product.weight_numbers,
        "date": started.isoformat(timespec="seconds"),
        "busy_before": others,
        **answer,
    }
    return row | {"summary": row_summary(row)}


def show() -> None:
    """Print the names of products and contenders."""
    for product in products():
        print(f"{product.name:28}{product.title}")
    print()
    for contender in CONTENDERS:
        print(f"{contender.name:28}weights in {contender.weight_dtype}")


def overview(results: Mapping[str, Any]) -> str:
    """One line for each product, one column for each contender that has any figure."""
    rows = list(results["rows"].values())
    names = [name for name in NAMES if any(name in row["summary"] for row in rows)]
    lines = [line("GFLOP/s", *names), line("---", *("---:" for _ in names))]
    return "\n".join([*lines, *(line(row["title"], *(_cell(row, name) for name in names)) for row in rows)])


def _cell(row: Mapping[str, Any], name: str) -> str:
    """The rate, its share of the peak, and how many times as fast as BLAS it is."""
    if name not in row["summary"]:
        return "-" if row["problems"].get(name, "").startswith("cannot") else "not measured"
    figures = row["summary"][name]
    notes = [f"{figures['of_peak']:.0%}"]
    if name != BLAS and figures["to_blas"]:
        notes.append(times(figures["to_blas"]))
    return f"{figures['gflops']:.1f} ({', '.join(notes)})"


def details(results: Mapping[str, Any]) -> str:
    """Every figure: spread, number of samples, shares of both ceilings, error; and why a contender has none."""
    head = ("product", "contender", "median", "quartiles", "samples", PEAK, MEMORY, f"to {BLAS}", "error")
    lines = [line(*head), line("---", "---", *("---:" for _ in head[2:]))]
    for row in results["rows"].values():
        for name in (name for name in NAMES if name in row["summary"]):
            figures = row["summary"][name]
            low, high = (amount(value, "s") for value in figures["quartiles"])
            shares = (f"{figures[key]:.0%}" for key in ("of_peak", "of_memory"))
            to_blas = times(figures["to_blas"]) if figures["to_blas"] else "-"
            median, error = amount(figures["median"], "s"), f"{row['errors'][name]:.1e}"
            lines.append(
                line(row["title"], name, median, f"{low} - {high}", str(figures["samples"]), *shares, to_blas, error)
            )
        for name, reason in row["problems"].items():
            lines.append(line(row["title"], name, reason.replace("|", "/"), *("" for _ in head[3:])))
    return "\n".join(lines)


def document(results: Mapping[str, Any]) -> str:
    """Everything, as a file of its own."""
    rows = list(results["rows"].values())
    reached = [line("at most", ""), line("---", "---:")]
    reached += [line(name, f"{rate:.1f} {CEILINGS[name]}") for name, rate in ceilings(rows).items()]
    explanation = (
        "rows x depth x columns; float32, bias added, weights packed before the first call. In parentheses: share of "
        f"the {PEAK}, and how many times as fast as {BLAS} (NumPy's, with x @ weight.T), as medians over the rounds, "
        f"in each of which all took a turn. {results['setup']['threads']} thread(s). Errors are by norm, against "
        "float64. The share of what the memory can be read at counts the bytes of the weight as it is stored; it goes "
        "beyond 100% where that lies in a cache."
    )
    parts = ["# Matrix kernels", explanation, circumstances(results), "\n".join(reached), overview(results)]
    return "\n\n".join([*parts, "## Every figure", details(results)]) + "\n"
