"""Write the golden files of tests/golden with the transformers that is installed here (4.56.2 or 5.2.0).

    python tools/make_golden.py            # writes transformers-<version>.json and .npz
    python tools/make_golden.py --cousins  # writes cousins-<version>.json and .npz, of the post-LN model types
    python tools/make_golden.py --check    # makes the numbers again and compares them with the committed files

What the files hold, and the cases in them, is in golden_cases.py and golden_cousins.py; tests/golden_files.py reads
them without torch.
All is computed in float64, on weights that float16 holds exactly (so that they are stored in two bytes each).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from golden_cases import Case, cases_for
from golden_cousins import cousin_cases

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"
DIFFERENTIABLE = ("inputs_embeds", "encoder_hidden_states", "head_mask")  # inputs that have a gradient


def seeded(name: str) -> np.random.Generator:
    """A generator whose stream depends on `name` alone, so that adding a case changes no other."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def build(case: Case) -> torch.nn.Module:
    """The model of a case, in eval mode and float64, with seeded weights in *all* its parameters.

    Fresh weights would have biases of 0, LayerNorm gains of 1 and zero rows for padding, and hide any mistake there.
    """
    config = getattr(transformers, f"{case.family}Config")(**case.config, attn_implementation="eager")
    model = getattr(transformers, case.class_name)(config, **case.construct).double().eval()
    with torch.no_grad():
        for name, parameter in named_parameters(model).items():
            draw = seeded(f"{name} {tuple(parameter.shape)}").standard_normal(parameter.shape)
            is_gain = "LayerNorm.weight" in name or "layer_norm.weight" in name
            draw = 1 + 0.2 * draw if is_gain else 0.15 * draw if name.endswith("bias") else 0.35 * draw
            parameter.copy_(torch.from_numpy(draw.astype(np.float16).astype(np.float64)))
    return model


def named_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Each parameter once; of names that share one, the embedding's and the head bias's, not the decoder's."""
    once = dict(model.named_parameters())
    every = dict(model.named_parameters(remove_duplicate=False))
    if len(every) == len(once) or not model.config.tie_word_embeddings:
        return once
    return {name: parameter for name, parameter in every.items() if ".decoder." not in name}


def saved_form(model: torch.nn.Module, values: dict[str, np.ndarray], *, gradients: bool) -> dict[str, np.ndarray]:
    """`values` of the named parameters under the names that a saved checkpoint of 5.2.0 has.

    They differ for the untied language models of 4.56.2: there both bias names share one parameter, which
    `named_parameters` calls lm_head.bias; in 5.2.0 the decoder's is the live one and lm_head.bias is unused.
    """
    if "lm_head.decoder.weight" in values and "lm_head.decoder.bias" not in values:
        shared = values["lm_head.bias"]
        values = values | {
            "lm_head.decoder.bias": shared,
            "lm_head.bias": np.zeros_like(shared) if gradients else shared,
        }
    return values


def to_torch(value: Any) -> Any:
    """Arrays as tensors; 4-D masks in the one form that eager attention reads as they are meant."""
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim == 4 and value.dtype == np.bool_:  # would be added as 0 and 1
        value = np.where(value, 0.0, np.finfo(np.float64).min)
    elif value.ndim == 4:  # a row of -inf alone would be NaN
        value = np.maximum(value, np.finfo(np.float64).min)
    return torch.from_numpy(value)


def cache_arrays(cache: Any) -> dict[str, np.ndarray]:
    """Keys and values of every layer, stacked: (N, B, H, T, D); those of cross attention too where there are any."""
    parts = {"": getattr(cache, "self_attention_cache", cache), "cross_": getattr(cache, "cross_attention_cache", None)}
    arrays = {}
    for prefix, part in parts.items():
        if part is not None and len(part.layers) and part.layers[0].keys is not None:
            arrays[f"{prefix}keys"] = torch.stack([layer.keys for layer in part.layers]).detach().numpy()
            arrays[f"{prefix}values"] = torch.stack([layer.values for layer in part.layers]).detach().numpy()
    return arrays


