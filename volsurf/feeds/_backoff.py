"""Pauses between attempts to connect."""

from __future__ import annotations

import random


class Backoff:
    """Pauses between attempts: doubling from `first` to `most` seconds, each cut by up to half at random."""

    def __init__(self, rng: random.Random, *, first: float = 0.5, factor: float = 2.0, most: float = 30.0) -> None:
        self._rng, self._first, self._factor, self._most = rng, first, factor, most
        self._attempts = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        # A ceiling on the exponent: 2.0 ** 1024 overflows after a long night of failures.
        longest = min(self._most, self._first * self._factor ** min(self._attempts, 60))
        self._attempts += 1
        return longest * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """The connection was ready: the next failure is a new one."""
        self._attempts = 0
