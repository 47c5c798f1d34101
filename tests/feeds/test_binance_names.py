"""Names of Binance: options, families, streams."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.conftest import shared_path
from volsurf.errors import ConfigError
from volsurf.feeds._binance_names import DEPTH, MARK, TICKER, TRADES, Family, family_of, kind_of, parse_symbol, stream

FIXTURES = ("venues", "fixtures", "binance")


def ns(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, 8, tzinfo=UTC).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("name", "base", "expiry_ns", "strike", "is_call"),
    [
        ("BTC-260925-86000-C", "BTC", ns(2026, 9, 25), 86_000.0, True),
        ("XRP-251219-2.05-P", "XRP", ns(2025, 12, 19), 2.05, False),
        ("DOGE-231006-0.06-C", "DOGE", ns(2023, 10, 6), 0.06, True),
        ("1000SHIB-270101-0.0125-P", "1000SHIB", ns(2027, 1, 1), 0.0125, False),
    ],
)
def test_an_options_name(name: str, base: str, expiry_ns: int, strike: float, is_call: bool) -> None:
    assert parse_symbol(name) == (base, expiry_ns, strike, is_call)


@pytest.mark.parametrize(
    "name",
    ["", "BTCUSDT", "btc-260925-86000-c", "BTC-260631-86000-C", "BTC-261325-86000-C", "BTC-260925-0-C", "BTC-260925-86000-X",
     "BTC-25SEP26-86000-C", "BTC-260925-86000-C ", "BTC-260925--5-C", "BTC-260925-1e5-C", "BTC_USDT-260925-86000-C"],
)  # fmt: skip
def test_what_is_no_options_name(name: str) -> None:
    assert parse_symbol(name) is None


def test_every_name_of_the_captures_parses() -> None:
    """Counted: option symbols, and other names, of all sample files."""
    options: set[str] = set()
    others: set[str] = set()

    def walk(value: object, key: str = "") -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                walk(item, name)
        elif isinstance(value, list):
            for item in value:
                walk(item, key)
        elif key == "s" and isinstance(value, str):
            (options if parse_symbol(value) else others).add(value)

    for path in sorted(shared_path(*FIXTURES).glob("*.json*")):
        for line in path.read_text("utf-8").splitlines():
            walk(json.loads(line))
    assert len(options) == 20
    # What is left are the underlyings of index prices.
    assert others == {"BTCUSDT", "ETHUSDT", "XRPUSDT", "SOLUSDT", "XAGUSDT"}
    assert {parse_symbol(name).base for name in options} == {"BTC", "ETH", "XRP", "DOGE"}  # type: ignore[union-attr]


def test_an_underlying_is_a_coin_or_one_family_of_it() -> None:
    assert family_of("BTC") == family_of(" btc ") == Family("BTC", "")
    assert family_of("BTC_USDT") == Family("BTC", "USDT")
    assert family_of("BTC").has("BTC", "USDT")
    assert family_of("BTC").has("BTC", "USDC")
    assert not family_of("BTC_USDC").has("BTC", "USDT")
    assert [family_of(name).name for name in ("sol", "sol_usdt")] == ["SOL", "SOL_USDT"]


@pytest.mark.parametrize("name", ["", "BTC-USDT", "BTC_", "BTC_EUR", "BTC USDT", "_USDT"])
def test_what_is_no_underlying_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match="BTC_USDT"):
        family_of(name)


def test_streams_are_lower_case_before_the_at_sign_and_mixed_after_it() -> None:
    assert stream("BTC-260925-86000-C", TICKER) == "btc-260925-86000-c@bookTicker"
    assert stream("BTCUSDT", MARK) == "btcusdt@optionMarkPrice"


@pytest.mark.parametrize(
    ("name", "event", "kind"),
    [
        ("!index@arr", "", "index"),
        ("!optionSymbol", "", "listings"),
        ("btcusdt@optionMarkPrice", "", MARK),
        ("btc-260925-86000-c@bookTicker", "", TICKER),
        ("btc-260925-86000-c@depth@100ms", "", DEPTH),
        ("btc-260925-86000-c@depth10@500ms", "", DEPTH),
        ("btcusdt@optionTrade", "", TRADES),
        ("btcusdt@optionTicker@260925", "", "unused.optionTicker"),
        ("btcusdt@openInterest@260925", "", "unused.openInterest"),
        ("btc-260925-86000-c@kline_1m", "", "unused.kline"),
        ("BTC-240927-25000-P@ticker", "", "retired.ticker"),
        ("BTC@markPrice", "", "retired.markPrice"),
        ("BTCUSDT@index", "", "retired.index"),
        ("BTC-231027-34000-C@depth100@100ms", "", "retired.depth"),
        ("BTC@openInterest@240927", "", "retired.openInterest"),
        ("BTC-231027-34000-C@nonsense", "", "retired.other"),
        ("btcusdt@nonsense", "", ""),
        ("", "bookTicker", TICKER),
        ("", "depthUpdate", DEPTH),
        ("", "markPrice", MARK),
        ("", "depth", "retired.depth"),
        ("", "nonsense", ""),
    ],
)  # fmt: skip
def test_what_a_message_is(name: str, event: str, kind: str) -> None:
    assert kind_of(name, event) == kind
