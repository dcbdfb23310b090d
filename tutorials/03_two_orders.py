# %% [markdown]
# # 3. One layer, two orders
#
# A transformer layer adds what its blocks compute to what came in, and normalises. The first Transformer, BERT and
# RoBERTa normalise *after* adding (post-LN); RoBERTa-PreLayerNorm, as GPT-2 and nearly everything since, *before* the
# block (pre-LN). One line of code apart, the two differ in how long their vectors are, how alike their tokens become,
# and how large the gradients are at each depth. We derive all three by pen for a model at initialisation, and then
# measure them. The question, and the theorem that we test, are those of Xiong et al. 2020
# ([arXiv:2002.04745](https://arxiv.org/abs/2002.04745)).
#
# You need: tutorials 1 and 2, expectations of Gaussian vectors. Running it takes about 15 seconds; twenty seeds of the
# measurements are in [studies/results/gradient_paths.json](studies/results/gradient_paths.json), made by
# [studies/gradient_paths.py](studies/gradient_paths.py), and the first is made again here.

# %%
import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, GREY, STYLES, band
from studies import gradient_paths, warm_up
from studies.corpus import Words, little_grammar
from studies.results import load, select

from npprelnorm.layers import post_ln, pre_ln
from npprelnorm.ops.normalization import layer_norm, layer_norm_backward

rng = np.random.default_rng(0)

# %% [markdown]
# ## Two lines
#
# What a token's vector is on its way from layer to layer is called the *residual stream*. It starts as the embedding;
# each block reads it and adds something to it, so that what is there need not be computed again, and gradients have a
# way past the block (He et al. 2016, [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)). A layer has two blocks:
# attention, and the *feed-forward block*, two matrices with an activation between them, on each token alone.
#
# Let $f$ be one of them. Forward and backward, with $J^\top$ standing for "through the Jacobian of", are
#
# $$\text{pre-LN:}\quad y = x + f(\mathrm{LN}(x)), \qquad dx = dy + J_{\mathrm{LN}}^\top J_f^\top\,dy ,$$
# $$\text{post-LN:}\quad y = \mathrm{LN}(x + f(x)), \qquad dx = (I + J_f^\top)\,J_{\mathrm{LN}}^\top\,dy .$$
#
# In pre-LN, $dy$ reaches $x$ untouched, and a second share comes through the block: after $L$ layers there is still one
# path from the loss to the embeddings on which nothing ever happened. In post-LN every path passes every LayerNorm. To
# see it, switch the block off.

# %%
C = 256
x, dy = rng.standard_normal((2, 4, C)) * [[[3.0]], [[1.0]]]  # tokens three times as long as a LayerNorm leaves them
gain_and_bias = np.ones(C), np.zeros(C)


def nothing(u: np.ndarray) -> tuple[np.ndarray, None]:
    return np.zeros_like(u), None


y_pre, _ = pre_ln(nothing, x, gain_and_bias, 1e-5)
y_post, (norm_cache, _) = post_ln(nothing, x, gain_and_bias, 1e-5)
dx_pre, dx_post = dy, layer_norm_backward(dy, norm_cache)[0]
for name, y, dx in (("pre-LN", y_pre, dx_pre), ("post-LN", y_post, dx_post)):
    lengths = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in ((y, x), (dx, dy))]
    print(f"{name:8s} |y| / |x| = {lengths[0]:.3f}   |dx| / |dy| = {lengths[1]:.3f}")

