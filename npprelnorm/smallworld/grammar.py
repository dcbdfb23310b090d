"""A probabilistic grammar of short sentences that can be sampled, and whose every probability can be computed.

A sentence is drawn in three steps: a frame (by weight), one of the frame's templates (evenly), and for each table of
the frame one row (by the rows' weights), independently. A template is words and slots; a slot shows one column of the
row that was drawn, always as one word. So a template is a product of small tables over fixed places, and sums over
everything that it can say are products of sums over rows. Two derivations of one string (two rows, two templates) are
added up, never counted as two sentences.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..arguments import whole_number
from ..errors import InputError

MASK = "<mask>"
_PIECE = re.compile(r"\{(\w+)\.(\w+)(\^?)\}|([\w'-]+|[.,?!])")
_WORD = re.compile(r"<mask>|[\w'-]+|[.,?!]")
_GLUED = frozenset(".,?!")
# distinct sentences that templates which may say the same can have together before `entropy` gives up
_MAX_MERGED = 3_000_000


def words_of(sentence: str) -> list[str]:
    """Words and punctuation marks of a sentence, ``<mask>`` being one of them."""
    return _WORD.findall(sentence)


def sentence_of(words: Sequence[str]) -> str:
    """Words with spaces between them, but none before a punctuation mark; undoes `words_of`."""
    return "".join(word if word in _GLUED else " " + word for word in words).removeprefix(" ")


class Table(NamedTuple):
    """Rows of words that belong together.

    Attributes
    ----------
    columns : tuple of str
    rows : tuple of tuple of str
        Each with one word for each column.
    weights : tuple of float, optional
        How often each row is drawn; evenly without them.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    weights: tuple[float, ...] | None = None

    def probabilities(self) -> list[float]:
        """Of each row."""
        weights = self.weights or (1.0,) * len(self.rows)
        total = math.fsum(weights)
        return [weight / total for weight in weights]


class Frame(NamedTuple):
    """Templates over the same tables, and how often they are used beside other frames."""

    weight: float
    tables: Mapping[str, Table]
    templates: tuple[str, ...]


class _Factor(NamedTuple):
    """What one table says in one template: words at some places, with their probability; no two entries alike."""

    places: tuple[int, ...]
    entries: dict[tuple[str, ...], float]

    def matching(self, words: Sequence[str | None]) -> Iterator[tuple[tuple[str, ...], float]]:
        """Entries that agree with `words`, in which None is anything."""
        wanted = tuple(words[place] for place in self.places)
        if None not in wanted:
            probability = self.entries.get(wanted)  # type: ignore[arg-type]
            if probability is not None:
                yield wanted, probability  # type: ignore[misc]
            return
        for entry, probability in self.entries.items():
            if all(a is None or a == b for a, b in zip(wanted, entry, strict=True)):
                yield entry, probability


