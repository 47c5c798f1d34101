"""Messages of the project's own making, one or a few for every rule of Binance's protocol, and what must come out of them.

Each line of `golden/binance/*.jsonl` has a `rule` (§ of the venue's protocol notes), the `member` that hears it (0 the route
`/market`, 1 `/public`), the `frames`, and any of: `rows` (name → columns of the next batch, null for NaN; every row must be
named), `events` (in order), `counters` (and `after`, once the batch is taken), `asked` (pages), `failure`, `listing_wanted`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.feeds.binance_frames import BTC_OPTIONS, SECOND, START, XRP_OPTIONS, Desk, listing
from volsurf.feeds.binance import Binance
from volsurf.feeds.protocol import HealthEvent, InstrumentEvent

GOLDEN = Path(__file__).with_name("golden") / "binance"
CASES = [json.loads(line) for path in sorted(GOLDEN.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]


def golden_desk() -> Desk:
    """A group that follows everything, its books at update id 1000, with nothing left to read."""
    desk = Desk(["BTC", "XRP"], [listing(n) for n in (*BTC_OPTIONS, *XRP_OPTIONS)], books=True, trades=True)
    desk.now = START - SECOND // 2
    desk.connect().wait(0.5, tell=False)
    assert desk.now == START
    for member, venue in enumerate(desk.venues):
        assert venue.is_ready
        desk.events(member), desk.take(member)
    desk.pages.clear()
    return desk


def described(venue: Binance, event: Any) -> dict[str, Any]:
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


@pytest.mark.parametrize("case", CASES, ids=[case["rule"] for case in CASES])
def test_golden(case: dict[str, Any]) -> None:
    desk, member = golden_desk(), case["member"]
    venue = desk.venues[member]
    before = venue.counters.copy()
    for frame in case["frames"]:
        venue.receive(frame, START)
    events = desk.events(member)
    desk.collect(member)
    counted = venue.counters.copy()
    if "listing_wanted" in case:
        assert venue._link.listing_wanted is case["listing_wanted"]
    rows = desk.take(member)
    if "rows" in case:
        assert rows.keys() == case["rows"].keys()
        for name, expected in case["rows"].items():
            assert rows[name]["receive_time_ns"] == START
            numbers = {key: math.nan if value is None else value for key, value in expected.items()}
            assert {key: rows[name][key] for key in expected} == pytest.approx(numbers, rel=1e-15, abs=0, nan_ok=True)
    if "events" in case:
        said = [described(venue, event) for event in events]
        assert len(said) == len(case["events"]), said
        for one, expected in zip(said, case["events"], strict=True):
            assert {key: one.get(key) for key in expected} == expected
    after = counted if "rows" not in case else venue.counters
    for name, count in (case.get("counters", {}) | case.get("after", {})).items():
        assert after[name] - before.get(name, 0) == count, name
    if "asked" in case:
        assert [request.key for request in desk.pages] == case["asked"]
    if "failure" in case:
        assert case["failure"] in (venue.failure or "")
    else:
        assert venue.failure is None


def test_there_is_a_line_for_every_stream_and_sentinel() -> None:
    """The golden files are the only frames CI always has: they must not shrink unnoticed."""
    text = "".join(path.read_text("utf-8") for path in GOLDEN.glob("*.jsonl"))
    for word in ("@optionMarkPrice", "!index@arr", "!optionSymbol", "@bookTicker", "@depth@100ms", "@optionTrade"):
        assert word in text
    for word in ("-1.0", "0.00000060", "@ticker", "@markPrice", "@index", "@depth100@100ms", "openInterest", "kline"):
        assert word in text
    assert len(CASES) >= 70
