"""What a task makes of a configuration and of its examples."""

from __future__ import annotations

from typing import Any

import numpy as np

import npprelnorm as nl


def changed(config: nl.RobertaPreLayerNormConfig, task: Any) -> nl.RobertaPreLayerNormConfig:
    """The configuration with what the task changes in it."""
    return nl.RobertaPreLayerNormConfig.from_dict(config.to_dict(), **task.config_changes(config))


def everything(data: Any) -> dict[str, np.ndarray]:
    """All examples in one batch."""
    return data.collate(np.arange(len(data.lengths)), np.random.default_rng(0))
