"""Tiny models of every task, with a tokenizer of their own: the same bits in every NumPy, nothing trained or stored.

Nothing here depends on the embedded model, so that golden answers stay right when that one is replaced.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import npprelnorm as nl

WORDS = """
the The a A dog cat bird found lost book garden Anna Tom Paris Oslo lives in is was near by river and but not
Who What Where who what where it her his of to with very happy sad house red green unbelievable answer question
""".split()  # noqa: SIM905
HARD = [
    "\U0001f600",
    "na\u00efve",
    "\u4e16\u754c",
    "e\u0301",
    "<unk>",
    "Microsoft's",
    "co-op",
    "3.14",
    "O'Neil,",
    "\u00a0x",
]
LABELS = {
    "text-classification": ["sad", "glad", "angry", "calm"],
    "token-classification": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"],
}
CLASSES = {
    "text-classification": nl.RobertaPreLayerNormForSequenceClassification,
    "token-classification": nl.RobertaPreLayerNormForTokenClassification,
    "question-answering": nl.RobertaPreLayerNormForQuestionAnswering,
    "multiple-choice": nl.RobertaPreLayerNormForMultipleChoice,
}
MAX_TOKENS = 64


def byte_letters() -> list[str]:
    """What byte-level BPE spells the bytes 0 to 255 with: printable ones as themselves, the rest from U+0100 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]


