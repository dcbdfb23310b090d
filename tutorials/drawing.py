"""How the figures of the tutorials look: one set of colours, sizes and lines for all of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes

# M. Okabe and K. Ito, "Color universal design" (2008): can be told apart with any common colour blindness
BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
GREY = "#7F7F7F"
MARKERS = "osD^vP*X"  # lines differ by their markers as well as by their colours

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
