"""The backward of ops: by central differences, by what it may not touch, and by what must come out as 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck import as_tuple, assert_slope, check_backward, random_direction
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from spy_array import Float32Only, keep_watching, watched
from strategies import ACTIVATION_NAMES, integer_dtypes, seeds

from npprelnorm.ops import losses
from npprelnorm.ops.activations import ACTIVATIONS
from npprelnorm.ops.attention import AttentionGradients, Relative, attention, attention_backward
from npprelnorm.ops.dropout import dropout, dropout_backward
from npprelnorm.ops.embedding import EmbeddingCache, embedding, embedding_backward
from npprelnorm.ops.linear import linear, linear_backward, linear_backward_input, linear_backward_weight, sum_rows
from npprelnorm.ops.normalization import layer_norm, layer_norm_backward

LOWEST = float(np.finfo(np.float64).min)

sizes = st.integers(1, 5)

shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
@given(seed=seeds, shape=shapes, scale=st.sampled_from((0.1, 1.0, 3.0)))
def test_activations(name: str, seed: int, shape: tuple[int, ...], scale: float) -> None:
    x = scale * normal(seed, *shape)
    x.flat[0] = 0.5  # if all were far out, the difference of two results would have no digits left
    assume(name != "relu" or np.abs(x).min() > 1e-4)
    f, f_backward = ACTIVATIONS[name]
    check_backward(f, f_backward, [x], seed)


def derivative(name: str, x: float) -> float:
    """By the definition of each activation, in Python's own functions."""
    if name == "gelu":
        return 0.5 * math.erfc(-x / math.sqrt(2)) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        t = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        return (1 + t) / 2 + x * (1 - t * t) / 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    if name == "relu":
        return float(x > 0)
    if name == "tanh":
        return 1 / math.cosh(x) ** 2
    rate = 1.702 if name == "quick_gelu" else 1.0
    s = 1 / (1 + math.exp(-rate * x))
    return s + rate * x * s * (1 - s)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_the_derivative_of_an_activation_at_each_number(name: str) -> None:
    """A central difference averages over numbers; here each one counts, far out and at 0 too."""
    x = np.concatenate([np.linspace(-9, 9, 1801), [0.0, -0.0, 1e-300, -1e-300, 30.0, -30.0]])
    f, f_backward = ACTIVATIONS[name]
    ours = f_backward(np.ones_like(x), f(x)[1])
    theirs = np.array([derivative(name, float(value)) for value in x])
    # far left 1 + tanh(u) and 1 - tanh(u)^2 cancel, in any way of writing it: x/2 du/dx, about 50, times a rounding
    # unit of 1 remains
    np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=100 * 2.0**-53)
    single = x.astype(np.float32)
    ours = f_backward(np.ones_like(single), f(single)[1])
    theirs = np.array([derivative(name, float(value)) for value in single])
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=100 * 2.0**-24)


# ---------------------------------------------------------------- linear, embedding, normalisation, dropout


@given(seeds, st.lists(st.integers(1, 4), max_size=3), sizes, sizes)
def test_linear(seed: int, outer: list[int], inputs: int, outputs: int) -> None:
    arguments = [normal(seed, *outer, inputs), normal(seed + 1, outputs, inputs), normal(seed + 2, outputs)]
    check_backward(linear, linear_backward, arguments, seed)
    _, cache = linear(*arguments)
    dy = normal(seed + 3, *outer, outputs)
    dx, dweight, dbias = linear_backward(dy, cache)
    assert np.array_equal(linear_backward_input(dy, cache), dx)
    assert np.array_equal(linear_backward_weight(dy, cache), dweight)
    assert np.array_equal(sum_rows(dy), dbias)


@given(seeds, shapes)
def test_sums_over_rows(seed: int, shape: tuple[int, ...]) -> None:
    x = normal(seed, *shape)
    expected = [math.fsum(column) for column in x.reshape(-1, shape[-1]).T.tolist()]
    np.testing.assert_allclose(sum_rows(x), expected, rtol=0, atol=1e-13)


