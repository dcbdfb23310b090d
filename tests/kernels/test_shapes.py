"""Arrays of a wrong size never reach a kernel, which works on addresses: an error says which, as NumPy's would."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_calls import random
from strategies import random_model, tiny_config

import npprelnorm as nl
from npprelnorm.errors import InputError
from npprelnorm.kernels.adamw import adamw
from npprelnorm.kernels.dots import few_rows_linear, linear_top_k
from npprelnorm.kernels.linear import linear
from npprelnorm.kernels.normalization import layer_norm

BODY = "roberta_prelayernorm."
WRONG = [
    (f"{BODY}encoder.layer.0.attention.self.query.weight", (3, 3), "query.weight has shape (3, 3); expected (12, 12)"),
    (f"{BODY}encoder.layer.1.attention.self.value.bias", (24,), "value.bias has shape (24,); expected (12,)"),
    (f"{BODY}encoder.layer.1.intermediate.dense.weight", (12, 17), "dense.weight has shape (12, 17); expected (17, 12"),
    (f"{BODY}encoder.layer.0.intermediate.LayerNorm.weight", (2,), "LayerNorm.weight has shape (2,); expected (12,)"),
    (f"{BODY}LayerNorm.bias", (1, 12), "LayerNorm.bias has shape (1, 12); expected (12,)"),
    (f"{BODY}embeddings.LayerNorm.weight", (3,), "the weight of a LayerNorm has shape (3,); expected (12,)"),
    ("lm_head.dense.weight", (12,), "the weight of a linear map has shape (12,); expected (outputs, 12)"),
    ("lm_head.dense.bias", (3,), "the bias of a linear map has shape (3,); expected (12,)"),
    ("lm_head.layer_norm.bias", (13,), "the bias of a LayerNorm has shape (13,); expected (12,)"),
    ("lm_head.bias", (22,), "the bias of a linear map has shape (22,); expected (23,)"),
]


@pytest.mark.parametrize(("name", "shape", "message"), WRONG, ids=[name for name, *_ in WRONG])
@pytest.mark.parametrize("locked", [False, True])
def test_a_replaced_parameter(name: str, shape: tuple[int, ...], message: str, locked: bool) -> None:
    model = random_model("ForMaskedLM", tiny_config(), dtype="float32")
    for array in model.params.values():
        array.flags.writeable = not locked
    with nl.use_backend("numba"):
        model([[0, 5, 6, 2]])  # what is known of the right ones must not serve the wrong one
        assert model.params[name].shape != shape
        model.params[name] = np.ones(shape, np.float32)
        model.params[name].flags.writeable = not locked
        with pytest.raises(InputError) as error:
            model([[0, 5, 6, 2]])
    assert message in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("hidden_size", 24), ("intermediate_size", 40)])
def test_a_changed_configuration(field: str, value: int) -> None:
    model = random_model("Model", tiny_config(), dtype="float32")
    for array in model.params.values():
        array.flags.writeable = False
    with nl.use_backend("numba"):
        model([[0, 5, 6, 2]])
        setattr(model.config, field, value)
        with pytest.raises(InputError, match=r"has shape .* expected"):
            model([[0, 5, 6, 2]])


def test_the_kernels_themselves() -> None:
    x, weight, bias = random(0, 2, 8), random(1, 5, 8), random(2, 5)
    for twin in (few_rows_linear, linear):
        assert twin(x, weight, bias)[0].shape == (2, 5)
        for wrong in ((random(1, 5, 7), bias), (random(1, 5, 9), bias), (weight[0], bias), (weight, random(2, 4))):
            with pytest.raises(InputError, match=r"of a linear map has shape"):
                twin(x, *wrong)
    with pytest.raises(InputError, match=r"the bias of a linear map has shape \(4,\); expected \(5,\)"):
        linear_top_k(x, weight, random(2, 4), 2)
    for gain, shift in ((random(0, 7), random(0, 8)), (random(0, 8), random(0, 9))):
        with pytest.raises(InputError, match=r"of a LayerNorm has shape"):
            layer_norm(x, gain, shift, 1e-5)


def test_a_gradient_of_another_shape() -> None:
    p, mean, square = np.ones((4, 5), np.float32), np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)
    options = {"decay": 0.0, "betas": (0.9, 0.999), "correction": 1.0, "eps": 1e-8, "step_size": 0.1}
    for name, arrays in (
        ("the gradient", (mean, square, np.ones((5, 5), np.float32))),
        ("the mean", (mean[:3], square, p)),
        ("the mean square", (mean, square.T, p)),
    ):
        with pytest.raises(InputError, match=rf"{name} of a parameter has shape .* expected \(4, 5\)"):
            adamw(p, *arrays, **options)
    assert (p == 1).all()
