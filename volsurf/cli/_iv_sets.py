"""The options that `volsurf bench iv` solves: three sets of out-of-the-money quotes around a forward of 60,000.

* ord: expiry log-uniform from a day to two years, vol uniform in [0.2, 1.5], within 1.5 standard deviations;
* live: the expiries a venue lists, vol uniform in [0.3, 1.2], standard normal times 1.5 standard deviations;
* hard: expiry log-uniform from an hour to two years, vol log-uniform in [0.05, 4], within 7 standard deviations, price above
  1e-12 of the forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.iv.black import black_price

Floats = npt.NDArray[np.float64]

SETS = ("ord", "live", "hard")

_LISTED_DAYS = np.array([0.125, 1, 2, 3, 7, 14, 21, 30, 60, 90, 180, 270, 360])


@dataclass(frozen=True)
class Options:
    """Columns of options with the vol that made their prices."""

    price: Floats
    forward: Floats
    strike: Floats
    years: Floats
    is_call: npt.NDArray[np.bool_]
    vol: Floats

    def pick(self, rows: npt.NDArray[np.intp]) -> Options:
        """Some of the rows."""
        return Options(
            self.price[rows],
            self.forward[rows],
            self.strike[rows],
            self.years[rows],
            self.is_call[rows],
            self.vol[rows],
        )


def make_set(name: str, count: int, seed: int = 1) -> Options:
    """The first `count` options of a set; fewer for `hard`, which drops prices that are too small."""
    rng = np.random.default_rng([seed, SETS.index(name)])
    forward = 60_000.0 * np.exp(rng.uniform(-0.2, 0.2, count))
    if name == "ord":
        years = np.exp(rng.uniform(np.log(1 / 365), np.log(2.0), count))
        vol = rng.uniform(0.2, 1.5, count)
        deviations = rng.uniform(-1.5, 1.5, count)
    elif name == "live":
        years = rng.choice(_LISTED_DAYS, count) / 365.0
        vol = rng.uniform(0.3, 1.2, count)
        deviations = rng.normal(0.0, 1.5, count)
    else:
        years = np.exp(rng.uniform(np.log(1 / 8760), np.log(2.0), count))
        vol = np.exp(rng.uniform(np.log(0.05), np.log(4.0), count))
        deviations = rng.uniform(-7.0, 7.0, count)
    strike = forward * np.exp(deviations * vol * np.sqrt(years))
    is_call = strike >= forward
    price = np.asarray(black_price(forward, strike, years, vol, is_call))
    options = Options(price, forward, strike, years, is_call, vol)
    floor = 1e-12 * forward if name == "hard" else 0.0
    return options.pick(np.flatnonzero(price > floor))


def true_prices(options: Options) -> Floats:
    """Prices from 50-digit arithmetic, rounded once."""
    try:
        import mpmath as mp
    except ImportError:
        raise InputError("the benchmark checks its accuracy with mpmath: pip install mpmath") from None
    with mp.workdps(50):
        root_two = mp.sqrt(2)

        def normal(x: object) -> object:
            return mp.erfc(-x / root_two) / 2  # type: ignore[operator]

        prices = []
        for f, k, t, s, call in zip(
            options.forward, options.strike, options.years, options.vol, options.is_call, strict=True
        ):
            forward, strike = mp.mpf(float(f)), mp.mpf(float(k))
            v = mp.mpf(float(s)) * mp.sqrt(mp.mpf(float(t)))
            d1 = mp.log(forward / strike) / v + v / 2
            d2 = d1 - v
            if call:
                prices.append(float(forward * normal(d1) - strike * normal(d2)))
            else:
                prices.append(float(strike * normal(-d2) - forward * normal(-d1)))
    return np.array(prices)
