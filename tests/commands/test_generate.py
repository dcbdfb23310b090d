"""`npprelnorm generate`: the text as it comes, JSON Lines, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_params

import npprelnorm as nl
from npprelnorm.assets import embedded_model_path
from npprelnorm.commands import main
from npprelnorm.commands.generate import TextStreamer, prompt_ids

PROMPT = "The dog"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random decoder with the embedded model's tokenizer."""
    path = tmp_path_factory.mktemp("decoder")
    tokenizer = nl.Tokenizer.from_pretrained(embedded_model_path())
    config = nl.RobertaPreLayerNormConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=40,
        layer_norm_eps=1e-5,
        is_decoder=True,
    )
    cls = nl.RobertaPreLayerNormForCausalLM
    params = random_params(cls.shapes(config, pooler=False), 0, "float32")
    cls.from_params(config, params).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def rows(folder: str, **settings: Any) -> np.ndarray:
    tokenizer = nl.Tokenizer.from_pretrained(folder)
    model = nl.RobertaPreLayerNormForCausalLM.from_pretrained(folder)
    ids: np.ndarray = model.generate(prompt_ids(tokenizer, PROMPT), **settings)
    return ids


def text(folder: str, ids: np.ndarray) -> str:
    return nl.Tokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True)


def test_the_prompt_keeps_its_beginning_and_loses_its_end(folder: str) -> None:
    tokenizer = nl.Tokenizer.from_pretrained(folder)
    ids = prompt_ids(tokenizer, PROMPT)
    np.testing.assert_array_equal(ids, tokenizer(PROMPT).input_ids[:, :-1])
    assert ids[0, 0] == tokenizer.bos_token_id
    assert prompt_ids(tokenizer, "").tolist() == [[tokenizer.bos_token_id]]


def test_text_and_json(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = rows(folder, max_new_tokens=6)[0]
    assert main(["generate", PROMPT, "--model", folder, "--max-new-tokens", "6", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out == {"prompt": PROMPT, "text": text(folder, expected), "ids": expected.tolist()}
    assert main(["generate", PROMPT, "--model", folder, "--max-new-tokens", "6"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(PROMPT)
    assert shown.endswith("\n")
    assert len(shown) > len(PROMPT) + 3


def test_sampling_and_beams(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    sample = ["--sample", "--temperature", "0.8", "--top-p", "0.9", "--top-k", "9", "--seed", "3", "--results", "2"]
    assert main(["generate", PROMPT, "--model", folder, "--json", *sample]) == 0
    out = [json.loads(line)["ids"] for line in capsys.readouterr().out.splitlines()]
    ways = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 9, "rng": 3, "num_return_sequences": 2}
    assert out == rows(folder, **ways).tolist()
    assert main(["generate", PROMPT, "--model", folder, "--json", "--beams", "3", "--results", "2"]) == 0
    out = [json.loads(line)["ids"] for line in capsys.readouterr().out.splitlines()]
    assert out == rows(folder, num_beams=3, num_return_sequences=2).tolist()


def test_drawn_beams_and_what_they_are_told(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["--do-sample", "--num-beams", "3", "--seed", "4", "--length-penalty", "0.5", "--no-repeat-ngram", "2"]
    drawn += ["--min-new-tokens", "5", "--results", "3"]
    assert main(["generate", PROMPT, "--model", folder, "--json", *drawn]) == 0
    out = [json.loads(line)["ids"] for line in capsys.readouterr().out.splitlines()]
    ways = {"do_sample": True, "num_beams": 3, "rng": 4, "length_penalty": 0.5, "no_repeat_ngram_size": 2}
    assert out == rows(folder, **ways, min_new_tokens=5, num_return_sequences=3).tolist()


def test_a_pair_reads_the_prompt_and_writes_another_text(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = nl.Tokenizer.from_pretrained(folder)
    config = nl.RobertaPreLayerNormForCausalLM.from_pretrained(folder).config
    made = nl.EncoderDecoderConfig.from_dict(
        {
            "encoder": config.to_dict() | {"is_decoder": False},
            "decoder": config.to_dict() | {"add_cross_attention": True},
            "decoder_start_token_id": 0,
        }
    )
    params = random_params(nl.EncoderDecoderModel.shapes(made, pooler=False), 0, "float32")
    pair = nl.EncoderDecoderModel.from_params(made, params)
    pair.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = pair.generate(tokenizer(PROMPT).input_ids, num_beams=2, max_new_tokens=6)[0]
    assert main(["generate", PROMPT, "--model", str(tmp_path), "--beams", "2", "--max-new-tokens", "6", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out == {"prompt": PROMPT, "text": text(folder, expected), "ids": expected.tolist()}
    assert expected[0] == 0
    assert main(["generate", PROMPT, "--model", str(tmp_path), "--max-new-tokens", "6"]) == 0
    shown = capsys.readouterr().out
    assert PROMPT not in shown
    assert shown.endswith("\n")


def test_the_folders_settings_are_honoured(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(folder) / "generation_config.json"
    before = file.read_bytes()
    file.write_text('{"max_new_tokens": 3, "num_beams": 2, "eos_token_id": 2}')
    try:
        assert main(["generate", PROMPT, "--model", folder, "--json"]) == 0
        out = json.loads(capsys.readouterr().out)["ids"]
        assert out == rows(folder, max_new_tokens=3, num_beams=2)[0].tolist()
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--seed", "1"], 2, "together with --sample"),
        (["--temperature", "0.5"], 1, "temperature=0.5 does nothing without do_sample=True"),
        (["--temperature", "hot"], 2, "'hot' is not a number"),
        (["--max-new-tokens", "400"], 1, "are left of the 38"),
    ],
)
def test_what_goes_wrong(
    folder: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["generate", PROMPT, "--model", folder, *arguments]) == code
    assert message in capsys.readouterr().err


def test_characters_of_several_tokens_wait_until_they_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    class Bytes:
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return bytes(ids).decode("utf-8", errors="replace")

    streamer = TextStreamer(Bytes())
    shown = []
    data = "aé€".encode()
    for part in ([*data[:1]], *([byte] for byte in data[1:])):
        streamer.put(np.array(part))
        shown.append(capsys.readouterr().out)
    streamer.end()
    assert shown == ["a", "", "é", "", "", "€"]
    assert capsys.readouterr().out == "\n"


def test_a_checkpoint_without_a_head_writes_nothing(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A head drawn fresh would give noise."""
    model = nl.RobertaPreLayerNormModel.from_pretrained(folder, is_decoder=True)
    model.save_pretrained(tmp_path)
    nl.Tokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    assert main(["generate", PROMPT, "--model", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "does not fit RobertaPreLayerNormForCausalLM; missing: lm_head.dense.weight" in shown.err
    assert shown.err.count("\n") == 1
