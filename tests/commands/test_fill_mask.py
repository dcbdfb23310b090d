"""`npprelnorm fill-mask`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import npprelnorm as nl
from npprelnorm.commands import main

FRANCE = "The capital of France is <mask>."


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", FRANCE]) == 0
    captured = capsys.readouterr()
    title, *rows, empty = captured.out.splitlines()
    assert title == FRANCE
    assert len(rows) == 5
    assert rows[0].split(maxsplit=2)[1:] == ["Paris", "The capital of France is Paris."]
    assert len({row.index("The capital") for row in rows}) == 1  # aligned
    assert empty == ""


def test_json_is_what_the_pipeline_gives(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [FRANCE, "The <mask> of France is <mask>."]
    assert main(["fill-mask", *texts, "--json", "--top-k", "3"]) == 0
    one, two = nl.pipeline("fill-mask")(texts, top_k=3)
    assert json_lines(capsys) == [{"text": texts[0], "masks": [one]}, {"text": texts[1], "masks": two}]


def test_several_masks_are_numbered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", "The <mask> of France is <mask>.", "--top-k", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5:2] == ["mask 1 of 2", "mask 2 of 2"]
    assert lines[2].split()[1] == "capital"
    assert lines[4].split()[1] == "Paris"


def test_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", FRANCE, "--json", "--targets", " Rome", " Paris"]) == 0
    (answer,) = json_lines(capsys)
    assert [candidate["token_str"] for candidate in answer["masks"][0]] == [" Paris", " Rome"]


def test_one_line_says_which_model_and_how_to_name_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", FRANCE]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "embedded model" in err
    assert "--model" in err
    assert main(["fill-mask", FRANCE, "--model", str(nl.embedded_model_path())]) == 0
    assert capsys.readouterr().err == ""


def test_lines_of_standard_input_and_of_a_file_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"The <mask> {verb}." for verb in ("barks", "purrs", "moos")] * 20
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert main(["fill-mask", "--json", "--file", str(path)]) == 0
    from_file = json_lines(capsys)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert main(["fill-mask", "--json", "--file", "-"]) == 0
    assert json_lines(capsys) == from_file
    assert [answer["text"] for answer in from_file] == lines
    assert from_file[0]["masks"][0][0]["token_str"] == " dog"


def test_a_bad_line_is_named_and_the_others_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(f"{FRANCE}\nno such thing\n{FRANCE}\n", encoding="utf-8")
    assert main(["fill-mask", "--json", "--file", str(path)]) == 1
    captured = capsys.readouterr()
    first, second, third = map(json.loads, captured.out.splitlines())
    assert first == third
    assert first["masks"][0][0]["token_str"] == " Paris"
    assert second["text"] == "no such thing"
    assert "no <mask>" in second["error"]
    assert f"npprelnorm: error: {path}, line 2: the text has no <mask>" in captured.err


def test_truncate(capsys: pytest.CaptureFixture[str]) -> None:
    text = "The <mask> barks." + " word" * 200
    assert main(["fill-mask", text]) == 1
    assert "more than the 128" in capsys.readouterr().err
    assert main(["fill-mask", text, "--truncate"]) == 0


def test_terminal_escapes_in_a_text_are_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", "\x1b[31mThe <mask> barks."]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.startswith("\\x1b[31mThe <mask> barks.\n")
