"""`npprelnorm train`: every task end to end, the folder it writes, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npprelnorm as nl
from npprelnorm.checkpoint.safetensors_file import SafetensorsFile
from npprelnorm.commands import main
from npprelnorm.training import folder as run_folder
from npprelnorm.training import state
from npprelnorm.training.catalog import TASKS
from npprelnorm.training.masking import STRATEGIES

Lines = Callable[..., Path]
RUNS = [
    ("classification", "single", {"accuracy", "macro_f1"}),
    ("classification", "pair", {"accuracy", "macro_f1"}),
    ("classification", "multi", {"accuracy", "macro_f1", "micro_f1"}),
    ("classification", "regression", {"mse", "pearson"}),
    ("token-classification", "tags", {"accuracy", "macro_f1", "precision", "recall", "f1", "f1_PER", "f1_THING"}),
    ("multiple-choice", "choice", {"accuracy"}),
    ("question-answering", "question", {"exact_match", "f1"}),
    ("causal-lm", "lines", {"perplexity"}),
    ("masked-lm", "lines", {"perplexity", "accuracy"}),
]
FILES = ["config.json", "metrics.json", "metrics.jsonl", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def train(task: str, *options: str | Path) -> int:
    return main(["train", task, *map(str, options)])


def tensors(folder: Path) -> dict[str, np.ndarray]:
    file = SafetensorsFile(folder / "model.safetensors")
    return {name: file.read(name) for name in file.names()}


def test_every_task_is_run_here() -> None:
    assert {task for task, _, _ in RUNS} == set(TASKS)


@pytest.mark.filterwarnings("ignore::npprelnorm.errors.CheckpointWarning")  # a head is drawn fresh
@pytest.mark.parametrize(("task", "kind", "names"), RUNS)
def test_every_task_end_to_end(
    task: str, kind: str, names: set[str], tmp_path: Path, tiny_checkpoint: Path, write_lines: Lines, examples: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files = [write_lines(f"{seed}.jsonl", examples(kind, 24, seed)) for seed in (0, 1)]
    out = tmp_path / "out"
    options = ["--train", files[0], "--eval", files[1], "--model", tiny_checkpoint, "--out", out]
    options += ["--epochs", "2", "--learning-rate", "0.01", "--batch-size", "8", "--log-every", "1"]
    assert train(task, *options) == 0
    printed = capsys.readouterr()
    assert f"written: {out}" in printed.out
    assert "npprelnorm: step " in printed.err
    own = ["generation_config.json"] if task == "causal-lm" else []
    assert sorted(item.name for item in out.iterdir()) == sorted([*FILES, "training.json", *own])

    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["eval"]) == names | {"loss"}
    assert metrics["metric"] in metrics["eval"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line["step"] == metrics["kept_step"] and "eval_loss" in line]
    assert [{name[5:]: v for name, v in line.items() if name != "step"} for line in kept] == [metrics["eval"]]
    assert metrics["steps"] == max(line["step"] for line in lines)

    # what was written is the model that was judged: judging it again gives the same figures
    from npprelnorm.training.catalog import task_class
    from npprelnorm.training.tasks.base import TaskOptions

    again = task_class(task)(files[0], files[1], TaskOptions())
    model = again.model_class.from_pretrained(out)
    assert model.config.architectures == [again.model_class.__name__]
    tokenizer = nl.Tokenizer.from_pretrained(out)
    assert again.config_changes(model.config).get("id2label", model.config.id2label) == model.config.id2label
    assert dict(again.evaluator(tokenizer, model.config)(model)) == pytest.approx(metrics["eval"], rel=1e-5, abs=1e-7)
    start = tensors(tiny_checkpoint)
    assert any(not np.array_equal(value, start[name]) for name, value in tensors(out).items() if name in start)


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path, write_lines: Lines, examples: Any) -> Callable[..., int]:
    """A function that trains a small classifier with these further options."""
    file = write_lines("train.jsonl", examples("single"))
    other = write_lines("eval.jsonl", examples("single", 12, 1))

    def call(*options: str | Path, out: Path = tmp_path / "out") -> int:
        base = ["--train", file, "--eval", other, "--model", tiny_checkpoint, "--out", out, "--steps", "4"]
        return train("classification", *base, *options)

    return call


def test_labels_are_in_the_configuration(run: Callable[..., int], tmp_path: Path) -> None:
    assert run() == 0
    config = nl.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == {0: "boy", 1: "girl"}
    assert config.label2id == {"boy": 0, "girl": 1}
    assert config.problem_type == "single_label_classification"


def test_the_embedded_model_is_the_default(
    tmp_path: Path, write_lines: Lines, examples: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines("a.jsonl", examples("single", 4))
    assert train("classification", "--train", file, "--out", tmp_path / "out", "--steps", "1") == 0
    printed = capsys.readouterr()
    assert "npprelnorm: using the small embedded model" in printed.err
    assert "drawn fresh" in printed.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["eval"], metrics["metric"], metrics["kept_step"]) == ({}, None, 1)


def test_a_finished_run_is_left_alone(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    before = {item.name: item.read_bytes() for item in (tmp_path / "out").iterdir()}
    first = capsys.readouterr()
    assert run() == 0
    second = capsys.readouterr()
    assert "is finished already; nothing to do" in second.err
    assert second.out == first.out
    assert {item.name: item.read_bytes() for item in (tmp_path / "out").iterdir()} == before


def test_a_run_of_something_else_is_not_touched(
    run: Callable[..., int], tmp_path: Path, write_lines: Lines, examples: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    before = {item.name: item.read_bytes() for item in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert run("--seed", "3") == 1
    message = capsys.readouterr().err
    assert f"error: {tmp_path / 'out'} holds a run with settings" in message
    assert "name an empty folder" in message
    write_lines("train.jsonl", examples("single", 25))
    assert run() == 1
    assert "holds a run with train" in capsys.readouterr().err
    assert {item.name: item.read_bytes() for item in (tmp_path / "out").iterdir()} == before


def test_a_folder_with_other_things_is_refused(
    run: Callable[..., int], tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {item.name: item.read_bytes() for item in tiny_checkpoint.iterdir()}
    assert run(out=tiny_checkpoint) == 1
    assert (
        f"{tiny_checkpoint} holds something else (config.json); name a new or empty folder" in capsys.readouterr().err
    )
    assert {item.name: item.read_bytes() for item in tiny_checkpoint.iterdir()} == before
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert run(out=tmp_path / "file") == 1
    assert "is a file; name a new or empty folder" in capsys.readouterr().err


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".training.json.abc.tmp").write_text("{", encoding="utf-8")
    assert not run_folder.claim(out, {"a": (1, 2)})
    assert not run_folder.claim(out, {"a": [1, 2]})
    assert sorted(item.name for item in out.iterdir()) == ["training.json"]
    for left in ("checkpoints/best-00000003", ".checkpoints.tmp/step-00000004"):
        (out / left).mkdir(parents=True)
    (out / ".lock").touch()
    run_folder.clean(out)
    assert sorted(item.name for item in out.iterdir()) == ["training.json"]


def test_a_seed_repeats_the_command_to_the_bit(run: Callable[..., int], tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run("--seed", seed, out=tmp_path / name) == 0
    data = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert data[0] == data[1] != data[2]


def test_settings_arrive(run: Callable[..., int], tmp_path: Path) -> None:
    options = "--batch-size 5 --accumulate 2 --learning-rate 0.5 --schedule cosine --warmup 0.25 --weight-decay 0.2"
    options += " --beta1 0.8 --beta2 0.9 --eps 1e-6 --max-grad-norm 2 --eval-every 3 --save-every 2 --log-every 1"
    options += " --patience 9 --seed 4 --no-dropout --recompute --dtype float64 --max-length 12 --freeze *.layer.0.* x*"
    assert run(*options.replace("x*", "lm*").replace(" lm*", "").split()) == 0
    request = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))
    assert request["settings"] == {
        "epochs": 3.0, "steps": 4, "batch_size": 5, "accumulate": 2, "learning_rate": 0.5, "schedule": "cosine",
        "warmup": 0.25, "weight_decay": 0.2, "beta1": 0.8, "beta2": 0.9, "eps": 1e-06, "max_grad_norm": 2.0,
        "dropout": False, "frozen": ["*.layer.0.*"], "recompute": True, "eval_every": 3, "save_every": 2,
        "log_every": 1, "patience": 9, "seed": 4,
    }  # fmt: skip
    assert request["options"]["max_length"] == 12
    assert request["dtype"] == "float64"
    start = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(json.loads(json.dumps(request["model"])))
    for name, value in tensors(tmp_path / "out").items():
        assert value.dtype == np.float64
        if ".layer.0." in name:
            assert np.array_equal(value, start.params[name])


def test_a_head_for_other_labels_is_drawn_fresh(
    run: Callable[..., int], tmp_path: Path, write_lines: Lines, examples: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    file = write_lines("three.jsonl", examples("pair"))
    capsys.readouterr()
    options = ["--train", file, "--model", tmp_path / "out", "--out", tmp_path / "three", "--steps", "1"]
    assert train("classification", *options) == 0
    assert "of another shape and drawn fresh: classifier.out_proj.weight" in capsys.readouterr().err
    assert nl.AutoConfig.from_pretrained(tmp_path / "three").num_labels == 3
    # and one for the same labels goes on from what it has learnt
    assert run("--model", tmp_path / "out", "--learning-rate", "1e-30", out=tmp_path / "more") == 0
    assert "drawn fresh" not in capsys.readouterr().err
    for name, value in tensors(tmp_path / "more").items():
        assert np.array_equal(value, tensors(tmp_path / "out")[name])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--learning-rate", "-1"], 2, "learning_rate is -1.0; allowed: above 0"),
        (["--learning-rate", "fast"], 2, "argument --learning-rate: invalid float value: 'fast'"),
        (["--batch-size", "0"], 2, "batch_size is 0; allowed: above 0"),
        (["--mask-rate", "7"], 2, "the masking rate is 7.0; allowed: above 0, up to 1"),
        (["--schedule", "step"], 2, "argument --schedule: invalid choice: 'step'"),
        (["--max-length", "1000"], 1, "max_length is 1000; this model and task allow 8 to 64"),
        (["--freeze", "head.*"], 1, "frozen holds 'head.*', which matches no parameter"),
        (["--train", "no-such-file.jsonl"], 1, "no-such-file.jsonl does not exist"),
        (["--eval", "no-such-file.jsonl"], 1, "no-such-file.jsonl does not exist"),
        (["--model", "no-such-model"], 1, "no-such-model does not exist here, and is no hub id"),
    ],
)
def test_errors_are_one_line_with_the_right_exit_code(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    assert run(*options) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_run_that_never_began_frees_its_folder(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("--model", "no-such-model") == 1
    assert list(out.iterdir()) == []
    assert run(out=tmp_path / "other") == 0
    shutil.copy(tmp_path / "other" / "training.json", out)
    with state.alone(out):  # as another process does that has begun the same run
        assert run() == 1
        assert "another process is training in" in capsys.readouterr().err
        assert (out / "training.json").exists()
    assert run() == 0


def test_a_bad_line_is_named_before_anything_is_loaded(
    tmp_path: Path, write_lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines("a.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "lable": "y"}])
    assert train("classification", "--train", file, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error == f"npprelnorm: error: {file}, line 2: the field 'label' is missing; the line has 'text', 'lable'\n"
    assert not (tmp_path / "out").exists()


def test_patience_needs_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("classification", "--train", "a", "--out", tmp_path / "out", "--patience", "2") == 2
    assert "--patience is about evaluations; give --eval FILE" in capsys.readouterr().err


def test_a_run_that_blows_up_says_so_and_keeps_its_checkpoint(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the learning rate is 0 at first, so that the checkpoint of the first step is good
    assert run("--learning-rate", "1e38", "--warmup", "1", "--save-every", "1", "--no-dropout") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    # NumPy 1 computes with a factor beyond float32 in float64, so that what is left may be huge and finite
    left = "step 2 left NaN or infinity in roberta_prelayernorm.embeddings.word_embeddings.weight"
    assert f"error: {left}; " in error or "error: the evaluation after step 2 gives loss = " in error
    kept = tmp_path / "out" / "checkpoints" / "step-00000001"
    assert f"the last good checkpoint is kept in {kept.parent}" in error
    assert all(np.isfinite(value).all() for value in tensors(kept).values())
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_an_interrupted_run_says_how_to_go_on(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from npprelnorm.training.loop import Trainer

    whole = tmp_path / "whole"
    assert run("--save-every", "1", out=whole) == 0
    step = Trainer._step

    def interrupted(trainer: Trainer) -> Any:
        if trainer.progress.step == 2:
            raise KeyboardInterrupt
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        assert run("--save-every", "1") == 130
    assert "interrupted; the same command goes on from the last checkpoint" in capsys.readouterr().err
    assert run("--save-every", "1") == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert sorted(i.name for i in (tmp_path / "out").iterdir()) == sorted(i.name for i in whole.iterdir())


def test_a_bar_on_a_terminal(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run() == 0
    error = capsys.readouterr().err
    assert "4/4" in error
    assert "loss=" in error
    assert "npprelnorm: step 4: loss" in error


def test_a_plot_without_matplotlib_fails_before_the_training(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run("--plot") == 1
    assert "a plot needs matplotlib; install it with: pip install 'npprelnorm[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_plot(run: Callable[..., int], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run("--plot", "--log-every", "1") == 0
    data = (tmp_path / "out" / "loss.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000  # an empty canvas of that size is about a third of it


def test_help_tells_the_fields_without_importing_numpy() -> None:
    code = "import sys\nfrom npprelnorm.commands import main\nmain(['train', '--help'])\nprint('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[-1] == "False"
    for name, entry in TASKS.items():
        assert name in done.stdout
        for field in entry.fields:
            assert f"\n  {field} " in done.stdout
    for strategy in STRATEGIES:
        assert strategy in done.stdout
