"""Our gradients against those that torch's autograd wrote into tests/golden: every class and option, inputs included.

Here are also the options that only 4.56.2 has, and that the live comparison therefore lacks: relative positions, head
masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden_files import VERSIONS, GoldenCase, load

import npprelnorm as nl

CASES = [pytest.param(case, id=f"{version}-{case}") for version in VERSIONS for case in load(version) if case.gradients]
TOLERANCE = 1e-10  # of the norm of each gradient, in float64; measured: 7e-15 at most


def gradients(case: GoldenCase, **options: Any) -> dict[str, np.ndarray]:
    model = getattr(nl, case.class_name).from_params(
        nl.RobertaPreLayerNormConfig(**case.config), case.params, dtype="float64"
    )
    arguments = case.calls[-1].arguments | options | {"input_grads": case.input_gradients.keys()}
    if case.cotangents:
        return model.vjp(case.cotangents, **arguments)[1]
    return model.loss_and_grads(**arguments)[1]


def scale(case: GoldenCase, name: str) -> float:
    """The norm that a gradient's error is measured by: its own, unless its true value is 0.

    A softmax ignores what all its scores share: the key bias of a query, the bias of all choices, of all tokens.
    """
    assert case.gradients is not None
    if name.endswith("self.key.bias"):
        name = name.replace("key.bias", "query.bias")
    elif name == "classifier.bias" and case.class_name.endswith("MultipleChoice"):
        name = "classifier.weight"
    elif "Question" in case.class_name and name in ("qa_outputs.bias", "roberta_prelayernorm.LayerNorm.bias"):
        name = name.replace("bias", "weight")
    return float(np.linalg.norm(case.gradients[name]))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_gradient(case: GoldenCase, recompute: bool) -> None:
    assert case.gradients is not None
    ours = gradients(case, recompute=recompute)
    assert ours.keys() == case.gradients.keys() | case.input_gradients.keys()
    for name, theirs in case.gradients.items():
        assert ours[name].shape == theirs.shape, name
        assert np.linalg.norm(ours[name] - theirs) <= TOLERANCE * scale(case, name), name
    for name, theirs in case.input_gradients.items():
        value = ours[name].sum(axis=0) if theirs.ndim < ours[name].ndim else ours[name]  # one head mask for all layers
        assert value.shape == theirs.shape, name
        assert np.linalg.norm(value - theirs) <= TOLERANCE * np.linalg.norm(theirs), name


def test_the_files_cover_every_class_and_option() -> None:
    """Or the test above would pass with nothing in it."""
    cases = [param.values[0] for param in CASES]
    assert len({case.class_name for case in cases}) == 7
    for key, values in {
        "hidden_act": {"gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh"},
        "position_embedding_type": {"relative_key", "relative_key_query"},
        "is_decoder": {True},
        "add_cross_attention": {True},
        "tie_word_embeddings": {False},
        "chunk_size_feed_forward": {3},
    }.items():
        assert values <= {case.config.get(key) for case in cases}, key
    assert {case.problem_type for case in cases} == {
        None, "regression", "single_label_classification", "multi_label_classification"
    }  # fmt: skip
    arguments = {name for case in cases for name in case.calls[-1].arguments}
    assert {"num_items_in_batch", "shift_labels", "logits_to_keep", "encoder_attention_mask", "head_mask"} <= arguments
    assert {name for case in cases for name in case.input_gradients} == {
        "inputs_embeds", "encoder_hidden_states", "head_mask"
    }  # fmt: skip
    relative = [case for case in cases if case.config.get("position_embedding_type")]
    assert {"head_mask", "encoder_hidden_states"} <= {name for case in relative for name in case.input_gradients}
