"""Gradients of fresh models of both orders, layer by layer, as depth grows.

    PYTHONPATH=tutorials python -m studies.gradient_paths

Two kinds of model. "mean field" is as the theory has it: uniform attention (its queries and keys are 0), ReLU, blocks
of one width, random vectors in, and on each token of the last hidden state an independent random gradient. "masked lm"
is a model as one would train it, on sentences of which 40 % of the words are hidden. It takes about 2 minutes of one
processor. The results are in results/gradient_paths.json; a run that is there is not made again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .corpus import Batch, Words, little_grammar, masked_batch
from .orders import BODIES, MASKED_LMS, by_layer, config_of
from .results import command_line, conduct

STUDY = "gradient_paths"
RECIPE: dict[str, Any] = {
    "depths": [2, 4, 8, 16, 32],
    "width": 256,
    "rows": 2,
    "tokens": 16,
    "lm_width": 64,
    "lm_rows": 32,
}
SETTINGS = [{"kind": kind, "order": order} for kind in ("mean field", "masked lm") for order in ("pre", "post")]
SEEDS = range(20)


def similarity(states: np.ndarray) -> float:
    """Mean cosine between the vectors of two different tokens. states (T, C)."""
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    tokens = len(unit)
    return float((np.square(unit.sum(axis=0)).sum() - tokens) / (tokens * (tokens - 1)))


def mean_field(order: str, depth: int, seed: int) -> dict[str, list[float]]:
    """Of a fresh model in the theory's setting: means over rows, since the theory is about one row.

    ``stream``, the mean square of the residual stream, and ``similarity`` of its tokens, both from the input on and
    after each layer; ``gradients``, root mean squares of `by_layer`.
    """
    width, shape = RECIPE["width"], (RECIPE["rows"], RECIPE["tokens"], RECIPE["width"])
    config = config_of(order, depth, width, 8, intermediate_size=width, hidden_act="relu")
    model = BODIES[order](config, add_pooling_layer=False, rng=seed, dtype="float64")
    for name, value in model.params.items():
        if "query" in name or "key" in name or "position" in name or "token_type" in name:
            value[:] = 0.0
    rng = np.random.default_rng([seed, 1])
    vectors, cotangent = rng.standard_normal((2, *shape))
    stream, alike, squares = [], [], []
    for x, d in zip(vectors, cotangent, strict=True):
        output, grads = model.vjp(
            {"last_hidden_state": d[None]},
            inputs_embeds=x[None],
            output_hidden_states=True,
            hidden_states_convention="v4",
        )
        stream.append([float(np.square(h).mean()) for h in output.hidden_states])
        alike.append([similarity(h[0]) for h in output.hidden_states])
        squares.append(np.square(by_layer(grads, depth)))
    return {
        "stream": np.mean(stream, axis=0).tolist(),
        "similarity": np.mean(alike, axis=0).tolist(),
        "gradients": np.sqrt(np.mean(squares, axis=0)).tolist(),
    }


def masked_lm(order: str, depth: int, seed: int, words: Words) -> list[float]:
    """The gradient norm of each layer of a fresh masked language model."""
    width = RECIPE["lm_width"]
    config = config_of(order, depth, width, len(words), intermediate_size=4 * width)
    model = MASKED_LMS[order](config, rng=seed, dtype="float64")
    batch = sentences_of(words, seed)
    _, grads = model.loss_and_grads(**batch._asdict(), labelled_only=True)
    return by_layer(grads, depth)


def sentences_of(words: Words, seed: int) -> Batch:
    """A masked batch."""
    ids = words.encode(words.grammar.sentences(RECIPE["lm_rows"], seed))
    return masked_batch(ids, 0.4, np.random.default_rng([seed, 1]))


def run(words: Words, *, kind: str, order: str, seed: int) -> dict[str, Any]:
    """Gradients by depth, as lists by layer; of the theory's setting also what goes up, for the deepest model.

    (A shallower model of the same seed is the beginning of a deeper one, so what goes up in it is a beginning too.)
    """
    depths = RECIPE["depths"]
    if kind == "masked lm":
        return {"gradients": {str(depth): masked_lm(order, depth, seed, words) for depth in depths}}
    measured = {depth: mean_field(order, depth, seed) for depth in depths}
    gradients = {str(depth): one["gradients"] for depth, one in measured.items()}
    return {**measured[max(depths)], "gradients": gradients}


def main() -> None:
    """Make the runs that are missing."""
    command_line(__doc__)
    words = Words(little_grammar())
    conduct(STUDY, RECIPE, SETTINGS, SEEDS, lambda **one: run(words, **one))


if __name__ == "__main__":
    main()