@functools.cache
def tokenizer() -> nl.Tokenizer:
    """Byte-level BPE that knows WORDS, with a space before them, and all their beginnings."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        spelled = "\u0120" + word
        merges.update({(spelled[:end], spelled[end]): None for end in range(1, len(spelled))})
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *byte_letters(), *("".join(pair) for pair in merges), "<mask>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {token: number for number, token in enumerate(tokens)}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = {"model_max_length": MAX_TOKENS, "tokenizer_class": "RobertaTokenizer"}
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return nl.Tokenizer.from_pretrained(folder)


def model(task: str, *, dtype: str = "float32", **changes: Any) -> Any:
    """A model of two layers; weights large enough for answers that differ from text to text."""
    labels = {"id2label": dict(enumerate(LABELS[task]))} if task in LABELS else {}
    config = nl.RobertaPreLayerNormConfig(
        **{
            "vocab_size": len(tokenizer()),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": MAX_TOKENS + 2,
            **labels,
            **changes,
        }
    )
    kind = CLASSES[task]
    source = np.random.RandomState(31)  # the one generator that promises the same numbers in every NumPy
    params = {}
    shapes = kind.shapes(config, pooler=task == "multiple-choice")
    for name in sorted(shapes):
        scale = 0.1 if name.endswith("bias") else 0.5 if name.startswith(("classifier", "qa_outputs")) else 0.25
        params[name] = (source.standard_normal(shapes[name]) * scale).astype(np.float32)
        if name.endswith("LayerNorm.weight"):
            params[name] += 1
    return kind.from_params(config, params, dtype=dtype)


def task_pipeline(task: str, *, max_batch_tokens: int = 2048, dtype: str = "float32", **changes: Any) -> Any:
    """Our pipeline around `model`."""
    return nl.pipeline(task, model(task, dtype=dtype, **changes), tokenizer(), max_batch_tokens=max_batch_tokens)


def save(task: str, folder: Path, **changes: Any) -> str:
    """Write model and tokenizer into a folder, as `npprelnorm train` would, and return its name."""
    model(task, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def sentence(source: random.Random, least: int = 1, most: int = 14) -> str:
    """Known and unknown words, hard characters, and spaces where nobody expects them."""
    parts = []
    for _ in range(source.randint(least, most)):
        draw = source.random()
        word = source.choice(WORDS)
        if draw < 0.12:
            word = source.choice(HARD)
        elif draw < 0.3:
            word = "".join(source.choices("abcdeimnorst", k=source.randint(2, 9)))
        parts.append(word + source.choice(["", "", "", "", ".", ",", "?", "'s"]))
        parts.append(source.choice([" "] * 12 + ["  ", "\n", "\t", " - "]))
    text = "".join(parts[:-1])
    return source.choice(["", "", "", " ", "  ", "\n"]) + text + source.choice(["", "", "", " ", "\n"])


def sentences(seed: int, count: int, least: int = 1, most: int = 14) -> list[str]:
    """The same `count` sentences for the same seed."""
    source = random.Random(seed)
    return [sentence(source, least, most) for _ in range(count)]


def assert_same(ours: Any, expected: Any, tolerance: float = 1e-5, place: str = "") -> None:
    """Equal but for scores, which are equal to `tolerance`; what is a list, a dict or a number is so in both.

    transformers decodes the words of a group twice, which spoils letters beyond ASCII: such words are not compared.
    """
    assert isinstance(ours, list) == isinstance(expected, list), place
    if isinstance(expected, list):
        assert len(ours) == len(expected), f"{place}: {ours} {expected}"
        for index, (a, b) in enumerate(zip(ours, expected, strict=True)):
            assert_same(a, b, tolerance, f"{place}[{index}]")
    else:
        assert ours.keys() == expected.keys(), place
        close = tolerance * max(1.0, abs(expected["score"]))  # probabilities, but logits too
        assert abs(ours["score"] - expected["score"]) <= close, f"{place}: {ours} {expected}"
        free = {"score": 0} | ({"word": ""} if "\ufffd" in expected.get("word", "") else {})
        assert {**ours, **free} == {**expected, **free}, f"{place}: {ours} {expected}"


def far_apart(ranked: list[dict[str, Any]], relative: float = 1e-3) -> bool:
    """Whether no two scores are so close that rounding could exchange them."""
    scores = sorted((one["score"] for one in ranked), reverse=True)
    return all(b < (1 - relative) * a for a, b in itertools.pairwise(scores))


def golden(task: str) -> list[tuple[dict[str, Any], list[Any], list[Any]]]:
    """(options, inputs, transformers' answers) of a task, as tools/make_task_pipelines_golden.py wrote them."""
    path = Path(__file__).parent / "text" / "golden" / "task_pipelines.json"
    found = [case for case in json.loads(path.read_text(encoding="ascii"))["cases"] if case["task"] == task]
    return [(case["options"], *map(list, zip(*case["answers"], strict=True))) for case in found]


def cases(seed: int, count: int) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """(task, options of the call, inputs) for golden answers and live comparisons alike."""
    texts = ["", " ", "\n", "a", "\U0001f600 \u4e16\u754c dog", *sentences(seed, count - 5)]
    # transformers' pipeline takes a pair with an empty second text for one text; its tokenizer, in a batch, does not
    pairs = [{"text": a, "text_pair": b or "a"} for a, b in zip(texts, reversed(texts), strict=True)]
    long = [" ".join(sentences(seed + 1 + index, 10)) for index in range(max(count // 4, 2))]
    questions = [
        {"question": question, "context": context}
        for question, context in zip(sentences(seed + 2, count, 1, 3), sentences(seed + 3, count, 2, 40), strict=True)
        if question.strip() and context.strip()
    ]
    result: list[tuple[str, dict[str, Any], list[Any]]] = [
        ("text-classification", {"truncation": True}, texts),
        ("text-classification", {"truncation": True, "top_k": None}, pairs),
        ("text-classification", {"truncation": True, "top_k": 2, "function_to_apply": "sigmoid"}, texts),
        ("text-classification", {"truncation": True, "top_k": 9, "function_to_apply": "none"}, pairs),
        ("token-classification", {"ignore_labels": []}, texts),
    ]
    for strategy in ("simple", "first", "average", "max"):
        result.append(("token-classification", {"aggregation_strategy": strategy}, texts))
        result.append(("token-classification", {"aggregation_strategy": strategy, "stride": 12}, long))
    result.append(("token-classification", {"aggregation_strategy": "simple", "ignore_labels": ["PER", "MISC"]}, texts))
    for options in (
        {},
        {"top_k": 3},
        {"top_k": 4, "handle_impossible_answer": True},
        {"top_k": 3, "align_to_words": False},
        {"top_k": 2, "max_answer_len": 3},
        {"max_seq_len": 48, "doc_stride": 5, "top_k": 2},
    ):
        result.append(("question-answering", options, questions))
    return result
