"""One expiry quoted by four venues in three currencies: each with a forward of its own, all on one smile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import volsurf as vs
from tests.surface.quoted_market import DAY, NOW, SLICES, Quoted, board_of as board_of_one
from tests.surface.venue_boards import CARRY, FOUR, SPOT, Book, board_of, rows_of, true_vol, truth
from volsurf.diagnostics.forwards import forward_checks
from volsurf.diagnostics.quality import diagnose
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through import ThroughState
from volsurf.instruments import Settlement, Universe
from volsurf.iv.forward import ForwardSource
from volsurf.quotes import QuoteBoard
from volsurf.surface.layout import QuoteLayout
from volsurf.surface.quote_vols import UNKNOWN_SKEW, QuoteVols, _atm_vol, quote_vols
from volsurf.surface.surface import Surface

K = np.linspace(-0.15, 0.15, 13)


def fitted(quotes: QuoteVols) -> Surface:
    return vs.fit_smiles(vs.build_smiles(quotes))


def vols_at(surface: Surface) -> np.ndarray:
    """Fitted vols of the 30-day and 180-day expiries at fixed log-moneyness, shape (2, 13)."""
    return np.array([surface.smiles[i].fitted_vol(K) for i in (1, 2)])


def only(books: Sequence[Book], **changes: object) -> tuple[Book, ...]:
    return tuple(replace(book, **changes) for book in books)  # type: ignore[arg-type]


@pytest.mark.parametrize("says_forward", [True, False], ids=["venue's forward", "parity"])
def test_every_venue_s_vols_are_the_truth_s(says_forward: bool) -> None:
    books = only(FOUR, says_forward=says_forward)
    # A discounting venue's discount is what it says of index and forward.
    books = tuple(replace(b, says_forward=says_forward or b.is_discounted) for b in books)
    quotes = quote_vols(board_of(books), NOW)
    off = np.abs(quotes.vol - true_vol(quotes, books))
    used = quotes.reason == QuoteReason.USED
    for venue in quotes.layout.venues:
        mine = used & rows_of(quotes, venue)
        assert mine.sum() > 60, venue
        assert (off[mine] <= quotes.error[mine]).all(), venue
        # Half a spread of 40 to 100 bp is most of the bar; the middle of the quotes is far closer than that.
        assert np.quantile(off[mine], 0.95) < 2e-4, venue
    assert quotes.ledger().rows == len(quotes)


def test_the_consolidated_smile_is_the_truth_s() -> None:
    surface = fitted(quote_vols(board_of(FOUR), NOW))
    assert surface.certificate
    for smile, days in zip(surface.smiles, SLICES, strict=True):
        deviation = np.sqrt(SLICES[days].total_variance(0.0))
        k = deviation * np.linspace(-2, 2, 9)
        np.testing.assert_allclose(smile.fitted_vol(k), truth(k, days), atol=3e-4)


def test_each_market_has_its_own_forward_and_dollars_speak_for_the_expiry() -> None:
    quotes = quote_vols(board_of(FOUR), NOW)
    layout, found = quotes.layout, quotes.market_forwards
    assert len(found.forward) == 15
    for book in FOUR:
        for expiry, days in enumerate(SLICES):
            name = f"{book.venue} {book.currency} {book.settlement.name.lower()}"
            (market,) = [m for m in range(15) if layout.market_name(m) == name and layout.market_expiry[m] == expiry]
            assert found.forward[market] == pytest.approx(book.forward(days), rel=1e-12)
    assert [layout.market_currency[m] for m in quotes.reference] == ["USD"] * 3
    np.testing.assert_array_equal(quotes.expiry_forwards.forward, found.forward[quotes.reference])
    assert [f.forward for f in quotes.forwards] == quotes.expiry_forwards.forward.tolist()


def test_a_jump_of_the_usdt_leaves_the_smile_where_it_is() -> None:
    before = quote_vols(board_of(FOUR), NOW)
    jumped = tuple(replace(b, basis=b.basis - 0.005) if b.currency == "USDT" else b for b in FOUR)
    after = quote_vols(board_of(jumped), NOW)
    moved = np.abs(vols_at(fitted(after)) - vols_at(fitted(before)))
    assert moved.max() < 1e-4
    # It is the forwards of their own that do it: against the dollar's the same quotes are off by tens of basis points of vol.
    mine = (after.reason == QuoteReason.USED) & rows_of(after, "bybit", "USDT")
    wrong = truth(np.log(after.strike / (SPOT * np.exp(CARRY * after.years))), (after.expiry_ns - NOW) // DAY)
    assert np.abs(after.vol - wrong)[mine].max() > 20e-4


def test_without_quotes_in_usdt_the_smile_is_the_same() -> None:
    whole = vols_at(fitted(quote_vols(board_of(FOUR), NOW)))
    dollars = vols_at(fitted(quote_vols(board_of(FOUR[:2]), NOW)))
    np.testing.assert_allclose(whole, dollars, atol=1e-4)


def test_a_mispriced_venue_is_shown_as_such_and_bends_no_more_than_its_weight() -> None:
    fair, wrong = vols_at(fitted(quote_vols(board_of(FOUR), NOW))), 0.03
    books = tuple(replace(b, shift=wrong) if b.venue == "okx" else b for b in FOUR)
    quotes = quote_vols(board_of(books), NOW)
    surface = fitted(quotes)
    used = quotes.reason == QuoteReason.USED
    weight = 1.0 / quotes.error[used] ** 2
    share = weight[rows_of(quotes, "okx")[used]].sum() / weight.sum()
    moved = np.abs(vols_at(surface) - fair)
    assert moved.max() < share * wrong
    report = diagnose(surface, quotes)
    matrix = report.through
    assert matrix is not None
    okx, deribit = matrix.of_venue("okx"), matrix.of_venue("deribit")
    caught = okx.is_through | (okx.reason == QuoteReason.OUTLIER)
    assert caught[okx.state != ThroughState.REJECTED].mean() > 0.9
    assert deribit.is_through.mean() < 0.1
    # Against the other venues at its strike it is 3 vol points rich, whatever their moneyness there is.
    spread = okx.venue_spread_bp[np.isfinite(okx.venue_spread_bp)]
    assert len(spread)
    assert np.median(spread) == pytest.approx(300, abs=15)


def test_a_market_that_says_nothing_of_its_forward_has_it_from_another_by_the_indexes() -> None:
    calls = Book("bybit", "USDT", Settlement.LINEAR, basis=-0.004, legs="calls", says_forward=False)
    quotes = quote_vols(board_of((*FOUR[:2], calls)), NOW)
    found, layout = quotes.market_forwards, quotes.layout
    for days, market in zip(SLICES, np.flatnonzero(np.array(layout.market_currency) == "USDT"), strict=True):
        assert found.source[market] == ForwardSource.CARRIED
        assert found.forward[market] == pytest.approx(calls.forward(days), rel=1e-6)
        assert 2e-4 < found.standard_error[market] / found.forward[market] < 5e-4
    used = (quotes.reason == QuoteReason.USED) & rows_of(quotes, "bybit")
    off = np.abs(quotes.vol - true_vol(quotes, (*FOUR[:2], calls)))
    assert used.sum() > 20
    assert (off[used] <= quotes.error[used]).all()
    # The forward's error is that of the quote's own market, in the bar and in what is said of it.
    surface, row = fitted(quotes), int(np.flatnonzero(used)[3])
    part = vs.explain(surface, quotes, int(quotes.expiry_ns[row]), float(quotes.strike[row]), venue="bybit").error
    lever = abs(quotes.delta[row]) / quotes.vega[row]
    assert part.forward == pytest.approx(lever * 3e-4, rel=0.05)
    assert part.floor == pytest.approx(2e-4, rel=1e-4)
    assert part.total == quotes.error[row]


def test_without_an_index_the_error_bar_of_a_carried_forward_says_so() -> None:
    calls = Book("bybit", "USDT", Settlement.LINEAR, basis=-0.004, legs="calls", says_forward=False, says_index=False)
    quotes = quote_vols(board_of((FOUR[0], calls)), NOW)
    found = quotes.market_forwards
    market = quotes.layout.market[rows_of(quotes, "bybit")]
    assert (found.source[market] == ForwardSource.CARRIED).all()
    relative = (found.standard_error / found.forward)[market]
    off = np.abs(found.forward[market] / np.array([calls.forward(int(d)) for d in days_of(quotes, "bybit")]) - 1)
    assert (off < relative).all()
    assert (off > 0.003).all()


def days_of(quotes: QuoteVols, venue: str) -> np.ndarray:
    return ((quotes.expiry_ns - NOW) // DAY)[rows_of(quotes, venue)]


def test_an_expiry_of_one_venue_takes_the_carry_of_the_others() -> None:
    """Where a venue gives no forward of any expiry, those it lists alone are found from the others' rates."""
    dumb = Book("bybit", "USDT", Settlement.LINEAR, basis=-0.004, legs="calls", says_forward=False, days=(30,))
    rich = Book("deribit", days=(7, 180))
    quotes = quote_vols(board_of((rich, dumb)), NOW)
    market = int(quotes.layout.market[rows_of(quotes, "bybit")][0])
    assert quotes.market_forwards.source[market] == ForwardSource.INTERPOLATED
    assert quotes.market_forwards.forward[market] == pytest.approx(dumb.forward(30), rel=1e-6)


