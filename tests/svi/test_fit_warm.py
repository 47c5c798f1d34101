"""The fit from frame to frame: warm starts, keys, new expiries, the iteration budget, and the same bits for the same input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.svi.smile_quotes import Quotes, fitted_vol, smile_surfaces
from volsurf.errors import InputError
from volsurf.svi.fit import FitResult, SVIFit, fit_slices


@pytest.fixture(scope="module")
def quotes() -> Quotes:
    return smile_surfaces(2, seed=1, noise=0.35)


@pytest.fixture(scope="module")
def fit(quotes: Quotes) -> SVIFit:
    return quotes.fit()


def same(left: SVIFit, right: SVIFit) -> bool:
    """Bit for bit."""
    return all(
        np.array_equal(getattr(left, f.name), getattr(right, f.name), equal_nan=True) for f in dataclasses.fields(left)
    )


def test_the_same_input_gives_the_same_bits(quotes: Quotes, fit: SVIFit) -> None:
    assert same(quotes.fit(), fit)
    assert same(quotes.fit(previous=fit), quotes.fit(previous=fit))


def test_a_slice_does_not_depend_on_the_rest_of_the_batch(quotes: Quotes, fit: SVIFit) -> None:
    half = len(quotes) // 2
    end = int(quotes.offsets[half])
    first = fit_slices(
        quotes.k[:end], quotes.vol[:end], quotes.error[:end], quotes.offsets[: half + 1], quotes.years[:half],
        surface=quotes.surface[:half],
    )  # fmt: skip
    assert np.array_equal(first.raw, fit.raw[:half])


def test_warm_equals_cold() -> None:
    quotes = smile_surfaces(12, seed=8, noise=0.35)
    cold = quotes.fit()
    rng = np.random.default_rng(0)
    moved = dataclasses.replace(
        quotes,
        k=quotes.k + 0.002,
        vol=quotes.vol * (1.0 + 0.02 * rng.normal()) + rng.uniform(-0.2, 0.2, quotes.k.size) * quotes.error,
        years=quotes.years - 1e-5,
    )
    warm, fresh = moved.fit(previous=cold), moved.fit()
    y = moved.k / np.sqrt(fresh.theta)[moved.slice_of]
    away = (np.abs(fitted_vol(warm, moved) - fitted_vol(fresh, moved)) / moved.error)[np.abs(y) <= 2]
    assert np.median(away) <= 0.005
    assert np.percentile(away, 99) <= 0.1
    assert warm.iterations.mean() < 0.6 * fresh.iterations.mean()


def test_refitting_the_same_quotes_again_and_again_settles(quotes: Quotes, fit: SVIFit) -> None:
    last = fit
    for _ in range(8):
        before, last = last, quotes.fit(previous=last)
    moved = np.abs(fitted_vol(last, quotes) - fitted_vol(before, quotes)) / quotes.error
    assert moved.max() < 0.02
    assert last.iterations.max() <= 6


def test_a_slice_finds_its_past_by_key(quotes: Quotes) -> None:
    expiries = np.arange(len(quotes)) * 1000 + 7
    first = quotes.fit(key=expiries)
    straight = quotes.fit(key=expiries, previous=first)
    keep = np.delete(np.arange(len(quotes)), [0, 12])
    rows = np.isin(quotes.slice_of, keep)
    later = fit_slices(
        quotes.k[rows], quotes.vol[rows], quotes.error[rows],
        np.concatenate(([0], np.cumsum(np.diff(quotes.offsets)[keep]))), quotes.years[keep],
        surface=quotes.surface[keep], key=expiries[keep], previous=first, enforce=False,
    )  # fmt: skip
    # Far from the slices that left, the neighbours and so the bits are the same.
    assert np.array_equal(later.raw[[4, 9, 15, 20]], straight.raw[keep[[4, 9, 15, 20]]])
    with pytest.raises(InputError, match="key"):
        fit_slices(
            quotes.k[rows], quotes.vol[rows], quotes.error[rows],
            np.concatenate(([0], np.cumsum(np.diff(quotes.offsets)[keep]))), quotes.years[keep], previous=first,
        )  # fmt: skip


def test_a_new_expiry_starts_cold_beside_warm_ones(quotes: Quotes, fit: SVIFit) -> None:
    known = np.delete(np.arange(len(quotes)), 6)
    past = dataclasses.replace(
        fit, result=np.where(np.arange(len(quotes)) == 6, FitResult.NO_DATA, fit.result).astype(np.int8)
    )
    mixed = quotes.fit(previous=past)
    warm = quotes.fit(previous=fit)
    away = np.abs(fitted_vol(mixed, quotes) - fitted_vol(warm, quotes)) / quotes.error
    assert away.max() < 0.1
    assert mixed.iterations[6] > warm.iterations[6]
    assert np.median(mixed.iterations[known]) <= np.median(warm.iterations) + 1


def test_a_given_prior_centre_replaces_the_neighbours(quotes: Quotes, fit: SVIFit) -> None:
    centre = fit.prior_centre + 0.25
    centre[3] = np.nan
    steered = quotes.fit(prior_centre=centre, previous=fit)
    others = np.arange(len(quotes)) != 3
    assert np.array_equal(steered.prior_centre[others], centre[others])
    assert np.all(np.isfinite(steered.prior_centre[3]))


def test_the_iteration_budget_is_kept_and_reported(quotes: Quotes) -> None:
    hurried = quotes.fit(max_passes=2)
    assert np.all(hurried.result == FitResult.NOT_CONVERGED)
    assert np.all(np.isfinite(hurried.raw))
    assert hurried.iterations.max() <= 2 * (2 + 1)
