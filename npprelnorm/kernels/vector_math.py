"""exp, erf, tanh and the activations of one float32 number, by polynomials that LLVM turns into vector instructions.

A call into the C library would stop it. NaN and infinity give what NumPy gives. `tools/kernel_coefficients.py` and
`tools/erf_coefficients.py` compute the coefficients. Units in the last place (ulp) at most, over every float32 of a
range that holds all that matters: exp 1.0, erf 1.5, tanh 2.0, sigmoid 2.5.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ops.erf import PIECES
from .compiling import inline
from .primitives import bits_of_float, float_of_bits

# every constant is a float32: with a Python number Numba would compute in float64
F = np.float32
I = np.int32  # noqa: E741

_ZERO, _HALF, _ONE, _TWO = F(0.0), F(0.5), F(1.0), F(2.0)
_E0, _E1, _E2, _E3, _E4 = map(F, (0.5000000000, 0.1666657703, 0.04166655466, 0.008363173075, 0.001392617612))
_T0, _T1, _T2, _T3, _T4, _T5 = map(
    F, (-0.3333333277, 0.1333325017, -0.05394817033, 0.02168940590, -0.008113507022, 0.002060621435)
)
_CENTRE, _TAIL, _TAIL_END = PIECES[np.dtype(F)]
_C0, _C1, _C2, _C3, _C4, _C5, _C6 = map(F, _CENTRE)
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5, _Q6 = map(F, _TAIL)

_LOG2_E = F(1.0 / math.log(2.0))
# ln(2) in two pieces: the first has few bits, so that its products with whole numbers are exact
_LN2_HIGH, _LN2_LOW = F(0.693359375), F(-2.12194440055e-4)
_MAGIC = F(1.5 * 2.0**23)  # adding it rounds to a whole number, which then lies in the lowest bits
_MAGIC_BITS = I(0x4B400000)
_EXP_LOW, _EXP_HIGH = F(-104.0), F(89.0)  # beyond them exp is 0, or infinity
_POWER_LOW = F(-88.0)  # the nearest whole power of 2, 2^-127, would be 0 in the bits of a float32

# what the tail's polynomial takes: u is in [-1, 1] for 2 / (2 + a) from the tail's end to a = 1
_U_LOW, _U_HIGH = 2.0 / (2.0 + _TAIL_END), 2.0 / 3.0
_U_CENTRE, _U_SCALE = F(0.5 * (_U_HIGH + _U_LOW)), F(2.0 / (_U_HIGH - _U_LOW))


@inline
def _power_and_rest(x: Any) -> Any:
    """n and exp(r) of exp(x) = 2^n exp(r), r = x - n ln(2)."""
    shifted = x * _LOG2_E + _MAGIC
    n = shifted - _MAGIC
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = (((_E4 * r + _E3) * r + _E2) * r + _E1) * r + _E0
    return bits_of_float(shifted) - _MAGIC_BITS, p * (r * r) + r + _ONE


@inline
def exp(x: Any) -> Any:
    """exp(x); denormals and overflow to infinity as in NumPy."""
    x = _EXP_HIGH if x > _EXP_HIGH else x  # so written, NaN stays
    x = _EXP_LOW if x < _EXP_LOW else x
    n, rest = _power_and_rest(x)
    # 2^n in two steps, neither of which leaves the range of a float32
    half = n >> I(1)
    first = float_of_bits((half + I(127)) << I(23))
    second = float_of_bits((n - half + I(127)) << I(23))
    return rest * first * second


@inline
def exp_below(x: Any) -> Any:
    """exp(x) for x <= 0, a quarter cheaper: what would be well among the denormal numbers is 0."""
    n, rest = _power_and_rest(_POWER_LOW if x < _POWER_LOW else x)
    return rest * float_of_bits((n + I(127)) << I(23))


@inline
def _complement(a: Any) -> Any:
    """erfc(a) for a >= 1; beyond the tail's end the polynomial drifts, where exp(-a^2) is below 1e-7."""
    u = (_TWO / (_TWO + a) - _U_CENTRE) * _U_SCALE
    q = (((((_Q6 * u + _Q5) * u + _Q4) * u + _Q3) * u + _Q2) * u + _Q1) * u + _Q0
    return exp(-a * a) * q


@inline
def _centre(x: Any) -> Any:
    """erf(x) for |x| <= 1."""
    s = _TWO * x * x - _ONE
    return ((((((_C6 * s + _C5) * s + _C4) * s + _C3) * s + _C2) * s + _C1) * s + _C0) * x + x


@inline
def erf(x: Any) -> Any:
    """erf(x), in the two pieces of `ops.erf`."""
    a = abs(x)
    inside = _centre(_ONE if a > _ONE else a)
    outside = _ONE - _complement(a)
    y = outside if a > _ONE else inside
    return -y if x < _ZERO else y


@inline
def tanh(x: Any) -> Any:
    """tanh(x): a polynomial near 0, where 1 - 2 / (exp(2x) + 1) would lose digits."""
    a = abs(x)
    s = a * a
    near = (((((_T5 * s + _T4) * s + _T3) * s + _T2) * s + _T1) * s + _T0) * (s * a) + a
    far = _ONE - _TWO / (exp(a + a) + _ONE)
    y = far if a > F(0.7) else near
    return -y if x < _ZERO else y


@inline
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), from exp(-|x|) so that small results keep their digits."""
    e = exp(-abs(x))
    return (e if x < _ZERO else _ONE) / (_ONE + e)


@inline
def normal_cumulative(x: Any) -> Any:
    """Phi(x) = erfc(-x / sqrt 2) / 2. The left tail keeps the digits that 1 + erf would cancel."""
    z = x * F(math.sqrt(0.5))
    a = abs(z)
    complement = _complement(a)  # of |z|
    inside = _ONE + _centre(_ONE if z > _ONE else (-_ONE if z < -_ONE else z))
    outside = complement if z < _ZERO else _TWO - complement
    return _HALF * (outside if a > _ONE else inside)


@inline
def gelu(x: Any) -> Any:
    """x * Phi(x)."""
    return x * normal_cumulative(x)


@inline
def gelu_tanh(x: Any) -> Any:
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""
    u = F(math.sqrt(2.0 / math.pi)) * x * (_ONE + F(0.044715) * x * x)
    return _HALF * x * (_ONE + tanh(u))


@inline
def quick_gelu(x: Any) -> Any:
    """x * sigmoid(1.702 x)."""
    return x * sigmoid(F(1.702) * x)


@inline
def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


@inline
def relu(x: Any) -> Any:
    """max(x, 0); NaN stays."""
    return _ZERO if x < _ZERO else x