def test_the_reference_is_stable_while_errors_flicker() -> None:
    board = board_of(FOUR)
    alone = quote_vols(board, NOW)
    assert [alone.layout.market_name(m) for m in alone.reference] == ["deribit USD inverse"] * 3
    names = ["okx USD inverse"] * 3
    okx = [m for m in range(15) if alone.layout.market_name(m) == names[0]]
    # It is as exact as the other, and spoke before.
    again = quote_vols(board, NOW, previous=replace(alone, reference=np.array(okx)))
    assert [again.layout.market_name(m) for m in again.reference] == names
    np.testing.assert_allclose(again.vol, alone.vol, rtol=1e-12)
    # A listing numbers the markets anew; who speaks for an expiry stays.
    board.apply(Book("aevo", days=(30,)).batch(board.universe))
    listed = quote_vols(board, NOW, previous=again)
    assert listed.layout is not again.layout
    assert [listed.layout.market_name(m) for m in listed.reference] == names
    # Nor does it hang on the lowest strike.
    lowest = [int(listed.layout.positions[np.flatnonzero(listed.layout.market == m)[0]]) for m in listed.reference]
    board.universe.retire(lowest)
    delisted = quote_vols(board, NOW, previous=listed)
    assert len(delisted) == len(listed) - 3
    assert [delisted.layout.market_name(m) for m in delisted.reference] == names


