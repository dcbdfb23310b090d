"""torch and transformers, with its default attention (sdpa)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .answers import BETAS, EPS, LEARNING_RATE, TOP_K, WEIGHT_DECAY, Answer, Run, from_candidates, from_logits


def fill_mask(folder: Path, threads: int) -> Run:
    """Texts to candidates, through the pipeline."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(threads)
    fill = pipeline("fill-mask", model=str(folder), device="cpu", dtype=torch.float32)
    return lambda texts: from_candidates(fill(texts, top_k=TOP_K, batch_size=len(texts)))


def classify(folder: Path, threads: int) -> Run:
    """Ids to class scores."""
    import torch
    from transformers import RobertaPreLayerNormForSequenceClassification

    torch.set_num_threads(threads)
    model = RobertaPreLayerNormForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(**inputs: Any) -> Answer:
        return {"logits": model(**{name: torch.tensor(value) for name, value in inputs.items()}).logits.tolist()}

    return run


def train(folder: Path, threads: int, dropout: float = 0.0, recompute: bool = False) -> Run:
    """Forward, backward and AdamW in its fastest form (fused); each call is the next step."""
    import torch
    from transformers import RobertaPreLayerNormForMaskedLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rates: dict[str, Any] = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = RobertaPreLayerNormForMaskedLM.from_pretrained(folder, dtype=torch.float32, **rates).train()
    if recompute:
        model.gradient_checkpointing_enable()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]  # biases and LayerNorm gains
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=BETAS,
        eps=EPS,
        fused=True,
    )

    def run(**inputs: Any) -> Answer:
        loss = model(**{name: torch.tensor(value) for name, value in inputs.items()}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.item()}

    return run


def generate(folder: Path, threads: int, new_tokens: int) -> Run:
    """Greedy search with its cache."""
    import torch
    from transformers import RobertaPreLayerNormForCausalLM

    torch.set_num_threads(threads)
    model = RobertaPreLayerNormForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def run(**inputs: Any) -> Answer:
        tensors = {name: torch.tensor(value) for name, value in inputs.items()}
        rows = model.generate(**tensors, max_new_tokens=new_tokens, do_sample=False, num_beams=1, use_cache=True)
        return {"ids": rows.tolist()}

    return run


def next_token(folder: Path, threads: int) -> Run:
    """One token whose forerunners are in the cache, from which it is removed again."""
    import torch
    from transformers import RobertaPreLayerNormForCausalLM

    torch.set_num_threads(threads)
    model = RobertaPreLayerNormForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    kept: list[Any] = []

    @torch.inference_mode()
    def run(input_ids: Any, attention_mask: Any) -> Answer:
        if not kept:
            ids = torch.tensor(input_ids)
            kept.extend([ids[:, -1:], model(ids[:, :-1], logits_to_keep=1, use_cache=True).past_key_values])
        last, past = kept
        before = past.get_seq_length()
        logits = model(last, past_key_values=past, use_cache=True).logits[:, -1]
        past.crop(before)
        return from_logits(logits.numpy())

    return run
