# %% [markdown]
# # 5. From checkpoint to prediction
#
# What happens between a folder of files and the word "Paris"? We open the files, cut a sentence into tokens, follow the
# one vector that matters through every layer, and let the head guess after each of them. At the end the numbers are
# compared with those of transformers, where it is installed.
#
# You need: tutorials 1 and 2. Running it takes a few seconds (half a minute with transformers).

# %%
import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from drawing import BLUE, GREEN, GREY, ORANGE, as_matrix

import npprelnorm as nl
from npprelnorm.verify import EMBEDDED, compare_recorded, compare_with_transformers, transformers_is_installed

folder = Path(nl.embedded_model_path())

# %% [markdown]
# ## The files
#
# A checkpoint is a `config.json` (the sizes), a file of tensors, and the tokenizer's files. A safetensors file begins
# with eight bytes that hold the length of a JSON header; the header says for each tensor its name, type, shape and
# where its bytes are. That is all there is to it, so we read it without any library.

# %%
config = json.loads((folder / "config.json").read_text("utf-8"))
print(
    {
        key: config[key]
        for key in ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    }
)

data = (folder / "model.safetensors").read_bytes()
length = int.from_bytes(data[:8], "little")
header = json.loads(data[8 : 8 + length])
header.pop("__metadata__", None)
tensors = {}
for name, entry in header.items():
    begin, end = entry["data_offsets"]
    raw = np.frombuffer(data[8 + length + begin : 8 + length + end], {"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
    tensors[name] = raw.reshape(entry["shape"]).astype(np.float32)
print(len(tensors), "tensors; the first layer's:")
for name, array in tensors.items():
    if ".layer.0." in name and name.endswith("weight"):
        print(f"  {name.removeprefix('roberta_prelayernorm.'):55s} {array.shape}")

# %% [markdown]
# The names tell the order: `attention.LayerNorm` and `intermediate.LayerNorm` stand *before* their blocks, and there is
# a final `LayerNorm`. (Post-LN RoBERTa has `attention.output.LayerNorm` and `output.LayerNorm`, and no final one.)
# There is no decoder matrix: the head uses the word embeddings again. Where are the parameters?

# %%
groups = {"word embeddings": "word_embeddings", "positions": "position_embeddings", "attention": ".attention.",
          "feed-forward": (".intermediate.", ".output.dense"), "head": "lm_head"}  # fmt: skip
sizes = dict.fromkeys([*groups, "other"], 0)
for name, array in tensors.items():
    found = [g for g, keys in groups.items() if any(k in name for k in ([keys] if isinstance(keys, str) else keys))]
    sizes[found[0] if found else "other"] += array.size
total = sum(sizes.values())

figure, axes = plt.subplots(figsize=(7, 2.6))
bars = axes.barh(list(sizes), [size / 1e3 for size in sizes.values()], color=BLUE)
axes.bar_label(bars, [f"{size / total:.1%}" for size in sizes.values()], padding=3)
axes.invert_yaxis()
axes.set(xlabel="parameters (thousands)", title=f"{total:,} parameters")
axes.margins(x=0.12)
plt.show()

# %% [markdown]
# ## From text to numbers
#
# The tokenizer cuts the text into pieces of words (byte-level BPE; `Ġ` stands for a space before the piece), adds `<s>`
# and `</s>`, and looks each piece up in its vocabulary. Padding fills shorter texts up, and the mask says where it is.
# Positions count from 2, because row 1 of the table belongs to padding (`pad_token_id` is 1).

# %%
tokenizer = nl.Tokenizer.from_pretrained(folder)
batch = tokenizer(["The capital of France is <mask>.", "The unforgettable dog <mask>."], padding=True)
ids, mask = batch["input_ids"], batch["attention_mask"]
positions = np.where(ids != 1, np.cumsum(ids != 1, axis=1) + 1, 1)
for row in range(2):
    print(tokenizer.convert_ids_to_tokens(ids[row]))
    print("ids      ", ids[row].tolist())
    print("mask     ", mask[row].tolist())
    print("positions", positions[row].tolist())

# %% [markdown]
# ## Through the layers
#
# In a pre-LN model the residual stream starts as the embeddings, and every block *adds* to it: after layer $\ell$ it is
# the embeddings plus the sum of what $2\ell$ blocks have written. `hidden_states` returns it after each layer
# (`hidden_states_convention="v4"` gives the last one before the final LayerNorm; transformers 5 gives it after). We
# follow the vector of `<mask>` in the first text: its size, and how far its direction still is that of the embedding.

# %%
model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder)
out = model(**batch, output_hidden_states=True, hidden_states_convention="v4")
at = int(np.flatnonzero(ids[0] == tokenizer.mask_token_id)[0])
stream = np.array([state[0, at] for state in out.hidden_states])  # (5, C)
norms = np.linalg.norm(stream, axis=1)
cosine = stream @ stream[0] / (norms * norms[0])
stages = ["embeddings", *(f"after layer {i}" for i in range(4))]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(stages, norms, color=BLUE)
left.set(title="size of the stream at <mask>", ylabel="Euclidean norm", ylim=(0, None))
right.plot(stages, cosine, color=ORANGE, marker="s")
right.set(title="its direction", ylabel="cosine with embedding", ylim=(0, 1.05))
for axes in (left, right):
    axes.tick_params(axis="x", labelrotation=30)
plt.show()

# %% [markdown]
# ## Every step
#
# `inspect.trace` records every intermediate array of one forward, under the checkpoint's name of what computed it. Here
# are the embeddings and the first layer: LayerNorm, projections, attention weights (4 heads, 9 tokens), their average
# of the values, and the sum with what came in; then the feed-forward block in the same order.

# %%
first = {"input_ids": ids[:1, :9], "attention_mask": mask[:1, :9]}
trace = nl.inspect.trace(model, **first)
for step in trace.steps[:17]:
    print(f"{step.name:42s} {'×'.join(map(str, step.shape)):>9}   norm {step.norm:8.2f}")

# %% [markdown]
# Two traces can be compared. It is the fastest way to find a bug: run both programs on one input, and look for the
# first step that differs. We spoil a single number among 1.6 million, a bias.

# %%
spoiled = copy.deepcopy(model)
spoiled.params["roberta_prelayernorm.encoder.layer.2.output.dense.bias"][3] += 0.5
comparison = nl.inspect.compare_traces(trace, nl.inspect.trace(spoiled, **first))
print(comparison)

# %% [markdown]
# ## What the head would say
#
# The head reads the last state through the final LayerNorm. Since all layers write into the same stream, nothing stops
# us from applying LayerNorm and head to the stream after an *earlier* layer: the logit lens (nostalgebraist 2020,
# [interpreting GPT: the logit lens](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru)). It shows what the head would
# say if the model stopped there. The head was never trained for that, so read it as a picture and not as a proof.


# %%
def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


gain, bias = (model.params[f"roberta_prelayernorm.LayerNorm.{part}"] for part in ("weight", "bias"))
centred = stream - stream.mean(axis=1, keepdims=True)
normalized = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + config["layer_norm_eps"])
lens = softmax(model.lm_head(normalized * gain + bias))  # (5, V)
best = np.argsort(-lens, axis=1)[:, :5]  # (5, 5)

