"""What the pickle of a torch checkpoint may talk about: the names it may mention, and the records they become.

`torch.save` describes a tensor as a call of `torch._utils._rebuild_tensor_v2` on a storage (a run of numbers in a
record of its own), an offset, sizes and strides. Nothing is called here: `TorchRecords.call` checks the arguments
and notes them in a `TensorSpec`, and a spec that exists lies inside its storage.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointFormatError, UnsafeCheckpointError
from .tensors import ELEMENT_TYPES


class Damaged(Exception):
    """Something is wrong; `explaining` turns it into a CheckpointFormatError that names the file and the place."""


class Unsafe(Exception):
    """Something is asked for that reading numbers never needs; becomes an UnsafeCheckpointError."""


@contextlib.contextmanager
def explaining(source: str, place: Callable[[], str] = str) -> Iterator[None]:
    """Turn `Damaged` and `Unsafe` into the errors that a user meets; `place` is asked when there is one."""
    try:
        yield
    except Damaged as error:
        raise CheckpointFormatError(f"{source} cannot be read: {place()}{error}: download or save it again") from None
    except Unsafe as error:
        raise UnsafeCheckpointError(
            f"{source} is refused (nothing in it was run): {place()}{error}: "
            "if you trust its maker, ask for a safetensors file"
        ) from None


@dataclass(frozen=True)
class Limits:
    """What a checkpoint may ask for. Real ones stay far below; a few bytes could ask for all memory otherwise.

    Attributes
    ----------
    pickle_bytes
        Length of ``data.pkl``. A tensor takes some 150 bytes and its name; a string can take 4 times its length.
    opcodes
        Steps of the machine, hence its time (about a second) and the objects it makes (about 64 bytes each).
    memo, stack
        Objects that the machine may remember, and that may wait on its stack; a pickler hands over 1000 at a time.
    depth
        Containers that are begun and not yet ended.
    text
        UTF-8 bytes of one string.
    tensors, rank
        Tensors in the file, and axes of one of them; loops over them are bounded so.
    records
        Records in the zip; each costs some 500 bytes to know.
    copies
        How many times the size of the file all tensors that must be copied may take together. Any number of tensors
        may share one storage: read in place they cost nothing, but each different transposed view is a copy.
    """

    pickle_bytes: int = 16 << 20
    opcodes: int = 2_000_000
    memo: int = 1_000_000
    stack: int = 10_000
    depth: int = 64
    text: int = 64_000
    tensors: int = 50_000
    rank: int = 8
    records: int = 60_000
    copies: int = 8


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Global:
    """A name that the pickle mentions; nothing stands behind it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class StorageRef:
    """A run of numbers in the record ``data/<key>``: `numel` of type `dtype`, or bytes where that is None."""

    key: str
    dtype: str | None
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes that the record must have."""
        return self.numel * (ELEMENT_TYPES[self.dtype][0] if self.dtype else 1)


@dataclass(frozen=True)
class TensorSpec:
    """A view of a storage that is known to lie inside it; offset and stride count elements."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class OrderedState(dict[Any, Any]):
    """What a ``collections.OrderedDict`` becomes; its own class because only it may receive a BUILD."""

    __slots__ = ()


# torch.<name>Storage -> element type
_STORAGES = {
    "Float": "F32",
    "Double": "F64",
    "Half": "F16",
    "BFloat16": "BF16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
    "Short": "I16",
    "Int": "I32",
    "Long": "I64",
    "ComplexFloat": "C64",
    "ComplexDouble": "C128",
}
_STORAGE_TYPES: dict[Global, str | None] = {Global("torch", f"{n}Storage"): dtype for n, dtype in _STORAGES.items()}
_STORAGE_TYPES[Global("torch.storage", "UntypedStorage")] = None
# the types that torch stores untyped
_DTYPES = {Global("torch", f"uint{bits}"): f"U{bits}" for bits in (16, 32, 64)}

# element types that NumPy lacks, to say so rather than to cry wolf
_OTHER_DTYPES = ("float8", "float4", "bits", "int", "uint", "quint", "qint")


