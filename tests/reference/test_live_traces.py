"""Traces of random tiny models beside those that transformers' own hooks give, and where a bug first shows."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_configs
from reference_configs import HEADS, Draw, draw
from strategies import class_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

import npprelnorm as nl  # noqa: E402
from npprelnorm.inspect import Trace, TraceComparison, compare_traces, trace  # noqa: E402

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore::npprelnorm.errors.NpprelnormWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

MODELS = {"roberta-prelayernorm": 30, "roberta": 10, "bert": 10}  # of each class

_tool = importlib.util.spec_from_file_location(
    "trace_transformers", Path(__file__).parents[2] / "tools" / "trace_transformers.py"
)
tool = importlib.util.module_from_spec(_tool)
_tool.loader.exec_module(tool)


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    yield
    torch.set_num_threads(threads)


def pair(case: Draw, model_type: str = "roberta-prelayernorm") -> tuple[Any, Any]:
    """Our model and theirs, with the same random numbers in all parameters."""
    our_class = class_of(case.head, model_type)
    their_class = getattr(transformers, our_class.__name__)
    theirs = their_class(their_class.config_class(**case.config, attn_implementation="eager"))
    theirs = theirs.to(getattr(torch, case.dtype)).eval()
    shapes = {key: tuple(parameter.shape) for key, parameter in theirs.named_parameters()}
    weights = reference_configs.weights(shapes, case.config, case.seed)
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            parameter.copy_(torch.from_numpy(weights[key]))
    return our_class.from_params(our_class.config_class(**case.config), weights, dtype=case.dtype), theirs


def their_trace(theirs: Any, case: Draw) -> Trace:
    tensors = {}
    for name, value in case.arguments.items():
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "f":  # -inf is ours to read as the lowest number
                value = np.maximum(value, np.finfo(case.dtype).min).astype(case.dtype)
            value = torch.from_numpy(np.ascontiguousarray(value))
        tensors[name] = value
    return tool.trace_transformers(theirs, tensors)


def difference(comparison: TraceComparison, case: Draw) -> str | None:
    """The first step that differs. Causal losses do not count: transformers computes them in float32 always."""
    wrong = [step.name for step in comparison.steps if not step.ok]
    if case.head == "ForCausalLM" and wrong == ["loss"]:
        return None
    return wrong[0] if wrong else None


@pytest.mark.parametrize("model_type", ["roberta-prelayernorm", "roberta", "bert"])
@pytest.mark.parametrize("head", HEADS)
def test_every_step_is_theirs(head: str, model_type: str) -> None:
    for seed in range(MODELS[model_type]):
        case = draw(head, seed)
        ours, theirs = pair(case, model_type)
        comparison = compare_traces(trace(ours, **case.arguments), their_trace(theirs, case))
        assert difference(comparison, case) is None, f"{case}: {comparison}"
        # nothing goes unseen on either side
        assert comparison.only_first == comparison.only_second == (), f"{case}: {comparison}"


def test_the_step_of_an_altered_weight_is_where_they_first_differ() -> None:
    """One number of one of their parameters is moved; the comparison must name the step that uses it."""
    found: Counter[str] = Counter()
    for seed in range(60):
        case = draw("ForMaskedLM", seed)
        ours, theirs = pair(case)
        rng = np.random.default_rng(seed)
        parameters = {
            name: parameter for name, parameter in theirs.named_parameters() if not name.endswith("embeddings.weight")
        }
        name = sorted(parameters)[int(rng.integers(len(parameters)))]
        flat = parameters[name].detach().reshape(-1)
        flat[int(rng.integers(len(flat)))] += 1.0
        step = name.removeprefix("roberta_prelayernorm.").rpartition(".")[0]
        expected = "logits" if step in ("lm_head", "lm_head.decoder") else step
        comparison = compare_traces(trace(ours, **case.arguments), their_trace(theirs, case))
        assert difference(comparison, case) == expected, f"{case}, {name}: {comparison}"
        found[expected.rpartition(".")[2]] += 1
    assert {"query", "value", "dense", "LayerNorm"} <= set(found)


def test_the_tool_compares_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(tmp_path / name) for name in ("theirs.safetensors", "ours.json")]
    text = "The capital of France is <mask>."
    monkeypatch.setattr(
        "sys.argv", ["tool", str(nl.embedded_model_path()), text, "--out", files[0], "--ours", files[1]]
    )
    assert tool.main() == 0
    theirs, ours = (Trace.load(path) for path in files)
    assert capsys.readouterr().out == f"all {len(theirs)} common steps agree\n"
    assert theirs["logits"].value is not None
    assert compare_traces(ours, theirs).first_difference is None
