"""Every class and option against the numbers that transformers 4.56.2 and 5.2.0 wrote into tests/golden."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from golden_files import VERSIONS, GoldenCase, assert_close, load, stacked_results

import npprelnorm as nl
from npprelnorm.errors import InputWarning

CASES = [pytest.param(version, case, id=f"{version}-{case}") for version in VERSIONS for case in load(version)]
# largest error against transformers' float64 numbers; times max(1, the largest of them)
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
# calls that are legal, but of which our model says that they were probably not meant
WARNS = {
    "model/padding-unmasked": "attention_mask",
    "decoder/unmasked": "attention_mask",
    "causal/as-encoder": "is_decoder",
    "masked/all-ignored": "label",
    "causal/all-ignored": "label",
    "token/all-ignored": "label",
    "question/all-ignored": "position",
}


# A later call counts the padding in the cache as positions, in transformers and here: in steps is not as at once.
STEPS_DIFFER = {"cache/padding-left"}
# A row that sees nothing does not depend on its scores: they vanish in the mask's huge number. Autograd does not know
# of rounding and gives them a gradient all the same, which is then not the slope.
NOT_THE_SLOPE = {"causal/padding-left"}


def build(case: GoldenCase, dtype: str) -> Any:
    config = nl.RobertaPreLayerNormConfig(**case.config)
    return getattr(nl, case.class_name).from_params(config, case.params, dtype=dtype)


def run(case: GoldenCase, version: str, model: Any) -> list[Any]:
    """The outputs of all calls of a case."""
    outputs: list[Any] = []
    for call in case.calls:
        arguments = dict(call.arguments)
        if case.keep_cache and outputs:
            arguments["past_key_values"] = outputs[-1].past_key_values
        warns = pytest.warns(InputWarning, match=WARNS[case.name]) if case.name in WARNS else contextlib.nullcontext()
        with warns:
            outputs.append(
                model(
                    **arguments,
                    output_attentions=True,
                    output_hidden_states=True,
                    hidden_states_convention="v4" if version.startswith("4.") else "v5",
                )
            )
    return outputs


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("version", "case"), CASES)
def test_all_outputs(version: str, case: GoldenCase, dtype: str) -> None:
    model = build(case, dtype)
    for number, (output, call) in enumerate(zip(run(case, version, model), case.calls, strict=True)):
        results = stacked_results(output)
        assert results.keys() == call.results.keys()
        for name, theirs in call.results.items():
            assert results[name].dtype == dtype, name
            tolerance = TOLERANCE[dtype]
            if name == "loss" and case.class_name.endswith("CausalLM"):
                tolerance = max(tolerance, 1e-6)  # transformers computes this one in float32
            assert_close(results[name], theirs, tolerance, f"call {number}, {name}")


@pytest.mark.parametrize(("version", "case"), CASES)
def test_names_and_shapes_of_the_parameters(version: str, case: GoldenCase) -> None:
    config = nl.RobertaPreLayerNormConfig(**case.config)
    fresh = getattr(nl, case.class_name)(config, **case.construct)
    expected = {name: value.shape for name, value in case.params.items()}
    assert {name: value.shape for name, value in fresh.params.items()} == expected
    assert fresh.num_parameters() == sum(value.size for value in case.params.values())


@pytest.mark.parametrize(("version", "case"), CASES)
def test_names_and_order_of_the_outputs(version: str, case: GoldenCase) -> None:
    for output, call in zip(run(case, version, build(case, "float64")), case.calls, strict=True):
        assert list(output.keys()) == call.outputs
        assert len(output) == len(output.to_tuple()) == len(call.outputs)
        for index, name in enumerate(call.outputs):
            assert output[index] is output[name] is getattr(output, name) is output.to_tuple()[index]


@pytest.mark.parametrize(("version", "case"), [p for p in CASES if p.values[1].problem_type])
def test_problem_type_is_found_out_and_kept(version: str, case: GoldenCase) -> None:
    model = build(case, "float64")
    run(case, version, model)
    assert model.config.problem_type == case.problem_type


@pytest.mark.parametrize(
    ("version", "case"), [p for p in CASES if p.values[1].keep_cache and p.values[1].name not in STEPS_DIFFER]
)
def test_the_cache_changes_nothing(version: str, case: GoldenCase) -> None:
    """One call with all tokens gives the hidden states of the calls one after the other."""
    model = build(case, "float64")
    by_steps = np.concatenate([output.hidden_states[-1] for output in run(case, version, model)], axis=1)
    whole = dict(case.calls[-1].arguments)  # its masks are already those of the whole
    whole.pop("logits_to_keep", None)
    for name in ("input_ids", "inputs_embeds", "position_ids"):
        if name in whole:
            whole[name] = np.concatenate([call.arguments[name] for call in case.calls], axis=1)
    output = model(
        **whole,
        output_hidden_states=True,
        hidden_states_convention="v4" if version.startswith("4.") else "v5",
    )
    if "attention_mask" in whole:  # what a padding token sees differs: in the whole, also the later ones
        seen = np.asarray(whole["attention_mask"], bool)
        assert_close(output.hidden_states[-1][seen], by_steps[seen], 1e-12, "hidden states")
    else:
        assert_close(output.hidden_states[-1], by_steps, 1e-12, "hidden states")


@pytest.mark.parametrize(
    ("version", "case"), [p for p in CASES if p.values[1].gradients and p.values[1].name not in NOT_THE_SLOPE]
)
def test_gradients_are_the_slope_of_our_loss(version: str, case: GoldenCase) -> None:
    """The stored gradients, by torch's autograd, against a central difference of our forward in a random direction."""
    assert case.gradients is not None
    assert case.gradients.keys() == case.params.keys()
    pad = case.config.get("pad_token_id", 1)
    rng = np.random.default_rng(0)
    directions = {name: rng.standard_normal(value.shape) for name, value in case.params.items()}
    for name, direction in directions.items():
        # torch leaves the padding row out of both lookups, so its gradient there is not the slope
        if name.endswith(("word_embeddings.weight", "position_embeddings.weight")):
            direction[pad] = 0.0
        if name.endswith("position_embeddings.weight"):
            assert not case.gradients[name][pad].any()

    def loss(step: float) -> float:
        moved = {name: value + step * directions[name] for name, value in case.params.items()}
        config = nl.RobertaPreLayerNormConfig(**case.config)
        model = getattr(nl, case.class_name).from_params(config, moved, dtype="float64")
        output = run(case, version, model)[-1]
        if case.cotangents:
            return float(sum((output[name] * cotangent).sum() for name, cotangent in case.cotangents.items()))
        return float(output.loss)

    h = 1e-6
    numeric = (loss(h) - loss(-h)) / (2 * h)
    exact = sum(float((case.gradients[name] * directions[name]).sum()) for name in directions)
    norm = np.sqrt(sum(float(np.square(gradient).sum()) for gradient in case.gradients.values()))
    assert abs(numeric - exact) <= 1e-6 * norm
