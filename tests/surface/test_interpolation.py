"""Vols between and beyond expiries: in calendar order, continuous, free of butterfly arbitrage, on random certified surfaces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st

from tests.surface.random_surfaces import NOW, certified_surfaces, realistic, surface_of
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.surface.event import EventJump
from volsurf.surface.interpolation import (
    INTERVAL,
    NOTHING,
    THEOREM,
    Late,
    Rules,
    durrleman,
    late_rule,
    rules,
    variance_derivatives,
    variance_per_year,
)
from volsurf.surface.surface import Surface
from volsurf.svi.params import RawSVI

Floats = npt.NDArray[np.float64]


def scan(surface: Surface, n: int = 50) -> Floats:
    """Log-moneynesses out to six standard deviations of the last expiry, shape (1, n)."""
    return np.sqrt(surface.total_variance(0.0, years=surface.years[-1])) * np.linspace(-6, 6, n)[None, :]


def with_rules(surface: Surface, mixed: bool = True, late: Late = Late.SHIFTED) -> Surface:
    """The surface, made to mix prices between all expiries: what it does where a blend cannot be proved."""
    n = len(surface.fitted) - 1
    surface.cache.update(interpolation=Rules(np.full(n, mixed), (THEOREM,) * n), late=late)
    return surface


@settings(max_examples=40)
@given(certified_surfaces(least=2), st.booleans(), st.sampled_from(Late))
def test_total_variance_rises_in_time_at_every_strike(surface: Surface, mixed: bool, late: Late) -> None:
    if mixed or late is not Late.SHIFTED:
        with_rules(surface, mixed, late)
    times = np.unique(
        np.concatenate([np.geomspace(1e-3 * surface.years[0], 2 * surface.years[-1], 190), surface.years])
    )
    w = surface.total_variance(scan(surface), years=times[:, None])
    assert (np.diff(w, axis=0) >= -1e-12 * w[1:]).all()


@settings(max_examples=40)
@given(certified_surfaces(least=2), st.booleans())
def test_no_butterfly_arbitrage_between_and_beyond(surface: Surface, mixed: bool) -> None:
    if mixed:
        with_rules(surface)
    t = surface.years
    inside = np.concatenate([a + (b - a) * np.array([0.01, 0.3, 0.7, 0.99]) for a, b in pairwise(t)])
    times = np.concatenate([t[:1] * [1e-3, 0.5], inside, t[-1:] * [1.01, 1.5, 2.0]])[:, None]
    k = np.sqrt(surface.total_variance(0.0, years=times)) * np.linspace(-8, 8, 161)
    assert durrleman(k, *variance_derivatives(surface, k, times)).min() > -1e-9


@settings(max_examples=30)
@given(certified_surfaces(least=2), st.booleans())
def test_at_the_money_total_variance_is_linear_in_time_between_expiries(surface: Surface, mixed: bool) -> None:
    if mixed:
        with_rules(surface)
    a, b = surface.years[:2]
    w = surface.total_variance(0.0, years=[a, 0.7 * a + 0.3 * b, b])
    assert w[1] == pytest.approx(0.7 * w[0] + 0.3 * w[2], rel=1e-9)


@settings(max_examples=30)
@given(certified_surfaces(least=2), st.booleans(), st.sampled_from(Late))
def test_vols_are_continuous_at_every_expiry(surface: Surface, mixed: bool, late: Late) -> None:
    with_rules(surface, mixed, late)
    for t in surface.years:
        # A mixture leaves an expiry steeply in the wings, where the far smile's prices dwarf the near one's.
        k = np.sqrt(surface.total_variance(0.0, years=t)) * np.linspace(-1.5, 1.5, 31) * (1.0 if mixed else 4.0)
        before, at, after = surface.total_variance(k, years=np.array([t * (1 - 1e-9), t, t * (1 + 1e-9)])[:, None])
        np.testing.assert_allclose(before, at, rtol=1e-5)
        np.testing.assert_allclose(after, at, rtol=1e-5)


@settings(max_examples=30)
@given(certified_surfaces(least=2, first=1e-3), st.booleans(), st.sampled_from(Late))
def test_derivatives_are_those_of_the_total_variance(surface: Surface, mixed: bool, late: Late) -> None:
    """H5: no clamp anywhere, w' is continuous, and w' and w'' are what differences of w give."""
    with_rules(surface, mixed, late)
    t = surface.years
    times = np.array([0.4 * t[0], t[0], 0.6 * t[0] + 0.4 * t[1], t[-1], 1.6 * t[-1]])[:, None]
    deviation = np.sqrt(surface.total_variance(0.0, years=times))
    k = deviation * np.linspace(-5, 5, 41)
    step = 1e-4 * deviation
    w, slope, curvature = variance_derivatives(surface, k, times)
    up, down = (variance_derivatives(surface, k + s * step, times) for s in (1.0, -1.0))
    unit = np.sqrt(1 + np.square(k / deviation))
    sigma = np.repeat(surface.svi.sigma.min(), 1)
    smooth = np.minimum(1.0, (sigma / deviation)) ** 2  # a narrow bottom makes differences coarse
    assert (np.abs((up[0] - down[0]) / (2 * step) - slope) <= 1e-6 * (np.abs(slope) + deviation * unit) / smooth).all()
    assert (np.abs((up[1] - down[1]) / (2 * step) - curvature) <= 1e-5 * (1 + np.abs(curvature)) / smooth).all()
    assert (w > 0).all()


@settings(max_examples=30)
@given(certified_surfaces(least=2, first=1e-3), st.booleans(), st.sampled_from(Late))
def test_variance_per_year_is_the_derivative_from_the_right(surface: Surface, mixed: bool, late: Late) -> None:
    with_rules(surface, mixed, late)
    t = surface.years
    times = np.array([0.4 * t[0], t[0], 0.6 * t[0] + 0.4 * t[1], t[-1], 1.6 * t[-1]])[:, None]
    k = np.sqrt(surface.total_variance(0.0, years=times)) * np.linspace(-1, 1, 33) * (1.0 if mixed else 4.0)
    step = 1e-6 * times
    w = surface.total_variance(k, years=times)
    rate = (surface.total_variance(k, years=times + step) - w) / step
    np.testing.assert_allclose(
        variance_per_year(surface, k, times), rate, rtol=2e-3, atol=float((1e-8 * w / times).max())
    )


def test_ordinary_surfaces_are_blended_and_proved() -> None:
    surface = realistic()
    found = rules(surface)
    assert not found.mixed.any()
    assert set(found.evidence) == {INTERVAL}
    assert late_rule(surface) is Late.SHIFTED


def test_intervals_of_uncertified_slices_are_blended_without_a_claim() -> None:
    # Vogt's slice between two that lie below and above it.
    svi = RawSVI([-0.0205, -0.0410, 0.3], 0.1331, 0.3060, 0.3586, [0.2077, 0.4153, 0.4153])
    surface = surface_of([0.5, 1.0, 2.0], svi)
    assert not surface.certificate
    found = rules(surface)
    assert not found.mixed.any()
    assert NOTHING in found.evidence
    assert np.isfinite(surface.vol(k=0.0, years=1.2))


def test_the_mixture_lies_above_the_blend_in_the_wings_and_on_it_at_the_money() -> None:
    blend, mixed = realistic(), with_rules(realistic())
    at = 0.5 * (blend.years[6] + blend.years[7])
    deviation = float(np.sqrt(blend.total_variance(0.0, years=at)))
    k = deviation * np.array([-3.0, 0.0, 3.0])
    gap = mixed.vol(k=k, years=at) - blend.vol(k=k, years=at)
    assert abs(gap[1]) < 1e-12
    assert (gap[[0, 2]] > 1e-4).all()


def test_the_mixture_prices_what_it_mixes() -> None:
    from volsurf.iv.black import black_price

    surface = with_rules(realistic())
    a, b = surface.years[4:6]
    k = np.linspace(-0.3, 0.3, 13)
    strike = np.exp(k)

    def calls(years: float) -> Floats:
        return black_price(1.0, strike, years, surface.vol(k=k, years=years), True)

    middle = calls(0.5 * (a + b))
    q = (middle - calls(a)) / (calls(b) - calls(a))
    np.testing.assert_allclose(q, q[6], rtol=1e-9)
    assert 0.4 < q[6] < 0.6


def test_a_listed_expiry_is_its_slice_to_the_last_bit() -> None:
    surface = realistic()
    k = np.linspace(-1, 1, 21)
    for i, years in enumerate(surface.years):
        one = surface.total_variance(k, years=years)
        np.testing.assert_allclose(one, surface.svi[i].total_variance(k), rtol=1e-14)
        both = surface.total_variance(k, years=np.array([years, 0.5 * surface.years[0]])[:, None])
        np.testing.assert_array_equal(both[0], one)


def test_shapes_broadcast() -> None:
    surface = realistic()
    times = np.array([0.001, 0.01, 0.1, 1.0, 1.5])
    k = np.linspace(-0.5, 0.5, 7)
    grid = surface.vol(k=k, years=times[:, None])
    assert grid.shape == (5, 7)
    for i, t in enumerate(times):
        np.testing.assert_array_equal(surface.vol(k=k, years=t), grid[i])
    assert surface.vol(k=k[:5], years=times).shape == (5,)
    assert surface.vol(k=0.1, years=0.1).shape == ()
    assert surface.vol(k=np.zeros((2, 1, 3)), years=times[:, None]).shape == (2, 5, 3)


def test_many_times_are_answered_like_few() -> None:
    surface = realistic()
    rng = np.random.default_rng(1)
    k, times = rng.normal(size=5000) * 0.3, rng.uniform(1e-3, 2.0, 5000)
    many = surface.vol(k=k, years=times)
    np.testing.assert_array_equal(many[:2000], surface.vol(k=k[:2000], years=times[:2000]))
    np.testing.assert_array_equal(many[-700:], surface.vol(k=k[-700:], years=times[-700:]))
    assert surface.vol(k=0.1, years=times.reshape(50, 100)).shape == (50, 100)
    np.testing.assert_allclose(many**2 * times, variance_derivatives(surface, k, times)[0], rtol=1e-14)


@pytest.mark.parametrize("mixed", [False, True])
def test_an_event_keeps_the_surface_free_of_arbitrage(mixed: bool) -> None:
    quiet = realistic()
    jump = EventJump.of_size(NOW + int(0.1 * NANOSECONDS_PER_YEAR), 0.06)
    surface = Surface("BTC", quiet.time_ns, quiet.smiles, jump)
    if mixed:
        with_rules(surface)
        with_rules(surface.without_event())
    times = np.array([0.05, 0.099, 0.101, 0.15, 0.5, 1.0, 1.5])[:, None]
    k = scan(surface)
    w = surface.total_variance(k, years=times)
    np.testing.assert_allclose(w[:2], surface.without_event().total_variance(k, years=times[:2]), rtol=1e-12)
    assert (w[2:, 15:35] > surface.without_event().total_variance(k, years=times[2:])[:, 15:35]).all()
    assert (np.diff(w, axis=0) > 0).all()
    assert durrleman(k, *variance_derivatives(surface, k, times)).min() > -1e-9
    step = 1e-5
    rate = (surface.total_variance(k, years=times + step) - surface.total_variance(k, years=times)) / step
    np.testing.assert_allclose(variance_per_year(surface, k, times), rate, rtol=1e-3)
    view = surface.slice_at(years=0.5)
    assert view.certificate
    assert view.svi is None
    np.testing.assert_allclose(view.vol(k), surface.vol(k=k, years=0.5), rtol=1e-12)
    delta = surface.nodes()
    np.testing.assert_allclose(surface.vol(k=delta.k, years=surface.years[:, None]), delta.vol, rtol=1e-12)
