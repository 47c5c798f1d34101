"""Frames on a clock of their own from the feeds of one or several captures."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from volsurf.engine.core import Core, CoreRules
from volsurf.engine.frame import Frame
from volsurf.engine.log import ClockStep, Entry, PolicyChange
from volsurf.errors import InputError
from volsurf.feeds.protocol import Event
from volsurf.replay._select import Selection
from volsurf.replay._sources import Source
from volsurf.replay._times import time_text
from volsurf.replay._translate import EventTranslator

LONGEST_NS = 1_000_000_000
"""A feed is collected at least this often in the capture's time, so that the events of one collection stay few."""
SILENCE_NS = 60_000_000_000
"""A feed's timer is called every second: where no stream has anything for so long, nothing was recorded; it is skipped."""


class Player(Protocol):
    """What plays one stream."""

    stream: str
    entries: list[Entry]
    events: list[Event]
    is_over: bool
    is_midway: bool
    shift_ns: int

    @property
    def messages(self) -> int:
        """Received so far."""

    @property
    def next_ns(self) -> int | None:
        """When the next record comes, None after the last."""

    def advance(self, until_ns: int) -> None:
        """Play everything up to a time."""

    def book_snapshots(self) -> Sequence[Event]:
        """Every book as it stands."""


class ClockedPlayer:
    """Plays streams up to each tick of a frame clock.

    Attributes:
        core: as it is now. events: since the frame before. notes: what the frames do not show, in sentences.
        verified: 0, frames of one's own clock are compared with nothing.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        every_ns: int,
        start_ns: int,
        end_ns: int,
        underlyings: Collection[str] | None = None,
        venues: Collection[str] | None = None,
        rules: CoreRules | None = None,
    ) -> None:
        self._every, self._start, self._end = every_ns, start_ns, end_ns
        self.core = Core(rules)
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.verified = 0
        if rules is None:
            for policy in _policies(sources):
                self.core.apply(policy)
        self._players: list[Player] = []
        for source in sources:
            self._players += source.players(venues, start_ns, end_ns, first=len(self._players))
        if not self._players:
            there = ", ".join(sorted({name for source in sources for name in source.venues}))
            raise InputError(
                f"no feed of {', '.join(sorted(venues or ()))} in the capture; there are: {there or 'none'}"
            )
        self._selection = Selection(underlyings)
        self._translators = [EventTranslator(self.core.universe) for _ in self._players]
        self._wanted, self._shift = underlyings, 0
        self._begun, self._earliest = False, 0

    @property
    def messages(self) -> int:
        """Received by all feeds so far."""
        return sum(player.messages for player in self._players)

    def play(self) -> Iterator[Frame]:
        """The frames, in order."""
        first = min((n for player in self._players if (n := player.next_ns) is not None), default=None)
        if first is None:
            return
        self._earliest, every = first, self._every
        tick = -(-max(first, self._start) // every) * every
        while tick <= self._end:
            self._advance(tick)
            yield self._frame(tick)
            ahead = [n for player in self._players if (n := player.next_ns) is not None]
            if not ahead:
                break
            if min(ahead) - tick > max(SILENCE_NS, every):
                self.notes.append(f"nothing was recorded from {time_text(tick)} to {time_text(min(ahead))}")
                tick = min(ahead) // every * every
            tick += every
        if self.core.universe.underlyings == () and self._wanted:
            self.notes.append(f"no option of {', '.join(sorted(self._wanted))} was listed in what was played")

    def _advance(self, tick: int) -> None:
        events: list[list[Event]] = []
        for number, player in enumerate(self._players):
            # Records that lie before the first frame come in steps too: a day of trades must not pile up.
            while (at := player.next_ns) is not None and at < tick - LONGEST_NS:
                player.advance(max(at, min(at + LONGEST_NS, tick - 1)))
                self._tell(number, player)
                if not self._begun:
                    player.events.clear()
            player.advance(tick)
            self._tell(number, player)
            if not self._begun and (player.is_midway or tick - self._every > self._earliest):
                # Who begins in the middle gets the books as they stand instead of the changes that made them.
                player.events[:] = player.book_snapshots()
            events.append(self._translators[number].translate(player.events))
            player.events.clear()
        self._begun = True
        self.events = events[0] if len(events) == 1 else list(heapq.merge(*events, key=_venue_time))

    def _tell(self, number: int, player: Player) -> None:
        for entry in player.entries:
            wanted = self._selection.take(entry)
            if wanted is not None:
                self.core.apply(wanted)
                self._translators[number].learn(wanted)
        player.entries.clear()

    def _frame(self, tick: int) -> Frame:
        shift = next((player.shift_ns for player in self._players if not player.is_over), self._shift)
        if shift != self._shift:
            self.core.apply(ClockStep(tick + shift, shift - self._shift))
            self._shift = shift
        return self.core.frame(tick + shift)


def _venue_time(event: Event) -> int:
    return int(getattr(event, "venue_time_ns", 0))


def _policies(sources: Sequence[Source]) -> list[PolicyChange]:
    for source in sources:
        rules = source.rules
        if rules:
            known = {name: value for name, value in rules.items() if name in PolicyChange.__struct_fields__}
            return [PolicyChange(**known)]
    return []
