# %% [markdown]
# # 8. Seven bugs
#
# Seven mistakes that are easy to make when a model is written anew. We put them, one at a time, into a model that
# works, and measure three things: what happens to the numbers, whether anybody would notice by looking at the answers,
# and which check finds it. The lesson is in the last figure: the bugs that anyone can see are the harmless ones.
#
# You need: tutorials 1, 2 and 5. Running it takes about half a minute.

# %%
import copy
import json
import tempfile
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY
from safetensors.numpy import save_file

import npprelnorm as nl
from npprelnorm.errors import CheckpointMismatchError
from npprelnorm.ops.activations import gelu, gelu_tanh
from npprelnorm.ops.attention import attention, merge_heads, split_heads
from npprelnorm.ops.normalization import layer_norm, layer_norm_backward
from npprelnorm.smallworld import small_world
from npprelnorm.teaching import reorder_layer_norm
from npprelnorm.training.optimizer import AdamW

folder = nl.embedded_model_path()
model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype="float64")
tokenizer = nl.Tokenizer.from_pretrained(folder)
parameters = {name.removeprefix("roberta_prelayernorm."): array for name, array in model.params.items()}
WORDS = parameters["embeddings.word_embeddings.weight"]  # (V, C)

# %% [markdown]
# ## A forward with switches
#
# The model inside the package has 4 pre-LN layers, relu in its feed-forward blocks and the exact gelu in its head. Here
# it is once more, with an argument for every bug of the forward. With the default arguments it is right.


# %%
def linear(x: np.ndarray, name: str) -> np.ndarray:
    return x @ parameters[name + ".weight"].T + parameters[name + ".bias"]


def attend(u: np.ndarray, name: str, bias: np.ndarray | None) -> np.ndarray:
    q, k, v = (split_heads(linear(u, f"{name}.self.{part}"), 4) for part in ("query", "key", "value"))
    return linear(merge_heads(attention(q, k, v, bias)[0]), name + ".output.dense")


def feed_forward(u: np.ndarray, name: str) -> np.ndarray:
    return linear(np.maximum(linear(u, name + ".intermediate.dense"), 0), name + ".output.dense")


def norm(x: np.ndarray, name: str, eps_outside: bool) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    s = np.sqrt(variance) + 1e-5 if eps_outside else np.sqrt(variance + 1e-5)
    return centred / s * parameters[name + ".weight"] + parameters[name + ".bias"]


