"""SSVI and eSSVI surfaces of smiles: certified, continued, and what they say of themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.surface.quoted_market import NOW, SLICES, Quoted, board_of
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.engine.codec import decode_smile, encode_smile
from volsurf.errors import InputError
from volsurf.surface.models import fit_model, scaled_covariance
from volsurf.surface.quote_vols import quote_vols
from volsurf.surface.slices import Smile
from volsurf.surface.smile import build_smiles
from volsurf.surface.surface import Surface
from volsurf.svi.essvi import ESSVI
from volsurf.svi.fit import Enforcement, FitResult

TRUTH = ESSVI.from_intervals([-0.1, -0.15, -0.2], 0.2 * np.diff([7, 30, 180], prepend=0) / 365, [0.75, 0.4, 0.5])
MODELS = ("ssvi", "essvi")


def smiles_of(market: Quoted) -> list[Smile]:
    return build_smiles(quote_vols(board_of(market), NOW))


@pytest.fixture(scope="module")
def smiles() -> list[Smile]:
    return smiles_of(Quoted(slices=dict(zip(SLICES, TRUTH.to_raw(), strict=True))))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def thinned(smile: Smile, keep: int) -> Smile:
    """Only the `keep` quotes nearest the forward have an error bar."""
    far = np.argsort(np.argsort(np.abs(smile.log_moneyness))) >= keep
    return replace(smile, error=np.where(far, np.nan, smile.error))


def test_surface_is_certified_and_named(smiles: list[Smile], model: str) -> None:
    surface = fit_model(smiles[::-1], model)
    assert surface.certificate
    assert "every strike of 3 expiries" in surface.certificate.sentence
    for smile, given in zip(surface.smiles, smiles, strict=True):
        fit = smile.fit
        assert fit is not None
        assert fit.model == model
        assert fit.is_certified
        assert fit.n_used == fit.n_two_sided == given.used.sum()
        assert fit.enforcement == Enforcement.AS_FITTED
        assert fit.quoted_ns == smile.time_ns
        assert 0 < fit.atm_error < 0.01
        curve = smile.fitted_vol(smile.log_moneyness)
        residual = ((curve - smile.vol) / smile.error)[smile.used]
        assert fit.rms == pytest.approx(float(np.sqrt((residual**2).mean())), rel=1e-9)
        inside = ((curve >= smile.bid_vol) & (curve <= smile.ask_vol))[smile.used]
        assert fit.inside == pytest.approx(inside.mean())


def test_essvi_goes_through_its_own_truth(smiles: list[Smile]) -> None:
    surface = fit_model(smiles, "essvi")
    for smile, truth in zip(surface.smiles, TRUTH.to_raw(), strict=True):
        away = smile.fitted_vol(smile.log_moneyness) - truth.vol(smile.log_moneyness, smile.years)
        assert np.abs(away).max() < 2e-4
        assert smile.fit is not None
        assert smile.fit.inside == 1.0
    rho = [s.fit.rho for s in surface.smiles if s.fit]
    np.testing.assert_allclose(rho, TRUTH.rho, atol=0.01)


def test_fit_continues_from_a_surface_of_its_family(smiles: list[Smile], model: str) -> None:
    cold = fit_model(smiles, model)
    later = [replace(s, years=s.years * 0.999, time_ns=s.time_ns + 1) for s in smiles]
    warm = fit_model(later, model, previous=cold)
    fresh = fit_model(later, model)
    steps = [next(s.fit.iterations for s in surface.smiles if s.fit) for surface in (warm, fresh)]
    assert steps[0] < steps[1]
    np.testing.assert_allclose(warm.atm_vol, fresh.atm_vol, atol=2e-5)
    other = fit_model(smiles, "essvi" if model == "ssvi" else "ssvi")
    np.testing.assert_array_equal(fit_model(later, model, previous=other).atm_vol, fresh.atm_vol)


def test_everything_reads_them(smiles: list[Smile], model: str) -> None:
    surface = fit_model(smiles, model)
    again = Surface.from_json(surface.to_json())
    assert again.svi == surface.svi
    assert repr([s.fit for s in again.smiles]) == repr([s.fit for s in surface.smiles])  # NaN equals NaN
    assert repr(decode_smile(encode_smile(surface.smiles[1]).data).fit) == repr(surface.smiles[1].fit)
    assert np.isfinite(surface.nodes().vol).all()
    assert np.isfinite(surface.vol(delta=[-0.25, 0.25], tenor="1M")).all()
    assert surface.to_polars().height == 3
    assert "proved" in surface._repr_html_()


def test_thin_market(smiles: list[Smile], model: str) -> None:
    """One quote, none, three: where five numbers a slice are too many."""
    few = [thinned(smile, keep) for smile, keep in zip(smiles, (1, 0, 3), strict=True)]
    surface = fit_model(few, model)
    assert surface.certificate
    ends = [s.fit.result for s in surface.smiles if s.fit]
    assert ends == [FitResult.TOO_FEW_QUOTES, FitResult.SYNTHETIC, FitResult.TOO_FEW_QUOTES]
    truth = np.sqrt(TRUTH.theta / surface.years)
    np.testing.assert_allclose(surface.atm_vol[[0, 2]], truth[[0, 2]], atol=2e-3)
    np.testing.assert_allclose(surface.atm_vol[1], truth[1], atol=0.02)
    empty = surface.smiles[1].fit
    assert empty is not None
    assert empty.quoted_ns == 0
    assert np.isnan(empty.rms)
    assert empty.sentence.startswith("no usable quote")


def test_outliers_of_another_fit_are_taken_back(smiles: list[Smile]) -> None:
    marked = smiles[0].reason.copy()
    marked[3] = QuoteReason.OUTLIER
    surface = fit_model([replace(smiles[0], reason=marked), *smiles[1:]], "essvi")
    np.testing.assert_array_equal(surface.smiles[0].reason, smiles[0].reason)


def test_covariance_gives_the_error_at_the_money(smiles: list[Smile], model: str) -> None:
    """The scaled 5x5 covariance, carried to the vol at the money, is the model's own standard error there."""
    for smile in fit_model(smiles, model).smiles:
        fit = smile.fit
        assert fit is not None
        full = np.zeros((5, 5))
        full[np.triu_indices(5)] = fit.covariance
        full += np.triu(full, 1).T
        assert np.linalg.eigvalsh(full).min() > -1e-9 * np.trace(full)
        x = np.array(
            [
                fit.a / fit.theta,
                fit.b * (1 + fit.rho) / np.sqrt(fit.theta),
                fit.b * (1 - fit.rho) / np.sqrt(fit.theta),
                fit.m / np.sqrt(fit.theta),
                np.log(fit.sigma / np.sqrt(fit.theta)),
            ]
        )

        def vol(x: np.ndarray, theta: float = fit.theta, years: float = smile.years) -> float:
            z = -x[3] * np.exp(-x[4])
            root = np.hypot(1.0, z)
            return float(np.sqrt(theta / years * (x[0] + 0.5 * np.exp(x[4]) * (x[1] * (root + z) + x[2] * (root - z)))))

        slope = np.array([(vol(x + h) - vol(x - h)) / 2e-6 for h in 1e-6 * np.eye(5)])
        assert np.sqrt(slope @ full @ slope) == pytest.approx(fit.atm_error, rel=1e-4)
        assert vol(x) == pytest.approx(smile.atm_vol, rel=1e-9)


def test_unknown_covariance_is_empty() -> None:
    assert scaled_covariance(TRUTH, 0, np.full((3, 3), np.nan)) == ()


def test_bad_input(smiles: list[Smile]) -> None:
    with pytest.raises(InputError, match='"ssvi" or "essvi"'):
        fit_model(smiles, "sabr")
    with pytest.raises(InputError, match="one underlying, was none"):
        fit_model([], "ssvi")
    with pytest.raises(InputError, match="one underlying, was BTC, ETH"):
        fit_model([*smiles, replace(smiles[0], underlying="ETH")], "ssvi")
    with pytest.raises(InputError, match="no expiry of BTC has a usable quote"):
        fit_model([thinned(s, 0) for s in smiles], "essvi")
