"""Pictures of what the instruments found. They need matplotlib: ``pip install 'npprelnorm[plot]'``.

Each function takes arrays, and matplotlib axes to draw on, or makes a figure of its own; it returns the axes, whose
``figure.savefig`` writes the picture. The colours can be told apart by colour-blind readers (Okabe and Ito 2008,
jfly.uni-koeln.de/color; viridis for shades), and lines differ in their markers too.

Legend: N layers, H heads, T tokens, S tokens attended to, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import shown
from ..errors import InputError
from ..figures import figure_class
from ..inputs import as_array
from .cost import ForwardProfile
from .gradients import GradientNorms
from .lens import TopTokens
from .residual import BlockUpdates, ResidualNorms, counted_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def _axes(axes: Axes | None, width: float, height: float) -> Axes:
    if axes is not None:
        return axes
    return figure_class()(figsize=(width, height), dpi=150, layout="constrained").subplots()


def _style(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _whole_ticks(axes: Axes, count: int, first: int = 0) -> None:
    """About ten whole numbers along the x axis."""
    axes.set_xticks(range(first, first + count, max(1, -(-count // 12))))


def plot_residual_norms(norms: ResidualNorms, *, axes: Axes | None = None) -> Axes:
    """Draw the norm of the residual stream over the depth: each token a thin line, their mean a thick one.

    Parameters
    ----------
    norms : ResidualNorms
        From `residual_norms`.
    axes : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> axes = plot_residual_norms(nl.inspect.residual_norms(model, input_ids=[[0, 298, 2]]))
    >>> axes.get_xlabel()
    'after layer (0: embeddings)'
    """
    axes = _axes(axes, 6.4, 3.8)
    lines = norms.per_token.reshape(len(norms.per_layer), -1)
    axes.plot(lines, color=COLOURS[0], alpha=0.25, linewidth=0.8)
    axes.lines[-1].set_label("one token")
    axes.plot(norms.per_layer, color=COLOURS[1], linewidth=2.2, marker=MARKERS[0], label="mean")
    axes.set_xlabel("after layer (0: embeddings)")
    axes.set_ylabel("norm of the residual stream")
    axes.set_ylim(0, 1.1 * float(np.nanmax(lines, initial=1e-12)))  # of a post-LN model all lie on one height
    _whole_ticks(axes, len(norms.per_layer))
    axes.legend(frameon=False)
    _style(axes)
    return axes


def plot_gradient_norms(norms: GradientNorms, *, axes: Axes | None = None) -> Axes:
    """Draw the norm of the gradients layer by layer, all together and by group, on a logarithmic scale.

    Parameters
    ----------
    norms : GradientNorms
        From `gradient_norms`.
    axes : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.
    InputError
        If no layer has a gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from npprelnorm.inspect import gradient_norms
    >>> grads = {f"encoder.layer.{i}.output.dense.bias": np.ones(3) for i in range(2)}
    >>> plot_gradient_norms(gradient_norms(grads)).get_ylabel()
    'norm of the gradient'
    """
    if not len(norms.per_layer):
        raise InputError("there is no layer with a gradient to draw")
    axes = _axes(axes, 7.6, 4.2)
    layers = np.arange(1, len(norms.per_layer) + 1)
    for index, (group, values) in enumerate(norms.groups.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        positive = np.where(values > 0, values, np.nan)  # a gradient of 0 has no place on this scale
        axes.plot(layers, positive, color=colour, marker=marker, markersize=4, linewidth=1, label=group)
    axes.plot(layers, norms.per_layer, color="black", linewidth=2.4, linestyle="--", marker="*", label="whole layer")
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_ylabel("norm of the gradient")
    _whole_ticks(axes, len(layers), 1)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    _style(axes)
    return axes


def plot_attention(
    weights: Any,
    tokens: Sequence[str] | None = None,
    seen: Sequence[str] | None = None,
    *,
    title: str = "",
    axes: Axes | None = None,
) -> Axes:
    """Draw one attention map, in shades from 0 to 1.

    Parameters
    ----------
    weights : floats (T, S)
        Of one layer and head, such as ``attention_maps(...)[layer, 0, head]``, or a mean of several.
    tokens : sequence of str, optional
        Names of the T tokens that look.
    seen : sequence of str, optional
        Names of the S tokens that are looked at, where these are others: those of cross-attention.
    title : str
    axes : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.
    InputError
        For weights of another shape, or as many names as there are no tokens.

    Examples
    --------
    >>> import numpy as np
    >>> plot_attention(np.eye(2), ["a", "b"]).get_ylabel()
    'token that looks'
    """
    array = as_array("weights", weights)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"weights has shape {array.shape}; expected (T, S), the map of one layer and head")
    looking = None if tokens is None else list(tokens)
    seeing = looking if seen is None else list(seen)
    for names, count in ((looking, array.shape[0]), (seeing, array.shape[1])):
        if names is not None and len(names) != count:
            raise InputError(f"there are {len(names)} tokens, but weights has shape {array.shape}")
    high, wide = (min(9.0, 2.6 + 0.3 * count) for count in array.shape)
    axes = _axes(axes, wide + 0.8, high)
    image = axes.imshow(array, vmin=0.0, vmax=1.0, cmap="viridis", aspect="equal")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="attention weight")
    letters = min(8.0, 480 / max(array.shape, default=1))  # points: as many names as squares have to fit
    if seeing is not None:
        axes.set_xticks(range(len(seeing)), [_short(token) for token in seeing], rotation=90, fontsize=letters)
    if looking is not None:
        axes.set_yticks(range(len(looking)), [_short(token) for token in looking], fontsize=letters)
    axes.set_xlabel("token that is looked at")
    axes.set_ylabel("token that looks")
    axes.set_title(_plain(title), fontsize="medium")
    return axes


def plot_logit_lens(
    top: TopTokens, tokenizer: Any, tokens: Sequence[str] | None = None, *, row: int = 0, axes: Axes | None = None
) -> Axes:
    """Draw the likeliest token after each layer, on its probability as a shade.

    Parameters
    ----------
    top : TopTokens
        From `logit_lens_top`.
    tokenizer : Tokenizer
        For the tokens' texts.
    tokens : sequence of str, optional
        Names of the positions that were read.
    row : int
        Which text of the batch.
    axes : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.
    InputError
        For a row that is not there, or another number of names than of positions.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> tokenizer = nl.Tokenizer.from_pretrained(nl.embedded_model_path())
    >>> top = nl.inspect.logit_lens_top(model, input_ids=[[0, 298, 2]])
    >>> plot_logit_lens(top, tokenizer).get_ylabel()
    'after layer (0: embeddings)'
    """
    layers, batch, positions, _ = top.ids.shape
    if not 0 <= row < batch:
        raise InputError(f"row is {row}; allowed: 0 to {batch - 1}")
    if tokens is not None and len(tokens) != positions:
        raise InputError(f"there are {len(tokens)} tokens, but {positions} positions were read")
    axes = _axes(axes, min(16.0, 2.0 + 0.85 * positions), min(12.0, 2.0 + 0.35 * layers))
    best = top.probabilities[:, row, :, 0]  # (N + 1, P)
    image = axes.imshow(best, vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto", origin="lower")
    axes.figure.colorbar(image, ax=axes, label="probability")
    for layer in range(layers):
        for position in range(positions):
            text = _short(tokenizer.decode([int(top.ids[layer, row, position, 0])]), 10)
            dark = best[layer, position] < 0.45  # below, viridis stands out from white better than from black
            axes.text(position, layer, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    if tokens is not None:
        axes.set_xticks(range(positions), [_short(token) for token in tokens], rotation=45, ha="right", fontsize=8)
    axes.set_xlabel("token")
    axes.set_ylabel("after layer (0: embeddings)")
    axes.set_yticks(range(0, layers, max(1, -(-layers // 24))))
    return axes


def plot_attention_entropy(entropy: Any, *, attention_mask: Any = None, axes: Axes | None = None) -> Axes:
    """Draw how spread out each head's attention is: the mean over the tokens, layers upwards, heads to the right.

    Parameters
    ----------
    entropy : floats (N, B, H, T)
        ``attention_entropy(attention_maps(...))``.
    attention_mask : (B, T) of 0 / 1, optional
        As for the model; with it the means leave padding out.
    axes : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.
    InputError
        For an entropy of another shape, or if every token is padding.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> maps = nl.inspect.attention_maps(model, input_ids=[[0, 298, 2]])
    >>> plot_attention_entropy(nl.inspect.attention_entropy(maps)).get_xlabel()
    'head'
    """
    array = as_array("entropy", entropy)
    if array.ndim != 4 or array.dtype.kind not in "fiu":
        raise InputError(f"entropy has shape {array.shape}; expected (N, B, H, T), that of attention_maps")
    layers, batch, heads, tokens = array.shape
    counted = counted_tokens(attention_mask, (batch, tokens))
    means = np.moveaxis(array, 2, 1)[:, :, counted].mean(axis=-1)  # (N, B, H, T) -> (N, H)
    axes = _axes(axes, 2.6 + 0.35 * heads, 1.8 + 0.35 * layers)
    image = axes.imshow(means, vmin=0.0, cmap="viridis", aspect="auto", origin="lower", extent=_from_one(means.shape))
    axes.figure.colorbar(image, ax=axes, label="entropy (nats)")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    _whole_ticks(axes, heads, 1)
    axes.set_yticks(range(1, layers + 1, max(1, -(-layers // 12))))
    return axes


def _from_one(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Where the squares of an image lie when rows and columns are counted from 1."""
    return 0.5, shape[1] + 0.5, 0.5, shape[0] + 0.5


