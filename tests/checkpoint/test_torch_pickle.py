"""The inert pickle interpreter: what it reads, and every kind of program that it must refuse without running it."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch_files as tf
from hypothesis import given

import npprelnorm
from npprelnorm.checkpoint.torch_pickle import read_pickle
from npprelnorm.checkpoint.torch_records import Limits, StorageRef, TensorSpec, state_dict
from npprelnorm.errors import CheckpointFormatError, UnsafeCheckpointError

PACKAGE = Path(npprelnorm.__file__).parent
FLOATS = tf.storage("FloatStorage", "0", 12)
W = tf.tensor(FLOATS, [3, 4], [4, 1])
SYSTEM = b"cposix\nsystem\n"
TOUCH = tf.text("touch canary")


def view(*arguments: Any, **options: Any) -> bytes:
    """A state dict of one tensor."""
    return tf.program(tf.state({"w": tf.tensor(*arguments, **options)}))


def raw(body: bytes) -> bytes:
    return b"\x80\x02" + body


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


class State:
    def __init__(self) -> None:
        self.payload = Evil()


def test_state_dict_of_views() -> None:
    reshaped = tf.tensor(FLOATS, [4, 3], [1, 4])
    data = tf.program(
        tf.state({"w": W, "t": reshaped, "row": tf.tensor(FLOATS, [4], [1], 8), "s": tf.tensor(FLOATS, [], [], 11)})
    )
    storage = StorageRef("0", "F32", 12)
    assert read_pickle(data, "it") == {
        "w": TensorSpec(storage, "F32", 0, (3, 4), (4, 1)),
        "t": TensorSpec(storage, "F32", 0, (4, 3), (1, 4)),
        "row": TensorSpec(storage, "F32", 8, (4,), (1,)),
        "s": TensorSpec(storage, "F32", 11, (), ()),
    }


def test_parameters_metadata_and_types_of_later_torch() -> None:
    parameter = tf.name("torch._utils", "_rebuild_parameter") + tf.items(W, b"\x88", tf.EMPTY_ORDERED_DICT) + b"R"
    untyped = tf.storage("", "1", 6).replace(b"torch\n\n", b"torch.storage\nUntypedStorage\n")
    words = tf.tensor(untyped, [3], [1], function="_rebuild_tensor_v3", rest=tf.name("torch", "uint16"))
    plain = tf.tensor(FLOATS, [1], [1], rest=b"}" + tf.text("conj") + b"\x89s")
    metadata = b"}" + tf.text("_metadata") + b"}" + tf.text("") + b"}" + tf.text("version") + b"K\x01sss"
    value = read_pickle(tf.program(tf.state({"p": parameter, "u": words, "c": plain}, metadata)), "it")
    assert value["p"] == TensorSpec(StorageRef("0", "F32", 12), "F32", 0, (3, 4), (4, 1))
    assert value["u"] == TensorSpec(StorageRef("1", None, 6), "U16", 0, (3,), (1,))
    assert list(value) == ["p", "u", "c"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(-9, 999), inner)
        ),
        max_leaves=20,
    )
)
def test_plain_values_are_read_as_pickle_reads_them(value: Any) -> None:
    """Against Python's own pickler; text with lone surrogates is not UTF-8 and no name either."""
    if not _is_utf8(value):
        with pytest.raises(CheckpointFormatError, match="a string is not UTF-8"):
            read_pickle(pickle.dumps(value, protocol=2), "it")
        return
    read = read_pickle(pickle.dumps(value, protocol=2), "it")
    assert read == value
    assert repr(read) == repr(value)  # True is not 1, and -0.0 is not 0


def _is_utf8(value: Any) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in repr(value).replace("\\ud", "\ud800"))


def test_shared_and_ordered_values() -> None:
    inner = OrderedDict(a=1)
    read = read_pickle(pickle.dumps(OrderedDict(x=inner, y=inner), protocol=2), "it")
    assert read == {"x": {"a": 1}, "y": {"a": 1}}
    assert read["x"] is read["y"]


