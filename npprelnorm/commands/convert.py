"""`npprelnorm convert`: any readable checkpoint to safetensors with transformers' names."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .common import MODEL_HELP, folder_of

SUMMARY = "turn a .bin or princeton-nlp checkpoint into safetensors"
DESCRIPTION = """\
Write a checkpoint to a new folder as safetensors, with the names and the config.json that transformers expects, and
copy its tokenizer. Reads pytorch_model.bin without torch, and without running anything that may hide in it."""
EXAMPLES = """\
examples:
  npprelnorm convert ./old ./new
  npprelnorm convert ./old/pytorch_model.bin ./new --dtype float16
  npprelnorm convert princeton-nlp/efficient_mlm_m0.40 ./new"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    parser.add_argument("source", metavar="SRC", help=f"{MODEL_HELP}, or a file of weights beside its config.json")
    parser.add_argument("target", metavar="DST", type=Path, help="the folder to write; made if missing")
    parser.add_argument(
        "--dtype",
        choices=["float16", "bfloat16", "float32"],
        help="type to store the numbers in (default: as they are; the shorter ones lose precision)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was done."""
    from ..checkpoint.convert import convert

    done = convert(folder_of(args.source), args.target, dtype=args.dtype)
    sys.stdout.write(f"wrote {done.folder}: {done.tensors} tensors, {done.parameters:,} parameters\n")
    if done.copied:
        sys.stdout.write(f"copied {', '.join(done.copied)}\n")
    if done.left_out:
        more = f" and {len(done.left_out) - 3} more" if len(done.left_out) > 3 else ""
        listed = f"{', '.join(done.left_out[:3])}{more}"
        sys.stdout.write(f"left out, as unused or stored twice: {listed}\n")
    return 0
