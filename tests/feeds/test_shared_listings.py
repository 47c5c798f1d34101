"""Every option named in the captured listings and messages parses to the right instrument, counted by venue and file."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import shared_path

Row = dict[str, Any]
NAMES = ("instrument_name", "instId", "symbol", "s")
"""Keys under which the venues write the name of an instrument."""
FILES = [
    ("deribit", "fastmm_testnet_get_instruments_option_2026-09-14.json", 1),
    ("deribit", "maksm05_deribit_get_instruments_btc_option.json", 5),
    ("deribit", "openbb_instruments_option_XRP_USDC_2rows.json", 2),
    ("deribit", "cryptofeed_DERIBIT.0.instruments.txt", 980),
    ("okx", "okxapi_instruments_option_BTC-USD.json", 768),
    ("bybit", "live_instruments_option_2026-09-26.json", 3),
    ("bybit", "*.jsonl", 8),
    ("binance", "*.json*", 20),
]


def objects(value: Any) -> Iterator[Row]:
    """Every JSON object in a value."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from objects(item)


def read(path: Path) -> Iterator[Row]:
    """The objects of a file: one JSON text, one a line, or one behind the address it came from."""
    text = path.read_text("utf-8")
    try:
        yield from objects(json.loads(text))
    except ValueError:
        for line in filter(None, text.splitlines()):
            yield from objects(json.loads(line[line.index("{") :]))


def said_by_row(row: Row) -> tuple[int | None, float | None, bool | None]:
    """Expiry in ns, strike, and whether it is a call, as far as a listing says so beside the name."""
    expiry = row.get("expiration_timestamp") or row.get("expTime") or row.get("deliveryTime")
    strike = row.get("strike") or row.get("stk")
    side = row.get("option_type") or row.get("optType") or row.get("optionsType")
    return (
        None if expiry is None else int(expiry) * 10**6,
        None if strike is None else float(strike),
        None if side is None else str(side)[:1].upper() == "C",
    )


def said_by_name(name: str) -> tuple[str, float, bool]:
    """Day, strike and side, cut out of a name without the parser under test."""
    parts = [part for part in name.split("-") if part not in ("USDT", "USDC")]
    day, strike, side = parts[-3:]
    digits = day.isdigit()
    expiry = datetime.strptime(day, "%y%m%d" if digits else "%d%b%y")
    return expiry.strftime("%Y-%m-%d 08:00"), float(strike.replace("d", ".")), side == "C"


@pytest.mark.parametrize(("venue", "file", "count"), FILES)
def test_listed_and_named_options(venue: str, file: str, count: int) -> None:
    parse = importlib.import_module(f"volsurf.feeds._{venue}_names").parse_symbol
    found: dict[str, Row] = {}
    for path in sorted(shared_path("venues", "fixtures", venue).glob(file)):
        for row in read(path):
            names = [str(row[key]) for key in NAMES if key in row]
            for name in names:
                if name.endswith(("-C", "-P", "-USDT", "-USDC")) and name.count("-") in (3, 4):
                    found.setdefault(name, {}).update(row)
    assert len(found) == count, sorted(found)[:30]
    for name, row in found.items():
        option = parse(name)
        assert option is not None, name
        expiry_ns, strike, is_call = option.expiry_ns, option.strike, option.is_call
        day = datetime.fromtimestamp(expiry_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
        assert (day, strike, is_call) == said_by_name(name), name
        for mine, theirs in zip((expiry_ns, strike, is_call), said_by_row(row), strict=True):
            assert theirs is None or mine == theirs, (name, row)


def test_the_768_options_of_okx_are_640_paid_in_coin_and_128_in_dollars() -> None:
    from volsurf.feeds._okx_names import parse_symbol

    path = shared_path("venues", "fixtures", "okx", "okxapi_instruments_option_BTC-USD.json")
    options = [parse_symbol(row["instId"]) for row in json.loads(path.read_text("utf-8"))["data"]]
    families = [option.family.name for option in options if option is not None]
    assert (families.count("BTC-USD"), families.count("BTC-USD_UM")) == (640, 128)
