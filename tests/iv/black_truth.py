"""Black-76 in 50-digit arithmetic: what the kernels are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath as mp
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DIGITS = 50


def _normal(x: mp.mpf) -> mp.mpf:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def price(forward: mp.mpf, strike: mp.mpf, years: mp.mpf, vol: mp.mpf, is_call: bool) -> mp.mpf:
    """Undiscounted price; the arguments are taken as exact."""
    v = vol * mp.sqrt(years)
    d1 = mp.log(forward / strike) / v + v / 2
    d2 = d1 - v
    if is_call:
        return forward * _normal(d1) - strike * _normal(d2)
    return strike * _normal(-d2) - forward * _normal(-d1)


@dataclass(frozen=True)
class Sample:
    """Options out of the money, their vols, and their prices rounded once from 50 digits."""

    forward: Floats
    strike: Floats
    years: Floats
    vol: Floats
    is_call: npt.NDArray[np.bool_]
    price: Floats

    @property
    def inputs(self) -> tuple[Floats, Floats, Floats, Floats, npt.NDArray[np.bool_]]:
        return self.price, self.forward, self.strike, self.years, self.is_call

    @property
    def total_vol(self) -> Floats:
        return self.vol * np.sqrt(self.years)


def sample(name: str, count: int = 700, seed: int = 20) -> Sample:
    """`count` options of one of the sets `ord`, `live` and `hard` of the benchmark, priced here."""
    from volsurf.cli._iv_sets import make_set

    options = make_set(name, count, seed)
    prices = true_prices(options.forward, options.strike, options.years, options.vol, options.is_call)
    return Sample(options.forward, options.strike, options.years, options.vol, options.is_call, prices)


def true_prices(forward: Floats, strike: Floats, years: Floats, vol: Floats, is_call: npt.NDArray[np.bool_]) -> Floats:
    """Prices rounded once."""
    with mp.workdps(DIGITS):
        rows = zip(forward, strike, years, vol, is_call, strict=True)
        return np.array([float(price(*(mp.mpf(float(x)) for x in row[:4]), bool(row[4]))) for row in rows])


def true_greeks(forward: float, strike: float, years: float, vol: float, is_call: bool) -> dict[str, float]:
    """Greeks as numerical derivatives of the 50-digit price: no formula of the kernels is repeated here."""
    with mp.workdps(DIGITS):
        point = tuple(mp.mpf(x) for x in (forward, strike, years, vol))

        def by(f: int = 0, t: int = 0, s: int = 0) -> float:
            return float(
                mp.diff(lambda ff, tt, ss: price(ff, point[1], tt, ss, is_call), (point[0], *point[2:]), (f, t, s))
            )

        return {
            "delta": by(f=1),
            "gamma": by(f=2),
            "vega": by(s=1),
            "theta": -by(t=1),
            "vanna": by(f=1, s=1),
            "volga": by(s=2),
        }
