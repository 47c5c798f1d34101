"""What the connections of one Binance feed share: the listings, who follows which option, and how new every quote is.

A venue of two routes says the same thing twice: best bid and ask come once a second with the marks on one connection, and on
every change on others. Their batches meet on one board, which knows no better than that the later write wins. So whoever
writes a quote first looks here whether a newer one has been written, by the venue's own time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from volsurf.feeds._binance_budget import Budget
from volsurf.feeds._binance_listing import Listed
from volsurf.feeds._binance_names import Family
from volsurf.feeds._watch import SECOND
from volsurf.instruments import NANOSECONDS_PER_YEAR, Instrument, Kind

MOST_STREAMS = 200
"""Per connection."""
ABSURD_MS = 60_000
"""A quote this much newer than the one at hand had a venue time that cannot have been."""
MOVED = 0.01
"""ln of the index after which the options nearest to it are chosen anew."""
_ASKED = 20 * SECOND
_SHORTEST_YEARS = 1 / 365

Stamp = tuple[int, int, int]
"""Venue time in ms, update id (0 from the marks), and the member that wrote it."""
NEVER: Stamp = (0, 0, -1)
Top = tuple[float, float, float, float]
"""Bid, its size, ask and its size; NaN for an empty side."""


class Group:
    """The shared state. Its members are numbered: 0 is the market route, 1, 2, … the connections of the public route.

    Args:
        families: what was asked for. publics: connections of the public route. per_symbol: streams of each option followed
            there. reserved: streams of the first of them that belong to no option.

    Attributes:
        options: symbol → option listed. indexes: pair → index. families_listed: all of the venue's.
        version: rises whenever a member may have something else to follow.
        venue_ns: the venue's time as last told; 0 before. spot: pair → index price.
        assigned: of each public member, the options it follows. left_out: options for which there are no streams.
        quoted: symbol → stamp of the quote written last. tops: symbol → the last one of a public member.
        top_of_chain: the last one of the market route, by symbol.
        budget: REST weight of this address.
    """

    def __init__(self, families: Sequence[Family], publics: int, per_symbol: int, reserved: int) -> None:
        self.families = list(families)
        self.publics = publics
        self.options: dict[str, Instrument] = {}
        self.indexes: dict[str, Instrument] = {}
        self.families_listed: set[str] = set()
        self.version = 0
        self.discovered = False
        self.venue_ns = 0
        self.budget = Budget()
        self.spot: dict[str, float] = {}
        self.assigned: list[dict[str, None]] = [{} for _ in range(publics)]
        self.left_out = 0
        self.quoted: dict[str, Stamp] = {}
        self.tops: dict[str, Top] = {}
        self.top_of_chain: Callable[[str], Top | None] = _no_top
        self._room = [(MOST_STREAMS - (0 if i else reserved)) // max(1, per_symbol) for i in range(publics)]
        self._chosen_at: dict[str, float] = {}
        self._asked_ns: int | None = None
        self._asked_by = -1
        self._resumed = False

    @property
    def missing(self) -> list[Family]:
        """Families that were asked for and of which nothing is listed."""
        return [f for f in self.families if not any(f.has(*name.rsplit("_", 1)) for name in self.families_listed)]

    def take_listing(self, listed: Listed) -> None:
        """A new reading of the listings."""
        self.discovered = True
        self._asked_ns = None
        self.options, self.families_listed = listed.options, listed.families
        # An index stays: its row is what silence is judged by, and options on it will be listed again.
        self.indexes |= listed.indexes
        if listed.weight_per_minute:
            self.budget.set_limit(listed.weight_per_minute)
        self.version += 1
        self.choose()

    def resume(self, instruments: Sequence[Instrument], member: int) -> None:
        """Start in the midst of a conversation in which this member follows these, for who knows how long already."""
        self._resumed = self.discovered = True
        options = {i.symbol: i for i in instruments if i.kind is Kind.OPTION}
        self.options |= options
        self.indexes |= {i.symbol: i for i in instruments if i.kind is Kind.INDEX}
        self.families_listed |= {f"{i.underlying}_{i.quote_currency}" for i in instruments}
        if member and len(options) <= self._room[member - 1]:
            self.assigned[member - 1] = dict.fromkeys(options)

    def may_ask(self, member: int, now: int) -> bool:
        """Whether this member is the one to read the listings now; if so the others wait for a while."""
        asked = self._asked_ns
        if asked is not None and self._asked_by != member and 0 <= now - asked < _ASKED:
            return False
        self._asked_ns, self._asked_by = now, member
        return True

    def set_spot(self, pair: str, price: float) -> None:
        """An index price came."""
        self.spot[pair] = price
        chosen = self._chosen_at.get(pair)
        if chosen is None and self._resumed:
            self._chosen_at[pair] = price
        elif self.publics and self.options and (chosen is None or abs(math.log(price / chosen)) > MOVED):
            self.choose()

    def choose(self) -> None:
        """Give the streams there are to the options nearest to the money, and leave each where it is followed already.

        Nearness is |ln(K/S)|/√T: deviations at expiry, up to the coin's vol. Options of a day and less count as of a day.
        """
        if not self.publics:
            return
        self._chosen_at = dict(self.spot)
        now = self.venue_ns
        money = {pair: self.spot.get(pair) or self._middle(pair) for pair in self.indexes}

        def distance(option: Instrument) -> tuple[float, str]:
            years = max((option.expiry_ns - now) / NANOSECONDS_PER_YEAR, _SHORTEST_YEARS) if now else 1.0
            return abs(math.log(option.strike / money[option.price_index])) / math.sqrt(years), option.symbol

        room = sum(self._room)
        ordered = sorted(self.options.values(), key=distance)
        chosen = {option.symbol: None for option in ordered[:room]}
        self.left_out = max(0, len(ordered) - room)
        kept = [{s: None for s in assigned if s in chosen} for assigned in self.assigned]
        placed = {s for assigned in kept for s in assigned}
        for symbol in chosen:
            if symbol not in placed:
                at = max(range(self.publics), key=lambda i: self._room[i] - len(kept[i]))
                kept[at][symbol] = None
        if any(list(new) != list(old) for new, old in zip(kept, self.assigned, strict=True)):
            self.assigned = kept
            self.version += 1

    def is_newest(self, symbol: str, time_ms: int, update: int) -> bool:
        """Whether a quote is not older than the one written last."""
        last_ms, last_update, _ = self.quoted.get(symbol, NEVER)
        if time_ms == last_ms:
            return update >= last_update
        return time_ms > last_ms or last_ms - time_ms > ABSURD_MS

    def top(self, symbol: str) -> tuple[Top, Stamp] | None:
        """The quote that stands now and who wrote it when; None where none does."""
        stamp = self.quoted.get(symbol)
        if stamp is None:
            return None
        top = self.tops.get(symbol) if stamp[2] else self.top_of_chain(symbol)
        return None if top is None else (top, stamp)

    def forget(self, member: int) -> set[str]:
        """The member's socket is gone: its quotes no longer stand in anybody's way. Returns their symbols."""
        gone = {symbol for symbol, stamp in self.quoted.items() if stamp[2] == member}
        for symbol in gone:
            del self.quoted[symbol]
            self.tops.pop(symbol, None)
        return gone

    def _middle(self, pair: str) -> float:
        # Without an index price the middle of the nearest expiry's strikes is where the money was when they were listed.
        options = [o for o in self.options.values() if o.price_index == pair]
        first = min((o.expiry_ns for o in options), default=0)
        strikes = sorted(o.strike for o in options if o.expiry_ns == first)
        return strikes[len(strikes) // 2] if strikes else 1.0


def _no_top(symbol: str) -> Top | None:
    del symbol
    return None
