"""Which model type a checkpoint is of: its config.json and its tensor names together say so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..config import BertConfig, CamembertConfig, RobertaConfig, RobertaPreLayerNormConfig, XLMRobertaConfig
from ..errors import CheckpointMismatchError, CheckpointNotFoundError
from ..files import read_json
from . import names
from .folder import open_tensors, weights_in

CONFIGS: dict[str, type[RobertaPreLayerNormConfig]] = {
    config.model_type: config
    for config in (RobertaPreLayerNormConfig, RobertaConfig, XLMRobertaConfig, CamembertConfig, BertConfig)
}

# beginnings of class names, the longer of two that begin alike first
_OF_CLASS = {
    "RobertaPreLayerNorm": "roberta-prelayernorm",
    "Roberta": "roberta",
    "XLMRoberta": "xlm-roberta",
    "Camembert": "camembert",
    "Bert": "bert",
}


def config_class(folder: Path, tensors: Iterable[str] | None = None) -> type[RobertaPreLayerNormConfig]:
    """The configuration class for a checkpoint folder.

    The files of princeton-nlp say roberta and are pre-LN: where the type is roberta the tensor names decide. A
    config.json without a model type is told by its architectures, or else by the tensor names.

    Parameters
    ----------
    folder : pathlib.Path
        A folder with a ``config.json``.
    tensors : iterable of str, optional
        Names of its tensors; by default those of the weights in it, if there are any.

    Raises
    ------
    CheckpointNotFoundError
        If there is no ``config.json``.
    CheckpointMismatchError
        For a model type that this package does not know.
    """
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointNotFoundError(f"{folder} has no config.json; name a folder that holds a checkpoint")
    values = read_json(path)
    model_type = values.get("model_type")
    if model_type is None:
        listed = values.get("architectures")
        name = next((item for item in listed if isinstance(item, str)), "") if isinstance(listed, list) else ""
        model_type = next((kind for start, kind in _OF_CLASS.items() if name.startswith(start)), None)
    if model_type in (None, RobertaConfig.model_type):
        order = names.layout(_tensor_names(folder) if tensors is None else tensors).order
        if order == "pre-LN" or (order == "unknown" and model_type is None):
            return RobertaPreLayerNormConfig
    refuse_pair(folder, model_type)
    if model_type is None:
        raise CheckpointMismatchError(
            f"{path} has neither a model_type nor architectures that tell it: set model_type there to what the "
            f"checkpoint is, one of {', '.join(CONFIGS)}"
        )
    if not isinstance(model_type, str) or model_type not in CONFIGS:
        raise CheckpointMismatchError(
            f"{path} has model_type {model_type!r:.80}; this package knows {', '.join(CONFIGS)}"
        )
    return CONFIGS[model_type]


def refuse_pair(folder: Path, model_type: object) -> None:
    """Raise a `CheckpointMismatchError` for the type of a pair, which has a class of its own."""
    if model_type == "encoder-decoder":
        raise CheckpointMismatchError(
            f"{folder} is an encoder-decoder pair: load it with EncoderDecoderModel.from_pretrained"
        )


def _tensor_names(folder: Path) -> list[str]:
    if weights_in(folder) is None:
        return []
    file = open_tensors(folder)
    try:
        return file.names()
    finally:
        file.close()
