# %% [markdown]
# # 9. Making it fast: from the reference to the kernel
#
# One forward, computed faster and faster. First what it costs, counted; then one step at a time, each measured against
# the step before, in the same process and in turns. Every step must give the same numbers. The first steps leave work
# out, the later ones do the same work with fewer trips to memory; none needs anything but NumPy and, from the middle
# on, Numba.
#
# You need: matrix products, tutorial 2 for the shapes, tutorial 5 for what a forward is. Running it takes well under a
# minute; where Numba has never compiled the package's kernels, some tens of seconds more, once. Without Numba the
# measurements of the kernels are left out, and say so.
#
# The times below come from one machine, with one thread where nothing else is said. On yours they are others, and so
# are their ratios. What is asserted at the end is what holds everywhere: results and counts, and of the times only that
# loops in Python are slow.
#
# Letters: $B$ sequences of $T$ tokens, $N$ rows that are computed, $R$ rows that are read, $C$ hidden size, $F$ inner
# size, $L$ layers.

# %%
import importlib.util
import tempfile
import time
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

import npprelnorm as nl
from npprelnorm import backend
from npprelnorm.ops.activations import gelu
from npprelnorm.ops.linear import linear

rng = np.random.default_rng(0)
nl.use_backend("numpy")  # until we say otherwise
kernels = backend.load_kernels(by_name=False) if importlib.util.find_spec("numba") else None
print("the kernels are", "ready" if kernels else "not there (pip install numba); their measurements are left out")

# %% [markdown]
# Two functions measure. The machine has slow moments, so that all contestants of a race run in turns, several times,
# and the median counts.


