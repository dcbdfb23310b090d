# %% [markdown]
# # Solutions to tutorial 9: making it fast

# %%
import numpy as np

# %% [markdown]
# ## 1. The corner of the roof
#
# It lies at $P/W = 100/20 = 5$ FLOPs a byte. With $b$ bytes a weight and four for each number of the rows,
# $I(N) = 2NCF / (bFC + 4N(C + F))$; $I(N) = P/W$ gives
#
# $$N = \frac{b\,(P/W)}{2 - 4\,(P/W)\,(1/C + 1/F)} .$$
#
# With $b = 4$ about ten rows, with two bytes half as many: fewer bits help until arithmetic decides, and no further.
# The larger the matrix, the less the rows themselves weigh, down to $b\,(P/W) / 2 = 10$. For a small matrix it takes
# more, and where $1/C + 1/F \ge W / 2P$ no number of rows is enough: the rows themselves are the traffic.


# %%
def corner(roof: float, wide: int, deep: int, size: int) -> float:
    return size * roof / (2 - 4 * roof * (1 / deep + 1 / wide))


def intensity(rows: float, wide: int, deep: int, size: int) -> float:
    return 2 * rows * wide * deep / (size * wide * deep + 4 * rows * (wide + deep))


for size in (4, 2):
    rows = corner(5, 3072, 768, size)
    print(f"{size} bytes: from {rows:.1f} rows on")
    assert np.isclose(intensity(rows, 3072, 768, size), 5)
assert 10 < corner(5, 3072, 768, 4) < 11
assert corner(5, 3072, 768, 2) == corner(5, 3072, 768, 4) / 2
assert np.isclose(corner(5, 10**9, 10**9, 4), 10)
assert corner(5, 64, 64, 4) > corner(5, 3072, 768, 4)
assert intensity(1e12, 16, 16, 4) < 5, "1/16 + 1/16 is above 20/200"

# %% [markdown]
# ## 2. The best tile
#
# A step multiplies $8rv$ pairs and loads $8v + r$ numbers, $1/r + 1/(8v)$ for each; but they come as $v$ vectors and
# $r$ single numbers that are spread, $v + r$ instructions for $rv$ multiplications of vectors.

# %%
tiles = [(r, v) for r in range(1, 16) for v in range(1, 16) if r * v + v + 1 <= 16]
numbers = {(r, v): (8 * v + r) / (8 * r * v) for r, v in tiles}
instructions = {(r, v): (v + r) / (r * v) for r, v in tiles}
for tile in ((14, 1), (6, 2), (4, 3), (2, 5)):
    print(tile, f"{numbers[tile]:.3f} numbers, {instructions[tile]:.3f} instructions for each multiplication")
assert min(numbers, key=numbers.get) == (14, 1)
assert min(instructions, key=instructions.get) == (4, 3)
assert instructions[6, 2] < 1.15 * instructions[4, 3]
assert numbers[6, 2] < 1.2 * numbers[14, 1]

# %% [markdown]
# Counted in numbers 14 × 8 is best, counted in instructions (which is what a core has too few of) 4 × 24. 6 × 16 is
# within 15 % and 20 % of both. It uses 15 registers of 16, and its width is a power of two, which divides the sizes of
# most models.
#
# ## 3. Sorted, or packed

# %%
rng = np.random.default_rng(9)
lengths = rng.integers(2, 65, 256)


def padded(lengths: np.ndarray) -> int:
    """Rows of batches of 16, each as wide as its longest text."""
    return int((16 * lengths.reshape(-1, 16).max(axis=1)).sum())


at_random, by_length, packed = padded(lengths), padded(np.sort(lengths)), int(lengths.sum())
print(f"at random {at_random} rows, sorted {by_length}, packed {packed}")
assert packed < by_length < 1.1 * packed
assert at_random > 1.6 * packed

# %% [markdown]
# Sorting gets nearly all of it, where all texts are known beforehand and nobody minds the order. Packing needs neither,
# and leaves the order (and in training the randomness of batches) alone. The package's training does both: sorted in
# buckets, batches are also of like size; packed, what padding is left is not computed.
