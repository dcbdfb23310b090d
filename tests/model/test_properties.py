"""What must hold for every model, whatever its numbers: padding, order, chunks, heads, positions, the residual stream.

The models are float64 with random parameters everywhere, so that a property fails by far more than rounding when it
fails at all.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from golden_files import assert_close
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import (
    HEADS,
    configs,
    integer_dtypes,
    layer_norm_of,
    main_result,
    padded_ids,
    random_ids,
    random_model,
    required_arguments,
    seeds,
    tiny_config,
)

from npprelnorm.errors import InputWarning
from npprelnorm.masks import positions_from_ids

# hidden 4 with a tiny eps can divide by nearly nothing; exactness is measured where rounding is not blown up
TOLERANCE = {"float64": 1e-11, "float32": 1e-4}
encoders = configs(is_decoder=False, add_cross_attention=False)
heads = pytest.mark.parametrize("head", HEADS)
fewer = settings(max_examples=30)
lengths = st.integers(1, 8)


@pytest.fixture(autouse=True)
def no_advice() -> Iterator[None]:
    """Many of these calls are legal but unusual (padding without a mask, a causal model that is none)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        yield


def run(head: str, model: Any, ids: np.ndarray, mask: np.ndarray | None = None, **more: Any) -> np.ndarray:
    if mask is not None and head == "ForMultipleChoice":
        mask = mask[:, None]
    return main_result(model(**required_arguments(head, ids), attention_mask=mask, **more))


def per_token(head: str) -> bool:
    return head not in ("ForSequenceClassification", "ForMultipleChoice")


# ---- padding and the batch


@heads
@fewer
@given(config=encoders, seed=seeds, tokens=lengths, extra=st.integers(1, 4))
def test_padding_on_the_right_changes_nothing(head: str, config: Any, seed: int, tokens: int, extra: int) -> None:
    assume(config.position_embedding_type == "absolute" or tokens + extra <= config.max_position_embeddings)
    model = random_model(head, config, seed)
    ids = random_ids(config, (2, tokens), seed)
    padded = np.pad(ids, ((0, 0), (0, extra)), constant_values=config.pad_token_id)
    result = run(head, model, padded, (padded != config.pad_token_id).astype(int))
    if per_token(head):
        result = result[:, :tokens]
    alone = run(head, model, ids)
    # two choices share nothing, so the logits of one choice each are enough here
    assert_close(result, alone, TOLERANCE["float64"], head)


@fewer
@given(config=configs(position_embedding_type="absolute"), seed=seeds, tokens=lengths, extra=st.integers(1, 4))
def test_padding_on_the_left_changes_nothing_with_or_without_positions(
    config: Any, seed: int, tokens: int, extra: int
) -> None:
    """Counted positions skip padding by themselves; given ones must do so too."""
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    padded = np.pad(ids, ((0, 0), (extra, 0)), constant_values=config.pad_token_id)
    mask = (padded != config.pad_token_id).astype(int)
    alone = run("Model", model, ids)
    assert_close(run("Model", model, padded, mask)[:, extra:], alone, TOLERANCE["float64"], "counted")
    first = config.pad_token_id + 1
    positions = np.concatenate([np.zeros(extra, int), np.arange(first, first + tokens)])
    given_positions = run("Model", model, padded, mask, position_ids=positions)
    assert_close(given_positions[:, extra:], alone, TOLERANCE["float64"], "given")


@heads
@fewer
@given(config=configs(), seed=seeds, tokens=lengths, batch=st.integers(2, 4))
def test_rows_of_a_batch_are_independent_and_in_order(
    head: str, config: Any, seed: int, tokens: int, batch: int
) -> None:
    model = random_model(head, config, seed)
    ids = random_ids(config, (batch, tokens), seed)
    order = np.random.default_rng(seed).permutation(batch)
    together = run(head, model, ids)
    assert_close(run(head, model, ids[order]), together[order], TOLERANCE["float64"], "permuted")
    for row in range(batch):
        assert_close(run(head, model, ids[row : row + 1])[0], together[row], TOLERANCE["float64"], "alone")