class _Template(NamedTuple):
    """A template with its probability; `fixed` has None where a slot is."""

    probability: float
    fixed: tuple[str | None, ...]
    factors: tuple[_Factor, ...]
    choices: tuple[frozenset[str], ...]  # for each place the words that can stand there

    def masses(self, words: Sequence[str | None]) -> list[float] | None:
        """Probability that each factor agrees with `words`; None if the fixed words or a factor do not."""
        if any(a is not None and b is not None and a != b for a, b in zip(self.fixed, words, strict=True)):
            return None
        result = []
        for factor in self.factors:
            result.append(math.fsum(p for _, p in factor.matching(words)))
            if not result[-1]:
                return None
        return result

    def size(self) -> int:
        return math.prod(len(factor.entries) for factor in self.factors)

    def everything(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Every sentence of the template, and its probability in the grammar."""
        for combination in itertools.product(*(factor.entries.items() for factor in self.factors)):
            words = list(self.fixed)
            probability = self.probability
            for factor, (entry, share) in zip(self.factors, combination, strict=True):
                probability *= share
                for place, word in zip(factor.places, entry, strict=True):
                    words[place] = word
            yield tuple(words), probability  # type: ignore[arg-type]


class Grammar:
    """A distribution over sentences.

    Parameters
    ----------
    frames : sequence of Frame
        Slots of a template are spelled ``{table.column}``, or ``{table.column^}`` with a capital.

    Raises
    ------
    InputError
        For a slot without a table or column, or a row whose value is not one word.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        total = math.fsum(frame.weight for frame in frames)
        self._templates = [
            _compile(text, frame, frame.weight / total / len(frame.templates))
            for frame in frames
            for text in frame.templates
        ]
        self._by_length: dict[int, list[_Template]] = {}
        for template in self._templates:
            self._by_length.setdefault(len(template.fixed), []).append(template)
        self._entropy: float | None = None

    def sentences(self, n: int, seed: int) -> list[str]:
        """Draw `n` sentences; the same seed gives the same ones.

        Parameters
        ----------
        n : int
        seed : int
        """
        n, rng = whole_number("n", n), np.random.default_rng(whole_number("seed", seed))
        kinds = rng.choice(len(self._templates), n, p=[t.probability for t in self._templates])
        drawers = [[_Drawer(factor) for factor in template.factors] for template in self._templates]
        result = []
        for kind in kinds:
            words = list(self._templates[kind].fixed)
            for drawer in drawers[kind]:
                for place, word in zip(drawer.places, drawer.draw(rng.random()), strict=True):
                    words[place] = word
            result.append(sentence_of(words))
        return result

    def vocabulary(self) -> list[str]:
        """Every word and punctuation mark, sorted."""
        return sorted({word for template in self._templates for places in template.choices for word in places})

    def log_probability(self, sentence: str) -> float:
        """Natural logarithm of a sentence's probability, ``-inf`` if the grammar never says it."""
        words = words_of(sentence)
        if MASK in words:
            raise InputError(f"{sentence!r} holds {MASK}; use masked() for the distribution of what it hides")
        if sentence_of(words) != sentence:  # other spaces or signs: another string, which is never said
            return -math.inf
        mass = self._mass(words)
        return math.log(mass) if mass else -math.inf

    def masked(self, sentence: str) -> list[dict[str, float]]:
        """What stands behind each ``<mask>`` of a sentence, given all its other words: the best that a model can say.

        Parameters
        ----------
        sentence : str
            Each ``<mask>`` stands for one word or punctuation mark.

        Returns
        -------
        list of dict
            For each mask in order its distribution, word -> probability, most likely first. With several masks
            each is by itself (the sum over the others).

        Raises
        ------
        InputError
            If there is no mask, or the grammar says no such sentence.
        """
        words: list[str | None] = [None if word == MASK else word for word in words_of(sentence)]
        hidden = [place for place, word in enumerate(words) if word is None]
        if not hidden:
            raise InputError(f"there is no {MASK} in {sentence!r}; put one in place of a word")
        found: dict[int, dict[str, float]] = {place: {} for place in hidden}
        for template in self._by_length.get(len(words), []):
            masses = template.masses(words)
            if masses is None:
                continue
            mass = template.probability * math.prod(masses)
            for place in hidden:
                if (word := template.fixed[place]) is not None:
                    found[place][word] = found[place].get(word, 0.0) + mass
            for factor, own in zip(template.factors, masses, strict=True):
                asked = [(index, place) for index, place in enumerate(factor.places) if words[place] is None]
                for entry, probability in factor.matching(words) if asked else ():
                    for index, place in asked:
                        share = mass / own * probability
                        found[place][entry[index]] = found[place].get(entry[index], 0.0) + share
        if not found[hidden[0]]:
            raise InputError(f"this small world has no sentence like {sentence!r}")
        return [_normalised(found[place]) for place in hidden]

    def entropy(self) -> float:
        """Entropy of a whole sentence in nats, exact: the least mean of ``-log p`` that any model can reach.

        Templates that can never say the same are summed in closed form; those that might are spelled out, and equal
        strings are added up first.
        """
        if self._entropy is None:
            self._entropy = math.fsum(self._group_entropy(group) for group in self._groups())
        return self._entropy

    def _mass(self, words: Sequence[str | None]) -> float:
        every = ((t, t.masses(words)) for t in self._by_length.get(len(words), []))
        return math.fsum(t.probability * math.prod(masses) for t, masses in every if masses is not None)

    def _groups(self) -> Iterator[list[_Template]]:
        """Templates in groups, such that no string is said by two groups."""
        for same_length in self._by_length.values():
            rest = list(same_length)
            while rest:
                group, queue = [], [rest.pop()]
                while queue:
                    one = queue.pop()
                    group.append(one)
                    near = [t for t in rest if all(map(set.intersection, map(set, one.choices), map(set, t.choices)))]
                    queue += near
                    rest = [t for t in rest if not any(t is other for other in near)]
                yield group

    @staticmethod
    def _group_entropy(group: list[_Template]) -> float:
        if len(group) == 1:
            own = group[0].probability
            inner = math.fsum(-p * math.log(p) for factor in group[0].factors for p in factor.entries.values())
            return own * (inner - math.log(own))
        size = sum(template.size() for template in group)
        if size > _MAX_MERGED:
            raise InputError(f"{len(group)} templates that may say the same have {size} sentences: too many to merge")
        merged: dict[tuple[str, ...], float] = {}
        for template in group:
            for words, probability in template.everything():
                merged[words] = merged.get(words, 0.0) + probability
        return math.fsum(-p * math.log(p) for p in merged.values())

    def everything(self) -> dict[str, float]:
        """Every sentence and its probability; only for grammars small enough to be spelled out."""
        size = sum(template.size() for template in self._templates)
        if size > _MAX_MERGED:
            raise InputError(f"this grammar has {size} sentences, more than {_MAX_MERGED}; draw some with sentences()")
        result: dict[str, float] = {}
        for template in self._templates:
            for words, probability in template.everything():
                sentence = sentence_of(words)
                result[sentence] = result.get(sentence, 0.0) + probability
        return result


class _Drawer:
    """Draws entries of a factor by inverting its cumulative distribution."""

    def __init__(self, factor: _Factor) -> None:
        self.places = factor.places
        self.entries = list(factor.entries)
        self.cumulative = np.cumsum(list(factor.entries.values()))

    def draw(self, lot: float) -> tuple[str, ...]:
        # rounding may leave the last sum a hair below 1
        index = int(np.searchsorted(self.cumulative, lot, side="right"))
        return self.entries[min(index, len(self.entries) - 1)]


def _normalised(masses: dict[str, float]) -> dict[str, float]:
    total = math.fsum(masses.values())
    return dict(sorted(((word, mass / total) for word, mass in masses.items()), key=lambda item: (-item[1], item[0])))


def _compile(text: str, frame: Frame, probability: float) -> _Template:
    fixed: list[str | None] = []
    slots: dict[str, list[tuple[int, str, bool]]] = {}
    for table, column, capital, literal in _PIECE.findall(text):
        if table:
            if table not in frame.tables or column not in frame.tables[table].columns:
                raise InputError(f"the template {text!r} has a slot {table}.{column}, which no table of its frame has")
            slots.setdefault(table, []).append((len(fixed), column, bool(capital)))
            fixed.append(None)
        else:
            fixed.append(literal)
    choices = [frozenset([word] if word is not None else ()) for word in fixed]
    factors = []
    for name, asked in slots.items():
        table = frame.tables[name]
        entries: dict[tuple[str, ...], float] = {}
        for row, share in zip(table.rows, table.probabilities(), strict=True):
            value = dict(zip(table.columns, row, strict=True))
            entry = tuple(value[c][:1].upper() + value[c][1:] if capital else value[c] for _, c, capital in asked)
            if any(words_of(word) != [word] for word in entry):
                raise InputError(f"the row {row} of table {name!r} has a value that is not one word")
            entries[entry] = entries.get(entry, 0.0) + share  # rows that differ elsewhere only are one
        factors.append(_Factor(tuple(place for place, _, _ in asked), entries))
        for index, (place, _, _) in enumerate(asked):
            choices[place] = frozenset(entry[index] for entry in entries)
    return _Template(probability, tuple(fixed), tuple(factors), tuple(choices))
