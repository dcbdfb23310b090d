"""Settings that cannot be are refused, and the others go through JSON."""

from __future__ import annotations

import math

import pytest

from npprelnorm.errors import InputError
from npprelnorm.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0.0, "epochs is 0.0; allowed: above 0"),
        ("epochs", math.nan, "epochs is nan; allowed: above 0"),
        ("steps", 0, "steps is 0; allowed: above 0, or None"),
        ("batch_size", 0, "batch_size is 0; allowed: above 0"),
        ("batch_size", 2.5, "batch_size is 2.5; it must be of type int"),
        ("batch_size", True, "batch_size is True; it must be of type int"),
        ("accumulate", -1, "accumulate is -1; allowed: above 0"),
        ("learning_rate", math.inf, "learning_rate is inf; allowed: above 0"),
        ("learning_rate", "fast", "learning_rate is 'fast'; it must be of type float"),
        ("schedule", "step", "schedule is 'step'; allowed: linear, cosine, constant"),
        ("warmup", -0.1, "warmup is -0.1; allowed: 0 or more"),
        ("weight_decay", -0.1, "weight_decay is -0.1; allowed: 0 or more"),
        ("beta1", 1.0, "beta1 is 1.0; allowed: from 0 to below 1"),
        ("beta2", -0.5, "beta2 is -0.5; allowed: from 0 to below 1"),
        ("eps", 0.0, "eps is 0.0; allowed: above 0"),
        ("max_grad_norm", -1.0, "max_grad_norm is -1.0; allowed: 0 or more"),
        ("dropout", 1, "dropout is 1; it must be of type bool"),
        ("frozen", ["a"], r"frozen is \['a'\]; it must be of type tuple of str"),
        ("eval_every", -1, "eval_every is -1; allowed: 0 or more"),
        ("save_every", -1, "save_every is -1; allowed: 0 or more"),
        ("log_every", -1, "log_every is -1; allowed: 0 or more"),
        ("patience", -1, "patience is -1; allowed: 0 or more"),
        ("seed", -1, "seed is -1; allowed: 0 or more"),
    ],
)
def test_wrong_values_are_named(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingSettings(**{name: value})  # type: ignore[arg-type]


def test_whole_numbers_are_good_floats_and_the_dict_is_json() -> None:
    settings = TrainingSettings(epochs=2, learning_rate=1, frozen=("a.*",), steps=None)
    values = settings.to_dict()
    assert values["epochs"] == 2
    assert values["frozen"] == ["a.*"]
    assert TrainingSettings(**(values | {"frozen": tuple(values["frozen"])})) == settings
