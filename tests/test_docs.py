"""The API pages: they describe every public name, and every example in them and in the docstrings runs.

What a page describes must be shown: by its name in an example (an import or a comment is none), which executes it.
"""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple

import pytest

import npprelnorm

FOLDER = Path(__file__).parents[1] / "tools" / "docs"
PAGES = sorted(FOLDER.glob("*.md"))
# extras without which a module's examples cannot run; its own tests say that they are skipped
NEEDS = {"npprelnorm.inspect.plots": ("matplotlib",)}

# shown, but not executed: they need what a plain test has not
NOT_EXECUTED = {
    "compare_recorded": "a published checkpoint",
    "compare_with_transformers": "transformers",
    "Difference": "what these two return",
    "TorchZipFile": "a file that torch wrote",
}
# on no page: what the pages' modules are made of, and the commands
INTERNAL = {
    "arguments", "checkpoint", "checkpoint.load", "checkpoint.load_pair", "checkpoint.model_types", "checkpoint.names",
    "checkpoint.sharded", "checkpoint.stored_zip", "checkpoint.torch_pickle", "checkpoint.torch_records", "commands",
    "config_checks", "encoder_decoder_base", "figures", "files", "generation", "generation.beam",
    "generation.generate", "generation.pair", "generation.sampling", "generation.settings_checks", "generation.steps",
    "inspect", "inspect.recorded", "kernels", "logit_rows", "ops", "resizing", "smallworld", "stored",
    "tokenizer_files", "tokenizer_inputs", "training", "training.catalog", "training.folder", "training.plot",
    "training.state", "training.tasks", "training.tasks.base", "training.tasks.classification",
    "training.tasks.language", "training.tasks.multiple_choice", "training.tasks.question_answering",
    "training.tasks.records", "training.tasks.token_classification", "twins",
}  # fmt: skip


class Run(NamedTuple):
    """What running the examples of a page gave."""

    failures: str
    names: set[str]  # those that an example reads
    executed: set[CodeType]


def examples(page: Path) -> list[str]:
    """The python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def modules(page: Path) -> list[tuple[ModuleType, set[str]]]:
    """The modules that a page describes, each with the names that it leaves out."""
    found = []
    text = page.read_text(encoding="utf-8")
    for name, options in re.findall(r"^\.\. automodule:: (\S+)\n((?:   :.*\n)*)", text, re.MULTILINE):
        excluded = re.search(r":exclude-members: (.*)", options)
        left_out = set(excluded.group(1).replace(",", " ").split()) if excluded else set()
        found.append((importlib.import_module(name), left_out))
    return found


def available(module: ModuleType) -> bool:
    """Whether what its examples need is installed."""
    return all(importlib.util.find_spec(name) for name in NEEDS.get(module.__name__, ()))


def own_function(value: Any) -> Callable[..., Any] | None:
    """The function behind a method, a property or a decorated function."""
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    value = inspect.unwrap(value) if callable(value) else value
    return value if inspect.isfunction(value) else None


def described(module: ModuleType, left_out: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The functions of a module, and the methods and properties of its classes, that its page describes."""
    for name, value in vars(module).items():
        if name.startswith("_") or name in left_out or getattr(value, "__module__", "") != module.__name__:
            continue
        if not inspect.isclass(value):
            if own_function(value):
                yield name, value
        elif not getattr(value, "_is_protocol", False):
            for method, inner in vars(value).items():
                if (
                    (method == "__call__" or not method.startswith("_"))
                    and method not in left_out
                    and own_function(inner)
                    and not getattr(inner, "__isabstractmethod__", False)
                ):
                    yield f"{name}.{method}", inner


def read_names(code: str) -> set[str]:
    """Every name and attribute that a piece of code reads."""
    nodes = list(ast.walk(ast.parse(code)))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}


def unshown(members: Iterable[tuple[str, Any]], names: set[str], executed: set[CodeType]) -> list[str]:
    """Which of them no example names, or whose code none executes."""
    missing = []
    for name, value in members:
        function, own = own_function(value), name.rpartition(".")[2]
        assert function
        # one that remembers its results may have been called before
        ran = function.__code__ in executed or hasattr(value, "cache_clear") or NOT_EXECUTED.keys() & name.split(".")
        if not ran or not (own in names or own == "__call__"):
            missing.append(name)
    return missing


