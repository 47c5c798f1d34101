"""The core's side of the feeds: whose ids are whose, who is heard, which underlyings hang on whom."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from volsurf.engine.codec import FeedStatus, Problem
from volsurf.engine.log import ClockStep, FeedHealth, FeedStarted, FeedState, InstrumentsAdded, InstrumentsRetired
from volsurf.engine.verdict import Verdict, judge, status
from volsurf.instruments import BoolArray, IdArray, IntArray, Kind, Universe
from volsurf.quotes import QuoteBatch, QuoteBoard
from volsurf.surface.quote_vols import UNKNOWN_SKEW

if TYPE_CHECKING:
    from volsurf.engine.core import CoreRules


class _Feed:
    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: IdArray = np.full(0, -1, np.int32)
        """The core's id of each of the feed's ids; -1 for none."""
        self.unconfirmed: set[int] = set()
        """Core ids that an earlier process of this feed had listed and this one has not yet."""
        self.health: FeedHealth | None = None
        self.skew_ns: int | None = None
        """As `Liveness.skew_ns`, moved with every step of our clock."""
        self.number = 0

    @property
    def rows(self) -> IdArray:
        """Core ids of all it lists or listed."""
        waiting = np.fromiter(self.unconfirmed, np.int32, len(self.unconfirmed))
        return np.concatenate((self.ids[self.ids >= 0], waiting))


class FeedTable:
    """All feeds of a core, and the universe and board they write to."""

    def __init__(self, universe: Universe, board: QuoteBoard) -> None:
        self._universe = universe
        self._board = board
        self._feeds: dict[int, _Feed] = {}
        self._of_underlying: dict[str, dict[int, None]] = {}
        """Feeds that list options of an underlying; a dict for its order, which a set of strings would not keep."""
        self._verdicts: dict[int, Verdict] = {}
        self._left_out: dict[int, tuple[str, ...]] = {}
        """By feed that is not live, the underlyings of which another is."""
        self.unheard: BoolArray | None = None
        """By core id, what is not to be used because its feed is not live while another is; None where there is nothing."""
        self.skews: IntArray | None = None
        """By core id, our clock less its venue's, `UNKNOWN_SKEW` where that is not known; None where none is."""
        self._unheard_of: tuple[object, ...] = ()
        self._skews_of: tuple[object, ...] = ()

    def started(self, entry: FeedStarted) -> None:
        """A feed's process is new: its ids mean nothing yet, and what it had quoted is no longer live."""
        old = self._feeds.get(entry.feed)
        feed = self._feeds[entry.feed] = _Feed(entry.name)
        if old is not None:
            feed.unconfirmed = {i for i in old.ids.tolist() if i >= 0} | old.unconfirmed
            self._board.clear_quotes(np.array(sorted(feed.unconfirmed), np.int64))

    def added(self, entry: InstrumentsAdded) -> None:
        """Instruments of a feed; those that another feed or an earlier process listed keep their ids."""
        feed = self._feed(entry.feed)
        if not entry.ids:
            return
        if max(entry.ids) >= len(feed.ids):
            grown = np.full(max(entry.ids) + 1, -1, np.int32)
            grown[: len(feed.ids)] = feed.ids
            feed.ids = grown
        ours = self._universe.add(entry.instruments)
        feed.ids[np.array(entry.ids, np.int64)] = ours
        feed.unconfirmed.difference_update(ours.tolist())
        for instrument in entry.instruments:
            if instrument.kind is Kind.OPTION:
                self._of_underlying.setdefault(instrument.underlying, {})[entry.feed] = None

    def retired(self, entry: InstrumentsRetired) -> None:
        """Instruments the feed no longer lists."""
        ours = self._ours(self._feed(entry.feed), np.array(entry.ids, np.int64))
        self._universe.retire(ours[ours >= 0])

    def quotes(self, batch: QuoteBatch) -> None:
        """Overwrite last values; rows of ids that were never listed are counted by the board."""
        feed = self._feed(batch.feed)
        mine = copy.copy(batch)
        mine.instrument_id = self._ours(feed, batch.instrument_id.astype(np.int64))
        self._board.apply(mine)
        feed.number = batch.number

    def health(self, entry: FeedHealth) -> None:
        """How a feed is. Once it is whole or given up, what it has not listed again is no longer listed."""
        feed = self._feed(entry.feed)
        feed.health, feed.skew_ns = entry, entry.liveness.skew_ns
        if entry.state in (FeedState.READY, FeedState.FAILED) and feed.unconfirmed:
            self._universe.retire(np.array(sorted(feed.unconfirmed), np.int64))
            feed.unconfirmed = set()

    def clock_step(self, entry: ClockStep) -> None:
        """Move what was heard before the clock was set into the new time, so that its age stays what it is."""
        # What was told after the step is in the new time already.
        last_ns = entry.time_ns - max(entry.step_ns, 0)

        def is_before(times: Any) -> Any:
            return (times > 0) & ((times <= last_ns) if entry.step_ns > 0 else (times > last_ns))

        received = self._board.receive_time_ns
        received[is_before(received)] += entry.step_ns
        for feed in self._feeds.values():
            if feed.skew_ns is not None:
                feed.skew_ns += entry.step_ns
            if feed.health is not None:
                # Or those whose next report comes a frame later than another's would leave the smiles for that frame.
                told = {name: getattr(feed.health, name) for name in ("time_ns", "last_message_ns")}
                moved = {name: ns + entry.step_ns for name, ns in told.items() if is_before(ns)}
                feed.health = msgspec.structs.replace(feed.health, **moved)

    def judge(self, now_ns: int, rules: CoreRules) -> list[str]:
        """Decide which feeds are live, for all that is asked until the next frame.

        Returns:
            Underlyings whose smiles some feed has left or come back to since the last call.
        """
        self._verdicts = judge({n: (f.health, f.skew_ns) for n, f in self._feeds.items()}, now_ns, rules)
        out: dict[int, tuple[str, ...]] = {}
        for number in sorted(self._feeds):
            if not self._verdicts[number].is_live:
                mine = (name for name, feeds in self._of_underlying.items() if number in feeds and self.is_live(name))
                if names := tuple(sorted(mine)):
                    out[number] = names
        turned = {name for number in (out | self._left_out) for name in _differ(out, self._left_out, number)}
        self._left_out = out
        self._mark_unheard()
        self._spread_skews()
        return sorted(turned)

    def is_live(self, underlying: str) -> bool:
        """Whether any feed of an underlying is whole and heard."""
        return any(self._verdicts[number].is_live for number in self._of_underlying.get(underlying, {}))

    def numbers(self) -> dict[str, int]:
        """Number of the last batch taken from each feed."""
        return {name: self._feeds[number].number for number, name in self._labels().items()}

    def statuses(self, now_ns: int) -> dict[str, FeedStatus]:
        """How each feed is, by name."""
        return {
            name: status(
                name, self._feeds[number].health, self._verdicts[number], self._left_out.get(number, ()), now_ns
            )
            for number, name in self._labels().items()
        }

    def problems(self) -> list[Problem]:
        """Which feeds have left the smiles, and what is wrong with those that are connected."""
        told = []
        for number, name in self._labels().items():
            health = self._feeds[number].health
            if names := self._left_out.get(number):
                verdict = self._verdicts[number]
                until = "for good" if verdict.state == FeedState.FAILED else "until it is whole again"
                told.append(Problem("", "feed", f"{name}: {verdict.why}; left out of {', '.join(names)} {until}"))
            if health is not None and health.trouble:
                told.append(Problem("", "feed", f"{name}: {health.trouble}"))
        return told

    def _labels(self) -> dict[int, str]:
        """A name of its own for each feed: two of one venue are told apart by their numbers."""
        names = [feed.name for feed in self._feeds.values()]
        return {
            number: feed.name if names.count(feed.name) == 1 else f"{feed.name} #{number}"
            for number, feed in sorted(self._feeds.items())
        }

    def _mark_unheard(self) -> None:
        key = (self._universe.version, tuple(self._left_out.items()))
        if key == self._unheard_of:
            return
        self._unheard_of = key
        self.unheard = None
        if not self._left_out:
            return
        universe = self._universe
        out = np.zeros(len(universe), np.bool_)
        for number, names in self._left_out.items():
            rows = self._feeds[number].rows
            wanted = np.array([name in names for name in universe.underlyings])
            out[rows[wanted[universe.underlying_id[rows]]]] = True
        # What a live feed lists as well is as live as that one.
        for number, feed in self._feeds.items():
            if self._verdicts[number].is_live:
                out[feed.ids[feed.ids >= 0]] = False
        self.unheard = out

    def _spread_skews(self) -> None:
        key = (self._universe.version, tuple((n, f.skew_ns) for n, f in sorted(self._feeds.items())))
        if key == self._skews_of:
            return
        self._skews_of = key
        self.skews = None
        known = [(feed.ids, feed.skew_ns) for _, feed in sorted(self._feeds.items()) if feed.skew_ns is not None]
        if known:
            self.skews = np.full(len(self._universe), UNKNOWN_SKEW, np.int64)
            for ids, skew_ns in known:
                self.skews[ids[ids >= 0]] = skew_ns

    def _feed(self, number: int) -> _Feed:
        if number not in self._feeds:
            self._feeds[number] = _Feed(f"feed {number}")
        return self._feeds[number]

    @staticmethod
    def _ours(feed: _Feed, ids: np.typing.NDArray[np.int64]) -> IdArray:
        known = (ids >= 0) & (ids < len(feed.ids))
        if known.all():
            return feed.ids[ids]
        ours = np.full(len(ids), -1, np.int32)
        ours[known] = feed.ids[ids[known]]
        return ours


def _differ(one: dict[int, tuple[str, ...]], other: dict[int, tuple[str, ...]], number: int) -> set[str]:
    return set(one.get(number, ())) ^ set(other.get(number, ()))
