"""What every exchange's protocol class has in common: bytes and a clock reading in, events and bytes out.

A `Venue` never touches a socket, a thread or a clock, so the same object runs under the live socket shell, under replay of
a capture and under a fuzzer. Quotes are not events: they overwrite the last value of their instrument inside the venue and
are taken as one `QuoteBatch` per tick, because nothing downstream may depend on how many messages arrived.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from volsurf.instruments import Instrument, Universe
from volsurf.quotes import QuoteBatch


class Health(IntEnum):
    """What happened to a connection or a message, worth counting and showing."""

    CONNECTED = 0
    READY = 1
    """Discovery is done and every channel wanted is acknowledged or refused by name."""
    DISCONNECTED = 2
    HEARTBEAT_ANSWERED = 3
    MALFORMED = 4
    """Bytes that are not the venue's JSON, or lack a field they must have."""
    REFUSED = 5
    """The venue answered a request with an error, or left a channel out of its acknowledgement."""
    RATE_LIMITED = 6
    STALE = 7
    """Nothing heard for longer than the venue's own cadence allows."""
    RECOVERED = 8
    MAINTENANCE = 9
    CLOCK_STEP = 10
    """The local clock went backwards, or jumped ahead by more than the process can have slept unnoticed."""
    NO_ACK = 11
    """A request got no answer in time."""
    GAP = 12
    """A change of an order book did not follow the one before it; the book starts again from a snapshot."""
    TOO_SLOW = 13
    """The venue cut the connection because it was read too slowly."""
    TAKEOVER = 14
    """A second socket took over before this one was cut, or could not."""


class HealthEvent(msgspec.Struct, frozen=True):
    """One lifecycle event, with a sentence a person can act on."""

    kind: Health
    time_ns: int
    detail: str = ""


class InstrumentEvent(msgspec.Struct, frozen=True):
    """Listings and expiries: ids of the venue's own `Universe`."""

    added: tuple[int, ...] = ()
    retired: tuple[int, ...] = ()


class TradeEvent(msgspec.Struct, frozen=True):
    """One trade, kept event by event. Price in the instrument's premium unit, size in the underlying."""

    instrument_id: int
    price: float
    size: float
    is_buy: bool
    venue_time_ns: int
    trade_id: str = ""


class BookEvent(msgspec.Struct, frozen=True):
    """One change of an order book, absolute sizes; a size of 0 deletes the level."""

    instrument_id: int
    is_snapshot: bool
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]
    sequence: int
    previous_sequence: int
    venue_time_ns: int


class VenueGreeks(msgspec.Struct, frozen=True, kw_only=True):
    """A venue's own vols and greeks of one option: for comparison, nothing is computed from them. NaN: not told.

    Vols are decimals. Greeks are of one coin of the underlying in the currency of the strike, not premium-adjusted: vega per vol
    point, theta per day, as every venue here gives them. OKX's greeks of the coin premium itself are the `coin_` ones.
    """

    venue_time_ns: int
    forward: float = math.nan
    mark_vol: float = math.nan
    bid_vol: float = math.nan
    ask_vol: float = math.nan
    delta: float = math.nan
    gamma: float = math.nan
    vega: float = math.nan
    theta: float = math.nan
    rho: float = math.nan
    coin_delta: float = math.nan
    coin_gamma: float = math.nan
    coin_vega: float = math.nan
    coin_theta: float = math.nan


Event = HealthEvent | InstrumentEvent | TradeEvent | BookEvent


class HttpRequest(msgspec.Struct, frozen=True):
    """A request the shell is asked to make; its answer comes back through `Venue.receive_http`.

    It belongs to the socket that is open when it is asked for: an answer that comes after that one's end reaches nobody.
    """

    method: str
    url: str
    key: str
    """Chosen by the venue to recognise the answer."""
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Replaceable(NamedTuple):
    """Messages that say everything there is to say of a name: of several in a row only the last has to be received.

    So a replay that is asked for a frame a second leaves the others out; what `take_quotes` then returns must be the same. They
    are those that begin with `prefix`, go on with the name up to the next quotation mark, and `mark_at` bytes behind that have
    `mark`. Where a venue tells late messages by a number, its digits begin `number_at` bytes behind the quotation mark, and a
    message is not left out for one with a smaller number.
    """

    prefix: bytes
    mark: bytes = b""
    mark_at: int = 0
    number_at: int = -1


