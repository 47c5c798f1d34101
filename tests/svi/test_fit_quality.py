"""How well the fit fits: against the truth, other solvers and random restarts; with few, odd, bad and one-sided quotes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.svi.smile_quotes import Quotes, fitted_vol, smile_surfaces
from volsurf.cli._svi_peers import Objective
from volsurf.cli._svi_slices import Slices
from volsurf.svi.fit import FitResult, QuoteUse, SVIFit, fit_slices, fit_svi

MAX_PASSES = 130


@pytest.fixture(scope="module")
def noisy() -> Quotes:
    """240 slices, half-spreads of 50 bp and more, mids off by a third of them."""
    return smile_surfaces(20, seed=3, noise=0.35)


@pytest.fixture(scope="module")
def noisy_fit(noisy: Quotes) -> SVIFit:
    return noisy.fit()


# Exact quotes.


def test_parameters_of_exact_quotes_are_recovered() -> None:
    quotes = smile_surfaces(4, half_spread=1e-6)
    fit = quotes.fit()
    for name in ("a", "b", "rho", "m", "sigma"):
        truth = getattr(quotes.params, name)
        assert getattr(fit.params, name) == pytest.approx(truth, rel=1e-3, abs=1e-5)


# Noisy quotes.


def test_scipy_finds_the_same_optimum_of_the_same_objective(noisy: Quotes, noisy_fit: SVIFit) -> None:
    side = np.zeros(noisy.k.size, np.int8)
    slices = Slices("test", noisy.k, noisy.vol, noisy.error, side, noisy.offsets, noisy.years, noisy.surface)
    vol = fitted_vol(noisy_fit, noisy)
    for i in range(0, len(noisy), 16):
        objective = Objective.of(slices, noisy_fit, i)
        solution = objective.solve()
        assert noisy_fit.cost[i] == pytest.approx(solution.cost, rel=1e-4, abs=1e-6)
        rows = slice(noisy.offsets[i], noisy.offsets[i + 1])
        x = solution.x
        ours = (vol[rows] - noisy.vol[rows]) / noisy.error[rows]
        assert objective.residuals(x)[:-5] == pytest.approx(ours, abs=0.02)


def test_the_peers_jacobian_is_right(noisy: Quotes, noisy_fit: SVIFit) -> None:
    side = np.resize(np.array([0, 0, 1, -1], np.int8), noisy.k.size)
    slices = Slices("test", noisy.k, noisy.vol, noisy.error, side, noisy.offsets, noisy.years, noisy.surface)
    objective = Objective.of(slices, noisy_fit, 7)
    x = noisy_fit.scaled[7] + 0.1
    numeric = np.empty((objective.y.size + 5, 5))
    for j in range(5):
        up, down = x.copy(), x.copy()
        up[j] += 1e-6
        down[j] -= 1e-6
        numeric[:, j] = (objective.residuals(up) - objective.residuals(down)) / 2e-6
    assert objective.jacobian(x) == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_outliers_are_ignored_and_named() -> None:
    quotes = smile_surfaces(20, seed=5, noise=0.35, outliers=0.05)
    fit = quotes.fit()
    assert np.percentile(quotes.rmse_bp(fit), 95) <= 40.0
    wild = np.abs(quotes.vol - quotes.truth) > 7.0 * quotes.error
    assert np.mean(fit.use_flat[wild] == QuoteUse.OUTLIER) >= 0.95
    assert np.mean(fit.use_flat[~wild] == QuoteUse.OUTLIER) <= 0.001
    assert np.array_equal(fit.n_rejected, [np.count_nonzero(use == QuoteUse.OUTLIER) for use in fit.use])
    assert "left out as outliers" in fit.sentence(int(np.argmax(fit.n_rejected)))


def test_one_wing_quote_three_times_too_high_does_not_move_the_money(noisy: Quotes, noisy_fit: SVIFit) -> None:
    vol = noisy.vol.copy()
    last = noisy.offsets[1:] - 1
    vol[last] *= 3.0
    moved = dataclasses.replace(noisy, vol=vol).fit()
    assert np.all(moved.use_flat[last] == QuoteUse.OUTLIER)
    away = 1e4 * np.abs(moved.vol(0.0) - noisy_fit.vol(0.0))
    # Half-spreads are 50 bp; losing the outermost quote altogether moves the money by this much too.
    assert np.percentile(away, 95) <= 3.0
    assert away.max() <= 7.5


def test_when_most_quotes_disagree_none_is_rejected() -> None:
    k = np.linspace(-0.3, 0.3, 20)
    vol = np.where(np.arange(20) % 2 == 0, 0.4, 0.8)
    fit = fit_svi(k, vol, 0.001, years=0.1, enforce=False)
    assert fit.n_rejected[0] == 0
    assert np.all(fit.use_flat == QuoteUse.USED)


# Where the quotes are.


def odd_smiles() -> list[tuple[str, np.ndarray, np.ndarray]]:
    y = np.linspace(-2.5, 2.5, 21)
    root = 0.6 * np.sqrt(30 / 365)
    k = y * root
    line = np.sqrt(0.6**2 * (1.0 + 0.15 * y))
    wing = 0.6 + 0.02 * y + 0.03 * y**2
    return [
        ("flat", k, np.full(21, 0.6)),
        ("straight line in w", k, line),
        ("V", k, 0.6 + 0.06 * np.abs(y)),
        ("only left strikes", k[:8], wing[:8]),
        ("only right strikes", k[-8:], wing[-8:]),
        ("three central strikes", k[9:12], wing[9:12]),
        ("five strikes as in FX", k[[2, 6, 10, 14, 18]], wing[[2, 6, 10, 14, 18]]),
        ("all at one strike", np.zeros(9), np.full(9, 0.6)),
    ]


@pytest.mark.parametrize(("name", "k", "vol"), odd_smiles(), ids=[name for name, _, _ in odd_smiles()])
def test_odd_shapes_are_fitted_within_the_spread_where_they_are_quoted(
    name: str, k: np.ndarray, vol: np.ndarray
) -> None:
    fit = fit_svi(k, vol, 0.003, years=30 / 365, enforce=False)
    assert fit.result[0] in (FitResult.CONVERGED, FitResult.AT_BOUND, FitResult.TOO_FEW_QUOTES)
    assert np.all(np.isfinite(fit.raw))
    assert fit.params.minimum_total_variance[0] > 0
    assert np.abs(fit.vol(k)[0] - vol).max() <= 0.003, name


def test_a_frown_cannot_be_fitted_and_shows_it() -> None:
    y = np.linspace(-2.5, 2.5, 25)
    vol = 0.6 - 0.05 * y**2
    fit = fit_svi(y * 0.6 * np.sqrt(30 / 365), vol, 0.003, years=30 / 365, enforce=False)
    assert np.all(np.isfinite(fit.raw))
    assert fit.rms[0] > 3.0
    assert fit.autocorrelation[0] > 0.4


# Invariances.


@given(scale=st.floats(0.05 / 0.6, 5.0 / 0.6), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_scaling_all_vols_scales_the_smile(scale: float, seed: int) -> None:
    quotes = smile_surfaces(1, seed=seed, noise=0.35)
    # Up to 15 days: Lee's bound on the wings is the one thing that knows the size of a vol, and at 500 % it is near for longer.
    offsets = quotes.offsets[:5]
    k, vol, error = (array[: offsets[-1]] for array in (quotes.k, quotes.vol, quotes.error))
    fit = fit_slices(k, vol, error, offsets, quotes.years[:4])
    scaled = fit_slices(scale * k, scale * vol, scale * error, offsets, quotes.years[:4])
    assert scaled.scaled == pytest.approx(fit.scaled, abs=1e-8)
    assert scaled.iterations == pytest.approx(fit.iterations)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_price_is_nowhere(noisy: Quotes, noisy_fit: SVIFit, unit: float) -> None:
    strike = 64_000.0 * np.exp(noisy.k)
    other = dataclasses.replace(noisy, k=np.log((strike * unit) / (64_000.0 * unit))).fit()
    assert other.scaled == pytest.approx(noisy_fit.scaled, abs=1e-8)


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_order_of_quotes_does_not_matter(random: object) -> None:
    quotes = smile_surfaces(1, seed=11, noise=0.35, outliers=0.03)
    fit = quotes.fit()
    order = np.arange(quotes.k.size)
    for i in range(len(quotes)):
        part = list(order[quotes.offsets[i] : quotes.offsets[i + 1]])
        random.shuffle(part)  # type: ignore[attr-defined]
        order[quotes.offsets[i] : quotes.offsets[i + 1]] = part
    mixed = dataclasses.replace(quotes, k=quotes.k[order], vol=quotes.vol[order], error=quotes.error[order]).fit()
    assert np.array_equal(mixed.raw, fit.raw)
    assert np.array_equal(mixed.residuals_flat, fit.residuals_flat[order])
    assert np.array_equal(mixed.use_flat, fit.use_flat[order])


def test_two_halves_of_a_quote_count_as_the_quote(noisy: Quotes, noisy_fit: SVIFit) -> None:
    twice = dataclasses.replace(
        noisy,
        k=np.repeat(noisy.k, 2),
        vol=np.repeat(noisy.vol, 2),
        error=np.repeat(noisy.error, 2),
        offsets=2 * noisy.offsets,
    ).fit(weight=np.full(2 * noisy.k.size, 0.5))
    assert np.abs(twice.vol(0.0) - noisy_fit.vol(0.0)).max() <= 1e-10
    assert twice.scaled == pytest.approx(noisy_fit.scaled, abs=1e-8)
    assert twice.n_used == pytest.approx(noisy_fit.n_used)


# Error bars.


@pytest.mark.parametrize("alone", [False, True])
def test_the_error_bar_covers_the_truth_as_often_as_it_says(alone: bool) -> None:
    quotes = smile_surfaces(1, seed=5)
    rng = np.random.default_rng(2)
    root = np.sqrt(quotes.params.total_variance(0.0))
    k = np.linspace(-2.0, 2.0, 5)[None, :] * root[:, None]
    truth = quotes.params.vol(k, quotes.years)
    surface = np.arange(len(quotes)) if alone else quotes.surface
    inside = []
    for _ in range(400):
        vol = quotes.truth + rng.normal(0.0, 1.0, quotes.k.size) * quotes.error
        fit = fit_slices(quotes.k, vol, quotes.error, quotes.offsets, quotes.years, surface=surface)
        inside.append(np.abs(fit.vol(k) - truth) < fit.vol_error(k))
    assert 0.64 <= np.mean(inside) <= 0.72
    assert np.all(np.abs(np.mean(inside, axis=(0, 1)) - 0.68) <= 0.06)


# Few quotes.


def test_a_whole_surface_of_thin_slices() -> None:
    quotes = smile_surfaces(5, seed=13, noise=0.35)
    rng = np.random.default_rng(0)
    keep = np.zeros(quotes.k.size, bool)
    for i in range(len(quotes)):
        keep[rng.choice(np.arange(quotes.offsets[i], quotes.offsets[i + 1]), 3, replace=False)] = True
    fit = dataclasses.replace(quotes, vol=np.where(keep, quotes.vol, np.nan)).fit()
    assert np.all(fit.result == FitResult.TOO_FEW_QUOTES)
    assert np.all(np.isfinite(fit.raw))
    used = np.abs(fitted_vol(fit, quotes) - quotes.vol)[keep] / quotes.error[keep]
    assert np.mean(used <= 1.0) >= 0.9


def test_locked_and_one_tick_books_are_taken_at_their_word(noisy: Quotes) -> None:
    error = noisy.error.copy()
    error[noisy.offsets[:-1] + 12] = 1e-12
    fit = dataclasses.replace(noisy, error=error).fit()
    rows = noisy.offsets[:-1] + 12
    assert np.all(np.isfinite(fit.raw))
    assert np.abs(fitted_vol(fit, noisy) - noisy.vol)[rows].max() <= 1e-4
