"""What differs between the venues as far as the card is concerned, and which of its cases do not apply to one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.feeds.conformance.world import SECOND, Alter
from volsurf.feeds.protocol import Venue
from volsurf.instruments import Kind

Sent = list[tuple[int, int, bytes]]
"""Connection, time, message."""


@dataclass(frozen=True)
class Facts:
    """One venue."""

    name: str
    family: str
    """A name of one family of options, and `BTC` is all of them."""
    quote: bytes
    """What the messages that carry quotes have in them."""
    steady: bytes
    """What the messages of a channel that must not fall silent have in them."""
    empties: Mapping[str, tuple[tuple[bytes, bytes], ...]]
    """By side: what in a message to replace with what to make "no quote" of it."""
    largest: Callable[[bytes], int]
    """Of a message sent: what the venue limits, as a number."""
    limit: int
    per_second: int
    """Messages and pages a client may send."""
    unknown: tuple[bytes, ...]
    """Messages of no kind the venue has announced; not one is to change a price."""
    lost_seconds: float
    """Silence of the steady channel after which the connection is given up, a minute at most."""
    half_open_seconds: float
    """Silence of everything after which it is."""
    kinds: frozenset[Kind] = frozenset({Kind.OPTION})
    """Listed besides indexes."""
    index_steps: float = 2e-4
    """How exactly an index is told, relative."""
    heartbeats: str = ""
    """Counter of the exchange for heartbeats of the client's that it took."""
    aged: Callable[[Venue], None] | None = None
    """Make a connection as old as the venue lets one get."""
    options: Mapping[str, Any] = field(default_factory=dict)


def _args_bytes(message: bytes) -> int:
    return 0 if message == b"ping" else len(json.dumps(json.loads(message)["args"], separators=(",", ":")))


def _count(key: str) -> Callable[[bytes], int]:
    def count(message: bytes) -> int:
        found = json.loads(message).get(key) or []
        return len(found.get("channels", ()) if isinstance(found, dict) else found)

    return count


def _a_day_old(venue: Venue) -> None:
    opened, elapsed = venue._opened  # type: ignore[attr-defined]
    venue._opened = (opened - 24 * 3600 * SECOND, elapsed)  # type: ignore[attr-defined]


