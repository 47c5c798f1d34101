"""Captured OKX messages: every field of them is either used, which changing it shows, or left out for a named reason."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from tests.conftest import shared_path
from tests.feeds.okx_frames import SECOND, Row, Server, instrument_row, push
from volsurf.errors import InputError
from volsurf.feeds import _okx_messages as wire
from volsurf.feeds._okx_listing import family_of, instrument_of
from volsurf.feeds.okx import Okx
from volsurf.feeds.protocol import BookEvent, TradeEvent
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.sim.pricing import black_price

FILES = (
    "okex_opt_summary_2023-12-01_26rows.json",
    "okex_option_frames_2023-12-01.jsonl",
    "tardis_mappers_option_messages.jsonl",
)
ACCOUNT = "limits of accounts and orders, which a reader of prices does not place"
DAY = "the day's statistics: nothing of volsurf's is computed from them"
REPEATED = "said again by the channel, the name or the listing"
IGNORED: dict[str, dict[str, str]] = {
    "opt-summary": {
        "instType": REPEATED,
        "uly": REPEATED,
        "volLv": "the venue's own at-the-money vol of the expiry; volsurf has the whole smile",
        "realVol": "always empty",
    },
    "tickers": {
        **dict.fromkeys(("open24h", "high24h", "low24h", "sodUtc0", "sodUtc8", "volCcy24h", "vol24h"), DAY),
        **dict.fromkeys(("instType", "instId"), REPEATED),
        "lastSz": "the size of the last trade is a trade's, and trades are kept one by one",
    },
    "index-tickers": dict.fromkeys(("open24h", "high24h", "low24h", "sodUtc0", "sodUtc8"), DAY),
    "books": {"checksum": "deprecated in May 2026 and fixed at 0: the sequence numbers are the check"},
    "trades": {},
    "trades-all": {},
}
IGNORED_CHANNELS = {
    "open-interest": "nothing of volsurf's is computed from it",
    "mark-price": "of options its unit is not the premium's; the mark comes from opt-summary",
    "books-l2-tbt": "for paying members only; books is the public one",
}
IGNORED_LISTING = {
    "alias": "removed in 2026",
    "instIdCode": "the numeric name of the binary protocol",
    "baseCcy": "of spot only",
    "quoteCcy": "of spot only",
    "tradeQuoteCcyList": "of spot only",
    "lever": "of futures only",
    "category": "a fee group",
    "groupId": "a fee group",
    "feeGroup": "a fee group",
    "instCategory": "crypto, stocks or metals: the underlying says it",
    "ruleType": "normal, or of the pre-market",
    "openType": "how trading opens, of new coins only",
    "contTdSwTime": "of new coins only",
    "auctionEndTime": "of new coins only",
    "preMktSwTime": "of pre-market futures only",
    "futureSettlement": "of futures that settle daily",
    "upcChg": "changes to come; each is pushed when it happens",
    "method": "of event contracts",
    "seriesId": "of event contracts",
    "freq": "of event contracts",
    **dict.fromkeys(
        (
            *("lotSz", "minSz", "maxLmtSz", "maxMktSz", "maxTwapSz", "maxIcebergSz", "maxTriggerSz", "maxStopSz"),
            *("maxLmtAmt", "maxMktAmt", "posLmtAmt", "posLmtPct", "maxPlatOILmt"),
            *("longPosRemainingQuota", "shortPosRemainingQuota"),
        ),
        ACCOUNT,
    ),
    "listTime": "used before an option opens only: after that it says nothing",
    "state": "decides whether the row is followed at all",
}


def frames() -> list[Row]:
    return [
        json.loads(line)
        for name in FILES
        for line in shared_path("venues", "fixtures", "okx", name).read_text("utf-8").splitlines()
    ]


def names_of(frame: Row) -> set[str]:
    rows = {row["instId"] for row in frame["data"] if "instId" in row}
    return {name for name in rows | {frame["arg"].get("instId", "")} if name.count("-") >= 4}


def server_for(frame: Row) -> Server:
    """A connection that follows what a frame is about, at the time it was captured."""
    rows = [instrument_row(n, ctMult="0.1" if n.startswith("ETH") else "0.01") for n in sorted(names_of(frame))]
    rows = rows or [instrument_row("ETH-USD-220128-3500-C")]
    base = rows[0]["uly"].split("-")[0]
    quotes = "tickers" if frame["arg"]["channel"] == "tickers" else "bbo-tbt"
    server = Server(Okx([base], url="ws://okx.test", books=True, trades=True, quotes=quotes), rows)
    server.now = int(frame["data"][0]["ts"]) * 1_000_000 + SECOND // 10
    server.connect()
    assert server.venue.is_ready
    server.venue.take_quotes(server.now)
    server.events()
    return server


def outcome(frame: Row, listed: Row) -> tuple[Any, ...]:
    """Everything that can be seen of what a frame did where what another is about is listed."""
    server = server_for(listed)
    before = dict(server.venue.counters)
    server.say(json.dumps(frame, separators=(",", ":")).encode())
    values = server.values()
    greeks = [repr(server.venue.greeks(row)) for row in range(len(server.venue.universe))]
    counted = {name: count for name, count in server.venue.counters.items() if before.get(name) != count}
    return repr(values), greeks, [repr(event) for event in server.events()], counted


def altered(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, str):
        try:
            if value in ("0", "5"):
                return "0.5"  # of a vol both stand for none, and so would 7
            return str(float(value) * 0.75 + 1) if "." in value else str(int(value) + 7)
        except ValueError:
            return {"buy": "sell", "sell": "buy", "": "0.123", "USD": "BTC", "BTC": "USD"}.get(value, value + "X")
    if isinstance(value, list):
        return [[str(float(level[0]) * 2), *level[1:]] for level in value]
    return value + 7


@pytest.mark.parametrize("number", range(12))
def test_every_field_is_used_or_left_out_for_a_reason(number: int) -> None:
    all_frames = frames()
    assert len(all_frames) == 12
    frame = all_frames[number]
    channel = frame["arg"]["channel"]
    if channel in IGNORED_CHANNELS:
        seen = outcome(frame, frame)
        assert seen[0] == "{}"
        assert seen[3] == {"channel_unknown": 1}
        return
    # A snapshot is told by its number before it as well; here by that alone, so that it can be seen to count.
    frame.pop("action", None)
    if channel == "tickers":
        # The captured one has no bid, and of no bid the size says nothing.
        frame["data"][0] |= {"bidPx": "0.0004", "bidSz": "50"}
    plain = outcome(frame, frame)
    assert not any(name.startswith("malformed") for name in plain[3])
    for position in {0, len(frame["data"]) - 1}:
        for name, value in frame["data"][position].items():
            changed = copy.deepcopy(frame)
            changed["data"][position][name] = altered(value)
            is_used = outcome(changed, frame) != plain
            assert is_used != (name in IGNORED[channel]), f"{channel}.{name} {'used' if is_used else 'not used'}"


def test_every_field_of_a_listing_is_used_or_left_out_for_a_reason() -> None:
    rows = json.loads(
        shared_path("venues", "fixtures", "okx", "okxapi_instruments_option_BTC-USD.json").read_text("utf-8-sig")
    )["data"]

    def read(row: Row) -> Any:
        listing = wire.decode_listing(json.dumps(row))
        family = family_of(listing)
        try:
            return None if family is None else instrument_of(listing, family, None)
        except InputError as error:
            return str(error)
        except KeyError:
            return "not followed"

    for row in (rows[0], rows[-1]):
        plain = read(row)
        assert not isinstance(plain, str)
        for name, value in row.items():
            # An empty list has nothing to alter; bool and int are both numbers here.
            other = row | {name: [["1"]] if value == [] else altered(value)}
            try:
                is_used = read(other) != plain
            except Exception:
                is_used = True
            # The underlying is the family's; a row's own is the key of the listing it came in.
            expected = name not in IGNORED_LISTING and name != "uly"
            assert is_used == expected, name


def test_summaries_reprice_by_black() -> None:
    """The mark taken from `lever` is the price of `markVol` at `fwdPx`, rate 0, ACT/365 to 08:00 UTC."""
    frame = frames()[0]
    server = server_for(frame)
    server.say(json.dumps(frame, separators=(",", ":")).encode())
    values = server.values()
    assert len(values) == len(frame["data"]) == 26
    checked = 0
    for row in frame["data"]:
        got = values[row["instId"]]
        instrument = server.venue.universe[("okx", row["instId"])]
        assert got["mark_vol"] == float(row["markVol"])
        assert got["forward"] == float(row["fwdPx"])
        years = (instrument.expiry_ns - int(row["ts"]) * 10**6) / NANOSECONDS_PER_YEAR
        k = math.log(instrument.strike / got["forward"])
        price = float(black_price(k, got["mark_vol"] * math.sqrt(years), instrument.is_call))
        greeks = server.venue.greeks(server.venue.universe.find("okx", row["instId"]) or 0)
        assert greeks is not None
        if float(row["lever"]) >= 10_000:
            assert math.isnan(got["mark"])
        else:
            checked += 1
            assert got["mark"] == pytest.approx(price, rel=4e-4)
            assert greeks.coin_delta == pytest.approx(greeks.delta - price, abs=2e-4)
    assert checked == 25


def test_captured_sentinels() -> None:
    frame = frames()[0]
    server = server_for(frame)
    server.say(json.dumps(frame, separators=(",", ":")).encode())
    server.values()
    for row in frame["data"]:
        greeks = server.venue.greeks(server.venue.universe.find("okx", row["instId"]) or 0)
        assert greeks is not None
        for said, got in ((row["bidVol"], greeks.bid_vol), (row["askVol"], greeks.ask_vol)):
            assert math.isnan(got) if said in ("0", "", "5") else got == float(said)
    capped = next(f for f in frames() if f["data"][0].get("askVol") == "5")
    server = server_for(capped)
    server.say(push(capped["arg"], capped["data"]))
    values = server.values()
    assert math.isnan(next(iter(values.values()))["forward"]), "absent in 2021"


def test_captured_book_and_trades_are_in_coins() -> None:
    by_channel = {frame["arg"]["channel"]: frame for frame in frames()}
    book, trade = by_channel["books"], by_channel["trades-all"]
    server = server_for(book)
    server.say(json.dumps(book).encode())
    (event,) = [e for e in server.events() if isinstance(e, BookEvent)]
    assert event.is_snapshot
    assert event.asks[0] == (0.038, 20.0), "200 contracts of 0.1 ETH"
    assert (len(event.bids), len(event.asks)) == (5, 4)
    assert event.sequence == 7966474
    server = server_for(trade)
    server.say(json.dumps(trade).encode())
    (traded,) = [e for e in server.events() if isinstance(e, TradeEvent)]
    assert (traded.price, traded.size, traded.is_buy, traded.trade_id) == (0.0195, 0.5, True, "877")
    assert server.values()["BTC-USD-231229-42000-C"]["last"] == 0.0195