# %%
def race(contestants: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each, without a first round that warms up. Whose name ends in "2 threads" gets them."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(1 + rounds):
        for name, run in contestants.items():
            nl.set_threads(2 if name.endswith("2 threads") else 1)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    nl.set_threads(1)
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def report(seconds: dict[str, float]) -> None:
    before = None
    for name, value in seconds.items():
        print(f"{name:34} {1e3 * value:9.3f} ms" + (f"   {before / value:6.2f} times as fast" if before else ""))
        before = value


# %% [markdown]
# ## What a forward costs
#
# A product of $(N \times K)$ and $(K \times M)$ takes $NKM$ multiplications and as many additions: $2NKM$
# floating-point operations (FLOPs). A layer's six products with weights have $4C^2 + 2CF$ numbers in those weights, so
# a forward takes two FLOPs *for each of these numbers and each row*; the scores and averages of attention add $4T^2C$ a
# sequence and layer. `npprelnorm.inspect.forward_flops` counts them from a model's shapes; the rest (LayerNorm,
# softmax, GELU) is a few operations an element, which is little in FLOPs and, as we shall see, not so little in time.
#
# Our model is RoBERTa-base at a third of its width and depth, with random parameters: speed does not ask what they are.

# %%
C, F, L, B, T = 256, 1024, 4, 16, 64
config = nl.RobertaPreLayerNormConfig(
    vocab_size=1000, hidden_size=C, intermediate_size=F, num_hidden_layers=L, num_attention_heads=4
)
model = nl.RobertaPreLayerNormModel(config, add_pooling_layer=False, rng=0)

lengths = np.array([16, 64, 128, 256, 512])
costs = {"products with weights": [], "scores and averages": []}
for length in lengths.tolist():
    flops = nl.inspect.forward_flops(model, batch=1, tokens=length)
    meeting = sum(count for name, count in flops.items() if name.endswith("attention.self"))
    costs["scores and averages"].append(meeting)
    costs["products with weights"].append(sum(flops.values()) - meeting)

figure, axes = plt.subplots(figsize=(6.4, 3))
bottom = np.zeros(len(lengths))
for (name, counts), colour, hatch in zip(costs.items(), (BLUE, ORANGE), ("", "//"), strict=True):
    axes.bar(range(len(lengths)), np.array(counts) / lengths / 1e6, 0.6, bottom, color=colour, hatch=hatch, label=name)
    bottom += np.array(counts) / lengths / 1e6
axes.set_xticks(range(len(lengths)), lengths)
axes.set(xlabel="tokens in the sequence", ylabel="million FLOPs a token", title="what a token costs")
axes.legend(loc="upper left")
axes.set_ylim(0, 1.35 * bottom.max())
plt.show()

# %% [markdown]
# ## The roofline: arithmetic or memory
#
# To multiply, numbers must first come to the processor. A product of $N$ rows with a weight $(F \times C)$ in float32
# touches at least $4(FC + NC + NF)$ bytes. FLOPs divided by bytes is its *arithmetic intensity*:
#
# $$I(N) = \frac{2NCF}{4(FC + NC + NF)} .$$
#
# One row (a matrix times a vector) has $I \approx 1/2$, whatever the sizes: each weight is fetched and used once. With
# many rows each weight that was fetched is used $N$ times. A processor that does at most $P$ FLOPs a second, and
# fetches at most $W$ bytes a second, can reach no more than $\min(P, I \cdot W)$: the roofline of Williams, Waterman
# and Patterson 2009 ("Roofline: an insightful visual performance model for multicore architectures"). Left of the
# corner memory decides and arithmetic waits; right of it the other way round.
#
# We measure both roofs as well as NumPy can: $W$ by the inner product of two vectors which together have as many bytes
# as the weight (so that they come from the same level of cache), $P$ by a square product.

# %% tags=["varies"]
wide = rng.standard_normal((3072, 768), np.float32)  # RoBERTa-base's, 9.4 MB
halves, square = wide.reshape(2, -1), wide[:768]
counts = [1, 2, 4, 8, 16, 64, 256]
blocks = {count: rng.standard_normal((count, 768), np.float32) for count in counts}
no_bias = np.zeros(3072, np.float32)
plain: dict[str, Callable[[], Any]] = {f"x @ W.T, {n}": (lambda x=x: x @ wide.T) for n, x in blocks.items()}
ours = {f"linear, {n}": (lambda x=x: linear(x, wide, no_bias)) for n, x in blocks.items()}
times = race({"read": lambda: halves[0] @ halves[1], "square": lambda: square @ square.T, **plain, **ours}, rounds=15)
memory_roof, arithmetic_roof = wide.nbytes / times["read"], 2 * 768**3 / times["square"]
print(f"the roofs: {memory_roof / 1e9:.0f} GB/s and {arithmetic_roof / 1e9:.0f} GFLOP/s (10^9 a second)")


# %%
def intensity(rows: int) -> float:
    return 2 * rows * wide.size / (4 * (wide.size + rows * sum(wide.shape)))


points = np.array([intensity(n) for n in counts])
speeds = {way: [2e-9 * n * wide.size / times[f"{way}, {n}"] for n in counts] for way in ("x @ W.T", "linear")}
figure, axes = plt.subplots(figsize=(6.8, 4))
x = np.geomspace(0.3, 200, 100)
axes.loglog(x, np.minimum(arithmetic_roof, x * memory_roof) / 1e9, color=GREY, marker="", label="the roof, as measured")
axes.loglog(points, speeds["linear"], color=ORANGE, marker="s", label="ops.linear")
axes.loglog(points, speeds["x @ W.T"], color=BLUE, marker="o", label="x @ W.T")
for n, place, speed in zip(counts, points, speeds["x @ W.T"], strict=True):
    axes.annotate(f"{n}", (place, speed), (0, -16), textcoords="offset points", ha="center", fontsize=9)
axes.set(
    xlabel="arithmetic intensity (FLOPs a byte)",
    ylabel="GFLOP/s",
    ylim=(0.5 * min(speeds["x @ W.T"]), None),
    title="rows (their number at the points) times a weight (3072, 768)",
)
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# With OpenBLAS, two rows may take longer than twice one row: for more than one vector it copies the weight into an
# order of its own first (step 4), a copy that a few rows do not pay back. `npprelnorm.ops.linear` therefore multiplies
# up to 64 rows with the large matrix on the left, where less is copied.
#
# Two kinds of cure follow. Where there are few rows (a word generated at a time, one short question) only *fewer bytes*
# help. Where there are many, first compute *fewer rows*, and then keep the arithmetic units busy.
#
# ## Step 0: three loops
#
# The definition. Python decides anew at every multiplication what the two objects are; so we do it on a tiny case and
# divide by the number of multiplications.


# %% tags=["varies"]
def three_loops(a: list[list[float]], b: list[list[float]]) -> tuple[list[list[float]], int]:
    """a (N, K) times the transpose of b (M, K), and how many times it multiplied."""
    multiplied = 0
    c = [[0.0] * len(b) for _ in a]
    for i in range(len(a)):
        for j in range(len(b)):
            for k in range(len(b[0])):
                c[i][j] += a[i][k] * b[j][k]
                multiplied += 1
    return c, multiplied


tiny_a, tiny_b = rng.standard_normal((8, 32)), rng.standard_normal((24, 32))
by_loops, multiplied = three_loops(tiny_a.tolist(), tiny_b.tolist())
loop_error = np.abs(np.array(by_loops) - tiny_a @ tiny_b.T).max()
times = race({"loops": lambda: three_loops(tiny_a.tolist(), tiny_b.tolist()), "square": lambda: square @ square.T}, 3)
loop_each, numpy_each = times["loops"] / multiplied, times["square"] / 768**3
print(f"{multiplied} multiplications, at most {loop_error:.0e} off")
print(f"a multiplication: {1e9 * loop_each:.0f} ns in Python, {1e9 * numpy_each:.3f} ns in NumPy's BLAS")

# %% [markdown]
# ## Step 1: one product for the whole batch
#
# A linear map treats every token alike, so that a batch $(B, T, C)$ is one matrix $(BT, C)$. It is easy to miss: a loop
# over tokens is $BT$ products of matrix and vector, each of which fetches the whole weight; a loop over sequences is
# $B$ small products; and `x @ W.T` with three axes looks like one call and is that loop, inside NumPy. `reshape` copies
# nothing.

# %% tags=["varies"]
weight = model.params["encoder.layer.0.intermediate.dense.weight"]  # (F, C)
x = rng.standard_normal((64, 8, C), np.float32)  # many short sequences
ways = {
    "a token at a time": lambda: np.stack([np.stack([weight @ row for row in sequence]) for sequence in x]),
    "a sequence at a time": lambda: np.stack([sequence @ weight.T for sequence in x]),
    "x @ W.T on three axes": lambda: x @ weight.T,
    "one product": lambda: (x.reshape(-1, C) @ weight.T).reshape(*x.shape[:-1], F),
}
shapes_agree = [np.allclose(way(), ways["one product"](), rtol=0, atol=1e-5) for way in ways.values()]
report(race(ways))

# %% [markdown]
# The middle two may even be slower than a token at a time: 8 rows are just the few that do not pay for BLAS's copy.
#
# ## Step 2: padding is not computed
#
# Texts have different lengths. A batch is a rectangle, filled up with padding that attention masks out: it is computed
# in every layer, and nobody looks at it. Linear maps, LayerNorm and GELU work on rows, and do not mind from which
# sequence a row comes; only attention has to know where each sequence begins. So the rows that are real are packed, one
# sequence after the other, and `bounds` says where each begins (`npprelnorm/rows.py`; outside of the package this is
# called *varlen*, *ragged*, *unpadded*: Zhai et al. 2022, [arXiv:2210.03052](https://arxiv.org/abs/2210.03052)).

# %%
sizes = np.linspace(2, T, B).round().astype(int)  # from 2 to 64 tokens, the half of 64 in the mean
mask = (np.arange(T) < sizes[:, None]).astype(np.int64)  # (B, T)
ids = np.where(mask == 1, rng.integers(10, 1000, (B, T)), config.pad_token_id)
batch = {"input_ids": ids, "attention_mask": mask}
real = mask.astype(bool)
bounds = np.concatenate([[0], np.cumsum(sizes)])  # (B + 1,)

figure, panels = plt.subplots(2, 1, figsize=(8, 4.2), height_ratios=[5, 1])
panels[0].pcolormesh(
    np.where(real, np.arange(B)[:, None] % 2 + 1, 0), cmap="cividis", edgecolors="white", linewidth=0.3
)
panels[0].set(
    title=f"the batch: {B * T} rows; dark is padding, sequences are yellow and grey in turn",
    xlabel="token",
    ylabel="sequence",
    yticks=[0, 5, 10, 15],
)
panels[0].invert_yaxis()
strip = np.repeat(np.arange(B) % 2 + 1, sizes)[None]
panels[1].pcolormesh(strip, cmap="cividis", vmin=0, vmax=2)
panels[1].set(title=f"packed: {real.sum()} rows", xlabel="row", yticks=[], xlim=(0, B * T))
for axes in panels:
    axes.grid(False)
plt.show()

# %% tags=["varies"]
padded_rows, packed_rows = B * T, int(real.sum())
all_rows = model(**batch).last_hidden_state  # (B, T, C)
packed = model(**batch, packed=True).last_hidden_state  # zeros where the padding is
packing_error = np.abs(packed - all_rows)[real].max()
packing = race({"padding computed": lambda: model(**batch), "packed": lambda: model(**batch, packed=True)})
print(f"{packed_rows} of {padded_rows} rows; real tokens differ by at most {packing_error:.0e}")
report(packing)

# %% [markdown]
# ## Step 3: only the rows that are read
#
# A classifier reads the first token of each sequence and nothing else. In the layers below the last, every row is read:
# by the next layer's attention. In the last layer the other rows are needed for their keys and values alone. Their
# queries, output projections and whole feed-forward blocks are read by nobody. Counted in products with weights:
#
# $$\underbrace{N\,(4C^2 + 2CF)}_{\text{the last layer in full}} \quad\to\quad
#   \underbrace{2NC^2}_{\text{keys, values}} + \underbrace{R\,(2C^2 + 2CF)}_{\text{the rest, for } R \text{ rows}} .$$

# %% tags=["varies"]
first = np.zeros((B, T), bool)
first[:, 0] = True
layer_in_full = packed_rows * (4 * C**2 + 2 * C * F)  # multiplications with weights
layer_for_first = 2 * packed_rows * C**2 + B * (2 * C**2 + 2 * C * F)
every_layer = L * layer_in_full
fewer_rows = every_layer - layer_in_full + layer_for_first

read_alone = model.base(**batch, read=first).last_hidden_state  # (R, C)
reading_error = np.abs(read_alone - all_rows[first]).max()
reading = race(
    {"packed": lambda: model(**batch, packed=True), "first rows read": lambda: model.base(**batch, read=first)}
)
print(f"the last layer: {layer_for_first / layer_in_full:.0%} of its multiplications with weights are left,")
print(f"of all {L} layers: {fewer_rows / every_layer:.0%}; results differ by at most {reading_error:.0e}")
report(reading)

# %% [markdown]
# ## Step 4: panels and a register tile
#
# Work has been left out; what remains has to be done faster. How does one multiply matrices at the speed of the
# arithmetic? A core of today can do 16 or 32 multiplications with addition in one tick, but load only two or three
# vectors. The definition loads two numbers for each multiplication. The way out (Goto and van de Geijn 2008, "Anatomy
# of high-performance matrix multiplication", section 6.1; packing is in section 4.2): keep a *tile* of $r \times w$
# sums in registers. At each step of the depth $k$, load $w$ numbers of the weight and $r$ of the rows, and use each of
# them for a whole row or column of the tile: $r + w$ loaded, $rw$ multiplied. Here it is, in NumPy and slow, with its
# loads counted.


# %%
def panels_of(weight: np.ndarray, width: int) -> np.ndarray:
    """A weight (M, K) as panels (M / width, K, width): in the order in which a tile wants its numbers."""
    return np.ascontiguousarray(weight.reshape(-1, width, weight.shape[1]).swapaxes(1, 2))


def by_tiles(a: np.ndarray, panels: np.ndarray, rows: int) -> tuple[np.ndarray, int]:
    """a (N, K) times the weight in the panels, and how many numbers were loaded."""
    count, depth, width = panels.shape
    c, loaded = np.zeros((a.shape[0], count * width), a.dtype), 0
    for p in range(count):  # the panel stays in the first-level cache ...
        for top in range(0, a.shape[0], rows):  # ... while all rows pass by
            sums = np.zeros((rows, width), a.dtype)  # these would be registers
            for k in range(depth):
                sums += np.outer(a[top : top + rows, k], panels[p, k])
                loaded += rows + width
            c[top : top + rows, p * width : (p + 1) * width] = sums
    return c, loaded


small_a, small_weight = rng.standard_normal((24, 40)), rng.standard_normal((32, 40))
small_panels = panels_of(small_weight, 16)
tiled = {rows: by_tiles(small_a, small_panels, rows) for rows in (1, 2, 4, 6, 12)}
tile_error = max(np.abs(c - small_a @ small_weight.T).max() for c, _ in tiled.values())
loads = {rows: loaded / (24 * 40 * 32) for rows, (_, loaded) in tiled.items()}
for rows, each in loads.items():
    print(f"a tile of {rows:2} x 16: {each:.3f} numbers loaded for each multiplication")

# %% [markdown]
# Why not a tile of $100 \times 16$? There are only so many registers, and a sum that does not fit is stored and loaded
# again. `npprelnorm/kernels/cpu.py` has the tiles, all of them 16 wide, so that one packing serves every processor:
#
# | processor | registers | tile | sums | panel and rows |
# |---|---|---|---|---|
# | SSE2 | 16 of 4 numbers | 2 × 16 | 8 | 4 + 1, and products apart |
# | AVX2 | 16 of 8 | 6 × 16 | 12 | 2 + 1 |
# | AVX-512 | 32 of 16 | 12 × 16 | 12 | 1, rows straight from memory |
# | NEON | 32 of 4 | 6 × 16 | 24 | 4 + 1 |
#
# Twelve sums also because a multiplication with addition takes about four ticks and two can start in each: with fewer
# than eight independent sums the unit waits for itself. The *panel* is the other half: a weight lies in memory row by
# row, where the 16 numbers that a step wants are $4K$ bytes apart. Packed once, when a model is loaded, they lie side
# by side, and are read in the order in which they lie. BLAS has to pack at every call, because it cannot know that the
# matrix will come again; a model's weights always do. Numba's loops alone do not keep such a tile in registers, which
# is why `npprelnorm/kernels/primitives.py` writes that one loop in LLVM's language.
#
# That order has a second use. With few rows a panel comes from main memory, 100 ns away, and each of its lines is used
# once, 1 to 5 ns after the one before it. Processors fetch ahead by themselves, but not far enough: so every step also
# asks for the line that is 128 steps away (a *prefetch*), and the fetching goes on while the tile multiplies.

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=[1, 1.2])
axes = panels[0]
for place, size, colour, text in (
    ((-6, 0), (4, 6), SKY, "6 rows of a"),
    ((0, 8), (16, 4), ORANGE, "a panel: 16 columns"),
    ((0, 0), (16, 6), GREEN, ""),
):
    axes.add_patch(plt.Rectangle(place, *size, facecolor=colour, alpha=0.35, edgecolor=BLACK))
    if text:
        axes.text(place[0] + size[0] / 2, place[1] + size[1] + 0.4, text, ha="center", fontsize=10)
