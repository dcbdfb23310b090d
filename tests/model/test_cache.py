"""The key/value cache as a value: nothing that is done with one cache may show in another, and little is copied."""

from __future__ import annotations

import copy
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from strategies import configs, random_ids, random_model, seeds, tiny_config

from npprelnorm.cache import KeyValueCache
from npprelnorm.checkpoint.safetensors_file import write_safetensors
from npprelnorm.errors import CheckpointError, CheckpointMismatchError, InputError

FLOAT32 = np.dtype("float32")
CONFIG = tiny_config(is_decoder=True, add_cross_attention=True)  # 2 layers, 3 heads of 4


def numbers(cache: KeyValueCache) -> list[np.ndarray]:
    return [array for layer in cache for array in layer if array is not None]


def filled(cache: KeyValueCache, new: np.ndarray) -> KeyValueCache:
    """What a forward does: the new tokens' keys and values, (N, 2, B, H, T, D), each layer's in its slot."""
    tokens = new.shape[4]
    longer = cache.extended(tokens)
    for index, (key, value) in enumerate(new):
        all_keys, all_values = longer.slot(index, tokens).add(key, value)
        assert all_keys.shape[2] == all_values.shape[2] == cache.length + tokens
    return longer


class Caches(RuleBasedStateMachine):
    """Caches beside plain arrays that are copied at each step: (N, 2, B, H, S, D), and those of an encoder."""

    @initialize(seed=seeds, capacity=st.integers(0, 9))
    def start(self, seed: int, capacity: int) -> None:
        self.rng = np.random.default_rng(seed)
        empty = np.empty((2, 2, 2, 3, 0, 4), FLOAT32)
        self.held: list[tuple[KeyValueCache, np.ndarray, np.ndarray | None]] = [
            (KeyValueCache.empty(CONFIG, 2, FLOAT32, capacity), empty, None)
        ]

    def random(self, batch: int, tokens: int) -> np.ndarray:
        return self.rng.standard_normal((2, 2, batch, 3, tokens, 4)).astype(FLOAT32)

    def pick(self, which: int) -> tuple[KeyValueCache, np.ndarray, np.ndarray | None]:
        return self.held[-1 - which % len(self.held)]  # 0, the simplest, is the newest

    @rule(which=st.integers(0, 9), tokens=st.integers(1, 40))
    def go_on(self, which: int, tokens: int) -> None:
        cache, expected, cross = self.pick(which)
        new = self.random(expected.shape[2], tokens)
        self.held.append((filled(cache, new), np.concatenate([expected, new], axis=4), cross))

    @rule(which=st.integers(0, 9), tokens=st.integers(1, 40))
    def go_on_and_forget(self, which: int, tokens: int) -> None:
        cache, expected, _ = self.pick(which)
        filled(cache, self.random(expected.shape[2], tokens)).release(tokens)

    @rule(which=st.integers(0, 9), data=st.data())
    def crop(self, which: int, data: st.DataObject) -> None:
        cache, expected, cross = self.pick(which)
        if cache.length:
            length = data.draw(st.integers(1, cache.length))
            self.held.append((cache.crop(length), expected[:, :, :, :, :length], cross))

    @rule(which=st.integers(0, 9), data=st.data())
    def reorder(self, which: int, data: st.DataObject) -> None:
        cache, expected, cross = self.pick(which)
        rows = data.draw(st.lists(st.integers(-expected.shape[2], expected.shape[2] - 1), min_size=1, max_size=4))
        crossed = None if cross is None else cross[:, :, rows]
        self.held.append((cache.reorder(rows), expected[:, :, rows], crossed))

    @rule(which=st.integers(0, 9))
    def see_an_encoder(self, which: int) -> None:
        cache, expected, cross = self.pick(which)
        if cross is None:
            cross = self.random(expected.shape[2], 3)
            pairs = [(key, value) for key, value in cross]
            self.held.append((cache.with_cross(pairs), expected, cross))

    @rule(which=st.integers(0, 9), how=st.sampled_from(["tuples", "copy", "pickle"]))
    def take_another_form(self, which: int, how: str) -> None:
        cache, expected, cross = self.pick(which)
        if how == "tuples":
            other = KeyValueCache.from_arrays(tuple(map(tuple, cache)), CONFIG, expected.shape[2], FLOAT32)
        else:
            other = copy.deepcopy(cache) if how == "copy" else pickle.loads(pickle.dumps(cache))
        self.held.append((other, expected, cross))

    @invariant()
    def all_hold_what_they_held(self) -> None:
        for cache, expected, cross in getattr(self, "held", ()):
            assert cache.length == expected.shape[4]
            assert cache.has_cross == (cross is not None)
            assert len(cache) == len(list(cache)) == 2
            for index, layer in enumerate(cache):
                np.testing.assert_array_equal(np.stack(layer[:2]), expected[index])
                if cross is not None:
                    np.testing.assert_array_equal(np.stack(layer[2:]), cross[index])


