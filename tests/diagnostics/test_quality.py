"""The ledger adds up, before and after the fit, and the report says what is wrong with a slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import volsurf as vs
from tests.surface.quoted_market import DAY, NOW, Quoted, Row, chain_frame
from volsurf.diagnostics.explain import explain
from volsurf.diagnostics.quality import Report, diagnose, final_reasons, whole_ledger
from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.surface.chain import Chain


def report_of(market: Quoted, rows: list[Row] | None = None) -> Report:
    chain = Chain.from_polars(chain_frame(market, rows))
    return diagnose(vs.fit_surface(chain), chain.quote_vols())


def test_healthy_surface_has_nothing_to_look_at() -> None:
    report = report_of(Quoted())
    assert report.inside == 1.0
    assert all(s.certified and not s.notes and not s.shape_misfit for s in report.slices)
    assert report.certificate.startswith("free of butterfly and calendar arbitrage")
    assert sum(s.ledger.rows for s in report.slices) == report.ledger.rows == 150


def test_outlier_is_counted_after_the_fit_and_noted() -> None:
    market = Quoted()
    rows = market.rows()
    i = next(
        i for i, r in enumerate(rows) if r.is_call and r.strike > r.forward * 1.05 and r.expiry_ns == NOW + 30 * DAY
    )
    rows[i] = replace(rows[i], bid=rows[i].bid * 2.5, ask=rows[i].ask * 2.5)
    chain = Chain.from_polars(chain_frame(market, rows))
    quotes, surface = chain.quote_vols(), vs.fit_surface(chain)
    report = diagnose(surface, quotes)
    assert report.ledger.counts[QuoteReason.OUTLIER] == 1
    assert QuoteReason.OUTLIER not in quotes.ledger().counts
    assert report.ledger.used == quotes.ledger().used - 1
    assert report.ledger.rows == quotes.ledger().rows
    assert any("1 quote more than six error bars off" in note for note in report.slices[1].notes)
    assert (final_reasons((surface,), quotes) != quotes.reason).sum() == 1
    assert whole_ledger((surface,), quotes).counts[QuoteReason.OUTLIER] == 1


def test_thin_synthetic_and_crossing_slices_say_so() -> None:
    market = Quoted()
    rows = [
        replace(r, bid=float("nan"), ask=float("nan"))
        if r.expiry_ns == NOW + 30 * DAY or (r.expiry_ns == NOW + 7 * DAY and abs(np.log(r.strike / r.forward)) > 0.02)
        else r
        for r in market.rows()
    ]
    near, middle, far = report_of(market, rows).slices
    assert any(note.startswith("thin: ") for note in near.notes)
    assert any(note.startswith("synthetic: ") for note in middle.notes)
    assert middle.two_sided == 0
    assert np.isnan(middle.inside)
    assert not far.notes


def test_smile_with_a_kink_is_a_shape_misfit() -> None:
    market = Quoted(half_spread=0.001, strikes=61)
    rows = []
    for r in market.rows():
        if r.expiry_ns == NOW + 180 * DAY:
            # A shelf: five vol points higher beyond one standard deviation above, which no hyperbola follows.
            k = np.log(r.strike / r.forward)
            vol = r.vol + 0.05 * (k > 0.3) - 0.03 * (0.0 < k < 0.2)
            prices = [
                float(vs.black_price(1.0, r.strike / r.forward, 180 / 365, vol + d, r.is_call)) for d in (-0.001, 0.001)
            ]
            r = replace(r, bid=prices[0], ask=prices[1])
        rows.append(r)
    report = report_of(market, rows)
    assert [s.shape_misfit for s in report.slices] == [False, False, True]
    assert "five parameters" in report.slices[2].notes[-1] or any(
        "five parameters" in n for n in report.slices[2].notes
    )
    assert report.slices[2].autocorrelation > 0.4
    assert report.inside < 1.0


def test_forward_that_the_quotes_refuse_is_noted() -> None:
    market = Quoted(half_spread=0.001)
    rows = [replace(r, forward=r.forward * 1.004) if r.expiry_ns == NOW + 7 * DAY else r for r in market.rows()]
    note = report_of(market, rows).slices[0].notes[0]
    assert note.startswith("forward: put-call parity of the quotes; parity differs from the venue by -39.8 bp")


def test_ledger_of_one_underlying_among_several() -> None:
    frame = pl.concat([chain_frame(Quoted()), chain_frame(Quoted("SOL", Settlement.LINEAR, spot=140.0))])
    spoilt = frame.with_columns(strike=pl.when(pl.int_range(pl.len()) == 0).then(0.0).otherwise("strike"))
    chain = Chain.from_polars(spoilt)
    quotes, surfaces = chain.quote_vols(), vs.fit_surfaces(chain)
    reports = [diagnose(s, quotes) for s in surfaces.values()]
    # The row without a strike belongs to no option: it is in the whole ledger only.
    assert [r.ledger.rows for r in reports] == [149, 150]
    whole = whole_ledger(surfaces.values(), quotes)
    assert whole.rows == 300
    assert whole.counts[QuoteReason.BAD_STRIKE] == 1


def test_quotes_of_another_surface_are_refused() -> None:
    chain = Chain.from_polars(chain_frame(Quoted()))
    later = Chain.from_polars(chain_frame(Quoted()).with_columns(pl.col("time") + pl.duration(seconds=1)))
    other = Chain.from_polars(chain_frame(Quoted("SOL", Settlement.LINEAR)))
    surface = vs.fit_surface(chain)
    with pytest.raises(InputError, match=r"1 s later than the quotes: pass the quotes it was fitted to, or newer ones"):
        diagnose(vs.fit_surface(later), chain.quote_vols())
    for call in (diagnose, explain):
        more = () if call is diagnose else (surface.expiries[0], 100_000)
        with pytest.raises(InputError, match=r"such as chain\.quote_vols\(\), was Surface and Chain"):
            call(surface, chain, *more)
    with pytest.raises(InputError, match="a strike is a number, was 'x'"):
        explain(surface, chain.quote_vols(), surface.expiries[0], "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the quotes hold SOL, the surface is of BTC"):
        diagnose(surface, other.quote_vols())


def test_surface_that_is_carried_between_refits_is_diagnosed_with_its_age() -> None:
    frame = chain_frame(Quoted())
    surface = vs.fit_surface(Chain.from_polars(frame))
    later = frame.with_columns(pl.col("time") + pl.duration(seconds=1)).reverse()
    quotes = Chain.from_polars(later).quote_vols()
    report = diagnose(surface, quotes)
    assert (report.time_ns, report.surface_time_ns) == (NOW + 1_000_000_000, NOW)
    assert "the surface is 1.0 s older than the quotes" in report.sentence
    assert report.through is not None
    assert report.through.surface_time_ns == NOW
    assert report.ledger == diagnose(vs.fit_surface(Chain.from_polars(later)), quotes).ledger
    assert "older" not in diagnose(surface, Chain.from_polars(frame).quote_vols()).sentence


def test_outlier_of_an_older_chain_marks_no_other_option() -> None:
    market = Quoted()
    rows = market.rows()
    i = next(i for i, r in enumerate(rows) if r.is_call and r.strike > r.forward * 1.05)
    rows[i] = replace(rows[i], bid=rows[i].bid * 2.5, ask=rows[i].ask * 2.5)
    chain = Chain.from_polars(chain_frame(market, rows))
    surface = vs.fit_surface(chain)
    assert diagnose(surface, chain.quote_vols()).ledger.counts[QuoteReason.OUTLIER] == 1
    # The same quotes in another order: every option has another id.
    reason = final_reasons((surface,), Chain.from_polars(chain_frame(market, rows).reverse()).quote_vols())
    assert (reason == QuoteReason.OUTLIER).sum() == 0


def test_report_reads_as_text_and_as_html() -> None:
    report = report_of(Quoted())
    text, html = str(report), report._repr_html_()
    for s in report.slices:
        assert s.label in text
        assert s.label in html
    assert "150  rows" in text
    assert repr(report).startswith("Report(BTC, ")
    assert len(repr(report)) < 120
    assert repr(report.slices[0]) == f"SliceHealth({report.slices[0].label}: {report.slices[0].sentence})"
    assert html.count("<tr>") == html.count("</tr>")


def test_reasons_have_distinct_numbers_labels_and_sentences() -> None:
    assert [int(r) for r in QuoteReason] == list(range(len(QuoteReason)))
    assert len({r.label for r in QuoteReason}) == len({r.sentence for r in QuoteReason}) == len(QuoteReason)
    assert [r for r in QuoteReason if r.is_used] == [QuoteReason.USED, QuoteReason.AVERAGED]


def test_ledger_that_does_not_balance_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="does not balance"):
        Ledger(3, {QuoteReason.USED: 2})
    ledger = Ledger.of(np.array([0, 0, 2, 1], np.uint8), np.array([0, 1, 0, 0], np.int8))
    assert (ledger.used, ledger.one_sided) == (3, 1)
    assert list(ledger.counts) == [QuoteReason.USED, QuoteReason.AVERAGED, QuoteReason.NO_QUOTE]
    assert Ledger.of(np.zeros(0, np.uint8)).counts == {}
    assert "2  used" in str(ledger)
    assert ">2</td><td style='text-align:left'>used<" in ledger._repr_html_()
