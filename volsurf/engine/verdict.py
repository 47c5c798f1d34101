"""Which feeds are live, and why the others are not, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volsurf.engine.codec import FeedStatus
from volsurf.engine.log import FeedHealth, FeedState

if TYPE_CHECKING:
    from volsurf.engine.core import CoreRules


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one feed."""

    state: str
    """As `FeedStatus.state`."""
    why: str = ""
    """Why it is not live, in words; "" where it is."""
    silent_ns: int = 0
    """Since anything was heard."""
    remark: str = ""
    """What its connections alone do not say."""

    @property
    def is_live(self) -> bool:
        """Its quotes may be fitted."""
        return not self.why


def judge(
    feeds: Mapping[int, tuple[FeedHealth | None, int | None]], now_ns: int, rules: CoreRules
) -> dict[int, Verdict]:
    """The verdict on every feed.

    A feed is live when it is whole, heard, has live quotes, is in no maintenance, and is not late. What is late is told by
    comparison: the feed whose time stamps agree best with our clock is the measure, so a clock of ours that is wrong does not
    condemn every feed, nor a single one.

    Args:
        feeds: by number, the last health of each, None before the first, and our clock less the venue's, None where unknown.
    """
    found = {number: _alone(health, now_ns, rules) for number, (health, _) in feeds.items()}
    skews = {number: skew for number, (_, skew) in feeds.items() if skew is not None and found[number].is_live}
    if len(skews) > 1:
        best = min(skews.values(), key=abs)
        for number, skew in skews.items():
            late_ns = skew - best
            if abs(late_ns) > rules.maximum_skew_ns:
                how = "behind" if late_ns > 0 else "ahead of"
                why = f"its time stamps are {abs(late_ns) / 1e9:.1f} s {how} those of another venue"
                found[number] = Verdict("late", why, found[number].silent_ns, why)
    return found


def status(
    name: str, health: FeedHealth | None, verdict: Verdict, left_out: tuple[str, ...], now_ns: int
) -> FeedStatus:
    """What a frame says of a feed."""
    if health is None:
        health = FeedHealth(feed=0, name=name, time_ns=now_ns, state=FeedState.CONNECTING)
    sentence = _connections(health, verdict)
    if verdict.remark:
        sentence = f"{verdict.remark} ({sentence})"
    return FeedStatus(
        name=name,
        state=verdict.state,
        is_live=verdict.is_live,
        silent_ns=verdict.silent_ns,
        connections=health.connections,
        connected=health.connected,
        messages=health.messages,
        malformed=health.malformed,
        reconnects=health.reconnects,
        heartbeats_missed=health.heartbeats_missed,
        late_batches=health.late_batches,
        sentence=sentence,
        left_out=left_out,
        liveness=health.liveness,
    )


def _alone(health: FeedHealth | None, now_ns: int, rules: CoreRules) -> Verdict:
    """Without regard to the others."""
    if health is None:
        return Verdict(str(FeedState.CONNECTING), "nothing has been heard of it yet")
    silent_ns = _silence(health, now_ns)
    if health.state is FeedState.FAILED:
        # Nobody will speak of it any more: how long that has been says nothing.
        return Verdict(str(health.state), ", ".join(filter(None, (str(health.state), health.detail))), silent_ns)
    said = f"nothing heard for {silent_ns / 1e9:.0f} s" if silent_ns > rules.silent_after_ns else ""
    if health.state is not FeedState.READY:
        words = health.detail or f"{health.connected} of {health.connections} connections"
        return Verdict(str(health.state), said or f"{health.state}, {words}", silent_ns, said)
    if said:
        return Verdict("silent", said, silent_ns, said)
    if health.suspended:
        return Verdict("maintenance", health.suspended, silent_ns, health.suspended)
    for channel in health.liveness.channels:
        if channel.is_vital and channel.is_silent:
            why = f"{channel.name} silent for {channel.silent_ms / 1e3:.0f} s"
            return Verdict("silent", why, silent_ns, why)
    return Verdict(str(health.state), "", silent_ns)


def _connections(health: FeedHealth, verdict: Verdict) -> str:
    return health.detail or f"{health.connected} of {health.connections} connections, {verdict.state}"


def _silence(health: FeedHealth, now_ns: int) -> int:
    """How long nothing has been heard: of the feed's process or, where it is connected, by its sockets."""
    process = now_ns - health.time_ns
    sockets = now_ns - health.last_message_ns if health.last_message_ns else 0
    return max(process, sockets, 0)
