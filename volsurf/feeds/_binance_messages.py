"""The fields volsurf uses of Binance's option messages, as typed structs; every other key is skipped without being read.

Prices, sizes, vols and rates are decimal strings there, times and ids integers. The decoders are lenient between the two, and
so also read "nan" and "inf" as numbers: whoever takes a value compares it with bounds, which neither passes.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field

NAN = float("nan")
Time = Annotated[int, Meta(ge=0, le=2**53)]
"""Milliseconds since 1970, exact as a double."""
Number = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
"""An update id."""


class Mark(Struct, gc=False):
    """One row of `<underlying>@optionMarkPrice`. A side without a quote has price and quantity 0; prices are per contract."""

    s: str
    E: Time = 0
    mp: float = NAN
    i: float = NAN
    rf: float = NAN
    vo: float = NAN
    bo: float = NAN
    bq: float = NAN
    ao: float = NAN
    aq: float = NAN


class Marks(Struct):
    """The whole message, as it comes on a combined stream."""

    data: list[Mark]


class Greeks(Struct):
    """What a row of marks says besides: vols of the sides and greeks, per coin, vega per vol point, theta per day."""

    s: str
    E: Time = 0
    i: float = NAN
    rf: float = NAN
    vo: float = NAN
    b: float = NAN
    a: float = NAN
    d: float = NAN
    g: float = NAN
    v: float = NAN
    t: float = NAN


class BookTicker(Struct, gc=False):
    """`<symbol>@bookTicker`: both sides, on every change."""

    s: str
    u: Number = 0
    b: float = NAN
    B: float = NAN
    a: float = NAN
    A: float = NAN
    T: Time = 0
    E: Time = 0


class BookTickerMessage(Struct, gc=False):
    """The whole message, as it comes on a combined stream."""

    data: BookTicker


class Index(Struct, gc=False):
    """One row of `!index@arr`."""

    s: str
    p: float
    E: Time = 0


class Trade(Struct, gc=False):
    """`@optionTrade`. X is MARKET or BLOCK."""

    s: str
    p: float
    q: float
    S: str = ""
    T: Time = 0
    E: Time = 0
    t: int | str = ""
    X: str = ""
    m: bool | None = None


class Depth(Struct, gc=False):
    """`@depth…`: changes between the update ids U and u, or the best levels; `pu` is the `u` of the message before."""

    s: str
    U: Number
    u: Number
    pu: Number = -1
    T: Time = 0
    E: Time = 0
    b: list[tuple[float, float]] = []
    a: list[tuple[float, float]] = []


class NewSymbol(Struct):
    """`!optionSymbol`: what was listed, or changed its state. It lacks ticks, so the listings are read again."""

    s: str
    cs: str = ""


class Payload(Struct):
    """What kind of event a payload is."""

    e: str = ""


class ErrorBody(Struct):
    """An error inside a reply."""

    code: int = 0
    msg: str = ""


class Message(Struct):
    """Any message that is an object: a combined one has `stream` and `data`, a raw one `e`, a reply `id`, `result` or `code`."""

    stream: str = ""
    data: Raw = Raw(b"")
    e: str = ""
    id: int | str | None = None
    result: Raw = Raw(b"")
    code: int | None = None
    msg: str = ""
    error: ErrorBody | None = None


class Filter(Struct):
    """One of a listing's filters."""

    filterType: str = ""
    tickSize: float = NAN


class Listing(Struct):
    """One row of `optionSymbols`."""

    symbol: str
    side: str
    strikePrice: float
    underlying: str
    expiryDate: Time
    unit: float = 1.0
    quoteAsset: str = "USDT"
    status: str = "TRADING"
    filters: list[Filter] = []


class RateLimit(Struct):
    """One row of `rateLimits`."""

    rateLimitType: str = ""
    interval: str = ""
    intervalNum: int = 1
    limit: int = 0


class Contract(Struct):
    """One row of `optionContracts`: an underlying."""

    underlying: str
    baseAsset: str
    quoteAsset: str = "USDT"
    settleAsset: str = ""


class ExchangeInfo(Struct):
    """`GET /eapi/v1/exchangeInfo`"""

    optionSymbols: list[Raw]
    optionContracts: list[Contract] = []
    rateLimits: list[RateLimit] = []
    serverTime: Time = 0


class IndexPrice(Struct):
    """`GET /eapi/v1/index`"""

    indexPrice: float
    time: Time = 0


class Snapshot(Struct):
    """`GET /eapi/v1/depth`"""

    lastUpdateId: Number
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]
    T: Time = 0


class RestError(Struct):
    """The body of a REST answer that is not 200."""

    code: int = 0
    msg: str = ""


class _Request(Struct):
    method: str
    params: list[str]
    number: int = field(name="id")


def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(kind, strict=False).decode


decode_marks_message = _decoder(Marks)
decode_marks = _decoder(list[Mark])
decode_greeks = _decoder(Greeks)
decode_book_ticker_message = _decoder(BookTickerMessage)
decode_book_ticker = _decoder(BookTicker)
decode_indexes = _decoder(list[Index])
decode_trade = _decoder(Trade)
decode_depth = _decoder(Depth)
decode_new_symbol = _decoder(NewSymbol)
decode_payload = _decoder(Payload)
decode_message = _decoder(Message)
decode_listing = _decoder(Listing)
decode_exchange_info = _decoder(ExchangeInfo)
decode_index_price = _decoder(IndexPrice)
decode_snapshot = _decoder(Snapshot)
decode_rest_error = _decoder(RestError)
decode_rows = _decoder(list[Raw])

_encode = msgspec.json.Encoder().encode


def encode_request(number: int, method: str, params: list[str]) -> bytes:
    """`{"method":"SUBSCRIBE","params":["btcusdt@optionMarkPrice"],"id":1}`"""
    return _encode(_Request(method, params, number))


_LATEST_MS = 9_000_000_000_000  # in the year 2255: beyond it nanoseconds leave 64 bits


def nanoseconds(milliseconds: int) -> int:
    """Nanoseconds of a venue time; 0 for one that cannot be."""
    return milliseconds * 1_000_000 if 0 < milliseconds < _LATEST_MS else 0


def malformed_cause(error: Exception) -> str:
    """One word for why a message did not decode: what the counters are named after."""
    if isinstance(error, msgspec.ValidationError):
        return "schema"
    if isinstance(error, RecursionError):
        return "nesting"
    if isinstance(error, UnicodeError) or "UTF-8" in str(error):
        return "utf8"
    return "truncated" if "truncated" in str(error) else "json"