def test_dollars_come_back_as_the_reference_at_once() -> None:
    board = board_of(FOUR[2:])
    stable = quote_vols(board, NOW)
    assert {stable.layout.market_currency[m] for m in stable.reference} == {"USDC"}
    board_of(FOUR[:1], board)
    back = quote_vols(board, NOW, previous=stable)
    assert {back.layout.market_name(m) for m in back.reference} == {"deribit USD inverse"}


def test_a_venue_that_is_not_live_is_left_out_whole() -> None:
    board = board_of(FOUR)
    out = np.array([row.venue == "deribit" for row in board.universe])
    board.index[out] *= 2.0
    quotes = quote_vols(board, NOW, unheard=out)
    mine = rows_of(quotes, "deribit")
    # Nor is its index: its forward is another's, as it stands.
    assert quotes.forward[mine] == pytest.approx(true_forwards(quotes, FOUR[1])[mine])
    assert (quotes.reason[mine] == QuoteReason.VENUE_STALE).all()
    assert np.isnan(quotes.error[mine]).all()
    assert {quotes.layout.market_name(m) for m in quotes.reference} == {"okx USD inverse"}
    assert (quotes.market_forwards.source[quotes.layout.market[mine]] == ForwardSource.CARRIED).all()
    assert sum(quotes.ledger().counts.values()) == len(quotes)
    rest = quote_vols(board_of(FOUR[1:]), NOW)
    np.testing.assert_array_equal(quotes.vol[~mine], rest.vol)
    np.testing.assert_array_equal(quotes.error[~mine], rest.error)
    matrix = diagnose(fitted(quotes), quotes).through
    assert matrix is not None
    assert (matrix.of_venue("deribit").state == ThroughState.STALE).all()


