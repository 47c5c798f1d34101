"""What the core is told, in order: the one log that makes live, replay and backtest give the same frames.

Everything that can change a frame is an entry of this log; nothing else reaches the core, no clock and no thread's timing. The
same bytes cross the socket between a feed process and the core process and, later, lie in a capture: a `QuoteBatch` in its own
binary layout, every other entry as MessagePack with its kind under "entry".
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from volsurf.errors import InputError
from volsurf.instruments import Instrument
from volsurf.quotes import QuoteBatch


class FeedState(StrEnum):
    """How far a feed's connections have come; the values are what the interfaces show."""

    CONNECTING = "connecting"
    SUBSCRIBING = "subscribing"
    READY = "ready"
    DISCONNECTED = "disconnected"
    FAILED = "failed"
    """It will not come back by itself; the detail says why."""


class FeedStarted(msgspec.Struct, frozen=True, tag_field="entry", tag="feed_started"):
    """A feed begins to speak to this core, for the first time or again: ids and batch numbers it used before mean nothing now."""

    feed: int
    name: str


class InstrumentsAdded(msgspec.Struct, frozen=True, tag_field="entry", tag="instruments_added"):
    """New listings: `ids` are those of the feed's own universe, one per instrument."""

    feed: int
    ids: tuple[int, ...]
    instruments: tuple[Instrument, ...]


class InstrumentsRetired(msgspec.Struct, frozen=True, tag_field="entry", tag="instruments_retired"):
    """Delisted or expired instruments, by the feed's own ids."""

    feed: int
    ids: tuple[int, ...]


class ChannelLiveness(msgspec.Struct, frozen=True, array_like=True):
    """One kind of news of a feed, over all its connections. Milliseconds; None where there is nothing to tell it by."""

    name: str
    """What it brings ("quotes", "marks", …), or what the venue's protocol waits for ("index btc_usd")."""
    silent_ms: float
    """Since the last of it came."""
    limit_ms: float | None = None
    """How long it may be silent, where the venue promises a cadence."""
    lag_median_ms: float | None = None
    """From the venue's stamp to its receipt, our clock's error included, over the last ten seconds."""
    lag_p95_ms: float | None = None
    is_vital: bool = False
    """Without it the feed has no live quotes."""

    @property
    def is_silent(self) -> bool:
        """For longer than it may be."""
        return self.limit_ms is not None and self.silent_ms > self.limit_ms