# %% [markdown]
# Post-LN shortens the vector to a third, and divides its gradient by three, as tutorial 1 has shown. What matters is
# what these factors multiply to when the blocks are on.
#
# ## Lengths, by pen
#
# The setting is that of the paper: weights $\mathcal N(0, 1/C)$, blocks of one width with a ReLU, biases 0, gains 1,
# queries and keys 0 so that attention takes plain averages. Write $q$ for the mean square of a token's features, and
# $c$ for the mean product of two different tokens' features; $r = c/q$ is their *similarity* (the cosine).
#
# - A matrix with $\mathcal N(0, 1/C)$ entries keeps $q$ and $c$ in expectation. A ReLU on Gaussian features halves $q$
#   (the paper's lemma 1), and turns $c$ into $\frac q2\kappa(r)$ with
#   $\kappa(r) = \frac1\pi\big(\sqrt{1 - r^2} + r\,(\pi - \arccos r)\big)$, the arc-cosine kernel of Cho and Saul 2009.
#   So the **feed-forward block** on normalised tokens adds $\tfrac12$ to $q$ and $\tfrac12 \kappa(r)$ to $c$.
# - **Attention** adds the mean of all $n$ tokens to each. On normalised tokens the mean square of the mean is
#   $m = \frac{1 + (n-1)\,r}{n}$, and this goes to $q$ and to $c$ alike: the same vector for all.
#
# In pre-LN, $q$ grows by $\frac12 + m$ a layer, and as $0 < m \le 1$ we get the paper's lemma 2,
# $1 + \frac l2 \le q_l \le 1 + \frac{3l}2$. In post-LN each LayerNorm sets $q$ back to 1, and divides $c$ by what it
# divided $q$ by. Either way $r$ goes up, as every block adds more that is shared. The question is how fast.
#
# ## Gradients, by pen
#
# Downwards, let $g$ and $h$ be for gradients what $q$ and $c$ are for tokens. A LayerNorm of tokens with mean square
# $s$ divides gradients by $\sqrt s$, hence $g$ and $h$ by $s$ (the paper's lemma 3; the two directions that it removes
# are a share of $2/C$, which we neglect). Through the feed-forward block come $\frac12 g$, and of $h$ the share of
# ReLUs that are open for both tokens, $\frac{\pi - \arccos r}{2\pi}$; through attention the mean square of the mean,
# $\frac{g + (n-1)h}{n}$, for both. These are added to what comes on the identity path.
#
# For post-LN that gives a small surprise. In a feed-forward block the LayerNorm divides $g$ by $s = \frac32$, and the
# two paths multiply it by $1 + \frac12$. **Nothing is lost.** In an attention block the same balance holds when
# gradients are as alike as tokens, $h/g = r$.
#
# For pre-LN, what comes through a block is divided by $q$: $g \leftarrow g\,(1 + \frac1{2q})$ in a feed-forward block,
# and $q \leftarrow q + \frac12 = q\,(1 + \frac1{2q})$ was what it did to the stream on the way up. So the product
# $g\,q$ does not change, nor in an attention block if gradients are as alike as tokens. The final LayerNorm begins
# with $g = 1/q_L$; hence $g = 1/q_l$ after every layer $l$, as if it were the last, whatever is above it.
#
# Last, the weights: the last matrix of a layer has the gradient $\sum_i d_i a_i^\top$ over tokens, $a$ being what came
# out of the ReLU. Its expected square is $C^2\big(\frac n2\,g + \frac{n(n-1)}{2}\,\kappa(r)\,h\big)$.


# %%
def kappa(r: float) -> float:
    return (np.sqrt(1 - r * r) + r * (np.pi - np.arccos(r))) / np.pi


def up(order: str, depth: int, n: int) -> tuple[list[float], list[float], list[tuple[str, float, float]]]:
    """Mean squares q and similarities r from layer 0 on; and of each block its kind, s and r."""
    q, c, squares, similar, blocks = 1.0, 0.0, [1.0], [0.0], []
    for kind in ("attention", "feed-forward") * depth:
        r = c / q
        m = (1 + (n - 1) * r) / n
        added = (m, m) if kind == "attention" else (0.5, 0.5 * kappa(r))
        before, (q, c) = q, (q + added[0], c + added[1])
        blocks.append((kind, before if order == "pre" else q, r))
        if order == "post":
            q, c = 1.0, c / q
        if kind == "feed-forward":
            squares.append(q)
            similar.append(c / q)
    return squares, similar, blocks


# %% [markdown]
# And down again:


