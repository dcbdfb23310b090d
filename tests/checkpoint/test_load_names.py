"""Which checkpoint a folder holds, told by the names of its tensors and its model type."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_folders import BASE, masked_lm, renamed, same_params, write
from strategies import (
    class_of,
    main_result,
    tiny_config,
)

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError

DECODER, DECODER_BIAS, HEAD_BIAS = "lm_head.decoder.weight", "lm_head.decoder.bias", "lm_head.bias"

IDS = np.array([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.mark.parametrize("prefix", [BASE, "", "roberta.", "some.wrapper."])
@pytest.mark.parametrize("target", ["ForMaskedLM", "Model"])
def test_any_prefix_loads_into_base_and_head(prefix: str, target: str, tmp_path: Path) -> None:
    model = masked_lm()
    write(tmp_path, renamed(model.params, prefix), model.config)
    loaded = class_of(target).from_pretrained(tmp_path)  # without a warning
    expected = model(IDS).logits if target == "ForMaskedLM" else model.base(IDS).last_hidden_state
    np.testing.assert_array_equal(main_result(loaded(IDS)), expected)
    assert not loaded.has_pooler


@pytest.mark.parametrize("architecture", ["RobertaForMaskedLM", None])
def test_the_names_of_princeton(architecture: str | None, tmp_path: Path) -> None:
    """model_type roberta, prefix roberta., a LayerNorm in self-attention that nobody uses; gamma and beta; buffers."""
    model = masked_lm(hidden_act="relu")
    tensors = renamed(model.params, "roberta.")
    for index in range(2):
        for part in ("weight", "bias"):
            tensors[f"roberta.encoder.layer.{index}.attention.self.LayerNorm.{part}"] = np.full(12, 99, np.float32)
    tensors["roberta.embeddings.position_ids"] = np.arange(16)[None]
    tensors["roberta.LayerNorm.gamma"] = tensors.pop("roberta.LayerNorm.weight")
    tensors["roberta.LayerNorm.beta"] = tensors.pop("roberta.LayerNorm.bias")
    tensors[DECODER], tensors[DECODER_BIAS] = tensors["roberta.embeddings.word_embeddings.weight"], tensors[HEAD_BIAS]
    architectures = [architecture] if architecture else None
    write(tmp_path, tensors, model.config, model_type="roberta", architectures=architectures)
    loaded = class_of("ForMaskedLM").from_pretrained(tmp_path)
    same_params(loaded, model.params)
    loaded.save_pretrained(tmp_path / "converted")
    written = json.loads((tmp_path / "converted" / "config.json").read_text("utf-8"))
    assert written["model_type"] == "roberta-prelayernorm"
    same_params(class_of("ForMaskedLM").from_pretrained(tmp_path / "converted"), model.params)


@pytest.mark.parametrize(("model_type", "prefix", "match"), [
    ("roberta", BASE, "pre-LN tensor names but model_type 'roberta'"),
    ("bert", "roberta.", "pre-LN tensor names but model_type 'bert'"),
    ("xlm-roberta", "", "set model_type to 'roberta-prelayernorm' there"),
])  # fmt: skip
def test_a_model_type_that_disagrees(model_type: str, prefix: str, match: str, tmp_path: Path) -> None:
    model = masked_lm()
    write(tmp_path, renamed(model.params, prefix), model.config, model_type=model_type)
    with pytest.raises(CheckpointMismatchError, match=match) as caught:
        class_of("ForMaskedLM").from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_configuration_without_a_model_type_is_taken_by_its_names(tmp_path: Path) -> None:
    model = masked_lm()
    write(tmp_path, model.params, model.config, model_type=None)
    same_params(class_of("ForMaskedLM").from_pretrained(tmp_path), model.params)


@pytest.mark.parametrize("model_type", ["roberta", "bert", "roberta-prelayernorm"])
@pytest.mark.parametrize("ending", ["weight", "gamma"])
def test_post_ln_is_refused_by_name(model_type: str, ending: str, tmp_path: Path) -> None:
    model = masked_lm()
    tensors = {
        name.replace("attention.LayerNorm", "attention.output.LayerNorm").replace(
            "intermediate.Lay", "output.Lay"
        ): value
        for name, value in renamed(model.params, "roberta.").items()
        if not name.startswith(BASE + "LayerNorm.")
    }
    tensors = {name.replace("LayerNorm.weight", f"LayerNorm.{ending}"): value for name, value in tensors.items()}
    write(tmp_path, tensors, model.config, model_type=model_type)
    for head in ("ForMaskedLM", "Model"):
        with pytest.raises(
            CheckpointMismatchError, match=f"is a post-LN checkpoint .model_type '{model_type}'"
        ) as caught:
            class_of(head).from_pretrained(tmp_path)
        assert "load it with AutoModel" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_something_else_altogether_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"conv.weight": np.zeros((2, 2), np.float32)}, tiny_config())
    with pytest.raises(CheckpointMismatchError, match="it is no RoBERTa-PreLayerNorm checkpoint"):
        nl.AutoModel.from_pretrained(tmp_path)


def test_two_tensors_for_one_parameter(tmp_path: Path) -> None:
    model = masked_lm()
    write(tmp_path, model.params | {BASE + "LayerNorm.gamma": np.zeros(12, np.float32)}, model.config)
    with pytest.raises(
        CheckpointMismatchError, match=r"holds both .*LayerNorm\.\w+ and .*LayerNorm\.\w+, which are one"
    ):
        class_of("ForMaskedLM").from_pretrained(tmp_path)
