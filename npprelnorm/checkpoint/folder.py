"""Which file of a checkpoint folder holds the weights."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFoundError
from .safetensors_file import require_regular_file
from .sharded import INDEX_NAME, SINGLE_NAME, ShardedFile, open_single
from .tensors import TensorFile

# in the order in which they are looked for, which is transformers'
WEIGHT_NAMES = (SINGLE_NAME, INDEX_NAME, "pytorch_model.bin", "pytorch_model.bin.index.json")

_CONVERT = {
    "tf_model.h5": "with transformers 4: "
    "AutoModelForMaskedLM.from_pretrained(folder, from_tf=True).save_pretrained(folder)",
    "flax_model.msgpack": "with transformers 4: "
    "AutoModelForMaskedLM.from_pretrained(folder, from_flax=True).save_pretrained(folder)",
    ".pt": "with torch: safetensors.torch.save_file(state_dict, 'model.safetensors', metadata={'format': 'pt'})",
}
_CONVERT[".pth"] = _CONVERT[".ckpt"] = _CONVERT[".pt"]


def open_tensors(folder: str | os.PathLike[str]) -> TensorFile:
    """Open the weights of a checkpoint folder.

    Parameters
    ----------
    folder : str or os.PathLike
        A folder that holds one of ``model.safetensors``, ``model.safetensors.index.json``, ``pytorch_model.bin``,
        ``pytorch_model.bin.index.json``; the first of these that is there is opened.

    Raises
    ------
    CheckpointNotFoundError
        The folder does not exist or holds none of them; the message lists what it does hold.
    CheckpointError
        The file that is there cannot be used; the more exact class says why.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        if os.path.exists(folder):
            raise CheckpointError(f"{folder} is a file, not a checkpoint folder: name the folder that it lies in")
        raise CheckpointNotFoundError(f"the folder {folder} does not exist")
    name = weights_in(folder)
    if name is None:
        raise CheckpointNotFoundError(describe_missing(folder))
    return open_tensor_file(folder / name)


def open_tensor_file(path: str | os.PathLike[str]) -> TensorFile:
    """Open one file of tensors by its content, or all shards of an index (``*.index.json``)."""
    path = Path(path)
    if path.name.endswith(".index.json"):
        require_regular_file(path)
        return ShardedFile(path)
    return open_single(path)


def weights_in(folder: Path) -> str | None:
    """The name of the weights to read from `folder`; a broken link counts, so that it is reported, not passed over."""
    return next((name for name in WEIGHT_NAMES if os.path.lexists(folder / name)), None)


def describe_missing(folder: Path) -> str:
    """One line: what was looked for in `folder`, what is there instead, and how to convert that."""
    present = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    more = f" and {len(present) - 10} more" if len(present) > 10 else ""
    listing = ", ".join(name[:80] for name in present[:10]) + more
    message = f"{folder} holds no weights: looked for {', '.join(WEIGHT_NAMES)}; there is {listing or 'nothing'}"
    for name in present:
        how = _CONVERT.get(name) or _CONVERT.get(Path(name).suffix)
        if how:
            return f"{message}; {name[:80]} is not supported: convert it {how}"
    return message