# %%
def run(ids, *, post=False, masked=True, first=2, act=gelu, eps_outside=False, decoder=WORDS, rows=slice(None)):
    """Logits of all tokens, or of `rows`. ids (B, T)."""
    real = ids != 1
    positions = np.where(real, np.cumsum(real, axis=1) - 1 + first, 1)
    x = WORDS[ids] + parameters["embeddings.position_embeddings.weight"][positions]
    x = norm(x + parameters["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm", eps_outside)
    bias = np.where(real, 0.0, np.finfo(np.float64).min)[:, None, None] if masked else None  # (B, 1, 1, S)
    for index in range(4):
        name = f"encoder.layer.{index}"
        for own, f in ((".attention", lambda u: attend(u, name + ".attention", bias)),  # noqa: B023
                       (".intermediate", lambda u: feed_forward(u, name))):  # noqa: B023  # fmt: skip
            gain = f"{name}{own}.LayerNorm"
            x = norm(x + f(x), gain, eps_outside) if post else x + f(norm(x, gain, eps_outside))
    x = (x if post else norm(x, "LayerNorm", eps_outside))[rows]
    x = norm(act(linear(x, "lm_head.dense"))[0], "lm_head.layer_norm", eps_outside)
    return x @ decoder.T + parameters["lm_head.bias"]


# %% [markdown]
# ## What we measure with
#
# Two hundred sentences of the small world that the model was trained on, each with one token masked: the mean loss (in
# nats) at the masked token, and the share of right answers. That is "looking at the answers", done properly.

# %%
batch = tokenizer(small_world().sentences(200, 11), padding=True)
ids, lengths = batch["input_ids"].copy(), batch["attention_mask"].sum(axis=1)
masked_at = np.arange(200), np.array([np.random.default_rng(i).integers(1, n - 2) for i, n in enumerate(lengths)])
truth = ids[masked_at].copy()
ids[masked_at] = tokenizer.mask_token_id
plain = tokenizer(["The capital of France is <mask>."])["input_ids"]  # (1, 9)


def scores(logits: np.ndarray) -> tuple[float, float]:
    """Mean loss (nats) and share of right answers. logits (200, V)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted[np.arange(200), truth] - np.log(np.exp(shifted).sum(axis=-1))
    return float(-log_p.mean()), float((logits.argmax(axis=-1) == truth).mean())


right_rows, right_plain = run(ids, rows=masked_at), run(plain)
right_loss, right_share = scores(right_rows)
package = np.abs(model(input_ids=plain).logits - right_plain).max()
print(
    f"right model: loss {right_loss:.3f} nats, {right_share:.1%} right; largest logit {np.abs(right_plain).max():.1f}"
)
print(f"largest difference from the package: {package:.1e}")

# %% [markdown]
# And the checks that a careful person would run. Each says whether it **noticed**:
#
# - *answers*: the share of right answers fell by more than one point;
# - *parity, loose*: on one plain text the logits differ from the reference by more than 1 % of the largest;
# - *parity, tight*: by more than $2 \cdot 10^{-5}$ of the largest, the bound of this project;
# - *padding*: the same text with six padding tokens behind it gives other logits than alone;
# - *names*: names, shapes or number of the parameters do not fit;
# - *gradients*: a gradient check (tutorial 1) of the backward fails. A forward bug whose backward belongs to the same
#   wrong forward passes such a check, so it does not apply to those.
#
# The reference for parity is the package; the package itself is held against transformers in its tests.

# %%
CHECKS = ("answers", "parity, loose", "parity, tight", "padding", "names", "gradients")
noticed: dict[str, dict[str, bool]] = {}
measured: dict[str, tuple[float, float, float]] = {}  # largest difference of a logit, loss, share right


def examine(bug: str, names: bool = False, gradients: bool | None = None, **switches) -> None:
    rows, alone = run(ids, rows=masked_at, **switches), run(plain, **switches)
    padded = run(np.pad(plain, ((0, 0), (0, 6)), constant_values=1), **switches)[:, : plain.shape[1]]
    difference = np.abs(alone - right_plain).max() / np.abs(right_plain).max()
    loss, share = scores(rows)
    found = (share < right_share - 0.01, difference > 1e-2, difference > 2e-5, np.abs(padded - alone).max() > 1e-9)
    noticed[bug] = {name: bool(yes) for name, yes in zip(CHECKS, (*found, names), strict=False)}
    if gradients is not None:
        noticed[bug]["gradients"] = gradients
    measured[bug] = (float(np.abs(rows - right_rows).max()), loss, share)
    print(f"{bug}: logits off by up to {measured[bug][0]:.1e}, loss {loss:.3f} nats, {share:.1%} right")


# %% [markdown]
# ## 1. A checkpoint in the wrong order
#
# The files that Wettig et al. published at first say `"model_type": "roberta"`, and hold pre-LN weights. A program that
# believes the label computes $\mathrm{LN}(x + f(x))$ in place of $x + f(\mathrm{LN}(x))$ with them, and drops the final
# LayerNorm. All shapes fit. `reorder_layer_norm` makes such a model on purpose, which is to agree with our switch.

# %%
flipped = reorder_layer_norm(model, "post")  # a RobertaForMaskedLM of the same arrays
post_names = {name.removeprefix("roberta.") for name in flipped.params}
flipped_off = np.abs(flipped(input_ids=plain).logits - run(plain, post=True)).max()
print(f"largest difference from the package's post-LN model: {flipped_off:.1e}")
examine("wrong order", names=post_names != set(parameters), post=True)

# %% [markdown]
# The answers are gone: the loss is about that of guessing among the 6144 tokens of the vocabulary, $\ln 6144 = 8.7$.
# What could have warned are the *names*. Of each layer's two LayerNorms, post-LN RoBERTa calls one
# `attention.output.LayerNorm` and the other `output.LayerNorm`. A loader that fills what it does not find with fresh
# numbers, and forgets what it finds too much, goes on all the same, with a warning at best. This package reads the
# order from the names. We write a file like theirs and load it, by the label and by the names:

# %%
with tempfile.TemporaryDirectory() as theirs:
    arrays = {name.replace("roberta_prelayernorm.", "roberta."): array for name, array in model.params.items()}
    save_file(arrays, Path(theirs, "model.safetensors"))
    Path(theirs, "config.json").write_text(json.dumps(model.config.to_dict() | {"model_type": "roberta"}), "utf-8")
    try:
        refusal = f"loaded a {type(nl.RobertaForMaskedLM.from_pretrained(theirs)).__name__}"
    except CheckpointMismatchError as error:
        refusal = str(error).replace(theirs, "the folder")
    by_names = nl.AutoModelForMaskedLM.from_pretrained(theirs, dtype="float64")
print("wanted and not there:", min(post_names - set(parameters)))
print("there and not wanted:", min(set(parameters) - post_names))
print("by the label:", refusal)
print("by the names:", type(by_names).__name__)

# %% [markdown]
# ## 2. A forgotten mask
#
# Without a mask every token attends to the padding. A text that is not padded gives the right numbers, so the demo
# works, and so does parity on one text. The damage grows with the padding, and depends on what else is in the batch:

# %%
examine("forgotten mask", masked=False)

paddings = np.array([0, 1, 2, 4, 8, 16, 32, 64])
paris, place = tokenizer.token_to_id("ĠParis"), int(np.flatnonzero(plain[0] == tokenizer.mask_token_id)[0])
p_paris = {True: [], False: []}
for padding in paddings:
    padded = np.pad(plain, ((0, 0), (0, padding)), constant_values=1)
    for masked, values in p_paris.items():
        logits = run(padded, masked=masked)[0, place]
        values.append(float(np.exp(logits[paris] - logits.max()) / np.exp(logits - logits.max()).sum()))

figure, axes = plt.subplots(figsize=(6.6, 3.2))
axes.semilogy(paddings, p_paris[True], color=BLUE, label="with the mask")
axes.semilogy(paddings, p_paris[False], color=ORANGE, marker="s", label="mask forgotten")
axes.set_xscale("symlog", base=2, linthresh=1)
axes.set_xticks(paddings, paddings)
axes.set(xlabel="padding tokens behind the text", ylabel="p(Paris)", title="The capital of France is <mask>.")
axes.legend()
plt.show()

# %% [markdown]
# ## 3. Positions off by two
#
# RoBERTa counts positions from `pad_token_id + 1`, so the first token has position 2; row 1 belongs to padding, and row
# 0 is never used. Code that counts from 0, as BERT's does, runs without an error.

# %%
examine("positions off by two", first=0)

firsts = np.arange(0, 8)
losses_by_first = [scores(run(ids, rows=masked_at, first=first))[0] for first in firsts]
figure, axes = plt.subplots(figsize=(6.6, 3.0))
axes.bar(firsts, losses_by_first, color=[BLUE if first == 2 else ORANGE for first in firsts])
axes.axhline(np.log(len(WORDS)), color=BLACK, linestyle="--", label="guessing: ln 6144")
axes.set(xlabel="position of the first token (2 is right)", ylabel="loss (nats)", title="where positions begin")
axes.set_ylim(0, 11)
axes.legend(loc="upper right")
plt.show()

# %% [markdown]
# ## 4. tanh for erf
#
# There are two formulas called gelu (Hendrycks and Gimpel 2016, [arXiv:1606.08415](https://arxiv.org/abs/1606.08415),
# section 2): $x\,\Phi(x)$ with the normal distribution function, which needs erf, and an approximation by tanh. NumPy
# has no erf, so the temptation is great. GPT-2 was trained with the tanh form, RoBERTa with erf.

# %%
examine("tanh for erf", act=gelu_tanh)

x = np.linspace(-6, 6, 601)
gap = gelu_tanh(x)[0] - gelu(x)[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(x, gelu(x)[0], color=BLUE, marker="", label="x Φ(x), with erf")
left.plot(x, gelu_tanh(x)[0], color=ORANGE, marker="", linestyle="--", label="with tanh")
right.plot(x, 1e4 * gap, color=RED, marker="")
left.set(title="the two forms", xlabel="x", ylabel="gelu(x)", xlim=(-4, 4), ylim=(-0.5, 4))
right.set(title="their difference", xlabel="x", ylabel="tanh form − erf form (10⁻⁴)")
left.legend()
plt.show()

# %% [markdown]
# The forms differ by at most $5 \cdot 10^{-4}$. In this model only the head uses gelu; the loss moves in the sixth
# decimal, and no answer changes. Only a tight comparison notices. (Whether it matters? For these answers no; for a
# claim to compute the same as somebody else, yes.)
#
# ## 5. eps in the wrong place
#
# $\sqrt{v} + \varepsilon$ in place of $\sqrt{v + \varepsilon}$. For $v \approx 1$ both give nearly the same. The ratio
# of the two denominators tells where it shows: for small variances, near or below $\varepsilon$. (The dip is at
# $v \approx 1/4$, where the one overtakes the other and the two are equal.)

# %%
examine("eps outside the root", eps_outside=True)

variances = 10.0 ** np.linspace(-12, 2, 141)
embedded = nl.inspect.trace(model, **batch | {"input_ids": ids})
embedded = sum(embedded[f"embeddings.{kind}_embeddings"].value for kind in ("word", "token_type", "position"))
embedded = embedded[batch["attention_mask"] == 1].var(axis=-1)  # what the first LayerNorm gets, of each real token
figure, axes = plt.subplots(figsize=(8.4, 3.2))
ratio = (np.sqrt(variances) + 1e-5) / np.sqrt(variances + 1e-5)
axes.loglog(variances, np.abs(ratio - 1), color=BLUE, marker="", label="relative error of the denominator")
axes.axvspan(embedded.min(), embedded.max(), color=SKY, alpha=0.4, label="variances of our embeddings")
axes.axvline(1e-5, color=GREY, linestyle=":", label="eps")
axes.axhline(6e-8, color=BLACK, linestyle="--", label="rounding of float32")
axes.set(xlabel="variance of a row", ylabel="relative error", ylim=(1e-8, 10), xticks=10.0 ** np.arange(-12, 3, 2))
axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

row = np.array([[1.0, -1.0]])  # variance 1: with eps = 3 the root is 2, and nothing is small
inside = layer_norm(row, np.ones(2), np.zeros(2), 3.0)[0]
print("the unit test that settles it, eps = 3:", inside[0], "and not", row[0] / (1 + 3))

# %% [markdown]
# ## 6. The missing mean term
#
# The first five were in the forward. This one leaves every output as it is: the backward of LayerNorm without
# $-\operatorname{mean}(g)$ (tutorial 1). First the gradients of the embedded model, then a small model trained from
# scratch, with the right backward, without the mean term, and without the variance term. `patch` puts our backward in
# the place of the package's for as long as its `with` lasts.


# %%
def without_term(dy: np.ndarray, cache, term: str):
    x_hat, inv_std, weight = cache
    g = dy * weight
    lost = g.mean(axis=-1, keepdims=True) if term == "mean" else x_hat * (g * x_hat).mean(axis=-1, keepdims=True)
    dx, dweight, dbias = layer_norm_backward(dy, cache)
    return dx + inv_std * lost, dweight, dbias


backwards = {
    "right": layer_norm_backward,
    "mean term missing": lambda dy, cache: without_term(dy, cache, "mean"),
    "variance term missing": lambda dy, cache: without_term(dy, cache, "variance"),
}
labels = np.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
text = {"input_ids": ids[:8], "attention_mask": batch["attention_mask"][:8], "labels": labels[:8]}
gradients_by = {}
for name, backward in backwards.items():
    with patch("npprelnorm.gradients.layer_norm_backward", backward):
        gradients_by[name] = model.loss_and_grads(**text)[1]

# %%
exact = {name: g for name, g in gradients_by["right"].items() if name.endswith("weight")}
names = list(exact)
error = {
    bug: [np.linalg.norm(gradients_by[bug][n] - g) / np.linalg.norm(g) for n, g in exact.items()]
    for bug in ("mean term missing", "variance term missing")
}
figure, axes = plt.subplots(figsize=(9, 3.2))
for (bug, values), colour, marker in zip(error.items(), (ORANGE, PINK), "s^", strict=True):
    axes.plot(values, color=colour, marker=marker, linestyle="", label=bug)
borders = [i for i, n in enumerate(names) if n.endswith("attention.LayerNorm.weight")]
borders.append(names.index("roberta_prelayernorm.LayerNorm.weight"))
for border in borders:
    axes.axvline(border - 0.5, color=GREY, linewidth=0.8)
middle = [np.mean(pair) - 0.5 for pair in zip([0, *borders], [*borders, len(names)], strict=True)]
axes.set_xticks(middle, ["embeddings", *(f"layer {i}" for i in range(4)), "head"])
axes.set(ylabel="error / norm of the gradient", title="each point: one weight of the embedded model", ylim=(0, None))
axes.grid(axis="x", visible=False)
axes.legend(loc="upper right", frameon=True, framealpha=1, edgecolor="none")
plt.show()


# %%
def dot(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return sum(float((array * other[name]).sum()) for name, array in one.items())


def slope_error(gradients: dict[str, np.ndarray], of: nl.RobertaPreLayerNormForMaskedLM = model) -> float:
    """The gradient check on a whole model: |slope − <g, d>| / |g| for one random direction d over everything."""
    rng, h = np.random.default_rng(5), 1e-7
    d = {name: rng.standard_normal(array.shape) for name, array in of.params.items()}
    nudged = copy.deepcopy(of)
    losses = []
    for step in (h, -h):
        for name in d:
            nudged.params[name] = of.params[name] + step * d[name]
        losses.append(float(nudged(**text).loss))
    return abs((losses[0] - losses[1]) / (2 * h) - dot(gradients, d)) / np.sqrt(dot(gradients, gradients))


slope_errors = {name: slope_error(gradients) for name, gradients in gradients_by.items()}
print("gradient check, error / norm:", {name: f"{value:.1e}" for name, value in slope_errors.items()})
examine("missing mean term", gradients=slope_errors["mean term missing"] > 1e-6)

# %%
small = nl.RobertaPreLayerNormConfig(
    vocab_size=6144, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
    max_position_embeddings=40, initializer_range=0.05, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
sentences = small_world().sentences(32 * 60, 12)
print(nl.RobertaPreLayerNormForMaskedLM(small, rng=0).num_parameters(), "parameters")


# %%
def train(seed: int) -> list[float]:
    """Losses of 60 steps of masked language modelling, 32 sentences each."""
    rng, losses = np.random.default_rng(seed), []
    learner = nl.RobertaPreLayerNormForMaskedLM(small, rng=seed)
    optimizer = AdamW(learner.params, weight_decay=0.0)
    for step in range(60):
        rows = tokenizer(sentences[32 * step : 32 * step + 32], padding=True)
        hidden = (rng.random(rows["input_ids"].shape) < 0.15) & (rows["input_ids"] > 2)
        inputs = np.where(hidden, tokenizer.mask_token_id, rows["input_ids"])
        labels = np.where(hidden, rows["input_ids"], -100)
        out, g = learner.loss_and_grads(
            input_ids=inputs, attention_mask=rows["attention_mask"], labels=labels, labelled_only=True
        )
        optimizer.step(learner.params, g, 5e-3 * min(1, (step + 1) / 10))
        losses.append(float(out.loss))
    return losses


curves = {}
for name, backward in backwards.items():
    with patch("npprelnorm.gradients.layer_norm_backward", backward):
        curves[name] = np.array([train(seed) for seed in range(3)])  # (3, 60)

# %%
figure, axes = plt.subplots(figsize=(7, 3.4))
smooth = {name: np.apply_along_axis(np.convolve, 1, c, np.ones(8) / 8, mode="valid") for name, c in curves.items()}
for (name, values), colour, style in zip(smooth.items(), (BLUE, ORANGE, PINK), ("-", "--", "-."), strict=True):
    steps = np.arange(8, 61)
    axes.plot(steps, values.mean(axis=0), color=colour, linestyle=style, marker="", label=name)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15)
axes.set(xlabel="step", ylabel="loss (nats), mean of 8 steps", title="three seeds: mean, and smallest to largest")
axes.legend()
plt.show()
final = {name: values[:, -20:].mean(axis=1) for name, values in curves.items()}
print("last 20 steps:", {name: values.round(2).tolist() for name, values in final.items()})

# %% [markdown]
# A gradient that is wrong by two fifths of its norm (the median of the points above) trains as well as the right one,
# over these sixty steps! There is a reason. What is wrongly kept points along $\mathbf 1$ in the residual stream, and
# every LayerNorm above ignores that direction: the loss is flat there. So the error should be nearly perpendicular to
# the right gradient $g$, and a small step along the wrong one, $\tilde g$, should lower the loss by nearly as much: by
# $\langle \tilde g, g \rangle / |g|^2$ of it. (The variance term points along $\hat x$, a direction that only the one
# LayerNorm ignores which has this $\hat x$. Without it the training comes off its path.)

# %%
whole = gradients_by["right"]
lowered = {name: dot(gradients_by[name], whole) / dot(whole, whole) for name in backwards}
print("a small step along it lowers the loss, beside the right gradient:")
print(", ".join(f"{name} {share:.0%}" for name, share in lowered.items()))

# %% [markdown]
# A loss that goes down is no evidence for a backward.
#
# ## 7. An untied decoder
#
# The head multiplies by the word embeddings themselves; the file holds no decoder. A program that gives the head a
# matrix of its own either leaves it fresh, and then guesses; or copies the embeddings, which looks right on the first
# day, and drifts apart as soon as anything is trained. The tied gradient is the sum of two: one comes back through the
# look-up, the other through the decoder.
#
# The second kind passes a gradient check against *itself*: its two matrices have right gradients of their own. The
# check has to move what should be one matrix in both places at once, and then the look-up's share alone is too little.

# %%
fresh = 0.09 * np.random.default_rng(1).standard_normal(WORDS.shape)
untied_config = nl.RobertaPreLayerNormConfig.from_pretrained(folder, tie_word_embeddings=False)
untied = nl.RobertaPreLayerNormForMaskedLM(untied_config, dtype="float64")
shared = {name: array for name, array in model.params.items() if name in untied.params}
untied.params.update(shared)
untied.params["lm_head.decoder.weight"] = WORDS.copy()
untied.params["lm_head.decoder.bias"] = model.params["lm_head.bias"].copy()

lookup_name = "roberta_prelayernorm.embeddings.word_embeddings.weight"
parts = untied.loss_and_grads(**text)[1]
lookup, through_decoder = parts[lookup_name], parts["lm_head.decoder.weight"]
tied = gradients_by["right"][lookup_name]
half = {**gradients_by["right"], lookup_name: lookup}  # what the untied program has for that matrix
against_itself, against_tied = slope_error(parts, untied), slope_error(half)
print(f"gradient check of the untied model: {against_itself:.1e}; against the tied one: {against_tied:.1e}")
extra = sum(a.size for a in untied.params.values()) - model.num_parameters()
print(f"parameters: {model.num_parameters():,} tied, {extra:,} more untied; the file lacks lm_head.decoder.weight")
examine("untied decoder, fresh", names=extra > 0, decoder=fresh)
examine("untied decoder, copied", names=extra > 0, decoder=WORDS.copy(), gradients=against_tied > 1e-6)

# %%
figure, axes = plt.subplots(figsize=(6.6, 3.2))
ways = {"look-up": lookup, "decoder": through_decoder, "tied: their sum": tied}
for (name, g), colour, hatch in zip(ways.items(), (BLUE, ORANGE, GREEN), ("", "//", ".."), strict=True):
    norms = np.linalg.norm(g, axis=1)
    bar = axes.bar(name, np.linalg.norm(norms), color=colour, hatch=hatch)
    axes.bar_label(bar, [f"{np.count_nonzero(norms)} of {len(norms)} words"], padding=3)
axes.set(ylabel="norm of the gradient", title="two ways to the word embeddings")
axes.margins(y=0.15)
plt.show()

# %% [markdown]
# ## Which check finds what
#
# Rows by the damage that they do to the answers; a dash where a check does not apply.

# %%
bugs = sorted(noticed, key=lambda bug: -measured[bug][1])
figure, axes = plt.subplots(figsize=(9.6, 4.4))
for y, bug in enumerate(bugs):
    for x, name in enumerate(CHECKS):
        found = noticed[bug].get(name)
        colour, word = {True: (BLUE, "found"), False: (ORANGE, "missed"), None: ("#E8E8E8", "–")}[found]
        axes.add_patch(plt.Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=3))
        axes.text(x + 0.5, y + 0.5, word, ha="center", va="center", color="white" if found else BLACK)
labels = [f"{bug}\n{measured[bug][1]:.2f} nats, {measured[bug][2]:.0%} right" for bug in bugs]
axes.set_yticks(np.arange(len(bugs)) + 0.5, labels)
axes.set_xticks(np.arange(len(CHECKS)) + 0.5, CHECKS)
axes.xaxis.tick_top()
axes.set(xlim=(0, len(CHECKS)), ylim=(len(bugs), 0))
axes.grid(False)
axes.spines[:].set_visible(False)
axes.tick_params(length=0)
plt.show()

# %% [markdown]
# No column is all "found", and half of the rows are invisible in the answers. Three things follow. Compare with numbers
# that somebody else computed, and tightly: a bound of 1 % would have let the tanh and the eps through. Test
# *properties* (padding, batch order, names), which need no reference at all. And never take a falling loss for a
# gradient check.
#
# ## Exercises
#
# 1. An eighth bug: the unbiased variance, divided by $C - 1$. How far off are the logits? Which checks find it?
# 2. Each of the three softest bugs (tanh, eps, mean term) could hide another of its kind. What does the tight parity
#    check say about all forward bugs together, and why is one number enough?
# 3. Construct a text on which the forgotten mask changes no answer of a batch, and one on which positions that are off
#    by two do not matter. (Hint: lengths; and a model with other positions.)
#
# Answers: [solutions/08_seven_bugs.py](solutions/08_seven_bugs.py).
#
# ## What was claimed, asserted

# %%
assert package < 1e-10
assert right_share > 0.85
guessing = np.log(len(WORDS))

assert abs(measured["wrong order"][1] - guessing) < 0.3
assert measured["wrong order"][2] == 0.0
assert noticed["wrong order"]["names"]
assert flipped_off < 1e-10, "the switch is what the package's post-LN model computes"
assert refusal.startswith("the folder is a pre-LN checkpoint")
assert np.array_equal(by_names(input_ids=plain).logits, model(input_ids=plain).logits)

assert p_paris[False][0] == p_paris[True][0] > 0.99, "without padding nothing is wrong"
assert p_paris[False][4] < 0.01, "eight padding tokens are enough"
assert np.allclose(p_paris[True], p_paris[True][0], rtol=1e-12)
assert [name for name, found in noticed["forgotten mask"].items() if found] == ["answers", "padding"]

assert int(np.argmin(losses_by_first)) == 2
assert losses_by_first[0] > right_loss + 5

assert 4e-4 < np.abs(gap).max() < 5e-4
for bug in ("tanh for erf", "eps outside the root"):
    assert [name for name, found in noticed[bug].items() if found] == ["parity, tight"], bug
    assert measured[bug][2] == right_share
    assert abs(measured[bug][1] - right_loss) < 1e-5
assert np.allclose(inside, [[0.5, -0.5]], rtol=1e-15)

assert slope_errors["right"] < 1e-6
assert slope_errors["mean term missing"] > 1e-3
assert slope_errors["variance term missing"] > 1e-3
assert [name for name, found in noticed["missing mean term"].items() if found] == ["gradients"]
assert 0.35 < np.median(error["mean term missing"]) < 0.45
assert lowered["right"] == 1
assert 0.9 < lowered["mean term missing"] < 1.1, "the error is nearly perpendicular to the gradient"
assert abs(final["mean term missing"].mean() - final["right"].mean()) < 0.15, "it trains as well"
assert (final["variance term missing"] > final["right"] + 0.3).all(), "this one does not"

assert np.allclose(lookup + through_decoder, tied, rtol=0, atol=1e-12)
assert against_itself < 1e-6, "the untied model is consistent, and wrong"
assert np.count_nonzero(np.abs(lookup).sum(axis=1)) < 100, "only words that occur"
assert np.count_nonzero(np.abs(through_decoder).sum(axis=1)) == 6144, "every word"
assert measured["untied decoder, fresh"][2] < 0.01
assert [name for name, found in noticed["untied decoder, copied"].items() if found] == ["names", "gradients"]

assert not any(all(found.get(name, False) for found in noticed.values()) for name in CHECKS), "no check finds all"
assert all(any(found.values()) for found in noticed.values()), "each is found by some check"
assert sum(found["answers"] for found in noticed.values()) == len(noticed) / 2, "half of them leave the answers alone"