class Liveness(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How fresh a feed's news is; counts run from the start of its process. None where there is nothing to tell it by."""

    skew_ns: int | None = None
    """Our clock less the venue's, the shortest delay on the way included: what is common to all time stamps."""
    lag_median_ms: float | None = None
    """From the venue's stamp to its receipt, our clock's error included, over the last ten seconds."""
    lag_p95_ms: float | None = None
    quote_age_median_ms: float | None = None
    """Over the instruments with a bid or an ask: since the venue last said anything of one, by its own stamp less the skew."""
    quote_age_p95_ms: float | None = None
    channels: tuple[ChannelLiveness, ...] = ()
    gaps: int = 0
    """Order books that missed a change."""
    resyncs: int = 0
    """Order books that began again from a snapshot."""
    takeovers: int = 0
    """Connections that were replaced by a second one before the venue cut them."""
    crossed: int = 0
    """Instruments whose bid is above their ask now."""

    @property
    def silent_channels(self) -> tuple[str, ...]:
        """Names of those silent for longer than they may be."""
        return tuple(channel.name for channel in self.channels if channel.is_silent)


class FeedHealth(msgspec.Struct, frozen=True, tag_field="entry", tag="feed_health", kw_only=True):
    """How a feed is at `time_ns`; counts run from the start of its process."""

    feed: int
    name: str
    time_ns: int
    state: FeedState
    connections: int = 0
    connected: int = 0
    last_message_ns: int = 0
    """When its sockets last brought anything, ns UTC; 0 for never."""
    messages: int = 0
    malformed: int = 0
    reconnects: int = 0
    heartbeats_missed: int = 0
    late_batches: int = 0
    """Ticks on which the core had not yet read the last batch, so that this one was conflated with the next."""
    detail: str = ""
    trouble: str = ""
    """What is wrong although it is connected, in words."""
    suspended: str = ""
    """Why its quotes are not to be believed although it is whole, in words: the venue is in maintenance."""
    liveness: Liveness = Liveness()


class PolicyChange(msgspec.Struct, frozen=True, tag_field="entry", tag="policy_change"):
    """A rule of the core takes another value; None leaves it."""

    refit_after_ns: int | None = None
    silent_after_ns: int | None = None
    maximum_skew_ns: int | None = None
    enforce: bool | None = None
    smoothing_seconds: float | None = None


class ClockStep(msgspec.Struct, frozen=True, tag_field="entry", tag="clock_step"):
    """The machine's clock was set: by `step_ns`, noticed at `time_ns` of the new time."""

    time_ns: int
    step_ns: int


class Tick(msgspec.Struct, frozen=True, tag_field="entry", tag="tick"):
    """The frame clock: a frame is made of everything before this entry."""

    now_ns: int


Message = FeedStarted | InstrumentsAdded | InstrumentsRetired | FeedHealth | PolicyChange | ClockStep | Tick
Entry = Message | QuoteBatch

_BATCH_MAGIC = b"VSQB"
_decoder = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()


def encode_entry(entry: Entry) -> bytes:
    """The bytes of one entry."""
    return entry.to_bytes() if isinstance(entry, QuoteBatch) else _encoder.encode(entry)


def decode_entry(data: bytes | memoryview) -> Entry:
    """Inverse of `encode_entry`; `InputError` on anything else."""
    # A MessagePack map never starts with the batch's "V" (0x56 is a small integer), so the two cannot be confused.
    if bytes(data[:4]) == _BATCH_MAGIC:
        return QuoteBatch.from_bytes(data)
    try:
        message: Message = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise InputError(f"not an entry of the core's log: {error}") from error
    return message


LENGTH_BYTES = 4
MAXIMUM_ENTRY_BYTES = 64 * 1024 * 1024
"""Longest entry that is believed: a full batch of 100,000 instruments is 11 MB, a length beyond this is a broken stream."""


def frame_entry(data: bytes) -> bytes:
    """An entry's bytes with their u32 little-endian length in front, as they lie in a log or cross a socket."""
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


class EntrySplitter:
    """Cuts a byte stream back into entries; bytes may arrive in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def unfinished(self) -> int:
        """Bytes of an entry that has not wholly arrived."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """The entries that these bytes complete; `InputError` where a length cannot be."""
        self._buffer += data
        pieces: list[bytes] = []
        start = 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= LENGTH_BYTES:
                length = int.from_bytes(view[start : start + LENGTH_BYTES], "little")
                if length > MAXIMUM_ENTRY_BYTES:
                    raise InputError(f"an entry of {length} bytes: the stream of entries is broken")
                end = start + LENGTH_BYTES + length
                if len(view) < end:
                    break
                # A copy, because the columns of a batch are views of these bytes and outlive the buffer.
                pieces.append(bytes(view[start + LENGTH_BYTES : end]))
                start = end
        del self._buffer[:start]
        return pieces


def log_to_bytes(entries: Iterable[Entry]) -> bytes:
    """A whole log as one run of framed entries."""
    return b"".join(frame_entry(encode_entry(entry)) for entry in entries)


def log_from_bytes(data: bytes) -> list[Entry]:
    """Inverse of `log_to_bytes`; `InputError` on anything else, or a last entry cut short."""
    splitter = EntrySplitter()
    entries = [decode_entry(piece) for piece in splitter.feed(data)]
    if splitter.unfinished:
        raise InputError(f"the log ends in the middle of an entry: {splitter.unfinished} bytes left over")
    return entries
