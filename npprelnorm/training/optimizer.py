"""AdamW and clipping by the global norm, step by step as torch computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from ..params import Params
from ..twins import adamw


def decays(name: str) -> bool:
    """Whether weight decay applies: to matrices, not to biases and LayerNorm gains."""
    return not name.endswith("bias") and not name.lower().replace("_", "").endswith("layernorm.weight")


def global_norm(grads: Mapping[str, np.ndarray]) -> float:
    """Euclidean norm of all gradients together: each tensor's sum of squares in its own dtype, their sum in float64."""
    with np.errstate(over="ignore"):  # infinity says it
        return math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))


def clip_by_global_norm(grads: Params, max_norm: float) -> float:
    """Scale all gradients, in place, so that their global norm is at most `max_norm`; returns the norm before.

    The factor is max_norm / (norm + 1e-6) where that is below 1, as in torch's ``clip_grad_norm_``. Gradients whose
    norm is not finite are left alone.
    """
    norm = global_norm(grads)
    factor = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1.0:
        for gradient in grads.values():
            gradient *= factor
    return norm


class AdamW:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.

    Parameters
    ----------
    params : mapping of str to array
        Only for names, shapes and dtypes; `step` changes the arrays that it is given.
    betas : (float, float)
        Decay rates of the means of the gradient and of its square.
    eps : float
        Added to the root of the second mean.
    weight_decay : float
        Applied to the parameters that `decays` names.
    """

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        for name, value, allowed in (
            ("beta1", betas[0], 0.0 <= betas[0] < 1.0),
            ("beta2", betas[1], 0.0 <= betas[1] < 1.0),
            ("eps", eps, eps >= 0.0),
            ("weight_decay", weight_decay, weight_decay >= 0.0),
        ):
            if not allowed:
                raise InputError(f"{name} is {value}; allowed: betas in [0, 1), eps and weight_decay 0 or more")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.steps = 0
        self.mean = {name: np.zeros_like(value) for name, value in params.items()}
        self.square = {name: np.zeros_like(value) for name, value in params.items()}

    def step(self, params: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray], learning_rate: float) -> None:
        """Change `params` in place by one step along `grads`; parameters without a gradient stay."""
        self.steps += 1
        beta1, beta2 = self.betas
        step_size = learning_rate / (1.0 - beta1**self.steps)
        correction = math.sqrt(1.0 - beta2**self.steps)
        for name, gradient in grads.items():
            shrinks = self.weight_decay and decays(name)
            adamw(
                params[name],
                self.mean[name],
                self.square[name],
                gradient,
                decay=1.0 - learning_rate * self.weight_decay if shrinks else 1.0,
                betas=self.betas,
                correction=correction,
                eps=self.eps,
                step_size=step_size,
            )

    def state(self) -> Params:
        """Both means by name, for a checkpoint; `steps` goes beside them."""
        return {f"mean.{n}": a for n, a in self.mean.items()} | {f"square.{n}": a for n, a in self.square.items()}

    def restore(self, state: Mapping[str, np.ndarray], steps: int) -> None:
        """Take back what `state` gave.

        Raises
        ------
        InputError
            If it belongs to other parameters.
        """
        for prefix, own in (("mean.", self.mean), ("square.", self.square)):
            for name, array in own.items():
                saved = state.get(prefix + name)
                if saved is None or saved.shape != array.shape:
                    raise InputError(
                        f"the optimizer state has no {prefix + name} of shape {array.shape}: another model's"
                    )
                array[...] = saved
        self.steps = steps
