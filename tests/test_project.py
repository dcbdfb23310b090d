"""The project as a whole: what it imports, what an import costs, and that its papers agree with each other."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from readme import readme_examples, run_example

import npprelnorm

ROOT = Path(__file__).parents[1]
PACKAGE = Path(npprelnorm.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN = {"torch", "transformers", "pickle", "scipy", "_pickle", "cloudpickle", "dill"}


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of all absolute imports below `tree`, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter, with the package that is being tested."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_torch_or_pickle(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    if module == PACKAGE / "verify.py":
        (child,) = (
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_run_transformers"
        )
        assert imported(child) & FORBIDDEN == {"torch", "transformers"}
        tree.body.remove(child)
    assert not imported(tree) & FORBIDDEN


def test_ops_import_numpy_and_each_other_only() -> None:
    for module in sorted((PACKAGE / "ops").glob("*.py")):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        outside = imported(tree) - set(sys.stdlib_module_names)
        assert outside <= {"numpy"}, module
        upwards = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 1]
        assert not upwards, module


def test_import_loads_numpy_at_most() -> None:
    code = "import sys; old = set(sys.modules); import npprelnorm; print(*(set(sys.modules) - old))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "npprelnorm" in loaded
    assert loaded - set(sys.stdlib_module_names) <= {"npprelnorm", "numpy"}


def test_import_costs_at_most_50_ms_over_numpy() -> None:
    code = (
        "import time, numpy; from json import decoder; start = time.perf_counter(); import npprelnorm;"
        "print(time.perf_counter() - start)"
    )
    seconds = [float(python("-c", code).stdout) for _ in range(5)]
    assert min(seconds) <= 0.050


def test_public_names_are_there() -> None:
    missing = [name for name in npprelnorm.__all__ if getattr(npprelnorm, name, None) is None]
    assert not missing
    assert set(npprelnorm.__all__) <= set(dir(npprelnorm))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        npprelnorm.nonsense  # noqa: B018


def test_version_is_the_same_everywhere() -> None:
    stated = {
        "pyproject.toml": r'^version = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
    }
    for name, pattern in stated.items():
        found = re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert found == [npprelnorm.__version__], name


def test_ci_runs_the_commands_of_the_readme() -> None:
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("try", "test"):
        assert f"$(readme {name})" in run
        done = python(str(ROOT / ".ci" / "readme_command.py"), name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("pip install ")
    assert python(str(ROOT / ".ci" / "readme_command.py"), "nonsense").returncode == 1


def test_ci_fails_when_reference_tests_were_skipped_or_absent(tmp_path: Path) -> None:
    def judged(**counts: int) -> int:
        attributes = " ".join(f'{name}="{count}"' for name, count in counts.items())
        report = tmp_path / "report.xml"
        report.write_text(f"<testsuites><testsuite {attributes}/></testsuites>", encoding="utf-8")
        return python(str(ROOT / ".ci" / "all_ran.py"), str(report)).returncode

    assert judged(tests=3, skipped=0, failures=0, errors=0) == 0
    assert judged(tests=0, skipped=0, failures=0, errors=0) == 1
    assert judged(tests=3, skipped=1, failures=0, errors=0) == 1
    assert judged(tests=3, skipped=0, failures=1, errors=0) == 1
    assert judged(tests=3, skipped=0, failures=0, errors=1) == 1


def test_plain_pytest_deselects_reference_tests_and_m_reference_selects_them(tmp_path: Path) -> None:
    test = tmp_path / "tests" / "test_two.py"
    test.parent.mkdir()
    test.write_text(
        "import pytest\n@pytest.mark.reference\ndef test_live(): pass\ndef test_plain(): pass\n", encoding="utf-8"
    )
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for arguments, name in (((), "test_plain"), (("-m", "reference"), "test_live")):
        done = python("-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *arguments, "-v", str(test))
        assert done.returncode == 0, done.stdout
        assert re.findall(r"::(\w+) PASSED", done.stdout) == [name]


def test_the_readme_has_examples() -> None:
    assert len(readme_examples()) >= 3


@pytest.mark.parametrize("number", range(len(readme_examples())))
def test_readme_example_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder."""
    monkeypatch.chdir(tmp_path)
    run_example(readme_examples()[number])


def test_every_command_in_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(
        re.findall(r"npprelnorm ([a-z]+(?:-[a-z]+)?)\b", " ".join(re.findall(r"```sh\n(.*?)```", readme, re.S)))
    )
    shown = python("-m", "npprelnorm", "--help").stdout
    assert named
    assert [name for name in named if not re.search(rf"^ +{name}\b", shown, re.MULTILINE)] == []


def test_no_torch_is_needed_to_test() -> None:
    """The plain suite must pass without torch: only tests/reference and marked tests may import it."""
    for path in (ROOT / "tests").rglob("*.py"):
        if "reference" in path.parts or "reference" in path.stem:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_import = {name for node in tree.body for name in imported(node) if not isinstance(node, ast.FunctionDef)}
        assert not at_import & {"torch", "transformers"}, path
