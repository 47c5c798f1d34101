"""Parts of batches, and entries of some underlyings only."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from volsurf.engine.log import Entry, FeedStarted, InstrumentsAdded, InstrumentsRetired
from volsurf.instruments import BoolArray
from volsurf.quotes import QuoteBatch

COLUMNS = tuple(n for n in QuoteBatch.__slots__ if n not in ("feed", "number", "time_ns", "instrument_id", "fields"))
"""Of a batch, beside the ids and the fields."""


def select_rows(batch: QuoteBatch, rows: BoolArray | npt.NDArray[np.intp]) -> QuoteBatch:
    """Some rows of a batch, by a mask or by their numbers."""
    columns = {name: getattr(batch, name)[rows] for name in COLUMNS}
    ids, fields = batch.instrument_id[rows], batch.fields[rows]
    return QuoteBatch(ids, fields, feed=batch.feed, number=batch.number, time_ns=batch.time_ns, **columns)


class Selection:
    """Lets through what concerns some underlyings; everything where none are named."""

    def __init__(self, underlyings: Collection[str] | None) -> None:
        self._wanted = None if underlyings is None else frozenset(underlyings)
        self._ids: dict[int, BoolArray] = {}

    def take(self, entry: Entry) -> Entry | None:
        """The entry, what of it is wanted, or None."""
        if self._wanted is None:
            return entry
        if isinstance(entry, FeedStarted):
            self._ids.pop(entry.feed, None)
        elif isinstance(entry, InstrumentsAdded):
            return self._added(entry, self._wanted)
        elif isinstance(entry, InstrumentsRetired):
            ids = self._mask(entry.feed, np.array(entry.ids, np.int64))
            kept = tuple(i for i, wanted in zip(entry.ids, ids.tolist(), strict=True) if wanted)
            return InstrumentsRetired(entry.feed, kept) if kept else None
        elif isinstance(entry, QuoteBatch):
            mask = self._mask(entry.feed, entry.instrument_id)
            return entry if mask.all() else select_rows(entry, mask) if mask.any() else None
        return entry

    def _added(self, entry: InstrumentsAdded, wanted: frozenset[str]) -> InstrumentsAdded | None:
        pairs = [(i, one) for i, one in zip(entry.ids, entry.instruments, strict=True) if one.underlying in wanted]
        if not pairs:
            return None
        known = self._ids.get(entry.feed, np.zeros(0, np.bool_))
        most = max(i for i, _ in pairs)
        if most >= len(known):
            known = np.concatenate((known, np.zeros(most + 1 - len(known), np.bool_)))
        known[[i for i, _ in pairs]] = True
        self._ids[entry.feed] = known
        return InstrumentsAdded(entry.feed, tuple(i for i, _ in pairs), tuple(one for _, one in pairs))

    def _mask(self, feed: int, ids: npt.NDArray[np.integer]) -> BoolArray:
        known = self._ids.get(feed, np.zeros(0, np.bool_))
        mask = (ids >= 0) & (ids < len(known))
        mask[mask] = known[ids[mask]]
        return mask
