"""This package; the backend, and how it stores weights, come from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .answers import (
    BETAS,
    EPS,
    LEARNING_RATE,
    TOP_K,
    WEIGHT_DECAY,
    Answer,
    Run,
    classify_by_logits,
    from_candidates,
    from_logits,
)


def _weight_dtype() -> str:
    return os.environ.get("BENCHMARK_WEIGHT_DTYPE", "float32")


def fill_mask(folder: Path, threads: int) -> Run:
    """Texts to candidates, through the pipeline."""
    import npprelnorm as nl

    fill = nl.pipeline("fill-mask", folder, weight_dtype=_weight_dtype())
    return lambda texts: from_candidates(fill(texts, top_k=TOP_K))


def classify(folder: Path, threads: int) -> Run:
    """Ids to class scores."""
    import npprelnorm as nl

    model = nl.RobertaPreLayerNormForSequenceClassification.from_pretrained(folder, weight_dtype=_weight_dtype())
    return classify_by_logits(lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits)


def train(folder: Path, threads: int, dropout: float = 0.0, recompute: bool = False) -> Run:
    """Forward, backward and AdamW; each call is the next step."""
    import numpy as np

    import npprelnorm as nl
    from npprelnorm.training.optimizer import AdamW

    rates: dict[str, Any] = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(folder, **rates)
    model.params = {name: value.copy() for name, value in model.params.items()}  # mapped arrays cannot be written to
    optimizer = AdamW(model.params, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    rng = np.random.default_rng(0) if dropout else None

    def run(**inputs: Any) -> Answer:
        output, grads = model.loss_and_grads(**inputs, labelled_only=True, rng=rng, recompute=recompute)
        optimizer.step(model.params, grads, LEARNING_RATE)
        return {"loss": float(output.loss)}

    return run


def generate(folder: Path, threads: int, new_tokens: int) -> Run:
    """Greedy search, with positions counted as transformers' search counts them."""
    import npprelnorm as nl

    model = nl.RobertaPreLayerNormForCausalLM.from_pretrained(folder, eos_token_id=None, weight_dtype=_weight_dtype())

    def run(input_ids: Any, attention_mask: Any) -> Answer:
        rows = model.generate(
            input_ids, attention_mask, max_new_tokens=new_tokens, position_scheme="hf_generate", use_cache=True
        )
        return {"ids": rows.tolist()}

    return run


def next_token(folder: Path, threads: int) -> Run:
    """One token whose forerunners are in the cache; the first call reads those."""
    import numpy as np

    import npprelnorm as nl

    model = nl.RobertaPreLayerNormForCausalLM.from_pretrained(folder, weight_dtype=_weight_dtype())
    kept: list[Any] = []

    def run(input_ids: Any, attention_mask: Any) -> Answer:
        if not kept:
            ids = np.asarray(input_ids)
            kept.extend([ids[:, -1:], model(ids[:, :-1], logits_to_keep=1).past_key_values])
        last, past = kept
        return from_logits(model(last, past_key_values=past, use_cache=False).logits[:, -1])

    return run
