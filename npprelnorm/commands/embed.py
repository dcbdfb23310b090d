"""`npprelnorm embed`: vectors for texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .common import (
    UsageError,
    add_model_argument,
    add_text_arguments,
    add_truncate_argument,
    add_weight_dtype_argument,
    answers,
    chunks,
    numbers,
    print_json,
    printable,
    say_which_model,
    writing,
)

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "turn texts into vectors"
DESCRIPTION = """\
Turn each text into a vector (with --pooling none: into one vector a token).

Prints one JSON object a text, in order: {"text": ..., "embedding": [...]}, or {"text": ..., "error": ...} for a text
that cannot be used; the exit code is then 1. With --out the vectors go to a file instead, all or none:
  file.npy   one array (texts, hidden size)
  file.npz   "embeddings", and with --pooling none also "lengths": the tokens of all texts one after another, and how
             many of them each text has
An empty line is a text too, so that row n is always line n."""
EXAMPLES = """\
examples:
  npprelnorm embed "A first text." "A second one." --normalize
  npprelnorm embed --file sentences.txt --pooling cls --out vectors.npy"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    add_text_arguments(parser, "text to embed")
    add_model_argument(parser)
    add_weight_dtype_argument(parser)
    add_truncate_argument(parser)
    parser.add_argument(
        "--pooling",
        choices=["mean", "cls", "max", "none"],
        help="how token vectors become one; padding never counts (default: what the checkpoint's "
        "sentence-transformers files say, or else mean)",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="scale every vector to length 1 (default: what those files say, or else no)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the vectors to FILE.npy or FILE.npz")


def run(args: argparse.Namespace) -> int:
    """Embed every text and print or save the vectors."""
    if args.out is not None and args.out.suffix not in {".npy", ".npz"}:
        raise UsageError(f"--out {args.out} ends in neither .npy nor .npz")
    if args.out is not None and args.out.suffix == ".npy" and args.pooling == "none":
        raise UsageError("--pooling none gives each text its own number of vectors; use --out FILE.npz")
    groups = chunks(args)
    from ..pipelines import pipeline

    say_which_model(args.model)
    extract = pipeline("feature-extraction", model=args.model, weight_dtype=args.weight_dtype)
    pooling = args.pooling or (extract.sentence.pooling if extract.sentence else "mean")

    def call(texts: list[str]) -> Sequence[np.ndarray]:
        return extract(texts, pooling=pooling, normalize=args.normalize, truncation=args.truncate)

    kept: list[np.ndarray] = []
    failed = False
    for group in groups:
        for (where, text), vectors in zip(group, answers(call, group), strict=True):
            if isinstance(vectors, Exception):
                if args.out is not None:
                    raise InputError(f"{where}: {vectors}; {args.out} was not written") from None
                failed = True
                sys.stderr.write(f"npprelnorm: error: {where}: {printable(str(vectors))}\n")
                print_json({"text": text, "error": str(vectors)})
            elif args.out is not None:
                kept.append(vectors)
            else:
                print_json({"text": text, "embedding": numbers(vectors)})
        sys.stdout.flush()
    if args.out is not None:
        _save(args.out, kept, ragged=args.pooling == "none")
    return 1 if failed else 0


def _save(out: Path, vectors: list[np.ndarray], *, ragged: bool) -> None:
    import numpy as np

    from ..files import replacing

    if not vectors:
        raise InputError(f"there are no texts in the input; {out} was not written")
    embeddings = np.concatenate(vectors) if ragged else np.stack(vectors)
    with writing(out), replacing(out) as temporary, open(temporary, "wb") as file:
        if out.suffix == ".npy":
            np.save(file, embeddings, allow_pickle=False)
        elif ragged:
            np.savez(file, embeddings=embeddings, lengths=np.array([len(rows) for rows in vectors], np.int64))
        else:
            np.savez(file, embeddings=embeddings)
    sys.stderr.write(f"npprelnorm: wrote {len(vectors)} texts, array {embeddings.shape}, to {out}\n")
