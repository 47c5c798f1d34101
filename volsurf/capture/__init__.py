"""Recording feeds and reading the recordings: the format of a capture, its writer and its reader.

    with vs.capture("deribit", ["BTC"], "captures/today") as recording:      # raw recording, without an engine
        ...
    capture = vs.open_capture("captures/today")
    for block in capture.blocks("feed-0-deribit"):
        block.time_ns, block.connection, block.kind                          # numpy arrays, one element a record
        block.payloads                                                       # list of bytes, one a record

**A capture is a directory.** It holds `capture.json` (what made it and when), `lock` (held by its writer while it lives),
and segments `<stream>.<sequence>.vscap`, counted from 1. One stream per process that records: `feed-<n>-<venue>` for the
n-th feed, `core` for the core's process. A stream is a numbered sequence of records; a segment is a stretch of it that can be
read by itself. A stream whose process died and was started again goes on in further segments with the next `process` number:
connections, instrument ids and record numbers begin anew there.

**A record** is (time_ns, connection, kind, payload). `RecordKind` says what each kind means, `volsurf.capture.records` packs
and unpacks the payloads. Within a process records lie in the order in which things happened, which is not always the order of
their times: a clock may be set, and a batch carries the time it was made.

**Segment** = head, blocks, footer. All integers are little-endian; every checksum is `zlib.crc32`.

    head     magic "VSCAPTUR", u16 version, u16 zero, u32 length, u32 checksum; JSON of that length (`SegmentHead`)
    block    magic "VSBK", u32 stored bytes, u32 raw bytes, u32 records, u64 number of the first record,
             i64 least and i64 greatest time_ns, u64 received frames, u32 checksum of the stored bytes, u32 zero,
             u32 checksum of the 56 bytes before; then one zstd frame, of these raw bytes, n being the records:
                 n × i64 time_ns, each less the one before; n × u32 connection; n × u8 kind; n × u32 payload length; payloads
    footer   a block of magic "VSIX" that holds the index as MessagePack (`IndexEntry` of each block);
             then u64 its offset, u32 checksum of those 8 bytes, magic "VSEN"

A segment that has no footer was cut off by the end of its process. Its index is made by reading the block headers; after
damaged bytes the search goes on at the next header whose own checksum holds. The head of a segment tells the size of the one
before it, and `<stream>.closed` that of the last one of a process that ended in good order, so a file that was cut short later
is told from one whose process was killed.

**To begin in the middle**, each segment of a feed but a process's first begins with a SNAPSHOT record and those it announces:
instruments of each connection, instruments and last values of the feed, books. `Venue.resume` and `QuoteBoard.apply` take them.

**What the core was told** is kept without being written twice. A feed records every call into its venues and each `collect`
with the number and crc32 of the batch, so the batches can be made again; all other entries it sends are records verbatim
(ENTRY), and each message sent is announced by HANDED. The core records how many entries of which link it took (TOOK), its
own entries (ENTRY), and the number and hash of each frame (TICK).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Capture(ModuleType):
    # `vs.capture(…)` is the public name of a function and `volsurf.capture` that of its package: one object has to be both.
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Record venues' raw feeds: `volsurf.capture.recording.Recording` with the same arguments."""
        from volsurf.capture.recording import Recording

        return Recording(*arguments, **options)


sys.modules[__name__].__class__ = _Capture
