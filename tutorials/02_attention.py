# %% [markdown]
# # 2. Attention, step by step
#
# Attention is the only place in a transformer where tokens meet. We compute it for one query by hand, see why the
# scores are divided by $\sqrt D$, draw every array with its shape, mask it, derive its backward, and then do the same
# to a model that was really trained, to see what its heads look at and what happens without them.
#
# You need: matrices, the softmax, tutorial 1 for the gradient check. Running it takes a few seconds.
#
# Shapes are written with these letters: $B$ batch, $T$ tokens (as queries), $S$ tokens (as keys; here always $S = T$),
# $C$ hidden size, $H$ heads, $D = C/H$ size of a head.

# %%
import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, BLUE, GREEN, GREY, ORANGE, RED, as_matrix, sheets

import npprelnorm as nl
from npprelnorm.ops.attention import attention, attention_backward, merge_heads, split_heads
from npprelnorm.smallworld import world

rng = np.random.default_rng(0)

# %% [markdown]
# ## One query
#
# A query $q$ is compared with the key $k_s$ of every token; the scores become weights that are positive and add up to
# 1; and the answer is the average of the values $v_s$ under these weights:
#
# $$a_s = \frac{q \cdot k_s}{\sqrt D}, \qquad p_s = \frac{e^{a_s}}{\sum_r e^{a_r}}, \qquad y = \sum_s p_s\,v_s .$$
#
# For all queries at once this is $\operatorname{softmax}(QK^\top/\sqrt D)\,V$: Vaswani et al. 2017
# ([arXiv:1706.03762](https://arxiv.org/abs/1706.03762)), equation 1.
#
# With $D = 1$, $q = 1$ and the keys $0, \ln 2, \ln 5$ it can be done in one's head: the exponentials are $1, 2, 5$, so
# the weights are $\frac18, \frac28, \frac58$. The values $(0,0)$, $(4,0)$, $(0,8)$ then average to $(1, 5)$. The answer
# always lies between the values, in their *convex hull*, which for three points is the triangle: attention mixes what
# is there, and cannot go beyond it.


# %%
def softmax(a: np.ndarray) -> np.ndarray:
    e = np.exp(a - a.max(axis=-1, keepdims=True))  # a shift changes nothing, and this one prevents overflow
    return e / e.sum(axis=-1, keepdims=True)


q, k = np.array([[1.0]]), np.log([[1.0], [2.0], [5.0]])  # (T = 1, D = 1), (S = 3, D = 1)
v = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]])  # (S, 2)
weights = softmax(q @ k.T / np.sqrt(1))  # (T, S)
answer = weights @ v  # (T, 2)
print("weights:", weights[0], " answer:", answer[0])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
left.bar(["key 1", "key 2", "key 3"], weights[0], color=BLUE)
left.set(title="weights of one query", ylabel="weight p", ylim=(0, 1))
right.fill(*v.T, color=GREY, alpha=0.15, label="convex hull")
right.scatter(*v.T, s=900 * weights[0], color=BLUE, alpha=0.7, label="values, area ∝ weight")
right.scatter(*answer.T, s=90, color=RED, marker="X", label="answer", zorder=3)
right.set(
    title="the answer is their average", xlabel="first feature", ylabel="second feature", xlim=(-1, 5), ylim=(-1, 10)
)
right.legend(fontsize=9)
plt.show()

# %% [markdown]
# ## Why divide by the root of D
#
# If the entries of $q$ and $k$ are independent with mean 0 and variance 1, the products $q_d k_d$ are too, and their
# sum over $D$ terms has variance $D$ (section 3.2.1 and footnote 4 of the same paper). Without the division, a larger
# head would have larger scores; the softmax would put nearly all weight on one key, and its gradient, whose diagonal
# entries are $p_s(1 - p_s)$, would vanish. We draw queries and keys, and measure the spread of the scores and the
# entropy $-\sum_s p_s \ln p_s$ of the weights over 64 keys, as a share of the largest possible, $\ln 64$.

