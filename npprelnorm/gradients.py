"""Where the backward puts gradients: a flat dict with the parameters' names, seen through prefixes as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import translate

import numpy as np

from .arguments import choice_of_names, collection_of_names, shown
from .errors import InputError
from .ops.linear import LinearCache, linear_backward_input, linear_backward_weight, sum_rows
from .ops.normalization import LayerNormCache
from .params import Params
from .twins import layer_norm_backward

# gradients of inputs that a caller may ask for besides those of the parameters
INPUT_GRADIENTS = ("inputs_embeds", "encoder_hidden_states", "head_mask")


class Gradients:
    """Gradients by parameter name, added up as the backward meets a parameter again (a tied decoder, a chunk).

    Parameters
    ----------
    params : mapping of str to array
    frozen : collection of str
        Shell-style patterns (``*``, ``?``) of parameter names that get no gradient, such as
        ``"roberta_prelayernorm.*"``.
    inputs : collection of str
        Which of `INPUT_GRADIENTS` are wanted.

    Raises
    ------
    InputError
        For a pattern that matches no name, an input that has no gradient, or what is no collection of strings.
    """

    def __init__(
        self, params: Mapping[str, np.ndarray], frozen: Collection[str] = (), inputs: Collection[str] = ()
    ) -> None:
        self._params = params
        self._trainable = set(params) - frozen_names(params, frozen)
        self._inputs = frozenset(choice_of_names("input_grads", inputs, INPUT_GRADIENTS))
        self._values: dict[str, np.ndarray] = {}

    def wants(self, name: str) -> bool:
        """Whether this parameter is trained."""
        return name in self._trainable

    def wants_any(self, prefix: str) -> bool:
        """Whether any parameter whose name begins so is trained."""
        return any(name.startswith(prefix) for name in self._trainable)

    def wants_input(self, name: str) -> bool:
        """Whether the gradient of this input was asked for."""
        return name in self._inputs

    def add(self, name: str, value: np.ndarray) -> None:
        """Add to the gradient of a parameter (nothing happens if it is frozen) or of an input."""
        if name not in self._trainable and name not in self._inputs:
            return
        if name in self._values:
            self._values[name] = self._values[name] + value
        else:
            self._values[name] = value

    def so_far(self, name: str) -> np.ndarray | None:
        """What has been added to a parameter's gradient, None before that: an array that may be changed in place."""
        return self._values.get(name)

    def replace(self, name: str, value: np.ndarray) -> None:
        """Put down a gradient in which what was added before is already contained."""
        if name in self._trainable:
            self._values[name] = value

    def add_layer(self, name: str, index: int, layers: int, value: np.ndarray) -> None:
        """Add to one layer's row of the gradient of an input that has a row for each layer."""
        if name in self._inputs:
            rows = np.zeros((layers, *value.shape), value.dtype)
            rows[index] = value
            self.add(name, rows)

    def regroup(self, name: str, groups: int) -> None:
        """Split an input's first axis again, as the caller gave it: (B * groups, ...) -> (B, groups, ...)."""
        if name in self._values:
            value = self._values[name]
            self._values[name] = value.reshape(-1, groups, *value.shape[1:])

    def finish(self) -> Params:
        """All of them; a trained parameter that the backward never met gets zeros."""
        absent = [name for name in INPUT_GRADIENTS if name in self._inputs and name not in self._values]
        if absent:
            raise InputError(f"input_grads holds {absent[0]!r}, but this call uses no {absent[0]}; give one")
        result = {
            name: self._values[name] if name in self._values else np.zeros_like(value)
            for name, value in self._params.items()
            if name in self._trainable
        }
        return result | {name: self._values[name] for name in INPUT_GRADIENTS if name in self._values}


def frozen_names(names: Iterable[str], patterns: Collection[str]) -> set[str]:
    """The names that match any of the shell-style patterns; each must match at least one."""
    every = list(names)
    result: set[str] = set()
    for pattern in collection_of_names("frozen", patterns):
        matches = set(filter(re.compile(translate(pattern)).match, every))
        if not matches:
            pattern = shown(pattern)
            raise InputError(f"frozen holds {pattern}, which matches no parameter; names are such as {every[0]!r}")
        result |= matches
    return result


class GradientView:
    """`Gradients` seen from inside one prefix, as `params.View` shows parameters; and the two commonest backwards."""

    __slots__ = ("gradients", "prefix")

    def __init__(self, gradients: Gradients, prefix: str = "") -> None:
        self.gradients = gradients
        self.prefix = prefix

    def at(self, prefix: str) -> GradientView:
        """The view one step further in."""
        return GradientView(self.gradients, self.prefix + prefix)

    def wants(self, name: str) -> bool:
        """Whether this parameter is trained."""
        return self.gradients.wants(self.prefix + name)

    def wants_any(self, prefix: str = "") -> bool:
        """Whether any parameter below this prefix is trained."""
        return self.gradients.wants_any(self.prefix + prefix)

    def add(self, name: str, value: np.ndarray) -> None:
        """Add to the gradient of a parameter."""
        self.gradients.add(self.prefix + name, value)

    def so_far(self, name: str) -> np.ndarray | None:
        """What has been added to the gradient of a parameter; may be changed in place."""
        return self.gradients.so_far(self.prefix + name)

    def replace(self, name: str, value: np.ndarray) -> None:
        """Put down the gradient of a parameter that contains what was added before."""
        self.gradients.replace(self.prefix + name, value)

    def linear(self, name: str, dy: np.ndarray, cache: LinearCache) -> np.ndarray:
        """Backward of the linear map called `name`: puts down dweight and dbias, if wanted; returns dx."""
        self.linear_params(name, dy, cache)
        return linear_backward_input(dy, cache)

    def linear_params(self, name: str, dy: np.ndarray, cache: LinearCache) -> None:
        """The part of `linear` that stays here, where nobody wants dx."""
        self.affine(name + ".weight", name + ".bias", dy, cache)

    def affine(self, weight: str, bias: str, dy: np.ndarray, cache: LinearCache) -> None:
        """Put down dweight and dbias of a linear map, each only where it is trained."""
        if self.wants(weight):
            self.add(weight, linear_backward_weight(dy, cache))
        if self.wants(bias):
            self.add(bias, sum_rows(dy))

    def norm(self, name: str, dy: np.ndarray, cache: LayerNormCache) -> np.ndarray:
        """Backward of the LayerNorm called `name`: puts down dweight and dbias; returns dx."""
        dx, dweight, dbias = layer_norm_backward(dy, cache)
        self.add(name + ".weight", dweight)
        self.add(name + ".bias", dbias)
        return dx
