"""Live against the installed transformers (5.2.0, eager attention): random models, caches, resizing, saved files.

The models come from reference_configs: one seed each, tiny, every parameter random. transformers' are built directly
and given the same numbers; only the tests of saved files touch the disk.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_configs
from golden_files import assert_close
from reference_configs import HEADS, Draw, draw

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

from reference_models import (  # noqa: E402
    TOLERANCE,
    call_theirs,
    check_draw,
    class_pair,
    compare,
    model_pair,
    parameters_of,
)

from npprelnorm.errors import NpprelnormWarning  # noqa: E402

pytestmark = [
    pytest.mark.reference,
    # both libraries warn about legal but doubtful calls, which random draws make; the plain suite tests the warnings
    pytest.mark.filterwarnings("ignore::npprelnorm.errors.NpprelnormWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

SEEDS = 210  # for each class
BLOCK = 30  # seeds in one test


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
@pytest.mark.parametrize("head", HEADS)
def test_random_models(head: str, first: int) -> None:
    for seed in range(first, first + BLOCK):
        check_draw(draw(head, seed))


def test_the_random_models_cover_every_axis() -> None:
    """Each edge case turns up at least 5 times a class, or the test above would pass without having met it."""
    common = {f"act {name}" for name in reference_configs.ACTIVATIONS}
    common |= {f"padding {name}" for name in reference_configs.PADDINGS}
    common |= {f"range {value}" for value in (*reference_configs.INITIALIZER_RANGES, 0.5)}
    common |= {f"pad id {value}" for value in (0, 1, 3, 5)} | {f"type_vocab_size {value}" for value in (1, 2, 3)}
    common |= {"num_hidden_layers 1", "num_attention_heads 1", "heads of one", "vocabulary of 7"}
    common |= {"one token", "as long as allowed", "chunks", "inputs_embeds", "token_type_ids", "position_ids"}
    masks = {f"mask {form}" for form in ("2-D int", "2-D bool", "2-D float", "4-D 0/min", "4-D biases")}
    decoder = {"is_decoder True", "add_cross_attention True", "encoder states", "encoder mask"}
    ties = {"tie_word_embeddings True", "tie_word_embeddings False", "labels"}
    own = {
        "Model": masks | decoder,
        "ForMaskedLM": masks | ties,
        "ForCausalLM": masks | decoder | ties
        | {"num_items_in_batch", "logits_to_keep int", "logits_to_keep indices", "shift_labels", "is_decoder False"},
        "ForSequenceClassification": masks | {"num_labels 1", "problem_type None"}
        | {f"labels of {problem}" for problem in reference_configs.PROBLEM_TYPES}
        | {f"problem_type {problem}" for problem in reference_configs.PROBLEM_TYPES},
        "ForMultipleChoice": {"labels"},
        "ForTokenClassification": masks | {"labels", "num_labels 1", "num_labels 5"},
        "ForQuestionAnswering": masks | {"spans of rank 1", "spans of rank 2"},
    }  # fmt: skip
    for head in HEADS:
        seen = Counter(feature for seed in range(SEEDS) for feature in draw(head, seed).features)
        assert {feature: seen[feature] for feature in common | own[head] if seen[feature] < 5} == {}, head


def decoder_draws(count: int) -> Iterator[tuple[Draw, np.random.Generator]]:
    """The first `count` draws of decoders from ids, each with a generator for what a test adds to it."""
    seed = 1000
    while count:
        case = draw("ForCausalLM", seed)
        seed += 1
        if case.config["is_decoder"] and "input_ids" in case.arguments and case.arguments["input_ids"].shape[1] > 1:
            count -= 1
            # a chunk that divides all tokens need not divide those of a step
            yield replace(case, config=case.config | {"chunk_size_feed_forward": 0}), np.random.default_rng(case.seed)


def test_caches_step_by_step() -> None:
    """Random splits of random sequences: each step's logits, states, attentions and cache are theirs."""
    for case, rng in decoder_draws(60):
        ids, pad = case.arguments["input_ids"], case.config["pad_token_id"]
        tokens = ids.shape[1]
        ends = sorted({*rng.integers(1, tokens + 1, int(rng.integers(1, 4))).tolist(), tokens})
        mask = (ids != pad).astype(np.int64)
        masked = bool(rng.random() < 0.7)
        # positions go on from the length of the cache: with padding in it, they may leave the table
        explicit = bool(rng.random() < 0.4) or bool((mask == 0).any())
        source = {
            name: value
            for name, value in case.arguments.items()
            # a mask with a row for each of all tokens does not fit a step
            if name == "encoder_hidden_states" or (name == "encoder_attention_mask" and value.ndim == 2)
        }
        ours, theirs = model_pair(case.head, case.config, case.seed, case.dtype)
        our_output = their_output = None
        our_states, start = [], 0
        for end in ends:
            step: dict[str, Any] = {"input_ids": ids[:, start:end], "use_cache": True, **source}
            if masked:
                step["attention_mask"] = mask[:, :end]
            if explicit:
                step["position_ids"] = np.where(mask == 1, mask.cumsum(1) + pad, pad)[:, start:end]
            options = {"output_attentions": True, "output_hidden_states": True}
            our_past = {} if our_output is None else {"past_key_values": our_output.past_key_values}
            their_past = {} if their_output is None else {"past_key_values": their_output.past_key_values}
            our_output = ours(**step, **our_past, **options)
            their_output = call_theirs(theirs, step, case.dtype, **their_past, **options)
            compare(our_output, their_output, TOLERANCE[case.dtype], f"{case}, tokens {start} to {end}")
            our_states.append(our_output.logits)
            start = end
        whole = ours(input_ids=ids, use_cache=False, **source, **({"attention_mask": mask} if masked else {}))
        assert whole.past_key_values is None
        real = np.ones_like(mask, bool) if not masked else mask == 1  # what padding sees is not the same in steps
        stepwise = np.concatenate(our_states, axis=1)
        assert_close(stepwise[real], whole.logits[real], TOLERANCE[case.dtype], f"{case}: in steps, and at once")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForCausalLM", "ForTokenClassification"])
