# %% [markdown]
# # 1. LayerNorm, forward and backward
#
# LayerNorm is the smallest part of a transformer whose gradient most people get wrong at the first attempt. We compute
# it by hand, look at what it does to a vector, derive its backward, write it in five lines of NumPy, and then check it
# in a way that finds the usual mistakes. *Where* a layer puts its LayerNorm is what separates pre-LN from post-LN
# (tutorial 3); this one is about what it is.
#
# You need: partial derivatives and the chain rule, matrices, NumPy broadcasting. Running it takes a few seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SIGNED, as_matrix
from matplotlib.axes import Axes

from npprelnorm.ops.normalization import layer_norm, layer_norm_backward

rng = np.random.default_rng(0)

# %% [markdown]
# ## What it computes
#
# A token is a row $x \in \mathbb{R}^C$. LayerNorm takes the mean and the variance *of that row* and, with a learned
# gain $\gamma$ and bias $\beta$ for each of the $C$ features, returns
#
# $$\mu = \frac1C \sum_{i=1}^{C} x_i, \qquad v = \frac1C \sum_{i=1}^{C} (x_i - \mu)^2, \qquad
#   \hat x_i = \frac{x_i - \mu}{\sqrt{v + \varepsilon}}, \qquad y_i = \gamma_i\,\hat x_i + \beta_i .$$
#
# This is Ba, Kiros and Hinton 2016 ([arXiv:1607.06450](https://arxiv.org/abs/1607.06450)), equation 3 for $\mu$ and
# $\sigma = \sqrt v$ and equation 4 with the gain and bias. Three details are easy to miss:
#
# - the variance is divided by $C$ and not by $C - 1$;
# - $\varepsilon$ is not in the paper. Implementations add it so that a constant row does not divide by zero, and they
#   add it *inside* the root;
# - no row sees another row, so the batch plays no part, and training and prediction compute the same.
#
# Take a row whose numbers come out even: $x = (2, 4, 4, 4, 5, 5, 7, 9)$. The mean is $40/8 = 5$; the squares of the
# deviations add up to $9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32$, so $v = 32/8 = 4$, and every deviation is divided by 2.
# (In the figure, a dashed line is the mean.)


# %%
def normalize(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """x_hat and the standard deviation s that it was divided by, for each row."""
    centred = x - x.mean(axis=-1, keepdims=True)  # (..., C)
    s = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)  # (..., 1)
    return centred / s, s


row = np.array([2.0, 4, 4, 4, 5, 5, 7, 9])
row_hat, row_s = normalize(row, eps=0.0)
print("s     =", row_s.item())
print("x_hat =", row_hat)

# %%
figure, panels = plt.subplots(1, 3, figsize=(9.5, 2.6), sharey=True)
steps = {"x": row, "x − mean": row - row.mean(), "(x − mean) / s": row_hat}
for axes, (name, values), colour in zip(panels, steps.items(), (GREY, ORANGE, BLUE), strict=True):
    axes.bar(np.arange(8), values, color=colour)
    axes.axhline(values.mean(), color=BLACK, linestyle="--", linewidth=1)
    axes.set(title=f"{name}\nmean {values.mean():g}, variance {values.var():g}", xlabel="feature i", xticks=range(8))
panels[0].set(ylabel="value", yticks=range(-4, 11, 2))
plt.show()

# %% [markdown]
# ## What it does to a vector
#
# Subtracting the mean is a projection: $x - \mu\mathbf 1 = \big(I - \tfrac1C \mathbf 1\mathbf 1^\top\big)x$ is the part
# of $x$ that is orthogonal to $\mathbf 1 = (1, \dots, 1)$. Dividing by $s$ then sets the length:
#
# $$\lVert \hat x \rVert^2 = \frac{\sum_i (x_i - \mu)^2}{v + \varepsilon} = C\,\frac{v}{v + \varepsilon} .$$
#
# So without $\varepsilon$ every row ends on one sphere of radius $\sqrt C$ in the hyperplane orthogonal to $\mathbf 1$
# (the picture of Brody, Alon and Yahav 2023, [arXiv:2305.02582](https://arxiv.org/abs/2305.02582)). Only a direction in
# that hyperplane is left. In particular $\mathrm{LN}(ax + b\mathbf 1) = \mathrm{LN}(x)$ for $a > 0$, which is the
# invariance of section 5.1 of Ba et al.
#
# With $C = 3$ the hyperplane is a plane, and we can draw it. $\varepsilon$ is 0.1 here, far more than in any model, so
# that its effect shows: rows with a variance near or below $\varepsilon$ stay inside the circle.

