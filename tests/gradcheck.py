"""Checks of a backward that know nothing of how it is written.

A backward takes a cotangent (the gradient of some scalar by the output) and gives the gradient of that scalar by each
argument. Here the cotangent is random, and the slope of the scalar is measured by a central difference in one random
direction over everything at once: a single number that any mistake anywhere moves. (A cotangent of ones would not do:
the gradient of a softmax or a LayerNorm is then 0, and a backward that does nothing passes.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from strategies import random_ids, random_model, tiny_config

from npprelnorm.gradients import INPUT_GRADIENTS

STEP = 1e-6
# times the norm of the gradient; correct code comes to about 1e-8 of it, a gelu' off by 0.01 % to 4e-5
TOLERANCE = 1e-6

Arrays = Mapping[str, np.ndarray]


def norm(arrays: Arrays) -> float:
    """Euclidean norm of all numbers together."""
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values())))


def random_direction(values: Arrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A random direction over all arrays."""
    return {name: rng.standard_normal(value.shape) for name, value in values.items()}


def assert_slope(
    scalar: Callable[[dict[str, np.ndarray]], float], values: Arrays, gradients: Arrays, direction: Arrays
) -> None:
    """The gradients' share in `direction` is the slope of `scalar` there. All in float64."""
    assert gradients.keys() == values.keys() == direction.keys()
    for name, value in values.items():
        assert value.dtype == gradients[name].dtype == np.float64, name
        assert gradients[name].shape == value.shape, name
    ahead, behind = ({n: v + step * direction[n] for n, v in values.items()} for step in (STEP, -STEP))
    numeric = (scalar(ahead) - scalar(behind)) / (2 * STEP)
    exact = sum(float((gradients[name] * direction[name]).sum()) for name in values)
    size = norm(gradients)
    assert size > 0, "no gradient at all: nothing would be checked"
    assert abs(numeric - exact) <= TOLERANCE * size, f"slope {numeric}, by the gradients {exact}, norm {size}"


Forward = Callable[..., tuple[np.ndarray, Any]]
Backward = Callable[[np.ndarray, Any], Any]


def as_tuple(gradients: Any) -> tuple[np.ndarray, ...]:
    """The gradients of a backward with one or several of them."""
    return (gradients,) if isinstance(gradients, np.ndarray) else tuple(gradients)


def check_backward(f: Forward, f_backward: Backward, arguments: Sequence[np.ndarray], seed: int) -> None:
    """All that any op's backward must keep to, at `arguments` (float64), which are all it differentiates by.

    It is the slope; it is linear in dy; it writes to no argument, to no dy and not to its cache; and each gradient has
    its argument's shape and dtype.
    """
    rng = np.random.default_rng(seed)
    frozen = [np.array(argument) for argument in arguments]
    for argument in frozen:
        argument.flags.writeable = False
    y, cache = f(*frozen)
    dy, other = (np.asarray(rng.standard_normal(y.shape)) for _ in range(2))
    dy.flags.writeable = other.flags.writeable = False
    gradients = as_tuple(f_backward(dy, cache))
    assert len(gradients) == len(frozen)

    names = [str(number) for number in range(len(frozen))]
    assert_slope(
        lambda values: float((f(*values.values())[0] * dy).sum()),
        dict(zip(names, frozen, strict=True)),
        dict(zip(names, gradients, strict=True)),
        random_direction(dict(zip(names, frozen, strict=True)), rng),
    )

    for again, gradient in zip(as_tuple(f_backward(dy, cache)), gradients, strict=True):
        assert np.array_equal(again, gradient), "a second backward differs: the first wrote to its cache"
    a, b = rng.standard_normal(2)
    others, sums = (as_tuple(f_backward(d, cache)) for d in (other, a * dy + b * other))
    for from_other, from_dy, from_sum in zip(others, gradients, sums, strict=True):
        scale = max(float(np.abs(from_dy).max(initial=0)), float(np.abs(from_other).max(initial=0)), 1e-300)
        bent = np.abs(a * from_dy + b * from_other - from_sum).max(initial=0)
        assert bent <= 1e-12 * max(1.0, abs(a) + abs(b)) * scale, "not linear in dy"


# ---------------------------------------------------------------- whole models

BATCH, TOKENS, SOURCE, CHOICES = 2, 6, 4, 3
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
CROSS = {"is_decoder": True, "add_cross_attention": True}
# as tiny_config, but with other numbers of everything, so that no two axes can be mistaken for each other
SHAPE = {"vocab_size": 19, "num_labels": 2, "hidden_size": 12, "max_position_embeddings": 15}
HEAD_MASK = {"head_mask": np.array([[1.0, 0.25, -0.5], [0.0, 2.0, 1.0]])}
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3, "classifier_dropout": 0.4}


