"""Implied volatility of undiscounted or discounted Black-76 prices, in batches.

One cold solve is a seed and a single step of fifth order whose size certifies the result (`_blocks`, `_householder`). What
it does not certify, about one option in four hundred of a live market, takes more steps (`_solve`), and what those do not
certify either goes to a bracketed iteration (`_fallback`).
Accuracy: relative error ≤ 1e-14 of the vol that reproduces the given out-of-the-money price. Of an in-the-money price
only the time value carries a vol, and what is left of it after the price was rounded bounds what anyone can recover.
"""

from __future__ import annotations

from enum import IntEnum
from typing import overload

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_flags, as_reals, broadcast, column
from volsurf._jit import ensure_compiled, kernel
from volsurf.iv._blocks import BLOCK, Column, Flags, Statuses, pad, pad_flags, padded_length
from volsurf.iv._elementary import CONTRACT
from volsurf.iv._greeks import DELTA, GREEKS, GREEKS_WORK, greeks_block
from volsurf.iv._solve import solve_block

_NO_GUESS = np.empty(0)
_NO_GREEKS = np.empty((GREEKS, 0))


class ImpliedVolStatus(IntEnum):
    """Why an implied vol is what it is."""

    OK = 0
    """The vol reproduces the price."""
    AT_INTRINSIC = 1
    """The price has no time value: the vol is 0."""
    BELOW_INTRINSIC = 2
    """The price is below intrinsic value (or negative): no vol gives it, NaN."""
    ABOVE_MAXIMUM = 3
    """The price is at or above what the option can be worth (forward for a call, strike for a put): NaN."""
    INVALID_INPUT = 4
    """An input is NaN or infinite, or forward, strike, years or discount is not positive: NaN."""

    @property
    def sentence(self) -> str:
        """What to tell the user."""
        return _SENTENCES[self]


_SENTENCES = {
    ImpliedVolStatus.OK: "implied vol found",
    ImpliedVolStatus.AT_INTRINSIC: "price equals intrinsic value: vol is zero",
    ImpliedVolStatus.BELOW_INTRINSIC: "price is below intrinsic value: no vol gives it",
    ImpliedVolStatus.ABOVE_MAXIMUM: "price is at or above the option's upper bound: no vol gives it",
    ImpliedVolStatus.INVALID_INPUT: "an input is not a finite number, or forward, strike, years or discount is not positive",
}


