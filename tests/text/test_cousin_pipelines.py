"""Texts through the post-LN model types: WordPiece, token types of pairs, sentence vectors. All of it tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm.commands import main
from npprelnorm.errors import CheckpointFormatError, InputError, TokenizerError
from npprelnorm.sentence_files import SentenceSettings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "bark", "##s", "purr", "a", "i", ".", "?"]


def folder_of(tmp_path: Path, head: str, **changes: Any) -> Path:
    """A BERT checkpoint with a vocabulary of words."""
    config = tiny_config("bert", vocab_size=len(WORDS), type_vocab_size=2, **changes)
    random_model(head, config, 5, "float32").save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return tmp_path


# ---- vocab.txt


def test_word_pieces(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Model")
    tokenizer = nl.Tokenizer.from_pretrained(folder)
    batch = tokenizer("The CÀT barks.", "a dog?", return_token_type_ids=True)
    tokens = ["[CLS]", "the", "cat", "bark", "##s", ".", "[SEP]", "a", "dog", "?", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(batch.input_ids[0]) == tokens
    assert batch.token_type_ids.tolist() == [[0] * 7 + [1] * 4]
    assert tokenizer.decode(batch.input_ids[0], skip_special_tokens=True) == "the cat barks. a dog?"
    assert tokenizer("cat [MASK]").input_ids[0].tolist() == [2, 6, 4, 3]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token_id) == (None, None, 0)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = nl.Tokenizer.from_pretrained(tmp_path / "saved")
    assert again.cls_token == "[CLS]"
    assert again("the cat", "a dog").input_ids.tolist() == tokenizer("the cat", "a dog").input_ids.tolist()
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["tokenizer_class"] == "BertTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}), "utf-8")
    cased = nl.Tokenizer.from_pretrained(folder)
    assert cased.convert_ids_to_tokens(cased("The cat").input_ids[0]) == ["[CLS]", "[UNK]", "cat", "[SEP]"]


@pytest.mark.parametrize(("vocabulary", "settings", "message"), [
    ("a\nb\n", {}, r"vocab.txt has no \[UNK\], which a BERT tokenizer needs"),
    ("\n".join(WORDS), {"do_lower_case": "yes"}, "do_lower_case is 'yes', not true or false"),
    ("\n".join(WORDS), {"do_lower_case": None}, "do_lower_case is None, not true or false"),
])  # fmt: skip
def test_a_bad_vocabulary(vocabulary: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text(vocabulary, "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    with pytest.raises(TokenizerError, match=message):
        nl.Tokenizer.from_pretrained(tmp_path)


# ---- pairs


def test_pairs_go_to_bert_with_their_token_types(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "ForSequenceClassification", num_labels=3)
    classify = nl.pipeline("text-classification", model=folder)
    assert type(classify.model) is nl.BertForSequenceClassification
    pairs = [{"text": "the cat", "text_pair": "a dog barks"}, "the dog", {"text": "i", "text_pair": "a"}]
    answers = classify(pairs, function_to_apply="none", top_k=None)
    for pair, answer in zip(pairs, answers, strict=True):
        texts = [pair] if isinstance(pair, str) else [pair["text"], pair["text_pair"]]
        batch = classify.tokenizer(*texts, return_token_type_ids=True)
        logits = classify.model(**batch).logits[0]
        scores = {one["label"]: one["score"] for one in answer}
        np.testing.assert_allclose([scores[f"LABEL_{k}"] for k in range(3)], logits, rtol=0, atol=1e-5)
        if len(texts) == 2:
            flat = classify.model(batch.input_ids, batch.attention_mask).logits[0]
            assert np.abs(flat - logits).max() > 1e-3, "the types make a difference"


@pytest.mark.parametrize("task", ["question-answering", "multiple-choice"])
def test_the_other_tasks_of_pairs(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "ForQuestionAnswering" if task == "question-answering" else "ForMultipleChoice"
    pipe = nl.pipeline(task, model=folder_of(tmp_path, head))
    seen = []
    run = type(pipe.model).__call__
    monkeypatch.setattr(type(pipe.model), "__call__", lambda self, **given: (seen.append(given), run(self, **given))[1])
    if task == "question-answering":
        pipe("the cat?", "a dog barks.")
    else:
        pipe("the cat", ["a dog", "purrs"])
    for given in seen:
        ids, types = (given[name].reshape(-1, given[name].shape[-1]) for name in ("input_ids", "token_type_ids"))
        for row, kind in zip(ids, types, strict=True):
            (first, second) = np.flatnonzero(row == 3)
            assert not kind[: first + 1].any()
            assert kind[first + 1 : second + 1].all()
    assert seen


def test_training_gives_bert_the_token_types_of_pairs(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "Model")
    lines = [{"text": "the cat", "text_pair": "a dog", "label": "x"}, {"text": "i", "text_pair": "purr.", "label": "y"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines * 4)), "utf-8")
    out = tmp_path / "out"
    arguments = ["--train", str(tmp_path / "train.jsonl"), "--model", str(folder), "--out", str(out)]
    assert main(["train", "classification", *arguments, "--epochs", "2", "--batch-size", "2"]) == 0
    model = nl.AutoModelForSequenceClassification.from_pretrained(out)
    assert type(model) is nl.BertForSequenceClassification
    from npprelnorm.training.tasks.base import TaskOptions
    from npprelnorm.training.tasks.classification import Classification

    task = Classification(tmp_path / "train.jsonl", None, TaskOptions())
    data = task.data(0, nl.Tokenizer.from_pretrained(out), model.config)
    inputs = data.collate(np.arange(2), np.random.default_rng(0))
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0]]


def test_fill_mask_with_bert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, "ForMaskedLM")
    fill = nl.pipeline("fill-mask", model=folder)
    (best,) = fill("The [MASK] barks.", top_k=1)
    logits = fill.model(fill.tokenizer("The [MASK] barks.").input_ids).logits[0, 2]
    assert best["token"] == logits.argmax()
    assert main(["fill-mask", "--model", str(folder), "--json", "The [MASK] barks.", "--top-k", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"][0][0]["token"] == best["token"]


# ---- sentence vectors

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def sentence_folder(tmp_path: Path, modules: Any, pooling: dict[str, Any], limit: Any = 6) -> Path:
    folder = folder_of(tmp_path, "Model")
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}), "utf-8")
    return folder


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_sentence_files_decide(mode: str, normalize: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = f"pooling_mode_{mode}_token" + ("" if mode == "cls" else "s")
    pooling = {"word_embedding_dimension": 12, "pooling_mode_mean_sqrt_len_tokens": False, key: True}
    folder = sentence_folder(tmp_path, MODULES if normalize else MODULES[:2], pooling)
    embed = nl.pipeline("feature-extraction", model=folder)
    texts = ["the cat", "a dog barks", "i"]
    vectors = embed(texts)
    for text, vector in zip(texts, vectors, strict=True):
        hidden = embed.model(embed.tokenizer(text).input_ids).last_hidden_state[0]
        expected = {"mean": hidden.mean(axis=0), "cls": hidden[0], "max": hidden.max(axis=0)}[mode]
        expected = expected / np.linalg.norm(expected) if normalize else expected
        np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(embed(texts, pooling=mode, normalize=normalize), vectors)
    assert main(["embed", "--model", str(folder), *texts]) == 0
    lines = [json.loads(line)["embedding"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(lines, vectors, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="has 7 tokens, more than the 6 that this model takes"):
        embed("the cat the cat the")
    assert embed("the cat the cat the", truncation=True).shape == (12,)


@pytest.mark.parametrize("mode", ["mean", "cls", "max", ["max"]])
def test_what_sentence_transformers_6_writes(mode: Any, tmp_path: Path) -> None:
    """Other class names, one word for the pooling, and the limit in the tokenizer's files."""
    places = ["base.modules.transformer", "sentence_transformer.modules.pooling", "base.modules.normalize"]
    modules = [
        step | {"type": f"sentence_transformers.{place}.{step['type'].rpartition('.')[2]}"}
        for step, place in zip(MODULES, places, strict=True)
    ]
    pooling = {"embedding_dimension": 12, "pooling_mode": mode, "include_prompt": True}
    folder = sentence_folder(tmp_path, modules, pooling, None)
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}), "utf-8"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 6}), "utf-8")
    given = {"prompts": {"query": "", "document": ""}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(given), "utf-8")
    embed = nl.pipeline("feature-extraction", model=folder)
    name = mode if isinstance(mode, str) else mode[0]
    assert embed.sentence == SentenceSettings(name, True, None)
    assert embed.max_tokens == 6
    np.testing.assert_array_equal(embed("a cat"), embed("a cat", pooling=name, normalize=True))