@fewer
@given(config=configs(is_decoder=False, position_embedding_type="absolute"), seed=seeds, tokens=st.integers(2, 8))
def test_without_positions_the_order_of_tokens_does_not_matter(config: Any, seed: int, tokens: int) -> None:
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    order = np.random.default_rng(seed).permutation(tokens)
    ordered = run("Model", model, ids, position_ids=np.zeros(tokens, int))
    assert_close(
        run("Model", model, ids[:, order], position_ids=np.zeros(tokens, int)), ordered[:, order], 1e-11, "permuted"
    )
    model.params["embeddings.position_embeddings.weight"] = np.zeros_like(
        model.params["embeddings.position_embeddings.weight"]
    )
    assert_close(run("Model", model, ids[:, order]), run("Model", model, ids)[:, order], 1e-11, "zeroed")


@pytest.mark.parametrize("position_type", ["absolute", "relative_key", "relative_key_query"])
def test_with_positions_the_order_of_tokens_matters(position_type: str) -> None:
    model = random_model("Model", tiny_config(position_embedding_type=position_type))
    ids = random_ids(model.config, (1, 6), 0)
    turned = ids[:, ::-1]
    assert np.abs(run("Model", model, turned)[:, ::-1] - run("Model", model, ids)).max() > 1e-2


# ---- chunks, heads, positions, token types, embeddings


@heads
@fewer
@given(config=configs(), seed=seeds, tokens=lengths, chunk=st.integers(1, 9))
def test_chunks_change_nothing(head: str, config: Any, seed: int, tokens: int, chunk: int) -> None:
    model = random_model(head, config, seed)
    ids = random_ids(config, (2, tokens), seed)
    whole = run(head, model, ids)
    model.config.chunk_size_feed_forward = chunk
    assert_close(run(head, model, ids), whole, 1e-12, f"chunks of {chunk}")


@fewer
@given(config=configs(), seed=seeds, tokens=lengths, data=st.data())
def test_a_head_masked_by_zero_is_a_head_removed(config: Any, seed: int, tokens: int, data: st.DataObject) -> None:
    """Removed: the columns of its output in output.dense are zero."""
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    rng = np.random.default_rng(seed)
    encoder = {"encoder_hidden_states": rng.standard_normal((2, 3, config.hidden_size))} if config.is_decoder else {}
    encoder = encoder if config.add_cross_attention else {}
    layer = data.draw(st.integers(0, config.num_hidden_layers - 1))
    head = data.draw(st.integers(0, config.num_attention_heads - 1))
    factors = np.ones((config.num_hidden_layers, config.num_attention_heads))
    factors[layer, head] = 0.0
    masked = run("Model", model, ids, head_mask=factors, **encoder)
    for kind in ("attention", "crossattention") if encoder else ("attention",):
        name = f"encoder.layer.{layer}.{kind}.output.dense.weight"
        weight = model.params[name].copy()
        weight[:, head * config.head_size : (head + 1) * config.head_size] = 0.0
        model.params[name] = weight
    assert_close(masked, run("Model", model, ids, **encoder), 1e-12, "head removed")
    assert_close(
        run("Model", model, ids, head_mask=factors[layer], **encoder),
        run("Model", model, ids, head_mask=np.tile(factors[layer], (len(factors), 1)), **encoder),
        1e-15,
        "one row for all layers",
    )


@given(data=st.data(), past=st.integers(0, 5), pad=st.integers(0, 3))
def test_positions_against_a_loop(data: st.DataObject, past: int, pad: int) -> None:
    config = tiny_config(pad_token_id=pad)
    ids, _ = data.draw(padded_ids(config))
    expected = []
    for row in ids.tolist():
        count, positions = past, []
        for token in row:
            count += token != pad
            positions.append(pad + count if token != pad else pad)
        expected.append(positions)
    assert positions_from_ids(ids, pad, past).tolist() == expected


@fewer
@given(config=configs(position_embedding_type="absolute"), seed=seeds, tokens=lengths)
def test_counted_positions_start_after_the_padding_id(config: Any, seed: int, tokens: int) -> None:
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    first = config.pad_token_id + 1
    for positions in (np.arange(first, first + tokens), np.arange(first, first + tokens)[None].repeat(2, axis=0)):
        np.testing.assert_array_equal(run("Model", model, ids, position_ids=positions), run("Model", model, ids))


