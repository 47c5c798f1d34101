"""SSVI with a power law: free of arbitrage by construction, down to the doubles; and its fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.svi.test_essvi import HALF, YEARS, quotes, step
from volsurf.errors import InputError
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Verdict
from volsurf.svi.essvi import ESSVI
from volsurf.svi.fit import FitResult
from volsurf.svi.ssvi import SSVI, fit_ssvi

TRUTH = SSVI.from_intervals(0.3 * np.diff(YEARS, prepend=0.0), -0.25, 0.7, 0.45)


def quoted(**options: object) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The truth's quotes, by the builder of eSSVI's tests."""
    return quotes(ESSVI(TRUTH.theta, TRUTH.rho, TRUTH.psi), **options)  # type: ignore[arg-type]


@settings(max_examples=300)
@given(
    steps=st.lists(step, min_size=0, max_size=7),
    scale=st.floats(-8.0, 0.5),
    rho=st.floats(-0.999, 0.999),
    share=st.one_of(st.just(1.0), st.floats(1e-6, 1.0)),
    gamma=st.one_of(st.sampled_from([0.0, 0.5, 0.999]), st.floats(0.0, 0.999)),
)
def test_every_point_of_the_box_is_proved(
    steps: list[float], scale: float, rho: float, share: float, gamma: float
) -> None:
    raw = SSVI.from_intervals(10.0**scale * np.array([1.0, *steps]), rho, share, gamma).to_raw()
    assert (check_butterfly(raw).verdict == Verdict.PROVED).all()
    assert (check_calendar(raw[:-1], raw[1:]).verdict == Verdict.PROVED).all()


def test_full_share_below_a_half_is_the_law_of_the_paper() -> None:
    """Remark 4.4 of Gatheral and Jacquier asks eta (1 + |rho|) <= 2 of this law; what theorem 4.2 needs allows more."""
    model = SSVI.from_intervals([1e-6, 0.1], -0.5, 1.0, 0.5)
    assert model.eta == pytest.approx(2.0 / np.sqrt(1.5), rel=1e-4)
    assert model.eta * 1.5 > 2.0


def test_beyond_the_cap_is_not_proved() -> None:
    """So that the certificates above say something."""
    model = SSVI.from_intervals([0.01, 0.1], -0.5, 1.0, 0.5)
    wider = SSVI(model.theta, model.rho, 2.5 * model.eta, model.gamma)
    assert not check_butterfly(wider.to_raw())


def test_slices_share_rho_and_the_law() -> None:
    phi = TRUTH.psi / TRUTH.theta
    law = TRUTH.eta / (TRUTH.theta**TRUTH.gamma * (1.0 + TRUTH.theta) ** (1.0 - TRUTH.gamma))
    np.testing.assert_allclose(phi, law, rtol=1e-14)
    k = np.linspace(-1.0, 1.0, 5)
    same = ESSVI(TRUTH.theta, TRUTH.rho, TRUTH.psi)
    np.testing.assert_array_equal(TRUTH.total_variance(k), same.total_variance(k))
    assert len(TRUTH) == 6


def test_recovers_a_surface() -> None:
    fit = fit_ssvi(*quoted(), YEARS)
    assert fit.butterfly
    assert fit.calendar
    assert (fit.result == FitResult.CONVERGED).all()
    assert np.abs(fit.residuals_flat).max() * HALF < 3e-5
    assert fit.params.rho == pytest.approx(TRUTH.rho, abs=2e-3)
    assert fit.params.gamma == pytest.approx(TRUTH.gamma, abs=5e-3)
    np.testing.assert_allclose(fit.params.theta, TRUTH.theta, rtol=1e-3)
    assert (fit.atm_error > 0).all()
    assert fit.sentence.startswith("SSVI of 6 expiries: fitted; 126 quotes, 100 % within")


def test_a_start_gives_the_same_fit() -> None:
    k, vol, error = quoted(noise=3)
    cold = fit_ssvi(k, vol, error, YEARS)
    warm = fit_ssvi(k, vol, error, YEARS, start=cold.params)
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.vol(0.0), cold.vol(0.0), atol=2e-5)


def test_three_quotes_on_the_whole_surface() -> None:
    """One number an expiry: a handful of quotes makes a surface, and an expiry without any is carried along."""
    fit = fit_ssvi(*quoted(counts=[0, 1, 0, 1, 0, 1]), YEARS)
    assert fit.butterfly
    assert fit.calendar
    assert (fit.result[::2] == FitResult.SYNTHETIC).all()
    error = np.abs(fit.vol(0.0) - np.sqrt(TRUTH.theta / YEARS))
    assert error[1::2].max() < 0.004
    assert error.max() < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": [0.2, 0.1]}, "theta must increase"),
        ({"rho": -1.0}, "rho must lie between"),
        ({"eta": 0.0}, "eta must be positive"),
        ({"gamma": 1.0}, r"gamma must lie in \[0, 1\)"),
    ],
)
def test_parameters_that_are_no_surface(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"theta": [0.1, 0.2], "rho": -0.2, "eta": 1.0, "gamma": 0.5}
    with pytest.raises(InputError, match=message):
        SSVI(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (([0.0, 0.1], 0.0, 0.5, 0.5), "the first positive"),
        (([0.1], 1.0, 0.5, 0.5), "rho must lie in"),
        (([0.1], 0.0, 0.0, 0.5), "share must lie in"),
        (([0.1], 0.0, 0.5, 1.0), "gamma must lie in"),
    ],
)
def test_points_outside_the_box(point: tuple[list[float], float, float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SSVI.from_intervals(*point)


def test_bad_input() -> None:
    k, vol, error = quoted()
    with pytest.raises(InputError, match="start has 1 expiries, the quotes have 6"):
        fit_ssvi(k, vol, error, YEARS, start=SSVI([0.1], 0.0, 1.0, 0.5))
    with pytest.raises(InputError, match="years must be positive"):
        fit_ssvi(k, vol, error, YEARS - YEARS[0])