class TorchRecords:
    """Makes the records of one file, which must not contradict one another; raises `Damaged` or `Unsafe`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._storages: dict[str, StorageRef] = {}
        self._untyped: dict[str, str] = {}  # key of an untyped storage -> element type that it is read as
        self._tensors = 0

    def name(self, name: Global) -> Global:
        """`name` if a state dict may mention it."""
        if name in _ALLOWED:
            return name
        if name.module in ("torch", "torch.storage") and name.name.endswith("Storage"):
            raise Damaged(
                f"there is a {short(str(name))}, whose numbers cannot be read (convert them to float32 first)"
            )
        if name.module == "torch" and name.name.startswith(_OTHER_DTYPES):
            raise Damaged(
                f"there is a tensor of the type {short(str(name))}, which cannot be read (convert it to float32 first)"
            )
        raise Unsafe(f"it asks for the name {short(str(name))}, which no state dict needs")

    def storage(self, persistent_id: Any) -> StorageRef:
        """The storage that ``('storage', type, key, place, size)`` means."""
        match persistent_id:
            case ("storage", Global() as name, str(key), str(), numel) if name in _STORAGE_TYPES and _is_size(numel):
                storage = StorageRef(key, _STORAGE_TYPES[name], numel)
            case _:
                raise Damaged("a storage is not described by its type, key, place and size")
        known = self._storages.setdefault(key, storage)
        if known != storage:
            raise Unsafe(f"the storage {short(key)} is described in two ways")
        return known

    def call(self, name: Any, arguments: Any) -> Any:
        """What the function called `name` stands for."""
        function = _FUNCTIONS.get(name) if type(name) is Global else None
        if function is None or type(arguments) is not tuple:
            what = short(str(name)) if type(name) is Global else f"a {kind(name)}"
            raise Unsafe(f"it calls {what} with a {kind(arguments)}")
        return function(self, arguments)

    def _ordered_dict(self, arguments: tuple[Any, ...]) -> OrderedState:
        if arguments:
            raise Damaged("an OrderedDict is made with arguments")
        return OrderedState()

    def _size(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        if len(arguments) != 1 or not self._are_sizes(arguments[0]):
            raise Damaged("a torch.Size is not made of sizes")
        sizes: tuple[int, ...] = arguments[0]
        return sizes

    def _parameter(self, arguments: tuple[Any, ...]) -> TensorSpec:
        match arguments:
            case (TensorSpec() as tensor, bool(), OrderedState() as hooks) if not hooks:
                return tensor
        raise Damaged("a parameter is not made of a tensor alone")

    def _tensor_v2(self, arguments: tuple[Any, ...]) -> TensorSpec:
        match arguments:
            case (StorageRef(dtype=str(dtype)), _, _, _, _, _, *metadata):
                return self._tensor(arguments[:6], metadata, dtype)
        raise Damaged("a tensor is not made of a storage, offset, sizes and strides")

    def _tensor_v3(self, arguments: tuple[Any, ...]) -> TensorSpec:
        match arguments:
            case (StorageRef(dtype=None, key=key), _, _, _, _, _, Global() as name, *metadata) if name in _DTYPES:
                dtype = _DTYPES[name]
                if self._untyped.setdefault(key, dtype) != dtype:
                    raise Unsafe(f"the storage {short(key)} is read as two types, {self._untyped[key]} and {dtype}")
                return self._tensor(arguments[:6], metadata, dtype)
        raise Damaged("a tensor is not made of an untyped storage, offset, sizes, strides and type")

    def _tensor(self, arguments: tuple[Any, ...], metadata: list[Any], dtype: str) -> TensorSpec:
        """Check a tensor's arguments, and that the view that they describe lies inside its storage."""
        storage, offset, shape, stride, requires_grad, hooks = arguments
        if not (_is_size(offset) and self._are_sizes(shape) and self._are_sizes(stride) and len(shape) == len(stride)):
            raise Damaged(
                f"a tensor's offset, sizes and strides are not whole numbers >= 0, in pairs and for at most "
                f"{self._limits.rank} axes"
            )
        if type(requires_grad) is not bool or type(hooks) is not OrderedState or hooks:
            raise Damaged("a tensor comes with more than numbers")
        if metadata and not _is_plain(metadata):
            raise Damaged("a tensor is stored as the conjugate or negative of its numbers: use resolve_conj() first")
        self._tensors += 1
        if self._tensors > self._limits.tensors:
            raise Unsafe(f"it has more than {self._limits.tensors} tensors")

        numel = storage.nbytes // ELEMENT_TYPES[dtype][0]
        # an empty view reads nothing, and torch itself lets its offset lie anywhere
        last = -1 if 0 in shape else offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        view = f"the view of offset {offset}, shape {shape} and stride {stride}"
        if last >= numel:
            raise Unsafe(f"{view} leaves its storage {short(storage.key)} of {numel} numbers")
        # a stride of 0 turns four bytes into as many terabytes as one likes
        if math.prod(shape) > numel:
            raise Unsafe(
                f"{view} repeats the {numel} numbers of its storage; clone() it before saving if that is meant"
            )
        # NumPy wants even an empty array's other axes to multiply to something that it could address
        if math.prod(size for size in shape if size) >= 1 << 48:
            raise Unsafe(f"{view} is larger than any machine")
        return TensorSpec(storage, dtype, offset, shape, stride)

    def _are_sizes(self, value: Any) -> bool:
        return type(value) is tuple and len(value) <= self._limits.rank and all(_is_size(item) for item in value)


