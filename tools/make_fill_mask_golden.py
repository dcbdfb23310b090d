"""Write tests/text/golden/fill_mask.json: transformers' fill-mask on sentences of the embedded model's world.

    python tools/make_fill_mask_golden.py SMALLWORLD_PY

One or two words of each of 200 sentences of an unseen seed are masked; the embedded model is loaded with float32.
Sentences with two candidates whose scores are equal to rounding are left out: their order depends on the processor.
Needs torch and transformers (5.2.0 made the committed file).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path

import torch
import transformers
from make_embedded import load_world

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "text" / "golden" / "fill_mask.json"
SEED, COUNT, TOP = 7_431, 200, 5
APART = 1e-3  # relative; the scores of float32 models are good to about 1e-5


def masked(sentence: str, source: random.Random, count: int) -> str:
    words = sentence.split(" ")
    for place in source.sample(range(len(words)), min(count, len(words))):
        end = words[place][-1] if words[place][-1] in ".,?" else ""
        words[place] = "<mask>" + end
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the golden file of fill-mask.")
    parser.add_argument("smallworld", type=Path)
    world = load_world(parser.parse_args().smallworld)
    source = random.Random(SEED)
    folder = ROOT / "npprelnorm" / "assets" / "tiny"
    fill = transformers.pipeline("fill-mask", model=str(folder), dtype=torch.float32, device="cpu")
    records = []
    while len(records) < COUNT:
        text = masked(world.sentence(source), source, 2 if len(records) % 10 == 9 else 1)
        answer = fill(text, top_k=TOP + 1)
        per_mask = answer if isinstance(answer[0], list) else [answer]
        if any(b["score"] > (1 - APART) * a["score"] for mask in per_mask for a, b in itertools.pairwise(mask)):
            continue
        records.append(
            {
                "text": text,
                "masks": [
                    [
                        [one["token"], float(f"{one['score']:.7g}"), one["token_str"], one["sequence"]]
                        for one in candidates[:TOP]
                    ]
                    for candidates in per_mask
                ],
            }
        )
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(f'{{"transformers": "{transformers.__version__}", "records": [\n{lines}\n]}}\n')
    print(f"{len(records)} records, {TARGET.stat().st_size:,} bytes in {TARGET}")


if __name__ == "__main__":
    main()
