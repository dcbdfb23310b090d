"""What several commands share: where texts and models come from, and how results are printed or written."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import CheckpointNotFoundError, InputError, NpprelnormError, TokenizerError

if TYPE_CHECKING:
    import numpy as np

MODEL_HELP = "a folder with a checkpoint, or a hub id such as andreasmadsen/efficient_mlm_m0.40"
MAX_LINE_BYTES = 1 << 20
CHUNK = 32  # texts handed to the pipeline together


class UsageError(Exception):
    """The arguments are each right but do not go together; exit code 2 with the command's usage line."""


def positive_int(text: str) -> int:
    """argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``; without it the embedded model is used."""
    parser.add_argument(
        "--model", metavar="PATH_OR_ID", help=f"{MODEL_HELP} (default: the small model inside the package)"
    )


def add_weight_dtype_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--weight-dtype``."""
    parser.add_argument(
        "--weight-dtype",
        choices=("float32", "float16", "bfloat16", "int12"),
        default="float32",
        help="how the Numba kernels store weights: fewer bits are faster and less exact (default: %(default)s)",
    )


def add_text_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``TEXT ...`` and ``--file``."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help=what)
    parser.add_argument(
        "--file", metavar="F", help="read texts from this file, one a line, UTF-8 (- is standard input)"
    )


def add_truncate_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--truncate``."""
    parser.add_argument(
        "--truncate", action="store_true", help="cut texts that are too long for the model (truncation=True)"
    )


def chunks(args: argparse.Namespace) -> Iterator[list[tuple[str, str]]]:
    """Lists of ``(where, text)`` of the texts that the arguments name; `where` is for error messages.

    Wrong arguments are reported at once, before a model is loaded. Lines are read as they are asked for, so that a
    file of any length passes through little memory; a person who types gets an answer after each line.
    """
    if args.file is None:
        if not args.texts:
            raise UsageError("no TEXT given; give one, or --file F to read one a line (--file - for standard input)")
        if args.texts == ["-"]:
            raise UsageError("to read standard input, use --file -")
        return _grouped(iter(_texts_of_arguments(args.texts)), CHUNK)
    if args.texts:
        raise UsageError(f"give TEXT or --file, not both (TEXT was {args.texts[0]!r})")
    if args.file == "-":
        return _grouped(_texts_of_lines(sys.stdin.buffer, "standard input"), 1 if sys.stdin.isatty() else CHUNK)
    try:
        file = open(args.file, "rb")  # noqa: SIM115 (closed by _texts_of_lines, when it has been read)
    except FileNotFoundError:
        raise InputError(f"{args.file} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{args.file} is a folder; --file needs a text file") from None
    return _grouped(_texts_of_lines(file, args.file), CHUNK)


def _texts_of_arguments(texts: list[str]) -> list[tuple[str, str]]:
    for number, text in enumerate(texts, 1):
        try:
            text.encode("utf-8")  # Python hands on undecodable bytes of the command line as lone surrogates
        except UnicodeEncodeError:
            raise UsageError(f"text {number} is not valid UTF-8") from None
    return [(f"text {number}", text) for number, text in enumerate(texts, 1)]


def _texts_of_lines(file: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    with file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{name}, line {number} is longer than {MAX_LINE_BYTES} bytes; put one text on a line")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{name}, line {number} is not UTF-8 (byte {error.start}); convert the file") from None
            yield f"{name}, line {number}", text


def _grouped(pairs: Iterator[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    while chunk := list(itertools.islice(pairs, size)):
        yield chunk


def answers(call: Callable[[list[str]], Sequence[Any]], group: list[tuple[str, str]]) -> Iterator[Any]:
    """What `call` makes of each text of a `chunks` group, or the error that it raises for that text.

    All go in together; only when that fails each goes alone, so that good texts do not suffer from a bad one.
    """
    try:
        yield from call([text for _, text in group])
    except (InputError, TokenizerError) as error:
        if len(group) == 1:
            yield error
        else:
            for pair in group:
                yield from answers(call, [pair])


def say_which_model(model: str | None) -> None:
    """One line on stderr when the embedded model is used, with how to name a real one."""
    if model is None:
        note = "using the small embedded model (it knows a toy world only); name a real one with --model PATH_OR_ID"
        sys.stderr.write(f"npprelnorm: {note}\n")


def folder_of(model: str) -> Path:
    """The folder, or single file, that a command-line argument names; of a hub id, its folder in the hub cache."""
    path = Path(model)
    if path.is_file():
        return path
    if not path.exists() and "/" not in model:  # the hub has ids without an owner, but none of this architecture
        raise CheckpointNotFoundError(f"{model} does not exist here, and is no hub id, which would read owner/name")
    from ..checkpoint import hub

    return hub.resolve(model)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say what to do where a file that was asked for cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); name a file elsewhere") from None


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON line, in ASCII, so that no terminal or pipe can spoil it."""
    try:
        line = json.dumps(value, allow_nan=False)
    except ValueError:
        raise NpprelnormError(
            "the result holds NaN or infinity: are the weights damaged? (`npprelnorm inspect`)"
        ) from None
    sys.stdout.write(line + "\n")


def numbers(array: np.ndarray) -> Any:
    """`array` as nested lists of floats with the fewest digits that read back as the same float32."""
    return [numbers(row) for row in array] if array.ndim > 1 else [float(text) for text in array.astype(str)]


def printable(text: str, keep: str = "\n") -> str:
    """`text` with characters that a terminal would obey instead of show (other than `keep`) written as escapes."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Lines of aligned columns; those in `right` are flush right. Wide (east Asian) characters count as two."""
    cells = [[printable(cell, keep="") for cell in row] for row in rows]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        padded = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - _width(cell))
            padded.append(space + cell if column in right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
