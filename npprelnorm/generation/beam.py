"""Beam search: the K most likely continuations of every prompt, side by side; and beam sampling, which draws them.

Results equal those of transformers 5's vectorised search, its three ways of stopping included. Scores start at 0 for
the first beam of a prompt and at FAR for the others, so that the first step does not find one continuation K times.

In beam sampling the N candidates of a prompt are drawn without replacement, each by the softmax of its score over all
tokens of all beams. Candidates then stand in the order in which they were drawn: those beyond the first K go on, but
do not end a row, whatever their scores.

Legend: B batch, K beams, T tokens so far, V vocabulary, N candidates a prompt and step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .outputs import GenerateOutput
from .processors import Processor, apply, beam_width, log_softmax
from .sampling import Progress, every_token_forbidden
from .settings import GenerationSettings
from .steps import Steps
from .stopping import StoppingRule, any_of

FAR = -1.0e9  # below every real score, yet finite: what bears it stays in order


class Beams(NamedTuple):
    """Some rows of every prompt, best first."""

    ids: np.ndarray  # (B, K, length), filled with padding beyond what is written
    origins: np.ndarray  # (B, K, length - prompt): the flat running row that each new token came from, else -1
    scores: np.ndarray  # (B, K)
    finished: np.ndarray  # (B, K) booleans

    def take(self, index: np.ndarray) -> Beams:
        """Rows of each prompt by their index, (B, n)."""
        return Beams(
            np.take_along_axis(self.ids, index[..., None], axis=1),
            np.take_along_axis(self.origins, index[..., None], axis=1),
            np.take_along_axis(self.scores, index, axis=1),
            np.take_along_axis(self.finished, index, axis=1),
        )


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest scores of each row, best first; of equal ones the earlier first."""
    order: np.ndarray = np.argsort(-scores, axis=1, kind="stable")
    return order[:, :count]


def search(
    steps: Steps,
    ids: np.ndarray,
    length: int,
    processors: Sequence[Processor],
    rules: Sequence[StoppingRule],
    settings: GenerationSettings,
    *,
    eos_count: int,
    padding: int | None,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
) -> GenerateOutput:
    """The `num_return_sequences` best rows of each prompt in `ids` (B, T); with `rng`, of what was drawn."""
    batch, prompt = ids.shape
    beams, vocabulary = settings.num_beams, steps.model.config.vocab_size
    per_beam = beam_width(eos_count)
    if per_beam > vocabulary:
        raise InputError(
            f"beam search with {eos_count} end tokens needs a vocabulary of {per_beam}; it has {vocabulary}"
        )
    running = _start(ids, beams, length, padding, steps.model.dtype)
    done = running._replace(scores=np.full_like(running.scores, FAR))
    improvable = np.ones((batch, 1), np.bool_)
    kept: list[np.ndarray] = []
    now = prompt
    while True:
        flat = running.ids[:, :, :now].reshape(batch * beams, now)
        if now == prompt:  # all beams are alike: the prompt is read once
            logits = np.repeat(steps.scores(ids), beams, axis=0)
            steps.repeat(beams)
        else:
            logits = steps.scores(flat)
        scores = apply(processors, flat, log_softmax(logits))  # (B * K, V)
        if keep_all := settings.output_scores:
            kept.append(scores)
        candidates = _candidates(running, scores, per_beam * beams, now, prompt, improvable, rng)
        ended = any_of(rules, candidates.ids[:, :, : now + 1].reshape(-1, now + 1)).reshape(batch, -1)  # (B, N)

        going = candidates._replace(scores=candidates.scores + np.where(ended, FAR, 0.0).astype(scores.dtype))
        running = going.take(best(going.scores, beams))
        done = _finish(done, candidates, ended, improvable, now + 1 - prompt, settings)
        steps.reorder(running.origins[:, :, now - prompt].ravel())

        now += 1
        if progress is not None:
            progress(now - prompt, length - prompt)
        improvable &= _may_improve(running, done, now - prompt, length - prompt, settings)
        all_done = settings.early_stopping is True and bool(done.finished.all())
        if not improvable.any() or all_done or ended.all():
            break

    chosen = done.take(
        np.broadcast_to(np.arange(settings.num_return_sequences), (batch, settings.num_return_sequences))
    )
    origins = chosen.origins.reshape(-1, length - prompt)
    new = int((origins >= 0).sum(axis=1).max())
    sequences = chosen.ids.reshape(-1, length)[:, : prompt + new]
    if not keep_all:
        return GenerateOutput(sequences)
    return GenerateOutput(sequences, chosen.scores.ravel(), tuple(kept), origins[:, :new])


