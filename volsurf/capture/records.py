"""Payloads of records that carry more than bytes as they came."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
import numpy as np

from volsurf.errors import InputError
from volsurf.feeds.protocol import BookEvent, HttpRequest
from volsurf.instruments import Instrument, Universe

NUMBER = struct.Struct("<I")
"""TWINNED, TAKEN_OVER, LINKED, SNAPSHOT."""
COLLECTED = struct.Struct("<QI")
"""number, crc32"""
HANDED = struct.Struct("<BI")
"""whole, entries"""
BATCH = struct.Struct("<QII")
"""number, rows, crc32"""
TOOK = struct.Struct("<II")
"""link, entries"""
TICK = struct.Struct("<Q")
"""number; the frame's hash follows"""


class Loss(msgspec.Struct, frozen=True, array_like=True):
    """Records that were not kept."""

    records: int
    payload_bytes: int
    since_ns: int
    until_ns: int
    why: str


class Listing(msgspec.Struct, frozen=True, array_like=True):
    """Instruments and their ids."""

    ids: tuple[int, ...]
    instruments: tuple[Instrument, ...]


_encode = msgspec.msgpack.Encoder().encode
_answer = msgspec.msgpack.Decoder(tuple[str, int, bytes])
_request = msgspec.msgpack.Decoder(HttpRequest)
_loss = msgspec.msgpack.Decoder(Loss)
_listing = msgspec.msgpack.Decoder(Listing)
_books = msgspec.msgpack.Decoder(tuple[BookEvent, ...])


def pack_http_answer(key: str, status: int, body: bytes) -> bytes:
    """Payload of HTTP_ANSWER."""
    return _encode((key, status, body))


def unpack_http_answer(payload: bytes) -> tuple[str, int, bytes]:
    """key, status, body."""
    try:
        return _answer.decode(payload)
    except msgspec.DecodeError as error:
        raise InputError(f"not an HTTP answer: {error}") from None


def pack_http_request(request: HttpRequest) -> bytes:
    """Payload of HTTP_REQUEST."""
    return _encode(request)


def unpack_http_request(payload: bytes) -> HttpRequest:
    """Inverse of `pack_http_request`."""
    try:
        return _request.decode(payload)
    except msgspec.DecodeError as error:
        raise InputError(f"not an HTTP request: {error}") from None


def pack_instruments(universe: Universe) -> bytes:
    """Payload of INSTRUMENTS: those of a universe that are active."""
    ids = np.flatnonzero(universe.active).tolist()
    return _encode(Listing(tuple(ids), tuple(universe[i] for i in ids)))


def unpack_instruments(payload: bytes) -> Listing:
    """Inverse of `pack_instruments`."""
    try:
        return _listing.decode(payload)
    except msgspec.DecodeError as error:
        raise InputError(f"not a list of instruments: {error}") from None


def pack_books(books: Sequence[BookEvent]) -> bytes:
    """Payload of BOOKS: the snapshot that makes each book."""
    return _encode(books)


def unpack_books(payload: bytes) -> tuple[BookEvent, ...]:
    """Inverse of `pack_books`."""
    try:
        return _books.decode(payload)
    except msgspec.DecodeError as error:
        raise InputError(f"not order books: {error}") from None


def pack_loss(loss: Loss) -> bytes:
    """Payload of LOST."""
    return _encode(loss)


def unpack_loss(payload: bytes) -> Loss:
    """Inverse of `pack_loss`."""
    try:
        return _loss.decode(payload)
    except msgspec.DecodeError as error:
        raise InputError(f"not a loss: {error}") from None
