"""Above the panels: whether what they show can be believed, which underlying they show, and a line for each feed."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

from volsurf.diagnostics.trouble import attention
from volsurf.widgets._esm import panel_module
from volsurf.widgets._payload import encode, frame_facts
from volsurf.widgets.live import LiveView, shown_underlying

if TYPE_CHECKING:
    from volsurf.engine.codec import FeedStatus
    from volsurf.engine.frame import Frame
    from volsurf.surface.surface import Surface

_MONTH = 30 / 365
_RATE_WINDOW_NS = 3_000_000_000


class StatusPanel(LiveView):
    """State, what to look at, 30-day vol, expiries certified and fitted, frame rate and age, and a choice of underlying.

    Below it a line for each feed: delay, clock, age of its quotes, messages, what is silent, what its order books missed.

    StatusPanel(session)
    """

    _esm = panel_module("status")
    every = 0.15  # every second frame of ten a second, with room for jitter

    def __init__(self, source: object, **settings: object) -> None:
        self._counts: deque[tuple[int, dict[str, int]]] = deque()
        super().__init__(source, **settings)  # type: ignore[arg-type]

    def content(self, frame: Frame) -> object:
        """Always something new: the rates."""
        return None

    def encode(self, frame: Frame) -> bytes:
        """Facts only, no columns."""
        underlying = shown_underlying(frame, self.underlying)
        surface = frame.surfaces.get(underlying)
        fits = [smile.fit for smile in surface.smiles if smile.fit is not None] if surface else []
        listed = len(frame.listed.get(underlying, ())) or (len(surface.smiles) if surface else 0)
        atm, error = _month_vol(surface)
        rates = self._rates(frame)
        facts = {
            "kind": "status",
            "feed": _all_feeds(list(frame.health.values())),
            "feeds": [_feed_facts(status, rates.get(name)) for name, status in frame.health.items()],
            "messages_per_second": sum(rates.values()) if rates else None,
            "listed": listed,
            "fitted": len(fits),
            "certified": sum(fit.is_certified for fit in fits),
            "attention": attention(surface.smiles) if surface else [],
            "atm": atm,
            "atm_error": error,
            "frame_ms": frame.timings.get("total"),
            "problems": [problem.sentence[:120] for problem in frame.problems[:3]],
        }
        return encode(frame_facts(frame, underlying) | facts, [])

    def _rates(self, frame: Frame) -> dict[str, float]:
        """Messages a second of each feed over the last three; of one that is newer than that none yet."""
        now = (frame.time_ns, {name: status.messages for name, status in frame.health.items()})
        counts = self._counts
        # A feed that started again counts from zero, and a clock may be set back: both begin a new window.
        if counts and (now[0] <= counts[-1][0] or _began_again(counts[-1][1], now[1])):
            counts.clear()
        counts.append(now)
        while len(counts) > 2 and counts[-1][0] - counts[0][0] > _RATE_WINDOW_NS:
            counts.popleft()
        (first_ns, first), (last_ns, last) = counts[0], counts[-1]
        if last_ns <= first_ns:
            return {}
        seconds = (last_ns - first_ns) / 1e9
        return {name: (count - first[name]) / seconds for name, count in last.items() if name in first}


def _began_again(before: dict[str, int], now: dict[str, int]) -> bool:
    return any(count < before.get(name, 0) for name, count in now.items())


def _all_feeds(feeds: list[FeedStatus]) -> str:
    """All of them in a few words."""
    if len(feeds) < 2:
        return "".join(f"{status.name} {status.state}" for status in feeds)
    live = sum(status.is_live for status in feeds)
    return f"{live} venues" if live == len(feeds) else f"{live} of {len(feeds)} venues"


def _feed_facts(status: FeedStatus, rate: float | None) -> dict[str, object]:
    """A feed's line. Milliseconds; None for what is not known."""
    news = status.liveness
    return {
        "name": status.name,
        "state": status.state,
        "live": status.is_live,
        "left_out": list(status.left_out),
        "sentence": status.sentence[:200],
        "messages_per_second": rate,
        "lag": [news.lag_median_ms, news.lag_p95_ms],
        "skew": None if news.skew_ns is None else news.skew_ns / 1e6,
        "age": [news.quote_age_median_ms, news.quote_age_p95_ms],
        "silent": [[c.name[:40], c.silent_ms, c.limit_ms] for c in news.channels if c.is_silent][:4],
        "gaps": news.gaps,
        "resyncs": news.resyncs,
        "takeovers": news.takeovers,
        "crossed": news.crossed,
    }


def _month_vol(surface: Surface | None) -> tuple[float | None, float | None]:
    """Vol at the forward in thirty days and its standard error; None where that is not between two fitted expiries.

    As `Surface.vol` has it, which would load the kernels that decide how the wings go on between expiries: at the forward total
    variance is linear in time in any case.
    """
    fits = [(s.years, s.atm_vol, s.fit.atm_error) for s in surface.smiles if s.fit is not None] if surface else []
    for (near, near_vol, near_error), (far, far_vol, far_error) in pairwise(fits):
        if not near <= _MONTH <= far:
            continue
        share = (_MONTH - near) / (far - near)
        parts = ((1.0 - share) * near * near_vol, share * far * far_vol)
        vol = math.sqrt((parts[0] * near_vol + parts[1] * far_vol) / _MONTH)
        error = math.hypot(parts[0] * near_error, parts[1] * far_error) / (vol * _MONTH)
        return (vol if math.isfinite(vol) else None), (error if math.isfinite(error) else None)
    return None, None