axes.add_patch(plt.Rectangle((-4.5, 0), 1, 6, facecolor=BLUE))
axes.add_patch(plt.Rectangle((0, 9.5), 16, 1, facecolor=RED))
axes.text(8, 3, "6 × 16 sums, in registers", ha="center", va="center", fontsize=10)
axes.text(-4, -1.4, "6 numbers", ha="center", color=BLUE, fontsize=10)
axes.text(16.5, 10, "16 numbers", va="center", color=RED, fontsize=10)
axes.set(xlim=(-7.5, 23), ylim=(-2.5, 14), aspect="equal", title="one step of the depth: 22 loaded, 96 multiplied")
axes.axis("off")
axes = panels[1]
r = np.arange(1, 25)
axes.plot(r, (r + 16) / (16 * r), color=GREY, marker="", label="(r + 16) / 16 r")
axes.plot(list(loads), list(loads.values()), color=BLUE, marker="o", linestyle="", label="counted")
for rows, name in ((2, "SSE2"), (6, "AVX2, NEON"), (12, "AVX-512")):
    axes.annotate(name, (rows, loads[rows]), (6, 8), textcoords="offset points", fontsize=10)
axes.set(xlabel="rows r of the tile", ylabel="loads a multiplication", title="what a tile saves", ylim=(0, 1.15))
axes.legend()
plt.show()

