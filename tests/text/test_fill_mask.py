"""fill-mask on the embedded model: transformers' answers (golden), its options, batches, and errors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError, InputError, InputWarning, TokenizerError
from npprelnorm.pipelines.base import Pipeline

GOLDEN = json.loads((Path(__file__).parent / "golden" / "fill_mask.json").read_text())["records"]
TEXTS = [record["text"] for record in GOLDEN]
FILL = nl.pipeline("fill-mask")
PARIS = "The capital of France is <mask>."


def assert_close(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    """The same answers, to rounding; two candidates whose scores are equal to rounding may change places."""
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b, tolerance)
    else:
        assert abs(one["score"] - other["score"]) <= tolerance
        assert {**one, "score": 0} == {**other, "score": 0}


def test_golden() -> None:
    assert len(GOLDEN) == 200
    assert sum(len(record["masks"]) == 2 for record in GOLDEN) >= 15
    names = ("token", "score", "token_str", "sequence")
    for record, answer in zip(GOLDEN, FILL(TEXTS), strict=True):
        expected = [[dict(zip(names, one, strict=True)) for one in mask] for mask in record["masks"]]
        assert_close(answer, expected if len(expected) > 1 else expected[0])


def test_the_shape_of_answers() -> None:
    single = FILL(PARIS)
    assert [set(candidate) for candidate in single] == [{"score", "token", "token_str", "sequence"}] * 5
    assert [type(value) for value in single[0].values()] == [float, int, str, str]
    assert single[0]["sequence"] == "The capital of France is Paris."
    assert single[0]["token_str"] == " Paris"
    assert_close(FILL([PARIS]), [single])
    assert FILL([]) == []
    two = FILL("The <mask> of France is <mask>.")
    assert [len(candidates) for candidates in two] == [5, 5]
    assert two[1][0]["sequence"] == "<s>The<mask> of France is Paris.</s>"
    mixed = FILL([PARIS, "The <mask> of France is <mask>."])
    assert_close(mixed, [single, two])
    json.dumps(mixed)


def test_scores_are_probabilities_in_falling_order() -> None:
    everything = FILL(PARIS, top_k=10**6)
    scores = [candidate["score"] for candidate in everything]
    assert len(everything) == FILL.model.config.vocab_size == len({candidate["token"] for candidate in everything})
    assert scores == sorted(scores, reverse=True)
    assert abs(sum(scores) - 1) < 1e-5
    assert_close(everything[:3], FILL(PARIS, top_k=3))


def test_targets() -> None:
    everything = {candidate["token"]: candidate for candidate in FILL(PARIS, top_k=10**6)}
    paris, rome = (FILL.tokenizer.token_to_id(token) for token in ("ĠParis", "ĠRome"))
    answer = FILL(PARIS, targets=[" Rome", "ĠParis", " Paris"])
    assert_close(answer, [everything[paris], everything[rome]])
    assert_close(FILL(PARIS, targets=[" Rome", " Paris"], top_k=1), [everything[paris]])
    assert_close(FILL(PARIS, targets=" Rome"), [everything[rome]])
    with pytest.warns(InputWarning, match=r"the target ' Parisian' is \d tokens, of which only the first, ' P"):
        first = FILL(PARIS, targets=[" Parisian"])
    assert first[0]["token"] == FILL.tokenizer(" Parisian", add_special_tokens=False).input_ids[0, 0]


def test_a_predicted_padding_is_left_out_of_the_sequence() -> None:
    answer = FILL("The <mask> is <mask>.", targets="<pad>")
    assert answer[0][0]["sequence"] == "<s>The is<mask>.</s>"


@settings(max_examples=15)
@given(st.permutations(range(24)), st.integers(1, 200))
def test_order_and_batches_change_nothing(order: list[int], max_batch_tokens: int) -> None:
    fill = nl.pipeline("fill-mask", FILL.model, FILL.tokenizer, max_batch_tokens=max_batch_tokens)
    expected = ONE_BY_ONE
    for index, answer in zip(order, fill([TEXTS[index] for index in order], top_k=2), strict=True):
        assert_close(answer, expected[index])


ONE_BY_ONE = [FILL(text, top_k=2) for text in TEXTS[:24]]


def test_batches_keep_to_the_budget_and_hold_every_row_once() -> None:
    rows = FILL.encode(TEXTS, truncation=False)
    fill = nl.pipeline("fill-mask", FILL.model, FILL.tokenizer, max_batch_tokens=64)
    batches = list(fill.batches(rows))
    assert sorted(index for batch in batches for index in batch.indices) == list(range(len(TEXTS)))
    for batch in batches:
        assert batch.input_ids.size <= 64
        assert batch.attention_mask.sum(axis=1).tolist() == batch.lengths
        for line, index in enumerate(batch.indices):
            assert batch.input_ids[line, : batch.lengths[line]].tolist() == rows[index].tolist()
            assert (batch.input_ids[line, batch.lengths[line] :] == 1).all()
    filled = sum(sum(batch.lengths) for batch in batches) / sum(batch.input_ids.size for batch in batches)
    assert filled > 0.97  # sorted by length; in the order of the texts it is about 0.75


def test_only_masked_rows_go_through_the_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = type(FILL.model).top_tokens
    monkeypatch.setattr(
        type(FILL.model), "top_tokens", lambda self, rows, *rest: seen.append(rows.shape) or original(self, rows, *rest)
    )
    FILL(["The <mask> of France is <mask>.", PARIS])
    assert seen == [(3, 128)]


def test_too_long_a_text() -> None:
    long = "The dog barks. " * 40 + PARIS
    with pytest.raises(InputError, match=r"the text has \d+ tokens, more than the 128 that this model takes"):
        FILL(long)
    with pytest.raises(InputError, match=r"text 1 \(counted from 0\) has \d+ tokens"):
        FILL([PARIS, long])
    with pytest.raises(InputError, match="has no <mask> in its first 128 tokens"):
        FILL(long, truncation=True)
    cut = PARIS + " The dog barks." * 40
    ids = FILL.tokenizer(cut, truncation=True, max_length=128).input_ids
    logits = FILL.model(ids).logits[0, int((ids[0] == FILL.tokenizer.mask_token_id).argmax())]
    assert FILL(cut, truncation=True)[0]["token"] == int(logits.argmax())
    longest = "~" * 125 + "<mask>"  # which no vocabulary of ours has joined
    assert len(FILL(longest)) == 5
    with pytest.raises(InputError, match="has 129 tokens"):
        FILL("~" + longest)


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ("no mask", {}, InputError, "the text has no <mask>; write <mask> where the missing word is"),
        ([PARIS, ""], {}, InputError, r"text 1 \(counted from 0\) has no <mask>"),
        (5, {}, InputError, "the input is a int; give a string or a list of strings"),
        ([5], {}, InputError, r"text\[0\] is a int"),
        ({"a": 1}, {}, InputError, "the input is a dict"),
        ("<mask> \ud800", {}, TokenizerError, "half a character"),
        (PARIS, {"top_k": 0}, InputError, "top_k is 0; it must be a whole number from 1"),
        (PARIS, {"top_k": 2.5}, InputError, "top_k is 2.5"),
        (PARIS, {"top_k": True}, InputError, "top_k is True"),
        (PARIS, {"targets": []}, InputError, "targets is empty"),
        (PARIS, {"targets": ""}, InputError, "the target '' has no tokens"),
        (PARIS, {"targets": [5]}, InputError, "the token is a int, not a string"),
        (PARIS, {"truncation": "only_first"}, InputError, "truncation is 'only_first'; allowed: False, True"),
    ],
)
def test_wrong_input(texts: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        FILL(texts, **options)
    assert "\n" not in str(caught.value)


# ---- making a pipeline


def test_models_and_tokenizers_by_path_and_by_object(tmp_path: Path) -> None:
    folder = nl.embedded_model_path()
    expected = FILL(PARIS)
    for arguments in (
        (str(folder),),
        (folder,),
        (folder, folder),
        (FILL.model, folder),
        (folder, FILL.tokenizer),
        (FILL.model, FILL.tokenizer),
    ):
        assert_close(nl.pipeline("fill-mask", *arguments)(PARIS), expected)
    exact = nl.pipeline("fill-mask", dtype="float64")
    assert exact.model.dtype == np.float64
    assert_close(exact(PARIS), expected)


def test_the_embedded_model_is_logged_not_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="npprelnorm"):
        nl.pipeline("fill-mask")
    assert "using the embedded one, which knows a toy world only" in caplog.text
    caplog.clear()
    nl.pipeline("fill-mask", nl.embedded_model_path())
    assert "embedded" not in caplog.text
    assert capfd.readouterr() == ("", "")


def test_wrong_pipelines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task is 'fill_mask'; allowed: 'fill-mask', 'feature-extraction'"):
        nl.pipeline("fill_mask")
    with pytest.raises(InputError, match="task is None"):
        nl.pipeline(None)
    with pytest.raises(InputError, match="needs its tokenizer: pass a folder or a Tokenizer"):
        nl.pipeline("fill-mask", FILL.model)
    with pytest.raises(InputError, match=r"needs a RobertaPreLayerNormForMaskedLM, not a RobertaPreLayerNormModel$"):
        nl.pipeline("fill-mask", nl.RobertaPreLayerNormModel(FILL.model.config), FILL.tokenizer)
    with pytest.raises(InputError, match="tokenizer is a int"):
        nl.pipeline("fill-mask", FILL.model, 5)
    with pytest.raises(InputError, match="max_batch_tokens is 0; it must be a whole number from 1"):
        nl.pipeline("fill-mask", max_batch_tokens=0)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        nl.pipeline("fill-mask", tmp_path / "nothing")


def test_a_checkpoint_without_a_head_is_refused(tmp_path: Path) -> None:
    nl.RobertaPreLayerNormModel(FILL.model.config).save_pretrained(tmp_path)
    FILL.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatchError, match="lm_head"):
        nl.pipeline("fill-mask", tmp_path)


def test_a_tokenizer_of_another_model() -> None:
    config = nl.RobertaPreLayerNormConfig.from_dict(FILL.model.config.to_dict(), vocab_size=600)
    fill = nl.pipeline("fill-mask", nl.RobertaPreLayerNormForMaskedLM(config), FILL.tokenizer)
    mask, paris = (FILL.tokenizer.token_to_id(token) for token in ("<mask>", "ĠParis"))
    with pytest.raises(InputError, match=f"holds '<mask>', id {mask}, but the model knows only 600 tokens"):
        fill("a <mask>")
    with pytest.raises(InputError, match=f"the target 'ĠParis' has id {paris}, but the model knows only 600 tokens"):
        fill("a", targets="ĠParis")


def test_pipelines_share_their_base() -> None:
    assert isinstance(FILL, Pipeline)
    assert FILL.max_tokens == 128
