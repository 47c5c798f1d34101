"""The fields volsurf uses of OKX's messages, as typed structs; every other key is skipped without being read.

Prices, sizes and times come as strings, and `""` stands for "there is none". Levels of books are never empty strings, so the
decoder itself turns those into floats; of everything else the text is kept and read with `number` where it is wanted.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
from msgspec import Raw, Struct

from volsurf.feeds import _wire


class Arg(Struct, frozen=True, omit_defaults=True):
    """A channel, as it is subscribed to and as every push names it."""

    channel: str
    instType: str = ""
    instFamily: str = ""
    instId: str = ""
    uly: str = ""

    def __str__(self) -> str:
        return ":".join(filter(None, (self.channel, self.instId or self.instFamily or self.uly or self.instType)))


class Message(Struct):
    """Any message but `pong`: a push where it has an `arg` and no `event`, else an acknowledgement, an error or a notice."""

    event: str = ""
    arg: Arg | None = None
    action: str = ""
    data: Raw = Raw(b"")
    id: str | int | None = None
    code: str | int = ""
    msg: str = ""


class Level1(Struct, gc=False):
    """`bbo-tbt`: the best level of each side, `[price, contracts, "0", orders]`; no level, no quote."""

    asks: list[list[float]] = []
    bids: list[list[float]] = []
    ts: float = 0.0
    seqId: int = 0


class BboPush(Struct, gc=False):
    """The whole message in one pass: what nearly every message is."""

    data: list[Level1]


class Ticker(Struct, gc=False):
    """`tickers`"""

    bidPx: str = ""
    bidSz: str = ""
    askPx: str = ""
    askSz: str = ""
    last: str = ""
    ts: str = ""


class TickerPush(Struct, gc=False):
    """The whole message in one pass."""

    data: list[Ticker]


class OptSummary(Struct, gc=False):
    """One row of `opt-summary`. Greeks without a suffix are in coin and adjusted by the premium, those with `BS` in dollars.

    `fwdPx` is absent before 2023. Lower-case `deltaBs` and the like, found in fixtures elsewhere, do not exist.
    """

    instId: str
    markVol: str = ""
    bidVol: str = ""
    askVol: str = ""
    fwdPx: str = ""
    volLv: str = ""
    realVol: str = ""
    lever: str = ""
    delta: str = ""
    gamma: str = ""
    vega: str = ""
    theta: str = ""
    deltaBS: str = ""
    gammaBS: str = ""
    vegaBS: str = ""
    thetaBS: str = ""
    ts: str = ""


class SummaryPush(Struct, gc=False):
    """A subset of the rows of one family."""

    data: list[OptSummary]


class IndexTicker(Struct, gc=False):
    """`index-tickers`"""

    instId: str
    idxPx: str
    ts: str = ""


class Trade(Struct):
    """One row of `option-trades`, `trades` and `trades-all`; size in contracts."""

    instId: str
    px: str
    sz: str
    side: str
    ts: str
    tradeId: str = ""


class Book(Struct):
    """`books` and `books5`. `checksum` is fixed at 0 since May 2026 and not looked at."""

    asks: list[list[float]]
    bids: list[list[float]]
    ts: float = 0.0
    seqId: int | None = None
    prevSeqId: int | None = None


class Listing(Struct):
    """One row of `/api/v5/public/instruments` and of the `instruments` channel."""

    instId: str
    instType: str
    uly: str = ""
    instFamily: str = ""
    settleCcy: str = ""
    ctVal: str = ""
    ctMult: str = ""
    ctValCcy: str = ""
    ctType: str = ""
    tickSz: str = ""
    optType: str = ""
    stk: str = ""
    expTime: str = ""
    listTime: str = ""
    state: str = "live"


class Band(Struct):
    """A range of prices with one tick."""

    minPx: str
    maxPx: str
    tickSz: str


class FamilyBands(Struct):
    """One row of `/api/v5/public/instrument-tick-bands`."""

    instFamily: str
    tickBand: list[Band] = []


class Answer(Struct):
    """The body of any REST page; `code` is `"0"` where `data` is what was asked for."""

    code: str | int = ""
    msg: str = ""
    data: Raw = Raw(b"[]")


PONG = b"pong"
"""The answer to the text message `ping`. It is no JSON."""
PING = b"ping"
BBO, TICKERS, SUMMARY, INDEX = "bbo-tbt", "tickers", "opt-summary", "index-tickers"
BOOKS, BOOKS5, OPTION_TRADES, INSTRUMENTS = "books", "books5", "option-trades", "instruments"

SUMMARY_PREFIX = b'{"arg":{"channel":"opt-summary","instFamily":"'

decode_bbo_push = msgspec.json.Decoder(BboPush, strict=False).decode
decode_ticker_push = msgspec.json.Decoder(TickerPush).decode
decode_summary_push = msgspec.json.Decoder(SummaryPush).decode
decode_message = msgspec.json.Decoder(Message).decode
decode_indexes = msgspec.json.Decoder(list[IndexTicker]).decode
decode_books = msgspec.json.Decoder(list[Book], strict=False).decode
decode_trade = msgspec.json.Decoder(Trade).decode
decode_listing = msgspec.json.Decoder(Listing).decode
decode_bands = msgspec.json.Decoder(FamilyBands).decode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_rows = msgspec.json.Decoder(list[Raw]).decode

_encode = msgspec.json.Encoder().encode


def quote_prefix(channel: str) -> bytes:
    """How a push of a quote channel begins. Key order is promised nowhere, so other orders take the slower way."""
    return b'{"arg":{"channel":"%s","instId":"' % channel.encode()


def encode_request(number: str, op: str, args: list[Arg] | tuple[Arg, ...]) -> bytes:
    """A `subscribe` or `unsubscribe` request."""
    request: dict[str, Any] = {"id": number, "op": op, "args": args}
    return _encode(request)


def encode_arg(arg: Arg) -> bytes:
    """One channel, to know how long a request becomes."""
    return _encode(arg)


def number(text: str) -> float:
    """The number a string stands for; NaN for `""` and for everything that is no finite number."""
    try:
        value = float(text)
    except ValueError:
        return nan
    return value if -inf < value < inf else nan


def nanoseconds(milliseconds: float | str) -> int:
    """Nanoseconds of a venue time, mostly written as a string; 0 for one that cannot be."""
    value = number(milliseconds) if isinstance(milliseconds, str) else milliseconds
    return _wire.nanoseconds(value)
