"""Quotes moved through a curve by known amounts are found, measured and named; every listed strike has a cell and a state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import volsurf as vs
from tests.diagnostics.venue_market import board_of_venues, chosen, fitted, moved, quotes_of
from tests.surface.quoted_market import DAY, NOW, Quoted, Row
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, ThroughState, through_matrix
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.surface.quote_vols import quote_vols
from volsurf.surface.surface import Surface

TICK = 0.0005
MARKET = Quoted(tick=TICK)
LINEAR = Quoted(settlement=Settlement.LINEAR, tick=25.0)


@pytest.fixture(scope="module")
def surface() -> Surface:
    return fitted(MARKET)[0]


def fair_premium(market: Quoted, surface: Surface, row: Row) -> float:
    smile = surface.smile(row.expiry_ns)
    price = float(
        vs.black_price(
            smile.forward, row.strike, smile.years, surface.vol(strike=row.strike, expiry=row.expiry_ns), row.is_call
        )
    )
    return price / smile.forward if market.settlement is Settlement.INVERSE else price


def cell_of(matrix: ThroughMatrix, row: Row, venue: str = "one") -> int:
    mine = (matrix.strike == row.strike) & (matrix.expiries[matrix.expiry] == row.expiry_ns)
    mine &= matrix.venue == matrix.venues.index(venue)
    return int(np.flatnonzero(mine)[0])


@pytest.mark.parametrize("market", [MARKET, LINEAR], ids=["inverse", "linear"])
@pytest.mark.parametrize("side", ["bid", "ask"])
@pytest.mark.parametrize("deviations", [-1.0, 0.7])
def test_quote_through_by_three_ticks_is_measured_exactly(market: Quoted, side: str, deviations: float) -> None:
    surface, _ = fitted(market)
    rows = market.rows()
    i = chosen(rows, deviations, NOW + 30 * DAY)
    fair = fair_premium(market, surface, rows[i])
    rows[i] = moved(rows[i], fair, market.tick, **{f"{side}_ticks": 3.0})
    matrix = through_matrix(surface, quotes_of(market, {"one": rows}))
    c = cell_of(matrix, rows[i])
    smile = surface.smile(rows[i].expiry_ns)
    unit = smile.forward if market.settlement is Settlement.INVERSE else 1.0
    fit = float(surface.vol(strike=rows[i].strike, expiry=rows[i].expiry_ns))
    quoted = rows[i].bid if side == "bid" else rows[i].ask
    vol = float(vs.implied_vol(quoted * unit, smile.forward, rows[i].strike, smile.years, rows[i].is_call))
    error = float(surface.vol_error(strike=rows[i].strike, expiry=rows[i].expiry_ns))
    edge = vol - fit if side == "bid" else fit - vol
    assert matrix.state[c] == (ThroughState.BID_THROUGH if side == "bid" else ThroughState.ASK_THROUGH)
    assert bool(matrix.edge_is_bid[c]) is (side == "bid")
    assert matrix.fitted_vol[c] == pytest.approx(fit, rel=1e-12)
    assert matrix.standard_error[c] == pytest.approx(error, rel=1e-9)
    assert matrix.edge_bp[c] == pytest.approx(1e4 * edge, rel=1e-7)
    assert matrix.edge_price[c] == pytest.approx(3 * market.tick, rel=1e-9)
    assert matrix.edge_ticks[c] == pytest.approx(3.0, rel=1e-9)
    assert matrix.edge_se[c] == pytest.approx(edge / error, rel=1e-7)
    assert matrix.edge_bp[c] > matrix.threshold_bp[c] > 0
    assert matrix.is_through.sum() == 1
    assert int(matrix.largest_cells(5)[0]) == c


@given(ticks=st.floats(-3, 6), side=st.sampled_from(["bid", "ask"]), deviations=st.floats(-1.5, 1.5))
@settings(max_examples=40)
def test_state_follows_from_tick_and_standard_error(
    surface: Surface, ticks: float, side: str, deviations: float
) -> None:
    rows = MARKET.rows()
    i = chosen(rows, deviations, NOW + 30 * DAY)
    fair = fair_premium(MARKET, surface, rows[i])
    rows[i] = moved(rows[i], fair, TICK, **{f"{side}_ticks": ticks})
    matrix = through_matrix(surface, quotes_of(MARKET, {"one": rows}))
    c = cell_of(matrix, rows[i])
    threshold = max(2 * matrix.standard_error[c], 0.0)
    vega = float(
        vs.black_greeks(1.0, rows[i].strike / rows[i].forward, 30 / 365, matrix.mid_vol[c], rows[i].is_call).vega
    )
    threshold = max(threshold, TICK / vega)
    vol = matrix.bid_vol[c] if side == "bid" else matrix.ask_vol[c]
    edge = (vol - matrix.fitted_vol[c]) * (1 if side == "bid" else -1)
    if abs(edge - threshold) > 1e-9:
        expected = ThroughState.BID_THROUGH if side == "bid" else ThroughState.ASK_THROUGH
        assert bool(matrix.state[c] == expected) is bool(edge > threshold)
    assert matrix.u[c] == pytest.approx(
        (matrix.fitted_vol[c] - matrix.mid_vol[c]) / (0.5 * (matrix.ask_vol[c] - matrix.bid_vol[c]))
    )


def test_edge_within_two_standard_errors_is_the_curves_own(surface: Surface) -> None:
    """The same quote, under a curve so uncertain that the edge is one standard error of it."""
    rows = MARKET.rows()
    i = chosen(rows, -0.7, NOW + 30 * DAY)
    rows[i] = moved(rows[i], fair_premium(MARKET, surface, rows[i]), TICK, bid_ticks=3.0)
    quotes = quotes_of(MARKET, {"one": rows})
    sure = through_matrix(surface, quotes)
    c = cell_of(sure, rows[i])
    smiles = list(surface.smiles)
    fit = smiles[1].fit
    assert fit is not None
    factor = float(sure.edge_se[c]) ** 2
    smiles[1] = smiles[1].with_fit(replace(fit, covariance=tuple(factor * v for v in fit.covariance)))
    vague = through_matrix(Surface("BTC", NOW, tuple(smiles)), quotes)
    assert vague.edge_se[c] == pytest.approx(1.0)
    assert vague.threshold_bp[c] == pytest.approx(2 * vague.edge_bp[c])
    assert (sure.state[c], vague.state[c]) == (ThroughState.BID_THROUGH, ThroughState.INSIDE)


def test_every_strike_of_every_venue_has_one_cell(surface: Surface) -> None:
    rows = MARKET.rows()
    matrix = through_matrix(surface, quotes_of(MARKET, {"one": rows, "two": rows[::3], "three": rows[:7]}))
    listed = {
        (v, r.expiry_ns, r.strike) for v, mine in (("one", rows), ("two", rows[::3]), ("three", rows[:7])) for r in mine
    }
    cells = {
        (matrix.venues[v], int(matrix.expiries[e]), s)
        for v, e, s in zip(matrix.venue, matrix.expiry, matrix.strike, strict=True)
    }
    assert len(matrix) == len(listed)
    assert cells == listed
    assert sum(matrix.counts.values()) == len(matrix)
    order = np.lexsort((matrix.venue, matrix.strike, matrix.expiry))
    assert (order == np.arange(len(matrix))).all()


def test_leg_out_of_the_money_is_read_unless_only_the_other_is_fitted(surface: Surface) -> None:
    rows = MARKET.rows()
    i = min(
        range(len(rows)),
        key=lambda j: abs(np.log(rows[j].strike / rows[j].forward)) + 10 * (rows[j].expiry_ns != NOW + 30 * DAY),
    )
    strike = rows[i].strike
    matrix = through_matrix(surface, quotes_of(MARKET, {"one": rows}))
    assert (matrix.is_call == (matrix.log_moneyness >= 0)).all()
    out = next(j for j, r in enumerate(rows) if r.strike == strike and r.is_call == (strike >= r.forward))
    rows[out] = replace(rows[out], bid=np.nan, ask=np.nan)
    matrix = through_matrix(surface, quotes_of(MARKET, {"one": rows}))
    c = cell_of(matrix, rows[out])
    assert bool(matrix.is_call[c]) is not rows[out].is_call
    assert matrix.state[c] == ThroughState.INSIDE
    # The cell keeps its name: the put's id.
    universe = matrix.universe
    assert not universe.is_call[matrix.key].any()


def test_states_of_quotes_that_are_not_two_sided_and_fresh(surface: Surface) -> None:
    rows = MARKET.rows()
    expiry = NOW + 30 * DAY
    one, none, far, old, wide = (chosen(rows, d, expiry) for d in (-1.5, -1.0, 1.0, 1.5, -0.5))
    rows[one] = replace(rows[one], ask=np.nan, bid=rows[one].bid - 2 * TICK)
    rows[none] = replace(rows[none], bid=np.nan, ask=np.nan)
    rows[far] = replace(rows[far], bid=2 * rows[far].bid, ask=2 * rows[far].ask)
    rows[wide] = replace(rows[wide], ask=rows[wide].bid * 0.9)
    heard = np.full(len(rows), NOW)
    heard[old] = NOW - 3_600_000_000_000
    board = board_of_venues(MARKET, {"one": rows}, receive_time_ns=heard)
    quotes = quote_vols(board, NOW)
    refitted = vs.fit_smiles(vs.build_smiles(quotes))
    matrix = through_matrix(refitted, quotes)
    found = {
        name: matrix.state[cell_of(matrix, rows[i])]
        for name, i in (("one", one), ("none", none), ("far", far), ("old", old), ("wide", wide))
    }
    assert found == {
        "one": ThroughState.ONE_SIDED,
        "none": ThroughState.MISSING,
        "far": ThroughState.REJECTED,
        "old": ThroughState.STALE,
        "wide": ThroughState.REJECTED,
    }
    assert matrix.reason[cell_of(matrix, rows[far])] == QuoteReason.OUTLIER
    assert matrix.reason[cell_of(matrix, rows[wide])] == QuoteReason.CROSSED
    assert np.isnan(matrix.edge_bp[cell_of(matrix, rows[none])])


def test_lone_bid_above_the_curve_is_through(surface: Surface) -> None:
    rows = MARKET.rows()
    i = chosen(rows, -1.0, NOW + 30 * DAY)
    fair = fair_premium(MARKET, surface, rows[i])
    rows[i] = replace(rows[i], bid=fair + 4 * TICK, ask=np.nan)
    matrix = through_matrix(surface, quotes_of(MARKET, {"one": rows}))
    c = cell_of(matrix, rows[i])
    assert (matrix.state[c], matrix.side[c]) == (ThroughState.BID_THROUGH, -1)
    assert matrix.edge_ticks[c] == pytest.approx(4.0, rel=1e-9)


def test_quotes_older_than_asked_for_are_stale(surface: Surface) -> None:
    rows = MARKET.rows()
    heard = np.where(np.arange(len(rows)) % 2, NOW, NOW - 5_000_000_000)
    quotes = quotes_of(MARKET, {"one": rows}, receive_time_ns=heard)
    assert ThroughState.STALE not in through_matrix(surface, quotes).counts
    matrix = through_matrix(surface, quotes, maximum_age_ns=1_000_000_000)
    assert ((matrix.state == ThroughState.STALE) == (matrix.age_ns > 1_000_000_000)).all()
    assert 0 < matrix.counts[ThroughState.STALE] < len(matrix)


def test_everything_stale_and_nobody_quoting(surface: Surface) -> None:
    rows = MARKET.rows()
    late = quote_vols(board_of_venues(MARKET, {"one": rows}), NOW + 600_000_000_000)
    assert through_matrix(surface, late).counts == {ThroughState.STALE: 75}
    silent = [replace(r, bid=np.nan, ask=np.nan) for r in rows]
    matrix = through_matrix(surface, quotes_of(MARKET, {"one": silent}))
    assert matrix.counts == {ThroughState.MISSING: 75}
    assert matrix.largest().height == 0


def test_consensus_and_agreement_across_venues(surface: Surface) -> None:
    rows = MARKET.rows()
    i = chosen(rows, 0.7, NOW + 30 * DAY)
    fair = fair_premium(MARKET, surface, rows[i])
    shifts = {"one": 3.0, "two": 5.0, "three": 0.0}
    books = {}
    for venue, ticks in shifts.items():
        mine = list(rows)
        if ticks:
            mine[i] = moved(rows[i], fair, TICK, bid_ticks=ticks)
        books[venue] = mine
    matrix = through_matrix(surface, quotes_of(MARKET, books))
    cells = {v: cell_of(matrix, rows[i], v) for v in shifts}
    assert [int(matrix.agreement[cells[v]]) for v in shifts] == [1, 1, 0]
    for venue, c in cells.items():
        others = [o for v, o in cells.items() if v != venue]
        weight = [4 / (matrix.ask_vol[o] - matrix.bid_vol[o]) ** 2 for o in others]
        consensus = np.average([matrix.mid_vol[o] for o in others], weights=weight)
        assert matrix.venue_spread_bp[c] == pytest.approx(1e4 * (matrix.mid_vol[c] - consensus), rel=1e-6)
    assert np.isnan(through_matrix(surface, quotes_of(MARKET, {"one": rows})).venue_spread_bp).all()


def test_leverage_is_how_far_the_curve_follows_a_quote() -> None:
    market = Quoted(half_spread=0.01)
    surface, quotes = fitted(market)
    matrix = through_matrix(surface, quotes)
    for e in range(len(matrix.expiries)):
        total = float(np.nansum(matrix.leverage[matrix.expiry == e]))
        assert 3.0 < total <= 5.0 + 1e-6
    rows = market.rows()
    i = chosen(rows, -1.0, NOW + 30 * DAY)
    smile = surface.smile(rows[i].expiry_ns)
    shift = 0.002
    prices = [
        float(
            vs.black_price(1.0, rows[i].strike / smile.forward, smile.years, rows[i].vol + shift + d, rows[i].is_call)
        )
        for d in (-0.01, 0.01)
    ]
    rows[i] = replace(rows[i], bid=prices[0], ask=prices[1])
    after, _ = fitted(market, rows)
    at = {"strike": rows[i].strike, "expiry": rows[i].expiry_ns}
    followed = float(after.vol(**at) - surface.vol(**at)) / shift
    assert followed == pytest.approx(float(matrix.leverage[cell_of(matrix, rows[i])]), rel=0.1)


def test_older_surface_is_read_at_the_new_forward(surface: Surface) -> None:
    moved_on = Quoted(tick=TICK, spot=MARKET.spot * 1.01)
    later = NOW + 1_000_000_000
    quotes = quotes_of(moved_on, {"one": moved_on.rows()}, later)
    matrix = through_matrix(surface, quotes)
    assert (matrix.time_ns, matrix.surface_time_ns) == (later, NOW)
    smile = surface.smiles[1]
    mine = matrix.expiry == 1
    k = np.log(matrix.strike[mine] / (smile.forward * 1.01))
    np.testing.assert_allclose(matrix.fitted_vol[mine], smile.fitted_vol(k), rtol=1e-9)
    rows = MARKET.rows()
    with pytest.raises(InputError, match="later than the quotes"):
        through_matrix(fitted(MARKET)[0], quote_vols(board_of_venues(MARKET, {"one": rows}), NOW - 1))


def test_tables_hold_every_cell_and_pivot_the_largest(surface: Surface) -> None:
    rows = MARKET.rows()
    i = chosen(rows, 0.7, NOW + 30 * DAY)
    pushed = list(rows)
    pushed[i] = moved(rows[i], fair_premium(MARKET, surface, rows[i]), TICK, bid_ticks=3.0)
    matrix = through_matrix(surface, quotes_of(MARKET, {"one": rows, "two": pushed}))
    frame = matrix.to_polars()
    assert frame.height == len(matrix) == len(matrix.to_pandas())
    assert set(frame["state"]) <= {s.label for s in ThroughState}
    table = matrix.pivot()
    assert table.shape == (3, len(np.unique(matrix.strike)))
    assert table.loc[matrix.expiry_labels[1], rows[i].strike] == matrix.edge_bp[cell_of(matrix, rows[i], "two")]
    assert matrix.pivot("state").loc[matrix.expiry_labels[1], rows[i].strike] == "bid through"
    assert matrix.of_venue("two").largest().height == 1
    assert matrix.of_venue("one").largest().height == 0
    assert matrix.largest().row(0, named=True)["venue"] == "two"
    for call in (lambda: matrix.pivot("nothing"), lambda: matrix.of_venue("okx"), lambda: matrix.largest(by="size")):
        with pytest.raises(InputError):
            call()


def test_quotes_of_another_underlying_are_refused(surface: Surface) -> None:
    with pytest.raises(InputError, match="the quotes hold SOL, the surface is of BTC"):
        through_matrix(surface, fitted(Quoted("SOL", Settlement.LINEAR))[1])


def test_states_have_distinct_labels_and_sentences() -> None:
    assert len({s.label for s in ThroughState}) == len({s.sentence for s in ThroughState}) == len(ThroughState)
    assert [s for s in ThroughState if s.is_through] == [ThroughState.BID_THROUGH, ThroughState.ASK_THROUGH]