# %%
def down(order: str, depth: int, n: int, width: int) -> np.ndarray:
    """Expected gradient norms of each layer's last matrix, lowest layer first, for independent unit gradients."""
    squares, _, blocks = up(order, depth, n)
    g, h, norms = 1 / squares[-1], 0.0, []  # the final LayerNorm; in post-LN squares[-1] is 1
    for kind, s, r in reversed(blocks):
        if order == "post":
            g, h = g / s, h / s
        through = 1 / s if order == "pre" else 1.0  # what the block's own LayerNorm lets through
        if kind == "feed-forward":
            norms.append(width * np.sqrt(n * g / 2 + n * (n - 1) * kappa(r) * h / 2))
            both_open = (np.pi - np.arccos(r)) / (2 * np.pi)
            g, h = g + through * g / 2, h + through * both_open * h
        else:
            m = (g + (n - 1) * h) / n
            g, h = g + through * m, h + through * m
    return np.array(norms[::-1])


# %% [markdown]
# ## Lengths and similarities, measured
#
# The package's own classes, 32 layers of 256 features, 16 tokens, twenty seeds. Black lines are the recursion above,
# markers the measured means, bands from the lowest seed to the highest.

# %%
recipe = gradient_paths.RECIPE
depths, n, width = recipe["depths"], recipe["tokens"], recipe["width"]
runs = load(gradient_paths.STUDY)
orders = {order: STYLES[order, False] for order in ("pre", "post")}


def upwards(order: str, what: str) -> np.ndarray:
    """The stream's mean square, or the similarity, of the deepest model. (seeds, 1 + layers)"""
    return np.array([run[what] for run in select(runs, kind="mean field", order=order)])


def gradients(kind: str, order: str, depth: int) -> np.ndarray:
    """(seeds, layers)"""
    return np.array([run["gradients"][str(depth)] for run in select(runs, kind=kind, order=order)])


deep, layers = depths[-1], np.arange(depths[-1] + 1)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.9))
left.fill_between(layers, 1 + layers / 2, 1 + 1.5 * layers, color=GREY, alpha=0.2, label="lemma 2 for pre-LN")
for order, (colour, marker) in orders.items():
    squares, similar, _ = up(order, deep, n)
    for axes, what, theory in ((left, "stream", squares), (right, "similarity", similar)):
        axes.plot(layers, theory, color=BLACK, marker="", linewidth=1, zorder=3, label="theory" * (order == "post"))
        band(axes, layers, upwards(order, what), f"{order}-LN", colour, marker)
left.set(title="length of the stream", xlabel="after layer", ylabel="mean square of a feature", ylim=(0, 50))
right.set(title="similarity of two tokens", xlabel="after layer", ylabel="mean cosine", ylim=(0, 1.05))
left.legend(loc="upper left", fontsize=9)
right.legend(loc="lower right", fontsize=9)
plt.show()

# %% [markdown]
# The pre-LN stream grows on a line. And in both orders the tokens become alike, but not equally: in post-LN two tokens
# that began orthogonal are almost the same vector after ten layers, since each LayerNorm makes room for the next
# shared vector by shrinking what was there. In pre-LN what a token brought along is never shrunk, only outgrown. That
# attention makes tokens alike, and that skip connections hold against it, is studied by Dong, Cordonnier and Loukas
# 2021 ([arXiv:2103.03404](https://arxiv.org/abs/2103.03404)). Tutorial 4 comes back to it.
#
# ## Gradients near the output, as depth grows
#
# Theorem 1 of Xiong et al. bounds the gradient of the *last* layer's last matrix: with high probability
#
# $$\Big\lVert \frac{\partial \mathcal L}{\partial W^{2,L}} \Big\rVert_F \le
#   \begin{cases} O\big(d \sqrt{\ln d}\big) & \text{post-LN: no } L \text{ in it} \\
#                 O\big(d \sqrt{\ln d / L}\big) & \text{pre-LN: shrinks as } 1/\sqrt L . \end{cases}$$
#
# ($d$ is our $C$; the logarithm is the price of a bound that holds for all entries at once.) Left, the last layer at
# each depth; right, every layer of the deepest model.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.9))
for order, (colour, marker) in orders.items():
    last = np.stack([gradients("mean field", order, depth)[:, -1] for depth in depths], axis=1)
    band(left, depths, last, f"{order}-LN", colour, marker)
    theory = [down(order, depth, n, width)[-1] for depth in depths]
    left.plot(depths, theory, color=BLACK, marker="", linewidth=1, label="theory" * (order == "post"))
    band(right, layers[1:], gradients("mean field", order, deep), f"{order}-LN", colour, marker)
    theory = down(order, deep, n, width)
    right.plot(layers[1:], theory, color=BLACK, marker="", linewidth=1, zorder=3, label="theory" * (order == "post"))