def true_forwards(quotes: QuoteVols, book: Book) -> np.ndarray:
    return book.spot * np.exp(CARRY * quotes.years)


def test_venues_are_compared_at_one_moneyness_not_at_one_strike() -> None:
    books = tuple(replace(b, basis=b.basis - 0.01) if b.currency == "USDT" else b for b in FOUR)
    quotes = quote_vols(board_of(books), NOW)
    matrix = diagnose(fitted(quotes), quotes).through
    assert matrix is not None
    spread = matrix.venue_spread_bp[np.isfinite(matrix.venue_spread_bp)]
    assert len(spread) > 100
    assert np.abs(spread).max() < 3


def test_legs_of_two_currencies_are_no_pair() -> None:
    def one(currency: str, is_call: bool) -> vs.Instrument:
        book = Book("bybit", currency, Settlement.LINEAR, days=(30,))
        return next(i for i in book.instruments() if i.strike == 90_000 and i.is_call is is_call)

    layout = QuoteLayout.of(Universe([one("USDC", is_call=False), one("USDT", is_call=True)]))
    assert layout.partner.tolist() == [-1, -1]
    assert layout.market.tolist() == [0, 1]
    paired = QuoteLayout.of(
        Universe([one("USDC", is_call=False), one("USDC", is_call=True), one("USDT", is_call=True)])
    )
    assert paired.partner.tolist() == [1, 0, -1]


def test_the_level_at_the_money_is_that_of_the_nearest_quotes_in_moneyness() -> None:
    books = (Book("one"), Book("two", "USDT", Settlement.LINEAR, basis=-0.06))
    quotes = quote_vols(board_of(books), NOW)
    usable, k = quotes.used, quotes.log_moneyness
    level = _atm_vol(quotes.layout, usable, usable, k, quotes.vol)
    for expiry in range(3):
        rows = np.flatnonzero(usable & (quotes.layout.group == expiry))
        nearest = rows[np.argsort(np.abs(k[rows]), kind="stable")[:3]]
        assert level[expiry] == np.median(quotes.vol[nearest])


def test_the_age_of_a_quote_is_counted_from_the_venue_s_stamp_less_the_skew() -> None:
    market = Quoted()
    lag, skew = 3 * 10**9, 2 * 10**9
    board = board_of_one(market, venue_time_ns=NOW - lag)
    heard = quote_vols(board, NOW)
    assert (heard.age_ns == 0).all()
    known = quote_vols(board, NOW, skew_ns=np.full(len(board), skew))
    assert (known.age_ns == lag - skew).all()
    assert (known.error[known.used] > heard.error[known.used]).any()
    # Where the skew is unknown, or says that we heard it before it was sent, it is as old as what we heard.
    for other in (UNKNOWN_SKEW, lag + 10**9):
        np.testing.assert_array_equal(quote_vols(board, NOW, skew_ns=np.full(len(board), other)).error, heard.error)
    unstamped = board_of_one(market, venue_time_ns=0, receive_time_ns=NOW - 5)
    assert (quote_vols(unstamped, NOW, skew_ns=np.full(len(board), skew)).age_ns == 5).all()


