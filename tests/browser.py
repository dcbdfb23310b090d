"""A page in a real browser without a window: chromium, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000",
)  # fmt: skip


def dom_of(page: Path) -> str:
    """The page's elements after its scripts ran. Skips the test where there is no browser, unless CI needs it."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        if os.environ.get("NPPRELNORM_BROWSER"):
            raise AssertionError("NPPRELNORM_BROWSER is set, but there is no chromium")
        pytest.skip("no chromium here: the report page is not opened in a browser")
    with tempfile.TemporaryDirectory(prefix="npprelnorm-browser-") as profile:
        done = subprocess.run(
            [program, *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
