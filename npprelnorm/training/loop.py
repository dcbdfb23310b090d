"""The training loop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, TrainingError
from ..files import write_text
from ..heads import IGNORE
from ..model import BodyModel
from ..params import Params
from . import state
from .batches import epoch_batches
from .optimizer import AdamW, clip_by_global_norm
from .schedules import SCHEDULES, factor

Inputs = dict[str, Any]


class TrainingData(Protocol):
    """What the loop trains on."""

    lengths: np.ndarray  # (N,), tokens of each example

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """The model's inputs, labels included, for these examples; all that is random comes from `rng`."""
        ...


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes
    ----------
    epochs : float
        Passes over the data; `steps` wins where both are given.
    steps : int, optional
        Optimizer steps.
    batch_size : int
        Examples in one forward.
    accumulate : int
        Forwards in one optimizer step; the step is that of one large batch.
    learning_rate : float
        The peak.
    schedule : {"linear", "cosine", "constant"}
    warmup : float
        Steps of warm-up; below 1, as a part of all steps.
    weight_decay, beta1, beta2, eps, max_grad_norm : float
        Of AdamW, and the global norm that gradients are clipped to (0: not clipped).
    dropout : bool
        Whether the configuration's dropout is on.
    frozen : tuple of str
        Patterns of parameters that stay as they are.
    recompute : bool
        Less memory for one more forward, see `BodyModel.loss_and_grads`.
    eval_every, save_every, log_every : int
        Steps between evaluations, checkpoints and log lines; 0: once an epoch, at the end of each.
    patience : int
        Evaluations without gain after which to stop; 0: never.
    seed : int
        Two runs with one seed, data and machine end in the same bits.
    """

    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    dropout: bool = True
    frozen: tuple[str, ...] = ()
    recompute: bool = False
    eval_every: int = 0
    save_every: int = 0
    log_every: int = 10
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed, rule in (
            ("epochs", self.epochs, 0 < self.epochs < math.inf, "above 0"),
            ("steps", self.steps, self.steps is None or self.steps > 0, "above 0, or None"),
            ("batch_size", self.batch_size, self.batch_size > 0, "above 0"),
            ("accumulate", self.accumulate, self.accumulate > 0, "above 0"),
            ("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "above 0"),
            ("schedule", self.schedule, self.schedule in SCHEDULES, ", ".join(SCHEDULES)),
            ("warmup", self.warmup, 0 <= self.warmup < math.inf, "0 or more"),
            ("max_grad_norm", self.max_grad_norm, 0 <= self.max_grad_norm < math.inf, "0 or more"),
            ("eval_every", self.eval_every, self.eval_every >= 0, "0 or more"),
            ("save_every", self.save_every, self.save_every >= 0, "0 or more"),
            ("log_every", self.log_every, self.log_every > 0, "above 0"),
            ("patience", self.patience, self.patience >= 0, "0 or more"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        ):
            if not allowed:
                raise InputError(f"{name} is {value!r}; allowed: {rule}")


def counted(inputs: Mapping[str, Any]) -> int:
    """How many labels of a batch count: the weight of its mean loss among others. One for each row where all do."""
    labels = inputs.get("labels", inputs.get("start_positions"))
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        return len(array)
    return int((array != IGNORE).sum())


class Trainer:
    """Trains a model in a folder, and takes up a run where a killed process left it.

    The folder gets ``metrics.jsonl`` (a line for each logged step and each evaluation) and ``checkpoints/``; the best
    model, or the last where nothing is evaluated, is in ``model`` when `run` returns.

    Parameters
    ----------
    model : BodyModel
        Trained in place; loaded arrays, which may be read-only, are copied first.
    data : TrainingData
    settings : TrainingSettings
    folder : path
    evaluate : callable, optional
        Takes the model, returns metrics by name.
    metric : str
        The metric that decides which model is best.
    greater_is_better : bool
    progress : callable, optional
        Called after each step with (step, total, loss): a progress bar.
    """

    def __init__(
        self,
        model: BodyModel,
        data: TrainingData,
        settings: TrainingSettings,
        folder: str | os.PathLike[str],
        *,
        evaluate: Callable[[Any], Mapping[str, float]] | None = None,
        metric: str = "loss",
        greater_is_better: bool = False,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> None:
        if not len(data.lengths):
            raise InputError("there is nothing to train on: the data holds no example")
        self.model, self.data, self.settings = model, data, settings
        self.folder = Path(folder)
        self.evaluate, self.metric, self.greater_is_better = evaluate, metric, greater_is_better
        self.report = progress
        model.params = {name: value.copy() for name, value in model.params.items()}
        self.optimizer = AdamW(
            model.params,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        per_step = settings.batch_size * settings.accumulate
        self.steps_per_epoch = math.ceil(len(data.lengths) / per_step)
        self.total = settings.steps or max(1, round(settings.epochs * self.steps_per_epoch))
        self.warmup = round(settings.warmup * self.total if settings.warmup < 1 else settings.warmup)
        self.progress = state.Progress(settings=_plain(settings))
        self._epoch_cache: tuple[int, list[np.ndarray]] | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    def run(self) -> state.Progress:
        """Train to the end, from the newest checkpoint if there is one.

        Raises
        ------
        TrainingError
            When the loss is not finite; the last good checkpoint stays.
        CheckpointMismatchError
            If the folder holds a run of another model or with other settings.
        """
        self._resume()
        every = self.settings
        while self.progress.step < self.total and not self.progress.finished:
            started = time.perf_counter()
            loss, norm, rate = self._step()
            self.progress.step = step = self.progress.step + 1
            if step % every.log_every == 0 or step == self.total:
                seconds = time.perf_counter() - started
                self._log({"step": step, "loss": loss, "grad_norm": norm, "learning_rate": rate, "seconds": seconds})
            if self.report:
                self.report(step, self.total, loss)
            if self.evaluate and (step % (every.eval_every or self.steps_per_epoch) == 0 or step == self.total):
                self._evaluate()
            if step % (every.save_every or self.steps_per_epoch) == 0 or step == self.total or self.progress.finished:
                state.save(self.checkpoints, "step", self.model, self.optimizer, self.progress)
        best = state.latest(self.checkpoints, "best")
        if best is not None and self.progress.best_step != self.progress.step:
            kept = type(self.model).from_pretrained(best, dtype=self.model.dtype.name)
            self.model.params = {name: value.copy() for name, value in kept.params.items()}
        return self.progress

    def _resume(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = state.latest(self.checkpoints, "step")
        if found is not None:
            own = self.progress.settings
            self.progress = state.restore(found, self.model, self.optimizer)
            changed = sorted(name for name in own if self.progress.settings.get(name) != own[name])
            if changed:
                name = changed[0]
                raise InputError(
                    f"{self.folder} holds a run with {name}={self.progress.settings.get(name)!r}, not {own[name]!r}; "
                    "continue it with the same settings, or start in an empty folder"
                )
        self._cut_log(self.progress.step)

    def _batches(self, step: int) -> list[np.ndarray]:
        """The index arrays of a step's forwards."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._epoch_cache is None or self._epoch_cache[0] != epoch:
            batches = epoch_batches(self.data.lengths, self.settings.batch_size, self.settings.seed, epoch)
            self._epoch_cache = (epoch, batches)
        size = self.settings.accumulate
        return self._epoch_cache[1][within * size : (within + 1) * size]

    def _step(self) -> tuple[float, float, float]:
        settings, step = self.settings, self.progress.step
        # every draw of a step comes from the seed and the step's number: nothing else has to be remembered
        rng = np.random.default_rng([settings.seed, 1, step])
        groups = self._batches(step)
        inputs = [self.data.collate(indices, rng) for indices in groups]
        weights = [counted(one) for one in inputs]
        everything = max(1, sum(weights))
        total: Params = {}
        loss = 0.0
        for indices, one, weight in zip(groups, inputs, weights, strict=True):
            if not weight:
                continue
            share = weight / everything
            dropout = int(rng.integers(1 << 62)) if settings.dropout else None
            with np.errstate(all="ignore"):  # found out below, with the name of the tensor
                output, grads = self.model.vjp(
                    {"loss": share}, rng=dropout, frozen=settings.frozen, recompute=settings.recompute, **one
                )
            value = float(output.loss)
            if not math.isfinite(value):
                raise self._failure("loss", value, indices, one)
            loss += value * share
            for name, gradient in grads.items():
                total[name] = total[name] + gradient if name in total else gradient
        norm = clip_by_global_norm(total, settings.max_grad_norm or math.inf)
        if not math.isfinite(norm):
            raise self._failure("gradient norm", norm, np.concatenate(groups), inputs[0])
        rate = settings.learning_rate * factor(settings.schedule, step, self.warmup, self.total)
        self.optimizer.step(self.model.params, total, rate)
        return loss, norm, rate

    def _failure(self, what: str, value: float, indices: np.ndarray, inputs: Inputs) -> TrainingError:
        examples = ", ".join(str(i) for i in indices[:8]) + (", ..." if len(indices) > 8 else "")
        return TrainingError(
            f"the {what} is {value} at step {self.progress.step + 1} (examples {examples}); first tensor with NaN or "
            f"infinity: {first_bad_tensor(self.model, inputs)}; the last good checkpoint is kept in "
            f"{self.checkpoints}; try a lower learning rate or more warm-up"
        )

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        metrics = dict(self.evaluate(self.model))
        self._log({"step": self.progress.step} | {f"eval_{name}": value for name, value in metrics.items()})
        value, best = metrics[self.metric], self.progress.best
        gain = best is None or (value > best if self.greater_is_better else value < best)
        if gain:
            self.progress.best, self.progress.best_step = value, self.progress.step
            self.progress.evaluations_without_gain = 0
            state.save(self.checkpoints, "best", self.model, None, self.progress)
        else:
            self.progress.evaluations_without_gain += 1
            patience = self.settings.patience
            self.progress.finished = bool(patience) and self.progress.evaluations_without_gain >= patience

    @property
    def log_path(self) -> Path:
        """The metrics log."""
        return self.folder / "metrics.jsonl"

    def _log(self, line: Mapping[str, Any]) -> None:
        with open(self.log_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _cut_log(self, step: int) -> None:
        """Drop what a killed process logged after its last checkpoint, half a line at the end included."""
        if self.log_path.exists():
            write_text(
                self.log_path, "".join(json.dumps(m) + "\n" for m in read_log(self.log_path) if m["step"] <= step)
            )


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The whole lines of a metrics log."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the process was killed while it wrote this line
    return lines


def first_bad_tensor(model: BodyModel, inputs: Mapping[str, Any]) -> str:
    """Name of the first parameter, hidden state or logits (in this order) that is not finite."""
    for name, value in model.params.items():
        if not np.isfinite(value).all():
            return name
    with np.errstate(all="ignore"):
        output = model(**inputs, output_hidden_states=True)
    names = [f"hidden_states[{i}]" for i in range(len(output.hidden_states))]
    fields: Sequence[tuple[str, Any]] = [*zip(names, output.hidden_states, strict=True), *output.items()]
    for name, value in fields:
        if isinstance(value, np.ndarray) and not np.isfinite(value).all():
            return name
    return "a gradient"


def _plain(settings: TrainingSettings) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    result: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return result
