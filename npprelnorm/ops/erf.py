"""The error function, which NumPy lacks: erf(x) = 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x.

Two pieces, their polynomials interpolated at Chebyshev nodes (`tools/erf_coefficients.py` computes every coefficient
below from the definition):

    |x| <= 1    erf(x) = x + x * P(2 x^2 - 1)                 |P| < 0.16, so its rounding hardly counts
    |x| >  1    erf(x) = sign(x) * (1 - exp(-x^2) * Q(u))     Q is the scaled complement; u is linear in 2 / (2 + |x|)

Measured against 40 digits: at most 1.3 units in the last place in float32, 1.4 in float64.
"""

from __future__ import annotations

import numpy as np

_CENTRE_FLOAT32 = (
    -0.03453126133,
    -0.1405360973,
    0.01985249714,
    -0.002285419545,
    0.0002175135417,
    -1.766906803e-5,
    1.230605479e-6,
)
_TAIL_FLOAT32 = (
    0.2553956763,
    0.1423953299,
    0.02685091128,
    0.002924752079,
    4.607866369e-5,
    -2.802938326e-5,
    -1.149486198e-6,
)
_CENTRE_FLOAT64 = (
    -0.034531261330132691677,
    -0.14053608902271711934,
    0.019852496688983707387,
    -0.0022854855611441132030,
    0.00021751715604159931544,
    -0.000017537169441124865520,
    1.2233827383598968634e-6,
    -7.5115692865917268259e-8,
    4.1158005832081491142e-9,
    -2.0352284058157689785e-10,
    9.1676195968658063250e-12,
    -3.8078824063194955214e-13,
    1.4543887079465115733e-14,
)
_TAIL_FLOAT64 = (
    0.22142954022993180632,
    0.16189356804102535313,
    0.038560570425181563583,
    0.0055888162818258781347,
    0.00019713917776008889535,
    -0.000080792204118041282716,
    -7.3405182849998692716e-6,
    1.9795611582092642666e-6,
    1.6350102372087983870e-7,
    -7.0051702054753737480e-8,
    -5.9263613152818321054e-10,
    2.6223500325142788036e-9,
    -2.6342430210006688099e-10,
    -7.2905085351653974831e-11,
    1.8620989806815161712e-11,
)

# centre, tail, and where the tail ends: beyond, erf rounds to 1 in that precision
PIECES = {
    np.dtype(np.float32): (_CENTRE_FLOAT32, _TAIL_FLOAT32, 4.0),
    np.dtype(np.float64): (_CENTRE_FLOAT64, _TAIL_FLOAT64, 6.0),
}

# elements worked on at a time: a chunk and its temporaries stay in a core's L2 cache
_CHUNK = 1 << 14


def erf(x: np.ndarray) -> np.ndarray:
    """Error function of each element of `x` (float32 or float64, any shape), in the dtype of `x`. NaN stays NaN."""
    flat = np.ascontiguousarray(x).reshape(-1)
    y = np.empty_like(flat)
    for start in range(0, flat.size, _CHUNK):
        stop = start + _CHUNK
        _erf_chunk(flat[start:stop], y[start:stop])
    return y.reshape(x.shape)


def _erf_chunk(x: np.ndarray, y: np.ndarray) -> None:
    centre, tail, end = PIECES[x.dtype]
    inside = np.clip(x, -1.0, 1.0)  # what lies outside is overwritten below
    s = inside * inside
    s *= 2.0
    s -= 1.0
    np.multiply(inside, _polynomial(centre, s), out=y)
    y += inside

    outside = np.flatnonzero(np.abs(x) > 1.0)
    if outside.size:
        a = np.minimum(np.abs(x[outside]), end)
        low, high = 2.0 / (2.0 + end), 2.0 / 3.0
        u = 2.0 / (2.0 + a)
        u -= 0.5 * (high + low)
        u *= 2.0 / (high - low)
        complement = np.exp(-a * a)
        complement *= _polynomial(tail, u)
        y[outside] = np.copysign(1.0 - complement, x[outside])


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Horner's rule; coefficients lowest first."""
    y = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        y *= x
        y += coefficient
    return y
