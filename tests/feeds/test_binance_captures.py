"""Real frames of Binance: nothing lost without a reason, and the model that forward and discount are derived from.

The files lie beside the project and are only read here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.conftest import shared_path
from tests.feeds.binance_frames import Desk, Row, listing
from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_names import kind_of, parse_symbol
from volsurf.feeds.protocol import BookEvent, Health, TradeEvent
from volsurf.instruments import NANOSECONDS_PER_YEAR, normalised_premium
from volsurf.iv.black import black_price
from volsurf.iv.implied import implied_vol
from volsurf.quotes import Field

NEW = ("gct_options_streams_2026-09-21.jsonl", "ingress_optionMarkPrice_2026-09-23_3of752.json",
       "tardis_mappers_v2_2025_messages.jsonl")  # fmt: skip
OLD = "tardis_mappers_v1_2023_messages.jsonl"

READ: dict[str, Any] = {
    "optionMarkPrice": wire.Mark,
    "bookTicker": wire.BookTicker,
    "optionTrade": wire.Trade,
    "depth": wire.Depth,
    "index": wire.Index,
}
"""Kind → the struct that says which fields are read."""
EVENT = "the stream's name says it"
IGNORED: dict[str, dict[str, str]] = {
    "optionMarkPrice": {
        "e": EVENT,
        "P": "estimated settlement price: 0 until the last half hour, and no quote",
        "hl": "price limit of orders",
        "ll": "price limit of orders",
    },
    "bookTicker": {"e": EVENT},
    "optionTrade": {"e": EVENT},
    "depth": {"e": EVENT},
    "index": {"e": EVENT},
}
UNUSED_STREAMS = {
    "unused.kline": "candles of trades",
    "unused.optionTicker": "24-hour statistics: since December 2025 neither quotes nor vols",
}


def frames(*files: str) -> Iterator[Row]:
    for file in files:
        for line in shared_path("venues", "fixtures", "binance", file).read_text("utf-8").splitlines():
            yield json.loads(line)


def kinds() -> Iterator[tuple[str, Row]]:
    for frame in frames(*NEW):
        yield kind_of(frame["stream"], ""), frame


def objects(frame: Row) -> list[Row]:
    return frame["data"] if isinstance(frame["data"], list) else [frame["data"]]


def mark_rows() -> list[Row]:
    return [row for kind, frame in kinds() if kind == "optionMarkPrice" for row in objects(frame)]


def desk_for(frame: Row, **changes: Any) -> tuple[Desk, int]:
    """A group that lists what a frame speaks of, at the frame's time, and the member that hears it."""
    names = sorted({row["s"] for row in objects(frame) if parse_symbol(row["s"])}) or ["BTC-261225-92000-C"]
    bases = sorted({parse_symbol(name).base for name in names})  # type: ignore[union-attr]
    kind = kind_of(frame["stream"], "")
    partial = int(frame["stream"].partition("@depth")[2].partition("@")[0] or 0) if kind == "depth" else 0
    desk = Desk(bases, [listing(name) for name in names], books=True, trades=True, partial_depth=partial, **changes)
    desk.now = int(objects(frame)[0]["E"]) * 1_000_000
    desk.connect()
    for venue in desk.venues:
        venue.events()
    return desk, 0 if kind in ("optionMarkPrice", "index") else 1


def said_of(frame: Row, listed: Row) -> tuple[Any, ...]:
    """Everything that comes out of a frame where what another one speaks of is listed."""
    desk, member = desk_for(listed)
    desk.say(json.dumps(frame).encode(), member=member)
    events = [
        msgspec.structs.asdict(event) for event in desk.events(member) if isinstance(event, BookEvent | TradeEvent)
    ]
    rows = [(name, sorted(row.items())) for name, row in sorted(desk.take(member).items())]
    greeks = [desk.market.greeks(row) for row in range(len(desk.market.universe))]
    unread = sorted((k, v) for k, v in desk.venues[member].counters.items() if k.startswith(("malformed", "ticker_st")))
    return repr(rows), repr(events), repr(unread), repr(greeks), desk.venues[member]._group.quoted


