"""The fit on real Deribit chains, where they are: a calm day, a crash, an emptied market."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import shared_path
from volsurf.cli._svi_peers import Objective
from volsurf.cli._svi_slices import Slices, real_slices
from volsurf.cli.bench_svi import fit_all
from volsurf.svi.fit import FitResult, SVIFit


@pytest.fixture(scope="module")
def chains() -> Slices:
    slices = real_slices(shared_path("data", "real", "deribit_snapshots_2026"))
    assert slices is not None
    return slices


@pytest.fixture(scope="module")
def fit(chains: Slices) -> SVIFit:
    return fit_all(chains)


def misfit(fit: SVIFit, chains: Slices) -> np.ndarray:
    """|fit − vol|/error of the two-sided quotes within 4.5 standard deviations."""
    slice_of = np.repeat(np.arange(len(chains)), np.diff(chains.offsets))
    near = np.abs(chains.k) <= 4.5 * np.sqrt(fit.theta)[slice_of]
    return np.abs(fit.residuals_flat[near & (chains.side == 0)])


def test_real_quotes_are_fitted_within_their_spreads(chains: Slices, fit: SVIFit) -> None:
    assert len(chains) > 100
    assert np.all(np.isin(fit.result, (FitResult.CONVERGED, FitResult.TOO_FEW_QUOTES)))
    assert fit.iterations.max() <= 130
    u = misfit(fit, chains)
    assert np.mean(u <= 1.0) >= 0.955
    assert np.median(fit.rms) <= 0.36
    assert np.mean(fit.butterfly.proved) >= 0.9


def test_warm_from_itself_stays_where_it_is(chains: Slices, fit: SVIFit) -> None:
    warm = fit_all(chains, fit)
    slice_of = np.repeat(np.arange(len(chains)), np.diff(chains.offsets))
    near = np.abs(chains.k) <= 2.0 * np.sqrt(fit.theta)[slice_of]
    moved = np.abs(warm.residuals_flat - fit.residuals_flat)[near]
    assert np.percentile(moved, 99) <= 0.1
    assert warm.iterations.mean() <= 0.6 * fit.iterations.mean()


def test_scipy_does_not_find_a_better_optimum(chains: Slices, fit: SVIFit) -> None:
    for i in range(0, len(chains), 8):
        cost = Objective.of(chains, fit, i).solve().cost
        assert fit.fitted_cost[i] <= cost + 1e-3 * (1.0 + cost)
