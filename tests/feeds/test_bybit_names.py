"""The grammar of Bybit's names, and what the name of an underlying stands for."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from tests.conftest import shared_path
from volsurf.errors import ConfigError
from volsurf.feeds._bybit_names import Family, families_of, parse_symbol
from volsurf.feeds._bybit_plan import connections_needed, families_wanted, rest_base

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@pytest.mark.parametrize(
    ("name", "family", "day", "strike", "is_call"),
    [
        ("BTC-6JAN23-17500-C", ("BTC", "USDC"), (2023, 1, 6), 17500.0, True),
        ("BTC-25JUN27-106000-P-USDT", ("BTC", "USDT"), (2027, 6, 25), 106000.0, False),
        ("XRP-30OCT26-0.4-P-USDT", ("XRP", "USDT"), (2026, 10, 30), 0.4, False),
        ("SOL-5DEC26-142.5-C", ("SOL", "USDC"), (2026, 12, 5), 142.5, True),
        ("ETH-29FEB28-3000-C-USDT", ("ETH", "USDT"), (2028, 2, 29), 3000.0, True),
    ],
)
def test_options(name: str, family: tuple[str, str], day: tuple[int, int, int], strike: float, is_call: bool) -> None:
    said = parse_symbol(name)
    expiry = datetime(*day, 8, tzinfo=UTC)
    assert said == (Family(*family), int(expiry.timestamp()) * 1_000_000_000, strike, is_call)


@pytest.mark.parametrize(
    "name",
    [
        "BTCUSDT",
        "BTC-PERP",
        "BTC",
        "BTC-25JUN27",
        "BTC-05JUN26-70000-C",  # a leading zero
        "BTC-0JUN26-70000-C",
        "BTC-31JUN26-70000-C",  # no such day
        "BTC-29FEB27-70000-C-USDT",
        "BTC-5jun26-70000-C",
        "btc-5JUN26-70000-C",
        "BTC-5JUN2026-70000-C",
        "BTC-5JUN26-70000-X",
        "BTC-5JUN26-70000",
        "BTC-5JUN26--C",
        "BTC-5JUN26-0-C",
        "BTC-5JUN26-0.0-C",
        "BTC-5JUN26-1.-C",
        "BTC-5JUN26-.5-C",
        "BTC-5JUN26-1d5-C",
        "BTC-5JUN26-1e5-C",
        "BTC-5JUN26-70000-C-USDC",  # USDC is what no suffix means
        "BTC-5JUN26-70000-C-USD",
        "BTC-5JUN26-70000-C-USDT-USDT",
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
    st.sampled_from(["BTC", "ETH", "SOL", "XRP", "DOGE"]),
    st.datetimes(datetime(2019, 1, 1), datetime(2098, 12, 31)),
    st.integers(1, 10**7),
    st.integers(0, 9999),
    st.booleans(),
    st.sampled_from(["USDC", "USDT"]),
)
def test_a_name_written_by_the_rule_is_read_back(
    base: str, day: datetime, whole: int, decimals: int, is_call: bool, settle: str
) -> None:
    strike = f"{whole}.{decimals:04d}" if decimals else f"{whole}"
    suffix = "-USDT" if settle == "USDT" else ""
    name = f"{base}-{day.day}{MONTHS[day.month - 1]}{day.year % 100:02d}-{strike}-{'C' if is_call else 'P'}{suffix}"
    said = parse_symbol(name)
    assert said is not None
    assert said.family == (base, settle)
    assert said.strike == float(f"{whole}.{decimals:04d}")
    assert said.is_call == is_call
    expiry = datetime.fromtimestamp(said.expiry_ns / 1e9, UTC)
    assert (expiry.year, expiry.month, expiry.day, expiry.hour) == (day.year, day.month, day.day, 8)


@given(st.text())
def test_any_text_is_an_option_or_none(name: str) -> None:
    assert parse_symbol(name) is None or name.count("-") in (3, 4)


def test_every_option_named_in_the_captures_is_read() -> None:
    """Eight contracts: four settled in USDC, four in USDT, every field of the three listed ones agreeing with the name."""
    folder = shared_path("venues", "fixtures", "bybit")
    listing = json.loads((folder / "live_instruments_option_2026-09-26.json").read_text("utf-8"))["list"]
    named = {row["symbol"] for row in listing}
    for path in folder.glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            message = json.loads(line)
            data = message["data"]
            for row in data if isinstance(data, list) else [data]:
                named.update(value for key in ("s", "symbol") if "-" in (value := row.get(key, "")))
    read = {name: parse_symbol(name) for name in named}
    assert None not in read.values()
    families = sorted(said.family.settle for said in read.values() if said is not None)
    assert families == ["USDC"] * 6 + ["USDT"] * 4
    for row in listing:
        said = read[row["symbol"]]
        assert said is not None
        assert said.family == (row["baseCoin"], row["settleCoin"])
        assert said.expiry_ns == int(row["deliveryTime"]) * 1_000_000
        assert said.is_call == (row["optionsType"] == "Call")


@pytest.mark.parametrize(
    ("underlying", "families"),
    [
        ("BTC", [("BTC", "USDC"), ("BTC", "USDT")]),
        ("eth", [("ETH", "USDC"), ("ETH", "USDT")]),
        ("BTC_USDT", [("BTC", "USDT")]),
        (" xrp_usdc ", [("XRP", "USDC")]),
    ],
)
def test_an_underlying_stands_for_families(underlying: str, families: list[tuple[str, str]]) -> None:
    assert families_of(underlying) == families


@pytest.mark.parametrize("underlying", ["", "BTC-PERP", "BTC/USD", "BTC_USD", "BTC_EUR", "BTCUSDT1", "1", None, 17])
def test_what_is_no_underlying_is_refused_by_name(underlying: object) -> None:
    with pytest.raises(ConfigError, match="underlying of Bybit") as caught:
        families_of(underlying)  # type: ignore[arg-type]
    assert repr(underlying) in str(caught.value)


def test_a_family_named_twice_is_followed_once() -> None:
    assert families_wanted(["BTC", "BTC_USDT", "ETH_USDT"]) == [("BTC", "USDC"), ("BTC", "USDT"), ("ETH", "USDT")]
    with pytest.raises(ConfigError, match="at least one"):
        families_wanted([])


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("wss://stream.bybit.com/v5/public/option", "https://api.bybit.com"),
        ("wss://stream-testnet.bybit.com/v5/public/option", "https://api-testnet.bybit.com"),
        ("wss://stream.bybit.kz/v5/public/option", "https://api.bybit.kz"),
        ("ws://127.0.0.1:4711/v5/public/option", "http://127.0.0.1:4711"),
        ("wss://recorded.example:8443/x", "https://recorded.example:8443"),
    ],
)
def test_the_rest_addresses_follow_from_the_websockets(url: str, base: str) -> None:
    assert rest_base(url) == base


def test_connections_are_counted_by_characters() -> None:
    btc = families_of("BTC")
    # 1,000 contracts of 36 characters in each of two currencies: 72,000 of 21,000.
    assert connections_needed(btc, books=False) == 4
    assert connections_needed(btc[:1], books=False) == 2
    assert connections_needed(btc, books=True) == 8
