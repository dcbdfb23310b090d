"""Results by attribute, key, integer, slice and as a tuple; what is None is not there; the order of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from strategies import HEADS, random_ids, random_model, required_arguments, tiny_config

from npprelnorm.outputs import BaseModelOutput, MaskedLMOutput

# of the plain tuple that transformers 4.56.2 and 5.2.0 return, when everything is asked for
ORDER = {
    "Model": [
        "last_hidden_state",
        "pooler_output",
        "past_key_values",
        "hidden_states",
        "attentions",
        "cross_attentions",
    ],
    "ForMaskedLM": ["loss", "logits", "hidden_states", "attentions"],
    "ForCausalLM": ["loss", "logits", "hidden_states", "attentions", "cross_attentions"],  # labels: no cache
    "ForSequenceClassification": ["loss", "logits", "hidden_states", "attentions"],
    "ForMultipleChoice": ["loss", "logits", "hidden_states", "attentions"],
    "ForTokenClassification": ["loss", "logits", "hidden_states", "attentions"],
    "ForQuestionAnswering": ["loss", "start_logits", "end_logits", "hidden_states", "attentions"],
}
LABELS: dict[str, dict[str, Any]] = {
    "Model": {},
    "ForMaskedLM": {"labels": [[1, 2, 3]]},
    "ForCausalLM": {"labels": [[1, 2, 3]]},
    "ForSequenceClassification": {"labels": [1]},
    "ForMultipleChoice": {"labels": [0]},
    "ForTokenClassification": {"labels": [[0, 1, -100]]},
    "ForQuestionAnswering": {"start_positions": [0], "end_positions": [2]},
}


def call(head: str, **more: Any) -> Any:
    decoder = head in ("Model", "ForCausalLM")
    config = tiny_config(is_decoder=decoder, add_cross_attention=decoder)
    model = random_model(head, config)
    arguments = required_arguments(head, random_ids(config, (1, 3), 0))
    if decoder:
        arguments["encoder_hidden_states"] = np.ones((1, 2, 12))
    return model(**arguments, **more)


@pytest.mark.parametrize("head", HEADS)
def test_order_and_all_ways_to_reach_a_field(head: str) -> None:
    output = call(head, output_attentions=True, output_hidden_states=True, **LABELS[head])
    names = ORDER[head]
    values = output.to_tuple()
    assert list(output) == output.keys() == names
    assert len(output) == len(values) == len(names)
    for index, name in enumerate(names):
        assert output[index] is output[name] is getattr(output, name) is values[index]
        assert output[index - len(names)] is values[index]
        assert name in output
    assert all(a is b for a, b in zip(output[:2], values[:2], strict=True))
    assert isinstance(output[1:], tuple)
    assert [name for name, _ in output.items()] == names
    assert all(a is b for a, b in zip(output.values(), values, strict=True))
    assert dict(output)[names[0]] is values[0]


@pytest.mark.parametrize("head", HEADS)
def test_return_dict_false_gives_the_tuple(head: str) -> None:
    output = call(head, output_hidden_states=True, **LABELS[head])
    plain = call(head, output_hidden_states=True, return_dict=False, **LABELS[head])
    assert type(plain) is tuple
    assert len(plain) == len(output)
    for ours, expected in zip(plain, output.to_tuple(), strict=True):
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(ours, expected)
        else:
            assert type(ours) is type(expected)


def test_return_dict_and_the_flags_follow_the_configuration() -> None:
    config = tiny_config(return_dict=False, output_attentions=True, output_hidden_states=True)
    model = random_model("ForMaskedLM", config)
    ids = [[3, 4]]
    logits, states, attentions = model(ids)
    assert (logits.shape, len(states), len(attentions)) == ((1, 2, 23), 3, 2)
    assert model(ids, return_dict=True).keys() == ["logits", "hidden_states", "attentions"]
    quiet = model(ids, output_attentions=False, output_hidden_states=False)
    assert len(quiet) == 1


def test_what_is_not_asked_for_is_not_there() -> None:
    output = call("ForMaskedLM")
    assert output.keys() == ["logits"]
    assert output.loss is None
    assert output.hidden_states is None
    assert output[0] is output.logits
    assert "loss" not in output
    assert "nonsense" not in output
    with pytest.raises(KeyError, match="'loss' is not in this output; it has logits"):
        output["loss"]
    with pytest.raises(IndexError):
        output[1]
    with pytest.raises(AttributeError):
        _ = output.nonsense


def test_a_field_set_later_is_there() -> None:
    output = MaskedLMOutput(logits=np.zeros((1, 2, 3)))
    output.loss = np.array(1.5)
    assert output.keys() == ["loss", "logits"]
    assert output[0] == 1.5
    assert BaseModelOutput(np.zeros(1)).keys() == ["last_hidden_state"]


def test_shapes() -> None:
    output = call("Model", output_attentions=True, output_hidden_states=True)
    assert output.last_hidden_state.shape == (1, 3, 12)
    assert output.pooler_output.shape == (1, 12)
    assert [state.shape for state in output.hidden_states] == [(1, 3, 12)] * 3
    assert [weights.shape for weights in output.attentions] == [(1, 3, 3, 3)] * 2
    assert [weights.shape for weights in output.cross_attentions] == [(1, 3, 3, 2)] * 2
    cache = output.past_key_values
    assert [(layer.key.shape, layer.cross_key.shape) for layer in cache] == [((1, 3, 3, 4), (1, 3, 2, 4))] * 2
    assert repr(cache) == "KeyValueCache(layers=2, length=3, shape=(1, 3, 3, 4))"
    assert call("ForQuestionAnswering").start_logits.flags.c_contiguous
    assert call("ForCausalLM", **LABELS["ForCausalLM"]).loss.shape == ()
