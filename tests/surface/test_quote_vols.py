"""Quotes to vols: what comes back is the vol that made the price, and every row has a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.surface.quoted_market import DAY, NOW, SLICES, Quoted, Row, board_of, without_forward
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.iv.forward import ForwardSource
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.layout import QuoteLayout
from volsurf.surface.quote_vols import QuoteRules, QuoteVols, quote_vols

MARKETS = {
    "inverse": Quoted(),
    "linear": Quoted("SOL", Settlement.LINEAR, spot=140.0),
    "linear, below one": Quoted("XRP", Settlement.LINEAR, spot=0.6),
}


def reasons_of(quotes: QuoteVols) -> list[QuoteReason]:
    """Reasons in the order of the board's instruments."""
    order = np.argsort(quotes.instrument_id)
    return [QuoteReason(int(code)) for code in quotes.reason[order]]


@pytest.mark.parametrize("market", MARKETS.values(), ids=MARKETS.keys())
def test_vols_are_those_the_quotes_were_made_of(market: Quoted) -> None:
    rows = market.rows()
    quotes = quote_vols(board_of(market), NOW)
    otm = np.where(quotes.is_call, quotes.strike >= quotes.forward, quotes.strike < quotes.forward)
    true = np.array(
        [
            float(SLICES[round((e - NOW) / DAY)].vol(k, t))
            for e, k, t in zip(quotes.expiry_ns, quotes.log_moneyness, quotes.years, strict=True)
        ]
    )
    assert otm.sum() == len(rows) / 2
    np.testing.assert_allclose(quotes.bid_vol[otm], true[otm] - market.half_spread, rtol=1e-9)
    np.testing.assert_allclose(quotes.ask_vol[otm], true[otm] + market.half_spread, rtol=1e-9)
    np.testing.assert_allclose(quotes.mid_vol[otm], true[otm], rtol=1e-9)
    np.testing.assert_allclose(quotes.forward, [market.forward((e - NOW) / DAY) for e in quotes.expiry_ns], rtol=1e-12)
    assert quotes.used[otm].all()
    assert (quotes.error[quotes.reason == 0] >= market.half_spread * 0.7).all()
    assert (quotes.side == 0).sum() == quotes.used.sum()


def test_rows_are_in_order_and_partners_are_each_other() -> None:
    market = MARKETS["inverse"]
    rows = market.rows()
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    layout = QuoteLayout.of(board_of(market, shuffled).universe)
    assert (np.diff(layout.expiry_ns) > 0).all()
    partner = layout.partner
    assert (partner >= 0).all()
    assert (partner[partner] == np.arange(len(layout))).all()
    assert (layout.strike[partner] == layout.strike).all()
    assert (layout.is_call[partner] != layout.is_call).all()


