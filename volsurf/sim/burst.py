"""Market data at hundreds of thousands of messages a second: rendered once, stamped anew for every send.

All frames of a client lie end to end in one byte array; a send is a slice of it, with the digits of its time stamps and of
its sizes overwritten by numpy. What is a message's own, prices included, is rendered again whenever the market moves it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.sim.exchange import BURST_BYTES

_STAMP_DIGITS = 13
"""Of milliseconds since 1970, from 2001 to 2286."""


@dataclass(frozen=True, slots=True)
class Stampable:
    """A framed message and where in it the live digits are."""

    frame: bytes
    stamp: int
    """Offset of the 13 digits of its time."""
    digits: tuple[int, ...]
    """Offsets of single digits from 1 to 9 that may take any of those values."""


def stampable(frame: bytes, stamp_key: bytes, size_pattern: re.Pattern[bytes]) -> Stampable:
    """Find the live digits: the number after `stamp_key`, and group 1 (one digit) of every match of `size_pattern`."""
    stamp = frame.index(stamp_key) + len(stamp_key)
    return Stampable(frame, stamp, tuple(match.start(1) for match in size_pattern.finditer(frame)))


class BurstBuffer:
    """The frames of one client, sent round and round.

    Args:
        seed: of the random digits.
    """

    def __init__(self, seed: int) -> None:
        # A prime number of random digits, so that a row does not meet the same ones again after a few rounds.
        self._noise = np.random.default_rng([seed, 3]).integers(49, 58, 100_003).astype(np.uint8)
        self._noise_at = 0
        self._next = 0
        self._bytes = np.zeros(0, np.uint8)
        self._starts: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._stamps: npt.NDArray[np.int64] = np.zeros((0, _STAMP_DIGITS), np.int64)
        self._digits: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._digit_starts: npt.NDArray[np.int64] = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def mean_bytes(self) -> int:
        """Mean size of a frame; 0 where there is none."""
        return int(self._starts[-1]) // len(self) if len(self) else 0

    def load(self, messages: Sequence[Stampable]) -> None:
        """Take a new set of frames; the round goes on where it was."""
        self._bytes = np.frombuffer(bytearray(b"".join([m.frame for m in messages])), np.uint8)
        lengths = np.array([len(m.frame) for m in messages], np.int64)
        self._starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        begins = self._starts[:-1]
        stamps = begins + np.array([m.stamp for m in messages], np.int64)
        self._stamps = stamps[:, None] + np.arange(_STAMP_DIGITS)
        counts = np.array([len(m.digits) for m in messages], np.int64)
        flat = np.array([d for m in messages for d in m.digits], np.int64)
        self._digits = flat + np.repeat(begins, counts)
        self._digit_starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        self._next = self._next % len(messages) if messages else 0

    def take(self, messages: int, time_ms: int) -> tuple[bytes, int]:
        """The next frames, up to so many and to a write's worth of bytes, stamped; and their number."""
        if not len(self) or messages <= 0:
            return b"", 0
        first = self._next
        last = min(len(self), first + min(messages, max(1, BURST_BYTES // self.mean_bytes)))
        self._bytes[self._stamps[first:last]] = np.frombuffer(b"%013d" % time_ms, np.uint8)
        where = self._digits[self._digit_starts[first] : self._digit_starts[last]]
        if self._noise_at + len(where) > len(self._noise):
            self._noise_at = (self._noise_at + 1) % 97
        self._bytes[where] = self._noise[self._noise_at : self._noise_at + len(where)]
        self._noise_at += len(where)
        self._next = last % len(self)
        return self._bytes[self._starts[first] : self._starts[last]].tobytes(), last - first
