"""Four venues on one market: each its own book, all around one truth, wrong only as far as asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.sim.plain import PlainListing
from tests.sim.venue import START
from volsurf.errors import InputError
from volsurf.instruments import Kind, Settlement
from volsurf.sim.depth import ladder, updates
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, VenueProfile, profile_of
from volsurf.sim.quoting import QuoteModel

COINS = ("BTC", "ETH", "SOL", "XRP")
SECOND = 1_000_000_000


def venues(
    market: Market, *names: str, change: Callable[[VenueProfile], VenueProfile] | None = None, steps: int = 30
) -> dict[str, QuoteModel]:
    """Some venues of one market, quoted for some steps."""
    models = {}
    for name in names or tuple(PROFILES):
        profile = PROFILES[name] if change is None else change(PROFILES[name])
        listing = PlainListing(market, name, profile.families, profile.expiries)
        listing.update(market.now_ns)
        models[name] = QuoteModel(market, listing.universe, profile=profile)
        models[name].update()
    for _ in range(steps):
        market.advance(market.now_ns + market.step_ns)
        for model in models.values():
            model.update()
    return models


def live(model: QuoteModel) -> np.ndarray:
    """Rows of options with two sides that are not stale."""
    rows = np.isfinite(model.bid) & np.isfinite(model.ask) & (model.universe.kind == Kind.OPTION)
    return np.flatnonzero(rows & (model.stale_until <= model.market.now_ns))


def true_prices(model: QuoteModel, rows: np.ndarray) -> np.ndarray:
    """What each option is worth at the market's truth, in the venue's unit."""
    from volsurf.sim.pricing import black_price

    prices = np.empty(len(rows))
    for i, row in enumerate(rows.tolist()):
        one = model.universe[row]
        forward = float(model.market.truth_forward(one.underlying, one.expiry_ns, one.quote_currency))
        vol = float(model.market.truth_vol(one.underlying, one.expiry_ns, one.strike, one.quote_currency))
        years = float(model.market.years(one.expiry_ns))
        price = float(black_price(np.log(one.strike / forward), vol * np.sqrt(years), one.is_call))
        prices[i] = price if one.settlement is Settlement.INVERSE else price * forward
    return prices


@pytest.fixture(scope="module")
def four() -> dict[str, QuoteModel]:
    return venues(Market(1, COINS, start_ns=START))


def test_the_truth_is_inside_every_live_quote_of_every_venue(four: dict[str, QuoteModel]) -> None:
    for model in four.values():
        rows = live(model)[::7]
        assert len(rows) > 100
        truth = true_prices(model, rows)
        assert ((model.bid[rows] <= truth) & (truth <= model.ask[rows])).all()


def test_each_venue_has_books_of_its_own(four: dict[str, QuoteModel]) -> None:
    def smile(name: str) -> dict[tuple[int, float, bool], tuple[float, float]]:
        model = four[name]
        rows = [r for r in live(model).tolist() if model.universe[r].underlying == "BTC"]
        bid, ask = model.side_vols(np.array(rows))
        universe = model.universe
        keys = [(int(universe.expiry_ns[r]), float(universe.strike[r]), bool(universe.is_call[r])) for r in rows]
        return dict(zip(keys, zip(bid.tolist(), ask.tolist(), strict=True), strict=True))

    widths = {}
    smiles = {name: smile(name) for name in four}
    common = set.intersection(*(set(s) for s in smiles.values()))
    assert len(common) > 20
    for name, s in smiles.items():
        widths[name] = np.nanmedian([s[key][1] - s[key][0] for key in common])
    assert widths["deribit"] < widths["okx"] < widths["binance"]
    assert len({s[key] for s in smiles.values() for key in common}) > 3 * len(common)


def test_prices_are_on_ticks_and_sizes_in_lots(four: dict[str, QuoteModel]) -> None:
    for name, model in four.items():
        rows = live(model)
        for price in (model.bid, model.ask):
            ticks = price[rows] / model.universe.ticks(rows, price[rows])
            np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-6)
        for row in rows[::50].tolist():
            lot = PROFILES[name].family_of(model.universe[row]).lot
            book = ladder(model, row)
            assert next(iter(book.bids)) == model.bid[row]
            assert 1 <= len(book.bids) <= PROFILES[name].levels
            assert list(book.bids) == sorted(book.bids, reverse=True)
            assert list(book.asks) == sorted(book.asks)
            sizes = np.array([*book.bids.values(), *book.asks.values()]) / lot
            np.testing.assert_allclose(sizes, np.round(sizes), atol=1e-6)
            assert (sizes > 0.5).all()


def test_venues_do_not_cross_unless_asked() -> None:
    def crossed(share: float) -> int:
        market = Market(2, ("BTC",), start_ns=START)
        models = venues(market, "deribit", "bybit", change=lambda profile: profile.mispriced(share), steps=5)
        sides: dict[tuple[int, float], list[tuple[float, float]]] = {}
        for model in models.values():
            rows = live(model)
            u = model.universe
            near = rows[
                (np.abs(model.k[rows]) < 0.5 * model.v[rows]) & (u.expiry_ns[rows] > START + 7 * 86_400 * SECOND)
            ]
            bid, ask = model.side_vols(near)
            for row, b, a in zip(near.tolist(), bid.tolist(), ask.tolist(), strict=True):
                sides.setdefault((int(u.expiry_ns[row]), float(u.strike[row])), []).append((b, a))
        assert sum(len(s) > 2 for s in sides.values()) > 20
        return sum(max(b for b, _ in s) > min(a for _, a in s) + 1e-9 for s in sides.values())

    assert crossed(0.4) == 0
    assert crossed(5.0) > 10


def test_an_opinion_is_slow_bounded_and_a_function_of_seed_and_time() -> None:
    profile = PROFILES["okx"].mispriced(1.0)
    expiry = START + 30 * 86_400 * SECOND
    times = START + np.arange(0, 3600, 5) * SECOND
    path = np.array([profile.vol_offset(1, "BTC", expiry, int(t)) for t in times])
    bound = 0.0030 * (1.0 + 1.5 / np.sqrt(30.0))
    assert np.abs(path).max() <= bound * 1.001
    assert path.std() > 0.2 * bound
    assert np.abs(np.diff(path)).max() < 0.05 * bound
    for other in (profile.vol_offset(2, "BTC", expiry, START), PROFILES["bybit"].vol_offset(1, "BTC", expiry, START)):
        assert other != path[0]
    assert profile.mispriced(0.0).vol_offset(1, "BTC", expiry, START) == 0.0


def test_stablecoins_stand_off_the_dollar_a_little_and_leave_the_path_alone() -> None:
    market = Market(3, ("BTC",), start_ns=START, step_ns=60 * SECOND)
    rates = []
    for _ in range(1440):
        market.advance(market.now_ns + market.step_ns)
        rates.append((market.rate("USDC"), market.rate("USDT")))
    distance = np.abs(np.log(np.array(rates)))
    assert 5e-5 < distance.max() < 1.7e-3
    assert np.abs(np.diff(np.log(np.array(rates)), axis=0)).max() < 1e-4
    expiry = START + 20 * 86_400 * SECOND
    for currency in ("USD", "USDC", "USDT"):
        rate = market.rate(currency)
        assert market.spot("BTC", currency) == market.spot("BTC") * rate
        np.testing.assert_allclose(
            market.truth_forward("BTC", expiry, currency), market.truth_forward("BTC", expiry) * rate
        )
        np.testing.assert_allclose(
            market.truth_vol("BTC", expiry, 90_000.0 * rate, currency),
            market.truth_vol("BTC", expiry, 90_000.0),
            rtol=1e-12,
        )
    other = Market(3, ("BTC",), start_ns=START, step_ns=60 * SECOND)
    other.advance(market.now_ns)
    assert (other.rate("USDT"), other.spot("BTC")) == (market.rate("USDT"), market.spot("BTC"))
    with pytest.raises(InputError, match="was asked for 'EUR'"):
        market.rate("EUR")


def test_a_forgotten_expiry_does_not_come_back() -> None:
    market = Market(1, ("BTC",), start_ns=START, activity=40.0)
    profile = PROFILES["okx"]
    listing = PlainListing(market, "okx", profile.families, profile.expiries)
    listing.update(market.now_ns)
    chain = sorted(listing.chain("BTC"))
    gone, stays = chain[2], chain[1]
    before = len(listing.names)
    listing.forget("BTC", gone)
    rows = np.flatnonzero(listing.universe.expiry_ns == gone)
    listing.universe.retire(rows.astype(np.int32))
    added: list[int] = []
    for _ in range(200):
        market.advance(market.now_ns + 60 * market.step_ns)
        added += listing.update(market.now_ns)[0]
    assert len(added) == len(listing.names) - before > 0
    assert not (listing.universe.expiry_ns[added] == gone).any()
    assert (listing.universe.expiry_ns[added] == stays).any()
    assert gone not in listing.chain("BTC")


@pytest.mark.parametrize("kind", ["crossed", "locked", "spike"])
def test_false_prices_last_as_long_as_asked_and_no_longer(kind: str) -> None:
    market = Market(1, ("BTC",), start_ns=START)
    model = venues(market, "okx")["okx"]
    rows = live(model)[100:140]
    rows = rows[model.bid[rows] > 4 * model.universe.tick_size[rows]]
    assert len(rows) > 10
    others = np.setdiff1d(live(model), rows)
    model.distort(kind, rows, market.now_ns + 5 * market.step_ns, size=1.0)
    for step in range(1, 8):
        market.advance(market.now_ns + market.step_ns)
        model.update()
        false = step < 5
        assert model.is_distorted(rows).all() == false
        assert not model.is_distorted(others).any()
        bid, ask = model.bid[rows], model.ask[rows]
        assert (bid > ask).all() == (false and kind == "crossed")
        assert (bid == ask).all() == (false and kind == "locked")
        assert (bid > 1.4 * model.mark[rows]).all() == (false and kind == "spike")
        assert (model.bid[others] < model.ask[others]).all()
    with pytest.raises(InputError, match="was 'wild'"):
        model.distort("wild", rows, 0)


def test_updates_turn_one_side_into_the_other() -> None:
    old, new = {5.0: 1.0, 4.0: 2.0, 3.0: 1.0}, {5.5: 9.0, 5.0: 1.0, 4.0: 3.0}
    side = dict(old)
    for price, size in updates(old, new):
        if size:
            side[price] = size
        else:
            del side[price]
    assert side == new
    assert updates(new, new) == []


def test_unknown_venues_and_terms_are_named() -> None:
    assert profile_of("okx") is PROFILES["okx"]
    with pytest.raises(InputError, match=r"\['binance', 'bybit', 'deribit', 'okx'\], was 'nyse'"):
        profile_of("nyse")
    with pytest.raises(InputError, match="finite and not negative"):
        PROFILES["okx"].mispriced(-1.0)
    assert [f.underlying for f in PROFILES["bybit"].of("SOL", "BTC")] == ["SOL", "SOL", "BTC", "BTC"]