# %%
sizes = 4 ** np.arange(1, 6)
spread, entropy = [], {"divided by √D": [], "not divided": []}
for size in sizes:
    queries, keys = rng.standard_normal((100, 1, size)), rng.standard_normal((100, 64, size))
    scores = queries @ keys.swapaxes(1, 2)  # (100, 1, D) x (100, D, 64) -> (100, 1, 64)
    spread.append(scores.std())
    for name, factor in zip(entropy, (size**-0.5, 1.0), strict=True):
        p = softmax(scores * factor)
        entropy[name].append(-(p * np.log(np.maximum(p, 1e-300))).sum(axis=-1).mean() / np.log(64))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.loglog(sizes, spread, color=BLUE, label="measured")
left.loglog(sizes, np.sqrt(sizes), color=BLACK, linestyle="--", marker="", label="√D")
left.set(title="spread of the scores", xlabel="head size D", ylabel="standard deviation of q·k")
left.set_yticks(np.sqrt(sizes), [f"{root:g}" for root in np.sqrt(sizes)], minor=False)
for (name, values), colour, marker in zip(entropy.items(), (BLUE, ORANGE), "os", strict=True):
    right.semilogx(sizes, values, label=name, color=colour, marker=marker)
right.set(title="how even the weights are", xlabel="head size D", ylabel="entropy / ln 64", ylim=(0, 1))
for axes in (left, right):
    axes.set_xticks(sizes, sizes, minor=False)
    axes.minorticks_off()
    axes.legend()
plt.show()

# %% [markdown]
# ## Several heads, with their shapes
#
# One softmax gives one average: a token that needs its verb and its article gets a blend of the two. So a layer
# projects its input to queries, keys and values, cuts each into $H$ heads of size $D$, lets every head attend for
# itself, puts the heads side by side again and projects once more (section 3.2.2 of the paper). Below, one text of $T =
# 5$ tokens with $C = 8$ and $H = 2$. The line comments give the shapes. Linear maps are stored as checkpoints store
# them, (out, in), so that they apply as $xW^\top$.

# %%
T, C, H = 5, 8, 2
D = C // H
x = rng.standard_normal((T, C))
W_q, W_k, W_v, W_o = rng.standard_normal((4, C, C)) / np.sqrt(C)


def to_heads(x: np.ndarray) -> np.ndarray:
    return x.reshape(T, H, D).transpose(1, 0, 2)  # (T, C) -> (T, H, D) -> (H, T, D)


q, k, v = to_heads(x @ W_q.T), to_heads(x @ W_k.T), to_heads(x @ W_v.T)
scores = q @ k.transpose(0, 2, 1) / np.sqrt(D)  # (H, T, D) x (H, D, S) -> (H, T, S)
probs = softmax(scores)  # (H, T, S), every row adds up to 1
context = probs @ v  # (H, T, S) x (H, S, D) -> (H, T, D)
merged = context.transpose(1, 0, 2).reshape(T, C)  # (H, T, D) -> (T, H, D) -> (T, C)
y = merged @ W_o.T  # (T, C)

# %% [markdown]
# The same in a picture. A cell is a number (purple above 0, orange below, each array on its own scale), a sheet is a
# head.

# %%
figure, axes = plt.subplots(figsize=(11, 6.2))
sheets(axes, x, 0, 6, "x", "T = 5", "C = 8")
for height, (array, name) in zip((15, 6, -3), ((q, "q:  H = 2 sheets"), (k, "k"), (v, "v")), strict=True):
    sheets(axes, array, 13, height, name, "S" if name in "kv" else "T", "D = 4")
    axes.annotate("", (12, height + 2.5), (8.6, 8.5), arrowprops={"arrowstyle": "->"})
sheets(axes, scores, 22, 10, "q kᵀ / √D", "T = 5", "S = 5")
sheets(axes, probs, 31, 10, "softmax over S", "T", "S")
sheets(axes, context, 31, 0, "weights · v", "T", "D")
sheets(axes, merged, 39, 0, "heads side by side", "T", "C = H·D")
sheets(axes, y, 39, 10, "y", "T", "C = 8")
flow = [((18.4, 17), (20.8, 14)), ((18.4, 9), (20.8, 12)), ((28.4, 12.5), (29.8, 12.5)), ((33.5, 8.7), (33.5, 7.7))]
flow += [((18.4, -0.5), (29.8, 2)), ((36.4, 2.5), (37.8, 2.5)), ((43, 7.2), (43, 8.6))]
for start, end in flow:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->"})
axes.set(aspect="equal", xlim=(-1.5, 48), ylim=(-4.6, 22.6))
axes.axis("off")
plt.show()