def plot_effective_depth(updates: BlockUpdates | Mapping[str, BlockUpdates], *, axes: Axes | None = None) -> Axes:
    """Draw how the effective depth adds up block by block, of one model or of several that are compared.

    Parameters
    ----------
    updates : BlockUpdates, or mapping of str to BlockUpdates
        From `block_updates`; the keys name the models.
    axes : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.
    InputError
        If there is nothing to draw, or something else.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> updates = nl.inspect.block_updates(model, input_ids=[[0, 298, 2]])
    >>> plot_effective_depth({"pre-LN": updates}).get_ylabel()
    'effective depth (blocks)'
    """
    named = {"": updates} if isinstance(updates, BlockUpdates) else updates
    if not isinstance(named, Mapping) or not all(isinstance(one, BlockUpdates) for one in named.values()):
        raise InputError(f"updates is {shown(updates)}; give what block_updates returned, or a dict of such by name")
    if not named:
        raise InputError("updates is empty; give what block_updates returned")
    axes = _axes(axes, 6.4, 3.8)
    for index, (name, one) in enumerate(named.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        blocks = range(1, len(one.names) + 1)
        axes.plot(blocks, one.effective_depth, color=colour, marker=marker, markersize=4, label=_plain(name))
    axes.set_xlabel("residual blocks passed")
    axes.set_ylabel("effective depth (blocks)")
    axes.set_ylim(bottom=0)
    _whole_ticks(axes, max(len(one.names) for one in named.values()), 1)
    if named.keys() != {""}:
        axes.legend(frameon=False)
    _style(axes)
    return axes


def plot_op_times(profile: ForwardProfile, *, axes: Axes | None = None) -> Axes:
    """Draw where the time of a forward went, by kind of op, the longest on top.

    Parameters
    ----------
    profile : ForwardProfile
        From `profile_forward`.
    axes : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NpprelnormError
        If matplotlib is not installed.

    Examples
    --------
    >>> import npprelnorm as nl
    >>> model = nl.AutoModelForMaskedLM.from_pretrained(nl.embedded_model_path())
    >>> profile = nl.inspect.profile_forward(model, input_ids=[[0, 298, 2]])
    >>> plot_op_times(profile).get_xlabel()
    'time of one forward (ms)'
    """
    times = {**profile.by_op(), "outside of the ops": profile.other}
    axes = _axes(axes, 6.4, 1.4 + 0.28 * len(times))
    bars = axes.barh(list(times), [1e3 * seconds for seconds in times.values()], color=COLOURS[0])
    bars[-1].set_color(COLOURS[6])
    axes.bar_label(bars, [f" {1e3 * seconds:.3g}" for seconds in times.values()], fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("time of one forward (ms)")
    _style(axes)
    axes.grid(visible=False, axis="y")
    return axes


def _short(text: str, most: int = 16) -> str:
    """`text` as a name beside a picture, which a long one would push aside."""
    return _plain(text if len(text) <= most else text[: most - 1] + "…")


def _plain(text: str) -> str:
    """`text` so that matplotlib shows it as it is: a dollar sign would begin mathematics."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown.replace("$", r"\$")