@fewer
@given(config=configs(type_vocab_size=3), seed=seeds, tokens=lengths)
def test_token_types_shift_the_embeddings(config: Any, seed: int, tokens: int) -> None:
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    types = np.random.default_rng(seed).integers(0, 3, (2, tokens))
    typed = run("Model", model, ids, token_type_ids=types)
    np.testing.assert_array_equal(
        run("Model", model, ids, token_type_ids=np.zeros_like(types)), run("Model", model, ids)
    )
    table = model.params["embeddings.token_type_embeddings.weight"]
    words = model.params["embeddings.word_embeddings.weight"][ids] + table[types] - table[0]
    assert_close(main_result(model(inputs_embeds=words)), typed, 1e-10, "types added by hand")


@heads
@fewer
@given(config=configs(), seed=seeds, tokens=lengths)
def test_inputs_embeds_are_the_same_path(head: str, config: Any, seed: int, tokens: int) -> None:
    model = random_model(head, config, seed)
    ids = random_ids(config, (2, tokens), seed)
    arguments = required_arguments(head, ids)
    words = model.params[f"{model.base_prefix}embeddings.word_embeddings.weight"][arguments.pop("input_ids")]
    np.testing.assert_array_equal(main_result(model(inputs_embeds=words, **arguments)), run(head, model, ids))


@fewer
@given(config=configs(), seed=seeds, tokens=lengths)
def test_rows_that_no_token_reads_do_not_matter(config: Any, seed: int, tokens: int) -> None:
    """Among them the padding row, when nothing is padded and the LM head is not tied to it."""
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    before = run("Model", model, ids)
    words = model.params["embeddings.word_embeddings.weight"].copy()
    words[np.setdiff1d(np.arange(len(words)), ids)] = np.nan
    positions = model.params["embeddings.position_embeddings.weight"].copy()
    positions[: config.pad_token_id + 1] = np.nan
    positions[config.pad_token_id + 1 + tokens :] = np.nan
    model.params |= {"embeddings.word_embeddings.weight": words, "embeddings.position_embeddings.weight": positions}
    np.testing.assert_array_equal(run("Model", model, ids), before)


# ---- the shape of the network


@fewer
@given(config=configs(), seed=seeds, tokens=lengths)
def test_the_identity_path_is_untouched(config: Any, seed: int, tokens: int) -> None:
    """Blocks that write nothing leave the embeddings as they are; only the final LayerNorm is left."""
    model = random_model("Model", config, seed)
    for name, value in model.params.items():
        if ".layer." in name and ("output.dense" in name):
            model.params[name] = np.zeros_like(value)
    output = model(random_ids(config, (2, tokens), seed), output_hidden_states=True, hidden_states_convention="v4")
    for state in output.hidden_states[1:]:
        np.testing.assert_array_equal(state, output.hidden_states[0])


@fewer
@given(config=configs(num_hidden_layers=2), seed=seeds, tokens=lengths)
def test_each_block_adds_to_what_came_before(config: Any, seed: int, tokens: int) -> None:
    """y = x + f(LN(x)) adds whatever the bias of f's last map is, whatever x is; y = LN(x + f(x)) would not."""
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    before = model(ids, output_hidden_states=True, hidden_states_convention="v4").hidden_states
    shift = np.random.default_rng(seed).standard_normal(config.hidden_size)
    name = "encoder.layer.1.output.dense.bias"
    model.params[name] = model.params[name] + shift
    after = model(ids, output_hidden_states=True, hidden_states_convention="v4").hidden_states
    assert_close(after[2], before[2] + shift, 1e-12, "shifted by the bias")
    np.testing.assert_array_equal(after[1], before[1])


