"""Black-76 in numpy and scipy: what the simulated exchanges price with.

On purpose not the kernels of `volsurf.iv`: the simulator is what those are scored against, so it shares no code with them.
Prices are undiscounted and in units of the forward, `k = ln(K/F)`, `v = σ√T`; everything broadcasts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, ndtr

from volsurf.instruments import BoolArray, FloatArray

_SQRT_HALF = np.sqrt(0.5)
_INV_SQRT_2PI = 1.0 / np.sqrt(2.0 * np.pi)


def otm_price(k: npt.ArrayLike, v: npt.ArrayLike) -> FloatArray:
    """Price of the out-of-the-money option (call for k ≥ 0, put for k < 0), with full relative accuracy in the wings.

    `½ exp(½(k − h² − t²)) [erfcx(−(h+t)/√2) − erfcx(−(h−t)/√2)]` with `h = −|k|/v`, `t = v/2`: the scaled complementary
    error function has no cancellation where N(d1) and N(d2) both vanish.
    """
    k = np.asarray(k, np.float64)
    factor, body = _parts(k, np.maximum(np.asarray(v, np.float64), 1e-12))
    with np.errstate(over="ignore", invalid="ignore"):
        price = np.exp(factor) * body
    # erfcx overflows below −26, which needs v > 37: the option is then worth its bound.
    return np.asarray(np.where(np.isfinite(price), price, np.exp(np.minimum(k, 0.0))))


def _parts(k: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    # price = exp(factor)·body, and φ(d1) = exp(factor)/√(2π) because d1² = h² + t² − k: their ratio never underflows.
    h, t = -np.abs(k) / v, 0.5 * v
    with np.errstate(over="ignore", invalid="ignore"):
        body = 0.5 * (erfcx(-(h + t) * _SQRT_HALF) - erfcx(-(h - t) * _SQRT_HALF))
    return np.asarray(0.5 * (k - h * h - t * t)), np.asarray(body)


def black_price(k: npt.ArrayLike, v: npt.ArrayLike, is_call: npt.ArrayLike) -> FloatArray:
    """Price of a call or put in units of the forward."""
    k = np.asarray(k, np.float64)
    is_call = np.asarray(is_call, np.bool_)
    intrinsic = np.where(is_call, -np.expm1(k), np.expm1(k))
    return np.asarray(otm_price(k, v) + np.maximum(intrinsic, 0.0))


def black_delta(k: npt.ArrayLike, v: npt.ArrayLike, is_call: npt.ArrayLike) -> FloatArray:
    """Forward delta, N(d1) for a call and N(d1) − 1 for a put."""
    v = np.maximum(np.asarray(v, np.float64), 1e-12)
    d1 = -np.asarray(k, np.float64) / v + 0.5 * v
    return np.asarray(np.where(np.asarray(is_call, np.bool_), ndtr(d1), -ndtr(-d1)))


def black_vega(k: npt.ArrayLike, v: npt.ArrayLike) -> FloatArray:
    """∂price/∂v = φ(d1), in units of the forward; times √T it is the vega to σ."""
    v = np.maximum(np.asarray(v, np.float64), 1e-12)
    d1 = -np.asarray(k, np.float64) / v + 0.5 * v
    return np.asarray(_INV_SQRT_2PI * np.exp(-0.5 * d1 * d1))


def implied_v(k: npt.ArrayLike, otm: npt.ArrayLike, start: npt.ArrayLike, *, iterations: int = 40) -> FloatArray:
    """`v = σ√T` of out-of-the-money prices; NaN where the price is not inside its bounds (0, min(1, e^k)).

    Newton on ln price, which is concave and rising in v: after the first step every iterate is left of the root and the
    sequence is monotone, so there is nothing to bracket.
    """
    k, otm, v = (np.array(x, np.float64) for x in np.broadcast_arrays(k, otm, start))
    valid: BoolArray = (otm > 0) & (otm < np.exp(np.minimum(k, 0.0)))
    v = np.where(np.isfinite(v) & (v > 1e-6), v, 0.1)
    target = np.log(np.where(valid, otm, 1e-3))
    todo = np.flatnonzero(valid)
    for _ in range(iterations):
        if not len(todo):
            break
        old = v.flat[todo]
        factor, body = _parts(k.flat[todo], old)
        step = (target.flat[todo] - factor - np.log(body)) * body / _INV_SQRT_2PI
        new = np.clip(old + step, 0.3 * old, 3.0 * old)
        v.flat[todo] = new
        todo = todo[np.abs(new - old) > 1e-13 * old]
    return np.where(valid, v, np.nan)
