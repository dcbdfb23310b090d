"""The loop: one large batch or many small ones, runs that repeat and resume to the bit, and ends that come early."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import class_of, random_model, tiny_config

from npprelnorm.checkpoint.safetensors_file import SafetensorsFile
from npprelnorm.errors import CheckpointMismatchError, InputError, TrainingError
from npprelnorm.heads import IGNORE
from npprelnorm.training import state
from npprelnorm.training.batches import pad
from npprelnorm.training.loop import Trainer, counted, first_bad_tensor, read_log
from npprelnorm.training.settings import TrainingSettings

CONFIG = tiny_config(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)


class Rows:
    """Random rows of different lengths, with labels of which some do not count."""

    def __init__(self, head: str = "ForMaskedLM", count: int = 20, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.head = head
        # a span's scores are compared with those of padding too (as in transformers), so that its loss depends on it
        self.lengths = np.full(count, 6) if head == "ForQuestionAnswering" else rng.integers(3, 10, count)
        self.ids = [rng.integers(2, CONFIG.vocab_size, n) for n in self.lengths]
        self.labels = [
            np.where(rng.random(n) < 0.5, ids, IGNORE) for n, ids in zip(self.lengths, self.ids, strict=True)
        ]
        self.classes = rng.integers(0, 2, count)
        self.seen: list[list[int]] = []

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        self.seen.append(indices.tolist())
        ids = pad([self.ids[i] for i in indices], CONFIG.pad_token_id)
        inputs = {"input_ids": ids, "attention_mask": (ids != CONFIG.pad_token_id).astype(int)}
        if self.head == "ForSequenceClassification":
            return inputs | {"labels": self.classes[indices]}
        if self.head == "ForQuestionAnswering":
            return inputs | {"start_positions": self.classes[indices], "end_positions": self.classes[indices] + 1}
        return inputs | {"labels": pad([self.labels[i] for i in indices], IGNORE)}


def config_of(head: str, **changes: Any) -> Any:
    values = CONFIG.to_dict() | {"is_decoder": head == "ForCausalLM", "vocab_size": CONFIG.vocab_size} | changes
    return type(CONFIG).from_dict(values)


def trained(
    folder: Path,
    *,
    head: str = "ForMaskedLM",
    data: Any = None,
    dtype: str = "float64",
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    stop_after: int | None = None,
    **settings: Any,
) -> Trainer:
    """Train a random model; `stop_after` breaks the run off after so many steps, as if it had been killed."""
    model = random_model(head, config_of(head), seed=3, dtype=dtype)
    chosen = TrainingSettings(**({"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "save_every": 3} | settings))

    def report(step: int, total: int, loss: float) -> None:
        if step == stop_after:
            raise _Killed

    trainer = Trainer(model, data or Rows(head), chosen, folder, evaluate=evaluate, progress=report)
    try:
        trainer.run()
    except _Killed:
        assert stop_after is not None
    return trainer


class _Killed(Exception):
    pass


def same(one: Trainer, other: Trainer) -> bool:
    return all(np.array_equal(value, other.model.params[name]) for name, value in one.model.params.items())


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM", "ForSequenceClassification", "ForQuestionAnswering"])
def test_accumulated_small_batches_are_one_large_batch(tmp_path: Path, head: str) -> None:
    # eps: some gradients (of the keys' biases) are exactly 0, and Adam would blow up what rounding leaves of that
    common = {"head": head, "epochs": 3, "dropout": False, "warmup": 0, "eps": 1e-5}
    data = Rows(head, count=8)
    large = trained(tmp_path / "large", data=data, batch_size=8, accumulate=1, **common)
    small = trained(tmp_path / "small", data=data, batch_size=2, accumulate=4, **common)
    assert large.total == small.total == 3
    start = random_model(head, config_of(head), seed=3)
    moved = 0.0
    for name, value in large.model.params.items():
        assert np.abs(value - small.model.params[name]).max() <= 1e-12, name
        moved = max(moved, float(np.abs(value - start.params[name]).max()))
    assert moved > 1e-3
    for one, other in zip(read_log(large.log_path), read_log(small.log_path), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-12)


def test_recomputing_changes_no_bit(tmp_path: Path) -> None:
    assert same(trained(tmp_path / "a", recompute=False), trained(tmp_path / "b", recompute=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_seed_makes_a_run_repeatable_to_the_bit(tmp_path: Path, dtype: str) -> None:
    one = trained(tmp_path / "a", dtype=dtype, seed=5)
    assert same(one, trained(tmp_path / "b", dtype=dtype, seed=5))
    assert not same(one, trained(tmp_path / "c", dtype=dtype, seed=6))
    for name, value in one.model.params.items():
        assert value.dtype == dtype, name
        assert np.isfinite(value).all()


def test_dropout_is_off_when_it_is_told_to_be(tmp_path: Path) -> None:
    assert not same(trained(tmp_path / "a"), trained(tmp_path / "b", dropout=False))


def test_it_learns(tmp_path: Path) -> None:
    trainer = trained(tmp_path, epochs=30, learning_rate=2e-2, log_every=5, dropout=False, weight_decay=0.0)
    losses = [line["loss"] for line in read_log(trainer.log_path) if "loss" in line]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6, 9])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, stop_after: int) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        return {"loss": float(np.abs(model.params["lm_head.bias"]).sum())}

    options: dict[str, Any] = {"evaluate": evaluate, "eval_every": 2, "log_every": 2, "accumulate": 2, "epochs": 4}
    whole = trained(tmp_path / "whole", **options)
    trained(tmp_path / "broken", stop_after=stop_after, **options)
    resumed = trained(tmp_path / "broken", **options)
    assert same(whole, resumed)
    assert whole.progress == resumed.progress
    for name, value in whole.optimizer.state().items():
        assert np.array_equal(value, resumed.optimizer.state()[name])
    lines = [
        [{key: value for key, value in line.items() if key != "seconds"} for line in read_log(trainer.log_path)]
        for trainer in (whole, resumed)
    ]
    assert lines[0] == lines[1]


def test_a_finished_run_is_not_trained_on(tmp_path: Path) -> None:
    one = trained(tmp_path)
    data = Rows()
    again = trained(tmp_path, data=data)
    assert data.seen == []
    assert same(one, again)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"learning_rate": 2e-3}, InputError, "a run with learning_rate=0.001, not 0.002; continue it with the same"),
        ({"seed": 1}, InputError, "a run with seed=0, not 1"),
        ({"data": Rows(count=19)}, InputError, "holds a run on other examples; continue it with the same data"),
        ({"dtype": "float32"}, CheckpointMismatchError, "is the checkpoint of another model"),
        ({"head": "ForSequenceClassification"}, CheckpointMismatchError, "is the checkpoint of another model"),
        ({"frozen": ("lm_head.*",)}, InputError, "frozen=\\[\\]"),
    ],
)
def test_another_run_is_not_continued(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    trained(tmp_path, stop_after=4)
    with pytest.raises(error, match=message):
        trained(tmp_path, **changes)


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, stop_after=4)
    (tmp_path / "checkpoints" / "step-00000003" / "state.json").write_text('{"stage": 3}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"state\.json is not the state of a run"):
        trained(tmp_path)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with state.alone(tmp_path), pytest.raises(InputError, match="another process is training in"):
        trained(tmp_path)
    trained(tmp_path)


class Poisoned(Rows):
    """Puts NaN into a parameter when the fifth batch is made."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = None
        self.good: dict[str, np.ndarray] = {}

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        inputs = super().collate(indices, rng)
        if len(self.seen) == 4:  # of the third step, after the checkpoint of the second
            self.good = {name: value.copy() for name, value in self.model.params.items()}
        if len(self.seen) == 6:
            self.model.params["roberta_prelayernorm.encoder.layer.1.output.dense.weight"][2, 3] = np.nan
        return inputs


