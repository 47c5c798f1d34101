"""Captures of other programs into ours: `volsurf capture import FILE --format cryptofeed --venue deribit`.

Only what the file holds is written: its messages at their times. It has no calls of `collect` and nothing that a core was
told, so it is replayed on a clock of one's own, not exactly. Of a venue whose protocol volsurf speaks the instruments are those
whose channels were asked for, as their names say them; of any other the messages are kept raw, to be read, not replayed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from volsurf.capture.directory import CaptureOptions, claim
from volsurf.capture.format import FEED_WIDE, RecordKind
from volsurf.capture.reader import Capture, open_capture
from volsurf.capture.recorder import Record
from volsurf.capture.records import pack_http_answer
from volsurf.capture.writer import StreamWriter
from volsurf.errors import ConfigError

FORMATS = ("cryptofeed",)
PLAYED = ("deribit",)
"""Venues whose foreign captures volsurf can play."""
_OPTIONS = CaptureOptions(min_free_mb=0, pending_mb=1e6, segment_seconds=1e9)
"""A file is read as fast as it is written, and its records' times have nothing to do with the clock."""


def import_capture(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, venue: str, format: str = "cryptofeed"
) -> Capture:
    """Write a foreign capture as one of ours, and open that.

    Args:
        path: the file, plain or gzipped. out: directory of the new capture. venue: whose messages they are. format: `FORMATS`.

    Raises:
        InputError: the file cannot be read, is of another form, or is not of the venue named.
        ConfigError: an unknown format; a name that cannot be a venue's.
    """
    if format not in FORMATS:
        raise ConfigError(f"no format {format!r} can be imported; there are: {', '.join(FORMATS)}")
    if not venue.isidentifier():
        raise ConfigError(f"a venue's name is a word of letters, digits and _, was {venue!r}")
    file = Path(path).expanduser()
    settings, records = _played(file, venue) if venue in PLAYED else _raw(file, venue)
    settings = {"feed": 0, "venue": venue, "foreign": format, "file": file.name, **settings}
    claimed = claim(out, {"imported": file.name, "format": format, "venue": venue})
    try:
        now = 0
        writer = StreamWriter(
            claimed.path,
            f"feed-0-{venue}",
            capture=claimed.id,
            options=_OPTIONS,
            settings=settings,
            # What the writer itself notes, such as the end, belongs to the file's time too.
            clock=lambda: now,
        )
        try:
            for record in records:
                now = record[0]
                writer.recorder.put(*record)
        finally:
            writer.close(timeout=600.0)
    finally:
        claimed.release()
    return open_capture(claimed.path)


def _played(path: Path, venue: str) -> tuple[dict[str, Any], Iterable[Record]]:
    """Settings and records of a file whose messages a venue of ours can take."""
    from volsurf.replay.foreign import ForeignSource

    source = ForeignSource(path)
    if venue not in source.venues:
        raise ConfigError(f"{path} holds messages of {', '.join(source.venues)}, not of {venue}")
    block = source.block()
    records = zip(block.time_ns.tolist(), block.connection.tolist(), block.kind.tolist(), block.payloads, strict=True)
    return dict(source.settings), records


def _raw(path: Path, venue: str) -> tuple[dict[str, Any], Iterable[Record]]:
    """Settings and records of a file whose messages can only be kept."""
    from volsurf.replay.cryptofeed import Direction, read_cryptofeed

    kinds = {
        Direction.OPENED: RecordKind.OPENED,
        Direction.SENT: RecordKind.SENT,
        Direction.RECEIVED: RecordKind.RECEIVED,
        Direction.ANSWERED: RecordKind.HTTP_ANSWER,
    }

    def read() -> Iterator[Record]:
        said = f"volsurf does not speak the protocol of {venue}: these messages are kept as they came"
        noted = False
        for line in read_cryptofeed(path):
            if not noted:
                noted = True
                yield line.time_ns, FEED_WIDE, RecordKind.NOTE, said.encode()
            answered = line.direction is Direction.ANSWERED
            data = pack_http_answer(line.url, 200, line.data) if answered else line.data or line.url.encode()
            yield line.time_ns, 0, int(kinds[line.direction]), data

    return {"underlyings": [], "protocol": False}, list(read())
