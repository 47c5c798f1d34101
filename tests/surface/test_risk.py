"""Bumps do what they say, buckets add up, and what a bump leaves is checked for arbitrage."""

from __future__ import annotations

import numpy as np
import pytest

from tests.surface.random_surfaces import DAYS, ssvi_surface
from tests.surface.test_portfolio import BOOK
from volsurf.errors import InputError
from volsurf.surface.bumps import NODES, Bump
from volsurf.surface.portfolio import Position
from volsurf.surface.risk import default_bumps

SURFACE = ssvi_surface()
HIGH = Bump.at_node(int(SURFACE.expiries[3]), "ATM", 0.4)
Y = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def change(*bumps: Bump, years: float) -> np.ndarray:
    """Of the vol at Y standard deviations."""
    k = Y * np.sqrt(SURFACE.total_variance(0.0, years=years))
    return np.asarray(SURFACE.bump(*bumps).vol(k=k, years=years) - SURFACE.vol(k=k, years=years))


def test_shapes_of_the_bumps() -> None:
    first, last = float(SURFACE.years[0]), float(SURFACE.years[-1])
    np.testing.assert_allclose(change(Bump.parallel(0.02), years=0.2), 0.02, rtol=1e-10)
    tilt = Bump.tilt(0.02)
    np.testing.assert_allclose(change(tilt, years=last) - change(tilt, years=first), 0.02, rtol=1e-10)
    np.testing.assert_allclose(change(tilt, years=np.sqrt(first * last)), 0.0, atol=1e-12)
    np.testing.assert_allclose(change(tilt, years=0.5 * first), -0.01, rtol=1e-10)
    skew = change(Bump.skew(0.02), years=0.2)
    assert skew[3] - skew[1] == pytest.approx(0.02)
    assert skew[2] == pytest.approx(0.0, abs=1e-14)
    curvature = change(Bump.curvature(0.02), years=0.2)
    np.testing.assert_allclose(curvature[[1, 2, 3]], [0.02, 0.0, 0.02], atol=1e-12)
    np.testing.assert_allclose(change(Bump.skew(0.02), Bump.parallel(0.01), years=0.2), skew + 0.01, atol=1e-12)


def test_nodes_are_a_partition_of_the_parallel_bump() -> None:
    every = [Bump.at_node(int(e), node, 0.01) for e in SURFACE.expiries for node in NODES]
    for years in (0.001, 0.02, 0.2, 0.7, 1.5):
        np.testing.assert_allclose(change(*every, years=years), 0.01, rtol=1e-9)
    here = int(SURFACE.expiries[2])
    k = 0.6744897501960817 * np.sqrt(SURFACE.total_variance(0.0, years=SURFACE.years))
    bumped = SURFACE.bump(Bump.at_node(here, "25C", 0.01)).vol(k=k, years=SURFACE.years)
    np.testing.assert_allclose(
        bumped - SURFACE.vol(k=k, years=SURFACE.years), 0.01 * (SURFACE.expiries == here), atol=1e-12
    )


