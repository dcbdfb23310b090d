"""The builder of the tutorials' notebooks, on small ones; and that the real notebooks hold their sources' cells.

What executing the real ones gives is checked by `python tools/build_tutorials.py --check`, which takes minutes.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

SOURCE = """\
# %% [markdown]
# # A lesson
#
# About $x^2$.

# %%
x = 3
print(x * x)

# %%
assert x * x == 9
x
"""


def load_builder() -> Any:
    spec = importlib.util.spec_from_file_location("build_tutorials", ROOT / "tools" / "build_tutorials.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = load_builder()
REAL = builder.sources(builder.FOLDER, [])


class Lessons:
    """A folder of sources, and the builder run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "01_lesson.py"
        self.notebook = folder / "01_lesson.ipynb"

    def write(self, text: str) -> None:
        self.source.write_text(text, encoding="utf-8")

    def run(self, *arguments: str) -> int:
        return builder.main([*arguments, "--folder", str(self.folder)])


@pytest.fixture
def lessons(tmp_path: Path) -> Lessons:
    made = Lessons(tmp_path)
    made.write(SOURCE)
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The notebook of SOURCE."""
    made = Lessons(tmp_path_factory.mktemp("built"))
    made.write(SOURCE)
    assert made.run() == 0
    return made.notebook.read_text("utf-8")


def test_a_notebook_holds_prose_code_and_outputs(built: str) -> None:
    notebook = json.loads(built)
    prose, first, last = notebook["cells"]
    assert "".join(prose["source"]) == "# A lesson\n\nAbout $x^2$."
    assert first["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["9\n"]}]
    assert last["outputs"][0]["data"] == {"text/plain": ["3"]}
    assert [first["execution_count"], last["execution_count"]] == [1, 2]
    assert [cell["metadata"] for cell in notebook["cells"]] == [{}, {}, {}]
    assert "version" not in notebook["metadata"]["language_info"]


def test_a_second_build_changes_no_byte_and_the_check_is_content(lessons: Lessons, built: str) -> None:
    assert lessons.run("01") == 0
    assert lessons.notebook.read_text("utf-8") == built
    assert lessons.run("--check") == 0
    assert lessons.notebook.read_text("utf-8") == built


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("About $x^2$.", "About $x^3$.", "cell 1 (markdown) is not that of 01_lesson.py"),
        ("x = 3", "x = 4", "cell 2 (code) is not that of 01_lesson.py"),
        ("# %%\nx = 3", "# %% [markdown]\n# x = 3", "cell 2 (markdown) is not that of 01_lesson.py"),
        ("assert x * x == 9\nx\n", "assert x * x == 9\nx\n\n# %%\nx = 4\n", "has 3 cells, 01_lesson.py has 4"),
    ],
)
def test_a_changed_source_is_out_of_step(lessons: Lessons, built: str, old: str, new: str, message: str) -> None:
    lessons.notebook.write_text(built, encoding="utf-8")
    assert builder.out_of_step(lessons.source) is None
    assert SOURCE.count(old) == 1
    lessons.write(SOURCE.replace(old, new))
    problem = builder.out_of_step(lessons.source)
    assert message in problem
    assert problem.endswith("run: python tools/build_tutorials.py 01_lesson")


def test_a_damaged_or_missing_notebook_is_named(
    lessons: Lessons, built: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lessons.run("--check") == 1
    assert "01_lesson.ipynb is missing" in capsys.readouterr().err
    for text in ("{", "[1]", "{}"):
        lessons.notebook.write_text(text, encoding="utf-8")
        assert "01_lesson.ipynb" in builder.out_of_step(lessons.source), text
    notebook = json.loads(built)
    notebook["cells"][1]["execution_count"] = None
    lessons.notebook.write_text(json.dumps(notebook), encoding="utf-8")
    assert "was not executed once from top to bottom" in builder.out_of_step(lessons.source)


def test_stripped_outputs_are_out_of_step(lessons: Lessons, built: str, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads(built)
    notebook["cells"][1]["outputs"] = []
    lessons.notebook.write_text(json.dumps(notebook), encoding="utf-8")
    assert lessons.run("--check") == 1
    assert "cell 2 holds [], but executing it gives ['stdout']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "cell 2 says '8', but executing it gives '9'"),
        ("9 apples", "cell 2 says '9 apples', but executing it gives '9'"),
        ("9.1", None),  # a machine that rounds differently
    ],
)
def test_edited_outputs_are_out_of_step(
    lessons: Lessons, built: str, text: str, message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads(built)
    notebook["cells"][1]["outputs"][0]["text"] = [f"{text}\n"]
    lessons.notebook.write_text(json.dumps(notebook), encoding="utf-8")
    assert lessons.run("--check") == (0 if message is None else 1)
    assert (message or "") in capsys.readouterr().err


def test_a_cell_that_varies_may_say_anything_but_not_nothing(
    lessons: Lessons, built: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lessons.write(SOURCE.replace("# %%\nx = 3", '# %% tags=["varies"]\nx = 3'))
    notebook = json.loads(built)
    notebook["cells"][1]["outputs"][0]["text"] = ["90 ms\n"]
    lessons.notebook.write_text(json.dumps(notebook), encoding="utf-8")
    assert lessons.run("--check") == 0
    notebook["cells"][1]["outputs"] = []
    lessons.notebook.write_text(json.dumps(notebook), encoding="utf-8")
    assert lessons.run("--check") == 1
    assert "cell 2 holds []" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("[1. 2.]", "[ 1.01\n  2.0]", True),
        ("[1. 2.]", "[1. -2.]", False),
        ("error 2.9e-06", "error 7.5e-07", True),
        ("error 2.9e-06", "error 2.9e-01", False),
        ("loss 1.84 after 20", "loss 1.85 after 20", True),
        ("step 42 of 60", "step 42 of 61", False),
        ("step 42 of 60", "step  42 of 060", True),
        ("nan", "1.0", False),
        ("a b", "a  b c", False),
        ("1 2", "1", False),
    ],
)
def test_texts_that_say_the_same(one: str, other: str, same: bool) -> None:
    assert builder.same_text(one, other) is same


def test_a_damaged_figure_is_out_of_step(lessons: Lessons, capsys: pytest.CaptureFixture[str]) -> None:
    def figure(width: int, height: int, end: bytes = builder.PNG_END) -> str:
        data = builder.PNG_BEGIN + b"\0\0\0\rIHDR" + struct.pack(">II", width, height) + end
        return base64.b64encode(data).decode()

    show = f"display({{'image/png': {figure(300, 200)!r}}}, raw=True)"
    lessons.write(f"# %%\nfrom IPython.display import display\n\n{show}\n")
    assert lessons.run() == 0
    notebook = json.loads(lessons.notebook.read_text("utf-8"))
    data = notebook["cells"][0]["outputs"][0]["data"]
    for other, shown in (
        (figure(303, 200), None),
        (figure(300, 20), "300 x 20"),
        (figure(300, 200, end=b""), "0 x 0"),
    ):
        data["image/png"] = other
        lessons.notebook.write_text(json.dumps(notebook), encoding="utf-8")
        assert lessons.run("--check") == (0 if shown is None else 1)
        if shown:
            assert f"a figure of {shown} pixels, but executing it gives 300 x 200" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("assert x == 4, 'three it is'", "01_lesson.py fails with AssertionError: three it is"),
        ("import warnings\nwarnings.warn('careful')", "01_lesson.py warns"),
    ],
)
def test_a_failing_or_warning_cell_fails_and_leaves_the_old_notebook(
    lessons: Lessons, cell: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lessons.notebook.write_text("old", encoding="utf-8")
    lessons.write(f"{SOURCE}\n# %%\n{cell}\n")
    assert lessons.run() == 1
    assert message in capsys.readouterr().err
    assert lessons.notebook.read_text("utf-8") == "old"
    assert sorted(path.name for path in lessons.folder.iterdir()) == ["01_lesson.ipynb", "01_lesson.py"]


def test_a_notebook_that_is_too_large_is_refused(
    lessons: Lessons, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builder, "MAX_BYTES", 1000)
    assert lessons.run() == 1
    assert "at most 1000: smaller figures" in capsys.readouterr().err
    assert not lessons.notebook.exists()


def test_solutions_run_and_get_no_notebook_and_orphans_are_named(
    lessons: Lessons, built: str, capsys: pytest.CaptureFixture[str]
) -> None:
    solution = lessons.folder / "solutions" / "01_lesson.py"
    solution.parent.mkdir()
    solution.write_text("# %%\nassert 1 == 2\n", encoding="utf-8")
    lessons.source.unlink()
    lessons.notebook.write_text(built, encoding="utf-8")
    assert lessons.run() == 1
    error = capsys.readouterr().err
    assert "01_lesson.ipynb has no source" in error
    assert "01_lesson.py fails with AssertionError" in error
    solution.write_text("# %%\nassert 1 == 1\n", encoding="utf-8")
    lessons.notebook.unlink()
    assert lessons.run() == 0
    assert list(lessons.folder.rglob("*.ipynb")) == []


def test_an_unknown_name_is_wrong_usage(lessons: Lessons, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        lessons.run("01", "99")
    assert exit_.value.code == 2
    assert "has no 99*.py" in capsys.readouterr().err


def test_it_runs_in_this_interpreter(lessons: Lessons) -> None:
    lessons.write(f"# %%\nimport sys\nassert sys.executable == {sys.executable!r}, sys.executable\n")
    assert lessons.run() == 0


@pytest.mark.parametrize("source", [path for path in REAL if builder.has_notebook(path)], ids=lambda path: path.stem)
def test_the_notebook_is_in_step(source: Path) -> None:
    assert builder.out_of_step(source) is None
    assert source.with_suffix(".ipynb").stat().st_size <= builder.MAX_BYTES


@pytest.mark.parametrize("source", [path for path in REAL if builder.has_notebook(path)], ids=lambda path: path.stem)
def test_a_tutorial_ends_in_asserts_and_has_its_solutions(source: Path) -> None:
    last = builder.read_source(source).cells[-1]
    assert last.cell_type == "code"
    assert last.source.count("assert ") >= 3
    assert (source.parent / "solutions" / source.name).exists()