# %% [markdown]
# The package's kernel against NumPy's BLAS, which has such tiles too and packs at every call: the same weight, in
# float32, one thread. For a few rows BLAS's copy counts; for many it is spread over all of them. One row is a vector,
# for which BLAS copies nothing, and our kernel's call, some tens of microseconds of Python, shows.

# %% tags=["varies"]
model.params["encoder.layer.0.intermediate.dense.weight"].flags.writeable = False  # it will not change: packed once
bias = model.params["encoder.layer.0.intermediate.dense.bias"]
kernel_errors = []
for rows in (1, 4, 16, 64, 256, 1024):
    a = rng.standard_normal((rows, C), np.float32)
    if kernels:
        times = race(
            {"NumPy": lambda a=a: linear(a, weight, bias), "tile": lambda a=a: kernels.linear(a, weight, bias)}
        )
        kernel_errors.append(np.abs(linear(a, weight, bias)[0] - kernels.linear(a, weight, bias)[0]).max())
        speed = [2e-9 * rows * weight.size / seconds for seconds in times.values()]
        print(f"{rows:5} rows: NumPy {speed[0]:6.1f}, kernel {speed[1]:6.1f} GFLOP/s")
if not kernels:
    print("left out: Numba is not there")

# %% [markdown]
# ## Step 5: what follows, while the tile is still there
#
# After the product comes the bias, then GELU. In NumPy each is a pass over $(N, F)$ numbers, which are larger than the
# cache: written by one call and fetched by the next. The kernel (`npprelnorm/kernels/gemm.py`) begins its sums with the
# bias and applies the activation to 16 columns while they lie in the cache, before anybody writes them out: a fused
# *epilogue*. The residual is added likewise.

