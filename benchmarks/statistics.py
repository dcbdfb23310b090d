"""Medians and ratios. The samples of an engine are a list of rounds, each a list of numbers, smaller being better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from .engines import ENGINES, TORCH

Rounds = Sequence[Sequence[float]]


def middle(rounds: Rounds) -> float:
    """Median of all samples."""
    return median(sample for one in rounds for sample in one)


def quartiles(rounds: Rounds) -> tuple[float, float]:
    """First and third quartile of all samples, interpolated."""
    values = sorted(sample for one in rounds for sample in one)

    def at(share: float) -> float:
        place = share * (len(values) - 1)
        low = int(place)
        high = min(low + 1, len(values) - 1)
        return values[low] + (values[high] - values[low]) * (place - low)

    return at(0.25), at(0.75)


def ratio(peer: Rounds, own: Rounds) -> float:
    """How many times better `own` is: the median over the rounds of (peer's median / own median).

    Both took a turn in each round, so that what slows the machine down for a while slows both.
    """
    return median(median(theirs) / median(ours) for theirs, ours in zip(peer, own, strict=True))


def best_peer(samples: Mapping[str, Rounds]) -> str | None:
    """The fastest engine that computes in float32 and is not ours."""
    peers = [engine.name for engine in ENGINES if engine.exact and not engine.ours and engine.name in samples]
    return min(peers, key=lambda name: middle(samples[name]), default=None)


def summary(samples: Mapping[str, Rounds]) -> dict[str, dict[str, Any]]:
    """For each engine its median and quartiles, and how many times better it is than torch and the best peer."""
    peer = best_peer(samples)
    result = {}
    for name, rounds in samples.items():
        low, high = quartiles(rounds)
        result[name] = {
            "median": middle(rounds),
            "quartiles": [low, high],
            "samples": sum(map(len, rounds)),
            "to_torch": ratio(samples[TORCH], rounds) if TORCH in samples else None,
            "to_best_peer": ratio(samples[peer], rounds) if peer else None,
        }
    return result


def known(names: Iterable[str]) -> list[str]:
    """The engines of this list in the order of the registry."""
    wanted = set(names)
    return [engine.name for engine in ENGINES if engine.name in wanted]
