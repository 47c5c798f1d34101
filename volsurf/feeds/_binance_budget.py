"""REST request weight, which Binance counts by address: what the connections of one feed may spend on books, together."""

from __future__ import annotations

from volsurf.feeds._watch import SECOND

MINUTE = 60 * SECOND
WEIGHT_PER_MINUTE = 2400
"""Where `exchangeInfo` says nothing else."""


class Budget:
    """A quarter of a minute's weight at once, and half of it a minute: never more than three quarters in one.

    Times are ns UTC, because the connections have no other clock in common; one that is set ahead fills the budget at most, one
    that is set back does not empty it.
    """

    def __init__(self) -> None:
        self._per_minute = WEIGHT_PER_MINUTE
        self._left = WEIGHT_PER_MINUTE / 4
        self._at = 0
        self._held_until = 0

    def set_limit(self, per_minute: int) -> None:
        """The weight of an address per minute, as the venue says it."""
        self._per_minute = per_minute
        self._left = min(self._left, per_minute / 4)

    def spend(self, weight: int, now: int) -> bool:
        """Pay for a page, if there is enough."""
        if self.ready_at(weight, now) > now:
            return False
        self._left -= weight
        return True

    def ready_at(self, weight: int, now: int) -> int:
        """When there is enough for a page."""
        rate = self._per_minute / 2 / MINUTE
        self._left = min(self._per_minute / 4, self._left + rate * max(0, now - self._at))
        self._at = now
        missing = min(weight, self._per_minute / 4) - self._left
        # A nanosecond more than the division says, so that rounding cannot ask for the same moment again.
        ready = now if missing <= 1e-9 else now + int(missing / rate) + 1
        return max(ready, self.held_until(now))

    def hold(self, now: int, pause: int) -> None:
        """Nobody spends anything for a while: the venue said so."""
        self._held_until = max(self.held_until(now), now + pause)

    def held_until(self, now: int) -> int:
        """Until when nobody may ask for anything; a time not to come where there is no such pause."""
        # No ban lasts longer than three days: a clock set back must not make one of years.
        return self._held_until if self._held_until - now <= 3 * 1440 * MINUTE else 0
