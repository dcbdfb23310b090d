"""Build the notebooks of tutorials/ from their sources, or check that they still belong together.

    python tools/build_tutorials.py             execute every tutorials/NN_name.py and write NN_name.ipynb beside it
    python tools/build_tutorials.py 01 07       only those whose file name begins so
    python tools/build_tutorials.py --check     write nothing: each notebook must hold its source's cells and what
                                                executing them gives, and every solution must run

Text must be the same but for numbers with a decimal point, which depend on the machine's rounding: they may differ by
a twentieth. A cell that begins with `# %% tags=["varies"]` may say something else each time, such as how long it took.

A source is a jupytext "percent" file: `# %%` begins a cell of code, `# %% [markdown]` one of prose. It runs in a
kernel of this interpreter, in its own folder. A cell that raises, or that writes to standard error (a warning), fails
the build. The notebook of a source that has not changed comes out the same, byte for byte, on the same machine.
tutorials/solutions/ holds answers to the exercises; they are executed, and get no notebook.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import struct
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from npprelnorm.files import write_text

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
SECONDS = 240  # for one cell: it hangs. What a tutorial may take, a minute, is printed and not enforced
MAX_BYTES = 1_000_000  # of a notebook, so that a code host still shows it
RELATIVE, TINY = 0.05, 1e-3  # by how much a number may differ from that of another machine
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# rounding, and so the printed digits, depend on the number of threads; hashing on the seed
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class TutorialError(Exception):
    """Something about one tutorial, with what to do."""


class OwnKernel(AsyncKernelManager):
    """Starts the interpreter that runs this, whatever kernels a user has installed."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])


def sources(folder: Path, wanted: list[str]) -> list[Path]:
    """The tutorials in order, then the solutions; those that begin as one of `wanted`, if any is given."""
    found = sorted(folder.glob("[0-9][0-9]_*.py")) + sorted((folder / "solutions").glob("[0-9][0-9]_*.py"))
    chosen = [path for path in found if not wanted or path.name.startswith(tuple(wanted))]
    idle = [name for name in wanted if not any(path.name.startswith(name) for path in found)]
    if idle or not chosen:
        raise TutorialError(f"{folder} has no {idle[0] if idle else 'NN_name'}*.py; it has {len(found)} others")
    return chosen


def has_notebook(source: Path) -> bool:
    """Solutions have none."""
    return source.parent.name != "solutions"


def read_source(path: Path) -> NotebookNode:
    """The cells of a source, without outputs, and with nothing in them that differs from build to build."""
    notebook = jupytext.reads(path.read_text("utf-8"), fmt="py:percent")
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = NotebookNode()
    return notebook


def execute(path: Path) -> tuple[NotebookNode, float]:
    """The notebook of a source, with outputs, and the seconds that it took."""
    notebook = read_source(path)
    settings = notebook.metadata.copy()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tutorial-") as scratch:
        environment = {**os.environ, **ENVIRONMENT, "IPYTHONDIR": scratch}
        environment.pop("MPLBACKEND", None)  # figures go into the notebook
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_manager_class=OwnKernel,
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback).strip()
            raise TutorialError(f"{path.name} fails with {error.ename}: {error.evalue}\n{plain}") from None
        except CellTimeoutError:
            raise TutorialError(f"{path.name}: a cell ran for more than {SECONDS} s; make it smaller") from None
        except DeadKernelError:
            raise TutorialError(f"{path.name}: its interpreter died; run `python {path}` to see how") from None
    seconds = time.perf_counter() - start
    notebook.metadata = settings  # the kernel has added its version
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise TutorialError(f"{path.name} warns; a tutorial must not:\n{output.text.strip()}")
    return notebook, seconds


def varying(path: Path) -> set[int]:
    """The numbers of a source's cells, from 1, that say something else each time."""
    cells = jupytext.reads(path.read_text("utf-8"), fmt="py:percent").cells
    return {number for number, cell in enumerate(cells, 1) if "varies" in cell.metadata.get("tags", [])}


def kinds(cell: NotebookNode) -> list[str]:
    """What a cell has put out, text and figures, without what they say."""
    return [
        ",".join(sorted(output.get("data", {output.get("name", "error"): 0}))) for output in cell.get("outputs", [])
    ]


def texts(cell: NotebookNode) -> list[str]:
    """What a cell has printed, and its last value."""
    return [
        output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
        for output in cell.get("outputs", [])
    ]


def figure_sizes(cell: NotebookNode) -> list[tuple[int, int]]:
    """Width and height of a cell's figures; zeros for what is no whole PNG file."""
    sizes = []
    for output in cell.get("outputs", []):
        if text := output.get("data", {}).get("image/png"):
            data = base64.b64decode(text)
            whole = data.startswith(PNG_BEGIN) and data.endswith(PNG_END)
            sizes.append(struct.unpack(">II", data[16:24]) if whole else (0, 0))
    return sizes


