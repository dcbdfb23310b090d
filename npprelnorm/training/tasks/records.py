"""Labelled examples from JSON Lines or CSV files, line by line, and what is wrong with a line."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ...errors import CheckpointFormatError, DataError
from ...files import parse_json

MAX_LINE_BYTES = 1 << 20
SEPARATOR = "|"  # between several values in one cell of a CSV file
_CSV = {".csv": ",", ".tsv": "\t"}


def show(value: Any) -> str:
    """A value as an error quotes it: not too long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:76] + " ..."


@dataclass(frozen=True)
class Record:
    """One example as its line has it.

    Attributes
    ----------
    path : Path
    line : int
        Counted from 1; of a CSV record that spans lines, the first.
    values : dict
        Field names to values; in a CSV file all of them are strings.
    is_csv : bool
    """

    path: Path
    line: int
    values: dict[str, Any]
    is_csv: bool

    def fail(self, what: str) -> NoReturn:
        """Raise `DataError` with file and line."""
        raise DataError(f"{self.path}, line {self.line}: {what}")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def get(self, name: str) -> Any:
        """A field that must be there."""
        if not self.has(name):
            have = ", ".join(map(repr, self.values)) or "nothing"
            what = "is null" if name in self.values else f"is missing; the line has {show_raw(have)}"
            self.fail(f"the field {name!r} {what}")
        return self.values[name]

    def text(self, name: str, *, empty: bool = False) -> str:
        """A field that holds a string."""
        value = self.get(name)
        if not isinstance(value, str):
            self.fail(f"{name} is {show(value)}, not a string")
        if not value.strip() and not empty:
            self.fail(f"{name} is empty; remove the line, or fill it in")
        return value

    def integer(self, name: str) -> int:
        """A field that holds a whole number."""
        value = self.get(name)
        number = as_number(value) if self.is_csv else value
        if type(number) is not int:
            self.fail(f"{name} is {show(value)}, not a whole number")
        return number

    def number(self, name: str) -> float:
        """A field that holds a finite number."""
        value = self.get(name)
        number: Any = as_number(value) if self.is_csv else value
        if type(number) not in (int, float) or not math.isfinite(number):
            self.fail(f"{name} is {show(value)}, not a finite number")
        return float(number)

    def texts(self, name: str, separator: str | None = SEPARATOR) -> list[str]:
        """A field that holds a list of strings: in a CSV cell, with `separator` (None: spaces) between them."""
        value = self.get(name)
        if self.is_csv:
            parts = value.split(separator)
            return [part.strip() for part in parts] if value.strip() else []
        if not isinstance(value, list):
            self.fail(f"{name} is {show(value)}, not a list of strings")
        for index, item in enumerate(value):
            if not isinstance(item, str):
                self.fail(f"{name}[{index}] is {show(item)}, not a string")
        return list(value)


def show_raw(text: str) -> str:
    """A listing as an error shows it: not too long."""
    return text if len(text) <= 160 else text[:156] + " ..."


_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def as_number(text: str) -> int | float | None:
    """The number that a CSV cell spells: a whole one, one with a fraction or exponent, or None."""
    digits = text.strip()
    if _WHOLE.fullmatch(digits):
        return int(digits)
    return float(digits) if _NUMBER.fullmatch(digits) else None


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """All examples of a file: CSV if its name ends in .csv (or .tsv, with tabs), else JSON Lines.

    UTF-8, with or without a byte order mark. A CSV file begins with a line of column names; its empty cells are
    missing fields. A JSON Lines file has one object a line; empty lines do not count.

    Raises
    ------
    DataError
        For a file or line that cannot be used; the message has the line's number and what is wrong with it.
    """
    place = Path(path)
    delimiter = _CSV.get(place.suffix.lower())
    records = list(_csv(place, delimiter) if delimiter else _json_lines(place))
    if not records:
        raise DataError(f"{path} holds no examples; give a file with at least one")
    return records


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f"{path}, line {number}: it is longer than {MAX_LINE_BYTES} bytes; cut the text")
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    where = f"it is not UTF-8 (byte {error.start})"
                    raise DataError(f"{path}, line {number}: {where}; convert the file to UTF-8") from None
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name a JSON Lines or CSV file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _json_lines(path: Path) -> Iterator[Record]:
    for number, text in _lines(path):
        if not text.strip():
            continue
        try:
            values = parse_json(text.encode("utf-8"), "it")
        except CheckpointFormatError as error:
            # the parser sees one line only, so that its own line number says nothing
            what = str(error).replace(" at line 1, column ", " at column ")
            raise DataError(f"{path}, line {number}: {what}; each line must be one JSON object") from None
        yield Record(path, number, values, is_csv=False)


def _csv(path: Path, delimiter: str) -> Iterator[Record]:
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: it is not CSV: {error}") from None
        if not row or not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = _header(path, start, row)
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {start}: it has {len(row)} fields, but the first line names {len(header)} columns; "
                'put a field that holds the separator or a line end into "double quotes"'
            )
        yield Record(path, start, {name: cell for name, cell in zip(header, row, strict=True) if cell}, is_csv=True)


def _header(path: Path, line: int, row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    for index, name in enumerate(names):
        if not name:
            raise DataError(
                f"{path}, line {line}: column {index + 1} has no name; the first line must name the columns"
            )
        if name in names[:index]:
            raise DataError(f"{path}, line {line}: the column {name!r} appears twice; remove or rename one")
    return names
