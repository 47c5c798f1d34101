"""Strikes of deltas: every delta asked for comes back, on the right branch, or NaN where there is none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import log_ndtr, ndtr

from tests.surface.random_surfaces import certified_surfaces, surface_of
from volsurf.errors import InputError
from volsurf.surface.surface import Surface
from volsurf.svi.params import RawSVI

DELTAS = np.array([-0.99, -0.5, -0.25, -0.1, -0.01, -1e-4, 1e-4, 0.01, 0.05, 0.1, 0.25, 0.4, 0.5, 0.75, 0.99])
Floats = npt.NDArray[np.float64]


def delta_at(surface: Surface, k: Floats, years: Floats, call: npt.NDArray[np.bool_], adjusted: bool) -> Floats:
    """The textbook formula."""
    root = np.sqrt(surface.total_variance(k, years=years))
    d1 = -k / root + 0.5 * root
    d2 = d1 - root
    if adjusted:
        return np.asarray(np.where(call, np.exp(k + log_ndtr(d2)), -np.exp(np.minimum(k + log_ndtr(-d2), 9.0))))
    return np.asarray(np.where(call, ndtr(d1), -ndtr(-d1)))


def times_of(surface: Surface) -> Floats:
    """Listed, between, before and after."""
    t = surface.years
    return np.concatenate([t, 0.5 * (t[1:] + t[:-1]), t[:1] * [0.9, 0.1], t[-1:] * [1.01, 1.9]])


@settings(max_examples=60)
@given(certified_surfaces())
def test_forward_deltas_come_back(surface: Surface) -> None:
    at = times_of(surface)[:, None]
    k = surface.log_moneyness(delta=DELTAS, years=at)
    assert k.shape == (len(at), len(DELTAS))
    assert np.abs(delta_at(surface, k, at, DELTAS > 0, False) - DELTAS).max() < 1e-10


@settings(max_examples=60)
@given(certified_surfaces())
def test_premium_adjusted_deltas_come_back_on_the_right_branch(surface: Surface) -> None:
    at = times_of(surface)[:, None]
    call = DELTAS > 0
    k = surface.log_moneyness(delta=DELTAS, years=at, premium_adjusted=True)
    found = np.isfinite(k)
    assert found[:, ~call].all()
    missed = np.abs(delta_at(surface, np.nan_to_num(k), at, call, True) - DELTAS)
    assert missed[found].max() < 1e-10
    # On the right branch the delta falls with the strike.
    root = np.sqrt(surface.total_variance(np.nan_to_num(k), years=at))
    step = 1e-4 * root
    falls = delta_at(surface, k + step, at, call, True) <= delta_at(surface, k, at, call, True)
    assert falls[found & call].all()
    # Where there is none, no strike of a fine scan has it.
    scan = np.sqrt(surface.total_variance(0.0, years=at)) * np.linspace(-12, 6, 2000)
    highest = delta_at(surface, scan, at, np.array(True), True).max(axis=1)
    wanted = np.broadcast_to(DELTAS, k.shape)
    assert (wanted[~found] > np.broadcast_to(highest[:, None], k.shape)[~found] - 1e-9).all()


def test_unreachable_delta_is_nan_and_its_neighbours_are_not() -> None:
    # A flat vol of 100 % over a year: the premium-adjusted call delta never exceeds 0.39.
    surface = surface_of([1.0], RawSVI([1.0], [0.0], [0.0], [0.0], [1.0]))
    vol = surface.vol(delta=[0.1, 0.25, 0.6], years=1.0, premium_adjusted=True)
    assert np.isnan(vol).tolist() == [False, False, True]
    assert np.isfinite(surface.vol(delta=0.6, years=1.0))


@settings(max_examples=30)
@given(certified_surfaces(), st.floats(0.02, 0.45))
def test_strikes_of_falling_call_deltas_rise(surface: Surface, delta: float) -> None:
    k = surface.log_moneyness(delta=[-delta / 2, -delta, delta, delta / 2], years=times_of(surface)[:, None])
    assert (np.diff(k, axis=1) > 0).all()


def test_delta_neutral_straddle_is_the_half_delta() -> None:
    surface = surface_of([0.25], RawSVI([0.02], [0.1], [-0.3], [0.0], [0.2]))
    from volsurf.surface.delta import straddle_log_moneyness

    k = straddle_log_moneyness(surface, surface.years, False)
    np.testing.assert_allclose(k, 0.5 * surface.total_variance(k, years=surface.years), rtol=1e-12)
    np.testing.assert_allclose(k, surface.log_moneyness(delta=0.5, years=surface.years), rtol=1e-12)
    adjusted = straddle_log_moneyness(surface, surface.years, True)
    np.testing.assert_allclose(adjusted, -0.5 * surface.total_variance(adjusted, years=surface.years), rtol=1e-12)


def test_strike_is_the_forward_times_the_exponential() -> None:
    surface = surface_of([0.25], RawSVI([0.02], [0.1], [-0.3], [0.0], [0.2]))
    k = surface.log_moneyness(delta=-0.25, years=0.2)
    assert surface.strike(delta=-0.25, years=0.2) == pytest.approx(float(surface.forward(years=0.2) * np.exp(k)))
    assert surface.log_moneyness(strike=surface.strike(k=0.1, years=0.2), years=0.2) == pytest.approx(0.1)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, 25.0, float("nan"), [0.25, 0.0]])
def test_what_is_no_delta_is_refused(delta: npt.ArrayLike) -> None:
    surface = surface_of([0.25], RawSVI([0.02], [0.1], [-0.3], [0.0], [0.2]))
    with pytest.raises(InputError, match="deltas must lie between -1 and 1"):
        surface.vol(delta=delta, years=0.25)


def test_a_slice_without_vol_gives_nan_not_an_exception() -> None:
    surface = surface_of([0.25], RawSVI([-0.02], [0.1], [-0.3], [0.0], [0.1]))  # total variance < 0 at the money
    assert np.isnan(surface.nodes().vol).all()
    assert set(surface.nodes().to_polars()["status"]) == {"no_vol"}