def _start(ids: np.ndarray, beams: int, length: int, padding: int | None, dtype: np.dtype[np.floating]) -> Beams:
    batch, prompt = ids.shape
    rows = np.full((batch, beams, length), -1 if padding is None else padding, np.int64)
    rows[:, :, :prompt] = ids[:, None]
    scores = np.full((batch, beams), FAR, dtype)
    scores[:, 0] = 0.0
    return Beams(rows, np.full((batch, beams, length - prompt), -1), scores, np.zeros((batch, beams), np.bool_))


def drawn(scores: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `count` of each row's scores, drawn one after the other without replacement by their softmax.

    The highest sums of score and Gumbel noise are such a draw, in its order (arXiv:1903.06059). Where fewer than
    `count` have a probability above 0, the others follow.
    """
    return best(scores.astype(np.float64) + rng.gumbel(size=scores.shape), count)


def _candidates(
    running: Beams,
    scores: np.ndarray,
    count: int,
    now: int,
    prompt: int,
    improvable: np.ndarray,
    rng: np.random.Generator | None,
) -> Beams:
    """The `count` best (or drawn) ways to add one token to any beam of a prompt. (B * K, V) scores -> (B, N)."""
    batch, beams = running.scores.shape
    vocabulary = scores.shape[1]
    sums = (scores.reshape(batch, beams, vocabulary) + running.scores[..., None]).reshape(batch, -1)  # (B, K * V)
    stuck = improvable[:, 0] & np.isneginf(sums).all(axis=1)
    if stuck.any():
        raise every_token_forbidden(int(stuck.argmax()), now - prompt)
    index = best(sums, count) if rng is None else drawn(sums, count, rng)
    beam, token = index // vocabulary, index % vocabulary
    candidates = running.take(beam)._replace(scores=np.take_along_axis(sums, index, axis=1))
    candidates.ids[:, :, now] = token  # take made copies
    candidates.origins[:, :, now - prompt] = beam + beams * np.arange(batch)[:, None]
    return candidates


def _finish(
    done: Beams, candidates: Beams, ended: np.ndarray, improvable: np.ndarray, new: int, settings: GenerationSettings
) -> Beams:
    """The best of the rows that were done before and the candidates that end now, among the first K of their prompt."""
    beams = done.scores.shape[1]
    ends = ended & (np.arange(ended.shape[1]) < beams)
    closed = ~improvable
    if settings.early_stopping is True:
        closed = closed | done.finished.all(axis=1, keepdims=True)
    scores = candidates.scores / new ** float(settings.length_penalty)
    scores = scores + (closed * FAR + ~ends * FAR).astype(scores.dtype)
    added = candidates._replace(scores=scores, finished=ends)
    merged = Beams(*(np.concatenate(pair, axis=1) for pair in zip(done, added, strict=True)))
    return merged.take(best(merged.scores, beams))


def _may_improve(running: Beams, done: Beams, new: int, most: int, settings: GenerationSettings) -> np.ndarray:
    """Whether the best running beam of a prompt could still beat the worst finished one. -> (B, 1).

    A heuristic where lengths count: "never" supposes the length that flatters the beam most, the others the present.
    """
    flatter = settings.early_stopping == "never" and settings.length_penalty > 0.0
    hoped = running.scores[:, :1] / (most if flatter else new) ** float(settings.length_penalty)
    worst = np.where(done.finished, done.scores.min(axis=1, keepdims=True), FAR)
    result: np.ndarray = (hoped > worst).any(axis=1, keepdims=True)
    return result
