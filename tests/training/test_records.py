"""Files of examples: what is read, and that every bad line is named with its number and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npprelnorm.errors import DataError
from npprelnorm.training.tasks.records import MAX_LINE_BYTES, as_number, read_records


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"text": "é", "label": 1}\r\n\n  \n{"text": "b", "tags": ["x"], "n": 0.5}'.encode())
    one, other = read_records(path)
    assert (one.line, one.text("text"), one.integer("label"), one.has("tags")) == (1, "é", 1, False)
    assert (other.line, other.texts("tags"), other.number("n")) == (4, ["x"], 0.5)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.CSV"
    path.write_bytes(b'\xef\xbb\xbftext, label ,score\r\n"one, ""two""\nthree",a|b,1e3\r\n\r\nfour,,7\r\n')
    one, other = read_records(path)
    assert (one.line, one.text("text"), one.texts("label")) == (2, 'one, "two"\nthree', ["a", "b"])
    assert (one.number("score"), other.integer("score")) == (1000.0, 7)
    assert (other.line, other.has("label")) == (5, False)
    (tmp_path / "a.tsv").write_text("text\tlabel\na, b\tc\n", encoding="utf-8")
    assert read_records(tmp_path / "a.tsv")[0].values == {"text": "a, b", "label": "c"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl holds no examples; give a file with at least one"),
        ("a.jsonl", b"\n\n", "holds no examples"),
        ("a.csv", b"", "holds no examples"),
        ("a.csv", b"text,label\n", "holds no examples"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": }\n',
            "line 2: it is not valid JSON: Expecting value at column 7; each",
        ),
        ("a.jsonl", b'{"a": 1}\n[1, 2]\n', "line 2: it is not valid JSON: the top level is a list, not an object"),
        ("a.jsonl", b'{"a": 1, "a": 2}\n', "line 1: it is not valid JSON: the key 'a' appears twice"),
        ("a.jsonl", b'{"a": NaN}\n', "line 1: it is not valid JSON: the number NaN is not allowed"),
        ("a.jsonl", b'{"a": "\\ud800"}\n', "line 1: it is not valid JSON: half of a surrogate pair"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"line 2: it is not UTF-8 \(byte 7\); convert the file to UTF-8"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), r"line 1: it is not UTF-8 \(byte 0\)"),
        ("a.jsonl", b'{"a": 1}\n"' + b"x" * MAX_LINE_BYTES, "line 2: it is longer than 1048576 bytes; cut the text"),
        ("a.jsonl", b'{"a":' + b"[" * 100_000, "line 1: it is not valid JSON: it is nested deeper than 64 levels"),
        ("a.csv", b"text,label,text\na,b,c\n", "line 1: the column 'text' appears twice; remove or rename one"),
        ("a.csv", b"text,,label\na,b,c\n", "line 1: column 2 has no name"),
        ("a.csv", b"text,label\na,b\nc\n", "line 3: it has 1 fields, but the first line names 2 columns"),
        ("a.csv", b"text,label\na,b,c\n", "line 2: it has 3 fields, but the first line names 2 columns"),
        ("a.csv", b'text,label\na,b\n"c,d\n', "line 3: it is not CSV: unexpected end of data"),
        ("a.csv", b'text,label\n"a"b,c\n', "line 2: it is not CSV: ',' expected after '\"'"),
        ("a.csv", b"text,label\n" + b"x" * 200_000 + b",b\n", r"line 2: it is not CSV: field larger than field limit"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_records(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl does not exist"):
        read_records(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="is a folder; name a JSON Lines or CSV file"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("line", "call", "message"),
    [
        ('{"a": 1}', "r.text('b')", "line 1: the field 'b' is missing; the line has 'a'"),
        ('{"b": null}', "r.text('b')", "line 1: the field 'b' is null"),
        ("{}", "r.text('b')", "the field 'b' is missing; the line has nothing"),
        ('{"b": 3}', "r.text('b')", "b is 3, not a string"),
        ('{"b": " "}', "r.text('b')", "b is empty; remove the line, or fill it in"),
        ('{"b": "3"}', "r.integer('b')", "b is '3', not a whole number"),
        ('{"b": 3.0}', "r.integer('b')", "b is 3.0, not a whole number"),
        ('{"b": true}', "r.integer('b')", "b is True, not a whole number"),
        ('{"b": true}', "r.number('b')", "b is True, not a finite number"),
        ('{"b": "0.5"}', "r.number('b')", "b is '0.5', not a finite number"),
        ('{"b": "x"}', "r.texts('b')", "b is 'x', not a list of strings"),
        ('{"b": ["x", 3]}', "r.texts('b')", r"b\[1\] is 3, not a string"),
    ],
)
def test_bad_fields_are_named(tmp_path: Path, line: str, call: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(line, encoding="utf-8")
    record = read_records(tmp_path / "a.jsonl")[0]
    with pytest.raises(DataError, match=message):
        eval(call, {"r": record})


@pytest.mark.parametrize("cell", ["x", "1.5", "0x10", "1_000", "٣", "--1", "nan"])
def test_cells_that_are_no_whole_number(tmp_path: Path, cell: str) -> None:
    (tmp_path / "a.csv").write_text(f"b\n{cell}\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a whole number"):
        read_records(tmp_path / "a.csv")[0].integer("b")


def test_cells_that_are_no_finite_number(tmp_path: Path) -> None:
    for cell in ("x", "nan", "inf", "1e999", "1,5"):
        (tmp_path / "a.tsv").write_text(f"b\n{cell}\n", encoding="utf-8")
        with pytest.raises(DataError, match="not a finite number"):
            read_records(tmp_path / "a.tsv")[0].number("b")


@given(st.integers(-(10**18), 10**18))
def test_whole_numbers_in_cells(number: int) -> None:
    found = as_number(f" {number} ")
    assert type(found) is int
    assert found == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_with_a_fraction_in_cells(number: float) -> None:
    assert as_number(repr(number)) == number


@given(st.binary(max_size=300), st.sampled_from((".csv", ".jsonl")))
def test_any_bytes_give_records_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, end: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{end}"
    path.write_bytes(data)
    message = ""
    try:
        records = read_records(path)
    except DataError as error:
        message, records = str(error), []
    assert bool(records) != (str(path) in message)
