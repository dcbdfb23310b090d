"""A hub cache with a stand-in for andreasmadsen/efficient_mlm_m0.40: its layout and vocabulary, random weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch_files

from npprelnorm import RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM
from npprelnorm.params import BASE_PREFIX
from npprelnorm.verify import Recorded

HUB_ID = "andreasmadsen/efficient_mlm_m0.40"
COMMIT = "4b" * 20

# what transformers 5.2.0 gives for the weights below; tests/reference/test_verify_live.py compares again
RECORDED = Recorded(
    source="transformers 5.2.0",
    input_ids=(0, 31414, 232, 328, 740, 1140, 12695, 69, 46078, 1588, 2),
    logits=((-0.69223, 2.34523, 0.11421), (-0.44861, 2.30224, 0.02063), (-0.47964, 2.28464, 0.12795)),
    last_hidden_state=((1.93184, -1.25685, 2.38047), (1.49896, -1.96190, 3.24151), (1.32830, -2.05160, 3.49462)),
)


def stand_in_model() -> RobertaPreLayerNormForMaskedLM:
    """The published configuration with 2 layers of 8, and weights from a generator whose stream is frozen."""
    config = RobertaPreLayerNormConfig(
        vocab_size=50265,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        extra={"transformers_version": "4.25.0.dev0"},
    )
    random = np.random.RandomState(40)  # the one generator that promises the same numbers in every NumPy
    shapes = RobertaPreLayerNormForMaskedLM.shapes(config, pooler=False)
    params = {name: random.standard_normal(shapes[name]).astype(np.float32) for name in sorted(shapes)}
    return RobertaPreLayerNormForMaskedLM.from_params(config, params)


def published_tensors(params: dict[str, np.ndarray], prefix: str = BASE_PREFIX) -> dict[str, np.ndarray]:
    """The tensors of a `.bin` of 2022: tied ones twice, and a buffer; the body under `prefix`."""
    tensors = {prefix + "embeddings.position_ids": np.arange(514)[None]}
    tensors |= {name.replace(BASE_PREFIX, prefix): array for name, array in params.items()}
    tensors["lm_head.decoder.weight"] = params[BASE_PREFIX + "embeddings.word_embeddings.weight"]
    tensors["lm_head.decoder.bias"] = params["lm_head.bias"]
    return tensors


def save_as_published(model: RobertaPreLayerNormForMaskedLM, folder: Path) -> None:
    """config.json and pytorch_model.bin, and no safetensors, as in the repository that this stands for."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(model.config)
    config.architectures = ["RobertaPreLayerNormForMaskedLM"]
    config.save_pretrained(folder)
    torch_files.save(folder / "pytorch_model.bin", torch_files.checkpoint(published_tensors(model.params)))


def save_as_princeton(model: RobertaPreLayerNormForMaskedLM, folder: Path) -> None:
    """The same as the princeton-nlp code names it: model_type and prefix of RoBERTa, and LayerNorms nobody uses."""
    save_as_published(model, folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values |= {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    tensors = published_tensors(model.params, "roberta.")
    width = model.config.hidden_size
    for layer in range(model.config.num_hidden_layers):
        for part in ("weight", "bias"):
            name = f"roberta.encoder.layer.{layer}.attention.self.LayerNorm.{part}"
            tensors[name] = np.ones(width, np.float32)
    torch_files.save(folder / "pytorch_model.bin", torch_files.checkpoint(tensors))


def make_hub_cache(cache: Path) -> Path:
    """Lay out `cache` as huggingface_hub does and return the folder of the stand-in's files."""
    model = cache / f"models--{HUB_ID.replace('/', '--')}"
    snapshot = model / "snapshots" / COMMIT
    save_as_published(stand_in_model(), snapshot)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT, encoding="ascii")
    return snapshot
