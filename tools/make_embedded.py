"""Make npprelnorm/assets/tiny from the float32 checkpoint that it comes from, measure it, and write its model card.

    python tools/make_embedded.py CHECKPOINT_FOLDER SMALLWORLD_PY --corpus DIR [--previous FOLDER] [--out FOLDER]

CHECKPOINT_FOLDER is what `embedded_recipe.py` wrote: config.json, model.safetensors, tokenizer.json and
tokenizer_config.json. SMALLWORLD_PY is the program that printed the sentences which the first embedded model was
trained on; it is asked for sentences of an unseen seed. DIR holds the books of the recipe, and FOLDER of --previous the
model that this one replaces. All figures are measured on the float16 file that is shipped, computing in float32.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import compare_embedded
import numpy as np
from compare_embedded import score
from embedded_recipe import STAGES
from safetensors import safe_open
from safetensors.numpy import save_file

import npprelnorm as nl
from npprelnorm.heads import IGNORE

SEED = 20_261  # the pretraining used seed 0
SENTENCES = 6_000
CARD = """\
---
license: apache-2.0
language: en
library_name: npprelnorm
pipeline_tag: fill-mask
tags: [roberta-prelayernorm, fill-mask, toy]
---

# tiny: the model inside npprelnorm

A RoBERTa-PreLayerNorm of {parameters:,} parameters: {config[num_hidden_layers]} layers, hidden size
{config[hidden_size]}, {config[num_attention_heads]} heads, relu, a vocabulary of {config[vocab_size]:,} byte-level BPE
tokens, texts up to {longest} tokens. It is there so that every command works at once, offline, on something that was
really pretrained. It knows a toy world by heart and a little of the English of old novels.

## How it was trained

By this package alone, in NumPy, with `tools/embedded_recipe.py`: masked language modelling of whole words, 15 or 30 %
of them, always by `<mask>`. First {steps[world]:,} steps on sentences of `npprelnorm.smallworld`: capitals, continents,
languages, animals, colours, opposites, sums, days, months, jobs, verbs, and small stories about twelve people. Then on
batches of which half the rows were such sentences and half came from 24 novels and tales in the public domain (Project
Gutenberg; the list is in the recipe): {steps[mixed]:,} steps with the books cut into windows of up to {windows[mixed]}
tokens, {steps[short]:,} steps with windows of {windows[short]}, and {steps[cooldown]:,} steps with windows of
{windows[cooldown]}, in which the learning rate fell to 0. A step saw 2,048 tokens. The weights were then rounded to
float16.

## How good it is

In each of {scores[0][1][0].texts:,} sentences of the first embedded model's own small world (an unseen seed) and in
{scores[0][1][1].texts:,} windows of held-out paragraphs of the books, 15 % of the words are hidden, the same ones for
every model, all pieces of a word at once (`tools/compare_embedded.py`):

| model | small world: bits a character | words right | books: bits a character | words right |
|---|---|---|---|---|
{yardsticks}

## What it knows

One word of each of {sentences:,} sentences of that small world is masked, the one that the sentence
is about, where it is one token. How often the first answer is the right one:

| what is masked | example | sentences | right |
|---|---|---|---|
{rows}

The seed is new, a sentence need not be: the world is small, and nearly every fact was seen in training, often in the
same words. What must be carried from one half of a sentence to the other (who has the thing) was hardly learnt.

## Limits

* Of real English it knows how words commonly follow each other in English and American books of 1813 to 1913, and
  little of what they mean. Rarer words are spelled in pieces. Texts beyond {windows[cooldown]} tokens were only seen
  in the {steps[mixed]:,} steps with long windows.
* Its embeddings come from that world and those books too; do not expect much of them on other text.
* What it says about people comes from twelve given names in a list of templates, and from novels with the views of
  their time.
* For real use name a real model, for example
  `npprelnorm fill-mask "..." --model andreasmadsen/efficient_mlm_m0.40`.

## Files

