"""Pushed messages: their shapes are those of captured ones, and their numbers agree with each other and with the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sim.venue import START, Client, Message, exchange, of_channel
from volsurf.sim.pricing import black_price

OPTIONAL = {"settlement_price", "volume_notional"}
"""Keys that real frames have or lack depending on the contract."""


@pytest.fixture(scope="module")
def said() -> dict[str, list[Message]]:
    """A minute of every channel, by the first word of its name."""
    venue = exchange(("BTC", "SOL"))
    client = Client(venue)
    btc = [n for n in venue.listing.names if n.startswith("BTC-28NOV26-")]
    sol = [n for n in venue.listing.names if n.startswith("SOL_USDC-28NOV26-")]
    channels = [f"ticker.{n}.100ms" for n in (*btc, *sol, "BTC-PERPETUAL", "BTC-25DEC26")]
    channels += [f"{kind}.{n}" for n in btc for kind in ("quote", "incremental_ticker")]
    channels += [f"book.{n}.100ms" for n in btc] + [f"book.{btc[9]}.none.10.100ms", f"ticker.{btc[9]}.agg2"]
    channels += ["trades.option.BTC.100ms", f"trades.{btc[9]}.agg2", "markprice.options.btc_usd"]
    channels += [
        "deribit_price_index.btc_usd",
        "deribit_volatility_index.btc_usd",
        "estimated_expiration_price.btc_usd",
    ]
    messages = []
    for i in range(0, len(channels), 100):
        messages += client.subscribe(*channels[i : i + 100])
    messages += client.run(600)
    found: dict[str, list[Message]] = {}
    for message in messages:
        assert set(message) == {"jsonrpc", "method", "params"}
        assert set(message["params"]) == {"channel", "data"}
        found.setdefault(message["params"]["channel"].split(".")[0], []).append(message)
    found["_venue"] = [venue]  # type: ignore[list-item]
    return found


def shape(value: Any) -> Any:
    """Keys and JSON types; int and float are one type of number there, and null stands for any."""
    if isinstance(value, dict):
        return {key: shape(v) for key, v in value.items() if key not in OPTIONAL}
    if isinstance(value, list):
        return [shape(v) for v in value[:1]]
    if isinstance(value, bool):
        return "bool"
    return {int: "number", float: "number", str: "string", type(None): "null"}[type(value)]


def same(one: Any, other: Any) -> bool:
    """Two shapes agree; null agrees with everything that is a value."""
    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return not one or not other or same(one[0], other[0])
    return one == other or "null" in (one, other)


def captured(shared: Path, name: str) -> list[Message]:
    """Messages of a captured file."""
    text = (shared / "venues" / "fixtures" / "deribit" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def test_option_tickers_have_the_shape_of_captured_ones(shared: Path, said: dict[str, list[Message]]) -> None:
    real = [
        m["params"]["data"]
        for m in captured(shared, "fastmm_testnet_option_frames_2026-09-13.jsonl")
        if "ticker" in m.get("params", {}).get("channel", "")
    ]
    rest = json.loads(
        (shared / "venues/fixtures/deribit/openbb_option_tickers_2026-09-20.json").read_text(encoding="utf-8")
    )
    real += list(rest.values())
    ours = [d for d in of_channel(said["ticker"], "ticker") if d["instrument_name"].endswith(("-C", "-P"))]
    assert len(real) >= 17
    for theirs in real:
        assert all(same(shape(theirs), shape(mine)) for mine in ours[:400])
    linear = {"volume_notional" in d["stats"] for d in ours if d["instrument_name"].startswith("SOL")}
    inverse = {"volume_notional" in d["stats"] for d in ours if d["instrument_name"].startswith("BTC")}
    assert (linear, inverse) == ({True}, {False})


def test_books_have_the_shape_of_captured_ones(shared: Path, said: dict[str, list[Message]]) -> None:
    real = [
        m["params"]["data"]
        for m in captured(shared, "fastmm_testnet_option_frames_2026-09-13.jsonl")
        if "book" in m.get("params", {}).get("channel", "")
    ]
    ours = [m["params"]["data"] for m in said["book"] if ".none." not in m["params"]["channel"]]
    for kind in ("snapshot", "change"):
        theirs, mine = ([b for b in books if b["type"] == kind] for books in (real, ours))
        assert mine
        assert {frozenset(b) for b in mine} == {frozenset(b) for b in theirs}
    for book in ours:
        for action, price, amount in (*book["bids"], *book["asks"]):
            assert action in ("new", "change", "delete")
            assert price > 0
            assert (amount == 0.0) == (action == "delete")


def test_other_messages_have_the_shape_of_captured_ones(shared: Path, said: dict[str, list[Message]]) -> None:
    marks = captured(shared, "vike_markprice_options_2026-07-26_2rows.json")[0]["params"]["data"]
    assert same(shape(marks), shape(of_channel(said["markprice"], "markprice")[0]))
    trades = json.loads(
        (shared / "venues/fixtures/deribit/nautilus_ws_trades_option_combo.json").read_text(encoding="utf-8")
    )["params"]["data"][0]["legs"][0]
    ours = of_channel(said["trades"], "trades")[0][0]
    assert set(ours) == set(trades) - {"combo_id", "combo_trade_id"}
    perpetual = json.loads(
        (shared / "venues/fixtures/deribit/maksm05_deribit_ticker_btc_perpetual.json").read_text(encoding="utf-8")
    )["result"]
    mine = of_channel(said["ticker"], "ticker.BTC-PERPETUAL")[0]
    assert same(shape(perpetual), shape(mine))


def test_instrument_rows_and_errors_have_the_shape_of_captured_ones(shared: Path) -> None:
    client = Client(exchange(("BTC", "XRP")))
    real = captured(shared, "fastmm_testnet_get_instruments_option_2026-09-14.json")[0]
    reply = client.ask("public/get_instruments", currency="BTC", kind="option")
    # The captured one was asked over HTTP, without an id.
    assert set(reply) - {"id"} == set(real)
    assert shape(reply["result"][0]) == shape(real["result"][0])
    linear = json.loads(
        (shared / "venues/fixtures/deribit/openbb_instruments_option_XRP_USDC_2rows.json").read_text(encoding="utf-8")
    )
    ours = client.ask("public/get_instruments", currency="USDC", kind="option")["result"][0]
    assert shape(ours) == shape(linear[0])
    for key in (
        "tick_size",
        "tick_size_steps",
        "contract_size",
        "min_trade_amount",
        "instrument_type",
        "quote_currency",
    ):
        assert ours[key] == linear[0][key]
    frames = captured(shared, "fastmm_testnet_rpc_frames_2026-09-13.jsonl")
    refused = client.ask("public/set_heartbeat", interval=5)
    assert refused["error"] == frames[1]["error"]
    assert set(refused) == set(frames[1])
    expirations = json.loads(
        (shared / "venues/fixtures/deribit/nautilus_http_get_expirations_btc_option.json").read_text(encoding="utf-8")
    )
    ours_ = client.ask("public/get_expirations", currency="BTC", kind="option")
    assert same(shape(ours_), shape(expirations))


def test_marks_and_vols_agree(said: dict[str, list[Message]]) -> None:
    """Percent in tickers, fractions in markprice, four decimals of mark, and Black-76 of the published forward."""
    ours = of_channel(said["ticker"], "ticker.BTC-28NOV26")
    for d in ours[::50]:
        strike = float(d["instrument_name"].split("-")[2])
        is_call = d["instrument_name"].endswith("C")
        years = (
            said["_venue"][0].listing.universe[said["_venue"][0].listing.row_of[d["instrument_name"]]].expiry_ns  # type: ignore[attr-defined]
            - d["timestamp"] * 1_000_000
        ) / (365 * 86_400e9)
        k = np.log(strike / d["underlying_price"])
        for vol, price in (
            (d["mark_iv"], d["mark_price"]),
            (d["bid_iv"], d["best_bid_price"]),
            (d["ask_iv"], d["best_ask_price"]),
        ):
            if vol and price:
                assert float(black_price(k, vol / 100 * np.sqrt(years), is_call)) == pytest.approx(price, abs=6e-5)
        assert round(d["mark_price"], 4) == d["mark_price"]
        assert round(d["mark_iv"], 2) == d["mark_iv"]
    fractions = [row["iv"] for row in of_channel(said["markprice"], "markprice")[0]]
    assert 0.2 < np.median(fractions) < 1.0


def test_no_side_is_zero_price_zero_amount_zero_vol(said: dict[str, list[Message]]) -> None:
    empty = 0
    for d in of_channel(said["ticker"], "ticker"):
        for side in ("bid", "ask"):
            price, amount = d[f"best_{side}_price"], d[f"best_{side}_amount"]
            assert (price == 0.0) == (amount == 0.0)
            if price == 0.0:
                empty += 1
                assert d[f"{side}_iv"] == 0.0
    assert empty > 0
    quotes = of_channel(said["quote"], "quote")
    assert any(q["best_bid_price"] is None and q["best_bid_amount"] == 0.0 for q in quotes)


def test_every_ticker_is_refreshed_at_least_once_a_second(said: dict[str, list[Message]]) -> None:
    stamps: dict[str, list[int]] = {}
    for m in said["ticker"]:
        stamps.setdefault(m["params"]["channel"], []).append(m["params"]["data"]["timestamp"])
    for channel, times in stamps.items():
        slowest = 2000 if channel.endswith("agg2") else 1000
        assert max(np.diff(times)) <= slowest
        assert min(np.diff(times)) >= 0
    assert min(t[0] for t in stamps.values()) == START // 1_000_000


def test_book_changes_chain_and_lead_to_the_top_of_the_ticker(said: dict[str, list[Message]]) -> None:
    books: dict[str, tuple[int, dict[float, float], dict[float, float]]] = {}
    for m in said["book"]:
        d = m["params"]["data"]
        if ".none." in m["params"]["channel"]:
            assert len(d["bids"]) <= 10
            assert d["bids"] == sorted(d["bids"], reverse=True)
            continue
        if d["type"] == "snapshot":
            assert "prev_change_id" not in d
            state = (d["change_id"], {}, {})
        else:
            state = books[d["instrument_name"]]
            assert d["prev_change_id"] == state[0]
            assert d["change_id"] > state[0]
        for side, levels in (("bids", state[1]), ("asks", state[2])):
            for action, price, amount in d[side]:
                assert (price in levels) == (action != "new")
                if action == "delete":
                    del levels[price]
                else:
                    levels[price] = amount
        books[d["instrument_name"]] = (d["change_id"], state[1], state[2])
    venue = said["_venue"][0]
    assert len(books) > 20
    for name, (_, bids, asks) in books.items():
        row = venue.listing.row_of[name]  # type: ignore[attr-defined]
        for levels, best, top in ((bids, max, venue.quotes.bid[row]), (asks, min, venue.quotes.ask[row])):  # type: ignore[attr-defined]
            assert (best(levels) if levels else None) == (None if np.isnan(top) else top)


def test_increments_add_up_to_the_ticker(said: dict[str, list[Message]]) -> None:
    state: dict[str, Message] = {}
    for d in of_channel(said["incremental_ticker"], "incremental_ticker"):
        kind = d.pop("type")
        name = d["instrument_name"]
        if kind == "snapshot":
            assert name not in state
            state[name] = d
        else:
            assert all(state[name].get(k) != v or k == "instrument_name" for k, v in d.items())
            state[name] |= d
    venue = said["_venue"][0]
    name, merged = next(iter(state.items()))
    assert set(merged) == set(venue.renderer.tickers([venue.listing.row_of[name]], 0)[0])  # type: ignore[attr-defined]


def test_trades_have_a_price_of_the_book_and_an_iv(said: dict[str, list[Message]]) -> None:
    trades = [t for batch in of_channel(said["trades"], "trades.option") for t in batch]
    assert len(trades) > 20
    assert all(t["direction"] in ("buy", "sell") and t["amount"] > 0 and t["price"] > 0 for t in trades)
    assert all(10 < t["iv"] < 300 for t in trades if 0.002 < t["price"] < 0.05)
    numbers = [int(t["trade_id"]) for t in trades]
    assert numbers == sorted(set(numbers))


def test_index_ticks_every_second(said: dict[str, list[Message]]) -> None:
    index = of_channel(said["deribit_price_index"], "deribit_price_index")
    assert 59 <= len(index) <= 62
    assert set(index[0]) == {"timestamp", "price", "index_name"}
    assert len({d["price"] for d in index}) > 50
