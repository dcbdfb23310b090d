"""`npprelnorm explain`: what a model sees in one text, layer by layer."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointMismatchError, CheckpointWarning, InputError
from .common import (
    add_model_argument,
    add_truncate_argument,
    positive_int,
    printable,
    say_which_model,
    table,
    writing,
)

if TYPE_CHECKING:
    from ..model import BodyModel

SUMMARY = "show what a model sees in a text: attention, logit lens, residual norms"
DESCRIPTION = """\
Show what a model sees in one text: what fills its masks, what it would predict if it stopped after each layer (the
logit lens), which tokens each layer attends to, and how long the vectors of the residual stream are. A checkpoint
without a language-model head, such as a classifier or one for sentence embeddings, is shown without predictions.

With --html the same as one page for a browser, with the attention maps of every head; it needs no other file and no
network."""
EXAMPLES = """\
examples:
  npprelnorm explain "The capital of France is <mask>."
  npprelnorm explain "The capital of France is <mask>." --html report.html
  npprelnorm explain --model ./my-checkpoint "What a <mask>!" --html report.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    parser.add_argument("text", metavar="TEXT", help="the text, usually with a <mask>")
    add_model_argument(parser)
    add_truncate_argument(parser)
    parser.add_argument("--html", metavar="F", help="write a page for a browser instead of printing")
    parser.add_argument(
        "--top-k", type=positive_int, default=5, metavar="K", help="how many words at each place (default: 5)"
    )
    parser.add_argument(
        "--max-tokens", type=positive_int, default=64, metavar="T", help="how many tokens to show (default: 64)"
    )


def run(args: argparse.Namespace) -> int:
    """Explain the text."""
    from ..assets import embedded_model_path
    from ..files import write_text
    from ..inspect import explain, report_html
    from ..tokenizer import Tokenizer

    if args.html == "":
        raise InputError("--html is empty; it needs the name of a file")
    if args.html is not None and Path(args.html).is_dir():
        raise InputError(f"{args.html} is a folder; --html needs the name of a file")
    say_which_model(args.model)
    path = embedded_model_path() if args.model is None else args.model
    model, tokenizer = _loaded(path), Tokenizer.from_pretrained(path)
    if not hasattr(model, "lm_head"):
        sys.stderr.write(f"npprelnorm: {path} has no language-model head, so there is no logit lens\n")
    found = explain(model, tokenizer, args.text, k=args.top_k, truncation=args.truncate, max_tokens=args.max_tokens)
    if args.html is None:
        sys.stdout.write(_for_people(found))
    else:
        with writing(args.html):
            write_text(args.html, report_html(found))
        sys.stderr.write(f"npprelnorm: wrote {printable(args.html, keep='')}\n")
    return 0


def _loaded(path: str | os.PathLike[str]) -> BodyModel:
    """The checkpoint as a language model, a causal one if it is a decoder; without the head where it has none."""
    from ..auto import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    kind = AutoModelForCausalLM if AutoConfig.from_pretrained(path).is_decoder else AutoModelForMaskedLM
    try:
        model: BodyModel = kind.from_pretrained(path, init_missing=False)
    except CheckpointMismatchError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)  # its head is not used, as is said
            model = AutoModel.from_pretrained(path, init_missing=False)
    return model


def _for_people(found: dict[str, Any]) -> str:
    parts = [printable(found["text"], keep="") + "\n", found["cut"] + "\n" if found["cut"] else ""]
    shown = [fill["position"] for fill in found["fills"]] or [found["start"]]
    depths = ["embeddings", *(f"layer {number}" for number in range(1, len(found["norms"]["mean"])))]
    lens = found["lens"] or [[[]] * len(found["tokens"])] * len(depths)
    what = {"masked": ": the likeliest tokens", "next": ": the likeliest next tokens", "": ""}[found["predicts"]]
    for place in shown:
        parts.append(f"\nat token {found['positions'][place]}, {found['tokens'][place].strip()}{what}\n")
        rows = [["after", "", "norm"]]
        for depth, words, norms in zip(depths, lens, found["norms"]["tokens"], strict=True):
            likeliest = ", ".join(f"{word.strip() or word} {p:.3f}" for word, p in words[place])
            rows.append([depth, likeliest, f"{norms[place]:.2f}"])
        parts.append(table(rows, right=(2,)))
        parts.append("\nit attends most to (mean of all heads)\n")
        parts.append(table([[depth, _attended(found, layer, place)] for layer, depth in enumerate(depths[1:])]))
    parts.append("\nnorm of the residual stream, mean of all tokens\n")
    parts.append(
        table([[depth, f"{norm:.2f}"] for depth, norm in zip(depths, found["norms"]["mean"], strict=True)], right=(1,))
    )
    return "".join(parts)


def _attended(found: dict[str, Any], layer: int, place: int) -> str:
    """The three tokens that one token attends to most in a layer, with their weights."""
    tokens, heads = found["tokens"], found["attention"][layer]
    count = len(tokens)
    means = [sum(head[place * count + key] for head in heads) / len(heads) / 10_000 for key in range(count)]
    most = sorted(range(count), key=lambda key: -means[key])[:3]
    return ", ".join(f"{tokens[key].strip() or tokens[key]} {means[key]:.3f}" for key in most)
