"""Writing one segment: whole blocks or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from volsurf.capture import format as layout
from volsurf.capture.format import IndexEntry, SegmentHead

if TYPE_CHECKING:
    import zstandard

Write = Callable[[int, bytes | memoryview], int]
"""`os.write`, or what stands in for it to make a disk fail."""


class SegmentFile:
    """A segment that is being written.

    Attributes:
        path: of the file. bytes: its size. index: its blocks.

    Raises:
        OSError: the disk is full or broken; the file then holds what it held before the call, or was not made.
    """

    def __init__(self, path: Path, head: SegmentHead, *, write: Write = os.write) -> None:
        self.path, self.head, self._write = path, head, write
        self.bytes = 0
        self.index: list[IndexEntry] = []
        # Never one that exists: a mistake in counting must not cost what was recorded.
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            self._append(layout.encode_head(head))
        except OSError:
            os.close(self.fd)
            path.unlink()
            raise

    def append(self, block: bytes) -> None:
        """Write a block."""
        header = layout.decode_block_header(block, 0, 0)
        assert header is not None
        fields = header.entry
        offset = self.bytes
        self._append(block)
        self.index.append(
            IndexEntry(
                offset,
                fields.first,
                fields.records,
                fields.least_ns,
                fields.greatest_ns,
                fields.stored,
                fields.raw,
                fields.frames,
            )
        )

    def seal(self, compressor: zstandard.ZstdCompressor) -> None:
        """Write the footer."""
        self._append(layout.encode_footer(self.index, self.bytes, compressor))

    def close(self) -> None:
        """Close the file as it is; readers find the blocks of one without a footer all the same."""
        os.close(self.fd)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._write(self.fd, rest) :]
        except OSError:
            # Half a block is of no use to anybody. Making a file shorter works on a full disk too.
            os.ftruncate(self.fd, self.bytes)
            os.lseek(self.fd, self.bytes, os.SEEK_SET)
            raise
        self.bytes += len(data)
