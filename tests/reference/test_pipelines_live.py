"""The pipelines against transformers' own, live, on the embedded model: both read the float16 file as float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npprelnorm as nl

pytestmark = pytest.mark.reference

RECORDS = json.loads((Path(__file__).parent.parent / "text" / "golden" / "fill_mask.json").read_text())["records"]
TEXTS = [record["text"] for record in RECORDS]
FOLDER = nl.embedded_model_path()
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def theirs() -> Any:
    import torch
    from transformers import pipeline

    return pipeline("fill-mask", model=str(FOLDER), dtype=torch.float32, device="cpu")


def assert_same(ours: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert len(ours) == len(expected)
        for a, b in zip(ours, expected, strict=True):
            assert_same(a, b)
    else:
        assert ours.keys() == expected.keys()
        assert abs(ours["score"] - expected["score"]) <= TOLERANCE
        assert {**ours, "score": 0} == {**expected, "score": 0}


def test_fill_mask_on_the_small_world(theirs: Any) -> None:
    assert len(TEXTS) == 200
    assert_same(nl.pipeline("fill-mask")(TEXTS), theirs(TEXTS))


@pytest.mark.parametrize("top_k", [1, 50])
def test_top_k(theirs: Any, top_k: int) -> None:
    ours = nl.pipeline("fill-mask")
    for text in TEXTS[:20]:
        expected = theirs(text, top_k=top_k)
        answer = ours(text, top_k=top_k)
        if isinstance(expected[0], dict):
            answer, expected = [answer], [expected]
        for a, b in zip(answer, expected, strict=True):
            # far down the list scores are equal to rounding, and the order of those is nobody's
            np.testing.assert_allclose([one["score"] for one in a], [one["score"] for one in b], atol=TOLERANCE)
            scores = {one["token"]: one["score"] for one in b}
            assert sum(one["token"] in scores for one in a) >= top_k - 1
            assert all(abs(one["score"] - scores.get(one["token"], one["score"])) <= TOLERANCE for one in a)


@pytest.mark.parametrize(
    "targets", [["ĠParis", "ĠRome", "ĠMadrid"], [" Paris", " Rome"], "ĠOslo", ["Paris"], ["<mask>", "<pad>", "</s>"]]
)
def test_targets(theirs: Any, targets: Any) -> None:
    ours = nl.pipeline("fill-mask")
    for text in ("The capital of France is <mask>.", "<mask> of <mask>", *TEXTS[:5]):
        assert_same(ours(text, targets=targets), theirs(text, targets=targets))


@pytest.mark.parametrize(
    "text",
    ["<mask>", "<mask><mask>", "  <mask>  ", "\U0001f600 <mask> \u4e16", "<pad> a <mask> <s> b </s>", "a\x00<mask>\n"],
)
def test_hard_texts(theirs: Any, text: str) -> None:
    assert_same(nl.pipeline("fill-mask")(text), theirs(text))


def test_feature_extraction() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer, pipeline

    model = AutoModel.from_pretrained(FOLDER, dtype=torch.float32, add_pooling_layer=False)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    theirs = pipeline("feature-extraction", model=model, tokenizer=tokenizer, device="cpu")
    ours = nl.pipeline("feature-extraction")
    for text, rows in zip(TEXTS, ours(TEXTS), strict=True):
        expected = np.array(theirs(text)[0], np.float32)
        assert rows.shape == expected.shape
        np.testing.assert_allclose(rows, expected, atol=2e-5)
    # mean over the mask, as sentence-transformers pools
    batch = tokenizer(TEXTS[:16], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    mean = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_allclose(ours(TEXTS[:16], pooling="mean"), mean, atol=2e-5)
    largest = hidden.masked_fill(mask == 0, -torch.inf).amax(1).numpy()
    np.testing.assert_allclose(ours(TEXTS[:16], pooling="max"), largest, atol=2e-5)
