"""A simulated Deribit under hand: no socket, no clock, one client."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from volsurf.sim.deribit import DeribitExchange, DeribitSession
from volsurf.sim.listing import to_ns
from volsurf.sim.market import Market
from volsurf.sim.quoting import QuoteRules

SECOND = 1_000_000_000
TICK = SECOND // 10
START = to_ns(datetime(2026, 11, 24, 12, tzinfo=UTC))
JUST_BEFORE_EIGHT = to_ns(datetime(2026, 11, 27, 7, 59, 59, tzinfo=UTC))
"""A last Friday of a month."""

Message = dict[str, Any]


class Client:
    """One session of an exchange, and a real clock that only the test moves."""

    def __init__(self, exchange: DeribitExchange, now: int = 0, probe_seconds: float | None = None) -> None:
        self.exchange = exchange
        self.now = now
        self.session: DeribitSession = (
            exchange.open_session(now) if probe_seconds is None else DeribitSession(exchange, now, probe_seconds)
        )
        self._id = 0

    def say(self, text: str | bytes) -> list[Message]:
        """Send one message as it stands; what comes back at once."""
        self.session.receive(text, self.now)
        return self.read()

    def ask(self, method: str, **params: Any) -> Message:
        """The reply to a request; what is pushed after it is kept in `pushed`."""
        self._id += 1
        reply, *self.pushed = self.say(
            json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        )
        assert reply["id"] == self._id
        return reply

    def subscribe(self, *channels: str) -> list[Message]:
        """Subscribe, and what the channels say at once."""
        assert self.ask("public/subscribe", channels=list(channels))["result"] == list(channels)
        return self.pushed

    def read(self) -> list[Message]:
        """What was queued for this client."""
        return [json.loads(payload) for payload in self.session.data_to_send()]

    def run(self, ticks: int) -> list[Message]:
        """Let the exchange run, and everything it said meanwhile."""
        said = []
        for _ in range(ticks):
            self.now += TICK
            self.exchange.advance(self.now)
            self.session.timer(self.now)
            said += self.read()
        return said


def exchange(
    underlyings: tuple[str, ...] = ("BTC",), *, seed: int = 1, start: int = START, truth: str = "svi", **options: Any
) -> DeribitExchange:
    """A new exchange whose real clock stands at 0."""
    rules = options.pop("rules", None) or QuoteRules()
    market = Market(seed, underlyings, start_ns=start, truth=truth)
    return DeribitExchange(market, origin_ns=0, rules=rules, **options)


def of_channel(messages: list[Message], start: str) -> list[Message]:
    """The data of the notifications of channels that start with a name."""
    return [
        m["params"]["data"]
        for m in messages
        if m.get("method") == "subscription" and m["params"]["channel"].startswith(start)
    ]
