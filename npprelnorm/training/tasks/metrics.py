"""What a model is judged by. All are fractions from 0 to 1, save errors and correlations."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np


def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal entries."""
    return float((true == predicted).mean())


def f1_of_counts(correct: float, predicted: float, true: float) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean; 0 where there is nothing to divide by."""
    precision = correct / predicted if predicted else 0.0
    recall = correct / true if true else 0.0
    return precision, recall, 2.0 * correct / (predicted + true) if predicted + true else 0.0


def macro_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of the F1 of each class that occurs among the true or the predicted."""
    scores = []
    for kind in np.union1d(true, predicted):
        both = float(((true == kind) & (predicted == kind)).sum())
        scores.append(f1_of_counts(both, float((predicted == kind).sum()), float((true == kind).sum()))[2])
    return float(np.mean(scores))


def pearson(true: np.ndarray, predicted: np.ndarray) -> float:
    """Correlation coefficient; 0 where either does not vary."""
    x, y = true.astype(np.float64) - true.mean(), predicted.astype(np.float64) - predicted.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-30 else 0.0


Span = tuple[str, int, int]


def entities(tags: Sequence[str]) -> set[Span]:
    """Spans (type, first, one past the last) of a sequence of ``B-``, ``I-`` and ``O`` tags.

    As conlleval and seqeval read them: an ``I-`` after ``O`` or after another type begins a span as ``B-`` would.
    """
    spans: set[Span] = set()
    kind: str | None = None
    start = 0
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        inside = prefix in ("B", "I") and bool(name)
        if kind is not None and (not inside or prefix == "B" or name != kind):
            spans.add((kind, start, index))
            kind = None
        if inside and kind is None:
            kind, start = name, index
    return spans


def entity_scores(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 over whole entities of all sequences, and the F1 of each type as ``f1_TYPE``."""
    counts: Counter[tuple[str, str]] = Counter()
    for one, other in zip(true, predicted, strict=True):
        right, found = entities(one), entities(other)
        for name, spans in (("true", right), ("predicted", found), ("correct", right & found)):
            counts.update((name, kind) for kind, _, _ in spans)
    kinds = sorted({kind for _, kind in counts})

    def total(name: str) -> int:
        return sum(counts[name, kind] for kind in kinds)

    precision, recall, f1 = f1_of_counts(total("correct"), total("predicted"), total("true"))
    result = {"precision": precision, "recall": recall, "f1": f1}
    for kind in kinds:
        result[f"f1_{kind}"] = f1_of_counts(counts["correct", kind], counts["predicted", kind], counts["true", kind])[2]
    return result


def _normalized(answer: str) -> str:
    """Lower case, without punctuation and articles, single spaces. Rajpurkar et al. 2016, arXiv:1606.05250."""
    plain = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def exact_match(predicted: str, golden: Sequence[str]) -> float:
    """1 if the answer is one of the golden ones, normalized."""
    return float(any(_normalized(predicted) == _normalized(gold) for gold in golden))


def answer_f1(predicted: str, golden: Sequence[str]) -> float:
    """Overlap of words with the nearest golden answer, normalized; no answer overlaps with no answer only."""
    best = 0.0
    for gold in golden:
        own, other = _normalized(predicted).split(), _normalized(gold).split()
        if not own or not other:
            score = float(own == other)
        else:
            score = f1_of_counts((Counter(own) & Counter(other)).total(), len(own), len(other))[2]
        best = max(best, score)
    return best