def as_array(value: Any) -> np.ndarray:
    """A tensor, or a tuple over layers stacked along a new first axis."""
    return (torch.stack(value) if isinstance(value, tuple) else value).detach().numpy().copy()


def is_absent(value: Any) -> bool:
    """5.2.0 may give () for cross attentions that are not there, and 4.56.2 None for a pooler in its tuples."""
    return value is None or (isinstance(value, tuple) and not value)


def output_arrays(output: Any) -> dict[str, np.ndarray]:
    """The arrays of an output by name."""
    arrays = {}
    for name, value in output.items():
        if name == "past_key_values":
            arrays |= {f"cache_{key}": array for key, array in cache_arrays(value).items()}
        elif not is_absent(value):
            arrays[name] = as_array(value)
    return arrays


def tuple_order(output: Any, arrays: dict[str, np.ndarray], plain: tuple[Any, ...]) -> list[str]:
    """The names of an output in the order of the plain tuple that `return_dict=False` gives.

    Named outputs of 4.56.2 have another order where a base model returns its cache; that of the tuples is in both.
    """
    # a masked language model that is a decoder has its cache in the tuple alone
    plain = tuple(value for value in plain if "past_key_values" in output or not isinstance(value, transformers.Cache))
    names = []
    for value in plain:
        if isinstance(value, transformers.Cache):
            names.append("past_key_values")
        elif not is_absent(value):
            names += [name for name, array in arrays.items() if np.array_equal(array, as_array(value), equal_nan=True)]
    assert len(names) == len(set(names)) == sum(not is_absent(value) for value in plain), names
    return names


def gradients_of(case: Case, model: torch.nn.Module, output: Any, arguments: dict[str, Any]) -> dict[str, np.ndarray]:
    """d(loss)/d(parameter) of every parameter; a model without a loss gets `cotangents` on its outputs instead.

    The gradients of the inputs in `DIFFERENTIABLE` are left in their tensors.
    """
    if case.cotangents:
        loss = sum((torch.from_numpy(cotangent) * output[name]).sum() for name, cotangent in case.cotangents.items())
    elif case.head == "ForCausalLM":  # transformers computes this loss in float32; its gradient would be as coarse
        logits, labels = output.logits, arguments.get("shift_labels")
        if labels is None:
            logits, labels = logits[:, :-1], arguments["labels"][:, 1:]
        items = arguments.get("num_items_in_batch")
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="mean" if items is None else "sum"
        )
        loss = loss if items is None else loss / items
    else:
        loss = output.loss
    model.zero_grad()
    loss.backward()
    gradients = {
        name: np.zeros(tuple(parameter.shape)) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in named_parameters(model).items()
    }
    return saved_form(model, gradients, gradients=True)


