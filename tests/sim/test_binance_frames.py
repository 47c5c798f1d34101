"""What the simulated Binance says is Binance's in form, and true of its market."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.conftest import shared_path
from tests.sim.binance_client import Client, exchange, of, page
from tests.sim.venue import START
from volsurf.feeds._binance_names import parse_symbol
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.iv.black import black_price
from volsurf.iv.implied import implied_vol
from volsurf.sim.binance import BinanceExchange
from volsurf.sim.market import Market

MARKS = "btcusdt@optionMarkPrice"


def shape(value: Any) -> Any:
    """Types, and the form of numbers in strings: what two messages of one kind have in common."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return "number"
    return type(value).__name__


def test_frames_have_the_keys_types_and_order_of_captured_ones() -> None:
    captured: dict[str, Any] = {}
    for file in ("gct_options_streams_2026-09-21.jsonl", "tardis_mappers_v2_2025_messages.jsonl"):
        for line in shared_path("venues", "fixtures", "binance", file).read_text("utf-8").splitlines():
            frame = json.loads(line)
            kind = re.sub(r"^[^@]*@", "", frame["stream"])
            captured.setdefault(re.sub(r"@\d{6}|\d+(?=@)", "", kind), frame["data"])
    venue = exchange()
    name = venue.listing.names[10].lower()
    market = Client(venue, f"/market/stream?streams={MARKS}/!index@arr")
    public = Client(venue, "/public/stream")
    rows = [n.lower() for n in venue.listing.names[:60]]
    public.ask(
        "SUBSCRIBE", *(f"{n}@bookTicker" for n in rows), *(f"{n}@depth20@100ms" for n in rows), "btcusdt@optionTrade"
    )
    public.ask("SUBSCRIBE", f"{name}@optionTicker")
    said = market.run(60) + public.read()
    for ending, kind in (
        (MARKS, "optionMarkPrice"),
        ("!index@arr", "arr"),
        ("@bookTicker", "bookTicker"),
        ("@depth20@100ms", "depth@100ms"),
        ("@optionTrade", "optionTrade"),
    ):
        ours = of(said, ending)[-1]
        theirs = captured[kind]
        assert shape(ours) == shape(theirs), kind
        first = (ours[0], theirs[0]) if isinstance(ours, list) else (ours, theirs)
        assert list(first[0]) == list(first[1]), kind
    assert set(of(said, "@optionTicker")[-1]) <= set(captured["optionTicker"])


def test_marks_are_priced_by_the_venues_model() -> None:
    """mp = exp(−rf·T)·Black76(i·exp(rf·T), K, T, vo), as the captured ones are; b and a are the vols of bo and ao."""
    for underlying, unit in (("BTC", 1.0), ("XRP", 100.0)):
        venue = exchange((underlying,))
        client = Client(venue, f"/market/stream?streams={underlying.lower()}usdt@optionMarkPrice")
        rows = of(client.run(10), "optionMarkPrice")[-1]
        assert len(rows) > 100
        sides = 0
        for row in rows:
            said = parse_symbol(row["s"])
            assert said is not None
            years = (said.expiry_ns - row["E"] * 1_000_000) / NANOSECONDS_PER_YEAR
            spot = float(row["i"])
            forward = spot * np.exp(float(row["rf"]) * years)
            discount = spot / forward
            price = black_price(forward, said.strike, years, float(row["vo"]), said.is_call, discount=discount) * unit
            # rf has four decimals: half of the last one moves a year's forward by half a basis point.
            assert float(price) == pytest.approx(
                float(row["mp"]), abs=6e-5 * years * (forward + said.strike) * unit + 1e-3
            )
            for side, vol in (("bo", "b"), ("ao", "a")):
                if float(row[side]) > 0 and float(row[vol]) > 1e-6:
                    premium = float(row[side]) / unit
                    ours = float(implied_vol(premium, forward, said.strike, years, said.is_call, discount=discount))
                    greek = float(row["v"]) * 100
                    assert ours == pytest.approx(
                        float(row[vol]), abs=1e-4 + 6e-5 * years * (forward + said.strike) / greek
                    )
                    sides += 1
                else:
                    assert row[vol] in ("-1.0", "0.00000060")
        assert sides > 100


