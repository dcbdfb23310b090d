"""`model.generation_config`: where it comes from, what goes before it, and that it is saved."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm.errors import CheckpointFormatError, CheckpointWarning, ConfigError, InputError, InputWarning
from npprelnorm.generation import GenerationSettings

IDS = np.array([[5, 6, 7]])
CausalLM = nl.RobertaPreLayerNormForCausalLM


def decoder(seed: int = 0, **changes: Any) -> Any:
    return random_model("ForCausalLM", tiny_config(is_decoder=True, **changes), seed)


def saved(folder: Path, model: Any, settings: dict[str, Any] | str | None = None) -> Path:
    """`model` in a folder, with another generation_config.json if one is given."""
    model.save_pretrained(folder)
    if settings is not None:
        text = settings if isinstance(settings, str) else json.dumps(settings)
        (folder / "generation_config.json").write_text(text)
    return folder


def load(folder: Path, **options: Any) -> Any:
    return CausalLM.from_pretrained(folder, dtype="float64", **options)


def test_a_folders_file_is_honoured(tmp_path: Path) -> None:
    model = decoder(10, eos_token_id=None)
    file = {"max_length": 7, "num_beams": 3, "eos_token_id": 4, "transformers_version": "5.2.0", "use_cache": True}
    again = load(saved(tmp_path, model, file))
    expected = model.generate(IDS, max_length=7, num_beams=3, eos_token_id=4)
    np.testing.assert_array_equal(again.generate(IDS), expected)
    assert again.generate(IDS, max_new_tokens=1).shape == (1, 4)  # replaces max_length
    np.testing.assert_array_equal(again.generate(IDS, num_beams=1), model.generate(IDS, max_length=7, eos_token_id=4))


def test_what_goes_before_what() -> None:
    model = decoder(11, eos_token_id=None)
    model.generation_config = GenerationSettings(num_beams=3, max_new_tokens=6, length_penalty=2.0)

    def shape(**arguments: Any) -> tuple[int, ...]:
        return model.generate(IDS, **arguments).shape

    assert shape() == (1, 9)
    assert shape(num_return_sequences=3) == (3, 9)
    assert shape(generation_config={"num_return_sequences": 2}) == (2, 9)
    assert shape(generation_config={"max_length": 5}) == (1, 5)
    assert shape(generation_config={"max_length": 5}, max_new_tokens=1) == (1, 4)
    # a default counts where it is asked for
    with pytest.raises(ConfigError, match="greedy search has one result"):
        shape(generation_config=GenerationSettings(num_beams=1), num_return_sequences=2)
    assert shape(generation_config=GenerationSettings(max_new_tokens=2), num_return_sequences=3) == (3, 5)


def test_settings_remember_what_was_asked_for() -> None:
    one = GenerationSettings(num_beams=1, max_length=9, min_p=None, eos_token_id=3)
    assert one.given == {"num_beams": 1, "max_length": 9, "eos_token_id": (3,)}
    assert one.updated(max_new_tokens=4).given == {"num_beams": 1, "max_new_tokens": 4, "eos_token_id": (3,)}
    assert one.merged(GenerationSettings(num_beams=2)).given == {"num_beams": 2, "max_length": 9, "eos_token_id": (3,)}
    for copied in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert copied == one
        assert copied.given == one.given


def test_saving_and_loading_keep_everything(tmp_path: Path) -> None:
    model = decoder(12, eos_token_id=[2, 9])
    model.generation_config = GenerationSettings.from_dict(
        {"do_sample": True, "top_p": 0.9, "bad_words_ids": [[3], [4, 5]], "top_k": 50, "cache_implementation": "static"}
    )
    again = load(saved(tmp_path, model))
    file = json.loads((tmp_path / "generation_config.json").read_text())
    assert file == {
        "do_sample": True,
        "top_p": 0.9,
        "top_k": 50,
        "bad_words_ids": [[3], [4, 5]],
        "bos_token_id": 0,
        "eos_token_id": [2, 9],
        "pad_token_id": 1,
        "cache_implementation": "static",
    }
    np.testing.assert_array_equal(again.generate(IDS, rng=0), model.generate(IDS, rng=0))
    again.save_pretrained(tmp_path / "twice")
    assert json.loads((tmp_path / "twice/generation_config.json").read_text()) == file


def test_numpy_values_can_be_saved(tmp_path: Path) -> None:
    settings = GenerationSettings(
        max_new_tokens=np.int64(3),
        suppress_tokens=np.array([4, 5]),
        bad_words_ids=[np.array([3])],
        min_p=np.float64(0.5),
    )
    settings.save_pretrained(tmp_path)
    assert GenerationSettings.from_pretrained(tmp_path).given == {
        "max_new_tokens": 3,
        "suppress_tokens": [4, 5],
        "bad_words_ids": [[3]],
        "min_p": 0.5,
    }


def test_no_end_is_kept_as_no_end(tmp_path: Path) -> None:
    model = decoder(13)
    model.generation_config = GenerationSettings(eos_token_id=(), max_new_tokens=4)
    with pytest.warns(CheckpointWarning, match=r"names no eos_token_id.*\(config.json has 2\)"):
        again = load(saved(tmp_path, model))
    assert again.generation_config.eos_token_id == ()
    assert load(tmp_path, eos_token_id=None).generation_config.eos_token_id is None


def test_overrides_of_the_configuration_go_before_the_file(tmp_path: Path) -> None:
    model = decoder(14)
    free = model.generate(IDS, eos_token_id=(), max_new_tokens=6)
    end = int(free[0, 4])
    again = load(saved(tmp_path, model), eos_token_id=end)
    assert again.generate(IDS, max_new_tokens=6).shape == (1, 3 + 1 + int((free[0, 3:] == end).argmax()))


def test_settings_in_the_model_configuration_count_without_a_file(tmp_path: Path) -> None:
    """As in transformers, for checkpoints from before there was such a file; and a file replaces all of them."""
    model = decoder(15, eos_token_id=None)
    saved(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text())
    legacy = config | {"num_beams": 2, "max_length": 20, "min_length": 5, "temperature": 1.0, "num_beam_groups": 1}
    (tmp_path / "config.json").write_text(json.dumps(legacy))
    assert load(tmp_path).generation_config.given.keys() == {"bos_token_id", "eos_token_id", "pad_token_id"}
    (tmp_path / "generation_config.json").unlink()
    again = load(tmp_path)
    # 20 is the default of transformers 4, which there means 20 new tokens: as many as the 16 rows of positions allow
    assert again.generation_config.given == {"num_beams": 2, "min_length": 5, "temperature": 1.0}
    np.testing.assert_array_equal(again.generate(IDS), model.generate(IDS, num_beams=2))
    again.save_pretrained(tmp_path / "new")
    assert load(tmp_path / "new").generation_config.num_beams == 2
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_beams": 0}))
    with pytest.raises(ConfigError, match="settings of the model configuration: num_beams is 0; allowed"):
        load(tmp_path)


def test_both_lengths_in_a_file(tmp_path: Path) -> None:
    file = {"max_length": 6, "max_new_tokens": 5, "min_length": 3, "min_new_tokens": 4, "eos_token_id": 2}
    settings = load(saved(tmp_path, decoder(), file)).generation_config
    assert settings.given == {"max_new_tokens": 5, "min_new_tokens": 4, "eos_token_id": (2,), "pad_token_id": 2}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"num_beams": 0}', ConfigError, "generation_config.json: num_beams is 0; allowed"),
        ('{"num_beams": 2', CheckpointFormatError, "generation_config.json is not valid JSON"),
        ("[]", CheckpointFormatError, "generation_config.json is not valid JSON: the top level is a list"),
        ('{"top_p": NaN}', CheckpointFormatError, "NaN is not allowed"),
        ('{"eos_token_id": "</s>"}', ConfigError, "generation_config.json: eos_token_id is '</s>'; allowed: token ids"),
        ('{"num_return_sequences": 2}', ConfigError, "generation_config.json: num_return_sequences=2 needs do_sample"),
        ('{"bad_words_ids": 3}', ConfigError, "generation_config.json: bad_words_ids is 3"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    saved(tmp_path, decoder(), text)
    with pytest.raises(error, match=re.escape(message)) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    nl.RobertaPreLayerNormForMaskedLM.from_pretrained(tmp_path)  # which does not generate


def test_unknown_settings_are_reported_and_kept() -> None:
    with pytest.warns(InputWarning, match="sets renormalize_logits, watermarking_config, which this package does not"):
        settings = GenerationSettings.from_dict(
            {"renormalize_logits": True, "watermarking_config": {}, "eta_cutoff": 0.0}
        )
    assert settings.to_dict() == {"renormalize_logits": True, "watermarking_config": {}, "eta_cutoff": 0.0}


def test_a_mode_that_is_missing_stops_generate_but_not_loading(tmp_path: Path) -> None:
    file = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "eos_token_id": 2, "penalty_alpha": 0.0}
    model = load(saved(tmp_path, decoder(), file))
    with pytest.raises(InputError, match=r"num_beam_groups=2 asks for diverse beam search, .* or set 1"):
        model.generate(IDS)
    assert model.generate(IDS, num_beam_groups=1, diversity_penalty=0.0, max_new_tokens=2).shape == (1, 5)
    model.save_pretrained(tmp_path)
    assert load(tmp_path).generation_config.extra == {
        "num_beam_groups": 2,
        "diversity_penalty": 0.5,
        "penalty_alpha": 0.0,
    }
