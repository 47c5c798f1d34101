"""Messages of the project's own making, one or a few for every rule of the protocol, and what must come out of them.

Each line of `golden/*.jsonl` has a `rule` (§ of the venue's protocol notes), the `frames`, and any of: `rows` (name → columns of
the next batch, null for NaN; every row must be named), `events` (in order), `sent` (requests), `counters`, `failure`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.feeds.deribit_frames import BTC_OPTIONS, START, Server
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import HealthEvent, InstrumentEvent

GOLDEN = Path(__file__).with_name("golden")
CASES = [json.loads(line) for path in sorted(GOLDEN.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]


def frames_of(case: dict[str, Any]) -> list[str]:
    if "repeat" in case:
        head, part, times = case["repeat"]
        return [head + part * times]
    return list(case["frames"])


def described(venue: Deribit, event: Any) -> dict[str, Any]:
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
    server = Server(Deribit(["BTC", "SOL"], books=True, mark_prices=True)).connect()
    venue = server.venue
    assert venue.is_ready
    venue.events()
    venue.take_quotes(START)
    before = dict(venue.counters)
    server.collect()
    for frame in frames_of(case):
        venue.receive(frame, START)
    batch = venue.take_quotes(START)
    events = venue.events()
    venue.timer(START + 100_000_000)
    server.now = START + 100_000_000
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
            # Percent to decimal is a division, so the last bit of a vol is its own.
            assert {key: got[name][key] for key in expected} == pytest.approx(numbers, rel=1e-15, abs=0, nan_ok=True)
    if "events" in case:
        said = [described(venue, event) for event in events]
        assert len(said) == len(case["events"]), said
        for one, expected in zip(said, case["events"], strict=True):
            assert {key: one.get(key) for key in expected} == expected
    if "sent" in case:
        expected_sent = case["sent"]
        assert [{"method": m["method"], "params": m["params"]} for m in sent] == expected_sent
    for name, count in case.get("counters", {}).items():
        assert venue.counters[name] - before.get(name, 0) == count
    if "failure" in case:
        assert case["failure"] in (venue.failure or "")
    else:
        assert venue.failure is None


def test_there_is_a_line_for_every_channel_and_state() -> None:
    """The golden files are the only frames CI always has: they must not shrink unnoticed."""
    text = "".join(path.read_text("utf-8") for path in GOLDEN.glob("*.jsonl"))
    for word in ("ticker.", "book.", "trades.", "deribit_price_index.", "markprice.options.", "instrument.state."):
        assert word in text
    for word in ("settlement", "delivered", "inactive", "archivized", "closed", "halted", "platform_state", "expired"):
        assert word in text
    assert len(CASES) >= 70
    assert any(BTC_OPTIONS[0] in line for line in text.splitlines())
