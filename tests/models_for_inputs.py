"""One small model of each kind, to be given inputs of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from strategies import random_model, tiny_config

MODELS: dict[str, Any] = {
    "encoder": random_model("Model", tiny_config()),
    "decoder": random_model("ForCausalLM", tiny_config(is_decoder=True)),
    "cross": random_model("ForCausalLM", tiny_config(is_decoder=True, add_cross_attention=True)),
    "relative": random_model("Model", tiny_config(position_embedding_type="relative_key")),
    "masked": random_model("ForMaskedLM", tiny_config()),
    "sequence": random_model("ForSequenceClassification", tiny_config(num_labels=3)),
    "regression": random_model("ForSequenceClassification", tiny_config(num_labels=1)),
    "multi": random_model(
        "ForSequenceClassification", tiny_config(num_labels=3, problem_type="multi_label_classification")
    ),
    "choice": random_model("ForMultipleChoice", tiny_config()),
    "token": random_model("ForTokenClassification", tiny_config(num_labels=3)),
    "question": random_model("ForQuestionAnswering", tiny_config()),
}

IDS = np.array([[5, 6, 7], [8, 9, 10]])
