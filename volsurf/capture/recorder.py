"""Where the thread that makes records leaves them, and the writer's thread takes them: bounded, without a lock."""

from __future__ import annotations

import time

from volsurf.capture.format import FEED_WIDE, RecordKind
from volsurf.capture.records import Loss, pack_loss

Record = tuple[int, int, int, bytes]
"""time_ns, connection, kind, payload"""

OVERHEAD_BYTES = 120
"""What a record takes in memory beside its payload."""
_LOSING = 1 << 62


class Recorder:
    """Records on their way to a writer.

    `put` is called by one thread; `take` and `written` by one other. Each changes only its own counts, and a list's `append`,
    `extend`, slicing and deletion of a slice are whole operations, so neither waits for the other.

    Args:
        limit_bytes: what is put while so much is held is lost.

    Attributes:
        records: left and not taken. mark: bytes put so far, and far more than that while records are being lost.
        full_at: with the mark above this, `put` has to look whether there is room; `FeedTap.received` looks itself.
        wants_snapshot: the writer waits for one, to begin the next segment with it.
        lost_records, lost_bytes: lost so far, and their payloads. lost_at: the last time, by `time.monotonic`.
    """

    __slots__ = (
        "_limit",
        "_loss",
        "_written_bytes",
        "full_at",
        "lost_at",
        "lost_bytes",
        "lost_records",
        "mark",
        "records",
        "wants_snapshot",
    )

    def __init__(self, limit_bytes: int) -> None:
        self.records: list[Record] = []
        self.mark = 0
        self.full_at = limit_bytes
        self.wants_snapshot = False
        self.lost_records = 0
        self.lost_bytes = 0
        self.lost_at = 0.0
        self._limit = limit_bytes
        self._written_bytes = 0
        self._loss: Loss | None = None

    @property
    def held_bytes(self) -> int:
        """What waits to be written, as memory."""
        return self.mark % _LOSING - self._written_bytes

    def put(self, time_ns: int, connection: int, kind: int, payload: bytes) -> None:
        """Leave a record."""
        if self.mark > self.full_at and not self._has_room(time_ns):
            self._lose(time_ns, payload)
            return
        self.records.append((time_ns, connection, kind, payload))
        self.mark += len(payload) + OVERHEAD_BYTES

    def put_together(self, records: list[Record]) -> None:
        """Leave several records that the writer is to see all at once or not at all."""
        if self.mark > self.full_at and not self._has_room(records[0][0]):
            for time_ns, _, _, payload in records:
                self._lose(time_ns, payload)
            return
        self.records.extend(records)
        self.mark += sum(len(record[3]) for record in records) + OVERHEAD_BYTES * len(records)

    def end(self, time_ns: int) -> None:
        """The last call of the putting thread: what is being lost is said now."""
        if self._loss is not None:
            self._say(self._loss, time_ns)

    def take(self) -> list[Record]:
        """What was left since the last call."""
        records = self.records
        taken = records[: len(records)]
        del records[: len(taken)]
        return taken

    def written(self, records: list[Record]) -> None:
        """These need no memory any more."""
        self._written_bytes += sum(len(record[3]) for record in records) + OVERHEAD_BYTES * len(records)
        self.full_at = self._written_bytes + self._limit

    def _has_room(self, time_ns: int) -> bool:
        # From the first record lost until half of the memory is free again everything is, so that losses are few and long: one
        # gap can be told and started anew after, a sieve cannot.
        if self._loss is None:
            self.mark += _LOSING
            self._loss = Loss(0, 0, time_ns, time_ns, "the disk did not take them in time")
        elif self.held_bytes <= self._limit // 2:
            self._say(self._loss, time_ns)
            return True
        return False

    def _lose(self, time_ns: int, payload: bytes) -> None:
        loss = self._loss
        assert loss is not None
        self._loss = Loss(loss.records + 1, loss.payload_bytes + len(payload), loss.since_ns, time_ns, loss.why)
        self.lost_records += 1
        self.lost_bytes += len(payload)
        self.lost_at = time.monotonic()

    def _say(self, loss: Loss, time_ns: int) -> None:
        payload = pack_loss(loss)
        self.records.append((time_ns, FEED_WIDE, RecordKind.LOST, payload))
        self.mark += len(payload) + OVERHEAD_BYTES - _LOSING
        self._loss = None
        # What comes next does not follow from what is there: reading must be able to start anew.
        self.wants_snapshot = True
