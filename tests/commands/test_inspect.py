"""`npprelnorm inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch_files
from stand_in import save_as_princeton, save_as_published

import npprelnorm as nl
from npprelnorm.commands import main

CONFIG = {
    "vocab_size": 29,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 514,
    "num_labels": 3,
}


def config(**fields: object) -> nl.RobertaPreLayerNormConfig:
    return nl.RobertaPreLayerNormConfig(**{**CONFIG, **fields})


@pytest.fixture
def model() -> nl.RobertaPreLayerNormForMaskedLM:
    return nl.RobertaPreLayerNormForMaskedLM(config(), rng=3)


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    folder = nl.embedded_model_path()
    report = inspected(folder, capsys)
    config = nl.RobertaPreLayerNormConfig.from_pretrained(folder)
    count = nl.RobertaPreLayerNormForMaskedLM(config).num_parameters()
    assert report["parameters"] == count
    assert report["bytes"] == 2 * count
    assert report["loadable"] is True
    assert report["layout"] == "pre-LN"
    assert report["config"]["hidden_size"] == 128
    assert len(report["tensors"]) == 76
    words = next(tensor for tensor in report["tensors"] if tensor["name"].endswith("word_embeddings.weight"))
    size = config.vocab_size
    assert words == {**words, "dtype": "F16", "shape": [size, 128], "parameters": size * 128, "bytes": size * 256}


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(nl.embedded_model_path())]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines[: lines.index("")])
    assert facts["kind"] == "RobertaPreLayerNorm (pre-LN)"
    assert facts["head"] == "language model (masked or causal)"
    count = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path()).num_parameters()
    assert facts["parameters"] == f"{count:,} in 76 tensors"
    header, *rows = lines[lines.index("") + 1 :]
    assert header.split() == ["tensor", "dtype", "shape", "parameters"]
    assert len(rows) == 76
    assert ["lm_head.dense.weight", "F16", "128", "x", "128", "16,384"] in [row.split() for row in rows]


def test_tied_and_dead_tensors_are_listed_but_not_counted(
    model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_as_published(model, tmp_path)
    report = inspected(tmp_path, capsys)
    assert report["parameters"] == model.num_parameters()
    assert [tensor["name"] for tensor in report["tensors"] if tensor["parameters"] is None] == [
        "roberta_prelayernorm.embeddings.position_ids",
        "lm_head.decoder.weight",
        "lm_head.decoder.bias",
    ]
    assert main(["inspect", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("unused or a copy") == 3


def test_an_untied_decoder_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nl.RobertaPreLayerNormForMaskedLM(config(tie_word_embeddings=False), rng=3)
    model.params["lm_head.decoder.bias"] = np.ones(29, np.float32)
    model.save_pretrained(tmp_path)
    assert inspected(tmp_path, capsys)["parameters"] == model.num_parameters()


def test_princeton_nlp(
    model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_as_princeton(model, tmp_path)
    report = inspected(tmp_path / "pytorch_model.bin", capsys)
    assert report["layout"] == "princeton"
    assert "princeton-nlp" in report["kind"]
    assert report["loadable"] is True
    assert report["parameters"] == model.num_parameters()
    assert report["config"]["model_type"] == "roberta"


def test_post_ln_is_named_and_not_loadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["embeddings.word_embeddings.weight", "encoder.layer.0.attention.output.LayerNorm.weight"]
    path = tmp_path / "pytorch_model.bin"
    torch_files.save(path, torch_files.checkpoint({f"roberta.{name}": np.ones((2, 2), np.float32) for name in names}))
    report = inspected(path, capsys)
    assert report["layout"] == "post-LN"
    assert report["loadable"] is False
    assert report["config"] is None
    assert "post-LN" in report["kind"]


def test_something_else_is_named_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.bin"
    torch_files.save(path, torch_files.checkpoint({"conv.weight": np.ones((2, 3), np.float64), "n": np.array(4)}))
    report = inspected(path, capsys)
    assert report["layout"] == "unknown"
    assert report["loadable"] is False
    assert report["parameters"] == 7
    assert report["bytes"] == 56
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "scalar" in out
    assert "there is no config.json" in out


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("ForCausalLM", "language model (masked or causal)"),
        ("ForSequenceClassification", "sequence classification, 3 labels"),
        ("ForTokenClassification", "token classification, 3 labels"),
        ("ForMultipleChoice", "multiple choice"),
        ("ForQuestionAnswering", "question answering"),
        ("Model", "none (base model with pooler)"),
    ],
)
def test_heads(head: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = 2 if head == "ForQuestionAnswering" else 3
    model = getattr(nl, f"RobertaPreLayerNorm{head}")(config(num_labels=labels, is_decoder=head == "ForCausalLM"))
    model.save_pretrained(tmp_path)
    report = inspected(tmp_path, capsys)
    assert report["head"] == expected
    assert report["parameters"] == model.num_parameters()


def test_shards_are_one_checkpoint(
    model: nl.RobertaPreLayerNormForMaskedLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path, max_shard_size=4000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert inspected(tmp_path, capsys)["parameters"] == model.num_parameters()


def test_a_hostile_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pytorch_model.bin"
    marker = tmp_path / "ran"
    code = torch_files.name("os", "system") + torch_files.items(torch_files.text(f"touch {marker}")) + b"R"
    torch_files.save(path, torch_files.entries_of(torch_files.program(code), {}))
    assert main(["inspect", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "os.system" in captured.err
    assert not marker.exists()
