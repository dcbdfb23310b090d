"""A float32 model never touches float64, in any class, option or activation; and float64 stays float64."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from spy_array import Float32Only, keep_watching, watched
from strategies import (
    ACTIVATION_NAMES,
    HEADS,
    configs,
    float_dtypes,
    main_result,
    random_ids,
    random_model,
    required_arguments,
    seeds,
    tiny_config,
)

from npprelnorm import use_backend
from npprelnorm.errors import InputWarning
from npprelnorm.ops.activations import ACTIVATIONS
from npprelnorm.ops.attention import Relative, attention, softmax
from npprelnorm.ops.erf import erf
from npprelnorm.ops.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from npprelnorm.ops.normalization import layer_norm


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    """The spy follows NumPy's operations, and none into a kernel (tests/kernels looks at the dtypes of those)."""
    with use_backend("numpy"):
        yield


def labelled(head: str, batch: int, tokens: int, rng: np.random.Generator) -> dict[str, Any]:
    """Labels that each class takes (at least two classes, one choice)."""
    if head in ("ForMaskedLM", "ForCausalLM", "ForTokenClassification"):
        labels = rng.integers(0, 2, (batch, tokens))
        labels[0, : tokens // 2] = -100
        return {"labels": labels}
    if head == "ForSequenceClassification":
        return {"labels": rng.integers(0, 2, batch)}
    if head == "ForMultipleChoice":
        return {"labels": np.zeros(batch, np.int64)}
    if head == "ForQuestionAnswering":
        return {"start_positions": rng.integers(0, tokens, batch), "end_positions": rng.integers(0, tokens, batch)}
    return {}


def everything(head: str, model: Any, seed: int) -> Any:
    """One call with every argument that the class takes, those for floats as float64 or lists."""
    rng = np.random.default_rng(seed)
    config, (batch, tokens) = model.config, (2, 5)
    ids = random_ids(config, (batch, tokens), seed)
    mask = np.ones((batch, tokens))
    mask[1, -2:] = 0.0
    arguments = required_arguments(head, ids)
    if config.is_decoder and config.add_cross_attention:
        arguments["encoder_hidden_states"] = rng.standard_normal((batch, 3, config.hidden_size))
        arguments["encoder_attention_mask"] = [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    return model(
        **arguments,
        attention_mask=mask[:, None] if head == "ForMultipleChoice" else mask,
        head_mask=rng.random((config.num_hidden_layers, config.num_attention_heads)),
        output_attentions=True,
        output_hidden_states=True,
        **labelled(head, batch, tokens, rng),
    )


def flat_arrays(value: Any) -> list[np.ndarray]:
    """All arrays inside an output."""
    if value is None:
        return []
    if isinstance(value, np.ndarray | np.generic):
        return [np.asarray(value)]
    return [array for item in value for array in flat_arrays(item)]


def test_the_spy_sees_float64() -> None:
    """The tool that the tests below trust."""
    spy = watched(np.ones((2, 3), np.float32))
    for product in (
        spy * spy,
        spy @ spy.T,
        np.where(spy > 0, spy, 0),
        np.concatenate([spy, spy]),
        spy[[0]],
        spy.sum(axis=0),
    ):
        assert isinstance(product, Float32Only)
        assert product.dtype == np.float32
    wide = np.ones(3)
    for compute in (
        lambda: spy + wide,
        lambda: spy.astype(np.float64) * 2,
        lambda: np.add(spy, wide, out=spy, casting="same_kind"),
        lambda: np.where(spy > 0, spy, wide),
        lambda: np.exp(spy, dtype=np.float64),
        lambda: np.mean(spy, axis=0, dtype=np.float64),
    ):
        with pytest.raises(AssertionError, match="meets float64"):
            compute()


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_activations_stay_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_watching(monkeypatch)
    x = watched(np.linspace(-6, 6, 50, dtype=np.float32))
    assert ACTIVATIONS[name][0](x)[0].dtype == np.float32


def test_ops_stay_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_watching(monkeypatch)
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Float32Only:
        return watched(rng.standard_normal(shape).astype(np.float32))

    distance = np.arange(3)[:, None] - np.arange(3)
    results = [
        erf(draw(40) * 3),
        softmax(draw(3, 4)),
        layer_norm(draw(3, 4), draw(4), draw(4), 1e-12)[0],
        attention(
            draw(2, 2, 3, 4), draw(2, 2, 3, 4), draw(2, 2, 3, 4), draw(2, 1, 3, 3),
            head_mask=draw(2, 1, 1), relative=Relative(draw(9, 4), distance, True),
        )[0],
        cross_entropy(draw(3, 4), np.array([0, -100, 3]))[0],
        cross_entropy(draw(3, 4), np.array([0, -100, 3]), divisor=3.0)[0],
        mean_squared_error(draw(3, 4), draw(3, 4))[0],
        binary_cross_entropy(draw(3, 4), draw(3, 4))[0],
    ]  # fmt: skip
    assert [result.dtype for result in results] == [np.float32] * len(results)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("position_type", ["absolute", "relative_key_query"])
def test_a_float32_forward_never_touches_float64(
    head: str, position_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_watching(monkeypatch)
    decoder = head in ("Model", "ForCausalLM")
    config = tiny_config(
        position_embedding_type=position_type,
        is_decoder=decoder,
        add_cross_attention=decoder,
        chunk_size_feed_forward=2,
        tie_word_embeddings=position_type == "absolute",
    )
    model = random_model(head, config, dtype="float32")
    model.params = {name: watched(value) for name, value in model.params.items()}
    output = everything(head, model, 0)
    assert isinstance(output[-1][0], Float32Only)
    assert {array.dtype for array in flat_arrays(output.values())} == {np.dtype("float32")}
    if decoder:  # and the next step, from the cache
        past = model(random_ids(config, (2, 4), 1), encoder_hidden_states=np.ones((2, 3, 12))).past_key_values
        again = model(random_ids(config, (2, 1), 2), past_key_values=past)
        assert {array.dtype for array in flat_arrays(again.values())} == {np.dtype("float32")}


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=25)
@given(config=configs(), dtype=float_dtypes, seed=seeds)
def test_every_output_has_the_dtype_of_the_model(head: str, config: Any, dtype: str, seed: int) -> None:
    model = random_model(head, config, seed, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # a causal model that is no decoder
        output = everything(head, model, seed)
    assert {array.dtype for array in flat_arrays(output.values())} == {np.dtype(dtype)}


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=25)
@given(config=configs(layer_norm_eps=1e-5), seed=seeds)
def test_float32_is_float64_to_float32_precision(head: str, config: Any, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        narrow, wide = (
            everything(head, random_model(head, config, seed, dtype), seed) for dtype in ("float32", "float64")
        )
    for name, ours, exact in ((n, flat_arrays(narrow[n]), flat_arrays(wide[n])) for n in narrow):
        for a, b in zip(ours, exact, strict=True):
            assert np.abs(a - b).max() <= 2e-4 * max(1.0, np.abs(b).max()), name
    result = main_result(wide)
    assert np.abs(main_result(narrow) - result).mean() <= 2e-5 * max(1.0, np.abs(result).max())