# %% [markdown]
# **A trap.** `reshape(H, T, D)` without the transpose gives the same shape and no error, and is wrong: the first "head"
# then holds the first tokens instead of each token's first features.

# %%
trap = (x @ W_q.T).reshape(H, T, D)
print("same shape:", trap.shape == q.shape, " same numbers:", np.allclose(trap, q))

# %% [markdown]
# ## Masks
#
# A batch holds texts of different lengths; shorter ones are padded. To keep padding out, a number is added to its
# scores before the softmax, the lowest finite one of the type, so that $e^{a}$ becomes exactly 0 (the $-\infty$ of
# section 3.2.3). Why not $-\infty$ itself? A row that may see nothing would compute $\infty - \infty$ and turn into
# NaN; with the finite number it becomes uniform, which is harmless. A decoder's *causal* mask hides the future in the
# same way.

# %%
lowest = np.finfo(np.float64).min
allowed = {
    "no mask": np.ones((T, T), bool),
    "tokens 3 and 4 are padding": np.tile(np.arange(T) < 3, (T, 1)),
    "causal": np.tril(np.ones((T, T), bool)),
    "nothing to see": np.zeros((T, T), bool),
}
masked = {name: softmax(scores + np.where(seen, 0.0, lowest)) for name, seen in allowed.items()}
with np.errstate(invalid="ignore"):
    with_infinity = softmax(scores + np.where(allowed["nothing to see"], 0.0, -np.inf))
print("a row that may see nothing:", masked["nothing to see"][0, 0], " with -inf:", with_infinity[0, 0])

# %%
figure, panels = plt.subplots(1, 4, figsize=(11, 3.2))
for axes, (name, p) in zip(panels, masked.items(), strict=True):
    image = axes.matshow(p[0], vmin=0, vmax=1)
    as_matrix(axes, name)
    axes.xaxis.tick_bottom()
    axes.set(xlabel="key s", xticks=range(T), yticks=range(T))
panels[0].set_ylabel("query t")
figure.colorbar(image, ax=panels, label="weight p (head 0)", shrink=0.8)
plt.show()

# %% [markdown]
# ## Tokens have no order
#
# Nothing above asks where a token stands: permute the rows of $x$, and the rows of $y$ are permuted likewise. Order
# enters only through position embeddings, which are added to the words before the first layer. (Tutorial 8 shows what
# happens when they are off by two.)
#
# ## The backward
#
# Let $dy$ be the gradient of the weighted average $y = \sum_s p_s v_s$ of one query. It is linear in the values and in
# the weights: $v_s$ gets $p_s\,dy$, and $p_s$ gets $dp_s = dy \cdot v_s$. For the softmax, the quotient rule gives
# $\partial p_s/\partial a_r = p_s(\delta_{sr} - p_r)$, so
#
# $$da_r = \sum_s dp_s\,p_s(\delta_{sr} - p_r) = p_r\Big(dp_r - \sum_s dp_s\,p_s\Big) .$$
#
# And $a_s = q \cdot k_s/\sqrt D$ sends $da_s\,k_s/\sqrt D$ to $q$, summed over all keys, and $da_s\,q/\sqrt D$ to
# $k_s$. A key and a value serve all queries, and add up what comes from each. For all queries at once, with $P$ for the
# weights:
#
# $$dV = P^\top dY, \qquad dP = dY\,V^\top, \qquad dQ = \frac{dA\,K}{\sqrt D}, \qquad dK = \frac{dA^\top Q}{\sqrt D} .$$
#
# Where $p_s = 0$, $da_s$ and the share of $v_s$ are 0, so a masked key or value learns nothing.


# %%
def core(q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(D) + bias)
    return p @ v, p


