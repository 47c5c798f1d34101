"""The simulator's own Black-76 against 50-digit arithmetic and against itself."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from volsurf.sim.pricing import black_delta, black_price, black_vega, implied_v, otm_price


def exact_otm(k: float, v: float) -> float:
    """Out-of-the-money price in units of the forward, from normal distribution functions in 60 digits."""
    with mpmath.workdps(60):
        k_, v_ = mpmath.mpf(k), mpmath.mpf(v)
        sign = 1 if k >= 0 else -1
        d1, d2 = -k_ / v_ + v_ / 2, -k_ / v_ - v_ / 2
        return float(sign * (mpmath.ncdf(sign * d1) - mpmath.exp(k_) * mpmath.ncdf(sign * d2)))


@pytest.mark.parametrize("v", [0.003, 0.05, 0.3, 1.5, 4.0])
@pytest.mark.parametrize("deviations", [-30.0, -8.0, -1.0, 0.0, 0.1, 2.0, 12.0, 30.0])
def test_prices_have_full_relative_accuracy_in_the_wings(deviations: float, v: float) -> None:
    k = deviations * v
    assert float(otm_price(k, v)) == pytest.approx(exact_otm(k, v), rel=1e-11)


def test_put_call_parity() -> None:
    k = np.linspace(-1.5, 1.5, 301)
    gap = black_price(k, 0.4, True) - black_price(k, 0.4, False)
    np.testing.assert_allclose(gap, -np.expm1(k), atol=1e-15)


def test_greeks_are_the_slopes_of_the_price() -> None:
    k, v, step = np.linspace(-1.0, 1.0, 41), 0.35, 1e-6
    slope = (otm_price(k, v + step) - otm_price(k, v - step)) / (2 * step)
    np.testing.assert_allclose(black_vega(k, v), slope, rtol=1e-7)
    # ∂(F·c(ln K/F))/∂F = c − ∂c/∂k
    by_k = (black_price(k + step, v, True) - black_price(k - step, v, True)) / (2 * step)
    np.testing.assert_allclose(black_delta(k, v, True), black_price(k, v, True) - by_k, atol=1e-9)
    np.testing.assert_allclose(black_delta(k, v, True) - black_delta(k, v, False), 1.0, atol=1e-15)


@pytest.mark.parametrize("start", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("v", [0.01, 0.05, 0.2, 0.6, 2.0])
def test_inversion_finds_the_vol_from_any_start(v: float, start: float) -> None:
    k = np.linspace(-3.0, 3.0, 601)
    price = otm_price(k, v)
    k, price = k[price > 1e-250], price[price > 1e-250]
    np.testing.assert_allclose(implied_v(k, price, start), v, rtol=1e-12)


def test_prices_outside_their_bounds_have_no_vol() -> None:
    prices = np.array([-0.1, 0.0, 1.0, 1.2, np.nan])
    assert np.isnan(implied_v(0.2, prices, 0.3)).all()
    assert np.isnan(implied_v(-0.2, np.exp(-0.2), 0.3))
