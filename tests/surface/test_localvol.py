"""Local vol against its definition, a finite-difference price equation, and its closed form on a flat smile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.linalg import solve_banded

from tests.surface.random_surfaces import certified_surfaces, flat_surface, ssvi_surface, surface_of
from tests.surface.test_density import VOGT
from volsurf.errors import InputError
from volsurf.instruments import NANOSECONDS_PER_YEAR, FloatArray
from volsurf.iv.black import black_price
from volsurf.surface.event import EventJump
from volsurf.surface.surface import Surface


def with_event(surface: Surface, years: float, size: float) -> Surface:
    at = surface.time_ns + round(years * NANOSECONDS_PER_YEAR)
    return Surface(surface.underlying, surface.time_ns, surface.smiles, EventJump.of_size(at, size, 0.4))


@settings(max_examples=30)
@given(certified_surfaces(), st.integers(0, 2**32 - 1))
def test_it_is_positive_on_certified_surfaces(surface: Surface, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.uniform(0.001, 1.99, 2_000) * surface.years[-1]
    k = rng.standard_normal(2_000) * 4 * np.sqrt(surface.total_variance(0.0, years=times))
    vol = surface.local_vol(k=k, years=times)
    assert np.isfinite(vol).all()
    assert (vol > 0).all()


def test_flat_smile_has_its_forward_vol() -> None:
    surface = flat_surface(0.5, (10, 40, 200))
    k = np.linspace(-1, 1, 9)
    for at in surface.years[:-1]:
        np.testing.assert_allclose(surface.local_vol(k=k, years=at), 0.5, rtol=1e-9)
    np.testing.assert_allclose(surface.local_vol(k=k, years=0.5 * surface.years[0]), 0.5, rtol=1e-9)


def call(surface: Surface, k: FloatArray, years: float) -> FloatArray:
    """C/F by Black at the surface's vol."""
    return np.asarray(black_price(1.0, np.exp(k), years, surface.vol(k=k, years=years), True))


@pytest.mark.parametrize("event", [False, True])
def test_it_is_dupires_ratio_of_price_derivatives(event: bool) -> None:
    surface = ssvi_surface()
    if event:
        surface = with_event(surface, 0.05, 0.08)
    k = np.linspace(-0.4, 0.4, 9)
    for years in (0.03, 0.07, 0.18, 0.6):
        dt, h = 1e-4 * years, 1e-3
        by_time = (call(surface, k, years + dt) - call(surface, k, years - dt)) / (2 * dt)
        up, mid, down = (call(surface, k + s, years) for s in (h, 0.0, -h))
        by_k, by_k2 = (up - down) / (2 * h), (up - 2 * mid + down) / h**2
        np.testing.assert_allclose(surface.local_vol(k=k, years=years) ** 2, 2 * by_time / (by_k2 - by_k), rtol=2e-4)


def test_the_price_equation_gives_the_smile_back() -> None:
    # Forward Dupire: dC/dT = vol^2/2 (C_kk - C_k), implicit steps inside one interval between expiries.
    surface = ssvi_surface(days=(30, 90))
    start, end = surface.years
    grid = np.linspace(-2.5, 2.5, 2_001)
    h, steps = grid[1] - grid[0], 400
    price = call(surface, grid, start)
    for i in range(steps):
        years = start + (end - start) * (i + 0.5) / steps
        half = 0.5 * surface.local_vol(k=grid[1:-1], years=years) ** 2
        diffusion, drift = half / h**2, half / (2 * h)
        dt = (end - start) / steps
        band = np.zeros((3, len(grid)))
        band[1] = 1.0
        # Crank and Nicolson.
        band[0, 2:] = -0.5 * dt * (diffusion - drift)
        band[1, 1:-1] += dt * diffusion
        band[2, :-2] = -0.5 * dt * (diffusion + drift)
        explicit = price.copy()
        explicit[1:-1] += (
            0.5 * dt * (diffusion * (price[2:] - 2 * price[1:-1] + price[:-2]) - drift * (price[2:] - price[:-2]))
        )
        explicit[0], explicit[-1] = call(surface, grid[[0, -1]], start + (end - start) * (i + 1) / steps)
        price = solve_banded((1, 1), band, explicit)
    inner = np.abs(grid) < 0.5
    np.testing.assert_allclose(price[inner], call(surface, grid[inner], end), atol=2e-5)


def test_it_jumps_at_expiries_and_moves_between_them() -> None:
    surface = ssvi_surface(days=(10, 40, 200))
    t = float(surface.years[1])
    at, before, after = (surface.local_vol(k=0.1, years=t * s) for s in (1.0, 1 - 1e-9, 1 + 1e-9))
    assert at == pytest.approx(float(after), rel=1e-6)
    assert abs(before - after) > 1e-4


def test_the_event_itself_is_in_no_local_vol() -> None:
    quiet = ssvi_surface()
    surface = with_event(quiet, 0.05, 0.08)
    t = surface.event_years
    k = np.linspace(-0.3, 0.3, 7)
    np.testing.assert_allclose(surface.local_vol(k=k, years=t), quiet.local_vol(k=k, years=t), rtol=1e-12)
    later = surface.local_vol(k=k, years=t * (1 + 1e-9))
    assert np.isfinite(later).all()
    # An average of quiet local vols, not the variance of a jump in no time.
    assert (later < 1.5 * quiet.local_vol(k=k, years=t)).all()
    grid = surface.local_vol_grid()
    assert t in grid.years
    assert np.isfinite(grid.vol).all()


def test_where_there_is_arbitrage_it_is_nan() -> None:
    assert np.isnan(surface_of([1.0], VOGT).local_vol(k=0.85, years=1.0))


def test_grid() -> None:
    surface = ssvi_surface(days=(10, 40, 200))
    grid = surface.local_vol_grid(points=11, reach=3.0)
    assert grid.vol.shape == (8, 11)
    np.testing.assert_allclose(grid.years[1:-1], np.repeat(surface.years, 2))
    # Starts of intervals are limits from the right, ends from the left.
    np.testing.assert_allclose(grid.vol[2], surface.local_vol(k=grid.k[2], years=grid.years[2]), rtol=1e-9)
    np.testing.assert_allclose(grid.vol[3], surface.local_vol(k=grid.k[3], years=grid.years[3] * (1 - 1e-9)), rtol=1e-6)
    assert len(grid.to_polars()) == grid.vol.size
    np.testing.assert_allclose(grid.strike, grid.forward[:, None] * np.exp(grid.k))
    with pytest.raises(InputError, match="at least 2"):
        surface.local_vol_grid(points=1)