def core_backward(dy: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, p: np.ndarray) -> list[np.ndarray]:
    dp = dy @ v.swapaxes(-1, -2)  # undoes p @ v
    dv = p.swapaxes(-1, -2) @ dy
    da = p * (dp - (dp * p).sum(axis=-1, keepdims=True))  # undoes the softmax
    return [da @ k / np.sqrt(D), da.swapaxes(-1, -2) @ q / np.sqrt(D), dv]


bias = np.where(allowed["tokens 3 and 4 are padding"], 0.0, lowest)
dy, *directions = rng.standard_normal((4, H, T, D))
_, p = core(q, k, v, bias)
gradients = core_backward(dy, q, k, v, p)

h = 1e-6
ahead, behind = ([a + step * d for a, d in zip((q, k, v), directions, strict=True)] for step in (h, -h))
slope = ((core(*ahead, bias)[0] - core(*behind, bias)[0]) * dy).sum() / (2 * h)
predicted = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
print(f"slope {slope:.9f}, by the gradients {predicted:.9f}")

# %% [markdown]
# Which tokens does one output learn through? We send a gradient into the output of token 1 alone. It reaches every key
# and every value that token 1 may see, and only its own query.

# %%
only_one = np.zeros_like(dy)
only_one[:, 1] = dy[:, 1]
reached = np.array([np.linalg.norm(g, axis=(0, 2)) for g in core_backward(only_one, q, k, v, p)])  # (3, T)

figure, axes = plt.subplots(figsize=(6, 2.6))
for offset, (values, name, colour) in enumerate(zip(reached, ("dq", "dk", "dv"), (BLUE, ORANGE, GREEN), strict=True)):
    axes.bar(np.arange(T) + 0.27 * (offset - 1), values, 0.25, label=name, color=colour, hatch=("", "//", "..")[offset])
axes.set(
    xlabel="token (3 and 4 are padding)", ylabel="norm of its gradient", title="a gradient into the output of token 1"
)
axes.legend()
plt.show()

# %% [markdown]
# ## A trained model
#
# The model inside the package has 4 layers of 4 heads and knows some capitals. We take the parameters of its first
# layer, run the steps from above on what the embeddings give (a pre-LN block normalises first; tutorial 3), and compare
# with the weights that the model itself reports.

# %%
folder = nl.embedded_model_path()
model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype="float64")
tokenizer = nl.Tokenizer.from_pretrained(folder)
batch = tokenizer(["The capital of France is <mask>."])
tokens = [token.replace("Ġ", "") for token in tokenizer.convert_ids_to_tokens(batch["input_ids"][0])]
where = tokens.index("<mask>")
out = model(**batch, output_attentions=True, output_hidden_states=True)

own = {name.split("layer.0.attention.")[1]: a for name, a in model.params.items() if "layer.0.attention." in name}
stream = out.hidden_states[0]  # (B, T, C), what the embeddings give
centred = stream - stream.mean(axis=-1, keepdims=True)
u = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + model.config.layer_norm_eps)
u = u * own["LayerNorm.weight"] + own["LayerNorm.bias"]
q, k, v = (split_heads(u @ own[f"self.{n}.weight"].T + own[f"self.{n}.bias"], 4) for n in ("query", "key", "value"))
real_probs = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))  # (B, H, T, S)
by_hand = np.abs(real_probs - out.attentions[0]).max()
print(f"{len(tokens)} tokens; largest difference of the weights: {by_hand:.1e}")

# %% [markdown]
# What does `<mask>` look at? One line for each of the 16 heads.

# %%
looks = np.concatenate([layer[0, :, where] for layer in out.attentions])  # 4 x (H, S) -> (16, S)
names = [f"layer {layer}, head {head}" for layer in range(4) for head in range(4)]
figure, axes = plt.subplots(figsize=(7, 5.2))
image = axes.imshow(looks, vmin=0, vmax=1, aspect="auto")
as_matrix(axes, "attention of <mask>")
axes.set(xticks=range(len(tokens)), yticks=range(16), xticklabels=tokens, yticklabels=names, xlabel="key")
figure.colorbar(image, label="weight p")
plt.show()

