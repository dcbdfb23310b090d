"""Arguments of a wrong type or value end in one line that names them, wherever they are taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npprelnorm as nl
from npprelnorm.arguments import collection_of_names, random_generator, shown, whole_number
from npprelnorm.errors import InputError
from npprelnorm.smallworld import small_world
from npprelnorm.training.pretraining import split
from npprelnorm.training.settings import TrainingSettings

IDS = [[0, 5, 6, 2]]
SIZES: dict[str, Any] = {
    "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip
CONFIG = nl.RobertaPreLayerNormConfig(**SIZES)
DECODER = nl.RobertaPreLayerNormConfig(**SIZES, is_decoder=True)
PAIR = nl.EncoderDecoderConfig.from_encoder_decoder_configs(
    CONFIG, CONFIG, decoder_start_token_id=0, pad_token_id=1, eos_token_id=None
)

CACHE = nl.KeyValueCache.empty(DECODER, 1, np.dtype("float32"), 4).extended(4)


class Thing:
    """Prints itself over two lines."""

    def __repr__(self) -> str:
        return "a\nthing"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the three kinds."""
    path = tmp_path_factory.mktemp("models")
    nl.RobertaPreLayerNormForMaskedLM(CONFIG).save_pretrained(path / "masked")
    crossed = nl.RobertaPreLayerNormConfig(**SIZES, is_decoder=True, add_cross_attention=True)
    nl.RobertaPreLayerNormForCausalLM(crossed).save_pretrained(path / "causal")
    nl.EncoderDecoderModel(PAIR).save_pretrained(path / "pair")
    return path


def masked() -> Any:
    return nl.RobertaPreLayerNormForMaskedLM(CONFIG)


def pair() -> Any:
    return nl.EncoderDecoderModel(PAIR)


GENERATE: dict[str, Any] = {"max_new_tokens": 2, "eos_token_id": []}
TAKES_RNG: dict[str, Callable[[Path, Any], Any]] = {
    "a model": lambda _, rng: nl.RobertaPreLayerNormForMaskedLM(CONFIG, rng=rng),
    "the base model": lambda _, rng: nl.RobertaPreLayerNormModel(CONFIG, rng=rng),
    "a pair": lambda _, rng: nl.EncoderDecoderModel(PAIR, rng=rng),
    "from_config": lambda _, rng: nl.AutoModelForMaskedLM.from_config(CONFIG, rng=rng),
    "from_pretrained": lambda f, rng: nl.RobertaPreLayerNormForMaskedLM.from_pretrained(f / "masked", rng=rng),
    "of AutoModel": lambda f, rng: nl.AutoModelForMaskedLM.from_pretrained(f / "masked", rng=rng),
    "of a pair": lambda f, rng: nl.EncoderDecoderModel.from_pretrained(f / "pair", rng=rng),
    "of two models": lambda f, rng: nl.EncoderDecoderModel.from_encoder_decoder_pretrained(
        f / "masked", f / "causal", rng=rng
    ),
    "resizing": lambda _, rng: masked().resize_token_embeddings(40, rng=rng),
    "loss_and_grads": lambda _, rng: masked().loss_and_grads(input_ids=IDS, labels=IDS, rng=rng),
    "vjp": lambda _, rng: masked().vjp({"loss": 1.0}, input_ids=IDS, labels=IDS, rng=rng),
    "a pair's gradients": lambda _, rng: pair().loss_and_grads(input_ids=IDS, labels=IDS, rng=rng),
    "generate": lambda _, rng: nl.RobertaPreLayerNormForCausalLM(DECODER).generate(IDS, rng=rng, **GENERATE),
    "a pair's generate": lambda _, rng: pair().generate(IDS, rng=rng, do_sample=True, **GENERATE),
}


@pytest.mark.parametrize("name", TAKES_RNG)
def test_what_is_no_source_of_random_numbers(name: str, folder: Path) -> None:
    for rng, text in (
        (True, "True"),
        (-1, "-1"),
        (np.int64(-3), "-3"),
        (1.5, "1.5"),
        (np.float32(1), "1.0"),
        ("0", "'0'"),
        ([1, [2, 3]], "[1, [2, 3]]"),
        (np.zeros((300, 2)), "of type ndarray"),
        (np.random.RandomState(0), "of type RandomState"),
        (Thing(), "of type Thing"),
    ):
        with pytest.raises(InputError) as caught:
            TAKES_RNG[name](folder, rng)
        assert str(caught.value) == f"rng is {text}; give a whole number of at least 0, or a numpy.random.Generator"
    for rng in (0, np.int64(3), 1 << 70, np.random.default_rng(0)):
        TAKES_RNG[name](folder, rng)


