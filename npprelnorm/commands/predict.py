"""`npprelnorm predict`: a trained model's answers on new texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import CheckpointFormatError, InputError
from ..files import parse_json
from . import embed, fill_mask
from .common import MODEL_HELP, add_text_arguments, add_weight_dtype_argument, answers, chunks, print_json, printable
from .predict_tasks import MultipleChoice, QuestionAnswering, Task, TextClassification, TokenClassification

SUMMARY = "use a trained model on new texts"
DESCRIPTION = """\
Use a model that was trained for a TASK, by `npprelnorm train` or elsewhere, on new texts.

Texts are arguments, or lines of a file. A file whose first line begins with { holds JSON Lines, one object a line with
the fields that `npprelnorm predict TASK --help` names; fields that are not asked for, such as labels, may be there, so
that a file for training will do. Any other file holds one text a line.

Answers are a table for people; with --json one JSON object a text, in order, or {..., "error": ...} for a text that
cannot be used. The other texts are answered all the same; the exit code is then 1."""
EXAMPLES = """\
examples:
  npprelnorm predict classification --model ./sentiment "What a day!"
  npprelnorm predict token-classification --model ./ner --json --file sentences.txt
  npprelnorm predict question-answering --model ./qa "Who found it?" --context-file story.txt --top-k 3
  npprelnorm predict multiple-choice --model ./choices "The dog" --choices barks purrs moos
  npprelnorm predict TASK --help"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tasks, each with arguments of its own."""
    parser.usage = "%(prog)s [-h] TASK --model PATH_OR_ID [options] TEXT ..."
    subparsers = parser.add_subparsers(title="tasks", metavar="TASK", prog=parser.prog, required=True)
    for task in (TextClassification, TokenClassification, QuestionAnswering, MultipleChoice):
        subparser = subparsers.add_parser(
            task.name,
            aliases=list(task.aliases),
            help=task.summary,
            description=f"Predict {task.summary}.\n\n{task.fields}",
            epilog=task.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_text_arguments(subparser, task.what)
        subparser.add_argument("--model", required=True, metavar="PATH_OR_ID", help=f"the trained model: {MODEL_HELP}")
        add_weight_dtype_argument(subparser)
        task.add_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print JSON Lines instead of tables")
        subparser.set_defaults(run=run, task=task, usage=subparser.format_usage)
    # these need no training of their own and have commands of their own, which are the same by another name
    for name, aliases, command in (("fill-mask", ["masked-lm"], fill_mask), ("feature-extraction", [], embed)):
        subparser = subparsers.add_parser(
            name,
            aliases=aliases,
            help=f"{command.SUMMARY} (as `npprelnorm {command.__name__.rpartition('.')[2].replace('_', '-')}`)",
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, usage=subparser.format_usage)


def run(args: argparse.Namespace) -> int:
    """Answer every text; 1 if one of them could not be used."""
    task: Task = args.task(args)
    groups = chunks(args)
    from ..pipelines import pipeline

    pipe = pipeline(task.name, model=args.model, weight_dtype=args.weight_dtype)
    failed = False
    for json_lines, group in _told_apart(groups, args.file is not None):

        def call(texts: list[str], json_lines: bool = json_lines) -> list[dict[str, Any]]:
            return task.records(pipe, [task.read(_values(text, task.text, json_lines)) for text in texts])

        good: list[dict[str, Any]] = []
        for (where, text), answer in zip(group, answers(call, group), strict=True):
            if isinstance(answer, Exception):
                failed = True
                sys.stderr.write(f"npprelnorm: error: {where}: {printable(str(answer))}\n")
                if args.json:
                    print_json({"line" if json_lines else task.text: text, "error": str(answer)})
            elif args.json:
                print_json(answer)
            else:
                good.append(answer)
        if good:
            sys.stdout.write(task.for_people(good))
        sys.stdout.flush()
    return 1 if failed else 0


def _told_apart(
    groups: Iterator[list[tuple[str, str]]], from_file: bool
) -> Iterator[tuple[bool, list[tuple[str, str]]]]:
    """Each group with whether it is JSON Lines, as the first line of a file that is not empty tells."""
    json_lines: bool | None = None if from_file else False
    for group in groups:
        if json_lines is None:
            first = next((text.lstrip() for _, text in group if text.strip()), "")
            json_lines = first.startswith("{")
        if json_lines:
            group = [(where, text) for where, text in group if text.strip()]
        if group:
            yield json_lines, group


def _values(text: str, name: str, json_lines: bool) -> dict[str, Any]:
    """The fields of a line; a plain one is the field `name`."""
    if not json_lines:
        return {name: text}
    try:
        return parse_json(text.encode("utf-8"), "it")
    except CheckpointFormatError as error:
        # the parser sees one line only, so that its own line number says nothing
        what = str(error).replace(" at line 1, column ", " at column ")
        raise InputError(f"{what}; as the first line, each must be one JSON object") from None
