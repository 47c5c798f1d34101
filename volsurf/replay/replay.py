"""`vs.replay`: frames from a capture, as fast as they can be made or at the capture's own pace.

    for frame in vs.replay("captures/today", every="1s"):
        surface = frame.surfaces["BTC"]

    for frame, events in vs.replay("captures/today", every="1s", with_events=True):
        trades = [event for event in events if isinstance(event, vs.TradeEvent)]

With `every`, a frame clock of its own runs over the capture's time: on whole multiples of the period, so that captures of
different machines meet on the same instants. Without it, the frames that the recorded engine made are made again, entry by
entry, and each is compared with the hash recorded for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, overload

from volsurf.capture.reader import Capture
from volsurf.engine.core import CoreRules
from volsurf.engine.frame import Frame
from volsurf.errors import InputError
from volsurf.feeds.protocol import Event
from volsurf.instruments import Universe
from volsurf.quotes import QuoteBoard
from volsurf.replay._sources import Source, open_sources
from volsurf.replay._times import Instant, Period, instant_ns, period_ns, time_text
from volsurf.replay.clocked import ClockedPlayer
from volsurf.replay.exact import ExactPlayer

PathLike = str | os.PathLike[str]


class Replay:
    """An iterator of `Frame`; made by `replay`.

    Attributes:
        start_ns, end_ns: the time that is played, ns UTC. time_ns: of the last frame.
        events: `TradeEvent`s and `BookEvent`s since the frame before, in order, under ids of `universe`.
        frames: made so far.
    """

    def __init__(
        self,
        player: ExactPlayer | ClockedPlayer,
        sources: Sequence[Source],
        *,
        start_ns: int,
        end_ns: int,
        speed: float | None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._player, self._sources = player, sources
        self.start_ns, self.end_ns = start_ns, end_ns
        self.time_ns = start_ns
        self.events: list[Event] = []
        self.frames = 0
        self._speed, self._sleep, self._monotonic = speed, sleep, monotonic
        self._began: tuple[float, int] | None = None
        self._frames = self._play()

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def __repr__(self) -> str:
        return f"Replay({self.frames} frames, {self.messages:,} messages, {100 * self.progress:.0f} %)"

    @property
    def progress(self) -> float:
        """Share of the time that is played, 0 to 1."""
        span = self.end_ns - self.start_ns
        return min(1.0, max(0.0, (self.time_ns - self.start_ns) / span)) if span > 0 else 1.0

    @property
    def messages(self) -> int:
        """Venue messages (or, of a columnar capture, rows) that went in so far."""
        return self._player.messages

    @property
    def verified(self) -> int:
        """Frames that were compared with the hash recorded for them, and equal; 0 with a clock of one's own."""
        return self._player.verified

    @property
    def universe(self) -> Universe:
        """Instruments, by the ids that events and smiles have."""
        return self._player.core.universe

    @property
    def board(self) -> QuoteBoard:
        """Last values of every instrument at the last frame."""
        return self._player.core.board

    @property
    def lost(self) -> tuple[str, ...]:
        """What is missing from the capture, or could not be played, in sentences."""
        said = [sentence for source in self._sources for sentence in source.lost]
        return tuple(dict.fromkeys((*said, *self._player.notes)))

    def with_events(self) -> Iterator[tuple[Frame, list[Event]]]:
        """Each frame with the events since the one before."""
        for frame in self:
            yield frame, self.events

    def _play(self) -> Iterator[Frame]:
        for frame in self._player.play():
            if frame.time_ns < self.start_ns:
                continue  # of an exact replay that begins later: it has to be made all the same
            if frame.time_ns > self.end_ns:
                return
            self._pace(frame.time_ns)
            self.time_ns = frame.time_ns
            self.events = self._player.events
            self.frames += 1
            yield frame

    def _pace(self, time_ns: int) -> None:
        if self._speed is None:
            return
        now = self._monotonic()
        if self._began is None:
            self._began = (now, time_ns)
        began, at_ns = self._began
        ahead = (time_ns - at_ns) / 1e9 / self._speed - (now - began)
        if ahead > 0:
            self._sleep(ahead)


