"""`generate` beside transformers' own, token for token, on random tiny decoders and settings.

transformers turns each step's logits into float32 and adds beam scores up in float32: two float64 models that agree to
1e-13 can then round to different sides, and the scores of -1e9 that it gives unused beams all become equal. So its
forward is wrapped here to hand out logits that stay float64; everything after that is its own code, in which ties are
then as rare as in ours. Greedy search is compared with the unchanged transformers as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from reference_configs import weights
from reference_generation import in_double, settings_of, without_exact_ties

import npprelnorm as nl
from npprelnorm.generation import beam, processors

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

DRAWS = 160
BEAM_GRID = [
    (beams, penalty, early, returned)
    for beams in (2, 3, 4)
    for penalty in (-1.0, 0.0, 0.6, 1.0, 2.0)
    for early in (False, True, "never")
    for returned in sorted({1, 2, beams})
]


def pair(rng: np.random.Generator, seed: int, **changes: Any) -> tuple[Any, Any]:
    """The same random decoder in both libraries, in float64."""
    heads = int(rng.integers(1, 4))
    config = {
        "vocab_size": int(rng.integers(9, 40)),
        # LayerNorm over two numbers gives but a sign, so that whole sentences would tie
        "hidden_size": heads * int(rng.integers(4, 9)),
        "num_hidden_layers": int(rng.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": int(rng.integers(4, 30)),
        "max_position_embeddings": 40,
        "pad_token_id": int(rng.integers(1, 4)),
        "initializer_range": float(rng.choice([0.1, 0.2, 0.5])),
        "layer_norm_eps": 1e-5,
        "is_decoder": True,
        "tie_word_embeddings": bool(rng.random() < 0.5),
    } | changes
    own_config = nl.RobertaPreLayerNormConfig(**config)
    cls = nl.RobertaPreLayerNormForCausalLM
    params = weights(cls.shapes(own_config, pooler=False), config, seed)
    own = cls.from_params(own_config, params, dtype="float64")
    their_config = transformers.RobertaPreLayerNormConfig(**config, attn_implementation="eager")
    theirs = transformers.RobertaPreLayerNormForCausalLM(their_config).double().eval()
    state = {name: torch.from_numpy(value.copy()) for name, value in params.items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.decoder.weight", "lm_head.decoder.bias"}
    theirs.tie_weights()
    if not config["tie_word_embeddings"]:
        np.testing.assert_array_equal(theirs.lm_head.decoder.weight.detach().numpy(), params["lm_head.decoder.weight"])
    return own, theirs


def prompts(rng: np.random.Generator, config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded prompts that hold no padding of their own, and their mask."""
    batch, tokens = int(rng.integers(1, 4)), int(rng.integers(1, 7))
    others = [token for token in range(config.vocab_size) if token != config.pad_token_id]
    ids = rng.choice(others, (batch, tokens))
    mask = np.ones((batch, tokens), np.int64)
    for row in range(1, batch):
        mask[row, : int(rng.integers(0, tokens))] = 0
    ids[mask == 0] = config.pad_token_id
    return ids, mask


def warpers_of(rng: np.random.Generator) -> dict[str, Any]:
    """A random choice of what sampling does to the scores."""
    result: dict[str, Any] = {"top_k": int(rng.choice([0, 3, 50]))}
    for name, value in {
        "temperature": float(rng.choice([0.5, 1.7])),
        "top_p": float(rng.uniform(0.3, 0.95)),
        "min_p": float(rng.uniform(0.01, 0.4)),
        "typical_p": float(rng.uniform(0.2, 0.95)),
    }.items():
        if rng.random() < 0.5:
            result[name] = value
    return result


def theirs_generate(model: Any, ids: np.ndarray, mask: np.ndarray, **settings: Any) -> Any:
    with torch.no_grad():
        return model.generate(
            torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            pad_token_id=model.config.pad_token_id,
            **settings,
        )


@pytest.mark.parametrize("seed", range(DRAWS))
def test_greedy_search_gives_the_same_tokens(seed: int) -> None:
    rng = np.random.default_rng([5, seed])
    own, theirs = pair(rng, seed)
    ids, mask = prompts(rng, own.config)
    settings = without_exact_ties(settings_of(rng, own.config))
    mine = own.generate(ids, mask, position_scheme="hf_generate", **settings)
    np.testing.assert_array_equal(mine, theirs_generate(theirs, ids, mask, do_sample=False, **settings).numpy())


