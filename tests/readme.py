"""The Python examples of the README, and running them as written."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def readme_examples(fence: str = "python") -> list[str]:
    """The blocks between fences of this name, in order; ``py`` has those that need more than is tested with."""
    return re.findall(rf"^```{fence}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run_example(code: str) -> None:
    """Run an example by itself; a comment ``# -> value`` says what an expression must give, and there must be one."""
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    claims = re.findall(r"^(.+?)  # -> (.+)$", code, re.MULTILINE)
    assert claims, f"nothing is claimed in this example:\n{code}"
    for expression, value in claims:
        assert repr(eval(expression, names)) == value