TestCaches = Caches.TestCase
TestCaches.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_one_token_after_the_other_copies_nothing_but_when_it_doubles() -> None:
    cache = KeyValueCache.empty(CONFIG, 1, FLOAT32, 8)
    token = np.ones((2, 2, 1, 3, 1, 4), FLOAT32)
    moves = []
    for length in range(1, 1025):
        longer = filled(cache, token)
        if length > 1 and not np.shares_memory(longer[0].key, cache[0].key):
            moves.append(length)
        cache = longer
    assert moves == [9, 33, 67, 135, 271, 543]
    assert np.shares_memory(cache.crop(7)[1].value, cache[1].value)
    assert cache.reorder([0]) is cache
    assert all(not array.flags.writeable for array in numbers(cache))


def test_a_place_is_not_given_back_under_another_cache() -> None:
    cache = KeyValueCache.empty(CONFIG, 1, FLOAT32, 8)
    between = cache.extended(1)
    after = filled(between, np.ones((2, 2, 1, 3, 1, 4), FLOAT32))
    between.release(1)  # too late
    filled(cache, np.zeros((2, 2, 1, 3, 3, 4), FLOAT32))
    assert all((array[:, :, 1] == 1).all() for array in numbers(after))


def test_generation_copies_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = set()
    plain = KeyValueCache.extended

    def watched(self: KeyValueCache, tokens: int) -> KeyValueCache:
        longer = plain(self, tokens)
        buffers.add(id(longer._buffer))
        assert longer._buffer is self._buffer
        return longer

    monkeypatch.setattr(KeyValueCache, "extended", watched)
    model = random_model("ForCausalLM", tiny_config(is_decoder=True, eos_token_id=None, max_position_embeddings=130))
    assert model.generate([[5, 6]], max_new_tokens=100).shape == (1, 102)
    assert len(buffers) == 1
    model.generate([[5, 6]], max_new_tokens=5, num_beams=3)


def test_a_place_is_given_to_one_thread_only() -> None:
    cache = KeyValueCache.empty(CONFIG, 1, FLOAT32, 64)
    barrier = threading.Barrier(8)
    found: list[KeyValueCache] = []

    def go_on() -> None:
        barrier.wait()
        found.append(cache.extended(1))

    threads = [threading.Thread(target=go_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one._buffer) for one in found}) == 8


# with a model