def run(case: Case, arrays: dict[str, np.ndarray], weight_sets: dict[str, Any]) -> dict[str, Any]:
    """Run one case; its arrays go into `arrays`, its weights into `weight_sets` if new; returns its manifest entry."""
    model = build(case)
    weights = {name: parameter.detach().numpy() for name, parameter in named_parameters(model).items()}
    weights = saved_form(model, weights, gradients=False)
    layout = [[name, list(weights[name].shape)] for name in sorted(weights)]
    # equal names and shapes mean equal numbers (see `build`), so many cases share one set
    weight_set = f"{zlib.crc32(json.dumps(layout).encode()):08x}"
    if weight_set not in weight_sets:
        weight_sets[weight_set] = layout
        flat = np.concatenate([weights[name].ravel() for name in sorted(weights)])
        arrays[f"weights/{weight_set}"] = flat.astype(np.float16)
        assert np.array_equal(arrays[f"weights/{weight_set}"].astype(np.float64), flat)

    calls, cache = [], None
    for number, call in enumerate(case.calls):
        arguments = {name: to_torch(value) for name, value in call.items()}
        if cache is not None:
            arguments["past_key_values"] = cache
        again = copy.deepcopy(arguments)  # a cache grows in place
        inputs_trained = [name for name in DIFFERENTIABLE if case.gradients and name in arguments]
        for name in inputs_trained:
            arguments[name].requires_grad_()
        with torch.set_grad_enabled(case.gradients):
            output = model(**arguments, output_attentions=True, output_hidden_states=True)
        with torch.no_grad():
            plain = model(**again, output_attentions=True, output_hidden_states=True, return_dict=False)
        cache = output.get("past_key_values") if case.keep_cache else None
        results = output_arrays(output)
        names = tuple_order(output, results, plain)
        if not np.isfinite(np.concatenate([value.ravel() for key, value in results.items() if key != "loss"])).all():
            raise SystemExit(f"{case.name}: not all numbers are finite")
        key = f"{case.name}/{number}"
        inputs = {name: value for name, value in call.items() if isinstance(value, np.ndarray)}
        arrays |= {f"{key}/in/{name}": value for name, value in inputs.items()}
        arrays |= {f"{key}/out/{name}": value for name, value in results.items()}
        options = {name: value for name, value in call.items() if name not in inputs}
        calls.append({"arrays": sorted(inputs), "options": options, "outputs": names, "results": sorted(results)})
    entry: dict[str, Any] = {
        "name": case.name,
        "class": case.class_name,
        "config": case.config,
        "construct": case.construct,
        "weights": weight_set,
        "keep_cache": case.keep_cache,
        "calls": calls,
        "cotangents": sorted(case.cotangents),
        "gradients": case.gradients,
    }
    arrays |= {f"{case.name}/cotangents/{name}": value for name, value in case.cotangents.items()}
    if case.gradients:
        gradients = gradients_of(case, model, output, arguments)
        arrays[f"{case.name}/gradients"] = np.concatenate([gradients[name].ravel() for name in sorted(gradients)])
        entry["input_gradients"] = inputs_trained
        arrays |= {f"{case.name}/input-gradients/{name}": arguments[name].grad.numpy() for name in inputs_trained}
    if case.head == "ForSequenceClassification":
        entry["problem_type"] = model.config.problem_type  # as the call left it
    return entry


def compare(made: dict[str, np.ndarray], manifest: dict[str, Any], json_path: Path, npz_path: Path) -> list[str]:
    """What of the committed files differs from what was just made."""
    problems = []
    if json.loads(json_path.read_text("utf-8")) != manifest:
        problems.append("the manifest differs")
    with np.load(npz_path, allow_pickle=False) as stored:
        problems += [f"only in one of the two: {name}" for name in sorted(set(stored) ^ set(made))]
        for name in sorted(set(stored) & set(made)):
            old, new = stored[name], made[name]
            # a gradient that is 0 in exact arithmetic comes out as 1e-17 one day and as 3e-17 the next
            if old.shape != new.shape or not np.allclose(new, old, rtol=1e-9, atol=1e-13, equal_nan=True):
                problems.append(f"other numbers: {name}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="make the golden files of tests/golden, or check them")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--cousins", action="store_true", help="the files of the post-LN model types")
    args = parser.parse_args()
    version = transformers.__version__
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()

    arrays: dict[str, np.ndarray] = {}
    weight_sets: dict[str, Any] = {}
    cases = cousin_cases(version, seeded) if args.cousins else cases_for(version, seeded)
    entries = [run(case, arrays, weight_sets) for case in cases]
    manifest = {"transformers": version, "weights": weight_sets, "cases": entries}
    manifest = json.loads(json.dumps(manifest, allow_nan=False))
    name = f"{'cousins' if args.cousins else 'transformers'}-{version}"
    json_path, npz_path = (FOLDER / f"{name}.{kind}" for kind in ("json", "npz"))
    if args.check:
        problems = compare(arrays, manifest, json_path, npz_path)
        print("\n".join(problems) or f"{len(entries)} cases of transformers {version}: all as committed")
        return 1 if problems else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(manifest, separators=(",", ":")) + "\n", "utf-8")
    np.savez_compressed(npz_path, **arrays)
    size = json_path.stat().st_size + npz_path.stat().st_size
    print(f"{len(entries)} cases of transformers {version}, {len(weight_sets)} sets of weights, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