left.plot(depths, 680 / np.sqrt(depths), color=GREY, linestyle="--", marker="", label="slope −1/2")
left.set(
    title="the last layer", xlabel="layers L", ylabel="gradient norm of the last matrix", xscale="log", yscale="log"
)
left.set_xticks(depths, depths, minor=False)
left.minorticks_off()
left.set_yticks([100, 200, 400, 800], [100, 200, 400, 800])
right.set(title=f"every layer of {deep}", xlabel="layer", ylabel="gradient norm of the last matrix", ylim=(0, None))
left.legend(fontsize=9)
right.legend(fontsize=9)
plt.show()

# %%
print(f"{deep} layers; by the recursion, and mean ± standard error over the seeds")
for order in orders:
    norms, theory = gradients("mean field", order, deep), down(order, deep, n, width)
    means, errors = norms.mean(axis=0), norms.std(axis=0, ddof=1) / np.sqrt(len(norms))
    shown = [f"layer {at}: {theory[at - 1]:.0f}, {means[at - 1]:.0f} ± {errors[at - 1]:.0f}" for at in (1, 8, 16, 32)]
    print(f"{order + '-LN':8s}", "   ".join(shown))

# %% [markdown]
# What the theorem says about depth holds: no trend in post-LN, a slope of $-\frac12$ in pre-LN. (What it says about $d$
# is not tested, as we measure at one width.) The recursion gives the constants too, within 5 % in the last layer and
# 10 % in all others.
#
# **Where we differ from the paper.** For the layers below, the paper has an estimate and not a theorem (end of section
# 3.3, and appendix F): likely, the gradients of post-LN decay on the way down, as $(2/3)^{(L-l)/2}$, while those of
# pre-LN are the same in every layer. We find neither, and the recursion says why.
#
# - In post-LN the expected norm is the same in every layer. $\frac23$ is what a LayerNorm does to $g$, and the estimate
#   stops there; but the two paths that meet below it bring $\frac32$. What grows downwards is the spread between seeds,
#   as it must for a product of many random factors. So "post-LN has vanishing gradients" is not true of the fresh
#   model. It comes true in training; see tutorial 4.
# - In pre-LN the norm falls from bottom to top as $1/\sqrt{q_l} \sim 1/\sqrt l$. One layer changes it by a factor near
#   1, as the estimate says, but the factors are $1 + \text{const}/l$, and their product is a power of $l$. At the
#   bottom it is as large as in post-LN, and the layers above take nothing away: layer 8 of 32 gets what layer 8 of 8
#   gets. That the lower layers of a pre-LN model get the larger gradients is also where Shleifer, Weston and Ott 2021
#   begin ([arXiv:2110.09456](https://arxiv.org/abs/2110.09456)).
#
# The paper's own measurement of all layers (its figures 3a and 3b) agrees with its estimate. It is of another quantity,
# the norm of gradients that were first averaged over batches, in a translation model of 6 + 6 layers with another
# initialisation. Averaging alone does not make the difference (exercise 4); what does, we do not know.
#
# ## A model as one would train it
#
# Now without the paper's simplifications: queries and keys are random, the activation is GELU, the feed-forward block
# is four times wider, and the gradients come from the cross entropy of hidden words, in sentences of a small grammar
# (tutorial 6 describes it; 64 features).

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.9))
for order, (colour, marker) in orders.items():
    last = np.stack([gradients("masked lm", order, depth)[:, -1] for depth in depths], axis=1)
    band(left, depths, last, f"{order}-LN", colour, marker)
    band(right, layers[1:], gradients("masked lm", order, deep), f"{order}-LN", colour, marker)