TAKES_NAMES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "frozen": ("frozen", lambda v: masked().loss_and_grads(input_ids=IDS, labels=IDS, frozen=v)),
    "frozen of vjp": ("frozen", lambda v: masked().vjp({"loss": 1.0}, input_ids=IDS, labels=IDS, frozen=v)),
    "frozen of a pair": ("frozen", lambda v: pair().loss_and_grads(input_ids=IDS, labels=IDS, frozen=v)),
    "input_grads": ("input_grads", lambda v: masked().loss_and_grads(input_ids=IDS, labels=IDS, input_grads=v)),
    "of a pair": ("input_grads", lambda v: pair().loss_and_grads(input_ids=IDS, labels=IDS, input_grads=v)),
}


@pytest.mark.parametrize("name", TAKES_NAMES)
def test_what_is_no_collection_of_names(name: str) -> None:
    option, call = TAKES_NAMES[name]
    for value, text in (
        (None, "is None"),
        (3, "is 3"),
        (True, "is True"),
        (b"decoder.*", "is b'decoder.*'"),
        (Thing(), "is of type Thing"),
        (np.array(3), "is of type ndarray"),
        (["*", 3], "holds an entry that is 3"),
        ([["*"]], "holds an entry that is ['*']"),
        ([Thing()], "holds an entry that is of type Thing"),
        (np.ones(2), "holds an entry that is 1.0"),
    ):
        with pytest.raises(InputError) as caught:
            call(value)
        assert str(caught.value) == f"{option} {text}; give a collection of strings"
    with pytest.raises(InputError) as caught:
        call("*.bias")
    assert str(caught.value) == (f"{option} is the string '*.bias'; give a collection of strings, such as ['*.bias']")


def test_collections_of_every_kind_are_read_once_and_count() -> None:
    model = masked()
    for kind in (list, tuple, set, iter, np.array):
        names, inputs = kind(["lm_head.bias"]), kind(["inputs_embeds"])
        _, grads = model.loss_and_grads(input_ids=IDS, labels=IDS, frozen=names, input_grads=inputs)
        assert "lm_head.bias" not in grads
        assert grads["inputs_embeds"].shape == (1, 4, 8)
    _, grads = pair().loss_and_grads(
        input_ids=IDS, labels=IDS, frozen=iter(["encoder.*"]), input_grads=iter(["inputs_embeds"])
    )
    assert grads["inputs_embeds"].shape == (1, 4, 8)
    assert not any(name.startswith("encoder.") for name in grads)


@pytest.mark.parametrize(("value", "text"), [(None, "None"), (1, "1"), (np.zeros(3), "of type ndarray")])
def test_recompute_is_a_switch(value: Any, text: str) -> None:
    for model in (masked(), pair()):
        with pytest.raises(InputError) as caught:
            model.loss_and_grads(input_ids=IDS, labels=IDS, recompute=value)
        assert str(caught.value) == f"recompute is {text}; allowed: False, True"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda value: CACHE.crop(value).length, "length"),
        (lambda value: small_world().sentences(value, 0), "n"),
        (lambda value: small_world().sentences(2, value), "seed"),
        (lambda value: split(["a", "b"], 0.5, value), "seed"),
    ],
)
def test_what_is_no_whole_number(call: Callable[[Any], Any], name: str) -> None:
    for value, text in (
        (None, "None"),
        (True, "True"),
        (-1, "-1"),
        (1.0, "1.0"),
        ([1], "[1]"),
        (Thing(), "of type Thing"),
    ):
        with pytest.raises(InputError) as caught:
            call(value)
        assert str(caught.value) == f"{name} is {text}; give a whole number of at least 0"
    assert call(np.int64(2)) == call(2)


LABELS: dict[str, dict[str, Any]] = {
    "Model": {},
    "ForMaskedLM": {"labels": IDS},
    "ForCausalLM": {"labels": IDS},
    "ForSequenceClassification": {"labels": [0]},
    "ForTokenClassification": {"labels": [[0, 1, 0, 1]]},
    "ForQuestionAnswering": {"start_positions": [1], "end_positions": [2]},
    "ForMultipleChoice": {"labels": [0]},
}
SWITCHES = ("packed", "output_attentions", "output_hidden_states", "use_cache", "return_dict")


