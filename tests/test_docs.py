"""The API pages: every example in them and in the docstrings runs, and every function that they describe has one."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import npprelnorm

FOLDER = Path(__file__).parents[1] / "tools" / "docs"
# extras without which a module's examples cannot run; its own tests say that they are skipped
NEEDS = {"npprelnorm.inspect.plots": ("matplotlib",)}
PAGES = sorted(FOLDER.glob("*.md"))


def examples(page: Path) -> list[str]:
    """The python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def modules(page: Path) -> list[tuple[ModuleType, set[str]]]:
    """The modules that a page documents, each with the names that it leaves out."""
    found = []
    text = page.read_text(encoding="utf-8")
    for name, options in re.findall(r"^\.\. automodule:: (\S+)\n((?:   :.*\n)*)", text, re.MULTILINE):
        excluded = re.search(r":exclude-members: (.*)", options)
        left_out = set(excluded.group(1).replace(",", " ").split()) if excluded else set()
        found.append((importlib.import_module(name), left_out))
    return found


def described(page: Path) -> dict[str, Any]:
    """The public functions of those modules, by name."""
    return {
        name: value
        for module, left_out in modules(page)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_") and name not in left_out
    }


def failures(test: doctest.DocTest) -> str:
    printed: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    return "".join(printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_the_page_gives_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = examples(page)
    assert blocks, f"{page.name} has no example"
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    assert not (wrong := failures(test)), wrong
    for module, _ in modules(page):
        if not all(importlib.util.find_spec(name) for name in NEEDS.get(module.__name__, ())):
            continue
        for own in doctest.DocTestFinder(exclude_empty=True).find(module):
            assert not (wrong := failures(own)), wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_function_that_the_page_describes_is_in_an_example(page: Path) -> None:
    words = set(re.findall(r"\w+", " ".join(examples(page))))
    missing = {name for name, value in described(page).items() if name not in words and ">>>" not in str(value.__doc__)}
    assert not missing, f"{page.name} shows no use of {', '.join(sorted(missing))}"


def test_every_public_name_is_in_an_example() -> None:
    words = {word for page in PAGES for block in examples(page) for word in re.findall(r"\w+", block)}
    missing = set(npprelnorm.__all__) - words - {"__version__"}
    assert not missing, f"no page shows a use of {', '.join(sorted(missing))}"