# %%
plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])  # two unit vectors orthogonal to (1, 1, 1)
spread = np.repeat([0.1, 0.5, 2.0], 60)[:, None]
cloud = rng.standard_normal((180, 3)) * spread + rng.standard_normal((180, 1))  # (rows, C = 3), various means
clouds = {
    "before: x − mean (circle: radius √3)": cloud - cloud.mean(axis=1, keepdims=True),
    "after: x_hat": normalize(cloud, eps=0.1)[0],
}

figure, panels = plt.subplots(1, 2, figsize=(9.4, 4.0))
for axes, (name, points) in zip(panels, clouds.items(), strict=True):
    for scale, colour, marker in zip((2.0, 0.5, 0.1), (BLUE, ORANGE, RED), "os^", strict=True):
        here = (points @ plane.T)[spread[:, 0] == scale]  # (60, 3) -> (60, 2)
        axes.scatter(*here.T, s=18, color=colour, marker=marker, label=f"spread {scale:g}")
    axes.add_patch(plt.Circle((0, 0), np.sqrt(3), fill=False, color=BLACK, linestyle="--"))
    axes.set(title=name, aspect="equal", xlabel="along (1, −1, 0)/√2", ylabel="along (1, 1, −2)/√6")
panels[1].set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
figure.legend(*panels[0].get_legend_handles_labels(), title="60 rows each", loc="outside right upper", fontsize=9)
plt.show()

# %% [markdown]
# ## The derivative
#
# Each $\hat x_i$ depends on each $x_j$ in three ways: directly, through $\mu$, and through
# $s = \sqrt{v + \varepsilon}$. The second and the third are
#
# $$\frac{\partial \mu}{\partial x_j} = \frac1C, \qquad
#   \frac{\partial v}{\partial x_j} = \frac2C\,(x_j - \mu), \qquad
#   \frac{\partial s}{\partial x_j} = \frac{1}{2s}\,\frac{\partial v}{\partial x_j} = \frac{\hat x_j}{C} .$$
#
# (In $\partial v/\partial x_j$ the share that comes through $\mu$ is $-\frac{2}{C}\sum_i (x_i-\mu)\,\frac1C = 0$.) With
# the quotient rule,
#
# $$\frac{\partial \hat x_i}{\partial x_j} = \frac{\delta_{ij} - \frac1C}{s} - \frac{x_i - \mu}{s^2}\,\frac{\hat x_j}{C}
#   = \frac1s\Big(\underbrace{\delta_{ij}}_{\text{direct}} - \underbrace{\tfrac1C}_{\text{mean}}
#   - \underbrace{\tfrac1C\,\hat x_i \hat x_j}_{\text{variance}}\Big) .$$
#
# This is exact for any $\varepsilon$, as $\hat x$ already contains it. The matrix is symmetric. The same three paths,
# for statistics over the batch, are in section 3 of Ioffe and Szegedy 2015
# ([arXiv:1502.03167](https://arxiv.org/abs/1502.03167)).
#
# Below, the three terms for our row, and the Jacobian measured by central differences, one column for each $x_j$.

# %%
C = row.size
terms = {
    "direct: I": np.eye(C),
    "mean: −1/C": -np.full((C, C), 1 / C),
    "variance: −x̂x̂ᵀ/C": -np.outer(row_hat, row_hat) / C,
}
derived = sum(terms.values()) / row_s

h = 1e-5
nudged = row + h * np.eye(C), row - h * np.eye(C)  # (C, C): line j has x_j moved
measured = ((normalize(nudged[0], 0.0)[0] - normalize(nudged[1], 0.0)[0]) / (2 * h)).T
jacobian_error = np.abs(derived - measured).max()
print(f"largest difference between derived and measured Jacobian: {jacobian_error:.1e}")

# %%
figure, panels = plt.subplots(1, 4, figsize=(11, 3.1))
for axes, (name, matrix) in zip(panels, {**terms, "measured, times s": measured * row_s}.items(), strict=True):
    image = axes.matshow(matrix, cmap=SIGNED, vmin=-1, vmax=1)
    as_matrix(axes, name)
    axes.xaxis.tick_bottom()
    axes.set(xlabel="j  (input)", ylabel="i  (output)")
figure.colorbar(image, ax=panels, label="s · ∂x̂ᵢ/∂xⱼ", shrink=0.8)
plt.show()

