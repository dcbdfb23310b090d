"""`npprelnorm predict`: every task, as arguments, lines and JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import task_models
from predict_command import LONG, TEXTS, close, parsed

from npprelnorm.commands import main

# ---- text-classification


def test_labels_as_a_table(predict: Any) -> None:
    code, out, err = predict("text-classification", *TEXTS)
    expected = task_models.task_pipeline("text-classification")(TEXTS)
    assert (code, err) == (0, "")
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    assert [row[:2] for row in rows] == [[f"{one['score']:.4f}", one["label"]] for one in expected]
    assert [row[2] for row in rows[:2]] == TEXTS[:2]
    assert len({line.index(text.split()[0]) for line, text in zip(out.splitlines(), TEXTS[:2], strict=False)}) == 1


def test_labels_as_json(predict: Any) -> None:
    pipe = task_models.task_pipeline("text-classification")
    for arguments, options in (
        ((), {"top_k": 1}),
        (("--top-k", "2"), {"top_k": 2}),
        (("--top-k", "9", "--function", "sigmoid"), {"top_k": None, "function_to_apply": "sigmoid"}),
    ):
        code, out, err = predict("text-classification", *TEXTS, "--json", *arguments)
        assert (code, err) == (0, "")
        assert [line["text"] for line in parsed(out)] == TEXTS
        close([line["labels"] for line in parsed(out)], pipe(TEXTS, **options))


def test_several_labels_are_a_table_a_text(predict: Any) -> None:
    code, out, _ = predict("text-classification", *TEXTS[:2], "--top-k", "2")
    lines = out.splitlines()
    assert code == 0
    assert [lines[0], lines[3], lines[4]] == [TEXTS[0], "", TEXTS[1]]
    first = task_models.task_pipeline("text-classification")(TEXTS[0], top_k=2)
    assert [line.split() for line in lines[1:3]] == [[f"{one['score']:.4f}", one["label"]] for one in first]


def test_a_model_for_several_labels_at_once_or_for_a_number_shows_all(predict: Any, tmp_path: Path) -> None:
    for kind in ("multi_label_classification", "regression"):
        folder = task_models.save("text-classification", tmp_path / kind, problem_type=kind)
        code, out, _ = predict("classification", "the dog", "--json", model=folder)
        assert code == 0
        (line,) = parsed(out)
        expected = task_models.task_pipeline("text-classification", problem_type=kind)("the dog", top_k=None)
        assert len(expected) == 4
        close(line["labels"], expected)


def test_pairs(predict: Any, tmp_path: Path) -> None:
    pipe = task_models.task_pipeline("text-classification")
    expected = pipe([{"text": text, "text_pair": "a cat"} for text in TEXTS])
    code, out, _ = predict("text-classification", *TEXTS, "--pair", "a cat", "--json")
    assert code == 0
    assert [(line["text"], line["text_pair"]) for line in parsed(out)] == [(text, "a cat") for text in TEXTS]
    close([line["labels"][0] for line in parsed(out)], expected)
    path = tmp_path / "pairs.jsonl"
    own = {"text": TEXTS[0], "text_pair": "a bird", "label": 1}
    path.write_text("\n".join(map(json.dumps, [own, {"text": TEXTS[1]}])), encoding="utf-8")
    _, out, _ = predict("text-classification", "--file", str(path), "--pair", "a cat", "--json")
    assert [line["text_pair"] for line in parsed(out)] == ["a bird", "a cat"]
    _, out, _ = predict("text-classification", "--file", str(path), "--pair", "a cat")
    assert f"{TEXTS[0]} | a bird" in out


# ---- token-classification


def test_entities(predict: Any) -> None:
    pipe = task_models.task_pipeline("token-classification")
    for arguments, options in (
        ((), {"aggregation_strategy": "first"}),
        (("--aggregation", "simple"), {"aggregation_strategy": "simple"}),
        (("--aggregation", "none"), {"aggregation_strategy": "none"}),
        (("--ignore-labels",), {"aggregation_strategy": "first", "ignore_labels": []}),
        (("--ignore-labels", "LOC", "PER"), {"aggregation_strategy": "first", "ignore_labels": ["LOC", "PER"]}),
    ):
        code, out, err = predict("token-classification", *TEXTS, "--json", *arguments)
        assert (code, err) == (0, "")
        assert [line["text"] for line in parsed(out)] == TEXTS
        close([line["entities"] for line in parsed(out)], pipe(TEXTS, **options))


def test_entities_as_tables(predict: Any) -> None:
    code, out, _ = predict("token-classification", TEXTS[1], "", "--ignore-labels")
    assert code == 0
    first = task_models.task_pipeline("token-classification")(TEXTS[1], aggregation_strategy="first", ignore_labels=[])
    lines = out.splitlines()
    assert lines[0] == TEXTS[1]
    for line, one in zip(lines[1:], first, strict=False):
        assert line.split(maxsplit=3) == [
            f"{one['score']:.4f}", one["entity_group"], f"{one['start']}-{one['end']}",
            TEXTS[1][one["start"] : one["end"]].strip(),
        ]  # fmt: skip
    assert lines[len(first) + 1 :] == ["", "", "  nothing but ignored labels", ""]


def test_tokens_are_joined_as_for_training_and_long_texts_cut_or_read_in_windows(predict: Any, tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    path.write_text(json.dumps({"tokens": TEXTS[1].split(), "tags": ["O"] * 4}) + "\n", encoding="utf-8")
    code, out, _ = predict("token-classification", "--file", str(path), "--json")
    assert code == 0
    assert [line["text"] for line in parsed(out)] == [TEXTS[1]]
    pipe = task_models.task_pipeline("token-classification")
    code, _, err = predict("token-classification", LONG)
    assert code == 1
    assert "tokens, more than the 64" in err
    for arguments, options in ((("--stride", "9"), {"stride": 9}), (("--truncate",), {"truncation": True})):
        code, out, _ = predict("token-classification", LONG, "--json", *arguments)
        assert code == 0
        close(parsed(out)[0]["entities"], pipe(LONG, aggregation_strategy="first", **options))


# ---- question-answering


def test_answers(predict: Any, tmp_path: Path) -> None:
    pipe = task_models.task_pipeline("question-answering")
    path = tmp_path / "story.txt"
    path.write_text("\ufeff" + LONG, encoding="utf-8")
    questions = ["Who found it?", "What"]
    for arguments, options in (
        ((), {"top_k": 1}),
        (("--top-k", "3", "--impossible"), {"top_k": 3, "handle_impossible_answer": True}),
        (("--top-k", "3", "--no-align", "--max-answer-len", "2"),
         {"top_k": 3, "align_to_words": False, "max_answer_len": 2}),
        (("--max-seq-len", "40", "--doc-stride", "0"), {"max_seq_len": 40, "doc_stride": 0}),
    ):  # fmt: skip
        for context in (("--context", LONG), ("--context-file", str(path))):
            code, out, err = predict("question-answering", *questions, *context, "--json", *arguments)
            assert (code, err) == (0, "")
            assert [line["question"] for line in parsed(out)] == questions
            expected = pipe(questions, LONG, **options)
            several = expected if options.get("top_k", 1) > 1 else [[one] for one in expected]
            close([line["answers"] for line in parsed(out)], several)


def test_answers_as_tables(predict: Any) -> None:
    code, out, _ = predict("question-answering", "Who?", "--context", TEXTS[1], "--top-k", "100", "--impossible")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "Who?"
    assert lines[-1] == ""
    (none,) = [line for line in lines if line.endswith("(no answer)")]
    assert none.split()[1] == "0-0"
    for line in lines[1:-1]:
        _, place, answer = line.split(maxsplit=2)
        start, end = map(int, place.split("-"))
        assert answer in (TEXTS[1][start:end].strip(), "(no answer)")


def test_each_line_has_its_context_or_the_common_one(predict: Any, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    lines = [{"question": "Who?", "context": TEXTS[0], "answer": "x", "start": 3}, {"question": "Who?"}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    code, out, err = predict("question-answering", "--file", str(path), "--json")
    assert code == 1
    assert f"{path}, line 2: the field 'context' is missing (there is 'question'); add it, or give --context" in err
    alone = parsed(out)
    assert "answers" in alone[0]
    assert json.loads(alone[1]["line"]) == lines[1]
    code, out, _ = predict("question-answering", "--file", str(path), "--json", "--context", TEXTS[1])
    assert code == 0
    both = parsed(out)
    close(both[0]["answers"], alone[0]["answers"])
    assert both[1]["answers"][0]["answer"] in TEXTS[1]
    path.write_text("Who?\nWhat?\n", encoding="utf-8")
    code, out, _ = predict("question-answering", "--file", str(path), "--json", "--context", TEXTS[1])
    assert [line["question"] for line in parsed(out)] == ["Who?", "What?"]


# ---- multiple-choice


def test_choices(predict: Any, tmp_path: Path) -> None:
    pipe = task_models.task_pipeline("multiple-choice")
    options = ["found it", "lives in Paris", "is sad"]
    code, out, err = predict("multiple-choice", "the dog", "a cat", "--json", "--choices", *options)
    assert (code, err) == (0, "")
    close([line["choices"] for line in parsed(out)], [pipe("the dog", options), pipe("a cat", options)])
    code, out, _ = predict("multiple-choice", "the dog", "--choices", *options)
    ranked = pipe("the dog", options)
    assert out.splitlines() == ["the dog", *(f"  {one['score']:.4f}  {one['choice']}" for one in ranked), ""]
    path = tmp_path / "new.jsonl"
    lines = [{"prompt": "the dog", "choices": options[:2], "label": 0}, {"prompt": "a cat"}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    code, out, _ = predict("multiple-choice", "--file", str(path), "--json", "--choices", *options)
    assert code == 0
    close([line["choices"] for line in parsed(out)], [pipe("the dog", options[:2]), pipe("a cat", options)])


# ---- what has commands of its own


def test_fill_mask_and_feature_extraction_are_the_commands_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    for ours, own in (
        (["predict", "fill-mask"], ["fill-mask"]),
        (["predict", "masked-lm"], ["fill-mask"]),
        (["predict", "feature-extraction"], ["embed"]),
    ):
        results = []
        for command in (ours, own):
            assert main([*command, "The <mask> barks."]) == 0
            results.append(capsys.readouterr())
        assert results[0] == results[1]
        assert results[0].out
