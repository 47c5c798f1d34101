"""The clock and the ear of one connection: elapsed time that survives clock steps, silence, and a bounded event list."""

from __future__ import annotations

from collections import Counter, deque

from volsurf.feeds._deribit_requests import SECOND
from volsurf.feeds.protocol import Event, Health, HealthEvent

STEP = 5 * SECOND
"""The shell calls at least once a second, so a gap this long is a suspended process or a changed clock, not a quiet market."""
BACKWARD = 100_000_000
"""Smaller steps back are the clock being disciplined; nothing here depends on them."""
INDEX_SILENCE = 10 * SECOND
"""`deribit_price_index` comes about once a second."""
INDEX_LOST = 60 * SECOND
"""Silence of an index on a link that answers: the subscription is gone, so the connection is made anew."""
HEARTBEAT_GRACE = 10 * SECOND
CLOCK_SKEW = 10 * SECOND
"""A disagreement of the local clock with the venue's that no network delay explains."""
_SKEW_AGAIN = SECOND // 2
_REPORT_EVERY = SECOND
_MOST_EVENTS = 200_000


class Watch:
    """Time, silence and events of one connection.

    Attributes:
        now: the last clock reading, ns UTC. elapsed: ns that passed as far as can be told; a step of the clock is not counted.
        heard: `elapsed` when the last message came.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self.now = 0
        self.elapsed = 0
        self.heard = 0
        self.stepped = False
        """A clock step happened and nobody has looked yet."""
        self._counters = counters
        self._events: deque[Event] = deque()
        self._index_heard: dict[str, int] = {}
        self._heartbeat_heard = 0
        self._heartbeat_interval: int | None = None
        self._stale: dict[str, str] = {}
        self._skews = (0, 0)
        self._skew_at = 0
        self._malformed: Counter[str] = Counter()
        self._malformed_sample = ""
        self._report_at = 0

    def advance(self, now: int) -> None:
        """Take a clock reading."""
        delta = now - self.now
        if self.now == 0:
            pass
        elif 0 <= delta < STEP:
            self.elapsed += delta
        elif delta <= -BACKWARD or delta >= STEP:
            self.stepped = True
            self._counters["clock_steps"] += 1
            how = "went back" if delta < 0 else "jumped ahead, or this process was suspended, for"
            self.now = now
            self.report(Health.CLOCK_STEP, f"local clock {how} {abs(delta) / SECOND:.1f} s")
        self.now = now

    def emit(self, event: Event) -> None:
        """Keep an event until it is taken; the oldest go where nobody takes them."""
        if len(self._events) >= _MOST_EVENTS:
            self._events.popleft()
            self._counters["events_dropped"] += 1
        self._events.append(event)

    def report(self, kind: Health, detail: str = "") -> None:
        """Emit a health event stamped now."""
        self.emit(HealthEvent(kind, self.now, detail))

    def take_events(self) -> list[Event]:
        """Events since the last call."""
        taken = list(self._events)
        self._events.clear()
        return taken

    def malformed(self, cause: str, data: bytes) -> None:
        """Count a message that does not decode. A flood of them becomes one event a second."""
        self._counters["malformed." + cause] += 1
        self._malformed[cause] += 1
        self._malformed_sample = repr(data[:80])
        if self.elapsed >= self._report_at:
            self.report_malformed()

    def report_malformed(self) -> None:
        """Emit what was counted since the last such event, if it is time for one."""
        if self._malformed and self.elapsed >= self._report_at:
            counts = ", ".join(f"{count} × {cause}" for cause, count in sorted(self._malformed.items()))
            self.report(Health.MALFORMED, f"messages not understood: {counts}; the last began {self._malformed_sample}")
            self._malformed.clear()
            self._report_at = self.elapsed + _REPORT_EVERY

    def opened(self, heartbeat_seconds: int) -> None:
        """A new socket: every silence is counted from here."""
        self.heard = self._heartbeat_heard = self.elapsed
        self._heartbeat_interval = heartbeat_seconds * SECOND
        self._index_heard.clear()
        self._stale.clear()
        self._skews = (0, 0)
        self.stepped = False

    def no_heartbeats(self) -> None:
        """The venue would not set a heartbeat: expect none."""
        self._heartbeat_interval = None

    def heard_heartbeat(self) -> None:
        """A heartbeat or a test request came."""
        self._heartbeat_heard = self.elapsed
        self._recover("heartbeat")

    def expect_index(self, name: str) -> None:
        """Count the silence of an index from here."""
        self._index_heard[name] = self.elapsed

    def forget_index(self, name: str) -> None:
        """The venue does not give this index: its silence says nothing."""
        self._index_heard.pop(name, None)

    def heard_index(self, name: str) -> None:
        """A price of an index came."""
        if name in self._index_heard:
            self._index_heard[name] = self.elapsed
            if self._stale:
                self._recover(name)

    def heard_time(self, venue_ns: int) -> None:
        """The venue's time as of now."""
        if self.elapsed - self._skew_at < _SKEW_AGAIN:
            return
        # Looked at twice, and not at once: what piled up while this process was suspended is old, and read in one go.
        self._skews = (self._skews[1], self.now - venue_ns)
        self._skew_at = self.elapsed

    @property
    def trouble(self) -> str:
        """What is silent or wrong now, in words; "" where nothing is."""
        troubles = list(self._stale.values())
        if min(map(abs, self._skews)) > CLOCK_SKEW:
            skew = self._skews[1]
            how = "ahead of" if skew > 0 else "behind"
            troubles.append(f"this machine's clock is {abs(skew) / SECOND:.0f} s {how} the venue's: vols are off")
        return "; ".join(troubles)

    @property
    def index_lost(self) -> str | None:
        """An index silent for so long that the subscription itself must be doubted."""
        lost = (name for name, heard in self._index_heard.items() if self.elapsed - heard > INDEX_LOST)
        return next(lost, None)

    @property
    def silent(self) -> bool:
        """Not one message for `INDEX_SILENCE`."""
        return self.elapsed - self.heard > INDEX_SILENCE

    def notice_silence(self) -> bool:
        """Report what has newly gone silent; True where the link should be asked whether it lives."""
        before = len(self._stale)
        for name, heard in self._index_heard.items():
            if self.elapsed - heard > INDEX_SILENCE:
                self._go_stale(
                    name, f"index {name} silent for {(self.elapsed - heard) / SECOND:.0f} s; it ticks every second"
                )
        interval = self._heartbeat_interval
        if interval is not None and self.elapsed - self._heartbeat_heard > interval + HEARTBEAT_GRACE:
            silence = (self.elapsed - self._heartbeat_heard) / SECOND
            self._go_stale("heartbeat", f"no heartbeat for {silence:.0f} s; one is due every {interval / SECOND:.0f} s")
        return len(self._stale) > before

    def _go_stale(self, name: str, detail: str) -> None:
        if name not in self._stale:
            self._stale[name] = detail
            self.report(Health.STALE, detail)

    def _recover(self, name: str) -> None:
        if self._stale.pop(name, None) is not None:
            self.report(Health.RECOVERED, f"{name} is heard again")
