"""Models of transformers beside ours, with the same numbers in them: for the tests marked `reference`.

Both are built from a draw of reference_configs. Importing this imports torch and transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import reference_configs
import torch
import transformers
from golden_files import assert_close, stacked_results
from reference_configs import Draw
from strategies import CLASSES, class_of

import npprelnorm as nl

TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
OUTPUTS = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")
INPUTS = ("inputs_embeds", "encoder_hidden_states")

Arrays = dict[str, np.ndarray]


def class_pair(head: str, model_type: str = "roberta-prelayernorm") -> tuple[Any, Any]:
    """Our class and theirs."""
    name = class_of(head, model_type).__name__
    return getattr(nl, name), getattr(transformers, name)


def config_pair(config: dict[str, Any], model_type: str = "roberta-prelayernorm") -> tuple[Any, Any]:
    """Our configuration and theirs."""
    name = CLASSES[model_type] + "Config"
    return getattr(nl, name)(**config), getattr(transformers, name)(**config, attn_implementation="eager")


def named_parameters(theirs: Any) -> dict[str, Any]:
    """Their parameters, tied ones once, under the names that their safetensors files use."""
    everything = dict(theirs.named_parameters(remove_duplicate=False))
    tied = theirs.config.tie_word_embeddings
    return {name: p for name, p in everything.items() if not (tied and ".decoder." in name)}


def parameters_of(theirs: Any) -> dict[str, np.ndarray]:
    """Copies of the numbers."""
    return {name: parameter.detach().numpy().copy() for name, parameter in named_parameters(theirs).items()}


def fill(theirs: Any, config: dict[str, Any], seed: int) -> None:
    """Give every parameter of their model the seeded weights."""
    shapes = {name: tuple(parameter.shape) for name, parameter in named_parameters(theirs).items()}
    values = reference_configs.weights(shapes, config, seed)
    with torch.no_grad():
        for name, parameter in named_parameters(theirs).items():
            parameter.copy_(torch.from_numpy(values[name]))


def model_pair(
    head: str, config: dict[str, Any], seed: int, dtype: str, model_type: str = "roberta-prelayernorm"
) -> tuple[Any, Any]:
    """Our model and theirs, with the same numbers in all parameters."""
    our_class, their_class = class_pair(head, model_type)
    our_config, their_config = config_pair(config, model_type)
    theirs = their_class(their_config)
    theirs = theirs.to(getattr(torch, dtype)).eval()
    fill(theirs, config, seed)
    ours = our_class.from_params(our_config, parameters_of(theirs), dtype=dtype)
    return ours, theirs


def call_theirs(theirs: Any, arguments: dict[str, Any], dtype: str, **more: Any) -> Any:
    """Their output, without gradients; floating arguments in the model's dtype."""
    tensors: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            if np.issubdtype(value.dtype, np.floating):
                # -inf is ours to read as the lowest number; a row of -inf alone would be NaN there
                value = np.maximum(value, np.finfo(dtype).min).astype(dtype)
            value = torch.from_numpy(np.ascontiguousarray(value))
        tensors[name] = value
    with torch.no_grad():
        return theirs(**tensors, **more)


def their_results(output: Any) -> dict[str, np.ndarray]:
    """Their output in the form of `stacked_results`; an empty tuple counts as absent."""
    results: dict[str, np.ndarray] = {}
    for name, value in output.items():
        if isinstance(value, tuple) and not value:
            continue
        if name == "past_key_values":
            own = getattr(value, "self_attention_cache", value)
            cross = getattr(value, "cross_attention_cache", None)
            for prefix, part in (("cache_", own), ("cache_cross_", cross)):
                if part is not None and len(part.layers) and part.layers[0].keys is not None:
                    results[f"{prefix}keys"] = torch.stack([layer.keys for layer in part.layers]).numpy()
                    results[f"{prefix}values"] = torch.stack([layer.values for layer in part.layers]).numpy()
        else:
            results[name] = (torch.stack(value) if isinstance(value, tuple) else value).numpy()
    return results


