"""Results as Markdown, and into the README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npprelnorm.files import write_text

from .engines import ENGINES
from .errors import BenchmarkError
from .machine import BUSY
from .statistics import best_peer, known

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

Row = Mapping[str, Any]


def amount(value: float, unit: str) -> str:
    """Three digits that matter: "31.2 ms", "1.53 s", "867 MB"."""
    if unit == "s" and value < 1:
        value, unit = (value * 1e3, "ms") if value >= 1e-3 else (value * 1e6, "µs")
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} {unit}"


def times(value: float) -> str:
    """A ratio with two decimals, or one from 10 on."""
    return f"{value:.2f}x" if value < 10 else f"{value:.1f}x"


def overview(results: Mapping[str, Any], groups: tuple[str, ...]) -> str:
    """One line for each workload of these groups, one column for each engine that measured any of them."""
    rows = [row for row in results["rows"].values() if row["group"] in groups]
    names = known(name for row in rows for name in row["samples"])
    lines = [line("work", *names), line("---", *("---:" for _ in names))]
    lines += [line(row["title"], *(_cell(row, name) for name in names)) for row in rows]
    return "\n".join(lines)


def line(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def _cell(row: Row, name: str) -> str:
    """Median of an engine; for ours also how many times better it is than torch, and than the best peer."""
    if name not in row["samples"]:
        return "-" if row["problems"].get(name, "").startswith("cannot") else "not measured"
    figures = row["summary"][name]
    text = amount(figures["median"], row["unit"])
    if name == best_peer(row["samples"]):
        text = f"**{text}**"
    if _ours(name) and figures["to_torch"]:
        text += f" ({times(figures['to_torch'])} / {times(figures['to_best_peer'])})"
    return text


def _ours(name: str) -> bool:
    return any(engine.ours for engine in ENGINES if engine.name == name)


def details(results: Mapping[str, Any]) -> str:
    """Every figure: spread, number of samples, error; and why an engine has none."""
    lines = [
        line("work", "engine", "median", "quartiles", "samples", "to torch", "to best peer", "error"),
        line("---", "---", "---:", "---:", "---:", "---:", "---:", "---:"),
    ]
    for row in results["rows"].values():
        unit = row["unit"]
        for name in known(row["samples"]):
            figures = row["summary"][name]
            low, high = (amount(value, unit) for value in figures["quartiles"])
            ratios = (times(figures[key]) if figures[key] else "-" for key in ("to_torch", "to_best_peer"))
            error = "reference" if name == row["reference"] else f"{row['errors'][name]:.1e}"
            median, count = amount(figures["median"], unit), str(figures["samples"])
            lines.append(line(row["title"], name, median, f"{low} - {high}", count, *ratios, error))
        for name, reason in row["problems"].items():
            lines.append(line(row["title"], name, reason.replace("|", "/"), "", "", "", "", ""))
    return "\n".join(lines)


def explanation(results: Mapping[str, Any]) -> str:
    """What the figures are, on what machine."""
    return (
        f"Medians; random weights, float32 unless named otherwise, {results['setup']['threads']} thread(s) for each "
        "engine, one process an engine, taking turns. In parentheses: how many times better than torch / than the best "
        "float32 peer (bold), as the median over the rounds. Memory is private memory, mapped files included; the "
        f"files of a cold start are in the system's cache.\n\n{circumstances(results)}"
    )


def circumstances(results: Mapping[str, Any]) -> str:
    """The machine, the versions, the days, and whether other work disturbed."""
    setup = results["setup"]
    versions = ", ".join(f"{name} {version}" for name, version in setup["versions"].items())
    extensions = f" ({', '.join(setup['extensions'])})" if setup["extensions"] else ""
    days = sorted({row["date"][:10] for row in results["rows"].values()})
    measured = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    others = max(row["busy_before"] or 0.0 for row in results["rows"].values())
    caveat = (
        f" **Other work took up to {others:.0%} of the machine meanwhile: times are poor.**" if others > BUSY else ""
    )
    return (
        f"{setup['processor']}{extensions}, {setup['cores']} cores, {setup['memory_gb']} GB, {setup['system']}; "
        f"Python {setup['python']}, {versions}; NumPy with {setup['blas']}. Measured {measured}.{caveat}"
    )


def sizes(results: Mapping[str, Any]) -> str:
    """The installed sizes."""
    lines = [line("installed, with all that it needs", "MB"), line("---", "---:")]
    for name, value in results["installed_mb"].items():
        lines.append(line(name, value if isinstance(value, str) else f"{value:,.0f}"))
    return "\n".join(lines)


def document(results: Mapping[str, Any]) -> str:
    """Everything, as a file of its own."""
    parts = ["# Benchmarks", explanation(results)]
    for title, groups in (("Work", ("main", "training")), ("Growth of the cost", ("growth",))):
        if any(row["group"] in groups for row in results["rows"].values()):
            parts += [f"## {title}", overview(results, groups)]
    parts += ["## Size", sizes(results), "## Every figure", details(results)]
    return "\n\n".join(parts) + "\n"


def for_readme(results: Mapping[str, Any]) -> str:
    """The part that the README shows."""
    return "\n\n".join([overview(results, ("main", "training")), sizes(results), explanation(results)])


def write_readme(readme: Path, text: str) -> None:
    """Put `text` between the two marks of the README, whatever stood there.

    Raises
    ------
    BenchmarkError
        If there are no such marks, or more than one pair.
    """
    old = readme.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise BenchmarkError(f"{readme} needs the lines {BEGIN} and {END}, once each and in this order; add them")
    before, after = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
    write_text(readme, f"{before}\n{text}\n{after}")
