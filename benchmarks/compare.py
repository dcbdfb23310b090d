"""Whether two engines gave the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import BenchmarkError

Answers = Sequence[dict[str, Any]]


def difference(answers: Answers, reference: Answers) -> float:
    """Largest difference of any number in the answers, relative to the largest number of the reference.

    Raises
    ------
    BenchmarkError
        If the shapes differ, a number is not finite, or (`same_candidates`) other tokens were found.
    """
    worst = 0.0
    for name in reference[0]:
        if name == "ids":
            continue
        ours, theirs = (np.array([answer[name] for answer in every], np.float64) for every in (answers, reference))
        if ours.shape != theirs.shape:
            raise BenchmarkError(f"{name} has shape {ours.shape[1:]}, the reference's {theirs.shape[1:]}")
        if not np.isfinite(ours).all():
            raise BenchmarkError(f"{name} holds numbers that are not finite")
        worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return worst


def same_candidates(answers: Answers, reference: Answers, tolerance: float) -> bool:
    """Whether the tokens are the same in the same order, where the reference's scores are not as good as equal.

    Answers without scores, such as generated rows, have to be the same throughout.
    """
    for answer, expected in zip(answers, reference, strict=True):
        ids, wanted = (np.array(one.get("ids", [])) for one in (answer, expected))
        if ids.shape != wanted.shape:
            return False
        if "scores" not in expected:
            if (ids != wanted).any():
                return False
            continue
        for row, column in np.argwhere(ids != wanted):
            scores = np.array(expected["scores"][row])
            gaps = np.abs(np.delete(scores, column) - scores[column])
            # the last may have lost to a token that is not in the list
            if column != len(scores) - 1 and gaps.min() > 2 * tolerance * scores.max():
                return False
    return True
