"""The fields volsurf uses of Deribit's messages, as typed structs; every other key is skipped without being read.

Numbers are floats throughout because Deribit writes them as ints, decimals or exponents as it likes. msgspec refuses what
overflows a double, so no infinity comes out of a decoder; NaN does not exist in JSON.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

Number = float | None
NAN = float("nan")


class Ticker(Struct, gc=False):
    """`ticker.{instrument}.{interval}`: complete each time. Futures and perpetuals lack the option's fields.

    A missing key is NaN, an explicit null None: both mean that there is no such value.
    """

    instrument_name: str
    timestamp: float = 0.0
    state: str = "open"
    best_bid_price: Number = NAN
    best_bid_amount: Number = NAN
    best_ask_price: Number = NAN
    best_ask_amount: Number = NAN
    mark_price: Number = NAN
    mark_iv: Number = NAN
    last_price: Number = NAN
    underlying_price: Number = NAN
    index_price: Number = NAN


class Greeks(Struct, gc=False):
    """`greeks` of an option's ticker."""

    delta: Number = NAN
    gamma: Number = NAN
    vega: Number = NAN
    theta: Number = NAN
    rho: Number = NAN


class Reference(Struct, gc=False):
    """The venue's own numbers in a ticker, which nothing here computes with. Vols are in percent, 0 where there is none."""

    timestamp: float = 0.0
    mark_iv: Number = NAN
    bid_iv: Number = NAN
    ask_iv: Number = NAN
    underlying_price: Number = NAN
    greeks: Greeks | None = None


class _ReferenceParams(Struct, gc=False):
    data: Reference


class ReferenceNotification(Struct, gc=False):
    """The whole message of a ticker, for its reference numbers."""

    params: _ReferenceParams


class _TickerParams(Struct, gc=False):
    channel: str
    data: Ticker


class TickerNotification(Struct, gc=False):
    """The whole message in one pass: what nearly every message is."""

    params: _TickerParams


class ErrorBody(Struct):
    """The `error` of a reply."""

    code: int | float = 0
    message: str = ""
    data: Raw = Raw(b"")


class Message(Struct):
    """Any message: a reply where it has an `id` or an error, a notification or heartbeat where it has a `method`."""

    id: int | str | None = None
    method: str = ""
    params: Raw = Raw(b"")
    result: Raw = Raw(b"")
    error: ErrorBody | None = None
    usOut: float = 0.0


class Notification(Struct):
    """`params` of `"method": "subscription"`."""

    channel: str
    data: Raw


class Heartbeat(Struct):
    """`params` of `"method": "heartbeat"`."""

    type: str = ""


class IndexPrice(Struct, gc=False):
    """`deribit_price_index.{index}`"""

    price: float
    index_name: str
    timestamp: float = 0.0


class MarkPrice(Struct, gc=False):
    """One row of `markprice.options.{index}`, whose `iv` is a fraction where the ticker's is in percent."""

    instrument_name: str
    timestamp: float = 0.0
    mark_price: Number = None
    iv: Number = None


class StateChange(Struct):
    """`instrument.state.{kind}.{currency}`"""

    instrument_name: str
    state: str


class PlatformState(Struct):
    """`platform_state` and `platform_state.public_methods_state`; whichever keys are there."""

    price_index: str = ""
    locked: bool | str | None = None
    maintenance: bool | None = None
    allow_unauthenticated_public_requests: bool | None = None


class Trade(Struct):
    """One row of `trades.option.{currency}.{interval}`"""

    instrument_name: str
    price: float
    amount: float
    direction: str
    timestamp: float
    trade_id: str | int = ""


class Book(Struct):
    """`book.{instrument}.{interval}`. Feeds before 2021 had no `type`; a snapshot has no `prev_change_id`."""

    instrument_name: str
    change_id: int | float
    timestamp: float = 0.0
    type: str = ""
    prev_change_id: int | float | None = None
    bids: list[tuple[str, float, float]] = []
    asks: list[tuple[str, float, float]] = []


class TickStep(Struct):
    """Tick that holds above a price."""

    above_price: float
    tick_size: float


class Listing(Struct):
    """One row of `public/get_instruments`. Listings before 2022 have no `instrument_type`, `price_index` or `state`."""

    instrument_name: str
    kind: str
    base_currency: str
    expiration_timestamp: float
    quote_currency: str = ""
    settlement_currency: str = ""
    instrument_type: str = ""
    option_type: str | None = None
    strike: Number = None
    tick_size: float = 0.0
    tick_size_steps: list[TickStep] = []
    contract_size: Number = None
    price_index: str = ""
    settlement_period: str = ""
    state: str = "open"
    is_active: bool = True


TICKER_PREFIX = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.'
"""How Deribit has always begun a ticker's message. Key order is promised nowhere, so other orders take the slower way."""

decode_ticker_notification = msgspec.json.Decoder(TickerNotification).decode
decode_reference_notification = msgspec.json.Decoder(ReferenceNotification).decode
decode_message = msgspec.json.Decoder(Message).decode
decode_notification = msgspec.json.Decoder(Notification).decode
decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
decode_ticker = msgspec.json.Decoder(Ticker).decode
decode_index_price = msgspec.json.Decoder(IndexPrice).decode
decode_mark_price = msgspec.json.Decoder(MarkPrice).decode
decode_state_change = msgspec.json.Decoder(StateChange).decode
decode_platform_state = msgspec.json.Decoder(PlatformState).decode
decode_trade = msgspec.json.Decoder(Trade).decode
decode_book = msgspec.json.Decoder(Book).decode
decode_listing = msgspec.json.Decoder(Listing).decode
decode_channels = msgspec.json.Decoder(list[str]).decode
decode_rows = msgspec.json.Decoder(list[Raw]).decode

_encode = msgspec.json.Encoder().encode


def encode_request(number: int, method: str, params: dict[str, Any]) -> bytes:
    """A JSON-RPC request."""
    return _encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
