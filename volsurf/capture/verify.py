"""Checking a capture: every checksum, every sequence, and that what the core took is what the feeds sent."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

from volsurf.capture.format import RecordKind
from volsurf.capture.losses import cut_off, damaged, dropped, removed
from volsurf.capture.reader import Capture, Stream
from volsurf.capture.records import COLLECTED, HANDED, NUMBER, TICK, TOOK


@dataclass(slots=True)
class Verification:
    """What was found.

    Attributes:
        damage: what is not as it was written, a sentence each; empty for a good capture.
        lost: what is missing for a reason: the process was ended, the disk was full, old segments were deleted.
        blocks, records, bytes: that were read.
    """

    damage: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    blocks: int = 0
    records: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not self.damage


def verify(capture: Capture) -> Verification:
    """Read all of a capture and say what is wrong with it."""
    found = Verification()
    sent: dict[tuple[int, int], int] = {}
    whole = True
    for stream in sorted(capture.streams.values(), key=lambda stream: stream.is_core):
        walk = _Walk(stream)
        for block in capture.blocks(stream.name):
            found.blocks += 1
            found.records += len(block)
            walk.take(block.process, block.kind.tolist(), block.connection.tolist(), block.payloads)
        found.bytes += stream.bytes
        found.damage += [*damaged(stream), *walk.damage]
        missing = [*removed(stream), *dropped(stream), *cut_off(stream, capture.is_live)]
        found.lost += missing
        if stream.is_core:
            # What a feed had not written when it was ended, or what was lost on its way, cannot be compared.
            found.damage += _compare(walk.took, sent) if whole and not capture.is_live else []
        else:
            whole = whole and not missing and not walk.damage
            sent.update({(stream.feed, link): count for link, count in walk.handed.items()})
    if capture.manifest is not None:
        for stream in capture.streams.values():
            strange = [s.path.name for s in stream.segments if s.head.capture not in ("", capture.manifest.id)]
            found.damage += [f"{name}: it belongs to another capture" for name in strange]
    return found


class _Walk:
    """Follows the records of a stream and notes what cannot be."""

    def __init__(self, stream: Stream) -> None:
        self._name = stream.name
        self._process = 0
        self._batch = self._tick = 0
        self._owed = 0
        self._link = 0
        self._lost = False
        self.damage: list[str] = []
        self.handed: Counter[int] = Counter()
        self.took: Counter[tuple[int, int]] = Counter()

    def take(self, process: int, kinds: list[int], connections: list[int], payloads: list[bytes]) -> None:
        """The records of one block."""
        if process != self._process:
            self._process, self._batch, self._tick, self._owed, self._lost = process, 0, 0, 0, False
        for kind, connection, payload in zip(kinds, connections, payloads, strict=True):
            if self._owed and kind not in (RecordKind.ENTRY, RecordKind.BATCH):
                self._say(f"{self._owed} entries that were sent do not follow")
                self._owed = 0
            if kind == RecordKind.RECEIVED or kind == RecordKind.TIMER:
                continue
            try:
                self._look(kind, connection, payload)
            except struct.error:
                self._say(f"a record of kind {kind} has {len(payload)} bytes, which cannot be")

    def _look(self, kind: int, connection: int, payload: bytes) -> None:
        if kind == RecordKind.COLLECTED:
            number = COLLECTED.unpack(payload)[0]
            if number:
                self._follows("batch", self._batch, number)
                self._batch = number
        elif kind == RecordKind.LINKED:
            self._link = NUMBER.unpack(payload)[0]
        elif kind == RecordKind.HANDED:
            self._owed = HANDED.unpack(payload)[1]
            self.handed[self._link] += self._owed
        elif kind in (RecordKind.ENTRY, RecordKind.BATCH):
            self._owed = max(0, self._owed - 1)
        elif kind == RecordKind.TICK:
            number = TICK.unpack_from(payload)[0]
            self._follows("frame", self._tick, number)
            self._tick = number
        elif kind == RecordKind.TOOK:
            link, count = TOOK.unpack(payload)
            self.took[connection, link] += count
        elif kind in (RecordKind.LOST, RecordKind.SNAPSHOT):
            # What is counted after a loss, or in a stream whose beginning was deleted, goes on from where it stands.
            self._lost = True

    def _follows(self, what: str, before: int, number: int) -> None:
        if number != before + 1 and not (self._lost or before == 0):
            self._say(f"{what} {number} comes after {what} {before}")
        self._lost = False

    def _say(self, what: str) -> None:
        if len(self.damage) < 20:
            self.damage.append(f"{self._name}: {what}")


def _compare(took: Counter[tuple[int, int]], sent: dict[tuple[int, int], int]) -> list[str]:
    return [
        f"core: it took {count} entries of feed {feed} on link {link}, which sent {sent.get((feed, link), 0)}"
        for (feed, link), count in sorted(took.items())
        if count > sent.get((feed, link), 0)
    ]
