"""Whole models whose weights are stored in fewer bits: bounds, gradients, saving, falling back, and the commands."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_calls import ABLE, UNIT, needs_int12, random
from strategies import tiny_config

import npprelnorm as nl
from npprelnorm import backend, verify
from npprelnorm.commands import main
from npprelnorm.errors import BackendWarning, InputError
from npprelnorm.kernels import weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers of real width."""
    folder = tmp_path_factory.mktemp("reduced")
    config = tiny_config(
        hidden_size=128, num_attention_heads=2, intermediate_size=512, num_hidden_layers=2, vocab_size=500,
        max_position_embeddings=60,
    )  # fmt: skip
    config.is_decoder = False
    nl.RobertaPreLayerNormForMaskedLM(config, rng=3).save_pretrained(folder)
    return folder


IDS = [[0, 5, 6, 17, 41, 2], [0, 9, 333, 2, 1, 1]]
WHOLE = [IDS[0], [0, 9, 333, 77, 8, 2]]
MASK = [[1] * 6, [1] * 4 + [0] * 2]


def rms_error(y: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((y - truth) ** 2) / np.mean(truth**2)))


@pytest.mark.parametrize("weight_dtype", ABLE)
def test_a_whole_model(folder: Path, weight_dtype: str) -> None:
    exact_model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype=weight_dtype)
    assert model.weight_dtype == weight_dtype
    assert f"float32, {weight_dtype} weights)" in repr(model)
    assert model.num_parameters() == exact_model.num_parameters()
    with nl.use_backend("numba"):
        truth, out = exact_model(IDS, MASK), model(IDS, MASK)
        # float32 of the same checkpoint is not touched by what another model stores
        np.testing.assert_array_equal(exact_model(IDS, MASK).logits, truth.logits)
        bound = {"float16": 5e-4, "bfloat16": 4e-3, "int12": 1e-3}[weight_dtype]
        assert 1e-6 < rms_error(out.logits, truth.logits) < bound
        for count in (1, 3):
            nl.set_threads(count)
            np.testing.assert_array_equal(model(IDS, MASK).logits, out.logits)
        nl.set_threads(None)
        # layer by layer in NumPy with stored products, where hidden states are asked for
        whole_out = model(IDS, MASK, output_hidden_states=True)
        assert rms_error(whole_out.logits, out.logits) < bound
        assert rms_error(whole_out.logits, truth.logits) < bound
        assert not np.array_equal(
            whole_out.hidden_states[-1], exact_model(IDS, MASK, output_hidden_states=True).hidden_states[-1]
        )


@pytest.mark.parametrize("weight_dtype", ABLE)
def test_gradients_and_saving_are_of_the_float32_parameters(folder: Path, tmp_path: Path, weight_dtype: str) -> None:
    exact_model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype=weight_dtype)
    with nl.use_backend("numba"):
        model(WHOLE)
        out, grads = model.loss_and_grads(input_ids=WHOLE, labels=WHOLE, recompute=True)
        expected, expected_grads = exact_model.loss_and_grads(input_ids=WHOLE, labels=WHOLE, recompute=True)
    assert out.loss == expected.loss
    for name, value in expected_grads.items():
        np.testing.assert_array_equal(grads[name], value)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "weight_dtype" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("weight_dtype", ABLE)
def test_the_packed_model_is_half_as_large(folder: Path, weight_dtype: str) -> None:
    sizes = []
    for stored in ("float32", weight_dtype):
        before = weights.packed_bytes()
        model = nl.RobertaPreLayerNormModel.from_pretrained(folder, weight_dtype=stored)
        with nl.use_backend("numba"):
            model.base(WHOLE)
        assert all(not array.flags.writeable for array in model.params.values())
        sizes.append(weights.packed_bytes() - before)
        del model
    assert 0.5 <= sizes[1] / sizes[0] < 0.52


def test_auto_takes_the_kernels_at_once(folder: Path) -> None:
    with nl.use_backend("auto"):
        model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype="bfloat16")
        logits = model(WHOLE).logits
    with nl.use_backend("numba"):
        np.testing.assert_array_equal(model(WHOLE).logits, logits)


def test_numpy_falls_back_with_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_fallen_back", set())
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype="int12")
    expected = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)
    with nl.use_backend("numpy"):
        with pytest.warns(BackendWarning, match="'int12' is not used, since the backend is 'numpy'") as caught:
            logits = model(WHOLE).logits
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(model(WHOLE).logits, logits)
        np.testing.assert_array_equal(expected(WHOLE).logits, logits)


def test_a_processor_without_the_instruction_falls_back_to_float32(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_fallen_back", set())
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype="int12")
    with nl.use_backend("numba"):
        kernels = backend.load_kernels()
        monkeypatch.setattr(kernels, "supported", lambda: frozenset({"float32", "bfloat16"}))
        with pytest.warns(BackendWarning, match="lacks the instruction: weights stay float32; here there are 'bfl"):
            logits = model(WHOLE).logits
        expected = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)(WHOLE).logits
    np.testing.assert_array_equal(logits, expected)


def test_broken_numba_falls_back_to_numpy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_fallen_back", set())
    monkeypatch.setattr(backend, "_kernels", None)
    monkeypatch.setattr(backend, "_failed", True)
    monkeypatch.setattr(backend, "_twins", None)  # which an earlier test may have loaded
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype="bfloat16")
    with nl.use_backend("auto"), pytest.warns(BackendWarning, match="kernels cannot be used: weights stay") as caught:
        logits = model(WHOLE).logits
    assert len(caught) == 1
    np.testing.assert_array_equal(logits, nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)(WHOLE).logits)


