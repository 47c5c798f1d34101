"""Black-76 prices and greeks in batches.

Prices share the solver's formulas (`_mills`): a price is the product of its own vega and a fraction, not a difference of two
numbers near one. Its relative error is at most 4e-15·(2 + a²), a = |ln(F/K)|/(σ√T), and a²·1e-16 of that is what the rounding
of σ√T alone costs.
"""

from __future__ import annotations

from typing import overload

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_flags, as_reals, broadcast, column
from volsurf._jit import ensure_compiled, kernel
from volsurf.iv._blocks import BLOCK, Column, Flags, pad, pad_flags, padded_length
from volsurf.iv._elementary import CONTRACT
from volsurf.iv._greeks import DELTA, GREEKS, GREEKS_WORK, Greeks as Greeks, greeks_block, price_block

_NO_PRICE = np.empty(0)
_NO_GREEKS = np.empty((GREEKS, 0))


@kernel(
    "void(float64[::1], float64[::1], float64[::1], float64[::1], boolean[::1], float64[::1], boolean, float64[:, ::1])",
    group="iv",
    fastmath=CONTRACT,
)
def evaluate_columns(
    forward: Column,
    strike: Column,
    years: Column,
    vol: Column,
    is_call: Flags,
    out_price: Column,
    adjusted: bool,
    out_greeks: npt.NDArray[np.float64],
) -> None:
    """Undiscounted prices and greeks of equally long contiguous columns; either output may have no columns."""
    n = np.uint64(forward.size)
    prices = out_price.size > 0
    greeks = out_greeks.shape[1] > 0
    work = np.empty(GREEKS_WORK)
    zero = np.uint64(0)
    whole = n // BLOCK * BLOCK
    for block in range(n // BLOCK):
        begin = block * BLOCK
        if prices:
            price_block(forward, strike, years, vol, is_call, begin, BLOCK, out_price, work)
        if greeks:
            greeks_block(forward, strike, years, vol, is_call, adjusted, begin, BLOCK, work)
            for row in range(GREEKS):
                for i in range(BLOCK):
                    out_greeks[row, begin + i] = work[DELTA + np.uint64(row) * BLOCK + i]
    rest = n - whole
    if rest == zero:
        return
    length = padded_length(rest)
    columns = np.empty((5, int(BLOCK)))
    call = np.empty(BLOCK, np.bool_)
    f, k, t, sigma, price = columns[0], columns[1], columns[2], columns[3], columns[4]
    pad(forward, whole, length, f)
    pad(strike, whole, length, k)
    pad(years, whole, length, t)
    pad(vol, whole, length, sigma)
    pad_flags(is_call, whole, length, call)
    if prices:
        price_block(f, k, t, sigma, call, zero, length, price, work)
        for i in range(rest):
            out_price[whole + i] = price[i]
    if greeks:
        greeks_block(f, k, t, sigma, call, adjusted, zero, length, work)
        for row in range(GREEKS):
            for i in range(rest):
                out_greeks[row, whole + i] = work[DELTA + np.uint64(row) * BLOCK + i]


@overload
def black_price(
    forward: float, strike: float, years: float, vol: float, is_call: bool, discount: float = ...
) -> float: ...


@overload
def black_price(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = ...,
) -> Column: ...


def black_price(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
) -> Column | float:
    """Black-76 premium `discount · B`, in the unit of forward and strike; intrinsic value where vol or years is zero.

    Args:
        forward: forward or dated future, positive (between 1e-150 and 1e150, and the strike too).
        strike: positive.
        years: time to expiry, ACT/365, not negative.
        vol: decimal, not negative.
        is_call: True for a call, False for a put.
        discount: discount factor of the premium, positive.

    Arguments broadcast; the result has their common shape, or is a float where all are scalars. A row with a NaN or a
    value out of range is NaN.

    Raises:
        InputError: an argument is not numeric, or the shapes do not broadcast.
    """
    shape, f, k, t, sigma, calls, factor = _columns(forward, strike, years, vol, is_call, discount)
    out = np.empty(shape)
    ensure_compiled("iv")
    evaluate_columns(f, k, t, sigma, calls, out.reshape(-1), False, _NO_GREEKS)
    if factor is not None:
        out *= factor
    return out if shape else float(out[()])


def black_greeks(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
    *,
    premium_adjusted: bool = False,
) -> Greeks:
    """Delta, gamma, vega, theta, vanna and volga; arguments, shapes and errors of `black_price`, units of `Greeks`.

    With `premium_adjusted` the delta is that of a coin-settled premium B/F held in coins, which loses its own value when
    the coin falls: delta − B/F = F ∂(B/F)/∂F, that is (K/F) N(d2) for a call and −(K/F) N(−d2) for a put. Gamma and
    vanna are the derivatives of that delta by forward and by vol; vega, theta and volga are those of the USD premium
    (divide by the forward for coins).
    """
    shape, f, k, t, sigma, calls, factor = _columns(forward, strike, years, vol, is_call, discount)
    out = np.empty((GREEKS, calls.size))
    ensure_compiled("iv")
    evaluate_columns(f, k, t, sigma, calls, _NO_PRICE, premium_adjusted, out)
    rows = [row.reshape(shape) for row in out]
    if factor is not None:
        rows = [row * factor for row in rows]
    return Greeks(*rows) if shape else Greeks(*(float(row[()]) for row in rows))


def _columns(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike,
) -> tuple[tuple[int, ...], Column, Column, Column, Column, Flags, Column | None]:
    """Common shape, the columns of that shape, and the discount factor unless it is one."""
    reals = {
        "forward": as_reals("forward", forward),
        "strike": as_reals("strike", strike),
        "years": as_reals("years", years),
        "vol": as_reals("vol", vol),
    }
    calls = as_flags("is_call", is_call)
    factor = as_reals("discount", discount)
    shape = broadcast(reals | {"is_call": calls, "discount": factor})
    f, k, t, sigma = (column(array, shape) for array in reals.values())
    unit = factor.ndim == 0 and factor == 1.0
    usable = (factor > 0.0) & (factor < np.inf)
    return shape, f, k, t, sigma, column(calls, shape), None if unit else np.where(usable, factor, np.nan)
