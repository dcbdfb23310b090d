"""What a study measured: a JSON file with one line for each run, which an interrupted study takes up again.

A file holds ``recipe`` (what all its runs have in common) and ``runs``, each with its ``setting``, its ``seed`` and
what came out. Numbers are kept to six digits.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from npprelnorm.files import read_json, write_text

FOLDER = Path(__file__).parent / "results"

Run = dict[str, Any]


def rounded(value: Any) -> Any:
    """Numbers to six digits, through lists and dicts; None for what is not finite, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def load(study: str, folder: Path = FOLDER) -> list[Run]:
    """The runs of a study, in the order in which they were made."""
    return read_json(folder / f"{study}.json")["runs"]


def select(runs: Iterable[Run], **setting: Any) -> list[Run]:
    """Runs whose setting has these values, by seed."""
    wanted = rounded(setting)
    chosen = [run for run in runs if all(run["setting"][name] == value for name, value in wanted.items())]
    return sorted(chosen, key=lambda run: run["seed"])


def command_line(description: str | None) -> None:
    """Answer `--help`, and refuse everything else: a study is told by its script alone."""
    argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()


def conduct(
    study: str,
    recipe: Mapping[str, Any],
    settings: Sequence[Mapping[str, Any]],
    seeds: Iterable[int],
    run: Callable[..., Mapping[str, Any]],
    folder: Path = FOLDER,
) -> list[Run]:
    """Make the runs that the study's file lacks, all settings of a seed before the next seed.

    The file is written anew after each run, whole, so that a study that was killed goes on where it was.

    Raises
    ------
    SystemExit
        If the file was measured by another recipe.
    """
    path = folder / f"{study}.json"
    recipe = rounded(recipe)
    runs: list[Run] = []
    if path.exists():
        if (before := read_json(path)["recipe"]) != recipe:
            raise SystemExit(f"{path} was measured with {before}, not {recipe}; move it away to measure again")
        runs = load(study, folder)
    for seed in seeds:
        for setting in map(rounded, settings):
            if any(one["setting"] == setting and one["seed"] == seed for one in runs):
                continue
            begun = time.process_time()
            result = rounded(run(seed=seed, **setting))
            runs.append({"setting": setting, "seed": seed, **result})
            lines = ",\n".join(json.dumps(one, allow_nan=False) for one in runs)
            write_text(path, f'{{"recipe": {json.dumps(recipe)}, "runs": [\n{lines}\n]}}\n')
            print(f"{study}: {setting}, seed {seed}: {time.process_time() - begun:.0f} s of processor", flush=True)
    print(f"{study}: {path} is complete, with {len(runs)} runs; to measure again, move it away")
    return runs
