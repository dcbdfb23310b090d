"""`npprelnorm train`: fine-tune a model from labelled files."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, NpprelnormError
from ..training.catalog import TASKS, task_class
from ..training.settings import TrainingSettings
from .common import UsageError, add_model_argument, folder_of, positive_int, printable, say_which_model, table
from .training_options import Progress, add_settings_arguments, run_to_the_end, settings_of

if TYPE_CHECKING:
    from ..model import BodyModel
    from ..training.tasks.base import Task

SUMMARY = "fine-tune a model from labelled files"


def _fields() -> str:
    parts = []
    for name, entry in TASKS.items():
        parts.append(f"{name}: {entry.summary}")
        parts += [f"  {field:<10} {what}" for field, what in entry.fields.items()]
    return "\n".join(parts)


DESCRIPTION = f"""\
Fine-tune a model for a TASK from labelled examples, on the CPU, and write a folder that from_pretrained of this package
and of transformers both load.

Files are JSON Lines (one object a line), or CSV if the name ends in .csv (.tsv: with tabs); UTF-8. What a line holds:

{_fields()}

DIR gets config.json, model.safetensors, the tokenizer, metrics.json (of the model that was kept: the best on --eval,
or the last without it), metrics.jsonl (a log, one JSON object a line) and training.json (what was asked for). A run
that was killed or interrupted goes on from its last checkpoint when the same command is given again, and ends with
the same parameters."""
EXAMPLES = """\
examples:
  npprelnorm train classification --train train.jsonl --eval dev.jsonl --out ./sentiment
  npprelnorm train token-classification --train train.csv --eval dev.csv --model ./my-checkpoint --out ./ner --epochs 5
  npprelnorm train classification --train train.jsonl --out ./head-only --freeze "roberta_prelayernorm.*"
  npprelnorm train masked-lm --train lines.jsonl --eval held-out.jsonl --out ./adapted --mask-rate 0.4 --whole-words"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    parser.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--train", required=True, metavar="FILE", help="the examples to learn from")
    parser.add_argument("--eval", metavar="FILE", help="the examples to judge by; the best model is kept")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder, or that of the same run")
    add_model_argument(parser)
    parser.add_argument("--max-length", type=positive_int, metavar="N", help="tokens of a row (default: the model's)")
    parser.add_argument(
        "--problem-type",
        choices=("single_label_classification", "multi_label_classification", "regression"),
        help="of classification (default: told by the labels)",
    )
    masking = parser.add_argument_group("masked-lm")
    masking.add_argument("--mask-rate", type=float, default=0.4, metavar="P", help="part that is masked (default: 0.4)")
    masking.add_argument("--mask-strategy", choices=("mask", "80-10-10"), default="mask", help="(default: mask)")
    masking.add_argument("--whole-words", action="store_true", help="mask whole words")
    add_settings_arguments(parser, TrainingSettings())
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(default: %(default)s)")
    parser.add_argument("--plot", action="store_true", help="draw loss.png (needs npprelnorm[plot])")


def run(args: argparse.Namespace) -> int:
    """Train, write the folder, print the metrics."""
    settings = settings_of(args)
    if args.patience and not args.eval:
        raise UsageError("--patience is about evaluations; give --eval FILE")
    if args.plot:
        from ..figures import figure_class

        figure_class()  # fails now rather than after the training
    from ..training import folder
    from ..training.tasks.base import TaskOptions

    try:
        options = TaskOptions(args.max_length, args.problem_type, args.mask_rate, args.mask_strategy, args.whole_words)
    except InputError as error:
        raise UsageError(str(error)) from None
    task = task_class(args.task)(args.train, args.eval, options)
    out = Path(args.out)
    request = {
        "task": args.task,
        "train": {"file": args.train, "sha256": folder.digest(args.train)},
        "eval": {"file": args.eval, "sha256": folder.digest(args.eval)} if args.eval else None,
        "model": args.model,
        "dtype": args.dtype,
        "options": dataclasses.asdict(options),
        "settings": settings.to_dict(),
    }
    if folder.claim(out, request):
        sys.stderr.write(f"npprelnorm: {printable(str(out))} is finished already; nothing to do\n")
        folder.clean(out)
    else:
        say_which_model(args.model)
        try:
            _train(args, task, settings, out)
        except KeyboardInterrupt:
            sys.stderr.write("npprelnorm: interrupted; the same command goes on from the last checkpoint\n")
            raise
        except NpprelnormError:
            folder.unclaim(out)  # such as a model that is not there
            raise
    metrics = folder.result(out)
    if args.plot:
        from ..training.plot import plot_loss

        unit = "mean squared error" if metrics["problem_type"] == "regression" else "nats a label"
        plot_loss(out / "metrics.jsonl", out / "loss.png", unit=unit)
    sys.stdout.write(_for_people(metrics) + f"written: {printable(str(out))}\n")
    return 0


def load_for(task: Task, model: str | Path, *, dtype: str, seed: int) -> BodyModel:
    """The model of a task from a checkpoint: its labels in the configuration, its head drawn fresh where it must be."""
    from ..auto import AutoConfig, load_as

    config = AutoConfig.from_pretrained(model)
    changes = task.config_changes(config)
    count = len(changes["id2label"]) if "id2label" in changes else changes.get("num_labels", config.num_labels)
    return load_as(
        task.model_class,
        model,
        dtype=dtype,
        rng=seed,
        # a head for another number of labels is of no use; anything else that does not fit is an error
        ignore_mismatched_sizes=count != config.num_labels,
        **changes,
    )


def _train(args: argparse.Namespace, task: Task, settings: TrainingSettings, out: Path) -> None:
    from ..assets import embedded_model_path
    from ..tokenizer import Tokenizer
    from ..training import folder
    from ..training.loop import Trainer

    source = embedded_model_path() if args.model is None else folder_of(args.model)
    tokenizer = Tokenizer.from_pretrained(source)
    model = load_for(task, source, dtype=args.dtype, seed=settings.seed)
    data = task.data(0, tokenizer, model.config)
    progress = Progress()
    trainer = Trainer(
        model,
        data,
        settings,
        out,
        evaluate=progress.telling(task.evaluator(tokenizer, model.config)) if args.eval else None,
        metric=task.metric,
        greater_is_better=task.greater_is_better,
        progress=progress.step,
    )
    sys.stderr.write(
        f"npprelnorm: {len(data.lengths)} examples, {int(data.lengths.sum())} tokens, {trainer.total} steps\n"
    )
    metrics = run_to_the_end(trainer, progress) | {
        "task": args.task,
        "problem_type": model.config.problem_type,
        "metric": task.metric if args.eval else None,
        "train_examples": len(data.lengths),
    }
    folder.finish(out, model, tokenizer, metrics)


def _for_people(metrics: Mapping[str, Any]) -> str:
    rows = [["task", metrics["task"]], ["steps", str(metrics["steps"])], ["kept step", str(metrics["kept_step"])]]
    rows += [[f"eval {name}", f"{value:.4f}"] for name, value in metrics["eval"].items()]
    return table(rows)
