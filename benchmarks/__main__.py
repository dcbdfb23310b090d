"""Measure this package beside the other engines that are installed.

    python -m benchmarks                                  all workloads but the optional ones
    python -m benchmarks --quick                          a toy model, to see that everything works
    python -m benchmarks --only 'train*' --rounds 9       some of them; the other rows of the results file stay
    python -m benchmarks --growth --only 'growth-*'       growth of the cost with length, batch and model size
    python -m benchmarks --report --write-readme          measure nothing, write what the results file has

Results go to results.json and results.md in the work folder, after each workload. An engine takes part if its packages
are installed: torch and transformers; onnxruntime and openvino (and onnx and onnxscript, to export the model).
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from npprelnorm.files import read_json, write_json, write_text

from .child import ROOT
from .engines import ENGINES, Engine, missing_packages
from .errors import BenchmarkError
from .installed import installed_sizes
from .machine import cores, setup
from .report import document, for_readme, overview, write_readme
from .runner import Plan, measure
from .workloads import Workload, workloads

RESULT_BYTES = 64 << 20


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
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of workloads, or patterns such as 'train*'")
    parser.add_argument("--growth", action="store_true", help="the optional workloads too")
    parser.add_argument("--engines", nargs="+", metavar="NAME", help="names of engines, or patterns")
    parser.add_argument("--rounds", type=_positive, help="turns of each engine (default 7; 2 with --quick)")
    parser.add_argument("--threads", type=_positive, default=cores(), help="threads of each engine (default: all)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that an answer may take (default 900)")
    parser.add_argument("--quick", action="store_true", help="a toy model and short rows")
    parser.add_argument("--work", type=Path, help="folder for models and results (default build/benchmarks)")
    parser.add_argument("--report", action="store_true", help="measure nothing; write the reports again")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--list", action="store_true", help="show workloads and engines, and end")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _run(options: argparse.Namespace) -> int:
    chosen = _chosen(options)
    engines = _engines(options.engines)
    if options.list:
        _show(chosen, engines)
        return 0
    work = (options.work or ROOT / "build" / ("benchmarks-quick" if options.quick else "benchmarks")).resolve()
    rounds = options.rounds or (2 if options.quick else 7)
    plan = Plan(engines, rounds, options.threads, work, options.timeout, lambda text: print(text, flush=True))
    results = _results(work / "results.json", options)
    for workload in () if options.report else chosen:
        print(f"{workload.name} ({workload.title})", flush=True)
        results["rows"][workload.name] = measure(workload, plan)
        # in the order of the list, whatever was measured when
        names = [one.name for one in workloads(quick=options.quick)]
        results["rows"] = {name: results["rows"][name] for name in names if name in results["rows"]}
        write_json(work / "results.json", results)
        print(overview({"rows": {workload.name: results["rows"][workload.name]}}, (workload.group,)), flush=True)
    if not results["rows"]:
        raise BenchmarkError(f"{work / 'results.json'} has no results; run without --report first")
    write_text(work / "results.md", document(results))
    print(f"\n{document(results)}\n(in {work / 'results.md'}, every sample in {work / 'results.json'})")
    if options.write_readme:
        write_readme(ROOT / "README.md", for_readme(results))
    return 0


def _chosen(options: argparse.Namespace) -> list[Workload]:
    everything = [one for one in workloads(quick=options.quick) if options.growth or one.group != "growth"]
    names = [one.name for one in everything]
    for pattern in options.only or ():
        if not any(fnmatch(name, pattern) for name in names):
            raise BenchmarkError(f"no workload is called {pattern!r}; there are: {', '.join(names)}")
    return [one for one in everything if not options.only or any(fnmatch(one.name, p) for p in options.only)]


def _engines(patterns: list[str] | None) -> list[Engine]:
    for pattern in patterns or ():
        if not any(fnmatch(engine.name.lower(), pattern.lower()) for engine in ENGINES):
            raise BenchmarkError(f"no engine is called {pattern!r}; there are: {', '.join(e.name for e in ENGINES)}")
    return [e for e in ENGINES if not patterns or any(fnmatch(e.name.lower(), p.lower()) for p in patterns)]


def _show(chosen: list[Workload], engines: list[Engine]) -> None:
    for workload in chosen:
        print(f"{workload.name:28}{workload.title}")
    print()
    for engine in engines:
        missing = missing_packages(engine)
        print(f"{engine.name:28}{'not installed: ' + ', '.join(missing) if missing else 'installed'}")


def _results(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What was measured before on the same machine with the same versions, to be added to."""
    if options.report:
        if not path.exists():
            raise BenchmarkError(f"{path} does not exist; run without --report first")
        return read_json(path, max_bytes=RESULT_BYTES)
    now = setup(options.threads)
    if path.exists():
        before = read_json(path, max_bytes=RESULT_BYTES)
        if before["setup"] != now:
            changed = sorted(key for key in now if before["setup"].get(key) != now[key])
            raise BenchmarkError(
                f"{path} was measured with another {', '.join(changed)}; rows are only comparable on one set-up: "
                "move the file away, or name another --work"
            )
        return before | {"installed_mb": installed_sizes(ROOT)}
    return {"setup": now, "installed_mb": installed_sizes(ROOT), "rows": {}}


if __name__ == "__main__":
    sys.exit(main())
