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
"""A core reports four times a second; one that has not for so long is not making frames, and the rate says so."""


class Figures:
    """Counts and the time they were counted over. All times are of one steady clock, in seconds."""

    def __init__(self) -> None:
        self._ready_at: float | None = None
        self._reported_at = 0.0
        self._now: dict[str, int] = {}
        self._earlier: dict[str, int] = {}

    def ready(self, now: float) -> None:
        """Frames count from the first time the engine is ready."""
        self._ready_at = now if self._ready_at is None else self._ready_at

    def report(self, now: float, seconds: float, figures: Mapping[str, int]) -> None:
        """Take a report of the core, which has been ready for `seconds`."""
        self._reported_at = now
        self._now = dict(figures)
        if self._ready_at is not None and not self._earlier:
            # Its word that it was ready may have taken a while to get here.
            self._ready_at = min(self._ready_at, now - seconds)

    def core_ended(self) -> None:
        """The next core counts from nothing."""
        for key in _COUNTED_BY_CORE:
            self._earlier[key] = self._earlier.get(key, 0) + self._now.get(key, 0)
            self._now[key] = 0

    def summary(self, now: float) -> dict[str, float]:
        """Under the keys that `volsurf live --json` prints."""
        figures = {key: self._now.get(key, 0) + self._earlier.get(key, 0) for key in ("frames", *KEYS)}
        # To the last report, so that the frames since then are not missing from the rate.
        until = self._reported_at if now - self._reported_at < _SILENT_SECONDS else now
        seconds = 0.0 if self._ready_at is None else max(0.0, until - self._ready_at)
        return {
            "seconds": round(seconds, 3),
            "frames": figures["frames"],
            "frames_per_second": round(figures["frames"] / seconds, 3) if seconds > 0 else 0.0,
            **{key: figures[key] for key in KEYS},
        }
