"""Reading one segment: its head, its index or what can be found of it, its blocks."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from volsurf.capture import format as layout
from volsurf.capture.format import Block, Damage, IndexEntry, SegmentHead

_NAME = re.compile(r"(?P<stream>[A-Za-z0-9_.-]+)\.(?P<sequence>\d{6,})\.vscap")
_HEAD_BYTES = 1 << 16


class SegmentName(NamedTuple):
    """A segment's file name, taken apart."""

    stream: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.stream}.{self.sequence:06d}{layout.SUFFIX}"


def segment_names(path: Path) -> list[SegmentName]:
    """The segments in a directory, by stream, in order."""
    matches = map(_NAME.fullmatch, os.listdir(path))
    return sorted(SegmentName(match["stream"], int(match["sequence"])) for match in matches if match)


class Segment:
    """One file of a stream.

    Attributes:
        head: what it begins with. index: its blocks. bytes: its size when it was looked at.
        is_closed: it has a footer. torn_bytes: bytes at its end that are no whole block.
        damage: what was found wrong so far, in sentences.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[str] = []
        self.torn_bytes = 0
        self.is_closed = False
        self.index: list[IndexEntry] = []
        with open(path, "rb") as file:
            self.bytes = os.fstat(file.fileno()).st_size
            self.head, self._start = self._read_head(file.read(_HEAD_BYTES))
            if self.bytes:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                    self._read_index(data, view)

    def __repr__(self) -> str:
        return f"Segment({self.path.name}, {len(self.index)} blocks, {'closed' if self.is_closed else 'not closed'})"

    @property
    def records(self) -> int:
        """Records in its blocks."""
        return sum(entry.records for entry in self.index)

    @property
    def next_first(self) -> int:
        """Number of the record after its last one."""
        return self.index[-1].first + self.index[-1].records if self.index else self.head.first

    def blocks(self, start_ns: int | None = None, end_ns: int | None = None) -> Iterator[Block]:
        """Its blocks that hold records of [start_ns, end_ns], whole; damaged ones are left out and noted in `damage`."""
        import zstandard

        decompressor = zstandard.ZstdDecompressor()
        with open(self.path, "rb") as file:
            for entry in self.index:
                if (start_ns is not None and entry.greatest_ns < start_ns) or (
                    end_ns is not None and entry.least_ns > end_ns
                ):
                    continue
                file.seek(entry.offset)
                data = file.read(layout.BLOCK_HEADER.size + entry.stored)
                try:
                    yield self._decode(data, entry, decompressor)
                except Damage as error:
                    self._note(f"block of {entry.records:,} records at byte {entry.offset:,}: {error}")

    def _decode(self, data: bytes, entry: IndexEntry, decompressor: object) -> Block:
        header = layout.decode_block_header(data, 0, entry.offset)
        if header is None or header.entry != entry:
            raise Damage("its header is damaged")
        raw = layout.unpack_stored(header, memoryview(data)[layout.BLOCK_HEADER.size :], decompressor)  # type: ignore[arg-type]
        block = Block(raw, entry.records, entry.first, stream=self.head.stream, process=self.head.process)
        block.sequence, block.offset = self.head.sequence, entry.offset
        return block

    def _note(self, sentence: str) -> None:
        if sentence not in self.damage:
            self.damage.append(sentence)

    def _read_head(self, data: bytes) -> tuple[SegmentHead, int]:
        try:
            return layout.decode_head(data)
        except Damage as error:
            # Its blocks can be read all the same; what they belong to is in the name.
            match = _NAME.fullmatch(self.path.name)
            if match is None:
                raise
            if self.bytes:
                self._note(f"head: {error}")
            head = SegmentHead(
                stream=match["stream"],
                sequence=int(match["sequence"]),
                process=0,
                opened_ns=0,
                first=0,
                capture="",
                volsurf="",
            )
            return head, 0

    def _read_index(self, data: mmap.mmap, view: memoryview) -> None:
        offset = layout.decode_trailer(bytes(view[-layout.TRAILER_BYTES :]))
        if offset is not None:
            try:
                self.index = self._read_footer(view, offset)
                self.is_closed = True
                return
            except Damage as error:
                self._note(f"index: {error}")
        self._scan(data, view)

    def _read_footer(self, view: memoryview, offset: int) -> list[IndexEntry]:
        import zstandard

        header = layout.decode_block_header(view[offset : offset + layout.BLOCK_HEADER.size], 0, offset)
        if header is None or header.magic != layout.INDEX_MAGIC:
            raise Damage("its header is damaged")
        if header.end + layout.TRAILER_BYTES != self.bytes:
            raise Damage("it does not end where the file does")
        stored = view[offset + layout.BLOCK_HEADER.size : header.end]
        index = layout.decode_index(layout.unpack_stored(header, stored, zstandard.ZstdDecompressor()))
        ends = [entry.offset + layout.BLOCK_HEADER.size + entry.stored for entry in index]
        if [*(entry.offset for entry in index), offset] != [self._start, *ends]:
            raise Damage("it does not tell where the blocks are")
        return index

    def _scan(self, data: mmap.mmap, view: memoryview) -> None:
        """Find blocks by their headers, and check their bytes: nobody vouches for a segment that was not closed."""
        at = self._start
        while at < self.bytes:
            header = layout.decode_block_header(view, at, 0)
            if header is not None and header.end <= self.bytes:
                if header.magic == layout.INDEX_MAGIC:
                    # The trailer behind it is damaged, or cut short, or missing.
                    self._note(f"the end of the index, at byte {header.end:,}, is damaged")
                    return
                self._take(header, view)
                at = header.end
                continue
            found = self._next_header(data, view, at + 1)
            if found is None:
                self.torn_bytes = self.bytes - at
                return
            self._note(f"{found - at:,} bytes from byte {at:,} on are no block")
            at = found

    def _take(self, header: layout.BlockHeader, view: memoryview) -> None:
        import zstandard

        start = header.entry.offset + layout.BLOCK_HEADER.size
        try:
            layout.unpack_stored(header, view[start : header.end], zstandard.ZstdDecompressor())
        except Damage as error:
            self._note(f"block of {header.entry.records:,} records at byte {header.entry.offset:,}: {error}")
        else:
            self.index.append(header.entry)

    def _next_header(self, data: mmap.mmap, view: memoryview, at: int) -> int | None:
        while (at := data.find(layout.BLOCK_MAGIC, at)) >= 0:
            header = layout.decode_block_header(view, at, 0)
            if header is not None and header.end <= self.bytes:
                return at
            at += 1
        return None
