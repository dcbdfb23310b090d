"""Only rows that somebody reads are computed, and they come out as if all had been.

The models are float64 with random parameters everywhere, so that a difference is far more than rounding where there is
one at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden_files import assert_close
from gradcheck import DROPOUT, HEAD_MASK, gradients_of, labels_for, model_and_inputs
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spy_array import keep_watching, watched
from strategies import HEADS, configs, main_result, random_ids, random_model, required_arguments, seeds, tiny_config

from npprelnorm import stored
from npprelnorm.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is no decoder"),
    pytest.mark.filterwarnings("ignore:.*holds padding"),
]

encoders = configs(is_decoder=False, add_cross_attention=False)
fewer = settings(max_examples=25)
PER_TOKEN = [head for head in HEADS if head not in ("ForSequenceClassification", "ForMultipleChoice")]
TOLERANCE = 1e-11


@st.composite
def masks(draw: st.DrawFn, max_tokens: int = 7) -> np.ndarray:
    """Masks (B, T) of any kind: padding on either side or inside, none, or nothing but padding."""
    batch, tokens = draw(st.integers(1, 5)), draw(st.integers(1, max_tokens))
    mask = np.random.default_rng(draw(seeds)).random((batch, tokens)) < draw(st.sampled_from((0.2, 0.6, 1.0)))
    if draw(st.booleans()):  # as a tokenizer makes them
        mask = -np.sort(-mask.astype(int), axis=1)
    return mask.astype(np.int64)


def real(mask: np.ndarray) -> np.ndarray:
    """What counts as real: everything in a row of zeros."""
    return (mask == 1) | ~(mask == 1).any(axis=1, keepdims=True)


def inputs_of(head: str, config: Any, mask: np.ndarray, seed: int) -> dict[str, Any]:
    ids = random_ids(config, mask.shape, seed)
    if config.pad_token_id is not None:
        ids[mask == 0] = config.pad_token_id
    rng = np.random.default_rng(seed)
    return required_arguments(head, ids) | {
        "attention_mask": mask[:, None] if head == "ForMultipleChoice" else mask,
        "head_mask": rng.random((config.num_hidden_layers, config.num_attention_heads)) if seed % 2 else None,
    }


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("head", HEADS)
@fewer
@given(config=encoders, mask=masks(), seed=seeds)
def test_packed_is_what_the_whole_batch_gives_and_zeros_elsewhere(
    head: str, config: Any, mask: np.ndarray, seed: int
) -> None:
    model = random_model(head, config, seed, pooler=bool(seed % 3))
    inputs = inputs_of(head, config, mask, seed)
    # attentions are asked for, so everything is computed, padding and all
    whole, packed = model(**inputs, output_attentions=True), model(**inputs, packed=True)
    expected, result = main_result(whole), main_result(packed)
    if head in PER_TOKEN:
        read = real(mask)
        read[:, 0] |= head == "Model" and "pooler_output" in packed
        assert not result[~read].any()
        expected, result = expected[read], result[read]
    assert_close(result, expected, TOLERANCE, head)
    assert_close(main_result(model(**inputs)), main_result(whole), TOLERANCE, "not packed")
    if "pooler_output" in packed:
        assert_close(packed.pooler_output, whole.pooler_output, TOLERANCE, "pooler")


@fewer
@given(config=configs(), mask=masks(), seed=seeds)
def test_reading_some_rows_gives_those_of_the_whole(config: Any, mask: np.ndarray, seed: int) -> None:
    model = random_model("ForMaskedLM", config, seed)
    inputs = inputs_of("ForMaskedLM", config, mask, seed)
    if config.add_cross_attention:
        rng = np.random.default_rng(seed)
        inputs["encoder_hidden_states"] = rng.standard_normal((len(mask), 3, config.hidden_size))
        inputs["encoder_attention_mask"] = rng.random((len(mask), 3)) < 0.7
    read = np.random.default_rng(seed).random(mask.shape) < 0.4  # padding too
    whole = model.base(**inputs, output_hidden_states=True, use_cache=config.is_decoder)
    some = model.base(**inputs, read=read, use_cache=config.is_decoder)
    assert some.last_hidden_state.shape == (read.sum(), config.hidden_size)
    assert_close(some.last_hidden_state, whole.last_hidden_state[read], TOLERANCE, "rows")
    late = model.base(**inputs, read=read, output_hidden_states=True, output_attentions=True)
    assert_close(late.last_hidden_state, whole.last_hidden_state[read], TOLERANCE, "rows, with hidden states")
    for ours, theirs in zip(late.hidden_states, whole.hidden_states, strict=True):
        assert_close(ours, theirs, TOLERANCE, "hidden states")
    if config.is_decoder:  # the keys and values of rows that nobody reads are read by the next tokens
        for ours, theirs in zip(some.past_key_values, whole.past_key_values, strict=True):
            for part, other in zip(ours, theirs, strict=True):
                assert (part is None) == (other is None)
                if part is not None:
                    assert_close(part, other, TOLERANCE, "cache")


FORMS = ("3-D", "4-D", "4-D for each head", "4-D for all queries", "4-D for all", "none")


@pytest.mark.parametrize("form", FORMS)
@fewer
@given(config=configs(), seed=seeds, batch=st.integers(1, 3), tokens=st.integers(1, 6))
def test_masks_for_each_query_keep_their_meaning(form: str, config: Any, seed: int, batch: int, tokens: int) -> None:
    rng = np.random.default_rng(seed)
    shape = {
        "3-D": (batch, tokens, tokens),
        "4-D": (batch, 1, tokens, tokens),
        "4-D for each head": (batch, config.num_attention_heads, tokens, tokens),
        "4-D for all queries": (batch, 1, 1, tokens),
        "4-D for all": (1, 1, tokens, tokens),
    }.get(form)
    mask = None
    if shape:
        mask = rng.random(shape) < 0.6 if form == "3-D" else rng.standard_normal(shape)
    model = random_model("ForMaskedLM", config, seed)
    ids, read = random_ids(config, (batch, tokens), seed), rng.random((batch, tokens)) < 0.5
    whole = model.base(ids, mask, output_attentions=True).last_hidden_state
    assert_close(model.base(ids, mask, packed=True).last_hidden_state, whole, TOLERANCE, "packed")
    assert_close(model.base(ids, mask, read=read).last_hidden_state, whole[read], TOLERANCE, "read")


@fewer
@given(config=configs(), mask=masks(), seed=seeds, data=st.data())
def test_a_causal_model_projects_what_is_kept(config: Any, mask: np.ndarray, seed: int, data: st.DataObject) -> None:
    """Any positions, in any order, twice as well; with `packed` those of padding are zeros unless they are labelled."""
    model = random_model("ForCausalLM", config, seed)
    inputs = inputs_of("ForCausalLM", config, mask, seed)
    tokens = mask.shape[1]
    positions = data.draw(st.lists(st.integers(-tokens, tokens - 1), min_size=1, max_size=6))
    labels = np.random.default_rng(seed).integers(0, config.vocab_size, (len(mask), len(positions)))
    labels[np.random.default_rng(seed).random(labels.shape) < 0.8] = -100
    whole = model(**inputs).logits[:, positions]
    assert_close(model(**inputs, logits_to_keep=positions).logits, whole, TOLERANCE, "kept")
    packed = model(**inputs, logits_to_keep=positions, packed=True).logits
    there = real(mask)[:, positions]
    assert_close(packed[there], whole[there], TOLERANCE, "packed")
    assert not packed[~there].any()
    assume((labels != -100).any())
    more = {"labels": labels, "shift_labels": labels, "logits_to_keep": positions}
    ours, theirs = model(**inputs, **more, packed=True), model(**inputs, **more)
    assert_close(ours.loss, theirs.loss, TOLERANCE, "loss")
    assert_close(ours.logits[labels != -100], theirs.logits[labels != -100], TOLERANCE, "labelled")


def test_a_label_that_counts_is_read_even_on_padding() -> None:
    for head in ("ForMaskedLM", "ForTokenClassification", "ForCausalLM"):
        model, inputs = model_and_inputs(head, is_decoder=False, num_labels=4)
        inputs["labels"] = np.ones_like(inputs["input_ids"])
        assert (inputs["attention_mask"] == 0).any()
        whole, packed = model(**inputs), model(**inputs, packed=True)
        assert_close(packed.loss, whole.loss, TOLERANCE, head)
        assert packed.logits[0].all()


def test_the_loss_of_question_answering_runs_over_padding() -> None:
    model, inputs = model_and_inputs("ForQuestionAnswering")
    whole, packed = model(**inputs), model(**inputs, packed=True)
    assert (inputs["attention_mask"] == 0).any()
    assert_close(packed.loss, whole.loss, TOLERANCE, "loss")
    assert_close(packed.start_logits, whole.start_logits, TOLERANCE, "with positions nothing is left out")


def test_an_empty_batch_and_nothing_read() -> None:
    for head in HEADS:
        model = random_model(head, tiny_config())
        ids = required_arguments(head, np.zeros((0, 4), int))
        mask = np.ones_like(ids["input_ids"])
        assert len(main_result(model(**ids, attention_mask=mask, packed=True))) == 0
    nothing = model.base([[3, 4, 1]], [[1, 1, 0]], read=np.zeros((1, 3), bool)).last_hidden_state
    assert nothing.shape == (0, 12)


@pytest.mark.parametrize("head", HEADS)
def test_packed_float32_never_touches_float64(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_watching(monkeypatch)
    model = random_model(head, tiny_config(), dtype="float32")
    model.params = {name: watched(value) for name, value in model.params.items()}
    mask = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    result = main_result(model(**inputs_of(head, model.config, mask, 1), packed=True))
    assert result.dtype == np.float32
    assert result.any()


def test_hidden_states_and_attentions_are_whole() -> None:
    model, inputs = model_and_inputs("Model")
    whole = model(**inputs, output_hidden_states=True, output_attentions=True)
    packed = model(**inputs, output_hidden_states=True, output_attentions=True, packed=True)
    for name in ("hidden_states", "attentions"):
        for ours, theirs in zip(packed[name], whole[name], strict=True):
            assert np.array_equal(ours, theirs), name
    assert not packed.last_hidden_state[inputs["attention_mask"] == 0].any()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"packed": 1}, r"^packed is 1; allowed: False, True$"),
        ({"packed": "yes"}, r"^packed is 'yes'; allowed"),
        ({"read": np.ones((1, 2), bool)}, r"^read has shape \(1, 2\) and dtype bool; expected booleans .* \(1, 3\)$"),
        ({"read": np.ones((1, 3), int)}, r"^read has shape \(1, 3\) and dtype int64; expected booleans"),
        ({"read": [[True], [True, False]]}, r"^read has rows of different lengths"),
    ],
)
def test_errors(arguments: dict[str, Any], expected: str) -> None:
    model = random_model("ForMaskedLM", tiny_config())
    with pytest.raises(InputError, match=expected):
        model.base([[3, 4, 5]], **arguments)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=12)
@given(config=configs(layer_norm_eps=1e-5), mask=masks(), seed=seeds, recompute=st.booleans())
def test_gradients_are_those_of_the_whole_batch(
    head: str, config: Any, mask: np.ndarray, seed: int, recompute: bool
) -> None:
    config.problem_type = "single_label_classification"
    model = random_model(head, config, seed)
    inputs = {name: value for name, value in inputs_of(head, config, mask, seed).items() if value is not None}
    shape = inputs["input_ids"].shape
    rng = np.random.default_rng(seed)
    labels = labels_for(head, config, shape, rng)
    if "start_positions" in labels:
        labels = {name: rng.integers(0, shape[-1], shape[0]) for name in labels}
    if head == "ForCausalLM":
        assume((labels["labels"][:, 1:] != -100).any())
    # attentions are asked for, so everything is computed, padding and all
    wanted = ["inputs_embeds", *(["head_mask"] if "head_mask" in inputs else [])]
    if head == "Model":
        whole_mask = real(mask)[..., None]
        cotangent = rng.standard_normal((*mask.shape, config.hidden_size)) * whole_mask
        d = {"last_hidden_state": cotangent, "pooler_output": rng.standard_normal((len(mask), config.hidden_size))}
        whole, packed = (
            model.vjp(d, **inputs, input_grads=wanted, recompute=recompute, **way)[1]
            for way in ({"output_attentions": True}, {"packed": True})
        )
    else:
        whole, packed = (
            model.loss_and_grads(**inputs, **labels, input_grads=wanted, recompute=recompute, **way)[1]
            for way in ({"output_attentions": True}, {"packed": True})
        )
    assert packed.keys() == whole.keys()
    for name, value in whole.items():
        assert packed[name].shape == value.shape, name
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(packed[name], value, rtol=0, atol=1e-9 * scale, err_msg=name)


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification", "ForSequenceClassification", "Model"])
def test_gradients_with_dropout_are_repeatable(head: str) -> None:
    """The same seed is the same function, with and without `recompute`; and dropout is there at all."""
    model, inputs = model_and_inputs(head, **DROPOUT)
    first, again, recomputed, other = (
        gradients_of(model, inputs, rng=rng, packed=True, recompute=recompute)
        for rng, recompute in ((1, False), (1, False), (1, True), (2, False))
    )
    for name, value in first.items():
        assert np.array_equal(again[name], value), name
        assert np.array_equal(recomputed[name], value), name
    assert any(not np.array_equal(other[name], value) for name, value in first.items())


def test_gradients_of_the_head_mask_add_up_over_lengths() -> None:
    model, inputs = model_and_inputs("ForMaskedLM", given=HEAD_MASK)
    inputs["attention_mask"] = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    whole, packed = (
        model.loss_and_grads(**inputs, input_grads=["head_mask"], packed=packed)[1]["head_mask"]
        for packed in (False, True)
    )
    assert_close(packed, whole, TOLERANCE, "head mask")


# ---------------------------------------------------------------- what it costs


class Count:
    """How many rows go through linear maps, by the shape of the map."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[tuple[int, ...], list[int]] = {}
        monkeypatch.setattr(stored, "linear", self.counting(stored.linear))

    def counting(self, linear: Any) -> Any:
        def counted(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
            self.rows.setdefault(weight.shape, []).append(x.size // x.shape[-1])
            return linear(x, weight, bias)

        return counted

    def of(self, call: Any) -> tuple[list[int], list[int], list[int]]:
        """Rows of the layers' square maps (query, key, value, output; two layers), of the wide ones, of the head."""
        self.rows.clear()
        call()
        square, wide = self.rows.pop((12, 12)), self.rows.pop((17, 12))
        self.rows.pop((12, 17))
        return square[:8], wide, [count for counts in self.rows.values() for count in counts]


MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])  # 9 of 15 are real, 10 with the first ones
IDS = np.where(MASK == 1, 7, 1)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    return Count(monkeypatch)