@settings(max_examples=25)
@given(
    config=configs(is_decoder=True, layer_norm_eps=1e-5),
    seed=seeds,
    data=st.data(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_tree_of_continuations_is_as_without_a_cache(config: Any, seed: int, data: st.DataObject, dtype: str) -> None:
    """Any cache that was ever returned can be gone on from: what it says next is what all its tokens say at once."""
    model = random_model("ForCausalLM", config, seed, dtype)
    bound = 1e-12 if dtype == "float64" else 1e-5
    rng = np.random.default_rng(seed)
    encoder: dict[str, Any] = {}
    if config.add_cross_attention and data.draw(st.booleans()):
        encoder = {"encoder_hidden_states": rng.standard_normal((2, 3, config.hidden_size))}
    whole: list[tuple[np.ndarray, Any]] = [(np.empty((2, 0), int), None)]
    for step in range(6):
        ids, past = data.draw(st.sampled_from(whole))
        room = config.max_tokens - ids.shape[1]
        if not room:
            continue
        more = np.concatenate([ids, random_ids(config, (2, data.draw(st.integers(1, min(3, room)))), step)], axis=1)
        keep = data.draw(st.booleans())
        out = model(more[:, ids.shape[1] :], past_key_values=past, use_cache=keep, **encoder)
        assert_close(out.logits, model(more, use_cache=False, **encoder).logits[:, ids.shape[1] :], bound, "logits")
        assert ("past_key_values" in out) == keep
        if not keep:
            continue
        rows = data.draw(st.sampled_from([[0, 1], [1, 0], [1, 1]])) if not encoder else [0, 1]
        length = data.draw(st.integers(1, more.shape[1]))
        whole.append((more[rows][:, :length], out.past_key_values.reorder(rows).crop(length)))


def test_a_forward_that_keeps_no_cache_leaves_room_for_the_next_one() -> None:
    model = random_model("ForCausalLM", CONFIG)
    past = model([[5, 6]]).past_key_values
    for _ in range(3):
        model([[8, 9]], past_key_values=past, use_cache=False)
    longer = model([[10]], past_key_values=past).past_key_values
    assert np.shares_memory(longer[0].key, past[0].key)
    plain = model([[10]], past_key_values=tuple(map(tuple, past))).past_key_values
    np.testing.assert_array_equal(plain[1].value, longer[1].value)


def test_the_keys_of_an_encoder_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("ForCausalLM", CONFIG)
    states = np.random.default_rng(0).standard_normal((1, 4, 12))
    past = model([[5]], encoder_hidden_states=states).past_key_values
    for again in ({}, {"encoder_hidden_states": states * 2}):  # which are not looked at any more
        longer = model([[6]], past_key_values=past, **again).past_key_values
        for ours, before in zip(longer, past, strict=True):
            assert ours.cross_key is before.cross_key
            assert ours.cross_value is before.cross_value


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "give a list of row numbers"),
        ([[0]], "rows has shape (1, 1)"),
        ([True, False], "dtype bool"),
        ([0, 2], "rows goes from 0 to 2; the cache has 2 rows"),
        ([-3], "rows goes from -3 to -3"),
    ],
)
def test_rows_that_are_not_there(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        KeyValueCache.empty(CONFIG, 2, FLOAT32, 4).reorder(rows)


def test_layers_by_index() -> None:
    cache = random_model("ForCausalLM", CONFIG)([[5, 6, 7]]).past_key_values
    np.testing.assert_array_equal(cache[-1].key, list(cache)[1].key)
    with pytest.raises(IndexError):
        cache[2]
    for length in (0, 4):
        with pytest.raises(InputError, match=f"cannot be cropped to {length} tokens; allowed: 1 to 3"):
            cache.crop(length)


# in a file


def decoder(seed: int = 0, dtype: str = "float64", **changes: Any) -> Any:
    return random_model("ForCausalLM", tiny_config(**{"is_decoder": True} | changes), seed, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("crossed", [False, True])
def test_a_saved_cache_goes_on_as_if_never_saved(tmp_path: Path, dtype: str, crossed: bool) -> None:
    model = decoder(dtype=dtype, add_cross_attention=crossed)
    encoder = {"encoder_hidden_states": np.ones((2, 5, 12))} if crossed else {}
    past = model(random_ids(model.config, (2, 4), 0), **encoder).past_key_values
    path = tmp_path / "prompt.safetensors"
    for cache in (past, past.crop(3)):
        cache.save(path, model)
        loaded = KeyValueCache.load(path, model)
        assert len(numbers(loaded)) == (8 if crossed else 4)
        for ours, before in zip(numbers(loaded), numbers(cache), strict=True):
            np.testing.assert_array_equal(ours, before)
        after = model([[5], [6]], past_key_values=loaded).logits
        np.testing.assert_array_equal(after, model([[5], [6]], past_key_values=cache).logits)


def test_a_saved_cache_of_another_model_is_refused(tmp_path: Path) -> None:
    model = decoder()
    path = tmp_path / "prompt.safetensors"
    model([[5, 6]]).past_key_values.save(path, model)
    trained = decoder()
    name = "roberta_prelayernorm.encoder.layer.1.output.dense.weight"
    trained.params[name] = trained.params[name].copy()
    trained.params[name][3, 5] += 1e-9
    swapped = decoder()
    swapped.params[name] = swapped.params[name][::-1]
    others = {
        "other weights": decoder(1),
        "one other weight": trained,
        "rows in another order": swapped,
        "another activation": decoder(hidden_act="relu"),
        "other heads": decoder(num_attention_heads=2),
        "another dtype": decoder(dtype="float32"),
        "another position table": decoder(max_position_embeddings=17),
    }
    for what, other in others.items():
        with pytest.raises(CheckpointMismatchError, match="is the cache of another model, or of this one with other"):
            pytest.fail(f"{what}: {KeyValueCache.load(path, other)}")
    same = decoder(return_dict=False, num_labels=5)  # what has no part in it
    same.params["lm_head.bias"] = same.params["lm_head.bias"] + 1.0
    assert KeyValueCache.load(path, same).length == 2
    with pytest.raises(InputError, match="cache of another model"):
        model([[5]]).past_key_values.save(path, decoder(num_hidden_layers=1))
    assert KeyValueCache.load(path, model).length == 2  # it is still there


def test_files_that_are_no_cache_of_ours(tmp_path: Path) -> None:
    model = decoder()
    path = tmp_path / "file"
    path.write_bytes(b"x" * 40)
    with pytest.raises(CheckpointError, match="not a usable safetensors file"):
        KeyValueCache.load(path, model)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointMismatchError, match="holds no key/value cache"):
        KeyValueCache.load(tmp_path / "model" / "model.safetensors", model)
    model([[5, 6]]).past_key_values.save(path, model)
    from npprelnorm.checkpoint.safetensors_file import SafetensorsFile

    file = SafetensorsFile(path)
    keys, values = file.read("keys"), file.read("values")
    for tensors, message in (
        ({"keys": keys}, "holds keys; expected keys, values"),
        ({"keys": keys, "values": values, "more": keys}, "expected keys, values"),
        ({"keys": keys, "values": values[:1]}, "does not fit the model"),
        ({"keys": keys[0, 0, 0, 0], "values": values}, "does not fit the model"),
        ({"keys": np.ones(()), "values": np.ones(())}, "does not fit the model"),
        ({"keys": keys[..., :3], "values": values[..., :3]}, "does not fit the model: the keys of layer 0"),
        ({"keys": keys != 0, "values": values != 0}, "does not fit the model: layer 0"),
    ):
        write_safetensors(path, tensors, file.metadata)
        with pytest.raises(CheckpointMismatchError, match=re.escape(message)):
            KeyValueCache.load(path, model)
