"""`npprelnorm inspect`: what is in a checkpoint, without reading its numbers."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import MODEL_HELP, folder_of, print_json, printable, table

if TYPE_CHECKING:
    from ..checkpoint.names import Layout
    from ..checkpoint.tensors import TensorFile
    from ..family import Family

SUMMARY = "list a checkpoint's tensors, and say what kind it is"
DESCRIPTION = """\
List the tensors of a checkpoint with their shapes and types, count its parameters, and say what kind of checkpoint it
is and whether this package can load it. Nothing in the files is run, whatever they hold."""
EXAMPLES = """\
examples:
  npprelnorm inspect ./my-checkpoint
  npprelnorm inspect pytorch_model.bin --json"""

_LAYOUTS = {
    "pre-LN": "RobertaPreLayerNorm (pre-LN)",
    "princeton": "RobertaPreLayerNorm (pre-LN) under the names of the princeton-nlp code",
    "post-LN": "post-LN, of which model type no config.json says; this package does not load it so",
    "unknown": "no RoBERTa-like encoder; this package does not load it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    parser.add_argument("path", metavar="PATH", help=f"{MODEL_HELP}, or a single .safetensors or .bin file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    """Describe the checkpoint."""
    from ..checkpoint.folder import open_tensor_file, open_tensors

    path = folder_of(args.path)
    file = open_tensor_file(path) if path.is_file() else open_tensors(path)
    try:
        report = describe(file)
    finally:
        file.close()
    if args.json:
        print_json(report)
    else:
        sys.stdout.write(_for_people(report))
    return 0


def describe(file: TensorFile) -> dict[str, Any]:
    """Everything that the command shows, as JSON can hold it."""
    from ..checkpoint import names
    from ..checkpoint.tensors import ELEMENT_TYPES

    found = names.layout(file.names())
    model_type, family = _model_type(file, found)
    canonical = {name: names.canonical(name, found.prefix, family.prefix) for name in file.names()}
    copies = _copies(file, canonical, family)
    tensors = []
    for name, own in canonical.items():
        info = file.info(name)
        size = math.prod(info.shape)
        counted = own is not None and own not in copies
        tensors.append(
            {
                "name": name,
                "dtype": info.dtype,
                "shape": list(info.shape),
                "bytes": size * ELEMENT_TYPES[info.dtype][0],
                "parameters": size if counted else None,  # None: unused, or the numbers of another tensor
            }
        )
    layout = "princeton" if found.is_princeton else found.order
    return {
        "file": str(file.path),
        "layout": layout,
        "kind": f"{model_type} (post-LN)" if layout == "post-LN" and model_type else _LAYOUTS[layout],
        "head": _head({own: file.info(name).shape for name, own in canonical.items() if own is not None}, family),
        "loadable": found.order == "pre-LN" or (found.order == "post-LN" and model_type is not None),
        "parameters": sum(tensor["parameters"] or 0 for tensor in tensors),
        "bytes": sum(tensor["bytes"] for tensor in tensors),
        "metadata": file.metadata,
        "config": _config(Path(file.path).parent),
        "tensors": tensors,
    }


def _model_type(file: TensorFile, found: Layout) -> tuple[str | None, Family]:
    """The model type of a file of post-LN weights, if its config.json names a known one, and what names it has."""
    from ..checkpoint.model_types import config_class
    from ..errors import CheckpointError
    from ..family import BERT, POST_LN, ROBERTA, ROBERTA_PRELAYERNORM

    if found.order != "post-LN":
        return None, ROBERTA_PRELAYERNORM
    try:
        config = config_class(Path(file.path).parent, file.names())
    except CheckpointError:  # there is no config.json, or it is of another kind
        return None, BERT if any(name.startswith(("bert.", "cls.")) for name in file.names()) else ROBERTA
    return (config.model_type, config.family) if config.family.order is POST_LN else (None, ROBERTA)


def _copies(file: TensorFile, canonical: dict[str, str | None], family: Family) -> set[str]:
    """Canonical names of tensors that hold the numbers of another one: the tied decoder and its bias."""
    import numpy as np

    stored = {own: name for name, own in canonical.items() if own is not None}
    head = family.lm_head
    pairs = {
        head.decoder + ".weight": family.prefix + "embeddings.word_embeddings.weight",
        head.decoder + ".bias": head.bias,
    }
    return {
        copy
        for copy, original in pairs.items()
        if copy in stored
        and original in stored
        and file.info(stored[copy]).shape == file.info(stored[original]).shape
        and np.array_equal(file.read(stored[copy]), file.read(stored[original]))
    }


def _head(shapes: dict[str, tuple[int, ...]], family: Family) -> str:
    """What the tensors beside the body are for."""
    if family.lm_head.dense + ".weight" in shapes:
        return "language model (masked or causal)"
    if "qa_outputs.weight" in shapes:
        return "question answering"
    if "classifier.out_proj.weight" in shapes:
        return f"sequence classification, {shapes['classifier.out_proj.weight'][0]} labels"
    if "classifier.weight" in shapes:
        pooled = any(name.endswith("pooler.dense.weight") for name in shapes)
        labels = shapes["classifier.weight"][0]
        if pooled and labels == 1:
            return "multiple choice"
        what = "sequence" if pooled and family.lm_head.dense.startswith("cls.") else "token"
        return f"{what} classification, {labels} labels"
    if any(name.endswith("pooler.dense.weight") for name in shapes):
        return "none (base model with pooler)"
    return "none (base model)"


def _config(folder: Path) -> dict[str, Any] | None:
    """The sizes that config.json states, or None where there is no such file."""
    from ..files import read_json

    if not (folder / "config.json").is_file():
        return None
    values = read_json(folder / "config.json")
    return {name: values[name] for name in _SHOWN if name in values}


_SHOWN = (
    "model_type",
    "architectures",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _for_people(report: dict[str, Any]) -> str:
    config = report["config"] or {}
    facts = [
        ["file", report["file"]],
        ["kind", report["kind"]],
        ["head", report["head"]],
        ["config", ", ".join(f"{name} {_shown(value)}" for name, value in config.items()) or "there is no config.json"],
        ["metadata", ", ".join(f"{key}: {value}" for key, value in report["metadata"].items())],
        ["parameters", f"{report['parameters']:,} in {len(report['tensors'])} tensors"],
        ["bytes", f"{report['bytes']:,}"],
    ]
    rows = [["tensor", "dtype", "shape", "parameters"]]
    for tensor in report["tensors"]:
        count = "unused or a copy" if tensor["parameters"] is None else f"{tensor['parameters']:,}"
        rows.append([tensor["name"], tensor["dtype"], " x ".join(map(str, tensor["shape"])) or "scalar", count])
    return printable(table([fact for fact in facts if fact[1]])) + "\n" + table(rows, right=(3,))
