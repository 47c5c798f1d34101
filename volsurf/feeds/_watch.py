"""The clock and the ear of one connection: elapsed time that survives clock steps, silence, and a bounded event list."""

from __future__ import annotations

from collections import Counter, deque

from volsurf.feeds.protocol import Event, Health, HealthEvent

SECOND = 1_000_000_000
STEP = 5 * SECOND
"""While a socket is open the shell calls at least once a second, so a gap this long is a suspended process or a changed clock,
not a quiet market."""
BACKWARD = 100_000_000
"""Smaller steps back are the clock being disciplined; nothing here depends on them."""
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
        self._is_open = True
        self._counters = counters
        self._events: deque[Event] = deque()
        self._expected: dict[str, tuple[int, str]] = {}
        self._heard: dict[str, int] = {}
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
        elif 0 <= delta < STEP or (delta > 0 and not self._is_open):
            # Between two sockets nobody calls, for as long as the pause may be: that is no step.
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

    def opened(self) -> None:
        """A new socket: every silence is counted from here, and nothing is expected yet."""
        self._is_open = True
        self.heard = self.elapsed
        self._expected.clear()
        self._heard.clear()
        self._stale.clear()
        self._skews = (0, 0)
        self.stepped = False

    def closed(self) -> None:
        """The socket is gone, or could not be opened: until `opened` there may be a pause of any length."""
        self._is_open = False

    def expect(self, name: str, within_ns: int, sentence: str) -> None:
        """From here on `name` is stale when it is not heard of for longer than `within_ns`.

        Args:
            sentence: what is said then, with `{silence}` for the seconds of it: "index btc_usd silent for {silence} s".
        """
        self._expected[name] = (within_ns, sentence)
        self._heard[name] = self.elapsed

    def forget(self, name: str) -> None:
        """The venue does not give this: its silence says nothing."""
        self._expected.pop(name, None)
        self._heard.pop(name, None)
        self._stale.pop(name, None)

    def heard_of(self, name: str) -> None:
        """It came."""
        if name in self._heard:
            self._heard[name] = self.elapsed
            if self._stale and self._stale.pop(name, None) is not None:
                self.report(Health.RECOVERED, f"{name} is heard again")

    def heard_time(self, venue_ns: int) -> None:
        """The venue's time as of now."""
        if self.elapsed - self._skew_at < _SKEW_AGAIN:
            return
        # Looked at twice, and not at once: what piled up while this process was suspended is old, and read in one go.
        self._skews = (self._skews[1], self.now - venue_ns)
        self._skew_at = self.elapsed

    def silence_of(self, name: str) -> int:
        """Nanoseconds since `name` was heard of; 0 where it is not expected."""
        return self.elapsed - self._heard[name] if name in self._heard else 0

    @property
    def silences(self) -> dict[str, tuple[int, int]]:
        """What is expected: since when it has not been heard, and how long it may be silent, both ns."""
        return {name: (self.elapsed - self._heard[name], within) for name, (within, _) in self._expected.items()}

    @property
    def trouble(self) -> str:
        """What is silent or wrong now, in words; "" where nothing is."""
        troubles = list(self._stale.values())
        if min(map(abs, self._skews)) > CLOCK_SKEW:
            skew = self._skews[1]
            how = "ahead of" if skew > 0 else "behind"
            troubles.append(f"this machine's clock is {abs(skew) / SECOND:.0f} s {how} the venue's: vols are off")
        return "; ".join(troubles)

    def is_silent(self, for_ns: int) -> bool:
        """Not one message for so long."""
        return self.elapsed - self.heard > for_ns

    def notice_silence(self) -> bool:
        """Report what has newly gone silent; True where the link should be asked whether it lives."""
        before = len(self._stale)
        for name, (within, sentence) in self._expected.items():
            silence = self.elapsed - self._heard[name]
            if silence > within and name not in self._stale:
                detail = sentence.format(silence=f"{silence / SECOND:.0f}")
                self._stale[name] = detail
                self.report(Health.STALE, detail)
        return len(self._stale) > before
