"""Generation: greedy search, sampling and beam search over a causal language model, one small room for each part."""

from .outputs import GenerateOutput
from .settings import GenerationSettings

__all__ = ["GenerateOutput", "GenerationSettings"]
