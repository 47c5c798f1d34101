"""The bytes of a capture: segment heads, blocks and footers, each with its own checksum. The package's docstring draws them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError

if TYPE_CHECKING:
    import zstandard

VERSION = 1
SUFFIX = ".vscap"
MANIFEST = "capture.json"
LOCK = "lock"
CLOSED_SUFFIX = ".closed"
CORE = "core"
FEED_WIDE = 0xFFFF_FFFF
"""`connection` of records that belong to no connection: those of the feed as a whole, and of the core."""


class RecordKind(IntEnum):
    """What a record says; the time is the one handed to the call, ns UTC, unless said otherwise."""

    # Calls into a `Venue` and what it made the shell do, as told to a `Tap`.
    OPENED = 1
    """A socket is open. Payload: its address."""
    CONNECTED = 2
    """`Venue.connected`."""
    RECEIVED = 3
    """`Venue.receive`. Payload: the message."""
    SENT = 4
    """A message was written. Payload: the message."""
    TIMER = 5
    """`Venue.timer`."""
    HTTP_REQUEST = 6
    """A request was made. Payload: `records.pack_http_request`."""
    HTTP_ANSWER = 7
    """`Venue.receive_http`. Payload: `records.pack_http_answer`."""
    DISCONNECTED = 8
    """`Venue.disconnected`. Payload: the reason."""
    RESUMED = 9
    """`Venue.resume`, with the instruments of the snapshot before it: a capture of another program begins so."""
    TWINNED = 10
    """A second socket was asked for. Payload: u32, the number of its venue."""
    TAKEN_OVER = 11
    """Another venue stands in this one's place. Payload: u32, its number."""
    COLLECTED = 12
    """`VenueFeed.collect`. Payload: u64 number of the batch or 0, u32 crc32 of its bytes or 0 (`records.COLLECTED`)."""

    # What a feed's process tells the core's.
    LINKED = 20
    """A core's process listens that knows nothing: `Outbox.begin`. Payload: u32 number of the link."""
    HANDED = 21
    """`Outbox.take` gave entries, and they were sent. Payload: u8 1 where everything was told anew, u32 how many records of
    kind ENTRY or BATCH follow, which are those entries in order (`records.HANDED`). Time: that given to `take`."""
    ENTRY = 22
    """An entry of the core's log that is no batch. Payload: `engine.log.encode_entry`."""
    BATCH = 23
    """A batch was sent. Time: the batch's own. Payload: u64 number, u32 rows, u32 crc32 of its bytes (`records.BATCH`)."""

    # What the core's process did.
    TOOK = 30
    """The core applied entries. Connection: the feed. Payload: u32 number of the link, u32 how many (`records.TOOK`)."""
    TICK = 31
    """A frame was made of everything before. Payload: u64 its number, then its hash."""

    # About the capture itself.
    SNAPSHOT = 40
    """The state of the feed at this instant follows. Payload: u32, in how many records."""
    INSTRUMENTS = 41
    """Active instruments. Payload: `records.pack_instruments`, in the ids of the connection or, for FEED_WIDE, the feed's."""
    QUOTES = 42
    """Last values of all instruments. Payload: `QuoteBatch` bytes in the feed's ids."""
    BOOKS = 43
    """Books that are followed. Payload: `records.pack_books`, in the feed's ids."""
    LOST = 44
    """Records that could not be kept, whose numbers are left out. Payload: `records.Loss` as MessagePack."""
    REMOVED = 45
    """Oldest segments were deleted to keep to the limits. Payload: a sentence."""
    NOTE = 46
    """Something worth knowing, in words."""
    END = 47
    """The stream was closed in good order."""


class SegmentHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment begins with."""

    stream: str
    sequence: int
    """Of the segment within its stream, from 1."""
    process: int
    """How many processes have written this stream, this one included."""
    opened_ns: int
    first: int
    """Number of its first record."""
    capture: str
    """Id of the capture, as in `capture.json`."""
    volsurf: str
    """Version of the package that wrote it."""
    is_snapshot: bool = False
    """It begins with a SNAPSHOT: reading can start here."""
    previous_bytes: int = 0
    """Size of the segment before it, of the same process; 0 where there is none."""
    settings: dict[str, Any] = {}
    """Of a feed: venue, feed, underlyings, url, shards, trades, books; `foreign` names the format it was imported from.
    Of the core: rules, frame_seconds."""
    kinds: dict[str, int] = {}
    """Names of the record kinds and their numbers, for readers of a later version."""


class IndexEntry(msgspec.Struct, frozen=True, array_like=True):
    """Where a block lies and what is in it."""

    offset: int
    first: int
    records: int
    least_ns: int
    greatest_ns: int
    stored: int
    """Bytes on disk, the header left out."""
    raw: int
    frames: int
    """Records of kind RECEIVED."""


class Damage(InputError):
    """Bytes of a capture that are not what was written."""


_HEAD = struct.Struct("<8sHHII")
_HEAD_MAGIC = b"VSCAPTUR"
BLOCK_HEADER = struct.Struct("<4sIIIQqqQIII")
BLOCK_MAGIC = b"VSBK"
INDEX_MAGIC = b"VSIX"
_TRAILER = struct.Struct("<QI4s")
_TRAILER_MAGIC = b"VSEN"
TRAILER_BYTES = _TRAILER.size
MOST_BLOCK_BYTES = 1 << 30
"""Longest block that is believed, raw or stored."""
_ROW_BYTES = 8 + 4 + 1 + 4


# --- segment head -----------------------------------------------------------------------------------------------------
def encode_head(head: SegmentHead) -> bytes:
    """The bytes a segment begins with."""
    data = msgspec.json.encode(head)
    return _HEAD.pack(_HEAD_MAGIC, VERSION, 0, len(data), zlib.crc32(data)) + data


def decode_head(data: bytes | memoryview) -> tuple[SegmentHead, int]:
    """The head of a segment and where its blocks begin; `Damage` where there is none."""
    if len(data) < _HEAD.size:
        raise Damage(f"a segment begins with {_HEAD.size} bytes, has {len(data)}")
    magic, version, _, length, checksum = _HEAD.unpack_from(data)
    if magic != _HEAD_MAGIC:
        raise Damage(f"not a segment of a capture: it begins with {magic!r}")
    if version != VERSION:
        raise Damage(f"a segment of version {version}; this reader knows version {VERSION}")
    text = bytes(data[_HEAD.size : _HEAD.size + length])
    if len(text) < length or zlib.crc32(text) != checksum:
        raise Damage("the head is cut short or damaged")
    try:
        return msgspec.json.decode(text, type=SegmentHead), _HEAD.size + length
    except msgspec.DecodeError as error:
        raise Damage(f"the head cannot be read: {error}") from None


# --- blocks -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What stands before a block's bytes."""

    magic: bytes
    entry: IndexEntry
    checksum: int

    @property
    def end(self) -> int:
        """Offset behind the block."""
        return self.entry.offset + BLOCK_HEADER.size + self.entry.stored


def decode_block_header(data: bytes | memoryview, at: int, offset: int) -> BlockHeader | None:
    """The header at position `at` of bytes that lie at `offset` of the file; None where there is none, or a damaged one."""
    if len(data) - at < BLOCK_HEADER.size:
        return None
    fields = BLOCK_HEADER.unpack_from(data, at)
    magic, stored, raw, records, first, least, greatest, frames, checksum, _, own = fields
    if magic not in (BLOCK_MAGIC, INDEX_MAGIC) or own != zlib.crc32(data[at : at + BLOCK_HEADER.size - 4]):
        return None
    if max(stored, raw) > MOST_BLOCK_BYTES or (magic == BLOCK_MAGIC and raw < records * _ROW_BYTES):
        return None
    return BlockHeader(magic, IndexEntry(offset + at, first, records, least, greatest, stored, raw, frames), checksum)


def _block(
    magic: bytes, stored: bytes, raw: int, records: int, first: int, times: tuple[int, int], frames: int
) -> bytes:
    fields = (magic, len(stored), raw, records, first, *times, frames, zlib.crc32(stored), 0)
    header = BLOCK_HEADER.pack(*fields, 0)[:-4]
    return b"".join((header, zlib.crc32(header).to_bytes(4, "little"), stored))


def encode_block(
    time_ns: npt.NDArray[np.int64],
    connection: npt.NDArray[np.uint32],
    kind: npt.NDArray[np.uint8],
    payloads: Sequence[bytes],
    *,
    first: int,
    compressor: zstandard.ZstdCompressor,
) -> bytes:
    """A block of records, header included.

    Args:
        time_ns, connection, kind: shape (n,), n ≥ 1. payloads: n of them. first: number of the first record.
    """
    lengths = np.fromiter(map(len, payloads), np.uint32, len(payloads))
    # Neighbours differ by little, so differences shrink to almost nothing; a step of the clock wraps and unwraps again.
    steps = np.diff(time_ns, prepend=np.int64(0))
    columns = (steps.astype("<i8"), connection.astype("<u4"), kind.astype("u1"), lengths.astype("<u4"))
    raw = b"".join((*(column.tobytes() for column in columns), *payloads))
    stored = compressor.compress(raw)
    times = (int(time_ns.min()), int(time_ns.max()))
    frames = int(np.count_nonzero(kind == RecordKind.RECEIVED))
    return _block(BLOCK_MAGIC, stored, len(raw), len(payloads), first, times, frames)