def test_order_of_instruments_does_not_matter() -> None:
    market = MARKETS["inverse"]
    rows = market.rows()
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    one, other = quote_vols(board_of(market), NOW), quote_vols(board_of(market, shuffled), NOW)
    for name in ("strike", "bid_vol", "ask_vol", "vol", "error", "reason", "side", "vega"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_both_legs_next_to_the_forward_are_averaged_into_the_outer_one() -> None:
    market = Quoted(strikes=61, reach=1.5)
    quotes = quote_vols(board_of(market), NOW)
    averaged = np.flatnonzero(quotes.reason == QuoteReason.AVERAGED)
    assert len(averaged) >= 3
    outer = quotes.layout.partner[averaged]
    assert (quotes.reason[outer] == QuoteReason.USED).all()
    assert (np.abs(quotes.log_moneyness[averaged]) < 0.16 * 0.47 * np.sqrt(quotes.years[averaged])).all()
    # The outer leg keeps its own bid and ask; its error bar says that there are two quotes.
    assert (quotes.error[outer] < market.half_spread).all()
    np.testing.assert_allclose(quotes.ask_vol[outer] - quotes.bid_vol[outer], 2 * market.half_spread, rtol=1e-6)


def bad(row: Row, **changes: object) -> Row:
    return replace(row, **changes)  # type: ignore[arg-type]


def test_every_bad_quote_has_its_reason_and_the_ledger_balances() -> None:
    market = Quoted(tick=1e-4)
    rows = market.rows()
    calls = [i for i, r in enumerate(rows) if r.is_call and r.strike > r.forward and r.expiry_ns == NOW + 30 * DAY]
    puts = [i for i, r in enumerate(rows) if not r.is_call and r.strike < r.forward and r.expiry_ns == NOW + 30 * DAY]
    expected: dict[int, QuoteReason] = {}

    def spoil(i: int, why: QuoteReason, **changes: object) -> None:
        rows[i] = bad(rows[i], **changes)
        expected[i] = why

    spoil(calls[0], QuoteReason.CROSSED, bid=rows[calls[0]].ask, ask=rows[calls[0]].bid - 1e-4)
    spoil(calls[1], QuoteReason.NO_QUOTE, bid=float("nan"), ask=0.0)
    spoil(calls[2], QuoteReason.BAD_PRICE, bid=-0.01)
    spoil(calls[3], QuoteReason.BAD_PRICE, ask=float("inf"))
    spoil(calls[4], QuoteReason.ABOVE_MAXIMUM, bid=1.5, ask=1.6)
    spoil(puts[-1], QuoteReason.TOO_WIDE, bid=1e-6, ask=0.4)
    spoil(puts[-2], QuoteReason.ONE_SIDED, bid=0.0, ask=rows[puts[-2]].mark * 5)
    spoil(puts[-3], QuoteReason.USED, bid=0.0)
    spoil(puts[-4], QuoteReason.USED, ask=float("nan"))
    rows.append(bad(rows[0], strike=rows[0].forward * 3, is_call=True, bid=1e-4, ask=3e-4))
    expected[len(rows) - 1] = QuoteReason.TOO_FAR
    rows.append(bad(rows[0], expiry_ns=NOW - DAY))
    expected[len(rows) - 1] = QuoteReason.EXPIRED
    rows.append(bad(rows[0], expiry_ns=NOW + 29 * 60 * 10**9))
    expected[len(rows) - 1] = QuoteReason.EXPIRING
    quotes = quote_vols(board_of(market, rows), NOW)
    found = reasons_of(quotes)
    assert {i: found[i] for i in expected} == expected
    order = np.argsort(quotes.instrument_id)
    assert quotes.side[order][puts[-3]] == 1
    assert quotes.side[order][puts[-4]] == -1
    ledger = quotes.ledger()
    assert sum(ledger.counts.values()) == ledger.rows == len(rows)
    assert ledger.one_sided == 2
    assert set(expected.values()) <= set(ledger.counts)
    # The neighbours of bad rows are none the worse.
    assert sum(found[i] is QuoteReason.USED for i in calls) == len(calls) - 5


def test_stale_quotes_are_left_out_and_age_widens_the_rest() -> None:
    market = MARKETS["inverse"]
    rows = market.rows()
    heard = np.full(len(rows), NOW)
    heard[: len(rows) // 3] = NOW - 301 * 10**9
    quotes = quote_vols(board_of(market, receive_time_ns=heard), NOW)
    stale = quotes.expiry_ns == NOW + 7 * DAY
    assert (quotes.reason[stale] == QuoteReason.STALE).all()
    fresh = quote_vols(board_of(market), NOW)
    minute_old = quote_vols(board_of(market, receive_time_ns=NOW - 60 * 10**9), NOW)
    used = fresh.reason == QuoteReason.USED
    assert (minute_old.error[used] > fresh.error[used]).all()


def test_clock_step_back_makes_no_negative_age() -> None:
    market = MARKETS["inverse"]
    quotes = quote_vols(board_of(market), NOW - 5 * 10**9)
    assert (quotes.age_ns == 0).all()
    assert quotes.ledger().used > 0


def test_no_forward_is_a_reason() -> None:
    market = Quoted()
    rows = [r for r in without_forward(market.rows()) if r.is_call]
    quotes = quote_vols(board_of(market, rows, index=np.nan), NOW)
    assert set(reasons_of(quotes)) == {QuoteReason.NO_FORWARD}
    assert all(f.source is ForwardSource.NONE for f in quotes.forwards)


def test_forward_of_an_old_ticker_is_moved_by_the_index() -> None:
    market = Quoted()
    rows = [r for r in market.rows() if r.is_call]
    n = len(rows)
    index, when = np.full(n, market.spot), np.full(n, NOW - 10**9)
    # One later ticker, of another expiry, says that the index has gone up by one per cent.
    index[-1], when[-1] = market.spot * 1.01, NOW
    quotes = quote_vols(board_of(market, rows, index=index, venue_time_ns=when), NOW)
    assert quotes.forwards[0].forward == pytest.approx(market.forward(7) * 1.01, rel=1e-12)
    assert quotes.forwards[-1].forward == pytest.approx(market.forward(180), rel=1e-12)


def test_a_forward_is_as_old_as_the_message_that_brought_it() -> None:
    """Where quotes, forwards and indexes come in different messages, a row whose quote is the newest may hold an old forward."""
    market = Quoted()
    rows = market.rows()
    board = board_of(market, rows, index=np.nan)
    near = np.flatnonzero([r.expiry_ns == rows[0].expiry_ns for r in rows])
    told, quoted = near[: len(near) // 2], near[-1:]
    now, forward = NOW + 2 * 10**9, market.forward(7) * 1.002
    times = {"venue_time_ns": now - 10**9, "receive_time_ns": now - 10**9}
    board.apply(QuoteBatch(told, Field.FORWARD, forward=forward, **times))
    last = {"bid": rows[quoted[0]].bid, "ask": rows[quoted[0]].ask, "venue_time_ns": now, "receive_time_ns": now}
    board.apply(QuoteBatch(quoted, Field.QUOTE, **last))
    found = quote_vols(board, now).market_forwards
    assert found.venue_forward[0] == pytest.approx(forward, rel=1e-12)
    # The index as well: here the newest is that of another expiry.
    board.apply(QuoteBatch(near, Field.FORWARD | Field.INDEX, forward=forward, index=market.spot, **times))
    other = [len(rows) - 1]
    board.apply(QuoteBatch(other, Field.INDEX, index=1.01 * market.spot, venue_time_ns=now, receive_time_ns=now))
    board.apply(QuoteBatch(quoted, Field.QUOTE, **last | {"venue_time_ns": now + 1}))
    found = quote_vols(board, now).market_forwards
    assert found.venue_forward[0] == pytest.approx(1.01 * forward, rel=1e-12)


def test_warm_start_gives_the_same_vols() -> None:
    market = MARKETS["inverse"]
    cold = quote_vols(board_of(market), NOW)
    board = board_of(market)
    first = quote_vols(board, NOW - 10**9)
    warm = quote_vols(board, NOW, previous=first)
    assert warm.layout is first.layout
    np.testing.assert_allclose(warm.bid_vol, cold.bid_vol, rtol=1e-10)
    np.testing.assert_allclose(warm.error, cold.error, rtol=1e-8)
    np.testing.assert_array_equal(warm.reason, cold.reason)


def test_listing_and_expiry_between_two_frames() -> None:
    market = Quoted()
    rows = market.rows()
    board = board_of(market, rows)
    before = quote_vols(board, NOW)
    new = market.instrument(replace(rows[0], expiry_ns=NOW + 60 * DAY))
    board.universe.add([new])
    board.universe.retire([0])
    after = quote_vols(board, NOW, previous=before)
    assert len(after) == len(before)
    assert 0 not in after.instrument_id
    assert reasons_of(after)[-1] is QuoteReason.NO_QUOTE
    by_id = dict(zip(before.instrument_id.tolist(), before.bid_vol.tolist(), strict=True))
    carried = np.isin(after.instrument_id, before.instrument_id)
    known = [by_id[i] for i in after.instrument_id[carried].tolist()]
    np.testing.assert_allclose(after.bid_vol[carried], known, rtol=1e-9)


def test_two_underlyings_keep_apart() -> None:
    one, other = Quoted(), Quoted("SOL", Settlement.LINEAR, spot=140.0)
    board = board_of(one)
    rows = other.rows()
    ids = board.universe.add(other.instrument(r) for r in rows)
    assert len(ids) == len(rows)
    quotes = quote_vols(board, NOW)
    assert quotes.ledger("SOL").counts == {QuoteReason.NO_QUOTE: len(rows)}
    assert quotes.ledger("BTC").used > 0
    assert quotes.ledger("BTC").rows + quotes.ledger("SOL").rows == len(quotes)
    with pytest.raises(InputError, match="no underlying 'ETH'; there are BTC, SOL"):
        quotes.ledger("ETH")


def test_empty_board() -> None:
    from volsurf.instruments import Universe

    quotes = quote_vols(QuoteBoard(Universe()), NOW)
    assert len(quotes) == 0
    assert quotes.ledger().rows == 0
    assert quotes.forwards == ()


def test_rules_are_limits() -> None:
    market = MARKETS["inverse"]
    tight = quote_vols(board_of(market), NOW, rules=QuoteRules(maximum_moneyness=1.0))
    far = np.abs(tight.log_moneyness) > 1.1 * 0.5 * np.sqrt(tight.years)
    assert (tight.reason[far & (tight.reason != QuoteReason.ITM_LEG)] == QuoteReason.TOO_FAR).all()
    none = quote_vols(board_of(market), NOW, rules=QuoteRules(maximum_half_spread=0.001))
    assert none.ledger().used == 0


@pytest.mark.parametrize("forward", [5e-324, 1e-300, 1e300, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("index", [5e-324, 1e300, np.inf])
def test_a_forward_that_cannot_be_costs_its_rows_only(forward: float, index: float) -> None:
    # Warnings are errors here: nothing is said about numbers that a venue made up.
    rows = list(Quoted().rows())
    mad = np.arange(len(rows)) < len(rows) // 3
    board = board_of(
        Quoted(),
        rows,
        forward=np.where(mad, forward, [row.forward for row in rows]),
        index=np.where(mad, index, Quoted().spot),
        bid=np.where(mad, 1e300, [row.bid for row in rows]),
    )
    quotes = quote_vols(board, NOW)
    assert quotes.ledger().used > 0
    assert np.isfinite(quotes.vol[quotes.used]).all()
    assert np.isfinite(quotes.error[quotes.reason == QuoteReason.USED]).all()
