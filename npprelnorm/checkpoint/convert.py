"""From any checkpoint that can be read to a folder as transformers writes it: safetensors, its names, its config."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import RobertaPreLayerNormConfig
from ..errors import CheckpointError, CheckpointNotFoundError, InputError
from ..family import PRE_LN
from ..files import replacing
from . import names
from .folder import WEIGHT_NAMES, open_tensor_file, open_tensors
from .hub import SENTENCE_FILES, SMALL_FILES
from .load import Source, check_architecture, resolve_ties
from .model_types import config_class
from .sharded import SINGLE_NAME, write_sharded
from .tensors import ELEMENT_TYPES, TensorFile

DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True)
class Converted:
    """What `convert` did: the kept tensors, what they hold, and the stored names that were left out."""

    folder: Path
    tensors: int
    parameters: int
    left_out: tuple[str, ...]
    copied: tuple[str, ...]


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], *, dtype: str | None = None) -> Converted:
    """Write the checkpoint `source` to the new folder `target` as safetensors with transformers' names.

    Names of the princeton-nlp code are translated. Tensors that nobody uses are left out, and so are copies of tied
    ones. Files of the tokenizer and of sentence-transformers are copied as they are.

    Parameters
    ----------
    source : path
        A checkpoint folder, or a file of weights beside its ``config.json``.
    target : path
        A folder that does not hold a checkpoint yet; made if missing.
    dtype : {"float16", "bfloat16", "float32"}, optional
        Type to store floating-point tensors in; by default each keeps its own.

    Raises
    ------
    CheckpointError
        If `source` cannot be read, is of no model type that this package knows, or `target` holds a checkpoint
        already.
    InputError
        For an unknown dtype, or one that the numbers are too large for.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
    source, target = Path(source), Path(target)
    folder = source.parent if source.is_file() else source
    _require_free(target)
    if not (folder / "config.json").is_file():
        where = f"{source} has no config.json beside it" if source.is_file() else f"{source} has no config.json"
        raise CheckpointNotFoundError(f"{where}; convert needs the one that belongs to the weights")
    file = open_tensor_file(source) if source.is_file() else open_tensors(folder)
    try:
        config = config_class(folder, file.names()).from_pretrained(folder)
        kept, config = _selected(file, folder, config)
        codes = {name: _code(file, stored, dtype) for name, stored in kept.items()}
        target.mkdir(parents=True, exist_ok=True)
        if "BF16" in codes.values():
            _write_bfloat16(target / SINGLE_NAME, file, kept, codes)
        else:
            write_sharded(target, {name: _read(file, stored, codes[name]) for name, stored in kept.items()})
        parameters = sum(int(np.prod(file.info(stored).shape)) for stored in kept.values())
        left_out = tuple(name for name in file.names() if name not in set(kept.values()))
    finally:
        file.close()
    beside = (*SMALL_FILES, *SENTENCE_FILES)
    copied = tuple(name for name in beside if name != "config.json" and (folder / name).is_file())
    for name in copied:
        (target / name).parent.mkdir(exist_ok=True)
        with replacing(target / name) as temporary:
            shutil.copyfile(folder / name, temporary)
    if dtype is not None:
        config.dtype = dtype
    config.save_pretrained(target)  # last: a folder without it is not taken for a checkpoint
    return Converted(target, len(kept), parameters, left_out, copied)


def _require_free(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target} is a file; name a folder to write to")
    present = [name for name in ("config.json", *WEIGHT_NAMES) if (target / name).exists()]
    if present:
        raise CheckpointError(f"{target} already holds {present[0]}; name a new folder, or move that checkpoint away")


def _selected(
    file: TensorFile, folder: Path, config: RobertaPreLayerNormConfig
) -> tuple[dict[str, str], RobertaPreLayerNormConfig]:
    """New name -> stored name of each tensor to keep, in file order, and the configuration to go with them."""
    found = names.layout(file.names())
    check_architecture(folder, config, found)
    source = Source(file, found.prefix, config.family)
    if config.family.lm_head.dense + ".weight" in source.names:
        config = resolve_ties(source, config, "v5", folder)
    config = copy.deepcopy(config)
    config.extra.pop("model_type", None)
    if config.family.order is PRE_LN:
        config.architectures = [_our_class(name) for name in config.architectures or []]
    # a base model's names carry no prefix; it stays one
    own = config.family.prefix
    prefix = own if found.prefix else ""
    return {names.in_model(name, prefix, own): stored for name, stored in source.names.items()}, config


def _our_class(name: str) -> str:
    """RobertaForMaskedLM, as the princeton-nlp configurations say, is RobertaPreLayerNormForMaskedLM here."""
    if name.startswith("Roberta") and not name.startswith("RobertaPreLayerNorm"):
        return "RobertaPreLayerNorm" + name.removeprefix("Roberta")
    return name


def _code(file: TensorFile, stored: str, dtype: str | None) -> str:
    """safetensors' name of the type that a tensor is to be written in."""
    own = file.info(stored).dtype
    return DTYPES[dtype] if dtype is not None and own in ("F16", "BF16", "F32", "F64") else own


def _read(file: TensorFile, stored: str, code: str) -> np.ndarray:
    """The numbers of a tensor in the type `code`; for BF16 as uint16 bit patterns.

    Raises
    ------
    InputError
        If a finite number would become infinite.
    """
    array = file.read(stored)
    if code == "BF16":
        narrow = narrow_bfloat16(array)
        overflow = np.isfinite(array) & (narrow & 0x7FFF == 0x7F80)
    else:
        with np.errstate(over="ignore"):
            narrow = array.astype(ELEMENT_TYPES[code][1], copy=False)
        if narrow is array or narrow.dtype.kind != "f":
            return narrow
        overflow = np.isinf(narrow) & np.isfinite(array)
    if overflow.any():
        largest = float(np.abs(array[overflow]).max())
        raise InputError(f"{stored} holds {largest:.6g}, too large for {code}; convert to bfloat16 or float32")
    return narrow


def narrow_bfloat16(array: np.ndarray) -> np.ndarray:
    """Bit patterns (uint16) of the bfloat16 numbers nearest to `array`; ties go to the even one, NaN stays NaN."""
    wide = np.ascontiguousarray(array, np.float32)
    bits = wide.view(np.uint32)
    # add just less than half of the last kept bit, and the missing rest where that bit is odd; then cut off
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(wide), np.uint32(0x7FC0), rounded).astype(np.uint16)


def _write_bfloat16(path: Path, file: TensorFile, kept: Mapping[str, str], codes: Mapping[str, str]) -> None:
    """Write one safetensors file tensor by tensor. NumPy has no bfloat16, so the library cannot be asked to."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, stored in kept.items():
        shape, start = file.info(stored).shape, end
        end += ELEMENT_TYPES[codes[name]][0] * int(np.prod(shape))
        header[name] = {"dtype": codes[name], "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)  # the numbers begin at a multiple of 8
    with replacing(path) as temporary, open(temporary, "wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, stored in kept.items():
            out.write(np.ascontiguousarray(_read(file, stored, codes[name])).data)