@given(seeds, st.lists(st.integers(1, 4), max_size=2), st.sampled_from((1, 4, 5, 8, 12)), st.sampled_from((1e-5, 1e-2)))
def test_layer_norm(seed: int, outer: list[int], width: int, eps: float) -> None:
    arguments = [normal(seed, *outer, width), 1 + 0.5 * normal(seed + 1, width), normal(seed + 2, width)]
    assume(width == 1 or arguments[0].std(axis=-1).min() > 0.2)  # else the slope changes within the step

    def f(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
        return layer_norm(x, weight, bias, eps)

    check_backward(f, layer_norm_backward, arguments, seed)


@given(seeds, st.integers(2, 12))
def test_layer_norm_takes_back_shifts_and_scalings(seed: int, width: int) -> None:
    """dx has no part along a constant, and (eps being small) none along x - mean: y ignores both."""
    x = normal(seed, 3, width)
    assume(x.std(axis=-1).min() > 0.2)
    _, cache = layer_norm(x, normal(seed + 1, width), normal(seed + 2, width), 1e-14)
    dx, _, _ = layer_norm_backward(normal(seed + 3, 3, width), cache)
    np.testing.assert_allclose(dx.sum(axis=-1), 0, atol=1e-11)
    np.testing.assert_allclose((dx * x).sum(axis=-1), 0, atol=1e-10)


@given(seeds, st.lists(st.integers(1, 4), max_size=3), st.integers(1, 9), integer_dtypes)
def test_embedding(seed: int, outer: list[int], rows: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rows, outer).astype(dtype)
    ids.flags.writeable = False
    check_backward(lambda table: embedding(ids, table), embedding_backward, [normal(seed, rows, 3)], seed)


@given(seeds, st.integers(1, 30), st.integers(2, 6))
def test_repeated_ids_add_up_and_unseen_ones_get_nothing(seed: int, count: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rows, (1, count))
    dy = rng.standard_normal((1, count, 3))
    _, cache = embedding(ids, rng.standard_normal((rows + 2, 3)))
    dtable = embedding_backward(dy, cache)
    expected = np.zeros((rows + 2, 3))
    for place, row in enumerate(ids[0]):
        expected[row] += dy[0, place]
    np.testing.assert_allclose(dtable, expected, rtol=0, atol=1e-13)
    unseen = np.setdiff1d(np.arange(rows + 2), ids)
    assert len(unseen) >= 2
    assert not dtable[unseen].any()
    padding = int(rng.integers(rows))
    expected[padding] = 0.0
    np.testing.assert_allclose(embedding_backward(dy, cache, padding), expected, rtol=0, atol=1e-13)


def test_embedding_of_nothing() -> None:
    for shape in ((0,), (2, 0)):
        dtable = embedding_backward(np.ones((*shape, 3)), EmbeddingCache(np.zeros(shape, np.int64), 4))
        assert np.array_equal(dtable, np.zeros((4, 3)))


@given(seeds, shapes, st.sampled_from((0.0, 0.1, 0.5, 0.9)))
def test_dropout(seed: int, shape: tuple[int, ...], p: float) -> None:
    x = normal(seed, *shape)
    y, cache = dropout(x, p, np.random.default_rng(seed))
    assume(y.any())
    check_backward(lambda x: dropout(x, p, np.random.default_rng(seed)), dropout_backward, [x], seed)
    if p:
        # what was dropped gets nothing, and what was kept the factor by which it was kept
        assert np.array_equal(dropout_backward(np.ones(shape), cache), (y != 0) * (1 / (1 - p)))


# ---------------------------------------------------------------- attention


@given(
    seed=seeds, batch=st.integers(1, 2), heads=st.integers(1, 3), tokens=sizes, keys=sizes, size=st.integers(1, 4),
    mask_kind=st.sampled_from(("none", "keys", "each", "biases")), with_heads=st.booleans(),
    relative=st.sampled_from((None, "key", "key and query")), drop=st.sampled_from((0.0, 0.0, 0.3)),
)  # fmt: skip
def test_attention(
    seed: int, batch: int, heads: int, tokens: int, keys: int, size: int,
    mask_kind: str, with_heads: bool, relative: str | None, drop: float,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    keys = max(keys, tokens) if relative else keys
    arguments = [rng.standard_normal((batch, heads, n, size)) for n in (tokens, keys, keys)]
    names = ["dq", "dk", "dv"]
    mask = None
    if mask_kind != "none":
        shape = {"keys": (batch, 1, 1, keys), "each": (1, heads, tokens, keys), "biases": (batch, 1, tokens, keys)}
        mask = rng.standard_normal(shape[mask_kind])
        if mask_kind != "biases":
            mask = np.where(mask > 0, 0.0, LOWEST)
            mask[..., rng.integers(keys)] = 0.0  # each row sees something; what of those that do not, see below
    if with_heads:
        arguments.append(rng.standard_normal((heads, 1, 1)))
        names.append("dhead_mask")
    # distances of queries that begin after a cache, and a table with rows that never occur
    distance = np.arange(keys - tokens, keys)[:, None] - np.arange(keys)[None, :]
    if relative:
        arguments.append(rng.standard_normal((2 * (keys + 1) - 1, size)))
        names.append("dtable")

    def f(q: np.ndarray, k: np.ndarray, v: np.ndarray, *more: np.ndarray) -> Any:
        extra = dict(zip(names[3:], more, strict=True))
        table = extra.get("dtable")
        return attention(
            q, k, v, mask,
            head_mask=extra.get("dhead_mask"),
            relative=None if table is None else Relative(table, distance, relative == "key and query"),
            drop=drop, rng=np.random.default_rng(seed) if drop else None,
        )  # fmt: skip

    def f_backward(dy: np.ndarray, cache: Any) -> tuple[np.ndarray, ...]:
        gradients = attention_backward(dy, cache)
        absent = {name for name in AttentionGradients._fields if getattr(gradients, name) is None}
        assert absent == set(AttentionGradients._fields) - set(names)
        return tuple(getattr(gradients, name) for name in names)

    y, _ = f(*arguments)
    assume(y.any())
    check_backward(f, f_backward, arguments, seed)
    if relative:
        used = np.unique(distance) + keys  # the table's row of each distance; distance 0 is row `keys`
        dtable = f_backward(np.ones_like(y), f(*arguments)[1])[names.index("dtable")]
        assert not np.delete(dtable, used, axis=0).any()


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_a_masked_key_gets_nothing(drop: float) -> None:
    q, k, v = (normal(n, 2, 2, 3, 4) for n in range(3))
    mask = np.where([True, False, True], 0.0, LOWEST)
    _, cache = attention(q, k, v, mask, drop=drop, rng=np.random.default_rng(1))
    gradients = attention_backward(normal(5, 2, 2, 3, 4), cache)
    assert not gradients.dk[:, :, 1].any()
    assert not gradients.dv[:, :, 1].any()
    assert gradients.dk[:, :, [0, 2]].all()
    assert gradients.dv[:, :, [0, 2]].any()


def test_a_row_that_sees_nothing() -> None:
    """Its weights are equal whatever its scores are, yet autograd (torch's as well) gives the scores a gradient."""
    q, k, v = (normal(n, 1, 1, 1, 3) if n == 0 else normal(n, 1, 1, 4, 3) for n in range(3))
    _, cache = attention(q, k, v, np.full((1, 1, 1, 4), LOWEST))
    dy = normal(9, 1, 1, 1, 3)
    gradients = attention_backward(dy, cache)
    dweights = (dy @ v.swapaxes(-1, -2))[0, 0, 0]
    dscores = 0.25 * (dweights - dweights.mean()) / math.sqrt(3)
    np.testing.assert_allclose(gradients.dq[0, 0, 0], dscores @ k[0, 0], rtol=1e-13)
    np.testing.assert_allclose(gradients.dv[0, 0], np.tile(0.25 * dy[0, 0, 0], (4, 1)), rtol=1e-13)


@given(seeds, st.integers(1, 5))
def test_scores_that_all_move_together_change_nothing(seed: int, keys: int) -> None:
    """Adding one vector to all keys adds one number to each row's scores: dk adds up to 0 along it."""
    q, k, v = normal(seed, 1, 2, 3, 4), normal(seed + 1, 1, 2, keys, 4), normal(seed + 2, 1, 2, keys, 4)
    _, cache = attention(q, k, v, None)
    np.testing.assert_allclose(attention_backward(normal(seed + 3, 1, 2, 3, 4), cache).dk.sum(axis=2), 0, atol=1e-12)


# ---------------------------------------------------------------- what the checks above lean on


def test_the_gradient_check_sees_a_wrong_gradient() -> None:
    """The tool itself: a part in ten thousand off, one element of hundreds missing, a cache written to, a lost term."""
    x, weight, bias = normal(0, 5, 9), normal(1, 7, 9), normal(2, 7)

    def off(dy: np.ndarray, cache: Any) -> Any:
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx, dweight * 1.0001, dbias

    def one_missing(dy: np.ndarray, cache: Any) -> Any:
        dx, dweight, dbias = linear_backward(dy, cache)
        dweight[3, 4] = 0.0
        return dx, dweight, dbias

    def bent(dy: np.ndarray, cache: Any) -> Any:
        return [gradient + 1e-9 * np.abs(gradient) for gradient in linear_backward(dy, cache)]

    for wrong in (off, one_missing, bent, lambda dy, cache: [0 * g for g in linear_backward(dy, cache)]):
        with pytest.raises(AssertionError):
            check_backward(linear, wrong, [x, weight, bias], 0)

    def forgetful(dy: np.ndarray, cache: Any) -> Any:
        gradients = layer_norm_backward(dy, cache)
        cache.x_hat[...] *= 2.0
        return gradients

    with pytest.raises(AssertionError, match="wrote to its cache"):
        check_backward(lambda *a: layer_norm(*a, 1e-5), forgetful, [x, normal(3, 9), normal(4, 9)], 0)

    def writes(dy: np.ndarray, cache: Any) -> Any:
        cache.x[...] = 0.0
        return linear_backward(dy, cache)

    with pytest.raises(ValueError, match="read-only"):
        check_backward(linear, writes, [x, weight, bias], 0)

    values = {"x": x}
    direction = random_direction(values, np.random.default_rng(0))
    assert_slope(lambda v: float(np.square(v["x"]).sum()), values, {"x": 2 * x}, direction)
    with pytest.raises(AssertionError, match="no gradient"):
        assert_slope(lambda v: 0.0, values, {"x": 0 * x}, direction)


def draw32(seed: int, *shape: int) -> Float32Only:
    return watched(normal(seed, *shape).astype(np.float32))


def attention_pair(with_keys: bool) -> Any:
    distance = np.arange(3)[:, None] - np.arange(3)
    relative = Relative(draw32(5, 9, 4), distance, with_keys)
    _, cache = attention(
        draw32(0, 2, 2, 3, 4), draw32(1, 2, 2, 3, 4), draw32(2, 2, 2, 3, 4), draw32(3, 2, 1, 3, 3),
        head_mask=draw32(4, 2, 1, 1), relative=relative, drop=0.2, rng=np.random.default_rng(0),
    )  # fmt: skip
    return attention_backward(draw32(6, 2, 2, 3, 4), cache)


LABELS = np.array([0, -100, 3])

ONE = np.ones((), np.float32)


BACKWARDS: dict[str, Callable[[], Any]] = {
    "linear": lambda: linear_backward(draw32(0, 3, 5), linear(draw32(1, 3, 4), draw32(2, 5, 4), draw32(3, 5))[1]),
    "layer_norm": lambda: layer_norm_backward(
        draw32(0, 3, 4), layer_norm(draw32(1, 3, 4), draw32(2, 4), draw32(3, 4), 1e-12)[1]
    ),
    "attention, relative_key": lambda: attention_pair(False),
    "attention, relative_key_query": lambda: attention_pair(True),
    "dropout": lambda: dropout_backward(draw32(0, 3, 4), dropout(draw32(1, 3, 4), 0.3, np.random.default_rng(0))[1]),
    "embedding": lambda: embedding_backward(draw32(0, 3, 4), embedding(np.array([1, 1, 0]), draw32(1, 5, 4))[1], 1),
    "cross_entropy": lambda: losses.cross_entropy_backward(ONE, losses.cross_entropy(draw32(0, 3, 4), LABELS)[1]),
    "cross_entropy, divided": lambda: losses.cross_entropy_backward(
        ONE, losses.cross_entropy(draw32(0, 3, 4), LABELS, divisor=3.0)[1]
    ),
    "mean_squared_error": lambda: losses.mean_squared_error_backward(
        ONE, losses.mean_squared_error(draw32(0, 3, 4), draw32(1, 3, 4))[1]
    ),
    "binary_cross_entropy": lambda: losses.binary_cross_entropy_backward(
        ONE, losses.binary_cross_entropy(draw32(0, 3, 4), draw32(1, 3, 4))[1]
    ),
} | {
    name: lambda name=name: ACTIVATIONS[name][1](draw32(0, 50), ACTIVATIONS[name][0](draw32(1, 50))[1])
    for name in ACTIVATION_NAMES
}  # fmt: skip


@pytest.mark.parametrize("name", BACKWARDS)
def test_a_float32_backward_never_touches_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_watching(monkeypatch)
    for gradient in as_tuple(BACKWARDS[name]()):
        assert gradient.dtype == np.float32


@given(seeds, shapes)
def test_memory_order_changes_nothing(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    width = shape[-1]
    x, dy, weight, bias = (rng.standard_normal(s) for s in (shape, (*shape[:-1], 4), (4, width), (4,)))
    plain = linear_backward(dy, linear(x, weight, bias)[1])
    strided = linear_backward(
        np.asfortranarray(dy), linear(np.asfortranarray(x)[..., ::-1][..., ::-1], np.asfortranarray(weight), bias)[1]
    )
    for ours, expected in zip(strided, plain, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)
