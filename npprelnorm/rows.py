"""Which rows of a batch are computed, and where they lie: only those that somebody reads.

A padded token attends to others, but nobody attends to it. Its row matters only where the output at its own place is
read, so the body runs on the rows that are real or read, sequence after sequence, without padding between them. In
the last layer a row that nobody reads is needed for its key and value alone.

Legend: B batch, T tokens, S keys of a sequence, N rows that are computed, R of them that are read, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .inputs import Inputs
from .masks import bias_from_allowed
from .ops.packed import Span, put_rows, spans, take_rows

# which tokens somebody reads, (B, T) booleans, given those that are real
Reading = Callable[[np.ndarray], np.ndarray]


def everything(real: np.ndarray) -> np.ndarray:
    """A `Reading`: padding too."""
    return np.ones_like(real)


def all_real(real: np.ndarray) -> np.ndarray:
    """A `Reading`: no padding."""
    return real


def first(real: np.ndarray) -> np.ndarray:
    """A `Reading`: the first token of each sequence, even where it is padding."""
    wanted = np.zeros_like(real)
    wanted[:, 0] = True
    return wanted


def real_and_first(real: np.ndarray) -> np.ndarray:
    """A `Reading`: both."""
    return real | first(real)


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that the body computes."""

    shape: tuple[int, int]  # B, T
    index: np.ndarray | None  # (N,) where they lie in the batch as (B*T) rows, ascending; None: all do
    bounds: np.ndarray  # (B + 1,) where each sequence begins in the N
    keys: np.ndarray | None  # (N,) booleans, which may be attended to; None: all, or what a mask for each query says
    read: np.ndarray | None  # (R,) which of the N somebody reads, ascending; None: all

    @property
    def count(self) -> int:
        """N."""
        return int(self.bounds[-1])

    @property
    def places(self) -> np.ndarray | None:
        """Where the rows that are read lie in the batch as (B*T) rows, (R,); None: everywhere."""
        if self.read is None:
            return self.index
        return self.read if self.index is None else self.index[self.read]

    def pack(self, x: np.ndarray) -> np.ndarray:
        """The rows that are computed. (B, T, ...) -> (N, ...)."""
        return take_rows(x.reshape(-1, *x.shape[2:]), self.index)

    def pack_backward(self, dy: np.ndarray) -> np.ndarray:
        """Undoes `pack`. (N, ...) -> (B, T, ...)."""
        return put_rows(dy, self.index, self.shape[0] * self.shape[1]).reshape(*self.shape, *dy.shape[1:])

    def unpack(self, y: np.ndarray) -> np.ndarray:
        """What was made of the rows that are read, at their places, and zeros elsewhere. (R, ...) -> (B, T, ...)."""
        return put_rows(y, self.places, self.shape[0] * self.shape[1]).reshape(*self.shape, *y.shape[1:])

    def unpack_backward(self, dx: np.ndarray) -> np.ndarray:
        """Undoes `unpack`. (B, T, ...) -> (R, ...)."""
        return take_rows(dx.reshape(-1, *dx.shape[2:]), self.places)


class Columns:
    """Some positions of each sequence, (K,), in any order, twice as well; M of the B*K are rows that are read."""

    def __init__(self, rows: Rows, positions: np.ndarray) -> None:
        count = rows.count if rows.read is None else rows.read.size  # R
        number = rows.unpack(np.arange(1, count + 1))[:, positions]  # (B, K) of R, counted from 1; 0: it is not read
        self.shape, self.count = number.shape, count
        self.places = None if number.all() else np.flatnonzero(number)  # (M,) of B*K
        self.index = take_rows(number.reshape(-1), self.places) - 1  # (M,) of R

    def take(self, x: np.ndarray) -> np.ndarray:
        """The rows at these positions. (R, ...) -> (M, ...)."""
        return x[self.index]

    def take_backward(self, dy: np.ndarray) -> np.ndarray:
        """Undoes `take`; what was taken twice gets the sum. (M, ...) -> (R, ...)."""
        dx = np.zeros((self.count, *dy.shape[1:]), dy.dtype)
        np.add.at(dx, self.index, dy)
        return dx

    def unpack(self, y: np.ndarray) -> np.ndarray:
        """What was made of them at their places, and zeros elsewhere. (M, ...) -> (B, K, ...)."""
        return put_rows(y, self.places, self.shape[0] * self.shape[1]).reshape(*self.shape, *y.shape[1:])

    def unpack_backward(self, dx: np.ndarray) -> np.ndarray:
        """Undoes `unpack`. (B, K, ...) -> (M, ...)."""
        return take_rows(dx.reshape(-1, *dx.shape[2:]), self.places)


