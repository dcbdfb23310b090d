"""The configuration: defaults, every bad value of every field, label maps, unknown keys, and JSON in and out."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import configs, tiny_config

import npprelnorm as nl
from npprelnorm import RobertaPreLayerNormConfig as Config
from npprelnorm.errors import CheckpointFormatError, CheckpointNotFoundError, ConfigError

# as transformers 4.56.2 and 5.2.0 have them
DEFAULTS = {
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "position_embedding_type": "absolute",
    "use_cache": True,
    "classifier_dropout": None,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "chunk_size_feed_forward": 0,
    "problem_type": None,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "pruned_heads": {},
    "dtype": None,
    "architectures": None,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "num_labels": 2,
    "extra": {},
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_labels",
)
NO_SIZE = (0, -1, 2.0, True, "12", None, [1], 10**30, math.nan)
NO_PROBABILITY = (-0.1, 1.0, 1.5, math.nan, math.inf, "0.1", True, [0.1], 10**400)
NO_FLAG = (0, 1, "true", None, 1.0)
NO_TOKEN_ID = (-1, 1.0, "1", True)
NO_MAPPING = ([], "LABEL", 3)

BAD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(SIZES, NO_SIZE),
    "num_labels": tuple(value for value in NO_SIZE if value is not None),  # None: the number of id2label's entries
    "hidden_act": ("gleu", "GELU", "", None, 3, ["gelu"], math.tanh),
    "hidden_dropout_prob": (*NO_PROBABILITY, None),
    "attention_probs_dropout_prob": (*NO_PROBABILITY, None),
    "classifier_dropout": NO_PROBABILITY,
    "initializer_range": (-0.1, math.nan, math.inf, "0.02", True, None, 10**400),
    "layer_norm_eps": (0, 0.0, -1e-5, math.nan, math.inf, "1e-5", True, None, 10**400),
    "pad_token_id": NO_TOKEN_ID,
    "bos_token_id": (*NO_TOKEN_ID, [2]),
    "eos_token_id": (*NO_TOKEN_ID, [2, -1], ["2"]),
    "position_embedding_type": ("relative", "Absolute", None, 1),
    "use_cache": NO_FLAG,
    "is_decoder": NO_FLAG,
    "add_cross_attention": NO_FLAG,
    "tie_word_embeddings": NO_FLAG,
    "output_attentions": NO_FLAG,
    "output_hidden_states": NO_FLAG,
    "return_dict": NO_FLAG,
    "chunk_size_feed_forward": (-1, 1.0, True, None, "0"),
    "problem_type": ("classification", "Regression", 1, [None]),
    "pruned_heads": ({0: [1]}, {"0": [1, 2]}, [1], "none", 0),
    "dtype": ("int8", "float", "torch.int64", 32, ["float32"], np.float32),
    "architectures": ("RobertaPreLayerNormModel", [1], {}),
    "id2label": (
        *NO_MAPPING, {}, {1: "a"}, {0: "a", 2: "b"}, {0: 1}, {"x": "a"}, {0: "a", "0": "b"}, {0.0: "a"}, {True: "a"},
        {"-1": "a"}, {"²": "a"}, {"9" * 30: "a"},
    ),
    "label2id": (*NO_MAPPING, {0: "a"}, {"a": "0"}, {"a": 1.0}, {"a": True}),
}  # fmt: skip
BAD_VALUES = [pytest.param(name, value, id=f"{name}-{value!r:.30}") for name, values in BAD.items() for value in values]


def test_defaults_are_those_of_transformers() -> None:
    config = Config()
    assert {item.name: getattr(config, item.name) for item in dataclasses.fields(config)} == DEFAULTS
    assert config.model_type == "roberta-prelayernorm"
    assert config.head_size == 64
    assert config.max_tokens == 510


def test_every_field_has_bad_values() -> None:
    assert set(BAD) == set(DEFAULTS) - {"extra"}


def assert_one_line_about(error: Exception, name: str, value: Any) -> None:
    message = str(error)
    assert "\n" not in message
    assert len(message) < 400
    assert name in message
    # of a list or mapping the entry that is wrong may be shown instead
    shown = [repr(value)[:60], *(repr(item)[:60] for item in (value if isinstance(value, list | dict) else ()))]
    assert any(text in message for text in shown) or value == {"²": "a"}


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_bad_value_on_construction_and_on_assignment(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    assert_one_line_about(caught.value, name, value)
    assert isinstance(caught.value, ValueError)

    if name == "num_labels" and value == 2:
        return  # what it is already
    config = Config()
    with pytest.raises(ConfigError) as caught:
        setattr(config, name, value)
    assert_one_line_about(caught.value, name, value)
    assert {item.name: getattr(config, item.name) for item in dataclasses.fields(config)} == DEFAULTS


@pytest.mark.parametrize("name", ["id2label", "label2id", "num_labels"])
def test_a_label_map_cannot_be_taken_away(name: str) -> None:
    config = Config()
    with pytest.raises(ConfigError, match=f"{name} is None"):
        setattr(config, name, None)
    assert config == Config()


@pytest.mark.parametrize(("name", "allowed"), [
    ("vocab_size", "an integer from 1 to 16777216"),
    ("hidden_act", "gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, silu, swish, tanh"),
    ("hidden_dropout_prob", "a number from 0 up to, but not, 1"),
    ("layer_norm_eps", "a finite number"),
    ("problem_type", "None, regression, single_label_classification, multi_label_classification"),
    ("position_embedding_type", "absolute, relative_key, relative_key_query"),
    ("is_decoder", "True or False"),
    ("dtype", "float16, bfloat16, float32, float64 or None"),
    ("pad_token_id", "an integer, 0 or more, or None"),
])  # fmt: skip
def test_the_message_says_what_is_allowed(name: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{name: -1})
    assert f"{name} is -1; allowed: {allowed}" in str(caught.value)


@pytest.mark.parametrize(("changes", "match"), [
    ({"hidden_size": 10, "num_attention_heads": 4}, r"The hidden size \(10\) is not a multiple of .* heads \(4\)"),
    ({"pad_token_id": 50265}, "pad_token_id is 50265; allowed: below vocab_size"),
    ({"pad_token_id": 512}, r"max_position_embeddings \(512\)"),
    ({"add_cross_attention": True}, "used as a decoder model if cross attention is added: set is_decoder=True"),
    ({"num_labels": 3, "id2label": {0: "a"}}, "num_labels is 3, but id2label has 1 entries"),
    ({"pruned_heads": {0: [1]}}, "pruned heads are not supported"),
])  # fmt: skip
def test_rules_about_more_than_one_field(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        Config(**changes)
    assert "\n" not in str(caught.value)


def test_such_a_rule_broken_by_assignment_is_met_when_a_model_is_built() -> None:
    config = tiny_config()
    config.num_attention_heads = 5
    with pytest.raises(ConfigError, match="not a multiple"):
        nl.RobertaPreLayerNormModel(config)


def test_extremes_that_are_allowed() -> None:
    config = Config(
        hidden_dropout_prob=0, classifier_dropout=0.999, initializer_range=0, pad_token_id=None, bos_token_id=None,
        eos_token_id=[2, 3], vocab_size=1, hidden_size=1, num_attention_heads=1, max_position_embeddings=1,
        pruned_heads=None, layer_norm_eps=1,
    )  # fmt: skip
    assert config.hidden_dropout_prob == 0.0
    assert isinstance(config.hidden_dropout_prob, float)
    assert config.pruned_heads == {}
    assert config.eos_token_id == [2, 3]


def test_numpy_numbers_are_numbers() -> None:
    config = Config(
        vocab_size=np.int64(30), pad_token_id=np.int32(3), layer_norm_eps=np.float32(0.5),
        hidden_dropout_prob=np.float64(0),
        label2id={"a": np.int64(0)}, id2label={np.int64(0): "a"},
    )  # fmt: skip
    assert json.loads(json.dumps(config.to_dict()))["pad_token_id"] == 3
    assert Config.from_dict(config.to_dict()) == config


# ---- labels


def test_num_labels_follows_the_map_and_rebuilds_it() -> None:
    config = Config(id2label={"0": "no", "1": "yes", "2": "maybe"})
    assert config.num_labels == 3
    assert config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert config.label2id == {"no": 0, "yes": 1, "maybe": 2}

    config.num_labels = 3  # no change
    assert config.id2label[1] == "yes"
    config.num_labels = 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}

    config.id2label = {1: "b", 0: "a", 2: "c", 3: "d"}
    assert config.num_labels == 4
    assert config.label2id == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert list(config.id2label) == [0, 1, 2, 3]


def test_a_given_label2id_is_kept() -> None:
    config = Config(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1, "B": 1})
    assert config.label2id == {"a": 0, "b": 1, "B": 1}
    assert Config.from_dict(config.to_dict()).label2id == config.label2id
    assert Config(num_labels=5).id2label[4] == "LABEL_4"


def test_overrides_of_labels_replace_those_of_the_file() -> None:
    values = Config(id2label={0: "a", 1: "b", 2: "c"}).to_dict()
    fewer = Config.from_dict(values, num_labels=2)
    assert fewer.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert fewer.label2id == {"LABEL_0": 0, "LABEL_1": 1}
    other = Config.from_dict(values | {"num_labels": 3}, id2label={0: "x"})
    assert (other.num_labels, other.label2id) == (1, {"x": 0})
    assert values["id2label"] == {"0": "a", "1": "b", "2": "c"}


# ---- files


def test_unknown_keys_are_kept_readable_and_written_back(tmp_path: Path) -> None:
    values = {
        "model_type": "roberta-prelayernorm",
        "_name_or_path": "somewhere",
        "transformers_version": "4.25.0.dev0",
        "gradient_checkpointing": False,
        "my_key": {"nested": [1, 2.5, None, "text"]},
        "extra": "a key that is called so",
        "head_size": 3,
        "vocab_size": 77,
    }
    config = Config.from_dict(values)
    assert config.my_key == {"nested": [1, 2.5, None, "text"]}
    assert config.gradient_checkpointing is False
    assert config.head_size == 64
    config.my_key["nested"].append("changed")
    assert values["my_key"] == {"nested": [1, 2.5, None, "text"]}
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert {name: written[name] for name in values if name != "my_key"} == {
        name: value for name, value in values.items() if name != "my_key"
    }
    assert Config.from_pretrained(tmp_path) == config
    with pytest.raises(AttributeError, match="no field 'nonsense'"):
        _ = config.nonsense


def test_an_assigned_unknown_key_is_saved_too() -> None:
    config = Config.from_dict({"my_key": 1})
    config.my_key = 2
    config.another = "x"
    assert (config.my_key, config.another) == (2, "x")
    assert {"my_key": 2, "another": "x"}.items() <= config.to_dict().items()
    with pytest.raises(AttributeError):
        config.max_tokens = 3  # computed from others


@pytest.mark.parametrize(("values", "expected"), [
    ({"torch_dtype": "float16"}, "float16"),
    ({"dtype": "bfloat16"}, "bfloat16"),
    ({"torch_dtype": "float16", "dtype": "float32"}, "float32"),
    ({"torch_dtype": "torch.float64"}, "float64"),
    ({"torch_dtype": None}, None),
])  # fmt: skip
def test_both_spellings_of_dtype(values: dict[str, Any], expected: str | None) -> None:
    config = Config.from_dict(values)
    assert config.dtype == expected
    assert "torch_dtype" not in config.to_dict()
    assert Config.from_dict(values, dtype="float64").dtype == "float64"


def test_the_published_file() -> None:
    """config.json of the checkpoints on the hub, as transformers 4.25 wrote it."""
    config = Config.from_dict(
        {
            "architectures": ["RobertaPreLayerNormForMaskedLM"], "model_type": "roberta-prelayernorm",
            "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
            "hidden_act": "gelu", "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "type_vocab_size": 1,
            "vocab_size": 50265, "pad_token_id": 1, "position_embedding_type": "absolute", "classifier_dropout": None,
            "torch_dtype": "float32", "transformers_version": "4.25.0.dev0", "_name_or_path": "...",
        }
    )  # fmt: skip
    assert (config.head_size, config.max_tokens, config.dtype) == (64, 512, "float32")
    shapes = nl.RobertaPreLayerNormForMaskedLM.shapes(config, pooler=False)
    assert sum(math.prod(shape) for shape in shapes.values()) == 355_414_105


def test_an_unknown_override_is_an_error(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no field 'hiden_size'; its fields are"):
        Config.from_pretrained(tmp_path, hiden_size=3)
    with pytest.raises(ConfigError, match="no field 'extra'"):
        Config.from_dict({}, extra={})


def test_overrides_of_from_pretrained(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    config = Config.from_pretrained(tmp_path / "config.json", is_decoder=True, num_labels=5)
    assert (config.is_decoder, config.num_labels, config.vocab_size) == (True, 5, 23)
    with pytest.raises(ConfigError) as caught:
        Config.from_pretrained(tmp_path, hidden_act="none")
    assert str(tmp_path) in str(caught.value)
    assert "hidden_act is 'none'" in str(caught.value)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointNotFoundError) as caught:
            Config.from_pretrained(path)
        assert str(path) in str(caught.value)
    for text in ("", "{", "[]", '{"vocab_size": NaN}', '{"a": 1, "a": 2}', '{"layer_norm_eps": 1e999}'):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointFormatError, match="is not valid JSON"):
            Config.from_pretrained(tmp_path)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    config=configs(),
    labels=st.lists(st.text(), min_size=1, max_size=5, unique=True),
    extra=st.dictionaries(
        st.text(min_size=1).filter(lambda key: key not in DEFAULTS and key not in ("torch_dtype", "model_type")),
        json_values,
        max_size=3,
    ),
)
def test_a_round_trip_changes_nothing(config: Config, labels: list[str], extra: dict[str, Any]) -> None:
    values = config.to_dict() | extra | {"id2label": dict(enumerate(labels)), "label2id": None}
    first = Config.from_dict(values)
    again = Config.from_dict(json.loads(json.dumps(first.to_dict())))
    assert again == first
    assert {key: again.extra[key] for key in extra} == extra
    assert again.id2label == dict(enumerate(labels))
    assert copy.deepcopy(first) == first


def test_a_model_has_its_own_copy() -> None:
    config = tiny_config()
    model = nl.RobertaPreLayerNormModel(config)
    config.num_labels = 7
    model.config.is_decoder = True
    assert model.config.num_labels == 2
    assert not config.is_decoder
