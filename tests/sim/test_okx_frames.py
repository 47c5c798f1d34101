"""What the simulated OKX pushes: the keys of captured frames, and the values of the truth."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tests.conftest import shared_path
from tests.sim.okx_venue import Client, exchange, of_channel
from tests.sim.venue import SECOND, START
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.sim.pricing import black_price
from volsurf.sim.quoting import QuoteRules

ARGS = {
    "bbo-tbt": "instId",
    "tickers": "instId",
    "books": "instId",
    "books5": "instId",
    "trades": "instId",
    "mark-price": "instId",
}


@pytest.fixture(scope="module")
def client() -> Client:
    return Client(exchange(("BTC", "ETH")))


def liquid(client: Client, family: str = "BTC-USD") -> str:
    """An option with both sides, near the money."""
    quotes, listing = client.exchange.quotes, client.exchange.listing
    rows = [row for row, said in enumerate(listing.objects) if said["instFamily"] == family and said["stk"]]
    rows = [row for row in rows if quotes.bid[row] == quotes.bid[row] and quotes.ask[row] == quotes.ask[row]]
    return listing.names[min(rows, key=lambda row: abs(quotes.delta[row] - 0.5))]


def captured() -> dict[str, dict[str, Any]]:
    """A captured frame of every channel there is one of."""
    found: dict[str, dict[str, Any]] = {}
    for name in (
        "tardis_mappers_option_messages.jsonl",
        "okex_option_frames_2023-12-01.jsonl",
        "okex_opt_summary_2023-12-01_26rows.json",
    ):
        for line in shared_path("venues", "fixtures", "okx", name).read_text("utf-8").splitlines():
            frame = json.loads(line)
            found[frame["arg"]["channel"]] = frame
    return found


def shape(value: Any) -> Any:
    """Keys and types, of the first element of lists."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value)


def test_pushes_have_the_keys_and_types_of_captured_ones() -> None:
    client = Client(exchange(rules=QuoteRules(trades_per_step=300.0)))
    name = liquid(client)
    for channel in ("tickers", "books", "mark-price", "trades"):
        client.subscribe(channel, instId=name)
    said = [*client.subscribe("opt-summary", instFamily="BTC-USD")]
    said += client.subscribe("index-tickers", instId="BTC-USD")
    client.ask("unsubscribe", {"channel": "books", "instId": name})
    said += client.subscribe("books", instId=name)
    for channel in ("tickers", "mark-price"):
        client.ask("unsubscribe", {"channel": channel, "instId": name})
        said += client.subscribe(channel, instId=name)
    said += client.run(5)
    real = captured()
    for channel in ("tickers", "books", "mark-price", "opt-summary", "index-tickers", "trades"):
        push = of_channel(said, channel)[0]
        expected = shape(real[channel]["data"])
        if channel == "books":
            assert push["action"] == "snapshot"
        assert shape(push["data"]) == expected, channel


def test_best_levels_are_those_of_the_model_in_contracts(client: Client) -> None:
    q, listing = client.exchange.quotes, client.exchange.listing
    for family in ("BTC-USD", "BTC-USD_UM", "ETH-USD"):
        name = liquid(client, family)
        (push,) = client.subscribe("bbo-tbt", instId=name)
        row = listing.row_of[name]
        (level,) = push["data"]
        assert float(level["bids"][0][0]) == q.bid[row]
        assert float(level["asks"][0][0]) == q.ask[row]
        contracts = float(level["bids"][0][1])
        assert contracts == int(contracts)
        assert contracts * listing.universe[row].contract_size == pytest.approx(float(q.bid_size[row]))
        assert level["seqId"] > 0
        assert int(level["ts"]) == (START + client.now) // 10**6


