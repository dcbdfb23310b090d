"""Training live against torch and transformers: the optimizer, the schedules, whole runs, and the folders written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grammar
import numpy as np
import pytest

import npprelnorm as nl
from npprelnorm.commands import main
from npprelnorm.training.batches import epoch_batches, pad
from npprelnorm.training.loop import Trainer
from npprelnorm.training.optimizer import AdamW, clip_by_global_norm, decays
from npprelnorm.training.schedules import SCHEDULES, factor
from npprelnorm.training.settings import TrainingSettings

pytestmark = [
    pytest.mark.reference,
    # transformers and torch warn about their own ways; ours are errors still, in the plain suite
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("beta1", "beta2", "eps", "decay"), [(0.9, 0.999, 1e-8, 0.01), (0.8, 0.98, 1e-6, 0.3)])
def test_adamw_and_clipping_step_by_step(dtype: str, beta1: float, beta2: float, eps: float, decay: float) -> None:
    import torch

    rng = np.random.default_rng(0)
    shapes = {"a.weight": (5, 4), "a.bias": (4,), "LayerNorm.weight": (4,), "LayerNorm.bias": (4,)}
    params = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    tensors = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.items()}
    optimizer = AdamW(params, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    groups = [
        {"params": [t for n, t in tensors.items() if decays(n) == wanted], "weight_decay": decay if wanted else 0.0}
        for wanted in (True, False)
    ]
    theirs = torch.optim.AdamW(groups, lr=1.0, betas=(beta1, beta2), eps=eps)
    for step in range(60):
        rate = 0.05 * factor("cosine", step, 5, 60)
        # small and large gradients, so that some steps are clipped and some are not
        grads = {n: (rng.standard_normal(s) * 10.0 ** rng.uniform(-2, 1)).astype(dtype) for n, s in shapes.items()}
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(grads[name])
        their_norm = torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
        assert clip_by_global_norm(grads, 1.0) == pytest.approx(
            float(their_norm), rel=1e-12 if dtype == "float64" else 1e-5
        )
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
        optimizer.step(params, grads, rate)
        for name, tensor in tensors.items():
            difference = np.abs(params[name] - tensor.detach().numpy()).max()
            assert difference <= (1e-13 if dtype == "float64" else 1e-5), (name, step)


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 25), (5, 5)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule: str, warmup: int, total: int) -> None:
    import torch
    import transformers

    made = {
        "linear": lambda o: transformers.get_linear_schedule_with_warmup(o, warmup, total),
        "cosine": lambda o: transformers.get_cosine_schedule_with_warmup(o, warmup, total),
        "constant": lambda o: transformers.get_constant_schedule_with_warmup(o, warmup),
    }[schedule]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = made(optimizer)
    for step in range(total + 1):
        assert factor(schedule, step, warmup, total) == pytest.approx(theirs.get_last_lr()[0], abs=1e-15)
        optimizer.step()
        theirs.step()


CONFIG = {
    "vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "max_position_embeddings": 20, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "initializer_range": 0.2,
    "num_labels": 3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


class Examples:
    """Rows of several lengths whose labels can be learnt: the ids themselves, or a class told by the first id."""

    def __init__(self, head: str, count: int = 90) -> None:
        rng = np.random.default_rng(5)
        self.head = head
        self.lengths = rng.integers(4, 12, count)
        self.rows = [rng.integers(3, 40, length) for length in self.lengths]

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        rows = [self.rows[i] for i in indices]
        inputs: dict[str, Any] = {"input_ids": pad(rows, 1), "attention_mask": pad([[1] * len(row) for row in rows], 0)}
        if self.head == "ForSequenceClassification":
            return inputs | {"labels": np.array([row[0] % 3 for row in rows])}
        if self.head == "ForQuestionAnswering":
            return inputs | {"start_positions": np.array([1] * len(rows)), "end_positions": np.array([2] * len(rows))}
        if self.head == "ForTokenClassification":
            return inputs | {"labels": pad([row % 3 for row in rows], -100)}
        if self.head == "ForMultipleChoice":
            shaped = {name: np.stack([value, value[:, ::-1]], axis=1) for name, value in inputs.items()}
            return shaped | {"labels": np.array([row[0] % 2 for row in rows])}
        labels = pad(rows, -100)
        if self.head == "ForMaskedLM":
            hidden = rng.random(labels.shape) < 0.4
            hidden[:, 0] = True
            labels = np.where(hidden, labels, -100)
            inputs["input_ids"] = np.where(hidden & (labels >= 0), 2, inputs["input_ids"])
        return inputs | {"labels": labels}


HEADS = (
    "ForMaskedLM",
    "ForCausalLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)


@pytest.mark.parametrize("head", HEADS)
def test_a_hundred_steps_are_those_of_torch_and_transformers(head: str, tmp_path: Path) -> None:
    import torch
    import transformers

    name = f"RobertaPreLayerNorm{head}"
    changes = {"is_decoder": head == "ForCausalLM"} | ({"num_labels": 2} if head == "ForQuestionAnswering" else {})
    ours: Any = getattr(nl, name)(nl.RobertaPreLayerNormConfig(**(CONFIG | changes)), rng=1, dtype="float64")
    ours.save_pretrained(tmp_path / "start")
    theirs = getattr(transformers, name).from_pretrained(
        tmp_path / "start", attn_implementation="eager", torch_dtype=torch.float64
    )
    theirs.train()  # dropout is 0
    settings = TrainingSettings(
        steps=100, batch_size=8, learning_rate=3e-3, warmup=0.1, schedule="linear", weight_decay=0.1, max_grad_norm=1.0
    )
    data = Examples(head)
    trainer = Trainer(ours, data, settings, tmp_path / "run")
    losses: list[float] = []
    trainer.report = lambda step, total, loss: losses.append(loss)
    trainer.run()

    named = dict(theirs.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named.items() if decays(n)], "weight_decay": 0.1},
            {"params": [p for n, p in named.items() if not decays(n)], "weight_decay": 0.0},
        ],
        lr=3e-3,
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 10, 100)
    step, epoch = 0, 0
    while step < 100:
        for indices in epoch_batches(data.lengths, 8, 0, epoch)[: 100 - step]:
            inputs = data.collate(indices, np.random.default_rng([0, 1, step]))
            given = {key: torch.tensor(np.ascontiguousarray(value)) for key, value in inputs.items()}
            output = theirs(**given)
            loss = output.loss
            if head == "ForCausalLM":  # whose own loss rounds the logits to float32
                logits, labels = output.logits[:, :-1], given["labels"][:, 1:]
                loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 40), labels.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            assert losses[step] == pytest.approx(float(loss.detach()), rel=1e-8), f"step {step}"
            step += 1
        epoch += 1

    assert losses[-1] < losses[0]
    assert set(named) <= set(ours.params)
    for key, tensor in named.items():
        difference = np.abs(ours.params[key] - tensor.detach().numpy()).max()
        assert difference <= 1e-9, f"{key} differs by {difference}"
    start = getattr(nl, name).from_pretrained(tmp_path / "start", dtype="float64")
    assert max(np.abs(ours.params[key] - start.params[key]).max() for key in named) > 1e-2


def _stories(kind: str) -> list[dict[str, Any]]:
    generator = random.Random(0)
    lines: list[dict[str, Any]] = []
    for index in range(16):
        giver, taker = generator.sample(grammar.PEOPLE, 2)
        text = f"{giver} gave the book to {taker}."
        lines.append(
            {
                "classification": {"text": text, "label": ["no", "yes", "perhaps"][index % 3]},
                "token-classification": {"tokens": text[:-1].split(), "tags": ["B-P", "O", "O", "O", "O", "B-P"]},
                "multiple-choice": {"prompt": text, "choices": [giver, taker], "label": index % 2},
                "question-answering": {"question": "Who?", "context": text, "answer": giver, "start": 0},
                "causal-lm": {"text": text},
                "masked-lm": {"text": text},
            }[kind]
        )
    return lines


@pytest.mark.parametrize(
    ("task", "head"),
    [
        ("classification", "ForSequenceClassification"),
        ("token-classification", "ForTokenClassification"),
        ("multiple-choice", "ForMultipleChoice"),
        ("question-answering", "ForQuestionAnswering"),
        ("causal-lm", "ForCausalLM"),
        ("masked-lm", "ForMaskedLM"),
    ],
)
def test_transformers_loads_what_was_trained(
    task: str, head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    import transformers

    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in _stories(task)), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["train", task, "--train", str(file), "--eval", str(file), "--out", str(out), "--steps", "2"]) == 0
    auto: dict[str, Callable[..., Any]] = {
        "ForSequenceClassification": transformers.AutoModelForSequenceClassification.from_pretrained,
        "ForTokenClassification": transformers.AutoModelForTokenClassification.from_pretrained,
        "ForMultipleChoice": transformers.AutoModelForMultipleChoice.from_pretrained,
        "ForQuestionAnswering": transformers.AutoModelForQuestionAnswering.from_pretrained,
        "ForCausalLM": transformers.AutoModelForCausalLM.from_pretrained,
        "ForMaskedLM": transformers.AutoModelForMaskedLM.from_pretrained,
    }
    theirs, report = auto[head](out, attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ours: Any = getattr(nl, f"RobertaPreLayerNorm{head}").from_pretrained(out)
    assert theirs.config.id2label == ours.config.id2label
    if head == "ForSequenceClassification":
        assert theirs.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}

    # their tokenizer makes the same ids of a pair
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    pair = ("Anna gave it to Tom.", "Who has it?")
    ids = nl.Tokenizer.from_pretrained(out)(*pair).input_ids
    assert tokenizer(*pair)["input_ids"] == ids[0].tolist()
    shaped = np.stack([ids, ids[:, ::-1]], axis=1) if head == "ForMultipleChoice" else ids
    theirs.eval()
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(np.ascontiguousarray(shaped)))
    found = ours(input_ids=shaped)
    for name in ("start_logits", "end_logits") if head == "ForQuestionAnswering" else ("logits",):
        np.testing.assert_allclose(found[name], expected[name].numpy(), atol=2e-5 * max(1, np.abs(found[name]).max()))
