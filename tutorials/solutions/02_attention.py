# %% [markdown]
# # Solutions to tutorial 2: attention

# %%
import numpy as np

import npprelnorm as nl

rng = np.random.default_rng(1)

# %% [markdown]
# ## 1. What it costs
#
# Four projections of $T$ rows, each $C \times C$: $4TC^2$ multiplications. Scores: for each of $H$ heads $T \cdot T$
# products of $D$ terms, $H \cdot T^2 D = T^2C$; the average as many. So $2T^2C$, which is more than $4TC^2$ when $T >
# 2C$: 1536 tokens for RoBERTa-base, three times what it accepts. (The feed-forward block, $8TC^2$ with $F = 4C$, is
# dearer still.) For texts of usual length the square of attention is not the problem that it is said to be.

# %%
C = 768
projections, attention = (lambda T: 4 * T * C**2), (lambda T: 2 * T**2 * C)
assert projections(2 * C) == attention(2 * C)
assert attention(512) < projections(512) < 3.1 * attention(512)

# %% [markdown]
# ## 2. One vector added to all keys
#
# $q \cdot (k_s + b) = q \cdot k_s + q \cdot b$: the same number is added to a whole row of scores, and the softmax
# ignores it. So the bias of the key projection changes nothing, and its gradient is 0: the model has $C$ parameters in
# each layer that do nothing.

# %%
folder = nl.embedded_model_path()
model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype="float64")
batch = nl.Tokenizer.from_pretrained(folder)(["The dog <mask>.", "The capital of Peru is Lima."], padding=True)
out, grads = model.loss_and_grads(**batch, labels=batch["input_ids"])
norms = {}
for part in ("query", "key", "value"):
    name = f"roberta_prelayernorm.encoder.layer.0.attention.self.{part}.bias"
    norms[part] = float(np.linalg.norm(grads[name]))
    if part == "key":
        model.params[name] += 1.0
print(norms)
assert norms["key"] < 1e-12 < 1e-4 < min(norms["query"], norms["value"])
assert np.allclose(model(**batch).logits, out.logits, rtol=0, atol=1e-9)

# %% [markdown]
# ## 3. In blocks
#
# For each query keep the largest score so far $m$, the sum $z = \sum_s e^{a_s - m}$ and the unnormalised average
# $n = \sum_s e^{a_s - m}v_s$. A block with a larger maximum $m'$ first multiplies both by $e^{m - m'}$.

# %%
T, D, block = 7, 4, 3
q, k, v = rng.standard_normal((3, T, D)) * 3
m, z, n = np.full((T, 1), -np.inf), np.zeros((T, 1)), np.zeros((T, D))
for start in range(0, T, block):
    a = q @ k[start : start + block].T / np.sqrt(D)  # (T, block): the whole (T, T) never exists
    new = np.maximum(m, a.max(axis=1, keepdims=True))
    e = np.exp(a - new)
    z = z * np.exp(m - new) + e.sum(axis=1, keepdims=True)
    n = n * np.exp(m - new) + e @ v[start : start + block]
    m = new

e = np.exp(q @ k.T / np.sqrt(D))
assert np.allclose(n / z, e / e.sum(axis=1, keepdims=True) @ v, rtol=0, atol=1e-13)
