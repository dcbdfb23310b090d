"""A small world in English whose sentences can be drawn, and whose entropy and masked words can be computed exactly.

from npprelnorm.smallworld import small_world

world = small_world()
world.sentences(3, seed=0)                         # draw some
world.masked("The capital of France is <mask>.")   # [{"Paris": 1.0}]
world.entropy()                                    # nats a sentence
"""

from .grammar import Frame, Grammar, Table, sentence_of, words_of
from .world import small_world

__all__ = ["Frame", "Grammar", "Table", "sentence_of", "small_world", "words_of"]
