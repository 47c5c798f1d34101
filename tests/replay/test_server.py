"""A recording served in the venue's own protocol, to our own venues as its clients."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from tests.replay.sessions import SECOND, START, Session
from volsurf.errors import InputError
from volsurf.feeds.protocol import Health, HealthEvent
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.replay._hand import HandConnection
from volsurf.replay.replay import replay
from volsurf.replay.server import ReplayExchange, ReplayServer, served_venues

VENUES = ("deribit", "okx", "bybit", "binance")
NOW = START + 3600 * SECOND
"""An hour after it was recorded."""


class Client:
    """A feed of ours on a served recording, under a clock moved by hand."""

    def __init__(self, exchange: ReplayExchange, venue: str, **options: bool) -> None:
        self.exchange = exchange
        venues = make_venues(venue, ["BTC"], url=f"ws://127.0.0.1:1{exchange.path}", **options)
        self.feed = VenueFeed(venues, clock=lambda: NOW)
        self.connections = [HandConnection(v, n, exchange, None) for n, v in enumerate(venues)]
        self.now = NOW
        self.events: list[object] = []

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds * 100)):
            self.now += SECOND // 100
            self.exchange.advance(self.now)
            for connection in self.connections:
                connection.step(self.now)
        self.events += self.feed.collect(self.now)[1]

    @property
    def quoted(self) -> dict[str, tuple[float, float]]:
        """Bid and ask by symbol."""
        board = self.feed.board
        return {
            instrument.symbol: (float(board.bid[i]), float(board.ask[i]))
            for i, instrument in enumerate(self.feed.universe)
            if np.isfinite(board.bid[i]) or np.isfinite(board.ask[i])
        }


def served(session: Session, venue: str, **options: object) -> ReplayExchange:
    """One venue of a session."""
    name = next(name for name, stream in session.capture.feeds.items() if stream.venue == venue)
    return ReplayExchange(session.capture, name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("venue", VENUES)
def test_any_venue_is_whole_again(four: Session, venue: str) -> None:
    client = Client(served(four, venue), venue)
    client.run(4.0)
    assert client.feed.is_ready, client.feed.trouble
    assert client.exchange.is_over
    options = client.feed.universe.options("BTC")
    assert len(client.quoted) > 0.6 * len(options) > 100
    assert client.exchange.counters["pages_unknown"] == 0
    bad = [e for e in client.events if isinstance(e, HealthEvent) and e.kind in (Health.REFUSED, Health.MALFORMED)]
    assert not bad


@pytest.mark.parametrize("venue", VENUES)
def test_what_the_client_sees_is_what_was_recorded(four: Session, venue: str) -> None:
    again, recorded = Client(served(four, venue), venue), {}
    again.run(4.0)
    played = replay(four.path, "1s", venues=venue)
    for _ in played:
        pass
    board = played.board  # type: ignore[union-attr]
    for i, instrument in enumerate(played.universe):  # type: ignore[union-attr]
        if np.isfinite(board.bid[i]) or np.isfinite(board.ask[i]):
            recorded[instrument.symbol] = float(board.bid[i]), float(board.ask[i])
    seen = again.quoted
    same = sum(repr(seen.get(symbol)) == repr(quote) for symbol, quote in recorded.items())
    assert same == len(recorded) > 50


def test_speed(calm: Session) -> None:
    slow, fast = (Client(served(calm, "deribit", speed=speed), "deribit") for speed in (0.5, 4.0))
    for client in (slow, fast):
        client.run(1.2)
    assert fast.exchange.is_over
    assert not slow.exchange.is_over
    assert 0 < slow.exchange.counters["replayed"] < fast.exchange.counters["replayed"]


def test_restamped_times_are_now(calm: Session) -> None:
    plain, moved = (Client(served(calm, "deribit", restamp=restamp), "deribit") for restamp in (False, True))
    for client in (plain, moved):
        client.run(1.0)
        times = client.feed.board.venue_time_ns
        times = times[times > 0]
        assert len(times) > 100
        late = (client.now - times).max() / SECOND
        assert late < 2.5 if client is moved else late > 3_500
    # Only times are moved: expiries and change ids have as many digits.
    assert plain.feed.universe.expiry_ns.tolist() == moved.feed.universe.expiry_ns.tolist()


def test_a_late_client_is_told_where_things_stand(eventful: Session) -> None:
    exchange = served(eventful, "deribit")
    first = Client(exchange, "deribit", books=True)
    first.run(1.1)
    second = Client(exchange, "deribit", books=True)
    second.now = first.now
    second.run(0.3)
    assert second.feed.is_ready
    assert len(second.quoted) > 0.9 * len(first.quoted) > 100
    assert not [e for e in second.events if isinstance(e, HealthEvent) and e.kind is Health.GAP]


def test_beginning_later(calm: Session) -> None:
    client = Client(served(calm, "deribit", start_ns=START + 2 * SECOND), "deribit")
    client.run(0.3)
    assert client.feed.is_ready
    assert len(client.quoted) > 100, "what lies before the beginning is where the channels stand"


def test_loop(calm: Session) -> None:
    client = Client(served(calm, "deribit", loop=True, speed=4.0), "deribit")
    client.run(2.0)
    assert client.exchange.counters["loops"] >= 2
    assert not client.exchange.is_over


def test_heartbeats_are_asked_for_and_answered(calm: Session) -> None:
    client = Client(served(calm, "deribit"), "deribit")
    client.run(1.0)
    for _ in range(7):
        client.now += 5 * SECOND
        client.run(0.02)
    assert client.feed.counters.get("heartbeats_answered", 0) >= 1


def test_what_is_not_in_the_recording_is_refused(calm: Session) -> None:
    session = served(calm, "deribit").open_session(NOW)
    for request in (
        {"id": 1, "method": "public/subscribe", "params": {"channels": ["ticker.BTC-1JAN30-1-C.100ms"]}},
        {"id": 2, "method": "private/buy"},
        {"id": 3, "method": "public/get_instruments", "params": {"currency": "DOGE", "kind": "option"}},
    ):
        session.receive(json.dumps(request), NOW)
    session.receive(b"{", NOW)
    answers = [json.loads(payload) for payload in session.data_to_send()]
    assert answers[0]["result"] == []
    assert answers[1]["error"]["code"] == -32601
    assert answers[2]["result"] == []
    assert answers[3]["error"]["code"] == -32600


def test_over_a_socket(four: Session) -> None:
    async def client() -> int:
        async with ReplayServer(four.path, venue="okx", speed=2.0, restamp=True) as server:
            feed = VenueFeed(make_venues("okx", ["BTC"], url=server.url))
            stop = asyncio.Event()
            running = asyncio.ensure_future(feed.connect(stop))
            try:
                async with asyncio.timeout(20):
                    while not (feed.is_ready and np.isfinite(feed.board.bid).sum() > 100):
                        feed.collect()
                        await asyncio.sleep(0.02)
            finally:
                stop.set()
                await running
            return int(np.isfinite(feed.board.bid).sum())

    assert asyncio.run(client()) > 100


def test_one_venue_has_to_be_named(four: Session, calm: Session) -> None:
    assert served_venues(four.capture) == list(VENUES)
    with pytest.raises(InputError, match="name one venue to serve of those in the capture"):
        ReplayServer(four.path)
    with pytest.raises(InputError, match="was 'okx'"):
        ReplayServer(calm.path, venue="okx")
    with pytest.raises(InputError, match="speed of a server must be positive"):
        ReplayServer(calm.path, speed=0.0)