# %% tags=["varies"]
a = rng.standard_normal((1024, C), np.float32)
if kernels:
    from npprelnorm.kernels.gemm import GELU

    fused = kernels.linear(a, weight, bias, what=GELU)[0]
    epilogue_error = np.abs(fused - gelu(linear(a, weight, bias)[0])[0]).max()
    times = race(
        {
            "NumPy: product, bias, GELU": lambda: gelu(linear(a, weight, bias)[0]),
            "kernel's product, NumPy's GELU": lambda: gelu(kernels.linear(a, weight, bias)[0]),
            "kernel, all in one": lambda: kernels.linear(a, weight, bias, what=GELU),
        }
    )
    report(times)
else:
    print("left out: Numba is not there")

# %% [markdown]
# ## Step 6: exp and erf as polynomials
#
# A loop becomes vector instructions only if nothing in it is a call, and the C library's `exp` and `erf` are calls. So
# they are written out. For $e^x$: let $n$ be the whole number nearest to $x / \ln 2$ and $r = x - n\ln 2$, so that
#
# $$e^x = 2^n e^r, \qquad |r| \le \tfrac12 \ln 2 .$$
#
# $2^n$ is the exponent field of a float, and $e^r$ on that short interval is a polynomial. How many terms? Taylor's
# series is best at 0 and worst at the ends; interpolation at Chebyshev's nodes spreads the error evenly and saves a
# term. We need what float32 can tell apart, $2^{-24}$.

