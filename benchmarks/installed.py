"""How much an installation takes on disk, with everything that it pulls in, from what is installed here."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

OWN = "npprelnorm"
EXTRAS = ("numba", "plot")
PEERS = {
    "torch + transformers": ("torch", "transformers"),
    "onnxruntime + tokenizers": ("onnxruntime", "tokenizers"),
    "OpenVINO + tokenizers": ("openvino", "tokenizers"),
}


def installed_sizes(root: Path) -> dict[str, Any]:
    """Megabytes by what one would install; a string that says what is missing where it cannot be told."""
    requirements = _own_requirements(root)
    # huggingface_hub and the rest come through tokenizers, and are counted with it
    wanted = {OWN: (*requirements[""],)}
    wanted |= {f"{OWN}[{extra}]": (*requirements[""], *requirements.get(extra, ())) for extra in EXTRAS}
    result: dict[str, Any] = {}
    for name, roots in (wanted | PEERS).items():
        found: dict[str, int] = {}
        missing = sorted({gone for one in roots for gone in _collect(one, found)})
        own = _folder_bytes(root / OWN) if name.startswith(OWN) else 0
        total = round((own + sum(found.values())) / 1e6, 1)
        result[name] = f"not installed: {', '.join(missing)}" if missing else total
    return result


def _own_requirements(root: Path) -> dict[str, tuple[str, ...]]:
    """Requirements by extra ("" for those without); from pyproject.toml, since the package need not be installed."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    lists = dict(re.findall(r"^([\w-]+) = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL))
    quoted = {name: tuple(re.findall(r'"([^"]+)"', values)) for name, values in lists.items()}
    return {"": quoted["dependencies"]} | {extra: quoted[extra] for extra in EXTRAS}


def _collect(requirement: str, found: dict[str, int], extras: Collection[str] = ("",)) -> list[str]:
    """Add the bytes of a requirement, and of what it requires, to `found`; returns what is not installed.

    `extras` are those that were asked of the package whose requirement it is.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = Requirement(requirement)
    name = canonicalize_name(wanted.name)
    applies = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras)
    if not applies or name in found:
        return []
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return [name]
    paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    found[name] = sum(path.stat().st_size for path in paths if path.is_file())
    return [gone for line in distribution.requires or () for gone in _collect(line, found, wanted.extras or ("",))]


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
