"""Bybit messages of the project's own making, one or a few for every rule of the protocol, and what must come out of them.

Each line of `golden/bybit/*.jsonl` has a `rule` (§ of the venue's protocol notes), the `frames`, and any of: `rows` (name →
columns of the next batch, null for NaN; every row must be named), `events` (before the batch is taken, in order), `late` (events
that taking it brings up), `sent` (commands), `counters`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.feeds.bybit_frames import BTC_USDT, START, Server
from volsurf.feeds.bybit import Bybit
from volsurf.feeds.protocol import HealthEvent

GOLDEN = Path(__file__).with_name("golden") / "bybit"
CASES = [json.loads(line) for path in sorted(GOLDEN.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]


def frames_of(case: dict[str, Any]) -> list[str]:
    if "repeat" in case:
        head, part, times = case["repeat"]
        return [head + part * times]
    return list(case["frames"])


def described(venue: Bybit, event: Any) -> dict[str, Any]:
    """An event as the golden files write it."""
    said: dict[str, Any] = {"type": type(event).__name__}
    if isinstance(event, HealthEvent):
        return said | {"kind": event.kind.name}
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    fields["instrument"] = venue.universe[fields.pop("instrument_id")].symbol
    return said | json.loads(json.dumps(fields))


def check_events(venue: Bybit, expected: list[dict[str, Any]]) -> None:
    said = [described(venue, event) for event in venue.events()]
    assert len(said) == len(expected), said
    for one, wanted in zip(said, expected, strict=True):
        assert {key: one.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("case", CASES, ids=[case["rule"] for case in CASES])
def test_golden(case: dict[str, Any]) -> None:
    server = Server(Bybit(["BTC", "XRP"], books=True))
    server.now = START - 10**9
    server.venue.connected(server.now)
    # Everything is acknowledged and nothing has been said yet.
    server.snapshot = lambda topic: None  # type: ignore[method-assign]
    server.serve()
    venue = server.venue
    assert venue.is_ready
    venue.events()
    before = dict(venue.counters)
    server.now = START
    for frame in frames_of(case):
        venue.receive(frame, START)
    if "events" in case:
        check_events(venue, case["events"])
    elif "late" in case:
        check_events(venue, [])
    batch = venue.take_quotes(START)
    if "late" in case:
        check_events(venue, case["late"])
    server.now = START + 100_000_000
    venue.timer(server.now)
    sent = server.collect()

    if "rows" in case:
        got: dict[str, dict[str, float]] = {}
        for row in range(0 if batch is None else len(batch)):
            assert batch is not None
            columns = {name: getattr(batch, name)[row].item() for name in batch.__slots__[3:]}
            got[venue.universe[columns.pop("instrument_id")].symbol] = columns
            assert columns["receive_time_ns"] == START
        assert got.keys() == case["rows"].keys()
        for name, expected in case["rows"].items():
            numbers = {key: math.nan if value is None else value for key, value in expected.items()}
            # A decimal string and the same digits here are one double: no tolerance.
            assert {key: got[name][key] for key in expected} == pytest.approx(numbers, rel=0, abs=0, nan_ok=True)
    if "sent" in case:
        assert [{"op": command["op"], "args": command["args"]} for command in sent] == case["sent"]
    for name, count in case.get("counters", {}).items():
        assert venue.counters[name] - before.get(name, 0) == count, name
    assert venue.failure is None


def test_there_is_a_line_for_every_topic_and_rule() -> None:
    """The golden files are the only frames CI always has: they must not shrink unnoticed."""
    text = "".join(path.read_text("utf-8") for path in GOLDEN.glob("*.jsonl"))
    for word in ("tickers.", "orderbook.25.", "publicTrade.", "COMMAND_RESP", "failTopics", "pong", "delta", "-USDT"):
        assert word in text
    for section in ("§2", "§3", "§4", "§5", "§7", "§8.5"):
        assert any(case["rule"].startswith(section) for case in CASES)
    assert len(CASES) >= 75
    assert any(BTC_USDT[0] in line for line in text.splitlines())
