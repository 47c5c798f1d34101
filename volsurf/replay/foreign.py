"""Captures of other programs, played through our own venues."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from volsurf.capture.format import FEED_WIDE, Block, RecordKind
from volsurf.capture.reader import Capture
from volsurf.capture.records import NUMBER, pack_instruments
from volsurf.errors import InputError
from volsurf.feeds._deribit_names import future_market, market_of, parse_symbol
from volsurf.instruments import Instrument, Kind, Universe
from volsurf.replay.cryptofeed import Direction, Line, read_cryptofeed
from volsurf.replay.player import FeedPlayer

if TYPE_CHECKING:
    from volsurf.replay.clocked import Player

_HOSTS = {"www.deribit.com": "deribit", "test.deribit.com": "deribit"}
_KINDS = {Direction.OPENED: RecordKind.OPENED, Direction.SENT: RecordKind.SENT, Direction.RECEIVED: RecordKind.RECEIVED}


def memory_block(records: Sequence[tuple[int, int, int, bytes]]) -> Block:
    """A block of (time_ns, connection, kind, payload) that lies in no file."""
    times, connections, kinds, payloads = zip(*records, strict=True)
    columns = (
        np.diff(np.array(times, np.int64), prepend=np.int64(0)).astype("<i8"),
        np.array(connections, "<u4"),
        np.array(kinds, "u1"),
        np.array([len(payload) for payload in payloads], "<u4"),
    )
    return Block(b"".join((*(column.tobytes() for column in columns), *payloads)), len(payloads), 0)


class ForeignSource:
    """A raw file of cryptofeed, of a venue whose protocol volsurf speaks.

    It holds no discovery, so the instruments are those whose channels were asked for, as their names say them; the venue is
    told that it is subscribed to these. Tick sizes are unknown (0).

    Raises:
        InputError: a venue that has no protocol here, or no instrument's channel was asked for.
    """

    def __init__(self, path: Path) -> None:
        lines = [line for line in read_cryptofeed(path) if line.direction in _KINDS]
        hosts = {urlsplit(line.url).hostname or "" for line in lines if line.url}
        spoken = {_HOSTS[host] for host in hosts if host in _HOSTS}
        if len(spoken) != 1:
            raise InputError(
                f"{path} holds messages of {', '.join(sorted(hosts)) or 'no venue'}; volsurf plays raw files of "
                f"{', '.join(sorted(_HOSTS))} (read_cryptofeed reads the lines of any)"
            )
        self.path = path
        self.capture: Capture | None = None
        self.rules: Mapping[str, Any] = {}
        self.venues = tuple(spoken)
        self.instruments = tuple(_instruments(lines))
        if not self.instruments:
            raise InputError(f"{path}: no channel of an instrument was asked for in it, so nobody knows what is quoted")
        self._lines = lines
        self.start_ns, self.end_ns = lines[0].time_ns, lines[-1].time_ns

    @property
    def lost(self) -> Sequence[str]:
        """Nothing: such a file says nothing of what it lacks."""
        return ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """As a feed's of our own."""
        markets = dict.fromkeys(_market(instrument) for instrument in self.instruments)
        return {
            "venue": self.venues[0],
            "underlyings": list(markets),
            "books": True,
            "trades": True,
            "foreign": "cryptofeed",
        }

    def block(self) -> Block:
        """All of it: a snapshot of the instruments, and the messages."""
        now, listing = self.start_ns, pack_instruments(Universe(self.instruments))
        records = [
            (now, FEED_WIDE, int(RecordKind.SNAPSHOT), NUMBER.pack(2)),
            (now, 0, int(RecordKind.INSTRUMENTS), listing),
            (now, FEED_WIDE, int(RecordKind.INSTRUMENTS), listing),
            (now, 0, int(RecordKind.RESUMED), b""),
            *((line.time_ns, 0, int(_KINDS[line.direction]), line.data) for line in self._lines),
        ]
        return memory_block(records)

    def players(self, venues: Collection[str] | None, start_ns: int, end_ns: int, first: int) -> list[Player]:
        """The player of the one stream it is."""
        if venues is not None and self.venues[0] not in venues:
            return []
        settings = self.settings
        return [FeedPlayer([self.block()], lambda process: settings, number=first, stream=self.path.name)]


def _instruments(lines: Sequence[Line]) -> Iterator[Instrument]:
    asked: dict[str, None] = {}
    for line in lines:
        if line.direction is Direction.SENT:
            try:
                channels = msgspec.json.decode(line.data)["params"]["channels"]
                asked.update(dict.fromkeys(str(channel).split(".")[1] for channel in channels))
            except (msgspec.DecodeError, LookupError, TypeError):
                continue
    for name in asked:
        option, future = parse_symbol(name), future_market(name)
        if option is not None:
            market = market_of(option.market)
            yield Instrument(
                venue="deribit",
                symbol=name,
                kind=Kind.OPTION,
                underlying=market.base,
                settlement=market.settlement,
                quote_currency=market.quote or "USD",
                expiry_ns=option.expiry_ns,
                strike=option.strike,
                is_call=option.is_call,
                price_index=market.price_index,
            )
        elif future is not None and name.endswith("-PERPETUAL"):
            market = market_of(future)
            yield Instrument(
                venue="deribit",
                symbol=name,
                kind=Kind.PERPETUAL,
                underlying=market.base,
                settlement=market.settlement,
                quote_currency=market.quote or "USD",
                price_index=market.price_index,
            )


def _market(instrument: Instrument) -> str:
    linear = instrument.quote_currency != "USD"
    return f"{instrument.underlying}_{instrument.quote_currency}" if linear else instrument.underlying
