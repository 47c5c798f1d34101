"""Damaged messages, from a seed: bytes flipped, cut and spliced, and values swapped for others of any type."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.0, -0.0, 1e-320, 1e308, -1e308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**40,
    "", "0", "NaN", "expired", "\x00", "é" * 50, "BTC-26MAR27-80000-C", "BTC-CS-26MAR27-80000_85000",
    "-1", "1e999", "-1.0", "update", "BTC-USD-270326-80000-C", "BTC-26MAR27-80000-C-USDT", "BTC-270326-80000-C",
    [], {}, [[]], [None],
    {"": None}, ["new", 1, 2], [["new", 1.0, 2.0]], "snapshot", "change", 1_800_000_000_000, 9e12, 1e13,
)  # fmt: skip
KEYS = (
    "id",
    "result",
    "error",
    "method",
    "params",
    "channel",
    "data",
    "timestamp",
    "instrument_name",
    "state",
    "price",
    "iv",
    "arg",
    "instId",
    "asks",
    "seqId",
    "prevSeqId",
    "topic",
    "ts",
    "type",
    "symbol",
    "list",
    "stream",
    "e",
    "s",
    "u",
    "pu",
)


class Mutator:
    """Damages the messages of a corpus reproducibly."""

    def __init__(self, seed: int, corpus: Sequence[bytes]) -> None:
        self.random = random.Random(seed)
        self.corpus = corpus

    def next(self) -> bytes:
        """One damaged message; now and then a whole one."""
        frame = self.random.choice(self.corpus)
        if self.random.random() < 0.5:
            frame = self._swap_values(frame)
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 5))):
            frame = self._damage_bytes(frame)
        return frame

    def _damage_bytes(self, frame: bytes) -> bytes:
        rng, size = self.random, len(frame)
        at = rng.randrange(size + 1)
        how = rng.randrange(6)
        if how == 0:
            return frame[:at]
        if how == 1:
            return frame[:at] + rng.randbytes(rng.randrange(1, 8)) + frame[at:]
        if how == 2:
            return frame[:at] + frame[at + rng.randrange(1, 20) :]
        if how == 3:
            other = rng.choice(self.corpus)
            return frame[:at] + other[rng.randrange(len(other) + 1) :]
        if how == 4:
            return (
                frame[:at]
                + rng.choice((b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"1e", b"-", b"\xff"))
                + frame[at:]
            )
        return frame[:at] + bytes([rng.randrange(256)]) + frame[at + 1 :]

    def _swap_values(self, frame: bytes) -> bytes:
        try:
            value = json.loads(frame)
        except (ValueError, RecursionError):
            return frame
        for _ in range(self.random.randrange(1, 4)):
            value = self._swap(value)
        return json.dumps(value).encode()

    def _swap(self, value: Any) -> Any:
        """The same value with something in it replaced, removed, repeated or renamed."""
        rng = self.random
        if rng.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
            return rng.choice(VALUES)
        if isinstance(value, list):
            at = rng.randrange(len(value))
            how = rng.randrange(4)
            if how == 0:
                return value[:at] + value[at + 1 :]
            if how == 1:
                return [*value, value[at]]
            return [self._swap(item) if i == at else item for i, item in enumerate(value)]
        key = rng.choice(list(value))
        how = rng.randrange(6)
        if how == 0:
            return {k: v for k, v in value.items() if k != key}
        if how == 1:
            return {(rng.choice(KEYS) if k == key else k): v for k, v in value.items()}
        return {k: self._swap(v) if k == key else v for k, v in value.items()}
