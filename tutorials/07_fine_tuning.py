# %% [markdown]
# # 7. Fine-tuning a head by hand
#
# The gradients of tutorials 1 and 2 were checked; now they work. We take the small pretrained model, put a classifier
# of our own on it, write its forward and backward in a dozen lines, train it, hold it against the package, and then
# carry the gradient by hand one step further down, into the model. The question is one that none of our sentences
# answers: *is this country in Europe?*, and it is asked about countries that the classifier has never seen.
#
# You need: tutorials 1 and 5; softmax and cross entropy. Running it takes about twenty seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, BLUE, GREEN, GREY, ORANGE

import npprelnorm as nl
from npprelnorm.smallworld.world import COUNTRIES

folder = nl.embedded_model_path()
tokenizer = nl.Tokenizer.from_pretrained(folder)
rng = np.random.default_rng(0)

# %% [markdown]
# ## The task
#
# Twenty-eight countries, each in four sentences that say nothing about where it lies. The label is 1 for Europe. We
# train on some countries and test on others: what a classifier then gets right it cannot have learnt from our labels
# alone. It must read it out of what the model learnt in pretraining (where "Chile lies in `<mask>`" occurred).

# %%
FRAMES = ("She lives in {}.", "We flew to {}.", "The map of {} is old.", "He was born in {}.")
countries = [row[0] for row in COUNTRIES.rows]
in_europe = np.array([row[2] == "Europe" for row in COUNTRIES.rows])
texts = [frame.format(country) for country in countries for frame in FRAMES]
country_of = np.repeat(np.arange(len(countries)), len(FRAMES))  # (N,)
y = in_europe[country_of].astype(int)  # (N,)
folds = rng.permutation(len(countries)).reshape(7, 4)  # 7 times, 4 countries are held out
batch = tokenizer(texts, padding=True)
N, K = len(texts), 2
print(f"{N} sentences, {y.mean():.0%} of them about Europe; for example: {texts[0]!r}, {texts[-1]!r}")

# %% [markdown]
# ## What the head sees
#
# A classifier on RoBERTa reads the last hidden state of the first token, `<s>`: one vector $h \in \mathbb{R}^{128}$ for
# each text. The body stays frozen, so these vectors are computed once. To see whether the pretraining matters we take
# them from a model with fresh weights too. Below, both along their two main directions: the clusters are the four
# frames, and where Europe is cannot be seen in either.

# %%
config = nl.RobertaPreLayerNormConfig.from_pretrained(folder, num_labels=K)
bodies = {
    "pretrained": nl.RobertaPreLayerNormModel.from_pretrained(folder, dtype="float64"),
    "fresh": nl.RobertaPreLayerNormModel(config, add_pooling_layer=False, rng=0, dtype="float64"),
}
vectors = {name: body(**batch).last_hidden_state[:, 0] for name, body in bodies.items()}  # (N, C)

figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
for axes, (name, h) in zip(panels, vectors.items(), strict=True):
    directions = np.linalg.svd(h - h.mean(axis=0), full_matrices=False)[2]
    flat = (h - h.mean(axis=0)) @ directions[:2].T  # (N, 2)
    for label, colour, marker, word in ((1, BLUE, "o", "Europe"), (0, ORANGE, "s", "elsewhere")):
        axes.scatter(*flat[y == label].T, s=22, color=colour, marker=marker, label=word)
    axes.set(title=f"{name}: the vectors of <s>", xlabel="first main direction", ylabel="second main direction")
panels[0].legend(fontsize=9)
plt.show()

# %% [markdown]
# ## Forward and backward
#
# The head of `RobertaPreLayerNormForSequenceClassification` is two linear maps with a tanh between them:
#
# $$a = \tanh(hW_1^\top + b_1), \qquad z = aW_2^\top + b_2, \qquad
#   L = -\frac1N \sum_n \ln \operatorname{softmax}(z_n)_{y_n} .$$
#
# The gradient of softmax and cross entropy together is the famous short one, $dz = (p - \text{onehot}(y))/N$. Each
# further line undoes one line of the forward, from the last to the first; $\tanh' = 1 - a^2$.

