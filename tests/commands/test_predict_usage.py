"""`npprelnorm predict`: where its texts come from, and what it says to wrong input and wrong usage."""

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
from predict_command import LONG, TEXTS, close, parsed

import npprelnorm as nl
from npprelnorm.commands import main


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
