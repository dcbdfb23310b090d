"""From files to models and back: every class and element type, and all that does not fit."""

from __future__ import annotations

import json
import mmap
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import BASE, masked_lm, same_params, write
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from strategies import (
    HEADS,
    class_of,
    configs,
    float_dtypes,
    main_result,
    random_ids,
    random_model,
    required_arguments,
    seeds,
    tiny_config,
)

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError, CheckpointWarning, ConfigError, NpprelnormWarning

WORDS = BASE + "embeddings.word_embeddings.weight"

DECODER, DECODER_BIAS, HEAD_BIAS = "lm_head.decoder.weight", "lm_head.decoder.bias", "lm_head.bias"

IDS = np.array([[5, 6, 7, 8], [9, 10, 11, 12]])


# ---- there and back


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=8)
@given(config=configs(), seed=seeds, dtype=float_dtypes, sharded=st.booleans())
def test_a_round_trip_changes_no_bit(head: str, config: Any, seed: int, dtype: str, sharded: bool) -> None:
    model = random_model(head, config, seed, dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = sum(value.nbytes for value in model.params.values())
        model.save_pretrained(folder, max_shard_size=size // 4 if sharded else "5GB")
        assert (folder / "model.safetensors.index.json").exists() == sharded
        assert (folder / "model.safetensors").exists() != sharded
        again = class_of(head).from_pretrained(folder, dtype=dtype)
        assert list(again.params) == list(model.params)
        same_params(again, model.params)
        assert again.config.to_dict() | {"dtype": None, "architectures": None} == model.config.to_dict()
        assert again.config.architectures == [type(model).__name__]
        assert again.config.dtype == dtype
        assert model.config.architectures is None
        arguments = required_arguments(head, random_ids(config, (2, 4), seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NpprelnormWarning)
            np.testing.assert_array_equal(main_result(again(**arguments)), main_result(model(**arguments)))
        again.save_pretrained(folder)  # over the files that its own arrays are mapped from
        same_params(again, model.params)
        same_params(class_of(head).from_pretrained(folder, dtype=dtype), model.params)


def test_what_is_saved_is_what_transformers_reads(tmp_path: Path) -> None:
    """One copy of a tied matrix, one bias, no position_ids; the metadata that transformers insists on."""
    model = masked_lm()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert set(tensors) == set(model.params)
    assert not {DECODER, DECODER_BIAS} & set(tensors)
    header = (tmp_path / "model.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"] == {"format": "pt"}
    written = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert written["model_type"] == "roberta-prelayernorm"
    assert written["architectures"] == ["RobertaPreLayerNormForMaskedLM"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    untied = masked_lm(tie_word_embeddings=False)
    untied.save_pretrained(tmp_path)
    assert {HEAD_BIAS, DECODER, DECODER_BIAS} <= set(load_file(tmp_path / "model.safetensors"))


def test_unknown_keys_of_the_configuration_survive(tmp_path: Path) -> None:
    model = masked_lm()
    write(tmp_path, model.params, model.config, transformers_version="4.25.0.dev0", my_key=[1, 2])
    nl.AutoModelForMaskedLM.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text("utf-8"))
    assert (written["my_key"], written["transformers_version"]) == ([1, 2], "4.25.0.dev0")


def test_a_configuration_given_replaces_that_of_the_folder_and_stays_as_it_is(tmp_path: Path) -> None:
    model = masked_lm()
    write(tmp_path, model.params, model.config)
    own = tiny_config(layer_norm_eps=0.5)
    loaded = class_of("ForMaskedLM").from_pretrained(tmp_path, config=own, is_decoder=True)
    assert (loaded.config.layer_norm_eps, loaded.config.is_decoder, own.is_decoder) == (0.5, True, False)
    with pytest.raises(ConfigError, match="no field 'nonsense'"):
        class_of("ForMaskedLM").from_pretrained(tmp_path, nonsense=1)


# ---- the arrays


def test_arrays_of_the_right_type_are_mapped_and_read_only(tmp_path: Path) -> None:
    model = masked_lm()
    model.save_pretrained(tmp_path)
    mapped = class_of("ForMaskedLM").from_pretrained(tmp_path)
    for name, array in mapped.params.items():
        assert not array.flags.writeable, name
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        owner = base.obj if isinstance(base, memoryview) else base
        assert isinstance(owner, mmap.mmap), name
    wide = class_of("ForMaskedLM").from_pretrained(tmp_path, dtype="float64")
    same_params(wide, model.params)
    assert all(array.flags.owndata for array in wide.params.values())


def bfloat16_bits(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers that have nothing in the lower ones."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype("<u2")


def write_raw(path: Path, tensors: Mapping[str, tuple[str, np.ndarray]]) -> None:
    """A safetensors file with element types that NumPy lacks."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("stored", ["F16", "BF16", "F32", "F64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_element_type_is_widened_exactly(stored: str, dtype: str, tmp_path: Path) -> None:
    model = masked_lm()
    coarse = {}  # numbers that every type can hold
    for name, value in model.params.items():
        bits = value.astype(np.float16).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        coarse[name] = bits.view(np.float32).astype(np.float16).astype(np.float32)
    stored_as = {
        "F16": lambda a: a.astype("<f2"), "F32": lambda a: a, "F64": lambda a: a.astype("<f8"), "BF16": bfloat16_bits,
    }[stored]  # fmt: skip
    write(tmp_path, coarse, model.config, torch_dtype={"F16": "float16", "BF16": "bfloat16"}.get(stored))
    write_raw(tmp_path / "model.safetensors", {name: (stored, stored_as(value)) for name, value in coarse.items()})
    same_params(class_of("ForMaskedLM").from_pretrained(tmp_path, dtype=dtype), coarse)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    model = masked_lm()
    tensors = model.params | {BASE + "LayerNorm.bias": np.zeros(12, np.int64)}
    write(tmp_path, tensors, model.config)
    with pytest.raises(CheckpointMismatchError, match=r"LayerNorm.bias in .* has dtype I64; weights must be floats"):
        class_of("ForMaskedLM").from_pretrained(tmp_path)


# ---- what does not fit


def test_all_that_does_not_fit_is_reported_at_once(tmp_path: Path) -> None:
    model = masked_lm()
    tensors = dict(model.params)
    del tensors[BASE + "LayerNorm.bias"], tensors[BASE + "encoder.layer.1.output.dense.weight"]
    tensors[WORDS] = np.zeros((24, 12), np.float32)
    tensors["lm_head.dense.bias"] = np.zeros(11, np.float32)
    tensors["classifier.weight"] = np.zeros((2, 12), np.float32)
    write(tmp_path, tensors, model.config)
    with pytest.raises(CheckpointMismatchError) as caught:
        class_of("ForMaskedLM").from_pretrained(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        str(tmp_path), "does not fit RobertaPreLayerNormForMaskedLM",
        "missing: roberta_prelayernorm.encoder.layer.1.output.dense.weight, roberta_prelayernorm.LayerNorm.bias",
        f"{WORDS} is (24, 12), the configuration says (23, 12)",
        "lm_head.dense.bias is (11,), the configuration says (12,)",
        "not used: classifier.weight",
    ):  # fmt: skip
        assert part in message, message


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    model = masked_lm()
    kept = ("embeddings", "encoder.layer.0.intermediate")
    write(tmp_path, {n: v for n, v in model.params.items() if any(part in n for part in kept)}, model.config)
    with pytest.raises(CheckpointMismatchError, match=r"missing: .* and \d+ more") as caught:
        class_of("ForMaskedLM").from_pretrained(tmp_path)
    assert len(str(caught.value)) < 1200


def test_a_hole_in_the_body_can_be_drawn_on_request_only(tmp_path: Path) -> None:
    model = masked_lm()
    tensors = {name: value for name, value in model.params.items() if name != BASE + "LayerNorm.weight"}
    write(tmp_path, tensors, model.config)
    with pytest.raises(CheckpointMismatchError, match="init_missing=True draws them fresh"):
        class_of("ForMaskedLM").from_pretrained(tmp_path)
    with pytest.warns(
        CheckpointWarning, match="drawn fresh, train it before use: roberta_prelayernorm.LayerNorm.weight"
    ):
        loaded = class_of("ForMaskedLM").from_pretrained(tmp_path, init_missing=True)
    same_params(loaded, model.params | {BASE + "LayerNorm.weight": np.ones(12)})


def test_a_head_is_drawn_fresh_with_a_warning_and_seeded(tmp_path: Path) -> None:
    masked_lm().save_pretrained(tmp_path)
    cls = class_of("ForSequenceClassification")
    with pytest.warns(
        CheckpointWarning, match=r"drawn fresh.*classifier.dense.weight.*classifier.out_proj.bias"
    ) as caught:
        models = [cls.from_pretrained(tmp_path, num_labels=5, rng=rng) for rng in (0, 0, 1)]
    assert [warning.filename for warning in caught] == [__file__] * 3
    weights = [model.params["classifier.out_proj.weight"] for model in models]
    assert weights[0].shape == (5, 12)
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert models[0].config.id2label[4] == "LABEL_4"
    with pytest.raises(CheckpointMismatchError, match=r"missing: classifier\.dense\.weight"):
        cls.from_pretrained(tmp_path, init_missing=False)


def test_a_head_of_another_size(tmp_path: Path) -> None:
    model = random_model("ForSequenceClassification", tiny_config(num_labels=3), dtype="float32")
    model.save_pretrained(tmp_path)
    cls = class_of("ForSequenceClassification")
    with pytest.raises(CheckpointMismatchError, match=r"classifier.out_proj.weight is \(3, 12\), .* \(5, 12\)"):
        cls.from_pretrained(tmp_path, num_labels=5)
    with pytest.warns(CheckpointWarning, match=r"of another shape and drawn fresh: classifier.out_proj.weight, "):
        loaded = cls.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert loaded(IDS).logits.shape == (2, 5)
    np.testing.assert_array_equal(loaded.params["classifier.dense.weight"], model.params["classifier.dense.weight"])


def test_what_is_not_used_is_a_warning(tmp_path: Path) -> None:
    model = random_model("ForTokenClassification", tiny_config(), dtype="float32")
    model.save_pretrained(tmp_path)
    with pytest.warns(CheckpointWarning, match="in the file but not used: classifier.bias, classifier.weight"):
        nl.AutoModel.from_pretrained(tmp_path)


def test_decoder_and_cross_attention_by_override(tmp_path: Path) -> None:
    model = masked_lm()
    model.save_pretrained(tmp_path)
    decoder = class_of("ForCausalLM").from_pretrained(tmp_path, is_decoder=True)  # nothing is missing: no warning
    same_params(decoder, model.params)
    assert decoder(IDS).past_key_values.length == 4
    with pytest.warns(CheckpointWarning, match=r"drawn fresh.*layer\.0\.crossattention\.LayerNorm\.weight"):
        crossed = class_of("ForCausalLM").from_pretrained(tmp_path, is_decoder=True, add_cross_attention=True)
    np.testing.assert_array_equal(crossed(IDS).logits, decoder(IDS).logits)
    assert crossed(IDS, encoder_hidden_states=np.ones((2, 3, 12))).logits.shape == (2, 4, 23)
    with pytest.raises(ConfigError, match="is_decoder"):
        class_of("ForCausalLM").from_pretrained(tmp_path, add_cross_attention=True)


# ---- the pooler


def test_a_base_model_has_a_pooler_where_the_file_has_one(tmp_path: Path) -> None:
    with_one = random_model("Model", tiny_config(), dtype="float32")
    with_one.save_pretrained(tmp_path / "with")
    loaded = nl.AutoModel.from_pretrained(tmp_path / "with")
    np.testing.assert_array_equal(loaded(IDS).pooler_output, with_one(IDS).pooler_output)
    same_params(loaded, with_one.params)
    masked_lm().save_pretrained(tmp_path / "without")
    for init_missing in (None, False):
        without = nl.AutoModel.from_pretrained(tmp_path / "without", init_missing=init_missing)  # no warning
        assert without(IDS).pooler_output is None
    with pytest.warns(CheckpointWarning, match=r"drawn fresh.*: pooler.dense.weight, pooler.dense.bias"):
        assert nl.AutoModel.from_pretrained(tmp_path / "without", init_missing=True)(IDS).pooler_output.shape == (2, 12)


def test_multiple_choice_takes_the_pooler_or_draws_one(tmp_path: Path) -> None:
    base = random_model("Model", tiny_config(), dtype="float32")
    base.save_pretrained(tmp_path / "with")
    with pytest.warns(CheckpointWarning, match="drawn fresh, train it before use: classifier.weight, classifier.bias$"):
        choice = nl.AutoModelForMultipleChoice.from_pretrained(tmp_path / "with")
    np.testing.assert_array_equal(choice.params[BASE + "pooler.dense.weight"], base.params["pooler.dense.weight"])
    masked_lm().save_pretrained(tmp_path / "without")
    with pytest.warns(CheckpointWarning, match=r"drawn fresh.*pooler.dense.weight"):
        nl.AutoModelForMultipleChoice.from_pretrained(tmp_path / "without")
    with pytest.raises(CheckpointMismatchError, match=r"missing: roberta_prelayernorm.pooler.dense.weight"):
        nl.AutoModelForMultipleChoice.from_pretrained(tmp_path / "without", init_missing=False)


def test_a_class_without_a_pooler_says_that_it_leaves_it(tmp_path: Path) -> None:
    random_model("Model", tiny_config(), dtype="float32").save_pretrained(tmp_path)
    with pytest.warns(CheckpointWarning, match=r"not used: roberta_prelayernorm.pooler.dense.bias"):
        nl.AutoModelForMaskedLM.from_pretrained(tmp_path)


# ---- the classes that choose


@pytest.mark.parametrize("head", HEADS)
def test_auto_classes(head: str, tmp_path: Path) -> None:
    auto = getattr(nl, "AutoModel" if head == "Model" else f"AutoModel{head}")
    model = random_model(head, tiny_config(), dtype="float32")
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is class_of(head)
    same_params(loaded, model.params)
    assert nl.AutoConfig.from_pretrained(tmp_path) == loaded.config
    assert auto.from_config(tiny_config(), rng=3, dtype="float64").dtype == np.float64
