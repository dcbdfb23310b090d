"""The API pages: every example in them runs, and every function that they describe is used in one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import npprelnorm

FOLDER = Path(__file__).parents[1] / "tools" / "docs"
PAGES = sorted(FOLDER.glob("*.md"))


def examples(page: Path) -> list[str]:
    """The python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def described(page: Path) -> set[str]:
    """The public functions of the modules that a page documents, as far as the page does not leave them out."""
    names: set[str] = set()
    text = page.read_text(encoding="utf-8")
    for module_name, options in re.findall(r"^\.\. automodule:: (\S+)\n((?:   :.*\n)*)", text, re.MULTILINE):
        excluded = re.search(r":exclude-members: (.*)", options)
        left_out = set(excluded.group(1).replace(",", " ").split()) if excluded else set()
        module = importlib.import_module(module_name)
        names |= {
            name
            for name, value in inspect.getmembers(module, inspect.isfunction)
            if value.__module__ == module_name and not name.startswith("_") and name not in left_out
        }
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_the_page_gives_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = examples(page)
    assert blocks, f"{page.name} has no example"
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    printed: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert not printed, "".join(printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_function_that_the_page_describes_is_in_an_example(page: Path) -> None:
    words = set(re.findall(r"\w+", " ".join(examples(page))))
    missing = described(page) - words
    assert not missing, f"{page.name} shows no use of {', '.join(sorted(missing))}"


def test_every_public_name_is_in_an_example() -> None:
    words = {word for page in PAGES for block in examples(page) for word in re.findall(r"\w+", block)}
    missing = set(npprelnorm.__all__) - words - {"__version__"}
    assert not missing, f"no page shows a use of {', '.join(sorted(missing))}"
