"""Streams that tests write, and what is in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from volsurf.capture.directory import CaptureOptions, claim
from volsurf.capture.format import RecordKind
from volsurf.capture.reader import Capture, open_capture
from volsurf.capture.recorder import Record
from volsurf.capture.writer import StreamWriter

FEED = "feed-0-deribit"
SETTINGS = {"venue": "deribit", "feed": 0, "underlyings": ["BTC"]}
QUICK = CaptureOptions(flush_seconds=0.005, min_free_mb=0)

PLAIN = [kind for kind in RecordKind if kind not in (RecordKind.LOST, RecordKind.SNAPSHOT)]
"""Kinds that mean nothing to the writer."""

records = st.lists(
    st.tuples(
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**32 - 1),
        st.sampled_from([int(kind) for kind in PLAIN]),
        st.binary(max_size=300),
    ),
    min_size=1,
    max_size=60,
)


def messages(count: int, *, size: int = 40, start: int = 0) -> list[Record]:
    """Received frames, one a millisecond, each with its number in it."""
    return [(i * 1_000_000, 0, 3, b"%08d" % i + b"x" * (size - 8)) for i in range(start, start + count)]


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s"
        time.sleep(0.002)


class Written:
    """A capture of one stream under a test's hand; leaving the block closes it."""

    def __init__(self, path: Path, stream: str = FEED, options: CaptureOptions = QUICK, **more: Any) -> None:
        self._claim = claim(path)
        self.path = self._claim.path
        self.open_writer(stream, options, **more)

    def open_writer(self, stream: str = FEED, options: CaptureOptions = QUICK, **more: Any) -> StreamWriter:
        """Another process's writer, as it were."""
        self.writer = StreamWriter(
            self.path, stream, capture=self._claim.id, options=options, settings=SETTINGS, **more
        )
        return self.writer

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.close()
        self._claim.release()

    def put(self, records: Iterable[Record]) -> None:
        """Leave records, and wait until they are written."""
        before = self.writer.records
        count = 0
        for record in records:
            self.writer.recorder.put(*record)
            count += 1
        until(lambda: self.writer.records >= before + count)


def write(path: Path, pieces: Iterable[Iterable[Record]], **more: Any) -> Capture:
    """A closed capture of one stream; each piece is a block of its own."""
    with Written(path, **more) as written:
        for piece in pieces:
            written.put(piece)
    return open_capture(written.path)


def read(capture: Capture, stream: str = FEED) -> list[Record]:
    """Every record that can be read, the END of the stream left out."""
    found: list[Record] = []
    for block in capture.blocks(stream):
        rows = zip(block.time_ns.tolist(), block.connection.tolist(), block.kind.tolist(), block.payloads, strict=True)
        found += [row for row in rows if row[2] != RecordKind.END]
    return found
