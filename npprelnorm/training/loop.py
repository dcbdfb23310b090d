"""The training loop."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import backend
from ..errors import InputError, TrainingError
from ..files import write_text
from ..gradients import frozen_names
from ..heads import IGNORE
from ..language_models import RobertaPreLayerNormForCausalLM
from ..model import BodyModel
from ..params import Params
from . import state
from .batches import epoch_batches
from .optimizer import AdamW, clip_by_global_norm, global_norm
from .schedules import factor
from .settings import TrainingSettings

Inputs = dict[str, Any]


class TrainingData(Protocol):
    """What the loop trains on."""

    lengths: np.ndarray  # (N,), tokens of each example

    def collate(self, indices: np.ndarray, rng: np.random.Generator) -> Inputs:
        """The model's inputs, labels included, for these examples; all that is random comes from `rng`."""
        ...


def counted(model: BodyModel, inputs: Mapping[str, Any]) -> int:
    """How many labels of a batch count: the weight of its mean loss among others. One for each row where all do.

    Raises
    ------
    InputError
        If there are no labels.
    """
    if inputs.get("start_positions") is not None:
        tokens = np.shape(inputs["input_ids"])[-1]
        return int((np.asarray(inputs["start_positions"]) < tokens).sum())
    if inputs.get("labels") is None:
        raise InputError(f"the data's collate gave no labels, only {', '.join(inputs)}; there is nothing to learn")
    labels = np.asarray(inputs["labels"])
    if labels.dtype.kind not in "iu":
        return len(labels)
    if isinstance(model, RobertaPreLayerNormForCausalLM):
        labels = labels[:, 1:]  # no token predicts the first
    return int((labels != IGNORE).sum())


