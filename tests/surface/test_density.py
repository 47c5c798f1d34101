"""Density, distribution, digitals and quantiles: against their own integrals, prices, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import norm

from tests.surface.random_surfaces import certified_surfaces, flat_surface, ssvi_surface, surface_of
from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.iv.black import black_price
from volsurf.surface.surface import Surface
from volsurf.svi.params import RawSVI

VOGT = RawSVI([-0.0410], 0.1331, 0.3060, 0.3586, 0.4153)
"""Axel Vogt's slice (Gatheral and Jacquier 2014, example 3.1), which is not free of butterfly arbitrage."""


def wide_grid(surface: Surface, years: float, points: int = 20_001) -> FloatArray:
    """Log-moneyness dense at the money, out to where both tails hold less than 1e-13."""
    low, high = surface.quantile([1e-14, 1.0 - 1e-14], years=years, of="log")
    deviation = float(np.sqrt(surface.total_variance(0.0, years=years)))
    return deviation * np.sinh(
        np.linspace(np.arcsinh(1.5 * low / deviation), np.arcsinh(1.5 * high / deviation), points)
    )


@settings(max_examples=20)
@given(certified_surfaces(), st.floats(0.05, 1.9))
def test_it_is_a_probability_density_with_mean_one(surface: Surface, share: float) -> None:
    years = share * float(surface.years[-1])
    k = wide_grid(surface, years)
    density = surface.density(k=k, years=years)
    assert (density >= 0).all()
    assert np.trapezoid(density, k) == pytest.approx(1.0, abs=1e-4)
    # Under the coin's measure the density is e^k times this one, and its tails are those of the coin digitals.
    ends = surface.digital(
        surface.forward(years=years) * np.exp(k[[0, -1]]), [False, True], years=years, paid_in="coin"
    )
    assert np.trapezoid(density * np.exp(k), k) + ends.sum() == pytest.approx(1.0, abs=1e-4)


