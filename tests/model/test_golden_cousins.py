"""The post-LN classes against the numbers and gradients that transformers 4.56.2 and 5.2.0 wrote into tests/golden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden_files import VERSIONS, GoldenCase, assert_close, load, stacked_results

import npprelnorm as nl

CASES = [
    pytest.param(version, case, id=f"{version}-{case}") for version in VERSIONS for case in load(version, "cousins")
]
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def build(case: GoldenCase, dtype: str) -> Any:
    cls = getattr(nl, case.class_name)
    return cls.from_params(cls.config_class(**case.config), case.params, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("version", "case"), CASES)
def test_all_outputs(version: str, case: GoldenCase, dtype: str) -> None:
    convention = "v4" if version.startswith("4.") else "v5"
    (call,) = case.calls
    output = build(case, dtype)(
        **call.arguments, output_attentions=True, output_hidden_states=True, hidden_states_convention=convention
    )
    results = stacked_results(output)
    assert results.keys() == call.results.keys()
    for name, theirs in call.results.items():
        assert results[name].dtype == dtype, name
        # transformers computes a causal loss in float32
        coarse = name == "loss" and "ForCausalLM" in case.name
        assert_close(results[name], theirs, max(TOLERANCE[dtype], 1e-6 if coarse else 0.0), name)
    assert list(output.keys()) == call.outputs


@pytest.mark.parametrize(("version", "case"), [p for p in CASES if p.values[1].gradients])
def test_every_gradient(version: str, case: GoldenCase) -> None:
    assert case.gradients is not None
    model, arguments = build(case, "float64"), case.calls[0].arguments | {"input_grads": case.input_gradients.keys()}
    if case.cotangents:
        ours = model.vjp(case.cotangents, **arguments)[1]
    else:
        ours = model.loss_and_grads(**arguments)[1]
    assert ours.keys() == case.gradients.keys() | case.input_gradients.keys()
    whole = np.sqrt(sum(float(np.square(value).sum()) for value in case.gradients.values()))
    for name, theirs in (case.gradients | case.input_gradients).items():
        assert ours[name].shape == theirs.shape, name
        assert np.linalg.norm(ours[name] - theirs) <= 1e-12 * whole, name


def test_every_class_is_there() -> None:
    made = {case.class_name for case in load("4.56.2", "cousins")}
    classes = {name for name in nl.__all__ if name.startswith(("Roberta", "XLMRoberta", "Camembert", "Bert"))}
    assert made == {name for name in classes if "PreLayerNorm" not in name and not name.endswith("Config")}
    with_gradients = {case.class_name for case in load("5.2.0", "cousins") if case.gradients}
    assert with_gradients == {name for name in made if name.startswith(("Roberta", "Bert"))}
