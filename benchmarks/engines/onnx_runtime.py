"""onnxruntime on its CPU provider, all graph optimizations on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .answers import Run, classify_by_logits, fill_mask_of_logits


def _logits(folder: Path, threads: int) -> Callable[[Any, Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def fill_mask(folder: Path, threads: int) -> Run:
    """Texts to candidates; `tokenizers` makes the ids."""
    return fill_mask_of_logits(folder, _logits(folder, threads))


def classify(folder: Path, threads: int) -> Run:
    """Ids to class scores."""
    return classify_by_logits(_logits(folder, threads))