figure, axes = plt.subplots(figsize=(8.4, 3.4))
image = axes.imshow(np.take_along_axis(lens, best, axis=1), vmin=0, vmax=1, aspect="auto")
as_matrix(axes, "The capital of France is <mask>.   Five best guesses after each layer")
for y, x in np.ndindex(best.shape):
    p = lens[y, best[y, x]]
    word = tokenizer.decode([best[y, x]]).strip()
    axes.text(x, y, f"{word}\n{p:.2f}", ha="center", va="center", fontsize=9, color="black" if p > 0.5 else "white")
axes.set(yticks=range(5), yticklabels=stages, xticks=range(5), xticklabels=["1st", "2nd", "3rd", "4th", "5th"])
figure.colorbar(image, label="probability")
plt.show()

# %% [markdown]
# ## The same in one line
#
# `pipeline` does all of the above: tokens, mask, forward, softmax, the best words.

# %%
fill = nl.pipeline("fill-mask")
answers = fill("The capital of France is <mask>.")
for answer in answers[:3]:
    print(f"{answer['token_str']:10s} {answer['score']:.4f}")

# %% [markdown]
# ## Are the numbers right?
#
# A working demonstration proves little (tutorial 8). The package carries nine logits and nine numbers of the last
# hidden state that transformers 5.2.0 computed for this sentence, to five decimals; a difference of $10^{-4}$, and as
# much of the number, is allowed. And where torch and transformers are installed, both
# run on the same random input, and every layer is compared; the largest difference allowed is $2 \cdot 10^{-5}$ of the
# largest value (`npprelnorm verify FOLDER` does the same from the command line; it counts layers from 1, and the last
# state is after the final LayerNorm).