def close(one: float, other: float) -> bool:
    """Whether two numbers may be one result on two machines; what is tiny may be rounding alone."""
    return abs(one - other) <= RELATIVE * max(abs(one), abs(other)) + TINY


def same_text(one: str, other: str) -> bool:
    """Whether two texts say the same, but for spaces and for the digits of numbers that are not whole."""
    without = ["".join(NUMBER.sub("#", text).split()) for text in (one, other)]
    numbers = zip(*(NUMBER.findall(text) for text in (one, other)), strict=False)
    return without[0] == without[1] and all(
        int(a) == int(b) if a.isdigit() and b.isdigit() else close(float(a), float(b)) for a, b in numbers
    )


def difference(committed: NotebookNode, fresh: NotebookNode, varies: bool) -> str | None:
    """How a cell's committed outputs differ from those that executing it gives; None if they do not."""
    if kinds(committed) != kinds(fresh):
        return f"holds {kinds(committed)}, but executing it gives {kinds(fresh)}"
    for old, new in zip(figure_sizes(committed), figure_sizes(fresh), strict=True):
        if not all(map(close, old, new)):
            return f"holds a figure of {old[0]} x {old[1]} pixels, but executing it gives {new[0]} x {new[1]}"
    for old, new in () if varies else zip(texts(committed), texts(fresh), strict=True):
        if not same_text(old, new):
            return f"says {old.strip()!r}, but executing it gives {new.strip()!r}"
    return None


def out_of_step(source: Path) -> str | None:
    """How the notebook differs from the source, without executing anything; None if it does not."""
    path = source.with_suffix(".ipynb")
    again = f"run: python tools/build_tutorials.py {source.stem}"
    if not path.exists():
        return f"{path.name} is missing; {again}"
    try:
        notebook = nbformat.reads(path.read_text("utf-8"), as_version=4)
    except (ValueError, AttributeError, nbformat.ValidationError) as error:  # no JSON, no object, no cells
        return f"{path.name} is no notebook ({type(error).__name__}); {again}"
    ours = [(cell.cell_type, cell.source) for cell in read_source(source).cells]
    built = [(cell.cell_type, cell.source) for cell in notebook.cells]
    for number, (one, other) in enumerate(zip(ours, built, strict=False), 1):
        if one != other:
            return f"{path.name}: cell {number} ({one[0]}) is not that of {source.name}; {again}"
    if len(ours) != len(built):
        return f"{path.name} has {len(built)} cells, {source.name} has {len(ours)}; {again}"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        return f"{path.name} was not executed once from top to bottom; {again}"
    return None


def check(source: Path) -> float:
    """Raise TutorialError unless the notebook is in step and executing the source gives the same outputs."""
    problem = out_of_step(source) if has_notebook(source) else None
    if problem:
        raise TutorialError(problem)
    fresh, seconds = execute(source)
    if has_notebook(source):
        committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
        varies = varying(source)
        for number, (cell, ours) in enumerate(zip(committed.cells, fresh.cells, strict=True), 1):
            if problem := difference(cell, ours, number in varies):
                again = f"run: python tools/build_tutorials.py {source.stem}"
                raise TutorialError(f"{source.stem}.ipynb: cell {number} {problem}; {again}")
    return seconds


def build(source: Path) -> float:
    """Execute a source and write its notebook, whole or not at all."""
    notebook, seconds = execute(source)
    if has_notebook(source):
        text = nbformat.writes(notebook) + "\n"
        if len(text) > MAX_BYTES:
            raise TutorialError(
                f"{source.stem}.ipynb would have {len(text)} bytes; at most {MAX_BYTES}: smaller figures"
            )
        write_text(source.with_suffix(".ipynb"), text)
    return seconds


def orphans(folder: Path) -> list[str]:
    """Notebooks whose source is gone."""
    return [path.name for path in sorted(folder.glob("*.ipynb")) if not path.with_suffix(".py").exists()]


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NN", help="beginnings of file names; all, if none is given")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a notebook is out of step")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the sources are")
    options = parser.parse_args(arguments)
    try:
        chosen = sources(options.folder, options.names)
    except TutorialError as error:
        parser.error(str(error))
    failures = [f"{name} has no source; delete it, or bring its .py back" for name in orphans(options.folder)]
    total = 0.0
    for source in chosen:
        try:
            seconds = check(source) if options.check else build(source)
        except TutorialError as error:
            failures.append(str(error))
            continue
        total += seconds
        print(f"{seconds:6.1f} s  {source.relative_to(options.folder)}", flush=True)
    print(f"{total:6.1f} s  in all; {len(failures)} failed")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
