"""The simulated OKX as a whole: one market, its listings and quotes, the REST pages, and what every channel says at each tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.instruments import BoolArray, Kind
from volsurf.sim._okx_channels import PER_INSTRUMENT, Channel, Feed, FeedTable
from volsurf.sim._okx_frames import SIZE_DIGIT, STAMP_KEY, Renderer, push
from volsurf.sim._okx_listing import PREOPEN, SUSPENDED, OkxListing, family_name
from volsurf.sim._wire import text_frame
from volsurf.sim.burst import Stampable, stampable
from volsurf.sim.depth import Ladder, ladder
from volsurf.sim.exchange import Exchange, HttpAnswer
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, VenueProfile
from volsurf.sim.quoting import QuoteModel, QuoteRules, Trade

if TYPE_CHECKING:
    from volsurf.sim.okx import OkxSession

SUMMARY_TICKS = 5
"""Each option is in one push of `opt-summary` in so many; the rows of a push are spread over all expiries."""
MARK_TICKS = 2
OPENING_TICKS = 10
"""How long after its listing a new option goes live."""
RESEND_NS = 60_000_000_000
"""A channel of one instrument that has nothing new says so once a minute."""
_HOUR_NS = 3_600_000_000_000
_PAGES = "/api/v5/public/"
NO_SUCH = ("51000", "Parameter {} error")


class OkxState(Exchange):
    """State and broadcasts; what one client may ask and how is `OkxSession`'s.

    Args:
        market: the truth it quotes.
        origin_ns: real time at which the market's clock stands at `market.start_ns`.
        time_scale: market seconds per real second.
        profile: how this venue differs from others of the market; None quotes the truth itself.
        bursting: quotes go out through `Session.burst` only, and ticks merely render them.
    """

    path = "/ws/v5/public"
    maintenance_answer = (503, b'{"code":"50001","data":[],"msg":"Service temporarily unavailable. Try again later"}')
    maintenance_close = (1001, "service upgrade")
    listing: OkxListing

    def __init__(
        self,
        market: Market,
        *,
        origin_ns: int,
        time_scale: float = 1.0,
        rules: QuoteRules | None = None,
        bursting: bool = False,
        profile: VenueProfile | None = None,
    ) -> None:
        super().__init__(market, origin_ns=origin_ns, time_scale=time_scale)
        self.bursting = bursting
        # Lots, ticks and strikes are a profile's: without an opinion of its own, it is this venue's profile that has none.
        self.profile = profile or replace(PROFILES["okx"], offset_share=0.0, latency_ms=0.0, jitter_ms=0.0)
        self.listing = OkxListing(market, self.profile)
        self.listing.update(market.now_ns)
        self.quotes = QuoteModel(market, self.listing.universe, rules, self.profile)
        self.quotes.update()
        self.quotes.invent_history()
        self.renderer = Renderer(self.listing, self.quotes)
        self.table = FeedTable()
        self.sessions: dict[OkxSession, None] = {}
        self.stamped: dict[int, Stampable] = {}
        """Quote frames to burst, by row."""
        self.stamped_version = 0
        self._tick = 0
        self._rows_version = -1
        self._rows_by_name: dict[str, npt.NDArray[np.intp]] = {}
        self._opening: dict[int, int] = {}
        self._sequence: dict[int, int] = {}
        self._resetting: set[str] = set()

    def advance(self, now: int) -> None:
        """Move the market to `now`, list and expire, quote, and tell every channel."""
        now_ns = self.market_ns(now)
        trades: list[Trade] = []
        changed = np.zeros(len(self.listing.universe), np.bool_)
        if self.move_market(now):
            added, retired = self.listing.update(self.market.now_ns)
            if retired:
                self._end(retired)
            for row in added:
                self.listing.state[row] = PREOPEN
                self._opening[row] = self._tick + OPENING_TICKS
            changed, trades = self.quotes.update()
            self._announce(added)
        self._tick += 1
        self._open_new()
        self._publish(now_ns, changed, trades)

    def chain(self, underlying: str) -> Mapping[int, npt.ArrayLike]:
        """Listed strikes of every expiry."""
        return self.listing.chain(underlying)

    def suspend(self, rows: Iterable[int], suspended: bool = True) -> None:
        """Suspend trading of some instruments, or let it go on."""
        rows = list(rows)
        for row in rows:
            if suspended:
                self.listing.state[row] = SUSPENDED
            else:
                self.listing.state.pop(row, None)
        self._announce(rows)

    def reset_sequences(self) -> None:
        """Maintenance: every book goes on from a low sequence number, said by one update that still follows."""
        self._resetting = {feed.channel.arg for feed in self.table.of_kind("books")}
        self._sequence = {row: 1 + row % 7 for row in self._sequence}

    def announce_upgrade(self, now: int, seconds: float = 60.0) -> None:
        """Tell every client that its connection will be cut for an upgrade, and cut it then."""
        self.counters["upgrades_announced"] += 1
        for session in self.sessions:
            session.announce_upgrade(now + int(seconds * 1e9))

    def begin_maintenance(self, now: int, seconds: float) -> None:
        """Close for a while; the notice goes out before."""
        super().begin_maintenance(now, seconds)
        for session in self.sessions:
            session.announce_upgrade(now)

    def unlist(self, rows: list[int]) -> None:
        """End the channels of rows that are no longer listed, and say nothing."""
        for feed in self.table.of_rows(rows):
            for session in list(feed.sessions):
                session.drop(feed.channel.arg)
        for row in rows:
            self.stamped.pop(row, None)
            self.listing.state.pop(row, None)
            self._opening.pop(row, None)
        self.stamped_version += 1

    def http(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        """The public pages a client of options needs; codes and words are the venue's."""
        if not path.startswith(_PAGES):
            return super().http(path, query, now)
        kind, uly, family = (query.get(name, "") for name in ("instType", "uly", "instFamily"))
        rows: Sequence[object] | None = None
        missing = "instType"
        match path.removeprefix(_PAGES):
            case "instruments":
                missing = "instFamily" if kind == "OPTION" and not (uly or family) else "uly"
                rows = self.listing.page(kind, uly, family) if uly or family or kind != "OPTION" else None
            case "instrument-tick-bands":
                bands = self.listing.bands()
                wanted = [row for row in bands if family in ("", row["instFamily"])]
                rows = wanted if kind == "OPTION" and (wanted or not family) else None
            case "time":
                rows = [{"ts": str(self.market_ns(now) // 1_000_000)}]
            case "opt-summary":
                found = self._rows_of(family or uly)
                rows = self.renderer.summaries(found, self.market_ns(now) // 1_000_000) if len(found) else None
            case _:
                return 404, msgspec.json.encode({"msg": "Invalid path", "code": "404", "data": None})
        if rows is None:
            code, words = NO_SUCH
            return 200, msgspec.json.encode({"code": code, "data": [], "msg": words.format(missing)})
        return 200, msgspec.json.encode({"code": "0", "data": rows, "msg": ""})

    def snapshots(self, feeds: Sequence[Feed], now: int) -> Iterable[bytes]:
        """What a new listener of some channels is told at once, in the order of the channels."""
        now_ns = self.market_ns(now)
        if self.bursting:
            rows = [feed.channel.row for feed in feeds if feed.channel.kind == "bbo-tbt"]
            self._stamp(np.array(rows, np.intp), now_ns // 1_000_000)
        for feed in feeds:
            yield from self._snapshot(feed, now_ns)

    def _snapshot(self, feed: Feed, now_ns: int) -> Iterable[bytes]:
        channel, time_ms = feed.channel, now_ns // 1_000_000
        row, arg = channel.row, channel.arg
        feed.told_ns = now_ns
        match channel.kind:
            case "bbo-tbt" | "tickers" | "mark-price":
                yield self._per_instrument(channel, time_ms)
            case "books" | "books5":
                # A second listener joins the first one's book, so that the next change fits both.
                if not isinstance(feed.told, Ladder):
                    feed.told = ladder(self.quotes, row, self._next_sequence(row))
                whole = self._whole(channel, feed.told, time_ms)
                yield push(arg, [whole], "snapshot" if channel.kind == "books" else "")
            case "opt-summary":
                rows = self._rows_of(channel.key)
                if len(rows):
                    yield push(arg, self.renderer.summaries(rows, time_ms))
            case "index-tickers":
                said = self._index(channel.key, time_ms)
                feed.told = said[0]["idxPx"]
                yield push(arg, said)

    def _publish(self, now_ns: int, changed: BoolArray, trades: list[Trade]) -> None:
        time_ms = now_ns // 1_000_000
        rows, feeds = self.table.by_row("bbo-tbt")
        due = self._due(rows, feeds, changed, now_ns)
        if self.bursting:
            self._stamp(rows[due], time_ms)
        for kind in ("tickers",) if self.bursting else ("bbo-tbt", "tickers"):
            rows, feeds = self.table.by_row(kind)
            for i in due if kind == "bbo-tbt" else self._due(rows, feeds, changed, now_ns):
                feeds[i].told_ns = now_ns
                self._send(feeds[i], self._per_instrument(feeds[i].channel, time_ms))
        if self._tick % MARK_TICKS == 0:
            for feed in self.table.of_kind("mark-price"):
                self._send(feed, self._per_instrument(feed.channel, time_ms))
        for kind in ("books", "books5"):
            for feed in self.table.by_row(kind)[1]:
                quiet = now_ns - feed.told_ns >= RESEND_NS
                if quiet or feed.channel.arg in self._resetting or changed[feed.channel.row]:
                    self._tell_book(feed, now_ns, quiet=quiet)
        self._resetting = set()
        self._tell_families(now_ns, trades)
        for feed in self.table.of_kind("index-tickers"):
            said = self._index(feed.channel.key, time_ms)
            price = said[0]["idxPx"]
            if price != feed.told or now_ns - feed.told_ns >= RESEND_NS:
                feed.told, feed.told_ns = price, now_ns
                self._tell(feed, said)
        for trade in trades:
            for feed in self.table.of_rows([trade.row]):
                if feed.channel.kind == "trades":
                    self._tell(feed, [self.renderer.trade(trade)])

    def _tell_families(self, now_ns: int, trades: list[Trade]) -> None:
        time_ms = now_ns // 1_000_000
        for feed in self.table.of_kind("opt-summary"):
            rows = self._rows_of(feed.channel.key)
            rows = rows[rows % SUMMARY_TICKS == self._tick % SUMMARY_TICKS]
            if len(rows):
                self._tell(feed, self.renderer.summaries(rows, time_ms))
        for feed in self.table.of_kind("option-trades"):
            mine = [trade for trade in trades if self._is_option_of(trade.row, feed.channel.key)]
            if mine:
                self._tell(feed, [self.renderer.option_trade(trade) for trade in mine])
        for feed in self.table.of_kind("estimated-price"):
            universe = self.listing.universe
            rows = self._rows_of(feed.channel.key)
            rows = rows[universe.expiry_ns[rows] - now_ns <= _HOUR_NS]
            if len(rows) and self._tick % 2 == 0:
                price = self._index(self.listing.objects[int(rows[0])]["uly"], time_ms)[0]["idxPx"]
                said = {"instType": "OPTION", "settlePx": price, "settleType": "exercise", "ts": str(time_ms)}
                self._tell(feed, [{"instId": self.listing.names[row], **said} for row in rows.tolist()])

    def _tell_book(self, feed: Feed, now_ns: int, *, quiet: bool) -> None:
        row, old, channel = feed.channel.row, feed.told, feed.channel
        assert isinstance(old, Ladder)
        new = ladder(self.quotes, row, old.change_id)
        is_same = new.asks == old.asks and new.bids == old.bids
        if is_same and not quiet and channel.arg not in self._resetting:
            return
        keep_alive = is_same and channel.arg not in self._resetting
        feed.told = Ladder(old.change_id if keep_alive else self._next_sequence(row), new.bids, new.asks)
        feed.told_ns = now_ns
        if channel.kind == "books5":
            self._tell(feed, [self._whole(channel, feed.told, now_ns // 1_000_000)])
        else:
            said = self.renderer.change(row, old, feed.told, now_ns // 1_000_000)
            self._send(feed, push(channel.arg, [said], "update"))

    def _due(
        self, rows: npt.NDArray[np.intp], feeds: list[Feed], changed: BoolArray, now_ns: int
    ) -> npt.NDArray[np.intp]:
        if not len(rows):
            return np.zeros(0, np.intp)
        due = changed[rows].copy()
        if self._tick % 50 == 0:
            due |= np.array([now_ns - feed.told_ns >= RESEND_NS for feed in feeds])
        return np.flatnonzero(due)

    def _per_instrument(self, channel: Channel, time_ms: int) -> bytes:
        row = channel.row
        if channel.kind == "bbo-tbt":
            return push(channel.arg, self.renderer.best(row, time_ms, self._next_sequence(row)))
        return push(
            channel.arg, (self.renderer.ticker if channel.kind == "tickers" else self.renderer.mark)(row, time_ms)
        )

    def _whole(self, channel: Channel, book: Ladder, time_ms: int) -> dict[str, object]:
        shallow = channel.kind == "books5"
        return self.renderer.book(
            channel.row, book, time_ms, previous=None if shallow else -1, levels=5 if shallow else 400
        )

    def _index(self, name: str, time_ms: int) -> list[dict[str, object]]:
        base, _, currency = name.partition("-")
        return self.renderer.index(name, self.market.spot(base, currency), time_ms)

    def _tell(self, feed: Feed, data: object) -> None:
        self._send(feed, push(feed.channel.arg, data))

    def _send(self, feed: Feed, payload: bytes) -> None:
        for session in feed.sessions:
            session.push(payload)

    def _next_sequence(self, row: int) -> int:
        # The venue's counter is the instrument's own and jumps.
        self._sequence[row] = self._sequence.get(row, 7_966_000 + 1000 * row) + 1 + row % 7
        return self._sequence[row]

    def _rows_of(self, name: str) -> npt.NDArray[np.intp]:
        """Options of a family or of an underlying."""
        universe = self.listing.universe
        if self._rows_version != universe.version:
            self._rows_version = universe.version
            found: dict[str, list[int]] = {}
            for row in np.flatnonzero(universe.active & (universe.kind == Kind.OPTION)).tolist():
                said = self.listing.objects[row]
                for key in {said["instFamily"], said["uly"]}:
                    found.setdefault(key, []).append(row)
            # Where both have one name, it is the family's: its options alone.
            families = {family_name(family) for family in self.listing.families}
            self._rows_by_name = {
                key: np.array(
                    [row for row in rows if key not in families or self.listing.objects[row]["instFamily"] == key],
                    np.intp,
                )
                for key, rows in found.items()
            }
        return self._rows_by_name.get(name, np.zeros(0, np.intp))

    def _is_option_of(self, row: int, family: str) -> bool:
        is_option = self.listing.universe.kind[row] == Kind.OPTION
        return bool(is_option) and family_name(self.listing.family[row]) == family

    def _stamp(self, rows: npt.NDArray[np.intp], time_ms: int) -> None:
        for row in rows.tolist():
            arg = msgspec.json.encode({"channel": PER_INSTRUMENT[0], "instId": self.listing.names[row]}).decode()
            frame = text_frame(push(arg, self.renderer.best(row, time_ms, self._next_sequence(row))))
            self.stamped[row] = stampable(frame, STAMP_KEY, SIZE_DIGIT)
        self.stamped_version += 1

    def _open_new(self) -> None:
        due = [row for row, tick in self._opening.items() if tick <= self._tick]
        for row in due:
            del self._opening[row]
            if self.listing.state.get(row) == PREOPEN:
                del self.listing.state[row]
        self._announce(due)

    def _announce(self, rows: list[int]) -> None:
        for feed in self.table.of_kind("instruments") if rows else ():
            mine = [row for row in rows if self.listing.objects[row]["instType"] == feed.channel.key]
            if mine:
                self._tell(feed, [self.listing.api_row(row) for row in mine])

    def _end(self, rows: list[int]) -> None:
        # What is listed from now on has no settlement price until tomorrow.
        self.quotes.settle(np.flatnonzero(self.listing.universe.active[: len(self.quotes.mark)]))
        self._announce(rows)
        self.unlist(rows)
        self.counters["expired"] += len(rows)
