"""The residual stream: how long its vectors are, what each block adds to it, and what the LayerNorms make of it.

Legend: B batch, T tokens, C hidden, N layers, K residual blocks (two a layer, three with cross-attention).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .recorded import recorded_body, require_model, residual_blocks


class ResidualNorms(NamedTuple):
    """Euclidean norms of the stream's vectors: after the embeddings, then after each layer.

    Attributes
    ----------
    per_token : numpy.ndarray (N + 1, B, T)
    per_layer : numpy.ndarray (N + 1,)
        Their mean over the tokens that are not padding.
    """

    per_token: np.ndarray
    per_layer: np.ndarray


def residual_norms(model: Any, *, attention_mask: Any = None, **inputs: Any) -> ResidualNorms:
    """Norm of the residual stream after the embeddings and after each layer, before any final LayerNorm.

    In a pre-LN model it grows with depth, since every block adds to it and nothing scales it back; in a post-LN model
    each layer ends in a LayerNorm that sets it (Xiong et al. 2020, arXiv:2002.04745, section 3).

    Parameters
    ----------
    model : any model class of this package
    attention_mask : (B, T) of 0 / 1, optional
        As for the model; with it the mean leaves padding out. (With masks of another shape every token counts.)
    **inputs
        Further inputs of the body, such as ``input_ids``.

    Returns
    -------
    ResidualNorms

    Raises
    ------
    InputError
        For inputs that the model cannot use.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> norms = nl.inspect.residual_norms(model, input_ids=[[0, 298, 380, 2]])
    >>> norms.per_token.shape
    (5, 1, 4)
    >>> bool((norms.per_layer[1:] > norms.per_layer[:-1]).all())
    True
    """
    require_model(model)
    out = model.base(attention_mask=attention_mask, **inputs, output_hidden_states=True, hidden_states_convention="v4")
    per_token = np.stack([np.linalg.norm(state, axis=-1) for state in out.hidden_states])  # (N + 1, B, T)
    counted = counted_tokens(attention_mask, per_token.shape[1:])
    return ResidualNorms(per_token, _mean_over(per_token, counted))


def counted_tokens(attention_mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """(B, T) booleans: the tokens that are not padding, as far as a 2-D mask tells."""
    if 0 in shape:
        raise InputError(f"the input has shape {shape}, so there is no token to take a mean over; give at least one")
    mask = None if attention_mask is None else np.asarray(attention_mask)
    if mask is None or mask.shape != shape:
        return np.ones(shape, bool)
    if not (mask != 0).any():
        raise InputError("attention_mask is 0 everywhere, so there is no token to take a mean over")
    return mask != 0


def _mean_over(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """(..., B, T) -> (...), the mean over the tokens that count."""
    return values[..., counted].mean(axis=-1)


class BlockUpdates(NamedTuple):
    """What each residual block adds to the stream; means over the tokens that are not padding.

    With x the stream before a block and h its update:

    Attributes
    ----------
    names : list of str
        ``encoder.layer.0.attention``, ``encoder.layer.0.feed_forward``, ...
    update_norm, stream_norm : numpy.ndarray (K,)
        ``|h|`` and ``|x|``.
    ratio : numpy.ndarray (K,)
        ``|h| / |x|``.
    cosine : numpy.ndarray (K,)
        Of the angle between h and x: above 0 the block lengthens what is there, near 0 it writes something new.
    share : numpy.ndarray (K,)
        ``|h|^2 / (|x|^2 + |h|^2)``, how much of the sum is the block's own: the squared dependency of a sub-layer on
        its own residual branch in Liu et al. 2020, arXiv:2004.08249, section 4, with squared norms for variances.
    effective_depth : numpy.ndarray (K,)
        Running sum of `share`: how many blocks' worth of their own output the stream has passed. In the same paper
        this sum bounds how much the output moves when the parameters do: it grows as log K for pre-LN at
        initialisation, where each block adds to a longer stream, and as K for post-LN.
    """

    names: list[str]
    update_norm: np.ndarray
    stream_norm: np.ndarray
    ratio: np.ndarray
    cosine: np.ndarray
    share: np.ndarray
    effective_depth: np.ndarray


def block_updates(model: Any, *, attention_mask: Any = None, **inputs: Any) -> BlockUpdates:
    """Compare what every residual block adds with what is in the stream, and sum it up over the depth.

    As in a `trace`, the weights count with all their bits.

    Parameters
    ----------
    model : any model class of this package
    attention_mask : (B, T) of 0 / 1, optional
        As for the model; with it the means leave padding out.
    **inputs
        Further inputs of the body, such as ``input_ids``.

    Returns
    -------
    BlockUpdates

    Raises
    ------
    InputError
        For inputs that the model cannot use.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> config = nl.RobertaPreLayerNormConfig(vocab_size=50, hidden_size=32, num_hidden_layers=8,
    ...                                       num_attention_heads=4, intermediate_size=64)
    >>> updates = nl.inspect.block_updates(nl.RobertaPreLayerNormModel(config, rng=0), input_ids=[[0, 7, 8, 2]])
    >>> updates.names[:2]
    ['encoder.layer.0.attention', 'encoder.layer.0.feed_forward']
    >>> bool(updates.effective_depth[-1] < 16)
    True
    """
    cache, stream = recorded_body(model, {"attention_mask": attention_mask, **inputs})
    counted = counted_tokens(attention_mask, stream[0].shape[:2])
    names: list[str] = []
    rows: list[list[float]] = []
    for block in residual_blocks(model._view(), model.config, cache, stream):
        x, h = block.x[counted].astype(np.float64), block.update[counted].astype(np.float64)  # (tokens, C)
        x_norm, h_norm = np.linalg.norm(x, axis=-1), np.linalg.norm(h, axis=-1)
        smallest = np.finfo(np.float64).tiny  # a block whose weights are 0 adds exactly nothing
        ratio = h_norm / np.maximum(x_norm, smallest)
        cosine = (x * h).sum(axis=-1) / np.maximum(x_norm * h_norm, smallest)
        share = h_norm**2 / np.maximum(x_norm**2 + h_norm**2, smallest)
        names.append(block.name)
        rows.append([float(values.mean()) for values in (h_norm, x_norm, ratio, cosine, share)])
    update_norm, stream_norm, ratio, cosine, share = np.array(rows, np.float64).reshape(-1, 5).T
    return BlockUpdates(names, update_norm, stream_norm, ratio, cosine, share, np.cumsum(share))


class LayerNormStatistics(NamedTuple):
    """The LayerNorms of the residual blocks and the final one, in the order of computation (K, or K + 1 of them).

    Attributes
    ----------
    names : list of str
        Of their parameters, without the model's prefix.
    gain_rms, gain_min, gain_max, bias_rms : numpy.ndarray
        Of the learned weights and biases.
    input_std : numpy.ndarray
        Mean standard deviation (over a token's C numbers) of what comes in; eps included.
    effective_gain : numpy.ndarray
        Mean over the tokens of gain_rms / standard deviation: what a gradient that goes back through the LayerNorm is
        multiplied with, the two means that it also subtracts aside (Ba et al. 2016, arXiv:1607.06450, section 5;
        Xiong et al. 2020, arXiv:2002.04745, lemma 3).
    """

    names: list[str]
    gain_rms: np.ndarray
    gain_min: np.ndarray
    gain_max: np.ndarray
    bias_rms: np.ndarray
    input_std: np.ndarray
    effective_gain: np.ndarray


def layer_norm_statistics(model: Any, *, attention_mask: Any = None, **inputs: Any) -> LayerNormStatistics:
    """Learned gains of all LayerNorms of the stack, beside the standard deviations that they meet in one forward.

    As in a `trace`, the weights count with all their bits.

    Parameters
    ----------
    model : any model class of this package
    attention_mask : (B, T) of 0 / 1, optional
        As for the model; with it the means leave padding out.
    **inputs
        Further inputs of the body, such as ``input_ids``.

    Returns
    -------
    LayerNormStatistics

    Raises
    ------
    InputError
        For inputs that the model cannot use.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.RobertaPreLayerNormForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> statistics = nl.inspect.layer_norm_statistics(model, input_ids=[[0, 298, 2]])
    >>> statistics.names[0], statistics.names[-1], len(statistics.names)
    ('encoder.layer.0.attention.LayerNorm', 'LayerNorm', 9)
    """
    cache, stream = recorded_body(model, {"attention_mask": attention_mask, **inputs})
    p = model._view()
    counted = counted_tokens(attention_mask, stream[0].shape[:2])
    found = [(block.norm_name, block.norm) for block in residual_blocks(p, model.config, cache, stream)]
    if model.config.family.order.has_final_norm:
        assert cache.norm is not None, "the forward recorded all"
        found.append(("LayerNorm", cache.norm))
    rows = []
    for name, norm in found:
        gain, bias = (array.astype(np.float64) for array in p.affine(name))
        inv_std = norm.inv_std.reshape(counted.shape)[counted].astype(np.float64)  # -> (tokens,)
        rms = float(np.sqrt(np.square(gain).mean()))
        bias_rms = float(np.sqrt(np.square(bias).mean()))
        rows.append([rms, gain.min(), gain.max(), bias_rms, (1.0 / inv_std).mean(), rms * inv_std.mean()])
    return LayerNormStatistics([name for name, _ in found], *np.array(rows, np.float64).reshape(-1, 6).T)
