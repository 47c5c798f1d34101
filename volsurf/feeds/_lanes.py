"""Rate limits as lanes: what waits in one shares its credits, first come first served.

Times are nanoseconds of the connection's own elapsed time (`Watch.elapsed`), which no clock step can move.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """`burst` at once, then one every `interval` nanoseconds.

    Attributes:
        waiting: what is in line, in order.
    """

    def __init__(self, burst: float, interval: float, elapsed: int = 0) -> None:
        self._burst, self._interval = max(1.0, burst), interval
        self._tokens, self._filled_at = self._burst, elapsed
        self._held_until = 0
        self.waiting: deque[T] = deque()

    def next_ready(self, elapsed: int) -> int | None:
        """When the first in line may go; None where nobody waits."""
        if not self.waiting:
            return None
        self._fill(elapsed)
        return max(self._held_until, elapsed + int(max(0.0, 1 - self._tokens) * self._interval))

    def take(self, elapsed: int) -> T | None:
        """The first in line, if its credits are there."""
        ready = self.next_ready(elapsed)
        if ready is None or ready > elapsed:
            return None
        self._tokens -= 1
        return self.waiting.popleft()

    def hold(self, until: int) -> None:
        """Let nobody go before a time: the venue said so."""
        self._held_until = max(self._held_until, until)

    def _fill(self, elapsed: int) -> None:
        self._tokens = min(self._burst, self._tokens + max(0, elapsed - self._filled_at) / self._interval)
        self._filled_at = elapsed