def test_rows_of_a_classifier(count: Count) -> None:
    model = random_model("ForSequenceClassification", tiny_config())
    ten = ([10] * 4 + [3, 10, 10, 3], [10, 3], [3])
    assert count.of(lambda: model(IDS, MASK)) == ten
    assert count.of(lambda: model.loss_and_grads(input_ids=IDS, attention_mask=MASK, labels=[0, 1, 1])) == ten
    whole = ([15] * 8, [15, 15], [3])
    assert count.of(lambda: model(IDS, MASK, output_hidden_states=True)) == whole
    assert count.of(lambda: model(IDS, MASK, output_attentions=True)) == whole
    no_mask = ([15] * 4 + [3, 15, 15, 3], [15, 3], [3])
    assert count.of(lambda: model(IDS)) == no_mask
    assert count.of(lambda: model(IDS, np.ones((3, 5, 5), int))) == no_mask
    nothing_real = MASK * [[1], [0], [1]]  # then its row is kept whole
    assert count.of(lambda: model(IDS, nothing_real)) == ([12] * 4 + [3, 12, 12, 3], [12, 3], [3])


def test_rows_of_multiple_choice(count: Count) -> None:
    model = random_model("ForMultipleChoice", tiny_config())
    assert count.of(lambda: model(IDS[None], MASK[None])) == ([10] * 4 + [3, 10, 10, 3], [10, 3], [3])


