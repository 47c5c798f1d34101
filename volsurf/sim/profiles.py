"""How each venue differs from the others on one market: spreads, ticks, lots, listing, cadence, latency, and where it is wrong.

All venues quote the same truth (`Market`), each around its own opinion of it: a volatility offset per expiry that wanders
slowly within bounds. By default the opinions lie within the spread of Deribit's makers, so that venues never cross; with
`mispriced(share)` they do not, which is what a cross-venue signal must find. The offset is a function of seed, venue, expiry
and time alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from volsurf.errors import InputError
from volsurf.instruments import Instrument, Settlement
from volsurf.sim.listing import ExpiryRules
from volsurf.sim.quoting import QuoteRules, reference_half_spread

_PERIODS = (431.0, 1129.0, 3697.0)
_WEIGHTS = (0.30, 0.35, 0.35)
"""Of the offset's waves: seconds, and shares that add up to 1; prime, so that expiries do not repeat together."""


@dataclass(frozen=True, slots=True)
class Family:
    """One set of options of an underlying that a venue lists under one set of terms."""

    underlying: str
    settlement: Settlement
    quote_currency: str
    """Of strikes and forwards, and of premiums where linear."""
    tick: float
    """In the premium's unit per coin."""
    tick_steps: tuple[tuple[float, float], ...] = ()
    contract_size: float = 1.0
    """Coins of one contract."""
    lot: float = 0.1
    """Step of an order's size, coins."""
    smallest_step: float = 500.0
    """Finest grid of strikes."""
    density: float = 1.0
    """Strikes relative to Deribit's Bitcoin."""
    dated_futures: bool = False
    perpetual: bool = False
    future_tick: float = 0.0
    future_contract: float = 0.0


@dataclass(frozen=True, slots=True)
class VenueProfile:
    """One venue."""

    name: str
    families: tuple[Family, ...]
    expiries: ExpiryRules = field(default_factory=ExpiryRules)
    rules: QuoteRules = field(default_factory=QuoteRules)
    tick_ns: int = 100_000_000
    """How often its books move."""
    latency_ms: float = 0.0
    """From the event's time to the moment it is sent, on average."""
    jitter_ms: float = 0.0
    """Deviation of that."""
    levels: int = 8
    """Price levels a side."""
    typical_lots: Mapping[str, float] = field(default_factory=dict)
    """Median size of a level by underlying, coins; where missing, 80 lots."""
    offset_share: float = 0.4
    """Largest volatility offset, as a share of the half-spread of Deribit's makers at the money."""

    def mispriced(self, share: float) -> VenueProfile:
        """The same venue with opinions that leave the truth by up to so many half-spreads of the others."""
        if not (math.isfinite(share) and share >= 0):
            raise InputError(f"a share of the half-spread must be finite and not negative, was {share!r}")
        return replace(self, offset_share=share)

    def of(self, *underlyings: str) -> tuple[Family, ...]:
        """Families of some underlyings, in the order of the underlyings."""
        return tuple(family for name in underlyings for family in self.families if family.underlying == name)

    def family_of(self, instrument: Instrument) -> Family:
        """Terms of an instrument."""
        for family in self.families:
            if (family.underlying, family.settlement, family.quote_currency) == (
                instrument.underlying,
                instrument.settlement,
                instrument.quote_currency,
            ):
                return family
        raise InputError(f"{self.name} lists no {instrument.underlying} like {instrument.symbol}")

    def vol_offset(self, seed: int, underlying: str, expiry_ns: int, now_ns: int) -> float:
        """What the venue adds to the true volatility of an expiry at an instant, a decimal; |offset| ≤ its share."""
        years = max(expiry_ns - now_ns, 1) / (365 * 86_400e9)
        bound = self.offset_share * reference_half_spread(underlying, years)
        return bound * sum(
            weight * math.sin(2.0 * math.pi * (now_ns % int(period * 1e9)) / (period * 1e9) + phase)
            for weight, period, phase in zip(
                _WEIGHTS, _PERIODS, _phases(seed, self.name, underlying, expiry_ns), strict=True
            )
        )