left.set(title="masked language model: the last layer", xlabel="layers L", ylabel="gradient norm of the last matrix")
left.set(xscale="log", yscale="log")
left.set_xticks(depths, depths, minor=False)
left.minorticks_off()
left.set_yticks([0.25, 0.5, 1, 2], [0.25, 0.5, 1, 2])
right.set(title=f"every layer of {deep}", xlabel="layer", ylabel="gradient norm of the last matrix", yscale="log")
right.set_yticks([0.25, 0.5, 1, 2, 4], [0.25, 0.5, 1, 2, 4])
right.minorticks_off()
left.legend(fontsize=9)
right.legend(fontsize=9)
plt.show()

# %% [markdown]
# The same picture, with wider bands: no trend at the top of post-LN, a fall near $1/\sqrt L$ at the top of pre-LN, and
# the same two shapes from layer to layer.
#
# ## With and without warm-up
#
# *Warm-up* means that the learning rate rises from 0 to its largest value over the first steps, usually on a line; the
# first Transformer was trained so (Vaswani et al. 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762), equation
# 3). Xiong et al. look at the gradients of post-LN after the warm-up too, find them much smaller than at the start, and
# take this for a reason why large steps are possible then and not before. In the runs of tutorial 4 (six layers, Adam,
# largest learning rate $10^{-3}$, five seeds):

# %%
training = load(warm_up.STUDY)
ways = {"pre-LN, no warm-up": ("pre", 0), "post-LN, warm-up over 200 steps": ("post", 200)}
ways["post-LN, no warm-up"] = ("post", 0)
looks = warm_up.RECIPE["look_inside"]
top, bottom = {}, {}
figure, panels = plt.subplots(1, 2, figsize=(10.5, 3.9), sharey=True)
for name, (order, warmup) in ways.items():
    colour, marker = STYLES[order, warmup > 0]
    chosen = select(training, order=order, warmup=warmup, learning_rate=1e-3)
    norms = np.array([[run["gradients"][str(step)] for step in looks] for run in chosen])  # (seeds, steps, layers)
    top[name], bottom[name] = norms[..., -1], norms[..., 0]
    band(panels[0], looks, top[name], name, colour, marker)
    band(panels[1], looks, bottom[name], name, colour, marker)
for axes, title in zip(panels, ("last layer", "first layer"), strict=True):
    axes.set(title=title, xlabel="step", xscale="log", yscale="log")
    axes.set_xticks(looks, looks, minor=False)
    axes.minorticks_off()
panels[0].set_ylabel("gradient norm of the last matrix")
panels[1].legend(fontsize=9)
plt.show()

# %% [markdown]
# With warm-up, post-LN's gradient near the output is smaller at the end of the warm-up (step 200) than at the start, on
# every seed, as in the paper. But it is not the warm-up that does this: without it the gradient has fallen further by
# then, also on every seed, and pre-LN's falls likewise.
#
# What sets the run without warm-up apart is not at the top. After twenty steps the gradient of the *first* layer has
# all but vanished, while that of the last one has not, and this the theory of initialisation cannot know. What happened
# in these twenty steps, and what it does to the loss, is tutorial 4.
#
# ## The first seed again
#
# All of seed 0, measured on this machine:

# %%
words = Words(little_grammar())
live = [
    (setting, gradient_paths.run(words, seed=0, **setting), select(runs, **setting)[0])
    for setting in gradient_paths.SETTINGS
]
differences = [
    np.max(np.abs(np.divide(ours["gradients"][str(depth)], committed["gradients"][str(depth)]) - 1))
    for _, ours, committed in live
    for depth in depths
]
print(f"largest relative difference from the committed gradient norms: {max(differences):.1e}")

# %% [markdown]
# ## Exercises
#
# 1. Why does post-LN need no final LayerNorm, and what would happen to a pre-LN model without one, at $L = 32$?
# 2. From the recursion: what do $q_L$ and the gradient of the last layer become when each block of pre-LN is scaled by
#    $1/\sqrt{2L}$, as GPT-2 scales the weights at its start? Compute and compare.
# 3. Set $n = 1$ (one token: no attention to speak of). What are the similarities then, and the gradients? Which of the
#    two figures changes, and why?
# 4. Measure as the paper's figures 3a and 3b do: average the gradients of a masked language model of 12 layers over
#    some batches, and take the norm of the mean. Do the gradients of post-LN fall on the way down now?
#
# Answers: [solutions/03_two_orders.py](solutions/03_two_orders.py).
#
# ## What was claimed, asserted