@settings(max_examples=20)
@given(certified_surfaces(), st.integers(0, 2**32 - 1))
def test_it_is_nowhere_negative(surface: Surface, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.uniform(0.001, 2.0, 5_000) * surface.years[-1]
    k = rng.standard_cauchy(5_000) * 3 * np.sqrt(surface.total_variance(0.0, years=times))
    assert (surface.density(k=k, years=times) >= 0).all()
    assert not np.isnan(surface.density(k=k, years=times, log=True)).any()


def test_flat_smile_is_lognormal() -> None:
    surface = flat_surface(0.5, (10, 40, 200))
    k, years = np.linspace(-2, 2, 41), float(surface.years[1])
    deviation = 0.5 * np.sqrt(years)
    law = norm(-0.5 * deviation**2, deviation)
    np.testing.assert_allclose(surface.density(k=k, years=years), law.pdf(k), rtol=1e-8)
    strike = surface.forward(years=years) * np.exp(k)
    np.testing.assert_allclose(surface.density(strike=strike, years=years), law.pdf(k) / strike, rtol=1e-8)
    np.testing.assert_allclose(surface.density(k=k, years=years, of="price"), law.pdf(k) / strike, rtol=1e-8)
    np.testing.assert_allclose(surface.distribution(k=k, years=years), law.cdf(k), rtol=1e-8)
    np.testing.assert_allclose(surface.distribution(k=k, years=years, above=True), law.sf(k), rtol=1e-8)
    near = k[np.abs(k) < 0.6]
    np.testing.assert_allclose(surface.quantile(law.cdf(near), years=years, of="log"), near, rtol=1e-7, atol=1e-12)


def test_digital_is_a_call_spread() -> None:
    surface = ssvi_surface()
    years, strike, h = float(surface.years[3]), np.array([30e3, 55e3, 60e3, 75e3, 120e3]), 2.0
    forward = float(surface.forward(years=years))

    def price(strikes: FloatArray, call: bool) -> FloatArray:
        return np.asarray(black_price(forward, strikes, years, surface.vol(strike=strikes, years=years), call))

    call_spread = (price(strike - h, True) - price(strike + h, True)) / (2 * h)
    put_spread = (price(strike + h, False) - price(strike - h, False)) / (2 * h)
    np.testing.assert_allclose(surface.digital(strike, years=years), call_spread, rtol=1e-6)
    np.testing.assert_allclose(surface.digital(strike, False, years=years), put_spread, rtol=1e-6)
    # A coin above K is a call and K digitals: E[S; S > K] = C + K P(S > K).
    coin = (price(strike, True) + strike * call_spread) / forward
    np.testing.assert_allclose(surface.digital(strike, years=years, paid_in="coin"), coin, rtol=1e-6)
    both = surface.digital(strike, True, years=years, paid_in="coin") + surface.digital(
        strike, False, years=years, paid_in="coin"
    )
    np.testing.assert_allclose(both, 1.0, rtol=1e-12)


def test_far_tails_keep_their_digits() -> None:
    surface = ssvi_surface(rho=-0.5, eta=1.2)
    years = float(surface.years[2])
    k = np.array([-25.0, -12.0, 9.0, 20.0])
    left, right = surface.distribution(k=k[:2], years=years), surface.distribution(k=k[2:], years=years, above=True)
    for tail in (left, right):
        assert ((tail > 0) & (tail < 1e-9)).all()
    # The derivative of the logarithm of a tail is density over tail: a relative check, which a difference from 1 would fail.
    h = 1e-5
    slope = np.log(surface.distribution(k=k[:2] + h, years=years) / surface.distribution(k=k[:2] - h, years=years)) / (
        2 * h
    )
    np.testing.assert_allclose(slope, surface.density(k=k[:2], years=years) / left, rtol=1e-7)
    up, down = (surface.distribution(k=k[2:] + s, years=years, above=True) for s in (h, -h))
    np.testing.assert_allclose(-np.log(up / down) / (2 * h), surface.density(k=k[2:], years=years) / right, rtol=1e-7)
    # Where the density underflows its logarithm goes on.
    far = np.array([-4_000.0, 3_000.0])
    assert (surface.density(k=far, years=years) == 0).all()
    assert (np.isfinite(surface.density(k=far, years=years, log=True))).all()
    np.testing.assert_allclose(
        surface.density(k=k, years=years, log=True), np.log(surface.density(k=k, years=years)), rtol=1e-12
    )


@settings(max_examples=20)
@given(certified_surfaces(), st.lists(st.floats(1e-12, 1 - 1e-12), min_size=1, max_size=5))
def test_quantiles_invert_the_distribution(surface: Surface, probabilities: list[float]) -> None:
    p = np.array(probabilities)
    k = surface.quantile(p, expiry=surface.expiries[:, None], of="log")
    assert k.shape == (len(surface), len(p))
    np.testing.assert_allclose(
        surface.distribution(k=k, expiry=surface.expiries[:, None]), np.broadcast_to(p, k.shape), rtol=1e-9
    )


def test_quantiles_of_zero_and_one() -> None:
    surface = ssvi_surface()
    np.testing.assert_array_equal(surface.quantile([0.0, 1.0], years=0.1), [0.0, np.inf])
    tiny = surface.quantile(1e-250, years=0.1, of="log")
    assert surface.distribution(k=tiny, years=0.1) == pytest.approx(1e-250, rel=1e-9)
    with pytest.raises(InputError, match="between 0 and 1"):
        surface.quantile(1.5, years=0.1)
    with pytest.raises(InputError, match="'log' or 'price'"):
        surface.density(k=0.0, years=0.1, of="cash")  # type: ignore[arg-type]


def test_arbitrage_is_shown_not_hidden() -> None:
    surface = surface_of([1.0], VOGT)
    assert surface.density(k=0.85, years=1.0) < 0
    assert np.isnan(surface.density(k=0.85, years=1.0, log=True))


def test_table_and_figure() -> None:
    surface = ssvi_surface()
    table = surface.density_table(points=401, reach=8.0)
    assert len(table) == 401 * len(surface)
    for expiry, rows in table.group_by("expiry"):
        k, density = rows["k"].to_numpy(), rows["density_log"].to_numpy()
        assert np.trapezoid(density, k) == pytest.approx(1.0, abs=3e-3), expiry
        np.testing.assert_allclose(rows["density_price"], density / rows["strike"].to_numpy(), rtol=1e-12)
        np.testing.assert_allclose(rows["probability_below"] + rows["probability_above"], 1.0, rtol=1e-12)
    figure = surface.density_plot()
    assert len(figure.data) == len(surface) + 1
    assert {trace.meta for trace in figure.data} == {"density", "normal"}
    with pytest.raises(InputError, match="at least 2"):
        surface.density_table(points=1)


def test_without_a_fit_there_is_nothing_to_read() -> None:
    fitted = ssvi_surface()
    bare = Surface("BTC", fitted.time_ns, tuple(s.with_fit(None) for s in fitted.smiles))
    for ask in (
        lambda: bare.density(k=0.0, years=0.1),
        lambda: bare.quantile(0.5, years=0.1),
        bare.density_table,
        bare.density_plot,
        lambda: bare.variance_swap(years=0.1),
        lambda: bare.local_vol(k=0.0, years=0.1),
        bare.local_vol_grid,
        bare.forward_vols,
        bare.bump,
    ):
        with pytest.raises(InputError, match="no expiry of BTC could be fitted"):
            ask()