DAMAGED, UNSAFE = CheckpointFormatError, UnsafeCheckpointError
# what it is -> (pickle, error class, part of the message)
REFUSED: dict[str, tuple[bytes, type[Exception], str]] = {
    # code
    "os.system by GLOBAL": (raw(SYSTEM + b"(" + TOUCH + b"tR."), UNSAFE, "'posix.system'"),
    "os.system as pickle writes it": (pickle.dumps(Evil(), 2), UNSAFE, "'posix.system'"),
    "builtins.eval": (raw(b"cbuiltins\neval\n(" + TOUCH + b"tR."), UNSAFE, "'builtins.eval'"),
    "payload before the stream breaks": (raw(SYSTEM + b"(" + TOUCH + b"tR\xff"), UNSAFE, "posix.system"),
    "payload in the state of an object": (pickle.dumps(State(), 2), UNSAFE, "test_torch_pickle.State'"),
    "protocol 4, STACK_GLOBAL": (pickle.dumps(Evil(), 4), DAMAGED, "protocol 4"),
    "STACK_GLOBAL": (raw(tf.text("posix") + tf.text("system") + b"\x93."), UNSAFE, "0x93 (STACK_GLOBAL)"),
    "INST": (raw(b"(" + TOUCH + b"iposix\nsystem\n."), UNSAFE, "0x69 (INST)"),
    "OBJ": (raw(b"(" + b"N" + TOUCH + b"o."), UNSAFE, "0x6f (OBJ)"),
    "NEWOBJ": (raw(b"N)\x81."), UNSAFE, "at byte 4, it uses the opcode 0x81 (NEWOBJ)"),
    "NEWOBJ_EX": (raw(b"N)}\x92."), UNSAFE, "0x92 (NEWOBJ_EX)"),
    "EXT1": (raw(b"\x82\x01."), UNSAFE, "0x82 (EXT1)"),
    "EXT4": (raw(b"\x84\x01\x00\x00\x00."), UNSAFE, "0x84 (EXT4)"),
    "PERSID": (raw(b"Pstorage\n."), UNSAFE, "0x50 (PERSID)"),
    "unknown opcode": (raw(b"\xff"), UNSAFE, "0xff (unknown)"),
    "a module of torch": (raw(b"ctorch.hub\nload\n."), UNSAFE, "'torch.hub.load'"),
    "a storage of another module": (raw(b"cevil\nFloatStorage\n."), UNSAFE, "'evil.FloatStorage'"),
    "a type of another module": (raw(b"cevil\nfloat8\n."), UNSAFE, "'evil.float8'"),
    "a dotted name": (raw(b"ctorch\nSize.__init__\n."), UNSAFE, "'torch.Size.__init__'"),
    "a name that is not ASCII": (raw("ctorch\nSizé\n.".encode()), UNSAFE, "not ASCII"),
    "a name with an escape": (raw(b"c\x1b[31m\nred\n."), UNSAFE, "'\\x1b[31m.red'"),
    "a name without end": (raw(b"c" + b"a" * 300 + b"\nb\n."), DAMAGED, "no end within 256 bytes"),
    "a second pickle": (raw(b"N.") + raw(SYSTEM + b"."), UNSAFE, "bytes follow its end"),
    "a second pickle inside": (raw(raw(b"N.")), UNSAFE, "a second pickle begins"),
    # calls and containers
    "call of a string": (raw(TOUCH + b")R."), UNSAFE, "it calls a str with a tuple"),
    "call of a storage type": (raw(tf.name("torch", "FloatStorage") + b")R."), UNSAFE, "FloatStorage"),
    "call without a tuple": (raw(tf.name("torch", "Size") + b"]R."), UNSAFE, "torch.Size' with a list"),
    "OrderedDict of something": (raw(tf.name("collections", "OrderedDict") + b"]\x85R."), DAMAGED, "with arg"),
    "torch.Size of text": (raw(tf.name("torch", "Size") + TOUCH + b"\x85R."), DAMAGED, "not made of sizes"),
    "torch.Size of two": (raw(tf.name("torch", "Size") + b"))\x86R."), DAMAGED, "not made of sizes"),
    "torch.Size of a bool": (raw(tf.name("torch", "Size") + b"\x88\x85\x85R."), DAMAGED, "not made of sizes"),
    "tensor of nothing": (raw(tf.name("torch._utils", "_rebuild_tensor_v2") + b")R."), DAMAGED, "not made of"),
    "tensor of a tuple": (view(b")", [1], [1]), DAMAGED, "not made of a storage"),
    "parameter of a dict": (
        raw(tf.name("torch._utils", "_rebuild_parameter") + tf.items(b"}", b"\x88", tf.EMPTY_ORDERED_DICT) + b"R."),
        DAMAGED,
        "not made of a tensor alone",
    ),
    "SETITEM on a tensor": (raw(W + TOUCH + b"Ns."), UNSAFE, "sets items of a tensor"),
    "SETITEMS on a list": (raw(b"](K\x00Nu."), UNSAFE, "sets items of a list"),
    "APPEND to a dict": (raw(b"}Na."), UNSAFE, "appends to a dict"),
    "APPENDS to a storage": (raw(FLOATS + b"(NNe."), UNSAFE, "appends to a storage"),
    "BUILD of a plain dict": (raw(b"}}b."), UNSAFE, "sets attributes of a dict from a dict"),
    "BUILD of a type": (raw(tf.name("torch", "Size") + b"}b."), UNSAFE, "attributes of a type"),
    "BUILD with a tuple": (raw(tf.EMPTY_ORDERED_DICT + b")b."), UNSAFE, "from a tuple"),
    "a key that is a tuple": (raw(b"}))s."), DAMAGED, "has a tuple as a key"),
    "a key that is a bool": (raw(b"}\x88Ns."), DAMAGED, "has True as a key"),
    "a key that is NaN": (raw(b"}G\x7f\xf8\0\0\0\0\0\0Ns."), DAMAGED, "has nan as a key"),
    "a key without a value": (raw(b"}(K\x01u."), DAMAGED, "a key has no value"),
    "a key twice": (raw(b"}(K\x01NK\x01Nu."), DAMAGED, "the key 1 is set twice"),
    # the stack
    "nothing": (b"", DAMAGED, "starts with b''"),
    "no protocol": (b"N.", DAMAGED, "starts with b'N'"),
    "no STOP": (raw(b"N"), DAMAGED, "ends in the middle"),
    "STOP of nothing": (raw(b"."), DAMAGED, "a value is wanted"),
    "STOP with leftovers": (raw(b"NN."), DAMAGED, "values left over"),
    "STOP with an open mark": (raw(b"(N."), DAMAGED, "values left over"),
    "pop below a mark": (raw(b"}N(s."), DAMAGED, "a value is wanted"),
    "tuple below a mark": (raw(b"NN(\x86."), DAMAGED, "a tuple of 2 is wanted"),
    "no mark": (raw(b"NNt."), DAMAGED, "a MARK is wanted"),
    "put of nothing": (raw(b"q\x00."), DAMAGED, "a value is wanted"),
    "get of nothing": (raw(b"h\x07."), DAMAGED, "recalls value 7"),
    "cut integer": (raw(b"J\x00"), DAMAGED, "ends in the middle"),
    "text that is not UTF-8": (raw(b"U\x01\xff."), DAMAGED, "not UTF-8"),
    # storages
    "storage id that is text": (raw(TOUCH + b"Q."), DAMAGED, "a storage is not described"),
    "storage of a module": (raw(tf.items(TOUCH, b"N", TOUCH, TOUCH, b"K\x01") + b"Q."), DAMAGED, "is not described"),
    "storage of NaN numbers": (
        view(tf.storage("FloatStorage", "0", b"G\x7f\xf8\0\0\0\0\0\0"), [1], [1]),
        DAMAGED,
        "is not described",
    ),
    "storage of True numbers": (view(tf.storage("FloatStorage", "0", b"\x88"), [1], [1]), DAMAGED, "is not described"),
    "storage of -1 numbers": (view(tf.storage("FloatStorage", "0", -1), [1], [1]), DAMAGED, "is not described"),
    "storage with two types": (
        tf.program(tf.state({"a": W, "b": tf.tensor(tf.storage("IntStorage", "0", 12), [1], [1])})),
        UNSAFE,
        "the storage '0' is described in two ways",
    ),
    "storage with two sizes": (
        tf.program(tf.state({"a": W, "b": tf.tensor(tf.storage("FloatStorage", "0", 13), [1], [1])})),
        UNSAFE,
        "is described in two ways",
    ),
    "quantized storage": (view(tf.storage("QInt8Storage", "0", 4), [4], [1]), DAMAGED, "torch.QInt8Storage"),
    # views
    "view beyond the end": (view(FLOATS, [3, 4], [4, 1], 1), UNSAFE, "leaves its storage '0' of 12"),
    "negative offset": (view(FLOATS, [1], [1], -1), DAMAGED, "not whole numbers >= 0"),
    "negative size": (view(FLOATS, [-3, 4], [4, 1]), DAMAGED, "not whole numbers >= 0"),
    "negative stride": (view(FLOATS, [3, 4], [-4, 1], 8), DAMAGED, "not whole numbers >= 0"),
    "offset True": (view(FLOATS, [1], [1], b"\x88"), DAMAGED, "not whole numbers >= 0"),
    "offset 1.0": (view(FLOATS, [1], [1], b"G\x3f\xf0\0\0\0\0\0\0"), DAMAGED, "not whole numbers >= 0"),
    "sizes in a list": (view(FLOATS, b"](K\x03e", [1]), DAMAGED, "not whole numbers >= 0"),
    "fewer strides than sizes": (view(FLOATS, [3, 4], [4]), DAMAGED, "in pairs"),
    "nine axes": (view(FLOATS, [1] * 9, [1] * 9), DAMAGED, "at most 8 axes"),
    "offset of 2^63": (view(FLOATS, [1], [1], 2**63 - 1), UNSAFE, "leaves its storage"),
    "stride of 2^62 twice": (view(FLOATS, [3, 3], [2**62, 2**62]), UNSAFE, "leaves its storage"),
    "sizes whose product wraps to 0": (view(FLOATS, [2**32, 2**32], [0, 0]), UNSAFE, "repeats the 12"),
    "stride 0 bomb": (view(FLOATS, [10**12], [0]), UNSAFE, "repeats the 12 numbers"),
    "overlapping windows bomb": (view(FLOATS, [4, 4, 4], [1, 1, 1]), UNSAFE, "repeats the 12 numbers"),
    "empty but endless": (view(FLOATS, [0, 2**62], [1, 1]), UNSAFE, "larger than any machine"),
    "integer of 9 bytes": (raw(b"\x8a\x09" + b"\xff" * 9 + b"."), UNSAFE, "an integer of 9 bytes"),
    "hooks": (view(FLOATS, [1], [1], hooks=tf.state({"hook": b"N"})), DAMAGED, "more than numbers"),
    "hooks in a plain dict": (view(FLOATS, [1], [1], hooks=b"}"), DAMAGED, "more than numbers"),
    "requires_grad of 1": (view(FLOATS, [1], [1], requires_grad=b"K\x01"), DAMAGED, "more than numbers"),
    "conjugate bit": (view(FLOATS, [1], [1], rest=b"}" + tf.text("conj") + b"\x88s"), DAMAGED, "resolve_conj"),
    "flags of tuples": (view(FLOATS, [1], [1], rest=b"}" + tf.text("conj") + b")s"), DAMAGED, "resolve_conj"),
    # bombs
    "nesting": (raw(b"(" * 1000), UNSAFE, "deeper than 64 levels"),
    "lists in lists": (raw(b"]" * 100_000), UNSAFE, "piles up more than 10000"),
    "tuples in tuples": (raw(b")" + b"\x85" * 400_000 + b"."), UNSAFE, "more than 200000 steps"),
    "tuples in tuples as a key": (raw(b"})" + b"\x85" * 100_000 + b"Ns."), DAMAGED, "has a tuple as a key"),
    "billion laughs": (
        raw(b"]q\x00" + b"".join(b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1) for i in range(200)) + b"."),
        DAMAGED,
        "values left over",
    ),
    "string of 4 GB": (raw(b"X\xff\xff\xff\xff."), UNSAFE, "a string of 4294967295 bytes"),
    "long pickle": (raw(b"0" * (16 << 20)), UNSAFE, "16777218 bytes long, more than the 16777216"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact class, the reason, one line, nothing run, little memory."""
    monkeypatch.chdir(tmp_path)
    data, error, reason = REFUSED[case]
    limits = Limits(opcodes=200_000)  # a tenth of the default, to be quick; memory grows in proportion
    before = set(sys.modules)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointFormatError) as caught:
            read_pickle(data, "model.bin", limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is error
    assert reason in str(caught.value)
    assert str(caught.value).startswith("model.bin ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert set(sys.modules) == before
    assert peak < 100_000 + 100 * min(len(data), limits.opcodes)


def test_the_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payloads above are live: Python's own unpickler runs them."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(REFUSED["os.system by GLOBAL"][0])
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


def test_values_that_contain_themselves() -> None:
    """Reading and describing them ends."""
    looped = raw(b"}q\x00" + tf.text("me") + b"h\x00s]q\x01h\x01a\x86.")
    assert read_pickle(looped, "it")[0]["me"]["me"]["me"].keys() == {"me"}
    with pytest.raises(CheckpointFormatError, match=r"'me' is no named tensor; its keys are 'me' \(dict\)"):
        state_dict(read_pickle(raw(b"}q\x00" + tf.text("me") + b"h\x00s."), "it"), "it")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "it holds a list, not a state dict"),
        (TensorSpec(StorageRef("0", "F32", 1), "F32", 0, (1,), (1,)), "it holds a tensor, not a state dict"),
        ({"epoch": 3, "model": {"w": None}}, "its keys are 'epoch' (int), 'model' (dict): if its 'model' is the model"),
        ({"lr": 0.1}, "since 'lr' is no named tensor; its keys are 'lr' (float): save its tensors alone"),
        ({1: TensorSpec(StorageRef("0", "F32", 1), "F32", 0, (), ())}, "1 is no named tensor; its keys are 1 (tensor)"),
        ({f"k{i}": i for i in range(20)}, "'k7' (int) and 12 more"),
        ({"k" * 500: 1}, "k..."),
    ],
)  # fmt: skip
def test_what_is_no_state_dict(value: Any, reason: str) -> None:
    with pytest.raises(CheckpointFormatError) as caught:
        state_dict(value, "it")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 600


def test_limits_can_be_set() -> None:
    data = tf.program(tf.state({"w": W}))
    assert list(read_pickle(data, "it", Limits(tensors=1))) == ["w"]
    for limits, reason in {
        Limits(tensors=0): "more than 0 tensors",
        Limits(opcodes=10): "more than 10 steps",
        Limits(pickle_bytes=50): "more than the 50 allowed",
        Limits(stack=3): "piles up more than 3 values",
        Limits(text=6): "a string of 7 bytes is longer than the 6",
        Limits(depth=2): "deeper than 2 levels",
    }.items():
        with pytest.raises(UnsafeCheckpointError, match=reason):
            read_pickle(data, "it", limits)
    with pytest.raises(UnsafeCheckpointError, match="memorises more than 1 values"):
        read_pickle(raw(b"Nq\x00q\x01."), "it", Limits(memo=1))
    with pytest.raises(CheckpointFormatError, match="at most 1 axes"):
        read_pickle(data, "it", Limits(rank=1))


def test_no_module_imports_pickle() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            modules = {name.partition(".")[0] for name in names}
            assert not modules & {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}, path


def test_reading_loads_no_pickle(tmp_path: Path) -> None:
    """In a process of its own; NumPy is the one that may have loaded it, so it is taken out first."""
    import numpy as np

    path = tf.save(tmp_path / "model.bin", tf.checkpoint({"w": np.arange(3.0)}))
    script = (
        "import sys, numpy\n"
        "for name in ('pickle', '_pickle'): sys.modules[name] = None\n"  # makes any import of it fail
        "from npprelnorm.checkpoint.torch_zip import TorchZipFile\n"
        f"print(TorchZipFile({str(path)!r}).read('w').tolist())\n"
        "assert not {'torch', 'transformers', 'scipy', 'zipfile', 'pickletools'} & set(sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent, check=False
    )
    assert (run.stdout, run.stderr) == ("[0.0, 1.0, 2.0]\n", "")
