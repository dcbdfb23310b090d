# %% [markdown]
# # 6. How much to mask
#
# A masked language model is trained by hiding some words of a sentence and asking for them. (Here every hidden word
# becomes `<mask>`.) BERT hides 15 % (Devlin et al. 2018, [arXiv:1810.04805](https://arxiv.org/abs/1810.04805)). The
# models that this package is made for hide 40 %, because Wettig et al. 2022
# ([arXiv:2202.08005](https://arxiv.org/abs/2202.08005)) found that to be better for large ones. On real text nobody
# knows how good a model could have become. Here we do: the sentences come from a grammar that also computes what the
# best possible model would say, so that a loss can be held against its exact minimum.
#
# You need: entropy, the Kullback-Leibler divergence, what a masked language model is. Running it takes about half a
# minute, most of it for one seed of the study that is trained in front of you; the other runs are in
# [studies/results/masking_rate.json](studies/results/masking_rate.json), and
# [studies/masking_rate.py](studies/masking_rate.py) made them.

# %%
import matplotlib.pyplot as plt
import numpy as np
from drawing import BLACK, BLUE, GREEN, ORANGE, RED, as_matrix, band
from studies.corpus import MASK, Words, held_out, little_grammar, masked_batch
from studies.masking_rate import RECIPE, SETTINGS, STUDY, held_out_sets, model_of, run
from studies.results import load, select

words = Words(little_grammar())
sentences = words.grammar.everything()  # every sentence, with its probability
print(f"{len(sentences)} sentences of {len(words) - 4} words, {words.grammar.entropy():.2f} nats a sentence; some:")
print("\n".join(words.grammar.sentences(5, seed=1)))

# %% [markdown]
# ## What the best possible model would say
#
# Let $M$ be the hidden places of a sentence $X$ and $c = X_{\bar M}$ the words that are left. A model gives a
# distribution $q_i(\cdot \mid c)$ for each hidden place $i$, each by itself, and pays $-\ln q_i(X_i \mid c)$. Its
# expected loss splits into what no model can avoid and what this one lacks:
#
# $$\mathbb E\big[-\ln q_i(X_i \mid c)\big] = \underbrace{H\big(p_i(\cdot \mid c)\big)}_{\text{entropy}}
#   + \underbrace{\mathrm{KL}\big(p_i(\cdot \mid c)\,\Vert\,q_i(\cdot \mid c)\big)}_{\text{excess} \,\ge\, 0} ,
#   \qquad p_i(w \mid c) = \frac{\sum_{x:\, x_{\bar M} = c,\, x_i = w} P(x)}{\sum_{x:\, x_{\bar M} = c} P(x)} .$$
#
# On real text only the sum on the left can be measured. A grammar knows $P$, so we get both terms, and we get them
# without chance: the expectation over the hidden words is computed, not sampled. Below, the same sentence with more and
# more hidden. What is left to know decides what can be known.

# %%
masked_sentences = (
    "Emma gave the book to <mask>, so now Anna has it.",
    "Emma gave the <mask> to Anna, so now Anna has it.",
    "<mask> gave the <mask> to <mask>, so now Anna has it.",
)
entropies = []
for sentence in masked_sentences:
    print(sentence)
    for distribution in words.grammar.masked(sentence):
        p = np.array(list(distribution.values()))
        entropies.append((p * np.log(1 / p)).sum())
        shown = ", ".join(f"{word} {share:.2f}" for word, share in list(distribution.items())[:3])
        print(f"    {entropies[-1]:.2f} nats: {shown}{', ...' if len(p) > 3 else ''}")

# %% [markdown]
# Averaged over sentences and places, the entropy is the least loss at a given rate, and it rises with the rate: the
# more is hidden, the less can be guessed. (Chance is left in the draw of sentences and masks alone. At 5 % and 15 % the
# same is hidden in most sentences: they are short, and at least one word always is.) So the loss of a model trained at
# 15 % and that of one trained at 40 % cannot be compared; they answer different questions. Excesses can, if they are
# measured on the same masked sentences.

# %%
rates = np.array([0.05, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0])
few = words.grammar.sentences(300, seed=7)
draws = np.array([[held_out(words, few, rate, seed).entropy() for rate in rates] for seed in range(5)])

figure, axes = plt.subplots(figsize=(6.4, 3.4))
band(axes, 100 * rates, draws, "best possible model", BLACK, "o")
axes.set(xlabel="words that are hidden (%)", ylabel="entropy (nats a hidden word)", ylim=(0, None))
axes.set_title("What no model can know (band: five draws of the masks)")
plt.show()

# %% [markdown]
# ## Two things at once
#
# Wettig et al. point out that the rate changes two things. More is *corrupted*, so each question is harder; and more is
# *predicted*, so each step has more questions to learn from. The two can be separated: hide 40 % of the words but ask
# only for 15 %. That makes four settings, with one model (two layers of 64 features), one number
# of steps, one batch size and one learning rate for all. The model reads the same number of sentences in each.

