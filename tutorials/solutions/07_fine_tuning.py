# %% [markdown]
# # Solutions to tutorial 7: fine-tuning a head by hand

# %%
import numpy as np

import npprelnorm as nl
from npprelnorm.smallworld.world import COUNTRIES
from npprelnorm.training.optimizer import AdamW

folder = nl.embedded_model_path()
tokenizer = nl.Tokenizer.from_pretrained(folder)
body = nl.RobertaPreLayerNormModel.from_pretrained(folder, dtype="float64")
frames = ("She lives in {}.", "We flew to {}.", "The map of {} is old.", "He was born in {}.")
batch = tokenizer([frame.format(row[0]) for row in COUNTRIES.rows for frame in frames], padding=True)
country_of = np.repeat(np.arange(28), 4)
y = np.array([row[2] == "Europe" for row in COUNTRIES.rows])[country_of].astype(int)
folds = np.random.default_rng(0).permutation(28).reshape(7, 4)
states = body(**batch).last_hidden_state  # (N, T, C)

# %% [markdown]
# ## 1. The mean over the tokens
#
# The mask decides what counts: the sum of the real rows, over their number. A linear head is enough to compare.

# %%
real = batch["attention_mask"][..., None]  # (N, T, 1)
pooled = {"<s>": states[:, 0], "mean": (states * real).sum(axis=1) / real.sum(axis=1)}  # (N, C)
right = {}
for name, h in pooled.items():
    answers = []
    for fold in folds:
        new = np.isin(country_of, fold)
        x = (h - h[~new].mean(axis=0)) / h[~new].std(axis=0)
        w, b = np.zeros(x.shape[1]), 0.0
        for _ in range(300):
            dz = (1 / (1 + np.exp(-(x[~new] @ w + b))) - y[~new]) / np.count_nonzero(~new)
            w, b = w - 0.1 * dz @ x[~new], b - 0.1 * dz.sum()
        answers.append(((x[new] @ w + b > 0) == y[new]).mean())
    right[name] = float(np.mean(answers))
print({name: f"{share:.1%}" for name, share in right.items()})
assert min(right.values()) > 0.6
assert abs(right["<s>"] - right["mean"]) < 1 / 28

# %% [markdown]
# Neither: they differ by less than one country of 28, and dealing the countries out anew changes more than that. Does
# the padding really not count? The mean of a text in the batch is that of the text alone:

# %%
alone = tokenizer([frames[0].format("Cuba")])
one = body(**alone).last_hidden_state.mean(axis=1)[0]
row = next(i for i, c in enumerate(COUNTRIES.rows) if c[0] == "Cuba") * 4
assert np.allclose(pooled["mean"][row], one, rtol=0, atol=1e-12), "padding does not count"

# %% [markdown]
# ## 2. The short gradient
#
# $L = -z_y + \ln\sum_k e^{z_k}$ for one example, so $\partial L/\partial z_k = -\delta_{ky} + p_k$. With the squared
# error $\sum_k (p_k - \delta_{ky})^2$ the gradient passes the softmax, $p_k(\dots)$, and vanishes where $p$ is nearly
# one-hot, right or wrong: the worst mistakes teach nothing.

# %%
for certain in (1.0, 4.0, 16.0):
    z = np.array([certain, 0.0])  # sure of class 0, but class 1 is right
    p = np.exp(z) / np.exp(z).sum()
    dp = 2 * (p - [0, 1])
    squared = p * (dp - (dp * p).sum())  # the softmax backward of tutorial 2
    cross = p - [0, 1]
    print(f"p of the wrong class {p[0]:.6f}: {np.abs(cross).max():.6f} and {np.abs(squared).max():.6f}")
assert np.abs(cross).max() > 0.99
assert np.abs(squared).max() < 1e-5

# %% [markdown]
# ## 3. Adam
#
# Running means $m$ and $v$ of the gradient and of its square, both divided by $1 - \beta^t$ because they started at 0.

# %%
rng = np.random.default_rng(3)
w = {"w": rng.standard_normal(5)}
ours, m, v = w["w"].copy(), np.zeros(5), np.zeros(5)
optimizer = AdamW(w, weight_decay=0.0)
for t in range(1, 51):
    gradient = 2 * ours + rng.standard_normal(5)  # of a quadratic, with noise
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    optimizer.step(w, {"w": gradient}, 0.01)
    ours = ours - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
assert np.allclose(ours, w["w"], rtol=0, atol=1e-12)
