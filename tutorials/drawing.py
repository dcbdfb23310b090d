"""How the figures of the tutorials look: one set of colours, sizes and lines for all of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

# M. Okabe and K. Ito, "Color universal design" (2008): can be told apart with any common colour blindness
BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
GREY = "#7F7F7F"
MARKERS = "osD^vP*X"  # lines differ by their markers as well as by their colours

# of both orders, without and with a warm-up: blues for pre-LN, oranges for post-LN
STYLES = {
    ("pre", False): (BLUE, "o"),
    ("pre", True): (SKY, "D"),
    ("post", False): (ORANGE, "s"),
    ("post", True): (RED, "^"),
}

SIGNED = "PuOr"  # for numbers around 0: orange below, purple above
POSITIVE = "cividis"  # for numbers from 0 up

plt.rcParams.update(
    {
        "figure.dpi": 90,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
        "axes.prop_cycle": cycler(color=COLOURS, marker=MARKERS),
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "legend.frameon": False,
        "image.cmap": POSITIVE,
    }
)


def as_matrix(axes: Axes, title: str) -> None:
    """Prepare axes for `imshow` or `matshow`: no grid, all four spines."""
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.set_title(title)


def sheets(axes: Axes, values: np.ndarray, x: float, y: float, label: str, rows: str, columns: str) -> None:
    """Draw an array by its shape, a cell for each number: a matrix, or a stack of them (one sheet for each head).

    values (R, K) or (H, R, K); (x, y) is the lower left corner of the front sheet, in cells.
    """
    stack = values[None] if values.ndim == 2 else values
    heads, height, width = stack.shape
    limit = np.abs(stack).max()
    for index in reversed(range(heads)):  # from back to front
        left, low = x + 0.9 * index, y + 0.9 * index
        across, down = left + np.arange(width + 1), low + np.arange(height, -1, -1)
        axes.pcolormesh(
            across, down, stack[index], cmap=SIGNED, vmin=-limit, vmax=limit, edgecolors="white", linewidth=0.6
        )
        axes.add_patch(plt.Rectangle((left, low), width, height, fill=False, edgecolor=BLACK, linewidth=1))
    axes.text(x + width / 2, y - 0.3, columns, ha="center", va="top", fontsize=10)
    axes.text(x - 0.3, y + height / 2, rows, ha="right", va="center", rotation=90, fontsize=10)
    top = y + height + 0.9 * (heads - 1)
    axes.text(x + (width + 0.9 * (heads - 1)) / 2, top + 0.4, label, ha="center", va="bottom", fontsize=11)


def band(axes: Axes, x: ArrayLike, runs: ArrayLike, label: str, colour: str, marker: str) -> None:
    """The mean of several runs, (runs, points), as a line, and from the lowest to the highest of them as a band."""
    values = np.asarray(runs)
    axes.plot(x, values.mean(axis=0), color=colour, marker=marker, label=label)
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
