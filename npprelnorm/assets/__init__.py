"""The model inside the package: what the commands and `pipeline` use when no model is named."""

from __future__ import annotations

from pathlib import Path


def embedded_model_path() -> Path:
    """Folder of the embedded model: a small RoBERTa-PreLayerNorm of a small world; its README.md says what it knows."""
    return Path(__file__).parent / "tiny"