def test_resizing_the_vocabulary(head: str, tied: bool) -> None:
    for seed in range(2000, 2010):
        case = draw(head, seed)
        config = case.config | {"tie_word_embeddings": tied}
        old = config["vocab_size"]
        rng = np.random.default_rng(seed)
        new, multiple = int(rng.integers(max(2, config["pad_token_id"] + 1), 2 * old)), [None, 8][int(rng.integers(2))]
        ours, theirs = model_pair(head, config, seed, "float32")
        before = parameters_of(theirs)
        ours.resize_token_embeddings(new, pad_to_multiple_of=multiple)
        torch.manual_seed(seed)
        theirs.resize_token_embeddings(new, pad_to_multiple_of=multiple, mean_resizing=True)
        assert ours.config.vocab_size == theirs.config.vocab_size
        expected = parameters_of(theirs)
        assert ours.params.keys() == expected.keys()
        for name, value in expected.items():
            if name == "lm_head.bias" and not tied:
                continue  # nothing uses it, and they leave it at its old length
            result = ours.params[name]
            what = f"{case}: {name} from {old} to {new} rows"
            if value.shape == before[name].shape:
                assert np.array_equal(result, before[name]), what
                continue
            kept = min(old, len(value))
            assert result.shape == value.shape, what
            assert np.array_equal(result[:kept], before[name][:kept]), what
            assert np.array_equal(value[:kept], before[name][:kept]), what
            # their rows are drawn around the mean with a deviation of sqrt(1e-9) of that of the old rows, ours are
            # the mean; new biases are the mean where nothing is tied, and 0 where it is
            spread = 6 * np.sqrt(1e-9) * before[name].std(axis=0) + 1e-6
            assert (np.abs(result[kept:] - value[kept:]) <= spread).all(), what


