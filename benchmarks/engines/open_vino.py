"""OpenVINO on the CPU, reading the same ONNX file as onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .answers import Run, classify_by_logits, fill_mask_of_logits


def _logits(folder: Path, threads: int) -> Callable[[Any, Any], Any]:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # or it would use bfloat16 where the CPU has it
    }
    request = openvino.Core().compile_model(folder / "model.onnx", "CPU", settings).create_infer_request()
    return lambda ids, mask: request.infer({"input_ids": ids, "attention_mask": mask})["logits"]


def fill_mask(folder: Path, threads: int) -> Run:
    """Texts to candidates; `tokenizers` makes the ids."""
    return fill_mask_of_logits(folder, _logits(folder, threads))


def classify(folder: Path, threads: int) -> Run:
    """Ids to class scores."""
    return classify_by_logits(_logits(folder, threads))
