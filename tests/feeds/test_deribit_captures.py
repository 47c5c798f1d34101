"""Every captured Deribit frame there is, read by the protocol and by plain `json`: they must say the same."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import shared_path
from tests.feeds.deribit_frames import SECOND, Server
from volsurf.feeds.deribit import Deribit, parse_symbol
from volsurf.feeds.protocol import BookEvent, Health, HealthEvent, TradeEvent
from volsurf.instruments import Kind, Settlement
from volsurf.quotes import Field

Row = dict[str, Any]
BEFORE = SECOND
"""A time at which nothing captured has expired yet."""
FOLDER = ("venues", "fixtures", "deribit")


def received(path: Path) -> list[str]:
    """The frames a file holds, as they came in."""
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    if path.suffix == ".json":
        return [json.dumps(json.loads(text))]
    frames = []
    for line in text.splitlines():
        if line.startswith("{"):
            frames.append(line)
        elif " <" not in line and ": {" in line and not line.startswith("configuration"):
            frames.append(line.split(": ", 1)[1])
    return frames


STREAMS = [
    (*FOLDER, "cryptofeed_DERIBIT.ws.1.0.txt"),
    (*FOLDER, "fastmm_testnet_option_frames_2026-09-13.jsonl"),
    (*FOLDER, "tardis_mappers_option_messages.jsonl"),
    (*FOLDER, "vike_markprice_options_2026-07-26_2rows.json"),
    (*FOLDER, "nautilus_ws_trades_option_combo.json"),
    ("data", "real", "ws_captures_cryptofeed", "deribit_20210405.ws.txt.gz"),
]


def row_named(name: str) -> Row:
    """A listing for an instrument of a capture, settled as its name says."""
    said = parse_symbol(name)
    assert said is not None, name
    base, _, quote = said.market.partition("_")
    return {
        "kind": "option",
        "instrument_name": name,
        "base_currency": base,
        "quote_currency": quote or base,
        "expiration_timestamp": said.expiry_ns // 1_000_000,
        "strike": said.strike,
        "option_type": "call" if said.is_call else "put",
        "tick_size": 0.0005,
        "contract_size": 1.0,
    }


def venue_following(names: set[str]) -> Deribit:
    """A connection that follows some instruments, at a time when none has expired."""
    listings: dict[tuple[str, str], list[Row]] = {}
    for name in sorted(names):
        said = parse_symbol(name)
        assert said is not None
        listings.setdefault((said.market.partition("_")[2] or said.market, "option"), []).append(row_named(name))
    markets = sorted({said.market for name in names if (said := parse_symbol(name))}) or ["BTC"]
    server = Server(Deribit(markets, books=True, mark_prices=True), listings)
    server.now = BEFORE
    server.connect()
    server.venue.events()
    return server.venue


def pushes(frames: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Frame, channel and data of every notification."""
    for frame in frames:
        message = json.loads(frame)
        if message.get("method") == "subscription":
            yield frame, message["params"]["channel"], message["params"]["data"]


def names_in(frames: list[str]) -> set[str]:
    """Options that some notification is about."""
    names = set()
    for _, _, data in pushes(frames):
        for row in data if isinstance(data, list) else [data]:
            if parse_symbol(row["instrument_name"]) is not None:
                names.add(row["instrument_name"])
    return names


