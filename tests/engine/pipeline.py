"""The whole way from the simulated Deribit to a frame, without sockets or processes, under a clock moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import numpy as np

from volsurf.engine.core import Core
from volsurf.engine.frame import Frame
from volsurf.engine.log import Entry, FeedHealth, FeedState, Tick
from volsurf.engine.outbox import Outbox
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import Event, HealthEvent
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.quotes import QuoteBatch
from volsurf.sim.deribit import DeribitExchange
from volsurf.sim.listing import to_ns
from volsurf.sim.market import Market
from volsurf.surface.surface import Surface

SECOND = 1_000_000_000
NOON = to_ns(datetime(2026, 11, 24, 12, tzinfo=UTC))

Mangle = Callable[[bytes], Iterable[bytes]]


def unchanged(message: bytes) -> Iterable[bytes]:
    """What the exchange said."""
    return (message,)


class _Recorder:
    """A feed whose events a test can read, after the outbox took them."""

    def __init__(self, feed: VenueFeed) -> None:
        self._feed = feed
        self.universe = feed.universe
        self.events: list[Event] = []

    def collect(self, now: int) -> tuple[QuoteBatch | None, list[Event]]:
        batch, events = self._feed.collect(now)
        self.events += events
        return batch, events

    def snapshot(self, now: int) -> QuoteBatch:
        return self._feed.snapshot(now)


class Pipeline:
    """One exchange, one connection, one core.

    Attributes:
        step_ns: between two frames; under 5 s, which a feed takes for a suspension.
        mangle: what becomes of each message on its way; a test may change it at any time.
        log: everything the core was told, ticks included. frame: the last one.
    """

    def __init__(
        self, *underlyings: str, start_ns: int = NOON, step_ns: int = SECOND // 10, truth: str = "svi", seed: int = 7
    ) -> None:
        self.now = start_ns
        self.step_ns = step_ns
        self.mangle: Mangle = unchanged
        names = [name.removesuffix("_USDC") for name in underlyings]
        self.market = Market(seed, names, truth=truth, start_ns=start_ns, step_ns=step_ns)
        self.exchange = DeribitExchange(self.market, origin_ns=start_ns)
        self.venue = Deribit(underlyings, trades=False)
        self._feed = VenueFeed([self.venue], clock=lambda: self.now)
        self._recorder = _Recorder(self._feed)
        self.outbox = Outbox(self._recorder, 0, "deribit", self._health)
        self.outbox.begin()
        self.core = Core()
        self.log: list[Entry] = []
        self.frame: Frame
        self._heard = 0
        self._messages = 0
        self.connect()

    @property
    def health(self) -> list[HealthEvent]:
        """Health events so far."""
        return [event for event in self._recorder.events if isinstance(event, HealthEvent)]

    def connect(self) -> None:
        """A new socket opens."""
        self._session = self.exchange.open_session(self.now)
        self.venue.connected(self.now)

    def disconnect(self, reason: str) -> None:
        """The socket closes."""
        self._session.closed()
        self.venue.disconnected(self.now, reason)

    def run(self, seconds: float) -> Frame:
        """Let time pass, a frame every step; returns the last one."""
        for _ in range(max(1, round(seconds * SECOND / self.step_ns))):
            self._step()
        return self.frame

    def ready(self) -> Pipeline:
        """Itself, once there is a surface of everything."""
        self.run(1.0)
        assert self.venue.is_ready
        assert set(self.frame.surfaces) == set(self.market.underlyings)
        return self

    def forward_error(self, surface: Surface) -> float:
        """Largest relative distance of a forward from the truth."""
        truth = [float(self.market.truth_forward(surface.underlying, smile.expiry_ns)) for smile in surface.smiles]
        return max(abs(smile.forward / forward - 1.0) for smile, forward in zip(surface.smiles, truth, strict=True))

    def vol_errors(self, surface: Surface) -> dict[int, float]:
        """Per expiry: the worst distance of the fitted vol from the true one within a standard deviation, in vol points."""
        errors = {}
        for smile in surface.smiles:
            assert smile.fit is not None
            near = np.abs(smile.log_moneyness) < smile.atm_vol * np.sqrt(smile.years)
            strikes = np.unique(smile.strike[near])
            truth = self.market.truth_vol(surface.underlying, smile.expiry_ns, strikes)
            errors[smile.expiry_ns] = float(
                np.abs(smile.fitted_vol(np.log(strikes / smile.forward)) - truth).max(initial=0.0)
            )
        return errors

    def _step(self) -> None:
        self.now += self.step_ns
        self.exchange.advance(self.now)
        self._session.timer(self.now)
        # A request and its answer take no time here; the answer may make the venue ask for more.
        for _ in range(4):
            for message in self._session.data_to_send():
                for delivered in self.mangle(message):
                    self.venue.receive(delivered, self.now)
                    self._heard, self._messages = self.now, self._messages + 1
            self.venue.timer(self.now)
            for request in self.venue.data_to_send():
                self._session.receive(request, self.now)
        self.outbox.gather(self.now)
        for entry in (*self.outbox.take(self.now / SECOND, self.now), Tick(self.now)):
            self.log.append(entry)
            if isinstance(entry, Tick):
                self.frame = self.core.frame(entry.now_ns)
            else:
                self.core.apply(entry)

    def _health(self) -> FeedHealth:
        return FeedHealth(
            feed=0,
            name="deribit",
            time_ns=self.now,
            state=FeedState.READY if self.venue.is_ready else FeedState.SUBSCRIBING,
            connections=1,
            connected=1,
            last_message_ns=self._heard,
            messages=self._messages,
            detail=self.outbox.refused if self.venue.is_ready else self.outbox.detail,
            trouble=self._feed.trouble,
        )
