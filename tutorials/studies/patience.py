"""Does post-LN without warm-up only need more time? Its runs at 0.001 from `warm_up`, four times as long.

    PYTHONPATH=tutorials python -m studies.patience

It takes about 7 minutes of one processor. The results are in results/patience.json; a run that is there is not made
again.
"""

from __future__ import annotations

from typing import Any

from . import warm_up
from .corpus import Words, little_grammar
from .results import command_line, conduct

STUDY = "patience"
RECIPE: dict[str, Any] = {**warm_up.RECIPE, "steps": 1600, "evaluate": [400, 800, 1200, 1600], "look_inside": [1600]}
SETTINGS = [{"learning_rate": 1e-3, "warmup": 0, "order": "post"}]
SEEDS = warm_up.SEEDS


def main() -> None:
    """Make the runs that are missing."""
    command_line(__doc__)
    words = Words(little_grammar())
    held = warm_up.held_out_set(words)
    look = RECIPE["look_inside"]
    conduct(
        STUDY,
        RECIPE,
        SETTINGS,
        SEEDS,
        lambda **one: warm_up.run(words, held, recipe=RECIPE, look_inside=look, **one),
    )


if __name__ == "__main__":
    main()
