"""Packed weights: how long they live, when they are made anew, and what becomes of the mapped file."""

from __future__ import annotations

import gc
import itertools
import mmap
import threading
from pathlib import Path
from typing import Any

import numpy as np
from kernel_calls import random
from strategies import class_of, random_ids, random_model, tiny_config

import npprelnorm as nl
from npprelnorm.kernels import weights
from npprelnorm.kernels.body_weights import _known


def test_packed_once_and_forgotten_with_the_parameter() -> None:
    gc.collect()
    held, entries = weights.packed_bytes(), len(weights._entries)
    weight = random(0, 40, 50)
    first = weights.packed(weight)
    assert weights.packed(weight) is first
    assert weights.packed_bytes() == held + first.nbytes
    weight[3, 4] += 1
    second = weights.packed(weight)
    assert second is not first
    assert not np.array_equal(first, second)
    del weight
    gc.collect()
    assert (weights.packed_bytes(), len(weights._entries)) == (held, entries)


def test_swapped_and_minute_changes_are_noticed() -> None:
    weight = random(0, 600, 1000)
    sums = {weights.sums_of(weight)}
    assert weights.sums_of(weight, threads=2) in sums
    weight[0, 0], weight[599, 999] = weight[599, 999], weight[0, 0]
    sums.add(weights.sums_of(weight))
    weight[[10, 20]] = weight[[20, 10]]
    sums.add(weights.sums_of(weight))
    weight[300, 500] = np.nextafter(weight[300, 500], np.float32(9))
    sums.add(weights.sums_of(weight))
    weight[300, 500] = np.nan
    sums.add(weights.sums_of(weight))
    assert len(sums) == 5


def test_what_counts_as_locked() -> None:
    owner = random(0, 4, 4)
    view = owner[:2]
    view.flags.writeable = False
    assert not weights.is_constant(owner)
    assert not weights.is_constant(view)
    owner.flags.writeable = False
    assert weights.is_constant(view)
    assert weights.is_constant(np.frombuffer(bytes(64), np.float32))
    assert not weights.is_constant(np.frombuffer(bytearray(64), np.float32))


def test_a_loaded_model_is_packed_once_and_its_pages_given_back(tmp_path: Path) -> None:
    made = random_model("Model", tiny_config(hidden_size=96, intermediate_size=400), 0, "float32")
    made.save_pretrained(tmp_path)
    loaded = nl.RobertaPreLayerNormModel.from_pretrained(tmp_path)
    name = "encoder.layer.1.intermediate.dense.weight"
    assert weights.is_constant(loaded.params[name])
    ids = [[0, 5, 6, 2]]
    known = len(_known)
    with nl.use_backend("numba"):
        expected = made.base(ids).last_hidden_state
        for _ in range(2):
            np.testing.assert_array_equal(loaded.base(ids).last_hidden_state, expected)
    assert len(_known) == known + 1
    # the file's pages come back when they are read
    np.testing.assert_array_equal(loaded.params[name], made.params[name])
    del loaded
    gc.collect()
    assert len(_known) == known


def test_only_whole_pages_of_the_array_itself_are_released() -> None:
    room = mmap.mmap(-1, 8 * mmap.PAGESIZE)
    whole = np.frombuffer(room, np.float32)
    whole[:] = 1.0
    weights.release(whole[100:-100])  # anonymous memory: what is released reads as zeros
    first, last = mmap.PAGESIZE // 4, len(whole) - mmap.PAGESIZE // 4
    assert (whole[:first] == 1.0).all()
    assert (whole[last:] == 1.0).all()
    if hasattr(mmap, "MADV_DONTNEED"):
        released = whole[first:last]
        assert released.min() == released.max()
    weights.release(random(0, 5))


def test_many_threads_that_want_the_same_weight_get_the_same_panels() -> None:
    weight, results = random(0, 300, 300), []
    weight.flags.writeable = False
    start = threading.Barrier(8)

    def want() -> None:
        start.wait()
        results.append(weights.packed(weight))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result is results[0] for result in results)


def test_models_that_share_their_arrays_keep_their_own_tables() -> None:
    """The first layers of a model, its base alone, a decoder with cross-attention and the one without it inside."""
    config = tiny_config("roberta", is_decoder=True, add_cross_attention=True, num_hidden_layers=3)
    given = random_model("ForCausalLM", config, dtype="float32").params
    for array in given.values():
        array.flags.writeable = False
    whole = {name.removeprefix("roberta."): array for name, array in given.items()}

    def part(head: str, layers: int, crossed: bool) -> Any:
        cls = class_of(head, "roberta")
        fewer = {"num_hidden_layers": layers, "add_cross_attention": crossed}
        some = type(config).from_dict(config.to_dict() | fewer)
        names = cls.shapes(some, pooler=False)
        return cls.from_params(some, {name: whole[name.removeprefix("roberta.")] for name in names})

    models = [part(*kind) for kind in itertools.product(("ForCausalLM", "Model"), (2, 3, 1), (False, True))]
    ids, states = random_ids(config, (2, 5), 0), random(1, 2, 4, config.hidden_size)
    inputs = [{"encoder_hidden_states": states} if model.config.add_cross_attention else {} for model in models]
    first = {id(model.params[f"{model.base_prefix}encoder.layer.0.attention.self.query.weight"]) for model in models}
    assert len(first) == 1
    with nl.use_backend("numpy"):
        expected = [model(ids, **more)[0] for model, more in zip(models, inputs, strict=True)]
    with nl.use_backend("numba"):
        for index in [*range(len(models)), *reversed(range(len(models)))]:  # each before and after each
            y = models[index](ids, **inputs[index])[0]
            np.testing.assert_allclose(y, expected[index], rtol=0, atol=5e-4, err_msg=repr(models[index]))
