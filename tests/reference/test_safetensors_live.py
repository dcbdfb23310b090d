"""Checkpoint files made by torch and transformers, read by us; and ours, read by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from npprelnorm.checkpoint.folder import open_tensors
from npprelnorm.checkpoint.safetensors_file import SafetensorsFile, write_safetensors
from npprelnorm.checkpoint.sharded import INDEX_NAME, ShardedFile, parse_size, write_sharded
from npprelnorm.errors import InputError

pytestmark = pytest.mark.reference

TYPES = [
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32",
    "uint64",
]  # fmt: skip
SIZES = ["5GB", "500MB", "1.5KB", " 2 TB ", "5gb", "5GiB", "5", "GB", "", "5G", "-1MB"]


def as_numpy(tensor: object) -> np.ndarray:
    """A torch tensor's exact values; bfloat16 as float32."""
    import torch

    assert isinstance(tensor, torch.Tensor)
    return tensor.to(torch.float32).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def model_of(dtype: str) -> object:
    import torch
    from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM

    torch.manual_seed(0)
    config = RobertaPreLayerNormConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24
    )
    return RobertaPreLayerNormForMaskedLM(config).to(getattr(torch, dtype))


@pytest.mark.parametrize("name", TYPES)
def test_every_torch_type_in_safetensors(name: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    dtype = getattr(torch, name)
    # every bit pattern of the 16-bit floats, NaN payloads included; random bytes for the rest
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    values = bits if name in ("float16", "bfloat16") else torch.randint(-(2**15), 2**15, (2**10,), dtype=torch.int16)
    values = values > 0 if name == "bool" else values.view(dtype)
    save_file({"a": values, "scalar": values[0].clone(), "empty": values[:0].reshape(0, 3).clone()}, tmp_path / "x")
    file = SafetensorsFile(tmp_path / "x")
    for key, theirs in {"a": values, "scalar": values[0], "empty": values[:0].reshape(0, 3)}.items():
        ours = file.read(key)
        assert ours.shape == tuple(theirs.shape)
        assert ours.dtype == (np.float32 if name == "bfloat16" else np.dtype(name))
        assert ours.tobytes() == as_numpy(theirs).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard_size", ["1GB", "10KB"])
def test_what_transformers_saves(dtype: str, shard_size: str, tmp_path: Path) -> None:
    model = model_of(dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)  # type: ignore[attr-defined]
    file = open_tensors(tmp_path)
    assert isinstance(file, SafetensorsFile if shard_size == "1GB" else ShardedFile)
    state = model.state_dict()  # type: ignore[attr-defined]
    tied = {"lm_head.decoder.weight", "lm_head.decoder.bias", "lm_head.bias"}
    assert set(file.names()) <= set(state)
    assert set(state) - set(file.names()) <= tied
    assert len(file.names()) > 50
    for name in file.names():
        assert file.info(name).dtype == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
        assert np.array_equal(file.read(name), as_numpy(state[name]))


@pytest.mark.parametrize("shard_size", ["1GB", "10KB"])
def test_what_transformers_loads_from_us(shard_size: str, tmp_path: Path) -> None:
    import torch
    from transformers import RobertaPreLayerNormForMaskedLM

    model = model_of("float32")
    state = {name: as_numpy(value) for name, value in model.state_dict().items()}  # type: ignore[attr-defined]
    model.config.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    write_sharded(tmp_path, state, shard_size)
    assert (tmp_path / INDEX_NAME).exists() == (shard_size == "10KB")
    loaded, info = RobertaPreLayerNormForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    ids = torch.arange(2, 22).reshape(2, 10)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)  # type: ignore[attr-defined,operator]


def test_our_types_in_torch(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    random = np.random.default_rng(0)
    tensors = {
        name: (random.standard_normal((3, 5)) * 50).astype(name)
        for name in ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
    }
    tensors["scalar"] = np.array(1.5, np.float32)
    tensors["empty"] = np.zeros((0, 4), np.float32)
    write_safetensors(tmp_path / "x", tensors)
    theirs = load_file(tmp_path / "x")
    assert set(theirs) == set(tensors)
    for name, array in tensors.items():
        assert tuple(theirs[name].shape) == array.shape
        assert theirs[name].numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("limit", ["300B", "1KB", "3KB", "12KB", "1MB"])
def test_the_same_shards_as_transformers(limit: str, tmp_path: Path) -> None:
    """File by file the same tensors, from the same state dict."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards

    size = 300 if limit == "300B" else parse_size(limit)
    random = np.random.default_rng(len(limit))
    tensors = {f"t{i}": np.zeros(random.integers(1, 600), np.float32) for i in range(40)}
    split = split_torch_state_dict_into_shards({k: torch.tensor(v) for k, v in tensors.items()}, max_shard_size=size)
    write_sharded(tmp_path, tensors, size)
    ours = {path.name: sorted(SafetensorsFile(path).names()) for path in tmp_path.glob("*.safetensors")}
    assert ours == {name: sorted(keys) for name, keys in split.filename_to_tensors.items()}
    if split.is_sharded:
        index = json.loads((tmp_path / INDEX_NAME).read_text())
        assert index["weight_map"] == split.tensor_to_filename
        assert index["metadata"] == split.metadata


@pytest.mark.parametrize("text", SIZES)
def test_sizes_mean_what_they_mean_to_transformers(text: str) -> None:
    from huggingface_hub.serialization._base import parse_size_to_int

    try:
        theirs = parse_size_to_int(text)
    except ValueError:
        theirs = -1
    if theirs < 1:
        with pytest.raises(InputError, match="is not a size"):
            parse_size(text)
    else:
        assert parse_size(text) == theirs


def test_a_sharded_pytorch_model_bin(tmp_path: Path) -> None:
    import torch

    state = model_of("float32").state_dict()  # type: ignore[attr-defined]
    names = list(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for shard, keys in shards.items():
        torch.save({key: state[key] for key in keys}, tmp_path / shard)
    weight_map = {key: shard for shard, keys in shards.items() for key in keys}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    file = open_tensors(tmp_path)
    assert sorted(file.names()) == sorted(names)
    for name in names:
        assert np.array_equal(file.read(name), as_numpy(state[name]))
        assert not file.read(name).flags.writeable