@pytest.mark.parametrize(
    "bump", [Bump.skew(), Bump.curvature(), Bump.tilt(), Bump.at_node(int(SURFACE.expiries[1]), "25P")]
)
def test_derivatives_of_the_bumped_smile(bump: Bump) -> None:
    bumped = SURFACE.bump(bump, Bump.forward(0.02, "strike"))
    k, at, h = np.linspace(-0.3, 0.3, 25), np.asarray(SURFACE.years[1]), 1e-5
    vol, skew, bend = bumped._vol(k, at)
    up, down = bumped._vol(k + h, at), bumped._vol(k - h, at)
    np.testing.assert_allclose(skew, (up[0] - down[0]) / (2 * h), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(bend, (up[1] - down[1]) / (2 * h), rtol=1e-5, atol=1e-6)
    assert (vol > 0).all()


def test_buckets_add_up_to_the_parallel_bump() -> None:
    risk = SURFACE.risk(BOOK)
    parallel = risk.total_usd[0]
    assert abs(parallel) > 100
    assert abs(risk.residual_usd) < 1e-4 * abs(parallel)
    assert risk.vega_usd.shape == (len(DAYS), len(NODES))
    assert risk.vega_usd.sum() == pytest.approx(parallel, rel=1e-4)
    assert risk.vega_coin.sum() == pytest.approx(risk.total_coin[0], rel=1e-4)
    # And the parallel bump is a vol point of vega, to second order.
    assert parallel == pytest.approx(0.01 * SURFACE.price(BOOK).total["vega_usd"], rel=1e-3)
    # An option at an expiry is in that expiry's buckets alone.
    alone = SURFACE.risk([BOOK[0]]).vega_usd
    assert np.flatnonzero(alone.sum(axis=1)).tolist() == [2]


def test_every_row_is_a_whole_repricing() -> None:
    bumps = default_bumps(SURFACE)
    risk = SURFACE.risk(BOOK, bumps)
    base = SURFACE.price(BOOK)
    for i in (0, 1, 2, 3, 4, 5, 7 + 2 * len(NODES) + 1):
        up, down = (SURFACE.bump(b).price(BOOK) for b in (bumps[i], bumps[i].reversed()))
        np.testing.assert_allclose(risk.up_usd[i], up.value_usd - base.value_usd, rtol=1e-8, atol=1e-6)
        np.testing.assert_allclose(risk.down_coin[i], down.value_coin - base.value_coin, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(risk.pnl_usd, 0.5 * (risk.up_usd - risk.down_usd))
    gamma = float((base.gamma * base.forward**2).sum())
    forward = risk.bumps.index(Bump.forward(sticky="strike"))
    linear = [p for p in BOOK if p.settlement == "linear"]
    own = SURFACE.risk(linear, [Bump.forward(1e-3, "strike")])
    value = SURFACE.price(linear)
    np.testing.assert_allclose(own.convexity_usd[0], value.gamma * (1e-3 * value.forward) ** 2, rtol=1e-3)
    assert np.isfinite(gamma)
    assert risk.bumps[forward].label == "forward +1 %, sticky strike"


def test_time_goes_one_way_and_options_expire_in_it() -> None:
    soon = Position("BTC", int(SURFACE.expiries[0]), 50_000, "call", 1, "linear")
    risk = SURFACE.risk([soon], [Bump.time(days=3)])
    base = SURFACE.price([soon])
    intrinsic = float(base.forward[0]) - 50_000
    assert risk.up_usd[0, 0] == pytest.approx(intrinsic - float(base.value_usd[0]), rel=1e-9)
    np.testing.assert_array_equal(risk.down_usd, -risk.up_usd)
    with pytest.raises(InputError, match="forward only"):
        Bump.time(days=-1)


def test_what_bumps_leave_is_checked() -> None:
    risk = SURFACE.risk(BOOK)
    assert risk.is_free
    small = SURFACE.bump(Bump.parallel())
    assert small.check()
    assert small.check().evidence.startswith("grid of")
    assert small.check().sentence.startswith("no arbitrage found on a grid")
    assert SURFACE.bump().check().lowest_g > 0
    # 100 % at 93 days over 60 % at 182: total variance falls.
    crossed = SURFACE.bump(HIGH).check()
    assert not crossed
    assert "calendar arbitrage" in crossed.sentence
    # A spike at one node of the shortest expiry bends the density below zero.
    bent = SURFACE.bump(Bump.at_node(int(SURFACE.expiries[0]), "25C", 0.3), Bump.parallel(0.4)).check()
    assert not bent
    assert "butterfly arbitrage" in bent.sentence
    assert SURFACE.bump(Bump.time(days=4)).check().evidence.endswith("at 5 expiries")


def test_the_check_agrees_with_prices() -> None:
    bumped = SURFACE.bump(Bump.curvature(0.05))
    at = np.asarray(SURFACE.years[2])
    w, slope, curvature = bumped._variance(np.linspace(-0.5, 0.5, 11), at)
    k, h = np.linspace(-0.5, 0.5, 11), 1e-4
    from volsurf.iv.black import black_price

    def price(log_moneyness: np.ndarray) -> np.ndarray:
        vol = bumped._vol(log_moneyness, at)[0]
        return np.asarray(black_price(1.0, np.exp(log_moneyness), float(at), vol, True))

    by_k, by_k2 = (price(k + h) - price(k - h)) / (2 * h), (price(k + h) - 2 * price(k) + price(k - h)) / h**2
    from volsurf.surface.density import density

    np.testing.assert_allclose((by_k2 - by_k) * np.exp(-k), density(k, w, slope, curvature), rtol=1e-4)


def test_refusals() -> None:
    with pytest.raises(InputError, match="takes a vol to"):
        SURFACE.risk(BOOK, [Bump.parallel(0.9)])
    with pytest.raises(InputError, match="takes a vol to"):
        SURFACE.bump(Bump.parallel(-0.9)).price(BOOK)
    with pytest.raises(InputError, match="one of 10P"):
        Bump.at_node(int(SURFACE.expiries[0]), "15P")
    with pytest.raises(InputError, match="fitted expiry"):
        SURFACE.risk(BOOK, [Bump.at_node(1, "25P")])
    for bad in (Bump.parallel, Bump.tilt):
        with pytest.raises(InputError, match="finite"):
            bad(float("nan"))
    with pytest.raises(InputError, match="forward positive"):
        Bump.forward(-1.0)
    with pytest.raises(InputError, match="no node bumps"):
        _ = SURFACE.risk(BOOK, [Bump.parallel()]).vega_usd
    with pytest.raises(InputError, match="no parallel"):
        _ = SURFACE.risk(BOOK, [Bump.at_node(int(SURFACE.expiries[0]), "ATM")]).residual_usd
    with pytest.raises(InputError, match="rows must be"):
        SURFACE.risk(BOOK, [Bump.parallel()]).to_polars("rows")


def test_shown_as_tables() -> None:
    risk = SURFACE.risk(BOOK)
    table = risk.to_polars()
    assert table.height == 7 + len(DAYS) * len(NODES)
    assert table["free_of_arbitrage"].all()
    assert risk.to_polars("positions").height == table.height * len(BOOK)
    html = risk._repr_html_()
    assert "25P" in html
    assert "sticky strike" in html
    named = SURFACE.risk(BOOK, [Bump.parallel(), HIGH]).to_polars()["evidence"].to_list()
    assert named[0].startswith("no arbitrage found on a grid")
    assert named[1].startswith("bumped up: butterfly arbitrage")
    assert "none seen" in html
    # Strikes keep their vols while the forward leaves them by many deviations.
    assert "bumped" in SURFACE.risk(BOOK, [Bump.forward(0.3, "strike")])._repr_html_()
