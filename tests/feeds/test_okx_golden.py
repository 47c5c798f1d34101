"""OKX messages of the project's own making, one or a few for every rule of the protocol, and what must come out of them.

Each line of `golden/okx/*.jsonl` has a `rule` (§ of the venue's protocol notes), the `frames`, and any of: `rows` (name → columns
of the next batch, null for NaN; every row must be named), `events` (in order, before the batch is taken), `late` (those that
taking it brings up), `sent` (requests), `counters`, `takeover`, `not_before` (after now, ns).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.feeds.okx_frames import SECOND, START, ready
from volsurf.feeds.okx import Okx
from volsurf.feeds.protocol import Event, HealthEvent, InstrumentEvent

GOLDEN = Path(__file__).with_name("golden") / "okx"
CASES = [json.loads(line) for path in sorted(GOLDEN.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]


def frames_of(case: dict[str, Any]) -> list[str]:
    if "repeat" in case:
        head, part, times = case["repeat"]
        return [head + part * times]
    return list(case["frames"])


def described(venue: Okx, event: Event) -> dict[str, Any]:
    """An event as the golden files write it."""
    said: dict[str, Any] = {"type": type(event).__name__}
    if isinstance(event, HealthEvent):
        return said | {"kind": event.kind.name}
    if isinstance(event, InstrumentEvent):
        names = {key: [venue.universe[row].symbol for row in getattr(event, key)] for key in ("added", "retired")}
        return said | {key: value for key, value in names.items() if value}
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    fields["instrument"] = venue.universe[fields.pop("instrument_id")].symbol
    return said | json.loads(json.dumps(fields))


def check_events(venue: Okx, events: list[Event], expected: list[dict[str, Any]]) -> None:
    said = [described(venue, event) for event in events]
    assert len(said) == len(expected), said
    for one, wanted in zip(said, expected, strict=True):
        assert {key: one.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("case", CASES, ids=[case["rule"] for case in CASES])
def test_golden(case: dict[str, Any]) -> None:
    server = ready("BTC", books=True, trades=True)
    venue = server.venue
    before = dict(venue.counters)
    for frame in frames_of(case):
        venue.receive(frame, START)
    if "events" in case:
        check_events(venue, venue.events(), case["events"])
    venue.events()
    rows = server.values()
    late = venue.events()
    check_events(venue, late, case.get("late", []))
    server.now += SECOND // 10
    venue.timer(server.now)
    sent = server.collect()

    if "rows" in case:
        assert rows.keys() == case["rows"].keys()
        for name, expected in case["rows"].items():
            numbers = {key: math.nan if value is None else value for key, value in expected.items()}
            # Sizes are products of contracts, so their last bit is their own.
            assert {key: rows[name][key] for key in expected} == pytest.approx(numbers, rel=1e-15, abs=0, nan_ok=True)
            assert rows[name]["receive_time_ns"] == START
    if "sent" in case:
        assert [{"op": m["op"], "args": m["args"]} for m in sent] == case["sent"]
    for name, count in case.get("counters", {}).items():
        assert venue.counters[name] - before.get(name, 0) == count, name
    if "takeover" in case:
        assert case["takeover"] in venue.takeover
        assert bool(venue.takeover) == bool(case["takeover"])
    assert venue.not_before == (START + case["not_before"] if "not_before" in case else 0)
    assert venue.failure is None


def test_there_is_a_line_for_every_channel_and_state() -> None:
    """The golden files are the only frames CI always has: they must not shrink unnoticed."""
    text = "".join(path.read_text("utf-8") for path in GOLDEN.glob("*.jsonl"))
    for word in ("bbo-tbt", "opt-summary", "index-tickers", "books5", "option-trades", "instruments", "64008", "60014"):
        assert word in text
    for word in ("preopen", "suspend", "expired", "checksum", "prevSeqId", "fwdPx", "pong", "_UM", "60012", "50011"):
        assert word in text
    assert len(CASES) >= 95