def test_nan_stops_the_run_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    data = Poisoned()
    model = random_model("ForMaskedLM", CONFIG, dtype="float32")
    settings = TrainingSettings(steps=9, batch_size=2, accumulate=2, save_every=1)
    trainer = Trainer(model, data, settings, tmp_path)
    data.model = trainer.model
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    message = str(caught.value)
    assert "the loss is nan at step 3, batch 1 of 2 (examples " in message
    assert ", ".join(map(str, data.seen[4])) in message
    assert "infinity: roberta_prelayernorm.encoder.layer.1.output.dense.weight;" in message
    assert "checkpoints" in message
    kept = state.latest(tmp_path / "checkpoints", "step")
    assert kept is not None
    assert kept.name == "step-00000002"
    weights = SafetensorsFile(kept / "model.safetensors")
    assert all(np.isfinite(weights.read(name)).all() for name in weights.names())
    assert not trainer.log_path.exists()  # nothing was due before step 10


def test_infinite_activations_and_losses_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"at step [23], batch 1 of 1 .* infinity: (hidden_states\[\d\]|roberta)"):
        trained(tmp_path / "a", dtype="float32", learning_rate=1e30, warmup=0)
    model = random_model("ForSequenceClassification", config_of("x", num_labels=2, problem_type="regression"))
    inputs = {"input_ids": [[2, 3]], "labels": [[1e300, 0.0]]}
    assert first_bad_tensor(model, inputs) == "loss"
    assert first_bad_tensor(model, {"input_ids": [[2, 3]], "labels": [[1.0, 0.0]]}) is None


