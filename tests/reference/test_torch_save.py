"""Files that the real `torch.save` wrote, read without torch: the numbers must be the same bytes."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npprelnorm.checkpoint.torch_zip import TorchZipFile
from npprelnorm.errors import CheckpointFormatError, UnsafeCheckpointError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.reference

# torch's name -> what it is called and read as here
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "complex64": "C64", "complex128": "C128",
    "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip


def numbers(tensor: Any) -> np.ndarray:
    """A tensor as NumPy has it; bfloat16 widened by torch itself."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def assert_same(path: Path, tensors: dict[str, Any]) -> None:
    file = TorchZipFile(path)
    assert file.names() == list(tensors)
    for name, tensor in tensors.items():
        expected = numbers(tensor)
        array = file.read(name)
        assert file.info(name).dtype == DTYPES[str(tensor.dtype).removeprefix("torch.")]
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape == file.info(name).shape
        assert array.tobytes() == expected.tobytes()
        assert array.flags.c_contiguous
        assert not array.flags.writeable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


@pytest.mark.parametrize("name", DTYPES)
def test_every_type(name: str, path: Path) -> None:
    torch.manual_seed(0)
    dtype = getattr(torch, name)
    base = torch.randn(7, 5, dtype=torch.complex128) * 40 if dtype.is_complex else torch.randn(7, 5).double() * 40
    full = (base.abs() if name.startswith("uint") else base).to(torch.int64 if name.startswith("uint") else dtype)
    full = full.to(dtype)
    tensors = {
        "full": full,
        "transposed": full.t(),
        "rows": full[2:5],
        "columns": full[:, 1:4],
        "steps": full[::3, ::2],
        "scalar": full[3, 3],
        "one": full.reshape(-1)[:1],
        "empty": full[4:4],
        "of its own": full.new_zeros(0, 3),
    }
    torch.save(tensors, path)
    assert_same(path, tensors)


def test_tied_tensors_are_one_view(path: Path) -> None:
    weight = torch.randn(5000, 8)
    tensors = OrderedDict(a=weight, tied=weight, alias=weight.view(5000, 8), flat=weight.reshape(-1)[8:24].view(2, 8))
    torch.save(tensors, path)
    assert path.stat().st_size < 2 * weight.numel() * 4
    assert_same(path, tensors)
    file = TorchZipFile(path)
    assert np.shares_memory(file.read("a"), file.read("tied"))
    assert np.shares_memory(file.read("a"), file.read("flat"))


