"""How a packed weight is stored: as float32, in half the bytes, or as whole numbers of twelve bits with scales."""

from __future__ import annotations

from llvmlite import binding

from .compiling import codes
from .cpu import PLAIN, TILE

FLOAT32, FLOAT16, BFLOAT16, INT12 = codes(4)

# what `from_pretrained(weight_dtype=...)` says -> what the kernels call it
STORAGES = {name: code for code, name in enumerate(("float32", "float16", "bfloat16", "int12"))}


def supported() -> frozenset[str]:
    """The names of `STORAGES` that this processor has the instructions for."""
    names = {"float32", "bfloat16"}
    features = binding.get_host_cpu_features()
    x86 = TILE.lanes >= 8
    if features.get("f16c") if x86 else TILE != PLAIN:  # every ARM of 64 bits can widen a float16
        names.add("float16")
    if x86 and (TILE.lanes == 8 or features.get("avx512bw")):
        names.add("int12")
    return frozenset(names)
