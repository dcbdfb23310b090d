"""The instruments against definitions written out here, and against what the model itself returns."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from counting_array import CountingArray
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import (
    COUSINS,
    HEADS,
    configs,
    padded_ids,
    random_ids,
    random_model,
    required_arguments,
    seeds,
    tiny_config,
)

import npprelnorm as nl
from npprelnorm.errors import InputError

look = nl.inspect


def test_every_public_function_has_an_example() -> None:
    functions = [getattr(look, name) for name in look.__all__ if callable(getattr(look, name))]
    without = [f.__name__ for f in functions if not isinstance(f, type) and ">>>" not in (f.__doc__ or "")]
    assert without == []


@given(st.data())
def test_residual_norms(data: st.DataObject) -> None:
    config = data.draw(configs(is_decoder=False))
    ids, mask = data.draw(padded_ids(config))
    model = random_model("Model", config, data.draw(seeds))
    norms = look.residual_norms(model, input_ids=ids, attention_mask=mask)
    states = model(
        input_ids=ids, attention_mask=mask, output_hidden_states=True, hidden_states_convention="v4"
    ).hidden_states
    assert norms.per_token.shape == (config.num_hidden_layers + 1, *ids.shape)
    for layer, state in enumerate(states):
        expected = np.sqrt((state**2).sum(-1))
        np.testing.assert_allclose(norms.per_token[layer], expected, rtol=1e-12)
        np.testing.assert_allclose(norms.per_layer[layer], (expected * mask).sum() / mask.sum(), rtol=1e-12)


def test_block_updates_of_a_block_that_does_nothing_and_of_one_that_doubles() -> None:
    """Layer 0 adds nothing; layer 1's attention adds a constant, which its bias is."""
    config = tiny_config()
    model, ids = random_model("Model", config), random_ids(config, (2, 5), 1)
    for name, value in model.params.items():
        if "output.dense" in name:
            model.params[name] = np.zeros_like(value)
    stream = model.base(ids, output_hidden_states=True, hidden_states_convention="v4").hidden_states[0]
    constant = np.arange(1.0, 13.0)
    model.params["encoder.layer.1.attention.output.dense.bias"] = constant
    updates = look.block_updates(model, input_ids=ids)
    assert updates.names == [f"encoder.layer.{i}.{kind}" for i in (0, 1) for kind in ("attention", "feed_forward")]
    size, norms = np.linalg.norm(constant), np.linalg.norm(stream, axis=-1)
    np.testing.assert_allclose(updates.update_norm, [0, 0, size, 0], rtol=1e-12)
    after = np.linalg.norm(stream + constant, axis=-1)
    np.testing.assert_allclose(updates.stream_norm, [norms.mean()] * 3 + [after.mean()], rtol=1e-12)
    np.testing.assert_allclose(updates.ratio, [0, 0, (size / norms).mean(), 0], rtol=1e-12)
    np.testing.assert_allclose(updates.cosine[2], (stream @ constant / norms / size).mean(), rtol=1e-12)
    share = (size**2 / (size**2 + norms**2)).mean()
    np.testing.assert_allclose(updates.share, [0, 0, share, 0], rtol=1e-12)
    np.testing.assert_allclose(updates.effective_depth, [0, 0, share, share], rtol=1e-12)


def test_padding_does_not_count() -> None:
    config = tiny_config()
    model = random_model("Model", config)
    ids = random_ids(config, (2, 5), 1)
    padded = np.concatenate([ids, np.full((2, 3), config.pad_token_id)], axis=1)
    mask = padded != config.pad_token_id
    for function in (look.block_updates, look.layer_norm_statistics):
        for one, other in zip(
            function(model, input_ids=ids), function(model, input_ids=padded, attention_mask=mask), strict=True
        ):
            if isinstance(one, list):
                assert one == other
            else:
                np.testing.assert_allclose(one, other, rtol=1e-9)
    with pytest.raises(InputError, match="0 everywhere"):
        look.residual_norms(model, input_ids=ids, attention_mask=np.zeros((2, 5), int))


def test_no_rows_and_no_positions() -> None:
    config = tiny_config()
    model, ids = random_model("ForMaskedLM", config), random_ids(config, (2, 5), 1)
    for function in (look.residual_norms, look.block_updates, look.layer_norm_statistics):
        with pytest.raises(InputError, match=r"the input has shape \(0, 5\), so there is no token"):
            function(model, input_ids=ids[:0])
    assert look.logit_lens_top(model, input_ids=ids, positions=[]).ids.shape == (3, 2, 0, 5)