def test_every_field_of_every_frame_is_read_or_ignored_for_a_reason() -> None:
    seen: dict[str, set[str]] = {}
    streams = Counter(kind for kind, _ in kinds())
    for kind, frame in kinds():
        assert set(frame) == {"stream", "data"}
        if kind in UNUSED_STREAMS:
            continue
        for row in objects(frame):
            read = {field.encode_name for field in msgspec.structs.fields(READ[kind])}
            if kind == "optionMarkPrice":
                read |= {field.encode_name for field in msgspec.structs.fields(wire.Greeks)}  # on request
            assert not read & set(IGNORED[kind]), kind
            assert set(row) <= read | set(IGNORED[kind]), (kind, set(row) - read - set(IGNORED[kind]))
            seen.setdefault(kind, set()).update(row)
    # No name on these lists without a captured field behind it.
    for kind, names in IGNORED.items():
        assert set(names) <= seen[kind], kind
    for kind, struct in READ.items():
        assert {field.encode_name for field in msgspec.structs.fields(struct)} <= seen[kind], kind
    assert streams == {
        "index": 1, "optionMarkPrice": 3, "unused.kline": 1, "optionTrade": 3, "depth": 2, "bookTicker": 2,
        "unused.optionTicker": 2,
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted(READ))
def test_what_is_read_makes_a_difference(kind: str) -> None:
    frame = next(frame for found, frame in kinds() if found == kind)
    listed = json.loads(json.dumps(frame))
    whole = said_of(frame, listed)
    assert "malformed" not in whole[2]
    row = objects(frame)[-1] if kind == "index" else objects(frame)[0]
    spare = {
        "E": "only where there is no T",
        "m": "says the same as S",
        "U": "of whole levels",
        "pu": "of whole levels",
    }
    fields = (*msgspec.structs.fields(READ[kind]), *(msgspec.structs.fields(wire.Greeks) if "Mark" in kind else ()))
    for field in fields:
        name = field.encode_name
        if name in spare and kind != "optionMarkPrice" and not (kind == "index" and name == "E"):
            continue
        value = row[name]
        if name == "s":
            changed: Any = value[:-1] + ("P" if value.endswith("C") else "X")
        elif isinstance(value, list):
            changed = value[1:]
        elif isinstance(value, int):
            changed = value - 60_001
        else:
            changed = {"SELL": "BUY", "BUY": "SELL", "MARKET": "BLOCK"}.get(
                value
            ) or f"{float(value) * 1.01 + 0.001:.6f}"
        row[name] = changed
        assert said_of(frame, listed) != whole, name
        row[name] = value
    assert said_of(frame, listed) == whole


def test_every_frame_of_the_new_api_is_taken_whole() -> None:
    for kind, frame in kinds():
        desk, member = desk_for(frame)
        venue = desk.venues[member]
        before = venue.counters.copy()
        desk.say(json.dumps(frame, separators=(",", ":")).encode(), member=member)
        rows, events = desk.take(member), desk.events(member)
        counted = {name for name, count in (venue.counters - before).items() if count}
        if kind == "optionMarkPrice":
            assert counted == {"optionMarkPrice", "mark_rows"}
            assert set(rows) == {row["s"] for row in objects(frame)}
        elif kind == "index":
            assert set(rows) == {"BTCUSDT"}
        elif kind == "bookTicker":
            assert rows[frame["data"]["s"]]["bid"] == float(frame["data"]["b"])
        else:
            assert counted == {kind}
            assert len([e for e in events if isinstance(e, BookEvent | TradeEvent)]) == (
                kind in ("depth", "optionTrade")
            )
        assert not [name for name in counted if name.startswith(("malformed", "stream_unknown", "retired"))]


