"""A child process that runs one engine: loads it, then answers requests, a line of JSON each, until its input ends.

Only the standard library is imported here, so that a cold start is the engine's own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MOST_CALLS = 100  # in one turn


def serve(module: str, task: str, folder: str, threads: int, options: dict[str, Any]) -> None:
    """Speak on what was standard output; whatever the engine prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    load = getattr(importlib.import_module(f".engines.{module}", __package__), task.replace("-", "_"))
    run = load(Path(folder), threads, **options)
    reply({"ready": True})
    inputs: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "inputs" in request:  # the first calls, whose answers are compared
            inputs = request["inputs"]
            reply({"answers": [run(**inputs) for _ in range(request["calls"])]})
        else:
            reply({"seconds": timed(run, inputs, request["seconds"])})


def timed(run: Any, inputs: dict[str, Any], seconds: float) -> list[float]:
    """Durations of as many calls as begin within `seconds`: one at least, and at most MOST_CALLS."""
    gc.collect()
    durations: list[float] = []
    while not durations or (sum(durations) < seconds and len(durations) < MOST_CALLS):
        started = time.perf_counter()
        run(**inputs)
        durations.append(time.perf_counter() - started)
    return durations


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
