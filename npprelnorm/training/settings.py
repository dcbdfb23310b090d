"""How to train: every number and switch of a run, checked."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .schedules import SCHEDULES


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

    Raises
    ------
    InputError
        For a value that is not allowed; the message names the setting, the value and what is allowed.
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
        for item in dataclasses.fields(self):
            self._check_type(item.name, str(item.type), getattr(self, item.name))
        for name, value, allowed, rule in (
            ("epochs", self.epochs, 0 < self.epochs < math.inf, "above 0"),
            ("steps", self.steps, self.steps is None or self.steps > 0, "above 0, or None"),
            ("batch_size", self.batch_size, self.batch_size > 0, "above 0"),
            ("accumulate", self.accumulate, self.accumulate > 0, "above 0"),
            ("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "above 0"),
            ("schedule", self.schedule, self.schedule in SCHEDULES, ", ".join(SCHEDULES)),
            ("warmup", self.warmup, 0 <= self.warmup < math.inf, "0 or more"),
            ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
            ("beta1", self.beta1, 0 <= self.beta1 < 1, "from 0 to below 1"),
            ("beta2", self.beta2, 0 <= self.beta2 < 1, "from 0 to below 1"),
            ("eps", self.eps, 0 < self.eps < math.inf, "above 0"),
            ("max_grad_norm", self.max_grad_norm, 0 <= self.max_grad_norm < math.inf, "0 or more"),
            ("eval_every", self.eval_every, self.eval_every >= 0, "0 or more"),
            ("save_every", self.save_every, self.save_every >= 0, "0 or more"),
            ("log_every", self.log_every, self.log_every >= 0, "0 or more"),
            ("patience", self.patience, self.patience >= 0, "0 or more"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        ):
            if not allowed:
                raise InputError(f"{name} is {value!r}; allowed: {rule}")

    @staticmethod
    def _check_type(name: str, annotation: str, value: Any) -> None:
        kind, _, optional = annotation.partition(" | ")
        if (optional and value is None) or (kind == "float" and type(value) is int):
            return
        if kind.startswith("tuple"):
            right = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        else:
            right = type(value).__name__ == kind  # a bool is no int here, and an int no bool
        if not right:
            from ..arguments import shown  # which loads NumPy; the help of commands reads the settings without

            expected = re.sub(r"\[.*", " of str", annotation)
            raise InputError(f"{name} is {shown(value)}; it must be of type {expected}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return result
