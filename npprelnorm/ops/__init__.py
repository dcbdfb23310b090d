"""The mathematics: pure functions on arrays. Each `f(...)` returns ``(y, cache)``; NumPy is all they import.

Legend of the shape comments: B batch, T tokens, S source tokens, C hidden, H heads, D head size, F intermediate,
V vocabulary, R relative positions.
"""