class Trainer:
    """Trains a model in a folder, and takes up a run where a killed process left it.

    The folder gets ``metrics.jsonl`` and ``checkpoints/``; the best model, or the last where nothing is evaluated, is
    in ``model`` when `run` returns. Lines of the log have ``step`` and either ``loss`` (mean over the steps since the
    line before), ``grad_norm`` (before clipping), ``learning_rate`` and ``seconds`` (of this step), or the metrics of
    an evaluation as ``eval_...``.

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

    Raises
    ------
    InputError
        If there is no example, nothing to train, or a frozen pattern that matches no parameter.
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
        frozen = frozen_names(model.params, settings.frozen)
        if len(frozen) == len(model.params):
            raise InputError(f"frozen is {settings.frozen!r}, which freezes every parameter; there is nothing to train")
        self.optimizer = AdamW(
            {name: value for name, value in model.params.items() if name not in frozen},
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        per_step = settings.batch_size * settings.accumulate
        self.steps_per_epoch = math.ceil(len(data.lengths) / per_step)
        self.total = settings.steps or max(1, round(settings.epochs * self.steps_per_epoch))
        self.warmup = round(settings.warmup * self.total if settings.warmup < 1 else settings.warmup)
        self.progress = state.Progress(settings=settings.to_dict(), data=fingerprint(data))
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
        self.folder.mkdir(parents=True, exist_ok=True)
        with state.alone(self.folder), backend.settled(self._work()):
            self._resume()
            while self.progress.step < self.total and not self.progress.finished:
                self._advance()
            best = state.latest(self.checkpoints, "best")
            if best is not None and self.progress.best_step != self.progress.step:
                kept = type(self.model).from_pretrained(best, dtype=self.model.dtype.name)
                self.model.params = {name: value.copy() for name, value in kept.params.items()}
        return self.progress

    def _work(self) -> float:
        """Floating-point operations of the whole run: 2 in the forward and 4 in the backward for each weight and token.

        The embeddings do not count: a lookup is no work, and of the vocabulary's scores only labelled tokens have some.
        """
        weights = sum(value.size for name, value in self.model.params.items() if ".layer." in name)
        rows = self.total * self.settings.batch_size * self.settings.accumulate
        return 6.0 * weights * rows * float(np.mean(self.data.lengths))

    def _advance(self) -> None:
        """One step, and what is due after it."""
        every, progress = self.settings, self.progress
        started = time.perf_counter()
        loss, norm, rate = self._step()
        progress.step = step = progress.step + 1
        progress.loss_sum += loss
        progress.loss_steps += 1
        if step % (every.log_every or self.steps_per_epoch) == 0 or step == self.total:
            mean, seconds = progress.loss_sum / progress.loss_steps, time.perf_counter() - started
            self._log({"step": step, "loss": mean, "grad_norm": norm, "learning_rate": rate, "seconds": seconds})
            progress.loss_sum, progress.loss_steps = 0.0, 0
        if self.report:
            self.report(step, self.total, loss)
        if self.evaluate and (step % (every.eval_every or self.steps_per_epoch) == 0 or step == self.total):
            self._require_finite()
            self._evaluate()
        if step % (every.save_every or self.steps_per_epoch) == 0 or step == self.total or progress.finished:
            self._require_finite()
            state.save(self.checkpoints, "step", self.model, self.optimizer, progress)

    def _resume(self) -> None:
        found = state.latest(self.checkpoints, "step")
        if found is not None:
            own = self.progress
            self.progress = state.restore(found, self.model, self.optimizer)
            changed = sorted(name for name in own.settings if self.progress.settings.get(name) != own.settings[name])
            if changed:
                name = changed[0]
                raise InputError(
                    f"{self.folder} holds a run with {name}={self.progress.settings.get(name)!r}, not "
                    f"{own.settings[name]!r}; continue it with the same settings, or start in an empty folder"
                )
            if self.progress.data != own.data:
                raise InputError(
                    f"{self.folder} holds a run on other examples; continue it with the same data, or start in an "
                    "empty folder"
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
        weights = [counted(self.model, one) for one in inputs]
        everything = max(1, sum(weights))
        total: Params = {}
        loss = 0.0
        for number, (one, weight) in enumerate(zip(inputs, weights, strict=True)):
            if not weight:
                continue
            share = weight / everything
            dropout = int(rng.integers(1 << 62)) if settings.dropout else None
            with np.errstate(all="ignore"):  # found out below, with the name of the tensor
                output, grads = self.model.vjp(
                    {"loss": share},
                    rng=dropout,
                    frozen=settings.frozen,
                    recompute=settings.recompute,
                    packed=True,  # padding costs nothing then
                    **one,
                )
                size = global_norm(grads)
            value = float(output.loss)
            if not math.isfinite(value):
                raise self._failure("loss", value, number, groups, one, grads)
            if not math.isfinite(size):
                raise self._failure("gradient norm", size, number, groups, one, grads)
            loss += value * share
            for name, gradient in grads.items():
                total[name] = total[name] + gradient if name in total else gradient
        norm = clip_by_global_norm(total, settings.max_grad_norm or math.inf)
        rate = settings.learning_rate * factor(settings.schedule, step, self.warmup, self.total)
        with np.errstate(all="ignore"):  # found out before the next checkpoint
            self.optimizer.step(self.model.params, total, rate)
        return loss, norm, rate

    def _require_finite(self) -> None:
        """Keep parameters that are of no use from replacing a good checkpoint."""
        bad = _not_finite(self.model.params)
        if bad:
            raise TrainingError(
                f"step {self.progress.step} left NaN or infinity in {bad}; the last good checkpoint is kept in "
                f"{self.checkpoints}; try a lower learning rate or more warm-up"
            )

    def _failure(
        self, what: str, value: float, number: int, groups: list[np.ndarray], inputs: Inputs, grads: Params
    ) -> TrainingError:
        indices = groups[number]
        examples = ", ".join(str(i) for i in indices[:8]) + (", ..." if len(indices) > 8 else "")
        gradient = _not_finite(grads)
        first = first_bad_tensor(self.model, inputs) or (
            f"the gradient of {gradient}" if gradient else "none, but a square of the gradients overflows"
        )
        return TrainingError(
            f"the {what} is {value} at step {self.progress.step + 1}, batch {number + 1} of {len(groups)} (examples "
            f"{examples}); first tensor with NaN or infinity: {first}; the last good checkpoint is kept in "
            f"{self.checkpoints}; try a lower learning rate or more warm-up"
        )

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        with np.errstate(all="ignore"):  # found out below
            metrics = {name: float(value) for name, value in self.evaluate(self.model).items()}
        if self.metric not in metrics:
            raise InputError(f"metric is {self.metric!r}, but the evaluation gives only {', '.join(metrics)}")
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the evaluation after step {self.progress.step} gives {name} = {value}; the last good checkpoint "
                    f"is kept in {self.checkpoints}; try a lower learning rate or more warm-up"
                )
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
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def _cut_log(self, step: int) -> None:
        """Drop what a killed process logged after its last checkpoint, half a line at the end included."""
        if self.log_path.exists():
            kept = [line for line in read_log(self.log_path) if line["step"] <= step]
            write_text(self.log_path, "".join(json.dumps(line) + "\n" for line in kept))


def fingerprint(data: TrainingData) -> str:
    """What tells one data set from another: a digest of the examples' number and lengths."""
    return hashlib.sha256(np.ascontiguousarray(data.lengths, "<i8").tobytes()).hexdigest()


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The whole lines of a metrics log.

    Raises
    ------
    InputError
        If it is no metrics log.
    """
    lines: list[dict[str, Any]] = []
    for text in Path(path).read_bytes().split(b"\n")[:-1]:  # what has no line end is half a line of a killed process
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            raise InputError(f"{path}, line {len(lines) + 1} is no line of a metrics log; remove the file")
        lines.append(line)
    return lines


def _not_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    # a sum is a cheaper first look than isfinite of every element: it is not finite if any of them is not
    for name, value in arrays.items():
        with np.errstate(all="ignore"):
            total = float(value.sum())
        if not math.isfinite(total) and not np.isfinite(value).all():
            return name
    return None


def first_bad_tensor(model: BodyModel, inputs: Mapping[str, Any]) -> str | None:
    """Name of the first parameter, hidden state or output (in this order) that is not finite, if any is not."""
    bad = _not_finite(model.params)
    if bad:
        return bad
    with np.errstate(all="ignore"):
        output = model(**inputs, output_hidden_states=True, return_dict=True)
    states = {f"hidden_states[{index}]": value for index, value in enumerate(output.hidden_states)}
    fields = {name: value for name, value in output.items() if isinstance(value, np.ndarray)}
    fields["loss"] = fields.pop("loss")  # it comes last
    return _not_finite(states | fields)