def folders_of(theirs: Any, path: Path) -> Iterator[Path]:
    """Their model saved in every form that we read: one safetensors file, several with an index, a torch file."""
    theirs.save_pretrained(path / "single")
    theirs.save_pretrained(path / "sharded", max_shard_size=theirs.get_memory_footprint() // 3)
    assert (path / "sharded" / "model.safetensors.index.json").exists()
    theirs.config.save_pretrained(path / "torch")
    torch.save(theirs.state_dict(), path / "torch" / "pytorch_model.bin")  # with the tied tensors, as aliases
    yield from (path / "single", path / "sharded", path / "torch")


@pytest.mark.parametrize("seed", range(3000, 3004))
@pytest.mark.parametrize("head", HEADS)
def test_their_files_in_ours(head: str, seed: int, tmp_path: Path) -> None:
    case = draw(head, seed)
    our_class, _ = class_pair(head)
    _, theirs = model_pair(head, case.config, seed, "float32")
    expected = call_theirs(theirs, case.arguments, "float32")
    for folder in folders_of(theirs, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing is missing and nothing is left over
            ours = our_class.from_pretrained(folder)
        for name, value in parameters_of(theirs).items():
            assert np.array_equal(ours.params[name], value), f"{folder.name}: {name}"
        compare(ours(**case.arguments), expected, TOLERANCE["float32"], f"{case}, {folder.name}")


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("seed", range(4000, 4004))
@pytest.mark.parametrize("head", HEADS)
def test_our_files_in_theirs(head: str, seed: int, shards: bool, tmp_path: Path) -> None:
    case = draw(head, seed)
    our_class, their_class = class_pair(head)
    original, theirs = model_pair(head, case.config, seed, "float32")
    original.save_pretrained(tmp_path, **({"max_shard_size": 4 * original.num_parameters() // 3} if shards else {}))
    assert (tmp_path / "model.safetensors.index.json").exists() == shards
    loaded, info = their_class.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    expected = parameters_of(theirs)
    result = parameters_of(loaded.eval())
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(result[name], value), name
    options = {"output_hidden_states": True}
    ours = our_class.from_pretrained(tmp_path)
    for output in (original(**case.arguments, **options), ours(**case.arguments, **options)):
        compare(output, call_theirs(loaded, case.arguments, "float32", **options), TOLERANCE["float32"], str(case))


def language_model(tied: bool, path: Path) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Config, full state dict and ids of a masked language model whose config is saved in `path`."""
    case = next(d for d in (draw("ForMaskedLM", seed) for seed in range(5000, 6000)) if "input_ids" in d.arguments)
    config = case.config | {"tie_word_embeddings": tied}
    _, theirs = model_pair("ForMaskedLM", config, case.seed, "float32")
    theirs.config.save_pretrained(path)
    state = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    return config, state, {"input_ids": case.arguments["input_ids"]}


@pytest.mark.parametrize("differing", ["lm_head.decoder.weight", "lm_head.decoder.bias", "both"])
def test_tied_by_its_config_but_two_copies_that_differ(differing: str, tmp_path: Path) -> None:
    """5.2.0 then ties nothing that differs: the decoder's own numbers live on. Ours does the same, and says so."""
    our_class, their_class = class_pair("ForMaskedLM")
    _, state, inputs = language_model(True, tmp_path)
    for name in ("lm_head.decoder.weight", "lm_head.decoder.bias"):
        if differing in (name, "both"):
            state[name] = state[name] + torch.linspace(-1, 1, state[name].numel()).reshape(state[name].shape)
    torch.save(state, tmp_path / "pytorch_model.bin")
    theirs = their_class.from_pretrained(tmp_path).eval()
    with pytest.warns(NpprelnormWarning, match="lm_head"):
        ours = our_class.from_pretrained(tmp_path)
    compare(ours(**inputs), call_theirs(theirs, inputs, "float32"), TOLERANCE["float32"], differing)
    # on request as 4.56.2 reads it: the embeddings win over the decoder's matrix, the decoder's bias over the other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NpprelnormWarning)
        older = our_class.from_pretrained(tmp_path, tied_weights="v4")
    embeddings = "roberta_prelayernorm.embeddings.word_embeddings.weight"
    assert {name for name in older.params if name.startswith("lm_head.decoder")} == set()
    assert np.array_equal(older.params[embeddings], state[embeddings].numpy())
    assert np.array_equal(older.params["lm_head.bias"], state["lm_head.decoder.bias"].numpy())


def test_untied_with_all_four_parameters(tmp_path: Path) -> None:
    our_class, their_class = class_pair("ForMaskedLM")
    _, state, inputs = language_model(False, tmp_path)
    assert not torch.equal(state["lm_head.bias"], state["lm_head.decoder.bias"])
    torch.save(state, tmp_path / "pytorch_model.bin")
    theirs = their_class.from_pretrained(tmp_path).eval()
    ours = our_class.from_pretrained(tmp_path)
    assert {"lm_head.bias", "lm_head.decoder.bias", "lm_head.decoder.weight"} <= ours.params.keys()
    compare(ours(**inputs), call_theirs(theirs, inputs, "float32"), TOLERANCE["float32"], "untied")
    ours.save_pretrained(tmp_path / "again")
    again = their_class.from_pretrained(tmp_path / "again").eval()
    compare(ours(**inputs), call_theirs(again, inputs, "float32"), TOLERANCE["float32"], "untied, saved by us")


@pytest.mark.parametrize("head", [head for head in HEADS if head != "Model"])
def test_a_base_model_file_in_a_head_class_and_back(head: str, tmp_path: Path) -> None:
    """The prefix is added or taken away; what the file lacks is fresh, so only the body's states can be compared."""
    config = draw("Model", 5).config | {"is_decoder": head == "ForCausalLM", "add_cross_attention": False}
    config["num_labels"] = 2
    options = {"output_hidden_states": True}
    ids = np.arange(2, 6)[None] % config["vocab_size"]
    inputs = {"input_ids": ids[None] if head == "ForMultipleChoice" else ids}
    for saved, loaded in (("Model", head), (head, "Model")):
        _, source = model_pair(saved, config, 5, "float32")
        folder = tmp_path / saved
        source.save_pretrained(folder)
        our_class, their_class = class_pair(loaded)
        theirs = their_class.from_pretrained(folder, attn_implementation="eager").eval()
        ours = our_class.from_pretrained(folder)
        given = {"input_ids": ids} if loaded == "Model" else inputs
        our_states = np.stack(ours(**given, **options).hidden_states)
        their_states = torch.stack(call_theirs(theirs, given, "float32", **options).hidden_states).numpy()
        assert_close(our_states, their_states, TOLERANCE["float32"], f"{saved} file in {loaded}")
