"""Variance and gamma swaps against replication by strips of options, and moments against the density."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import ndtr

from tests.surface.random_surfaces import certified_surfaces, flat_surface, ssvi_surface, surface_of
from tests.surface.test_density import wide_grid
from volsurf.errors import InputError
from volsurf.surface.delta import log_moneyness_of_score
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.params import RawSVI


def replicated(surface: Surface, years: float, *, coin: bool, points: int = 400_001) -> float:
    """2/T int OTM(K)/K^2 dK (gamma swap: /(K F)), out-of-the-money options priced here, dense at the money."""
    deviation = float(np.sqrt(surface.total_variance(0.0, years=years)))
    ends = log_moneyness_of_score(surface, np.array([9.5, -9.5]), np.asarray(years), 0.5 if coin else -0.5)
    u = np.linspace(*np.arcsinh(3 * ends / deviation), points)
    k, width = deviation / 3 * np.sinh(u), deviation / 3 * np.cosh(u)
    root = np.sqrt(surface.total_variance(k, years=years))
    d1 = -k / root + 0.5 * root
    d2 = d1 - root
    money = np.exp(-np.abs(k))
    # Of the smaller of strike and forward, so that nothing overflows.
    call, put = ndtr(d1) - ndtr(d2) / money, ndtr(-d2) - ndtr(-d1) / money
    otm = np.where(k > 0, call * (1.0 if coin else money), put * (money if coin else 1.0))
    return float(np.sqrt(2.0 * np.trapezoid(otm * width, u) / years))


@settings(max_examples=8)
@given(certified_surfaces(), st.floats(0.05, 1.9))
def test_fair_strikes_are_those_of_replication(surface: Surface, share: float) -> None:
    years = share * float(surface.years[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        plain, coin = (replicated(surface, years, coin=c) for c in (False, True))
    assert surface.variance_swap(years=years) == pytest.approx(plain, abs=1e-6)
    assert surface.gamma_swap(years=years) == pytest.approx(coin, abs=1e-6)


def test_sharp_bends_are_integrated_too() -> None:
    # A bend a fiftieth of a deviation wide, on which 32 nodes alone are 30 bp off.
    sharp = RawSVI([0.028], 0.14, -0.3, 0.03, 0.004)
    assert check_butterfly(sharp)
    surface = surface_of([30 / 365], sharp)
    years = float(surface.years[0])
    assert surface.variance_swap(years=years) == pytest.approx(replicated(surface, years, coin=False), abs=1e-6)
    assert surface.gamma_swap(years=years) == pytest.approx(replicated(surface, years, coin=True), abs=1e-6)


def test_flat_smile_swaps_at_its_vol() -> None:
    surface = flat_surface(0.5)
    np.testing.assert_allclose(surface.variance_swap(expiry=surface.expiries), 0.5, rtol=1e-10)
    np.testing.assert_allclose(surface.gamma_swap(expiry=surface.expiries), 0.5, rtol=1e-10)
    np.testing.assert_allclose(surface.variance_swap(years=[0.01, 200 / 365], unit="variance"), 0.25, rtol=1e-10)
    moments = surface.moments(expiry=surface.expiries)
    np.testing.assert_allclose(moments.mean, -0.125 * surface.years, rtol=1e-10)
    np.testing.assert_allclose(moments.vol, 0.5, rtol=1e-10)
    np.testing.assert_allclose(moments.skewness, 0.0, atol=1e-9)
    np.testing.assert_allclose(moments.kurtosis, 3.0, rtol=1e-10)


@settings(max_examples=20)
@given(certified_surfaces(), st.floats(0.05, 1.0))
def test_moments_are_the_densitys(surface: Surface, share: float) -> None:
    years = share * float(surface.years[-1])
    k = wide_grid(surface, years, 100_001)
    density = surface.density(k=k, years=years)
    mean = np.trapezoid(k * density, k)
    second, third, fourth = (np.trapezoid((k - mean) ** n * density, k) for n in (2, 3, 4))
    moments = surface.moments(years=years)
    # The grid leaves out tails of 1e-14, which weigh in the higher moments.
    assert moments.mean == pytest.approx(mean, rel=1e-4, abs=1e-9)
    assert moments.variance == pytest.approx(second, rel=1e-4)
    assert moments.skewness == pytest.approx(third / second**1.5, rel=1e-3, abs=1e-3)
    assert moments.kurtosis == pytest.approx(fourth / second**2, rel=1e-3)


def test_log_contracts_and_coin_settlement() -> None:
    surface = ssvi_surface()
    at = surface.years
    k_swap, gamma = surface.variance_swap(years=at), surface.gamma_swap(years=at)
    np.testing.assert_array_equal(surface.variance_swap(years=at, settlement="inverse"), gamma)
    np.testing.assert_allclose(surface.log_contract(years=at), -0.5 * k_swap**2 * at, rtol=1e-12)
    np.testing.assert_allclose(surface.log_contract(years=at, paid_in="coin"), 0.5 * gamma**2 * at, rtol=1e-12)
    np.testing.assert_allclose(surface.moments(years=at).mean, surface.log_contract(years=at), rtol=1e-9)
    # With a skew to the downside variance is dearer in cash, and both are dearer than the vol at the forward.
    assert (gamma < k_swap).all()
    assert (k_swap > surface.vol(k=0.0, years=at)).all()


def test_shapes_and_refusals() -> None:
    surface = ssvi_surface()
    assert surface.variance_swap(years=0.1).shape == ()
    assert surface.variance_swap(years=[[0.1, 0.2], [0.3, 0.4]]).shape == (2, 2)
    assert surface.moments(tenor=["1W", "1M"]).kurtosis.shape == (2,)
    with pytest.raises(InputError, match="'linear' or 'inverse'"):
        surface.variance_swap(years=0.1, settlement="coin")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'vol' or 'variance'"):
        surface.gamma_swap(years=0.1, unit="percent")  # type: ignore[arg-type]