@overload
def replay(
    path: PathLike | Capture | Sequence[PathLike | Capture],
    every: Period | None = None,
    start: Instant | None = None,
    stop: Instant | None = None,
    speed: float | None = None,
    *,
    underlyings: str | Collection[str] | None = None,
    venues: str | Collection[str] | None = None,
    rules: CoreRules | None = None,
    verify: bool = True,
    with_events: Literal[False] = False,
) -> Replay: ...
@overload
def replay(
    path: PathLike | Capture | Sequence[PathLike | Capture],
    every: Period | None = None,
    start: Instant | None = None,
    stop: Instant | None = None,
    speed: float | None = None,
    *,
    underlyings: str | Collection[str] | None = None,
    venues: str | Collection[str] | None = None,
    rules: CoreRules | None = None,
    verify: bool = True,
    with_events: Literal[True],
) -> Iterator[tuple[Frame, list[Event]]]: ...
def replay(
    path: PathLike | Capture | Sequence[PathLike | Capture],
    every: Period | None = None,
    start: Instant | None = None,
    stop: Instant | None = None,
    speed: float | None = None,
    *,
    underlyings: str | Collection[str] | None = None,
    venues: str | Collection[str] | None = None,
    rules: CoreRules | None = None,
    verify: bool = True,
    with_events: bool = False,
) -> Replay | Iterator[tuple[Frame, list[Event]]]:
    """Frames of a capture, in order.

    Args:
        path: a capture's directory, a columnar one (Parquet, `volsurf capture export`), a raw file of cryptofeed, or several
            of them: they are merged by time.
        every: period of the frames: "1s", "100ms", 0.5 (seconds), a timedelta. None makes the frames that the recorded
            engine made, bit for bit; that needs one capture of an engine from its beginning.
        start, stop: from and to when: "2026-11-24T08:00:00Z", "+5m" after the beginning, a datetime, ns UTC. With `every`,
            reading starts at the last snapshot before.
        speed: 1.0 is the capture's own pace, 10.0 ten times that; None is as fast as can be.
        underlyings, venues: only these; None is all.
        rules: of the core; None takes those of the recorded engine where there is one.
        verify: without `every`: compare each frame with the hash recorded for it.
        with_events: yield `(frame, events)` instead of frames.

    Raises:
        InputError: no such capture, nothing in it that was asked for, a time or period that is none.
        ReplayError: frames cannot be made as they were; the message says from where on and why.
    """
    sources = open_sources([path] if isinstance(path, (str, os.PathLike, Capture)) else list(path))
    if speed is not None and not 0 < speed < float("inf"):
        raise InputError(
            f"speed must be positive, 1.0 for the capture's own pace and None for all there is, was {speed!r}"
        )
    begin_ns, last_ns = min(s.start_ns for s in sources), max(s.end_ns for s in sources)
    start_ns = begin_ns if start is None else instant_ns("start", start, begin_ns)
    end_ns = last_ns if stop is None else instant_ns("stop", stop, begin_ns)
    if not start_ns <= end_ns or end_ns < begin_ns or start_ns > last_ns:
        raise InputError(
            f"nothing to play from {time_text(start_ns)} to {time_text(end_ns)}: the capture goes from {time_text(begin_ns)} "
            f"to {time_text(last_ns)}"
        )
    names = _names("underlyings", underlyings)
    of_venues = _names("venues", venues)
    player: ExactPlayer | ClockedPlayer
    if every is None:
        if len(sources) > 1 or sources[0].capture is None:
            raise InputError(
                "several captures, and any but an engine's own, have no frames to make again: give every='1s'"
            )
        if names or of_venues or rules:
            raise InputError(
                "underlyings, venues and rules make other frames than were recorded: give every='1s' with them"
            )
        player = ExactPlayer(sources[0].capture, verify=verify)
    else:
        every_ns = period_ns("every", every)
        if stop is None:
            # The last frame has everything, though the last record seldom comes on a tick.
            end_ns = -(-end_ns // every_ns) * every_ns
        player = ClockedPlayer(
            sources,
            every_ns=every_ns,
            start_ns=start_ns,
            end_ns=end_ns,
            underlyings=names,
            venues=of_venues,
            rules=rules,
        )
    played = Replay(player, sources, start_ns=start_ns, end_ns=end_ns, speed=speed)
    return played.with_events() if with_events else played


def _names(what: str, value: str | Collection[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    names = frozenset([value] if isinstance(value, str) else value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{what} must be names, or None for all, was {value!r}")
    return names


__all__ = ["Replay", "replay"]
