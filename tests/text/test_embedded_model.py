"""The embedded model: its files, what it knows, and that its card tells the truth."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import npprelnorm as nl

FOLDER = nl.embedded_model_path()
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_files() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_600_000
    assert not any(path.stat().st_mode & 0o444 != 0o444 for path in FOLDER.iterdir())  # every user can read it


def test_weights_are_float16_and_finite() -> None:
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(FOLDER / "model.safetensors", framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        assert file.metadata() == {"format": "pt"}
    assert {array.dtype.name for array in tensors.values()} == {"float16"}
    assert all(np.isfinite(array).all() for array in tensors.values())
    assert sum(array.size for array in tensors.values()) == 1_619_712


def test_it_loads_without_a_warning_and_computes_in_float32() -> None:
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(FOLDER)
    assert {array.dtype.name for array in model.params.values()} == {"float32"}
    assert model.num_parameters() == 1_619_712


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The capital of France is <mask>.", " Paris"),
        ("The opposite of hot is <mask>.", " cold"),
        ("A young cat is called a <mask>.", " kitten"),
        ("The boys <mask> in the garden.", " were"),
        ("Anna lost <mask> book in the garden.", " her"),
        ("The day after Sunday is <mask>.", " Monday"),
        ("Yesterday Emma <mask>, and today she will sell again.", " sold"),
        ("Two plus three is <mask>.", " five"),
    ],
)
def test_what_it_knows(text: str, answer: str) -> None:
    assert nl.pipeline("fill-mask")(text, top_k=1)[0]["token_str"] == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('"Oh, my <mask> boy!" said my aunt.', " dear"),
        ("At the end of <mask> day", " the"),
        ("They sat down by the <mask>.", " door"),
    ],
)
def test_what_it_knows_of_english(text: str, answer: str) -> None:
    assert nl.pipeline("fill-mask")(text, top_k=1)[0]["token_str"] == answer


def test_the_card_agrees_with_the_configuration() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert CARD.startswith("---\nlicense: apache-2.0\n")
    assert "1,619,712 parameters" in CARD
    assert f"{config['num_hidden_layers']} layers" in CARD
    assert re.search(rf"texts\s+up\s+to\s+{config['max_position_embeddings'] - 2}\s+tokens", CARD)


def test_the_card_tells_the_truth_about_its_examples() -> None:
    """Where the card says 100 %, its example is answered rightly."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (\d+) \| ([\d.]+)% \|$", CARD, re.MULTILINE)
    assert len(rows) == 19
    certain = [example.replace("`", "") for _, example, _, right in rows if float(right) == 100]
    assert certain == list(EXAMPLES)
    answers = nl.pipeline("fill-mask")(certain, top_k=1)
    assert [answer[0]["token_str"].strip() for answer in answers] == list(EXAMPLES.values())


EXAMPLES = {
    "We flew to <mask>, the capital of Thailand.": "Bangkok",
    "Chile lies in <mask>.": "America",
    "People in Sweden speak <mask>.": "Swedish",
    "The duck <mask>.": "quacks",
    "The <mask> of the lion sleeps in the den.": "cub",
    "The sheep lives in the <mask>.": "field",
    "The horse eats <mask>.": "hay",
    "A frog has <mask> legs.": "four",
    "It was as <mask> as the cherry.": "red",
    "It is not hot, it is <mask>.": "cold",
    "In the <mask> there is a judge.": "court",
    "Yesterday Emma <mask>, and today she will buy again.": "bought",
    "Paul is the father of John, and <mask> loves him.": "he",
    "Emma lost <mask> book in the garden.": "her",
    "There <mask> four keys in the river.": "are",
    "Today is Monday, so tomorrow is <mask>.": "Tuesday",
    "The month after October is <mask>.": "November",
}