def test_layer_norm_statistics() -> None:
    config = tiny_config(num_hidden_layers=1)
    model, ids = random_model("ForMaskedLM", config), random_ids(config, (2, 5), 1)
    found = look.layer_norm_statistics(model, input_ids=ids)
    assert found.names == [
        "encoder.layer.0.attention.LayerNorm", "encoder.layer.0.intermediate.LayerNorm", "LayerNorm",
    ]  # fmt: skip
    steps = look.trace(model, input_ids=ids)
    inputs = ("embeddings.LayerNorm", "encoder.layer.0.attention.residual", "encoder.layer.0.residual")
    for index, (name, stream) in enumerate(zip(found.names, inputs, strict=True)):
        gain = model.params[f"roberta_prelayernorm.{name}.weight"]
        bias = model.params[f"roberta_prelayernorm.{name}.bias"]
        std = np.sqrt(steps[stream].value.var(axis=-1) + config.layer_norm_eps)
        rms = math.sqrt((gain**2).mean())
        expected = [rms, gain.min(), gain.max(), math.sqrt((bias**2).mean()), std.mean(), (rms / std).mean()]
        np.testing.assert_allclose([values[index] for values in found[1:]], expected, rtol=1e-12)


def test_gradient_norms() -> None:
    config = tiny_config()
    model, ids = random_model("ForMaskedLM", config), random_ids(config, (2, 5), 1)
    _, grads = model.loss_and_grads(input_ids=ids, labels=ids)
    norms = look.gradient_norms(grads)

    def together(part: str) -> float:
        return math.sqrt(sum(float((value**2).sum()) for name, value in grads.items() if part in name))

    np.testing.assert_allclose(norms.per_layer, [together("layer.0."), together("layer.1.")], rtol=1e-12)
    assert norms.total == pytest.approx(together(""), rel=1e-12)
    assert set(norms.groups) == {
        *(f"attention.self.{name}" for name in ("query", "key", "value")), "attention.output.dense",
        "attention.LayerNorm", "intermediate.LayerNorm", "intermediate.dense", "output.dense",
    }  # fmt: skip
    for group, values in norms.groups.items():
        expected = [together(f"layer.{layer}.{group}.") for layer in (0, 1)]
        np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert set(norms.others) == {
        *(f"embeddings.{name}_embeddings" for name in ("word", "position", "token_type")), "embeddings.LayerNorm",
        "LayerNorm", "lm_head.dense", "lm_head.layer_norm", "lm_head",
    }  # fmt: skip
    assert norms.others["LayerNorm"] == pytest.approx(together("roberta_prelayernorm.LayerNorm"), rel=1e-12)
    everything = sum(values**2 for values in norms.groups.values()).sum() + sum(v**2 for v in norms.others.values())
    assert norms.total == pytest.approx(math.sqrt(everything), rel=1e-12)


def test_gradient_norms_of_what_is_not_there() -> None:
    config = tiny_config()
    model, ids = random_model("ForMaskedLM", config), random_ids(config, (2, 5), 1)
    _, grads = model.loss_and_grads(input_ids=ids, labels=ids, frozen=["*.layer.0.*.query.*", "*.embeddings.*"])
    query = look.gradient_norms(grads).groups["attention.self.query"]
    assert np.isnan(query[0])
    assert query[1] > 0
    assert look.gradient_norms({"lm_head.bias": np.ones(4)}).per_layer.shape == (0,)
    for wrong, message in (
        ({}, "grads is empty"),
        ([1.0], "grads is a list"),
        (np.ones(3), "grads is a ndarray"),
        ({3: np.ones(2)}, "grads is not by name"),
        ({"a": "b"}, r"grads\['a'\] has dtype <U1"),
    ):
        with pytest.raises(InputError, match=message):
            look.gradient_norms(wrong)  # type: ignore[arg-type]


def test_an_encoder_decoder_pair_is_looked_at_part_by_part() -> None:
    sizes = tiny_config().to_dict()
    parts = sizes, sizes | {"is_decoder": True, "add_cross_attention": True}
    both = nl.EncoderDecoderConfig.from_encoder_decoder_configs(
        *map(nl.RobertaPreLayerNormConfig.from_dict, parts), decoder_start_token_id=0, pad_token_id=1
    )
    pair, ids = nl.EncoderDecoderModel(both), [[5, 6, 7]]
    for function in (look.residual_norms, look.trace, look.attention_maps, look.profile_forward):
        with pytest.raises(InputError, match=r"is two models; give one of them, model\.encoder, or model\.decoder"):
            function(pair, input_ids=ids)
    _, grads = pair.loss_and_grads(input_ids=ids, labels=ids)
    with pytest.raises(InputError, match=r"layers of two stacks, 'encoder\.' and 'decoder\.roberta_prelayernorm\.'"):
        look.gradient_norms(grads)
    for part in ("encoder.", "decoder."):
        own = {name: grad for name, grad in grads.items() if name.startswith(part)}
        expected = [math.sqrt(sum((v**2).sum() for n, v in own.items() if f"r.layer.{i}." in n)) for i in (0, 1)]
        np.testing.assert_allclose(look.gradient_norms(own).per_layer, expected, rtol=1e-5)


