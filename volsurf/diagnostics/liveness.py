"""How fresh each feed's news is, as text, as a notebook shows it, and as a table.

It reads the feeds' states off a frame (`Frame.health`); what a number means is said where it is made, at `engine.log.Liveness`.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from volsurf.diagnostics.page import DASH
from volsurf.surface.html import BAD, GOOD, STYLE, UNSURE

if TYPE_CHECKING:
    import polars as pl


Feed = Any
"""An `engine.codec.FeedStatus`: this room knows nothing of the engine, which stands above it."""

HEADS = ("delay", "95 %", "clock", "quotes' age", "95 %", "gaps", "resyncs", "takeovers", "crossed")


def milliseconds(ms: float | None, *, sign: bool = False) -> str:
    """As a person reads it: 0.8 ms, 12 ms, 2.3 s."""
    if ms is None:
        return DASH
    mark = "+" if sign and ms > 0 else "−" if ms < 0 else ""
    size = abs(ms)
    return f"{mark}{size / 1e3:.1f} s" if size >= 1e3 else f"{mark}{size:.{1 if size < 9.95 else 0}f} ms"


def feed_sentence(feed: Feed) -> str:
    """What to know of a feed beside its numbers: its state, whose smiles it has left, what it does not send."""
    said = [feed.sentence]
    if feed.left_out:
        said.append(f"left out of {', '.join(feed.left_out)} until it is whole again")
    for channel in feed.liveness.channels:
        if channel.is_silent:
            limit = milliseconds(channel.limit_ms)
            said.append(f"{channel.name} silent for {milliseconds(channel.silent_ms)}, limit {limit}")
    return "; ".join(said)


def liveness_text(feeds: Mapping[str, Feed]) -> str:
    """For a terminal: a line a feed."""
    rows = [("feed", *HEADS, ""), *((f.name, *_numbers(f.liveness), feed_sentence(f)) for f in feeds.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS) + 1)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:], strict=True)), row[-1]]
        ).rstrip()
        for row in rows
    )


def liveness_html(feeds: Mapping[str, Feed]) -> str:
    """For a notebook: a line a feed; the kinds of news of each on its name."""
    head = "<th>feed</th>" + "".join(f"<th>{escape(h)}</th>" for h in HEADS) + "<th class='text'>look at</th>"
    body = []
    for feed in feeds.values():
        colour = GOOD if feed.is_live else UNSURE if feed.state in ("connecting", "subscribing") else BAD
        numbers = "".join(f"<td>{n}</td>" for n in _numbers(feed.liveness))
        body.append(
            f"<tr><th title='{escape(_channels(feed.liveness), quote=True)}'><span style='color:{colour}'>●</span> "
            f"{escape(feed.name)}</th>{numbers}<td class='text'>{escape(feed_sentence(feed))}</td></tr>"
        )
    return (
        f"{STYLE}<div class='volsurf wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def liveness_frame(feeds: Mapping[str, Feed]) -> pl.DataFrame:
    """One row a feed and kind of news; what is of the whole feed is repeated. Times in milliseconds."""
    import polars as pl

    rows = [
        {
            "feed": feed.name,
            "state": feed.state,
            "is_live": feed.is_live,
            "left_out": list(feed.left_out),
            "channel": channel.name if channel is not None else None,
            "silent_ms": channel and channel.silent_ms,
            "limit_ms": channel and channel.limit_ms,
            "lag_median_ms": channel and channel.lag_median_ms,
            "lag_p95_ms": channel and channel.lag_p95_ms,
            "skew_ms": None if feed.liveness.skew_ns is None else feed.liveness.skew_ns / 1e6,
            "quote_age_median_ms": feed.liveness.quote_age_median_ms,
            "quote_age_p95_ms": feed.liveness.quote_age_p95_ms,
            "gaps": feed.liveness.gaps,
            "resyncs": feed.liveness.resyncs,
            "takeovers": feed.liveness.takeovers,
            "crossed": feed.liveness.crossed,
        }
        for feed in feeds.values()
        for channel in (feed.liveness.channels or (None,))
    ]
    kinds: dict[str, Any] = dict.fromkeys(("feed", "state", "channel"), pl.String)
    kinds |= dict.fromkeys(("gaps", "resyncs", "takeovers", "crossed"), pl.Int64)
    kinds |= {"is_live": pl.Boolean, "left_out": pl.List(pl.String)}
    return pl.DataFrame(rows, schema={name: kinds.get(name, pl.Float64) for name in _COLUMNS})


_COLUMNS = (
    "feed",
    "state",
    "is_live",
    "left_out",
    "channel",
    "silent_ms",
    "limit_ms",
    "lag_median_ms",
    "lag_p95_ms",
    "skew_ms",
    "quote_age_median_ms",
    "quote_age_p95_ms",
    "gaps",
    "resyncs",
    "takeovers",
    "crossed",
)


def _numbers(news: Any) -> tuple[str, ...]:
    return (
        milliseconds(news.lag_median_ms),
        milliseconds(news.lag_p95_ms),
        milliseconds(None if news.skew_ns is None else news.skew_ns / 1e6, sign=True),
        milliseconds(news.quote_age_median_ms),
        milliseconds(news.quote_age_p95_ms),
        str(news.gaps),
        str(news.resyncs),
        str(news.takeovers),
        str(news.crossed),
    )


def _channels(news: Any) -> str:
    return "\n".join(
        f"{c.name}: {milliseconds(c.silent_ms)} ago"
        + (f", limit {milliseconds(c.limit_ms)}" if c.limit_ms is not None else "")
        + (
            f", delay {milliseconds(c.lag_median_ms)} · {milliseconds(c.lag_p95_ms)}"
            if c.lag_median_ms is not None
            else ""
        )
        for c in news.channels
    )