def test_a_quote_that_stands_for_long_is_old_but_not_stale() -> None:
    board = board_of_one(Quoted(), venue_time_ns=NOW - 3600 * 10**9)
    quotes = quote_vols(board, NOW, skew_ns=np.zeros(len(board), np.int64))
    assert QuoteReason.STALE not in quotes.ledger().counts
    assert (quotes.age_ns == 3600 * 10**9).all()


def test_a_discounting_venue_s_vols_need_its_discount() -> None:
    binance = FOUR[4]
    quotes = quote_vols(board_of((binance,)), NOW)
    far = (quotes.reason == QuoteReason.USED) & (quotes.years > 0.4)
    np.testing.assert_allclose(quotes.vol[far], true_vol(quotes, (binance,))[far], atol=2e-4)
    checks = forward_checks(quotes, "BTC")
    assert checks[2].discount == pytest.approx(np.exp(-CARRY * 180 / 365))
    assert not any(c.is_discount_odd for c in checks)
    # Taken at face value the premiums are two per cent short, and the slope of parity shows it.
    board = QuoteBoard(vs.Universe())
    batch = binance.batch(board.universe)
    board.universe.add(replace_discounting(binance))
    board.apply(batch)
    naive = quote_vols(board, NOW)
    assert np.median(naive.vol[far] - quotes.vol[far]) < -30e-4
    odd = forward_checks(naive, "BTC")[2]
    assert odd.is_discount_odd
    assert odd.flagged
    assert odd.parity_discount == pytest.approx(np.exp(-CARRY * 180 / 365), abs=4 * odd.discount_error)
    assert "discount factor of 0.97" in odd.sentence


def replace_discounting(book: Book) -> list[vs.Instrument]:
    return replace(book, is_discounted=False).instruments()


def test_diagnostics_show_the_forward_of_each_market() -> None:
    quotes = quote_vols(board_of(FOUR), NOW)
    checks = forward_checks(quotes, "BTC")
    assert len(checks) == 15
    assert [c.is_reference for c in checks] == 3 * [True, False, False, False, False]
    by_name = {c.market: c for c in checks[5:10]}
    assert by_name["bybit USDT linear"].basis_bp == pytest.approx(-12, abs=0.1)
    assert by_name["bybit USDC linear"].basis_bp == pytest.approx(3, abs=0.1)
    assert by_name["deribit USD inverse"].basis_bp == 0.0
    surface = fitted(quotes)
    report = diagnose(surface, quotes)
    assert len(report.slices) == 3
    html = report._repr_html_()
    assert "bybit USDT linear" in html
    assert "basis, bp" in html
    table = report.to_polars("forwards")
    assert table["market"].n_unique() == 5
    assert report.through is not None
    assert report.through.venues == ("deribit", "okx", "bybit USDC", "bybit USDT", "binance")
    strike = float(quotes.strike[rows_of(quotes, "bybit", "USDT")][20])
    explained = vs.explain(surface, quotes, surface.smiles[0].expiry_ns, strike, venue="bybit USDT")
    assert explained.forward.market == "bybit USDT linear"
    assert "speaks for the expiry" in str(explained)
    assert explained.log_moneyness == pytest.approx(np.log(strike / explained.forward.forward))
    parts = explained.error
    if np.isfinite(parts.total):
        assert parts.floor == pytest.approx(2e-4, rel=1e-6)


def test_one_market_a_venue_looks_as_it_did() -> None:
    quotes = quote_vols(board_of((FOUR[0],)), NOW)
    assert quotes.layout.by_market is None
    assert quotes.market_forwards is quotes.expiry_forwards
    report = diagnose(fitted(quotes), quotes)
    assert all(f.is_alone and f.is_reference for f in report.forwards)
    assert "basis, bp" not in report._repr_html_()
