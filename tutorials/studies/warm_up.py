"""Training both orders with and without warm-up, at several learning rates.

    PYTHONPATH=tutorials python -m studies.warm_up

Six layers, masked sentences of the little grammar, Adam without clipping or decay; the learning rate is constant after
the warm-up. It takes about 20 minutes of one processor. The results are in results/warm_up.json; a run that is there is
not made again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from npprelnorm.training.optimizer import AdamW
from npprelnorm.training.schedules import factor

from .corpus import EOS, Batch, HeldOut, Words, batches, held_out, little_grammar
from .orders import MASKED_LMS, by_layer, config_of
from .results import command_line, conduct

STUDY = "warm_up"
RECIPE: dict[str, Any] = {
    "corpus": 5_000,  # sentences
    "held_out": 200,
    "rate": 0.4,  # of the words that are hidden
    "steps": 400,
    "batch_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "every": 20,  # the loss is a mean over so many steps
    "evaluate": [100, 200, 300, 400],
    "look_inside": [1, 20, 100, 200, 400],
}
SETTINGS = [
    {"learning_rate": rate, "warmup": warmup, "order": order}
    for rate in (1e-3, 3e-3, 3e-4, 1e-2)
    for warmup in (0, 200)
    for order in ("pre", "post")
]
SEEDS = range(5)
HELD_OUT_SEED = 1_000  # no run's seed


def held_out_set(words: Words) -> HeldOut:
    """The masked sentences that every model is measured on."""
    return held_out(words, words.grammar.sentences(RECIPE["held_out"], HELD_OUT_SEED), RECIPE["rate"], HELD_OUT_SEED)


def word_states(model: Any, batch: Batch) -> list[np.ndarray]:
    """The vectors of a batch's words, hidden ones too, after the embeddings and after each layer: (words, C) each."""
    states = model(
        batch.input_ids, batch.attention_mask, output_hidden_states=True, hidden_states_convention="v4"
    ).hidden_states
    inner = (batch.attention_mask == 1) & (batch.input_ids != EOS)
    inner[:, 0] = False
    return [state[inner] for state in states]


def spread(model: Any, batch: Batch) -> list[float]:
    """How much the words of a batch differ, after the embeddings and after each layer.

    The variance over all words of the batch, as a part of their mean squared length: 0 where all are one vector.
    """
    rows = word_states(model, batch)
    return [float(row.var(axis=0).sum() / np.square(row).sum(axis=1).mean()) for row in rows]


def run(
    words: Words,
    held: HeldOut,
    *,
    learning_rate: float,
    warmup: int,
    order: str,
    seed: int,
    recipe: Mapping[str, Any] = RECIPE,
    look_inside: Collection[int] = RECIPE["look_inside"],
    until: int = 10**9,
) -> dict[str, Any]:
    """One training, up to the step `until`: its losses, its excess, and what `look_inside` asks for, by step.

    Gradients and spreads are those that a step begins with, the excess that which it ends with.
    """
    width, depth = recipe["hidden_size"], recipe["num_hidden_layers"]
    config = config_of(order, depth, width, len(words), intermediate_size=2 * width, hidden_act="relu")
    # in float32 a last bit grows to the second digit within a few hundred steps, and no other machine finds the same
    model = MASKED_LMS[order](config, rng=seed, dtype="float64")
    optimizer = AdamW(model.params, weight_decay=0.0)
    ids = words.encode(words.grammar.sentences(recipe["corpus"], seed))
    result: dict[str, Any] = {"loss": [], "excess": [], "gradients": {}, "spread": {}}
    losses: list[float] = []
    steps = range(1, recipe["steps"] + 1)
    for step, batch in zip(steps, batches(ids, recipe["batch_size"], seed, recipe["rate"])):  # noqa: B905 (endless)
        output, grads = model.loss_and_grads(**batch._asdict(), labelled_only=True)
        losses.append(float(output.loss))
        if step in look_inside:
            result["gradients"][step] = by_layer(grads, depth)
            result["spread"][step] = spread(model, batch)
        optimizer.step(model.params, grads, learning_rate * factor("constant", step, warmup, recipe["steps"]))
        if step % recipe["every"] == 0:
            result["loss"].append(float(np.mean(losses)))
            losses.clear()
        if step in recipe["evaluate"]:
            result["excess"].append(held.excess(model))
        if step >= until:
            break
    return result


def main() -> None:
    """Make the runs that are missing."""
    command_line(__doc__)
    words = Words(little_grammar())
    held = held_out_set(words)
    conduct(STUDY, RECIPE, SETTINGS, SEEDS, lambda **one: run(words, held, **one))


if __name__ == "__main__":
    main()
