"""Fitted smiles of a known market, continued from frame to frame, and what happens to slices with little or nothing to fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.surface.quoted_market import DAY, NOW, SLICES, Quoted, Row, board_of, without_forward
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.quote_vols import quote_vols
from volsurf.surface.smile import Smile, after_expiry, build_smiles, fit_all_smiles, fit_smiles
from volsurf.surface.surface import Surface
from volsurf.svi.blend import BlendCheck, check_blend
from volsurf.svi.certificate import Verdict
from volsurf.svi.fit import FitResult
from volsurf.svi.params import RawSVI


def surface_of(market: Quoted, rows: list[Row] | None = None) -> Surface:
    return fit_smiles(build_smiles(quote_vols(board_of(market, rows), NOW)))


@pytest.fixture(scope="module")
def surface() -> Surface:
    return surface_of(Quoted())


def test_fit_goes_through_the_truth(surface: Surface) -> None:
    for smile, days in zip(surface.smiles, SLICES, strict=True):
        fit = smile.fit
        assert fit is not None
        assert fit.result == FitResult.CONVERGED
        assert fit.inside == 1.0
        assert fit.is_certified
        truth = SLICES[days].vol(smile.log_moneyness, smile.years)
        assert np.abs(smile.fitted_vol(smile.log_moneyness) - truth).max() < 5e-4
        assert smile.atm_vol == pytest.approx(float(SLICES[days].vol(0.0, smile.years)), abs=2e-4)
        assert 0 < fit.atm_error < 0.005
        assert fit.n_used == fit.n_two_sided == smile.used.sum()


def test_calendar_verdict_is_against_the_nearer_expiry(surface: Surface) -> None:
    first, second = surface.smiles[0].fit, surface.smiles[1].fit
    assert first is not None
    assert second is not None
    assert np.isnan(first.calendar_worst_k)
    assert "first expiry" in first.calendar_sentence
    near, far = surface.svi[0], surface.svi[1]
    gain = far.total_variance(second.calendar_worst_k) - near.total_variance(second.calendar_worst_k)
    assert second.calendar_worst_value == pytest.approx(float(gain), rel=1e-9)


def test_the_time_between_expiries_is_proved_with_the_slices(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    near, *others = surface.smiles
    assert near.fit is not None
    assert (near.fit.blend_from_ns, near.fit.blend_verdict) == (0, Verdict.UNDECIDED)
    for smile in others:
        assert smile.fit is not None
        assert (smile.fit.blend_from_ns, smile.fit.blend_verdict) == (near.expiry_ns, Verdict.PROVED)
        near = smile
    sentence = "at every strike of 3 expiries (exact-polynomial) and at every time between them (interval)"
    asked: list[int] = []

    def counted(near: RawSVI, far: RawSVI) -> BlendCheck:
        asked.append(len(near))
        return check_blend(near, far)

    monkeypatch.setattr("volsurf.svi.blend.check_blend", counted)
    again = replace(surface)
    assert again.certificate.sentence.endswith(sentence)
    assert np.isfinite(again.vol(k=0.0, years=surface.years[0] * np.array([0.5, 1.0, 1.5]))).all()
    assert asked == []
    # With an expiry cut out the others have other neighbours; what was proved of the old ones is no proof.
    shorter = replace(surface, smiles=surface.smiles[::2])
    assert shorter.certificate.blended == 1
    assert asked == [1]


def test_the_first_expiry_that_is_left_has_nothing_before_it(surface: Surface) -> None:
    left = after_expiry(surface, surface.smiles[0].expiry_ns)
    assert left is not None
    first, second = left.smiles[0].fit, left.smiles[1].fit
    assert first is not None
    assert second is not None
    assert (first.blend_from_ns, first.blend_verdict) == (0, Verdict.UNDECIDED)
    assert second.blend_from_ns == left.smiles[0].expiry_ns
    assert (left.certificate.intervals, left.certificate.blended) == (1, 1)


def crossing() -> list[Smile]:
    """Smiles of which the second lies below the first."""
    slices = dict(SLICES)
    slices[30] = replace_level(SLICES[7], 0.98)  # type: ignore[assignment]
    return build_smiles(quote_vols(board_of(Quoted(slices=slices, half_spread=0.001)), NOW))


def test_crossing_slices_are_violated_with_a_witness() -> None:
    smile = fit_smiles(crossing(), enforce=False).smiles[1]
    assert smile.fit is not None
    assert smile.fit.enforcement_label == "off"
    assert smile.fit.calendar_verdict == Verdict.VIOLATED
    assert smile.fit.calendar_worst_value < 0
    assert "calendar arbitrage" in smile.fit.failure_sentence


def test_crossing_slices_are_moved_together_until_certified() -> None:
    surface = fit_smiles(crossing())
    assert surface.certificate
    fit = surface.smiles[1].fit
    assert fit is not None
    assert fit.enforcement_label in ("moved", "guarded")
    assert fit.price_of_no_arbitrage > 1
    assert fit.move > 1e-3
    assert "bp of vol at its quotes" in fit.enforcement_sentence


def replace_level(svi: object, factor: float) -> object:
    from volsurf.svi.params import RawSVI

    assert isinstance(svi, RawSVI)
    return RawSVI(svi.a * factor, svi.b * factor, svi.rho, svi.m, svi.sigma)


def test_continuing_from_the_last_surface_gives_the_same_fit_sooner(surface: Surface) -> None:
    smiles = build_smiles(quote_vols(board_of(Quoted()), NOW))
    again = fit_smiles(smiles, previous=surface)
    np.testing.assert_allclose(again.atm_vol, surface.atm_vol, atol=1e-5)
    cold = sum(s.fit.iterations for s in surface.smiles if s.fit)
    warm = sum(s.fit.iterations for s in again.smiles if s.fit)
    assert warm < 0.7 * cold


def test_a_new_expiry_starts_cold_beside_old_ones(surface: Surface) -> None:
    slices = SLICES | {60: replace_level(SLICES[30], 2.0)}
    market = Quoted(slices=dict(sorted(slices.items())))  # type: ignore[arg-type]
    smiles = build_smiles(quote_vols(board_of(market), NOW))
    grown = fit_smiles(smiles, previous=surface)
    assert len(grown) == 4
    assert all(s.fit is not None and s.fit.inside == 1.0 for s in grown.smiles)


def test_expiry_that_nobody_quotes_is_synthetic() -> None:
    market = Quoted()
    rows = [
        replace(r, bid=float("nan"), ask=float("nan")) if r.expiry_ns == NOW + 30 * DAY else r for r in market.rows()
    ]
    surface = surface_of(market, rows)
    middle = surface.smiles[1].fit
    assert middle is not None
    assert middle.is_synthetic
    assert middle.n_used == 0
    assert np.isnan(middle.inside)
    assert surface.smiles[0].atm_vol < surface.smiles[1].atm_vol < surface.smiles[2].atm_vol + 0.02


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_quotes_give_a_curve_through_them(count: int) -> None:
    market = Quoted(slices={30: SLICES[30]})
    rows = market.rows()
    near = sorted(rows, key=lambda r: abs(np.log(r.strike / r.forward)))
    strikes = {r.strike for r in near[: 2 * count : 2]}
    surface = surface_of(market, [r for r in rows if r.strike in strikes])
    smile = surface.smiles[0]
    assert smile.fit is not None
    assert smile.fit.result == FitResult.TOO_FEW_QUOTES
    assert np.isfinite(smile.fitted_vol(smile.log_moneyness)).all()
    assert np.abs(smile.fitted_vol(smile.log_moneyness) - smile.vol).max() < 0.01


def test_an_outlier_is_marked_and_does_not_move_the_curve() -> None:
    market = Quoted()
    rows = market.rows()
    i = next(
        i for i, r in enumerate(rows) if r.is_call and r.strike > r.forward * 1.05 and r.expiry_ns == NOW + 30 * DAY
    )
    rows[i] = replace(rows[i], bid=rows[i].bid * 2.5, ask=rows[i].ask * 2.5)
    spoilt, clean = surface_of(market, rows).smiles[1], surface_of(market).smiles[1]
    assert (spoilt.reason == QuoteReason.OUTLIER).sum() == 1
    assert spoilt.strike[spoilt.reason == QuoteReason.OUTLIER] == rows[i].strike
    assert spoilt.atm_vol == pytest.approx(clean.atm_vol, abs=3e-4)


def test_one_sided_ask_far_above_does_not_pull() -> None:
    market = Quoted()
    rows = market.rows()
    i = next(
        i for i, r in enumerate(rows) if not r.is_call and r.strike < r.forward * 0.9 and r.expiry_ns == NOW + 30 * DAY
    )
    absent = [r for j, r in enumerate(rows) if j != i]
    rows[i] = replace(rows[i], bid=0.0, ask=rows[i].ask * 2, mark=float("nan"))
    k = np.linspace(-0.4, 0.4, 41)
    pulled, without = surface_of(market, rows).smiles[1], surface_of(market, absent).smiles[1]
    assert (pulled.side == 1).sum() == 1
    np.testing.assert_allclose(pulled.fitted_vol(k), without.fitted_vol(k), atol=1e-6)


def test_inverse_and_linear_quotes_of_one_market_give_one_smile() -> None:
    inverse, linear = surface_of(Quoted()), surface_of(Quoted(settlement=Settlement.LINEAR))
    np.testing.assert_allclose(inverse.atm_vol, linear.atm_vol, atol=1e-6)


def test_scale_of_the_strikes_does_not_matter() -> None:
    one = surface_of(Quoted())
    million = surface_of(Quoted(spot=90_000 * 1e6))
    np.testing.assert_allclose(one.svi.b, million.svi.b, rtol=1e-6)


def test_permuting_and_adding_empty_quotes_changes_nothing(surface: Surface) -> None:
    market = Quoted()
    rows = market.rows()
    empty = [replace(r, strike=r.strike * 1.0101, bid=float("nan"), ask=float("nan")) for r in rows]
    shuffled = [(rows + empty)[i] for i in np.random.default_rng(3).permutation(2 * len(rows))]
    np.testing.assert_allclose(surface_of(market, shuffled).svi.a, surface.svi.a, rtol=1e-8)


def test_underlyings_are_fitted_in_one_batch_and_do_not_touch() -> None:
    btc, sol = Quoted(), Quoted("SOL", Settlement.LINEAR, spot=140.0, slices={7: SLICES[7], 30: SLICES[30]})
    board = board_of(btc)
    rows = sol.rows()
    ids = board.universe.add(sol.instrument(r) for r in rows)
    quotes = {"bid": [r.bid for r in rows], "ask": [r.ask for r in rows], "forward": [r.forward for r in rows]}
    fields = Field.QUOTE | Field.FORWARD
    board.apply(QuoteBatch(ids, fields, venue_time_ns=NOW, receive_time_ns=NOW, **quotes))
    smiles = build_smiles(quote_vols(board, NOW))
    both = fit_all_smiles(smiles)
    assert [len(both[name]) for name in ("BTC", "SOL")] == [3, 2]
    assert both["BTC"].svi == surface_of(btc).svi
    with pytest.raises(InputError, match="one underlying, was BTC, SOL"):
        fit_smiles(smiles)
    continued = fit_all_smiles(smiles, both)
    np.testing.assert_allclose(continued["SOL"].atm_vol, both["SOL"].atm_vol, atol=1e-5)


def test_nothing_to_fit() -> None:
    assert fit_all_smiles([]) == {}
    with pytest.raises(InputError, match="one underlying, was none"):
        fit_smiles([])
    market = Quoted()
    rows = [replace(r, bid=0.0, ask=0.0) for r in market.rows()]
    smiles = build_smiles(quote_vols(board_of(market, rows), NOW))
    assert len(smiles) == 3
    with pytest.raises(InputError, match="no expiry of BTC has a usable quote"):
        fit_smiles(smiles)


def test_expired_and_expiring_and_forwardless_expiries_have_no_smile() -> None:
    market = Quoted()
    rows = market.rows()
    late = [replace(r, expiry_ns=NOW + 10 * 60 * 10**9) for r in rows if r.expiry_ns == NOW + 7 * DAY]
    past = [replace(r, expiry_ns=NOW - 1) for r in rows if r.expiry_ns == NOW + 7 * DAY]
    smiles = build_smiles(quote_vols(board_of(market, rows + late + past), NOW))
    assert [round((s.expiry_ns - NOW) / DAY) for s in smiles] == [7, 30, 180]
    lost = [r for r in without_forward(rows) if r.is_call]
    assert build_smiles(quote_vols(board_of(market, lost, index=np.nan), NOW)) == []


def test_smile_keeps_quotes_that_were_left_out_but_have_a_vol() -> None:
    market = Quoted(reach=6.0)
    smile = build_smiles(quote_vols(board_of(market), NOW))[1]
    far = smile.reason == QuoteReason.TOO_FAR
    assert far.any()
    assert np.isfinite(smile.vol[far]).all()
    assert np.isnan(smile.error[far]).all()
    fitted = fit_smiles(build_smiles(quote_vols(board_of(market), NOW))).smiles[1]
    assert fitted.fit is not None
    assert fitted.fit.n_used == fitted.used.sum() < len(fitted.strike)


def test_smiles_are_small_objects_with_a_label(surface: Surface) -> None:
    smile = surface.smiles[0]
    assert smile.expiry_label in repr(smile)
    assert isinstance(board_of(Quoted()), QuoteBoard)
    assert smile.forward_sentence.startswith("the venue's forward")