# %% [markdown]
# It is tempting to read such a map as an explanation. Whether a head matters can be measured: switch it off
# (`head_mask` multiplies its output by 0) and look at the answer. A large weight and a large effect are not the same
# thing; Jain and Wallace 2019 ([arXiv:1902.10186](https://arxiv.org/abs/1902.10186)) make the point at length for other
# models. One sentence is an anecdote, so we ask for all 28 capitals of the model's small world at once. The *cost* of
# switching heads off is by how much $\ln p$ of the right capital falls.

# %%
countries, capitals, _ = zip(*world.COUNTRIES.rows, strict=True)
questions = tokenizer([f"The capital of {country} is <mask>." for country in countries])
right_ids = [tokenizer.token_to_id("Ġ" + capital) for capital in capitals]
everyone = np.arange(len(countries))


def log_probability(*off: int) -> np.ndarray:
    """ln p of each right capital without these heads, 0 to 15. (28,)"""
    head_mask = np.ones(16)
    head_mask[list(off)] = 0.0
    logits = model(**questions, head_mask=head_mask.reshape(4, 4)).logits[:, where]
    return np.log(softmax(logits)[everyone, right_ids])


full = log_probability()
cost = full - np.stack([log_probability(head) for head in range(16)])  # (16, 28), in nats
attentions = model(**questions, output_attentions=True).attentions
on_country = np.concatenate([layer[:, :, where, tokens.index("France")].T for layer in attentions])  # (16, 28)

# %%
figure, axes = plt.subplots(figsize=(7.6, 3.8))
for layer, (colour, marker) in enumerate(zip((BLUE, ORANGE, GREEN, BLACK), "osD^", strict=True)):
    dots = np.stack([on_country, cost])[:, 4 * layer : 4 * layer + 4]  # (2, 4, 28)
    axes.scatter(*dots, s=14, color=colour, marker=marker, alpha=0.4, linewidth=0)
    axes.scatter(
        *dots.mean(axis=2), s=70, color=colour, marker=marker, edgecolor=BLACK, zorder=3, label=f"layer {layer}"
    )
for head, offset in ((2, (-110, 20)), (12, (-130, 18)), (14, (-100, 46))):
    point = on_country[head].mean(), cost[head].mean()
    line = {"arrowstyle": "-", "linewidth": 0.8}
    axes.annotate(names[head], point, offset, textcoords="offset points", fontsize=9, arrowprops=line)
axes.axhline(0, color=BLACK, linewidth=0.8)
axes.set(xlabel="weight of <mask> on the country", ylabel="cost of switching it off (nats)")
axes.set_title("16 heads, one switched off at a time; small: each capital, large: their mean")
axes.legend(fontsize=9, loc="upper left")
plt.show()

# %% [markdown]
# One head of the first layer costs by far the most, for 27 of the 28 capitals. Two heads of the last layer look at the
# country nearly as hard, and switching off either of them costs next to nothing. Are they idle? A part that has a
# stand-in does not show when it is taken out alone, so we take out several at once, and compare with the sum of their
# single costs.

# %%
groups = {"0.2": [2], "3.0": [12], "3.2": [14], "3.0 and 3.2": [12, 14]}
groups |= {"0.2 and 3.0": [2, 12], "0.2 and 3.2": [2, 14], "all three": [2, 12, 14]}
together = {name: float((full - log_probability(*heads)).mean()) for name, heads in groups.items()}
alone = {name: float(cost[heads].mean(axis=1).sum()) for name, heads in groups.items()}

figure, axes = plt.subplots(figsize=(7.6, 3.4))
place = np.arange(len(groups))
axes.barh(place - 0.2, list(alone.values()), 0.38, color=ORANGE, hatch="//", label="sum of what each costs alone")
axes.barh(place + 0.2, list(together.values()), 0.38, color=BLUE, label="all of them off at once")
axes.set(yticks=place, yticklabels=groups, ylabel="layer.head", xlabel="mean cost over 28 capitals (nats)")
axes.set_title("what heads do when others are missing")
axes.invert_yaxis()
axes.legend(fontsize=9)
plt.show()

