"""Smiles, surfaces and frames of arbitrary content, made without quotes or fits: what codec and stream tests carry."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from volsurf.engine.codec import FeedStatus, Problem
from volsurf.engine.frame import BlockCache, Frame
from volsurf.engine.log import ChannelLiveness, Liveness
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.surface import Surface

START_NS = 1_795_593_600_000_000_000
DAY_NS = 86_400_000_000_000
LIVENESS = Liveness(
    skew_ns=-2_500_000, lag_median_ms=12.5, lag_p95_ms=40.0, quote_age_median_ms=150.0, quote_age_p95_ms=900.0,
    channels=(ChannelLiveness("quotes", 20.0, 30_000.0, 12.5, 40.0, True), ChannelLiveness("index btc_usd", 1_000.0)),
    gaps=2, resyncs=1, takeovers=1, crossed=3,
)  # fmt: skip
"""A number of each kind, in every field."""


@functools.cache
def smile(underlying: str, day: int, version: int, quotes: int = 12, fitted: bool = True) -> Smile:
    """The smile of a day's expiry; the same arguments give the same object, another version other numbers."""
    rng = np.random.default_rng([len(underlying), ord(underlying[0]), day, version])
    expiry_ns = START_NS + day * DAY_NS
    # Without exp and log, whose last digit differs between processors: the golden bytes must not.
    strike = 75.0 + 50.0 * np.arange(quotes) / max(quotes - 1, 1)
    bid = rng.uniform(0.4, 0.6, quotes)
    if quotes > 3:
        bid[2] = np.nan
    fit = SliceFit(
        a=0.01 * rng.uniform(), b=0.1, rho=-0.3, m=0.01, sigma=0.2, result=0, cost=1.5, rms=0.4, inside=1.0, iterations=5,
        n_used=quotes, n_two_sided=quotes, atm_error=1e-4, butterfly_verdict=1, butterfly_condition=0, butterfly_worst_k=0.4,
        butterfly_worst_value=0.3, calendar_verdict=1, calendar_condition=0, calendar_worst_k=float("nan"),
        calendar_worst_value=float("nan"), theta=0.02, covariance=tuple((rng.uniform(0.0, 0.5, 15)).tolist()), fitted_cost=1.25,
        enforcement=2, solver_steps=3, smoothed=1, move=2e-4, autocorrelation=0.1, quoted_ns=START_NS + version,
        blend_from_ns=0 if day == 1 else START_NS + DAY_NS, blend_verdict=int(day != 1),
    )  # fmt: skip
    return Smile(
        underlying=underlying, expiry_ns=expiry_ns, time_ns=START_NS + version, forward=100.0 + rng.uniform(),
        years=day / 365, strike=strike, log_moneyness=strike / 100.0 - 1.0, bid_vol=bid, ask_vol=bid + 0.01, vol=bid + 0.005,
        error=np.full(quotes, 0.005), side=np.zeros(quotes, np.int8), is_call=strike > 100.0,
        instrument_id=np.arange(quotes, dtype=np.int32), reason=np.zeros(quotes, np.uint8), forward_source=0, forward_error=0.1,
        mismatch_bp=0.2, forward_flagged=False, fit=fit if fitted else None,
    )  # fmt: skip


State = Mapping[str, tuple[int, Mapping[int, int]]]
"""By underlying: the surface's time and, by day of expiry, the version of the smile."""


class FrameMaker:
    """Makes frames as the core does: an unchanged surface is the same object, and blocks are encoded once."""

    def __init__(self) -> None:
        self._cache: BlockCache = {}
        self._surfaces: dict[str, Surface] = {}
        self.number = 0

    def make(self, state: State) -> Frame:
        """The next frame, of this state."""
        self.number += 1
        surfaces: dict[str, Surface] = {}
        for name, (time, days) in sorted(state.items()):
            smiles = tuple(smile(name, day, days[day]) for day in sorted(days))
            if not smiles:
                continue
            old = self._surfaces.get(name)
            same = old is not None and old.time_ns == START_NS + time and list(old.smiles) == list(smiles)
            surfaces[name] = old if same and old is not None else Surface(name, START_NS + time, smiles)
        self._surfaces = surfaces
        status = FeedStatus(
            name="venue", state="ready", is_live=True, silent_ns=self.number, connections=1, connected=1,
            messages=100 * self.number, malformed=0, reconnects=0, heartbeats_missed=0, late_batches=0, sentence="all well",
            left_out=("ETH",), liveness=LIVENESS,
        )  # fmt: skip
        return Frame(
            self.number, START_NS + 10**8 * self.number, surfaces, {"venue": status}, {"venue": self.number},
            (Problem("BTC", "fit", "a sentence"),) if self.number % 3 == 0 else (),
            {name: tuple(int(e) for e in s.expiries) for name, s in surfaces.items()}, {"BTC": {"USED": 3}},
            {"fit": 0.5}, self._cache,
        )  # fmt: skip


def still_frame(number: int = 1, underlyings: tuple[str, ...] = ("BTC", "ETH")) -> Frame:
    """One frame of two expiries per underlying."""
    maker = FrameMaker()
    maker.number = number - 1
    return maker.make({name: (0, {1: 0, 30: 0}) for name in underlyings})