@fewer
@given(config=configs(), seed=seeds, tokens=lengths)
def test_hidden_states_of_both_conventions(config: Any, seed: int, tokens: int) -> None:
    model = random_model("Model", config, seed)
    ids = random_ids(config, (2, tokens), seed)
    v5 = model(ids, output_hidden_states=True)
    v4 = model(ids, output_hidden_states=True, hidden_states_convention="v4")
    assert len(v5.hidden_states) == len(v4.hidden_states) == config.num_hidden_layers + 1
    assert np.array_equal(v5.hidden_states[-1], v5.last_hidden_state)
    assert np.shares_memory(v5.hidden_states[-1], v5.last_hidden_state)
    for a, b in zip(v5.hidden_states[:-1], v4.hidden_states[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    weight, bias = model.params["LayerNorm.weight"], model.params["LayerNorm.bias"]
    final = layer_norm_of(v4.hidden_states[-1], weight, bias, config.layer_norm_eps)
    assert_close(v4.last_hidden_state, final, 1e-11, "final LayerNorm")
    assert np.abs(v4.hidden_states[-1] - v4.last_hidden_state).max() > 1e-3
    np.testing.assert_array_equal(v4.last_hidden_state, v5.last_hidden_state)


@fewer
@given(config=configs(), seed=seeds, tokens=lengths)
def test_the_pooler_reads_row_0(config: Any, seed: int, tokens: int) -> None:
    output = random_model("Model", config, seed)(random_ids(config, (2, tokens), seed))
    model = random_model("Model", config, seed)
    weight, bias = model.params["pooler.dense.weight"], model.params["pooler.dense.bias"]
    expected = np.tanh(output.last_hidden_state[:, 0] @ weight.T + bias)
    assert_close(output.pooler_output, expected, 1e-13, "pooler")
    assert "pooler_output" not in random_model("Model", config, seed, pooler=False)(random_ids(config, (2, 3), seed))


@fewer
@given(config=configs(hidden_act="relu"), seed=seeds, tokens=lengths)
def test_the_lm_head_is_exact_gelu_whatever_the_layers_use(config: Any, seed: int, tokens: int) -> None:
    model = random_model("ForMaskedLM", config, seed)
    p = model.params
    output = model(random_ids(config, (2, tokens), seed), output_hidden_states=True)
    x = output.hidden_states[-1] @ p["lm_head.dense.weight"].T + p["lm_head.dense.bias"]
    x = 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))
    x = layer_norm_of(x, p["lm_head.layer_norm.weight"], p["lm_head.layer_norm.bias"], config.layer_norm_eps)
    if config.tie_word_embeddings:
        decoder, bias = p["roberta_prelayernorm.embeddings.word_embeddings.weight"], p["lm_head.bias"]
    else:
        decoder, bias = p["lm_head.decoder.weight"], p["lm_head.decoder.bias"]
    assert_close(output.logits, x @ decoder.T + bias, 1e-10, "logits")
    rows = model.lm_head(output.hidden_states[-1][0, :1])
    assert_close(rows, output.logits[0, :1], 1e-12, "some rows")


# ---- what a call leaves alone


@heads
@fewer
@given(config=configs(), seed=seeds, dtype=integer_dtypes)
def test_no_argument_and_no_parameter_is_written_to(head: str, config: Any, seed: int, dtype: str) -> None:
    model = random_model(head, config, seed)
    arguments = required_arguments(head, random_ids(config, (2, 4), seed).astype(dtype))
    arguments["attention_mask"] = np.ones_like(arguments["input_ids"])
    for array in (*arguments.values(), *model.params.values()):
        array.flags.writeable = False
    first = main_result(model(**arguments)).copy()
    np.testing.assert_array_equal(main_result(model(**arguments)), first)
    strided = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in arguments.items()}
    assert not strided["input_ids"].flags.c_contiguous
    np.testing.assert_array_equal(main_result(model(**strided)), first)


@heads
def test_nan_in_a_parameter_reaches_the_result_without_a_warning(head: str) -> None:
    model = random_model(head, tiny_config())
    name = f"{model.base_prefix}LayerNorm.bias"
    model.params[name] = np.full_like(model.params[name], np.nan)
    assert np.isnan(main_result(model(**required_arguments(head, np.array([[5, 6, 7]]))))).all()
