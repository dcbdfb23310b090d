"""What the processor has: the shape of the matrix kernel's tile, and how many numbers fit into a cache."""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import binding

# Columns of a tile, and so of a panel of packed weights, whatever the processor.
WIDTH = 16


class Tile(NamedTuple):
    """A tile of rows x (vectors * lanes) sums, all held in vector registers while a product runs.

    Attributes
    ----------
    rows : int
    vectors : int
        Vectors in a row: ``vectors * lanes`` is `WIDTH`.
    lanes : int
        Numbers in a vector.
    fused : bool
        Whether the processor multiplies and adds in one instruction.
    """

    rows: int
    vectors: int
    lanes: int
    fused: bool


# 32 registers of 16 numbers: 12 sums and 1 of the panel; the numbers of the rows come straight from memory.
AVX512 = Tile(12, 1, 16, True)
# 16 registers of 8 numbers: 12 sums, 2 of the panel, 1 of the rows.
AVX2 = Tile(6, 2, 8, True)
# 32 registers of 4 numbers: 24 sums, 4 of the panel, 1 of the rows.
NEON = Tile(6, 4, 4, True)
# 16 registers of 4 numbers: 8 sums, 4 of the panel, 1 of the rows, and one for each product.
PLAIN = Tile(2, 4, 4, False)


def host_tile() -> Tile:
    """The tile for the processor that this runs on."""
    architecture = binding.get_process_triple().partition("-")[0]
    if architecture in ("aarch64", "arm64"):
        return NEON
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return AVX512
    return AVX2 if features.get("avx2") and features.get("fma") else PLAIN


TILE = host_tile()

# Rows and depth of a block of the left matrix: 96 x 768 float32 numbers are 288 KiB, and stay in a second-level cache
# (256 KiB to 2 MiB on the processors of the last ten years) while all the panels pass by.
BLOCK_ROWS = 96
BLOCK_DEPTH = 768

# Rows of a panel that a tile asks for ahead of time. With few rows on the left each is used once, comes from main
# memory (some 100 ns away), and is needed 1 to 5 ns after the one before it.
AHEAD = 128
