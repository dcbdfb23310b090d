"""Compute the polynomial coefficients that `npprelnorm/ops/erf.py` holds, from the definition of erf, with mpmath.

Run it (``pip install mpmath``; ``python tools/erf_coefficients.py``) and compare what it prints with the tables in
that file. Two pieces for each precision:

    |x| <= 1          erf(x) = x + x * P(2 x^2 - 1)            P interpolates erf(x) / x - 1
    1 < |x| <= end    erfc(x) = exp(-x^2) * Q(u)               Q interpolates the scaled erfc, exp(x^2) erfc(x)
                      u in [-1, 1] is linear in 2 / (2 + x)

Interpolation is at Chebyshev nodes, which is within a small factor of the best polynomial of its degree.
"""

from __future__ import annotations

import mpmath as mp

mp.mp.dps = 60


def interpolate(f, degree):
    """Monomial coefficients, lowest first, of the polynomial through f at the Chebyshev nodes of [-1, 1]."""
    n = degree + 1
    nodes = [mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    values = [f(x) for x in nodes]
    chebyshev = [2 * sum(values[k] * mp.cos(j * mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)) / n for j in range(n)]
    chebyshev[0] /= 2
    # T_0 = 1, T_1 = x, T_j = 2 x T_(j-1) - T_(j-2)
    previous, current = [mp.mpf(1)], [mp.mpf(0), mp.mpf(1)]
    total = [mp.mpf(0)] * n
    for j in range(n):
        term = previous if j == 0 else current
        for i, coefficient in enumerate(term):
            total[i] += chebyshev[j] * coefficient
        if j >= 1:
            following = [mp.mpf(0)] + [2 * c for c in current]
            for i, coefficient in enumerate(previous):
                following[i] -= coefficient
            previous, current = current, following
    return total


def centre(s):
    x = mp.sqrt((s + 1) / 2)
    return mp.erf(x) / x - 1 if x > 0 else 2 / mp.sqrt(mp.pi) - 1


def scaled_erfc(end):
    """exp(x^2) erfc(x) as a function of u, where 2 / (2 + x) = low + (u + 1) / 2 * (high - low) for x in [1, end]."""
    low, high = mp.mpf(2) / (2 + end), mp.mpf(2) / 3

    def f(u):
        x = 2 / (low + (u + 1) / 2 * (high - low)) - 2
        return mp.erfc(x) * mp.exp(x * x)

    return f


if __name__ == "__main__":
    for name, centre_degree, tail_degree, end, digits in (("FLOAT32", 6, 6, 4, 10), ("FLOAT64", 12, 14, 6, 20)):
        for part, f, degree in (("CENTRE", centre, centre_degree), ("TAIL", scaled_erfc(end), tail_degree)):
            print(f"{part}_{name} = (")
            for coefficient in interpolate(f, degree):
                print(f"    {mp.nstr(coefficient, digits, strip_zeros=False)},")
            print(")")
