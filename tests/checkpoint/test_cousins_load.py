"""Checkpoints of the post-LN model types: there and back, told apart, and what of them is not used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import masked_lm, renamed, same_params, write
from safetensors.numpy import load_file
from strategies import CLASSES, COUSINS, HEADS, class_of, main_result, random_model, required_arguments, tiny_config

import npprelnorm as nl
from npprelnorm.checkpoint.names import canonical, in_model, layout
from npprelnorm.commands import main
from npprelnorm.errors import CheckpointMismatchError, CheckpointNotFoundError, CheckpointWarning, InputError
from npprelnorm.teaching import reorder_layer_norm

IDS = np.array([[5, 6, 7, 8], [9, 10, 11, 12]])


def cousin(model_type: str, head: str = "ForMaskedLM", **changes: Any) -> Any:
    return random_model(head, tiny_config(model_type, **changes), dtype="float32")


def auto_of(head: str) -> Any:
    return getattr(nl, "AutoModel" if head == "Model" else f"AutoModel{head}")


# ---- there and back


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("model_type", COUSINS)
def test_a_round_trip_changes_no_bit(model_type: str, head: str, tmp_path: Path) -> None:
    decoder = {"is_decoder": True, "add_cross_attention": True} if head == "ForCausalLM" else {}
    model = cousin(model_type, head, **decoder)
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.params)
    written = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert written["model_type"] == model_type
    assert written["architectures"] == [class_of(head, model_type).__name__]
    for cls in (class_of(head, model_type), auto_of(head)):
        again = cls.from_pretrained(tmp_path)  # no warning
        assert type(again) is type(model)
        assert again.base_prefix == model.base_prefix
        same_params(again, model.params)
        arguments = required_arguments(head, IDS)
        np.testing.assert_array_equal(main_result(again(**arguments)), main_result(model(**arguments)))
    assert nl.AutoConfig.from_pretrained(tmp_path) == again.config


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("model_type", COUSINS)
def test_own_names_map_to_themselves(model_type: str, head: str) -> None:
    cls = class_of(head, model_type)
    config = tiny_config(model_type, is_decoder=True, add_cross_attention=True)
    base = config.family.prefix
    names = list(cls.shapes(config, pooler=True))
    found = layout(names)
    assert (found.order, found.prefix) == ("post-LN", cls.base_prefix)
    mapped = [canonical(name, found.prefix, base) for name in names]
    assert [in_model(name, cls.base_prefix, base) for name in mapped if name] == names


@pytest.mark.parametrize("model_type", COUSINS)
def test_a_base_model_and_one_with_a_head_read_each_other(model_type: str, tmp_path: Path) -> None:
    whole, base = cousin(model_type), cousin(model_type, "Model")
    whole.save_pretrained(tmp_path / "whole")
    base.save_pretrained(tmp_path / "base")
    read = nl.AutoModel.from_pretrained(tmp_path / "whole")  # the head left out, no pooler: no warning
    prefix = whole.base_prefix
    same_params(read, {n.removeprefix(prefix): v for n, v in whole.params.items() if n.startswith(prefix)})
    with pytest.warns(CheckpointWarning, match="drawn fresh, train it before use: classifier"):
        choice = nl.AutoModelForMultipleChoice.from_pretrained(tmp_path / "base")
    np.testing.assert_array_equal(choice.params[prefix + "pooler.dense.weight"], base.params["pooler.dense.weight"])


# ---- what only pretraining used


def pretraining_file(model_type: str) -> tuple[Any, dict[str, np.ndarray]]:
    """As the published files of the first years have them: a pooler, next-sentence weights, gamma and beta, copies."""
    model = cousin(model_type)
    prefix = model.base_prefix
    tensors = dict(model.params)
    head = model.config.family.lm_head
    tensors[head.decoder + ".weight"] = tensors[prefix + "embeddings.word_embeddings.weight"]
    tensors[head.decoder + ".bias"] = tensors[head.bias]
    tensors[prefix + "pooler.dense.weight"] = np.ones((12, 12), np.float32)
    tensors[prefix + "pooler.dense.bias"] = np.ones(12, np.float32)
    tensors[prefix + "embeddings.position_ids"] = np.arange(16)[None]
    if model_type == "bert":
        tensors["cls.seq_relationship.weight"] = np.ones((2, 12), np.float32)
        tensors["cls.seq_relationship.bias"] = np.ones(2, np.float32)
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    return model, tensors


@pytest.mark.parametrize("model_type", COUSINS)
def test_what_only_pretraining_used_is_left_out_in_silence(model_type: str, tmp_path: Path) -> None:
    model, tensors = pretraining_file(model_type)
    write(tmp_path, tensors, model.config)
    same_params(nl.AutoModelForMaskedLM.from_pretrained(tmp_path), model.params)
    base = nl.AutoModel.from_pretrained(tmp_path)
    assert base.has_pooler
    with pytest.warns(CheckpointWarning, match="drawn fresh, train it before use: classifier.weight, classifier.bias$"):
        nl.AutoModelForTokenClassification.from_pretrained(tmp_path)


def test_what_is_neither_is_still_told(tmp_path: Path) -> None:
    model = cousin("bert", "ForTokenClassification")
    write(tmp_path, model.params | {"bert.extra.weight": np.ones(2, np.float32)}, model.config)
    with pytest.warns(CheckpointWarning, match=r"in the file but not used: bert.extra.weight$"):
        nl.BertForTokenClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("model_type", ["roberta", "bert"])
def test_tied_copies_that_differ(model_type: str, tmp_path: Path) -> None:
    model = cousin(model_type)
    decoder = model.config.family.lm_head.decoder + ".weight"
    write(tmp_path, model.params | {decoder: np.ones((23, 12), np.float32)}, model.config)
    with pytest.warns(CheckpointWarning, match=f"its {decoder} and word embeddings differ: both are kept"):
        untied = nl.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert not untied.config.tie_word_embeddings
    assert (untied.params[decoder] == 1).all()


# ---- which kind it is


def test_pre_ln_under_the_names_of_roberta_is_told_by_its_tensors(tmp_path: Path) -> None:
    """The files of princeton-nlp."""
    model = masked_lm()
    write(tmp_path, renamed(model.params, "roberta."), model.config, model_type="roberta")
    loaded = nl.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert type(loaded) is nl.RobertaPreLayerNormForMaskedLM
    same_params(loaded, model.params)
    assert type(nl.AutoConfig.from_pretrained(tmp_path)) is nl.RobertaPreLayerNormConfig
    for name in ("RobertaForMaskedLM", "RobertaModel"):
        with pytest.raises(CheckpointMismatchError, match=r"is a pre-LN checkpoint \(model_type 'roberta'") as caught:
            getattr(nl, name).from_pretrained(tmp_path)
        assert "RobertaPreLayerNorm classes" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "camembert"])
def test_pre_ln_names_under_another_type_are_an_error(model_type: str, tmp_path: Path) -> None:
    model = masked_lm()
    write(tmp_path, renamed(model.params, "roberta."), model.config, model_type=model_type)
    with pytest.raises(CheckpointMismatchError, match=f"is a pre-LN checkpoint .model_type '{model_type}'"):
        nl.AutoModelForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("wrong", list(CLASSES))
@pytest.mark.parametrize("model_type", COUSINS)
def test_a_class_of_another_type_refuses(model_type: str, wrong: str, tmp_path: Path) -> None:
    model = cousin(model_type)
    model.save_pretrained(tmp_path)
    if wrong == model_type:
        same_params(class_of("ForMaskedLM", wrong).from_pretrained(tmp_path), model.params)
        return
    match = "is a post-LN checkpoint" if "prelayernorm" in wrong else f"has model_type '{model_type}'.*for '{wrong}'"
    with pytest.raises(CheckpointMismatchError, match=match) as caught:
        class_of("ForMaskedLM", wrong).from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_post_ln_names_under_roberta_prelayernorm_are_an_error(tmp_path: Path) -> None:
    model = cousin("roberta")
    write(tmp_path, model.params, model.config, model_type="roberta-prelayernorm")
    with pytest.raises(CheckpointMismatchError, match="is a post-LN checkpoint"):
        nl.AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
@pytest.mark.parametrize(("model_type", "said"), [("bert", "roberta"), ("bert", "xlm-roberta"), ("roberta", "bert")])
def test_tensors_of_another_family_than_the_type_are_an_error(
    model_type: str, said: str, head: str, tmp_path: Path
) -> None:
    """Both are post-LN and of the same shapes, but their positions count otherwise."""
    model = cousin(model_type)
    prefix, other = model.base_prefix, tiny_config(said).family.prefix
    match = f"holds tensors named {prefix}[*], but those of type '{said}' are named {other}[*]: set model_type"
    for type_in_file in (said, None):
        write(tmp_path, model.params, model.config, model_type=type_in_file)
        with pytest.raises(CheckpointMismatchError, match=match):
            class_of(head, said).from_pretrained(tmp_path)
    same_params(class_of("ForMaskedLM", model_type).from_pretrained(tmp_path), model.params)  # it names no type


@pytest.mark.parametrize(("said", "advice"), [
    ("roberta", "load it with AutoModel and its like"),
    ("roberta-prelayernorm", "if it is of type roberta, xlm-roberta, camembert, bert, set model_type to that"),
])  # fmt: skip
def test_what_to_do_with_a_post_ln_checkpoint(said: str, advice: str, tmp_path: Path) -> None:
    model = cousin("roberta")
    write(tmp_path, model.params, model.config, model_type=said)
    with pytest.raises(CheckpointMismatchError, match=advice):
        nl.RobertaPreLayerNormForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("model_type", COUSINS)
def test_without_a_model_type_the_architecture_tells(model_type: str, tmp_path: Path) -> None:
    model = cousin(model_type)
    write(tmp_path, model.params, model.config, model_type=None, architectures=[f"{CLASSES[model_type]}ForMaskedLM"])
    assert type(nl.AutoModel.from_pretrained(tmp_path)) is class_of("Model", model_type)
    write(tmp_path, model.params, model.config, model_type=None)
    with pytest.raises(CheckpointMismatchError, match=r"neither a model_type nor architectures .* one of roberta-pre"):
        nl.AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("model_type", ["gpt2", 3, ["bert"]])
def test_an_unknown_model_type(model_type: Any, tmp_path: Path) -> None:
    model = cousin("bert")
    write(tmp_path, model.params, model.config, model_type=model_type)
    with pytest.raises(CheckpointMismatchError, match="this package knows roberta-prelayernorm, roberta, xlm-roberta"):
        nl.AutoModelForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["AutoConfig", "AutoModel", "AutoModelForMaskedLM", "BertModel"])
def test_a_pair_is_sent_to_its_own_class(name: str, tmp_path: Path) -> None:
    part = tiny_config()
    config = nl.EncoderDecoderConfig.from_encoder_decoder_configs(part, part, decoder_start_token_id=0, pad_token_id=1)
    nl.EncoderDecoderModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatchError, match="is an encoder-decoder pair: load it with EncoderDecoderModel"):
        getattr(nl, name).from_pretrained(tmp_path)


def test_weights_of_something_else(tmp_path: Path) -> None:
    write(tmp_path, {"conv.weight": np.zeros((2, 2), np.float32)}, tiny_config("bert"))
    with pytest.raises(CheckpointMismatchError, match="it is no bert checkpoint"):
        nl.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointNotFoundError, match=r"has no config\.json"):
        nl.AutoModel.from_pretrained(tmp_path / "empty")


def test_a_configuration_that_is_given_decides(tmp_path: Path) -> None:
    model = cousin("bert")
    model.save_pretrained(tmp_path)
    config = tiny_config("bert", hidden_dropout_prob=0.3)
    loaded = nl.AutoModelForMaskedLM.from_pretrained(tmp_path, config=config, layer_norm_eps=1e-3)
    assert (loaded.config.hidden_dropout_prob, loaded.config.layer_norm_eps) == (0.3, 1e-3)
    with pytest.raises(CheckpointMismatchError, match="is a post-LN checkpoint"):
        nl.AutoModelForMaskedLM.from_pretrained(tmp_path, config=tiny_config())


# ---- the commands that read files


@pytest.mark.parametrize("model_type", COUSINS)
def test_convert_writes_what_transformers_names_so(model_type: str, tmp_path: Path) -> None:
    model, tensors = pretraining_file(model_type)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    write(old, tensors, model.config, architectures=[f"{CLASSES[model_type]}ForMaskedLM"])
    (old / "1_Pooling").mkdir()
    for name in ("vocab.txt", "modules.json", "1_Pooling/config.json"):
        (old / name).write_text("{}", "utf-8")
    assert main(["convert", str(old), str(new)]) == 0
    for name in ("vocab.txt", "modules.json", "1_Pooling/config.json"):
        assert (new / name).read_text("utf-8") == "{}"
    written = load_file(new / "model.safetensors")
    assert {name: array for name, array in written.items() if name in model.params}.keys() == model.params.keys()
    assert not [name for name in written if name.endswith(("gamma", "beta", "position_ids", "decoder.weight"))]
    values = json.loads((new / "config.json").read_text("utf-8"))
    assert (values["model_type"], values["architectures"]) == (model_type, [f"{CLASSES[model_type]}ForMaskedLM"])
    same_params(nl.AutoModelForMaskedLM.from_pretrained(new), model.params)


@pytest.mark.parametrize(("head", "shown"), [
    ("Model", "none (base model with pooler)"),
    ("ForMaskedLM", "language model (masked or causal)"),
    ("ForSequenceClassification", "sequence classification, 2 labels"),
    ("ForTokenClassification", "token classification, 2 labels"),
    ("ForMultipleChoice", "multiple choice"),
    ("ForQuestionAnswering", "question answering"),
])  # fmt: skip
@pytest.mark.parametrize("model_type", ["camembert", "bert"])
def test_inspect_names_type_and_head(
    model_type: str, head: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = cousin(model_type, head)
    model.save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == f"{model_type} (post-LN)"
    assert (report["head"], report["loadable"]) == (shown, True)
    assert report["parameters"] == model.num_parameters()


def test_inspect_counts_a_tied_decoder_of_bert_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tensors = pretraining_file("bert")
    write(tmp_path, tensors, model.config)
    for config in (True, False):
        if not config:
            (tmp_path / "config.json").unlink()
        assert main(["inspect", str(tmp_path / "model.safetensors"), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["loadable"] is config
        assert report["parameters"] == model.num_parameters() + 12 * 12 + 12 + 2 * 12 + 2


# ---- the other order, on purpose


@pytest.mark.parametrize("head", HEADS)
def test_reordering_keeps_the_arrays(head: str) -> None:
    model = random_model(head, tiny_config(is_decoder=True, add_cross_attention=True, num_labels=2))
    other = reorder_layer_norm(model, "post")
    assert type(other) is class_of(head, "roberta")
    values = {id(value) for value in model.params.values()}
    final = {id(model.params[f"{model.base_prefix}LayerNorm.{part}"]) for part in ("weight", "bias")}
    assert {id(value) for value in other.params.values()} == values - final
    block = f"{other.base_prefix}encoder.layer.1."
    old = f"{model.base_prefix}encoder.layer.1."
    for mine, theirs in (
        ("attention.output.LayerNorm", "attention.LayerNorm"),
        ("crossattention.output.LayerNorm", "crossattention.LayerNorm"),
        ("output.LayerNorm", "intermediate.LayerNorm"),
        ("output.dense", "output.dense"),
    ):
        assert other.params[f"{block}{mine}.weight"] is model.params[f"{old}{theirs}.weight"]
    back = reorder_layer_norm(other, "pre")
    assert type(back) is type(model)
    assert back.params.keys() == model.params.keys()
    assert (back.params[f"{model.base_prefix}LayerNorm.weight"] == 1).all()
    assert not back.params[f"{model.base_prefix}LayerNorm.bias"].any()
    arguments = required_arguments(head, IDS)
    assert np.abs(main_result(other(**arguments)) - main_result(model(**arguments))).max() > 0.1
    for order, same in (("pre", model), ("post", other)):
        np.testing.assert_array_equal(
            main_result(reorder_layer_norm(same, order)(**arguments)), main_result(same(**arguments))
        )


def test_reordering_wrongly() -> None:
    with pytest.raises(InputError, match="order is 'middle'; allowed: 'pre', 'post'"):
        reorder_layer_norm(masked_lm(), "middle")
    with pytest.raises(InputError, match="the model is a BertModel; only RobertaPreLayerNorm and Roberta"):
        reorder_layer_norm(cousin("bert", "Model"), "pre")
