"""The post-LN model types against the installed transformers (5.2.0, eager): results, gradients, files, sentences."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_configs import ACTIVATIONS, HEADS, PADDINGS, Draw, draw
from strategies import COUSINS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

from reference_models import TOLERANCE, call_theirs, check_draw, class_pair, compare, model_pair, scale_name, task_of  # noqa: E402

import npprelnorm as nl  # noqa: E402
from npprelnorm.errors import NpprelnormWarning  # noqa: E402

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore::npprelnorm.errors.NpprelnormWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

SEEDS = 20
MODELS = 12  # for gradients


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


# transformers 5.2.0 builds two multiple-choice classes without the pooler that they use, and ties CamemBERT's causal
# model to a name that it does not have; 4.56.2 runs all three, so that the golden files have their numbers
BROKEN = (("xlm-roberta", "ForMultipleChoice"), ("camembert", "ForMultipleChoice"), ("camembert", "ForCausalLM"))
CLASSES_THAT_RUN = [(model_type, head) for model_type in COUSINS for head in HEADS if (model_type, head) not in BROKEN]


def draws(model_type: str, head: str) -> Iterator[Draw]:
    """Other ones for each type."""
    first = 5000 + SEEDS * COUSINS.index(model_type)
    return (draw(head, seed, model_type) for seed in range(first, first + SEEDS))


@pytest.mark.parametrize(("model_type", "head"), CLASSES_THAT_RUN)
def test_random_models(model_type: str, head: str) -> None:
    for case in draws(model_type, head):
        check_draw(case)


def test_the_random_models_cover_every_axis() -> None:
    """Each edge turns up for each type, and each argument for each head, or the test above would not have met it."""
    edges = {"chunks", "as long as allowed", "one token", "inputs_embeds", "token_type_ids", "position_ids", "labels"}
    edges |= {f"padding {name}" for name in PADDINGS} | {f"act {name}" for name in ACTIVATIONS}
    edges |= {f"pad id {value}" for value in (0, 1, 3, 5)} | {f"type_vocab_size {value}" for value in (1, 2, 3)}
    edges |= {f"mask {form}" for form in ("2-D int", "2-D bool", "2-D float", "4-D 0/min", "4-D biases")}
    edges |= {"tie_word_embeddings True", "tie_word_embeddings False", "is_decoder True", "encoder states"}
    edges |= {"encoder mask", "heads of one", "vocabulary of 7"}
    for model_type in COUSINS:
        of_type = [head for kind, head in CLASSES_THAT_RUN if kind == model_type]
        seen = set().union(*(case.features for head in of_type for case in draws(model_type, head)))
        assert edges - seen == set(), model_type
    for head in HEADS:
        of_head = [model_type for model_type, name in CLASSES_THAT_RUN if name == head]
        seen = set().union(*(case.features for model_type in of_head for case in draws(model_type, head)))
        arguments = {"chunks", "as long as allowed", "inputs_embeds", "token_type_ids", "position_ids"}
        assert arguments - seen == set(), head


def gradient_draws(model_type: str, head: str) -> Iterator[Draw]:
    """In float64, with 8 hidden numbers or more (see test_live_gradients)."""
    count, seed = 0, 7000 + 100 * COUSINS.index(model_type)
    while count < MODELS:
        case = draw(head, seed, model_type)
        seed += 1
        if case.config["hidden_size"] >= 8:
            count += 1
            yield replace(case, dtype="float64")


@pytest.mark.parametrize(("model_type", "head"), CLASSES_THAT_RUN)
def test_gradients(model_type: str, head: str) -> None:
    trained = 0
    for case in gradient_draws(model_type, head):
        task, weights = task_of(case)
        theirs, ours = task.theirs(weights, "float64"), task.ours(weights, "float64")
        assert ours.keys() == theirs.keys(), str(case)
        trained += any(value.any() for value in theirs.values())
        for name, value in theirs.items():
            allowed = 1e-10 * np.linalg.norm(theirs[scale_name(case, name)])
            assert np.linalg.norm(ours[name] - value) <= allowed, f"{case}: {name}"
    assert trained >= MODELS // 2  # one choice, or no label that counts: then all is 0, as it should be


@pytest.mark.parametrize(("model_type", "head"), CLASSES_THAT_RUN)
def test_files_of_each_are_read_by_the_other(model_type: str, head: str, tmp_path: Path) -> None:
    config = draw("Model", 5).config | {"is_decoder": head == "ForCausalLM", "add_cross_attention": False}
    config |= {"num_labels": 2, "tie_word_embeddings": True}
    ours, theirs = model_pair(head, config, 6, "float32", model_type)
    our_class, their_class = class_pair(head, model_type)
    ids = np.arange(2, 6)[None] % config["vocab_size"]
    inputs = {"input_ids": ids[None] if head == "ForMultipleChoice" else ids}
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    auto = getattr(nl, "AutoModel" if head == "Model" else f"AutoModel{head}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", NpprelnormWarning)
        read = auto.from_pretrained(tmp_path / "theirs")
    assert type(read) is our_class
    expected = call_theirs(theirs, inputs, "float32")
    compare(read(**inputs), expected, TOLERANCE["float32"], "their file")
    again = their_class.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    compare(ours(**inputs), call_theirs(again, inputs, "float32"), TOLERANCE["float32"], "our file")


@pytest.mark.parametrize("model_type", COUSINS)
def test_default_configurations(model_type: str) -> None:
    name = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert", "bert": "Bert"}[model_type]
    ours, theirs = getattr(nl, f"{name}Config")().to_dict(), getattr(transformers, f"{name}Config")().to_dict()
    shared = ours.keys() & theirs.keys() - {"transformers_version"}
    assert len(shared) > 20
    values = {key: theirs[key] for key in shared}
    values["id2label"] = {str(key): label for key, label in values["id2label"].items()}
    assert {key: ours[key] for key in shared} == values


def test_a_bert_pretraining_file(tmp_path: Path) -> None:
    """As google's BERT was saved: a masked LM head and a next-sentence classifier over one body with a pooler."""
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    theirs = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for number, parameter in enumerate(theirs.parameters()):
            parameter.copy_(torch.from_numpy(np.random.default_rng(number).standard_normal(parameter.shape) * 0.3))
    theirs.save_pretrained(tmp_path)
    ids = np.array([[2, 5, 6, 3, 7, 8, 3]])
    inputs: dict[str, Any] = {"input_ids": ids, "token_type_ids": np.array([[0, 0, 0, 0, 1, 1, 1]])}
    expected = call_theirs(theirs, inputs, "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", NpprelnormWarning)
        masked, base = nl.AutoModelForMaskedLM.from_pretrained(tmp_path), nl.AutoModel.from_pretrained(tmp_path)
    logits = expected.prediction_logits.numpy()
    assert np.abs(masked(**inputs).logits - logits).max() <= 2e-5 * max(1.0, np.abs(logits).max())
    pooled = call_theirs(theirs.bert, inputs, "float32").pooler_output.numpy()
    assert np.abs(base(**inputs).pooler_output - pooled).max() <= 2e-5
