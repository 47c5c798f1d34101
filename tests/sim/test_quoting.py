"""Quotes bracket the truth on the venue's ticks; only stale ones may not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sim.venue import JUST_BEFORE_EIGHT, START
from volsurf.instruments import Kind
from volsurf.sim._deribit_listing import DeribitListing
from volsurf.sim.market import Market
from volsurf.sim.quoting import QuoteModel, QuoteRules


def quoted(
    truth: str = "svi", *, steps: int = 50, rules: QuoteRules | None = None, activity: float = 1.0, seed: int = 1
) -> QuoteModel:
    market = Market(seed, ("BTC", "ETH", "SOL", "XRP"), start_ns=START, truth=truth, activity=activity)
    listing = DeribitListing(market)
    listing.update(market.now_ns)
    quotes = QuoteModel(market, listing.universe, rules)
    quotes.update()
    for _ in range(steps):
        market.advance(market.now_ns + market.step_ns)
        quotes.update()
    return quotes


def brackets(quotes: QuoteModel) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided options: whether the truth is inside, and whether the book is stale."""
    both = np.isfinite(quotes.bid) & np.isfinite(quotes.ask) & (quotes.universe.kind == Kind.OPTION)
    inside = (quotes.bid < quotes.mark) & (quotes.mark < quotes.ask)
    return inside[both], (quotes.stale_until > quotes.market.now_ns)[both]


@pytest.mark.parametrize("truth", ["svi", "mixture"])
@pytest.mark.parametrize("seed", [1, 2])
def test_truth_is_inside_every_live_quote(truth: str, seed: int) -> None:
    inside, stale = brackets(quoted(truth, seed=seed, rules=QuoteRules(stale_share=0.02)))
    assert len(inside) > 2000
    assert inside[~stale].all()


def test_stale_quotes_are_as_many_as_configured_and_fall_behind() -> None:
    rules = QuoteRules(stale_share=0.10, stale_seconds=3.0)
    inside, stale = brackets(quoted(steps=150, rules=rules, activity=12.0))
    assert 0.07 < stale.mean() < 0.13
    assert inside[~stale].all()
    assert (~inside[stale]).mean() > 0.05, "a market this fast leaves frozen books behind"
    inside, stale = brackets(quoted(rules=QuoteRules(stale_share=0.0)))
    assert not stale.any()


def test_prices_are_on_the_tick_that_holds_at_them() -> None:
    quotes = quoted()
    for price in (quotes.bid, quotes.ask):
        rows = np.flatnonzero(np.isfinite(price) & (quotes.universe.kind == Kind.OPTION))
        ticks = price[rows] / quotes.universe.ticks(rows, price[rows])
        np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-7)
        assert (price[rows] > 0).all()


def test_spreads_are_those_of_a_crypto_market() -> None:
    quotes = quoted("mixture")
    universe = quotes.universe
    rows = universe.options("BTC")
    rows = rows[np.isfinite(quotes.bid[rows]) & np.isfinite(quotes.ask[rows])]
    bid, ask = quotes.side_vols(rows)
    days = (quotes.v[rows] / quotes.vol[rows]) ** 2 * 365
    delta = np.abs(quotes.delta[rows])
    near = (delta > 0.35) & (delta < 0.65)
    month = near & (days > 20) & (days < 40)
    assert 0.003 < np.median((ask - bid)[month]) < 0.015
    day = near & (days < 1.5)
    assert np.median((ask - bid)[day]) > 2 * np.median((ask - bid)[month])
    wing = (delta < 0.05) & (days > 20) & np.isfinite(bid)
    assert np.nanmedian((ask - bid)[wing]) > 1.25 * np.median((ask - bid)[month])


def test_wings_have_empty_sides_and_the_money_has_none() -> None:
    quotes = quoted()
    rows = quotes.universe.options()
    delta = np.abs(quotes.delta[rows])
    no_bid, no_ask = np.isnan(quotes.bid[rows]), np.isnan(quotes.ask[rows])
    wing = delta < 0.01
    assert 0.2 < no_bid[wing].mean() < 1.0
    assert 0.02 < no_ask[wing].mean() < 0.3
    money = (delta > 0.1) & (delta < 0.9)
    assert not (no_bid | no_ask)[money].any()


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_side_vols_reprice_the_sides(side: str) -> None:
    from volsurf.sim.pricing import black_price

    quotes = quoted(steps=3)
    rows = quotes.universe.options()
    vols = dict(zip(("bid", "ask"), quotes.side_vols(rows), strict=True))[side]
    good = np.isfinite(vols)
    assert good.mean() > 0.6
    rows, vols = rows[good], vols[good]
    years = (quotes.v[rows] / quotes.vol[rows]) ** 2
    price = black_price(quotes.k[rows], vols * np.sqrt(years), quotes.universe.is_call[rows])
    unit = np.where(quotes.universe.settlement[rows] == 0, 1.0, quotes.forward[rows])
    np.testing.assert_allclose(price * unit, getattr(quotes, side)[rows], rtol=1e-9, atol=1e-12)


def test_trades_happen_at_the_book() -> None:
    quotes = quoted(steps=0, rules=QuoteRules(trades_per_step=3.0))
    seen = 0
    for _ in range(30):
        quotes.market.advance(quotes.market.now_ns + quotes.market.step_ns)
        _, trades = quotes.update()
        for trade in trades:
            seen += 1
            assert trade.price == (quotes.ask if trade.is_buy else quotes.bid)[trade.row]
            assert 0 < trade.amount <= (quotes.ask_size if trade.is_buy else quotes.bid_size)[trade.row]
            assert quotes.low[trade.row] <= trade.price <= quotes.high[trade.row]
        assert [t.number for t in trades] == sorted(t.number for t in trades)
        for trade in trades[-1:]:
            assert quotes.last[trade.row] == trade.price
    assert 60 < seen < 130


def test_changed_rows_are_those_whose_book_changed() -> None:
    quotes = quoted(steps=2)
    before = {name: getattr(quotes, name).copy() for name in ("bid", "ask", "bid_size", "ask_size")}
    quotes.market.advance(quotes.market.now_ns + quotes.market.step_ns)
    changed, _ = quotes.update()
    differs = np.zeros(len(changed), bool)
    for name, old in before.items():
        new = getattr(quotes, name)
        differs |= ~((new == old) | (np.isnan(new) & np.isnan(old)))
    np.testing.assert_array_equal(changed, differs)
    assert 0 < changed.mean() < 0.2


def test_expired_rows_are_not_quoted_and_new_ones_have_no_settlement() -> None:
    market = Market(1, ("BTC",), start_ns=JUST_BEFORE_EIGHT)
    listing = DeribitListing(market)
    listing.update(market.now_ns)
    quotes = QuoteModel(market, listing.universe)
    quotes.update()
    quotes.invent_history()
    market.advance(JUST_BEFORE_EIGHT + 2_000_000_000)
    added, retired = listing.update(market.now_ns)
    quotes.settle(np.flatnonzero(listing.universe.active[: len(quotes.mark)]))
    quotes.update()
    assert added
    assert retired
    assert np.isnan(quotes.bid[retired]).all()
    assert np.isnan(quotes.settlement[added]).all()
    assert np.isfinite(quotes.bid[added]).any()
