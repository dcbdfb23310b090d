# %% [markdown]
# # Solutions to tutorial 4
#
# One seed each, and 150 or 200 steps: enough to see, not to prove.

# %%
import sys

sys.path += ["..", "tutorials"]  # where this may be run: in its own folder, or in the repository's
from studies.corpus import Words, batches, little_grammar
from studies.orders import MASKED_LMS, config_of
from studies.results import load, select
from studies.warm_up import STUDY, held_out_set, spread

from npprelnorm.training.optimizer import AdamW, clip_by_global_norm

words = Words(little_grammar())
held = held_out_set(words)
ids = words.encode(words.grammar.sentences(5_000, seed=0))


def train(steps: int, *, depth: int = 6, warmup: int = 0, clip: float | None = None) -> tuple[float, float]:
    """Excess and spread of post-LN after so many steps at 0.001."""
    config = config_of("post", depth, 64, len(words), intermediate_size=128, hidden_act="relu")
    model = MASKED_LMS["post"](config, rng=0, dtype="float64")
    optimizer = AdamW(model.params, weight_decay=0.0)
    for step, batch in zip(range(steps), batches(ids, 32, 0, 0.4)):  # noqa: B905 (the batches do not end)
        _, grads = model.loss_and_grads(**batch._asdict(), labelled_only=True)
        if clip is not None:
            clip_by_global_norm(grads, clip)
        optimizer.step(model.params, grads, 1e-3 * min(1.0, step / warmup if warmup else 1.0))
    return held.excess(model), spread(model, batch)[-1]


# %% [markdown]
# ## 1. Clipping
#
# Adam divides by the running size of the gradient, so scaling *all* gradients by one factor would change nothing.
# Clipping acts only because some steps are scaled more than others: the large gradients of the first steps no longer
# dominate the running means. That helps a little, and much less than warm-up does.

# %%
clipped = train(200, clip=1.0)
print(f"clipped to 1: excess {clipped[0]:.2f}, spread {clipped[1]:.1g}")
at_200 = {
    warmup: select(load(STUDY), order="post", warmup=warmup, learning_rate=1e-3)[0]["excess"][1] for warmup in (0, 200)
}
print(f"as committed, neither: {at_200[0]:.2f}, warm-up: {at_200[200]:.2f}")
assert at_200[200] + 0.3 < clipped[0] < at_200[0] - 0.3

# %% [markdown]
# ## 2. Two layers
#
# It trains. The account says that each LayerNorm shrinks what is not shared, so what is left of it falls as a power of
# the number of layers, and two layers leave enough.

# %%
shallow = train(200, depth=2)
print(f"two layers: excess {shallow[0]:.2f}, spread {shallow[1]:.2f}")
assert shallow[0] < 2
assert shallow[1] > 0.5

# %% [markdown]
# ## 3. How long a warm-up
#
# Measured at step 150, for one seed. 20 steps are too few, 50 keep the words apart.

# %%
spreads = {}
for warmup in (20, 50, 100):
    excess, spreads[warmup] = train(150, warmup=warmup)
    print(f"warm-up {warmup:3d}: excess {excess:.2f}, spread {spreads[warmup]:.2g}")
assert spreads[20] < 1e-3 < 0.05 < spreads[50]