def compare(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    """All outputs alike."""
    our_results, expected = stacked_results(ours), their_results(theirs)
    assert our_results.keys() == expected.keys(), what
    for name, value in expected.items():
        assert_close(our_results[name], value, _tolerance(name, theirs, tolerance), f"{what}: {name}")


def _tolerance(name: str, theirs: Any, tolerance: float) -> float:
    """transformers computes a causal loss in float32 whatever the model's dtype."""
    in_float32 = name == "loss" and type(theirs).__name__.startswith("CausalLM")
    return max(tolerance, 2e-6) if in_float32 else tolerance


def _real(case: Draw, name: str) -> Any:
    """Where a packed result is theirs: where a mask of 2 axes is 1, if it is a result of tokens; else everywhere."""
    mask = case.arguments.get("attention_mask")
    of_tokens = {"last_hidden_state", "start_logits", "end_logits"}
    of_tokens |= {"logits"} if case.head in ("ForMaskedLM", "ForCausalLM", "ForTokenClassification") else set()
    if mask is None or mask.ndim != 2 or name not in of_tokens:
        return ...
    kept = case.arguments.get("logits_to_keep", 0)
    return mask[:, kept if isinstance(kept, np.ndarray) else slice(-kept, None)].astype(bool)


def check_draw(case: Draw) -> None:
    """All outputs with everything asked for; and the results alone, whole and packed, which kernels may compute."""
    ours, theirs = model_pair(case.head, case.config, case.seed, case.dtype, case.model_type)
    options = {"output_attentions": True, "output_hidden_states": True}
    our_output = ours(**case.arguments, **options)
    their_output = call_theirs(theirs, case.arguments, case.dtype, **options)
    compare(our_output, their_output, TOLERANCE[case.dtype], str(case))
    for name, value in stacked_results(our_output).items():
        assert value.dtype == case.dtype, f"{case}: {name} is {value.dtype}"
    expected = their_results(their_output)
    for packed in (False, True):
        alone = stacked_results(ours(**case.arguments, packed=packed))
        for name in alone.keys() & {"loss", *OUTPUTS}:
            read = _real(case, name) if packed else ...
            tolerance = _tolerance(name, their_output, TOLERANCE[case.dtype])
            assert_close(alone[name][read], expected[name][read], tolerance, f"{case}: {name} alone, packed {packed}")
    if case.head == "ForSequenceClassification":
        assert ours.config.problem_type == theirs.config.problem_type, str(case)


# ---- gradients


@dataclass(frozen=True)
class Task:
    """What to differentiate: the loss of labelled inputs, else a random combination of the outputs."""

    case: Draw
    cotangents: Arrays  # empty where there are labels

    def theirs(self, weights: Arrays, dtype: str) -> Arrays:
        """All gradients by torch's autograd, of the inputs that have one too."""
        return their_gradients(self.case, weights, dtype, self.cotangents)

    def ours(self, weights: Arrays, dtype: str) -> Arrays:
        config, _ = config_pair(self.case.config, self.case.model_type)
        params = self.case.arguments
        wanted = [name for name in INPUTS if name in params and (name == INPUTS[0] or config.is_decoder)]
        model = class_of(self.case.head, self.case.model_type).from_params(config, weights, dtype=dtype)
        if self.cotangents:
            return model.vjp(self.cotangents, input_grads=wanted, **params)[1]
        return model.loss_and_grads(input_grads=wanted, **params)[1]


def their_model(case: Draw, weights: Arrays | None, dtype: str) -> Any:
    _, their_class = class_pair(case.head, case.model_type)
    _, config = config_pair(case.config, case.model_type)
    model = their_class(config).to(getattr(torch, dtype)).eval()
    if weights is not None:
        with torch.no_grad():
            for name, parameter in named_parameters(model).items():
                parameter.copy_(torch.from_numpy(weights[name]))
    return model


def their_arguments(case: Draw, dtype: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name, value in case.arguments.items():
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "f":  # -inf is ours to read as the lowest number
                value = np.maximum(value, np.finfo(dtype).min).astype(dtype)
            value = torch.from_numpy(np.ascontiguousarray(value))
        arguments[name] = value.requires_grad_() if name in INPUTS else value
    return arguments


def causal_loss(logits: Any, arguments: dict[str, Any]) -> Any:
    """transformers computes this loss in float32, whatever the model is; here it is in the model's dtype."""
    labels = arguments.get("shift_labels")
    if labels is None:
        labels = torch.nn.functional.pad(arguments["labels"], (0, 1), value=-100)[:, 1:]
    items = arguments.get("num_items_in_batch")
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="mean" if items is None else "sum"
    )
    return loss if items is None else loss / items


def their_gradients(case: Draw, weights: Arrays, dtype: str, cotangents: Arrays) -> Arrays:
    model, arguments = their_model(case, weights, dtype), their_arguments(case, dtype)
    output = model(**arguments)
    if cotangents:
        total = sum((torch.from_numpy(c.astype(dtype)) * output[name]).sum() for name, c in cotangents.items())
    else:
        total = causal_loss(output.logits, arguments) if case.head == "ForCausalLM" else output.loss
    total.backward()
    gradients = {
        name: np.zeros(tuple(parameter.shape)) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in named_parameters(model).items()
    }
    return gradients | {
        n: arguments[n].grad.numpy() for n in INPUTS if n in arguments and arguments[n].grad is not None
    }


def task_of(case: Draw) -> tuple[Task, Arrays]:
    """The task of a draw, and the weights of its model in float64 (numbers that float32 holds exactly)."""
    model = their_model(case, None, "float64")
    shapes = {name: tuple(parameter.shape) for name, parameter in named_parameters(model).items()}
    weights = reference_configs.weights(shapes, case.config, case.seed)
    if {"labels", "start_positions"} & case.arguments.keys():
        return Task(case, {}), weights
    with torch.no_grad():
        output = model(**their_arguments(case, "float64"))
    rng = np.random.default_rng([5, case.seed])
    shapes = {name: tuple(output[name].shape) for name in OUTPUTS if output.get(name) is not None}
    return Task(case, {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}), weights


def scale_name(case: Draw, name: str) -> str:
    """The gradient whose norm a gradient's error is measured by: its own, unless its true value is 0.

    All scores of a query move together with the key bias, and a softmax ignores that; likewise all choices, or all
    tokens of an answer's ends, with the bias of their scores.
    """
    if name.endswith("self.key.bias"):
        return name.replace("key.bias", "query.bias")
    if case.head == "ForMultipleChoice" and name == "classifier.bias":
        return "classifier.weight"
    last = "LayerNorm.bias"
    if case.model_type != "roberta-prelayernorm":  # what comes last is the LayerNorm of the last layer
        last = f"encoder.layer.{case.config['num_hidden_layers'] - 1}.output.LayerNorm.bias"
    if case.head == "ForQuestionAnswering" and name.partition(".")[2] in ("bias", last):
        return name.replace("bias", "weight")
    return name
