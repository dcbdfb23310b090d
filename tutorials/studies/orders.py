"""Small models of both orders, pre-LN and post-LN, alike in everything else, down to the numbers they begin with."""

from __future__ import annotations

from typing import Any

import numpy as np

import npprelnorm as nl

CONFIGS = {"pre": nl.RobertaPreLayerNormConfig, "post": nl.RobertaConfig}
BODIES = {"pre": nl.RobertaPreLayerNormModel, "post": nl.RobertaModel}
MASKED_LMS = {"pre": nl.RobertaPreLayerNormForMaskedLM, "post": nl.RobertaForMaskedLM}


def config_of(order: str, depth: int, width: int, vocabulary: int, **others: Any) -> nl.RobertaPreLayerNormConfig:
    """Without dropout, and with weights that keep a vector's length through a linear map."""
    return CONFIGS[order](
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=32,
        type_vocab_size=1,
        initializer_range=width**-0.5,
        **others,
    )


def by_layer(grads: dict[str, np.ndarray], depth: int) -> list[float]:
    """Norm of the gradient of each layer's last matrix, W2 of its feed-forward block, lowest layer first."""
    ends = [f"encoder.layer.{index}.output.dense.weight" for index in range(depth)]
    return [float(np.linalg.norm(next(g for name, g in grads.items() if name.endswith(end)))) for end in ends]
