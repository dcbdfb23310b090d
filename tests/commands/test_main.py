"""The command line as a whole: help, version, exit codes, one-line errors, a closed pipe, Ctrl-C, speed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import npprelnorm
from npprelnorm import commands
from npprelnorm.commands import main
from npprelnorm.errors import CheckpointWarning

NAMES = ["fill-mask", "embed", "inspect", "convert", "verify", "pretrain", "train", "predict", "warmup"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(npprelnorm.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
}
COMMAND = [sys.executable, "-m", "npprelnorm"]


def shell(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT, **options
    )


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"npprelnorm {npprelnorm.__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert all(name in shown for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: npprelnorm {name}" in shown
    assert f"examples:\n  npprelnorm {name}" in shown


def test_the_help_says_what_the_defaults_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", "--help"]) == 0
    assert "default: 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["fill-mask"],
        ["fill-mask", "-"],
        ["fill-mask", "a <mask>", "--file", "texts.txt"],
        ["fill-mask", "a <mask>", "--top-k", "0"],
        ["fill-mask", "a <mask>", "--top-k", "many"],
        ["fill-mask", "a <mask>", "--unknown"],
        ["fill-mask", "half a character \udcff <mask>"],
        ["embed"],
        ["embed", "a", "--pooling", "median"],
        ["embed", "a", "--out", "vectors.txt"],
        ["embed", "a", "--pooling", "none", "--out", "vectors.npy"],
        ["inspect"],
        ["convert", "only-one"],
        ["convert", "a", "b", "--dtype", "int8"],
        ["verify", "a", "b"],
    ],
)
def test_wrong_usage_is_2_and_shows_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: npprelnorm")
    assert "error: " in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fill-mask", "no such thing"], "has no <mask>"),
        (["fill-mask", "a <mask>", "--model", "./nowhere"], "nowhere"),
        (["fill-mask", "--file", "nowhere.txt"], "nowhere.txt does not exist"),
        (["fill-mask", "--file", "."], "is a folder"),
        (["embed", "word " * 200], "more than the 128"),
        (["inspect", "nowhere"], "nowhere does not exist"),
        (["inspect", "."], "holds no weights"),
        (["convert", "nowhere", "new"], "nowhere does not exist"),
        (["convert", ".", "new"], ". has no config.json; convert needs"),
        (["convert", __file__, "new"], f"{__file__} has no config.json beside it; convert needs"),
        (["embed", "a", "--out", "/dev/null/vectors.npy"], "/dev/null/vectors.npy cannot be written ("),
        (["verify", "nowhere"], "nowhere does not exist"),
    ],
)
def test_failure_is_1_and_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "using the small embedded" not in line]
    (line,) = errors
    assert line.startswith("npprelnorm: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def raising(error: BaseException):
    def run(args: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ZeroDivisionError("division by zero"), 1, "internal error (ZeroDivisionError: division by zero)"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(28, "No space left on device", "out.npy"), 1, "out.npy: No space left on device"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_no_error_leaves_a_traceback(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("NPPRELNORM_TRACEBACK", raising=False)
    monkeypatch.setattr(commands.inspect, "run", raising(error))
    assert main(["inspect", "."]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == (1 if message else 0)
    assert "Traceback" not in err


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPPRELNORM_TRACEBACK", "1")
    monkeypatch.setattr(commands.inspect, "run", raising(ZeroDivisionError("a mistake")))
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        main(["inspect", "."])


def test_warnings_of_the_package_are_one_line_and_others_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("default", DeprecationWarning)
            warnings.warn("not for users", DeprecationWarning, stacklevel=1)
        for _ in range(2):
            warnings.warn("something was \x1b[31mleft out", CheckpointWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(commands.inspect, "run", run)
    assert main(["inspect", "."]) == 0
    assert capsys.readouterr().err == "npprelnorm: warning: something was \\x1b[31mleft out\n"


def test_the_help_of_the_program_loads_no_numpy() -> None:
    code = (
        "import sys; from npprelnorm.commands import main; assert main(['--help']) == 0;"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'tokenizers', 'safetensors', 'huggingface_hub')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0


def test_fill_mask_takes_under_a_second() -> None:
    """Processor time of the whole process: on an idle machine the time it takes, and on a busy one still its own."""
    seconds = []
    for _ in range(3):
        before = os.times()
        done = shell("fill-mask", "The capital of France is <mask>.")
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert "Paris" in done.stdout
    assert min(seconds) < 1.0


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes and signals")
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("The dog barks.\n" * 2000, encoding="utf-8")
    with subprocess.Popen(
        [*COMMAND, "embed", "--file", str(texts)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b'{"text": "The dog barks."')
        process.stdout.close()
        assert process.stderr is not None
        (note,) = process.stderr.read().splitlines()
        assert b"using the small embedded model" in note
        assert process.wait(timeout=60) == 141


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes and signals")
def test_ctrl_c_is_quiet() -> None:
    with subprocess.Popen(
        [*COMMAND, "fill-mask", "--file", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        # a shell's background job ignores the signal, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert b"using the small embedded model" in process.stderr.readline()
        time.sleep(0.5)  # it has said so and loads the model or waits for a text; both must end quietly
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b""


def test_an_ascii_terminal_gets_escapes() -> None:
    done = subprocess.run(
        [*COMMAND, "fill-mask", "Zo\u00eb \u2192 <mask>."],
        capture_output=True,
        check=False,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert b"Zo\\xeb \\u2192 <mask>." in done.stdout
