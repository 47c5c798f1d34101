"""Whatever the quotes, the published surface is certified, finite where there is a curve, and nothing is raised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from tests.conftest import shared_path
from tests.svi.test_enforce import certified
from volsurf.cli._svi_slices import real_slices
from volsurf.svi._bernstein import WORK_SHAPE
from volsurf.svi._guard import anchor, guard
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.fit import Enforcement, SVIFit, fit_slices
from volsurf.svi.params import RawSVI


def garbage_surface(seed: int, **options: object) -> SVIFit:
    """Twelve expiries of random vols, levels, strikes and spreads, half of them with one to five quotes."""
    rng = np.random.default_rng(seed)
    years = np.sort(rng.uniform(0.5, 400, 12)) / 365
    k, vol, error, offsets = [], [], [], [0]
    base = rng.uniform(0.1, 3.0)
    for time in years:
        n = int(rng.integers(1, 6) if rng.random() < 0.5 else rng.integers(1, 30))
        level = rng.uniform(0.4, 2.0) * (base if rng.random() < 0.5 else rng.uniform(0.1, 3.0))
        shift = rng.normal(0, 2) if rng.random() < 0.3 else 0.0
        k.append(level * np.sqrt(time) * (rng.uniform(-3, 3, n) + shift))
        vol.append(np.clip(level * rng.uniform(0.5, 1.5, n) if rng.random() < 0.5 else rng.uniform(0.1, 3, n), 0.05, 5))
        error.append(10 ** rng.uniform(-4, -0.5, n))
        offsets.append(offsets[-1] + n)
    return fit_slices(np.concatenate(k), np.concatenate(vol), np.concatenate(error), offsets, years, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(12))
def test_garbage_ends_certified(seed: int) -> None:
    fit = garbage_surface(seed)
    assert certified(fit)
    assert np.all(np.isfinite(fit.raw))
    assert np.all(np.isfinite(fit.move))
    assert fit.solver_steps.max() <= 140
    again = garbage_surface(seed + 1000, previous=fit, smoothing=0.5, key=np.arange(12))
    assert certified(again)


def test_garbage_is_moved_no_further_than_it_takes() -> None:
    """No quote is above 500 %: neither is a curve far above, and the misfit stays within a few times what it was."""
    fits = [garbage_surface(seed) for seed in range(12)]
    assert max(float(fit.vol(0.0).max()) for fit in fits) <= 10.0
    assert np.median([fit.cost.sum() / fit.fitted_cost.sum() for fit in fits]) <= 20.0


def test_the_guard_says_so() -> None:
    fits = [garbage_surface(seed) for seed in range(4)]
    guarded = [i for fit in fits for i in np.flatnonzero(fit.enforcement == Enforcement.GUARDED)]
    assert guarded
    fit = next(fit for fit in fits if np.any(fit.enforcement == Enforcement.GUARDED))
    first = int(np.flatnonzero(fit.enforcement == Enforcement.GUARDED)[0])
    assert "do not quote" in fit.sentence(first)


finite_or_not = st.floats(width=64) | st.floats(-2, 2) | st.floats(0.05, 2.0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_arbitrary_numbers(data: st.DataObject) -> None:
    slices = data.draw(st.integers(1, 5))
    counts = data.draw(st.lists(st.integers(0, 7), min_size=slices, max_size=slices))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    n = int(offsets[-1])
    columns = [np.array(data.draw(st.lists(finite_or_not, min_size=n, max_size=n))) for _ in range(3)]
    years = np.array(data.draw(st.lists(finite_or_not, min_size=slices, max_size=slices)))
    side = np.array(data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=n, max_size=n)), np.int8)
    surface = np.array(data.draw(st.lists(st.integers(0, 1), min_size=slices, max_size=slices)))
    fit = fit_slices(*columns, offsets, years, side=side, surface=surface)
    assert certified(fit)
    assert np.all(np.isfinite(fit.raw[fit.has_curve]))
    assert np.all(np.isin(fit.enforcement[fit.has_curve], (1, 2, 3)))
    assert np.all(fit.enforcement[~fit.has_curve] == 0)
    warm = fit_slices(*columns, offsets, years, side=side, surface=surface, previous=fit, smoothing=0.7)
    assert certified(warm)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-9, 100.0), *[finite_or_not] * 5), min_size=1, max_size=6))
@example([(1.0, 0.0, 1.0, 9007199254740996.0, 8.990660659824232e307, 1.0), (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)])
def test_the_guard_certifies_anything(rows: list[tuple[float, ...]]) -> None:
    """Parameters out of nowhere, NaN and infinity among them."""
    theta = np.array([row[0] for row in rows])
    raw = np.array([row[1:] for row in rows])
    flags, work = np.zeros(len(rows), np.int8), np.empty(WORK_SHAPE)
    guard(len(rows), raw, theta, flags, work)
    assert bool(check_butterfly(RawSVI(*raw.T)))
    assert bool(check_calendar(RawSVI(*raw[:-1].T), RawSVI(*raw[1:].T)))


def test_the_guard_leaves_a_certified_slice_alone_and_copies_as_a_last_resort() -> None:
    work = np.empty(WORK_SHAPE)
    raw = np.array([[0.02, 0.1, -0.2, 0.0, 0.1], [0.02, 0.1, -0.2, 0.0, 0.1]])
    before, flags = raw.copy(), np.zeros(2, np.int8)
    guard(2, raw, np.array([0.03, 0.03]), flags, work)
    assert np.array_equal(raw, before)
    assert not flags.any()
    out = np.empty(5)
    # The slice before is no smile at all, so that no scaled copy can be proved: its own doubles are what is left.
    broken = np.array([[np.nan] * 5, [0.0] * 5])
    anchor(broken, 1, np.array([0.03, 0.03]), out, work)
    assert np.array_equal(out, broken[0], equal_nan=True)


def test_real_chains_lose_next_to_nothing() -> None:
    chains = real_slices(shared_path("data", "real", "deribit_snapshots_2026"))
    assert chains is not None
    columns = (chains.k, chains.vol, chains.error, chains.offsets, chains.years)
    fit = fit_slices(*columns, side=chains.side, surface=chains.surface)
    loose = fit_slices(*columns, side=chains.side, surface=chains.surface, enforce=False)
    assert certified(fit)
    assert not np.any(fit.enforcement == Enforcement.GUARDED)
    assert fit.cost.sum() <= 1.04 * fit.fitted_cost.sum()
    near = np.abs(chains.k) <= 4.5 * np.sqrt(fit.theta)[np.repeat(np.arange(len(chains)), np.diff(chains.offsets))]
    used = near & (chains.side == 0)
    inside = [np.mean(np.abs(f.residuals_flat[used]) <= 1.0) for f in (loose, fit)]
    assert inside[1] >= inside[0] - 0.0025
    move = np.abs(fit.residuals_flat - loose.residuals_flat)[used]
    assert np.quantile(move, 0.99) <= 0.25
    # How much farther a slice is from its mids than the fit to quotes alone. Over all snapshots the bar is 20 bp at the 99th
    # percentile (measured 16); two of these six are of a crash, with half-spreads of hundreds.
    bp = 1e4 * chains.error[used]
    slice_of = np.repeat(np.arange(len(chains)), np.diff(chains.offsets))[used]
    rmse = [
        np.sqrt(np.bincount(slice_of, (f.residuals_flat[used] * bp) ** 2) / np.bincount(slice_of)) for f in (fit, loose)
    ]
    assert np.nanquantile(rmse[0] - rmse[1], 0.99) <= 40
