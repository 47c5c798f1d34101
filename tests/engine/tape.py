"""A small log of a moving market, made without sockets: what the core's tests apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from volsurf.engine.log import Entry, FeedHealth, FeedStarted, FeedState, InstrumentsAdded, Tick
from volsurf.instruments import Instrument, Kind, Settlement
from volsurf.iv.black import black_price
from volsurf.quotes import Field, QuoteBatch

SECOND = 1_000_000_000
DAY_NS = 86_400 * SECOND
START_NS = 1_795_593_600 * SECOND  # 2026-11-25 08:00 UTC
SPOT = {"BTC": 92_400.0, "ETH": 3_120.0, "SOL": 141.0}
DAYS = (1.0, 2.0, 9.0, 30.0, 121.0)


@dataclass
class Market:
    """Options of some underlyings, ids in the order of `instruments`, priced from a raw SVI slice per expiry.

    `level` scales the vols of an underlying and `spot` moves its forwards; both may be changed between batches.
    """

    underlyings: Sequence[str] = ("BTC", "ETH")
    days: Sequence[float] = DAYS
    strikes: int = 21
    start_ns: int = START_NS
    feed: int = 0
    name: str = "venue"

    def __post_init__(self) -> None:
        self.spot = {u: SPOT[u] for u in self.underlyings}
        self.level = dict.fromkeys(self.underlyings, 0.5)
        self.number = 0
        self.messages = 0
        self.instruments = [i for u in self.underlyings for day in self.days for i in self._expiry(u, day)]
        self.ids = tuple(range(len(self.instruments)))

    def _expiry(self, underlying: str, day: float) -> list[Instrument]:
        expiry_ns = self.start_ns + int(day * DAY_NS)
        width = 0.5 * np.sqrt(day / 365)
        spot = SPOT[underlying]
        grid = spot * np.exp(width * np.linspace(-2.5, 2.5, self.strikes))
        return [
            Instrument(
                venue=self.name,
                symbol=f"{underlying}-{day:g}-{strike:.2f}-{'C' if is_call else 'P'}",
                kind=Kind.OPTION,
                underlying=underlying,
                settlement=Settlement.INVERSE,
                expiry_ns=expiry_ns,
                strike=round(float(strike), 2),
                is_call=is_call,
                tick_size=0.0001,
            )
            for strike in grid
            for is_call in (False, True)
        ]

    def beginning(self, now_ns: int | None = None, state: FeedState = FeedState.READY) -> list[Entry]:
        """The feed starts, lists everything, is whole and quotes everything."""
        now = self.start_ns if now_ns is None else now_ns
        return [
            FeedStarted(feed=self.feed, name=self.name),
            InstrumentsAdded(feed=self.feed, ids=self.ids, instruments=tuple(self.instruments)),
            self.health(now, state),
            self.batch(now),
        ]

    def health(self, now_ns: int, state: FeedState = FeedState.READY) -> FeedHealth:
        """How the feed is."""
        return FeedHealth(
            feed=self.feed,
            name=self.name,
            time_ns=now_ns,
            state=state,
            connections=1,
            connected=int(state is FeedState.READY),
            last_message_ns=now_ns,
            messages=self.messages,
        )

    def batch(
        self, now_ns: int, underlyings: Sequence[str] | None = None, ids: Sequence[int] | None = None
    ) -> QuoteBatch:
        """Quotes of everything, of some underlyings, or of some ids."""
        if ids is None:
            wanted = self.underlyings if underlyings is None else underlyings
            ids = [i for i, instrument in enumerate(self.instruments) if instrument.underlying in wanted]
        chosen = [self.instruments[i] for i in ids]
        strike = np.array([i.strike for i in chosen])
        is_call = np.array([i.is_call for i in chosen])
        forward = np.array([self.spot[i.underlying] for i in chosen])
        years = np.maximum(np.array([i.expiry_ns - now_ns for i in chosen]) / (365 * DAY_NS), 1e-9)
        level = np.array([self.level[i.underlying] for i in chosen])
        y = np.log(strike / forward) / (level * np.sqrt(years))
        vol = level * np.sqrt(0.55 + 0.45 * np.sqrt(1 + 0.12 * (y - 0.3) ** 2) - 0.03 * y)
        half = vol * (0.004 + 0.004 * y * y)
        prices = [
            np.round(black_price(forward, strike, years, v, is_call) / forward, 6) for v in (vol - half, vol + half)
        ]
        self.number += 1
        self.messages += len(chosen)
        return QuoteBatch(
            np.array(ids, np.int32),
            int(Field.QUOTE | Field.FORWARD | Field.INDEX),
            feed=self.feed,
            number=self.number,
            time_ns=now_ns,
            bid=np.where(prices[0] > 0, prices[0], np.nan),
            ask=prices[1],
            bid_size=1.0,
            ask_size=1.0,
            forward=forward,
            index=forward,
            venue_time_ns=now_ns,
            receive_time_ns=now_ns,
        )


def moving_log(market: Market, frames: int = 12, seed: int = 5) -> list[Entry]:
    """A log in which spots and levels wander, some frames bring a few quotes, some none, some everything."""
    rng = np.random.default_rng(seed)
    log: list[Entry] = list(market.beginning())
    now = market.start_ns
    for number in range(frames):
        now += SECOND // 10
        for underlying in market.underlyings:
            market.spot[underlying] *= float(np.exp(3e-4 * rng.standard_normal()))
            market.level[underlying] *= float(np.exp(2e-3 * rng.standard_normal()))
        if number % 4 == 1:
            log.append(market.batch(now))
        elif number % 4 != 3:
            log.append(market.batch(now, ids=sorted(rng.choice(len(market.ids), 9, replace=False).tolist())))
        log += [market.health(now), Tick(now)]
    return log