# %% tags=["varies"]
recorded = compare_recorded(folder, EMBEDDED)
for line in recorded:
    print(f"recorded  {line.name:28s} off by {line.error:.1e}, allowed {line.allowed:.1e}")

live = []
if transformers_is_installed():
    version, live = compare_with_transformers(folder)
    live = [(line.name, line.error, line.allowed) for line in live]
print(f"compared live: {len(live)} tensors" if live else "transformers is not installed: nothing compared live")

# %%
shown = live or [(line.name, line.error, line.allowed) for line in recorded]
figure, axes = plt.subplots(figsize=(7, 3))
names, errors, bounds = zip(*shown, strict=True)
axes.plot(names, bounds, color=GREY, linestyle="", marker="_", markersize=22, markeredgewidth=2, label="allowed")
axes.plot(names, np.maximum(errors, 1e-9), color=GREEN, linestyle="", marker="o", label="largest difference")
axes.set(yscale="log", ylabel="absolute difference", title="npprelnorm and transformers, float32")
axes.margins(x=0.1, y=0.15)
axes.tick_params(axis="x", labelrotation=25)
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. Write the forward yourself from `tensors`, with nothing but NumPy: embeddings, four layers (relu), head. Forty
#    lines are enough. Compare the logits.
# 2. Split the last stream at `<mask>` into the nine parts that were added up (the embeddings and eight blocks), and
#    find out which of them speaks most for "Paris". Why is the final LayerNorm in the way, and what can be done about
#    it?
# 3. Take a real model: `npprelnorm fill-mask --model andreasmadsen/efficient_mlm_m0.40 ...` (1.4 GB). Which of its nine
#    published logits can you reproduce, and how closely?
#
# Answers: [solutions/05_from_checkpoint_to_prediction.py](solutions/05_from_checkpoint_to_prediction.py).
#
# ## What was claimed, asserted

# %%
assert tensors.keys() == model.params.keys()
assert all(np.array_equal(tensors[name], model.params[name]) for name in tensors)
assert total == model.num_parameters()
assert not any("decoder" in name for name in tensors), "the head uses the word embeddings"
assert not any(".output.LayerNorm" in name for name in tensors), "pre-LN"
assert "roberta_prelayernorm.LayerNorm.weight" in tensors

explicit = model(input_ids=ids, attention_mask=mask, position_ids=positions)
assert np.array_equal(explicit.logits, out.logits), "these are the positions that the model counts"
alone = model(**tokenizer(["The capital of France is <mask>."]))
assert np.abs(alone.logits[0] - out.logits[0, : alone.logits.shape[1]]).max() < 1e-4, "the other text changes nothing"

sums = [step.name for step in trace if step.name.endswith("residual")]
assert len(sums) == 8, "two blocks in each of four layers write into the stream"
written = [trace[name.replace("residual", "output.dense")].value for name in sums]
last = trace["embeddings.LayerNorm"].value + sum(written)
assert np.abs(last - trace[sums[-1]].value).max() < 1e-4, "the stream is the sum of what was written"
assert comparison.first_difference.name == "encoder.layer.2.output.dense"
assert np.abs(softmax(nl.inspect.logit_lens(model, positions=[at], **first)[:, 0, 0]) - lens).max() < 1e-5

assert np.abs(lens[-1] - softmax(out.logits[0, at])).max() < 1e-6, "after the last layer the lens is the answer"
assert tokenizer.decode([best[-1, 0]]).strip() == "Paris"
assert lens[0, best[-1, 0]] < 0.01, "the embedding alone knows nothing of it"
assert answers[0]["token_str"].strip() == "Paris"
assert abs(answers[0]["score"] - lens[-1].max()) < 1e-5
assert all(line.ok for line in recorded)
assert all(error <= allowed for _, error, allowed in live)
