"""`npprelnorm fill-mask`: the most likely words for each `<mask>`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .common import (
    add_model_argument,
    add_text_arguments,
    add_truncate_argument,
    add_weight_dtype_argument,
    answers,
    chunks,
    positive_int,
    print_json,
    printable,
    say_which_model,
    table,
)

SUMMARY = "fill each <mask> in a text with the most likely words"
DESCRIPTION = """\
Fill each <mask> in a text with the most likely words.

A table for people; with --json one JSON object a text, in order:
  {"text": ..., "masks": [[{"score": ..., "token": ..., "token_str": ..., "sequence": ...}, ...], ...]}
with one inner list per <mask>, or {"text": ..., "error": ...} for a text that cannot be used. The other texts are
answered all the same; the exit code is then 1."""
EXAMPLES = """\
examples:
  npprelnorm fill-mask "The capital of France is <mask>."
  npprelnorm fill-mask "The grass is <mask>." --targets " green" " red"
  npprelnorm fill-mask --json --file - < sentences.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    add_text_arguments(parser, "text with at least one <mask>")
    add_model_argument(parser)
    add_weight_dtype_argument(parser)
    add_truncate_argument(parser)
    parser.add_argument("--top-k", type=positive_int, default=5, metavar="K", help="how many words (default: 5)")
    parser.add_argument("--targets", nargs="+", metavar="WORD", help="score only these words (after TEXT)")
    parser.add_argument("--json", action="store_true", help="print JSON Lines instead of tables")


def run(args: argparse.Namespace) -> int:
    """Answer every text; 1 if one of them could not be used."""
    groups = chunks(args)
    from ..pipelines import pipeline

    say_which_model(args.model)
    fill = pipeline("fill-mask", model=args.model, weight_dtype=args.weight_dtype)

    def call(texts: list[str]) -> list[Any]:
        return [
            _per_mask(answer)
            for answer in fill(texts, top_k=args.top_k, targets=args.targets, truncation=args.truncate)
        ]

    failed = False
    for group in groups:
        for (where, text), answer in zip(group, answers(call, group), strict=True):
            if isinstance(answer, Exception):
                failed = True
                sys.stderr.write(f"npprelnorm: error: {where}: {printable(str(answer))}\n")
                if args.json:
                    print_json({"text": text, "error": str(answer)})
            elif args.json:
                print_json({"text": text, "masks": answer})
            else:
                sys.stdout.write(_for_people(text, answer))
        sys.stdout.flush()
    return 1 if failed else 0


def _per_mask(answer: list[Any]) -> list[Any]:
    """A text with one mask has a plain list of candidates; make it a list of one list."""
    return answer if isinstance(answer[0], list) else [answer]


def _for_people(text: str, masks: list[list[dict[str, Any]]]) -> str:
    parts = [printable(text, keep="") + "\n"]
    for number, candidates in enumerate(masks, 1):
        if len(masks) > 1:
            parts.append(f"mask {number} of {len(masks)}\n")
        rows = [
            [f"  {candidate['score']:.4f}", candidate["token_str"].strip() or candidate["token_str"]]
            + ([candidate["sequence"]] if len(masks) == 1 else [])
            for candidate in candidates
        ]
        parts.append(table(rows))
    return "".join(parts) + "\n"
