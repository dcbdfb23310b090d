"""How much to mask: models of one size, trained for the same number of steps at different masking rates.

    PYTHONPATH=tutorials python -m studies.masking_rate

Every model is measured on the same masked sentences, by how far it is from the exact distribution of what is hidden.
It takes about a quarter of an hour of one processor. The results are in results/masking_rate.json; a run that is there
is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import npprelnorm as nl
from npprelnorm.training.optimizer import AdamW
from npprelnorm.training.schedules import factor

from .corpus import HeldOut, Words, batches, held_out, little_grammar
from .results import command_line, conduct

STUDY = "masking_rate"
RECIPE: dict[str, Any] = {
    "corpus": 5_000,  # sentences
    "held_out": 1_000,
    "steps": 1_500,
    "batch_size": 64,
    "learning_rate": 3e-3,  # rises over the warm-up, then falls on a line to 0
    "warmup": 100,
    "betas": [0.9, 0.98],
    "weight_decay": 0.01,
    "every": 250,  # steps between two measurements
    "hidden_size": 64,
    "num_hidden_layers": 2,
}
HELD_OUT_RATES = (0.15, 0.4, 0.8)
HELD_OUT_SEED = 1_000  # no run's seed
# parts of a sentence's words that are hidden, and that the model is asked for
SETTINGS = [
    {"hidden": 0.15, "predicted": 0.15},
    {"hidden": 0.4, "predicted": 0.4},
    {"hidden": 0.4, "predicted": 0.15},
    {"hidden": 0.8, "predicted": 0.8},
]
SEEDS = range(5)


def model_of(words: Words, seed: int) -> nl.RobertaPreLayerNormForMaskedLM:
    """A small model with fresh weights."""
    width = RECIPE["hidden_size"]
    config = nl.RobertaPreLayerNormConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=RECIPE["num_hidden_layers"],
        num_attention_heads=4,
        intermediate_size=2 * width,
        hidden_act="relu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=32,
        type_vocab_size=1,
        initializer_range=width**-0.5,  # keeps a vector's length through a linear map; 0.02 is for wider models
    )
    return nl.RobertaPreLayerNormForMaskedLM(config, rng=seed, dtype="float64")


def held_out_sets(words: Words) -> dict[float, HeldOut]:
    """The masked sentences that every model is measured on, by the rate at which they are masked."""
    sentences = words.grammar.sentences(RECIPE["held_out"], HELD_OUT_SEED)
    return {rate: held_out(words, sentences, rate, HELD_OUT_SEED) for rate in HELD_OUT_RATES}


def training(
    words: Words, hidden: float, predicted: float, seed: int
) -> Iterator[tuple[int, float, nl.RobertaPreLayerNormForMaskedLM]]:
    """Train, and yield after each step its number, its loss and the model."""
    model = model_of(words, seed)
    optimizer = AdamW(model.params, betas=tuple(RECIPE["betas"]), weight_decay=RECIPE["weight_decay"])
    corpus = words.encode(words.grammar.sentences(RECIPE["corpus"], seed))
    masked = batches(corpus, RECIPE["batch_size"], seed, hidden, predicted)
    for step, batch in zip(range(RECIPE["steps"]), masked):  # noqa: B905 (the batches do not end)
        rate = RECIPE["learning_rate"] * factor("linear", step, RECIPE["warmup"], RECIPE["steps"])
        output, grads = model.loss_and_grads(**batch._asdict(), labelled_only=True)
        optimizer.step(model.params, grads, rate)
        yield step + 1, float(output.loss), model


def run(
    words: Words, sets: dict[float, HeldOut], *, hidden: float, predicted: float, seed: int, until: int = 10**9
) -> dict[str, Any]:
    """One training: its loss and its excess on each held-out set, at every measurement up to the step `until`."""
    losses: list[float] = []
    measured: dict[str, Any] = {"loss": []} | {f"excess_{rate}": [] for rate in sets}
    for step, loss, model in training(words, hidden, predicted, seed):
        losses.append(loss)
        if step % RECIPE["every"] == 0:
            measured["loss"].append(float(np.mean(losses)))
            losses.clear()
            for rate, one in sets.items():
                measured[f"excess_{rate}"].append(one.excess(model))
        if step >= until:
            break
    return measured


def main() -> None:
    """Make the runs that are missing."""
    command_line(__doc__)
    words = Words(little_grammar())
    sets = held_out_sets(words)
    conduct(STUDY, RECIPE, SETTINGS, SEEDS, lambda **one: run(words, sets, **one))


if __name__ == "__main__":
    main()