def _is_size(value: Any) -> bool:
    """An integer >= 0; `True`, which Python counts as 1, is none. The eight bytes of a LONG1 bound it from above."""
    return type(value) is int and value >= 0


def _is_plain(metadata: list[Any]) -> bool:
    """Whether a tensor's flags ("conj", "neg") are all off."""
    flags = metadata[0]
    return (
        len(metadata) == 1 and type(flags) is dict and len(flags) <= 2 and all(flag is False for flag in flags.values())
    )


_FUNCTIONS: dict[Global, Callable[[TorchRecords, tuple[Any, ...]], Any]] = {
    Global("collections", "OrderedDict"): TorchRecords._ordered_dict,
    Global("torch", "Size"): TorchRecords._size,
    Global("torch._utils", "_rebuild_parameter"): TorchRecords._parameter,
    Global("torch._utils", "_rebuild_tensor_v2"): TorchRecords._tensor_v2,
    Global("torch._utils", "_rebuild_tensor_v3"): TorchRecords._tensor_v3,
}
_ALLOWED = frozenset([*_STORAGE_TYPES, *_DTYPES, *_FUNCTIONS])


def state_dict(value: Any, source: str) -> dict[str, TensorSpec]:
    """`value` if it is a flat dict of names to tensors; otherwise an error that says what it is."""
    if not isinstance(value, dict):
        raise CheckpointFormatError(
            f"{source} holds a {kind(value)}, not a state dict: save it again with torch.save(model.state_dict(), ...)"
        )
    odd = [key for key, item in value.items() if type(key) is not str or type(item) is not TensorSpec]
    if odd:
        keys = ", ".join(f"{short(key)} ({kind(value[key])})" for key in list(value)[:8])
        more = f" and {len(value) - 8} more" if len(value) > 8 else ""
        inner = next((key for key in odd if isinstance(value[key], dict)), None)
        advice = "save its tensors alone" if inner is None else f"if its {short(inner)} is the model, save that alone"
        raise CheckpointFormatError(
            f"{source} is not a flat state dict, since {short(odd[0])} is no named tensor; its keys are {keys}{more}: "
            f"{advice} with torch.save"
        )
    return value


def kind(value: Any) -> str:
    """What `value` is, in an error message."""
    names = {TensorSpec: "tensor", OrderedState: "dict", StorageRef: "storage", Global: "type"}
    return names.get(type(value), type(value).__name__)


def short(value: object) -> str:
    """A value for an error message; containers by their type only, since they may be huge or contain themselves."""
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {kind(value)}"
    return text if len(text) <= 80 else text[:77] + "..."
