"""Enforcement: every published surface certified, moved as little as its quotes allow, and left alone where nothing is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.svi.oracles import VOGT
from tests.svi.smile_quotes import Quotes, fitted_vol, smile_surfaces
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.fit import Continuation, Enforcement, FitResult, SVIFit, fit_slices, fit_svi
from volsurf.svi.params import RawSVI

DAY = 1 / 365


def certified(fit: SVIFit) -> bool:
    """Every curve and every pair of consecutive curves, from the published doubles."""
    return bool(np.all(fit.butterfly.proved[fit.has_curve])) and bool(fit.calendar)


@pytest.fixture(scope="module")
def clean() -> Quotes:
    """Surfaces of which most fits are free of arbitrage as they stand."""
    return smile_surfaces(6, seed=1, noise=0.35)


@pytest.fixture(scope="module")
def crossed() -> Quotes:
    """Surfaces with one expiry quoted far too high."""
    quotes = smile_surfaces(2, seed=3, noise=0.35)
    for i in (5, 17):
        quotes.vol[quotes.offsets[i] : quotes.offsets[i + 1]] *= 1.3
    return quotes


# Certified, and only as far as it takes.


def test_a_crossed_surface_is_moved_until_it_is_certified(crossed: Quotes) -> None:
    loose = crossed.fit()
    assert not certified(loose)
    fit = crossed.fit(enforce=True)
    assert certified(fit)
    assert np.all(fit.solver_steps > 0)
    assert fit.enforcement.max() == Enforcement.MOVED
    moved = fit.enforcement == Enforcement.MOVED
    assert moved[5]
    assert moved[17]
    assert np.all(fit.move[moved] > 0)
    # The rest of the fit is the fit to quotes alone.
    assert np.array_equal(fit.fitted_raw, loose.raw)
    assert np.array_equal(fit.fitted_scaled, loose.scaled)
    assert np.array_equal(fit.fitted_cost, loose.cost)
    assert np.array_equal(fit.result, loose.result)
    assert np.array_equal(fit.use_flat, loose.use_flat)
    assert fit.cost.sum() > fit.fitted_cost.sum()


def test_statistics_are_those_of_the_published_curve(crossed: Quotes) -> None:
    fit = crossed.fit(enforce=True)
    r = (fitted_vol(fit, crossed) - crossed.vol) / crossed.error
    assert np.allclose(fit.residuals_flat, r, atol=1e-7)
    r[fit.use_flat != 0] = 0.0
    assert np.allclose(fit.rms, np.sqrt(np.add.reduceat(r * r, crossed.offsets[:-1]) / fit.n_used), atol=1e-7)
    away = np.abs(fitted_vol(fit, crossed) - fitted_vol(crossed.fit(), crossed))
    away[fit.use_flat != 0] = 0.0
    assert np.allclose(fit.move, np.maximum.reduceat(away, crossed.offsets[:-1]), atol=1e-9)


def test_a_certified_surface_is_published_as_it_was_fitted(clean: Quotes) -> None:
    loose, fit = clean.fit(), clean.fit(enforce=True)
    near = loose.calendar_pairs[0]
    good = [
        s
        for s in range(6)
        if loose.butterfly.proved[clean.surface == s].all() and loose.calendar.proved[clean.surface[near] == s].all()
    ]
    assert good
    mine = np.isin(clean.surface, good)
    assert np.array_equal(fit.raw[mine], loose.raw[mine])
    assert np.all(fit.enforcement[mine] == Enforcement.AS_FITTED)
    assert np.all(fit.solver_steps[mine] == 0)
    assert np.all(fit.move[mine] == 0.0)
    assert certified(fit)


def test_unchanged_quotes_publish_the_same_doubles(crossed: Quotes, clean: Quotes) -> None:
    for quotes in (crossed, clean):
        fit = quotes.fit(enforce=True, enforcement_tolerance=5e-4)
        for _ in range(4):
            last, fit = fit, quotes.fit(enforce=True, previous=fit)
        assert np.array_equal(fit.raw, last.raw)
        assert certified(fit)
        # An hour's decay with the same vols: still the optimum, hence the same vols.
        later = fit_slices(
            quotes.k,
            quotes.vol,
            quotes.error,
            quotes.offsets,
            quotes.years - 5e-6,
            surface=quotes.surface,
            previous=fit,
        )
        assert certified(later)
        assert np.abs(later.vol(0.0) - fit.vol(0.0)).max() < 1e-5


def test_what_a_stale_expiry_does_to_its_neighbours() -> None:
    for factor in (0.8, 0.9, 0.95, 1.05, 1.1, 1.2):
        quotes = smile_surfaces(2, seed=11, noise=0.35)
        stale = np.isin(quotes.slice_of, (6, 18))
        honest = quotes.fit(enforce=True)
        quotes.vol[stale] *= factor
        fit = quotes.fit(enforce=True)
        assert certified(fit)
        assert not np.any(fit.enforcement == Enforcement.GUARDED)
        move = np.abs(fitted_vol(fit, quotes) - fitted_vol(honest, quotes)) / quotes.error
        assert np.mean(move[~stale] > 1.0) <= 0.2, factor
        # Neither the label nor the misfit of the offender goes unreported.
        if factor in (0.8, 1.2):
            assert fit.rms[[6, 18]].min() > np.median(fit.rms)


def test_an_inverted_front_expiry_gives_way_by_its_precision() -> None:
    """Total variance falls from the first expiry to the second: the tightly quoted one stays, the loose one moves."""
    k = np.linspace(-0.15, 0.15, 21)
    for tight in (0, 1):
        error = np.full((2, 21), 0.02)
        error[tight] = 0.001
        vol = np.array([0.8 + 0.5 * k**2, 0.5 + 0.4 * k**2])
        fit = fit_svi([k, k], list(vol), list(error), years=[2 * DAY, 4 * DAY])
        assert certified(fit)
        moves = np.abs(fit.vol(k) - vol).max(axis=1)
        assert moves[tight] < 0.2 * moves[1 - tight]


def test_publish_read_back_and_certify_again(crossed: Quotes) -> None:
    fit = crossed.fit(enforce=True)
    back = np.array(json.loads(json.dumps(fit.raw.tolist())))
    assert np.array_equal(back, fit.raw)
    svi = RawSVI(*back.T)
    assert bool(check_butterfly(svi))
    near, far = fit.calendar_pairs
    assert bool(check_calendar(RawSVI(*back[near].T), RawSVI(*back[far].T)))


def test_the_same_input_gives_the_same_bits(crossed: Quotes) -> None:
    first, again = crossed.fit(enforce=True), crossed.fit(enforce=True)
    assert np.array_equal(first.raw, again.raw)
    shuffled = np.random.default_rng(0).permutation(len(crossed))
    pieces = [np.split(a, crossed.offsets[1:-1]) for a in (crossed.k, crossed.vol, crossed.error)]
    mixed = fit_svi(
        *([piece[i] for i in shuffled] for piece in pieces),
        years=crossed.years[shuffled],
        surface=crossed.surface[shuffled],
    )
    assert np.array_equal(mixed.raw, first.raw[shuffled])


# Continued.


def test_warm_ends_where_cold_ends(crossed: Quotes) -> None:
    rng = np.random.default_rng(4)
    before = Quotes(**(vars(crossed) | {"vol": crossed.vol + crossed.error * rng.uniform(-0.3, 0.3, crossed.k.size)}))
    past = before.fit(enforce=True)
    cold = crossed.fit(enforce=True, enforcement_tolerance=2e-5)
    warm = crossed.fit(enforce=True, enforcement_tolerance=2e-5, previous=past, prior_centre=cold.prior_centre)
    cold = crossed.fit(enforce=True, enforcement_tolerance=2e-5, prior_centre=cold.prior_centre)
    assert certified(warm)
    away = np.abs(fitted_vol(warm, crossed) - fitted_vol(cold, crossed)) / crossed.error
    assert np.quantile(away, 0.95) < 0.05
    assert away.max() < 0.5


def test_five_numbers_are_enough_to_continue(crossed: Quotes) -> None:
    past = crossed.fit(enforce=True)
    light = Continuation(past.key, past.years, past.raw, past.result)
    fit, full = (crossed.fit(enforce=True, previous=p) for p in (light, past))
    assert certified(fit)
    away = np.abs(fitted_vol(fit, crossed) - fitted_vol(full, crossed)) / crossed.error
    assert away.max() < 0.1
    assert past.continuation.fitted_raw is past.fitted_raw


def test_after_ten_minutes_a_fit_starts_afresh(crossed: Quotes) -> None:
    past = crossed.fit(enforce=True)
    old = Continuation(past.key, past.years + 601 / 31_536_000, past.raw, past.result)
    assert np.array_equal(crossed.fit(enforce=True, previous=old).raw, crossed.fit(enforce=True).raw)


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
@pytest.mark.parametrize("wrong", [1e4, 1e10])
def test_good_quotes_are_followed_at_once_after_a_wrong_curve(crossed: Quotes, wrong: float, smoothing: float) -> None:
    """A last curve far above every quote, as nonsense leaves it, is no place to start from."""
    cold = crossed.fit(enforce=True)
    raw = cold.raw.copy()
    raw[:, 0] += wrong * cold.theta
    past = Continuation(cold.key, cold.years, raw, cold.result, cold.fitted_raw)
    fit = crossed.fit(enforce=True, previous=past, smoothing=smoothing)
    assert certified(fit)
    away = np.abs(fitted_vol(fit, crossed) - fitted_vol(cold, crossed)) / crossed.error
    assert away.max() < 0.5


# Few quotes, none, and nonsense.


@pytest.mark.parametrize("empty", [[4], [0], [11], [0, 1, 2], list(range(1, 12)), [*range(5), *range(6, 12)]])
def test_expiries_without_quotes_take_part(empty: list[int]) -> None:
    quotes = smile_surfaces(1, seed=2, noise=0.3)
    vol = np.where(np.isin(quotes.slice_of, empty), np.nan, quotes.vol)
    fit = fit_slices(quotes.k, vol, quotes.error, quotes.offsets, quotes.years)
    assert np.all(fit.result[empty] == FitResult.SYNTHETIC)
    assert fit.has_curve.all()
    assert certified(fit)
    assert np.all(np.isfinite(fit.move))


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_new_listing_with_a_few_quotes(kept: int) -> None:
    quotes = smile_surfaces(1, seed=5, noise=0.3)
    past = fit_slices(quotes.k, quotes.vol, quotes.error, quotes.offsets, quotes.years)
    keys = np.arange(12)
    keys[6] = 100
    mine = quotes.slice_of == 6
    ranks = np.argsort(np.argsort(np.abs(quotes.k[mine])))
    vol = quotes.vol.copy()
    vol[mine] = np.where(ranks < kept, quotes.vol[mine], np.nan)
    fit = fit_slices(quotes.k, vol, quotes.error, quotes.offsets, quotes.years, key=keys, previous=past)
    assert fit.n_used[6] == kept
    assert certified(fit)
    y = np.linspace(-1, 1, 5) * np.sqrt(fit.theta[6])
    assert np.abs(fit.vol(y)[6] - quotes.params.vol(y, quotes.years)[6]).max() < 0.05


def test_slices_without_a_curve_are_skipped() -> None:
    k = np.linspace(-0.2, 0.2, 9)
    columns = [[k] * 3, [0.5 + 0.2 * k**2] * 3, [np.full(9, 0.01)] * 3]
    fit = fit_svi(*columns, years=[0.1, np.nan, 0.3])
    assert fit.result[1] == FitResult.INVALID
    assert fit.has_curve.tolist() == [True, False, True]
    assert fit.enforcement.tolist() == [Enforcement.AS_FITTED, Enforcement.OFF, Enforcement.AS_FITTED]
    assert certified(fit)
    nothing = fit_svi([[np.nan]], [[np.nan]], [[np.nan]], years=[0.1])
    assert nothing.result.tolist() == [FitResult.NO_DATA]


@pytest.mark.parametrize("side", [-1, 1])
def test_one_side_of_the_book_missing(side: int) -> None:
    quotes = smile_surfaces(1, seed=8, noise=0.3)
    fit = fit_slices(
        quotes.k, quotes.vol, quotes.error, quotes.offsets, quotes.years, side=np.full(quotes.k.size, side, np.int8)
    )
    assert certified(fit)


def test_a_far_ask_alone_moves_nothing(crossed: Quotes) -> None:
    fit = crossed.fit(enforce=True)
    k = np.insert(crossed.k, crossed.offsets[4], 0.0)
    vol, error = (np.insert(a, crossed.offsets[4], b) for a, b in ((crossed.vol, 3.0), (crossed.error, 0.01)))
    side = np.zeros(k.size, np.int8)
    side[crossed.offsets[4]] = 1
    offsets = crossed.offsets + (np.arange(len(crossed) + 1) > 4)
    more = fit_slices(k, vol, error, offsets, crossed.years, side=side, surface=crossed.surface)
    assert np.abs(more.vol(0.0) - fit.vol(0.0)).max() < 1e-5


def test_locked_and_weightless_quotes() -> None:
    k = np.linspace(-0.2, 0.2, 9)
    error = np.where(np.arange(9) % 2, 1e-12, 0.01)
    fit = fit_svi([k, k], [0.5 + 0.2 * k**2, 0.45 + 0.1 * k**2], [error, error], years=[0.1, 0.11])
    assert certified(fit)


# Shapes that SVI or the market make hard.


def test_vogt_is_repaired() -> None:
    k = np.linspace(-1.5, 1.5, 41)
    truth = VOGT.svi.vol(k, 1.0)
    fit = fit_svi(k, truth, 0.005, years=1.0)
    assert not bool(check_butterfly(RawSVI(*fit.fitted_raw.T)))
    assert certified(fit)
    away = 1e4 * np.abs(fit.vol(k)[0] - truth)
    assert np.sqrt(np.mean(away**2)) <= 75
    assert away.max() <= 170
    assert "moved" in fit.sentence(0)


def test_a_nearly_flat_smile_stays_within_five_basis_points() -> None:
    years = 0.25
    k = np.linspace(-0.2, 0.2, 5)
    vol = 0.1 + np.array([0.0004, 0.0001, 0.0, 0.0002, 0.0005])
    fit = fit_svi(k, vol, 5e-4, years=years)
    assert certified(fit)
    assert np.sqrt(np.mean((fit.vol(k)[0] - vol) ** 2)) <= 5e-4


@pytest.mark.parametrize(
    ("name", "vols"),
    [
        ("flat", lambda y: 0.6 + 0.0 * y),
        ("line in variance", lambda y: np.sqrt(0.36 * (1 + 0.15 * y))),
        ("corner", lambda y: 0.6 + 0.06 * np.abs(y)),
        ("left only", lambda y: np.where(y < 0, 0.6 - 0.05 * y, np.nan)),
        ("right only", lambda y: np.where(y > 0, 0.6 + 0.05 * y, np.nan)),
    ],
)
def test_odd_shapes(name: str, vols: object) -> None:
    years = 30 * DAY
    y = np.linspace(-2.5, 2.5, 31)
    vol = vols(y)  # type: ignore[operator]
    fit = fit_svi(y * 0.6 * np.sqrt(years), vol, 0.006, years=years)
    assert certified(fit), name
    assert fit.inside[0] >= 0.9, name


# What it says.


def test_labels_and_sentences() -> None:
    assert len({e.label for e in Enforcement}) == len(Enforcement)
    assert "do not quote" in Enforcement.GUARDED.sentence
    assert Enforcement.MOVED.label == "moved"


def test_off_is_off(crossed: Quotes) -> None:
    fit = crossed.fit(enforce=False)
    assert np.all(fit.enforcement == Enforcement.OFF)
    assert np.array_equal(fit.raw, fit.fitted_raw)
    assert np.all(fit.solver_steps == 0)
