# %% [markdown]
# # Solutions to tutorial 3

# %%
import sys

import numpy as np

sys.path += ["..", "tutorials"]  # where this may be run: in its own folder, or in the repository's
from studies.corpus import Words, little_grammar, masked_batch
from studies.orders import MASKED_LMS, by_layer, config_of

N, WIDTH, DEPTH = 16, 256, 32

# %% [markdown]
# ## 1. The final LayerNorm
#
# Post-LN's last operation is a LayerNorm already. Without one, the output of pre-LN would have the length of the
# stream, $\sqrt{q_L}$ times that of a normalised vector: 6 times at $L = 32$. Logits that are as many times larger make
# a fresh model sure of itself and wrong: its loss is no longer near $\ln V$, that of a guess among $V$ words. And the
# gradient at the top would begin with $g = 1$ in place of $1/q_L$, so the last layer's would not shrink with depth: the
# $1/\sqrt L$ of theorem 1 comes from this one LayerNorm.


# %%
def kappa(r: float) -> float:
    return (np.sqrt(1 - r * r) + r * (np.pi - np.arccos(r))) / np.pi


def pre_ln(depth: int, n: int, scale: float = 1.0) -> tuple[float, float, list[float]]:
    """q_L, the expected gradient norm of the last matrix, and the similarities; blocks are multiplied by `scale`."""
    q, c, similar = 1.0, 0.0, [0.0]
    for kind in ("attention", "feed-forward") * depth:
        r = c / q
        m = (1 + (n - 1) * r) / n
        added = (m, m) if kind == "attention" else (0.5, 0.5 * kappa(r))
        q, c = q + scale**2 * added[0], c + scale**2 * added[1]
        if kind == "feed-forward":
            similar.append(c / q)
    # the last matrix stands before the scale: what reaches it is scaled as well
    return q, scale * WIDTH * np.sqrt(n / (2 * q)), similar


length = np.sqrt(pre_ln(DEPTH, N)[0])
print(f"length of the stream after {DEPTH} layers: {length:.1f} times that of a normalised vector")
assert 6 < length < 7

logits = np.random.default_rng(0).standard_normal((500, 1000))  # 500 places, 1000 words, whichever word is right
losses = {scale: np.mean(np.log(np.exp(scale * logits).sum(axis=1)) - scale * logits[:, 0]) for scale in (1.0, length)}
print("loss of a fresh model:", {f"{scale:.1f}": round(float(loss), 2) for scale, loss in losses.items()})
assert losses[1.0] < np.log(1000) + 0.6 < 2 * np.log(1000) < losses[length]

shrinking = [pre_ln(depth, N)[1] for depth in (2, 8, 32)]
without = [last * np.sqrt(pre_ln(depth, N)[0]) for last, depth in zip(shrinking, (2, 8, 32), strict=True)]
assert shrinking[0] > 4 * shrinking[2]
assert np.allclose(without, without[0], rtol=1e-12), "g = 1 at the top: no depth in it"

# %% [markdown]
# ## 2. Blocks scaled by $1/\sqrt{2L}$
#
# There are $2L$ blocks, and each adds at most 1 to $q$ before scaling, so now all together add at most 1: $1 \le q_L
# \le 2$ at any depth. The final LayerNorm then divides by a constant. But the factor stands between the last matrix and
# the loss too, and takes the $1/\sqrt L$ to where it acts on every layer in place of the top alone.

# %%
for depth in (2, 8, 32):
    plain, scaled = pre_ln(depth, N), pre_ln(depth, N, 1 / np.sqrt(2 * depth))
    print(f"L = {depth:2d}: q_L {plain[0]:.1f} -> {scaled[0]:.2f}, last gradient {plain[1]:.0f} -> {scaled[1]:.0f}")
    assert 1 < scaled[0] < 2
    assert scaled[1] < plain[1]

# %% [markdown]
# ## 3. One token
#
# With $n = 1$ there is no other token to be alike. Attention still adds something: the mean of one token is the token
# itself, so $m = 1$ from the first layer on, and $q$ grows by exactly $\frac32$ a layer, the upper bound of lemma 2. So
# the figure of lengths changes (the line becomes the upper edge of the grey band) and the one of similarities has
# nothing to show. The gradient at the top of pre-LN, $C\sqrt{n/(2q_L)}$, is smaller for two reasons: there is one token
# to add it up over in place of 16, and a token's share is smaller as $q_L$ is larger. In post-LN only the first
# applies.

# %%
for depth in (2, 8, 32):
    (length, last, _), (length_16, last_16, _) = pre_ln(depth, 1), pre_ln(depth, N)
    print(f"L = {depth:2d}: q_L {length_16:.1f} -> {length:.1f}, last gradient {last_16:.0f} -> {last:.0f}")
    assert np.isclose(length, 1 + 1.5 * depth)
    assert last < last_16 / np.sqrt(N), "also for each token"

# %% [markdown]
# ## 4. The norm of a mean
#
# Averaging takes away what differs between batches, and that is a share of the gradient which is nearly the same in
# every layer. $(2/3)^{(L-l)/2}$ would leave a tenth of the gradient after 11 layers.


# %%
def norms(order: str, seed: int) -> np.ndarray:
    """Mean norm over 8 batches, and norm of the mean, of each of 12 layers. (2, 12)"""
    model = MASKED_LMS[order](config_of(order, 12, 64, len(words), intermediate_size=256), rng=seed, dtype="float64")
    single, total = [], {name: np.zeros_like(value) for name, value in model.params.items()}
    for number in range(8):
        ids = words.encode(words.grammar.sentences(32, 100 * seed + number))
        batch = masked_batch(ids, 0.4, np.random.default_rng([seed, number]))
        _, grads = model.loss_and_grads(**batch._asdict(), labelled_only=True)
        single.append(by_layer(grads, 12))
        for name, gradient in grads.items():
            total[name] += gradient / 8
    return np.array([np.mean(single, axis=0), by_layer(total, 12)])


words = Words(little_grammar())
for order in ("pre", "post"):
    each, mean = np.mean([norms(order, seed) for seed in range(4)], axis=0)
    print(f"{order}-LN, lowest by highest layer: {each[0] / each[-1]:.2f}, of the mean {mean[0] / mean[-1]:.2f}")
    assert abs(mean[0] / mean[-1] / (each[0] / each[-1]) - 1) < 0.15, "averaging changes the picture little"
    assert mean[0] / mean[-1] > {"pre": 2, "post": 0.7}[order]
