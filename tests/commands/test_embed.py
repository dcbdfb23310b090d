"""`npprelnorm embed`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import npprelnorm as nl
from npprelnorm.commands import main

TEXTS = ["The dog barks.", "", "A young cat is called a kitten."]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "none"])
@pytest.mark.parametrize("normalize", [[], ["--normalize"]], ids=["plain", "normalized"])
def test_json_lines_are_what_the_pipeline_gives(
    pooling: str, normalize: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", *TEXTS, "--pooling", pooling, *normalize]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = nl.pipeline("feature-extraction")(TEXTS, pooling=pooling, normalize=bool(normalize))
    assert [line["text"] for line in lines] == TEXTS
    for line, vectors in zip(lines, expected, strict=True):
        assert np.array_equal(np.array(line["embedding"], np.float32), vectors)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_vectors_go_to_a_file(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"vectors{suffix}"
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS * 15), encoding="utf-8")  # more than one group, and an empty line in each
    assert main(["embed", "--file", str(texts), "--out", str(out)]) == 0
    loaded = np.load(out, allow_pickle=False)
    vectors = loaded if suffix == ".npy" else loaded["embeddings"]
    expected = nl.pipeline("feature-extraction")(TEXTS * 15, pooling="mean")
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape == (45, 128)
    assert np.abs(vectors - expected).max() <= 1e-5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"wrote 45 texts, array (45, 128), to {out}" in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt", out.name]


def test_token_vectors_go_to_a_file_with_their_lengths(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npz"
    assert main(["embed", *TEXTS, "--pooling", "none", "--out", str(out)]) == 0
    loaded = np.load(out, allow_pickle=False)
    expected = nl.pipeline("feature-extraction")(TEXTS)
    assert loaded["lengths"].tolist() == [len(vectors) for vectors in expected]
    assert np.array_equal(loaded["embeddings"], np.concatenate(expected))


def test_with_out_all_or_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vectors.npy"
    out.write_bytes(b"of yesterday")
    assert main(["embed", "good", "word " * 200, "--out", str(out)]) == 1
    assert "text 2: " in capsys.readouterr().err
    assert out.read_bytes() == b"of yesterday"
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npy"]


def test_without_out_the_good_texts_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "good", "word " * 200, "better"]) == 1
    captured = capsys.readouterr()
    first, second, third = map(json.loads, captured.out.splitlines())
    assert len(first["embedding"]) == len(third["embedding"]) == 128
    assert "more than the 128" in second["error"]
    assert "npprelnorm: error: text 2: " in captured.err
    assert main(["embed", "word " * 200, "--truncate"]) == 0


def test_no_texts_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    out = tmp_path / "vectors.npy"
    assert main(["embed", "--file", str(empty), "--out", str(out)]) == 1
    assert "there are no texts" in capsys.readouterr().err
    assert not out.exists()