# %% [markdown]
# The last picture is the sum of the first three. Two directions are lost in it: moving all numbers up together
# ($\mathbf 1$) and stretching the row ($\hat x$) change nothing, as we saw, and so $J\mathbf 1 = 0$ and, without
# $\varepsilon$, $J\hat x = 0$.
#
# ## The backward
#
# A backward never builds $J$. It is given $dy_i = \partial L/\partial y_i$ for some scalar loss $L$ and returns
# $\partial L/\partial x_j$. Put $g = \gamma \odot dy$ (that undoes the gain), and multiply by the matrix above:
#
# $$dx_j = \sum_i g_i\,\frac{\partial \hat x_i}{\partial x_j}
#   = \frac1s\Big(g_j - \operatorname{mean}(g) - \hat x_j\,\operatorname{mean}(g \odot \hat x)\Big),
#   \qquad d\gamma = \sum_{\text{rows}} dy \odot \hat x, \qquad d\beta = \sum_{\text{rows}} dy .$$
#
# Two means in place of a $C \times C$ matrix. Xu et al. 2019
# ([arXiv:1911.07013](https://arxiv.org/abs/1911.07013)) argue that these two terms, which re-centre and re-scale the
# gradient, do more for training than the normalisation of the forward.


# %%
def backward(dy: np.ndarray, x_hat: np.ndarray, s: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, ...]:
    """dx (B, C), dgain (C,), dbias (C,)."""
    g = dy * gain  # undoes y = gain * x_hat + bias
    mean_term = g.mean(axis=-1, keepdims=True)
    variance_term = x_hat * (g * x_hat).mean(axis=-1, keepdims=True)
    return (g - mean_term - variance_term) / s, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


B, C, eps = 4, 16, 1e-5
x, dy = rng.standard_normal((2, B, C))
gain, bias = 1 + 0.3 * rng.standard_normal(C), 0.1 * rng.standard_normal(C)
x_hat, s = normalize(x, eps)
ours = backward(dy, x_hat, s, gain)

y, cache = layer_norm(x, gain, bias, eps)  # the package's own, which is written the same way
theirs = layer_norm_backward(dy, cache)
against_package = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
print(f"largest difference from npprelnorm.ops.normalization: {against_package:.1e}")

# %% [markdown]
# ## A check that can fail
#
# Agreeing with code that is written in the same way proves little. A *gradient check* knows only the forward. Take a
# random cotangent $dy$, so that $L(x) = \sum dy \odot y$ is a scalar, and a random direction $d$. Then
#
# $$\frac{L(x + hd) - L(x - hd)}{2h} = \langle dx, d\rangle + O(h^2) ,$$
#
# and one number tests every entry of $dx$ at once. The step $h$ must be neither large (the $h^2$ error of the formula)
# nor small (the difference of two nearly equal numbers loses digits, an error of about $10^{-16}/h$). We sweep it, for
# the right backward and for three wrong ones that students really hand in.


# %%
def loss(x: np.ndarray) -> float:
    return float((dy * (normalize(x, eps)[0] * gain + bias)).sum())


g = dy * gain
mean_g, mean_gx = g.mean(axis=-1, keepdims=True), (g * x_hat).mean(axis=-1, keepdims=True)
candidates = {
    "right": ours[0],
    "mean term missing": (g - x_hat * mean_gx) / s,
    "variance term missing": (g - mean_g) / s,
    "gain forgotten": backward(dy, x_hat, s, np.ones(C))[0],
}
direction = rng.standard_normal(x.shape)
widths = 10.0 ** np.arange(-11, 0.1, 0.5)
slopes = np.array([(loss(x + h * direction) - loss(x - h * direction)) / (2 * h) for h in widths])
errors = {n: np.abs(slopes - (dx * direction).sum()) / np.linalg.norm(dx) for n, dx in candidates.items()}
for name, error in errors.items():
    print(f"{name:22s} smallest error for any h below 0.1: {error[widths < 0.09].min():.1e}")

# %%
figure, axes = plt.subplots(figsize=(7.2, 3.8))
for (name, error), colour in zip(errors.items(), (BLUE, ORANGE, RED, PINK), strict=True):
    axes.loglog(widths, error, label=name, color=colour)
axes.loglog(widths[-9:], 0.3 * widths[-9:] ** 2, color=BLACK, linestyle="--", marker="", label="slope 2: truncation")
axes.loglog(widths[:8], 3e-16 / widths[:8], color=GREY, linestyle=":", marker="", label="slope −1: rounding")
axes.set(
    xlabel="step h", ylabel="error / norm of dx", title="A gradient check, by the size of its step", ylim=(1e-12, 30)
)
axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# The right gradient falls to the floor that float64 allows. The errors of the wrong ones do not depend on the step, as
# long as it is small: that is how a mistake differs from noise.
#
# **A trap.** The cotangent must be random. With $dy = \mathbf 1$ and $\gamma = \mathbf 1$ the true gradient is
# $J\mathbf 1 = 0$, because the sum of $\hat x$ is always 0. A check with `y.sum()` as its loss accepts a backward that
# returns zeros, and one without the variance term.

