"""Trace a forward of a transformers model by its own hooks, in the form of `npprelnorm.inspect.Trace`.

    python tools/trace_transformers.py FOLDER "The capital of France is <mask>."

runs a checkpoint here and in transformers on the same text, and says where the two first differ (exit status 1 if they
do). ``--out theirs.safetensors`` keeps their trace, ``--ours ours.safetensors`` ours. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import npprelnorm as nl

# what a module returns (or is given) -> the name of the step; {} is what the pattern's group matched
_OUTPUTS = (
    (r"(embeddings\.(?:word|token_type|position)_embeddings|embeddings\.LayerNorm)", "{}"),
    (r"(.*(?:attention|intermediate)\.LayerNorm|.*output\.LayerNorm|LayerNorm)", "{}"),
    (r"(.*attention\.self\.(?:query|key|value)|.*(?:output|intermediate)\.dense)", "{}"),
    (r"(.*\.intermediate)", "{}.activation"),
    (r"(pooler\.dense|pooler|lm_head\.dense|lm_head\.layer_norm|classifier\.dense)", "{}"),
    (r"(cls\.predictions\.transform\.(?:dense|LayerNorm))", "{}"),
)
_INPUTS = (
    (r"(classifier)\.out_proj", "{}.activation"),
    (r"(lm_head)\.layer_norm|(cls\.predictions\.transform)\.LayerNorm", "{}.activation"),
)
_RESULTS = ("logits", "start_logits", "end_logits", "loss")


def trace_transformers(model: Any, inputs: dict[str, Any]) -> nl.inspect.Trace:
    """The trace of one forward of `model`, made with ``attn_implementation="eager"`` (others show no weights).

    Pre-LN and post-LN models of the RoBERTa and BERT families; `inputs` are tensors, by name.
    """
    import torch

    found: dict[str, list[np.ndarray]] = {}  # a module that sees chunks of the tokens is called several times

    def put(name: str, value: Any) -> None:
        found.setdefault(name, []).append(value.detach().numpy().copy())

    def after(name: str) -> Any:
        return lambda module, arguments, output: put(name, output[0] if isinstance(output, tuple) else output)

    def before(name: str) -> Any:
        return lambda module, arguments: put(name, arguments[0])

    def attended(name: str) -> Any:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            if output[1] is not None:
                put(f"{name}.weights", output[1])
            put(f"{name}.context", output[0])

        return hook

    base = model.base_model_prefix + "."
    modules = {name.removeprefix(base): module for name, module in model.named_modules()}
    handles = []
    for name, module in modules.items():
        handles += [module.register_forward_hook(after(step)) for step in _matches(name, _OUTPUTS)]
        handles += [module.register_forward_pre_hook(before(step)) for step in _matches(name, _INPUTS)]
        if re.fullmatch(r".*attention\.self", name):
            handles.append(module.register_forward_hook(attended(name)))
        if re.fullmatch(r"encoder\.layer\.\d+(\.\w*attention)?\.output", name):
            residual = name.removesuffix("output") + "residual"
            if f"{name}.LayerNorm" in modules:  # post-LN: the sum goes into a LayerNorm
                handles.append(modules[f"{name}.LayerNorm"].register_forward_pre_hook(before(residual)))
            else:
                handles.append(module.register_forward_hook(after(residual)))
    try:
        with torch.no_grad():
            output = model(**inputs, return_dict=True)
    finally:
        for handle in handles:
            handle.remove()
    values = {name: parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1) for name, parts in found.items()}
    positions = "embeddings.position_embeddings"
    if positions in values:  # one row is looked up for all where their positions are the same
        values[positions] = np.broadcast_to(values[positions], values["embeddings.LayerNorm"].shape)
    steps = list(values.items())
    steps += [(name, output[name].numpy()) for name in _RESULTS if name in output]
    return nl.inspect.Trace.of(steps)


def _matches(name: str, table: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for pattern, step in table:
        match = re.fullmatch(pattern, name)
        if match:
            yield step.format(next(filter(None, match.groups())))


def main() -> int:
    """Trace both sides of a checkpoint and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a masked language model with its tokenizer")
    parser.add_argument("text")
    parser.add_argument("--out", metavar="F", help="save transformers' trace (.json or .safetensors)")
    parser.add_argument("--ours", metavar="F", help="save this package's trace")
    args = parser.parse_args()
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    batch = nl.Tokenizer.from_pretrained(args.folder)([args.text])
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(args.folder, attn_implementation="eager").float().eval()
    first = trace_transformers(theirs, {name: torch.from_numpy(array) for name, array in batch.items()})
    second = nl.inspect.trace(nl.AutoModelForMaskedLM.from_pretrained(args.folder), **batch)
    for trace, path in ((first, args.out), (second, args.ours)):
        if path:
            trace.save(path)
    comparison = nl.inspect.compare_traces(second, first)
    print(comparison)
    return 0 if comparison.first_difference is None else 1


if __name__ == "__main__":
    sys.exit(main())
