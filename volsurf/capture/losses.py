"""What is missing from a stream, in sentences: what was removed, dropped, damaged, or cut off by the end of its process."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from volsurf.capture.format import IndexEntry, RecordKind
from volsurf.capture.records import Loss, unpack_loss
from volsurf.errors import InputError

if TYPE_CHECKING:
    from volsurf.capture.reader import Stream
    from volsurf.capture.segments import Segment


def losses_of(stream: Stream, is_live: bool) -> list[str]:
    """Everything known to be missing from a stream; what its writer has not written yet is not."""
    return [*removed(stream), *damaged(stream), *dropped(stream), *cut_off(stream, is_live)]


def removed(stream: Stream) -> list[str]:
    """The oldest segments, where they were deleted."""
    count = stream.segments[0].head.sequence - 1
    return [f"{stream.name}: its first {count} segment{'s were' if count > 1 else ' was'} removed"] if count else []


def damaged(stream: Stream) -> list[str]:
    """Bytes that are not what was written: those found so far."""
    sentences = [f"{segment.path.name}: {what}" for segment in stream.segments for what in segment.damage]
    sequences = [segment.head.sequence for segment in stream.segments]
    for before, behind in pairwise(sequences):
        if behind > before + 1:
            sentences.append(f"{stream.name}: of its segments {before + 1} to {behind - 1} are missing")
    for segment, after in pairwise(stream.segments):
        same = after.head.process == segment.head.process and after.head.sequence == segment.head.sequence + 1
        if same and after.head.previous_bytes and after.head.previous_bytes != segment.bytes:
            sentences.append(_cut_short(segment, after.head.previous_bytes))
    by_sequence = {segment.head.sequence: segment for segment in stream.segments}
    for closing in stream.closings.values():
        # By its number: what process a segment is of is not known where its head is damaged.
        last = by_sequence.get(closing.sequence)
        if last is None:
            if closing.sequence > sequences[0]:
                sentences.append(f"{stream.name}: segment {closing.sequence}, the last one of a process, is missing")
        elif closing.bytes != last.bytes:
            sentences.append(_cut_short(last, closing.bytes))
    return sentences


def dropped(stream: Stream) -> list[str]:
    """Records whose numbers are left out, with the reason where the writer gave one."""
    sentences = []
    for segment, before, entry in _gaps(stream):
        loss = _loss_in(segment, entry)
        count = entry.first - before
        if loss is not None:
            span = f"between {_time(loss.since_ns)} and {_time(loss.until_ns)}"
            sentences.append(f"{stream.name}: {count:,} records {span} were not kept: {loss.why}")
        else:
            sentences.append(f"{stream.name}: {count:,} records before {_time(entry.least_ns)} are missing")
    return sentences


def cut_off(stream: Stream, is_live: bool) -> list[str]:
    """Processes that ended without closing the stream."""
    sentences = []
    last_process = stream.segments[-1].head.process
    for segment in _last_ones(stream):
        process = segment.head.process
        if process in stream.closings or segment.is_closed or (is_live and process == last_process):
            continue
        when = _time(segment.index[-1].greatest_ns) if segment.index else "its first record"
        torn = f", and {segment.torn_bytes:,} bytes of an unfinished block" if segment.torn_bytes else ""
        sentences.append(
            f"{stream.name}: its process was ended while it wrote; what came after {when} is missing "
            f"(a second's worth at most, or what the disk did not take{torn})"
        )
    return sentences


def _last_ones(stream: Stream) -> list[Segment]:
    return list({segment.head.process: segment for segment in stream.segments}.values())


def _gaps(stream: Stream) -> list[tuple[Segment, int, IndexEntry]]:
    """Blocks whose first record is not the one after the last of the block before, with the number that was due."""
    found = []
    process, due, sequence = 0, 0, 0
    for segment in stream.segments:
        head = segment.head
        if head.process != process or head.sequence != sequence + 1:
            process, due = head.process, head.first
        sequence = head.sequence
        for entry in segment.index:
            if entry.first > due:
                found.append((segment, due, entry))
            due = entry.first + entry.records
    return found


def _loss_in(segment: Segment, entry: IndexEntry) -> Loss | None:
    """The LOST record at the beginning of a block."""
    for block in segment.blocks(entry.least_ns, entry.greatest_ns):
        if block.first != entry.first:
            continue
        if block.kind[0] != RecordKind.LOST:
            return None
        try:
            return unpack_loss(block.payloads[0])
        except InputError:
            return None
    return None


def _cut_short(segment: Segment, size: int) -> str:
    return f"{segment.path.name}: it has {segment.bytes:,} bytes, {size:,} were written"


def _time(time_ns: int) -> str:
    from volsurf.capture.reader import clock

    return clock(time_ns)