@kernel(
    "void(float64[::1], float64[::1], float64[::1], float64[::1], boolean[::1], float64[::1], float64[::1], int8[::1],"
    " boolean, float64[:, ::1])",
    group="iv",
    fastmath=CONTRACT,
)
def solve_columns(
    price: Column,
    forward: Column,
    strike: Column,
    years: Column,
    is_call: Flags,
    guess: Column,
    out_vol: Column,
    out_status: Statuses,
    adjusted: bool,
    out_greeks: npt.NDArray[np.float64],
) -> None:
    """Kernel of `solve` and `solve_greeks`; without columns in `out_greeks` there are no greeks."""
    n = np.uint64(price.size)
    warm = guess.size > 0
    greeks = out_greeks.shape[1] > 0
    work = np.empty(GREEKS_WORK)
    picked = np.empty(BLOCK, np.uint64)
    zero = np.uint64(0)
    whole = n // BLOCK * BLOCK
    for block in range(n // BLOCK):
        begin = block * BLOCK
        solve_block(
            price, forward, strike, years, is_call, guess, warm, begin, BLOCK, out_vol, out_status, work, picked
        )
        if greeks:
            greeks_block(forward, strike, years, out_vol, is_call, adjusted, begin, BLOCK, work)
            for row in range(GREEKS):
                for i in range(BLOCK):
                    out_greeks[row, begin + i] = work[DELTA + np.uint64(row) * BLOCK + i]
    rest = n - whole
    if rest == zero:
        return
    length = padded_length(rest)
    columns = np.empty((6, int(BLOCK)))
    call = np.empty(BLOCK, np.bool_)
    status = np.empty(BLOCK, np.int8)
    p, f, k, t, g, vol = columns[0], columns[1], columns[2], columns[3], columns[4], columns[5]
    pad(price, whole, length, p)
    pad(forward, whole, length, f)
    pad(strike, whole, length, k)
    pad(years, whole, length, t)
    pad_flags(is_call, whole, length, call)
    if warm:
        pad(guess, whole, length, g)
    solve_block(p, f, k, t, call, g, warm, zero, length, vol, status, work, picked)
    for i in range(rest):
        out_vol[whole + i] = vol[i]
        out_status[whole + i] = status[i]
    if greeks:
        greeks_block(f, k, t, vol, call, adjusted, zero, length, work)
        for row in range(GREEKS):
            for i in range(rest):
                out_greeks[row, whole + i] = work[DELTA + np.uint64(row) * BLOCK + i]


def solve(
    price: Column,
    forward: Column,
    strike: Column,
    years: Column,
    is_call: Flags,
    guess: Column,
    out_vol: Column,
    out_status: Statuses,
) -> None:
    """Implied vols and statuses of equally long contiguous float64 columns, written to `out_vol` and `out_status`.

    What `implied_vol_status` calls after checking and broadcasting its arguments; nothing is checked here.

    Args:
        price: undiscounted, in the unit of the forward.
        guess: vols to start from (NaN where there is none), or an empty array for a cold solve.
    """
    ensure_compiled("iv")
    solve_columns(price, forward, strike, years, is_call, guess, out_vol, out_status, False, _NO_GREEKS)


def solve_greeks(
    price: Column,
    forward: Column,
    strike: Column,
    years: Column,
    is_call: Flags,
    guess: Column,
    out_vol: Column,
    out_status: Statuses,
    out_greeks: npt.NDArray[np.float64],
    premium_adjusted: bool = False,
) -> None:
    """`solve`, and the undiscounted greeks of each vol in the rows of `out_greeks` (6, n), in the order of `Greeks`."""
    ensure_compiled("iv")
    solve_columns(price, forward, strike, years, is_call, guess, out_vol, out_status, premium_adjusted, out_greeks)


@overload
def implied_vol(
    price: float,
    forward: float,
    strike: float,
    years: float,
    is_call: bool,
    discount: float = ...,
    *,
    guess: float | None = ...,
) -> float: ...


@overload
def implied_vol(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = ...,
    *,
    guess: npt.ArrayLike | None = ...,
) -> Column: ...


def implied_vol(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
    *,
    guess: npt.ArrayLike | None = None,
) -> Column | float:
    """Black-76 vol that gives the price; 0 at intrinsic value, NaN where there is none (`implied_vol_status` says why).

    Args:
        price: premium in the unit of forward and strike. A coin-settled premium is `coin_premium * forward`, with the
            forward the venue prices on and not the index.
        forward: forward or dated future, positive.
        strike: positive.
        years: time to expiry, ACT/365, positive.
        is_call: True for a call, False for a put.
        discount: factor that discounts the premium; 1 for premiums paid at expiry or margined.
        guess: vols to start from, such as those of the last frame; NaN where there is none. A good guess (0.3 %) halves the
            time, one that is off by 1 % costs more than none. Without one a vol is right to 1e-14 of itself. From one it is
            right to 2e-15/√years plus what the guess leaves: of itself at most 2e-13 for σ√T up to 1, 2e-12 up to 3 and 2e-10
            anywhere.

    Arguments broadcast; the result has their common shape, or is a float where all are scalars.

    Raises:
        InputError: an argument is not numeric, or the shapes do not broadcast. A bad value in a row is a NaN in that row.
    """
    vol, _, scalar = _solve_columns(price, forward, strike, years, is_call, discount, guess)
    return float(vol[()]) if scalar else vol


@overload
def implied_vol_status(
    price: float,
    forward: float,
    strike: float,
    years: float,
    is_call: bool,
    discount: float = ...,
    *,
    guess: float | None = ...,
) -> tuple[float, ImpliedVolStatus]: ...


@overload
def implied_vol_status(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = ...,
    *,
    guess: npt.ArrayLike | None = ...,
) -> tuple[Column, Statuses]: ...


def implied_vol_status(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
    *,
    guess: npt.ArrayLike | None = None,
) -> tuple[Column | float, Statuses | ImpliedVolStatus]:
    """`implied_vol` and, as int8, the `ImpliedVolStatus` of every element."""
    vol, status, scalar = _solve_columns(price, forward, strike, years, is_call, discount, guess)
    return (float(vol[()]), ImpliedVolStatus(int(status[()]))) if scalar else (vol, status)


def _solve_columns(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike,
    guess: npt.ArrayLike | None,
) -> tuple[Column, Statuses, bool]:
    columns = {
        "price": as_reals("price", price),
        "forward": as_reals("forward", forward),
        "strike": as_reals("strike", strike),
        "years": as_reals("years", years),
    }
    calls = as_flags("is_call", is_call)
    discounts = as_reals("discount", discount)
    guesses = {} if guess is None else {"guess": as_reals("guess", guess)}
    shape = broadcast(columns | guesses | {"is_call": calls, "discount": discounts})
    if discounts.ndim > 0 or discounts != 1.0:
        columns["price"], calls = _undiscounted(
            columns["price"], columns["forward"], columns["strike"], calls, discounts
        )
    vol = np.empty(shape)
    status = np.empty(shape, np.int8)
    solve(
        column(columns["price"], shape),
        column(columns["forward"], shape),
        column(columns["strike"], shape),
        column(columns["years"], shape),
        column(calls, shape),
        column(guesses["guess"], shape) if guesses else _NO_GUESS,
        vol.reshape(-1),
        status.reshape(-1),
    )
    return vol, status, shape == ()


def _undiscounted(
    prices: Column, forwards: Column, strikes: Column, calls: Flags, discounts: Column
) -> tuple[Column, Flags]:
    """Undiscounted out-of-the-money prices and their flags.

    The intrinsic value comes off before the division: a premium of exactly discount × intrinsic is then at intrinsic, not
    one rounding above or below it.
    """
    with np.errstate(all="ignore"):
        intrinsic = np.maximum(np.where(calls, forwards - strikes, strikes - forwards), 0.0)
        values = (prices - discounts * intrinsic) / discounts
        usable = (discounts > 0.0) & (discounts < np.inf)
    return np.where(usable, values, np.nan), strikes >= forwards