# %%
end = np.log(2) / 2
r = np.linspace(-end, end, 2001)
degrees = np.arange(1, 9)
by_chebyshev = [
    np.abs(np.polynomial.Chebyshev.interpolate(np.exp, d, [-end, end])(r) / np.exp(r) - 1).max() for d in degrees
]
factorials = np.cumprod([1.0, *range(1, 9)])
by_taylor = [np.abs(sum(r**k / factorials[k] for k in range(d + 1)) / np.exp(r) - 1).max() for d in degrees]


def exp(x: np.ndarray) -> np.ndarray:
    """e^x without a call: in float64, so that what is left is the polynomial's error."""
    n = np.rint(x / np.log(2))
    y = np.polynomial.Chebyshev.interpolate(np.exp, 6, [-end, end])(x - n * np.log(2))
    return np.ldexp(y, n.astype(int))


everywhere = np.linspace(-80, 80, 10001)
exp_error = np.abs(exp(everywhere) / np.exp(everywhere) - 1).max()
print(f"degree 6, from -80 to 80: {exp_error:.1e}")

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.2))
axes.semilogy(degrees, by_taylor, color=ORANGE, marker="s", label="Taylor")
axes.semilogy(degrees, by_chebyshev, color=BLUE, marker="o", label="Chebyshev nodes")
axes.axhline(2.0**-24, color=BLACK, linestyle="--", linewidth=1)
axes.text(1, 2.0**-24 * 1.6, "half a unit in the last place of float32", fontsize=10)
axes.set(xlabel="degree", ylabel="largest relative error", title="a polynomial for exp, |r| ≤ ln(2) / 2")
axes.legend()
plt.show()

# %% [markdown]
# The error function is two polynomials, one in $x$ near 0 and one for the tail, which multiplies $e^{-x^2}$
# (`npprelnorm/ops/erf.py`). The reference and the kernel (`npprelnorm/kernels/vector_math.py`) share their
# coefficients.
#
# ## Step 7: one call for a forward, and a team of threads
#
# A call into NumPy costs about a microsecond before it computes anything, and a forward makes hundreds of calls: most
# of the time of a very short input. The kernel gets a table of addresses, and takes the rows of the embeddings through
# all layers without coming back to Python. `profile_forward` counts.

# %% tags=["varies"]
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    # loaded from a file, parameters are read-only: they are packed once and never checked again
    model = nl.RobertaPreLayerNormModel.from_pretrained(folder)
    stored = {"float32": model}
    for name in sorted(kernels.supported() - {"float32"}) if kernels else ():
        stored[name] = nl.RobertaPreLayerNormModel.from_pretrained(folder, weight_dtype=name)
question = {"input_ids": rng.integers(10, 1000, (1, 4))}


def with_kernels(run: Callable[..., Any], **inputs: Any) -> np.ndarray:
    with nl.use_backend("numba" if kernels else "numpy"):
        return run(**inputs).last_hidden_state


