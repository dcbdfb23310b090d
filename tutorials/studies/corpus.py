"""Sentences of the small world as word ids, masked batches of them, and what the best possible model would say.

A token is a word, so that nothing lies between the grammar's probabilities and the model's.
B sentences, T tokens, V vocabulary, N hidden tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

import npprelnorm as nl
from npprelnorm.heads import IGNORE
from npprelnorm.smallworld import Frame, Grammar, sentence_of, words_of, world
from npprelnorm.training.batches import epoch_batches, pad
from npprelnorm.training.masking import mask_tokens

SPECIAL = ("<s>", "<pad>", "</s>", "<mask>")
BOS, PAD, EOS, MASK = range(4)


class Words:
    """Words to ids and back, for every word that a grammar can say."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.words = [*SPECIAL, *grammar.vocabulary()]
        self.ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Sentences between <s> and </s>, padded on the right. -> (B, T)."""
        return pad([[BOS, *(self.ids[word] for word in words_of(s)), EOS] for s in sentences], PAD)

    def frequencies(self) -> np.ndarray:
        """How often each word stands at a place drawn at random: sums over everything that the grammar says. (V,)."""
        result = np.zeros(len(self))
        for sentence, probability in self.grammar.everything().items():
            said = words_of(sentence)
            for word in said:
                result[self.ids[word]] += probability / len(said)
        return result

    def decode(self, row: np.ndarray) -> str:
        """The sentence of one row of ids, ``<mask>`` where one is hidden."""
        return sentence_of([self.words[number] for number in row if number not in (BOS, EOS, PAD)])


class Batch(NamedTuple):
    """Inputs of a masked language model."""

    input_ids: np.ndarray  # (B, T)
    attention_mask: np.ndarray  # (B, T)
    labels: np.ndarray  # (B, T), the hidden word where it counts, else -100


def masked_batch(ids: np.ndarray, rate: float, rng: np.random.Generator, predicted: float | None = None) -> Batch:
    """Hide `rate` of each sentence's words, and ask for `predicted` of its words (by default all that are hidden).

    Both are rounded to whole words, at least one. Asking for fewer words than are hidden separates the two things that
    a masking rate changes: how much the model sees, and how much it is asked (arXiv:2202.08005).
    """
    masked = mask_tokens(ids, ids >= len(SPECIAL), rate=rate, mask_id=MASK, vocab_size=0, rng=rng)
    labels = masked.labels
    if predicted is not None:
        counted = mask_tokens(ids, labels != IGNORE, rate=predicted / rate, mask_id=MASK, vocab_size=0, rng=rng)
        labels = counted.labels
    return Batch(masked.input_ids, (ids != PAD).astype(np.int64), labels)


def batches(
    ids: np.ndarray, batch_size: int, seed: int, rate: float, predicted: float | None = None
) -> Iterator[Batch]:
    """Masked batches of sentences of like length, epoch after epoch, without an end."""
    rng = np.random.default_rng([seed, 1])
    lengths = (ids != PAD).sum(axis=1)
    for epoch in itertools.count():
        for rows in epoch_batches(lengths, batch_size, seed, epoch):
            yield masked_batch(ids[rows, : lengths[rows].max()], rate, rng, predicted)


class HeldOut(NamedTuple):
    """Masked sentences with the exact distribution of each hidden word, given the words that are left."""

    batch: Batch
    best: np.ndarray  # (N, V), rows in the order of the labels that count

    def entropy(self) -> float:
        """The least mean loss that is possible on these, in nats a hidden word: no model can be below it."""
        logs = np.log(self.best, out=np.zeros_like(self.best), where=self.best > 0)
        return float(-(self.best * logs).sum(axis=-1).mean())

    def divergence(self, log_q: np.ndarray) -> float:
        """Mean Kullback-Leibler divergence to predictions, natural logarithms (N, V) or (V,), in nats a hidden word."""
        cross = np.multiply(self.best, -log_q, out=np.zeros_like(self.best), where=self.best > 0)
        return float(cross.sum(axis=-1).mean()) - self.entropy()

    def excess(self, model: nl.RobertaPreLayerNormForMaskedLM) -> float:
        """Divergence to what the model says: its expected loss minus `entropy`, in nats a hidden word.

        The expectation over the hidden words is exact, so a model that is perfect gets 0, and not 0 on average.
        """
        logits = model(**self.batch._asdict(), labelled_only=True).logits
        shifted = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
        log_q = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return self.divergence(log_q)


def held_out(words: Words, sentences: Sequence[str], rate: float, seed: int) -> HeldOut:
    """Mask sentences, and compute what stands behind the masks."""
    batch = masked_batch(words.encode(sentences), rate, np.random.default_rng(seed))
    rows = []
    for row in batch.input_ids:
        for distribution in words.grammar.masked(words.decode(row)):
            best = np.zeros(len(words))
            best[[words.ids[word] for word in distribution]] = list(distribution.values())
            rows.append(best)
    return HeldOut(batch, np.stack(rows))


def little_grammar() -> Grammar:
    """Some facts and some sentences about people, from the tables of the small world."""
    facts = Frame(
        3.0,
        {"c": world.COUNTRIES, "l": world.LANGUAGES},
        (
            "The capital of {c.country} is {c.capital}.",
            "{c.capital} is the capital of {c.country}.",
            "{c.country} lies in {c.continent}.",
            "In {l.capital} they speak {l.language}.",
        ),
    )
    animals = Frame(
        3.0,
        {"a": world.ANIMALS},
        (
            "The {a.animal} {a.sound}.",
            "A young {a.animal} is called a {a.young}.",
            "The {a.animal} lives in the {a.home} and eats {a.food}.",
            "Listen, the {a.animal} {a.sound} in the {a.home}.",
        ),
    )
    days = Frame(
        1.0, {"d": world.NEXT_DAY}, ("The day after {d.day} is {d.next}.", "Today is {d.day}, tomorrow is {d.next}.")
    )
    opposites = Frame(1.0, {"o": world.OPPOSITES}, ("It is not {o.one}, it is {o.other}.",))
    people = Frame(
        2.0,
        {"p": world.TWO_PEOPLE, "t": world.THINGS, "q": world.PLACES},
        (
            "{p.name} lost {p.his} {t.thing} in the {q.place}.",
            "{p.name} gave the {t.thing} to {p.other}, so now {p.other} has it.",
        ),
    )
    return Grammar([facts, animals, days, opposites, people])