class Venue(ABC):
    """One connection's worth of one exchange's protocol.

    The shell calls `connected`, then `receive` for every message and `timer` when `next_deadline` passes; after each call it
    sends what `data_to_send()` returns, makes the `http_requests()`, and reads `events()`. Once a tick it takes
    `take_quotes()`. All times are nanoseconds UTC and come from the caller.

    The same calls with the same arguments give the same batches and events, bit for bit: a replay is nothing else. So a venue
    draws no random number and reads no clock, and only `take_quotes` may put off work until it is asked: reading `counters`,
    `events()`, `is_ready`, `trouble`, `failure` or `next_deadline`, often or never, must not change what it returns.
    """

    name: str
    universe: Universe
    counters: Counter[str]
    """Messages by kind, malformed ones by cause, unknown instruments, …: what is not an event but must not be lost.

    Every venue counts `heartbeats_answered`, by which the shell times its answers, and `malformed.<cause>`.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the shell connects."""

    @abstractmethod
    def connected(self, now: int) -> None:
        """A new socket is open: everything about the old one is forgotten, discovery and subscription start."""

    @abstractmethod
    def disconnected(self, now: int, reason: str) -> None:
        """The socket is gone, or could not be opened: its quotes are no longer live and are cleared in the next batch."""

    @abstractmethod
    def receive(self, data: bytes | str, now: int) -> None:
        """Take one websocket message. Never raises on bad input: it counts and reports it."""

    def receive_http(self, key: str, status: int, body: bytes, now: int) -> None:
        """Take the answer to an `HttpRequest`. Status 0: there was none, and `body` says why."""
        raise NotImplementedError(f"{self.name} makes no HTTP requests")

    @abstractmethod
    def timer(self, now: int) -> None:
        """Do what is due: send the next batch of subscriptions, notice silence, give up on an answer."""

    @property
    @abstractmethod
    def next_deadline(self) -> int | None:
        """When `timer` wants to be called at the latest, ns UTC."""

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Subscribed to everything that exists."""

    @property
    @abstractmethod
    def failure(self) -> str | None:
        """Why this connection must be closed and opened again, or None; the shell obeys."""

    @property
    def trouble(self) -> str:
        """What is wrong now although the connection is open, in words a person can act on; "" where nothing is."""
        return ""

    @property
    def suspended(self) -> str:
        """Why its quotes are not to be believed although the connection is whole, in words: maintenance; "" where they are."""
        return ""

    @property
    def silences(self) -> Mapping[str, tuple[int, int]]:
        """What should keep coming: since when it has not, and how long it may be silent, both ns; see `_watch.Watch.silences`."""
        return {}

    @property
    def replaceable(self) -> Replaceable | None:
        """Which messages replace each other, or None; for replay, which has all of a second before it at once."""
        return None

    @property
    def takeover(self) -> str:
        """Why a second socket should take over before the venue cuts this one; "" where it need not.

        The shell then connects a `twin()`, waits until that is ready and only then closes this one: no quote is cleared.
        """
        return ""

    def twin(self) -> Venue:
        """A new object with the same arguments that has heard nothing yet."""
        raise NotImplementedError(f"{self.name} has no twin: no second socket can take over")

    def resume(self, instruments: Sequence[Instrument], now: int) -> None:
        """Start in the midst of a conversation: connected, discovered, and subscribed to these. For replay from the middle."""
        raise NotImplementedError(f"{self.name} can only be replayed from the opening of its connection")

    def greeks(self, instrument_id: int) -> VenueGreeks | None:
        """The venue's own vols and greeks of an option, as last told; None where it has told none."""
        del instrument_id
        return None

    def restart_book(self, instrument_id: int, now: int) -> None:  # noqa: B027
        """Ask for a new snapshot of a book that cannot be right: crossed for seconds. Nothing where books are not followed."""

    @property
    def not_before(self) -> int:
        """The shell opens no new socket before this time, ns UTC: the venue asked for a pause. 0 where it did not."""
        return 0

    @property
    def fatal(self) -> str | None:
        """Why opening the connection again cannot help, or None; the shell gives up with this as its error."""
        return None

    @abstractmethod
    def data_to_send(self) -> list[bytes]:
        """Messages to send, in order, answers to heartbeats first."""

    def http_requests(self) -> list[HttpRequest]:
        """Requests to make."""
        return []

    @abstractmethod
    def events(self) -> list[Event]:
        """Events since the last call, in order."""

    @abstractmethod
    def take_quotes(self, now: int) -> QuoteBatch | None:
        """What changed since the last call, one row per instrument, or None."""