# %%
Head = dict[str, np.ndarray]


def forward(head: Head, h: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, p (N, K) and a (N, C)."""
    a = np.tanh(h @ head["W1"].T + head["b1"])  # (N, C)
    z = a @ head["W2"].T + head["b2"]  # (N, C) -> (N, K)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return float(-np.log(p[np.arange(len(y)), y]).mean()), p, a


def backward(head: Head, h: np.ndarray, y: np.ndarray, p: np.ndarray, a: np.ndarray) -> tuple[Head, np.ndarray]:
    """The gradients of the head, and dh (N, C), which goes on into the body."""
    dz = (p - np.eye(K)[y]) / len(y)  # undoes softmax and cross entropy
    da = dz @ head["W2"]  # undoes z = a W2^T + b2
    ds = da * (1 - a**2)  # undoes a = tanh(s)
    gradients = {"W2": dz.T @ a, "b2": dz.sum(axis=0), "W1": ds.T @ h, "b1": ds.sum(axis=0)}
    return gradients, ds @ head["W1"]  # undoes s = h W1^T + b1


# %% [markdown]
# ## Checked before it is used
#
# Twice: by the slope along a random direction (tutorial 1), and against the package, whose own backward is held against
# torch's in its tests. `frozen` tells the package to stop below the head.

# %%
model = nl.RobertaPreLayerNormForSequenceClassification(config, rng=1, dtype="float64")
model.params.update({f"roberta_prelayernorm.{name}": array for name, array in bodies["pretrained"].params.items()})
NAMES = {"W1": "classifier.dense.weight", "b1": "classifier.dense.bias", "W2": "classifier.out_proj.weight",
         "b2": "classifier.out_proj.bias"}  # fmt: skip
start = {ours: model.params[theirs] for ours, theirs in NAMES.items()}
h = vectors["pretrained"]

loss, p, a = forward(start, h, y)
gradients, dh = backward(start, h, y, p, a)
out, theirs = model.loss_and_grads(**batch, labels=y, frozen=["roberta_prelayernorm.*"])
against_package = max(np.abs(gradients[n] - theirs[NAMES[n]]).max() for n in NAMES)

d = {name: rng.standard_normal(array.shape) for name, array in start.items()}
ahead, behind = ({n: start[n] + step * d[n] for n in start} for step in (1e-6, -1e-6))
slope = (forward(ahead, h, y)[0] - forward(behind, h, y)[0]) / 2e-6
size = np.sqrt(sum((g**2).sum() for g in gradients.values()))
slope_error = abs(slope - sum((gradients[n] * d[n]).sum() for n in d)) / size
print(f"loss {loss:.4f}, the package's {float(out.loss):.4f}")
print(f"largest difference of a gradient: {against_package:.1e}; gradient check: {slope_error:.1e}")

# %% [markdown]
# ## Training
#
# Plain gradient descent, all training sentences at once, 300 steps. For each of the seven folds we train a new head on
# 24 countries and test it on the other four. The vectors are first brought to mean 0 and variance 1 over the training
# sentences, feature by feature, so that one learning rate suits both bodies.


# %%
def train(h: np.ndarray, held_out: np.ndarray, steps: int = 300, rate: float = 0.1) -> dict[str, list[float]]:
    """Loss, and shares of right answers, before each step. h (N, C); held_out (N,) bool."""
    known = ~held_out
    h = (h - h[known].mean(axis=0)) / (h[known].std(axis=0) + 1e-6)
    head, history = dict(start), {"loss": [], "known": [], "new": []}
    for _ in range(steps):
        loss, p, a = forward(head, h[known], y[known])
        gradients, _ = backward(head, h[known], y[known], p, a)
        history["loss"].append(loss)
        history["known"].append((p.argmax(axis=1) == y[known]).mean())
        history["new"].append((forward(head, h[held_out], y[held_out])[1].argmax(axis=1) == y[held_out]).mean())
        head = {name: head[name] - rate * gradients[name] for name in head}
    return history


runs = {name: [train(h, np.isin(country_of, fold)) for fold in folds] for name, h in vectors.items()}
curves = {name: {k: np.array([r[k] for r in rs]) for k in ("loss", "known", "new")} for name, rs in runs.items()}
for name, curve in curves.items():
    print(
        f"{name}: known countries {curve['known'][:, -1].mean():.1%} right, new ones {curve['new'][:, -1].mean():.1%}"
    )

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 3.3))
titles = {"loss": "training loss", "known": "known countries", "new": "new countries"}
for axes, (key, title) in zip(panels, titles.items(), strict=True):
    for (name, curve), colour, style in zip(curves.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
        middle, error = curve[key].mean(axis=0), curve[key].std(axis=0, ddof=1) / np.sqrt(len(folds))
        axes.plot(middle, color=colour, linestyle=style, marker="", label=f"{name} body")
        axes.fill_between(np.arange(300), middle - error, middle + error, color=colour, alpha=0.15)
    axes.set(title=title, xlabel="step", ylabel="loss (nats)" if key == "loss" else "share right")
    if key != "loss":
        axes.set_ylim(0, 1.05)
        axes.axhline(y.mean(), color=BLACK, linestyle=":", label="always “Europe”")
panels[2].legend(fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# Line: mean of the seven folds; band: its standard error. Both heads learn their training sentences by heart. Only
# the one on the pretrained body answers for new countries; on the fresh body, a country that was not in the training
# data is a random vector, and the head does no better than the share of Europe.
#
# Twenty-eight countries are few, and each fold asks for four. How much of this is luck in how they were dealt out? Four
# more deals:

# %%
deals = [rng.permutation(len(countries)).reshape(7, 4) for _ in range(4)]
dealt = {
    name: [np.mean([train(h, np.isin(country_of, fold))["new"][-1] for fold in deal]) for deal in deals]
    for name, h in vectors.items()
}
for name, shares in dealt.items():
    print(f"{name}: new countries", ", ".join(f"{share:.1%}" for share in shares))

# %% [markdown]
# ## One step further down, by hand
#
# `backward` also returns $dh$, the gradient of the vectors themselves. To train the body it would now go through the
# final LayerNorm, with the formula of tutorial 1:
#
# $$dx = \frac1s\Big(g - \operatorname{mean}(g) - \hat x\,\operatorname{mean}(g \odot \hat x)\Big),
#   \quad g = \gamma \odot dh .$$
#
# We recompute $\hat x$ from the residual stream before that LayerNorm (`hidden_states_convention="v4"` returns it), and
# compare with the package, which is now asked for the whole body.

# %%
body = bodies["pretrained"]
stream = body(**batch, output_hidden_states=True, hidden_states_convention="v4").hidden_states[-1][:, 0]  # (N, C)
s = np.sqrt(stream.var(axis=1, keepdims=True) + config.layer_norm_eps)
x_hat = (stream - stream.mean(axis=1, keepdims=True)) / s
g = dh * body.params["LayerNorm.weight"]
dx = (g - g.mean(axis=1, keepdims=True) - x_hat * (g * x_hat).mean(axis=1, keepdims=True)) / s

out, whole = model.loss_and_grads(**batch, labels=y)
by_hand = {"LayerNorm.weight": (dh * x_hat).sum(axis=0), "LayerNorm.bias": dh.sum(axis=0)}
# the last linear map of the last layer adds to the stream: its bias collects dx of all texts
by_hand["encoder.layer.3.output.dense.bias"] = dx.sum(axis=0)
for name, gradient in by_hand.items():
    difference = np.abs(gradient - whole["roberta_prelayernorm." + name]).max()
    print(f"{name}: norm {np.linalg.norm(gradient):.4f}, largest difference {difference:.1e}")

# %% [markdown]
# From here on it is the same three moves in each layer (a linear map, attention or relu, a LayerNorm), and, since the
# order is pre-LN, a copy of $dx$ that goes down untouched beside them (tutorial 3). How long is the gradient of each
# layer's parameters, all of them together?

# %%
layers = ["embeddings", *(f"encoder.layer.{i}." for i in range(4)), "LayerNorm", "classifier"]
own_names = {name.removeprefix("roberta_prelayernorm."): (gradient**2).sum() for name, gradient in whole.items()}
norms = [np.sqrt(sum(v for name, v in own_names.items() if name.startswith(layer))) for layer in layers]
figure, axes = plt.subplots(figsize=(7, 3.1))
axes.bar(range(len(layers)), norms, color=[GREY, *[BLUE] * 4, GREEN, ORANGE])
axes.set_xticks(range(len(layers)), ["embeddings", *(f"layer {i}" for i in range(4)), "final LN", "head"])
axes.set(ylabel="norm of the gradient", title="gradient of the parameters of each part, all the way down")
plt.show()

# %% [markdown]
# `npprelnorm train classification` does the same with batches, AdamW, a schedule and a body that is not frozen.
#
# ## Exercises
#
# 1. Train the head with the mean over all tokens in place of the vector of `<s>`. Padding must not count. Which is
#    better for new countries?
# 2. Derive $dz = (p - \text{onehot}(y))/N$. Then replace the loss by the mean of the squared errors of $p$, and show
#    what happens to the gradient of an example that is certain and wrong.
# 3. Replace gradient descent by Adam (Kingma and Ba 2015, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), algorithm
#    1), by hand, and compare with `npprelnorm.training.optimizer.AdamW` without weight decay.
#
# Answers: [solutions/07_fine_tuning.py](solutions/07_fine_tuning.py).
#
# ## What was claimed, asserted

# %%
assert sorted(folds.reshape(-1)) == list(range(28)), "every country is held out once"
for h in vectors.values():
    flat = (h - h.mean(axis=0)) @ np.linalg.svd(h - h.mean(axis=0), full_matrices=False)[2][:2].T
    of_frame = flat.reshape(28, 4, 2).mean(axis=0)  # (frames, 2)
    of_label = np.array([flat[y == label].mean(axis=0) for label in (0, 1)])
    assert (of_frame**2).sum(axis=1).mean() > 0.7 * (flat**2).sum(axis=1).mean(), "clusters are frames"
    assert (of_label**2).sum(axis=1).mean() < 0.1 * (flat**2).sum(axis=1).mean(), "and not labels"
assert abs(loss - float(out.loss)) < 1e-12
assert against_package < 1e-14
assert slope_error < 1e-8

final = {name: {key: values[:, -1].mean() for key, values in curve.items()} for name, curve in curves.items()}
assert final["pretrained"]["known"] == final["fresh"]["known"] == 1.0, "both learn by heart"
assert final["pretrained"]["new"] > 0.7, "the fact is read out of the pretrained body"
assert final["fresh"]["new"] < 0.65, "and is not in the fresh one"
assert min(dealt["pretrained"]) > 0.65 > max(dealt["fresh"]), "nor is it luck"
assert (curves["pretrained"]["loss"][:, -1] < curves["pretrained"]["loss"][:, 0] / 5).all()

for name, gradient in by_hand.items():
    assert np.allclose(gradient, whole["roberta_prelayernorm." + name], rtol=0, atol=1e-13), name
assert min(norms) > 0, "the gradient reaches every layer"
assert np.isclose(sum(norm**2 for norm in norms), sum((g**2).sum() for g in whole.values()), rtol=1e-12)