`model.safetensors` (float16), `config.json`, `tokenizer.json`, `tokenizer_config.json`. Made by
`tools/make_embedded.py`. Licence: Apache-2.0, as npprelnorm.
"""


class Remembering(random.Random):
    """Remembers the first number that a sentence draws: its kind."""

    first: int | None = None

    def randrange(self, *arguments: int) -> int:  # type: ignore[override]
        number = super().randrange(*arguments)
        if self.first is None:
            self.first = number
        return number


def load_world(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("smallworld", path)
    assert specification is not None
    assert specification.loader is not None
    world = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(world)
    return world


def questions(world: ModuleType) -> dict[str, tuple[set[int], re.Pattern[str]]]:
    """What is asked -> the kinds of sentence that it is asked of, and a pattern whose group 1 is the answer."""

    def one_of(words: object) -> str:
        return "|".join(sorted(words, key=len, reverse=True))  # type: ignore[call-overload]

    animals = list(zip(*world.ANIMALS.values(), strict=True))  # sound, young, home, legs, food
    right = [word for pair in world.OPPOSITES for word in pair]
    people = [*world.GIRLS, *world.BOYS]
    table = {
        "the capital of a country": ({0, 1}, rf"\b({one_of(world.CAPITALS.values())})\b"),
        "the continent of a country": ({2}, rf"in ({one_of(set(world.CONTINENT.values()))})\."),
        "the language of a country": ({3}, rf"\b({one_of(world.LANGUAGE.values())})\b"),
        "an animal's voice": ({4, 5}, rf"\b({one_of(animals[0])})\b"),
        "an animal's young": ({4, 5}, rf"\b({one_of(set(animals[1]))})\b"),
        "an animal's home": ({4, 5}, rf"in the ({one_of(set(animals[2]))})\."),
        "an animal's food": ({4, 5}, rf"eats ({one_of(set(animals[4]))})\."),
        "an animal's legs": ({4, 5}, rf"has ({one_of(set(animals[3]))}) legs"),
        "the colour of a thing": ({6}, rf"\b({one_of(set(world.COLORS.values()))})\b"),
        "the opposite of a word": ({7}, rf"is ({one_of(right)})\."),
        "where somebody works": ({11}, rf"[Ii]n the ({one_of(place for place, _ in world.JOBS.values())})\b"),
        "the past of a verb": ({12}, rf"(?:[Yy]esterday \w+) ({one_of(set(world.PAST.values()))})\b"),
        "he, she": ({13}, r"\b(?:and|but) (s?he)\b"),
        "his, her": ({13}, r"lost (his|her)\b"),
        "is, are, was, were": ({14}, r"\b(is|are|was|were)\b"),
        "the day before or after": ({9}, rf"({one_of(world.DAYS)})\.$"),
        "the month before or after": ({10}, rf"is ({one_of(world.MONTHS)})\.$"),
        "a sum or difference": ({8}, rf"is ({one_of(world.NUMBERS)})\.$"),
        "who has the thing now": ({15}, rf"so now ({one_of(people)})\b"),
    }
    return {name: (kinds, re.compile(pattern)) for name, (kinds, pattern) in table.items()}


def measure(folder: Path, world: ModuleType) -> tuple[str, int]:
    """Rows of the table, and how many sentences were asked about."""
    tokenizer = nl.Tokenizer.from_pretrained(folder)
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)
    source = Remembering(SEED)
    asked = defaultdict(list)
    for _ in range(SENTENCES):
        source.first = None
        sentence = world.sentence(source)
        for name, (kinds, pattern) in questions(world).items():
            found = pattern.search(sentence) if source.first in kinds else None
            if found is None:
                continue
            # the mask takes the space before it, and so does the answer
            answer = (" " if found.start(1) and sentence[found.start(1) - 1] == " " else "") + found[1]
            ids = tokenizer(answer, add_special_tokens=False).input_ids[0]
            if len(ids) == 1:
                asked[name].append((sentence[: found.start(1)] + "<mask>" + sentence[found.end(1) :], ids[0]))
            break
    rows = []
    for name in questions(world):
        right, texts = 0, asked[name]
        for start in range(0, len(texts), 64):
            batch = tokenizer([text for text, _ in texts[start : start + 64]], padding=True)
            labels = np.full(batch.input_ids.shape, IGNORE)
            labels[batch.input_ids == tokenizer.mask_token_id] = [answer for _, answer in texts[start : start + 64]]
            logits = model(**batch, labels=labels, labelled_only=True).logits
            right += int((logits.argmax(axis=-1) == labels[labels != IGNORE]).sum())
        rows.append(
            f"| {name} | {texts[0][0].replace('<mask>', '`<mask>`')} | {len(texts)} | {right / len(texts):.1%} |"
        )
    return "\n".join(rows), sum(map(len, asked.values()))


def steps_of(checkpoint: Path) -> dict[str, int]:
    """Steps of each stage of the recipe, from the logs beside the checkpoint (OUT/cooldown/model)."""
    result = {}
    for stage in ("world", "mixed", "short", "cooldown"):
        model = checkpoint.parent.parent / stage / "model"
        result[stage] = json.loads((model / "steps.json").read_text())["steps"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded model from a checkpoint folder.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("smallworld", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--previous", type=Path, help="the model that this one replaces, for the card")
    parser.add_argument("--out", type=Path, default=Path("npprelnorm/assets/tiny"))
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    asked = compare_embedded.yardsticks(arguments.smallworld, arguments.corpus)
    scores = []
    if arguments.previous:  # before anything is written: it may lie in the same folder
        scores.append(("the one before", [score(arguments.previous, texts) for texts in asked.values()]))

    with safe_open(arguments.checkpoint / "model.safetensors", framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    halves = {name: array.astype(np.float16) if array.dtype.kind == "f" else array for name, array in tensors.items()}
    assert all(np.isfinite(array).all() for array in halves.values())
    save_file(halves, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)

    config = json.loads((arguments.checkpoint / "config.json").read_text())
    config["dtype"] = "float16"
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer = json.loads((arguments.checkpoint / "tokenizer.json").read_text())
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (out / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    settings = json.loads((arguments.checkpoint / "tokenizer_config.json").read_text())
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")

    scores.append(("this one", [score(out, texts) for texts in asked.values()]))
    rows, sentences = measure(out, load_world(arguments.smallworld))
    card = CARD.format(
        parameters=sum(array.size for array in tensors.values()),
        config=config,
        longest=config["max_position_embeddings"] - config["pad_token_id"] - 1,
        steps=steps_of(arguments.checkpoint),
        windows={stage.name: stage.window for stage in STAGES},
        scores=scores,
        yardsticks="\n".join(
            f"| {name} | {world.bits_per_character:.3f} | {world.accuracy:.1%} | {books.bits_per_character:.2f} "
            f"| {books.accuracy:.1%} |"
            for name, (world, books) in scores
        ),
        sentences=sentences,
        rows=rows,
    )
    (out / "README.md").write_text(card)
    print(card)
    print(f"{sum(path.stat().st_size for path in out.iterdir()):,} bytes in {out}")


if __name__ == "__main__":
    main()
