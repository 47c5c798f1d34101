"""Logarithm and exponential that LLVM turns into vector code.

`math.log` and `math.exp` are calls into a scalar library and keep a loop from being vectorised. These two are plain
arithmetic on the bit pattern of a double: exact scaling by a power of two, then a polynomial on what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types
from numba.extending import intrinsic

from volsurf._jit import helper
from volsurf.iv._coefficients import ATANH, ATANH_COARSE, EXP

CONTRACT = {"contract"}
"""The only fast-math flag of these kernels: fused multiply-add. NaN logic and rounding order must survive."""

LN2_HIGH = float.fromhex("0x1.62e42feep-1")
"""ln 2 without its last bits: a product with an integer below 2**20 is exact."""
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")

# The difference of two bit patterns is 2**52 times a piecewise linear log2 of the ratio; half a unit rounds it. The
# 1024 keeps it positive: an unsigned shift is one AVX2 instruction, an arithmetic shift of 64 bits is none.
_ROUND_AND_BIAS = np.uint64((1 << 51) + (1024 << 52))
_MANTISSA_BITS = np.uint64(52)
_ONE = np.uint64(1)
# 2**52 as bits: or-ing a small integer into its mantissa converts it to a double, which AVX2 cannot do otherwise.
_TWO_52_BITS = np.uint64(0x4330000000000000)
_TWO_52_AND_BIAS = 2.0**52 + 1024.0
_ROUNDER = 1.5 * 2.0**52
_ROUNDER_BITS = np.uint64(0x4338000000000000)
_EXPONENT_BIAS = np.uint64(1023)
_INVERSE_LN2 = 1.4426950408889634

if TYPE_CHECKING:

    def to_bits(x: float) -> np.uint64: ...

    def from_bits(bits: np.uint64) -> float: ...

else:

    @intrinsic
    def to_bits(typingctx, x):
        """Bit pattern of a double."""
        return types.uint64(types.float64), lambda context, builder, signature, args: builder.bitcast(
            args[0], context.get_value_type(types.uint64)
        )

    @intrinsic
    def from_bits(typingctx, bits):
        """Double of a bit pattern."""
        return types.float64(types.uint64), lambda context, builder, signature, args: builder.bitcast(
            args[0], context.get_value_type(types.float64)
        )


@helper(fastmath=CONTRACT)
def log_ratio(x: float, y: float) -> float:
    """ln(x/y) of positive normal doubles whose ratio is one too, to one rounding even where x is close to y.

    k = round(log2(x/y)) off the bit patterns, w = (x - 2^k y)/(x + 2^k y), ln(x/y) = k ln 2 + 2 atanh(w). As the bits
    interpolate log2 only linearly, x/(2^k y) lies within 2^±0.586, so that |w| ≤ 0.2.
    """
    shifted = (to_bits(x) - to_bits(y) + _ROUND_AND_BIAS) >> _MANTISSA_BITS
    k = from_bits(shifted | _TWO_52_BITS) - _TWO_52_AND_BIAS
    scaled = y * from_bits((shifted - _ONE) << _MANTISSA_BITS)
    w = (x - scaled) / (x + scaled)
    q = w * w
    c = ATANH
    series = c[0] + q * (c[1] + q * (c[2] + q * (c[3] + q * (c[4] + q * (c[5] + q * (c[6] + q * c[7]))))))
    return k * LN2_HIGH + (k * LN2_LOW + w * series)


@helper(fastmath=CONTRACT)
def log_ratio_coarse(x: float, y: float) -> float:
    """ln(x/y) of positive normal doubles to 2e-7, for the seed."""
    shifted = (to_bits(x) - to_bits(y) + _ROUND_AND_BIAS) >> _MANTISSA_BITS
    k = from_bits(shifted | _TWO_52_BITS) - _TWO_52_AND_BIAS
    scaled = y * from_bits((shifted - _ONE) << _MANTISSA_BITS)
    w = (x - scaled) / (x + scaled)
    q = w * w
    c = ATANH_COARSE
    return k * 0.6931471805599453 + w * (c[0] + q * (c[1] + q * c[2]))


@helper(fastmath=CONTRACT)
def exp_minus(y: float) -> float:
    """e**-y for y ≥ 0; zero from y = 708 on, where the result would leave the normal doubles."""
    # NaN fails the comparison and goes through.
    x = -708.0 if y >= 708.0 else -y
    rounded = x * _INVERSE_LN2 + _ROUNDER
    n = rounded - _ROUNDER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    c = EXP
    low = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * c[5]))))
    high = c[6] + r * (c[7] + r * (c[8] + r * (c[9] + r * (c[10] + r * c[11]))))
    r2 = r * r
    scale = from_bits((to_bits(rounded) - _ROUNDER_BITS + _EXPONENT_BIAS) << _MANTISSA_BITS)
    return 0.0 if y >= 708.0 else (low + r2 * r2 * r2 * high) * scale