def test_attention_maps() -> None:
    config = tiny_config()
    model, ids = random_model("ForMaskedLM", config), random_ids(config, (2, 5), 1)
    maps = look.attention_maps(model, input_ids=ids)
    np.testing.assert_array_equal(maps, np.stack(model(ids, output_attentions=True).attentions))
    entropy = look.attention_entropy(maps)
    assert entropy.shape == (2, 2, 3, 5)
    with pytest.raises(InputError, match="there is no cross-attention"):
        look.attention_maps(model, cross=True, input_ids=ids)
    assert (entropy < math.log(5)).all()
    assert (entropy > 0).all()


def test_attention_maps_of_cross_attention() -> None:
    config = tiny_config(is_decoder=True, add_cross_attention=True)
    model, ids = random_model("ForCausalLM", config), random_ids(config, (2, 5), 1)
    inputs = {"input_ids": ids, "encoder_hidden_states": np.random.default_rng(0).standard_normal((2, 4, 12))}
    inputs["encoder_attention_mask"] = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    own, crossed = (look.attention_maps(model, cross=cross, **inputs) for cross in (False, True))
    output = model(**inputs, output_attentions=True)
    np.testing.assert_array_equal(own, np.stack(output.attentions))
    np.testing.assert_array_equal(crossed, np.stack(output.cross_attentions))
    assert crossed.shape == (2, 2, 3, 5, 4)
    assert (crossed[:, 1, :, :, 3] == 0).all()


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(0, 1)),
    st.sampled_from(("float32", "float64")),
)
def test_attention_entropy(weights: np.ndarray, dtype: str) -> None:
    weights = weights.astype(dtype)
    entropy = look.attention_entropy(weights)
    assert entropy.dtype == dtype
    expected = [-sum(float(w) * math.log(w) for w in row if w > 0) for row in weights.reshape(-1, weights.shape[-1])]
    np.testing.assert_allclose(entropy.reshape(-1), expected, rtol=1e-5, atol=1e-6)