def test_summaries_reprice_and_their_greeks_agree(client: Client) -> None:
    listing, market = client.exchange.listing, client.exchange.market
    for family in ("BTC-USD", "BTC-USD_UM"):
        (push,) = client.subscribe("opt-summary", instFamily=family)
        assert len(push["data"]) > 200
        forwards: dict[int, set[str]] = {}
        for line in push["data"]:
            instrument = listing.universe[listing.row_of[line["instId"]]]
            forwards.setdefault(instrument.expiry_ns, set()).add(line["fwdPx"])
            forward, vol = float(line["fwdPx"]), float(line["markVol"])
            years = (instrument.expiry_ns - market.now_ns) / NANOSECONDS_PER_YEAR
            price = float(
                black_price(math.log(instrument.strike / forward), vol * math.sqrt(years), instrument.is_call)
            )
            if float(line["lever"]) < 10_000:
                assert 1 / float(line["lever"]) == pytest.approx(price, rel=1e-5)
            assert float(line["delta"]) == pytest.approx(float(line["deltaBS"]) - price, abs=1e-8)
            spot = market.spot("BTC")
            assert float(line["vega"]) == pytest.approx(float(line["vegaBS"]) / spot, abs=1e-9)
            for word in (line["bidVol"], line["askVol"]):
                assert word in ("", "0", "5") or 0 < float(word) < 5
        assert all(len(said) == 1 for said in forwards.values()), "one forward an expiry and push"
        assert len(forwards) >= 8


def test_summaries_come_as_subsets_that_cover_everything(client: Client) -> None:
    (whole,) = client.subscribe("opt-summary", instFamily="ETH-USD")
    pushes = of_channel(client.run(5), "opt-summary")
    mine = [push for push in pushes if push["arg"] == {"channel": "opt-summary", "instFamily": "ETH-USD"}]
    assert len(mine) == 5
    assert {line["instId"] for push in mine for line in push["data"]} == {line["instId"] for line in whole["data"]}
    assert max(len(push["data"]) for push in mine) < 0.3 * len(whole["data"])


def test_books_follow_from_update_to_update() -> None:
    client = Client(exchange())
    name = liquid(client)
    (snapshot,) = client.subscribe("books", instId=name)
    assert snapshot["data"][0]["prevSeqId"] == -1
    row = client.exchange.listing.row_of[name]
    sides: dict[str, dict[str, str]] = {
        side: {level[0]: level[1] for level in snapshot["data"][0][side]} for side in ("asks", "bids")
    }
    last = snapshot["data"][0]["seqId"]
    updates = []
    for number in range(40):
        # Makers that change their mind at every tick.
        client.exchange.quotes.distort("spike", [row], START + client.now + SECOND, 0.01 * (number % 5 + 1))
        updates += of_channel(client.run(1), "books")
    assert len(updates) > 10
    for update in updates:
        (data,) = update["data"]
        assert update["action"] == "update"
        assert data["prevSeqId"] == last
        assert data["checksum"] == 0
        last = data["seqId"]
        for side in ("asks", "bids"):
            for price, size, zero, _ in data[side]:
                assert zero == "0"
                if size == "0":
                    del sides[side][price]
                else:
                    sides[side][price] = size
    again = Client(client.exchange, client.now)
    (whole,) = again.subscribe("books", instId=name)
    assert whole["data"][0]["seqId"] == last
    assert {level[0]: level[1] for level in whole["data"][0]["bids"]} == sides["bids"]
    assert {level[0]: level[1] for level in whole["data"][0]["asks"]} == sides["asks"]


def test_a_quiet_book_says_that_it_still_stands() -> None:
    client = Client(exchange(rules=QuoteRules(requote_share=0.0, resize_share=0.0, stale_share=0.0)))
    quotes, listing = client.exchange.quotes, client.exchange.listing
    deep = min((abs(quotes.delta[r]), r) for r, said in enumerate(listing.objects) if said["stk"] and quotes.ask[r] > 0)
    name = listing.names[deep[1]]
    (snapshot,) = client.subscribe("books", instId=name)
    said = client.run(62, SECOND)
    (alive,) = of_channel(said, "books")[:1]
    number = snapshot["data"][0]["seqId"]
    assert (alive["data"][0]["prevSeqId"], alive["data"][0]["seqId"]) == (number, number)
    assert alive["data"][0]["asks"] == alive["data"][0]["bids"] == []


