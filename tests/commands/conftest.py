"""Tiny models of every task in folders, and their command."""

from __future__ import annotations

from typing import Any

import pytest
import task_models

from npprelnorm.commands import main


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A task's name -> the folder of its model."""
    return {task: task_models.save(task, tmp_path_factory.mktemp(task)) for task in task_models.CLASSES}


@pytest.fixture
def predict(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a task's command; its exit code, output and errors."""

    def run(task: str, *arguments: str, model: str | None = None) -> tuple[int, str, str]:
        code = main(["predict", task, "--model", model or folders[task], *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
