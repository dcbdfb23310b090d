"""Write tests/golden/pairs.npz: what transformers' EncoderDecoderModel computes for three small pairs, in float64.

    python tools/make_pairs_golden.py            # writes it (transformers 5.2.0 made the committed file)
    python tools/make_pairs_golden.py --check    # makes the numbers again and compares them with the file

For each pair: configuration, weights (which float16 holds exactly), one labelled call with loss, logits, the encoder's
last hidden state and the gradient of every parameter; and the tokens of greedy and beam search. tests/pairs.py reads
it. Logits are kept in float64 while transformers generates, so that no token depends on rounding.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "golden" / "pairs.npz"
sys.path.insert(0, str(ROOT / "tests"))
from reference_generation import in_double  # noqa: E402

SHAPE = {
    "vocab_size": 19,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 24,
    "layer_norm_eps": 1e-5,
}
DECODER = {"is_decoder": True, "add_cross_attention": True}
PAIRS: dict[str, dict[str, dict[str, Any]]] = {
    "alike": {"encoder": SHAPE, "decoder": SHAPE | DECODER},
    "projected": {
        "encoder": SHAPE | {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 23, "hidden_act": "silu"},
        "decoder": SHAPE | DECODER | {"num_hidden_layers": 1, "tie_word_embeddings": False},
    },
    "started-by-padding": {"encoder": SHAPE | {"num_hidden_layers": 1}, "decoder": SHAPE | DECODER},
}
START = {"alike": 0, "projected": 4, "started-by-padding": 1}
SEARCHES: list[dict[str, Any]] = [
    {"max_new_tokens": 8},
    {"max_new_tokens": 8, "num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.4},
    {"max_new_tokens": 9, "num_beams": 4, "early_stopping": True, "eos_token_id": [2, 5], "repetition_penalty": 1.3},
]


def make(name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Run one pair; its arrays go into `arrays`, what JSON holds is returned."""
    rng = np.random.default_rng([31, list(PAIRS).index(name)])
    parts = [transformers.RobertaPreLayerNormConfig(**values) for values in PAIRS[name].values()]
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        *parts, pad_token_id=1, decoder_start_token_id=START[name]
    )
    config.encoder._attn_implementation = config.decoder._attn_implementation = "eager"
    model = transformers.EncoderDecoderModel(config=config).double().eval()
    with torch.no_grad():
        for parameter_name, parameter in sorted(model.named_parameters()):
            draw = rng.standard_normal(parameter.shape)
            is_gain = parameter_name.lower().replace("_", "").endswith("layernorm.weight")
            draw = 1 + 0.2 * draw if is_gain else 0.15 * draw if parameter_name.endswith("bias") else 0.35 * draw
            parameter.copy_(torch.from_numpy(draw.astype(np.float16).astype(np.float64)))
    ids = rng.integers(3, 19, (3, 6))
    mask = np.ones_like(ids)
    ids[1, 4:], mask[1, 4:] = 1, 0
    labels = rng.integers(0, 19, (3, 5))
    labels[0, 3:] = labels[2, 1] = -100
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    output = model(**{key: torch.from_numpy(value) for key, value in inputs.items()})
    output.loss.backward()
    for key, value in inputs.items():
        arrays[f"{name}/in/{key}"] = value
    for key in ("loss", "logits", "encoder_last_hidden_state"):
        arrays[f"{name}/out/{key}"] = output[key].detach().numpy()
    for key, parameter in model.named_parameters():
        arrays[f"{name}/weights/{key}"] = parameter.detach().numpy().astype(np.float16)
        gradient = np.zeros(tuple(parameter.shape)) if parameter.grad is None else parameter.grad.numpy()
        arrays[f"{name}/gradients/{key}"] = gradient
    in_double(model)
    for index, settings in enumerate(SEARCHES):
        with torch.no_grad():
            rows = model.generate(
                torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), do_sample=False, **settings
            )
        arrays[f"{name}/tokens/{index}"] = rows.numpy()
    return {**PAIRS[name], "pad_token_id": 1, "decoder_start_token_id": START[name]}


def main() -> int:
    parser = argparse.ArgumentParser(description="make the golden file of encoder-decoder pairs, or check it")
    parser.add_argument("--check", action="store_true", help="compare with the committed file, write nothing")
    check = parser.parse_args().check
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    arrays: dict[str, np.ndarray] = {}
    pairs = {name: make(name, arrays) for name in PAIRS}
    manifest = {"transformers": transformers.__version__, "pairs": pairs, "searches": SEARCHES}
    arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    if not check:
        np.savez_compressed(TARGET, **arrays)
        print(f"{len(pairs)} pairs of transformers {transformers.__version__}, {TARGET.stat().st_size:,} bytes")
        return 0
    with np.load(TARGET, allow_pickle=False) as stored:
        problems = [f"only in one of the two: {name}" for name in sorted(set(stored) ^ set(arrays))]
        for name in sorted(set(stored) & set(arrays)):
            # a gradient that is 0 in exact arithmetic comes out as 1e-17 one day and as 3e-17 the next
            if not np.allclose(arrays[name], stored[name], rtol=1e-9, atol=1e-13):
                problems.append(f"other numbers: {name}")
    print("\n".join(problems) or f"{len(pairs)} pairs: all as committed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