@pytest.mark.parametrize("seed", range(len(BEAM_GRID)))
def test_beam_search_gives_the_same_tokens_and_scores(seed: int) -> None:
    rng = np.random.default_rng([6, seed])
    beams, penalty, early, returned = BEAM_GRID[seed]
    for repeat in range(2):
        own, theirs = pair(rng, seed)
        in_double(theirs)
        ids, mask = prompts(rng, own.config)
        settings = without_exact_ties(settings_of(rng, own.config)) | {
            "num_beams": beams,
            "length_penalty": penalty,
            "early_stopping": early,
            "num_return_sequences": returned,
            "output_scores": True,
            "return_dict_in_generate": True,
        }
        mine = own.generate(ids, mask, position_scheme="hf_generate", **settings)
        other = theirs_generate(theirs, ids, mask, do_sample=False, **settings)
        where = f"repeat {repeat}: {settings}"
        np.testing.assert_array_equal(mine.sequences, other.sequences.numpy(), err_msg=where)
        np.testing.assert_array_equal(mine.beam_indices, other.beam_indices.numpy(), err_msg=where)
        np.testing.assert_allclose(mine.sequences_scores, other.sequences_scores.double().numpy(), rtol=1e-6)
        assert len(mine.scores) == len(other.scores)


@pytest.mark.parametrize("seed", range(60))
def test_sampling_draws_from_the_same_distribution(seed: int) -> None:
    """Their sample is replayed through ours: at every step the processed scores must agree."""
    rng = np.random.default_rng([7, seed])
    own, theirs = pair(rng, seed)
    in_double(theirs)
    ids, mask = prompts(rng, own.config)
    settings = without_exact_ties(settings_of(rng, own.config)) | warpers_of(rng)
    torch.manual_seed(seed)
    other = theirs_generate(
        theirs, ids, mask, do_sample=True, output_scores=True, return_dict_in_generate=True, **settings
    )
    tokens = other.sequences.numpy()
    seen: list[np.ndarray] = []

    def replay(at: np.ndarray, scores: np.ndarray) -> np.ndarray:
        forced = np.full_like(scores, -np.inf)
        forced[np.arange(len(at)), tokens[:, at.shape[1]]] = 0.0
        return forced

    chosen = processors.chosen

    def recorded(*args: Any, **kwargs: Any) -> Any:
        def record(at: np.ndarray, scores: np.ndarray) -> np.ndarray:
            seen.append(scores)
            return scores

        return [*chosen(*args, **kwargs), record, replay]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npprelnorm.generation.generate.chosen", recorded)
        mine = own.generate(ids, mask, position_scheme="hf_generate", do_sample=True, **settings)
    np.testing.assert_array_equal(mine, tokens)
    assert len(seen) == len(other.scores) >= 1
    for own_scores, their_scores in zip(seen, other.scores, strict=True):
        np.testing.assert_allclose(
            processors.softmax(own_scores), torch.softmax(their_scores.double(), dim=-1).numpy(), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("seed", range(60))
def test_beam_sampling_draws_from_the_same_distribution(seed: int) -> None:
    """What torch drew is replayed through ours: the distributions of all draws, and what comes of them, must agree."""
    rng = np.random.default_rng([8, seed])
    own, theirs = pair(rng, seed)
    in_double(theirs)
    ids, mask = prompts(rng, own.config)
    beams = int(rng.integers(2, 5))
    settings = (
        without_exact_ties(settings_of(rng, own.config))
        | warpers_of(rng)
        | {
            "num_beams": beams,
            "num_return_sequences": int(rng.integers(1, beams + 1)),
            "length_penalty": float(rng.choice([-1.0, 0.0, 1.0, 2.0])),
            "early_stopping": [False, True, "never"][int(rng.integers(3))],
            "output_scores": True,
            "return_dict_in_generate": True,
            "do_sample": True,
        }
    )
    draws: list[tuple[np.ndarray, np.ndarray]] = []
    multinomial = torch.multinomial

    def recorded(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        result = multinomial(probabilities, num_samples)
        draws.append((probabilities.double().numpy(), result.numpy()))
        return result

    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", recorded)
        other = theirs_generate(theirs, ids, mask, **settings)
    steps = iter(draws)

    def replayed(scores: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        probabilities, index = next(steps)
        np.testing.assert_allclose(processors.softmax(scores), probabilities, rtol=1e-8, atol=1e-12)
        assert index.shape == (len(scores), count)
        return index

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "drawn", replayed)
        mine = own.generate(ids, mask, position_scheme="hf_generate", **settings)
    assert next(steps, None) is None
    where = f"{settings}"
    np.testing.assert_array_equal(mine.sequences, other.sequences.numpy(), err_msg=where)
    np.testing.assert_array_equal(mine.beam_indices, other.beam_indices.numpy(), err_msg=where)
    np.testing.assert_allclose(mine.sequences_scores, other.sequences_scores.double().numpy(), rtol=1e-6)
    for own_scores, their_scores, (probabilities, _) in zip(mine.scores, other.scores, draws, strict=True):
        live = probabilities.reshape(own_scores.shape).sum(axis=1) > 0  # beams that are impossible tie with each other
        assert live.any()
        np.testing.assert_allclose(own_scores[live], their_scores.double().numpy()[live], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("seed", range(15))
def test_several_forced_ends(seed: int, beams: int) -> None:
    """All of them score 0 at the last step, so that torch is free in which it takes: all else must agree."""
    rng = np.random.default_rng([9, seed])
    own, theirs = pair(rng, seed)
    in_double(theirs)
    ids, mask = prompts(rng, own.config)
    ends = [int(token) for token in rng.choice(own.config.vocab_size, 3, replace=False)]
    settings = {
        "max_new_tokens": int(rng.integers(2, 7)),
        "forced_eos_token_id": ends,
        "eos_token_id": [],
        "num_beams": beams,
    }
    settings |= {"output_scores": True, "return_dict_in_generate": True}
    mine = own.generate(ids, mask, position_scheme="hf_generate", **settings)
    del settings["eos_token_id"]
    theirs.generation_config.eos_token_id = None
    other = theirs_generate(theirs, ids, mask, do_sample=False, **settings)
    np.testing.assert_array_equal(mine.sequences[:, :-1], other.sequences.numpy()[:, :-1])
    assert np.isin(mine.sequences[:, -1], ends).all()
    assert np.isin(other.sequences.numpy()[:, -1], ends).all()
    for own_scores, their_scores in zip(mine.scores, other.scores, strict=True):
        np.testing.assert_allclose(own_scores, their_scores.double().numpy(), rtol=1e-9, atol=1e-9)
    if beams > 1:
        np.testing.assert_allclose(mine.sequences_scores, other.sequences_scores.double().numpy(), rtol=1e-6)


FILES: list[dict[str, Any]] = [
    {"max_new_tokens": 7, "num_beams": 3, "length_penalty": 0.3, "early_stopping": True, "num_return_sequences": 2},
    {
        "max_new_tokens": 9,
        "repetition_penalty": 1.4,
        "suppress_tokens": [3, 5],
        "eos_token_id": [4, 6],
        "pad_token_id": 1,
    },
    {"max_new_tokens": 6, "no_repeat_ngram_size": 2, "bad_words_ids": [[3], [4, 5]], "eos_token_id": 7},
    {"max_new_tokens": 5, "max_length": 30, "temperature": 0.7, "top_k": 10, "min_new_tokens": 3, "eos_token_id": 3},
    {"min_new_tokens": 3, "eos_token_id": [2, 3, 4, 5], "num_beam_groups": 1, "diversity_penalty": 0.0},
    {},
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", range(len(FILES)))
def test_settings_of_a_folder_are_honoured_alike(tmp_path: Path, case: int, legacy: bool) -> None:
    """In a file of their own, or among the model configuration, as it was before there was such a file."""
    transformers.utils.logging.disable_progress_bar()
    for seed in range(3):
        rng = np.random.default_rng([10, case, seed])
        own, theirs = pair(rng, seed, pad_token_id=1, eos_token_id=2, vocab_size=12)
        folder = tmp_path / f"{seed}"
        theirs.save_pretrained(folder)
        if legacy:
            (folder / "generation_config.json").unlink()
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | FILES[case]))
        else:
            (folder / "generation_config.json").write_text(json.dumps(FILES[case]))
        own = nl.RobertaPreLayerNormForCausalLM.from_pretrained(folder, dtype="float64")
        theirs = transformers.RobertaPreLayerNormForCausalLM.from_pretrained(folder, dtype=torch.float64)
        ids, mask = prompts(rng, own.config)
        for settings in ({}, {"num_beams": 2}, {"max_new_tokens": 4, "num_beams": 3, "num_return_sequences": 3}):
            settings = settings | {"do_sample": False}
            with torch.no_grad():
                other = theirs.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **settings)
            mine = own.generate(ids, mask, position_scheme="hf_generate", **settings)
            np.testing.assert_array_equal(mine, other.numpy(), err_msg=f"{settings}")


def test_transformers_honours_what_we_save(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    own, _ = pair(rng, 0, vocab_size=12, eos_token_id=[2, 3])
    own.generation_config = nl.GenerationSettings(num_beams=3, max_new_tokens=6, repetition_penalty=1.3)
    own.save_pretrained(tmp_path)
    theirs = transformers.RobertaPreLayerNormForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert theirs.generation_config.num_beams == 3
    assert theirs.generation_config.eos_token_id == [2, 3]
    for _ in range(5):
        ids, mask = prompts(rng, own.config)
        with torch.no_grad():
            other = theirs.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        np.testing.assert_array_equal(own.generate(ids, mask, position_scheme="hf_generate"), other.numpy())
