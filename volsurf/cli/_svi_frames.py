"""The live-like frames of `volsurf bench svi`: three surfaces of twelve expiries, each expiry quoted on three venues' books.

Before each frame the forwards have moved half a basis point and one quote in ten has been quoted anew; the others keep their
price, so that every vol moves. A frame inverts bid and ask, starting from the last vols, refits, filters, enforces, and
certifies with where each slice comes closest to arbitrage.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from volsurf.cli._svi_slices import Slices
from volsurf.iv.black import black_price
from volsurf.iv.implied import implied_vol
from volsurf.svi.fit import SVIFit, fit_slices

Floats = npt.NDArray[np.float64]

VENUES = 3
EXPIRIES = 12
SMOOTHING = 0.8
"""Share of the previous curve in the filter: ten frames a second with a time constant of half a second."""
_FRAME_YEARS = 0.1 / 31_536_000
_FLOOR = 2e-4
"""Smallest error bar, in vol."""


@dataclass(eq=False)
class LiveBooks:
    """The books of three venues as they move."""

    strike: Floats
    years: Floats
    """Of each slice."""
    offsets: npt.NDArray[np.int64]
    surface: npt.NDArray[np.int64]
    quoted: Floats
    """Mid vol that a quote is made around."""
    half_spread: Floats
    rng: np.random.Generator
    forward: Floats = field(init=False)
    """Of each quote's surface."""
    prices: Floats = field(init=False)
    """Bids, then asks."""

    def __post_init__(self) -> None:
        self.slice_of = np.repeat(np.arange(len(self.years)), np.diff(self.offsets))
        self.is_call = self.strike >= 1.0
        self.forward = np.ones(len(self.strike))
        self.prices = np.empty((2, len(self.strike)))
        self._quote(np.ones(len(self.strike), bool))

    @classmethod
    def of(cls, slices: Slices, surfaces: tuple[int, ...]) -> LiveBooks:
        """Books around the two-sided quotes of the first expiries of some surfaces."""
        rng = np.random.default_rng(1)
        pieces: list[tuple[Floats, Floats, Floats]] = []
        years, surface = [], []
        for number, wanted in enumerate(surfaces):
            for i in np.flatnonzero(slices.surface == wanted)[:EXPIRIES]:
                rows = np.arange(slices.offsets[i], slices.offsets[i + 1])
                rows = np.tile(rows[slices.side[rows] == 0], VENUES)
                half = slices.error[rows] * np.repeat((1.0, 1.2, 1.5), len(rows) // VENUES)
                mid = slices.vol[rows] + rng.uniform(-0.3, 0.3, len(rows)) * half
                pieces.append((np.exp(slices.k[rows]), mid, np.minimum(half, 0.9 * mid)))
                years.append(slices.years[i])
                surface.append(number)
        strike, mid, half = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
        offsets = np.concatenate(([0], np.cumsum([len(piece[0]) for piece in pieces])))
        return cls(strike, np.array(years), offsets, np.array(surface), mid, half, rng)

    def step(self) -> None:
        """A tenth of a second later."""
        moves = np.exp(self.rng.normal(0.0, 0.5e-4, self.surface.max() + 1))
        self.forward *= moves[self.surface[self.slice_of]]
        self.years = self.years - _FRAME_YEARS
        self._quote(self.rng.uniform(size=len(self.strike)) < 0.1)

    def _quote(self, anew: npt.NDArray[np.bool_]) -> None:
        mid = self.quoted + self.rng.uniform(-0.3, 0.3, len(self.strike)) * self.half_spread
        years = self.years[self.slice_of]
        for row, vol in enumerate((mid - self.half_spread, mid + self.half_spread)):
            price = black_price(self.forward, self.strike, years, np.maximum(vol, 0.01 * mid), self.is_call)
            self.prices[row] = np.where(anew, price, self.prices[row])


def time_frames(books: LiveBooks, frames: int) -> dict[str, object]:
    """Milliseconds by the clock and by step, over all frames but the first ten."""
    spent: dict[str, list[float]] = {
        "iv": [],
        "fit": [],
        "enforce": [],
        "certificate": [],
        "total": [],
        "processor": [],
    }
    two = np.tile(np.arange(len(books.strike)), 2)
    guess: Floats | None = None
    last: SVIFit | None = None
    certified = guarded = 0
    for _ in range(frames):
        books.step()
        begin, processor = time.perf_counter(), time.thread_time()
        years = books.years[books.slice_of]
        vols = implied_vol(
            books.prices.ravel(), books.forward[two], books.strike[two], years[two], books.is_call[two], guess=guess
        )
        guess = vols
        bid, ask = vols.reshape(2, -1)
        vol, half = 0.5 * (bid + ask), 0.5 * (ask - bid)
        quotes = (np.log(books.strike / books.forward), vol, np.sqrt(half * half + _FLOOR * _FLOOR), books.offsets)
        inverted = time.perf_counter()
        fit = fit_slices(*quotes, books.years, surface=books.surface, previous=last, smoothing=SMOOTHING)
        fitted = time.perf_counter()
        certified += bool(fit.butterfly) and bool(fit.calendar)
        done, used = time.perf_counter(), time.thread_time()
        guarded += int(np.count_nonzero(fit.enforcement == 3))
        # The same fit to quotes alone, for the split only.
        again = time.perf_counter()
        fit_slices(*quotes, books.years, surface=books.surface, previous=last, enforce=False)
        alone = time.perf_counter() - again
        last = fit
        spent["iv"].append(inverted - begin)
        spent["fit"].append(alone)
        spent["enforce"].append(fitted - inverted - alone)
        spent["certificate"].append(done - fitted)
        spent["total"].append(done - begin)
        spent["processor"].append(used - processor)
    warm = {name: 1e3 * np.array(values[10:]) for name, values in spent.items()}
    return {
        "warm_us": round(1e3 * float(np.median(warm["fit"])) / len(books.years), 2),
        "warm_frame_slices": len(books.years),
        "warm_frame_quotes": len(books.strike),
        "warm_frame_ms": round(float(np.median(warm["total"])), 3),
        "warm_frame_p95_ms": round(float(np.percentile(warm["total"], 95)), 3),
        "warm_frame_processor_ms": round(float(np.median(warm["processor"])), 3),
        **{
            f"warm_frame_{name}_ms": round(float(np.median(warm[name])), 3)
            for name in ("iv", "fit", "enforce", "certificate")
        },
        "warm_frames_certified": f"{certified} of {frames}",
        "warm_frames_guarded_slices": guarded,
    }
