"""The tasks of `npprelnorm predict`: what each asks for, and how it shows its answers."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from .common import UsageError, add_truncate_argument, positive_int, printable, table

MAX_CONTEXT_BYTES = 1 << 20


class Task(ABC):
    """What one task asks for and how it answers: from arguments and lines to records."""

    name: ClassVar[str]  # the pipeline's
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]
    fields: ClassVar[str]
    examples: ClassVar[str]
    text: ClassVar[str]  # the field that a plain line, or TEXT, stands for
    what: ClassVar[str]

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    @staticmethod
    @abstractmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the task's own options."""

    @abstractmethod
    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """The task's fields out of a line's; `InputError` where one is missing or wrong."""

    @abstractmethod
    def records(self, pipe: Any, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What ``--json`` prints for each example."""

    @abstractmethod
    def for_people(self, records: list[dict[str, Any]]) -> str:
        """The same as tables."""


class TextClassification(Task):
    """text-classification."""

    name = "text-classification"
    aliases = ("classification",)
    summary = "the label of each text, or of each pair of texts"
    fields = """\
Fields of a JSON line:
  text       the text
  text_pair  the second text of a pair, if the model was trained on pairs

JSON answers: {"text": ..., "labels": [{"label": ..., "score": ...}, ...]}"""
    examples = """\
examples:
  npprelnorm predict text-classification --model ./sentiment "What a day!" "Oh dear."
  npprelnorm predict text-classification --model ./entails "It rains." --pair "The street is wet." --top-k 3
  npprelnorm predict text-classification --model ./sentiment --json --file new.jsonl > answers.jsonl"""
    text = "text"
    what = "text to classify"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the task's own options."""
        parser.add_argument("--pair", metavar="TEXT2", help="the second text of a pair, beside each TEXT or plain line")
        parser.add_argument(
            "--top-k",
            type=positive_int,
            metavar="K",
            help="how many labels, best first (default: the best; all, of a model for several labels at once)",
        )
        parser.add_argument(
            "--function",
            choices=["softmax", "sigmoid", "none"],
            help="what makes scores of the model's logits (default: what it was trained for)",
        )
        add_truncate_argument(parser)

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """`text`, and `text_pair` if there is one."""
        example = {"text": _string(values, "text")}
        if values.get("text_pair") is not None:
            example["text_pair"] = _string(values, "text_pair")
        elif self.args.pair is not None:
            example["text_pair"] = self.args.pair
        return example

    def records(self, pipe: Any, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Labels of each text."""
        several = pipe.model.config.problem_type in ("multi_label_classification", "regression")
        top_k = self.args.top_k or (None if several else 1)
        options = {"function_to_apply": self.args.function, "truncation": self.args.truncate}
        labels = pipe(examples, top_k=top_k, **options)
        return [example | {"labels": one} for example, one in zip(examples, labels, strict=True)]

    def for_people(self, records: list[dict[str, Any]]) -> str:
        """One line a text, or with several labels a table a text."""
        if all(len(record["labels"]) == 1 for record in records):
            rows = [
                [f"{record['labels'][0]['score']:.4f}", record["labels"][0]["label"], _shown(record)]
                for record in records
            ]
            return table(rows, right=(0,))
        return "".join(
            _titled(_shown(record), [[f"  {label['score']:.4f}", label["label"]] for label in record["labels"]], (0,))
            for record in records
        )


class TokenClassification(Task):
    """token-classification."""

    name = "token-classification"
    summary = "the labels of the words of each text, such as named entities"
    fields = """\
Fields of a JSON line:
  text       the text
  tokens     instead: a list of words, which are joined by spaces

JSON answers: {"text": ..., "entities": [{"entity_group": ..., "score": ..., "word": ..., "start": ..., "end": ...},
...]}; with --aggregation none "entity" and "index" (of the token) in place of "entity_group". start and end count the
characters of the text from 0."""
    examples = """\
examples:
  npprelnorm predict token-classification --model ./ner "Anna lives in Oslo."
  npprelnorm predict token-classification --model ./ner --stride 32 --json --file letters.txt"""
    text = "text"
    what = "text whose words to label"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the task's own options."""
        parser.add_argument(
            "--aggregation",
            choices=["none", "simple", "first", "average", "max"],
            default="first",
            help="none: each token by itself; simple: neighbouring tokens of one label together; first, average, max: "
            "so too, after the tokens of a word (between spaces) have agreed on the label of the first, of the mean, "
            "or of the surest (default: first, which is what `npprelnorm train` teaches)",
        )
        parser.add_argument(
            "--ignore-labels",
            nargs="*",
            default=["O"],
            metavar="LABEL",
            help="leave these out (after TEXT; default: O)",
        )
        parser.add_argument(
            "--stride",
            type=_natural,
            metavar="N",
            help="read texts that are too long for the model in windows that share N tokens",
        )
        add_truncate_argument(parser)

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        if args.stride is not None and args.aggregation == "none":
            raise UsageError("--stride needs an --aggregation other than none")
        if args.stride is not None and args.truncate:
            raise UsageError("give --stride, which reads the whole text, or --truncate, which cuts it, not both")

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """`text`, perhaps made of `tokens`."""
        if values.get("text") is None and values.get("tokens") is not None:
            return {"text": " ".join(_strings(values, "tokens"))}
        return {"text": _string(values, "text")}

    def records(self, pipe: Any, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Tokens or groups of each text."""
        found = pipe(
            [example["text"] for example in examples],
            aggregation_strategy=self.args.aggregation,
            ignore_labels=self.args.ignore_labels,
            stride=self.args.stride,
            truncation=self.args.truncate,
        )
        return [example | {"entities": one} for example, one in zip(examples, found, strict=True)]

    def for_people(self, records: list[dict[str, Any]]) -> str:
        """A table a text."""
        parts = []
        for record in records:
            rows = [
                [
                    f"  {entity['score']:.4f}",
                    entity.get("entity_group", entity.get("entity")),
                    f"{entity['start']}-{entity['end']}",
                    record["text"][entity["start"] : entity["end"]].strip(),
                ]
                for entity in record["entities"]
            ]
            parts.append(_titled(record["text"], rows or [["  nothing but ignored labels"]], (2,) if rows else ()))
        return "".join(parts)


class QuestionAnswering(Task):
    """question-answering."""

    name = "question-answering"
    summary = "the part of a context that answers each question"
    fields = """\
Fields of a JSON line:
  question   the question
  context    the text that holds the answer (default: --context)

JSON answers: {"question": ..., "answers": [{"score": ..., "start": ..., "end": ..., "answer": ...}, ...]}; start and
end count the characters of the context from 0. A long context is read in windows."""
    examples = """\
examples:
  npprelnorm predict question-answering --model ./qa "Who lost it?" --context "Anna lost her book."
  npprelnorm predict question-answering --model ./qa --json --file questions.jsonl --top-k 3 --impossible"""
    text = "question"
    what = "question"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the task's own options."""
        parser.add_argument("--context", metavar="TEXT", help="the text that holds the answers")
        parser.add_argument("--context-file", metavar="F", help="the same from a file, UTF-8")
        parser.add_argument("--top-k", type=positive_int, default=1, metavar="K", help="how many answers (default: 1)")
        parser.add_argument(
            "--max-answer-len", type=positive_int, default=15, metavar="N", help="most tokens of one (default: 15)"
        )
        parser.add_argument(
            "--max-seq-len",
            type=positive_int,
            metavar="N",
            help="tokens of a window, the question included (default: what the model takes, at most 384)",
        )
        parser.add_argument(
            "--doc-stride",
            type=_natural,
            metavar="N",
            help="tokens that two windows share (default: half a window, at most 128)",
        )
        parser.add_argument("--impossible", action="store_true", help='let "no answer", an empty one, take part')
        parser.add_argument("--no-align", action="store_true", help="do not widen answers to whole words")

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        if args.context is not None and args.context_file is not None:
            raise UsageError("give --context or --context-file, not both")
        self.context = args.context
        if args.context_file is not None:
            self.context = _read_context(Path(args.context_file))
        if args.texts and self.context is None:
            raise UsageError("a question needs --context TEXT or --context-file F: the text that holds the answer")

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """`question` and `context`."""
        if values.get("context") is None and self.context is not None:
            values = values | {"context": self.context}
        return {"question": _string(values, "question"), "context": _string(values, "context", "--context")}

    def records(self, pipe: Any, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers to each question."""
        found = pipe(
            examples,
            top_k=self.args.top_k,
            max_answer_len=self.args.max_answer_len,
            max_seq_len=self.args.max_seq_len,
            doc_stride=self.args.doc_stride,
            handle_impossible_answer=self.args.impossible,
            align_to_words=not self.args.no_align,
        )
        return [
            {"question": example["question"], "answers": [one] if isinstance(one, dict) else one}
            for example, one in zip(examples, found, strict=True)
        ]

    def for_people(self, records: list[dict[str, Any]]) -> str:
        """A table a question."""
        parts = []
        for record in records:
            rows = [
                [
                    f"  {one['score']:.4f}",
                    f"{one['start']}-{one['end']}",
                    one["answer"].strip() if one["end"] else "(no answer)",
                ]
                for one in record["answers"]
            ]
            parts.append(_titled(record["question"], rows, (1,)))
        return "".join(parts)


class MultipleChoice(Task):
    """multiple-choice."""

    name = "multiple-choice"
    summary = "which of several choices goes best with each prompt"
    fields = """\
Fields of a JSON line:
  prompt     the text that every choice is put after
  choices    a list of texts (default: --choices)

JSON answers: {"prompt": ..., "choices": [{"index": ..., "choice": ..., "score": ...}, ...]}, best first; index counts
the choices from 0 as they were given."""
    examples = """\
examples:
  npprelnorm predict multiple-choice --model ./choices "The dog" --choices barks purrs moos
  npprelnorm predict multiple-choice --model ./choices --json --file new.jsonl"""
    text = "prompt"
    what = "prompt"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the task's own options."""
        parser.add_argument("--choices", nargs="+", metavar="CHOICE", help="what to choose from (after TEXT)")
        add_truncate_argument(parser)

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        if args.texts and args.choices is None:
            raise UsageError("a prompt needs --choices CHOICE CHOICE ..., after it")

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """`prompt` and `choices`."""
        if values.get("choices") is None and self.args.choices is not None:
            values = values | {"choices": self.args.choices}
        return {"prompt": _string(values, "prompt"), "choices": _strings(values, "choices", "--choices")}

    def records(self, pipe: Any, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Ranked choices of each prompt."""
        ranked = pipe(examples, truncation=self.args.truncate)
        return [{"prompt": example["prompt"], "choices": one} for example, one in zip(examples, ranked, strict=True)]

    def for_people(self, records: list[dict[str, Any]]) -> str:
        """A table a prompt."""
        return "".join(
            _titled(record["prompt"], [[f"  {one['score']:.4f}", one["choice"]] for one in record["choices"]])
            for record in records
        )


def _get(values: dict[str, Any], name: str, option: str | None) -> Any:
    if values.get(name) is None:
        have = ", ".join(map(repr, values)) or "nothing"
        instead = f", or give {option}" if option else ""
        raise InputError(f"the field {name!r} is missing (there is {have:.80}); add it{instead}")
    return values[name]


def _string(values: dict[str, Any], name: str, option: str | None = None) -> str:
    value = _get(values, name, option)
    if not isinstance(value, str):
        raise InputError(f"{name} is {value!r:.80}, not a string; put it in quotes")
    return value


def _strings(values: dict[str, Any], name: str, option: str | None = None) -> list[str]:
    value = _get(values, name, option)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise InputError(f"{name} is {value!r:.80}; give a list of strings")
    return value


def _natural(text: str) -> int:
    """argparse type: an integer of at least 0."""
    return 0 if text == "0" else positive_int(text)


def _read_context(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONTEXT_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; --context-file needs a text file") from None
    if len(data) > MAX_CONTEXT_BYTES:
        raise InputError(f"{path} is longer than {MAX_CONTEXT_BYTES} bytes; give the part that holds the answer")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert the file") from None


def _shown(record: dict[str, Any]) -> str:
    """A text, or a pair, as a table shows it: not too long."""
    parts = [record["text"], record["text_pair"]] if "text_pair" in record else [record["text"]]
    return " | ".join(part if len(part) <= 80 else part[:77] + "..." for part in parts)


def _titled(title: str, rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A line, the table below it, and an empty line."""
    return f"{printable(title, keep='')}\n{table(rows, right=right)}\n"