def labels_for(head: str, config: Any, shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Labels that a class takes, some of them ignored where it has such."""
    batch, tokens = shape[0], shape[-1]
    if head in ("ForMaskedLM", "ForCausalLM", "ForTokenClassification"):
        classes = config.num_labels if head == "ForTokenClassification" else config.vocab_size
        labels = rng.integers(0, classes, shape)
        labels[rng.random(shape) < 0.3] = -100
        labels[0, -1] = 0
        return {"labels": labels}
    if head == "ForQuestionAnswering":  # the second answer begins before the text, and ends after it
        return {"start_positions": np.array([tokens - 1, -5])[:batch], "end_positions": np.array([0, 99])[:batch]}
    if head == "ForMultipleChoice":
        return {"labels": rng.integers(0, shape[1], batch)}
    if head == "ForSequenceClassification":
        if config.problem_type == "single_label_classification":
            return {"labels": rng.integers(0, config.num_labels, batch)}
        return {"labels": rng.random((batch, config.num_labels))}
    return {}


def inputs_for(head: str, config: Any, seed: int = 0, *, padding: str | None = "right", **more: Any) -> dict[str, Any]:
    """Ids, the mask of their padding and labels; `more` is added to them (None takes one away)."""
    rng = np.random.default_rng([3, seed])
    shape = (BATCH, CHOICES, TOKENS) if head == "ForMultipleChoice" else (BATCH, TOKENS)
    ids = random_ids(config, shape, seed)
    if padding:
        where = {"right": slice(TOKENS - 2, None), "left": slice(2), "interior": slice(2, 4)}[padding]
        ids[-1, ..., where] = config.pad_token_id
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": (ids != config.pad_token_id).astype(np.int64)}
    if config.add_cross_attention:
        rows = BATCH * CHOICES if head == "ForMultipleChoice" else BATCH
        inputs["encoder_hidden_states"] = rng.standard_normal((rows, SOURCE, config.hidden_size))
        inputs["encoder_attention_mask"] = np.resize([[1, 1, 1, 1], [0, 1, 1, 0]], (rows, SOURCE))
    inputs |= labels_for(head, config, shape, rng) | more
    return {name: value for name, value in inputs.items() if value is not None}


def model_and_inputs(head: str, seed: int = 0, *, dtype: str = "float64", given: Any = None, **config: Any) -> Any:
    if head == "ForCausalLM":
        config = {"is_decoder": True} | config
    if head == "ForSequenceClassification":
        config = {"problem_type": "single_label_classification", "num_labels": 5} | config
    model = random_model(head, tiny_config(**(SHAPE | config)), seed, dtype)
    return model, inputs_for(head, model.config, seed, **(given or {}))


def gradients_of(model: Any, inputs: dict[str, Any], **options: Any) -> dict[str, np.ndarray]:
    """Gradients of the loss, or where there is none of a fixed combination of the outputs."""
    if {"labels", "start_positions"} & inputs.keys():
        return model.loss_and_grads(**inputs, **options)[1]

    def fixed(output: Any) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(6)
        return {name: rng.standard_normal(output[name].shape) for name in model.differentiable if name in output}

    return model.vjp(fixed, **inputs, **options)[1]


FROZEN_OUT = ["*"]  # a forward alone, with the dropout of training


def check_model(model: Any, inputs: dict[str, Any], *, seed: int = 0, rng: int | None = None) -> None:
    """All gradients that there are, by parameter and by input, of a random combination of all outputs.

    The combination is of the loss too where there are labels, so its backward is in the sum.
    """
    draws = np.random.default_rng([4, seed])
    wanted = [name for name in INPUT_GRADIENTS if name in inputs]
    cotangents: dict[str, np.ndarray] = {}

    def random_cotangents(output: Any) -> dict[str, np.ndarray]:
        for name in model.differentiable:
            if name in output:
                cotangents[name] = np.asarray(draws.standard_normal(output[name].shape))
        return cotangents

    for array in [*model.params.values(), *(value for value in inputs.values() if isinstance(value, np.ndarray))]:
        array.flags.writeable = False
    _, ours = model.vjp(random_cotangents, rng=rng, input_grads=wanted, **inputs)
    assert ours.keys() == model.params.keys() | set(wanted)
    values = model.params | {name: inputs[name] for name in wanted}
    direction = random_direction(values, draws)
    # a look-up gives the padding row no gradient, so it is not to move where it is looked up
    pad = model.config.pad_token_id
    if pad in np.asarray(inputs.get("input_ids", pad)) or pad in np.asarray(inputs.get("position_ids", -1)):
        for table, padding in (("word", pad), ("position", model.config.position_padding_id)):
            for name in values:
                if name.endswith(f"{table}_embeddings.weight") and padding is not None:
                    direction[name][padding] = 0.0

    def scalar(values: dict[str, np.ndarray]) -> float:
        params = {name: values[name] for name in model.params}
        moved = type(model).from_params(model.config, params, dtype="float64")
        given = inputs | {name: values[name] for name in wanted}
        output = moved(**given) if rng is None else moved.vjp(cotangents, rng=rng, frozen=FROZEN_OUT, **given)[0]
        return float(sum((output[name] * cotangent).sum() for name, cotangent in cotangents.items()))

    assert_slope(scalar, values, ours, direction)
