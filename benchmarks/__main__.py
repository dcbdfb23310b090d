"""Measure this package beside the other engines that are installed.

    python -m benchmarks                                  all workloads but the optional ones
    python -m benchmarks --quick                          a toy model, to see that everything works
    python -m benchmarks --only 'train*' --rounds 9       some of them; the other rows of the results file stay
    python -m benchmarks --growth --only 'growth-*'       growth of the cost with length, batch and model size
    python -m benchmarks --report --write-readme          measure nothing, write what the results file has
    python -m benchmarks kernels                          the matrix kernels beside BLAS and what the machine can do

Results go to results.json and results.md in the work folder (kernels.json and kernels.md), after each row. An engine
takes part if its packages are installed: torch and transformers; onnxruntime and openvino (and onnx and onnxscript, to
export the model).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from npprelnorm.files import write_json, write_text

from . import kernels
from .child import ROOT
from .engines import ENGINES, Engine, missing_packages
from .errors import BenchmarkError
from .installed import installed_sizes
from .machine import cores
from .report import document, for_readme, overview, write_readme
from .results import load_results, matching, put_row
from .runner import Plan, measure
from .workloads import Workload, workloads


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("engines", "kernels"), default="engines", help="by default engines")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of rows, or patterns such as 'train*'")
    parser.add_argument("--growth", action="store_true", help="the optional workloads too")
    parser.add_argument("--engines", nargs="+", metavar="NAME", help="names of columns, or patterns")
    parser.add_argument("--rounds", type=_positive, help="turns of each engine (default 7; 2 with --quick)")
    parser.add_argument("--threads", type=_positive, default=cores(), help="threads of each engine (default: all)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that an answer may take (default 900)")
    parser.add_argument("--quick", action="store_true", help="a toy model and short rows")
    parser.add_argument("--work", type=Path, help="folder for models and results (default build/benchmarks)")
    parser.add_argument("--report", action="store_true", help="measure nothing; write the reports again")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--list", action="store_true", help="show what there is to measure, and end")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _run(options: argparse.Namespace) -> int:
    if options.what == "kernels":
        return _kernels(options)
    chosen = _chosen(options)
    engines = _engines(options.engines)
    if options.list:
        _show(chosen, engines)
        return 0
    work = _work(options)
    plan = Plan(engines, _rounds(options), options.threads, work, options.timeout, lambda text: print(text, flush=True))
    order = [one.name for one in workloads(quick=options.quick)]
    results = load_results(work / "results.json", options.threads, order, report=options.report)
    if not options.report:
        results["installed_mb"] = installed_sizes(ROOT)
    for workload in () if options.report else chosen:
        print(f"{workload.name} ({workload.title})", flush=True)
        row = measure(workload, plan)
        put_row(results, workload.name, row, order)
        write_json(work / "results.json", results)
        print(overview({"rows": {workload.name: row}}, (workload.group,)), flush=True)
    if not results["rows"]:
        raise BenchmarkError(f"{work / 'results.json'} has no results; run without --report first")
    write_text(work / "results.md", document(results))
    print(f"\n{document(results)}\n(in {work / 'results.md'}, every sample in {work / 'results.json'})")
    if options.write_readme:
        write_readme(ROOT / "README.md", for_readme(results))
    return 0


def _kernels(options: argparse.Namespace) -> int:
    if options.growth or options.write_readme:
        raise BenchmarkError("--growth and --write-readme are for the table of engines; leave them out with kernels")
    if options.list:
        kernels.show()
        return 0
    kernels.run(
        _work(options),
        threads=options.threads,
        rounds=_rounds(options),
        timeout=options.timeout,
        quick=options.quick,
        only=options.only,
        engines=options.engines,
        report=options.report,
    )
    return 0


def _work(options: argparse.Namespace) -> Path:
    work = options.work or ROOT / "build" / ("benchmarks-quick" if options.quick else "benchmarks")
    return Path(work).resolve()


def _rounds(options: argparse.Namespace) -> int:
    return int(options.rounds or (2 if options.quick else 7))


def _chosen(options: argparse.Namespace) -> list[Workload]:
    everything = [one for one in workloads(quick=options.quick) if options.growth or one.group != "growth"]
    names = matching(options.only, [one.name for one in everything], "workload")
    return [one for one in everything if one.name in names]


def _engines(patterns: list[str] | None) -> list[Engine]:
    names = matching(patterns, [engine.name for engine in ENGINES], "engine")
    return [engine for engine in ENGINES if engine.name in names]


def _show(chosen: list[Workload], engines: list[Engine]) -> None:
    width = 2 + max(len(one.name) for one in (*chosen, *engines))
    for workload in chosen:
        print(f"{workload.name:{width}}{workload.title}")
    print()
    for engine in engines:
        missing = missing_packages(engine)
        print(f"{engine.name:{width}}{'not installed: ' + ', '.join(missing) if missing else 'installed'}")
    print(f"\n{'kernels':{width}}matrix products; `python -m benchmarks kernels --list` names them")


if __name__ == "__main__":
    sys.exit(main())
