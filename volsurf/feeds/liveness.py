"""How fresh a feed's news is: delays by kind of news, the clock's disagreement with the venue's, silences, ages of quotes.

Fed once a tick with the batch that goes to the core, so it costs per tick and not per message, and read four times a second. It
changes nothing of what it sees.

The skew is our clock less the venue's plus the shortest way here, which no single message separates: of the least delay of every
second of the last minute the one a tenth of the way up, since the least of all would be whatever absurd stamp came once. A delay
less the skew is what a message took longer than it must.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from volsurf.engine.log import ChannelLiveness, Liveness
from volsurf.feeds.protocol import BookEvent, Event, Health, HealthEvent
from volsurf.instruments import FloatArray, IntArray
from volsurf.quotes import Field, QuoteBatch, QuoteBoard

SECOND = 1_000_000_000
WINDOW_NS = 10 * SECOND
"""Over which delays are told."""
SKEW_SECONDS = 60
_FIRST_SKEW = 3
"""Seconds of delays from which on there is a skew."""
_STEP_NS = 2 * SECOND
"""A gap between two ticks this long is a clock that was set or a suspended process: what was seen before says nothing."""
_SAMPLES = 2048
"""Delays kept of each kind of news, the newest."""
_MOST_CHANNELS = 16
_KINDS = (
    (Field.QUOTE, "quotes"),
    (Field.MARK, "marks"),
    (Field.FORWARD, "forwards"),
    (Field.INDEX, "indexes"),
    (Field.LAST, "trades"),
)
_VITAL = ("quote", "ticker", "connection")
"""What the names of those channels say without which there are no live quotes."""


class LivenessMeter:
    """Watches the batches and events of one feed; all times are ns UTC and come from the caller.

    Args:
        board: the feed's last values, for the ages of its quotes.
    """

    def __init__(self, board: QuoteBoard) -> None:
        self._board = board
        self._delays = {name: _Delays() for _, name in _KINDS}
        self._heard: dict[str, int] = {}
        self._least: deque[tuple[int, int]] = deque(maxlen=SKEW_SECONDS)
        """Second and least delay in it."""
        self._now = 0
        self._gaps = self._resyncs = 0
        self._with_book: set[int] = set()

    def hear(self, now: int, batch: QuoteBatch | None, events: Sequence[Event]) -> None:
        """Take what one tick brought, as `VenueFeed.collect(now)` returned it."""
        if not 0 <= now - self._now < _STEP_NS:
            self._forget()
        self._now = now
        for event in events:
            if isinstance(event, BookEvent):
                if event.is_snapshot:
                    self._resyncs += event.instrument_id in self._with_book
                    self._with_book.add(event.instrument_id)
            elif isinstance(event, HealthEvent):
                self._gaps += event.kind is Health.GAP
        if batch is None or not len(batch):
            return
        stamped = batch.venue_time_ns > 0
        delay = batch.receive_time_ns - batch.venue_time_ns
        fields = batch.fields
        all_of, any_of = int(np.bitwise_and.reduce(fields)), int(np.bitwise_or.reduce(fields))
        for group, name in _KINDS:
            if any_of & group:
                self._heard[name] = now
                mine = stamped if all_of & group else stamped & ((fields & group) != 0)
                self._delays[name].add(now, delay[mine])
        if stamped.any():
            self._note_least(now // SECOND, int(delay[stamped].min()))

    @property
    def skew_ns(self) -> int | None:
        """Our clock less the venue's, the shortest way here included; None for the first three seconds."""
        if len(self._least) < _FIRST_SKEW:
            return None
        ordered = sorted(least for _, least in self._least)
        return ordered[max(1, len(ordered) // 10)]

    def read(self, now: int, silences: Iterable[Mapping[str, tuple[int, int]]] = (), *, takeovers: int = 0) -> Liveness:
        """The figures now.

        Args:
            silences: of each connection, what its protocol waits for, as `Venue.silences`.
        """
        skew = self.skew_ns
        quotes = self._delays["quotes"].figures(now)
        age, crossed = self._ages(now, skew)
        return Liveness(
            skew_ns=skew,
            lag_median_ms=quotes[0],
            lag_p95_ms=quotes[1],
            quote_age_median_ms=age[0],
            quote_age_p95_ms=age[1],
            channels=self._channels(now, silences),
            gaps=self._gaps,
            resyncs=self._resyncs,
            takeovers=takeovers,
            crossed=crossed,
        )

    def _channels(self, now: int, silences: Iterable[Mapping[str, tuple[int, int]]]) -> tuple[ChannelLiveness, ...]:
        awaited: dict[str, tuple[int, int]] = {}
        for connection in silences:
            for name, (silent, limit) in connection.items():
                # Of several connections the one that is nearest to its limit, or furthest beyond.
                if name not in awaited or silent - limit > awaited[name][0] - awaited[name][1]:
                    awaited[name] = silent, limit
        made = []
        for _, name in _KINDS:
            if name in self._heard or name in awaited:
                unmeasured: tuple[int, int | None] = (now - self._heard.get(name, now), None)
                made.append(_channel(name, *awaited.pop(name, unmeasured), *self._delays[name].figures(now)))
        worst = sorted(awaited, key=lambda name: (awaited[name][1] - awaited[name][0], name))
        made += [_channel(name, *awaited[name]) for name in worst[: _MOST_CHANNELS - len(made)]]
        return tuple(made)

    def _ages(self, now: int, skew: int | None) -> tuple[tuple[float | None, float | None], int]:
        board = self._board
        bid, ask = board.bid, board.ask
        quoted = np.flatnonzero((np.isfinite(bid) | np.isfinite(ask)) & board.universe.active)
        heard, stamp = board.receive_time_ns[quoted], board.venue_time_ns[quoted]
        if skew is not None:
            heard = np.where(stamp > 0, np.minimum(stamp + skew, heard), heard)
        crossed = int(np.count_nonzero(bid[quoted] > ask[quoted]))
        return _quantiles(np.maximum(now - heard, 0)), crossed

    def _note_least(self, second: int, least: int) -> None:
        if self._least and self._least[-1][0] == second:
            least = min(least, self._least.pop()[1])
        self._least.append((second, least))

    def _forget(self) -> None:
        self._least.clear()
        for delays in self._delays.values():
            delays.clear()


class _Delays:
    """The newest delays of one kind of news."""

    def __init__(self) -> None:
        self._delay: IntArray = np.zeros(_SAMPLES, np.int64)
        self._at: IntArray = np.zeros(_SAMPLES, np.int64)
        self._next = 0

    def add(self, now: int, delay: IntArray) -> None:
        """Of one tick."""
        delay = delay[-_SAMPLES:]
        place = (self._next + np.arange(len(delay))) % _SAMPLES
        self._delay[place], self._at[place] = delay, now
        self._next = (self._next + len(delay)) % _SAMPLES

    def figures(self, now: int) -> tuple[float | None, float | None]:
        """Median and 95th percentile in milliseconds, over `WINDOW_NS`."""
        return _quantiles(self._delay[self._at > now - WINDOW_NS])

    def clear(self) -> None:
        self._at[:] = 0


def _channel(
    name: str, silent: int, limit: int | None, median: float | None = None, p95: float | None = None
) -> ChannelLiveness:
    return ChannelLiveness(
        name=name,
        silent_ms=_ms(silent),
        limit_ms=None if limit is None else _ms(limit),
        lag_median_ms=median,
        lag_p95_ms=p95,
        is_vital=any(word in name for word in _VITAL),
    )


def _quantiles(values: IntArray | FloatArray) -> tuple[float | None, float | None]:
    if not len(values):
        return None, None
    median, high = np.partition(values, (len(values) // 2, last := int(0.95 * (len(values) - 1))))[
        [len(values) // 2, last]
    ]
    return _ms(median), _ms(high)


def _ms(ns: Any) -> float:
    return round(float(ns) / 1e6, 2)
