"""Where texts come from and how results are shown."""

from __future__ import annotations

import argparse
import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npprelnorm.commands import common
from npprelnorm.errors import InputError, NpprelnormError


def texts_in(path: Path) -> list[tuple[str, str]]:
    groups = common.chunks(argparse.Namespace(texts=[], file=str(path)))
    return [pair for group in groups for pair in group]


LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"), max_size=12), min_size=1)


@given(lines=LINES, end=st.sampled_from(["\n", "\r\n"]), bom=st.booleans(), last=st.booleans())
def test_lines_of_a_file_come_back_in_order(
    lines: list[str], end: str, bom: bool, last: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    content = end.join(lines) + (end if last or not lines[-1] else "")
    path.write_bytes(("\ufeff" if bom else "").encode() + content.encode())
    found = texts_in(path)
    assert [text for _, text in found] == lines
    assert [where for where, _ in found] == [f"{path}, line {n}" for n in range(1, len(lines) + 1)]


def test_groups_are_of_the_size_that_makes_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a\n" * (2 * common.CHUNK + 1), encoding="utf-8")
    sizes = [len(group) for group in common.chunks(argparse.Namespace(texts=[], file=str(path)))]
    assert sizes == [common.CHUNK, common.CHUNK, 1]


class Keyboard(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_who_types_gets_an_answer_after_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Keyboard(io.BytesIO(b"one\ntwo\n")))
    groups = list(common.chunks(argparse.Namespace(texts=[], file="-")))
    assert groups == [[("standard input, line 1", "one")], [("standard input, line 2", "two")]]


def test_bytes_that_are_no_utf8_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"good\nbad \xe9\n")
    with pytest.raises(InputError, match=r"texts.txt, line 2 is not UTF-8 \(byte 4\)"):
        texts_in(path)


def test_an_endless_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"a" * (common.MAX_LINE_BYTES + 1))
    with pytest.raises(InputError, match="line 1 is longer than"):
        texts_in(path)


def test_answers_keep_their_place_beside_errors() -> None:
    calls = []

    def call(texts: list[str]) -> list[str]:
        calls.append(texts)
        if "bad" in texts:
            raise InputError("no")
        return [text.upper() for text in texts]

    group = [("1", "a"), ("2", "bad"), ("3", "c")]
    first, second, third = common.answers(call, group)
    assert (first, str(second), third) == ("A", "no", "C")
    assert isinstance(second, InputError)
    assert list(common.answers(call, [("1", "a"), ("2", "b")])) == ["A", "B"]
    assert calls[-1] == ["a", "b"]  # together


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=2, max_side=4),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_numbers_are_short_and_read_back_the_same(array: np.ndarray) -> None:
    with np.errstate(under="ignore"):
        written = json.loads(json.dumps(common.numbers(array)))
        assert np.array_equal(np.array(written, np.float32), array)
    assert common.numbers(np.array([0.1], np.float32)) == [0.1]


def test_nan_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NpprelnormError, match="NaN or infinity"):
        common.print_json({"embedding": [float("nan")]})
    assert capsys.readouterr().out == ""


@given(st.text())
def test_what_is_printed_cannot_command_a_terminal(text: str) -> None:
    shown = common.printable(text, keep="")
    assert shown.isprintable()
    assert all(c in shown for c in text if c.isprintable())
    assert common.printable("a\nb\x1b") == "a\nb\\x1b"


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6), st.just("|")), min_size=1, max_size=5))
def test_columns_are_aligned(rows: list[tuple[str, str, str]]) -> None:
    lines = common.table(rows, right=(1,)).split("\n")[:-1]
    assert len(lines) == len(rows)
    widths = {
        sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in line)
        for line in lines
    }
    assert len(widths) == 1


def test_a_table_as_it_looks() -> None:
    assert common.table([["a", "1"], ["\u6771\u4eac", "22"]], right=(1,)) == "a      1\n\u6771\u4eac  22\n"
