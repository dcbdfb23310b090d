"""`npprelnorm pretrain`: whole runs, what a model learns by them, and what is said to wrong input."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import npprelnorm as nl
from npprelnorm.checkpoint.safetensors_file import SafetensorsFile
from npprelnorm.commands import main
from npprelnorm.smallworld import small_world
from npprelnorm.training.tokenizer_training import train_tokenizer

TEXTS = small_world().sentences(300, seed=9)

TOKENIZER = train_tokenizer(TEXTS, 420, model_max_length=32)


SIZES = [
    "--hidden-size", "32", "--num-hidden-layers", "1", "--num-attention-heads", "2", "--intermediate-size", "48",
    "--sequence-length", "32", "--vocab-size", "700",
]  # fmt: skip


def run(*arguments: object) -> int:
    return main(["pretrain", *map(str, arguments)])


def test_a_run_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[:150]), encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS[150:]).encode()))
    command = ["--text", tmp_path / "a.txt", tmp_path / "b.txt.gz", "--smallworld", 100, "--out", out, *SIZES]
    command += ["--steps", 6, "--log-every", 2, "--eval-every", 3, "--save-every", 4, "--whole-words"]
    assert run(*command) == 0
    captured = capsys.readouterr()
    assert f"written: {out}" in captured.out
    assert "6 steps" in captured.err
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "metrics.json", "metrics.jsonl", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "training.json",
    ]  # fmt: skip

    tokenizer = nl.Tokenizer.from_pretrained(out)
    model = nl.AutoModelForMaskedLM.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.hidden_size == 32
    assert model.config.max_position_embeddings == 34
    assert model.config.initializer_range == round(32**-0.5, 4)
    assert tokenizer.model_max_length == 32
    assert nl.pipeline("fill-mask", model=str(out))("The cat <mask>.", top_k=1)

    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [2, 4, 6]
    assert [line["step"] for line in log if "eval_loss" in line] == [3, 6]
    metrics = json.loads((out / "metrics.json").read_text())
    best = min((line for line in log if "eval_loss" in line), key=lambda line: line["eval_loss"])
    assert metrics["kept_step"] == best["step"]
    assert metrics["eval"] == {"loss": best["eval_loss"], "accuracy": best["eval_accuracy"]}

    before = (out / "model.safetensors").read_bytes()
    assert run(*command) == 0
    assert "finished already" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == before
    assert run(*command, "--seed", 5) == 1
    assert "holds a run with settings" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text("Another text.", encoding="utf-8")
    assert run(*command) == 1
    assert "holds a run with text" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == before


def test_a_named_tokenizer_and_configuration_are_used(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path / "tokenizer")
    given = nl.RobertaPreLayerNormConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, max_position_embeddings=26,
        type_vocab_size=2, hidden_act="relu", vocab_size=9_999,
    )  # fmt: skip
    given.save_pretrained(tmp_path)
    out = tmp_path / "out"
    options = ["--smallworld", 60, "--out", out, "--steps", 1, "--eval-part", 0]
    options += ["--tokenizer", tmp_path / "tokenizer", "--config", tmp_path / "config.json", "--intermediate-size", 24]
    assert run(*options) == 0
    config = nl.RobertaPreLayerNormConfig.from_pretrained(out)
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (420, 16, 24)
    assert (config.hidden_act, config.type_vocab_size, config.max_position_embeddings) == ("relu", 2, 26)
    assert nl.Tokenizer.from_pretrained(out).get_vocab() == TOKENIZER.get_vocab()
    assert json.loads((out / "metrics.json").read_text())["eval"] == {}


def test_it_learns_more_than_how_often_words_occur(tmp_path: Path) -> None:
    """Each word of a pair tells the other: far below the entropy of single words, which needs no look at the others."""
    pairs = [sentence.split() for sentence in ("red cherry", "green leaf", "blue sky", "white snow", "black crow")]
    lines = [f"{a} and {b}" for pair in pairs for a, b in (pair, pair[::-1])] * 120
    (tmp_path / "pairs.txt").write_text("\n".join(lines), encoding="utf-8")
    options = ["--text", tmp_path / "pairs.txt", "--steps", 150, "--batch-size", 16, "--learning-rate", 1e-2]
    options += [*SIZES, "--hidden-act", "relu", "--no-dropout", "--mask-rate", 0.3, "--whole-words"]
    assert run(*options, "--out", tmp_path / "out") == 0
    loss = json.loads((tmp_path / "out" / "metrics.json").read_text())["eval"]["loss"]
    counts = Counter(word for line in lines for word in line.split())
    unigram = -sum(n / counts.total() * math.log(n / counts.total()) for n in counts.values())
    assert loss < 0.6 * unigram


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "there is no text"),
        (["--smallworld", "-3"], 2, "-3"),
        (["--smallworld", "50", "--tokenizer", "x", "--vocab-size", "500"], 2, "--vocab-size is about a tokenizer"),
        (["--smallworld", "50", "--vocab-size", "100"], 2, "--vocab-size is 100; allowed: 261 or more"),
        (["--smallworld", "50", "--eval-part", "1"], 2, "--eval-part is 1.0"),
        (["--smallworld", "50", "--eval-part", "0", "--patience", "2"], 2, "--patience is about evaluations"),
        (["--smallworld", "50", "--mask-rate", "0"], 2, "the masking rate is 0.0"),
        (["--smallworld", "50", "--hidden-size", "30"], 2, "hidden_size"),
        (["--smallworld", "50", "--hidden-act", "sine"], 2, "hidden_act"),
        (["--smallworld", "50", "--learning-rate", "0"], 2, "learning_rate is 0.0"),
        (["--smallworld", "50", "--sequence-length", "2"], 1, "sequence_length is 2"),
        (["--text", "no-such-file.txt"], 1, "no-such-file.txt does not exist"),
        (["--smallworld", "50", "--config", "no-such.json"], 1, "no-such.json does not exist"),
        (["--smallworld", "50", "--tokenizer", "nowhere"], 1, "nowhere does not exist"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    options: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out", tmp_path / "out", *options) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last
    assert "error:" in last


def test_a_file_without_text_and_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    assert run("--text", tmp_path / "empty.txt", "--out", tmp_path / "out") == 1
    assert "nothing but empty lines" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    assert run("--smallworld", 50, "--out", tmp_path / "out", *SIZES, "--sequence-length", 2) == 1
    assert "sequence_length is 2" in capsys.readouterr().err
    assert run("--smallworld", 50, "--out", tmp_path / "out", *SIZES, "--steps", 1) == 0, "it is free for the next try"
    capsys.readouterr()
    assert run("--smallworld", 50, "--out", tmp_path) == 1
    assert "holds something else (empty.txt)" in capsys.readouterr().err


def test_a_configuration_that_does_not_fit_the_tokenizer_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = nl.RobertaPreLayerNormConfig(hidden_size=16, num_attention_heads=2, pad_token_id=7)
    config.save_pretrained(tmp_path)
    assert run("--smallworld", 50, "--out", tmp_path / "out", "--config", tmp_path / "config.json") == 1
    assert "pad_token_id 7, but the tokenizer 1" in capsys.readouterr().err


def test_the_parameters_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def parameters(name: str, seed: int) -> dict[str, np.ndarray]:
        assert run("--smallworld", 80, "--out", tmp_path / name, *SIZES, "--steps", 4, "--seed", seed) == 0
        file = SafetensorsFile(tmp_path / name / "model.safetensors")
        return {tensor: file.read(tensor) for tensor in file.names()}

    first, again, other = parameters("a", 3), parameters("b", 3), parameters("c", 4)
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first if first[name].shape == other[name].shape)
