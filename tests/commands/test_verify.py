"""`npprelnorm verify` against recorded numbers; tests/reference compares with a live transformers."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from stand_in import HUB_ID, RECORDED, make_hub_cache

from npprelnorm import verify
from npprelnorm.commands import main
from npprelnorm.errors import NpprelnormError


@pytest.fixture(autouse=True)
def no_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "transformers_is_installed", lambda: False)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_hub_cache(tmp_path / "hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def report(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_the_embedded_model_gives_its_recorded_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "against what transformers 5.2.0 recorded" in out
    assert out.count("  ok\n") == 2
    assert "TOO LARGE" not in out


def test_a_hub_id_with_its_recorded_numbers_passes(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(verify.PUBLISHED, HUB_ID, RECORDED)
    assert main(["verify", HUB_ID, "--json"]) == 0
    shown = report(capsys)
    assert shown["ok"] is True
    ((name, differences),) = shown["comparisons"].items()
    assert name == "what transformers 5.2.0 recorded"
    assert [d["name"] for d in differences] == ["logits[:3, :3]", "last_hidden_state[:3, :3]"]
    assert all(d["ok"] and d["error"] <= d["allowed"] <= 5e-4 for d in differences)


def test_the_published_numbers_are_not_the_stand_ins(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", HUB_ID]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("TOO LARGE") == 2
    assert captured.err.endswith("npprelnorm: error: the numbers differ by more than is allowed\n")


@pytest.mark.parametrize("which", ["logits", "last_hidden_state"])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 1)])
@pytest.mark.parametrize("off", [1e-3, -1e-3, math.nan])
def test_one_wrong_number_in_a_slice_fails(cache: Path, which: str, place: tuple[int, int], off: float) -> None:
    values = np.array(getattr(RECORDED, which))
    values[place] += off
    wrong = dataclasses.replace(RECORDED, **{which: tuple(map(tuple, values.tolist()))})
    (snapshot,) = cache.glob("*/snapshots/*")
    failed = [d.name for d in verify.compare_recorded(snapshot, wrong) if not d.ok]
    assert failed == [f"{which}[:3, :3]"]


def test_the_published_slices_are_those_of_the_specification() -> None:
    recorded = verify.PUBLISHED[HUB_ID]
    assert recorded.input_ids == RECORDED.input_ids
    assert recorded.logits[0] == (40.4880, 18.0199, -5.2367)
    assert recorded.last_hidden_state[2] == (0.1879, 0.0125, -0.0089)
    assert np.shape(recorded.logits) == np.shape(recorded.last_hidden_state) == (3, 3)
    assert verify.SLICE_TOLERANCE == 1e-4


def test_a_model_too_small_for_the_slice_differs() -> None:
    difference = verify._slice_difference("logits", np.zeros((2, 3), np.float32), ((0.0,) * 3,) * 3)
    assert not difference.ok


def test_nothing_to_compare_with_is_a_failure(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snapshot,) = cache.glob("*/snapshots/*")
    assert main(["verify", str(snapshot)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert 'pip install "npprelnorm[reference]"' in captured.err
    assert captured.err.count("\n") == 1


def test_what_is_no_checkpoint_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    assert "has no config.json; name a folder that holds a checkpoint" in capsys.readouterr().err


def test_compare_with_transformers_says_what_to_install() -> None:
    with pytest.raises(NpprelnormError, match=r"pip install \"npprelnorm\[reference\]\""):
        verify.compare_with_transformers("anywhere")


def test_differences_name_the_layer_that_is_wrong() -> None:
    ours = {"embeddings": np.zeros((1, 2, 3)), "layer 1": np.ones((1, 2, 3)), "logits": np.zeros((1, 2, 7))}
    theirs = {name: array.copy() for name, array in ours.items()}
    theirs["layer 1"][0, 1, 2] += 1e-3
    result = {d.name: d for d in verify._differences(ours, theirs)}
    assert [name for name, d in result.items() if not d.ok] == ["layer 1"]
    assert math.isclose(result["layer 1"].error, 1e-3, rel_tol=1e-9)
    theirs["logits"][:] = np.nan
    assert not verify._differences(ours, theirs)[2].ok


def test_differences_refuse_other_names_and_shapes() -> None:
    ours = {"logits": np.zeros((1, 2))}
    with pytest.raises(NpprelnormError, match="transformers returned"):
        verify._differences(ours, {"loss": np.zeros(())})
    with pytest.raises(NpprelnormError, match="shape"):
        verify._differences(ours, {"logits": np.zeros((2, 1))})


def test_an_unknown_id_while_offline_is_one_line(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "somebody/unknown"]) == 1
    captured = capsys.readouterr()
    assert "somebody/unknown" in captured.err
    assert captured.err.count("\n") == 1
