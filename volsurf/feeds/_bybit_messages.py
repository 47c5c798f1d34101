"""The fields volsurf uses of Bybit's messages, as typed structs; every other key is skipped without being read.

Prices and sizes come as strings and are read as floats in the same pass; where one of them is no number the whole message is
read once more by the tolerant way. msgspec takes "inf" and "nan" for numbers: whoever uses one looks whether it is finite.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from volsurf.feeds._wire import nanoseconds
from volsurf.feeds.protocol import VenueGreeks

NAN = float("nan")
Number = float | None


class Ticker(Struct, gc=False):
    """`data` of `tickers.{symbol}`: complete each time. A missing key is NaN, an explicit null None: neither is a value."""

    symbol: str
    bidPrice: Number = NAN
    bidSize: Number = NAN
    askPrice: Number = NAN
    askSize: Number = NAN
    lastPrice: Number = NAN
    markPrice: Number = NAN
    markPriceIv: Number = NAN
    underlyingPrice: Number = NAN
    indexPrice: Number = NAN


class TickerMessage(Struct, gc=False):
    """A ticker's message in one pass."""

    data: Ticker
    ts: float = 0.0


class _LooseTickerMessage(Struct):
    data: dict[str, Any]
    ts: float = 0.0


_GREEKS = {
    "forward": "underlyingPrice",
    "bid_vol": "bidIv",
    "ask_vol": "askIv",
    "mark_vol": "markPriceIv",
    "delta": "delta",
    "gamma": "gamma",
    "vega": "vega",
    "theta": "theta",
}
_ZERO_IS_NONE = ("forward", "bid_vol", "ask_vol", "mark_vol")


class Message(Struct):
    """Any message: pushed data where it has a `topic`, an acknowledgement or pong where it has not."""

    topic: str = ""
    type: str = ""
    ts: float = 0.0
    data: Raw = Raw(b"")
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    args: Raw = Raw(b"")


class Topics(Struct):
    """`data` of `"type": "COMMAND_RESP"`, the option socket's acknowledgement; null where there are none."""

    successTopics: list[str] | None = None
    failTopics: list[str] | None = None


class Book(Struct):
    """`data` of `orderbook.{depth}.{symbol}`"""

    s: str
    u: int
    b: list[tuple[float, float]] = []
    a: list[tuple[float, float]] = []


class Trade(Struct):
    """One row of `publicTrade.{coin}`"""

    s: str
    p: float
    v: float
    S: str
    T: float
    i: str | int = ""


class _PriceFilter(Struct, frozen=True):
    tickSize: float = 0.0


class Listing(Struct):
    """One row of `instruments-info`."""

    symbol: str
    status: str
    baseCoin: str
    settleCoin: str
    deliveryTime: float
    optionsType: str = ""
    quoteCoin: str = ""
    priceFilter: _PriceFilter = _PriceFilter()


class Page(Struct):
    """`result` of `instruments-info`."""

    rows: list[Raw] = msgspec.field(name="list")
    nextPageCursor: str = ""


class Answer(Struct):
    """Any REST answer."""

    retCode: int
    retMsg: str = ""
    result: Raw = Raw(b"")
    time: float = 0.0


TICKER_PREFIX = b'{"topic":"tickers.'
"""How a ticker's message begins since 2024. Key order is promised nowhere, so other orders take the slower way."""
TICKER_TOPIC_AT = len(b'{"topic":"')
STAMP_AT = len(b'","ts":')
"""Of the digits of `ts`, from the quote that ends the topic."""
STAMP_END = STAMP_AT + 13
SNAPSHOT = b',"type":"snapshot"'
"""Follows the digits of `ts`."""

decode_ticker_message = msgspec.json.Decoder(TickerMessage, strict=False).decode
_decode_loose_ticker = msgspec.json.Decoder(_LooseTickerMessage, strict=False).decode
_decode_values = msgspec.json.Decoder(dict[str, Any]).decode
decode_message = msgspec.json.Decoder(Message).decode
decode_topics = msgspec.json.Decoder(Topics).decode
decode_book = msgspec.json.Decoder(Book, strict=False).decode
decode_trade = msgspec.json.Decoder(Trade, strict=False).decode
decode_rows = msgspec.json.Decoder(list[Raw]).decode
decode_texts = msgspec.json.Decoder(list[str]).decode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_page = msgspec.json.Decoder(Page).decode
decode_listing = msgspec.json.Decoder(Listing, strict=False).decode
_encode = msgspec.json.Encoder().encode


def decode_tolerantly(data: bytes) -> TickerMessage:
    """A ticker some of whose values are no numbers (`""`, for one): those are missing, the rest is taken."""
    message = _decode_loose_ticker(data)
    values = message.data
    if not isinstance(values.get("symbol"), str):
        raise msgspec.ValidationError("a ticker without a symbol")
    names = Ticker.__struct_fields__[1:]
    return TickerMessage(Ticker(values["symbol"], *(number(values.get(name)) for name in names)), message.ts)


def usual_order(symbol: str, stamp: int, data: bytes) -> bytes:
    """A ticker's message with its keys in the order of 2026, whatever order it came in."""
    return b'{"topic":"tickers.%s","ts":%d,"type":"snapshot","data":%s}' % (symbol.encode(), stamp, data)


def stamp_of(ts: float) -> int:
    """The milliseconds of a message, 13 digits as from 2001 to 2286; 0 for a time that cannot be."""
    return int(ts) if 1e12 <= ts < 1e13 else 0


def merged(whole: bytes, change: bytes) -> bytes:
    """`data` of a whole ticker's message with the values of a `delta`'s `data` put in. Lets decoding errors out."""
    return _encode(_decode_loose_ticker(whole).data | _decode_values(change))


def greeks_of(data: bytes) -> VenueGreeks:
    """Vols and greeks of a ticker's message that has been decoded before."""
    message = _decode_loose_ticker(data)
    values = message.data
    found = {name: number(values.get(key)) for name, key in _GREEKS.items()}
    told = {k: NAN if v == 0 and k in _ZERO_IS_NONE else v for k, v in found.items()}
    return VenueGreeks(venue_time_ns=nanoseconds(message.ts), **told)


def number(value: Any) -> float:
    """A finite number out of whatever Bybit wrote for it; NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return NAN
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return NAN
    return found if abs(found) < float("inf") else NAN


def encode_command(number: int, op: str, topics: list[str] | None = None) -> bytes:
    """A ping, or a subscription of some topics."""
    body: dict[str, Any] = {"req_id": str(number), "op": op}
    return _encode(body if topics is None else body | {"args": topics})
