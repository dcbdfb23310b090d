"""What is measured. A shape such as 8x128 is rows x tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# what an engine is asked for: the five best tokens of each text's mask, class scores, a step of masked-LM training, the
# rows that greedy search makes of prompts, or the five best tokens after a text whose keys and values are kept
TASKS = ("fill-mask", "classify", "train", "generate", "next-token")

SIZES: dict[str, dict[str, int]] = {
    "toy": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "small": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}

SAME = 1e-4  # largest difference of float32 results, relative to the largest value
SIMILAR = 0.05  # of losses under dropout, whose random numbers no two engines share


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes
    ----------
    name : str
        What the command line and the results file call it.
    measure : {"time", "cold", "memory"}
        Seconds of a call in a warm process; seconds from the start of a process to its first answer; or the peak of
        that process's memory.
    lengths : tuple of int
        Tokens of each row, special tokens included; shorter rows are padded.
    options : mapping
        Further arguments of the engine's function for this task.
    tolerance : float
        How far an answer may be from the reference's, relative to its largest value.
    """

    name: str
    title: str
    task: str
    size: str
    lengths: tuple[int, ...]
    measure: str = "time"
    group: str = "main"
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = SAME

    @property
    def calls(self) -> int:
        """Calls whose answers are compared: of training the first losses, of which only the first needs no update.

        The second step has gradients and the optimizer's state in memory at once; no later one needs more.
        """
        return {"time": 3}.get(self.measure, 2) if self.task == "train" else 1


def workloads(*, quick: bool = False) -> list[Workload]:
    """All of them, the optional ones (group "growth") last; `quick` has the same rows of a toy model."""
    size, rows, long = ("toy", 2, 24) if quick else ("base", 8, 128)
    full = 48 if quick else 512
    shape = f"{rows}x{long}"
    batch = (long,) * rows
    ragged = tuple(range(4, 20, 4)) if quick else _ragged(16, 8, 256)
    prompt, new = (4, 6) if quick else (8, 64)
    more = {"new_tokens": new}
    spread = f"{len(ragged)} rows of {min(ragged)} to {max(ragged)} tokens"
    result = [
        Workload("fill-mask-1x12", "fill-mask, 1x12", "fill-mask", size, (12,)),
        Workload("classify-1x12", "classify, 1x12", "classify", size, (12,)),
        Workload(f"classify-1x{full}", f"classify, 1x{full}", "classify", size, (full,)),
        Workload(f"classify-{shape}", f"classify, {shape}", "classify", size, batch),
        Workload(f"fill-mask-{shape}", f"fill-mask, {shape}, a mask in each row", "fill-mask", size, batch),
        Workload("classify-ragged", f"classify, {spread}, padded", "classify", size, ragged),
        Workload(
            "generate", f"generate {new} tokens after {prompt}, greedy", "generate", size, (prompt,), options=more
        ),
        Workload("cold-start", "cold start: process to first fill-mask, 1x12", "fill-mask", size, (12,), "cold"),
        Workload("cold-memory", "peak private memory of that", "fill-mask", size, (12,), "memory"),
    ]
    for name, note, options, tolerance in (
        ("train", "", {}, SAME),
        ("train-dropout", ", dropout 0.1", {"dropout": 0.1}, SIMILAR),
    ):
        title = f"training step, {shape}{note}"
        result.append(Workload(f"{name}-{shape}", title, "train", size, batch, "time", "training", options, tolerance))
    for name, note, recompute in (("train-memory", "", False), ("train-memory-recompute", ", layers recomputed", True)):
        title = f"peak private memory of training, {shape}{note}"
        result.append(Workload(name, title, "train", size, batch, "memory", "training", {"recompute": recompute}))
    return result + _growth(quick)


def _ragged(rows: int, shortest: int, longest: int) -> tuple[int, ...]:
    """Lengths in even steps, long and short ones mixed as they come in practice."""
    lengths = [shortest + round(i * (longest - shortest) / (rows - 1)) for i in range(rows)]
    return tuple(lengths[i * 5 % rows] for i in range(rows))  # 5 and 16 have no common factor: each comes once


def _growth(quick: bool) -> list[Workload]:
    """How the cost of `classify` grows with length, batch and model size, and that of a token with its position."""
    positions = (3, 40) if quick else (5, 100, 400)
    sizes = ("toy",) if quick else ("small", "base", "large")
    size = "toy" if quick else "base"
    lengths = (8, 16) if quick else (16, 32, 64, 128, 256, 512)
    batches = (1, 2) if quick else (1, 2, 4, 8, 16, 32)
    result = [
        Workload(f"growth-length-{n}", f"by length: 1x{n}", "classify", size, (n,), group="growth") for n in lengths
    ]
    result += [
        Workload(f"growth-batch-{n}", f"by batch: {n}x32", "classify", size, (32,) * n, group="growth") for n in batches
    ]
    result += [
        Workload(f"growth-position-{n}", f"by position: token {n}, cached", "next-token", size, (n,), group="growth")
        for n in positions
    ]
    for name in sizes:
        shape = "{num_hidden_layers} layers x {hidden_size}".format(**SIZES[name])
        title = f"by model: {name} ({shape}), 1x64"
        result.append(Workload(f"growth-model-{name}", title, "classify", name, (64,), group="growth"))
    return result