def test_float64_says_so_at_once(folder: Path) -> None:
    with pytest.warns(BackendWarning, match="since dtype is 'float64': weights stay float64"):
        model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype="float64", weight_dtype="float16")
    assert model.weight_dtype == "float32"
    expected = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype="float64")
    np.testing.assert_array_equal(model(WHOLE).logits, expected(WHOLE).logits)


@pytest.mark.parametrize("value", ["int8", "FLOAT16", None, 16, ["int12"]])
def test_unknown_weight_dtypes_are_refused(folder: Path, value: Any) -> None:
    with pytest.raises(InputError, match="allowed: 'float32', 'float16', 'bfloat16', 'int12'"):
        nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype=value)


@needs_int12
def test_generation_with_a_cache(folder: Path) -> None:
    config = nl.RobertaPreLayerNormConfig.from_pretrained(folder, is_decoder=True)
    model = nl.RobertaPreLayerNormForCausalLM.from_pretrained(folder, config=config, weight_dtype="int12")
    with nl.use_backend("numba"):
        whole_logits = model(WHOLE, use_cache=False).logits
        first = model([row[:4] for row in WHOLE], use_cache=True)
        rest = model([row[4:] for row in WHOLE], past_key_values=first.past_key_values)
    # the rows that are rounded are the same, and so are their products; the attention sums in another order, and a
    # number at a tie may be rounded the other way
    np.testing.assert_allclose(rest.logits, whole_logits[:, 4:], rtol=0, atol=2e-3)


def test_top_tokens_are_those_of_the_stored_weights(folder: Path) -> None:
    with nl.use_backend("numba"):
        exact, model = (
            nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, weight_dtype=weight_dtype)
            for weight_dtype in ("float32", "bfloat16")
        )
        hidden = random(0, 3, model.config.hidden_size)
        found, logits = model.top_tokens(hidden, 4), model.lm_head(hidden)
        assert not np.array_equal(found.logits, exact.top_tokens(hidden, 4).logits)
    np.testing.assert_array_equal(found.ids, np.argsort(-logits, axis=1, kind="stable")[:, :4])
    np.testing.assert_array_equal(found.logits, np.take_along_axis(logits, found.ids, axis=1))


@pytest.mark.parametrize("command", [["verify"], ["verify", "--json"]])
def test_verify_reports_what_fewer_bits_change(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "transformers_is_installed", lambda: False)
    with nl.use_backend("numba"):
        assert main(command) == 0
    out = capsys.readouterr().out
    bounds = {"float16": 5e-4, "bfloat16": 4e-3, "int12": 1e-3}
    if command[-1] == "--json":
        rows = json.loads(out)["weight_dtypes"]
        assert [(row["weight_dtype"], row["name"]) for row in rows] == [
            (weight_dtype, name)
            for weight_dtype in bounds
            if weight_dtype in ABLE
            for name in ("hidden states", "logits")
        ]
        for row in rows:
            assert row["rms"] < bounds[row["weight_dtype"]]
            # the embedded model's file holds float16 numbers, to which rounding to float16 does nothing; but the head's
            # products (of 128 numbers) are added up in another order where they are of packed weights
            if row["weight_dtype"] == "float16":
                assert row["rms"] <= (0.0 if row["name"] == "hidden states" else 2.0 * UNIT * 128**0.5)
            else:
                assert min(row["largest"], row["rms"]) > 1e-4
    else:
        assert "weights in fewer bits against float32" in out
        assert all(weight_dtype in out for weight_dtype in ABLE)


def test_verify_leaves_it_out_without_kernels(folder: Path) -> None:
    with nl.use_backend("numpy"):
        assert verify.compare_weight_dtypes(folder) == []


def test_commands_and_pipelines_hand_the_weight_dtype_on(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {}
    with nl.use_backend("numba"):
        for weight_dtype in ("float32", "bfloat16"):
            assert main(["fill-mask", "The grass is <mask>.", "--json", "--weight-dtype", weight_dtype]) == 0
            scores[weight_dtype] = json.loads(capsys.readouterr().out)["masks"][0][0]["score"]
        assert main(["embed", "The grass is green.", "--weight-dtype", "bfloat16"]) == 0
    assert scores["float32"] != scores["bfloat16"]
    assert scores["float32"] == pytest.approx(scores["bfloat16"], abs=0.02)
    assert nl.pipeline("fill-mask", weight_dtype="bfloat16").model.weight_dtype == "bfloat16"


@needs_int12
def test_pairs_hand_it_to_both_parts(tmp_path: Path) -> None:
    config = nl.EncoderDecoderConfig(
        encoder=tiny_config(hidden_size=48),
        decoder=tiny_config(hidden_size=48, is_decoder=True, add_cross_attention=True),
    )
    nl.EncoderDecoderModel(config, rng=5).save_pretrained(tmp_path)
    pair = nl.EncoderDecoderModel.from_pretrained(tmp_path, weight_dtype="int12")
    assert (pair.encoder.weight_dtype, pair.decoder.weight_dtype) == ("int12", "int12")
    exact_pair = nl.EncoderDecoderModel.from_pretrained(tmp_path)
    ids = [[5, 6, 7, 2]]
    with nl.use_backend("numba"):
        logits = pair(input_ids=ids, decoder_input_ids=ids).logits
        truth = exact_pair(input_ids=ids, decoder_input_ids=ids).logits
    assert 1e-6 < rms_error(logits, truth) < 2e-3
