"""What the options of the backward promise: recomputing and freezing change no bit of what is left; errors say why."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from gradcheck import CROSS, DROPOUT, HEAD_MASK, gradients_of, model_and_inputs
from strategies import HEADS

from npprelnorm import body, gradients, layers
from npprelnorm.errors import InputError
from npprelnorm.gradients import INPUT_GRADIENTS


@pytest.mark.parametrize("head", HEADS)
def test_recomputing_changes_no_bit(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = body._run_layer
    monkeypatch.setattr(body, "_run_layer", lambda *arguments: runs.append(1) or run(*arguments))
    for config in (DROPOUT, DROPOUT | CROSS | {"chunk_size_feed_forward": 4}):
        model, inputs = model_and_inputs(head, num_hidden_layers=3, **config)
        inputs |= {"head_mask": np.random.default_rng(0).random((3, 3))}
        wanted = ["inputs_embeds", *(name for name in INPUT_GRADIENTS if name in inputs)]
        runs.clear()
        plain = gradients_of(model, inputs, rng=4, input_grads=wanted)
        assert len(runs) == 3
        again = gradients_of(model, inputs, rng=4, input_grads=wanted, recompute=True)
        assert len(runs) == 3 + 6, "each layer runs forward once more"
        assert plain.keys() == again.keys()
        for name, value in plain.items():
            assert np.array_equal(again[name], value), name


class Counter:
    """Counts the calls of functions, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, int] = {}
        for module, name in (
            (body, "_run_layer"), (body, "layer_backward"), (body, "embeddings_backward"),
            (layers, "packed_attention_backward"), (layers, "embedding_backward"),
            (gradients, "layer_norm_backward"), (gradients, "linear_backward_weight"), (gradients, "sum_rows"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, self.counting(name, getattr(module, name)))

    def counting(self, name: str, f: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return f(*arguments, **options)

        return counted


P = "roberta_prelayernorm."
FROZEN: dict[str, tuple[list[str], dict[str, int]]] = {
    "nothing": ([], {"layer_backward": 3, "embeddings_backward": 1, "embedding_backward": 3}),
    "the body": ([P + "*"], {}),
    "all below the last layer": (
        [P + "embeddings.*", P + "encoder.layer.[01].*"], {"layer_backward": 1, "packed_attention_backward": 1}
    ),
    "all but the final LayerNorm": ([P + "e*"], {"layer_norm_backward": 1}),
    "the embeddings": ([P + "embeddings.*"], {"layer_backward": 3}),
    "a table": (
        [P + "embeddings.word_embeddings.weight"],
        {"layer_backward": 3, "embeddings_backward": 1, "embedding_backward": 2},
    ),
    "all but biases": (["*.weight"], {"layer_backward": 3, "embeddings_backward": 1}),
    "every other layer": (
        [P + "encoder.layer.1.*"], {"layer_backward": 3, "embeddings_backward": 1, "embedding_backward": 3}
    ),
    "the head": (["classifier*"], {"layer_backward": 3, "embeddings_backward": 1, "embedding_backward": 3}),
}  # fmt: skip


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", FROZEN)
def test_what_is_frozen_is_not_computed_and_the_rest_is_the_same(
    name: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns, expected = FROZEN[name]
    model, inputs = model_and_inputs("ForSequenceClassification", num_hidden_layers=3, **DROPOUT)
    whole = gradients_of(model, inputs, rng=1)
    counter = Counter(monkeypatch)
    ours = gradients_of(model, inputs, rng=1, frozen=patterns, recompute=recompute)
    regexes = [re.compile(pattern.replace(".", r"\.").replace("*", ".*") + r"\Z") for pattern in patterns]
    assert ours.keys() == {name for name in whole if not any(regex.match(name) for regex in regexes)}
    assert 0 < len(ours)
    for key, value in ours.items():
        assert np.array_equal(value, whole[key]), key
    for function in ("layer_backward", "embeddings_backward", "embedding_backward"):
        assert counter.calls.get(function, 0) == expected.get(function, 0), function
    assert counter.calls.get("packed_attention_backward", 0) == expected.get("layer_backward", 0)
    if "layer_norm_backward" in expected or not expected:
        assert counter.calls.get("layer_norm_backward", 0) == expected.get("layer_norm_backward", 0)
    assert counter.calls["_run_layer"] == 3 + recompute * expected.get("layer_backward", 0)
    linear = {key for key in ours if not key.rpartition(".")[0].lower().endswith(("norm", "embeddings"))}
    for function, ending in (("linear_backward_weight", "weight"), ("sum_rows", "bias")):
        assert counter.calls.get(function, 0) == len([key for key in linear if key.endswith(ending)]), function


def test_all_frozen_but_an_input() -> None:
    model, inputs = model_and_inputs("ForCausalLM", **CROSS)
    inputs |= HEAD_MASK
    whole = gradients_of(model, inputs, input_grads=INPUT_GRADIENTS)
    for name in INPUT_GRADIENTS:
        ours = gradients_of(model, inputs, frozen=["*"], input_grads=[name])
        assert ours.keys() == {name}
        assert np.array_equal(ours[name], whole[name])


@pytest.mark.parametrize("head", HEADS)
def test_asking_for_the_gradients_of_inputs_changes_nothing(head: str) -> None:
    """Where nobody asks, less is computed: what is left must be the same."""
    model, inputs = model_and_inputs(head, **CROSS)
    inputs |= HEAD_MASK
    asked, plain = (gradients_of(model, inputs, input_grads=names) for names in (INPUT_GRADIENTS, ()))
    assert asked.keys() - plain.keys() == set(INPUT_GRADIENTS)
    for name, value in plain.items():
        assert np.array_equal(asked[name], value), name


def test_a_layer_gives_its_memory_back_as_soon_as_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = model_and_inputs("ForMaskedLM", num_hidden_layers=4)
    left = []
    run = body.body_backward

    def watch(dlast: Any, cache: Any, *rest: Any) -> None:
        def one(*arguments: Any) -> Any:
            left.append(len(cache.layers))
            return layer_backward(*arguments)

        layer_backward = body.layer_backward
        monkeypatch.setattr(body, "layer_backward", one)
        run(dlast, cache, *rest)

    monkeypatch.setattr("npprelnorm.model.body_backward", watch)
    model.loss_and_grads(**inputs)
    assert left == [3, 2, 1, 0]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": None}, "there is no loss without labels"),
        ({"input_grads": ["input_ids"]}, "input_grads holds 'input_ids'; allowed: inputs_embeds, encoder_hidden"),
        ({"input_grads": "inputs_embeds"}, r"the string 'inputs_embeds'; give a collection .* \['inputs_embeds'\]"),
        ({"input_grads": ["head_mask"]}, "input_grads holds 'head_mask', but this call uses no head_mask"),
        ({"frozen": ["*.layer.7.*"]}, r"frozen holds '\*\.layer\.7\.\*', which matches no parameter"),
        ({"frozen": "lm_head.*"}, r"frozen is the string 'lm_head\.\*'"),
        ({"past_key_values": [(np.ones((2, 3, 1, 4)),) * 2] * 2}, "past_key_values is given, but gradients"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    model, inputs = model_and_inputs("ForCausalLM")
    given = {name: value for name, value in (inputs | options).items() if value is not None}
    with pytest.raises(InputError, match=message):
        model.loss_and_grads(**given)


@pytest.mark.parametrize(
    ("cotangents", "message"),
    [
        (None, "cotangents is None; give a dict of arrays by field of the output: loss, logits"),
        (1.0, "cotangents is of type float; give a dict"),
        (lambda output: [output.logits], "cotangents is of type list; give a dict"),
        ({"hidden_states": 1.0}, "cotangents holds 'hidden_states'; allowed for this output: loss, logits"),
        ({"logits": np.ones((1, 2))}, r"cotangent of logits has shape \(1, 2\); it must have .* \(2, 6, 19\)"),
        ({"logits": "ones"}, "the cotangent of logits has dtype <U4; give floats"),
        ({"logits": [[1.0], [1.0, 2.0]]}, "the cotangent of logits has rows of different lengths"),
        ({"logits": None}, "the cotangent of logits is not an array of numbers"),
    ],
)
def test_errors_of_cotangents(cotangents: Any, message: str) -> None:
    model, inputs = model_and_inputs("ForMaskedLM")
    with pytest.raises(InputError, match=message):
        model.vjp(cotangents, **inputs)


FIELDS = {"Model": "last_hidden_state, pooler_output", "ForQuestionAnswering": "loss, start_logits, end_logits"}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("nothing", [{}, lambda output: {}], ids=["mapping", "function"])
def test_nothing_to_go_back_from_is_an_error_of_every_class(head: str, nothing: Any) -> None:
    model, inputs = model_and_inputs(head)
    fields = FIELDS.get(head, "loss, logits")
    message = f"^cotangents is empty; give an array for at least one field of the output: {fields}$"
    with pytest.raises(InputError, match=message):
        model.vjp(nothing, **inputs)