@pytest.mark.parametrize("head", ["ForTokenClassification", "ForQuestionAnswering"])
def test_rows_of_per_token_heads(head: str, count: Count) -> None:
    model = random_model(head, tiny_config())
    assert count.of(lambda: model(IDS, MASK)) == ([15] * 8, [15, 15], [15])
    assert count.of(lambda: model(IDS, MASK, packed=True)) == ([9] * 8, [9, 9], [9])


def test_rows_of_masked_language_models(count: Count) -> None:
    model = random_model("ForMaskedLM", tiny_config())
    assert count.of(lambda: model(IDS, MASK, packed=True)) == ([9] * 8, [9, 9], [9])
    labels = np.full(IDS.shape, -100)
    labels[0, 2] = labels[0, 4] = labels[2, 1] = labels[2, 4] = 5  # the last of them on padding
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": labels, "labelled_only": True}
    expected = ([10] * 4 + [4, 10, 10, 4], [10, 4], [4])
    assert count.of(lambda: model(**inputs)) == expected
    assert count.of(lambda: model.loss_and_grads(**inputs, packed=True)) == expected
    read = np.zeros(IDS.shape, bool)
    read[1, 1] = True
    assert count.of(lambda: model.base(IDS, MASK, read=read)) == ([9] * 4 + [1, 9, 9, 1], [9, 1], [])


def test_rows_of_causal_language_models(count: Count) -> None:
    model = random_model("ForCausalLM", tiny_config(is_decoder=True))
    assert count.of(lambda: model(IDS, MASK, logits_to_keep=1)) == ([15] * 4 + [3, 15, 15, 3], [15, 3], [3])
    assert count.of(lambda: model(IDS, MASK, logits_to_keep=[0, 0])) == ([15] * 4 + [3, 15, 15, 3], [15, 3], [6])
    assert count.of(lambda: model(IDS, MASK, packed=True)) == ([15] * 4 + [9, 15, 15, 9], [15, 9], [9])
    assert count.of(lambda: model(IDS, MASK)) == ([15] * 8, [15, 15], [15])
