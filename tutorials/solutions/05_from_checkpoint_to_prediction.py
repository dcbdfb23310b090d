# %% [markdown]
# # Solutions to tutorial 5: from checkpoint to prediction

# %%
import numpy as np

import npprelnorm as nl

folder = nl.embedded_model_path()
tokenizer = nl.Tokenizer.from_pretrained(folder)
model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype="float64")
p = {name.removeprefix("roberta_prelayernorm."): array for name, array in model.params.items()}
ids = tokenizer(["The capital of France is <mask>."])["input_ids"][0]
at = int(np.flatnonzero(ids == tokenizer.mask_token_id)[0])

# %% [markdown]
# ## 1. The forward, in NumPy
#
# One text without padding, so no mask is needed. Only the gelu of the head needs a function that NumPy lacks; for one
# vector of 128 numbers `math.erf` will do. We keep every part that is added to the stream, for the second exercise.

# %%
from math import erf, sqrt  # noqa: E402


def norm(x: np.ndarray, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * p[name + ".weight"] + p[name + ".bias"]


def linear(x: np.ndarray, name: str) -> np.ndarray:
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def attend(u: np.ndarray, name: str) -> np.ndarray:
    q, k, v = (linear(u, f"{name}.self.{n}").reshape(-1, 4, 32).swapaxes(0, 1) for n in ("query", "key", "value"))
    e = np.exp(q @ k.swapaxes(1, 2) / sqrt(32))  # (H, T, S)
    context = e / e.sum(axis=-1, keepdims=True) @ v  # (H, T, D)
    return linear(context.swapaxes(0, 1).reshape(len(u), -1), name + ".output.dense")


def head(x: np.ndarray) -> np.ndarray:
    x = linear(x, "lm_head.dense")
    x = norm(x * [(1 + erf(value / sqrt(2))) / 2 for value in x], "lm_head.layer_norm")
    return x @ p["embeddings.word_embeddings.weight"].T + p["lm_head.bias"]


x = p["embeddings.word_embeddings.weight"][ids] + p["embeddings.position_embeddings.weight"][2 : 2 + len(ids)]
x = norm(x + p["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
parts = {"embeddings": x[at]}
for i in range(4):
    name = f"encoder.layer.{i}"
    added = attend(norm(x, name + ".attention.LayerNorm"), name + ".attention")
    x, parts[f"attention {i}"] = x + added, added[at]
    inner = linear(norm(x, name + ".intermediate.LayerNorm"), name + ".intermediate.dense")
    added = linear(np.maximum(inner, 0), name + ".output.dense")
    x, parts[f"feed-forward {i}"] = x + added, added[at]
logits = head(norm(x, "LayerNorm")[at])
assert np.allclose(logits, model(input_ids=ids[None]).logits[0, at], rtol=0, atol=1e-10)

# %% [markdown]
# ## 2. Who speaks for Paris?
#
# The stream is the sum of the nine parts, but the final LayerNorm and the head are not linear, so the logit is no sum
# of nine shares. Two ways out. The *derivative* along each part is linear; but stretching the whole stream changes
# nothing (tutorial 1), so these shares always add up to 0, and a part can be large and its share small. Or take one
# part away and look at what is left, which is what a part is worth given all the others.

# %%
paris = tokenizer.token_to_id("ĠParis")
total = sum(parts.values())
assert np.allclose(total, x[at], rtol=0, atol=1e-12)


def preference(stream: np.ndarray) -> float:
    """The logit of Paris, less the mean logit."""
    z = head(norm(stream, "LayerNorm"))
    return float(z[paris] - z.mean())


h = 1e-4
share = {n: (preference(total + h * v) - preference(total - h * v)) / (2 * h) for n, v in parts.items()}
worth = {name: preference(total) - preference(total - part) for name, part in parts.items()}
for name, value in sorted(worth.items(), key=lambda item: -item[1]):
    print(f"{name:15s} worth {value:+7.2f}   derivative {share[name]:+.2f}   norm {np.linalg.norm(parts[name]):6.1f}")
assert abs(sum(share.values())) < 1e-3 * max(np.abs(list(share.values()))), "they cancel"
assert max(share, key=share.get) != max(worth, key=worth.get), "and so do not tell what a part is worth"
print(f"all together worth {sum(worth.values()):.1f}, of a preference of {preference(total):.1f}")

# %% [markdown]
# The last layer's attention speaks most for Paris. Two of its four heads look at the country. The worths do not add up
# to the whole either: they say what is lost without one part while the others are there, and the others make up for
# much of it.

# %%
looks = nl.inspect.trace(model, input_ids=ids[None])["encoder.layer.3.attention.self.weights"].value[0, :, at]  # (H, T)
at_france = looks[:, list(ids).index(tokenizer.token_to_id("ĠFrance"))]
print("the last layer's heads look at France with", np.round(at_france, 2))
assert max(worth, key=worth.get) == "attention 3"
assert np.count_nonzero(at_france > 0.8) == 2
assert sum(worth.values()) < preference(total) / 2

# %% [markdown]
# ## 3. A real model
#
# `npprelnorm verify andreasmadsen/efficient_mlm_m0.40` compares with the nine published logits and nine hidden values,
# to 1e-4. The file is 1.4 GB, so this file does not do it for you.
