"""Every name and term of OKX's listing becomes the right instrument."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.conftest import shared_path
from tests.feeds.okx_frames import BANDS, COIN_OPTIONS, DOLLAR_OPTIONS, FUTURES, instrument_row
from volsurf.errors import ConfigError, InputError
from volsurf.feeds import _okx_messages as wire
from volsurf.feeds._okx_listing import Bands, bands_of, family_of, instrument_of
from volsurf.feeds._okx_names import Family, Wanted, parse_future, parse_symbol, wanted_of
from volsurf.instruments import Instrument, Kind, Settlement


def ns(year: int, month: int, day: int, hour: int = 8) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 10**9


def instrument(row: dict[str, Any], bands: Bands | None = None) -> Instrument:
    listing = wire.decode_listing(json.dumps(row))
    family = family_of(listing)
    assert family is not None
    return instrument_of(listing, family, bands)


@pytest.mark.parametrize(
    ("name", "family", "expiry_ns", "strike", "is_call"),
    [
        ("BTC-USD-260428-72000-C", Family("BTC", "USD"), ns(2026, 4, 28), 72000.0, True),
        ("BTC-USD_UM-260428-72000-P", Family("BTC", "USD_UM"), ns(2026, 4, 28), 72000.0, False),
        ("BTC-USDC-270101-100000-C", Family("BTC", "USDC"), ns(2027, 1, 1), 100000.0, True),
        ("SOL-USD_UM-261225-142.5-P", Family("SOL", "USD_UM"), ns(2026, 12, 25), 142.5, False),
        ("ETH-USDT-280229-4000-C", Family("ETH", "USDT"), ns(2028, 2, 29), 4000.0, True),
    ],
)
def test_names_of_options(name: str, family: Family, expiry_ns: int, strike: float, is_call: bool) -> None:
    assert parse_symbol(name) == (family, expiry_ns, strike, is_call)
    assert parse_future(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "BTC-USD-260631-72000-C",  # 31 June
        "BTC-USD-270229-72000-C",
        "BTC-USD-26428-72000-C",
        "BTC-USD-260428-72000-X",
        "BTC-USD-260428-0-C",
        "BTC-USD-260428--72000-C",
        "BTC-USD-260428-72d5-C",
        "BTC-260428-72000-C",
        "BTC-USD-SWAP",
        "BTC-USD-260428",
        "btc-USD-260428-72000-C",
        "BTC-USD-260428-72000-C ",
        "",
        "-",
        "BTC-USD-260428-" + "9" * 400 + "-C",
    ],
)
def test_names_of_nothing(name: str) -> None:
    assert parse_symbol(name) is None


def test_names_of_futures_and_swaps() -> None:
    assert parse_future("BTC-USD-260626") == (Family("BTC", "USD"), ns(2026, 6, 26))
    assert parse_future("BTC-USD_UM-SWAP") == (Family("BTC", "USD_UM"), 0)
    for name in ("BTC-USD", "BTC-USD_UM", "BTC-SWAP", "BTC-USD-260631", "SWAP", ""):
        assert parse_future(name) is None


@given(st.text(alphabet="BTCUSD_M-0123456789.P", max_size=40))
def test_any_text_is_a_name_or_none(name: str) -> None:
    option, future = parse_symbol(name), parse_future(name)
    assert option is None or future is None
    assert option is None or name.startswith(option.family.name + "-")


def test_families_share_their_underlying() -> None:
    for quote in ("USD", "USD_UM"):
        assert Family("BTC", quote).uly == "BTC-USD"
        assert Family("BTC", quote).currency == "USD"
    assert Family("BTC", "USDC").uly == "BTC-USDC"


@pytest.mark.parametrize(
    ("name", "wanted", "uly"),
    [
        ("BTC", ("BTC", ""), "BTC-USD"),
        (" btc ", ("BTC", ""), "BTC-USD"),
        ("BTC_USD", ("BTC", "USD"), "BTC-USD"),
        ("BTC_USD_UM", ("BTC", "USD_UM"), "BTC-USD"),
        ("BTC-USD_UM", ("BTC", "USD_UM"), "BTC-USD"),
        ("SOL_USDC", ("SOL", "USDC"), "SOL-USDC"),
        ("ETH_USDT", ("ETH", "USDT"), "ETH-USDT"),
    ],
)
def test_what_an_underlying_stands_for(name: str, wanted: tuple[str, str], uly: str) -> None:
    assert wanted_of(name) == wanted
    assert wanted_of(name).uly == uly


def test_a_bare_coin_is_all_its_families_and_a_suffix_is_one() -> None:
    families = [Family("BTC", quote) for quote in ("USD", "USD_UM", "USDC")]
    assert [Wanted("BTC", "").holds(family) for family in families] == [True, True, True]
    assert [Wanted("BTC", "USD").holds(family) for family in families] == [True, False, False]
    assert [Wanted("BTC", "USD_UM").holds(family) for family in families] == [False, True, False]
    assert not Wanted("ETH", "").holds(families[0])


@pytest.mark.parametrize("name", ["", "BTC_", "BTC_EUR", "BTC-USD-260428-72000-C", "BTC USD", "_USD", 3])
def test_underlyings_that_mean_nothing(name: Any) -> None:
    with pytest.raises(ConfigError, match="coin such as 'BTC'"):
        wanted_of(name)


# Listings


def bands(rows: list[dict[str, Any]]) -> dict[str, Bands]:
    read = [wire.decode_bands(json.dumps(row)) for row in rows]
    return {row.instFamily: found for row in read if (found := bands_of(row)) is not None}


def test_the_second_band_begins_where_the_first_ends() -> None:
    """Whatever its own lower bound says: for the linear options it is a remnant of the coin-settled table."""
    found = bands(BANDS)
    assert found == {
        "BTC-USD": (0.0001, ((0.005, 0.0005),)),
        "BTC-USD_UM": (1.0, ((5.0, 5.0),)),
        "ETH-USD": (0.0002, ()),
    }
    linear = instrument(instrument_row(DOLLAR_OPTIONS[0]), found["BTC-USD_UM"])
    assert [linear.tick_at(price) for price in (0.5, 4.0, 5.0, 6.0, 5000.0)] == [1.0, 1.0, 1.0, 5.0, 5.0]
    coin = instrument(instrument_row(COIN_OPTIONS[0]), found["BTC-USD"])
    assert [coin.tick_at(price) for price in (0.0001, 0.005, 0.0055)] == [0.0001, 0.0001, 0.0005]


def test_bands_that_are_none() -> None:
    for band in ([], [{"minPx": "", "maxPx": "5", "tickSz": "1"}], [{"minPx": "0", "maxPx": "5", "tickSz": "0"}]):
        assert bands([{"instFamily": "BTC-USD", "tickBand": band}]) == {}


def test_contracts_are_read_not_assumed() -> None:
    for value, multiplier, size in (("1", "0.01", 0.01), ("1", "0.1", 0.1), ("0.1", "1", 0.1), ("10", "", 10.0)):
        row = instrument_row(COIN_OPTIONS[0], ctVal=value, ctMult=multiplier)
        assert instrument(row).contract_size == size


def test_inverse_futures_are_counted_in_dollars() -> None:
    future = instrument(instrument_row("BTC-USD-270326"))
    assert (future.kind, future.settlement, future.contract_size) == (Kind.FUTURE, Settlement.INVERSE, 100.0)
    swap = instrument(instrument_row("BTC-USD_UM-SWAP"))
    assert (swap.kind, swap.settlement, swap.expiry_ns) == (Kind.PERPETUAL, Settlement.LINEAR, 0)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (COIN_OPTIONS[0], {"stk": "80001"}),
        (COIN_OPTIONS[0], {"stk": ""}),
        (COIN_OPTIONS[0], {"optType": "P"}),
        (COIN_OPTIONS[0], {"optType": ""}),
        (COIN_OPTIONS[0], {"instFamily": "BTC-USD_UM"}),
        (COIN_OPTIONS[0], {"expTime": str(ns(2027, 3, 28) // 10**6)}),
        (COIN_OPTIONS[0], {"expTime": ""}),
        (COIN_OPTIONS[0], {"ctVal": ""}),
        (COIN_OPTIONS[0], {"ctMult": "0"}),
        (COIN_OPTIONS[0], {"ctValCcy": "USD"}),
        (COIN_OPTIONS[0], {"ctType": "linear"}),
        (COIN_OPTIONS[0], {"tickSz": ""}),
        (COIN_OPTIONS[0], {"tickSz": "-1"}),
        (DOLLAR_OPTIONS[0], {"ctType": "inverse"}),
        (FUTURES[0], {"instType": "SWAP"}),
        (FUTURES[0], {"ctValCcy": "BTC"}),
        (FUTURES[1], {"instType": "FUTURES"}),
    ],
)
def test_rows_that_contradict_themselves(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        instrument(instrument_row(name, **changes))


def test_an_expiry_may_move_within_its_day() -> None:
    assert instrument(instrument_row(COIN_OPTIONS[0], expTime=str(ns(2027, 3, 26, 10) // 10**6))).expiry_ns == ns(
        2027, 3, 26, 10
    )


def test_rows_without_the_newer_fields() -> None:
    """`instFamily` came in 2022, `ctType` of options in 2026."""
    row = instrument_row(COIN_OPTIONS[0], ctType="")
    del row["instFamily"]
    assert instrument(row).settlement is Settlement.INVERSE


def test_the_shared_listing_of_768_options() -> None:
    path = shared_path("venues", "fixtures", "okx", "okxapi_instruments_option_BTC-USD.json")
    ticks = json.loads(shared_path("venues", "fixtures", "okx", "okxapi_option_tick_bands.json").read_text("utf-8"))
    known = bands(ticks["data"])
    rows = msgspec.json.decode(path.read_bytes())["data"]
    found = [instrument(row, known[row["instFamily"]]) for row in rows]
    assert len(found) == len({one.symbol for one in found}) == 768
    assert Counter(one.settlement for one in found) == {Settlement.INVERSE: 640, Settlement.LINEAR: 128}
    assert Counter(one.is_call for one in found) == {True: 384, False: 384}
    assert len({one.expiry_ns for one in found}) == 12
    assert {(one.venue, one.kind, one.underlying, one.quote_currency, one.price_index) for one in found} == {
        ("okx", Kind.OPTION, "BTC", "USD", "BTC-USD")
    }
    for row, one in zip(rows, found, strict=True):
        # Not through the parser under test: straight from the row, and the name cut at its dashes from the right.
        *_, yymmdd, strike, side = row["instId"].split("-")
        assert one.strike == float(row["stk"]) == float(strike)
        assert one.expiry_ns == int(row["expTime"]) * 10**6
        assert datetime.fromtimestamp(one.expiry_ns / 1e9, UTC).strftime("%y%m%d %H:%M") == f"{yymmdd} 08:00"
        assert one.is_call == (row["optType"] == side == "C")
        assert one.contract_size == 0.01
        is_linear = row["instFamily"] == "BTC-USD_UM"
        assert one.settlement == (Settlement.LINEAR if is_linear else Settlement.INVERSE)
        assert (one.tick_size, one.tick_steps) == ((1.0, ((5.0, 5.0),)) if is_linear else (0.0001, ((0.005, 0.0005),)))
        assert one.tick_size == float(row["tickSz"])