def number(value: Any) -> float:
    """A plain reading of a number: NaN for none."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def check_ticker(venue: Deribit, data: Row) -> None:
    batch = venue.take_quotes(BEFORE)
    assert batch is not None
    assert len(batch) == 1
    assert venue.universe[int(batch.instrument_id[0])].symbol == data["instrument_name"]
    got = {name: getattr(batch, name)[0].item() for name in batch.__slots__[3:]}
    is_open = data["state"] == "open"
    for side in ("bid", "ask"):
        price = number(data[f"best_{side}_price"])
        quoted = price > 0 and is_open
        assert (math.isnan(got[side]) and not quoted) or got[side] == price
        assert (math.isnan(got[f"{side}_size"]) and not quoted) or got[f"{side}_size"] == data[f"best_{side}_amount"]
        # The venue's own vols say the same: none without a price.
        assert quoted or data[f"{side}_iv"] in (0, 500)
    assert got["mark"] == data["mark_price"]
    assert got["mark_vol"] == pytest.approx(data["mark_iv"] / 100, rel=1e-15)
    assert got["forward"] == data["underlying_price"]
    assert got["index"] == data["index_price"]
    last = number(data["last_price"])
    assert (math.isnan(got["last"]) and math.isnan(last)) or got["last"] == last
    assert got["venue_time_ns"] == data["timestamp"] * 1_000_000
    groups = Field.QUOTE | Field.MARK | Field.FORWARD | Field.INDEX | (Field.LAST if last > 0 else Field(0))
    assert got["fields"] == groups


def check_book(event: BookEvent, data: Row, venue: Deribit) -> None:
    assert venue.universe[event.instrument_id].symbol == data["instrument_name"]
    assert event.sequence == data["change_id"]
    assert event.is_snapshot == (not data.get("prev_change_id"))
    for side in ("bids", "asks"):
        plain = tuple((price, 0.0 if action == "delete" else amount) for action, price, amount in data[side])
        assert getattr(event, side) == plain
    assert event.venue_time_ns == data["timestamp"] * 1_000_000


@pytest.mark.parametrize("parts", STREAMS, ids=[parts[-1] for parts in STREAMS])
def test_every_captured_frame_says_what_plain_json_says(parts: tuple[str, ...]) -> None:
    frames = received(shared_path(*parts))
    venue = venue_following(names_in(frames))
    seen: Counter[str] = Counter()
    for frame, channel, data in pushes(frames):
        kind = channel.partition(".")[0]
        seen[kind] += 1
        venue.receive(frame, BEFORE)
        if kind == "ticker":
            check_ticker(venue, data)
        elif kind == "book":
            (event,) = venue.events()
            assert isinstance(event, BookEvent)
            check_book(event, data, venue)
        elif kind == "markprice":
            batch = venue.take_quotes(BEFORE)
            assert batch is not None
            names = [venue.universe[int(row)].symbol for row in batch.instrument_id]
            assert names == [row["instrument_name"] for row in data]
            assert batch.mark.tolist() == [row["mark_price"] for row in data]
            assert batch.mark_vol.tolist() == [row["iv"] for row in data]
        elif kind == "trades":
            # A combo's trade is nobody's, and its legs are in their own instruments' channels.
            assert not any(isinstance(event, TradeEvent) for event in venue.events())
            assert venue.counters["trade_elsewhere"] == len(data)
    assert not [event for event in venue.events() if isinstance(event, HealthEvent)]
    assert not [name for name in venue.counters if name.startswith(("malformed", "ticker_unknown", "book_"))]
    counts = {
        "cryptofeed_DERIBIT.ws.1.0.txt": {"ticker": 89, "book": 46},
        "fastmm_testnet_option_frames_2026-09-13.jsonl": {"ticker": 5, "book": 3},
        "tardis_mappers_option_messages.jsonl": {"ticker": 5, "book": 1},
        "deribit_20210405.ws.txt.gz": {"ticker": 273, "book": 187},
    }
    assert seen == counts.get(parts[-1], seen)
    assert seen.total() > 0


def test_captured_acknowledgements_and_errors() -> None:
    """The captured replies, given to the requests they answer."""
    frames = received(shared_path(*FOLDER, "fastmm_testnet_rpc_frames_2026-09-13.jsonl"))
    server = Server(Deribit(["BTC", "ETH", "SOL"])).connect()
    server.events()
    for frame in frames:
        server.say(frame.encode())
    sent = server.collect()
    assert [request["method"] for request in sent] == ["public/test"]
    kinds = Counter(event.kind for event in server.health())
    assert kinds == {Health.HEARTBEAT_ANSWERED: 1, Health.REFUSED: 2}
    assert server.venue.counters["errors.-32602"] == 1
    assert server.venue.counters["errors.13778"] == 1
    assert server.venue.counters["replies_unclaimed"] == 1


def listed(rows: list[Row], markets: list[str]) -> Deribit:
    """A connection that was given one body of `get_instruments` for everything it asks."""
    venue = Deribit(markets)
    currency = markets[0].partition("_")[2] or markets[0]
    by_kind = {(currency, kind): [r for r in rows if r["kind"] == kind] for kind in ("option", "future")}
    server = Server(venue, by_kind)
    server.now = BEFORE
    server.connect()
    return venue


def bodies() -> dict[str, list[Row]]:
    """The four listings of the instruments' capture, by currency."""
    text = shared_path(*FOLDER, "cryptofeed_DERIBIT.0.instruments.txt").read_text()
    found = {}
    for line in text.splitlines():
        if "get_instruments?currency=" in line:
            found[line.split("currency=")[1].split("&")[0]] = json.loads(line[line.index("{") :])["result"]
    return found