def test_state_dict_of_a_module(path: Path) -> None:
    """With `_metadata`, buffers, tied parameters, and Parameters kept as such."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 6, bias=False))
    model[2].weight = torch.nn.Parameter(model[0].weight.t())
    model.register_buffer("position_ids", torch.arange(9).expand((1, -1)))
    for state in (model.state_dict(), model.state_dict(keep_vars=True)):
        assert state._metadata
        torch.save(state, path)
        assert_same(path, state)
    frozen = {"w": torch.nn.Parameter(torch.ones(3), requires_grad=False)}
    torch.save(frozen, path)
    assert_same(path, frozen)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.v1.bin", "no_suffix", "mödel 1.bin"])
def test_names_of_files(name: str, tmp_path: Path) -> None:
    tensors = {"w": torch.arange(6.0).view(2, 3)}
    torch.save(tensors, tmp_path / name)
    assert_same(tmp_path / name, tensors)


def test_saved_to_a_buffer(path: Path) -> None:
    tensors = {"w": torch.arange(6.0).view(2, 3)}
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    path.write_bytes(buffer.getvalue())
    assert zipfile.ZipFile(path).namelist()[0] == "archive/data.pkl"
    assert_same(path, tensors)


def test_random_views(path: Path) -> None:
    """Random chains of slicing, transposing and selecting, all of one storage."""
    rng = np.random.default_rng(0)
    base = torch.randn(6, 5, 4, 3)
    tensors = {}
    for index in range(200):
        tensor = base
        for _ in range(rng.integers(1, 5)):
            if tensor.dim() == 0:
                break
            axis = int(rng.integers(tensor.dim()))
            kind = rng.integers(4)
            size = tensor.shape[axis]
            if kind == 0:
                start = int(rng.integers(size + 1))
                tensor = tensor.narrow(axis, start, int(rng.integers(size - start + 1)))
            elif kind == 1:
                tensor = tensor.transpose(axis, int(rng.integers(tensor.dim())))
            elif kind == 2 and size:
                tensor = tensor.select(axis, int(rng.integers(size)))
            else:
                tensor = tensor.unsqueeze(axis)
        tensors[str(index)] = tensor
    torch.save(tensors, path)
    assert_same(path, tensors)


def test_big_endian(path: Path) -> None:
    """A file as a big-endian machine writes it: torch reads it as we do."""
    tensors = {"w": torch.randn(3, 4), "h": torch.randn(5).bfloat16(), "i": torch.arange(3), "b": torch.tensor([True]),
               "c": torch.randn(2, dtype=torch.complex64)}  # fmt: skip
    swapped = {}
    for name, tensor in tensors.items():
        raw = numbers(tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).byteswap()
        swapped[name] = torch.from_numpy(raw)
        if tensor.dtype == torch.bfloat16:
            swapped[name] = swapped[name].view(torch.bfloat16)
    torch.save(swapped, path)
    entries = [(info.filename, zipfile.ZipFile(path).read(info)) for info in zipfile.ZipFile(path).infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(name, b"big" if name.endswith("/byteorder") else data)
    loaded = torch.load(path, weights_only=True)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert_same(path, tensors)


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_other_alignments(alignment: int, path: Path) -> None:
    if not hasattr(torch.utils, "serialization"):
        pytest.skip("this torch always aligns to 64 bytes")
    tensors = {"b": torch.ones(3, dtype=torch.uint8), "w": torch.randn(5)}
    with torch.utils.serialization.config.patch("save.storage_alignment", alignment):
        torch.save(tensors, path)
    assert_same(path, tensors)


def test_zip64_offsets(path: Path) -> None:
    """Beyond 4 GB the headers change; torch can leave the numbers out, so that the file is a hole."""
    if not hasattr(torch.serialization, "skip_data"):
        pytest.skip("this torch cannot leave the numbers out")
    with torch.serialization.skip_data():
        torch.save({"a": torch.empty(1 << 29), "b": torch.empty(1 << 29), "c": torch.empty(1 << 29),
                    "last": torch.ones(3)}, path)  # fmt: skip
    assert path.stat().st_size > 6 << 30
    if path.stat().st_blocks * 512 > 1 << 30:
        pytest.skip("this file system has no holes")
    with zipfile.ZipFile(path) as archive:
        last = archive.getinfo("pytorch_model/data/3")
    with open(path, "r+b") as file:
        file.seek(last.header_offset + 26)
        name_length, extra_length = struct.unpack("<2H", file.read(4))
        file.seek(name_length + extra_length, io.SEEK_CUR)
        file.write(np.array([1, 2, 3], np.float32).tobytes())
    reader = TorchZipFile(path)
    assert reader.info("b").shape == (1 << 29,)
    assert reader.read("c")[-1] == 0
    np.testing.assert_array_equal(reader.read("last"), [1, 2, 3])
    with pytest.raises(CheckpointFormatError, match="the checksum of its record data/3 is wrong"):
        TorchZipFile(path, verify_crc=True).read("last")
    assert zlib.crc32(reader.read("last").tobytes()) != last.CRC


def test_what_torch_can_save_and_we_refuse(path: Path) -> None:
    linear = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    cases = [
        (linear, UnsafeCheckpointError, r"torch\.nn\.modules\.linear\.Linear"),
        (torch.ones(3), CheckpointFormatError, "holds a tensor, not a state dict"),
        (
            {"model": linear.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3},
            CheckpointFormatError,
            r"keys are 'model' \(dict\), 'optimizer' \(dict\), 'epoch' \(int\): if its 'model' is the model, save that",
        ),
        ({"w": torch.ones(2, dtype=torch.complex64).conj()}, CheckpointFormatError, "resolve_conj"),
        ({"w": torch.ones(2).to(torch.float8_e4m3fn)}, CheckpointFormatError, "torch.float8_e4m3fn"),
        ({"w": torch.zeros(1).expand(1000)}, UnsafeCheckpointError, "repeats the 1 numbers of its storage"),
        ({"w": torch.eye(2).to_sparse()}, UnsafeCheckpointError, "_rebuild_sparse_tensor"),
        ({"w": np.float64(1.0)}, UnsafeCheckpointError, r"numpy\."),
    ]
    for value, error, reason in cases:
        torch.save(value, path)
        with pytest.raises(error, match=reason) as caught:
            TorchZipFile(path)
        assert type(caught.value) is error
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointFormatError, match=r"made by torch before 1\.6, or in that old format"):
        TorchZipFile(path)
    torch.save({"w": torch.ones(2)}, path, pickle_protocol=4)
    with pytest.raises(CheckpointFormatError, match="declares pickle protocol 4"):
        TorchZipFile(path)


def test_torchscript_is_refused(path: Path) -> None:
    """Compiled in a process of its own, since torch warns of the age of TorchScript."""
    script = f"import torch; torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), {str(path)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    with pytest.raises(CheckpointFormatError, match="TorchScript"):
        TorchZipFile(path)


def test_reads_without_torch(path: Path) -> None:
    torch.save({"w": torch.arange(3.0)}, path)
    script = (
        "import sys\nsys.modules['torch'] = None\n"
        "from npprelnorm.checkpoint.torch_zip import TorchZipFile\n"
        f"print(TorchZipFile({str(path)!r}).read('w').tolist())\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[0.0, 1.0, 2.0]\n", "")