# %%
names = ("15 % hidden", "40 % hidden", "40 % hidden, 15 % asked", "80 % hidden")
styles = dict(zip(names, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (RED, "^")), strict=True))
runs = {name: select(load(STUDY), **setting) for name, setting in zip(names, SETTINGS, strict=True)}
steps = RECIPE["every"] * np.arange(1, 1 + RECIPE["steps"] // RECIPE["every"])


def curves(name: str, quantity: str) -> np.ndarray:
    """(seeds, measurements)"""
    return np.array([run[quantity] for run in runs[name]])


print(", ".join(f"{key} {value}" for key, value in RECIPE.items()))
print("parameters:", model_of(words, 0).num_parameters(), " seeds:", [len(found) for found in runs.values()])
corpus = words.encode(words.grammar.sentences(RECIPE["corpus"], 0))
counts = {}  # words a sentence that are hidden, and that are asked for
for name, setting in zip(names, SETTINGS, strict=True):
    made = masked_batch(corpus, setting["hidden"], np.random.default_rng(0), setting["predicted"])
    counts[name] = (made.input_ids == MASK).sum() / len(corpus), (made.labels >= 0).sum() / len(corpus)
    print(f"{name}: {counts[name][0]:.2f} words of a sentence are hidden, {counts[name][1]:.2f} asked for")

# %% [markdown]
# ## What came out
#
# Left, the losses that one would see in a log: each on its own questions, over the 250 steps before the point, with the
# exact floor of those questions as a dashed line. (The setting that is asked for less has the questions, and the
# floor, of 40 %.) Right, all four models on one and the same set, held-out sentences with 15 % hidden, and only what
# they lack. Lines are means over five seeds (weights, corpus, masks and order all differ); bands reach from the lowest
# to the highest.

# %%
sets = held_out_sets(words)  # 1,000 sentences, masked at 15 %, 40 % and 80 %, with what is really behind the masks
many = words.grammar.sentences(5_000, seed=2_000)
floors = {rate: held_out(words, many, rate, seed=2_000).entropy() for rate in sets}

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0))
for name, (colour, marker) in styles.items():
    if "asked" not in name:
        band(left, steps, curves(name, "loss"), name, colour, marker)
        floor = floors[int(name[:2]) / 100]
        left.axhline(floor, color=colour, linestyle="--", linewidth=1)
    band(right, steps, curves(name, "excess_0.15"), name, colour, marker)
left.set(title="training loss (dashed: exact entropy)", xlabel="step", ylabel="nats a hidden word", ylim=(0, 3.2))
right.set(title="excess on 15 % hidden", xlabel="step", ylabel="nats a hidden word above entropy", yscale="log")
right.set_yticks([0.03, 0.1, 0.3, 1], ["0.03", "0.1", "0.3", "1"])
left.legend(fontsize=9)
right.legend(fontsize=9)
plt.show()

# %% [markdown]
# Read the right panel slowly.
#
# - **Asked less, learned less.** Diamonds and squares hide the same 40 %; the diamonds are asked for 15 %. They stay
#   far behind, on every seed and at every measurement: the number of predictions matters.
# - **Seeing less costs too.** Diamonds and circles are asked for 15 % (nearly the same number of words, see above); the
#   diamonds see less. They stay far behind here as well: the corruption matters.
# - **At 40 % the two cancel,** or a little more. Squares are ahead of circles at first, on all five seeds; at the end
#   the two are within each other's spread. Five seeds could not show a difference that is much smaller than that.
# - **80 % is too much for these questions:** after as many steps its excess is more than ten times larger.
#
# Now the other questions. Each row is a model, each column a set of held-out sentences.

# %%
at_end = {name: np.array([curves(name, f"excess_{rate}")[:, -1] for rate in sets]) for name in names}  # (3 sets, seeds)
table = np.array([at_end[name].mean(axis=1) for name in names])
figure, axes = plt.subplots(figsize=(8.2, 3.6))
axes.imshow(np.log10(table), aspect="auto")
as_matrix(axes, "excess after training\n(nats a hidden word, ± standard deviation over five seeds)")
axes.set_xticks(
    range(3), [f"asked: {100 * rate:.0f} % hidden\n(entropy {one.entropy():.2f})" for rate, one in sets.items()]
)
axes.set_yticks(range(4), [f"trained: {name}" for name in names])
for (i, j), value in np.ndenumerate(table):
    deviation = at_end[names[i]][j].std(ddof=1)
    colour = "white" if np.log10(value) < -0.63 else "black"
    axes.text(j, i, f"{value:.3f} ± {deviation:.3f}", ha="center", va="center", color=colour)
