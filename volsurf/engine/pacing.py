"""When frames are due, when the clock was set, and what a run amounts to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from volsurf.engine.frame import Frame
from volsurf.engine.log import ClockStep, FeedHealth, FeedState

CLOCK_STEP_NS = 250_000_000
"""A disagreement of the wall clock with the steady one, between two frames, that counts as a step."""


def steady_ns() -> int:
    """A clock that nobody sets and that goes on while the machine sleeps, so that sleep is not taken for a step."""
    clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock)


class FrameClock:
    """When frames are due. A frame that is late is made late; ticks that passed meanwhile are dropped, never made up for."""

    def __init__(self, period: float, now: float) -> None:
        self.period = period
        self.due = now
        self.dropped = 0

    def wait(self, now: float) -> float:
        """Seconds until the next frame is due."""
        return max(0.0, self.due - now)

    def take(self, now: float) -> float:
        """Take the tick that is due and return how late it is, in seconds."""
        late = now - self.due
        passed = int(late / self.period)
        self.dropped += passed
        self.due += (passed + 1) * self.period
        return late


class StepDetector:
    """Notices that the wall clock was set, by its difference from the steady one."""

    def __init__(self, wall_ns: int, steady: int) -> None:
        self._offset = wall_ns - steady

    def look(self, wall_ns: int, steady: int) -> ClockStep | None:
        """The step since the last look, or None."""
        step = wall_ns - steady - self._offset
        self._offset += step
        return ClockStep(wall_ns, step) if abs(step) >= CLOCK_STEP_NS else None


class Readiness:
    """When the engine is ready: there is a surface, and every feed is live or given up.

    One that is neither holds it up for `patience` seconds at most from when another is live and there is a surface.

    Args:
        feeds: how many there are to be. patience: seconds.
    """

    def __init__(self, feeds: int, patience: float) -> None:
        self._feeds, self._patience = feeds, patience
        self._until: float | None = None

    def look(self, frame: Frame, now: float) -> bool:
        """Whether it is by the newest frame, at a time of a steady clock in seconds."""
        feeds = frame.health.values()
        if not frame.surfaces or not any(feed.is_live for feed in feeds):
            self._until = None
            return False
        if len(feeds) >= self._feeds and all(feed.is_live or feed.state == FeedState.FAILED for feed in feeds):
            return True
        if self._until is None:
            self._until = now + self._patience
        return now >= self._until


@dataclass
class Tally:
    """Figures of this process since it was ready; what `volsurf live --json` prints."""

    frames: int = 0
    slices_published: int = 0
    """Over all frames: a slice counts once in every frame that carries it."""
    slices_certified: int = 0
    expiries_listed: int = 0
    """In the last frame."""
    expiries_fitted: int = 0
    feeds: dict[int, FeedHealth] = field(default_factory=dict)
    earlier: dict[str, int] = field(default_factory=dict)
    """Messages and missed heartbeats of feed processes that have ended."""

    def feed_started(self, feed: int) -> None:
        """Its counts begin again from nothing."""
        ended = self.feeds.pop(feed, None)
        if ended is not None:
            for key in ("messages", "heartbeats_missed"):
                self.earlier[key] = self.earlier.get(key, 0) + getattr(ended, key)

    def count(self, frame: Frame) -> None:
        """Add a frame."""
        if not frame.surfaces:
            return
        fits = [smile.fit for surface in frame.surfaces.values() for smile in surface.smiles if smile.fit is not None]
        self.frames += 1
        self.slices_published += len(fits)
        self.slices_certified += sum(fit.is_certified for fit in fits)
        self.expiries_listed = sum(len(expiries) for expiries in frame.listed.values())
        self.expiries_fitted = len(fits)

    def report(self) -> dict[str, int]:
        """As the keys of `--json`."""
        return {
            "frames": self.frames,
            "messages": self._of_feeds("messages"),
            "expiries_listed": self.expiries_listed,
            "expiries_fitted": self.expiries_fitted,
            "slices_published": self.slices_published,
            "slices_certified": self.slices_certified,
            "heartbeats_missed": self._of_feeds("heartbeats_missed"),
        }

    def _of_feeds(self, key: str) -> int:
        now: int = sum(getattr(feed, key) for feed in self.feeds.values())
        return now + self.earlier.get(key, 0)