# %% tags=["varies"]
calls = {"NumPy": sum(op.calls for op in nl.inspect.profile_forward(model, repeats=1, **question).ops)}
if kernels:
    with nl.use_backend("numba"):
        profile = nl.inspect.profile_forward(model, repeats=1, **question)
    calls["kernel"] = sum(op.calls for op in profile.ops if op.op == "encoder")
    dispatch_error = np.abs(with_kernels(model, **question) - model(**question).last_hidden_state).max()
    report(
        race(
            {
                "4 tokens, NumPy": lambda: model(**question),
                "4 tokens, one call": lambda: with_kernels(model, **question),
            }
        )
    )
print("calls of ops, or of the kernel:", calls)

# %% [markdown]
# Inside, the forward is a row of stages (LayerNorm, product, attention ...) and each stage is cut into tasks, a few for
# each thread. Whoever is free takes the next one; a stage is over when its last *task* is done, not when the last
# thread has come by, so that a thread which wakes late holds nobody up (`npprelnorm/kernels/team.py`). What a task
# computes does not depend on who computes it: the numbers are the same, bit for bit, for any number of threads.
# Parallel sums that are added up in the order in which threads finish do not have that property, and nobody can debug
# them.

# %%
if kernels:
    by_threads = {}
    for count in (1, 2, 3):
        nl.set_threads(count)
        by_threads[count] = with_kernels(model.base, **batch, read=first)
    nl.set_threads(1)
    same_bits = all(np.array_equal(by_threads[1], other) for other in by_threads.values())
    print("the same bits from 1, 2 and 3 threads:", same_bits)
else:
    print("left out: Numba is not there")

# %% [markdown]
# ## Step 8: fewer bits
#
# With few rows, what is left is fetching the weights; so they are stored in two bytes instead of four, and widened when
# they are in a register. float16 has 11 bits of significand, bfloat16 8 (and float32's range). `int12` divides every
# output channel by its largest magnitude and rounds to whole numbers from −2047 to 2047, and rows likewise: their
# products are exact whole numbers, two of which one instruction multiplies and adds, so that it helps with many rows
# as well. This step alone changes the results by more than rounding. How much, one can see in NumPy. How much time it
# saves depends on where the weights come from: all layers of this model have 12.6 MB, which many processors hold in
# their cache; those of RoBERTa-base have 340 MB.


# %% tags=["varies"]
def to_bfloat16(w: np.ndarray) -> np.ndarray:
    bits = w.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)  # to nearest, ties to even


def to_int12(w: np.ndarray) -> np.ndarray:
    scale = np.abs(w).max(axis=1, keepdims=True) / 2047
    return np.rint(w / scale) * scale


rounded = {"float16": weight.astype(np.float16), "bfloat16": to_bfloat16(weight), "int12": to_int12(weight)}
weight_errors = {name: float(np.abs(w - weight).max() / np.abs(weight).max()) for name, w in rounded.items()}
print("largest error, as a part of the largest weight:", {n: f"{e:.1e}" for n, e in weight_errors.items()})
if kernels:
    exact = with_kernels(model, **question)
    bit_errors = {name: np.abs(with_kernels(own, **question) - exact).max() for name, own in stored.items()}
    print(f"hidden states of up to {np.abs(exact).max():.1f}; with fewer bits they are off by")
    for name, error in bit_errors.items():
        print(f"{name:9} {4 if name == 'float32' else 2} bytes a weight: {error:.1e}")
    times = race({name: lambda own=own: with_kernels(own, **question) for name, own in stored.items()}, rounds=15)
    print({name: f"{1e3 * seconds:.2f} ms" for name, seconds in times.items()})

# %% [markdown]
# ## All steps, one job
#
# The first row of 16 sequences of 2 to 64 tokens, as a classifier wants it: every step that a whole forward can take,
# all in turns. Two threads help as far as a second processor is idle: on a machine that others use at the time they may
# gain nothing.

# %% tags=["varies"]
steps: dict[str, Callable[[], Any]] = {
    "NumPy, padding computed": lambda: model(**batch).last_hidden_state[:, 0],
    "padding left out": lambda: model(**batch, packed=True).last_hidden_state[:, 0],
    "only the rows that are read": lambda: model.base(**batch, read=first).last_hidden_state,
}
if kernels:
    steps["kernels"] = lambda: with_kernels(model.base, **batch, read=first)
    steps["kernels, 2 threads"] = steps["kernels"]
    if "int12" in stored:
        steps["kernels, int12, 2 threads"] = lambda: with_kernels(stored["int12"].base, **batch, read=first)
