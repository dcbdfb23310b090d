"""In an environment with the core alone: import the package, fill a mask, and judge what was loaded on the way.

Loaded may be numpy, safetensors, tokenizers and what these declare that they need, nothing else.
"""

import importlib.metadata
import importlib.util
import re
import sys

before = set(sys.modules)
import npprelnorm  # noqa: E402, F401

after_import = set(sys.modules) - before


def top_level(modules: set[str]) -> set[str]:
    """Top-level names of what was imported and is not the standard library's."""
    names = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"__main__", "npprelnorm"}
    # what Cython puts into sys.modules for its own use was not imported from anywhere, and has no spec
    return {name for name in names if getattr(sys.modules[name], "__spec__", None) is not None}


def needs(distribution: str, found: set[str]) -> set[str]:
    """`distribution` and, recursively, what it requires (extras aside), as far as installed."""
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    if name in found:
        return found
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return found
    found.add(name)
    for requirement in requirements:
        if "extra ==" not in requirement:
            needs(re.match(r"[\w.-]+", requirement).group(), found)
    return found


for absent in ("numba", "torch", "transformers", "pytest", "hypothesis"):
    if importlib.util.find_spec(absent) is not None:
        raise SystemExit(f"{absent} is installed here; this check needs an environment with the core alone")

print("import npprelnorm loads:", sorted(top_level(after_import)) or "nothing but the standard library")
if top_level(after_import) - {"numpy"}:
    raise SystemExit("that is more than NumPy")

from npprelnorm.commands import main  # noqa: E402

if main(["fill-mask", "The capital of France is <mask>."]) != 0:
    raise SystemExit("fill-mask failed")

allowed: set[str] = set()
for dependency in ("numpy", "safetensors", "tokenizers"):
    needs(dependency, allowed)
owners = importlib.metadata.packages_distributions()
loaded = top_level(set(sys.modules) - before)
print("fill-mask loads:", sorted(loaded))
foreign = {
    name for name in loaded if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners.get(name, [])} & allowed
}
if foreign:
    raise SystemExit(f"not numpy, safetensors, tokenizers or what they need: {sorted(foreign)}")
