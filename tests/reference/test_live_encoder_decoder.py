"""`EncoderDecoderModel` beside transformers' own, in float64, on random tiny pairs: logits, loss, gradients, tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from reference_configs import weights
from reference_generation import in_double, settings_of, without_exact_ties

import npprelnorm as nl

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

PAIRS = 60
TOLERANCE = 1e-11  # times max(1, the largest of theirs)


def part(rng: np.random.Generator, **changes: Any) -> dict[str, Any]:
    heads = int(rng.integers(1, 4))
    return {
        "vocab_size": int(rng.integers(9, 40)),
        "hidden_size": heads * int(rng.integers(4, 9)),
        "num_hidden_layers": int(rng.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": int(rng.integers(4, 30)),
        "max_position_embeddings": 40,
        "hidden_act": str(rng.choice(["gelu", "silu", "gelu_new"])),
        "pad_token_id": int(rng.integers(1, 4)),
        "initializer_range": float(rng.choice([0.1, 0.2, 0.5])),
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": bool(rng.random() < 0.5),
    } | changes


def pair(rng: np.random.Generator, seed: int) -> tuple[Any, Any]:
    """The same random pair in both libraries; in every second one the widths differ."""
    encoder, decoder = part(rng), part(rng, is_decoder=True, add_cross_attention=True)
    if seed % 2:
        for name in ("hidden_size", "num_attention_heads"):
            decoder[name] = encoder[name]
    own_ids = {"pad_token_id": decoder["pad_token_id"], "decoder_start_token_id": int(rng.integers(0, 8))}
    config = nl.EncoderDecoderConfig(encoder=encoder, decoder=decoder, **own_ids)  # type: ignore[arg-type]
    shapes = nl.EncoderDecoderModel.shapes(config, pooler=bool(seed % 3))
    params = weights(shapes, encoder, seed)
    own = nl.EncoderDecoderModel.from_params(config, params, dtype="float64")
    configs = (
        transformers.RobertaPreLayerNormConfig(**values, attn_implementation="eager") for values in (encoder, decoder)
    )
    their_config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*configs, **own_ids)
    their_config.encoder._attn_implementation = their_config.decoder._attn_implementation = "eager"
    theirs = transformers.EncoderDecoderModel(config=their_config).double().eval()
    missing, unexpected = theirs.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in params.items()}, strict=False
    )
    assert not unexpected
    assert all("lm_head.decoder" in name or "encoder.pooler" in name for name in missing)
    theirs.decoder.tie_weights()
    return own, theirs


def padded(rng: np.random.Generator, config: Any, batch: int, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Ids with padding on one side, and their mask."""
    tokens = int(rng.integers(1, 8))
    others = [token for token in range(config.vocab_size) if token != config.pad_token_id]
    ids = rng.choice(others, (batch, tokens))
    mask = np.ones((batch, tokens), np.int64)
    for row in range(1, batch):
        cut = int(rng.integers(0, tokens))
        mask[row, slice(0, cut) if left else slice(tokens - cut, tokens)] = 0
    ids[mask == 0] = config.pad_token_id
    return ids, mask


def labels_of(rng: np.random.Generator, config: Any, batch: int) -> np.ndarray:
    labels = rng.integers(0, config.vocab_size, (batch, int(rng.integers(2, 8))))
    labels[rng.random(labels.shape) < 0.2] = -100
    labels[0, 0] = 5
    return labels


def close(mine: np.ndarray, theirs: torch.Tensor, what: str) -> None:
    other = theirs.detach().numpy()
    assert mine.shape == other.shape, what
    assert np.abs(mine - other).max() <= TOLERANCE * max(1.0, np.abs(other).max()), what


def tensors(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()
    }