FACTS = {
    "deribit": Facts(
        name="deribit",
        family="BTC",
        quote=b'"channel":"ticker.',
        steady=b'"channel":"deribit_price_index.',
        empties={
            side: tuple((rb'"best_%s_price":[^,}]+' % side.encode(), b'"best_%s_price":%s' % (side.encode(), nothing))
                        for nothing in (b"0.0", b"0", b"null"))
            for side in ("bid", "ask")
        },
        largest=_count("params"),
        limit=500,
        per_second=20,
        unknown=(b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.NOWHERE-1JAN30-1-C.100ms","data":{}}}',
                 b'{"jsonrpc":"2.0","method":"greeting","params":{}}', b'{"jsonrpc":"2.0","id":99999,"result":[]}'),
        lost_seconds=75.0,
        half_open_seconds=60.0,
        kinds=frozenset({Kind.OPTION, Kind.FUTURE, Kind.PERPETUAL}),
        heartbeats="heartbeats_answered",
    ),
    "okx": Facts(
        name="okx",
        family="BTC_USD",
        quote=b'{"arg":{"channel":"bbo-tbt"',
        steady=b'{"arg":{"channel":"bbo-tbt"',
        empties={
            side: ((rb'"%ss":\[\[.*?\]\]' % side.encode(), b'"%ss":[]' % side.encode()),
                   (rb'"%ss":\[\[.*?\]\]' % side.encode(), b'"%ss":[["0","0","0","0"]]' % side.encode()))
            for side in ("bid", "ask")
        },
        largest=_args_bytes,
        limit=65_536,
        per_second=10,
        unknown=(b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USD-300101-1-C"},"data":[{"asks":[["1","1","0","1"]],"bids":[],"ts":"1795521600000","seqId":1}]}',
                 b'{"event":"greeting"}', b'{"id":"99999","event":"subscribe","arg":{"channel":"nowhere"}}'),
        lost_seconds=75.0,
        half_open_seconds=25.0,
        kinds=frozenset({Kind.OPTION, Kind.FUTURE, Kind.PERPETUAL}),
        heartbeats="heartbeats_answered",
    ),
    "bybit": Facts(
        name="bybit",
        family="BTC_USDT",
        quote=b'"topic":"tickers.',
        steady=b'"topic":"tickers.',
        empties={
            side: tuple((rb'"%sPrice":"[^"]*"' % side.encode(), b'"%sPrice":%s' % (side.encode(), nothing))
                        for nothing in (b'"0"', b'""', b"null"))
            for side in ("bid", "ask")
        },
        largest=lambda message: len(json.dumps(json.loads(message).get("args", []), separators=(",", ":"))),
        limit=21_000,
        per_second=20,
        unknown=(b'{"topic":"tickers.BTC-1JAN30-1-C-USDT","ts":1795521600000,"type":"snapshot","id":"x","data":{"symbol":"BTC-1JAN30-1-C-USDT","bidPrice":"1","bidSize":"1"}}',
                 b'{"op":"greeting"}', b'{"success":true,"data":{"failTopics":[],"successTopics":["x"]},"type":"COMMAND_RESP"}'),
        lost_seconds=75.0,
        half_open_seconds=60.0,
        heartbeats="pings_answered",
    ),
    "binance": Facts(
        name="binance",
        family="BTC_USDT",
        quote=b'"e":"bookTicker"',
        steady=b"@optionMarkPrice",
        empties={
            side: tuple((rb'"%s":"[^"]*"' % side[:1].encode(), b'"%s":%s' % (side[:1].encode(), nothing))
                        for nothing in (b'"0.000"', b'"0"'))
            for side in ("bid", "ask")
        },
        largest=_count("params"),
        limit=200,
        per_second=10,
        unknown=(b'{"stream":"btc-300101-1-c@bookTicker","data":{"e":"bookTicker","u":1,"s":"BTC-300101-1-C","b":"1","B":"1","a":"2","A":"1","T":1795521600000,"E":1795521600000}}',
                 b'{"e":"greeting"}', b'{"result":null,"id":99999}'),
        lost_seconds=75.0,
        half_open_seconds=60.0,
        aged=_a_day_old,
    ),
}  # fmt: skip

EXCEPTIONS: dict[tuple[str, int], str] = {
    ("bybit", 1): "options and indexes only: Bybit's option socket has no futures",
    ("binance", 1): "options and indexes only: Binance's option API has no futures",
    (
        "binance",
        2,
    ): "shards are of book tickers and books: the chain, whole once a second, comes on one connection of all",
    ("binance", 3): "a stream of nowhere is acknowledged like any other, so it cannot be refused by name: it is silent",
    ("deribit", 14): "no limit to a connection's life is known: `takeover` stays empty",
    ("bybit", 14): "no limit to a connection's life is known: `takeover` stays empty",
    ("bybit", 16): "its listings are had coin by coin: beside the coins asked for it cannot say what there is",
    ("okx", 7): "OKX asks nothing of a client on a link that speaks: the client pings one that is silent",
    ("binance", 7): "Binance pings with websocket frames, which the socket answers",
}
"""Where a venue is not asked all of a case, and why; the rest of the case is asked of it all the same."""


def emptied(facts: Facts, symbol: str, side: str, which: int) -> Alter:
    """Make one side of the quotes of a symbol say "no quote", in one of the venue's ways."""
    pattern, nothing = facts.empties[side][which]

    def alter(payload: bytes) -> tuple[bytes, ...]:
        if facts.quote in payload and symbol.encode() in payload:
            return (re.sub(pattern, nothing, payload, count=1),)
        return (payload,)

    return alter


def without(part: bytes) -> Alter:
    """Lose the messages that have something in them."""
    return lambda payload: () if part in payload else (payload,)


def deaf(payload: bytes) -> tuple[bytes, ...]:
    """Lose everything."""
    del payload
    return ()