def test_maintenance_resets_the_numbers_with_one_update_that_follows() -> None:
    client = Client(exchange())
    name = liquid(client)
    (snapshot,) = client.subscribe("books", instId=name)
    client.exchange.reset_sequences()
    updates = of_channel(client.run(40, SECOND), "books")
    first = updates[0]["data"][0]
    assert first["prevSeqId"] == snapshot["data"][0]["seqId"]
    assert 0 < first["seqId"] < 100
    last = first["seqId"]
    for update in updates[1:]:
        assert update["data"][0]["prevSeqId"] == last
        last = update["data"][0]["seqId"]
        assert last < 10_000


def test_books5_are_whole_and_shallow() -> None:
    client = Client(exchange())
    name = liquid(client)
    pushes = [*client.subscribe("books5", instId=name), *of_channel(client.run(40, SECOND), "books5")]
    assert len(pushes) > 2
    for push in pushes:
        assert "action" not in push
        assert set(push["data"][0]) == {"asks", "bids", "ts", "seqId"}
        assert 1 <= len(push["data"][0]["bids"]) <= 5


def test_trades_of_options_in_contracts() -> None:
    client = Client(exchange(rules=QuoteRules(trades_per_step=100.0)))
    client.subscribe("option-trades", instType="OPTION", instFamily="BTC-USD")
    said = of_channel(client.run(3), "option-trades")
    assert said
    keys = {
        "fillVol",
        "fwdPx",
        "idxPx",
        "instFamily",
        "instId",
        "markPx",
        "optType",
        "px",
        "side",
        "sz",
        "tradeId",
        "ts",
    }
    for push in said:
        for trade in push["data"]:
            assert set(trade) == keys
            assert trade["instFamily"] == "BTC-USD"
            assert int(trade["sz"]) >= 1
            assert trade["side"] in ("buy", "sell")


def test_an_index_that_stands_still_comes_once_a_minute() -> None:
    client = Client(exchange(time_scale=1e-9))
    client.subscribe("index-tickers", instId="BTC-USD")
    assert not of_channel(client.run(50), "index-tickers")
    moving = Client(exchange())
    moving.subscribe("index-tickers", instId="BTC-USD")
    assert len(of_channel(moving.run(50), "index-tickers")) > 40


def test_the_estimated_price_in_the_last_hour() -> None:
    client = Client(exchange(start=START - 4 * 3600 * SECOND - 3000 * SECOND))
    client.subscribe("estimated-price", instType="OPTION", instFamily="BTC-USD")
    pushes = of_channel(client.run(10), "estimated-price")
    assert pushes
    assert set(pushes[0]["data"][0]) == {"instId", "instType", "settlePx", "settleType", "ts"}
    early = Client(exchange())
    early.subscribe("estimated-price", instType="OPTION", instFamily="BTC-USD")
    assert not of_channel(early.run(10), "estimated-price")


def test_the_same_seed_says_the_same() -> None:
    said = []
    for _ in range(2):
        client = Client(exchange(seed=5))
        client.subscribe("opt-summary", instFamily="BTC-USD_UM")
        client.subscribe("books", instId=liquid(client))
        said.append(client.run(30))
    assert said[0] == said[1]


def test_quotes_hold_the_truth_between_them(client: Client) -> None:
    q, listing, market = client.exchange.quotes, client.exchange.listing, client.exchange.market
    client.run(1)
    checked = 0
    for row, said in enumerate(listing.objects):
        if not said["stk"] or not listing.universe.active[row] or q.stale_until[row] > market.now_ns:
            continue
        if np.isnan(q.bid[row]) or np.isnan(q.ask[row]):
            continue
        instrument = listing.universe[row]
        vol = float(market.truth_vol(instrument.underlying, instrument.expiry_ns, instrument.strike))
        forward = float(market.truth_forward(instrument.underlying, instrument.expiry_ns))
        years = (instrument.expiry_ns - market.now_ns) / NANOSECONDS_PER_YEAR
        price = float(black_price(math.log(instrument.strike / forward), vol * math.sqrt(years), instrument.is_call))
        price *= forward if said["instFamily"].endswith("_UM") else 1.0
        assert q.bid[row] < price * (1 + 1e-9) < q.ask[row] * (1 + 2e-9)
        checked += 1
    assert checked > 500