def test_both_sentinels_occur() -> None:
    venue = exchange()
    rows = of(Client(venue, f"/market/stream?streams={MARKS}").run(10), MARKS)[-1]
    assert any(row["b"] == "-1.0" and float(row["bo"]) == 0 and float(row["bq"]) == 0 for row in rows)
    assert any(row["b"] == "0.00000060" and float(row["bo"]) > 0 for row in rows)


def test_the_truth_lies_inside_every_two_sided_quote_that_is_not_stale() -> None:
    venue = exchange(("BTC", "XRP"))
    Client(venue).run(50)
    q, market = venue.quotes, venue.market
    rows = np.flatnonzero(np.isfinite(q.bid) & np.isfinite(q.ask) & (q.stale_until <= market.now_ns))
    assert len(rows) > 200
    for underlying in ("BTC", "XRP"):
        mine = np.array([r for r in rows.tolist() if venue.listing.family[r].underlying == underlying])
        expiry, strike = q.universe.expiry_ns[mine], q.universe.strike[mine]
        forward = market.truth_forward(underlying, expiry, "USDT")
        vol = market.truth_vol(underlying, expiry, strike, "USDT")
        discount = market.spot(underlying, "USDT") / forward
        price = black_price(forward, strike, market.years(expiry), vol, q.universe.is_call[mine], discount=discount)
        inside = (q.bid[mine] < price) & (price < q.ask[mine])
        # The venue's opinion of the vol leaves the truth by up to 0.4 of a half-spread.
        assert inside.mean() > 0.99


def test_changes_build_the_book_that_the_page_shows() -> None:
    venue = exchange()
    busy = [row for row in range(len(venue.listing.names)) if venue.quotes.bid[row] > 0][:30]
    client = Client(venue, "/public/stream")
    names = [venue.listing.names[row] for row in busy]
    client.ask("SUBSCRIBE", *(f"{name.lower()}@depth@100ms" for name in names))
    client.ask("SUBSCRIBE", *(f"{name.lower()}@depth@500ms" for name in names))
    first = {name: page(venue, f"/eapi/v1/depth?symbol={name}&limit=1000")[1] for name in names}
    said = client.run(50)
    for speed in ("100ms", "500ms"):
        books = {name: {side: dict(first[name][side]) for side in ("bids", "asks")} for name in names}
        last = {name: first[name]["lastUpdateId"] for name in names}
        changes = 0
        for change in of(said, f"@depth@{speed}"):
            name = change["s"]
            assert change["pu"] == last[name]
            assert change["pu"] < change["U"] <= change["u"]
            last[name] = change["u"]
            for side, key in (("bids", "b"), ("asks", "a")):
                for price, size in change[key]:
                    if float(size):
                        books[name][side][price] = size
                    else:
                        books[name][side].pop(price)
            changes += 1
        assert changes > 30
        for name in names:
            now = page(venue, f"/eapi/v1/depth?symbol={name}&limit=1000")[1]
            assert now["lastUpdateId"] == last[name]
            assert books[name] == {side: dict(now[side]) for side in ("bids", "asks")}


def test_the_best_levels_are_the_book_ticker_and_the_chains_quote() -> None:
    venue = exchange()
    client = Client(venue, "/public/stream")
    market = Client(venue, f"/market/stream?streams={MARKS}")
    name = venue.listing.names[int(np.nanargmin(np.abs(venue.quotes.k)))]
    client.ask("SUBSCRIBE", f"{name.lower()}@bookTicker", f"{name.lower()}@depth5@100ms")
    said = client.run(50)
    ticker, top = of(said, "bookTicker")[-1], of(said, "depth5@100ms")[-1]
    row = next(row for row in of(market.read(), MARKS)[-1] if row["s"] == name)
    assert [ticker["b"], ticker["B"]] == top["b"][0] == [row["bo"], row["bq"]]
    assert [ticker["a"], ticker["A"]] == top["a"][0] == [row["ao"], row["aq"]]
    assert len(top["b"]) <= 5
    ids = [one["u"] for one in of(said, "bookTicker")]
    assert ids == sorted(set(ids))


def test_the_same_seed_says_the_same_bytes() -> None:
    def bytes_of() -> list[bytes]:
        venue = BinanceExchange(Market(3, ("BTC",), start_ns=START), origin_ns=0)
        session = venue.open_session(0, f"/market/stream?streams={MARKS}/!index@arr")
        for tick in range(20):
            venue.advance(tick * 100_000_000)
        return session.data_to_send()

    assert bytes_of() == bytes_of()
