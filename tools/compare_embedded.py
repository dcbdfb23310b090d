"""Compare masked language models on the two yardsticks of the embedded one: the small world, and held-out books.

    python tools/compare_embedded.py --smallworld SMALLWORLD_PY --corpus DIR MODEL [MODEL ...]

SMALLWORLD_PY is the program that printed the sentences of the first embedded model's pretraining; it is asked for
sentences of an unseen seed. DIR holds the books of `embedded_recipe.py`, whose held-out parts are cut into windows.
In each text the same 15 % of the words, at least one, are hidden for every model, all pieces of a word at once. A score
is the sum of -log2 p over the pieces that were hidden, divided by the characters of the hidden words: so models with
different vocabularies can be compared. A word counts as right when each of its pieces is the likeliest one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from embedded_recipe import HELD_OUT, SEED, book_paths

import npprelnorm as nl
from npprelnorm.heads import IGNORE
from npprelnorm.training.pretraining import read_texts, split

RATE = 0.15
UNSEEN = 20_262
SENTENCES = 2_000
WINDOW = 160  # characters: what every model's positions can hold, even where it spells words in pieces
WORD = re.compile(r"\w+(?:['-]\w+)*")
_BATCH = 32


class Question(NamedTuple):
    """A text and the words that are hidden in it."""

    text: str
    spans: tuple[tuple[int, int], ...]  # first character and the one after the last, of each hidden word


class Score(NamedTuple):
    """How a model did."""

    texts: int
    words: int
    bits_per_character: float
    accuracy: float


def sentences(program: Path) -> list[str]:
    """What the original small world prints for the unseen seed."""
    command = [sys.executable, str(program), str(SENTENCES), str(UNSEEN)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def windows(paragraphs: list[str]) -> Iterator[str]:
    """Runs of whole words of at most WINDOW characters; the ends of paragraphs that are much shorter are left out."""
    for paragraph in paragraphs:
        current = ""
        for word in paragraph.split():
            if len(current) + len(word) >= WINDOW:
                yield current
                current = ""
            current += (" " if current else "") + word
        if len(current) >= WINDOW // 4:
            yield current


def questions(texts: list[str]) -> list[Question]:
    """The same hidden words for every model."""
    rng = np.random.default_rng(UNSEEN)
    result = []
    for text in texts:
        spans = [match.span() for match in WORD.finditer(text)]
        if spans:
            count = max(1, round(RATE * len(spans)))
            chosen = sorted(rng.choice(len(spans), count, replace=False))
            result.append(Question(text, tuple(spans[i] for i in chosen)))
    return result


def score(folder: Path, asked: list[Question]) -> Score:
    """One model's score."""
    tokenizer = nl.Tokenizer.from_pretrained(folder)
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)
    bits, right, words, characters = 0.0, 0, 0, 0
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        encoded = tokenizer([one.text for one in batch], padding=True, return_offsets=True)
        offsets = encoded["offset_mapping"]  # (B, T, 2)
        owner = np.full(encoded.input_ids.shape, -1)  # number of the hidden word that each piece belongs to
        for row, one in enumerate(batch):
            for first, last in one.spans:
                pieces = (offsets[row, :, 0] < last) & (offsets[row, :, 1] > first)
                if not pieces.any():
                    raise SystemExit(f"{folder}: no token is at characters {first} to {last} of {one.text!r}")
                owner[row, pieces] = words
                words += 1
                characters += last - first
        hidden = owner >= 0
        labels = np.where(hidden, encoded.input_ids, IGNORE)
        output = model(
            input_ids=np.where(hidden, tokenizer.mask_token_id, encoded.input_ids),
            attention_mask=encoded.attention_mask,
            labels=labels,
            labelled_only=True,
        )
        truth = labels[hidden]
        bits += float(output.loss) / np.log(2) * truth.size
        wrong = owner[hidden][output.logits.argmax(axis=-1) != truth]
        right += len(np.unique(owner[hidden])) - len(np.unique(wrong))
    return Score(len(asked), words, bits / characters, right / words)


def yardsticks(program: Path, corpus: Path) -> dict[str, list[Question]]:
    """The questions of both yardsticks."""
    _, held = split(list(read_texts(book_paths(corpus))), HELD_OUT, SEED)
    return {"small world": questions(sentences(program)), "books": questions(list(windows(held)))}


def main() -> None:
    """Print a table, and with --json what is in it."""
    parser = argparse.ArgumentParser(description="Compare masked language models on the small world and on books.")
    parser.add_argument("--smallworld", type=Path, required=True, help="the original smallworld.py")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the books")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="checkpoint folders")
    arguments = parser.parse_args()
    both = yardsticks(arguments.smallworld, arguments.corpus)
    results = {
        str(folder): {name: score(folder, asked)._asdict() for name, asked in both.items()}
        for folder in arguments.models
    }
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("| model | yardstick | texts | hidden words | bits a character | words right |\n|---|---|---|---|---|---|")
    for folder, scores in results.items():
        for name, s in scores.items():
            print(
                f"| {folder} | {name} | {s['texts']:,} | {s['words']:,} | {s['bits_per_character']:.4f} "
                f"| {s['accuracy']:.1%} |"
            )


if __name__ == "__main__":
    main()