def test_a_default_prompt_goes_before_every_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sentence_folder(tmp_path, MODULES, MEAN, 8)
    plain = nl.pipeline("feature-extraction", model=folder)
    given = {"prompts": {"query": "a dog ", "other": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(given), "utf-8")
    embed = nl.pipeline("feature-extraction", model=folder)
    texts = ["the cat", "i purr"]
    np.testing.assert_array_equal(embed(texts), plain([f"a dog {text}" for text in texts]))
    np.testing.assert_array_equal(embed("the cat"), plain("a dog the cat"))
    assert main(["embed", "--model", str(folder), "the cat"]) == 0
    np.testing.assert_allclose(json.loads(capsys.readouterr().out)["embedding"], embed("the cat"), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"text\[1\] is a NoneType, not a string"):
        embed(["the cat", None])
    for name, message in (("neither", "is 'neither', which is none of its prompts"), (3, "is 3, which is none of")):
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps(given | {"default_prompt_name": name}), "utf-8"
        )
        with pytest.raises(CheckpointFormatError, match=f"default_prompt_name {message}"):
            nl.pipeline("feature-extraction", model=folder)


def test_a_prompt_that_is_not_pooled(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, MODULES, MEAN | {"include_prompt": False})
    nl.pipeline("feature-extraction", model=folder)  # there is no prompt
    given = {"prompts": {"query": "a dog "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(given), "utf-8")
    with pytest.raises(InputError, match="leaves the prompt out of the pooling, which this package does not"):
        nl.pipeline("feature-extraction", model=folder)


def test_texts_are_lower_cased_where_the_files_say_so(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, MODULES, MEAN, 8)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}), "utf-8")
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "A "}, "default_prompt_name": "query"}), "utf-8"
    )
    vectors = []
    for lower in (False, True):
        (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": lower}), "utf-8")
        embed = nl.pipeline("feature-extraction", model=folder)
        vectors.append([embed(text) for text in ("The CAT", "the cat")])
    assert np.abs(vectors[0][0] - vectors[0][1]).max() > 1e-3
    np.testing.assert_array_equal(vectors[1][0], vectors[1][1])
    assert np.abs(vectors[0][1] - vectors[1][1]).max() > 1e-3  # the prompt's own A
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": "no"}), "utf-8")
    with pytest.raises(CheckpointFormatError, match="do_lower_case is 'no', not true or false"):
        nl.pipeline("feature-extraction", model=folder)


MEAN = {"pooling_mode_mean_tokens": True}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}


