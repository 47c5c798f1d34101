"""Playing an exported capture: columns of normalised quotes instead of a venue's messages.

`volsurf.capture.export` describes the tables. There is nothing to decode, so the speed is that of reading Parquet and of writing
rows to the board. What is lost against the raw form: values within the export's period, the feeds' health (a venue that is
exported is taken to be whole), and when an instrument was listed (it is with its first quote).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.capture.export import INSTRUMENTS, MANIFEST, SCHEMA_VERSION, ExportManifest
from volsurf.capture.reader import Capture
from volsurf.engine.log import Entry, FeedHealth, FeedStarted, FeedState, InstrumentsAdded
from volsurf.errors import InputError
from volsurf.feeds.protocol import BookEvent, Event, TradeEvent
from volsurf.instruments import Instrument, Kind, Settlement
from volsurf.quotes import QuoteBatch
from volsurf.replay._select import COLUMNS

if TYPE_CHECKING:
    import polars as pl

    from volsurf.replay.clocked import Player

_QUOTES = ("time_ns", "instrument_id", "fields", *COLUMNS)
_TRADES = ("time_ns", "instrument_id", "price", "size", "is_buy", "venue_time_ns", "trade_id")
_MOST_FIELDS = 64
"""`Field` has six groups: a row's `fields` are below this."""