plt.show()
difference = at_end["40 % hidden"][0] - at_end["15 % hidden"][0]  # (seeds,)
error = difference.std(ddof=1) / np.sqrt(len(difference))
print(f"40 % less 15 %, on 15 % hidden: {difference.mean():.3f} ± {error:.3f} nats (standard error)")

# %% [markdown]
# The model that learned with 15 % hidden is lost where 40 % are: it has never seen so many masks, and its excess there
# is twenty times that of the other. The one that learned at 40 % answers the easy questions as well as the hard ones.
# Where 80 % are hidden, the model that learned so is the best of the four.
#
# ## One seed in front of you
#
# The beginning of two of these trainings, again, on this machine. They run in float64: rounding errors grow in
# training, and those of float32 would soon reach the digits that are compared. So they must agree to a part in ten
# thousand.

# %%
live = {name: run(words, {0.15: sets[0.15]}, seed=0, until=250, **SETTINGS[names.index(name)]) for name in names[:2]}
for name, measured in live.items():
    committed = runs[name][0]["excess_0.15"][:1]
    print(f"{name}: excess {np.round(measured['excess_0.15'], 6)} nats, committed {committed}")

# %% [markdown]
# ## What this says, and what it does not
#
# The paper's reasoning is visible here in numbers: a higher rate makes the questions harder and more, and the two pull
# in opposite directions. Its headline, that 40 % is *better* than 15 %, shows as a faster start and not as a better
# end. That does not contradict it. Wettig et al. compare large models on real text, which they come nowhere near to
# exhausting, by how well they can be fine-tuned; and larger models, they find, favour higher rates. Here a model of two
# layers gets within 0.04 nats of the best that is possible, and where little is left to learn, little is left to gain.
# Nor was the learning rate, or the number of steps, chosen anew for each setting.
#
# Exactness has one limit: each excess is exact for its masked sentence, but the 1,000 sentences were drawn. All models
# are measured on the same ones, so a lucky draw cannot favour one of them.
#
# ## Exercises
#
# 1. The loss asks for each hidden word by itself. In `<mask> lost <mask> book in the garden.`, what must a model pay at
#    least that fills in both words by themselves, and what one that fills them in together? Which is never larger?
# 2. A model that knows only how often each word occurs, and looks at no context, lacks how much at 15 %?
# 3. With a rate of 100 % the model sees nothing but the length of the sentence. What is the entropy then, and how does
#    the figure of entropies show it?
#
# Answers: [solutions/06_masking_rate.py](solutions/06_masking_rate.py).
#
# ## What was claimed, asserted

# %%
assert np.allclose(entropies, [0, np.log(10), np.log(5), np.log(10), 0], rtol=0, atol=1e-12)
assert (np.diff(draws.mean(axis=0)[1:]) > 0).all(), "the more is hidden, the less can be known"
assert abs(sum(sentences.values()) - 1) < 1e-12

assert all(len(found) >= 5 for found in runs.values())
excess = {name: curves(name, "excess_0.15") for name in names}
assert min(curves(name, f"excess_{rate}").min() for name in names for rate in sets) > 0, "no model beats the entropy"
assert (excess["40 % hidden, 15 % asked"] > excess["40 % hidden"]).all(), "fewer predictions: worse, always"
assert (excess["40 % hidden, 15 % asked"] > excess["15 % hidden"]).all(), "more corruption: worse, always"
assert (excess["40 % hidden"][:, 0] < excess["15 % hidden"][:, 0]).all(), "40 % starts faster, on every seed"
assert abs(difference.mean()) < difference.std(ddof=1), "and ends no better and no worse than the seeds differ"
assert max(excess[name][:, -1].mean() for name in names[:2]) < 0.04
assert excess["80 % hidden"][:, -1].mean() > 10 * excess["40 % hidden"][:, -1].mean()
assert np.argmin(table, axis=0)[2] == names.index("80 % hidden")
assert 0.9 < counts["40 % hidden, 15 % asked"][1] / counts["15 % hidden"][1] <= 1, "as many are asked, nearly"
assert counts["40 % hidden, 15 % asked"][0] == counts["40 % hidden"][0]

at_40 = {name: curves(name, "excess_0.4")[:, -1] for name in names[:2]}
assert at_40["15 % hidden"].mean() > 20 * at_40["40 % hidden"].mean()
both = curves("40 % hidden", "excess_0.15")[:, -1].mean(), at_40["40 % hidden"].mean()
assert abs(both[0] - both[1]) < 0.002, "easy and hard questions alike"
for name in names[:2]:
    own = int(name[:2]) / 100
    lack = curves(name, "loss")[:, -1] - floors[own] - curves(name, f"excess_{own}")[:, -1]
    assert (np.abs(lack) < 0.03).all(), "training loss = entropy + excess: the corpus is not learned by heart"
for name, measured in live.items():
    assert np.allclose(measured["excess_0.15"], runs[name][0]["excess_0.15"][:1], rtol=1e-4), "live as committed"
