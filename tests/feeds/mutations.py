"""Damaged Deribit messages, from a seed: bytes flipped, cut and spliced, and values swapped for others of any type."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.feeds.deribit_frames import SECOND, START, Server, standard_listings
from volsurf.feeds.deribit import Deribit
from volsurf.instruments import Kind
from volsurf.quotes import QuoteBatch

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.0, -0.0, 1e-320, 1e308, -1e308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**40,
    "", "0", "NaN", "expired", "\x00", "é" * 50, "BTC-26MAR27-80000-C", "BTC-CS-26MAR27-80000_85000", [], {}, [[]], [None],
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
)


def corpus() -> list[bytes]:
    """Well-formed messages to start from: the golden ones, and answers to the requests of a new connection."""
    frames: list[bytes] = []
    for path in sorted(Path(__file__).with_name("golden").glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            frames += [frame.encode("utf-8", "surrogatepass") for frame in json.loads(line).get("frames", ())]
    for rows in standard_listings().values():
        frames.append(json.dumps({"jsonrpc": "2.0", "id": 2, "result": rows, "usOut": START // 1000}).encode())
    frames.append(json.dumps({"jsonrpc": "2.0", "id": 6, "result": ["ticker.BTC-PERPETUAL.100ms", "x"]}).encode())
    frames += [
        json.dumps(
            {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "m", "data": {"reason": "r"}}}
        ).encode()
        for code in (-32602, 10028, 13778, 13028, 10040)
    ]
    return frames


class Mutator:
    """Damages messages reproducibly."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.corpus = corpus()

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


def check(venue: Deribit, batch: QuoteBatch | None) -> None:
    """What must hold of whatever comes out, however damaged what went in."""
    if batch is None:
        return
    assert int(batch.instrument_id.min()) >= 0
    assert int(batch.instrument_id.max()) < len(venue.universe)
    for name in ("bid", "ask", "bid_size", "ask_size", "last", "forward", "index", "mark", "mark_vol"):
        column = getattr(batch, name)
        assert not np.isinf(column).any(), name
    for name in ("bid", "ask"):
        column = getattr(batch, name)
        assert (np.isnan(column) | (column > 0)).all(), name
    assert (batch.venue_time_ns >= 0).all()
    assert ((batch.fields > 0) & (batch.fields < 32)).all()
    kinds = venue.universe.kind[batch.instrument_id]
    assert np.isnan(batch.forward[kinds != Kind.OPTION]).all()
    assert QuoteBatch.from_bytes(batch.to_bytes()).instrument_id.tolist() == batch.instrument_id.tolist()


def run(messages: int, seed: int) -> Deribit:
    """Feed damaged messages to connections that also live: timers, answers, disconnects; raises what escapes."""
    mutator = Mutator(seed)
    rng = mutator.random
    server = Server(Deribit(["BTC", "SOL"], books=True, mark_prices=True))
    server.connect()
    for number in range(messages):
        frame = mutator.next()
        server.say(frame)
        if rng.random() < 0.02:
            server.venue.receive(frame.decode("latin-1"), server.now)
        if number % 20 == 0:
            server.now += rng.choice((0, 1, SECOND // 10, SECOND, 4 * SECOND))
            server.venue.timer(server.now)
            assert server.venue.next_deadline is None or server.venue.next_deadline >= server.now
            check(server.venue, server.venue.take_quotes(server.now))
            server.events()
            server.collect()
            # Half of what was asked gets an answer, and of that half is damaged through the ids the corpus names.
            while server.held:
                request = server.held.pop()
                if rng.random() < 0.5:
                    server.answer(request)
        if server.venue.failure is not None or rng.random() < 0.002:
            server.venue.disconnected(server.now, "fuzz")
            check(server.venue, server.venue.take_quotes(server.now))
            server.venue._link.requests._number = 0  # so that the corpus's ids are ids of requests again
            server.held.clear()
            if rng.random() < 0.9:
                server.connect()
            else:
                server.venue.connected(server.now)
    return server.venue
