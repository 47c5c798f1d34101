"""A capture as Parquet: normalised quotes, trades and changes of order books, in columns that any tool reads.

    volsurf capture export captures/today --out today/

    today/export.json                                        schema version, and what it was made from
    today/instruments.parquet                                one row per instrument; `instrument_id` counts the rows
    today/quotes/venue=deribit/date=2026-11-24/part-00001.parquet
    today/trades/venue=…                                     today/books/venue=…

**Schema version 1.** Times are int64 nanoseconds UTC. Prices are in the venue's premium unit (coin where `settlement` is
"inverse", the quote currency where "linear"), sizes in units of the underlying, vols decimals; an empty side is NaN. Rows of a
file are in order of `time_ns`, and so are a partition's files.

    quotes   time_ns of the end of the period, instrument_id, symbol, fields (which groups the row carries: `volsurf.Field`, a
             bit each), the columns of `QuoteBatch` (`VALUES`, venue_time_ns, receive_time_ns, sequence), batch (its number)
    trades   time_ns of the end of the period, instrument_id, symbol, price, size, is_buy, venue_time_ns, trade_id
    books    time_ns of the end of the period, instrument_id, symbol, is_snapshot, lists bid_price, bid_size, ask_price and
             ask_size (a size of 0 deletes the level), sequence, previous_sequence, venue_time_ns

A row of quotes holds what an instrument's values were at the end of a period of `every` in which its venue said anything of it;
of groups that `fields` does not name it holds what they were before, or NaN. What a connection had quoted when it was lost has
a row of two empty sides. Trades and books are whole, event by event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.capture.reader import Capture, Stream
from volsurf.engine.log import FeedStarted, InstrumentsAdded
from volsurf.errors import InputError
from volsurf.feeds.protocol import BookEvent, Event, TradeEvent
from volsurf.instruments import IdArray, Kind, Settlement, Universe
from volsurf.quotes import VALUES, QuoteBatch

SCHEMA_VERSION = 1
MANIFEST = "export.json"
INSTRUMENTS = "instruments.parquet"
TABLES = ("quotes", "trades", "books")
_TIMES = ("venue_time_ns", "receive_time_ns", "sequence")
ROWS_PER_FILE = 500_000
_BOOK_ROWS_PER_FILE = 100_000
_DAY_NS = 86_400_000_000_000

Columns = dict[str, Any]


class ExportManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `export.json`, written when all else is."""

    format: str = "volsurf columnar"
    schema: int = SCHEMA_VERSION
    capture: str = ""
    start_ns: int = 0
    end_ns: int = 0
    every_ns: int = 0
    rows: dict[str, int] = {}
    instruments: int = 0
    messages: int = 0
    lost: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    """Streams that could not be read as quotes, and why."""


