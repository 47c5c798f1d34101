"""Both families of true surfaces are free of static arbitrage wherever the factors can take them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from volsurf.sim.market import UNDERLYINGS
from volsurf.sim.pricing import black_price
from volsurf.sim.truth import FACTOR_BOUNDS, TRUTHS, Factors, MixtureTruth, SurfaceTruth, SviTruth

NAMES = tuple(Factors.__dataclass_fields__)
BOUNDS = np.array([getattr(FACTOR_BOUNDS, name) for name in NAMES])
CORNERS = [Factors(*(np.array(signs) * BOUNDS).tolist()) for signs in itertools.product((-1, 1), repeat=len(NAMES))]
INSIDE = [Factors(*row) for row in (np.random.default_rng(5).uniform(-1, 1, (12, len(NAMES))) * BOUNDS).tolist()]
MATURITIES = np.concatenate((np.geomspace(1 / 8760, 0.08, 20), np.linspace(0.09, 2.0, 16)))
"""An hour to two years."""


def calls(truth: SurfaceTruth, k: np.ndarray, years: np.ndarray) -> np.ndarray:
    """Undiscounted calls in units of the forward, (maturities, strikes); the mixture's from its density, not its vols."""
    if isinstance(truth, MixtureTruth):
        otm = truth.otm_price(k[None, :], years[:, None])
        return otm + np.maximum(-np.expm1(k), 0.0)
    v = np.sqrt(truth.total_variance(k[None, :], years[:, None]))
    return black_price(k[None, :], v, True)


@pytest.mark.parametrize("underlying", ["BTC", "XRP"])
@pytest.mark.parametrize("family", sorted(TRUTHS))
@pytest.mark.parametrize("group", ["corners", "inside"])
def test_no_static_arbitrage_in_price_space(family: str, underlying: str, group: str) -> None:
    k = np.linspace(-2.5, 2.5, 161)
    strikes = np.exp(k)
    for factors in CORNERS if group == "corners" else INSIDE:
        price = calls(TRUTHS[family](UNDERLYINGS[underlying].levels, factors), k, MATURITIES)
        slope = np.diff(price, axis=1) / np.diff(strikes)
        # Differences of prices of order one carry rounding of 1e-16, divided here by strike steps of 1e-3.
        assert (np.diff(slope, axis=1) > -1e-11).all(), f"butterfly at {factors}"
        assert (slope > -1 - 1e-11).all()
        assert (slope < 1e-11).all()
        assert (np.diff(price, axis=0) > -1e-14).all(), f"calendar at {factors}"
        assert (price >= np.maximum(1 - strikes, 0.0) - 1e-14).all()


@pytest.mark.parametrize("underlying", sorted(UNDERLYINGS))
def test_the_svi_truth_is_certified_exactly(underlying: str) -> None:
    from volsurf.svi.arbitrage import check_butterfly
    from volsurf.svi.calendar import check_calendar
    from volsurf.svi.params import RawSVI

    for factors in [*CORNERS, *INSIDE]:
        slices = [SviTruth(UNDERLYINGS[underlying].levels, factors).svi(float(t)) for t in MATURITIES]
        svi = RawSVI(*(np.array([getattr(s, name) for s in slices]) for name in ("a", "b", "rho", "m", "sigma")))
        assert check_butterfly(svi).proved.all()
        assert check_calendar(svi[:-1], svi[1:]).proved.all()


def test_svi_parameters_are_the_surface() -> None:
    truth = SviTruth(UNDERLYINGS["BTC"].levels, INSIDE[0])
    k = np.linspace(-2, 2, 101)
    for years in (0.003, 0.1, 1.0):
        p = truth.svi(years)
        w = p.a + p.b * (p.rho * (k - p.m) + np.sqrt((k - p.m) ** 2 + p.sigma**2))
        np.testing.assert_allclose(w, truth.total_variance(k, years), rtol=1e-12)


def test_mixture_vols_reprice_the_mixture_and_have_mean_one() -> None:
    truth = MixtureTruth(UNDERLYINGS["ETH"].levels, INSIDE[1])
    years = np.array([[0.01], [0.3]])
    k = np.linspace(-0.3, 0.3, 61)[None, :]
    v = np.sqrt(truth.total_variance(k, years))
    otm = truth.otm_price(k, years)
    np.testing.assert_allclose(black_price(k, v, k >= 0), otm, rtol=1e-11)
    weight, log_mean, _ = truth._components(np.array([0.01, 0.3, 2.0]))
    np.testing.assert_allclose(np.exp(log_mean) @ weight, 1.0, rtol=1e-14)
    # Put-call parity at the money ties both sides of the smile together.
    up, down = truth.otm_price(1e-9, 0.3), truth.otm_price(-1e-9, 0.3)
    assert float(up) == pytest.approx(float(down), rel=1e-7)


def test_mixture_is_not_svi() -> None:
    """The best SVI slice misses it by basis points of vol: enough to be another shape, little enough to be a market."""
    from scipy.optimize import least_squares

    truth = MixtureTruth(UNDERLYINGS["BTC"].levels, Factors())
    years = 0.25
    y = np.linspace(-3.5, 3.5, 71)
    k = y * np.sqrt(float(truth.atm_variance(years)))
    vol = np.sqrt(truth.total_variance(k, years) / years)

    def miss(x: np.ndarray) -> np.ndarray:
        a, b, rho, m, sigma = x
        w = a + b * (rho * (k - m) + np.sqrt((k - m) ** 2 + sigma**2))
        return np.sqrt(np.maximum(w, 1e-9) / years) - vol

    fit = least_squares(miss, [0.02, 0.1, -0.2, 0.0, 0.3], x_scale=[0.01, 0.1, 0.1, 0.1, 0.1], xtol=1e-14, ftol=1e-14)
    worst = 1e4 * np.abs(fit.fun).max()
    assert 2.0 < worst < 150.0


def test_calm_levels_look_like_a_crypto_market() -> None:
    for family, cls in TRUTHS.items():
        truth = cls(UNDERLYINGS["BTC"].levels, Factors())
        for days in (1, 7, 30, 180, 365):
            years = days / 365
            atm = float(np.sqrt(truth.total_variance(0.0, years) / years))
            deviation = atm * np.sqrt(years)
            put, call = (float(np.sqrt(truth.total_variance(x * deviation, years) / years)) for x in (-0.67, 0.67))
            assert 0.40 < atm < 0.60, family
            assert -0.08 < call - put < -0.01, "puts are dearer"
            assert 0.003 < 0.5 * (put + call) - atm < 0.03


def test_the_short_end_moves_more() -> None:
    for cls in TRUTHS.values():
        levels = UNDERLYINGS["BTC"].levels
        moved = {}
        for days in (1, 365):
            calm, stirred = (cls(levels, f).total_variance(0.0, days / 365) for f in (Factors(), Factors(fast=0.3)))
            moved[days] = float(np.sqrt(stirred / calm) - 1)
        assert moved[1] > 4 * moved[365] > 0
