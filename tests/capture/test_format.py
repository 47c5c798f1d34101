"""The bytes of blocks, heads and footers: everything comes back, and nothing that was changed does."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, strategies as st

from tests.capture.recorded import records
from volsurf.capture import format as layout
from volsurf.capture.format import Block, BlockHeader, Damage, IndexEntry, SegmentHead
from volsurf.capture.recorder import Record

PACK, UNPACK = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
HEAD = SegmentHead(
    stream="core",
    sequence=3,
    process=2,
    opened_ns=5,
    first=77,
    capture="c0ffee",
    volsurf="0.1",
    settings={"a": [1, None]},
)


def encoded(rows: list[Record], first: int = 0) -> bytes:
    times, connections, kinds, payloads = zip(*rows, strict=True)
    return layout.encode_block(
        np.array(times, np.int64),
        np.array(connections, np.uint32),
        np.array(kinds, np.uint8),
        payloads,
        first=first,
        compressor=PACK,
    )


def decoded(data: bytes) -> tuple[BlockHeader, Block]:
    header = layout.decode_block_header(data, 0, 0)
    if header is None:
        raise Damage("no header")
    raw = layout.unpack_stored(header, data[layout.BLOCK_HEADER.size :], UNPACK)
    return header, Block(raw, header.entry.records, header.entry.first)


@given(records, st.integers(0, 2**60))
def test_a_block_holds_what_was_put_into_it(rows: list[Record], first: int) -> None:
    header, block = decoded(encoded(rows, first))
    columns = (block.time_ns.tolist(), block.connection.tolist(), block.kind.tolist(), block.payloads)
    assert list(zip(*columns, strict=True)) == rows
    times = [row[0] for row in rows]
    assert (header.entry.least_ns, header.entry.greatest_ns) == (min(times), max(times))
    assert (block.first, header.entry.records) == (first, len(rows))
    assert header.entry.frames == sum(row[2] == 3 for row in rows)


@given(records, st.data())
def test_a_flipped_bit_anywhere_in_a_block_is_found(rows: list[Record], data: st.DataObject) -> None:
    block = bytearray(encoded(rows))
    bit = data.draw(st.integers(0, 8 * len(block) - 1))
    block[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Damage):
        decoded(bytes(block))


@given(records, st.data())
def test_a_block_cut_short_is_found(rows: list[Record], data: st.DataObject) -> None:
    block = encoded(rows)
    with pytest.raises(Damage):
        decoded(block[: data.draw(st.integers(0, len(block) - 1))])


def test_a_head_comes_back_and_a_flipped_bit_in_it_is_found() -> None:
    data = layout.encode_head(HEAD)
    assert layout.decode_head(data + b"what follows") == (HEAD, len(data))
    for bit in range(0, 8 * len(data), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        if 80 <= bit < 96:
            continue  # the two bytes that are zero and say nothing
        with pytest.raises(Damage):
            layout.decode_head(bytes(changed))
    for length in range(len(data)):
        with pytest.raises(Damage):
            layout.decode_head(data[:length])


def test_a_later_version_is_refused_by_its_number() -> None:
    data = bytearray(layout.encode_head(HEAD))
    data[8] = 9
    with pytest.raises(Damage, match="version 9; this reader knows version 1"):
        layout.decode_head(bytes(data))


def test_a_footer_tells_where_it_begins_and_holds_the_index() -> None:
    index = [IndexEntry(100, 0, 5, -3, 9, 70, 120, 2), IndexEntry(230, 5, 1, 4, 4, 20, 18, 0)]
    data = layout.encode_footer(index, 310, PACK)
    assert layout.decode_trailer(data) == 310
    header = layout.decode_block_header(data, 0, 310)
    assert header is not None
    assert header.magic == layout.INDEX_MAGIC
    stored = data[layout.BLOCK_HEADER.size : layout.BLOCK_HEADER.size + header.entry.stored]
    assert layout.decode_index(layout.unpack_stored(header, stored, UNPACK)) == index
    for at in range(1, 17):
        changed = bytearray(data)
        changed[-at] ^= 0x40
        assert layout.decode_trailer(bytes(changed)) is None


def test_lengths_that_cannot_be_are_no_header() -> None:
    good = encoded([(1, 0, 3, b"data")])
    raw = layout.BLOCK_HEADER.unpack_from(good)
    for position, value in ((1, layout.MOST_BLOCK_BYTES + 1), (2, 3), (2, layout.MOST_BLOCK_BYTES + 1)):
        fields = list(raw)
        fields[position] = value
        header = layout.BLOCK_HEADER.pack(*fields)[:-4]
        data = header + zlib.crc32(header).to_bytes(4, "little")
        assert layout.decode_block_header(data, 0, 0) is None


@given(st.binary(max_size=200), st.integers(0, 20))
def test_raw_bytes_that_are_no_block_are_damage(raw: bytes, count: int) -> None:
    try:
        block = Block(raw, count, 0)
    except Damage:
        return
    assert sum(map(len, block.payloads)) == len(raw) - 17 * count
