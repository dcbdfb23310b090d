"""Pretrain the embedded model again, with this package alone: a small world first, then public-domain books beside it.

    python tools/embedded_recipe.py --corpus DIR --out DIR [--short-minutes M]

DIR of --corpus holds the books of the list below as NUMBER.txt or NUMBER.txt.gz, one paragraph a line, without front
and back matter. Run the same command again after an interruption: it goes on from the newest checkpoint. The trained
model is in OUT/cooldown/model.

The model that ships took 6,300 steps of 2,048 tokens, 13 million in all, in an hour beside other work on two cores.
Against the model before it (made with torch), on the yardsticks of `compare_embedded.py`, in bits a character: the
small world 0.096 (before: 0.144; the least that is possible is about 0.076), held-out books 2.38 (before: 12.96). In
that run the cooldown's first 300 and last 2,300 steps were on the line from 2e-3 to 0 in 3,000 steps, the 400 between
on a steeper one, so the same command gives similar figures, not the same bits.

Each batch is computed in two halves by two threads, which is faster than two threads inside each product of matrices
of this size: set OPENBLAS_NUM_THREADS=1. With glibc another fifth is gained by keeping freed memory
(MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ of some GB).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import npprelnorm as nl
from npprelnorm.files import write_json
from npprelnorm.heads import IGNORE
from npprelnorm.smallworld import small_world
from npprelnorm.tokenizer import Tokenizer
from npprelnorm.training import state
from npprelnorm.training.loop import Trainer, TrainingSettings
from npprelnorm.training.pretraining import Masking, Packed, PretrainingData, masked_loss, pack, read_texts, split
from npprelnorm.training.tokenizer_training import train_tokenizer

# Project Gutenberg's number and the title; all in the public domain in the USA
BOOKS = {
    11: "Alice's Adventures in Wonderland",
    12: "Through the Looking-Glass",
    16: "Peter Pan",
    45: "Anne of Green Gables",
    47: "Anne of Avonlea",
    54: "The Marvelous Land of Oz",
    55: "The Wonderful Wizard of Oz",
    74: "The Adventures of Tom Sawyer",
    120: "Treasure Island",
    215: "The Call of the Wild",
    236: "The Jungle Book",
    271: "Black Beauty",
    289: "The Wind in the Willows",
    498: "Rebecca of Sunnybrook Farm",
    500: "The Adventures of Pinocchio",
    514: "Little Women",
    766: "David Copperfield",
    778: "Five Children and It",
    1342: "Pride and Prejudice",
    1400: "Great Expectations",
    1448: "Heidi",
    1450: "Pollyanna",
    1661: "The Adventures of Sherlock Holmes",
    1874: "The Railway Children",
}
HELD_OUT = 1 / 50
SEED = 0
SENTENCES = 300_000
HELD_SENTENCES = 1_000
TOKENIZER_SENTENCES = 150_000
TOKENS_OF_A_ROW = 128
WORLD_SHARE = 0.5  # of the mixture's rows
MASKING = Masking((0.15, 0.3), "mask", True)
CONFIG = nl.RobertaPreLayerNormConfig(
    vocab_size=6144,
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=512,
    hidden_act="relu",
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=TOKENS_OF_A_ROW + 2,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    initializer_range=0.09,  # about 1 / sqrt(128): with 0.02 the attention does not come to life in this time
)


class Stage(NamedTuple):
    """One run of the training loop; `window` is the longest text that the books are cut into, None: no books."""

    name: str
    window: int | None
    settings: TrainingSettings


def _settings(steps: int, rate: float, schedule: str, warmup: int) -> TrainingSettings:
    return TrainingSettings(
        steps=steps,
        batch_size=16,
        learning_rate=rate,
        schedule=schedule,
        warmup=warmup,
        beta2=0.98,
        dropout=False,
        eval_every=500,
        save_every=100,
        log_every=20,
        seed=SEED,
    )


# The long windows of "mixed" teach how often the books' words occur and no more: where attention is still spread over
# a hundred tokens, a neighbour is lost in the crowd. In windows as short as the world's sentences it is not.
STAGES = (
    Stage("world", None, _settings(1200, 3e-3, "constant", 100)),
    Stage("mixed", 128, _settings(1300, 2e-3, "constant", 100)),
    Stage("short", 20, _settings(800, 3e-3, "constant", 50)),
    Stage("cooldown", 40, _settings(3000, 2e-3, "linear", 20)),
)


class EnoughError(Exception):
    """The time of a stage is over."""


def evaluator(sets: Mapping[str, PretrainingData]) -> Callable[[Any], dict[str, float]]:
    """A function for the training loop: ``loss`` is the mean of the sets' losses; each is there by name as well."""

    def evaluate(model: Any) -> dict[str, float]:
        each = {name: masked_loss(model, data) for name, data in sets.items()}
        metrics = {f"{name}_{what}": value for name, values in each.items() for what, value in values.items()}
        return {"loss": sum(values["loss"] for values in each.values()) / len(each)} | metrics

    return evaluate


class Data(NamedTuple):
    """What the stages train on and are measured on."""

    world: Packed
    books: list[str]
    held_world: Packed
    held_books: Packed


def book_paths(corpus: Path) -> list[Path]:
    """The file of each book; a missing one is named."""
    paths = []
    for number, title in BOOKS.items():
        found = [p for p in (corpus / f"{number}.txt", corpus / f"{number}.txt.gz") if p.exists()]
        if not found:
            raise SystemExit(f"{corpus} has neither {number}.txt nor {number}.txt.gz ({title}, Project Gutenberg)")
        paths.append(found[0])
    return paths


