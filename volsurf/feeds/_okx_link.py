"""What the parts of one OKX connection share: the instruments, their last values and books, the clock, the channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from volsurf.errors import InputError
from volsurf.feeds import _okx_messages as wire
from volsurf.feeds._catalogue import Catalogue
from volsurf.feeds._okx_books import Books
from volsurf.feeds._okx_channels import Channels
from volsurf.feeds._okx_listing import ANNOUNCED, KINDS, LIVE, PAUSED, Bands, family_of, index_of, instrument_of
from volsurf.feeds._okx_messages import Arg
from volsurf.feeds._okx_names import Family, Wanted
from volsurf.feeds._okx_values import Values
from volsurf.feeds._watch import SECOND, Watch
from volsurf.feeds._wire import in_sentence
from volsurf.feeds.protocol import Health, InstrumentEvent
from volsurf.instruments import Instrument, Kind

Key = tuple[str, str]
"""`(instType, uly)` of one listing."""

INDEX_SILENCE = 65 * SECOND
"""`index-tickers` comes ten times a second while the index moves, and once a minute where it does not."""
_NEVER = 1 << 62


class Link:
    """State of one connection.

    Args:
        wanted: what was asked for. shard: `(i, n)`. quotes: the channel of quotes. books: the channel of books, "" for none.
        trades: whether trades are wanted.

    Attributes:
        venue_time_ns: the venue's time, as last told by an index; 0 before. first_expiry_ns: the next one followed.
        bands: family → ticks. listed: families seen in listings of options, wanted or not.
        announced: symbol → listing and time of its opening, of what is listed and not traded yet.
        retrying: channels refused once, to be asked for again when the listing was read anew.
    """

    def __init__(
        self, wanted: Sequence[Wanted], shard: tuple[int, int], *, quotes: str, books: str, trades: bool
    ) -> None:
        self.wanted = list(dict.fromkeys(wanted))
        self.quotes = quotes
        self._books, self._trades = books, trades
        self.counters: Counter[str] = Counter()
        self.watch = Watch(self.counters)
        self.catalogue: Catalogue[Key] = Catalogue(shard)
        self.universe = self.catalogue.universe
        self.values = Values(self.universe, self.catalogue.rows, quotes, self.counters, self.watch.malformed)
        self.books = Books()
        self.channels = Channels()
        self.bands: dict[str, Bands] = {}
        self.listed: set[Family] = set()
        self.announced: dict[str, tuple[Key, int]] = {}
        self.retrying: set[Arg] = set()
        self._retried: set[Arg] = set()
        self._doubted: set[int] = set()
        self.venue_time_ns = 0
        self.first_expiry_ns = _NEVER

    def clear(self) -> None:
        """Forget what belonged to a socket."""
        self.channels.clear(self.watch.elapsed)
        self.books.clear()
        for store in (self.announced, self.retrying, self._retried, self._doubted, self.listed):
            store.clear()

    def wants(self, family: Family) -> bool:
        """Whether a family was asked for."""
        return any(wanted.holds(family) for wanted in self.wanted)

    def args_of(self, row: int) -> list[Arg]:
        """Channels of one instrument, its quotes first."""
        symbol = self.universe[row].symbol
        books = [Arg(self._books, instId=symbol)] if self._books else []
        return [Arg(self.quotes, instId=symbol), *books]

    def take_rows(self, raw_rows: Iterable[msgspec.Raw], *, whole: Key | None = None) -> set[str]:
        """Follow what rows of a listing name, and let go of what they say has ended.

        Args:
            whole: these rows are all there is under this key; what is followed of it and not named has ended.

        Returns: symbols of this connection's that are traded or paused.
        """
        found: dict[Key, dict[str, Instrument]] = {} if whole is None else {whole: {}}
        paused: set[str] = set()
        ended: list[int] = []
        for raw in raw_rows:
            try:
                listing = wire.decode_listing(raw)
                family = family_of(listing)
                if listing.instType not in KINDS or family is None:
                    continue
                if listing.instType == "OPTION" and listing.state in (LIVE, PAUSED, ANNOUNCED):
                    self.listed.add(family)
                if not self.wants(family) or not self.catalogue.is_mine(listing.instId):
                    continue
                key: Key = (listing.instType, listing.uly or family.uly)
                if listing.state in (LIVE, PAUSED):
                    instrument = instrument_of(listing, family, self.bands.get(family.name))
                    found.setdefault(key, {})[listing.instId] = instrument
                    self.announced.pop(listing.instId, None)
                    if listing.state == PAUSED:
                        paused.add(listing.instId)
                elif listing.state == ANNOUNCED:
                    self.announced[listing.instId] = key, wire.nanoseconds(listing.listTime)
                else:
                    self.announced.pop(listing.instId, None)
                    if (row := self.catalogue.rows.get(listing.instId)) is not None:
                        ended.append(row)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self.watch.malformed("listing", bytes(raw))
            except InputError as error:
                self.watch.malformed("listing", str(error).encode("utf-8", "replace"))
        self.retire(ended)
        for key, instruments in found.items():
            self._follow(list(instruments.values()), key, whole=key == whole)
        names = {name for instruments in found.values() for name in instruments}
        self._note_paused(names, paused)
        return names

    def adopt(self, instruments: Iterable[Instrument]) -> None:
        """Follow instruments as if every channel of theirs were acknowledged."""
        for instrument in instruments:
            kind = next((name for name, kind in KINDS.items() if kind is instrument.kind), "")
            change = self.catalogue.follow([instrument], (kind, instrument.price_index), complete=False)
            for row in change.added:
                if instrument.kind is not Kind.INDEX:
                    self.channels.owner.update(dict.fromkeys(self.args_of(row), row))
        for arg in self._common_args():
            self.channels.owner[arg] = None
        for name in self.catalogue.index_rows:
            self._expect(name)
        self.channels.granted.update(self.channels.owner)
        self._note_expiries()

    def want_common(self) -> None:
        """Subscribe to the channels that belong to no instrument, those that are not yet."""
        fresh = [arg for arg in self._common_args() if arg not in self.channels.owner]
        self.channels.want(fresh, None, self.watch.elapsed)
        for arg in fresh:
            if arg.channel == wire.INDEX:
                self._expect(arg.instId)

    def retire(self, rows: list[int]) -> None:
        """Stop following instruments: unsubscribe, clear their quotes, say so."""
        if not rows:
            return
        for row in rows:
            self.channels.drop(self.args_of(row), self.watch.elapsed)
        self._forget(rows)
        self.catalogue.retire(rows)
        self._note_expiries()
        self.watch.emit(InstrumentEvent(retired=tuple(rows)))

    def retry(self, key: Key, listed: set[str]) -> None:
        """A listing was read anew: what is in doubt and not named is let go, channels refused once are asked for again."""
        rows = {row: arg for arg in self.retrying if (row := self.channels.owner.get(arg)) is not None}
        rows = {row: arg for row, arg in rows.items() if self.catalogue.key_of(row) == key}
        doubted = {row for row in self._doubted if self.catalogue.key_of(row) == key}
        self._doubted -= doubted
        self.retire([row for row in sorted(doubted.union(rows)) if self.universe[row].symbol not in listed])
        again = [arg for arg in self.retrying if self.channels.owner.get(arg) in rows]
        self.retrying.difference_update(again)
        self._retried.update(again)
        for arg in again:
            self.channels.refused.pop(arg, None)
            self.channels.want([arg], self.channels.owner[arg], self.watch.elapsed)

    def doubt(self, before_ns: int) -> set[Key]:
        """Options left out of `opt-summary` since a time, though it came: the listings that must say whether they still exist."""
        told_at = self.values.told_at
        if max(told_at.values(), default=0) <= before_ns:
            return set()
        self._doubted = {row for row, time_ns in told_at.items() if time_ns < before_ns}
        return {key for row in self._doubted if (key := self.catalogue.key_of(row)) is not None}

    def may_retry(self, arg: Arg) -> Key | None:
        """The listing to read before a refused channel is asked for once more; None where it was asked for twice."""
        row = self.channels.owner.get(arg)
        if row is None or arg in self._retried:
            return None
        self.retrying.add(arg)
        return self.catalogue.key_of(row)

    def _common_args(self) -> list[Arg]:
        universe, rows = self.universe, self.catalogue.rows.values()
        followed = dict.fromkeys(
            Family(row.underlying, universe_quote(row))
            for row in (universe[i] for i in rows)
            if row.kind is Kind.OPTION
        )
        args = [Arg(wire.INDEX, instId=name) for name in self.catalogue.index_rows]
        args += [Arg(wire.SUMMARY, instFamily=family.name) for family in followed]
        if self._trades:
            args += [Arg(wire.OPTION_TRADES, instType="OPTION", instFamily=family.name) for family in followed]
        return args

    def _follow(self, instruments: list[Instrument], key: Key, *, whole: bool) -> None:
        rows = self.catalogue.rows
        before = {i.symbol: row for i in instruments if (row := rows.get(i.symbol)) is not None}
        families = {i.price_index: i for i in instruments if i.price_index not in self.catalogue.index_rows}
        indexes = [index_of(Family(i.underlying, i.quote_currency)) for i in families.values()]
        change = self.catalogue.follow([*indexes, *instruments], key, complete=whole)
        # The same name with another expiry is another instrument.
        replaced = [row for symbol, row in before.items() if rows[symbol] != row]
        self._forget(replaced)
        self.retire(change.retired)
        self.values.rescale()
        if change.added or replaced:
            self.watch.emit(InstrumentEvent(tuple(change.added), tuple(replaced)))
            self._note_expiries()
        elapsed = self.watch.elapsed
        for row in (rows[i.symbol] for i in instruments):
            args = self.args_of(row)
            self.channels.want([arg for arg in args if arg not in self.channels.owner], row, elapsed)
            for arg in args:
                if self.channels.owner[arg] != row:
                    self.channels.owner[arg] = row
                    self.channels.restart(arg, elapsed)
        if not self.channels.held:
            self.want_common()

    def _forget(self, rows: list[int]) -> None:
        self.values.clear(rows, self.watch.now)
        self.values.forget(rows)
        for row in rows:
            self.books.forget(row)

    def _note_paused(self, names: set[str], paused: set[str]) -> None:
        rows, halted = self.catalogue.rows, self.values.halted
        resumed = sorted(name for name in names - paused if rows.get(name) in halted)
        newly = sorted(name for name in paused if name in rows and rows[name] not in halted)
        halted.update(rows[name] for name in newly)
        halted.difference_update(rows[name] for name in resumed)
        self.values.clear([rows[name] for name in newly], self.watch.now)
        if newly:
            self.watch.report(Health.MAINTENANCE, f"trading is suspended in {in_sentence(newly)}")
        if resumed:
            self.watch.report(Health.RECOVERED, f"trading goes on in {in_sentence(resumed)}")

    def _expect(self, name: str) -> None:
        self.watch.expect(
            name, INDEX_SILENCE, f"index {name} silent for {{silence}} s; it comes once a minute at least"
        )

    def _note_expiries(self) -> None:
        first = self.catalogue.first_expiry_ns
        self.first_expiry_ns = _NEVER if first is None else first


def universe_quote(instrument: Instrument) -> str:
    """The second part of an option's family: what stands between the coin and the date in its name."""
    return instrument.symbol.rsplit("-", 3)[0].partition("-")[2]
