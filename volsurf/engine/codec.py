"""The bytes of a frame: what the engine's stream carries and what a frame's hash is taken over.

Little-endian throughout. A *block* is one smile with its fit; equal smiles have equal blocks, bit for bit, so doubles round-trip
exactly and a block's digest identifies its content:

    0   4  u32 length h of the block's header
    4   4  u32 rows n
    8   h  header, MessagePack: [[the smile's scalars, in the order of its fields], [the fit's fields, in order] or nil]
           zero bytes to a multiple of 8
        …  the columns of `COLUMNS`, each whole and padded with zero bytes to a multiple of 8

A *message* is a snapshot (all blocks) or a patch (the blocks that differ from frame `base`):

    0   4  magic "VSF2"
    4   4  u32 length h of the header
    8  16  blake2b-128 of the header
   24   h  header, MessagePack of `Header`; zero bytes to a multiple of 8
        …  the blocks, in the order in which the header names them

The header's digest covers the header, and its `state_hash` covers the digests of all blocks, sent now or before. So every byte is
checked, and what a client holds is what the engine held or the client knows that it is not.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple, get_type_hints

import msgspec
import numpy as np

from volsurf.engine.log import Liveness
from volsurf.errors import StreamError, VolsurfError
from volsurf.surface.slices import SliceFit, Smile

MAGIC = b"VSF2"
DIGEST_BYTES = 16

COLUMNS: tuple[tuple[str, str], ...] = (
    ("strike", "<f8"),
    ("log_moneyness", "<f8"),
    ("bid_vol", "<f8"),
    ("ask_vol", "<f8"),
    ("vol", "<f8"),
    ("error", "<f8"),
    ("instrument_id", "<i4"),
    ("side", "|i1"),
    ("is_call", "|b1"),
    ("reason", "|u1"),
)
"""Name and type of a block's columns, in order."""

_COLUMN_NAMES = frozenset(name for name, _ in COLUMNS)
_SMILE_SCALARS = tuple(f.name for f in fields(Smile) if f.name not in _COLUMN_NAMES and f.name != "fit")
_FIT_FIELDS = tuple(f.name for f in fields(SliceFit))
_DTYPES = tuple(np.dtype(dtype) for _, dtype in COLUMNS)
_smile_columns = attrgetter(*(name for name, _ in COLUMNS))
_smile_values = attrgetter(*_SMILE_SCALARS)
_fit_values = attrgetter(*_FIT_FIELDS)
_PREFIX = struct.Struct("<II")
_ENVELOPE = struct.Struct("<4sI16s")


def _row_type(owner: type, names: Sequence[str]) -> type[msgspec.Struct]:
    """A struct that reads a list of values as the named fields, with the types the class declares."""
    hints = get_type_hints(owner)
    return msgspec.defstruct(f"_{owner.__name__}Row", [(n, hints[n]) for n in names], array_like=True)


_SmileRow = _row_type(Smile, _SMILE_SCALARS)
_FitRow = _row_type(SliceFit, _FIT_FIELDS)
_block_decoder = msgspec.msgpack.Decoder(tuple[_SmileRow, _FitRow | None])  # type: ignore[valid-type]
_encoder = msgspec.msgpack.Encoder()


class Block(NamedTuple):
    """The bytes of one smile and their blake2b-128."""

    data: bytes
    digest: bytes


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 8)


