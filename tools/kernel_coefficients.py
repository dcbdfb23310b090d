"""Compute the polynomial coefficients that `npprelnorm/kernels/vector_math.py` holds, with mpmath.

Run it (``pip install mpmath``; ``python tools/kernel_coefficients.py``) and compare what it prints with that file:

    EXP     exp(r)  = 1 + r + r^2 * P(r)        |r| <= ln(2) / 2
    TANH    tanh(x) = x + x * s * P(s)          s = x^2, |x| <= 0.7

Interpolation is at Chebyshev nodes, as in `erf_coefficients.py`, which has those of erf.
"""

from __future__ import annotations

import mpmath as mp

mp.mp.dps = 60


def interpolate(f, low, high, degree):
    """Monomial coefficients in x, lowest first, of the polynomial through f at the Chebyshev nodes of [low, high]."""
    n = degree + 1
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    powers = mp.matrix(n, n)
    for i, x in enumerate(nodes):
        for j in range(n):
            powers[i, j] = x**j
    return list(mp.lu_solve(powers, mp.matrix([f(x) for x in nodes])))


def exp_rest(r):
    """(exp(r) - 1 - r) / r^2, by its series, which has no hole at 0."""
    return mp.nsum(lambda k: r**k / mp.factorial(k + 2), [0, 40])


def tanh_rest(s):
    x = mp.sqrt(s)
    return (mp.tanh(x) / x - 1) / s


if __name__ == "__main__":
    half = mp.log(2) / 2
    for name, coefficients in (
        ("EXP", interpolate(exp_rest, -half, half, 4)),
        ("TANH", interpolate(tanh_rest, mp.mpf(0), mp.mpf("0.49"), 5)),
    ):
        print(f"{name} = ({', '.join(mp.nstr(c, 10, strip_zeros=False) for c in coefficients)})")
