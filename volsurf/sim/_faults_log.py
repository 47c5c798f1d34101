"""What was done to whom and when, so that a test can hold the client's counters and prices against it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

MOST_RECORDS = 100_000


class Injected(msgspec.Struct, frozen=True):
    """One fault that was done: real time ns UTC, kind, the channel or thing, and the connection (−1: none in particular)."""

    time_ns: int
    kind: str
    what: str
    client: int = -1


class FalsePrice(msgspec.Struct, frozen=True):
    """Between these market times, ns UTC, what a venue shows of an instrument is false on purpose."""

    symbol: str
    kind: str
    from_ns: int
    until_ns: int


@dataclass(slots=True)
class FaultLog:
    """Records of one venue's run; counts are exact, records and false prices are the last `MOST_RECORDS`."""

    counts: Counter[str] = field(default_factory=Counter)
    records: deque[Injected] = field(default_factory=lambda: deque(maxlen=MOST_RECORDS))
    false_prices: deque[FalsePrice] = field(default_factory=lambda: deque(maxlen=MOST_RECORDS))

    def add(self, time_ns: int, kind: str, what: str, client: int = -1) -> None:
        """A fault was done."""
        self.counts[kind] += 1
        self.records.append(Injected(time_ns, kind, what, client))

    def add_false(self, symbols: Iterable[str], kind: str, from_ns: int, until_ns: int) -> None:
        """Some prices are false from now until then, market time."""
        self.false_prices.extend(FalsePrice(symbol, kind, from_ns, until_ns) for symbol in symbols)

    def of(self, kind: str) -> list[Injected]:
        """Records of one kind."""
        return [record for record in self.records if record.kind == kind]

    def false_at(self, time_ns: int, grace_ns: int = 0) -> set[str]:
        """Symbols whose price is false at a market time; `grace_ns` for how long the last false one may still be seen."""
        return {f.symbol for f in self.false_prices if f.from_ns <= time_ns < f.until_ns + grace_ns}
