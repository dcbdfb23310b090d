"""The studies behind the tutorials: what they measure with, how they go on, and that what is committed is complete."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from studies import gradient_paths, masking_rate, patience, warm_up
from studies.corpus import MASK, PAD, SPECIAL, Words, batches, held_out, little_grammar, masked_batch
from studies.orders import MASKED_LMS, config_of
from studies.results import FOLDER, conduct, load, rounded, select

from npprelnorm.files import read_json
from npprelnorm.heads import IGNORE
from npprelnorm.smallworld import words_of

STUDIES = [gradient_paths, masking_rate, patience, warm_up]


@pytest.fixture(scope="module")
def words() -> Words:
    return Words(little_grammar())


def test_words_to_ids_and_back(words: Words) -> None:
    sentences = words.grammar.sentences(200, seed=0)
    ids = words.encode(sentences)
    assert [words.decode(row) for row in ids] == sentences
    assert ids.shape == (200, 2 + max(len(words_of(s)) for s in sentences))


def test_frequencies_are_those_of_words_that_are_drawn(words: Words) -> None:
    frequencies = words.frequencies()
    assert frequencies.sum() == pytest.approx(1)
    drawn = [words_of(s) for s in words.grammar.sentences(20_000, seed=0)]
    counts: Counter[str] = Counter()
    for sentence in drawn:
        for word in sentence:
            counts[word] += 1 / len(sentence) / len(drawn)  # a sentence first, then a place in it
    seen = np.array([counts[word] for word in words.words])
    assert np.abs(seen - frequencies).max() < 0.005
    assert frequencies[: len(SPECIAL)].sum() == 0


@pytest.mark.parametrize(("rate", "predicted"), [(0.15, None), (0.4, None), (0.4, 0.15), (0.8, 0.8)])
def test_what_is_hidden_and_what_is_asked(words: Words, rate: float, predicted: float | None) -> None:
    ids = words.encode(words.grammar.sentences(100, seed=0))
    batch = masked_batch(ids, rate, np.random.default_rng(0), predicted)
    lengths = (ids >= len(SPECIAL)).sum(axis=1)
    hidden, asked = batch.input_ids == MASK, batch.labels != IGNORE
    assert (hidden.sum(axis=1) == [max(1, round(rate * n)) for n in lengths]).all()
    share = 1.0 if predicted is None else predicted / rate
    assert (asked.sum(axis=1) == [max(1, round(share * n)) for n in hidden.sum(axis=1)]).all()
    assert (hidden | ~asked).all(), "only what is hidden is asked for"
    assert (batch.labels[asked] == ids[asked]).all()
    assert (batch.input_ids[~hidden] == ids[~hidden]).all()
    assert (batch.attention_mask == (ids != PAD)).all()


def test_batches_are_told_by_their_seed_and_go_on_after_an_epoch(words: Words) -> None:
    ids = words.encode(words.grammar.sentences(10, seed=0))
    first = [batch for batch, _ in zip(batches(ids, 4, 7, 0.4), range(7))]  # noqa: B905 (they do not end)
    again = [batch for batch, _ in zip(batches(ids, 4, 7, 0.4), range(7))]  # noqa: B905
    assert all((a.labels == b.labels).all() for a, b in zip(first, again, strict=True))
    assert sum(len(batch.labels) for batch in first[:3]) == 10, "an epoch is every sentence once"
    assert any(a.labels.shape != b.labels.shape or (a.labels != b.labels).any() for a, b in zip(first, first[3:]))  # noqa: B905


def test_the_best_possible_model_has_no_excess(words: Words) -> None:
    one = held_out(words, words.grammar.sentences(50, seed=3), 0.4, seed=4)
    assert one.best.sum(axis=1) == pytest.approx(np.ones(len(one.best)))
    true = one.batch.labels[one.batch.labels != IGNORE]
    assert (one.best[np.arange(len(true)), true] > 0).all(), "in the order of the labels"
    logs = np.log(one.best, out=np.full_like(one.best, -1e9), where=one.best > 0)

    def perfect(**inputs: Any) -> Any:
        assert inputs["labelled_only"]
        return SimpleNamespace(logits=logs + 5.0)  # logits are told up to a shift

    assert one.excess(perfect) == pytest.approx(0, abs=1e-12)
    even = np.full(len(words), -math.log(len(words)))
    assert one.divergence(even) == pytest.approx(math.log(len(words)) - one.entropy())


def test_both_orders_begin_with_the_same_numbers() -> None:
    models = {order: MASKED_LMS[order](config_of(order, 2, 16, 30), rng=3) for order in ("pre", "post")}
    bodies = {"pre": "roberta_prelayernorm.", "post": "roberta."}
    weights = {
        order: {n.removeprefix(bodies[order]): p for n, p in model.params.items() if p.ndim == 2}
        for order, model in models.items()
    }
    assert list(weights["pre"]) == list(weights["post"])
    assert len(weights["pre"]) == 3 + 2 * 6 + 1  # the embeddings' tables, the layers' matrices, the head's
    for name, ours in weights["pre"].items():
        assert np.array_equal(ours, weights["post"][name]), name


def test_similarity_is_the_mean_cosine_of_pairs() -> None:
    states = np.random.default_rng(0).standard_normal((5, 8)) + 0.5
    pairs = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for i, a in enumerate(states)
        for j, b in enumerate(states)
        if i != j
    ]
    assert gradient_paths.similarity(states) == pytest.approx(np.mean(pairs))


def test_spread_is_zero_for_one_vector_and_leaves_special_tokens_out(words: Words) -> None:
    batch = masked_batch(words.encode(words.grammar.sentences(20, seed=0)), 0.4, np.random.default_rng(0))
    inner = (batch.labels != IGNORE) | (batch.input_ids >= len(SPECIAL))

    def model(*_: Any, **__: Any) -> Any:
        rng = np.random.default_rng(1)
        alike, different = rng.standard_normal((2, *inner.shape, 8))
        alike[inner] = 3.0
        return SimpleNamespace(hidden_states=[alike, different])

    alike, different = warm_up.spread(model, batch)
    assert alike == 0
    assert different == pytest.approx(1, abs=0.1)


# ---- going on


def test_a_study_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [{"rate": 0.1, "order": "pre"}, {"rate": 0.1, "order": "post"}]
    made = []

    def run(*, rate: float, order: str, seed: int) -> dict[str, Any]:
        if len(made) == 3 and made[-1] != "killed":
            made.append("killed")
            raise KeyboardInterrupt
        made.append(f"{order} {seed}")
        return {"loss": [rate * seed, math.nan]}

    with pytest.raises(KeyboardInterrupt):
        conduct("one", {"steps": 3}, settings, range(2), run, tmp_path)
    assert len(load("one", tmp_path)) == 3
    runs = conduct("one", {"steps": 3}, settings, range(2), run, tmp_path)
    assert made == ["pre 0", "post 0", "pre 1", "killed", "post 1"]
    assert runs == load("one", tmp_path)
    assert [one["seed"] for one in select(runs, order="post", rate=0.1)] == [0, 1]
    assert select(runs, order="post")[1]["loss"] == [0.1, None]
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
    assert f"one: {tmp_path / 'one.json'} is complete, with 4 runs" in capsys.readouterr().out
    lines = (tmp_path / "one.json").read_text("utf-8").splitlines()
    assert len(lines) == 1 + 4 + 1, "a run is a line"

    before = (tmp_path / "one.json").read_bytes()
    with pytest.raises(SystemExit, match=r"one\.json was measured with .*'steps': 3.*move it away"):
        conduct("one", {"steps": 4}, settings, range(3), run, tmp_path)
    assert (tmp_path / "one.json").read_bytes() == before


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.STUDY)
def test_a_study_answers_help_and_refuses_arguments_before_it_measures(
    study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unwanted(*_: Any, **__: Any) -> None:
        raise AssertionError("it measures")

    monkeypatch.setattr(study, "conduct", unwanted)
    for argument, code in (("--help", 0), ("--seeds=9", 2)):
        monkeypatch.setattr("sys.argv", [study.STUDY, argument])
        with pytest.raises(SystemExit) as stopped:
            study.main()
        assert stopped.value.code == code
    shown = capsys.readouterr()
    assert f"python -m studies.{study.STUDY}" in shown.out
    assert "unrecognized arguments: --seeds=9" in shown.err


def test_numbers_are_kept_to_six_digits() -> None:
    assert rounded({"a": [1.23456789, 3, "x", (math.inf, 1e-9)]}) == {"a": [1.23457, 3, "x", [None, 1e-9]]}


# ---- what is committed


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.STUDY)
def test_committed_results_are_complete_and_of_the_code_s_recipe(study: Any) -> None:
    runs = load(study.STUDY)
    assert read_json(FOLDER / f"{study.STUDY}.json")["recipe"] == rounded(study.RECIPE)
    assert len(runs) == len(study.SETTINGS) * len(study.SEEDS)
    for setting in study.SETTINGS:
        assert [run["seed"] for run in select(runs, **setting)] == list(study.SEEDS)
    assert len(study.SEEDS) >= 5


@pytest.mark.parametrize("order", ["pre", "post"])
def test_committed_gradients_are_those_of_today(words: Words, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gradient_paths.RECIPE, "depths", [2, 4])
    for kind in ("mean field", "masked lm"):
        fresh = gradient_paths.run(words, kind=kind, order=order, seed=1)
        committed = select(load(gradient_paths.STUDY), kind=kind, order=order)[1]
        for depth, values in fresh["gradients"].items():
            assert values == pytest.approx(committed["gradients"][depth], rel=1e-5)
        for what in fresh.keys() - {"gradients"}:  # 4 layers of these are the first 4 of the 32 that are committed
            assert fresh[what] == pytest.approx(committed[what][:5], rel=1e-5, abs=1e-5)
        assert fresh.keys() == committed.keys() - {"setting", "seed"}


def test_committed_training_is_that_of_today(words: Words) -> None:
    setting = {"learning_rate": 1e-3, "warmup": 0, "order": "post"}
    fresh = warm_up.run(words, warm_up.held_out_set(words), seed=1, until=20, **setting)
    committed = select(load(warm_up.STUDY), **setting)[1]
    assert fresh["loss"] == pytest.approx(committed["loss"][:1], rel=1e-5)
    for what in ("gradients", "spread"):
        for step, values in fresh[what].items():
            assert values == pytest.approx(committed[what][str(step)], rel=1e-4)


def test_patience_begins_as_the_study_that_it_goes_on_from() -> None:
    for longer, shorter in zip(load(patience.STUDY), select(load(warm_up.STUDY), **patience.SETTINGS[0]), strict=True):
        assert longer["seed"] == shorter["seed"]
        # 200 steps; a hundred later the last bit of another machine's float64 has reached the fourth digit
        assert longer["loss"][:10] == pytest.approx(shorter["loss"][:10], rel=1e-4)
