"""What commands that train share: the settings as options, and a progress bar."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..training.schedules import SCHEDULES
from ..training.settings import TrainingSettings
from .common import UsageError

if TYPE_CHECKING:
    from ..training.loop import Trainer

# setting -> what it is, as --help says it
NUMBERS: dict[str, str] = {
    "epochs": "passes over the data",
    "steps": "optimizer steps, instead of --epochs",
    "batch_size": "examples in one forward",
    "accumulate": "forwards in one optimizer step",
    "learning_rate": "the peak",
    "warmup": "steps in which the learning rate rises to its peak; below 1: as a part of all steps",
    "weight_decay": "of AdamW, on matrices only",
    "beta1": "of AdamW",
    "beta2": "of AdamW",
    "eps": "of AdamW",
    "max_grad_norm": "clip gradients to this global norm; 0: do not",
    "eval_every": "steps between evaluations; 0: once an epoch",
    "save_every": "steps between checkpoints; 0: once an epoch",
    "log_every": "steps between lines of the log; 0: once an epoch",
    "patience": "stop after so many evaluations without gain; 0: never",
    "seed": "of everything that is random; the same seed gives the same model, bit for bit",
}


def add_settings_arguments(parser: argparse.ArgumentParser, defaults: TrainingSettings) -> None:
    """Add an option for every field of `TrainingSettings`."""
    how = parser.add_argument_group("how to train")
    kinds = {item.name: int if str(item.type).startswith("int") else float for item in dataclasses.fields(defaults)}
    for name, what in NUMBERS.items():
        default = getattr(defaults, name)
        said = "" if default is None else f" (default: {default:g})"
        how.add_argument(
            "--" + name.replace("_", "-"), type=kinds[name], default=default, metavar="N", help=what + said
        )
    how.add_argument("--schedule", choices=SCHEDULES, default=defaults.schedule, help="(default: %(default)s)")
    how.add_argument("--no-dropout", action="store_true", help="switch the configuration's dropout off")
    how.add_argument("--recompute", action="store_true", help="less memory for one more forward a step")
    how.add_argument(
        "--freeze", nargs="+", default=[], metavar="PATTERN", help='parameters that stay, such as "*.layer.0.*"'
    )


def settings_of(args: argparse.Namespace) -> TrainingSettings:
    """The settings that the options say."""
    try:
        return TrainingSettings(
            **{name: getattr(args, name) for name in NUMBERS},
            schedule=args.schedule,
            dropout=not args.no_dropout,
            recompute=args.recompute,
            frozen=tuple(args.freeze),
        )
    except InputError as error:
        raise UsageError(str(error)) from None


class Progress:
    """A bar on a terminal, and a line for each evaluation; both on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._step = 0

    def step(self, step: int, total: int, loss: float) -> None:
        """After each step."""
        self._step = step
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]  # tokenizers' hub client needs it too

            self._bar = tqdm(total=total, initial=step - 1, unit="step", file=sys.stderr)
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def telling(self, evaluate: Callable[[Any], Mapping[str, float]]) -> Callable[[Any], Mapping[str, float]]:
        """`evaluate`, which also says what it found."""

        def told(model: Any) -> Mapping[str, float]:
            metrics = evaluate(model)
            line = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            text = f"npprelnorm: step {self._step}: {line}"
            if self._bar is None:
                sys.stderr.write(text + "\n")
            else:
                self._bar.write(text, file=sys.stderr)
            return metrics

        return told

    def close(self) -> None:
        """Leave the last state of the bar on the terminal."""
        if self._bar is not None:
            self._bar.close()


def run_to_the_end(trainer: Trainer, progress: Progress) -> dict[str, Any]:
    """Train to the end, and tell what every metrics.json has: the steps, and the evaluation of what was kept."""
    from .. import __version__
    from ..training.loop import read_log

    try:
        reached = trainer.run()
    finally:
        progress.close()
    step = reached.best_step or reached.step
    evaluations = [line for line in read_log(trainer.log_path) if line["step"] == step and "eval_loss" in line]
    return {
        "npprelnorm": __version__,
        "steps": reached.step,
        "kept_step": step,
        "eval": {name[5:]: value for line in evaluations[-1:] for name, value in line.items() if name != "step"},
    }