def prepare(corpus: Path, out: Path, config: nl.RobertaPreLayerNormConfig) -> tuple[Tokenizer, Data]:
    """The tokenizer, trained once and kept in OUT/tokenizer, and the texts."""
    books, held_books = split(list(read_texts(book_paths(corpus))), HELD_OUT, SEED)
    world = small_world().sentences(SENTENCES, SEED)
    if not (out / "tokenizer" / "tokenizer_config.json").exists():
        texts = world[:TOKENIZER_SENTENCES] + books
        train_tokenizer(texts, config.vocab_size, model_max_length=TOKENS_OF_A_ROW).save_pretrained(out / "tokenizer")
    tokenizer = Tokenizer.from_pretrained(out / "tokenizer")
    held_world = small_world().sentences(HELD_SENTENCES, SEED + 1)
    return tokenizer, Data(
        pack(world, tokenizer, TOKENS_OF_A_ROW),
        books,
        pack(held_world, tokenizer, TOKENS_OF_A_ROW),
        pack(held_books, tokenizer, TOKENS_OF_A_ROW, STAGES[-1].window),
    )


def rows(stage: Stage, tokenizer: Tokenizer, data: Data) -> Packed:
    """What a stage trains on: the world, or every row of the books and as many of the world as give it its share."""
    if stage.window is None:
        return data.world
    books = pack(data.books, tokenizer, TOKENS_OF_A_ROW, stage.window)
    count = min(len(data.world), round(len(books) * WORLD_SHARE / (1 - WORLD_SHARE)))
    return Packed(
        np.concatenate([books.ids, data.world.ids[:count]]), np.concatenate([books.texts, data.world.texts[:count]])
    )


def labelled(inputs: dict[str, np.ndarray]) -> int:
    """How many tokens have a label that counts."""
    return int((inputs["labels"] != IGNORE).sum())


def in_threads(model: nl.RobertaPreLayerNormForMaskedLM, pool: ThreadPoolExecutor) -> Callable[..., Any]:
    """`model.vjp` on both halves of a batch at once: the same loss and gradients up to the order of additions."""

    def vjp(cotangents: Any, **arguments: Any) -> Any:
        inputs = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
        rest = {name: value for name, value in arguments.items() if name not in inputs}
        middle = len(inputs["labels"]) // 2
        halves = [{n: v[part] for n, v in inputs.items()} for part in (slice(middle), slice(middle, None))]
        halves = [half for half in halves if labelled(half)]
        weights = [labelled(half) / labelled(inputs) for half in halves]
        jobs = [
            pool.submit(type(model).vjp, model, {"loss": cotangents["loss"] * weight}, **rest, **half)
            for half, weight in zip(halves, weights, strict=True)
        ]
        (output, grads), *others = [job.result() for job in jobs]
        output.loss = output.loss * weights[0]
        for (other, more), weight in zip(others, weights[1:], strict=True):
            output.loss += other.loss * weight
            for name, gradient in more.items():
                grads[name] += gradient
        return output, grads

    return vjp


def run_stage(stage: Stage, start: Path | None, tokenizer: Tokenizer, data: Data, out: Path, minutes: float) -> Path:
    """Train one stage, or the rest of it, and return the folder of its model."""
    folder = out / stage.name
    if (folder / "model" / "tokenizer_config.json").exists():
        return folder / "model"
    if start is None:
        model = nl.RobertaPreLayerNormForMaskedLM(CONFIG, rng=SEED)
    else:
        model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(start)
    packed = rows(stage, tokenizer, data)
    sets = {"world": data.held_world, "books": data.held_books}
    held_masking = MASKING._replace(rates=(0.15,))
    evaluate = evaluator(
        {
            name: PretrainingData(held, tokenizer, held_masking)
            for name, held in sets.items()
            if stage.window or name == "world"
        }
    )
    begun = time.monotonic()

    def progress(step: int, total: int, loss: float) -> None:
        if step % 20 == 0:
            print(f"{time.strftime('%H:%M:%S')} {stage.name} {step}/{total} loss {loss:.3f}", flush=True)
        # the checkpoint of a step is written after this call, so this is the first step behind one
        if time.monotonic() - begun > 60 * minutes and step % stage.settings.save_every == 1:
            raise EnoughError

    model.vjp = in_threads(model, ThreadPoolExecutor(2))
    trainer = Trainer(
        model, PretrainingData(packed, tokenizer, MASKING), stage.settings, folder, evaluate=evaluate, progress=progress
    )
    try:
        steps = trainer.run().step
    except EnoughError:
        newest = state.latest(trainer.checkpoints, "step")
        assert newest is not None
        steps = int(newest.name.removeprefix("step-"))
        model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(newest)
    model.save_pretrained(folder / "model")
    write_json(folder / "model" / "steps.json", {"steps": steps})
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def main() -> None:
    """Run what is left of the recipe."""
    parser = argparse.ArgumentParser(description="Pretrain the embedded model from the small world and the books.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the books")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; the same again goes on")
    parser.add_argument(
        "--short-minutes", type=float, default=float("inf"), help="end the stage of short windows after so many minutes"
    )
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "recipe.json", {"config": CONFIG.to_dict(), "books": {str(n): t for n, t in BOOKS.items()}})
    tokenizer, data = prepare(arguments.corpus, out, CONFIG)
    CONFIG.vocab_size = len(tokenizer)
    print(json.dumps({name: len(part) for name, part in data._asdict().items()}), flush=True)
    model: Path | None = None
    for stage in STAGES:
        minutes = arguments.short_minutes if stage.name == "short" else float("inf")
        model = run_stage(stage, model, tokenizer, data, out, minutes)
    print(f"the model is in {model}")


if __name__ == "__main__":
    main()
