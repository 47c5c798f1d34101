"""The core's side of the feeds: whose ids are whose, who is heard, which underlyings hang on whom."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from volsurf.engine.codec import FeedStatus, Problem
from volsurf.engine.log import ClockStep, FeedHealth, FeedStarted, FeedState, InstrumentsAdded, InstrumentsRetired
from volsurf.instruments import IdArray, Kind, Universe
from volsurf.quotes import QuoteBatch, QuoteBoard

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
        self.number = 0


class FeedTable:
    """All feeds of a core, and the universe and board they write to."""

    def __init__(self, universe: Universe, board: QuoteBoard) -> None:
        self._universe = universe
        self._board = board
        self._feeds: dict[int, _Feed] = {}
        self._of_underlying: dict[str, dict[int, None]] = {}
        """Feeds that list options of an underlying; a dict for its order, which a set of strings would not keep."""

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
        """How a feed is. Once it is whole, what it has not listed again is no longer listed."""
        feed = self._feed(entry.feed)
        feed.health = entry
        if entry.state is FeedState.READY and feed.unconfirmed:
            self._universe.retire(np.array(sorted(feed.unconfirmed), np.int64))
            feed.unconfirmed = set()

    def clock_step(self, entry: ClockStep) -> None:
        """Move what was received before the clock was set into the new time, so that its age stays what it is."""
        received = self._board.receive_time_ns
        if entry.step_ns > 0:
            before = (received > 0) & (received <= entry.time_ns - entry.step_ns)
        else:
            before = received > entry.time_ns
        received[before] += entry.step_ns

    def is_live(self, underlying: str, now_ns: int, rules: CoreRules) -> bool:
        """Whether any feed of an underlying is whole and heard."""
        feeds = self._of_underlying.get(underlying, {})
        return any(self._is_live(self._feeds[number], now_ns, rules) for number in feeds)

    def numbers(self) -> dict[str, int]:
        """Number of the last batch taken from each feed."""
        return {feed.name: feed.number for _, feed in sorted(self._feeds.items())}

    def statuses(self, now_ns: int, rules: CoreRules) -> dict[str, FeedStatus]:
        """How each feed is, by name."""
        return {feed.name: self._status(feed, now_ns, rules) for _, feed in sorted(self._feeds.items())}

    def problems(self) -> list[Problem]:
        """What is wrong with feeds that are connected."""
        known = [(feed.name, feed.health) for _, feed in sorted(self._feeds.items())]
        return [Problem("", "feed", f"{name}: {health.trouble}") for name, health in known if health and health.trouble]

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

    def _is_live(self, feed: _Feed, now_ns: int, rules: CoreRules) -> bool:
        health = feed.health
        return (
            health is not None and health.state is FeedState.READY and _silence(health, now_ns) <= rules.silent_after_ns
        )

    def _status(self, feed: _Feed, now_ns: int, rules: CoreRules) -> FeedStatus:
        health = feed.health
        if health is None:
            return _status(
                feed.name, FeedHealth(feed=0, name=feed.name, time_ns=0, state=FeedState.CONNECTING), 0, False
            )
        silent_ns = _silence(health, now_ns)
        return _status(feed.name, health, silent_ns, silent_ns > rules.silent_after_ns)


def _silence(health: FeedHealth, now_ns: int) -> int:
    """How long nothing has been heard: of the feed's process or, where it is connected, by its sockets."""
    process = now_ns - health.time_ns
    sockets = now_ns - health.last_message_ns if health.last_message_ns else 0
    return max(process, sockets, 0)


def _status(name: str, health: FeedHealth, silent_ns: int, is_silent: bool) -> FeedStatus:
    state = "silent" if is_silent and health.state is FeedState.READY else str(health.state)
    sentence = health.detail or f"{health.connected} of {health.connections} connections, {state}"
    if is_silent:
        sentence = f"nothing heard for {silent_ns / 1e9:.0f} s ({sentence})"
    return FeedStatus(
        name=name,
        state=state,
        is_live=health.state is FeedState.READY and not is_silent,
        silent_ns=silent_ns,
        connections=health.connections,
        connected=health.connected,
        messages=health.messages,
        malformed=health.malformed,
        reconnects=health.reconnects,
        heartbeats_missed=health.heartbeats_missed,
        late_batches=health.late_batches,
        sentence=sentence,
    )
