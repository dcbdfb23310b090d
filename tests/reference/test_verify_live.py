"""`npprelnorm verify` with a live transformers, and the recorded numbers once more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from stand_in import RECORDED, make_hub_cache

import npprelnorm as nl
from npprelnorm import verify
from npprelnorm.commands import main
from npprelnorm.errors import NpprelnormError

pytestmark = pytest.mark.reference

CONFIG = {
    "vocab_size": 29,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 24,
    "initializer_range": 0.2,
    "num_labels": 2,
}
# every kind of input and output; each takes a child process some seconds
HEADS = ["Model", "ForCausalLM", "ForMaskedLM", "ForMultipleChoice", "ForQuestionAnswering"]


@pytest.mark.parametrize("recorded", [RECORDED, verify.EMBEDDED], ids=["stand-in", "embedded"])
def test_recorded_numbers_are_those_of_transformers(recorded: verify.Recorded, tmp_path: Path) -> None:
    folder = make_hub_cache(tmp_path) if recorded is RECORDED else nl.embedded_model_path()
    ids = np.array([recorded.input_ids])
    theirs = verify._in_child(
        folder, "RobertaPreLayerNormForMaskedLM", {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )
    *_, last = (array for name, array in theirs.items() if name.startswith("layer"))
    for values, array in ((recorded.logits, theirs["logits"]), (recorded.last_hidden_state, last)):
        assert np.abs(array[0, :3, :3] - np.array(values)).max() <= 2e-5


@pytest.mark.parametrize("head", HEADS)
def test_every_class_agrees_layer_by_layer(head: str, tmp_path: Path) -> None:
    config = nl.RobertaPreLayerNormConfig(**CONFIG, is_decoder=head == "ForCausalLM")
    getattr(nl, f"RobertaPreLayerNorm{head}")(config, rng=1).save_pretrained(tmp_path)
    _, differences = verify.compare_with_transformers(tmp_path)
    names = [d.name for d in differences]
    assert names[:4] == ["embeddings", "layer 1", "layer 2", "layer 3"]
    assert len(names) > 4
    assert [d for d in differences if not d.ok] == []


def test_a_wrong_number_of_ours_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nl.RobertaPreLayerNormForMaskedLM(nl.RobertaPreLayerNormConfig(**CONFIG), rng=1).save_pretrained(tmp_path)
    load = verify._load

    def spoiled(folder: Path) -> nl.RobertaPreLayerNormForMaskedLM:
        model = load(folder)
        name = "roberta_prelayernorm.encoder.layer.1.attention.output.dense.bias"
        # one channel only: LayerNorm would hide a shift of all of them from what follows
        model.params[name] = model.params[name] + 0.01 * np.eye(1, 12, dtype=np.float32)[0]
        return model

    monkeypatch.setattr(verify, "_load", spoiled)
    _, differences = verify.compare_with_transformers(tmp_path)
    assert [d.name for d in differences if not d.ok] == ["layer 2", "layer 3", "logits"]


def test_the_command_shows_both_comparisons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    recorded, live = shown["comparisons"]
    assert recorded == "what transformers 5.2.0 recorded"
    assert live.startswith("transformers ")
    assert [d["name"] for d in shown["comparisons"][live]][-1] == "logits"


def test_what_transformers_cannot_load_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NpprelnormError, match=r"transformers could not run .* \(exit code 1\): OSError") as caught:
        verify._in_child(tmp_path, "RobertaPreLayerNormModel", {"input_ids": np.zeros((1, 2), np.int64)})
    assert "\n" not in str(caught.value)