def export(
    capture: Capture,
    out: Path,
    *,
    every_ns: int = 100_000_000,
    start_ns: int | None = None,
    end_ns: int | None = None,
    rows_per_file: int = ROWS_PER_FILE,
    progress: Callable[[int], None] | None = None,
) -> ExportManifest:
    """Write a capture's quotes, trades and books as Parquet; memory is bounded by a file's worth of rows.

    Args:
        out: a directory that does not exist, or is empty. every_ns: one row at most per instrument and so long; ns.
        start_ns, end_ns: only this time. progress: called with the messages read so far.

    Raises:
        InputError: the directory is not empty, or the capture holds no feed.
    """
    if not capture.feeds:
        raise InputError(f"{str(capture.path)!r} holds no feed's stream, so there is nothing to export")
    if every_ns < 1_000_000:
        raise InputError(f"the period of an export must be a millisecond or more, was {every_ns / 1e6:g} ms")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{str(out)!r} is not an empty directory: export to a new one")
    out.mkdir(parents=True, exist_ok=True)
    writer = _Export(out, rows_per_file)
    skipped: list[str] = []
    messages = 0
    for stream in capture.feeds.values():
        last = 0
        if stream.settings.get("protocol", True) is False:
            skipped.append(f"{stream.name}: volsurf does not speak the protocol of {stream.venue}")
            continue
        for period in _periods(capture, stream, every_ns, start_ns, end_ns):
            writer.take(stream.venue, period)
            if progress is not None:
                progress(messages + period.messages)
            last = period.messages
        messages += last
        writer.flush()
    writer.write_instruments()
    manifest = ExportManifest(
        capture=capture.manifest.id if capture.manifest else "",
        start_ns=capture.start_ns if start_ns is None else start_ns,
        end_ns=capture.end_ns if end_ns is None else end_ns,
        every_ns=every_ns,
        rows=writer.rows,
        instruments=len(writer.universe),
        messages=messages,
        lost=capture.lost,
        skipped=tuple(skipped),
    )
    (out / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    return manifest


@dataclass(slots=True)
class _Period:
    """What a feed said within a period."""

    time_ns: int
    entries: Sequence[object]
    events: Sequence[Event]
    messages: int


def _periods(
    capture: Capture, stream: Stream, every_ns: int, start_ns: int | None, end_ns: int | None
) -> Iterator[_Period]:
    from volsurf.replay.player import FeedPlayer

    settings = {segment.head.process: segment.head.settings for segment in stream.segments}
    blocks = capture.blocks(stream.name, start_ns, end_ns, from_snapshot=True)
    player = FeedPlayer(blocks, settings.__getitem__, number=max(stream.feed, 0), stream=stream.name)
    while (at := player.next_ns) is not None and (end_ns is None or at <= end_ns):
        now = -(-at // every_ns) * every_ns
        player.advance(now)
        wanted = start_ns is None or now > start_ns
        entries = player.entries if wanted else [e for e in player.entries if not isinstance(e, QuoteBatch)]
        yield _Period(now, entries, player.events if wanted else (), player.messages)
        player.entries.clear()
        player.events.clear()


@dataclass(slots=True)
class _Buffer:
    """Rows of one partition that are not written yet."""

    parts: list[Columns] = field(default_factory=list)
    rows: int = 0
    files: int = 0


class _Export:
    """Collects rows and writes them.

    Attributes:
        universe: of all venues, in whose ids everything is. rows: written, by table.
    """

    def __init__(self, out: Path, rows_per_file: int) -> None:
        self._out, self._rows_per_file = out, rows_per_file
        self.universe = Universe()
        self.rows = dict.fromkeys(TABLES, 0)
        self._ids: IdArray = np.full(0, -1, np.int32)
        self._buffers: dict[tuple[str, str, str], _Buffer] = {}

    def take(self, venue: str, period: _Period) -> None:
        """What one feed said within a period."""
        for entry in period.entries:
            if isinstance(entry, FeedStarted):
                self._ids = np.full(0, -1, np.int32)
            elif isinstance(entry, InstrumentsAdded):
                self._learn(entry)
            elif isinstance(entry, QuoteBatch):
                self._quotes(venue, entry, period.time_ns)
        trades = [event for event in period.events if isinstance(event, TradeEvent)]
        if trades:
            self._trades(venue, trades, period.time_ns)
        books = [event for event in period.events if isinstance(event, BookEvent)]
        if books:
            self._books(venue, books, period.time_ns)

    def flush(self) -> None:
        """Write every row there is."""
        for key, buffer in self._buffers.items():
            if buffer.rows:
                self._write(key, buffer)

    def write_instruments(self) -> None:
        """The table of all instruments."""
        import polars as pl

        rows = [
            {
                "instrument_id": i,
                "venue": row.venue,
                "symbol": row.symbol,
                "kind": Kind(row.kind).name.lower(),
                "underlying": row.underlying,
                "settlement": Settlement(row.settlement).name.lower(),
                "quote_currency": row.quote_currency,
                "expiry_ns": row.expiry_ns,
                "strike": row.strike,
                "is_call": row.is_call,
                "tick_size": row.tick_size,
                "contract_size": row.contract_size,
                "price_index": row.price_index,
            }
            for i, row in enumerate(self.universe)
        ]
        pl.DataFrame(rows).write_parquet(self._out / INSTRUMENTS, compression="zstd")

    def _learn(self, entry: InstrumentsAdded) -> None:
        if not entry.ids:
            return
        if max(entry.ids) >= len(self._ids):
            grown = np.full(max(entry.ids) + 1, -1, np.int32)
            grown[: len(self._ids)] = self._ids
            self._ids = grown
        self._ids[np.array(entry.ids, np.int64)] = self.universe.add(entry.instruments)

    def _quotes(self, venue: str, batch: QuoteBatch, now: int) -> None:
        ids = self._ids[batch.instrument_id]
        columns: Columns = {
            "time_ns": np.full(len(batch), now, np.int64),
            "instrument_id": ids,
            "symbol": self._symbols(ids),
            "fields": batch.fields,
            **{name: getattr(batch, name) for name in (*VALUES, *_TIMES)},
            "batch": np.full(len(batch), batch.number, np.int64),
        }
        self._keep("quotes", venue, now, columns, len(batch))

    def _trades(self, venue: str, events: list[TradeEvent], now: int) -> None:
        ids = self._ids[[event.instrument_id for event in events]]
        columns: Columns = {
            "time_ns": np.full(len(events), now, np.int64),
            "instrument_id": ids,
            "symbol": self._symbols(ids),
            "price": np.array([event.price for event in events]),
            "size": np.array([event.size for event in events]),
            "is_buy": np.array([event.is_buy for event in events]),
            "venue_time_ns": np.array([event.venue_time_ns for event in events], np.int64),
            "trade_id": [event.trade_id for event in events],
        }
        self._keep("trades", venue, now, columns, len(events))

    def _books(self, venue: str, events: list[BookEvent], now: int) -> None:
        ids = self._ids[[event.instrument_id for event in events]]
        columns: Columns = {
            "time_ns": np.full(len(events), now, np.int64),
            "instrument_id": ids,
            "symbol": self._symbols(ids),
            "is_snapshot": np.array([event.is_snapshot for event in events]),
            "bid_price": [[level[0] for level in event.bids] for event in events],
            "bid_size": [[level[1] for level in event.bids] for event in events],
            "ask_price": [[level[0] for level in event.asks] for event in events],
            "ask_size": [[level[1] for level in event.asks] for event in events],
            "sequence": np.array([event.sequence for event in events], np.int64),
            "previous_sequence": np.array([event.previous_sequence for event in events], np.int64),
            "venue_time_ns": np.array([event.venue_time_ns for event in events], np.int64),
        }
        self._keep("books", venue, now, columns, len(events))

    def _symbols(self, ids: npt.NDArray[np.int32]) -> list[str]:
        return [self.universe[i].symbol for i in ids.tolist()]

    def _keep(self, table: str, venue: str, now: int, columns: Columns, rows: int) -> None:
        date = f"{datetime.fromtimestamp(now // _DAY_NS * 86_400, UTC):%Y-%m-%d}"
        buffer = self._buffers.setdefault((table, venue, date), _Buffer())
        buffer.parts.append(columns)
        buffer.rows += rows
        self.rows[table] += rows
        most = min(self._rows_per_file, _BOOK_ROWS_PER_FILE) if table == "books" else self._rows_per_file
        if buffer.rows >= most:
            self._write((table, venue, date), buffer)

    def _write(self, key: tuple[str, str, str], buffer: _Buffer) -> None:
        import polars as pl

        table, venue, date = key
        folder = self._out / table / f"venue={venue}" / f"date={date}"
        folder.mkdir(parents=True, exist_ok=True)
        buffer.files += 1
        schema = _lists() if table == "books" else None
        frame = pl.concat([pl.DataFrame(part, schema_overrides=schema) for part in buffer.parts])
        frame.write_parquet(folder / f"part-{buffer.files:05d}.parquet", compression="zstd")
        buffer.parts.clear()
        buffer.rows = 0


def _lists() -> dict[str, Any]:
    import polars as pl

    levels = pl.List(pl.Float64)
    return dict.fromkeys(("bid_price", "bid_size", "ask_price", "ask_size"), levels)
