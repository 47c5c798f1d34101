"""What a tap hears is everything a venue was told, in order: the same calls on the same venues give the same batches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.feeds.loopback import TIMEOUT, eventually, websocket_server
from tests.feeds.scripted import NAMES, Scripted, quote
from tests.feeds.test_http import answer, fixed, http_server
from volsurf.feeds.connection import Handle
from volsurf.feeds.protocol import HttpRequest
from volsurf.feeds.tap import Tap
from volsurf.feeds.venue_feed import VenueFeed


class Tape:
    """Keeps every call of a tap, by name."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))

    def names(self, connection: int | None = None) -> list[str]:
        """What was told, of one connection if named."""
        return [
            name for name, *rest in self.calls if connection is None or (name != "collected" and rest[0] == connection)
        ]


def soon(delay: float, callback: Callable[[], None]) -> Handle:
    """The loop's timer, in a twentieth of the time."""
    return asyncio.get_running_loop().call_later(delay / 20, callback)


def replay(tape: Tape, feed: VenueFeed) -> list[tuple[Any, ...]]:
    """Do to a feed without sockets what the tape says; returns what its own tape says of the collections."""
    for name, *rest in tape.calls:
        if name == "collected":
            feed.collect(rest[0])
            continue
        venue = feed.venue(rest[0])
        if name in ("opened", "sent", "http_request", "twinned", "taken_over"):
            continue
        assert venue is not None, (name, rest)
        if name in ("connected", "timer"):
            getattr(venue, name)(rest[1])
        elif name == "received":
            venue.receive(rest[2], rest[1])
        elif name == "http_answer":
            venue.receive_http(*rest[2:], rest[1])
        elif name == "disconnected":
            venue.disconnected(rest[1], rest[2])
        venue.data_to_send()
        venue.http_requests()
    return [call for call in feed._tap.calls if call[0] in ("collected", "twinned", "taken_over")]  # type: ignore[union-attr]


class Exchange:
    """Quotes at random to whoever connects; every socket hears the same."""

    def __init__(self) -> None:
        self.sockets: list[ServerConnection] = []
        self.rng = random.Random(3)
        self.count = 0

    async def __call__(self, connection: ServerConnection) -> None:
        self.sockets.append(connection)
        await connection.wait_closed()
        self.sockets.remove(connection)

    async def speak(self, times: int = 1) -> None:
        for _ in range(times):
            self.count += 1
            name, bid = self.rng.choice(NAMES), self.rng.choice([None, 1.0 + self.count])
            for connection in list(self.sockets):
                with contextlib.suppress(ConnectionClosed):
                    await connection.send(quote(name, bid, 5000.0, self.count))
            await asyncio.sleep(0)


async def test_a_feed_with_http_a_takeover_and_a_cut_is_played_back_to_the_byte() -> None:
    tape: Any = Tape()
    tap: Tap = tape
    exchange = Exchange()
    bids: list[float] = []
    async with http_server(fixed(answer(b"[]"))) as pages, websocket_server(exchange) as url:
        feed = VenueFeed(
            [Scripted(url=url, ask=pages), Scripted(("X",), url=url)], tap=tap, seed=1, proxy=None, call_later=soon
        )
        stop = asyncio.Event()
        task = asyncio.ensure_future(feed.connect(stop))

        async def until(condition: Any) -> None:
            async with asyncio.timeout(TIMEOUT):
                while not condition():
                    await exchange.speak(3)
                    feed.collect()
                    if (row := feed.universe.find("scripted", "A")) is not None:
                        bids.append(float(feed.board.bid[row]))
                    await asyncio.sleep(0.001)

        await until(lambda: feed.is_ready and feed.batches > 3)
        before = len(exchange.sockets)
        for connection in list(exchange.sockets):
            await connection.send(json.dumps({"notice": "service upgrade"}))
        await until(lambda: feed.takeovers == 2)
        await until(lambda: len(exchange.sockets) == before)
        assert feed.numbers != [0, 1]
        assert sorted(feed.numbers) == [2, 3]
        assert feed.stats.opened == 4
        assert feed.stats.messages > 0
        for connection in list(exchange.sockets):
            await connection.close()
        await until(lambda: not feed.is_ready)
        await until(lambda: feed.is_ready)
        stop.set()
        await task
        feed.collect()
    names = tape.names()
    assert names.count("taken_over") == names.count("twinned") == 2
    assert set(names) >= {
        "opened",
        "connected",
        "received",
        "sent",
        "http_request",
        "http_answer",
        "timer",
        "disconnected",
    }
    for number in range(4):
        told = [name for name in tape.names(number) if name in ("opened", "connected", "disconnected")]
        sockets = 1 if number < 2 else 2
        assert told == ["opened", "connected", "disconnected"] * sockets
    assert tape.names(0).index("http_request") < tape.names(0).index("http_answer")

    again: Any = Tape()
    played = VenueFeed([Scripted(ask="http://x/"), Scripted(("X",))], tap=again)
    collections = [call for call in tape.calls if call[0] in ("collected", "twinned", "taken_over")]
    assert replay(tape, played) == collections
    assert sum(number > 0 for name, _, number, *_ in collections if name == "collected") > 10
    assert played.counters == feed.counters


async def test_each_call_is_told_with_the_time_it_was_made_with() -> None:
    told: list[tuple[str, int]] = []

    class Witness(Scripted):
        def connected(self, now: int) -> None:
            told.append(("connected", now))
            super().connected(now)

        def receive(self, data: bytes | str, now: int) -> None:
            told.append(("received", now))
            super().receive(data, now)

        def timer(self, now: int) -> None:
            told.append(("timer", now))
            super().timer(now)

        def receive_http(self, key: str, status: int, body: bytes, now: int) -> None:
            told.append(("http_answer", now))
            super().receive_http(key, status, body, now)

        def disconnected(self, now: int, reason: str) -> None:
            told.append(("disconnected", now))
            super().disconnected(now, reason)

    tape: Any = Tape()
    exchange = Exchange()
    async with http_server(fixed(answer(b"[]"))) as pages, websocket_server(exchange) as url:
        venue = Witness(url=url, ask=pages)
        feed = VenueFeed([venue], tap=tape, proxy=None, call_later=soon)
        stop = asyncio.Event()
        task = asyncio.ensure_future(feed.connect(stop))
        await eventually(lambda: venue.is_ready)
        await exchange.speak(10)
        await eventually(lambda: venue.counters["messages"] == 10)
        await exchange.sockets[0].close()
        await eventually(lambda: feed.stats.opened == 2 and venue.is_ready and "timer" in tape.names())
        stop.set()
        await task
    calls = {"connected", "received", "timer", "http_answer", "disconnected"}
    assert [(name, rest[1]) for name, *rest in tape.calls if name in calls] == told
    assert {name for name, _ in told} >= calls
    requests = [rest[2] for name, *rest in tape.calls if name == "http_request"]
    assert all(isinstance(request, HttpRequest) for request in requests)
    assert [rest[2] for name, *rest in tape.calls if name == "sent"] == [b'{"subscribe":"all"}'] * 2
    assert [rest[2] for name, *rest in tape.calls if name == "opened"] == [url] * 2
