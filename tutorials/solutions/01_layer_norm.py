# %% [markdown]
# # Solutions to tutorial 1: LayerNorm

# %%
import numpy as np

from npprelnorm.ops.normalization import layer_norm, layer_norm_backward

rng = np.random.default_rng(1)
B, C, eps = 4, 16, 1e-5
x, dy, direction = rng.standard_normal((3, B, C))
gain, bias = 1 + 0.3 * rng.standard_normal(C), 0.1 * rng.standard_normal(C)

# %% [markdown]
# ## 1. RMSNorm
#
# With $r = \sqrt{\frac1C\sum_k x_k^2 + \varepsilon}$ and $\hat x = x / r$ there is no path through a mean, and
# $\partial r/\partial x_j = x_j/(Cr) = \hat x_j/C$. So the Jacobian is $\frac1r(\delta_{ij} - \hat x_i\hat x_j/C)$:
# that of LayerNorm without the mean term.


# %%
def rms_norm(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r = np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return gain * x / r, x / r, r


def rms_norm_backward(dy: np.ndarray, x_hat: np.ndarray, r: np.ndarray) -> np.ndarray:
    g = dy * gain
    return (g - x_hat * (g * x_hat).mean(axis=-1, keepdims=True)) / r


_, x_hat, r = rms_norm(x)
dx = rms_norm_backward(dy, x_hat, r)
h = 1e-6
slope = ((rms_norm(x + h * direction)[0] - rms_norm(x - h * direction)[0]) * dy).sum() / (2 * h)
assert abs(slope - (dx * direction).sum()) < 1e-8 * np.linalg.norm(dx)

# %% [markdown]
# ## 2. Step by step
#
# Every line of the backward undoes one line of the forward, from the last to the first. A quantity that is used twice
# (`centred`, and `x` itself) collects two gradients, which is where most mistakes happen.

# %%
mean = x.mean(axis=-1, keepdims=True)  # forward line 1
centred = x - mean  # 2
variance = (centred**2).mean(axis=-1, keepdims=True)  # 3
s = np.sqrt(variance + eps)  # 4
x_hat = centred / s  # 5

dx_hat = dy * gain
dcentred = dx_hat / s  # undoes 5, numerator
ds = (dx_hat * -centred / s**2).sum(axis=-1, keepdims=True)  # undoes 5, denominator
dvariance = ds / (2 * s)  # undoes 4
dcentred += dvariance * 2 * centred / C  # undoes 3: the second use of `centred`
dmean = -dcentred.sum(axis=-1, keepdims=True)  # undoes 2
dx = dcentred + dmean / C  # undoes 2 and 1: the two uses of `x`

expected = layer_norm_backward(dy, layer_norm(x, gain, bias, eps)[1])[0]
assert np.allclose(dx, expected, rtol=0, atol=1e-14)

# %% [markdown]
# ## 3. Eigenvalues
#
# $J = \frac1s(I - \frac1C\mathbf 1\mathbf 1^\top - \frac1C\hat x\hat x^\top)$, and $\mathbf 1 \perp \hat x$. So
#
# - $J\mathbf 1 = 0$: eigenvalue 0, once;
# - $J\hat x = \frac1s\big(1 - \lVert\hat x\rVert^2/C\big)\hat x$, and $\lVert\hat x\rVert^2 = Cv/(v+\varepsilon)$, so
#   the eigenvalue is $\frac{1}{s}\,\frac{\varepsilon}{v + \varepsilon} = \varepsilon/s^3$, once: stretching the row
#   changes the output by what $\varepsilon$ lets through;
# - everything orthogonal to both is only divided by $s$: eigenvalue $1/s$, $C - 2$ times.

# %%
wide = 0.1  # an eps that shows
row = x[0]
s = np.sqrt(row.var() + wide)
row_hat = (row - row.mean()) / s
jacobian = (np.eye(C) - 1 / C - np.outer(row_hat, row_hat) / C) / s
predicted = np.array([0.0, wide / s**3] + [1 / s] * (C - 2))
print(np.linalg.eigvalsh(jacobian).round(6))
assert np.allclose(np.linalg.eigvalsh(jacobian), predicted, rtol=0, atol=1e-14)
