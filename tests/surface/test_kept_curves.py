"""An expiry whose quotes have gone keeps its curve, certified with its neighbours, until it is too old to be believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.surface.quoted_market import DAY, NOW, SLICES, Quoted, board_of
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.surface.kept_curves import KEPT_NS
from volsurf.surface.quote_vols import quote_vols
from volsurf.surface.slices import Smile
from volsurf.surface.smile import build_smiles, fit_smiles
from volsurf.surface.surface import Surface
from volsurf.svi.fit import FitResult
from volsurf.svi.params import RawSVI

SECOND = 1_000_000_000
MIDDLE = 1
COLUMNS = (
    "strike", "log_moneyness", "bid_vol", "ask_vol", "vol", "error", "side", "is_call", "instrument_id", "reason",
)  # fmt: skip


def smiles_of(market: Quoted) -> list[Smile]:
    return build_smiles(quote_vols(board_of(market), NOW))


def later(smiles: list[Smile], elapsed_ns: int) -> list[Smile]:
    """The same quotes, seen later."""
    return [
        replace(s, time_ns=s.time_ns + elapsed_ns, years=s.years - elapsed_ns / NANOSECONDS_PER_YEAR) for s in smiles
    ]


def without_quotes(smiles: list[Smile], *positions: int) -> list[Smile]:
    """Some of them having lost all quotes."""
    return [
        replace(s, **{name: getattr(s, name)[:0] for name in COLUMNS}) if i in positions else s
        for i, s in enumerate(smiles)
    ]


@pytest.fixture(scope="module")
def smiles() -> list[Smile]:
    return smiles_of(Quoted())


@pytest.fixture(scope="module")
def surface(smiles: list[Smile]) -> Surface:
    return fit_smiles(smiles)


def test_the_curve_stays_as_it_was_at_the_same_log_moneyness(smiles: list[Smile], surface: Surface) -> None:
    k = np.linspace(-1, 1, 21)
    was = surface.smiles[MIDDLE].fitted_vol(k)
    for frame in range(1, 41):
        bare = without_quotes(later(smiles, frame * SECOND), MIDDLE)
        surface = fit_smiles(bare, surface, smoothing_seconds=0.5)
        kept = surface.smiles[MIDDLE]
        assert kept.fit is not None
        # Forty frames on, to rounding: it does not creep towards its neighbours.
        np.testing.assert_allclose(kept.fitted_vol(k), was, rtol=1e-12)
        assert kept.fit.is_certified
        assert kept.fit.result == FitResult.KEPT
    assert kept.fit.is_kept
    assert not kept.fit.is_quoted
    assert (kept.fit.n_used, kept.fit.quoted_ns, kept.fit.covariance) == (0, NOW, ())
    assert np.isnan([kept.fit.rms, kept.fit.inside, kept.fit.atm_error]).all()
    assert "last curve" in kept.fit.sentence
    assert surface.certificate


def test_it_is_fitted_again_when_its_quotes_come_back(smiles: list[Smile], surface: Surface) -> None:
    gone = fit_smiles(without_quotes(later(smiles, SECOND), MIDDLE), surface)
    back = fit_smiles(later(smiles, 2 * SECOND), gone)
    fit = back.smiles[MIDDLE].fit
    assert fit is not None
    assert fit.result == FitResult.CONVERGED
    assert fit.quoted_ns == NOW + 2 * SECOND
    np.testing.assert_allclose(back.atm_vol, surface.atm_vol, atol=1e-5)


def test_it_is_believed_for_as_long_as_a_quote(smiles: list[Smile], surface: Surface) -> None:
    for elapsed_ns, result in ((KEPT_NS, FitResult.KEPT), (KEPT_NS + 1, FitResult.SYNTHETIC)):
        aged = fit_smiles(without_quotes(later(smiles, elapsed_ns), MIDDLE), surface)
        fit = aged.smiles[MIDDLE].fit
        assert fit is not None
        assert fit.result == result


def test_a_synthetic_curve_is_not_kept(smiles: list[Smile]) -> None:
    cold = fit_smiles(without_quotes(smiles, MIDDLE))
    again = fit_smiles(without_quotes(later(smiles, SECOND), MIDDLE), cold)
    fit = again.smiles[MIDDLE].fit
    assert fit is not None
    assert fit.is_synthetic


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.1, 1.5])
def test_neighbours_that_move_across_it_push_it(smiles: list[Smile], surface: Surface, factor: float) -> None:
    scaled = {
        days: RawSVI(svi.a * factor**2, svi.b * factor**2, svi.rho, svi.m, svi.sigma) for days, svi in SLICES.items()
    }
    moved = without_quotes(later(smiles_of(Quoted(slices=scaled)), SECOND), MIDDLE)
    pushed = fit_smiles(moved, surface, smoothing_seconds=0.5)
    assert pushed.certificate
    kept = pushed.smiles[MIDDLE].fit
    assert kept is not None
    assert kept.is_kept
    # The quoted ones are where their quotes have them, within their half-spread of half a vol point.
    for i in (0, 2):
        assert pushed.smiles[i].atm_vol == pytest.approx(factor * surface.smiles[i].atm_vol, abs=0.005)


def test_a_kept_first_and_last_expiry(smiles: list[Smile], surface: Surface) -> None:
    bare = fit_smiles(without_quotes(later(smiles, SECOND), 0, 2), surface)
    assert [s.fit is not None and s.fit.is_kept for s in bare.smiles] == [True, False, True]
    np.testing.assert_allclose(bare.atm_vol, surface.atm_vol, atol=2e-5)
    assert bare.certificate


def test_pseudo_quotes_do_not_show(smiles: list[Smile], surface: Surface) -> None:
    bare = fit_smiles(without_quotes(later(smiles, SECOND), MIDDLE), surface)
    whole = fit_smiles(later(smiles, SECOND), surface)
    assert len(bare.smiles[MIDDLE].strike) == 0
    for i in (0, 2):
        one, other = bare.smiles[i], whole.smiles[i]
        assert one.fit is not None
        assert other.fit is not None
        np.testing.assert_array_equal(one.reason, other.reason)
        assert (one.fit.n_used, one.fit.inside) == (other.fit.n_used, other.fit.inside)
    assert smiles[MIDDLE].expiry_ns == NOW + 30 * DAY