@lru_cache(maxsize=4096)
def _phases(seed: int, venue: str, underlying: str, expiry_ns: int) -> tuple[float, ...]:
    words = [seed, zlib.crc32(venue.encode()), zlib.crc32(underlying.encode()), expiry_ns // 1_000_000_000]
    drawn: list[float] = np.random.default_rng(words).uniform(0.0, 2.0 * math.pi, len(_PERIODS)).tolist()
    return tuple(drawn)


def profile_of(venue: str) -> VenueProfile:
    """The profile of a venue that can be simulated."""
    try:
        return PROFILES[venue]
    except KeyError:
        raise InputError(f"venues that can be simulated are {sorted(PROFILES)}, was {venue!r}") from None


def _inverse(underlying: str, **terms: float | bool | tuple[tuple[float, float], ...]) -> Family:
    steps = ((0.005, 0.0005),)
    return Family(underlying, Settlement.INVERSE, "USD", 0.0001, steps, **terms)  # type: ignore[arg-type]


def _linear(
    underlying: str, currency: str, tick: float, **terms: float | bool | tuple[tuple[float, float], ...]
) -> Family:
    return Family(underlying, Settlement.LINEAR, currency, tick, **terms)  # type: ignore[arg-type]


_SOL = {"smallest_step": 1.0}
_XRP = {"smallest_step": 0.025}
_ETH = {"smallest_step": 25.0}

PROFILES: dict[str, VenueProfile] = {
    profile.name: profile
    for profile in (
        VenueProfile(
            "deribit",
            (
                _inverse("BTC", dated_futures=True, perpetual=True, future_tick=2.5, future_contract=10.0),
                _inverse(
                    "ETH",
                    dated_futures=True,
                    perpetual=True,
                    future_tick=0.05,
                    future_contract=1.0,
                    density=0.85,
                    **_ETH,
                ),
                _linear(
                    "SOL",
                    "USDC",
                    0.01,
                    contract_size=10.0,
                    lot=1.0,
                    perpetual=True,
                    future_tick=0.01,
                    future_contract=0.1,
                    density=0.6,
                    **_SOL,
                ),
                _linear(
                    "XRP",
                    "USDC",
                    0.0005,
                    contract_size=1000.0,
                    lot=100.0,
                    perpetual=True,
                    future_tick=0.0001,
                    future_contract=10.0,
                    density=0.6,
                    **_XRP,
                ),
            ),
            latency_ms=2.0,
            jitter_ms=0.5,
            typical_lots={"BTC": 8.0, "ETH": 60.0, "SOL": 300.0, "XRP": 20_000.0},
        ),
        VenueProfile(
            "okx",
            (
                _inverse("BTC", contract_size=0.01, lot=0.01, density=0.85),
                _inverse("ETH", contract_size=0.1, lot=0.1, density=0.75, **_ETH),
                _linear("BTC", "USD", 1.0, tick_steps=((5.0, 5.0),), contract_size=0.01, lot=0.01, density=0.6),
                _linear("ETH", "USD", 0.1, tick_steps=((5.0, 0.5),), contract_size=0.01, lot=0.01, density=0.6, **_ETH),
                _linear("SOL", "USD", 0.01, contract_size=0.1, lot=0.1, density=0.55, **_SOL),
            ),
            expiries=ExpiryRules(dailies=4, weeklies=3, monthlies=2, quarterlies=3),
            rules=QuoteRules(half_spread_vol=0.0042, empty_wing=0.40, requote_share=0.15),
            latency_ms=12.0,
            jitter_ms=4.0,
            levels=10,
            typical_lots={"BTC": 3.0, "ETH": 30.0, "SOL": 200.0},
        ),
        VenueProfile(
            "bybit",
            (
                _linear("BTC", "USDT", 5.0, lot=0.01, density=0.8),
                _linear("ETH", "USDT", 0.1, lot=0.1, density=0.75, **_ETH),
                _linear("SOL", "USDT", 0.01, lot=1.0, density=0.55, **_SOL),
                _linear("XRP", "USDT", 0.0001, lot=10.0, density=0.55, **_XRP),
                _linear("BTC", "USDC", 5.0, lot=0.01, density=0.5),
                _linear("ETH", "USDC", 0.1, lot=0.1, density=0.5, **_ETH),
                _linear("SOL", "USDC", 0.01, lot=1.0, density=0.5, **_SOL),
            ),
            expiries=ExpiryRules(dailies=3, weeklies=3, monthlies=3, quarterlies=3),
            rules=QuoteRules(half_spread_vol=0.0036, empty_wing=0.35),
            latency_ms=8.0,
            jitter_ms=3.0,
            levels=25,
            typical_lots={"BTC": 4.0, "ETH": 40.0, "SOL": 250.0, "XRP": 10_000.0},
        ),
        VenueProfile(
            "binance",
            (
                _linear("BTC", "USDT", 5.0, lot=0.01, density=0.7),
                _linear("ETH", "USDT", 0.2, lot=0.01, density=0.65, **_ETH),
                _linear("SOL", "USDT", 0.01, lot=0.1, density=0.5, **_SOL),
                # Prices are per contract of 100 coins at a tick of 0.01.
                _linear("XRP", "USDT", 0.0001, contract_size=100.0, lot=1.0, density=0.5, **_XRP),
            ),
            expiries=ExpiryRules(dailies=3, weeklies=2, monthlies=2, quarterlies=2),
            rules=QuoteRules(half_spread_vol=0.0055, empty_wing=0.45, requote_share=0.10, stale_share=0.01),
            latency_ms=20.0,
            jitter_ms=8.0,
            levels=20,
            typical_lots={"BTC": 2.0, "ETH": 20.0, "SOL": 150.0, "XRP": 5_000.0},
        ),
    )
}
"""Ticks and lots are those of the captured listings where there is one, and plausible ones elsewhere."""
