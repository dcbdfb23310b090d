"""matplotlib, where it is installed: the extra ``plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import NpprelnormError

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]


def figure_class() -> type[Figure]:
    """matplotlib's figure, which draws to files without any display.

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NpprelnormError("a plot needs matplotlib; install it with: pip install 'npprelnorm[plot]'") from None
    return Figure