def test_the_retired_frames_are_refused_by_name() -> None:
    desk, _ = desk_for(next(frames(NEW[0])))
    count: Counter[str] = Counter()
    for frame in frames(OLD):
        desk.say(json.dumps(frame).encode())
        count[f"retired.{frame['stream'].split('@')[1].removesuffix('100')}"] += 1
    assert sum(count.values()) == 10
    assert {k: v for k, v in desk.market.counters.items() if k.startswith("retired")} == count
    refusals = desk.health(Health.REFUSED)
    assert len(refusals) == len(count) == 6
    assert all("retired nbstream API" in event.detail for event in refusals)
    assert desk.take() == {}


def test_the_model_reprices_every_captured_mark_to_less_than_a_cent() -> None:
    """F = i·exp(rf·T), D = i / F: what the venue's `mp` and `d` are made of. Nine rows, one of them without any quote."""
    rows = mark_rows()
    assert len(rows) == 9
    worst = 0.0
    for row in rows:
        said = parse_symbol(row["s"])
        assert said is not None
        unit = {"XRP": 100.0}.get(said.base, 1.0)
        years = (said.expiry_ns - row["E"] * 1_000_000) / NANOSECONDS_PER_YEAR
        spot = float(row["i"])
        forward = spot * np.exp(float(row["rf"]) * years)
        price = black_price(forward, said.strike, years, float(row["vo"]), said.is_call, discount=spot / forward) * unit
        worst = max(worst, abs(float(price) - float(row["mp"])))
    assert round(worst, 3) <= 0.007


def test_vols_are_the_venues_own_through_the_batch_and_the_normalisation() -> None:
    """As the core does it: premium / (D·F) with D = index / forward of the row. Without D they are off by more than a point."""
    checked, without = [], []
    for kind, frame in kinds():
        if kind != "optionMarkPrice":
            continue
        desk, _ = desk_for(frame)
        desk.say(json.dumps(frame).encode())
        batch = desk.take()
        for row in objects(frame):
            got = batch[row["s"]]
            instrument = desk.market.universe["binance", row["s"]]
            assert instrument.is_discounted
            assert got["fields"] & int(Field.FORWARD | Field.INDEX | Field.MARK) == int(
                Field.FORWARD | Field.INDEX | Field.MARK
            )
            years = (instrument.expiry_ns - row["E"] * 1_000_000) / NANOSECONDS_PER_YEAR
            discount = got["index"] / got["forward"]
            assert got["mark_vol"] == float(row["vo"])
            for side, vol in (("bid", "b"), ("ask", "a")):
                theirs = float(row[vol])
                if theirs <= 1e-6 or got[side] != got[side]:
                    continue
                for factor, found in ((discount, checked), (1.0, without)):
                    premium = float(normalised_premium(got[side], got["forward"], instrument.settlement, factor))
                    strike = instrument.strike / got["forward"]
                    ours = implied_vol(premium, 1.0, strike, years, instrument.is_call)
                    found.append(abs(float(ours) - theirs))
    assert len(checked) == 14
    assert max(checked) < 2e-5
    assert max(without) > 0.01


def test_no_quote_and_below_intrinsic_are_no_vols_and_no_prices() -> None:
    rows = {row["s"]: row for row in mark_rows()}
    empty = next(row for row in rows.values() if row["b"] == "-1.0")
    floor = next(row for row in rows.values() if row["b"] == "0.00000060")
    for kind, frame in kinds():
        if kind != "optionMarkPrice":
            continue
        desk, _ = desk_for(frame)
        desk.say(json.dumps(frame).encode())
        batch = desk.take()
        if empty["s"] in batch:
            got = batch[empty["s"]]
            assert np.isnan([got["bid"], got["ask"], got["bid_size"], got["ask_size"]]).all()
            assert got["mark"] == pytest.approx(float(empty["mp"]) / 100)
        if floor["s"] in batch:
            # The price is one at which somebody would deal; that no vol belongs to it is for the core to find.
            assert batch[floor["s"]]["bid"] == float(floor["bo"])
            assert batch[floor["s"]]["mark_vol"] == float(floor["vo"])
