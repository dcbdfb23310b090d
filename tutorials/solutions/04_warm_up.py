# %% [markdown]
# # Solutions to tutorial 4
#
# One seed each, and 100 to 200 steps: enough to see, not to prove.

# %%
import sys

sys.path.insert(0, "..")  # this runs in tutorials/solutions/
from studies.corpus import Words, batches, little_grammar
from studies.orders import MASKED_LMS, config_of
from studies.warm_up import held_out_set, spread

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
# Adam divides by the running size of the gradient, so scaling *all* gradients by one factor changes nothing. Clipping
# acts only through steps that are clipped by different factors. It does not prevent the collapse.

# %%
clipped = train(100, clip=1.0)
print(f"clipped to 1: excess {clipped[0]:.2f}, spread {clipped[1]:.1g}")
assert clipped[0] > 3.9
assert clipped[1] < 1e-2

# %% [markdown]
# ## 2. Two layers
#
# It trains. The account says that each LayerNorm shrinks what is not shared, so what is left of it falls as a power of
# the number of layers, and two layers leave enough.

# %%
shallow = train(200, depth=2)
print(f"two layers: excess {shallow[0]:.2f}, spread {shallow[1]:.2f}")
assert shallow[0] < 3
assert shallow[1] > 0.1

# %% [markdown]
# ## 3. How long a warm-up
#
# Measured at step 100, for one seed.

# %%
spreads = {}
for warmup in (0, 20, 50, 100):
    excess, spreads[warmup] = train(100, warmup=warmup)
    print(f"warm-up {warmup:3d}: excess {excess:.2f}, spread {spreads[warmup]:.2g}")
assert spreads[0] < spreads[100]
