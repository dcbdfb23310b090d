"""Traces: what they hold, where two first differ, and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import HEADS, configs, padded_ids, random_ids, random_model, required_arguments, seeds, tiny_config

import npprelnorm as nl
from npprelnorm.errors import CheckpointError, CheckpointFormatError, InputError
from npprelnorm.inspect import Trace, compare_traces, trace


def traced(head: str = "ForMaskedLM", **changes: Any) -> tuple[Any, np.ndarray, Trace]:
    config = tiny_config(**changes)
    model, ids = random_model(head, config), random_ids(config, (2, 5), 3)
    return model, ids, trace(model, **required_arguments(head, ids))


@pytest.mark.parametrize("head", HEADS)
def test_the_last_steps_are_what_the_model_returns(head: str) -> None:
    model, ids, steps = traced(head, is_decoder=head == "ForCausalLM")
    output = model(**required_arguments(head, ids), output_hidden_states=True)  # as a trace, of all rows
    assert steps.names[0] == "embeddings.word_embeddings"
    for name, step in (("logits", "logits"), ("start_logits", "start_logits"), ("last_hidden_state", "LayerNorm")):
        if name in output:
            np.testing.assert_array_equal(steps[step].value, output[name])
    if head == "Model":
        np.testing.assert_array_equal(steps["pooler"].value, output.pooler_output)


@given(st.data())
def test_the_streams_and_weights_are_those_of_the_model(data: st.DataObject) -> None:
    config = data.draw(configs(), "config")
    ids, mask = data.draw(padded_ids(config), "ids")
    model = random_model("Model", config, data.draw(seeds))
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if config.add_cross_attention:
        inputs["encoder_hidden_states"] = np.random.default_rng(0).standard_normal((len(ids), 3, config.hidden_size))
    steps = trace(model, **inputs)
    options = {"output_hidden_states": True, "output_attentions": True, "hidden_states_convention": "v4"}
    output = model(**inputs, **options)
    np.testing.assert_array_equal(steps["embeddings.LayerNorm"].value, output.hidden_states[0])
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}."
        np.testing.assert_array_equal(steps[layer + "residual"].value, output.hidden_states[index + 1])
        np.testing.assert_array_equal(steps[layer + "attention.self.weights"].value, output.attentions[index])
        if config.add_cross_attention:
            weights = steps[layer + "crossattention.self.weights"].value
            np.testing.assert_array_equal(weights, output.cross_attentions[index])


def test_each_step_follows_from_those_before_it() -> None:
    """What the cache does not hold is computed again: check those against the definitions."""
    model, _, steps = traced(num_hidden_layers=1, chunk_size_feed_forward=2)
    values = {step.name.removeprefix("encoder.layer.0."): step.value for step in steps}
    p = {name.removeprefix("roberta_prelayernorm.encoder.layer.0."): value for name, value in model.params.items()}

    def mapped(name: str, x: Any) -> Any:
        return x @ p[name + ".weight"].T + p[name + ".bias"]

    def same(name: str, expected: Any) -> None:
        np.testing.assert_allclose(values[name], expected, rtol=1e-12, atol=1e-12)

    for name in ("query", "key", "value"):
        same(f"attention.self.{name}", mapped(f"attention.self.{name}", values["attention.LayerNorm"]))
    split = values["attention.self.value"].reshape(2, 5, 3, 4)  # (B, T, H, D)
    context = np.einsum("bhts,bshd->bthd", values["attention.self.weights"], split).reshape(2, 5, 12)
    same("attention.self.context", context)
    same("attention.output.dense", mapped("attention.output.dense", context))
    same("attention.residual", values["embeddings.LayerNorm"] + values["attention.output.dense"])
    same("intermediate.dense", mapped("intermediate.dense", values["intermediate.LayerNorm"]))
    same("output.dense", mapped("output.dense", values["intermediate.activation"]))
    same("residual", values["attention.residual"] + values["output.dense"])


@given(seeds)
def test_the_first_difference_is_where_the_altered_weight_is(seed: int) -> None:
    config = tiny_config()
    model, ids = random_model("ForMaskedLM", config), random_ids(config, (2, 5), 3)
    before, summaries = trace(model, input_ids=ids), trace(model, input_ids=ids, keep=False)
    rng = np.random.default_rng(seed)
    usable = [name for name in model.params if not name.endswith("_embeddings.weight")]
    name = usable[int(rng.integers(len(usable)))]
    model.params[name] = model.params[name].copy()
    model.params[name].reshape(-1)[int(rng.integers(model.params[name].size))] += 0.5
    step = name.removeprefix("roberta_prelayernorm.").rpartition(".")[0]
    expected = "logits" if name == "lm_head.bias" else step
    after = trace(model, input_ids=ids)
    for comparison in (compare_traces(before, after), compare_traces(summaries, after)):
        assert comparison.first_difference is not None, name
        assert comparison.first_difference.name == expected
        place = [one.name for one in comparison.steps].index(expected)
        assert all(one.error == 0.0 for one in comparison.steps[:place])
        assert f"first difference at {expected}, step {place + 1} of {len(before)}" in str(comparison)


def test_the_same_forward_twice_has_no_difference() -> None:
    model, ids, steps = traced()
    comparison = compare_traces(steps, trace(model, input_ids=ids))
    assert comparison.first_difference is None
    assert str(comparison) == f"all {len(steps)} common steps agree"


def test_summaries_notice_numbers_that_traded_places() -> None:
    value = np.random.default_rng(0).standard_normal((3, 4))
    one, other = (Trace.of([("a", array)], keep=False) for array in (value, value[::-1]))
    assert (one["a"].mean, one["a"].norm) == pytest.approx((other["a"].mean, other["a"].norm))
    assert compare_traces(one, other).first_difference is not None


def test_steps_of_one_side_are_named_and_are_no_difference() -> None:
    one = Trace.of([(name, np.ones(2)) for name in ("a", "b", "c", "d", "e")])
    other = Trace.of([("e", np.ones(2)), ("f", np.ones(2))])
    comparison = compare_traces(one, other)
    assert (comparison.only_first, comparison.only_second) == (("a", "b", "c", "d"), ("f",))
    text = "all 1 common steps agree; only in the first trace: a, b, c and 1 more; only in the second trace: f"
    assert str(comparison) == text
    with pytest.raises(InputError, match="no step in common"):
        compare_traces(one, Trace.of([("g", np.ones(2))]))


def test_other_shapes_and_nan_are_differences() -> None:
    one = Trace.of([("a", np.ones((2, 3))), ("b", np.array([1.0, np.nan])), ("c", np.array([np.inf]))])
    comparison = compare_traces(one, Trace.of([("a", np.ones((3, 2)))]))
    assert comparison.first_difference is not None
    assert comparison.first_difference.note == "shape (2, 3) against (3, 2)"
    assert [step.ok for step in compare_traces(one, one).steps] == [True, False, False]


def test_tolerance() -> None:
    def differs(size: float, dtype: str, **options: Any) -> bool:
        one, other = (Trace.of([("a", np.array([100.0, value], dtype))]) for value in (1.0, 1.0 + size))
        return compare_traces(one, other, **options).first_difference is not None

    assert not differs(1e-3, "float32")
    assert differs(3e-3, "float32")  # more than 2e-5 of 100
    assert differs(1e-3, "float64")
    assert not differs(1e-3, "float64", tolerance=1e-4)


def test_a_table_for_people() -> None:
    shown = str(Trace.of([("a.long.name", np.full((2, 3), 0.5, np.float32)), ("b", np.float64(2.0))])).splitlines()
    assert shown[0].split() == ["a.long.name", "2x3", "float32", "mean", "+0.5", "norm", "1.22474"]
    assert shown[1].split() == ["b", "scalar", "float64", "mean", "+2", "norm", "2"]
    assert shown[0].index("float32") == shown[1].index("float64")


@pytest.mark.parametrize("ending", ["json", "safetensors"])
def test_files_read_back(ending: str, tmp_path: Path) -> None:
    _, _, steps = traced()
    steps.save(tmp_path / f"trace.{ending}")
    again = Trace.load(tmp_path / f"trace.{ending}")
    assert again.names == steps.names
    for one, other in zip(steps, again, strict=True):
        assert (one.shape, one.dtype, one.mean, one.norm, one.probe) == (
            other.shape, other.dtype, other.mean, other.norm, other.probe,
        )  # fmt: skip
        if ending == "safetensors":
            np.testing.assert_array_equal(one.value, other.value)
        else:
            assert other.value is None


def test_nan_survives_a_file(tmp_path: Path) -> None:
    Trace.of([("a", np.array([np.nan]))]).save(tmp_path / "trace.json")
    assert np.isnan(Trace.load(tmp_path / "trace.json")["a"].mean)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    steps = Trace.of([("a", np.ones(2))], keep=False)
    for path in ("trace.npz", "trace"):
        with pytest.raises(InputError, match=r"a trace is a \.json"):
            steps.save(tmp_path / path)
    with pytest.raises(InputError, match="did not keep"):
        steps.save(tmp_path / "trace.safetensors")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="does not exist"):
        Trace.load(tmp_path / "trace.json")
    from npprelnorm.checkpoint.safetensors_file import write_safetensors

    write_safetensors(tmp_path / "weights.safetensors", {"a": np.ones(2)})
    with pytest.raises(CheckpointFormatError, match="is no trace"):
        Trace.load(tmp_path / "weights.safetensors")


GOOD = {"name": "a", "shape": [2], "dtype": "float32", "mean": 0.5, "norm": 1.0, "probe": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "other", "steps": []}, "is no trace: its format is 'other'"),
        ({"format": "npprelnorm-trace-1", "steps": {}}, "is no trace"),
        ({"format": "npprelnorm-trace-1", "steps": [GOOD, 3]}, "step 1 is not"),
        ({"format": "npprelnorm-trace-1", "steps": [GOOD | {"shape": [-1]}]}, "step 0 is not"),
        ({"format": "npprelnorm-trace-1", "steps": [GOOD | {"shape": [True]}]}, "step 0 is not"),
        ({"format": "npprelnorm-trace-1", "steps": [GOOD | {"mean": "0"}]}, "step 0 is not"),
        ({"format": "npprelnorm-trace-1", "steps": [GOOD | {"name": None}]}, "step 0 is not"),
        ({"format": "npprelnorm-trace-1", "steps": [GOOD, GOOD]}, "same name"),
    ],
)
def test_damaged_json_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointFormatError, match=message):
        Trace.load(path)


def test_numbers_of_another_shape_than_their_summary_are_refused(tmp_path: Path) -> None:
    from npprelnorm.checkpoint.safetensors_file import write_safetensors

    summary = {"format": "npprelnorm-trace-1", "steps": [GOOD]}
    for values in ({"a": np.ones(3)}, {"b": np.ones(2)}):
        write_safetensors(tmp_path / "t.safetensors", values, {"trace": json.dumps(summary)})
        with pytest.raises(CheckpointFormatError, match="missing or of another shape"):
            Trace.load(tmp_path / "t.safetensors")


def test_what_cannot_be_traced_says_why() -> None:
    model, ids, steps = traced()
    with pytest.raises(InputError, match="model is a str"):
        trace("a model", input_ids=ids)
    with pytest.raises(InputError, match="no step 'z'"):
        steps["z"]
    with pytest.raises(InputError, match="'a' comes twice"):
        Trace.of([("a", np.ones(1)), ("a", np.ones(1))])
    for value, message in (("b", "'a' has dtype <U1"), ([[1.0], [1.0, 2.0]], "rows of different lengths")):
        with pytest.raises(InputError, match=message):
            Trace.of([("a", value)])  # type: ignore[list-item]
    with pytest.raises(InputError, match="one of the two is a int"):
        compare_traces(steps, 3)  # type: ignore[arg-type]
    assert compare_traces(steps, steps, tolerance=np.float32(1e-5)).first_difference is None
    for tolerance in (-1e-5, float("nan"), "1e-5"):
        with pytest.raises(InputError, match=r"tolerance is .*; it must be a number from 0"):
            compare_traces(steps, steps, tolerance=tolerance)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="exactly one of input_ids"):
        trace(model)


def test_tracing_changes_nothing() -> None:
    model, ids, _ = traced()
    before = {name: value.copy() for name, value in model.params.items()}
    config = nl.RobertaPreLayerNormConfig.from_dict(model.config.to_dict())
    trace(model, input_ids=ids)
    assert model.config == config
    for name, value in before.items():
        np.testing.assert_array_equal(model.params[name], value)
