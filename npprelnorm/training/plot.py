"""The loss over the steps as a picture."""

from __future__ import annotations

import os

from ..figures import figure_class
from ..files import replacing
from .loop import read_log


def plot_loss(log: str | os.PathLike[str], picture: str | os.PathLike[str], *, unit: str = "nats a label") -> None:
    """Draw the losses of a ``metrics.jsonl`` as a PNG file.

    Parameters
    ----------
    log : path
    picture : path
        Written anew.
    unit : str
        Of the loss, for the axis.

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.
    InputError
        If the log is none.
    """
    figure = figure_class()(figsize=(7.0, 4.2), dpi=150, layout="constrained")
    lines = read_log(log)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for name, label, style in (
        ("loss", "training", {"color": "#1f6fb2", "linewidth": 1.4}),
        ("eval_loss", "evaluation", {"color": "#d1495b", "linewidth": 1.4, "marker": "o", "markersize": 4}),
    ):
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            upper.plot(*zip(*points, strict=True), label=label, **style)
    upper.set_ylabel(f"loss ({unit})")
    if upper.lines:
        upper.legend(frameon=False)
    rates = [(line["step"], line["learning_rate"]) for line in lines if "learning_rate" in line]
    if rates:
        lower.plot(*zip(*rates, strict=True), color="#5a5a5a", linewidth=1.2)
    lower.set_ylabel("learning rate")
    lower.set_xlabel("optimizer step")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    with replacing(picture) as temporary:
        figure.savefig(temporary, format="png")