@pytest.mark.parametrize("head", [*LABELS, "pair"])
@pytest.mark.parametrize("value", [np.ones(2, bool), "False", 1], ids=["array", "text", "number"])
def test_what_is_no_switch(head: str, value: Any) -> None:
    if head == "pair":
        model, inputs, labels = pair(), {"input_ids": IDS, "decoder_input_ids": IDS}, {"labels": IDS}
    else:
        model = getattr(nl, f"RobertaPreLayerNorm{head}")(DECODER if "Causal" in head else CONFIG)
        inputs, labels = {"input_ids": [IDS] if "Multiple" in head else IDS}, LABELS[head]
    switches = SWITCHES + (("labelled_only",) if head == "ForMaskedLM" else ())
    for name in switches:
        expected = rf"^{name} is .+; allowed: False, True$"
        given: dict[str, Any] = {**inputs, name: value}
        with pytest.raises(InputError, match=expected):
            model(**given)
        if labels and name != "use_cache":  # with labels a causal model returns no cache, whatever is asked for
            with pytest.raises(InputError, match=expected):
                model(**given, **labels)
        if labels and name != "return_dict":  # gradients come with the output itself
            with pytest.raises(InputError, match=expected):
                model.loss_and_grads(**given, **labels)


def test_what_is_no_switch_of_a_generation_or_a_pipeline() -> None:
    decoder = nl.RobertaPreLayerNormForCausalLM(DECODER)
    with pytest.raises(InputError, match=r"^use_cache is of type ndarray; allowed: False, True$"):
        decoder.generate(IDS, use_cache=np.ones(2, bool), **GENERATE)
    with pytest.raises(InputError, match=r"^normalize is 'no'; allowed: False, True$"):
        nl.pipeline("feature-extraction")("a text", normalize="no")


def test_a_switch_may_be_numpy_s() -> None:
    out = masked()(IDS, packed=np.True_, output_hidden_states=np.array([True])[0], return_dict=np.False_)
    assert isinstance(out, tuple)
    assert len(out[1]) == 2


@pytest.mark.parametrize("head", LABELS)
def test_a_misspelled_argument_is_named(head: str) -> None:
    model = getattr(nl, f"RobertaPreLayerNorm{head}")(DECODER if "Causal" in head else CONFIG)
    expected = rf"^attention_maks is no argument of RobertaPreLayerNorm{head}; of the body's: input_ids, attention_mask"
    with pytest.raises(InputError, match=expected):
        model([IDS] if "Multiple" in head else IDS, attention_maks=[[1, 1, 1, 1]])


def test_settings_of_training() -> None:
    for name, kind, values in (
        ("seed", "int", [(None, "None"), (True, "True"), (1.0, "1.0"), (Thing(), "of type Thing"), ([1], "[1]")]),
        ("frozen", "tuple of str", [(None, "None"), ("*", "'*'"), (["*"], "['*']"), (np.zeros(9), "of type ndarray")]),
    ):
        for value, text in values:
            with pytest.raises(InputError) as caught:
                TrainingSettings(**{name: value})
            assert str(caught.value) == f"{name} is {text}; it must be of type {kind}"
    with pytest.raises(InputError, match=r"^seed is -1; allowed: 0 or more$"):
        TrainingSettings(seed=-1)


def test_values_are_shown_in_one_short_line() -> None:
    assert shown("x" * 100) == "'" + "x" * 56 + "..."
    assert shown(10**100) == "1" + "0" * 56 + "..."
    assert shown(list(range(1000))) == "of type list"
    assert shown(["x" * 100]) == "of type list"
    assert shown([Thing()]) == "of type list"
    assert shown([object()]) == "of type list"
    assert shown({"a": (1, 2.5)}) == "{'a': (1, 2.5)}"
    assert shown(np.bool_(True)) == "True"


def test_what_is_allowed_comes_back() -> None:
    generator = np.random.default_rng(0)
    assert random_generator(generator) is generator
    assert random_generator(5).random() == np.random.default_rng(5).random()
    assert random_generator(None).random() != random_generator(None).random()
    assert collection_of_names("names", {"a": 1, "b": 2}) == ("a", "b")
    assert whole_number("n", np.uint8(3), least=3) == 3
    with pytest.raises(InputError, match=r"^n is 2; give a whole number of at least 3$"):
        whole_number("n", 2, least=3)
