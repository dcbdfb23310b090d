"""What `npprelnorm pretrain` writes, read by transformers: the same ids, and the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import npprelnorm as nl
from npprelnorm.commands import main
from npprelnorm.smallworld import small_world

pytestmark = pytest.mark.reference

HARD = ["", " ", "Ünïcödé \U0001f600 世界", "The <mask> of<mask> France", "  two  spaces\tand\ttabs\n", "don't (stop)!"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained") / "out"
    sizes = ["--hidden-size", "16", "--num-attention-heads", "2", "--intermediate-size", "24", "--vocab-size", "600"]
    options = ["--smallworld", "500", "--sequence-length", "48", "--steps", "5", *sizes]
    assert main(["pretrain", "--out", str(out), *options]) == 0
    return out


def test_the_tokenizer_is_a_roberta_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer, RobertaTokenizer, RobertaTokenizerFast

    theirs = AutoTokenizer.from_pretrained(folder)
    assert isinstance(theirs, RobertaTokenizer | RobertaTokenizerFast)
    ours = nl.Tokenizer.from_pretrained(folder)
    assert theirs.model_max_length == ours.model_max_length == 48
    assert len(theirs) == len(ours)
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(theirs, f"{role}_token_id") == getattr(ours, f"{role}_token_id")
    for text in [*HARD, *small_world().sentences(200, seed=3)]:
        assert theirs(text).input_ids == ours.encode_rows([text])[0].tolist()


def test_the_model_gives_the_same_numbers(folder: Path) -> None:
    import torch
    from transformers import AutoModelForMaskedLM

    theirs = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = nl.AutoModelForMaskedLM.from_pretrained(folder)
    batch = nl.Tokenizer.from_pretrained(folder)(small_world().sentences(8, seed=3), padding=True)
    with torch.no_grad():
        expected = theirs(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()
    logits = ours(**batch).logits
    assert np.abs(logits - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())
