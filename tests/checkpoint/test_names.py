"""Which architecture tensor names tell of, and how they map to ours."""

from __future__ import annotations

import pytest
from strategies import HEADS, class_of, tiny_config

from npprelnorm.checkpoint.names import Layout, canonical, in_model, layout, modern

OURS = list(class_of("ForMaskedLM").shapes(tiny_config(), pooler=False))
BASE = "roberta_prelayernorm."
LAYER = "encoder.layer.0."


@pytest.mark.parametrize(("name", "expected"), [
    ("a.LayerNorm.gamma", "a.LayerNorm.weight"),
    ("a.LayerNorm.beta", "a.LayerNorm.bias"),
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("a.LayerNorm.weight", "a.LayerNorm.weight"),
    ("a.dense.gamma", "a.dense.gamma"),
    ("a.gamma.weight", "a.gamma.weight"),
])  # fmt: skip
def test_gamma_and_beta_are_weight_and_bias(name: str, expected: str) -> None:
    assert modern(name) == expected


@pytest.mark.parametrize(("names", "order", "prefix", "princeton"), [
    (OURS, "pre-LN", BASE, False),
    ([name.removeprefix(BASE) for name in OURS], "pre-LN", "", False),
    ([name.replace(BASE, "roberta.") for name in OURS], "pre-LN", "roberta.", True),
    ([name.replace(BASE, "model.body.") for name in OURS], "pre-LN", "model.body.", False),
    (["roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer.0.intermediate.LayerNorm.gamma"],
     "pre-LN", "roberta.", True),
    (["roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer.3.attention.output.LayerNorm.weight"],
     "post-LN", "roberta.", False),
    (["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.output.LayerNorm.gamma"],
     "post-LN", "bert.", False),
    # names of both: it is not pre-LN alone
    ([*OURS, BASE + "encoder.layer.0.attention.output.LayerNorm.weight"], "post-LN", BASE, False),
    (["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.weight"], "unknown", "", False),
    ([], "unknown", "", False),
])  # fmt: skip
def test_layout(names: list[str], order: str, prefix: str, princeton: bool) -> None:
    for listed in (names, names[::-1]):
        found = layout(listed)
        assert found == Layout(order, prefix)
        assert found.is_princeton is princeton


@pytest.mark.parametrize(("name", "prefix", "expected"), [
    ("embeddings.word_embeddings.weight", "", BASE + "embeddings.word_embeddings.weight"),
    ("LayerNorm.weight", "", BASE + "LayerNorm.weight"),
    ("pooler.dense.bias", "", BASE + "pooler.dense.bias"),
    ("lm_head.layer_norm.weight", "", "lm_head.layer_norm.weight"),
    ("lm_head.bias", BASE, "lm_head.bias"),
    (BASE + LAYER + "attention.self.query.weight", BASE, BASE + LAYER + "attention.self.query.weight"),
    ("roberta." + LAYER + "intermediate.LayerNorm.gamma", "roberta.", BASE + LAYER + "intermediate.LayerNorm.weight"),
    ("roberta.LayerNorm.beta", "roberta.", BASE + "LayerNorm.bias"),
    # not of the body: left alone
    ("embeddings.word_embeddings.weight", BASE, "embeddings.word_embeddings.weight"),
    ("classifier.out_proj.bias", "roberta.", "classifier.out_proj.bias"),
    # used by nobody
    ("roberta." + LAYER + "attention.self.LayerNorm.weight", "roberta.", None),
    ("roberta." + LAYER + "attention.self.LayerNorm.beta", "roberta.", None),
    (BASE + "embeddings.position_ids", BASE, None),
    ("embeddings.token_type_ids", "", None),
    # these are
    (BASE + LAYER + "attention.LayerNorm.weight", BASE, BASE + LAYER + "attention.LayerNorm.weight"),
    (BASE + "embeddings.token_type_embeddings.weight", BASE, BASE + "embeddings.token_type_embeddings.weight"),
])  # fmt: skip
def test_canonical(name: str, prefix: str, expected: str | None) -> None:
    assert canonical(name, prefix) == expected


@pytest.mark.parametrize("head", HEADS)
def test_our_own_names_map_to_themselves(head: str) -> None:
    cls = class_of(head)
    config = tiny_config(is_decoder=True, add_cross_attention=True, position_embedding_type="relative_key")
    names = list(cls.shapes(config, pooler=True))
    prefix = layout(names).prefix
    assert prefix == cls.base_prefix
    mapped = [canonical(name, prefix) for name in names]
    assert [in_model(name, cls.base_prefix) for name in mapped if name] == names