# %%
assert np.array_equal(y_pre, x)
assert abs(np.linalg.norm(y_post) / np.linalg.norm(x) - 1 / 3) < 0.02
assert abs(np.linalg.norm(dx_post) / np.linalg.norm(dy) - 1 / 3) < 0.02
assert np.allclose(y_post, layer_norm(x, *gain_and_bias, 1e-5)[0])

assert all(len(select(runs, **setting)) >= 5 for setting in gradient_paths.SETTINGS)
for order in orders:
    squares, similar, _ = up(order, deep, n)
    assert np.allclose(upwards(order, "stream").mean(axis=0), squares, rtol=0.1)
    assert np.allclose(upwards(order, "similarity").mean(axis=0), similar, rtol=0, atol=0.05)
    for depth in depths:
        norms = gradients("mean field", order, depth).mean(axis=0)
        assert np.allclose(norms[-1], down(order, depth, n, width)[-1], rtol=0.05), "near the output"
        assert np.allclose(norms, down(order, depth, n, width), rtol=0.1), "every layer"
pre_stream = upwards("pre", "stream").mean(axis=0)
assert (pre_stream >= 1 + layers / 2 - 1e-3).all(), "lemma 2"
assert (pre_stream <= 1 + 1.5 * layers + 1e-3).all()
similarity = {order: upwards(order, "similarity").mean(axis=0) for order in orders}
assert similarity["post"][10] > 0.99 > 0.75 > similarity["pre"][10]
assert (similarity["post"][1:] > similarity["pre"][1:]).all()


def slope(x: list[int] | np.ndarray, norms: np.ndarray) -> float:
    """Exponent of the mean norm in x. norms (seeds, points)."""
    return np.polyfit(np.log(x), np.log(norms.mean(axis=0)), 1)[0]


def last_layers(kind: str, order: str) -> np.ndarray:
    return np.stack([gradients(kind, order, depth)[:, -1] for depth in depths], axis=1)  # (seeds, depths)


for kind in ("mean field", "masked lm"):
    assert abs(slope(depths, last_layers(kind, "pre")) + 0.5) < 0.05, "theorem 1, pre-LN"
    assert abs(slope(depths, last_layers(kind, "post"))) < 0.05, "theorem 1, post-LN"
    pre, post = gradients(kind, "pre", deep), gradients(kind, "post", deep)
    assert abs(slope(layers[1:], pre) + 0.5) < 0.1, "pre-LN falls as the root of the layer, and is not the same in all"
    at_its_depth = pre[:, np.array(depths) - 1].mean(axis=0)
    assert np.allclose(last_layers(kind, "pre").mean(axis=0), at_its_depth, rtol=0.15), "whatever is above"
    assert post.mean(axis=0).min() > 0.9 * post.mean(axis=0)[-1], "nothing vanishes in a fresh post-LN model"
    assert post[:, 0].std() > 2 * post[:, -1].std(), "but the spread between seeds grows on the way down"
bottom_of = {order: gradients("mean field", order, deep)[:, 0].mean() for order in orders}
assert abs(bottom_of["pre"] / bottom_of["post"] - 1) < 0.15, "both orders alike at the bottom"

warm, cold = "post-LN, warm-up over 200 steps", "post-LN, no warm-up"
step = {number: index for index, number in enumerate(looks)}
for name in ways:
    assert (top[name][:, step[200]] < top[name][:, step[1]]).all(), "smaller after 200 steps, with warm-up or without"
assert (top[cold][:, step[200]] < top[warm][:, step[200]]).all(), "and without it smaller still"
assert (bottom[cold][:, step[20]] < 0.2 * bottom[cold][:, step[1]]).all()
assert (bottom[cold][:, step[20]] < 0.2 * top[cold][:, step[20]]).all(), "it vanishes on the way down"
assert max(differences) < 1e-4, "live as committed"
