# %% [markdown]
# # Solutions to tutorial 8: seven bugs

# %%
import copy

import numpy as np

import npprelnorm as nl

folder = nl.embedded_model_path()
model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype="float64")
tokenizer = nl.Tokenizer.from_pretrained(folder)
batch = tokenizer(["The capital of France is <mask>."])
right = model(**batch, output_hidden_states=True)

# %% [markdown]
# ## 1. The unbiased variance
#
# Dividing by $C - 1$ multiplies every variance by $C/(C-1)$. Up to $\varepsilon$ that is the same as multiplying every
# gain by $\sqrt{(C-1)/C}$, so that no line of code has to change. With $C = 128$ that is 0.4 % in every LayerNorm.

# %%
biased = copy.deepcopy(model)
for name, array in model.params.items():
    if name.lower().replace("_", "").endswith("layernorm.weight"):
        biased.params[name] = array * np.sqrt(127 / 128)
difference = np.abs(biased(**batch).logits - right.logits).max() / np.abs(right.logits).max()
print(f"largest difference: {difference:.2%} of the largest logit")
assert 2e-5 < difference < 2e-2
assert (biased(**batch).logits.argmax(axis=-1) == right.logits.argmax(axis=-1)).all()

# %% [markdown]
# Only parity finds it: the answers, padding, names and (with a backward that belongs to it) gradients are as they
# should be. Whether a *loose* bound notices depends on the text, which is reason enough not to use one.
#
# ## 2. One number for all forward bugs
#
# The logits depend on every step of the forward, so any deviation arrives there, unless the function itself does not
# depend on it (like the key bias of tutorial 2, which is then no bug). The largest absolute difference is 0 only if all
# are equal. It says that something is wrong, and not where; for that, compare layer by layer, and look for the first
# that differs:

# %%
broken = copy.deepcopy(model)
name = "roberta_prelayernorm.encoder.layer.2.intermediate.dense.bias"
broken.params[name] = model.params[name] + 0.01
states = broken(**batch, output_hidden_states=True).hidden_states
differences = [float(np.abs(a - b).max()) for a, b in zip(states, right.hidden_states, strict=True)]
print("after the embeddings and each layer:", [f"{d:.1e}" for d in differences])
assert differences[:3] == [0.0, 0.0, 0.0]
assert min(differences[3:]) > 1e-4, "the bug is in the third layer, index 2"

# %% [markdown]
# ## 3. Where bugs hide
#
# A batch of texts of one length has no padding, so a forgotten mask changes nothing: never test with one text, or with
# equal ones.

# %%
equal = tokenizer(["The dog barks.", "The cat purrs."])
assert equal["attention_mask"].all()
with_mask, without = model(**equal), model(input_ids=equal["input_ids"])
assert np.array_equal(with_mask.logits, without.logits)

# %% [markdown]
# And positions that are off do not matter to a model whose position table has equal rows. A freshly drawn model whose
# table is still near 0 comes close to that; random models are poor witnesses for positions.

# %%
flat = copy.deepcopy(model)
table = "roberta_prelayernorm.embeddings.position_embeddings.weight"
flat.params[table] = np.broadcast_to(model.params[table][2], model.params[table].shape).copy()
tokens = batch["input_ids"].shape[1]
shifted = flat(**batch, position_ids=np.arange(tokens)[None])
assert np.array_equal(shifted.logits, flat(**batch).logits)
assert np.abs(model(**batch, position_ids=np.arange(tokens)[None]).logits - right.logits).max() > 1
