"""A child process: writes transformers' model as ONNX, for the engines that read that. Needs torch and onnx."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path


def export(task: str, source: Path, target: Path, *, int8: bool) -> None:
    """Fill the folder `target`, which appears only when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch, "onnx")
        folder.mkdir()
        if int8:
            import onnx
            from onnxruntime.quantization import QuantType, quantize_dynamic

            model = onnx.load(source / "model.onnx")
            del model.graph.value_info[:]  # the exporter left shapes from before it transposed some weights
            quantize_dynamic(model, folder / "model.onnx", weight_type=QuantType.QInt8)
        else:
            _export(task, source, folder / "model.onnx")
        shutil.copy(source / "tokenizer.json", folder)
        folder.rename(target)


def _export(task: str, source: Path, file: Path) -> None:
    import torch
    import transformers

    name = {"fill-mask": "RobertaPreLayerNormForMaskedLM", "classify": "RobertaPreLayerNormForSequenceClassification"}
    model = getattr(transformers, name[task]).from_pretrained(source, dtype=torch.float32).eval()
    ids = torch.full((2, 7), 5)
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=512)}
    torch.onnx.export(
        model,
        (),
        file,
        kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        dynamo=True,
    )


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int8=sys.argv[4] == "int8")
