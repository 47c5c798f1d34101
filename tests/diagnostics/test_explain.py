"""An explanation repeats the pipeline's own numbers, and asks back kindly where there is no such cell."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest

import volsurf as vs
from tests.diagnostics.venue_market import board_of_venues, chosen, fitted, moved, out_of_the_money, quotes_of
from tests.surface.quoted_market import DAY, NOW, Quoted
from volsurf.diagnostics.explain import Explanation, explain
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through import ThroughState
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.surface.quote_vols import QuoteVols, quote_vols
from volsurf.surface.surface import Surface

INVERSE, LINEAR = Quoted(tick=0.0005), Quoted("SOL", Settlement.LINEAR, spot=140.0, tick=0.05)
EXPIRY = NOW + 30 * DAY


def of(market: Quoted, deviations: float) -> tuple[Explanation, Surface, QuoteVols, int]:
    rows = market.rows()
    heard = NOW - 1_000_000_000 * (np.arange(len(rows)) % 20)
    board = board_of_venues(market, {"one": rows}, receive_time_ns=heard)
    quotes = quote_vols(board, NOW)
    surface = vs.fit_smiles(vs.build_smiles(quotes))
    i = chosen(rows, deviations, EXPIRY)
    row = int(np.flatnonzero(quotes.instrument_id == i)[0])
    return explain(surface, quotes, EXPIRY, rows[i].strike), surface, quotes, row


@pytest.mark.parametrize("market", [INVERSE, LINEAR], ids=["inverse", "linear"])
@pytest.mark.parametrize("deviations", [-1.2, 0.1, 0.6, 2.9])
def test_numbers_are_those_of_the_pipeline(market: Quoted, deviations: float) -> None:
    e, surface, quotes, row = of(market, deviations)
    smile = surface.smile(EXPIRY)
    k = quotes.log_moneyness[row]
    assert (e.strike, e.log_moneyness, e.years) == (quotes.strike[row], k, quotes.years[row])
    assert e.forward.forward == smile.forward
    assert e.reason == quotes.reason[row] == QuoteReason.USED
    for side, name in ((e.leg.bid, "bid"), (e.leg.ask, "ask")):
        normalised, vol = getattr(quotes, name)[row], getattr(quotes, f"{name}_vol")[row]
        assert side.normalised == pytest.approx(normalised, nan_ok=True)
        assert side.vol == pytest.approx(vol, rel=1e-12, nan_ok=True)
        assert (side.status == "ok") is bool(np.isfinite(vol))
        unit = 1.0 if market.settlement is Settlement.INVERSE else smile.forward
        assert side.premium == pytest.approx(normalised * unit, nan_ok=True)
    assert e.vol == quotes.vol[row]
    bar = e.error
    assert bar.total == quotes.error[row]
    assert bar.half_spread**2 + bar.forward**2 + bar.age**2 + bar.floor**2 == pytest.approx(bar.total**2, rel=1e-9)
    # The floor is what is left of the error bar when the other terms are made anew: that it is the rules' proves them right.
    assert bar.floor == pytest.approx(2e-4, rel=1e-3)
    assert e.leg.age_ns == quotes.age_ns[row]
    assert e.fitted_vol == pytest.approx(float(smile.fitted_vol(k)), rel=1e-12)
    assert e.standard_error == pytest.approx(float(surface.vol_error(k=k, expiry=EXPIRY)), rel=1e-9)
    assert e.residual == pytest.approx((e.fitted_vol - e.vol) / e.error.total)
    fair = float(vs.black_price(smile.forward, e.strike, smile.years, e.fitted_vol, e.leg.is_call))
    assert e.fair == pytest.approx(fair / (smile.forward if market.settlement is Settlement.INVERSE else 1.0), rel=1e-9)
    fit = smile.fit
    assert fit is not None
    packed = struct.pack("<5d", fit.a, fit.b, fit.rho, fit.m, fit.sigma)
    assert e.fit_hash == blake2b(packed, digest_size=8).hexdigest()
    assert e.strike in e.neighbours.strike
    assert len(e.neighbours) <= 7


def test_weights_of_an_expiry_add_up() -> None:
    surface, quotes = fitted(INVERSE)
    total = 0.0
    for row in np.flatnonzero((quotes.expiry_ns == EXPIRY) & (quotes.reason == QuoteReason.USED)).tolist():
        total += explain(surface, quotes, EXPIRY, float(quotes.strike[row])).weight
    # The strike at the forward is fitted on both legs; a cell shows one.
    assert total == pytest.approx(1.0, abs=0.08)
    assert total <= 1.0 + 1e-12


def test_strike_next_to_the_forward_names_the_averaged_leg() -> None:
    e, *_ = of(Quoted(tick=0.0005, strikes=61), 0.1)
    assert e.averaged
    assert sorted(leg.reason for leg in e.legs) == [QuoteReason.USED, QuoteReason.AVERAGED]
    assert "averaged over both legs" in str(e)
    assert e.error.floor == pytest.approx(2e-4, rel=1e-3)


def test_cell_that_is_not_in_the_fit_says_why() -> None:
    rows = INVERSE.rows()
    i = chosen(rows, 1.0, EXPIRY)
    rows[i] = replace(rows[i], bid=2.5 * rows[i].bid, ask=2.5 * rows[i].ask)
    surface, quotes = fitted(INVERSE, rows)
    e = explain(surface, quotes, EXPIRY, rows[i].strike)
    assert (e.state, e.reason, e.weight) == (ThroughState.REJECTED, QuoteReason.OUTLIER, 0.0)
    assert QuoteReason.OUTLIER.sentence in str(e)
    j = chosen(rows, -1.0, EXPIRY)
    rows[j] = replace(rows[j], bid=np.nan, ask=np.nan)
    surface, quotes = fitted(INVERSE, rows)
    missing = explain(surface, quotes, EXPIRY, rows[j].strike)
    assert missing.state is ThroughState.MISSING
    assert missing.leg.bid.status == "empty"
    for text in (str(missing), missing._repr_html_()):
        assert "nan" not in text.lower().replace("finance", "")


def test_of_several_venues_the_one_that_is_through_is_explained() -> None:
    surface, _ = fitted(INVERSE)
    rows = INVERSE.rows()
    i = chosen(rows, 0.6, EXPIRY)
    fair = explain(*fitted(INVERSE), EXPIRY, rows[i].strike).fair
    pushed = list(rows)
    pushed[i] = moved(rows[i], fair, INVERSE.tick, bid_ticks=4.0)
    quotes = quotes_of(INVERSE, {"one": rows, "two": pushed})
    e = explain(surface, quotes, EXPIRY, rows[i].strike)
    assert (e.venue, e.state) == ("two", ThroughState.BID_THROUGH)
    assert e.edge_ticks == pytest.approx(4.0, rel=1e-9)
    assert len(e.other_venues) == 1
    assert explain(surface, quotes, EXPIRY, rows[i].strike, venue="one").state is ThroughState.INSIDE


def test_unknown_cells_are_refused_with_the_nearest() -> None:
    surface, quotes = fitted(INVERSE)
    strikes = sorted({float(s) for s in quotes.strike[quotes.expiry_ns == EXPIRY]})
    with pytest.raises(InputError, match=f"the nearest are .*{strikes[3]:,.10g}"):
        explain(surface, quotes, EXPIRY, strikes[3] + 1.0)
    with pytest.raises(InputError, match="the nearest is 27JUN26"):
        explain(surface, quotes, EXPIRY + 1, strikes[3])
    with pytest.raises(InputError, match="no venue 'okx'; there are one"):
        explain(surface, quotes, EXPIRY, strikes[3], venue="okx")
    with pytest.raises(InputError, match="no strike nan"):
        explain(surface, quotes, EXPIRY, float("nan"))


def test_every_cell_can_be_explained() -> None:
    rows = INVERSE.rows()
    rng = np.random.default_rng(5)
    for i, row in enumerate(rows):
        kind = rng.integers(6)
        if kind == 0:
            rows[i] = replace(row, bid=np.nan)
        elif kind == 1:
            rows[i] = replace(row, bid=np.nan, ask=np.nan)
        elif kind == 2:
            rows[i] = replace(row, bid=-1.0)
        elif kind == 3:
            rows[i] = replace(row, bid=row.ask * 2)
    surface, quotes = fitted(INVERSE, rows)
    for row in rows:
        if out_of_the_money(row):
            e = explain(surface, quotes, row.expiry_ns, row.strike)
            html = e._repr_html_()
            assert "nan" not in html.lower()
            assert html.count("<table>") == html.count("</table>")
            assert repr(e).startswith("Explanation(BTC ")