def test_a_bad_evaluation_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the evaluation after step 2 gives loss = nan"):
        trained(tmp_path / "a", evaluate=lambda _: {"loss": math.nan}, eval_every=2)
    with pytest.raises(InputError, match="metric is 'loss', but the evaluation gives only f1"):
        trained(tmp_path / "b", evaluate=lambda _: {"f1": 1.0}, eval_every=2)


def scripted(values: list[float]) -> Callable[[Any], dict[str, float]]:
    """An evaluation that gives these losses, whatever the model."""
    left = list(values)
    return lambda _: {"loss": left.pop(0)}


def test_it_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    kept: dict[str, np.ndarray] = {}

    def evaluate(model: Any) -> dict[str, float]:
        losses = [3.0, 2.0, 2.5, 2.0, 9.0, 1.0]
        evaluate.calls += 1  # type: ignore[attr-defined]
        if evaluate.calls == 2:  # type: ignore[attr-defined]
            kept.update({name: value.copy() for name, value in model.params.items()})
        return {"loss": losses[evaluate.calls - 1]}  # type: ignore[attr-defined]

    evaluate.calls = 0  # type: ignore[attr-defined]
    trainer = trained(tmp_path, evaluate=evaluate, eval_every=1, patience=3, epochs=10)
    assert trainer.progress.finished
    assert trainer.progress.step == 5  # after 2.5, 2.0 and 9.0
    assert (trainer.progress.best, trainer.progress.best_step) == (2.0, 2)
    assert all(np.array_equal(value, trainer.model.params[name]) for name, value in kept.items())
    again = trained(tmp_path, evaluate=evaluate, eval_every=1, patience=3, epochs=10)
    assert again.progress.step == 5
    assert same(trainer, again)


def test_greater_can_be_better(tmp_path: Path) -> None:
    values = iter([0.1, 0.7, 0.3, 0.2, 0.1, 0.0, 0.5, 0.6, 0.2, 0.1])
    model = random_model("ForMaskedLM", CONFIG)
    settings = TrainingSettings(epochs=2, batch_size=4, eval_every=1)
    trainer = Trainer(
        model, Rows(), settings, tmp_path,
        evaluate=lambda _: {"f1": next(values)}, metric="f1", greater_is_better=True,
    )  # fmt: skip
    progress = trainer.run()
    assert (progress.best, progress.best_step, progress.step) == (0.7, 2, 10)