class Block:
    """Some records of a stream, in order.

    Attributes:
        time_ns: int64 (n,). connection: uint32 (n,). kind: uint8 (n,), values of `RecordKind`.
        first: number of the first record within its process. process: of the stream, from 1.
        stream, sequence, offset: where it lies.
    """

    def __init__(self, raw: bytes, records: int, first: int, *, stream: str = "", process: int = 1) -> None:
        if len(raw) < records * _ROW_BYTES:
            raise Damage(f"a block of {records} records cannot have {len(raw)} bytes")
        n = records
        self.time_ns: npt.NDArray[np.int64] = np.cumsum(np.frombuffer(raw, "<i8", n, 0))
        self.connection: npt.NDArray[np.uint32] = np.frombuffer(raw, "<u4", n, 8 * n)
        self.kind: npt.NDArray[np.uint8] = np.frombuffer(raw, "u1", n, 12 * n)
        self._lengths = np.frombuffer(raw, "<u4", n, 13 * n)
        if int(self._lengths.sum(dtype=np.int64)) != len(raw) - n * _ROW_BYTES:
            raise Damage("the payloads of a block do not add up to its bytes")
        self._raw = raw
        self.first, self.process, self.stream = first, process, stream
        self.sequence = self.offset = 0

    def __len__(self) -> int:
        return len(self.time_ns)

    def __repr__(self) -> str:
        return f"Block({self.stream}, {len(self)} records from number {self.first}, process {self.process})"

    @cached_property
    def payloads(self) -> list[bytes]:
        """The payload of each record."""
        raw, at = self._raw, len(self) * _ROW_BYTES
        payloads = []
        for length in self._lengths.tolist():
            payloads.append(raw[at : at + length])
            at += length
        return payloads

    @property
    def raw(self) -> bytes:
        """The bytes in which the payloads lie, see `payload_start`."""
        return self._raw

    @cached_property
    def payload_start(self) -> npt.NDArray[np.int64]:
        """Where each payload begins in `raw`, int64 (n,): for those who do not want them all."""
        starts: npt.NDArray[np.int64] = np.cumsum(self._lengths, dtype=np.int64) - self._lengths
        return starts + len(self) * _ROW_BYTES

    @property
    def payload_bytes(self) -> npt.NDArray[np.uint32]:
        """Lengths of the payloads, uint32 (n,)."""
        return self._lengths


def unpack_stored(header: BlockHeader, stored: bytes | memoryview, decompressor: zstandard.ZstdDecompressor) -> bytes:
    """The raw bytes of a block; `Damage` naming what is wrong."""
    import zstandard

    if len(stored) < header.entry.stored:
        raise Damage(f"cut short: {len(stored)} of {header.entry.stored} bytes")
    if zlib.crc32(stored) != header.checksum:
        raise Damage("its checksum does not hold")
    try:
        raw: bytes = decompressor.decompress(stored, max_output_size=max(1, header.entry.raw))
    except zstandard.ZstdError as error:
        raise Damage(f"it does not decompress ({error})") from None
    if len(raw) != header.entry.raw:
        raise Damage(f"it has {len(raw)} bytes, {header.entry.raw} were written")
    return raw


# --- footer -----------------------------------------------------------------------------------------------------------
def encode_footer(index: Sequence[IndexEntry], offset: int, compressor: zstandard.ZstdCompressor) -> bytes:
    """The footer of a segment, to lie at `offset`."""
    raw = msgspec.msgpack.encode(index)
    block = _block(INDEX_MAGIC, compressor.compress(raw), len(raw), len(index), 0, (0, 0), 0)
    at = offset.to_bytes(8, "little")
    return block + at + zlib.crc32(at).to_bytes(4, "little") + _TRAILER_MAGIC


def decode_trailer(data: bytes) -> int | None:
    """Offset of the footer, from the last bytes of a segment; None where they are no trailer."""
    if len(data) < TRAILER_BYTES:
        return None
    offset, checksum, magic = _TRAILER.unpack(data[-TRAILER_BYTES:])
    if magic != _TRAILER_MAGIC or checksum != zlib.crc32(data[-TRAILER_BYTES : -TRAILER_BYTES + 8]):
        return None
    return int(offset)


def decode_index(raw: bytes) -> list[IndexEntry]:
    """Inverse of the footer's content; `Damage` where it is none."""
    try:
        return msgspec.msgpack.decode(raw, type=list[IndexEntry])
    except msgspec.DecodeError as error:
        raise Damage(f"the index cannot be read: {error}") from None