expected = all_rows[:, 0]
step_errors = {name: float(np.abs(run() - expected).max()) for name, run in steps.items()}
ladder = race(steps)
report(ladder)

# %%
figure, axes = plt.subplots(figsize=(8, 0.5 * len(ladder) + 1.1))
for place, (seconds, colour) in enumerate(zip(ladder.values(), (GREY, ORANGE, SKY, BLUE, GREEN, PINK), strict=False)):
    axes.barh(place, 1e3 * seconds, color=colour)
    times_as_fast = next(iter(ladder.values())) / seconds
    axes.text(1e3 * seconds, place, f"  {1e3 * seconds:.1f} ms, {times_as_fast:.1f}×", va="center", fontsize=10)
axes.set_yticks(range(len(ladder)), list(ladder))
axes.set(xlabel="milliseconds, and times as fast as the first", xlim=(0, 1.3e3 * max(ladder.values())))
axes.invert_yaxis()
axes.grid(axis="y")
plt.show()

# %% [markdown]
# What to take home, in the order in which it pays: count before measuring; leave out what nobody reads; put rows
# together; then reuse what was fetched. A good part of the gain needs no kernel at all. And a speed is worth something
# only beside an error: without the comparisons above, the fastest forward would be one that returns zeros.
#
# ## Exercises
#
# 1. From how many rows on is a product with RoBERTa-base's (3072, 768) bound by arithmetic, on a processor of 100
#    GFLOP/s and 20 GB/s? And with weights in two bytes? How does the first number change with the size of the matrix?
# 2. You may choose a tile of $r$ rows and $v$ vectors for a processor with 16 registers of 8 numbers, if sums, one
#    row's panel and one number of $a$ must fit: $rv + v + 1 \le 16$. Which $(r, v)$ loads least for each
#    multiplication, and how does 6 × 16 compare?
# 3. Sorting texts by length before they are cut into batches also leaves padding out. Compare, by counts alone: 256
#    texts of 2 to 64 tokens in batches of 16, at random; sorted; packed.
#
# Answers: [solutions/09_making_it_fast.py](solutions/09_making_it_fast.py).
#
# ## What was claimed, asserted

# %%
six = L * (4 * C**2 + 2 * C * F)  # numbers in the weights of all layers
assert np.array_equal(costs["products with weights"], 2 * lengths * six), "two FLOPs a weight and row"
assert np.array_equal(costs["scores and averages"], 4 * L * C * lengths**2), "which grows with the square"
assert 0.49 < intensity(1) < 0.5, "matrix times vector: half a FLOP a byte"
assert intensity(256) > 100 * intensity(1)

assert multiplied == tiny_a.shape[0] * tiny_a.shape[1] * tiny_b.shape[0]
assert loop_error < 1e-13
assert loop_each > 10 * numpy_each, "usually a thousand times as long, and more"
assert all(shapes_agree)

assert packed_rows == sizes.sum() == bounds[-1] < 0.55 * padded_rows
assert packing_error < 2e-5
assert np.array_equal(packed[~real], np.zeros((padded_rows - packed_rows, C)))
assert read_alone.shape == (B, C)
assert reading_error < 2e-5
assert layer_for_first < 0.25 * layer_in_full
assert fewer_rows < 0.85 * every_layer

assert tile_error < 1e-13
for rows, each in loads.items():
    assert each == (rows + 16) / (16 * rows)
assert loads[12] < loads[6] < 0.25 < 1 < loads[1]

assert all(np.array(by_chebyshev) < by_taylor), "for every degree"
assert by_chebyshev[4] < 2.0**-18 < by_chebyshev[2], "degree 5, and degree 3"
assert exp_error < 2.0**-24, "degree 6 is enough for float32"

assert calls["NumPy"] > 10 * L, "more than ten calls a layer"
assert weight_errors["bfloat16"] < 2.0**-8
assert weight_errors["float16"] < 2.0**-11
assert weight_errors["int12"] < 1 / 4000
for name, error in step_errors.items():
    assert error < (0.05 if "int12" in name else 2e-5), name
if kernels:
    assert max(kernel_errors) < 2e-5
    assert epilogue_error < 2e-5
    assert calls["kernel"] == 1, "all layers in one call"
    assert dispatch_error < 2e-5
    assert same_bits
    assert bit_errors["float32"] == 0 < bit_errors["bfloat16"] < 0.1