def run_examples(tests: Iterable[doctest.DocTest]) -> Run:
    """Run doctests, and note what they name and execute."""
    printed: list[str] = []
    names: set[str] = set()
    executed: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            executed.add(frame.f_code)

    for test in tests:
        names |= set().union(*(read_names(example.source) for example in test.examples))
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
        finally:
            sys.setprofile(before)
    return Run("".join(printed), names, executed)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Run]:
    """Runs the examples of a page and of the docstrings on it, once, in an empty folder."""

    @functools.cache
    def run(page: Path) -> Run:
        blocks = examples(page)
        assert blocks, f"{page.name} has no example"
        tests = [doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)]
        for module, _ in modules(page):
            if available(module):
                tests += doctest.DocTestFinder(exclude_empty=True).find(module)
        before = Path.cwd()
        os.chdir(tmp_path_factory.mktemp(page.stem))
        try:
            return run_examples(tests)
        finally:
            os.chdir(before)

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_the_page_gives_what_it_shows(page: Path, run_of: Callable[[Path], Run]) -> None:
    assert not (wrong := run_of(page).failures), wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_everything_that_the_page_describes_is_in_an_example(page: Path, run_of: Callable[[Path], Run]) -> None:
    run = run_of(page)
    members = [one for module, left_out in modules(page) if available(module) for one in described(module, left_out)]
    missing = unshown(members, run.names, run.executed)
    assert not missing, f"{page.name} shows no use of {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_everything_that_the_page_describes_has_a_docstring(page: Path) -> None:
    members = [
        (f"{module.__name__}.{name}", value) for module, out in modules(page) for name, value in described(module, out)
    ]
    bare = [name for name, value in members if not (own_function(value).__doc__ or "").strip()]
    assert not bare, f"{page.name}: {', '.join(bare)}"


def test_every_public_name_is_described_and_in_an_example() -> None:
    blocks = [block for page in PAGES for block in examples(page)]
    read = set().union(*(read_names(e.source) for b in blocks for e in doctest.DocTestParser().get_examples(b)))
    described_in = {
        (module.__name__, name) for page in PAGES for module, out in modules(page) for name in set(vars(module)) - out
    }
    for name in set(npprelnorm.__all__) - {"__version__", "inspect"}:
        assert name in read, f"no page shows a use of {name}"
        assert (getattr(npprelnorm, name).__module__, name) in described_in, f"no page describes {name}"
    for name in npprelnorm.inspect.__all__:
        value = getattr(npprelnorm.inspect, name)
        if not inspect.ismodule(value):
            assert (value.__module__, name) in described_in, f"no page describes inspect.{name}"


def test_every_module_is_on_a_page_or_internal() -> None:
    every = {info.name for info in pkgutil.iter_modules(npprelnorm.__path__)}
    for package in (
        "checkpoint",
        "generation",
        "inspect",
        "ops",
        "pipelines",
        "smallworld",
        "training",
        "training.tasks",
    ):
        path = [str(Path(npprelnorm.__file__).parent.joinpath(*package.split(".")))]
        every |= {f"{package}.{info.name}" for info in pkgutil.iter_modules(path)}
    on_a_page = {module.__name__.removeprefix("npprelnorm.") for page in PAGES for module, _ in modules(page)}
    public = {name for name in every if not name.rpartition(".")[2].startswith("_")}
    assert on_a_page & INTERNAL == set()
    assert public - on_a_page == INTERNAL, "put a new module on a page, or among the internal ones"


def test_an_import_or_a_comment_is_no_use() -> None:
    code = "from a import first, second\nsecond  # third\n'fourth'\nx.fifth(sixth=1)\n"
    assert read_names(code) == {"second", "x", "fifth"}


def test_what_is_only_named_or_only_executed_is_missing() -> None:
    lesson = ModuleType("lesson")
    code = "def shown(): return inner()\ndef inner(): return 1\ndef idle(): return 2\n"
    code += "class Thing:\n    def __call__(self): return 3\n    def method(self): return 4\n"
    exec(code, vars(lesson))

    def missing(source: str) -> list[str]:
        run = run_examples([doctest.DocTestParser().get_doctest(source, dict(vars(lesson)), "one", None, 0)])
        assert not run.failures
        return unshown(described(lesson, {"Left"}), run.names, run.executed)

    assert missing(">>> shown()\n1\n>>> idle is None\nFalse\n") == ["inner", "idle", "Thing.__call__", "Thing.method"]
    assert missing(">>> shown(), inner(), idle()\n(1, 1, 2)\n>>> Thing()(), Thing().method()\n(3, 4)\n") == []
