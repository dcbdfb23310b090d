"""What `generate(..., return_dict_in_generate=True)` returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cache import KeyValueCache
from ..outputs import Arrays, ModelOutput


@dataclass
class GenerateOutput(ModelOutput):
    """Result of `RobertaPreLayerNormForCausalLM.generate`; R rows are batch times `num_return_sequences`.

    Attributes
    ----------
    sequences : integers (R, T)
        Prompt and new tokens; what follows a row's end is padding.
    sequences_scores : floats (R,), optional
        Of beams, with ``output_scores``: sum of the log probabilities over length ** length_penalty.
    scores : tuple of floats (rows, V), optional
        With ``output_scores``: one array a step, after the processors; rows are B x beams while beams are searched.
    beam_indices : integers (R, new tokens), optional
        Of beams, with ``output_scores``: the running row that each token came from, -1 after the end.
    past_key_values : KeyValueCache, optional
        Of the running rows, every token but the last; a model that is no decoder has none.
    """

    sequences: np.ndarray
    sequences_scores: np.ndarray | None = None
    scores: Arrays | None = None
    beam_indices: np.ndarray | None = None
    past_key_values: KeyValueCache | None = None
