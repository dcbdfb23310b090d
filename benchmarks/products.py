"""What `python -m benchmarks kernels` measures: matrix products, who computes them, and what they cannot outrun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .statistics import Rounds, middle, quartiles, ratio

# of the weights that are multiplied with by turns, where they are to come from memory: more than caches hold
FROM_MEMORY = 128 << 20
EVERY_ROW = 1 << 62


@dataclass(frozen=True)
class Product:
    """x (rows, depth) times a weight (columns, depth), transposed, plus a bias: one row of the table.

    Attributes
    ----------
    weights : int
        So many of them are used by turns: with 1 a small weight stays in the cache, with many each comes from memory,
        as those of a model do.
    """

    rows: int
    depth: int
    columns: int
    weights: int = 1

    @property
    def name(self) -> str:
        """What the command line and the results file call it."""
        return f"{self.rows}x{self.depth}x{self.columns}{'-memory' if self.weights > 1 else ''}"

    @property
    def title(self) -> str:
        """What the table calls it."""
        shape = f"{self.rows} x {self.depth} x {self.columns}"
        return f"{shape}, weights from memory" if self.weights > 1 else shape

    @property
    def work(self) -> int:
        """Floating-point operations."""
        return 2 * self.rows * self.depth * self.columns

    @property
    def weight_numbers(self) -> int:
        """Numbers in the weight."""
        return self.depth * self.columns


@dataclass(frozen=True)
class Contender:
    """Who computes products. The code is in `engines.products`, under the same `run`.

    Attributes
    ----------
    name : str
        What the table calls it.
    run : str
        The function there that makes it ready for a weight.
    tolerance : float
        The largest error by norm against float64. Rounding a weight to 11 bits (float16) or 8 (bfloat16) is off by at
        most half a unit in its last place; 12 whole bits of a row's largest number by about four times float16's.
    weight_dtype : str
        How it stores a weight.
    bytes : int
        Of a stored number.
    most_rows : int
        It is not for more rows of x.
    """

    name: str
    run: str
    tolerance: float = 5e-6
    weight_dtype: str = "float32"
    bytes: int = 4
    most_rows: int = EVERY_ROW


BLAS = "BLAS"
CONTENDERS = (
    Contender(BLAS, "blas"),
    Contender("ops.linear", "reference"),
    Contender("packed", "packed"),
    Contender("few rows, not packed", "few_rows", most_rows=32),
    Contender("packed float16", "packed", 2.0**-11, "float16", 2),
    Contender("packed bfloat16", "packed", 2.0**-8, "bfloat16", 2),
    Contender("packed 12 bit", "packed", 2.0**-9, "int12", 2),
)

# what no product outruns, measured in turn with them: operations in registers, and reading memory
PEAK, PEAK_1, MEMORY = "FMA peak", "FMA peak, 1 thread", "memory read"
CEILINGS = {PEAK: "GFLOP/s", PEAK_1: "GFLOP/s", MEMORY: "GB/s"}


def products(*, quick: bool = False) -> list[Product]:
    """Those of the base model: few rows and many, weights in the cache and from memory, and the vocabulary's."""
    shapes = ((48, 48), (48, 80)) if quick else ((768, 768), (768, 3072), (3072, 768))
    result = [Product(rows, *shape) for rows in ((1, 7) if quick else (1, 12, 24, 126, 1020)) for shape in shapes]
    for rows in (1, 7) if quick else (1, 12):
        for depth, columns in shapes[:2]:
            weights = 3 if quick else -(-FROM_MEMORY // (4 * depth * columns))
            result.append(Product(rows, depth, columns, weights))
        result.append(Product(rows, shapes[0][0], 517 if quick else 50265))
    return result


def row_summary(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each contender its median and quartiles, its rate, and how it stands to the ceilings and to BLAS.

    Shares and ratios are medians over the rounds, as in `statistics.ratio`: all took a turn in each round.
    """
    samples: Mapping[str, Rounds] = row["samples"]
    peak = _scaled(samples[PEAK], row["work"] / row["amounts"][PEAK])
    result = {}
    for contender in CONTENDERS:
        if contender.name not in samples:
            continue
        own = samples[contender.name]
        low, high = quartiles(own)
        read = _scaled(samples[MEMORY], row["weight_numbers"] * contender.bytes / row["amounts"][MEMORY])
        result[contender.name] = {
            "median": middle(own),
            "quartiles": [low, high],
            "samples": sum(map(len, own)),
            "gflops": row["work"] / middle(own) / 1e9,
            "of_peak": ratio(peak, own),
            "of_memory": ratio(read, own),
            "to_blas": ratio(samples[BLAS], own) if BLAS in samples else None,
        }
    return result


def _scaled(rounds: Rounds, factor: float) -> Rounds:
    return [[sample * factor for sample in one] for one in rounds]


def ceilings(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the machine reached while these rows were measured, in units of `CEILINGS`: medians over all rounds."""
    result = {}
    for name in CEILINGS:
        rates = [row["amounts"][name] / median(one) / 1e9 for row in rows for one in row["samples"].get(name, ())]
        if rates:
            result[name] = median(rates)
    return result
