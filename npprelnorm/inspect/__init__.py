"""Instruments: what happens inside a model, as arrays; and `plots`, which needs matplotlib (the extra ``plot``)."""

from __future__ import annotations

from . import plots
from .attention import attention_entropy, attention_maps
from .cost import ForwardProfile, OpTime, forward_flops, profile_forward
from .gradients import GradientNorms, gradient_norms
from .lens import TopTokens, logit_lens, logit_lens_top
from .report import explain, report_html
from .residual import (
    BlockUpdates,
    LayerNormStatistics,
    ResidualNorms,
    block_updates,
    layer_norm_statistics,
    residual_norms,
)
from .tracing import StepDifference, Trace, TraceComparison, TraceStep, compare_traces, trace

__all__ = [
    "BlockUpdates",
    "ForwardProfile",
    "GradientNorms",
    "LayerNormStatistics",
    "OpTime",
    "ResidualNorms",
    "StepDifference",
    "TopTokens",
    "Trace",
    "TraceComparison",
    "TraceStep",
    "attention_entropy",
    "attention_maps",
    "block_updates",
    "compare_traces",
    "explain",
    "forward_flops",
    "gradient_norms",
    "layer_norm_statistics",
    "logit_lens",
    "logit_lens_top",
    "plots",
    "profile_forward",
    "report_html",
    "residual_norms",
    "trace",
]
