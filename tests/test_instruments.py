"""Universe: ids that never move, columns that agree with their rows, conventions that invert."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from volsurf.errors import InputError
from volsurf.instruments import (
    NANOSECONDS_PER_YEAR,
    Instrument,
    Kind,
    Settlement,
    Universe,
    normalised_premium,
    venue_premium,
    years_between,
)

EXPIRY = 1_798_185_600_000_000_000


def option(symbol: str = "BTC-25DEC26-100000-C", **changes: Any) -> Instrument:
    base = {
        "venue": "deribit",
        "symbol": symbol,
        "kind": Kind.OPTION,
        "underlying": "BTC",
        "expiry_ns": EXPIRY,
        "strike": 100_000.0,
        "is_call": True,
        "tick_size": 0.0001,
        "tick_steps": ((0.005, 0.0005),),
    }
    return Instrument(**(base | changes))


def test_ids_survive_listing_and_expiry() -> None:
    universe = Universe([option("A"), option("B")])
    assert universe.find("deribit", "B") == 1
    universe.retire([0])
    assert list(universe.active) == [False, True]
    assert list(universe.add([option("C"), option("B")])) == [2, 1]
    assert len(universe) == 3
    assert [universe[i].symbol for i in range(3)] == ["A", "B", "C"]


def test_relisting_reactivates_the_same_contract() -> None:
    universe = Universe([option("A")])
    universe.retire([0])
    assert list(universe.add([option("A", tick_size=0.0005)])) == [0]
    assert universe.active[0]
    assert universe.tick_size[0] == 0.0005


def test_same_name_for_another_contract_is_another_id() -> None:
    universe = Universe([option("A")])
    assert list(universe.add([option("A", strike=90_000.0)])) == [1]
    assert list(universe.active) == [False, True]
    assert universe["deribit", "A"].strike == 90_000.0


def test_version_rises_only_with_a_change() -> None:
    universe = Universe([option("A")])
    before = universe.version
    universe.add([])
    universe.retire([])
    assert universe.version == before
    universe.retire([0])
    assert universe.version == before + 1


def test_columns_follow_growth() -> None:
    universe = Universe(option(f"O{i}", strike=1000.0 + i) for i in range(3000))
    np.testing.assert_array_equal(universe.strike, 1000.0 + np.arange(3000))
    assert universe.underlyings == ("BTC",)
    assert len(universe.to_polars()) == 3000


def test_options_are_sorted_by_expiry_and_strike() -> None:
    rows = [
        option("far", expiry_ns=EXPIRY + 1, strike=1.0),
        option("high", strike=2.0),
        option("call", strike=1.0),
        option("put", strike=1.0, is_call=False),
        option("eth", underlying="ETH"),
        option("future", kind=Kind.FUTURE, strike=math.nan),
    ]
    universe = Universe(rows)
    assert [universe[int(i)].symbol for i in universe.options("BTC")] == ["put", "call", "high", "far"]
    assert len(universe.options()) == 5
    assert len(universe.options("DOGE")) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strike": 0.0}, "strike"),
        ({"strike": math.nan}, "strike"),
        ({"expiry_ns": 0}, "expiry"),
        ({"tick_size": -1.0}, "tick"),
        ({"symbol": ""}, "symbol"),
    ],
)
def test_bad_instrument_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Universe([option(**changes)])


def test_unknown_id_and_column_are_named() -> None:
    universe = Universe([option()])
    with pytest.raises(InputError, match="7"):
        universe.retire([7])
    with pytest.raises(AttributeError, match="colour"):
        universe.colour  # noqa: B018


def test_tick_follows_the_step() -> None:
    universe = Universe([option()])
    assert option().tick_at(0.005) == 0.0001
    assert option().tick_at(0.0051) == 0.0005
    ids = np.zeros(2, np.int64)
    np.testing.assert_array_equal(universe.ticks(ids, np.array([0.005, 0.0051])), [0.0001, 0.0005])


@given(
    st.floats(1e-6, 10.0),
    st.floats(1e-3, 1e6),
    st.sampled_from(list(Settlement)),
    st.floats(0.5, 1.0),
)
def test_premium_conventions_invert(beta: float, forward: float, settlement: Settlement, discount: float) -> None:
    quoted = venue_premium(beta, forward, settlement, discount)
    assert normalised_premium(quoted, forward, settlement, discount) == pytest.approx(beta, rel=1e-14)


def test_inverse_premium_is_already_normalised() -> None:
    assert normalised_premium(0.05, 60_000.0, Settlement.INVERSE) == 0.05
    assert normalised_premium(3_000.0, 60_000.0, Settlement.LINEAR) == 0.05


def test_years_are_exact_in_integers() -> None:
    now = 1_790_000_000_000_000_000
    assert years_between(now, now + NANOSECONDS_PER_YEAR) == 1.0
    # One nanosecond survives; a subtraction of doubles would lose it.
    assert years_between(now, now + 1) == 1 / NANOSECONDS_PER_YEAR
    assert years_between(now, now - NANOSECONDS_PER_YEAR) == -1.0
