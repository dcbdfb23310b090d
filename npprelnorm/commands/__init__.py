"""The command line: `npprelnorm fill-mask | embed | generate | explain | inspect | ...`.

Only argparse is imported here; each command imports what it needs when it runs. Exit codes: 0 done, 1 failed, 2 used
wrongly, 130 interrupted, 141 the reader of our output went away.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from ..errors import NpprelnormError, NpprelnormWarning
from . import convert, embed, explain, fill_mask, generate, inspect, predict, pretrain, train, verify, warmup
from .common import UsageError, printable

EXAMPLES = """\
examples:
  npprelnorm fill-mask "The capital of France is <mask>."
  npprelnorm fill-mask --model ./my-checkpoint --json --file sentences.txt
  npprelnorm embed "A first text." "A second one." --normalize
  npprelnorm explain "The capital of France is <mask>." --html report.html
  npprelnorm inspect ./my-checkpoint
  npprelnorm convert pytorch_model.bin ./converted --dtype float16
  npprelnorm verify ./my-checkpoint
  npprelnorm predict classification --model ./my-checkpoint "What a day!"

`npprelnorm COMMAND --help` tells more about one command."""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line as an argparse parser; ``args.run`` is the function of the chosen command."""
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog="npprelnorm",
        description="RoBERTa-PreLayerNorm in NumPy: fill masks, embed texts, look into checkpoints.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"npprelnorm {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in {
        "fill-mask": fill_mask,
        "embed": embed,
        "generate": generate,
        "explain": explain,
        "inspect": inspect,
        "convert": convert,
        "verify": verify,
        "pretrain": pretrain,
        "train": train,
        "predict": predict,
        "warmup": warmup,
    }.items():
        subparser = subparsers.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, usage=subparser.format_usage)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 done, 1 failed, 2 used wrongly, 130 interrupted, 141 output closed by its reader.
    """
    _make_output_safe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", NpprelnormWarning)
            warnings.showwarning = _show_warning
            args = build_parser().parse_args(argv)
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a wrong argument, both already printed
        return stop.code if isinstance(stop.code, int) else 1
    except UsageError as error:
        sys.stderr.write(args.usage())
        return _fail(2, str(error))
    except NpprelnormError as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough, as in `npprelnorm ... | head`
        return 141
    except MemoryError:
        return _fail(1, "not enough memory; try fewer or shorter texts at a time, or a smaller model")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(1, f"{where}{error.strerror or error}")
    except Exception as error:  # a mistake of ours: still one line, and a way to learn more
        if os.environ.get("NPPRELNORM_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        return _fail(1, f"internal error ({what}); please report it, with what NPPRELNORM_TRACEBACK=1 prints")


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"npprelnorm: error: {printable(message)}\n")
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    if issubclass(category, NpprelnormWarning):  # others are about our code, not about what the user did
        sys.stderr.write(f"npprelnorm: warning: {printable(str(message))}\n")


def _make_output_safe() -> None:
    """A terminal that cannot show a character gets an escape instead of a crash."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