def test_attention_entropy_of_extremes() -> None:
    size = 8
    np.testing.assert_allclose(look.attention_entropy(np.full((2, size), 1 / size)), math.log(size), rtol=1e-12)
    assert (look.attention_entropy(np.eye(size)) == 0).all()
    for wrong, message in (([[-0.5, 1.5]], "maps holds -0.5"), ([["a"]], "dtype"), (0.5, "shape")):
        with pytest.raises(InputError, match=message):
            look.attention_entropy(wrong)


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM"])
def test_logit_lens_ends_with_the_model_and_reads_each_layer_like_the_last(head: str) -> None:
    config = tiny_config(num_hidden_layers=3, is_decoder=head == "ForCausalLM")
    model, ids = random_model(head, config), random_ids(config, (2, 5), 1)
    logits = look.logit_lens(model, input_ids=ids)
    assert logits.shape == (4, 2, 5, config.vocab_size)
    np.testing.assert_allclose(logits[-1], model(ids).logits, rtol=1e-12, atol=1e-12)
    for layers in range(3):  # a model that stops there
        kept = {n: v for n, v in model.params.items() if not any(f"layer.{i}." in n for i in range(layers, 3))}
        if layers:
            changes = config.to_dict() | {"num_hidden_layers": layers}
            shorter = type(model).from_params(nl.RobertaPreLayerNormConfig.from_dict(changes), kept, dtype="float64")
            np.testing.assert_allclose(logits[layers], shorter(ids).logits, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(look.logit_lens(model, input_ids=ids, positions=[3, 1]), logits[:, :, [3, 1]])


@given(st.data())
def test_logit_lens_top(data: st.DataObject) -> None:
    config = data.draw(configs(is_decoder=False))
    ids, mask = data.draw(padded_ids(config))
    model = random_model("ForMaskedLM", config, data.draw(seeds))
    k = data.draw(st.integers(1, config.vocab_size + 2))
    inputs = {"input_ids": ids, "attention_mask": mask}
    logits = look.logit_lens(model, **inputs)
    top = look.logit_lens_top(model, k=k, **inputs)
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[..., :k]
    np.testing.assert_array_equal(top.ids, order)
    np.testing.assert_allclose(top.probabilities, np.take_along_axis(probabilities, order, -1), rtol=1e-9)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(-1)
    np.testing.assert_allclose(top.entropy, entropy, rtol=1e-9, atol=1e-12)
    final = order[-1, ..., :1]
    for layer in range(len(logits)):
        own = np.take_along_axis(logits[layer], final, -1)
        np.testing.assert_array_equal(top.rank[layer], (logits[layer] > own).sum(-1))


def test_what_the_lens_cannot_read() -> None:
    config = tiny_config()
    ids = random_ids(config, (1, 4), 1)
    model = random_model("ForMaskedLM", config)
    with pytest.raises(InputError, match="lacks; load the checkpoint as a masked"):
        look.logit_lens(random_model("ForTokenClassification", config), input_ids=ids)
    with pytest.raises(InputError, match="k is 0"):
        look.logit_lens_top(model, k=0, input_ids=ids)
    with pytest.raises(InputError, match=r"positions holds 4 at \[0\]; allowed: 0 to 3"):
        look.logit_lens(model, input_ids=ids, positions=[4])
    with pytest.raises(InputError, match="positions has shape"):
        look.logit_lens(model, input_ids=ids, positions=2)


@given(st.data())
def test_flops_are_those_that_a_spy_counts(data: st.DataObject) -> None:
    head = data.draw(st.sampled_from(HEADS))
    options = {"is_decoder": True} if head == "ForCausalLM" else {}
    config = data.draw(configs(**options))
    batch, tokens, encoder_tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6)), 0
    model = random_model(head, config, 0, "float32")
    inputs: dict[str, Any] = required_arguments(head, random_ids(config, (batch, tokens), 1))
    if config.add_cross_attention and data.draw(st.booleans()):
        encoder_tokens = data.draw(st.integers(1, 4))
        inputs["encoder_hidden_states"] = np.ones((batch, encoder_tokens, config.hidden_size), np.float32)
    model.params = {name: value.view(CountingArray) for name, value in model.params.items()}
    CountingArray.flops = 0
    with nl.use_backend("numpy"):  # a spy sees NumPy's products; the kernels' are as many
        model(**inputs)
    counted = look.forward_flops(model, batch=batch, tokens=tokens, encoder_tokens=encoder_tokens)
    assert sum(counted.values()) == CountingArray.flops > 0