@pytest.mark.parametrize("seed", range(PAIRS))
def test_everything_that_a_forward_and_a_backward_return(seed: int) -> None:
    rng = np.random.default_rng([20, seed])
    own, theirs = pair(rng, seed)
    batch = int(rng.integers(1, 4))
    ids, mask = padded(rng, own.config.encoder, batch, left=bool(seed % 4 == 3))
    labels = labels_of(rng, own.config.decoder, batch)
    arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if seed % 5 == 1:
        del arguments["attention_mask"]
    if seed % 5 == 2:  # ids of one's own beside the labels
        own_ids, own_mask = np.where(labels == -100, 3, labels), np.ones_like(labels)
        own_mask[:, -1] = 0
        arguments |= {"decoder_input_ids": own_ids, "decoder_attention_mask": own_mask}
    mine = own(**arguments, output_attentions=True, output_hidden_states=True)
    other = theirs(**tensors(arguments), output_attentions=True, output_hidden_states=True)
    for name in ("loss", "logits", "encoder_last_hidden_state"):
        close(mine[name], other[name], name)
    for name in (
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
        "encoder_hidden_states",
        "encoder_attentions",
    ):
        assert len(mine[name]) == len(other[name])
        for one, their in zip(mine[name], other[name], strict=True):
            close(one, their, name)
    assert mine.keys() == list(other)

    output, grads = own.loss_and_grads(**arguments)
    close(output.loss, other.loss, "loss")
    other.loss.backward()
    their_grads = {name: value.grad for name, value in theirs.named_parameters()}
    assert grads.keys() == own.params.keys()
    total = np.sqrt(sum(float((value**2).sum()) for value in their_grads.values() if value is not None))
    for name, value in grads.items():
        expected = their_grads.get(name)
        expected = np.zeros_like(value) if expected is None else expected.numpy()
        assert value.shape == expected.shape, name
        # a key's bias shifts all scores of a query alike, so that its true gradient is 0
        scale = total if name.endswith("key.bias") else np.linalg.norm(expected)
        assert np.linalg.norm(value - expected) <= 1e-10 * max(scale, 1e-6 * total), name
    assert set(their_grads) - grads.keys() <= {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("seed", range(PAIRS))
def test_generate_gives_the_same_tokens(seed: int, beams: int) -> None:
    rng = np.random.default_rng([21, seed])
    own, theirs = pair(rng, seed)
    in_double(theirs)
    batch = int(rng.integers(1, 4))
    ids, mask = padded(rng, own.config.encoder, batch, left=bool(seed % 2))
    settings = without_exact_ties(settings_of(rng, own.config.decoder))
    if beams > 1:
        # after one token alone, the only candidate ties with itself in the other beams, which stand at -1e9
        settings.pop("forced_bos_token_id", None)
        settings |= {
            "num_beams": beams,
            "num_return_sequences": int(rng.integers(1, beams + 1)),
            "length_penalty": float(rng.choice([-1.0, 0.0, 1.0, 2.0])),
            "early_stopping": [False, True, "never"][int(rng.integers(3))],
        }
    arguments: dict[str, Any] = {"attention_mask": mask}
    if seed % 4 == 1:
        del arguments["attention_mask"]
    if seed % 3 == 1:
        others = [token for token in range(own.config.decoder.vocab_size) if token != own.config.pad_token_id]
        arguments["decoder_input_ids"] = rng.choice(others, (batch, int(rng.integers(1, 4))))
    mine = own.generate(ids, position_scheme="hf_generate", **arguments, **settings)
    theirs.generation_config.pad_token_id = own.config.pad_token_id
    with torch.no_grad():
        other = theirs.generate(torch.from_numpy(ids), do_sample=False, **tensors(arguments), **settings)
    np.testing.assert_array_equal(mine, other.numpy(), err_msg=f"{settings}")


@pytest.mark.parametrize("seed", range(4))
def test_checkpoints_go_both_ways(tmp_path: Path, seed: int) -> None:
    transformers.utils.logging.disable_progress_bar()
    rng = np.random.default_rng([22, seed])
    own, theirs = pair(rng, seed)
    ids, mask = padded(rng, own.config.encoder, 2)
    labels = labels_of(rng, own.config.decoder, 2)
    arguments = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    theirs.save_pretrained(tmp_path / "theirs")
    again = nl.EncoderDecoderModel.from_pretrained(tmp_path / "theirs", dtype="float64")
    assert (again.config.pad_token_id, again.config.decoder_start_token_id) == (
        own.config.pad_token_id,
        own.config.decoder_start_token_id,
    )
    np.testing.assert_array_equal(again(**arguments).logits, own(**arguments).logits)
    again.save_pretrained(tmp_path / "ours")
    third = transformers.EncoderDecoderModel.from_pretrained(
        tmp_path / "ours", dtype=torch.float64, attn_implementation="eager"
    )
    close(own(**arguments).logits, third(**tensors(arguments)).logits, "logits")
    with torch.no_grad():
        rows = third.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), max_new_tokens=6)
    np.testing.assert_array_equal(
        again.generate(ids, mask, max_new_tokens=6, position_scheme="hf_generate"), rows.numpy()
    )
