"""The grammar of Deribit's names, and what the name of an underlying stands for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from volsurf.errors import ConfigError
from volsurf.feeds._deribit_names import future_market, market_of, parse_symbol
from volsurf.instruments import Settlement

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@pytest.mark.parametrize(
    ("name", "market", "day", "strike", "is_call"),
    [
        ("BTC-15SEP26-77000-C", "BTC", (2026, 9, 15), 77000.0, True),
        ("ETH-5JUN20-310-P", "ETH", (2020, 6, 5), 310.0, False),
        ("XRP_USDC-21SEP26-1d25-C", "XRP_USDC", (2026, 9, 21), 1.25, True),
        ("MATIC_USDC-9MAR24-0d625-P", "MATIC_USDC", (2024, 3, 9), 0.625, False),
        ("BTC_USDT-29FEB28-100000-P", "BTC_USDT", (2028, 2, 29), 100000.0, False),
    ],
)
def test_options(name: str, market: str, day: tuple[int, int, int], strike: float, is_call: bool) -> None:
    said = parse_symbol(name)
    assert said is not None
    expiry = datetime(*day, 8, tzinfo=UTC)
    assert said == (market, int(expiry.timestamp()) * 1_000_000_000, strike, is_call)


@pytest.mark.parametrize(
    "name",
    [
        "BTC-CS-19MAY26-70000_75000",  # combos
        "BTC-FS-26JUN26_PERP",
        "BTC-PCOND-26JUN26-70000_75000",
        "BTC-PERPETUAL",
        "BTC-25DEC26",
        "SOL_USDC-PERPETUAL",
        "BTC-05JUN26-70000-C",  # a leading zero
        "BTC-0JUN26-70000-C",
        "BTC-31JUN26-70000-C",  # no such day
        "BTC-29FEB27-70000-C",
        "BTC-5JUNE26-70000-C",
        "BTC-5jun26-70000-C",
        "btc-5JUN26-70000-C",
        "BTC-5JUN2026-70000-C",
        "BTC-5JUN26-70000-X",
        "BTC-5JUN26-70000",
        "BTC-5JUN26--C",
        "BTC-5JUN26-0-C",
        "BTC-5JUN26-0d0-C",
        "BTC-5JUN26-1d-C",
        "BTC-5JUN26-d5-C",
        "BTC-5JUN26-1.5-C",
        "BTC-5JUN26-1e5-C",
        "BTC_EUR-5JUN26-70000-C",
        "BTC-5JUN26-70000-C\n",
        " BTC-5JUN26-70000-C",
        "BTC-٥JUN26-70000-C",  # digits, but not these
        f"BTC-5JUN26-{'9' * 400}-C",  # infinite
        "",
    ],
)
def test_everything_else_is_no_option(name: str) -> None:
    assert parse_symbol(name) is None


@given(
    st.sampled_from(["BTC", "ETH", "SOL_USDC", "AVAX_USDC", "TRX_USDT"]),
    st.datetimes(datetime(2019, 1, 1), datetime(2098, 12, 31)),
    st.integers(1, 10**7),
    st.integers(0, 9999),
    st.booleans(),
)
def test_a_name_written_by_the_rule_is_read_back(
    market: str, day: datetime, whole: int, decimals: int, is_call: bool
) -> None:
    strike = f"{whole}d{decimals:04d}" if decimals else f"{whole}"
    name = f"{market}-{day.day}{MONTHS[day.month - 1]}{day.year % 100:02d}-{strike}-{'C' if is_call else 'P'}"
    said = parse_symbol(name)
    assert said is not None
    assert said.market == market
    assert said.strike == float(f"{whole}.{decimals:04d}")
    assert said.is_call == is_call
    expiry = datetime.fromtimestamp(said.expiry_ns / 1e9, UTC)
    assert (expiry.year, expiry.month, expiry.day, expiry.hour) == (day.year, day.month, day.day, 8)


@given(st.text())
def test_any_text_is_an_option_or_none(name: str) -> None:
    assert parse_symbol(name) is None or name.count("-") == 3


@pytest.mark.parametrize(
    ("name", "market"),
    [
        ("BTC-PERPETUAL", "BTC"),
        ("BTC-25DEC26", "BTC"),
        ("SOL_USDC-PERPETUAL", "SOL_USDC"),
        ("BTC_USDC-5JUN26", "BTC_USDC"),
        ("BTC-FS-26JUN26_PERP", None),
        ("BTC-CS-19MAY26-70000_75000", None),
        ("BTC-15SEP26-77000-C", None),
        ("BTC", None),
    ],
)
def test_futures(name: str, market: str | None) -> None:
    assert future_market(name) == market


@pytest.mark.parametrize(
    ("underlying", "name", "currency", "index", "settlement"),
    [
        ("BTC", "BTC", "BTC", "btc_usd", Settlement.INVERSE),
        ("eth", "ETH", "ETH", "eth_usd", Settlement.INVERSE),
        ("SOL", "SOL_USDC", "USDC", "sol_usdc", Settlement.LINEAR),
        ("SOL_USDC", "SOL_USDC", "USDC", "sol_usdc", Settlement.LINEAR),
        ("BTC_USDC", "BTC_USDC", "USDC", "btc_usdc", Settlement.LINEAR),
        ("xrp_usdt", "XRP_USDT", "USDT", "xrp_usdt", Settlement.LINEAR),
    ],
)
def test_an_underlying_stands_for_a_market(
    underlying: str, name: str, currency: str, index: str, settlement: Settlement
) -> None:
    market = market_of(underlying)
    assert (market.name, market.currency, market.price_index, market.settlement) == (name, currency, index, settlement)


@pytest.mark.parametrize("underlying", ["", "BTC-PERPETUAL", "BTC/USD", "BTC_USD", "BTC_EUR", "1", None, 17])
def test_what_is_no_underlying_is_refused_by_name(underlying: object) -> None:
    with pytest.raises(ConfigError, match="underlying of Deribit") as caught:
        market_of(underlying)  # type: ignore[arg-type]
    assert repr(underlying) in str(caught.value)