def _digest(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def encode_smile(smile: Smile) -> Block:
    """The block of a smile."""
    fit = None if smile.fit is None else _fit_values(smile.fit)
    header = _encoder.encode((_smile_values(smile), fit))
    parts: list[Any] = [_PREFIX.pack(len(header), len(smile.strike)), header, _padding(len(header))]
    for array, dtype in zip(_smile_columns(smile), _DTYPES, strict=True):
        # Joined as the buffers they are: a copy of each first would cost half of the whole encoding.
        parts.append(array if array.dtype is dtype and array.flags.c_contiguous else np.ascontiguousarray(array, dtype))
        if array.nbytes % 8 or dtype.itemsize % 8:
            parts.append(_padding(len(array) * dtype.itemsize))
    data = b"".join(parts)
    return Block(data, _digest(data))


def decode_smile(data: bytes) -> Smile:
    """Inverse of `encode_smile`, with columns that are read-only views of the bytes; `StreamError` on anything else."""
    try:
        length, rows = _PREFIX.unpack_from(data)
        offset = _PREFIX.size + length + len(_padding(length))
        expected = offset + sum(-(-rows * np.dtype(dtype).itemsize // 8) * 8 for _, dtype in COLUMNS)
        if len(data) != expected:
            raise StreamError(f"a smile of {rows} quotes has {expected} bytes, was {len(data)}")
        scalars, fit = _block_decoder.decode(memoryview(data)[_PREFIX.size : _PREFIX.size + length])
        columns: dict[str, Any] = {}
        for name, dtype in COLUMNS:
            columns[name] = np.frombuffer(data, dtype, rows, offset)
            offset += -(-rows * np.dtype(dtype).itemsize // 8) * 8
        if columns["is_call"].view(np.uint8).max(initial=0) > 1:
            raise StreamError("a flag of a smile is neither 0 nor 1")
        values: dict[str, Any] = columns | {name: getattr(scalars, name) for name in _SMILE_SCALARS}
        values["fit"] = None if fit is None else SliceFit(*(getattr(fit, name) for name in _FIT_FIELDS))
        return Smile(**values)
    except StreamError:
        raise
    except (struct.error, msgspec.DecodeError, ValueError, TypeError, OverflowError, VolsurfError) as error:
        raise StreamError(f"not a smile: {error}") from error


class FeedStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a feed is at a frame's time."""

    name: str
    state: str
    """A `FeedState`, or why it is not live although it is ready: "silent" (nothing comes, or no quotes), "maintenance", or "late"
    (its time stamps are far behind those of other feeds)."""
    is_live: bool
    """Its quotes may be fitted."""
    silent_ns: int
    """Since anything was heard: of its process, or by its sockets, whichever is longer ago."""
    connections: int
    connected: int
    messages: int
    malformed: int
    reconnects: int
    heartbeats_missed: int
    late_batches: int
    sentence: str
    left_out: tuple[str, ...] = ()
    """Underlyings whose smiles its quotes have left, because it is not live and another feed of them is."""
    liveness: Liveness = Liveness()


class Problem(msgspec.Struct, frozen=True):
    """Something that failed inside a frame and was kept from the rest of it."""

    underlying: str
    """"" where it concerns all."""
    stage: str
    """"quotes", "fit", "feed" or "clock"."""
    sentence: str


class SurfaceEntry(msgspec.Struct, frozen=True, array_like=True):
    """Of one surface in a message: all its expiries in order, and the length of each block that follows; 0 for unchanged."""

    underlying: str
    time_ns: int
    expiries: tuple[tuple[int, int], ...]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a frame but its blocks."""

    number: int
    base: int | None
    """Number of the frame this is a patch of; None for a snapshot."""
    time_ns: int
    state_hash: bytes
    surfaces: tuple[SurfaceEntry, ...]
    """Of a patch: those that changed."""
    removed: tuple[str, ...] = ()
    """Underlyings that frame `base` had and this one has not."""
    health: tuple[FeedStatus, ...] = ()
    feed_numbers: dict[str, int] = {}
    problems: tuple[Problem, ...] = ()
    listed: dict[str, tuple[int, ...]] = {}
    ledger: dict[str, dict[str, int]] = {}
    timings: dict[str, float] = {}


_header_decoder = msgspec.msgpack.Decoder(Header)


def state_hash(surfaces: Mapping[str, tuple[int, Mapping[int, Block]]]) -> bytes:
    """blake2b-128 over every surface: its name, time, and the expiry and digest of each of its blocks."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for underlying in sorted(surfaces):
        time_ns, blocks = surfaces[underlying]
        name = underlying.encode()
        state.update(struct.pack("<IqI", len(name), time_ns, len(blocks)))
        state.update(name)
        for expiry_ns, block in blocks.items():
            state.update(struct.pack("<q", expiry_ns))
            state.update(block.digest)
    return state.digest()


def encode_message(header: Header, blocks: Sequence[Block]) -> bytes:
    """A whole message. The lengths in the header's entries must be those of the blocks, in order."""
    head = _encoder.encode(header)
    envelope = _ENVELOPE.pack(MAGIC, len(head), _digest(head))
    return b"".join((envelope, head, _padding(len(head)), *(block.data for block in blocks)))


def decode_header(data: bytes) -> tuple[Header, int]:
    """The header of a message and where its blocks begin; `StreamError` where it is not one."""
    if len(data) < _ENVELOPE.size:
        raise StreamError(f"a message starts with {_ENVELOPE.size} bytes, was {len(data)}")
    magic, length, digest = _ENVELOPE.unpack_from(data)
    if magic != MAGIC:
        raise StreamError(f"not a version 2 message: it starts with {magic!r}")
    end = _ENVELOPE.size + length
    raw = memoryview(data)[_ENVELOPE.size : end]
    padding = _padding(end)
    if len(raw) != length or _digest(raw) != digest or data[end : end + len(padding)] != padding:
        raise StreamError("the header of a message was damaged or cut short")
    try:
        return _header_decoder.decode(raw), end + len(padding)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise StreamError(f"not the header of a message: {error}") from error


def is_patch(data: bytes) -> bool:
    """Whether a message is a patch; `StreamError` where it is no message."""
    return decode_header(data)[0].base is not None


def read_blocks(data: bytes, start: int, header: Header) -> dict[tuple[str, int], Block]:
    """The blocks of a message by underlying and expiry; `StreamError` where they are not as the header says."""
    blocks: dict[tuple[str, int], Block] = {}
    view = memoryview(data)
    for entry in header.surfaces:
        for expiry_ns, length in entry.expiries:
            if length == 0:
                continue
            # A negative length, or one beyond the end, shows in the length of what is cut out.
            raw = bytes(view[start : start + length])
            if len(raw) != length:
                raise StreamError(f"the message ends inside the block of {entry.underlying} {expiry_ns}")
            blocks[entry.underlying, expiry_ns] = Block(raw, _digest(raw))
            start += length
    if start != len(data):
        raise StreamError(f"{len(data) - start} bytes follow the last block of a message")
    return blocks
