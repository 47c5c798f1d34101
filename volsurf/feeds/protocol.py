"""What every exchange's protocol class has in common: bytes and a clock reading in, events and bytes out.

A `Venue` never touches a socket, a thread or a clock, so the same object runs under the live socket shell, under replay of
a capture and under a fuzzer. Quotes are not events: they overwrite the last value of their instrument inside the venue and
are taken as one `QuoteBatch` per tick, because nothing downstream may depend on how many messages arrived.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from enum import IntEnum

import msgspec

from volsurf.instruments import Universe
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


Event = HealthEvent | InstrumentEvent | TradeEvent | BookEvent


class HttpRequest(msgspec.Struct, frozen=True):
    """A request the shell is asked to make; its answer comes back through `Venue.receive_http`."""

    method: str
    url: str
    key: str
    """Chosen by the venue to recognise the answer."""
    body: bytes = b""


class Venue(ABC):
    """One connection's worth of one exchange's protocol.

    The shell calls `connected`, then `receive` for every message and `timer` when `next_deadline` passes; after each call it
    sends what `data_to_send()` returns, makes the `http_requests()`, and reads `events()`. Once a tick it takes
    `take_quotes()`. All times are nanoseconds UTC and come from the caller.
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
        """Take the answer to an `HttpRequest`."""
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
