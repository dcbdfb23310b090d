"""`npprelnorm convert`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stand_in import save_as_princeton, save_as_published

import npprelnorm as nl
from npprelnorm.checkpoint.convert import narrow_bfloat16
from npprelnorm.checkpoint.folder import open_tensors
from npprelnorm.checkpoint.tensors import widen_bfloat16
from npprelnorm.commands import main

IDS = np.array([[0, 7, 11, 28, 2], [0, 5, 2, 1, 1]])


@pytest.fixture
def model() -> nl.RobertaPreLayerNormForMaskedLM:
    config = nl.RobertaPreLayerNormConfig(
        vocab_size=29,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=514,
        initializer_range=0.2,
        extra={"of_my_own": [1, 2]},
    )
    return nl.RobertaPreLayerNormForMaskedLM(config, rng=3)


def logits(model: nl.RobertaPreLayerNormForMaskedLM) -> np.ndarray:
    return model(input_ids=IDS, attention_mask=IDS != 1).logits


@pytest.mark.parametrize("save", [save_as_published, save_as_princeton])
def test_the_converted_model_is_the_same_model(
    save: object, model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(model, tmp_path / "old")
    (tmp_path / "old" / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"{len(model.params)} tensors, {model.num_parameters():,} parameters" in captured.out
    assert "copied merges.txt" in captured.out
    assert "left out, as unused or stored twice: " in captured.out
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
    ]
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    again = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(tmp_path / "new")
    assert again.params.keys() == model.params.keys()
    assert all(np.array_equal(again.params[name], array) for name, array in model.params.items())
    assert np.array_equal(logits(again), logits(model))
    assert np.array_equal(logits(nl.RobertaPreLayerNormForMaskedLM.from_pretrained(tmp_path / "old")), logits(model))
    values = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    assert values["model_type"] == "roberta-prelayernorm"
    assert values["architectures"] == ["RobertaPreLayerNormForMaskedLM"]
    assert values["of_my_own"] == [1, 2]


def test_a_file_beside_its_config_will_do(model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path) -> None:
    save_as_published(model, tmp_path / "old")
    assert main(["convert", str(tmp_path / "old" / "pytorch_model.bin"), str(tmp_path / "new")]) == 0
    assert np.array_equal(logits(nl.RobertaPreLayerNormForMaskedLM.from_pretrained(tmp_path / "new")), logits(model))


@pytest.mark.parametrize(("dtype", "code", "bits"), [("float16", "F16", 11), ("bfloat16", "BF16", 8)])
def test_narrower_types_round_once(
    dtype: str, code: str, bits: int, model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path
) -> None:
    save_as_published(model, tmp_path / "old")
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new"), "--dtype", dtype]) == 0
    assert json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))["dtype"] == dtype
    file = open_tensors(tmp_path / "new")
    assert {file.info(name).dtype for name in file.names()} == {code}
    for name, array in model.params.items():
        error = np.abs(file.read(name).astype(np.float64) - array)
        assert np.all(error <= np.abs(array) * 2.0**-bits + 2.0**-25), name
    # what was narrowed stays as it is, and becomes float32 again without another loss
    assert main(["convert", str(tmp_path / "new"), str(tmp_path / "same")]) == 0
    assert main(["convert", str(tmp_path / "new"), str(tmp_path / "wide"), "--dtype", "float32"]) == 0
    same, wide = open_tensors(tmp_path / "same"), open_tensors(tmp_path / "wide")
    assert {same.info(name).dtype for name in same.names()} == {code}
    assert {wide.info(name).dtype for name in wide.names()} == {"F32"}
    for name in model.params:
        assert np.array_equal(same.read(name), file.read(name))
        assert np.array_equal(wide.read(name), file.read(name))
    for opened in (file, same, wide):
        opened.close()


def test_the_library_reads_our_bfloat16_file(model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path) -> None:
    from safetensors import safe_open

    save_as_published(model, tmp_path / "old")
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new"), "--dtype", "bfloat16"]) == 0
    with safe_open(tmp_path / "new" / "model.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(model.params)
        assert file.metadata() == {"format": "pt"}
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            assert file.get_slice(name).get_dtype() == "BF16"
            assert tuple(file.get_slice(name).get_shape()) == model.params[name].shape


def test_a_base_model_stays_one(model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path) -> None:
    base = nl.RobertaPreLayerNormModel(model.config, rng=4)
    base.save_pretrained(tmp_path / "old")
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    again = nl.RobertaPreLayerNormModel.from_pretrained(tmp_path / "new")
    assert again.params.keys() == base.params.keys()
    assert "embeddings.word_embeddings.weight" in open_tensors(tmp_path / "new").names()


def test_numbers_too_large_for_float16_are_refused(
    model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.params["lm_head.dense.bias"] = np.full(12, 1e6, np.float32)
    save_as_published(model, tmp_path / "old")
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new"), "--dtype", "float16"]) == 1
    assert "lm_head.dense.bias holds 1e+06, too large for F16" in capsys.readouterr().err
    assert not (tmp_path / "new" / "config.json").exists()
    assert not list(tmp_path.glob("new/*"))
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new"), "--dtype", "bfloat16"]) == 0


def test_an_earlier_checkpoint_is_never_overwritten(
    model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_as_published(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["convert", str(tmp_path), str(tmp_path)]) == 1
    assert "already holds config.json" in capsys.readouterr().err
    assert main(["convert", str(tmp_path), str(tmp_path / "config.json")]) == 1
    assert "is a file" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_post_ln_is_refused(
    model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "old")
    from npprelnorm.checkpoint.safetensors_file import write_safetensors

    tensors = {name.replace(".intermediate.LayerNorm", ".output.LayerNorm"): a for name, a in model.params.items()}
    tensors = {name.replace("attention.LayerNorm", "attention.output.LayerNorm"): a for name, a in tensors.items()}
    write_safetensors(tmp_path / "old" / "model.safetensors", tensors)
    assert main(["convert", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    assert "is a post-LN checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@given(st.integers(0, 0xFFFF))
def test_every_bfloat16_survives_a_round_trip(bits: int) -> None:
    pattern = np.array([bits], np.uint16)
    wide = widen_bfloat16(pattern)
    again = narrow_bfloat16(wide)
    assert np.isnan(widen_bfloat16(again))[0] if np.isnan(wide)[0] else np.array_equal(again, pattern)


@given(st.floats(width=32, allow_nan=False))
@example(3.3961775292304601e38)  # halfway between the largest bfloat16 and what would follow it: becomes infinite
@example(1.00390625)  # halfway between two: the even one
@example(1.01171875)
def test_bfloat16_is_the_nearest_and_the_even_one_of_two(value: float) -> None:
    wide = np.array([value], np.float32)
    narrow = narrow_bfloat16(wide)
    magnitude = int(narrow[0]) & 0x7FFF
    if magnitude >= 0x7F80:  # overflow happens from the halfway point on, as in IEEE 754
        assert abs(value) >= 2.0**127 * (2 - 2.0**-8)
        return
    ours = float(widen_bfloat16(narrow)[0])
    assert np.signbit(ours) == np.signbit(value)
    for step in (-1, 1):
        neighbour = magnitude + step
        if neighbour < 0 or neighbour >= 0x7F80:
            continue
        other = float(widen_bfloat16(np.array([neighbour], np.uint16))[0])
        gap, others = abs(abs(ours) - abs(value)), abs(other - abs(value))
        assert gap < others or (gap == others and magnitude % 2 == 0)