def test_flops_are_two_a_weight_and_token_and_those_of_attention() -> None:
    config = nl.RobertaPreLayerNormConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256, vocab_size=11
    )
    model = nl.RobertaPreLayerNormModel(config, add_pooling_layer=False)
    flops = look.forward_flops(model, batch=2, tokens=100)
    matrices = 3 * 12 * 64**2
    assert sum(flops.values()) == 2 * 200 * matrices + 3 * 2 * 2 * 2 * 100 * 100 * 64
    for wrong in (
        {"batch": 0, "tokens": 1},
        {"batch": 1, "tokens": 1.5},
        {"batch": 1, "tokens": 1, "encoder_tokens": -1},
    ):
        with pytest.raises(InputError, match="must be a whole number from"):
            look.forward_flops(model, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", HEADS)
def test_profile_times_every_op_where_it_happens(head: str) -> None:
    config = tiny_config(is_decoder=head == "ForCausalLM")
    model, ids = random_model(head, config), random_ids(config, (2, 5), 1)
    inputs = required_arguments(head, ids)
    profile = look.profile_forward(model, repeats=2, **inputs)
    places = {(row.name, row.op): row for row in profile.ops}
    counted = look.forward_flops(model, batch=2, tokens=5)
    matrices = {row.name for row in profile.ops if row.op in ("linear", "packed_attention")}
    assert matrices == set(counted)  # the two instruments name the same places
    for layer in range(2):
        assert places[f"encoder.layer.{layer}.attention.self", "packed_attention"].calls == 1
        assert places[f"encoder.layer.{layer}.attention.LayerNorm", "layer_norm"].calls == 1
        assert places[f"encoder.layer.{layer}.intermediate", "gelu"].calls == 1
    assert all(row.seconds > 0 for row in profile.ops)
    assert sum(profile.by_op().values()) == pytest.approx(profile.seconds - profile.other)
    assert profile.other > 0
    assert list(profile.by_op().values()) == sorted(profile.by_op().values(), reverse=True)


def test_profile_counts_a_kernel_as_one_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the kernels, in a file where the real ones are: they need Numba, and a while to compile."""
    names: dict[str, Any] = {}
    source = """
from npprelnorm.ops.linear import linear
FEW_ROWS = 8
def supported(): return frozenset()
def body_weights(*of): return of
def encoder(weights, x, bounds, keys, read, threads): return x + 1
def few_rows_linear(x, weight, bias, threads): return linear(x, weight, bias)
"""
    file = Path(nl.__file__).parent / "kernels" / "encoder.py"
    exec(compile(source, str(file), "exec"), names)
    kernels = SimpleNamespace(**names)
    monkeypatch.setattr("npprelnorm.backend.kernels_for", lambda work: kernels)
    config = tiny_config()
    model, ids = random_model("ForMaskedLM", config, 0, "float32"), random_ids(config, (2, 5), 1)

    def profiled(rows: np.ndarray) -> dict[tuple[str, str], int]:
        with nl.use_backend("numpy"):  # for what the stand-in lacks
            found = look.profile_forward(model, input_ids=rows, repeats=1).ops
        return {(row.name, row.op): row.calls for row in found}

    places = profiled(ids)
    assert places["kernels", "encoder"] == places["kernels", "body_weights"] == 1
    assert places["lm_head.decoder", "linear"] == places["embeddings.LayerNorm", "layer_norm"] == 1
    assert not any(name.startswith("encoder.") for name, _ in places)
    # a kernel in an op's place is named by its parameter, the tied decoder by what it decodes
    monkeypatch.setattr("npprelnorm.backend.kernels_in_use", lambda: (kernels.supported(), kernels)[1])
    places = profiled(ids[:1])
    assert places["kernels", "supported"] >= 1
    assert places["lm_head.dense", "few_rows_linear"] == places["lm_head.decoder", "few_rows_linear"] == 1
    assert all(name for name, _ in places)


def test_profile_leaves_the_interpreter_and_the_model_as_they_were() -> None:
    config = tiny_config()
    model, ids = random_model("Model", config), random_ids(config, (2, 5), 1)
    calls = []

    def earlier(frame: Any, event: str, argument: Any) -> None:
        calls.append(event)

    sys.setprofile(earlier)
    try:
        look.profile_forward(model, input_ids=ids, repeats=1)
        assert sys.getprofile() is earlier
    finally:
        sys.setprofile(None)
    with pytest.raises(InputError, match="repeats is 0"):
        look.profile_forward(model, input_ids=ids, repeats=0)
    with pytest.raises(InputError):
        look.profile_forward(model, input_ids=[[999]])
    assert sys.getprofile() is None


def test_instruments_want_a_model() -> None:
    for function in (look.residual_norms, look.block_updates, look.attention_maps, look.logit_lens, look.trace):
        with pytest.raises(InputError, match="model is a dict; give a model of this package"):
            function({}, input_ids=[[0]])  # type: ignore[operator]


@pytest.mark.parametrize("model_type", COUSINS)
@pytest.mark.parametrize("head", HEADS)
def test_post_ln_cousins(head: str, model_type: str) -> None:
    config = tiny_config(model_type, is_decoder=head == "ForCausalLM")
    model, ids = random_model(head, config, 0, "float32"), random_ids(config, (2, 5), 1)
    inputs = required_arguments(head, ids)
    steps = look.trace(model, **inputs)
    # as a trace, of all rows and each layer: where kernels run the layers as one, these differ in their last digits
    last = model.base(ids, output_hidden_states=True).last_hidden_state
    np.testing.assert_array_equal(steps["encoder.layer.1.output.LayerNorm"].value, last)
    np.testing.assert_allclose(last, model.base(ids).last_hidden_state, rtol=1e-5, atol=1e-5)
    assert "LayerNorm" not in steps.names
    total = steps["encoder.layer.0.attention.output.dense"].value + steps["embeddings.LayerNorm"].value
    np.testing.assert_array_equal(steps["encoder.layer.0.attention.residual"].value, total)
    names = look.layer_norm_statistics(model, input_ids=ids).names
    assert names[:2] == ["encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm"]
    assert len(names) == len(look.block_updates(model, input_ids=ids).names) == 4
    if "LM" in head:
        np.testing.assert_allclose(look.logit_lens(model, input_ids=ids)[-1], model(ids).logits, rtol=1e-5, atol=1e-5)
    with nl.use_backend("numpy"):
        ops = look.profile_forward(model, **inputs).ops
    matrices = {row.name for row in ops if row.op in ("linear", "packed_attention")}
    counted = look.forward_flops(model, batch=2, tokens=5)
    assert matrices == set(counted)
    model.params = {name: value.view(CountingArray) for name, value in model.params.items()}
    CountingArray.flops = 0
    with nl.use_backend("numpy"):
        model(**inputs)
    assert sum(counted.values()) == CountingArray.flops > 0