@pytest.mark.parametrize(
    ("currency", "market", "options", "futures"),
    [("BTC", "BTC", 390, 8), ("ETH", "ETH", 418, 8), ("USDC", "SOL_USDC", 0, 1), ("USDC", "XRP_USDC", 0, 1)],
)
def test_captured_listings_become_the_right_instruments(currency: str, market: str, options: int, futures: int) -> None:
    rows = bodies()[currency]
    venue = listed(rows, [market])
    universe = venue.universe
    counts = Counter(Kind(int(kind)) for kind in universe.kind)
    assert counts[Kind.OPTION] == options
    assert counts[Kind.FUTURE] + counts[Kind.PERPETUAL] == futures
    assert counts[Kind.PERPETUAL] == 1
    assert counts[Kind.INDEX] == 1
    plain = {row["instrument_name"]: row for row in rows}
    for instrument in universe:
        if instrument.kind is Kind.INDEX:
            continue
        row = plain[instrument.symbol]
        assert instrument.underlying == row["base_currency"]
        assert instrument.settlement is (Settlement.LINEAR if row["quote_currency"] == "USDC" else Settlement.INVERSE)
        assert instrument.tick_size == row["tick_size"]
        assert instrument.contract_size == row["contract_size"]
        if instrument.kind is Kind.OPTION:
            assert (instrument.strike, instrument.is_call) == (row["strike"], row["option_type"] == "call")
        if instrument.kind is not Kind.PERPETUAL:
            assert instrument.expiry_ns == row["expiration_timestamp"] * 1_000_000
    assert not [name for name in venue.counters if name.startswith("malformed")]


def test_coin_options_of_a_linear_currency_are_not_taken_for_linear() -> None:
    """SOL had coin-settled options until 2022: by the listing's fields they are inverse, whatever is asked for now."""
    rows = bodies()["SOL"]
    assert sum(row["kind"] == "option" for row in rows) == 172
    venue = Deribit(["SOL"])
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("option", "future")}
    Server(venue, {("USDC", kind): found for kind, found in kinds.items()}).connect()
    assert len(venue.universe) == 0
    assert venue.fatal is not None
    assert "SOL" in venue.fatal


@pytest.mark.parametrize(
    ("name", "market", "settlement", "strike", "steps"),
    [
        ("fastmm_testnet_get_instruments_option_2026-09-14.json", "BTC", 0, 77000.0, ((0.005, 0.0005),)),
        ("openbb_instruments_option_XRP_USDC_2rows.json", "XRP_USDC", 1, 1.25, ()),
        ("maksm05_deribit_get_instruments_btc_option.json", "BTC", 0, 68000.0, ((0.005, 0.0005),)),
    ],
)
def test_listings_of_2026(name: str, market: str, settlement: int, strike: float, steps: tuple[Any, ...]) -> None:
    body = json.loads(shared_path(*FOLDER, name).read_text())
    rows = body if isinstance(body, list) else body["result"]
    venue = listed(rows, [market])
    options = [instrument for instrument in venue.universe if instrument.kind is Kind.OPTION]
    assert {option.symbol for option in options} == {row["instrument_name"] for row in rows}
    assert {option.settlement for option in options} == {Settlement(settlement)}
    assert strike in {option.strike for option in options}
    assert {option.tick_steps for option in options} == {steps}
    assert {option.price_index for option in options} == {rows[0]["price_index"]}


def test_rest_tickers_have_the_shape_of_pushed_ones() -> None:
    """Six BTC and six XRP_USDC tickers, and the perpetual's, which differ from pushes only in their envelope."""
    options = json.loads(shared_path(*FOLDER, "openbb_option_tickers_2026-09-20.json").read_text())
    venue = venue_following(set(options))
    for name, data in options.items():
        push = {"method": "subscription", "params": {"channel": f"ticker.{name}.100ms", "data": data}}
        venue.receive(json.dumps(push), BEFORE)
        check_ticker(venue, data)
    perpetual = json.loads(shared_path(*FOLDER, "maksm05_deribit_ticker_btc_perpetual.json").read_text())["result"]
    server = Server(Deribit(["BTC"])).connect()
    push = {"method": "subscription", "params": {"channel": "ticker.BTC-PERPETUAL.100ms", "data": perpetual}}
    server.say(json.dumps(push).encode())
    batch = server.venue.take_quotes(BEFORE)
    assert batch is not None
    assert (batch.bid[0], batch.ask[0], batch.mark[0]) == (76753.5, 76754.0, 76756.11)
    assert batch.bid_size[0] == pytest.approx(385760.0 / 76753.5)
    assert batch.index[0] == 76735.99
    assert math.isnan(batch.forward[0])


def test_every_captured_expiration_parses() -> None:
    body = json.loads(shared_path(*FOLDER, "nautilus_http_get_expirations_btc_option.json").read_text())
    for date in body["result"]["btc"]["option"]:
        assert parse_symbol(f"BTC-{date}-70000-C") is not None


def test_every_captured_option_name_says_what_its_listing_says() -> None:
    for rows in bodies().values():
        for row in rows:
            said = parse_symbol(row["instrument_name"])
            if row["kind"] != "option":
                assert said is None
                continue
            assert said is not None
            assert said[1:] == (row["expiration_timestamp"] * 1_000_000, row["strike"], row["option_type"] == "call")
