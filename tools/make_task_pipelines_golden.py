"""Write tests/text/golden/task_pipelines.json: transformers' answers of the task pipelines on the models of
tests/task_models.py, which need no file.

    python tools/make_task_pipelines_golden.py

Answers with two scores that are equal to rounding are left out: their order depends on the processor.
Needs torch and transformers (5.2.0 made the committed file).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import transformers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import task_models  # noqa: E402
from reference_pipelines import theirs  # noqa: E402

TARGET = ROOT / "tests" / "text" / "golden" / "task_pipelines.json"
SEED, COUNT = 500, 10


def plain(answer: Any) -> Any:
    """The answer with Python's numbers, scores to 7 digits."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return answer | {"score": float(f"{float(answer['score']):.7g}")}


def main() -> None:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        folders = {task: task_models.save(task, Path(folder) / task) for task in task_models.CLASSES}
        for task, options, inputs in task_models.cases(SEED, COUNT):
            answers = theirs(folders[task], task, options, inputs)
            ranked = task != "token-classification"
            kept = [
                [given, plain(answer)]
                for given, answer in zip(inputs, answers, strict=True)
                if answer is not None
                and not (ranked and isinstance(answer, list) and not task_models.far_apart(answer))
            ]
            lines.append(json.dumps({"task": task, "options": options, "answers": kept}, separators=(",", ":")))
    text = ",\n".join(lines)
    TARGET.write_text(f'{{"transformers": "{transformers.__version__}", "cases": [\n{text}\n]}}\n', encoding="ascii")
    print(f"{len(lines)} cases, {TARGET.stat().st_size:,} bytes in {TARGET}")


if __name__ == "__main__":
    main()
