"""A simulated Binance under hand: no socket, no clock, one client."""

from __future__ import annotations

import json
from typing import Any

from tests.sim.venue import START, TICK
from volsurf.sim.binance import BinanceExchange, BinanceSession
from volsurf.sim.market import Market

Message = dict[str, Any]


class Client:
    """One session of an exchange, and a real clock that only the test moves."""

    def __init__(self, exchange: BinanceExchange, path: str = "/market/stream", now: int = 0) -> None:
        self.exchange = exchange
        self.now = now
        self.session: BinanceSession = exchange.open_session(now, path)
        self._id = 0

    def say(self, text: str | bytes) -> list[Message]:
        """Send one message as it stands; what comes back at once."""
        self.session.receive(text, self.now)
        return self.read()

    def ask(self, method: str, *params: Any) -> Message:
        """The reply to a request."""
        self._id += 1
        (reply,) = self.say(json.dumps({"method": method, "params": list(params), "id": self._id}))
        assert reply["id"] == self._id
        return reply

    def read(self) -> list[Any]:
        """What was queued for this client."""
        return [json.loads(payload) for payload in self.session.data_to_send()]

    def run(self, ticks: int) -> list[Any]:
        """Let the exchange run, and everything it said meanwhile."""
        said = []
        for _ in range(ticks):
            self.now += TICK
            self.exchange.advance(self.now)
            self.session.timer(self.now)
            said += self.read()
        return said


def exchange(
    underlyings: tuple[str, ...] = ("BTC",), *, seed: int = 1, start: int = START, **options: Any
) -> BinanceExchange:
    """A new exchange whose real clock stands at 0."""
    return BinanceExchange(Market(seed, underlyings, start_ns=start), origin_ns=0, **options)


def of(messages: list[Message], stream: str) -> list[Any]:
    """Payloads of the streams whose name ends so."""
    return [message["data"] for message in messages if message.get("stream", "").endswith(stream)]


def page(exchange: BinanceExchange, target: str, now: int = 0) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of a REST page."""
    path, _, query = target.partition("?")
    answer = exchange.http(path, dict(part.split("=") for part in query.split("&") if part), now)
    assert answer is not None
    return answer[0], json.loads(answer[1]), dict(answer[2]) if len(answer) == 3 else {}
