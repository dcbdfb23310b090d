# %% [markdown]
# # Solutions to tutorial 6

# %%
import sys

import numpy as np

sys.path += ["..", "tutorials"]  # where this may be run: in its own folder, or in the repository's
from studies.corpus import Words, held_out, little_grammar
from studies.results import load, select

words = Words(little_grammar())


def entropy(probabilities: list[float]) -> float:
    p = np.array(probabilities)
    return float(-(p * np.log(p)).sum())


# %% [markdown]
# ## 1. By themselves, or together
#
# By themselves: the sum of the entropies of the two places. Together: the entropy of the pairs. The chain rule
# $H(A, B) = H(A) + H(B \mid A)$ with $H(B \mid A) \le H(B)$ says that the second is never larger. Here the name decides
# between *his* and *her*, so that the second word costs nothing once the first is known.

# %%
apart = [entropy(list(one.values())) for one in words.grammar.masked("<mask> lost <mask> book in the garden.")]
pairs = [p for sentence, p in words.grammar.everything().items() if sentence.endswith("book in the garden.")]
together = entropy([p / sum(pairs) for p in pairs])
print(f"apart {apart[0]:.3f} + {apart[1]:.3f} = {sum(apart):.3f} nats, together {together:.3f} nats")
assert np.isclose(sum(apart), np.log(12) + np.log(2))
assert np.isclose(together, np.log(12))

# %% [markdown]
# ## 2. A model that looks at no context
#
# The best that it can do is to say how often each word occurs. Its excess is the mutual information between a hidden
# word and its context, as far as place by place goes: all that context is worth. The models trained at 15 % and 40 %
# keep less than a hundredth of it as their excess.

# %%
frequencies = words.frequencies()
logs = np.log(frequencies, out=np.full(len(words), -np.inf), where=frequencies > 0)
one = held_out(words, words.grammar.sentences(1_000, 1_000), 0.15, 1_000)
print(f"excess without context: {one.divergence(logs):.3f} nats a hidden word")
assert one.divergence(logs) > 4
for rate in (0.15, 0.4):
    runs = select(load("masking_rate"), hidden=rate, predicted=rate)
    assert np.mean([run["excess_0.15"][-1] for run in runs]) < one.divergence(logs) / 100

# %% [markdown]
# ## 3. Everything hidden
#
# What is left is the length of the sentence, so the entropy of a place given the length and the place, averaged: the
# right end of the curve. It is far below the entropy of a word without any context, since the place and the length say
# much: every sentence ends with a full stop.

# %%
everything = held_out(words, words.grammar.sentences(300, seed=7), 1.0, seed=0)
without = entropy([p for p in frequencies if p > 0])
print(f"all hidden: {everything.entropy():.3f} nats a word; not even the length known: {without:.3f}")
assert everything.entropy() < without - 1
