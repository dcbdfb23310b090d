"""`npprelnorm verify`: this package's numbers beside others'."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from ..errors import NpprelnormError
from .common import MODEL_HELP, folder_of, print_json, table

if TYPE_CHECKING:
    from ..verify import Difference, Rounding

SUMMARY = "compare this package's numbers with recorded ones and with transformers"
DESCRIPTION = """\
Compare what this package computes with what others compute.

  recorded       the embedded model, and andreasmadsen/efficient_mlm_m0.40 with the slices that the tests of
                 transformers hold, at 1e-4
  transformers   any checkpoint, where torch and transformers are installed: both run on the same random ids, and the
                 largest difference is shown for the embeddings, each layer and the outputs
  weights in fewer bits
                 where Numba is installed and NPPRELNORM_BACKEND is not numpy: what --weight-dtype float16, bfloat16
                 and int12 change against float32; nothing is judged

Exit code 1 if a difference is too large, or if there was nothing to compare with."""
EXAMPLES = """\
examples:
  npprelnorm verify
  npprelnorm verify ./my-checkpoint
  npprelnorm verify andreasmadsen/efficient_mlm_m0.40 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help=f"{MODEL_HELP} (default: the embedded model)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Run every comparison that is possible; 0 only if there was one and all passed."""
    from .. import verify
    from ..assets import embedded_model_path
    from ..auto import AutoConfig

    folder = embedded_model_path() if args.model is None else folder_of(args.model)
    reports: dict[str, list[Difference]] = {}
    recorded = verify.EMBEDDED if args.model is None else verify.PUBLISHED.get(args.model)
    if recorded is not None:
        reports[f"what {recorded.source} recorded"] = verify.compare_recorded(folder, recorded)
    if verify.transformers_is_installed():
        version, differences = verify.compare_with_transformers(folder)
        reports[f"transformers {version}"] = differences
    elif not reports:
        AutoConfig.from_pretrained(folder)  # what is no checkpoint at all is told so
        raise NpprelnormError(
            "nothing to compare with: no numbers are recorded for this checkpoint, and torch and transformers are not "
            'installed (pip install "npprelnorm[reference]")'
        )
    else:
        sys.stderr.write('npprelnorm: not compared with transformers: pip install "npprelnorm[reference]" to do so\n')
    roundings = verify.compare_weight_dtypes(folder)
    ok = all(difference.ok for differences in reports.values() for difference in differences)
    if args.json:
        print_json(
            {
                "model": args.model,
                "ok": ok,
                "comparisons": {
                    name: [
                        {
                            "name": d.name,
                            "error": d.error if d.error == d.error else None,
                            "allowed": d.allowed,
                            "ok": d.ok,
                        }
                        for d in differences
                    ]
                    for name, differences in reports.items()
                },
                "weight_dtypes": [dataclasses.asdict(rounding) for rounding in roundings],
            }
        )
    else:
        for name, differences in reports.items():
            sys.stdout.write(_for_people(name, differences))
        if roundings:
            sys.stdout.write(_roundings_for_people(roundings))
    if not ok:
        sys.stderr.write("npprelnorm: error: the numbers differ by more than is allowed\n")
    return 0 if ok else 1


def _for_people(name: str, differences: list[Difference]) -> str:
    rows = [["", "largest difference", "allowed", ""]]
    rows += [[d.name, f"{d.error:.2e}", f"{d.allowed:.2e}", "ok" if d.ok else "TOO LARGE"] for d in differences]
    return f"against {name}\n{table(rows, right=(1, 2))}\n"


def _roundings_for_people(roundings: list[Rounding]) -> str:
    rows = [["weights", "", "largest difference", "rms difference"]]
    rows += [[r.weight_dtype, r.name, f"{r.largest:.2e}", f"{r.rms:.2e} of the rms"] for r in roundings]
    return f"weights in fewer bits against float32\n{table(rows, right=(2, 3))}\n"
