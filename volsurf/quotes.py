"""Last values of every instrument, and the batches of updates that reach them.

A message overwrites the last value of one instrument and nothing downstream runs because of it. `QuoteBoard` holds those
values with a mask of what changed; `QuoteBatch` is a set of updates as columns, the only thing that crosses a process
boundary on the way in. A feed keeps a board of its own and drains it a hundred times a second: that is the conflation.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IdArray, IntArray, Universe


class Field(IntFlag):
    """Groups of values an update may carry; a row of a batch leaves the groups it does not name as they were."""

    QUOTE = 1
    """bid, ask, bid_size, ask_size. A NaN price here says: that side is empty."""
    MARK = 2
    """mark, mark_vol"""
    LAST = 4
    """last"""
    FORWARD = 8
    """forward"""
    INDEX = 16
    """index"""
    DEPTH = 32
    """bid_depth, ask_depth"""


_GROUPS: tuple[tuple[Field, tuple[str, ...]], ...] = (
    (Field.QUOTE, ("bid", "ask", "bid_size", "ask_size")),
    (Field.MARK, ("mark", "mark_vol")),
    (Field.LAST, ("last",)),
    (Field.FORWARD, ("forward",)),
    (Field.INDEX, ("index",)),
    (Field.DEPTH, ("bid_depth", "ask_depth")),
)

VALUES = tuple(name for _, names in _GROUPS for name in names)
"""Names of the float columns, in the order of the binary layout."""

_COLUMNS: tuple[tuple[str, str], ...] = (
    *((name, "<f8") for name in VALUES),
    ("venue_time_ns", "<i8"),
    ("receive_time_ns", "<i8"),
    ("sequence", "<i8"),
    ("instrument_id", "<i4"),
    ("fields", "<u2"),
)
_DATED = {Field.FORWARD: "forward_time_ns", Field.INDEX: "index_time_ns"}
"""Groups of which a board keeps the venue's stamp apart: the row's own is that of whatever was said last."""
_BOARD: tuple[tuple[str, str], ...] = (
    *_COLUMNS[:-2],
    *((name, "<i8") for name in _DATED.values()),
    ("changed", "<u2"),
    ("touched", "<u2"),
)
_HEADER = struct.Struct("<4sHHIIQq")
_MAGIC = b"VSQB"
_VERSION = 2
_ROW_BYTES = sum(np.dtype(dtype).itemsize for _, dtype in _COLUMNS)


class QuoteBatch:
    """Updates for some instruments, one row each, as columns of shape (n,).

    Attributes:
        instrument_id: int32, ids of the receiver's `Universe`.
        fields: uint16, which `Field` groups the row carries.
        bid, ask: in the venue's premium unit (coin, or the strike's currency); NaN for an empty side.
        bid_size, ask_size: in units of the underlying.
        last, mark: in the premium's unit. mark_vol: the venue's own vol, a decimal.
        forward, index: in the strike's currency.
        bid_depth, ask_depth: size in the best levels of the order book, in units of the underlying, where books are followed.
        venue_time_ns, receive_time_ns: ns UTC, stamped by the venue and by us.
        sequence: the venue's own counter, 0 where there is none.
        feed: number of the feed that made the batch. number: its running count. time_ns: when it was made.

    Binary layout, little-endian. A 32-byte header: magic "VSQB", u16 version, u16 columns, u32 rows, u32 feed, u64 number,
    i64 time_ns. Then each column whole, in this order: the eleven float64 values of `VALUES`, `venue_time_ns`,
    `receive_time_ns`, `sequence` (int64), `instrument_id` (int32), `fields` (uint16). Every float64 and int64 column starts
    on a multiple of 8 bytes.
    """

    __slots__ = ("feed", "number", "time_ns", *(name for name, _ in _COLUMNS))

    bid: FloatArray
    ask: FloatArray
    bid_size: FloatArray
    ask_size: FloatArray
    last: FloatArray
    mark: FloatArray
    mark_vol: FloatArray
    forward: FloatArray
    index: FloatArray
    bid_depth: FloatArray
    ask_depth: FloatArray
    venue_time_ns: IntArray
    receive_time_ns: IntArray
    sequence: IntArray
    instrument_id: IdArray
    fields: npt.NDArray[np.uint16]
    feed: int
    number: int
    time_ns: int

    def __init__(
        self,
        instrument_id: npt.ArrayLike,
        fields: npt.ArrayLike,
        *,
        feed: int = 0,
        number: int = 0,
        time_ns: int = 0,
        **columns: npt.ArrayLike,
    ) -> None:
        ids = np.atleast_1d(np.asarray(instrument_id, np.int32))
        self.instrument_id = ids
        self.fields = np.array(np.broadcast_to(np.asarray(fields, np.uint16), ids.shape))
        self.feed, self.number, self.time_ns = feed, number, time_ns
        for name, dtype in _COLUMNS[:-2]:
            missing = np.nan if dtype == "<f8" else 0
            value = np.asarray(columns.pop(name, missing), dtype)
            if value.ndim and value.shape != ids.shape:
                raise InputError(f"column {name} has shape {value.shape}, instrument_id has {ids.shape}")
            setattr(self, name, value if value.ndim else np.full(ids.shape, value, dtype))
        if columns:
            raise InputError(f"a quote batch has no column {sorted(columns)}; it has {[n for n, _ in _COLUMNS]}")

    def __len__(self) -> int:
        return len(self.instrument_id)

    def __repr__(self) -> str:
        return f"QuoteBatch({len(self)} rows, feed {self.feed}, number {self.number}, time_ns {self.time_ns})"

    def to_bytes(self) -> bytes:
        """The binary layout."""
        head = _HEADER.pack(_MAGIC, _VERSION, len(_COLUMNS), len(self), self.feed, self.number, self.time_ns)
        return b"".join((head, *(np.ascontiguousarray(getattr(self, n), d).tobytes() for n, d in _COLUMNS)))

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> QuoteBatch:
        """Read the binary layout without copying the columns; `InputError` where it is not one, or is cut short."""
        if len(data) < _HEADER.size:
            raise InputError(f"a quote batch starts with {_HEADER.size} bytes, was {len(data)}")
        magic, version, columns, rows, feed, number, time_ns = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != _VERSION or columns != len(_COLUMNS):
            raise InputError(
                f"not a version {_VERSION} quote batch: magic {magic!r}, version {version}, {columns} columns"
            )
        if len(data) != _HEADER.size + rows * _ROW_BYTES:
            raise InputError(
                f"a quote batch of {rows} rows has {_HEADER.size + rows * _ROW_BYTES} bytes, was {len(data)}"
            )
        self = cls.__new__(cls)
        self.feed, self.number, self.time_ns = feed, number, time_ns
        offset = _HEADER.size
        for name, dtype in _COLUMNS:
            setattr(self, name, np.frombuffer(data, dtype, rows, offset))
            offset += rows * np.dtype(dtype).itemsize
        return self


class QuoteBoard:
    """The last value of every instrument, as arrays of shape (n,) indexed by instrument id.

    `changed` holds, per instrument, the `Field` groups whose values differ from those at the last `take_changed()`;
    `touched` those that were written since the last `drain()`, changed or not. NaN stands for "none yet" and, for a price,
    "no such side". `forward_time_ns` and `index_time_ns` are the venue's stamps of the message that brought these, 0 where it
    bore none; `venue_time_ns` is that of the last message about the instrument, whatever it said.
    """

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self._capacity = 0
        self._data: dict[str, npt.NDArray[Any]] = {}
        self.unknown_rows = 0
        """Rows of batches that named an id the universe does not have; they are counted and left out."""
        self._grow(max(1024, len(universe)))

    def __len__(self) -> int:
        return len(self.universe)

    def __repr__(self) -> str:
        heard = int((self.receive_time_ns > 0).sum())
        return f"QuoteBoard({len(self)} instruments, {heard} with values, {int(self.dirty.sum())} dirty)"

    def apply(self, batch: QuoteBatch) -> None:
        """Overwrite last values with those of a batch; of two rows for one instrument the later wins.

        A row that carries no group says nothing and is passed over, its times included.
        """
        ids, fields = batch.instrument_id, batch.fields
        self._grow(len(self.universe))
        known = (ids >= 0) & (ids < len(self.universe))
        self.unknown_rows += int(len(ids) - known.sum())
        known &= fields != 0
        rows: npt.NDArray[np.intp] | slice = slice(None)
        if not known.all():
            rows = np.flatnonzero(known)
            ids, fields = ids[rows], fields[rows]
        for group, names in _GROUPS:
            carried = (fields & group) != 0
            if not carried.any():
                continue
            target = ids[carried]
            differs = np.zeros(len(target), np.bool_)
            for name in names:
                column = self._data[name]
                new = getattr(batch, name)[rows][carried]
                old = column[target]
                differs |= (new != old) & ~(np.isnan(new) & np.isnan(old))
                column[target] = new
            self._data["changed"][target[differs]] |= np.uint16(group)
            self._data["touched"][target] |= np.uint16(group)
            if group in _DATED:
                self._data[_DATED[group]][target] = batch.venue_time_ns[rows][carried]
        self._data["venue_time_ns"][ids] = batch.venue_time_ns[rows]
        self._data["receive_time_ns"][ids] = batch.receive_time_ns[rows]
        self._data["sequence"][ids] = batch.sequence[rows]

    def drain(self, *, feed: int = 0, number: int = 0, time_ns: int = 0) -> QuoteBatch:
        """Everything written since the last drain, as one batch with one row per instrument."""
        ids = np.flatnonzero(self.touched).astype(np.int32)
        columns = {n: self._data[n][ids] for n, _ in _COLUMNS[:-2]}
        batch = QuoteBatch(ids, self.touched[ids].copy(), feed=feed, number=number, time_ns=time_ns, **columns)
        self._data["touched"][ids] = 0
        return batch

    def take_changed(self) -> npt.NDArray[np.uint16]:
        """The `changed` mask, copied, shape (n,); it starts again from nothing."""
        taken = self.changed.copy()
        self.changed[:] = 0
        return taken

    def clear_quotes(self, ids: npt.ArrayLike) -> None:
        """Forget both sides of some instruments: after a disconnect a stale price must not pass for a live one."""
        index = np.atleast_1d(np.asarray(ids, np.int64))
        had = np.isfinite(self.bid[index]) | np.isfinite(self.ask[index])
        deep = np.isfinite(self.bid_depth[index]) | np.isfinite(self.ask_depth[index])
        for name in ("bid", "ask", "bid_size", "ask_size", "bid_depth", "ask_depth"):
            self._data[name][index] = np.nan
        for mask in ("changed", "touched"):
            self._data[mask][index[had]] |= np.uint16(Field.QUOTE)
            self._data[mask][index[deep]] |= np.uint16(Field.DEPTH)

    @property
    def dirty(self) -> BoolArray:
        """Anything changed since `take_changed()`, shape (n,)."""
        return np.asarray(self.changed != 0)

    def __getattr__(self, name: str) -> npt.NDArray[np.generic]:
        # The columns: bid, ask, bid_size, …, one array each, cut to the universe's length.
        data = self.__dict__.get("_data", {})
        if name not in data:
            raise AttributeError(f"a quote board has no column {name!r}; it has {sorted(data)}")
        self._grow(len(self.universe))
        column: npt.NDArray[np.generic] = self._data[name][: len(self.universe)]
        return column

    bid: FloatArray
    ask: FloatArray
    bid_size: FloatArray
    ask_size: FloatArray
    last: FloatArray
    mark: FloatArray
    mark_vol: FloatArray
    forward: FloatArray
    index: FloatArray
    bid_depth: FloatArray
    ask_depth: FloatArray
    venue_time_ns: IntArray
    receive_time_ns: IntArray
    sequence: IntArray
    forward_time_ns: IntArray
    index_time_ns: IntArray
    changed: npt.NDArray[np.uint16]
    touched: npt.NDArray[np.uint16]

    def _grow(self, rows: int) -> None:
        if rows <= self._capacity:
            return
        capacity = max(rows, 2 * self._capacity)
        for name, dtype in _BOARD:
            new = np.full(capacity, np.nan if dtype == "<f8" else 0, dtype)
            if self._capacity:
                new[: self._capacity] = self._data[name]
            self._data[name] = new
        self._capacity = capacity
