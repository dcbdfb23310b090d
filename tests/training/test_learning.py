"""Fine-tuning teaches what a bag of words cannot know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grammar
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MARGIN = 0.2


def bag_of_words_accuracy(train: list[grammar.Labelled], held_out: list[grammar.Labelled]) -> float:
    """Logistic regression on the counts of words in a text, fitted by Newton's method."""
    vocabulary = sorted({word for text, _ in train for word in words(text)})
    index = {word: column for column, word in enumerate(vocabulary)}

    def counts(examples: list[grammar.Labelled]) -> np.ndarray:
        table = np.zeros((len(examples), len(vocabulary) + 1))
        table[:, -1] = 1.0
        for row, (text, _) in zip(table, examples, strict=True):
            for word in words(text):
                if word in index:
                    row[index[word]] += 1.0
        return table

    x, y = counts(train), np.array([label == "true" for _, label in train], np.float64)
    weights = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30.0, 30.0)))
        gradient = x.T @ (p - y) + 0.1 * weights
        hessian = (x.T * (p * (1.0 - p))) @ x + 0.1 * np.eye(x.shape[1])
        weights -= np.linalg.solve(hessian, gradient)
    predicted = counts(held_out) @ weights > 0.0
    return float(np.mean(predicted == np.array([label == "true" for _, label in held_out])))


def words(text: str) -> list[str]:
    return text.replace(".", " .").split()


def test_every_text_has_a_twin_of_the_same_words_and_the_other_label() -> None:
    labels: dict[tuple[str, ...], list[str]] = {}
    for text, label in grammar.possible():
        labels.setdefault(tuple(sorted(words(text))), []).append(label)
    assert len(grammar.possible()) == len({text for text, _ in grammar.possible()}) == 5280
    assert all(sorted(pair) == ["false", "true"] for pair in labels.values())


def test_the_bag_of_words_learns_what_it_can() -> None:
    train, held_out = grammar.examples(2000, 400, seed=0)
    told = [
        [grammar.Labelled(text, "true" if "gave" in text and "Anna" in text else "false") for text, _ in part]
        for part in (train, held_out)
    ]
    assert bag_of_words_accuracy(*told) > 0.97


def test_fine_tuning_beats_a_bag_of_words(tmp_path: Path, write_lines: Callable[..., Path]) -> None:
    train, held_out = grammar.examples(2000, 400, seed=0)
    assert not {text for text, _ in train} & {text for text, _ in held_out}
    files = [write_lines(f"{name}.jsonl", [one._asdict() for one in part])
             for name, part in (("train", train), ("eval", held_out))]  # fmt: skip
    options = f"--train {files[0]} --eval {files[1]} --out {tmp_path / 'out'} --epochs 4 --batch-size 32"
    options += " --learning-rate 5e-4 --no-dropout --eval-every 1000"
    # one thread: with more, small matrices only wait for each other where other processes are busy
    environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "npprelnorm", "train", "classification", *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["eval"]["accuracy"] >= 0.7
    assert metrics["eval"]["accuracy"] >= bag_of_words_accuracy(train, held_out) + MARGIN