@pytest.mark.parametrize(("modules", "pooling", "limit", "error", "message"), [
    ([*MODULES[:2], DENSE], MEAN, 6, InputError, "the steps Transformer, Pooling, Dense; this package knows"),
    ([], MEAN, 6, InputError, "the steps none; this package knows"),
    ({"a": 1}, MEAN, 6, CheckpointFormatError, "is not a list of steps"),
    ([MODULES[0], MODULES[1] | {"path": "../x"}], MEAN, 6, CheckpointFormatError, "is not a list of steps"),
    ([MODULES[0] | {"path": "0_BERT"}, *MODULES[1:]], MEAN, 6, InputError, "keeps the model in the folder 0_BERT"),
    (MODULES, {"pooling_mode_lasttoken": True}, 6, InputError, "asks for pooling_mode_lasttoken"),
    (MODULES, {"pooling_mode": "weightedmean"}, 6, InputError, "asks for weightedmean; this package knows one of mean"),
    (MODULES, {"pooling_mode": ["cls", "mean"]}, 6, InputError, "asks for cls, mean; this package"),
    (MODULES, {"pooling_mode": [["cls"]]}, 6, InputError, "asks for .'cls'.; this package"),
    (MODULES, {"pooling_mode": []}, 6, InputError, "asks for no pooling"),
    (MODULES, {"pooling_mode": {"a": 1}}, 6, InputError, "asks for .'a': 1.; this package"),
    (MODULES, MEAN | {"pooling_mode_cls_token": True}, 6, InputError, "pooling_mode_mean_tokens, pooling_mode_cls"),
    (MODULES, {}, 6, InputError, "asks for no pooling"),
    (MODULES, MEAN, 0, CheckpointFormatError, "max_seq_length is 0, not a whole number from 1"),
])  # fmt: skip
def test_sentence_files_that_are_not_understood(
    modules: Any, pooling: dict[str, Any], limit: Any, error: Any, message: str, tmp_path: Path
) -> None:
    folder = sentence_folder(tmp_path, modules, pooling, limit)
    with pytest.raises(error, match=message) as caught:
        nl.pipeline("feature-extraction", model=folder)
    assert "\n" not in str(caught.value)
    model, tokenizer = nl.AutoModel.from_pretrained(folder), nl.Tokenizer.from_pretrained(folder)
    assert nl.pipeline("feature-extraction", model, tokenizer)("the cat").shape == (4, 12)  # the way out
