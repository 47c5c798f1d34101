"""The figures of an engine's run, put together from what its core reports, across restarts of the core."""

from __future__ import annotations

from collections.abc import Mapping

KEYS = (
    "messages",
    "expiries_listed",
    "expiries_fitted",
    "slices_published",
    "slices_certified",
    "heartbeats_missed",
)
_COUNTED_BY_CORE = ("frames", "slices_published", "slices_certified")
_SILENT_SECONDS = 1.0
_SILENT_FRAMES = 2.0
"""A core reports four times a second, after a frame; one that has not for so long, or so many frames, makes none."""


class Figures:
    """Counts and the time they were counted over. All times are of one steady clock, in seconds."""

    def __init__(self, frame_seconds: float = 0.1) -> None:
        self._silent_after = max(_SILENT_SECONDS, _SILENT_FRAMES * frame_seconds)
        self._ready_at: float | None = None
        self._core_ready_at: float | None = None
        self._reported_at = self._counted_to = 0.0
        self._now: dict[str, int] = {}
        self._earlier: dict[str, int] = {}

    def ready(self, now: float) -> None:
        """A core is; frames count from the first time one was."""
        self._core_ready_at = now
        self._ready_at = now if self._ready_at is None else self._ready_at

    def report(self, now: float, seconds: float, figures: Mapping[str, int]) -> None:
        """Take a report of the core, whose last frame came `seconds` after the one that made it ready."""
        self._reported_at = now
        self._now = dict(figures)
        if self._core_ready_at is None:
            return
        # Its word may have taken a while to get here.
        self._core_ready_at = min(self._core_ready_at, now - seconds)
        if not self._earlier:
            self._ready_at = self._core_ready_at
        self._counted_to = self._core_ready_at + seconds

    def core_ended(self) -> None:
        """The next core counts from nothing."""
        self._core_ready_at = None
        for key in _COUNTED_BY_CORE:
            self._earlier[key] = self._earlier.get(key, 0) + self._now.get(key, 0)
            self._now[key] = 0

    def summary(self, now: float) -> dict[str, float]:
        """Under the keys that `volsurf live --json` prints."""
        figures = {key: self._now.get(key, 0) + self._earlier.get(key, 0) for key in ("frames", *KEYS)}
        # To the last frame counted, so that those made since are not missing from the rate; while none are made, to now.
        is_heard = self._core_ready_at is not None and now - self._reported_at < self._silent_after
        until = self._counted_to if is_heard else now
        seconds = 0.0 if self._ready_at is None else max(0.0, until - self._ready_at)
        return {
            "seconds": round(seconds, 3),
            "frames": figures["frames"],
            "frames_per_second": round(figures["frames"] / seconds, 3) if seconds > 0 else 0.0,
            **{key: figures[key] for key in KEYS},
        }