class ColumnarSource:
    """The directory an export made.

    Raises:
        InputError: it is of another version, or a table of it is missing or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=ExportManifest)
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"{str(path / MANIFEST)!r} cannot be read: {error}") from error
        if manifest.schema != SCHEMA_VERSION:
            raise InputError(
                f"{str(path)!r} was exported as schema {manifest.schema}; this version reads {SCHEMA_VERSION}"
            )
        self.path, self.manifest = path, manifest
        self.start_ns, self.end_ns = manifest.start_ns, manifest.end_ns + manifest.every_ns
        self.capture: Capture | None = None
        self.rules: Mapping[str, Any] = {}
        self.venues = tuple(sorted(p.name.partition("=")[2] for p in path.glob("quotes/venue=*")))

    @property
    def lost(self) -> Sequence[str]:
        """What the capture it was made from had lost."""
        return self.manifest.lost

    @cached_property
    def instruments(self) -> list[Instrument]:
        """By id."""
        table = _read(self.path / INSTRUMENTS, None)
        return [_instrument(row) for row in table.sort("instrument_id").iter_rows(named=True)]

    def players(self, venues: Collection[str] | None, start_ns: int, end_ns: int, first: int) -> list[Player]:
        """A player of each venue."""
        del start_ns  # last values before it are wanted, and reading them all is quick
        chosen = [venue for venue in self.venues if venues is None or venue in venues]
        return [ColumnarPlayer(self, venue, end_ns, number=first + n) for n, venue in enumerate(chosen)]


class ColumnarPlayer:
    """Plays one venue's tables; what `FeedPlayer` is to a stream."""

    def __init__(self, source: ColumnarSource, venue: str, end_ns: int, *, number: int) -> None:
        self.stream = venue
        self.entries: list[Entry] = [FeedStarted(number, venue)]
        self.events: list[Event] = []
        self.shift_ns = 0
        self.is_over = self.is_midway = False
        self.messages = 0
        self._source, self._number = source, number
        self._known = np.zeros(len(source.instruments), np.bool_)
        self._last = np.full(_MOST_FIELDS * len(source.instruments), -1, np.int64)
        self._tables = self._quote_tables(venue, end_ns)
        self._time: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._at = 0
        self._batches = 0
        self._pending: list[Iterator[tuple[int, Event]]] = [
            _trades(source.path, venue, end_ns),
            _books(source.path, venue, end_ns),
        ]
        self._next_event = [next(events, None) for events in self._pending]
        self._load()

    @property
    def next_ns(self) -> int | None:
        """Time of the next row; None after the last."""
        return None if self.is_over else int(self._time[self._at])

    def advance(self, until_ns: int) -> None:
        """Take every row up to a time."""
        heard = 0
        while not self.is_over:
            stop = int(np.searchsorted(self._time, until_ns, "right"))
            if stop > self._at:
                heard = int(self._time[stop - 1])
                self._take(self._at, stop)
                self.messages += stop - self._at
                self._at = stop
            if stop < len(self._time):
                break
            self._load()
        for at, events in enumerate(self._pending):
            while (following := self._next_event[at]) is not None and following[0] <= until_ns:
                self.events.append(following[1])
                self._next_event[at] = next(events, None)
        if heard:
            health = FeedHealth(
                feed=self._number,
                name=self.stream,
                time_ns=until_ns,
                state=FeedState.READY,
                connections=1,
                connected=1,
                last_message_ns=heard,
                messages=self.messages,
            )
            self.entries.append(health)

    def book_snapshots(self) -> list[Event]:
        """None: columns keep changes of books, not books; those after a beginning in the middle wait for their snapshot."""
        return []

    def _load(self) -> None:
        for table in self._tables:
            if table.height:
                self._columns = {name: table[name].to_numpy() for name in _QUOTES}
                self._time, self._at = self._columns["time_ns"], 0
                return
        self.is_over = True

    def _take(self, start: int, stop: int) -> None:
        ids, fields = self._columns["instrument_id"][start:stop], self._columns["fields"][start:stop]
        rows = start + self._newest(ids, fields)
        ids = self._columns["instrument_id"][rows]
        if not self._known[ids].all():
            fresh = np.unique(ids[~self._known[ids]])
            self._known[fresh] = True
            instruments = self._source.instruments
            listed = tuple(instruments[i] for i in fresh.tolist())
            self.entries.append(InstrumentsAdded(self._number, tuple(fresh.tolist()), listed))
        self._batches += 1
        columns = {name: self._columns[name][rows] for name in COLUMNS}
        self.entries.append(
            QuoteBatch(
                ids,
                self._columns["fields"][rows],
                feed=self._number,
                number=self._batches,
                time_ns=int(self._time[stop - 1]),
                **columns,
            )
        )

    def _newest(self, ids: npt.NDArray[np.int32], fields: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        """Of the rows of each instrument with the same fields the last: all that earlier ones said, it says anew."""
        keys = ids * np.int64(_MOST_FIELDS) + fields
        order = np.arange(len(keys))
        # Of several rows with one key numpy keeps the last; what earlier calls left there is overwritten before it is read.
        self._last[keys] = order
        return np.flatnonzero(self._last[keys] == order)

    def _quote_tables(self, venue: str, end_ns: int) -> Iterator[pl.DataFrame]:
        for path in _files(self._source.path, "quotes", venue):
            table = _read(path, _QUOTES)
            # No file is read that lies wholly behind what is wanted.
            if table.height and int(table["time_ns"][0]) > end_ns:
                return
            yield table


def is_columnar(path: Path) -> bool:
    """Whether a directory is an export."""
    return (path / MANIFEST).is_file()


def _files(path: Path, table: str, venue: str) -> list[Path]:
    return sorted(path.glob(f"{table}/venue={venue}/date=*/*.parquet"))


def _read(path: Path, columns: Sequence[str] | None) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_parquet(path, columns=None if columns is None else list(columns), hive_partitioning=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error


def _instrument(row: Mapping[str, Any]) -> Instrument:
    return Instrument(
        venue=row["venue"],
        symbol=row["symbol"],
        kind=Kind[row["kind"].upper()],
        underlying=row["underlying"],
        settlement=Settlement[row["settlement"].upper()],
        quote_currency=row["quote_currency"],
        expiry_ns=row["expiry_ns"],
        strike=row["strike"],
        is_call=row["is_call"],
        tick_size=row["tick_size"],
        tick_steps=tuple(zip(row.get("tick_above") or (), row.get("tick_size_above") or (), strict=True)),
        contract_size=row["contract_size"],
        price_index=row["price_index"],
    )


def _trades(path: Path, venue: str, end_ns: int) -> Iterator[tuple[int, Event]]:
    for file in _files(path, "trades", venue):
        for time_ns, *values in _read(file, _TRADES).select(_TRADES).iter_rows():
            if time_ns > end_ns:
                return
            yield time_ns, TradeEvent(*values)


def _books(path: Path, venue: str, end_ns: int) -> Iterator[tuple[int, Event]]:
    for file in _files(path, "books", venue):
        for row in _read(file, None).iter_rows(named=True):
            if row["time_ns"] > end_ns:
                return
            yield (
                row["time_ns"],
                BookEvent(
                    instrument_id=row["instrument_id"],
                    is_snapshot=row["is_snapshot"],
                    bids=tuple(zip(row["bid_price"], row["bid_size"], strict=True)),
                    asks=tuple(zip(row["ask_price"], row["ask_size"], strict=True)),
                    sequence=row["sequence"],
                    previous_sequence=row["previous_sequence"],
                    venue_time_ns=row["venue_time_ns"],
                ),
            )