# %% [markdown]
# They stand in. Head 2 of the last layer costs 0.01 nats when it alone is missing, and another 1.0 when head 2 of the
# first layer is missing too. Switching off one part at a time shows what the model cannot replace, and not what the
# part can do. McGrath et al. 2023 ([arXiv:2307.15771](https://arxiv.org/abs/2307.15771)) find such self-repair in large
# models and name it after the Hydra.
#
# ## Exercises
#
# 1. How many multiplications do the projections of a layer take, and how many the scores and the average? From which
#    $T$ on do the latter cost more? What is that $T$ for RoBERTa-base ($C = 768$)?
# 2. Show that adding one vector to all keys changes no weight. What follows for the bias of the key projection, and for
#    its gradient? Check both on the embedded model.
# 3. Compute attention without ever holding the whole (T, S) matrix: go through the keys in blocks, and keep a running
#    maximum, a running sum and a running average for each query (Milakov and Gimelshein 2018,
#    [arXiv:1805.02867](https://arxiv.org/abs/1805.02867)).
#
# Answers: [solutions/02_attention.py](solutions/02_attention.py).
#
# ## What was claimed, asserted

# %%
assert np.allclose(weights, [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-15)
assert np.allclose(answer, [[1, 5]], rtol=1e-15)

assert np.allclose(spread, np.sqrt(sizes), rtol=0.05), "the spread of the scores is the root of D"
assert np.ptp(entropy["divided by √D"]) < 0.05, "divided: as even at any size"
assert entropy["not divided"][-1] < 0.1 < 0.5 < entropy["not divided"][0], "not divided: one key takes it all"

assert np.allclose(probs.sum(axis=-1), 1, rtol=1e-15)
package, cache = attention(
    split_heads(x @ W_q.T[None], H), split_heads(x @ W_k.T[None], H), split_heads(x @ W_v.T[None], H), None
)
assert np.allclose(merge_heads(package)[0], merged, rtol=0, atol=1e-14)
assert trap.shape == to_heads(x @ W_q.T).shape
assert not np.allclose(trap, to_heads(x @ W_q.T))

assert np.array_equal(masked["tokens 3 and 4 are padding"][:, :, 3:], np.zeros((H, T, 2))), "exactly 0, not nearly"
assert np.array_equal(masked["nothing to see"], np.full((H, T, T), 1 / T))
assert np.isnan(with_infinity).all()

turn = rng.permutation(T)
turned = softmax(scores[:, turn][:, :, turn]) @ to_heads(x @ W_v.T)[:, turn]
assert np.allclose(turned, context[:, turn], rtol=0, atol=1e-14), "permuted tokens, permuted answers"

assert abs(slope - predicted) < 1e-7 * abs(predicted)
package, cache = attention(*(to_heads(x @ W.T)[None] for W in (W_q, W_k, W_v)), bias)
theirs = attention_backward(dy[None], cache)
for ours, other in zip(gradients, (theirs.dq, theirs.dk, theirs.dv), strict=True):
    assert np.allclose(ours, other[0], rtol=0, atol=1e-14)
assert np.array_equal(reached[1:, 3:], np.zeros((2, 2))), "masked keys and values get no gradient"
assert np.count_nonzero(reached[0]) == 1, "only the query of token 1"

assert by_hand < 1e-12
assert (questions["input_ids"][:, where] == tokenizer.token_to_id("<mask>")).all()
assert full.min() > np.log(0.98), "all 28 capitals are known"
assert np.count_nonzero(cost.argmax(axis=0) == 2) == 27, "layer 0, head 2"
assert cost[2].mean() > 1 > 10 * np.delete(cost.mean(axis=1), 2).max()
idle = (on_country.mean(axis=1) > 0.7) & (cost.mean(axis=1) < 0.02)
assert np.flatnonzero(idle).tolist() == [12, 14], "layer 3, heads 0 and 2: they look, and alone they cost nothing"
assert alone["3.2"] < 0.02 < 0.9 < together["0.2 and 3.2"] - together["0.2"], "but they stand in"
assert together["all three"] > 2 * alone["all three"]
