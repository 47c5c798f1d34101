"""The records of a block that are played, their payloads cut out only where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from volsurf.capture.format import Block, RecordKind
from volsurf.feeds.protocol import Replaceable

Rows = npt.NDArray[np.intp]

FEWEST = 32
"""Fewer messages are received sooner than looked through."""
_MOST_NAMES = 1 << 15
_MOST_CONNECTIONS = 1 << 16


class Messages:
    """Some records of a block, by their order among those.

    Args:
        rows: which records, shape (n,).

    Attributes:
        time_ns, connection, kind: of each, shape (n,).
    """

    def __init__(self, block: Block, rows: Rows) -> None:
        self.time_ns = block.time_ns[rows]
        self.connection = block.connection[rows].astype(np.int64)
        self.kind = block.kind[rows]
        self.raw = block.raw
        self.start = block.payload_start[rows]
        self.length = block.payload_bytes[rows].astype(np.int64)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: int) -> bytes:
        start = int(self.start[row])
        return self.raw[start : start + int(self.length[row])]

    def is_health(self, row: int) -> bool:
        """Whether an entry is a health report: MessagePack has its kind in front, so it need not be decoded to know."""
        start = int(self.start[row])
        return self.raw.find(b"feed_health", start, start + 32) >= 0

    def take(self, rows: Rows) -> list[bytes]:
        """Payloads of some of them."""
        raw, starts = self.raw, self.start[rows]
        ends = starts + self.length[rows]
        return [raw[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


class Run(NamedTuple):
    """Neighbouring records of a block: messages and timers."""

    messages: Messages
    start: int
    stop: int

    @property
    def rows(self) -> Rows:
        """All of them."""
        return np.arange(self.start, self.stop)


class Sieve:
    """Finds, among messages that are received together, those that are replaced by later ones.

    Args:
        rule: which messages are.
    """

    def __init__(self, rule: Replaceable) -> None:
        from volsurf._jit import ensure_compiled

        ensure_compiled("replay")
        from volsurf.replay._newest import LONGEST_NAME

        self._rule = rule
        self._prefix, self._mark = (np.frombuffer(text, np.uint8) for text in (rule.prefix, rule.mark))
        self._slots = np.full(2 * _MOST_NAMES, -1, np.int64)
        self._names = np.zeros((_MOST_NAMES, LONGEST_NAME), np.uint8)
        self._owners = np.zeros((_MOST_NAMES, 2), np.int64)
        self._numbers = np.zeros(_MOST_NAMES, np.uint64)
        self._last_kept = np.full(_MOST_CONNECTIONS, -1, np.int64)
        self._counts = np.zeros(2, np.int64)

    def wanted(self, runs: Sequence[Run]) -> list[Rows]:
        """Of each run, in order, the rows that are still to be played."""
        from volsurf.replay._newest import mark_replaced

        rule = self._rule
        self._slots.fill(-1)
        self._counts[0] = 0
        self._counts[1] += 1  # what was kept for a timer of the runs before is not for one of these
        kept: list[Rows] = []
        for messages, start, stop in reversed(runs):
            if int(messages.connection[start:stop].max(initial=0)) >= _MOST_CONNECTIONS:
                kept.append(np.arange(start, stop))
                continue
            keep = np.ones(stop - start, np.bool_)
            mark_replaced(
                np.frombuffer(messages.raw, np.uint8),
                messages.kind[start:stop],
                messages.start[start:stop],
                messages.length[start:stop],
                messages.connection[start:stop],
                self._prefix,
                self._mark,
                rule.mark_at,
                rule.number_at,
                self._slots,
                self._names,
                self._owners,
                self._numbers,
                self._last_kept,
                self._counts,
                keep,
            )
            kept.append(start + np.flatnonzero(keep))
        return kept[::-1]


RECEIVED = int(RecordKind.RECEIVED)
