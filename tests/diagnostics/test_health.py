"""What the health of a slice says: numbers equal to their definitions, and the first thing a trader should know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import volsurf as vs
from tests.diagnostics.venue_market import chosen, fitted, moved, quotes_of
from tests.surface.quoted_market import DAY, NOW, Quoted, Row
from volsurf.diagnostics.explain import explain
from volsurf.diagnostics.history import ThroughHistory
from volsurf.diagnostics.quality import Report, diagnose
from volsurf.diagnostics.trouble import Trouble, attention, contradictions
from volsurf.errors import InputError
from volsurf.surface.surface import Surface
from volsurf.svi.fit import Enforcement

MARKET = Quoted(tick=0.0005)


@pytest.fixture(scope="module")
def report() -> Report:
    return diagnose(*fitted(MARKET))


def with_fit(surface: Surface, index: int, **changes: object) -> Surface:
    smiles = list(surface.smiles)
    fit = smiles[index].fit
    assert fit is not None
    smiles[index] = smiles[index].with_fit(replace(fit, **changes))
    return Surface(surface.underlying, surface.time_ns, tuple(smiles))


def kinked(half_spread: float = 0.001) -> list[Row]:
    """A shelf at six months that no hyperbola follows."""
    rows = []
    for r in Quoted(half_spread=half_spread, strikes=61).rows():
        if r.expiry_ns == NOW + 180 * DAY:
            k = np.log(r.strike / r.forward)
            vol = r.vol + 0.05 * (k > 0.3) - 0.03 * (0.0 < k < 0.2)
            bid, ask = (
                float(vs.black_price(1.0, r.strike / r.forward, 180 / 365, vol + d, r.is_call))
                for d in (-half_spread, half_spread)
            )
            r = replace(r, bid=bid, ask=ask)
        rows.append(r)
    return rows


def test_numbers_are_their_definitions(report: Report) -> None:
    surface, _ = fitted(MARKET)
    for smile, s in zip(surface.smiles, report.slices, strict=True):
        fit = smile.fit
        assert fit is not None
        used = smile.used
        u = (smile.fitted_vol(smile.log_moneyness) - smile.vol)[used] / smile.error[used]
        counted = np.where(u * smile.side[used] >= 0, u, 0.0)
        assert s.used == used.sum()
        assert s.chi2 == pytest.approx((counted**2).sum() / (used.sum() - 5), rel=1e-9)
        d = u[smile.side[used] == 0]
        d = d - d.mean()
        assert s.autocorrelation == pytest.approx((d[1:] * d[:-1]).sum() / (d**2).sum(), rel=1e-9)
        assert s.runs == 1 + (np.sign(d[1:]) != np.sign(d[:-1])).sum()
        assert (s.min_g, s.min_g_k) == (fit.butterfly_worst_value, fit.butterfly_worst_k)
        assert (s.cost, s.passes, s.atm_error) == (fit.cost, fit.iterations, fit.atm_error)
        assert s.atm_vol == pytest.approx(smile.atm_vol, rel=1e-12)
        assert s.sentence.endswith("free of arbitrage at every strike")
    assert np.isnan(report.slices[0].min_gap)
    assert report.slices[1].min_gap > 0
    assert report.evidence == "exact-polynomial"
    assert (report.certified, report.guarded, report.misshapen) == (3, 0, 0)


def contradicting() -> list[Row]:
    """Two flat smiles, of which the nearer has several times the total variance of the farther."""
    rows = []
    for r in Quoted(strikes=15).rows():
        days = (r.expiry_ns - NOW) // DAY
        if days in (30, 180):
            vol = 1.5 if days == 30 else 0.1
            bid, ask = (
                float(vs.black_price(1.0, r.strike / r.forward, days / 365, vol * d, r.is_call)) for d in (0.99, 1.01)
            )
            rows.append(replace(r, bid=bid, ask=ask))
    return rows


def test_curve_that_does_not_follow_its_quotes_is_not_to_be_quoted_on() -> None:
    surface, quotes = fitted(MARKET, contradicting())
    report = diagnose(surface, quotes)
    assert report.certified == report.off_quotes == 2
    assert "2 expiries do not follow their quotes: do not quote on them" in report.sentence
    near, far = report.slices
    for s, other in ((near, far), (far, near)):
        assert s.trouble is Trouble.OFF_QUOTES
        assert s.sentence.startswith("the curve does not follow its quotes: 0% of ")
        assert f"it lies {s.rms:,.3g} error bars from them (rms); do not quote on it" in s.sentence
        assert s.notes[1].startswith(f"its quotes and those of {other.label} contradict each other: at ")
        assert f"the bid of {near.label} has more total variance than the ask of {far.label}" in s.notes[1]
        assert not any(note.startswith("grey") or "five parameters" in note for note in s.notes)
    for page in (report._repr_html_(), surface._repr_html_()):
        assert page.count(">off its quotes</span>") == 2
    assert attention(surface.smiles) == [f"{s.label} is off its quotes: do not quote on it" for s in report.slices]
    calm, quotes = fitted(MARKET)
    assert diagnose(calm, quotes).off_quotes == 0
    assert [contradictions(calm.smiles, i) for i in range(3)] == [[], [], []]


def test_quote_through_the_curve_is_the_first_thing_said() -> None:
    surface, quotes = fitted(MARKET)
    rows = MARKET.rows()
    i = chosen(rows, -0.7, NOW + 30 * DAY)
    fair = explain(surface, quotes, rows[i].expiry_ns, rows[i].strike).fair
    rows[i] = moved(rows[i], fair, MARKET.tick, ask_ticks=3.0)
    report = diagnose(surface, quotes_of(MARKET, {"one": rows}))
    s = report.slices[1]
    assert (s.bids_through, s.asks_through) == (0, 1)
    assert s.sentence.startswith(f"1 ask through the curve, most the ask at {rows[i].strike:,.10g} by ")
    assert "(3.0 ticks)" in s.sentence
    assert "1 quote through it" in report.sentence


def test_enforcement_filter_and_guard_are_said() -> None:
    surface, quotes = fitted(MARKET)
    fit = surface.smiles[1].fit
    assert fit is not None
    changed = with_fit(
        surface, 1, enforcement=Enforcement.MOVED, move=0.004, fitted_cost=fit.cost / 1.25, smoothed=2, solver_steps=7
    )
    s = diagnose(changed, quotes).slices[1]
    assert s.enforcement_cost == pytest.approx(0.25)
    assert s.move_bp == pytest.approx(40.0)
    assert s.solver_steps == 7
    assert any("40 bp at the quote that moved most" in note for note in s.notes)
    assert any(note.startswith("jumped this frame") for note in s.notes)
    report = diagnose(with_fit(surface, 1, enforcement=Enforcement.GUARDED), quotes)
    assert report.slices[1].guarded
    assert report.slices[1].sentence.startswith("guarded: ")
    assert "1 expiry guarded" in report.sentence


def test_uncertain_curve_is_grey() -> None:
    surface, quotes = fitted(MARKET)
    fit = surface.smiles[1].fit
    assert fit is not None
    vague = with_fit(surface, 1, covariance=tuple(400 * c for c in fit.covariance))
    s = diagnose(vague, quotes).slices[1]
    assert s.grey
    assert s.sentence.startswith("grey: ")
    assert not diagnose(surface, quotes).slices[1].grey


def test_misshapen_smile_has_to_last_where_there_is_a_history() -> None:
    surface, quotes = fitted(Quoted(half_spread=0.001, strikes=61), kinked())
    assert [s.shape_misfit for s in diagnose(surface, quotes).slices] == [False, False, True]
    history = ThroughHistory()
    seen = []
    for frame in range(6):
        now = Surface(surface.underlying, surface.time_ns + frame, surface.smiles)
        seen.append(
            diagnose(now, replace(quotes, time_ns=quotes.time_ns + frame), history=history).slices[2].shape_misfit
        )
    assert seen == [False] * 4 + [True] * 2


def test_report_reads_without_a_nan(report: Report) -> None:
    rows = [
        replace(r, bid=float("nan"), ask=float("nan")) if r.expiry_ns == NOW + 30 * DAY else r for r in MARKET.rows()
    ]
    hollow = diagnose(*fitted(MARKET, rows), timings={"quotes": 812.0, "fit": 93.4})
    for one in (report, hollow):
        assert one.through is not None
        for text in (str(one), repr(one), one.sentence, one._repr_html_(), one.through._repr_html_()):
            assert "nan" not in text.lower()
        assert one._repr_html_().count("<table") == one._repr_html_().count("</table>")
    assert "quotes 812, fit 93" in str(hollow)
    assert hollow.slices[1].synthetic
    assert hollow.slices[1].grey


def test_tables(report: Report) -> None:
    frame = report.to_polars()
    assert frame.height == 3
    assert frame["sentence"].to_list() == [s.sentence for s in report.slices]
    assert {"chi2", "min_g", "enforcement", "atm_error", "bids_through"} <= set(frame.columns)
    forwards = report.to_polars("forwards")
    assert forwards["source"].to_list() == ["venue"] * 3
    assert report.to_polars("through").height == 75
    with pytest.raises(InputError, match="was 'cells'"):
        report.to_polars("cells")


def test_forward_that_the_quotes_refuse_is_in_the_table() -> None:
    market = Quoted(half_spread=0.001)
    rows = [replace(r, forward=r.forward * 1.004) if r.expiry_ns == NOW + 7 * DAY else r for r in market.rows()]
    report = diagnose(*fitted(market, rows))
    assert [f.flagged for f in report.forwards] == [True, False, False]
    check = report.flagged_forwards[0]
    assert check.mismatch_bp == pytest.approx(-39.8, abs=0.2)
    assert check.venue_forward == pytest.approx(rows[0].forward)
    assert check.pairs == 25
    assert "39.8 bp below the venue, more than noise" in check.sentence
    assert "more than noise" in str(report)
    assert "more than noise" in report._repr_html_()


def test_figures_hold_the_numbers(report: Report) -> None:
    through = report.through
    assert through is not None
    figure = through.plot()
    states = np.asarray(figure.data[0].z, np.float64)
    assert np.isfinite(states).sum() == len(through)
    assert len(figure.data) == 1 + len(through.counts)
    residuals = report.plot_residuals()
    points = sum(len(trace.x) for trace in residuals.data)
    assert points == sum(s.used for s in report.slices)
    empty = through.select(np.zeros(len(through), np.bool_))
    assert "no option of BTC is listed" in empty._repr_html_()
    assert repr(empty) == "ThroughMatrix(BTC, 0 cells: nothing listed)"
    assert empty.plot().layout.annotations[0].text == "no option is listed"
