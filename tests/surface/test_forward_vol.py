"""Forward vols: they add up, are what a straddle of expiries says, and carry the errors of both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.surface.random_surfaces import certified_surfaces, flat_surface, ssvi_surface, surface_of
from volsurf.errors import InputError
from volsurf.surface.slices import expiry_label
from volsurf.surface.surface import Surface
from volsurf.svi.params import RawSVI


@settings(max_examples=30)
@given(certified_surfaces(), st.integers(0, 2**32 - 1))
def test_never_missing_on_certified_surfaces(surface: Surface, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0.0, 1.99, (2, 1_000)), axis=0) * surface.years[-1]
    k = rng.standard_normal(1_000) * 3 * np.sqrt(surface.total_variance(0.0, years=times[1]))
    assert (surface.forward_vol(times[0], times[1] + 1e-6, k) >= 0).all()


def test_variances_add_up() -> None:
    surface = ssvi_surface()
    table = surface.forward_vols(k=0.05)
    total = np.cumsum(table.vol**2 * (table.end_years - table.start_years))
    np.testing.assert_allclose(total, surface.total_variance(0.05, years=surface.years), rtol=1e-12)
    np.testing.assert_allclose(
        surface.forward_vol(0.0, surface.years[2], 0.05), surface.vol(k=0.05, years=surface.years[2])
    )
    assert table.start_ns[0] == surface.time_ns
    assert table.free.all()


def test_flat_smiles() -> None:
    surface = flat_surface(0.5, (10, 40, 200))
    np.testing.assert_allclose(surface.forward_vols().vol, 0.5, rtol=1e-10)


def test_errors_of_both_ends_go_in() -> None:
    surface = ssvi_surface(atm_error=0.003)
    table = surface.forward_vols()
    errors = [surface.forward_vol(0.0, t) for t in surface.years]
    assert table.error[0] > 0
    # By finite differences of independent shifts of each expiry's vol.
    from volsurf.surface.uncertainty import vol_error

    each = vol_error(surface, np.asarray(0.0), surface.years)
    for i in range(1, len(surface)):
        t1, t2 = surface.years[i - 1 : i + 1]

        def forward(v1: float, v2: float, t1: float = t1, t2: float = t2) -> float:
            return float(np.sqrt((v2**2 * t2 - v1**2 * t1) / (t2 - t1)))

        v1, v2, h = float(errors[i - 1]), float(errors[i]), 1e-6
        by_1 = (forward(v1 + h, v2) - forward(v1 - h, v2)) / (2 * h)
        by_2 = (forward(v1, v2 + h) - forward(v1, v2 - h)) / (2 * h)
        assert table.error[i] == pytest.approx(float(np.hypot(by_1 * each[i - 1], by_2 * each[i])), rel=1e-5)
    assert "±" in table._repr_html_()
    assert table.to_polars().shape == (len(surface), 8)


def test_times_in_every_spelling() -> None:
    surface = ssvi_surface()
    a, b = (int(e) for e in surface.expiries[1:3])
    wanted = surface.forward_vol(float(surface.years[1]), float(surface.years[2]))
    for start, end in (
        (a, b),
        (expiry_label(a), expiry_label(b)),
        (np.datetime64(a, "ns"), np.datetime64(b, "ns")),
    ):
        assert surface.forward_vol(start, end) == pytest.approx(float(wanted), rel=1e-12)
    assert surface.forward_vol(0, "1M") == surface.vol(k=0.0, tenor="1M")
    assert surface.forward_vol("1W", "1M") == surface.forward_vol(7 / 365, 30 / 365)
    assert surface.forward_vol([0.0, 0.1], 0.2).shape == (2,)


def test_calendar_arbitrage_has_no_forward_vol() -> None:
    surface = surface_of([30 / 365, 60 / 365], RawSVI([0.05, 0.03], 0.02, 0.0, 0.0, 0.2))
    table = surface.forward_vols()
    assert np.isnan(table.vol[1])
    assert list(table.free) == [True, False]


def test_refusals() -> None:
    surface = ssvi_surface()
    with pytest.raises(InputError, match="end after its start"):
        surface.forward_vol("1M", "1W")
    with pytest.raises(InputError, match="horizon"):
        surface.forward_vol(0.1, 9.0)
    with pytest.raises(InputError, match="no expiry"):
        surface.forward_vol("26DEC29", "27DEC29")
