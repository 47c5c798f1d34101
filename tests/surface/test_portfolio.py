"""Values and greeks of portfolios: against Black's formulas, finite differences of the surface, and each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.surface.random_surfaces import NOW, ssvi_surface
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.iv.black import black_greeks, black_price
from volsurf.surface.bumps import Bump
from volsurf.surface.portfolio import Portfolio, PortfolioValue, Position
from volsurf.surface.slices import expiry_label
from volsurf.surface.surface import Surface

SURFACE = ssvi_surface()
EXPIRY = int(SURFACE.expiries[2])
BOOK = [
    Position("BTC", EXPIRY, 70_000, "call", 10),
    Position("BTC", EXPIRY, 50_000, "put", -4, "linear", 0.1),
    Position("BTC", int(SURFACE.expiries[4]), 90_000, "C", 3, Settlement.INVERSE),
    # Not listed: nine days after an expiry.
    Position("BTC", EXPIRY + 9 * 86_400_000_000_000, 60_000, None, 2, is_call=False),
]


def one(position: Position, surface: Surface = SURFACE) -> PortfolioValue:
    return surface.price([position])


def test_values_are_blacks_at_the_smile() -> None:
    value = SURFACE.price(BOOK)
    years = value.portfolio.years
    assert years[3] == pytest.approx(float(SURFACE.years[2]) + 9 / 365)
    vol = SURFACE.vol(strike=[70_000, 50_000, 90_000, 60_000], years=years)
    forward = SURFACE.forward(years=years)
    price = black_price(forward, [70_000, 50_000, 90_000, 60_000], years, vol, [True, False, True, False])
    size = np.array([10, -0.4, 3, 2])
    np.testing.assert_allclose(value.vol, vol, rtol=1e-12)
    np.testing.assert_allclose(value.price_coin, price / forward, rtol=1e-12)
    np.testing.assert_allclose(value.value_usd, price * size, rtol=1e-12)
    np.testing.assert_allclose(value.value_coin, price / forward * size, rtol=1e-12)
    assert value.total["value_usd"] == pytest.approx(float((price * size).sum()))


def test_greeks_are_blacks_premium_adjusted_where_inverse() -> None:
    value = SURFACE.price(BOOK)
    p = value.portfolio
    for adjusted in (True, False):
        rows = p.inverse == adjusted
        greeks = black_greeks(value.forward, p.strike, p.years, value.vol, p.is_call, premium_adjusted=adjusted)
        size = p.quantity * p.contract_size
        for ours, theirs in (
            (value.delta_sticky_strike, greeks.delta),
            (value.gamma, greeks.gamma),
            (value.vanna, greeks.vanna),
            (value.vega_usd, greeks.vega),
            (value.theta_usd, greeks.theta),
            (value.volga_usd, greeks.volga),
        ):
            np.testing.assert_allclose(ours[rows], (theirs * size)[rows], rtol=1e-9)
    np.testing.assert_allclose(value.vega_coin, value.vega_usd / value.forward)


@pytest.mark.parametrize("sticky", ["strike", "moneyness"])
def test_deltas_are_what_a_moved_forward_does(sticky: Any) -> None:
    h = 1e-5
    value = SURFACE.price(BOOK)
    up, down = (SURFACE.bump(Bump.forward(s, sticky)).price(BOOK) for s in (h, -h))
    by_usd = (up.value_usd - down.value_usd) / (2 * h * value.forward)
    by_coin = (up.value_coin - down.value_coin) / (2 * h)
    wanted = np.where(value.portfolio.inverse, by_coin, by_usd)
    ours = value.delta_sticky_strike if sticky == "strike" else value.delta_sticky_moneyness
    np.testing.assert_allclose(ours, wanted, rtol=1e-6)
    assert not np.allclose(value.delta_sticky_strike, value.delta_sticky_moneyness, rtol=1e-3)


def test_theta_is_what_a_moment_does() -> None:
    value, later = SURFACE.price(BOOK), SURFACE.bump(Bump.time(days=1e-3)).price(BOOK)
    np.testing.assert_allclose(later.value_usd - value.value_usd, value.theta_usd * 1e-3 / 365, rtol=1e-3)


def test_futures_and_perpetuals_have_one_delta() -> None:
    forward = float(SURFACE.forward(EXPIRY))
    linear = one(
        Position("BTC", EXPIRY, option_type="future", quantity=3, settlement="linear", entry_price=forward - 100)
    )
    assert linear.value_usd[0] == pytest.approx(300)
    assert linear.delta_sticky_strike[0] == 3
    inverse = one(Position("BTC", None, option_type="perpetual", quantity=-500, contract_size=10, entry_price=50_000))
    spot = float(inverse.forward[0])
    assert spot == pytest.approx(60_000, rel=1e-9)
    assert inverse.value_coin[0] == pytest.approx(-5_000 * (1 / 50_000 - 1 / spot), rel=1e-12)
    assert inverse.delta_sticky_moneyness[0] == pytest.approx(-5_000 / spot, rel=1e-12)
    h = 1e-5
    up, down = (SURFACE.bump(Bump.forward(s)).price(inverse.portfolio) for s in (h, -h))
    assert (up.value_coin - down.value_coin)[0] / (2 * h) == pytest.approx(inverse.delta_sticky_strike[0], rel=1e-6)
    assert one(Position("BTC", EXPIRY, option_type="future", quantity=3)).value_usd[0] == 0
    assert np.isnan(linear.vol[0])
    assert linear.total_error_usd == 0


def test_errors_add_by_slice() -> None:
    call = Position("BTC", EXPIRY, 70_000, "call", 1)
    value = one(call)
    assert value.error_usd[0] > 0
    assert value.total_error_usd == pytest.approx(value.error_usd[0])
    # The same vol bought and sold: no error. Expiries are independent: squares add.
    assert SURFACE.price([call, replace(call, quantity=-1)]).total_error_usd == pytest.approx(0, abs=1e-6)
    other = Position("BTC", int(SURFACE.expiries[4]), 70_000, "call", 1)
    both = SURFACE.price([call, other])
    assert both.total_error_usd == pytest.approx(float(np.hypot(*both.error_usd)))
    # A spread knows its legs better than they know themselves.
    spread = SURFACE.price([call, Position("BTC", EXPIRY, 71_000, "call", -1)])
    assert spread.total_error_usd < 0.2 * spread.error_usd.max()


def test_tables_are_taken_as_positions_are() -> None:
    wanted = SURFACE.price(BOOK)
    when = [datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(e) // 1000) for e in wanted.portfolio.expiry_ns]
    frame = pl.DataFrame(
        {
            "expiry": pl.Series(when).cast(pl.Datetime("ns", "UTC")),
            "strike": [70_000, 50_000, 90_000, 60_000],
            "option_type": ["call", "PUT", "c", "p"],
            "quantity": [10, -4, 3, 2],
            "settlement": ["inverse", "linear", None, "inverse"],
            "contract_size": [None, 0.1, 1.0, 1.0],
            "note": ["kept", "out", "of", "it"],
        }
    )
    columns = {
        "expiry": wanted.portfolio.expiry_ns.tolist(),
        "strike": frame["strike"].to_list(),
        "is_call": [True, False, True, False],
        "quantity": frame["quantity"].to_list(),
        "settlement": frame["settlement"].to_list(),
        "contract_size": frame["contract_size"].to_list(),
    }
    import pandas as pd

    pandas = pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
    for table in (frame, pandas, columns, wanted.portfolio):
        np.testing.assert_array_equal(SURFACE.price(table).value_usd, wanted.value_usd)
    round_trip = SURFACE.price(wanted.to_polars())
    np.testing.assert_array_equal(round_trip.value_usd, wanted.value_usd)


def test_expiries_are_written_as_traders_do() -> None:
    late = replace(BOOK[0], expiry=expiry_label(EXPIRY))
    np.testing.assert_array_equal(one(late).value_usd, one(BOOK[0]).value_usd)
    # Not listed: 08:00 UTC of that day.
    day = datetime.fromtimestamp(NOW / 1e9, UTC) + timedelta(days=20)
    unlisted = one(replace(BOOK[0], expiry=f"{day:%d%b%y}".upper()))
    assert (
        unlisted.portfolio.expiry_ns[0]
        == int(day.replace(hour=8, minute=0, second=0, microsecond=0).timestamp()) * 10**9
    )
    assert unlisted.portfolio.name(0).endswith("-70000-C")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"underlying": "ETH"}, "underlying was 'ETH'"),
        ({"strike": -5.0}, "strike was -5.0"),
        ({"strike": float("nan")}, "strike was nan"),
        ({"strike": "high"}, "strike was 'high'"),
        ({"option_type": "straddle"}, "option_type was 'straddle'"),
        ({"option_type": None}, "option_type was None"),
        ({"quantity": float("inf")}, "quantity was inf"),
        ({"settlement": "cash"}, "settlement was 'cash'"),
        ({"settlement": 7}, "settlement was 7"),
        ({"contract_size": 0.0}, "contract_size was 0.0"),
        ({"expiry": NOW - 1}, "has expired"),
        ({"expiry": NOW + 900 * 86_400_000_000_000}, "beyond the horizon"),
        ({"expiry": "31FEB26"}, "31FEB26"),
        ({"expiry": "soon"}, "'soon'"),
        ({"expiry": None}, "needs an expiry"),
        ({"expiry": [1]}, "expiry was"),
        ({"option_type": "future", "entry_price": -1.0}, "entry_price was -1.0"),
    ],
)
def test_bad_rows_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match="position 1: ") as caught:
        SURFACE.price([BOOK[0], replace(BOOK[0], **change), replace(BOOK[0], **change)])
    assert words in str(caught.value)


def test_bad_tables_are_named() -> None:
    with pytest.raises(InputError, match="needs expiry, quantity"):
        SURFACE.price({"strike": [1.0]})
    with pytest.raises(InputError, match="equally long"):
        SURFACE.price({"expiry": [EXPIRY], "quantity": [1, 2], "is_call": [True]})
    with pytest.raises(InputError, match=r"write \[position\]"):
        SURFACE.price(BOOK[0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="position 0: it must be a Position"):
        SURFACE.price([1])  # type: ignore[list-item]
    with pytest.raises(InputError, match="sequence of Position or a table"):
        SURFACE.price(5)  # type: ignore[arg-type]
    other = Surface("ETH", NOW, tuple(replace(s, underlying="ETH") for s in SURFACE.smiles))
    with pytest.raises(InputError, match="of BTC, the surface of ETH"):
        other.price(SURFACE.price(BOOK).portfolio)


def test_shown_as_a_table() -> None:
    many = SURFACE.price(BOOK * 20)
    html = many._repr_html_()
    assert "BTC-" in html
    assert "the 40 largest of 80 positions" in html
    assert "80 positions" in repr(many)
    assert len(SURFACE.price([])) == 0
    assert SURFACE.price([]).total["value_usd"] == 0
    assert len(SURFACE.price([]).to_polars()) == 0


def test_columns_made_for_an_earlier_surface_are_priced_at_the_later_ones_times() -> None:
    book = Portfolio.of(BOOK, SURFACE)
    later = Surface("BTC", NOW + 86_400_000_000_000, tuple(
        replace(s, time_ns=NOW + 86_400_000_000_000, years=s.years - 1 / 365) for s in SURFACE.smiles
    ))  # fmt: skip
    np.testing.assert_array_equal(later.price(book).value_usd, later.price(BOOK).value_usd)
    assert (later.price(book).value_usd != SURFACE.price(book).value_usd).any()
    with pytest.raises(InputError, match="it has expired"):
        Surface("BTC", int(SURFACE.expiries[2]), SURFACE.smiles[3:]).price(book)
