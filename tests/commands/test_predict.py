"""`npprelnorm predict`: every task, as arguments, lines and JSON Lines, and what goes wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import task_models

import npprelnorm as nl
from npprelnorm.commands import main

TEXTS = ["the dog found it", "Anna lives in Paris", "  what\u00a0 a very sad house "]
LONG = "the dog found it. " * 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {task: task_models.save(task, tmp_path_factory.mktemp(task)) for task in task_models.CLASSES}


@pytest.fixture
def predict(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a task's command; its exit code, output and errors."""

    def run(task: str, *arguments: str, model: str | None = None) -> tuple[int, str, str]:
        code = main(["predict", task, "--model", model or folders[task], *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def parsed(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def close(ours: Any, expected: Any) -> None:
    """Equal but for the rounding of another batch."""
    task_models.assert_same(ours, expected, 1e-6)


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


# ---- input


def test_lines_of_a_file_of_standard_input_and_arguments_give_the_same(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text.strip() for text in task_models.sentences(21, 80, most=5) if "\n" not in text.strip()]
    assert len(texts) > 40
    texts[3] = ""  # an empty line is a text too
    _, from_arguments, _ = predict("text-classification", *texts, "--json")
    plain, objects = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    plain.write_text("\n".join(texts) + "\n", encoding="utf-8")
    # a byte order mark, empty lines and labels do not matter in JSON Lines
    lines = [json.dumps({"text": text, "label": 5}, ensure_ascii=False) for text in texts]
    objects.write_text("\ufeff\n\n" + "\r\n".join(lines) + "\n\n", encoding="utf-8")
    answers = [parsed(from_arguments)]
    for path in (plain, objects):
        code, out, err = predict("text-classification", "--file", str(path), "--json")
        assert (code, err) == (0, "")
        answers.append(parsed(out))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        _, out, _ = predict("text-classification", "--file", "-", "--json")
        assert parsed(out) == answers[-1]
    for other in answers[1:]:
        assert [line["text"] for line in other] == texts
        close([line["labels"] for line in other], [line["labels"] for line in answers[0]])


def test_a_bad_line_is_named_and_the_others_are_answered(predict: Any, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    bad = {
        2: ("nonsense", "it is not valid JSON: Expecting value at column 1; as the first line, each must be one"),
        3: ("[1]", "the top level is a list"),
        4: ('{"texts": "a"}', "the field 'text' is missing (there is 'texts'); add it"),
        5: ("{}", "the field 'text' is missing (there is nothing)"),
        6: ('{"text": 5}', "text is 5, not a string; put it in quotes"),
        7: ('{"text": "a", "text": "b"}', "the key 'text' appears twice"),
        8: ('{"text": "a\\ud800"}', "half of a surrogate pair"),
        9: (json.dumps({"text": LONG}), "tokens, more than the 64 that this model takes"),
        10: ('{"text": ["a"]}', "text is ['a'], not a string"),
        11: ('{"text": "a", "text_pair": 1}', "text_pair is 1, not a string"),
    }
    good = json.dumps({"text": TEXTS[0]})
    path.write_text("\n".join([good, *(line for line, _ in bad.values()), good]), encoding="utf-8")
    code, out, err = predict("text-classification", "--file", str(path), "--json")
    assert code == 1
    first, *failed, last = parsed(out)
    close(first["labels"], last["labels"])
    assert [line["line"] for line in failed] == [line for line, _ in bad.values()]
    for (number, (_, message)), line, answer in zip(bad.items(), err.splitlines(), failed, strict=True):
        assert line == f"npprelnorm: error: {path}, line {number}: {answer['error']}"
        assert message in line
    code, out, err = predict("text-classification", "--file", str(path))
    assert code == 1
    assert [line.split(maxsplit=2)[2] for line in out.splitlines()] == [TEXTS[0]] * 2
    assert len(err.splitlines()) == len(bad)


def test_a_bad_argument_is_named_and_the_others_are_answered(predict: Any) -> None:
    code, out, err = predict("question-answering", "Who?", " ", "--context", TEXTS[1], "--json")
    assert code == 1
    assert parsed(out)[1] == {"question": " ", "error": "the question is ' '; give a text"}
    assert "answers" in parsed(out)[0]
    assert err == "npprelnorm: error: text 2: the question is ' '; give a text\n"


def test_terminal_escapes_are_not_obeyed(predict: Any, tmp_path: Path) -> None:
    evil = "the \x1b[31mdog \u202e"
    for task, arguments in (
        ("text-classification", [evil]),
        ("text-classification", [evil, "--top-k", "2"]),
        ("token-classification", [evil, "--ignore-labels"]),
        ("question-answering", [evil, "--context", evil]),
        ("multiple-choice", [evil, "--choices", evil, "a"]),
    ):
        code, out, _ = predict(task, *arguments)
        assert code == 0
        assert "\\x1b[31m" in out
        assert "\x1b" not in out
        assert "\u202e" not in out
    path = tmp_path / "evil.jsonl"
    path.write_text('{"a": 1}\n{"\\u001b[31m": 1}\n', encoding="utf-8")
    _, out, err = predict("text-classification", "--file", str(path))
    assert "\x1b" not in out + err


@pytest.mark.parametrize(
    "task", [*task_models.CLASSES, "fill-mask", "feature-extraction", "classification", "masked-lm"]
)
def test_every_task_has_help_with_examples(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", task, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: npprelnorm predict " in shown
    assert "examples:\n  npprelnorm" in shown
    assert main(["predict", "--help"]) == 0
    assert f" {task}" in capsys.readouterr().out.replace("(", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "TASK"),
        (["sentiment", "a"], "invalid choice: 'sentiment'"),
        (["text-classification", "a"], "the following arguments are required: --model"),
        (["text-classification", "--model", "m"], "no TEXT given"),
        (["text-classification", "--model", "m", "a", "--file", "f"], "give TEXT or --file, not both"),
        (["text-classification", "--model", "m", "a", "--top-k", "0"], "'0' is not a whole number of at least 1"),
        (["text-classification", "--model", "m", "a", "--function", "relu"], "invalid choice: 'relu'"),
        (["text-classification", "--model", "m", "half \udcff"], "text 1 is not valid UTF-8"),
        (["token-classification", "--model", "m", "a", "--aggregation", "last"], "invalid choice: 'last'"),
        (["token-classification", "--model", "m", "a", "--stride", "-1"], "'-1'"),
        (
            ["token-classification", "--model", "m", "a", "--stride", "3", "--aggregation", "none"],
            "--stride needs an --aggregation other than none",
        ),
        (["token-classification", "--model", "m", "a", "--stride", "3", "--truncate"], "not both"),
        (["question-answering", "--model", "m", "Who?"], "a question needs --context TEXT or --context-file F"),
        (
            ["question-answering", "--model", "m", "Who?", "--context", "a", "--context-file", "b"],
            "give --context or --context-file, not both",
        ),
        (["multiple-choice", "--model", "m", "the dog"], "a prompt needs --choices CHOICE CHOICE"),
        (["multiple-choice", "--model", "m", "the dog", "--choices"], "expected at least one argument"),
    ],
)
def test_wrong_usage_is_2_and_shows_the_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: npprelnorm predict")
    assert message in captured.err.splitlines()[-1]


def test_failure_is_1_and_one_line(folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens, texts = folders["token-classification"], folders["text-classification"]
    (tmp_path / "large.txt").write_bytes(b"a" * ((1 << 20) + 1))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for arguments, message in (
        (["text-classification", "--model", str(tmp_path / "no" / "where"), "a"], "does not exist"),
        (["text-classification", "--model", str(tmp_path), "a"], "has no tokenizer"),
        (
            ["text-classification", "--model", tokens, "a"],
            "text-classification needs a checkpoint that was trained for",
        ),
        (["token-classification", "--model", texts, "a"], "token-classification needs a checkpoint"),
        (["question-answering", "--model", texts, "a", "--context", "b"], "question-answering needs a checkpoint"),
        (["multiple-choice", "--model", tokens, "a", "--choices", "b"], "multiple-choice needs a checkpoint"),
        (["text-classification", "--model", texts, "--file", str(tmp_path / "none.txt")], "none.txt does not exist"),
        (["text-classification", "--model", texts, "--file", str(tmp_path)], "is a folder; --file needs a text file"),
        (["text-classification", "--model", texts, "--file", str(tmp_path / "latin.txt")], "line 1 is not UTF-8"),
        *(
            (["question-answering", "--model", "m", "a", "--context-file", str(tmp_path / name)], what)
            for name, what in (
                ("none.txt", "none.txt does not exist"),
                ("", "is a folder; --context-file needs a text file"),
                ("large.txt", "is longer than 1048576 bytes"),
                ("latin.txt", "is not UTF-8 (byte 3); convert the file"),
            )
        ),
    ):
        assert main(["predict", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("npprelnorm: error: ")
        assert message in line


def test_in_a_process_of_its_own(folders: dict[str, str], tmp_path: Path) -> None:
    """Lines in, lines out, in the order that they came, and nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "npprelnorm", "predict", "classification", "--json", "--file", "-",
         "--model", folders["text-classification"]],
        input="\n".join(TEXTS), capture_output=True, text=True, encoding="utf-8", check=False,
        env={**os.environ, "PYTHONPATH": str(Path(nl.__file__).parents[1])},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["text"] for line in parsed(done.stdout)] == TEXTS