def choose_rows(inputs: Inputs, wanted: np.ndarray | None, whole: bool) -> Rows:
    """The rows to compute so that those that are `wanted`, (B, T) booleans or None for all, can be read.

    Everything is kept where a mask says for each query what it sees, and where the caller wants the `whole` batch.
    """
    batch, tokens = inputs.position_ids.shape
    index = None
    bounds = np.arange(batch + 1) * tokens
    if wanted is not None and inputs.bias is None and not whole:
        kept = inputs.real | wanted
        if not kept.all():
            index = np.flatnonzero(kept)
            bounds = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    keys = None
    if inputs.bias is None and inputs.mask is not None:
        keys = take_rows(inputs.mask.reshape(-1), index)
    read = None if wanted is None else np.flatnonzero(take_rows(wanted.reshape(-1), index))
    return Rows(
        (batch, tokens),
        index,
        bounds,
        None if keys is None or keys.all() else keys,
        None if read is None or read.size == bounds[-1] else read,
    )


class Layout(NamedTuple):
    """Who meets whom in one layer."""

    sequences: int  # B
    read: np.ndarray | None  # (R,) the rows of N that the layer has to give; None: all
    own: tuple[Span, ...]  # of self-attention
    tokens: int = 0  # T, of each sequence; 0 where they are of many lengths
    cross: tuple[Span, ...] = ()  # of cross-attention
    encoder_tokens: int = 0  # that cross-attention looks at; 0 where there is none


class Layouts(NamedTuple):
    """The layouts of a body: the last layer gives only the rows that are read."""

    inner: Layout
    last: Layout

    def at(self, index: int, layers: int) -> Layout:
        """The layout of layer `index` of so many."""
        return self.last if index == layers - 1 else self.inner


def packed_layouts(
    bounds: np.ndarray, keys: np.ndarray | None, read: np.ndarray | None, dtype: np.dtype[np.floating]
) -> Layouts:
    """Sequences of any lengths, in which a row sees the rows of its sequence that are `keys`: all alike."""

    def layout(queries: np.ndarray, read: np.ndarray | None) -> Layout:
        own = []
        for span in spans(queries, bounds):
            # a sequence without any key spreads evenly over all of it
            allowed = None if keys is None else keys[span.keys].reshape(-1, 1, 1, span.seen)
            own.append(span if allowed is None else span._replace(mask=bias_from_allowed(allowed, dtype)))
        return Layout(len(bounds) - 1, read, tuple(own))

    inner = layout(bounds, None)
    return Layouts(inner, inner if read is None else layout(np.searchsorted(read, bounds), read))


def whole_layout(
    sequences: int,
    tokens: int,
    seen: int,
    bias: np.ndarray | None = None,
    encoder_tokens: int = 0,
    encoder_bias: np.ndarray | None = None,
) -> Layout:
    """Sequences of one length, of which every row looks: at `seen` tokens, and at an encoder's if there are any."""

    def span(seen: int, bias: np.ndarray | None) -> tuple[Span]:
        return (Span(slice(0, sequences), slice(None), slice(None), tokens, seen, bias),)

    cross = span(encoder_tokens, encoder_bias) if encoder_tokens else ()
    return Layout(sequences, None, span(seen, bias), tokens, cross, encoder_tokens)


def padded_layouts(rows: Rows, inputs: Inputs, read: np.ndarray | None, dtype: np.dtype[np.floating]) -> Layouts:
    """Every row of the batch, with any mask, a key/value cache before them, and an encoder's tokens beside them."""
    batch, tokens = rows.shape
    bias = inputs.bias
    if rows.keys is not None:
        bias = bias_from_allowed(rows.keys.reshape(batch, 1, 1, tokens), dtype)
    seen = tokens + (inputs.past.length if inputs.past is not None else 0)
    inner = whole_layout(batch, tokens, seen, bias, inputs.encoder_tokens, inputs.encoder_bias)
    if read is None:
        return Layouts(inner, inner)
    queries = np.searchsorted(read, np.arange(batch + 1) * tokens)

    def of_read(seen: int, bias: np.ndarray | None) -> tuple[Span, ...]:
        return tuple(
            span if bias is None else span._replace(mask=_queries_of(bias, read[span.queries], span, rows.shape))
            for span in spans(queries, np.arange(batch + 1) * seen)
        )

    cross = of_read(inputs.encoder_tokens, inputs.encoder_bias) if inputs.encoder_tokens else ()
    return Layouts(inner, inner._replace(read=read, own=of_read(seen, bias), cross=cross))


def _queries_of(bias: np.ndarray, read: np.ndarray, span: Span, shape: tuple[int, int]) -> np.ndarray:
    """The bias of some queries of each sequence: (B or 1, H or 1, T or 1, S) -> (sequences, H or 1, their T, S)."""
    sequence, token = np.divmod(read, shape[1])
    wide = np.broadcast_to(bias, (shape[0], bias.shape[1], shape[1], span.seen))
    picked = wide[sequence, :, token]  # -> (sequences * their T, H or 1, S)
    return picked.reshape(-1, span.tokens, *picked.shape[1:]).swapaxes(1, 2)


def layouts_of(rows: Rows, inputs: Inputs, read: np.ndarray | None, dtype: np.dtype[np.floating]) -> Layouts:
    """The layouts of rows that were chosen, where the last layer gives those of `read`, (R,) or None for all."""
    if rows.index is None:
        return padded_layouts(rows, inputs, read, dtype)
    return packed_layouts(rows.bounds, rows.keys, read, dtype)
