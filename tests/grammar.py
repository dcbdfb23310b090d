"""A small grammar of labelled texts whose label is in the order of the words, and in no bag of them.

Somebody gives a thing to somebody, or gets it from somebody; then it is said who has it, or who does not, and the
label tells whether that is true. For every text there is another one of exactly the same words with the other label:
the one in which the two people have changed places in the first sentence.
"""

from __future__ import annotations

import random
from typing import NamedTuple

PEOPLE = "Anna Mary Emma Clara Lucy Rosa Tom Peter John Paul Max Henry".split()  # noqa: SIM905  # reads better
THINGS = "book apple letter boat cup chair coat lamp ring key".split()  # noqa: SIM905


class Labelled(NamedTuple):
    """A text, and whether its second half follows from its first."""

    text: str
    label: str  # "true" or "false"


def possible() -> list[Labelled]:
    """Every text of the grammar: 12 * 11 people * 10 things * 2 verbs * 2 claims = 5,280."""
    result = []
    for first in PEOPLE:
        for second in PEOPLE:
            if first == second:
                continue
            for thing in THINGS:
                for story, owner in (
                    (f"{first} gave the {thing} to {second}.", second),
                    (f"{first} took the {thing} from {second}.", first),
                ):
                    for claimed in (first, second):
                        label = "true" if claimed == owner else "false"
                        result.append(Labelled(f"{story} Now {claimed} has the {thing}.", label))
    return result


def examples(train: int, held_out: int, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Different texts to learn from and to be judged by."""
    chosen = random.Random(seed).sample(possible(), train + held_out)
    return chosen[:train], chosen[train:]