# %%
ones, unit_gain = np.ones((B, C)), np.ones(C)
with_ones = {
    "right": backward(ones, x_hat, s, unit_gain)[0],
    "variance term missing": (ones - ones.mean(axis=-1, keepdims=True)) / s,
    "mean term missing": (ones - x_hat * x_hat.mean(axis=-1, keepdims=True)) / s,
}
for name, dx in with_ones.items():
    print(f"{name:22s} norm of dx for a cotangent of ones: {np.linalg.norm(dx):.1e}")

# %% [markdown]
# ## What it means for a deep network
#
# The factor $1/s$ in front of the Jacobian says that a LayerNorm divides the gradient by the size of its input: ten
# times larger rows, ten times smaller gradients, while the output does not change at all. $\varepsilon$ limits this
# below $s \approx \sqrt\varepsilon$. A transformer adds what each of its blocks computes to a token's vector, its
# *residual stream*, and the two orders differ in what they normalise. Pre-LN normalises only what a block reads; the
# stream grows with depth, so that upper blocks receive smaller gradients. Post-LN normalises the stream itself after
# every block, and every gradient passes such a factor in every layer. Tutorial 3 measures both.

# %%
sizes = 10.0 ** np.arange(-5, 4.1, 0.25)
outputs = np.array([np.linalg.norm(normalize(a * x, eps)[0]) for a in sizes])
gradients = np.array([np.linalg.norm(backward(dy, *normalize(a * x, eps), unit_gain)[0]) for a in sizes])


def mark_eps(axes: Axes) -> None:
    axes.axvline(np.sqrt(eps), color=GREY, linestyle=":", label="a = √eps")
    axes.set_xlabel("factor a on the input (its spread is about a)")
    axes.legend(fontsize=9)


figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.3))
left.semilogx(sizes, outputs, color=BLUE, label="norm of x_hat")
left.set(title="output: the size is forgotten", ylabel="norm of LN(a·x)", ylim=(0, 9))
right.loglog(sizes, gradients, color=GREEN, label="norm of dx")
right.loglog(
    sizes, gradients[20] * sizes[20] / sizes, color=BLACK, linestyle="--", marker="", label="proportional to 1/a"
)
right.set(title="gradient: divided by the size", ylabel="norm of dx for one dy")
mark_eps(left)
mark_eps(right)
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. RMSNorm (Zhang and Sennrich 2019, [arXiv:1910.07467](https://arxiv.org/abs/1910.07467), equation 4) leaves out the
#    mean: $y_i = \gamma_i x_i / \sqrt{\frac1C\sum_k x_k^2 + \varepsilon}$. Derive its backward, write it, and check it.
# 2. Write the backward of LayerNorm once more, as a chain of elementary steps (subtract, square, mean, root, divide),
#    each undone on its own line. Compare it with the closed form.
# 3. Which eigenvalues does the Jacobian $J$ have when $\varepsilon > 0$, and how often? Predict, then compute.
#
# Answers: [solutions/01_layer_norm.py](solutions/01_layer_norm.py).
#
# ## What was claimed, asserted

# %%
assert row_s == 2.0
assert row_hat.tolist() == [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]

variances = cloud.var(axis=1)
assert np.allclose(clouds["after: x_hat"].sum(axis=1), 0, atol=1e-12), "orthogonal to (1, 1, 1)"
assert np.allclose((clouds["after: x_hat"] ** 2).sum(axis=1), 3 * variances / (variances + 0.1), rtol=1e-12)
assert np.allclose(normalize(7 * x - 3, 0.0)[0], normalize(x, 0.0)[0], rtol=0, atol=1e-12), "LN(ax + b) = LN(x)"

assert jacobian_error < 1e-9
assert np.array_equal(derived, derived.T)
assert np.allclose(derived @ np.ones(8), 0, atol=1e-15)
assert np.allclose(derived @ row_hat, 0, atol=1e-15)

assert against_package < 1e-14
assert errors["right"].min() < 1e-10
for name in ("mean term missing", "variance term missing", "gain forgotten"):
    small = errors[name][widths < 0.09]
    assert small.min() > 0.01, "far above the floor"
    assert small.max() < 1.1 * small.min(), "and the same for every small step"
truncation = np.polyfit(np.log(widths[-7:-2]), np.log(errors["right"][-7:-2]), 1)[0]
assert abs(truncation - 2) < 0.1, "the error of a central difference falls as the square of its step"
assert np.linalg.norm(with_ones["right"]) < 1e-14
assert np.linalg.norm(with_ones["variance term missing"]) < 1e-14, "which is why a cotangent of ones proves nothing"

slope = np.polyfit(np.log(sizes[-12:]), np.log(gradients[-12:]), 1)[0]
assert abs(slope + 1) < 1e-3, "gradients fall as one over the size of the input"
assert outputs[-12:].max() / outputs[-12:].min() < 1 + 1e-6, "outputs do not change"
