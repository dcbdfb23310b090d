"""What the benchmarks measure: workloads, their inputs and their models."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_modules import models, workloads


def test_quick_has_the_same_kinds_of_rows() -> None:
    full, quick = workloads.workloads(), workloads.workloads(quick=True)
    for every in (full, quick):
        assert len({one.name for one in every}) == len(every)
    kinds = [[(w.task, w.measure, w.group, w.tolerance) for w in ws if w.group != "growth"] for ws in (full, quick)]
    assert kinds[0] == kinds[1]
    assert {w.group for w in quick} == {"main", "training", "growth"}
    lengths = next(w for w in full if w.name == "classify-ragged").lengths
    assert (len(lengths), len(set(lengths)), min(lengths), max(lengths)) == (16, 16, 8, 256)
    assert list(lengths) != sorted(lengths)


def test_inputs_have_the_lengths_of_the_workload(tmp_path: Path) -> None:
    nl = importlib.import_module("npprelnorm")
    for workload in workloads.workloads(quick=True):
        folder = models.checkpoint(tmp_path, workload.size, workload.task)
        given = models.inputs(workload, folder)
        assert given == models.inputs(workload, folder)
        assert json.loads(json.dumps(given)) == given
        if workload.task == "fill-mask":
            ids = nl.Tokenizer.from_pretrained(folder)(given["texts"])["input_ids"]
            assert [len(row) for row in ids] == list(workload.lengths)
            assert all("<mask>" in text for text in given["texts"])
            continue
        ids, mask = np.array(given["input_ids"]), np.array(given["attention_mask"])
        assert mask.sum(1).tolist() == list(workload.lengths)
        assert ((ids == 1) == (mask == 0)).all()
        if workload.task == "train":
            labels = np.array(given["labels"])
            assert (labels != -100).any()
            assert ((ids == nl.Tokenizer.from_pretrained(folder).mask_token_id) == (labels != -100)).all()


def test_half_a_checkpoint_is_made_again(tmp_path: Path) -> None:
    folder = models.checkpoint(tmp_path, "toy", "classify")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "benchmark.json").unlink()
    (folder / "model.safetensors").write_bytes(weights[:100])
    assert models.checkpoint(tmp_path, "toy", "classify") == folder
    assert (folder / "model.safetensors").read_bytes() == weights
    before = (folder / "model.safetensors").stat().st_mtime_ns
    models.checkpoint(tmp_path, "toy", "classify")
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_an_old_checkpoint_does_not_pass_for_the_new_one_when_making_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.checkpoint(tmp_path, "toy", "classify")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(models, "SEED", models.SEED + 1)
    with monkeypatch.context() as inner:
        inner.setattr(models._CLASSES["classify"], "save_pretrained", full)
        with pytest.raises(OSError, match="no space"):
            models.checkpoint(tmp_path, "toy", "classify")
    monkeypatch.undo()
    before = (tmp_path / "toy-sequenceclassification" / "model.safetensors").stat().st_mtime_ns
    folder = models.checkpoint(tmp_path, "toy", "classify")
    assert (folder / "model.safetensors").stat().st_mtime_ns != before