def test_frozen_parameters_stay_and_have_no_state(tmp_path: Path) -> None:
    trainer = trained(tmp_path, frozen=("roberta_prelayernorm.*",), weight_decay=0.5)
    start = random_model("ForMaskedLM", CONFIG, seed=3)
    for name, value in trainer.model.params.items():
        assert np.array_equal(value, start.params[name]) == name.startswith("roberta_prelayernorm."), name
    assert not [name for name in trainer.optimizer.state() if "roberta_prelayernorm" in name]
    for pattern, message in ((("*",), "freezes every parameter"), (("head.*",), "frozen holds 'head")):
        with pytest.raises(InputError, match=message):
            trained(tmp_path / "other", frozen=pattern)


def test_read_only_parameters_are_copied_and_not_written_to(tmp_path: Path) -> None:
    random_model("ForMaskedLM", CONFIG, dtype="float32").save_pretrained(tmp_path / "start")
    model = class_of("ForMaskedLM").from_pretrained(tmp_path / "start")
    before = (tmp_path / "start" / "model.safetensors").read_bytes()
    Trainer(model, Rows(), TrainingSettings(steps=2, learning_rate=0.1, warmup=0), tmp_path / "run").run()
    assert (tmp_path / "start" / "model.safetensors").read_bytes() == before
    assert not np.array_equal(
        model.params["lm_head.bias"], SafetensorsFile(tmp_path / "start" / "model.safetensors").read("lm_head.bias")
    )


def test_the_log_is_cut_where_a_run_is_taken_up(tmp_path: Path) -> None:
    trainer = trained(tmp_path, stop_after=5, log_every=1)
    assert [line["step"] for line in read_log(trainer.log_path)] == [1, 2, 3, 4, 5]
    with open(trainer.log_path, "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    trained(tmp_path, log_every=1)
    assert [line["step"] for line in read_log(trainer.log_path)] == list(range(1, 11))
    for text in trainer.log_path.read_text(encoding="utf-8").splitlines():
        assert set(json.loads(text)) == {"step", "loss", "grad_norm", "learning_rate", "seconds"}
    trainer.log_path.write_text("[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 1 is no line of a metrics log"):
        read_log(trainer.log_path)


def test_the_logged_loss_is_the_mean_since_the_line_before(tmp_path: Path) -> None:
    each = [line["loss"] for line in read_log(trained(tmp_path / "a", log_every=1).log_path)]
    some = [line["loss"] for line in read_log(trained(tmp_path / "b", log_every=4).log_path)]
    assert some == pytest.approx([np.mean(each[:4]), np.mean(each[4:8]), np.mean(each[8:])], rel=1e-12)


def test_only_the_newest_checkpoint_is_kept_and_remains_are_cleared(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    (root / ".step-00000003.new.tmp").mkdir(parents=True)
    (root / "notes").mkdir()
    trainer = trained(tmp_path)
    assert sorted(item.name for item in root.iterdir()) == ["notes", "step-00000010"]
    state.save(root, "step", trainer.model, trainer.optimizer, trainer.progress)  # the same step once more
    assert sorted(item.name for item in root.iterdir()) == ["notes", "step-00000010"]
    shutil.rmtree(root / "step-00000010")
    assert state.latest(root, "step") is None


def test_what_counts() -> None:
    causal = random_model("ForCausalLM", config_of("ForCausalLM"))
    masked = random_model("ForMaskedLM", CONFIG)
    labels = np.array([[5, 6, IGNORE], [7, IGNORE, IGNORE]])
    assert counted(masked, {"labels": labels}) == 3
    assert counted(causal, {"labels": labels}) == 1
    assert counted(masked, {"labels": np.zeros((3, 2))}) == 3
    span = {"input_ids": np.zeros((3, 4)), "start_positions": [0, 3, 4], "end_positions": [0, 3, 4]}
    assert counted(masked, span) == 2
    with pytest.raises(InputError, match="the data's collate gave no labels, only input_ids"):
        counted(masked, {"input_ids": labels})


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the data holds no example"):
        trained(tmp_path, data=Rows(count=0))
