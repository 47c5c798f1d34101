"""Cases of the card about what is shown: 4, 5, 6, 10, 11."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest

from tests.feeds.conformance.facts import Facts, emptied
from tests.feeds.conformance.world import SECOND, World, same, two_sided
from volsurf.feeds.book import BookState
from volsurf.feeds.books import BookTable
from volsurf.feeds.protocol import Health, TradeEvent
from volsurf.instruments import Kind, Settlement
from volsurf.sim.depth import ladder
from volsurf.sim.quoting import Trade


def units(facts: Facts) -> None:
    """Prices, sizes, vols, forwards and indexes on the board are the exchange's own, in the units of the package."""
    world = World(facts.name, ["BTC"], expiries=4).ready()
    world.run(3)
    board, universe, market = world.feed.board, world.feed.universe, world.market
    quotes, listing = world.exchange.quotes, world.exchange.listing
    compared = 0
    for i, row in world.followed().items():
        instrument = universe[i]
        assert same(float(board.bid[i]), float(quotes.bid[row])), instrument.symbol
        assert same(float(board.ask[i]), float(quotes.ask[row])), instrument.symbol
        in_dollars = instrument.kind is not Kind.OPTION and instrument.settlement is Settlement.INVERSE
        for price, mine, theirs in (
            (board.bid[i], board.bid_size[i], quotes.bid_size[row]),
            (board.ask[i], board.ask_size[i], quotes.ask_size[row]),
        ):
            coins = float(theirs) / float(price) if in_dollars else float(theirs)
            assert math.isnan(price) or mine == pytest.approx(coins, rel=1e-9), instrument.symbol
        if instrument.kind is not Kind.OPTION:
            continue
        compared += 1
        expiry, currency = instrument.expiry_ns, instrument.quote_currency
        assert board.forward[i] == pytest.approx(float(market.truth_forward("BTC", expiry, currency)), rel=3e-4)
        vol = float(market.truth_vol("BTC", expiry, instrument.strike, currency))
        assert board.mark_vol[i] == pytest.approx(vol, abs=2e-3), instrument.symbol
        mark, tick = float(quotes.mark[row]), instrument.tick_at(float(quotes.mark[row]))
        if math.isfinite(board.mark[i]):
            coin = 1.0 if instrument.settlement is Settlement.INVERSE else float(board.forward[i])
            assert board.mark[i] == pytest.approx(mark, rel=5e-3, abs=0.5 * tick + 2e-4 * coin), instrument.symbol
        greeks = _venue_of(world, i).greeks(_own_id(world, i))
        assert greeks is not None, instrument.symbol
        assert greeks.delta == pytest.approx(float(quotes.delta[row]), abs=5e-3), instrument.symbol
        assert greeks.mark_vol == pytest.approx(float(quotes.vol[row]), abs=2e-3)
        assert greeks.forward == pytest.approx(float(quotes.forward[row]), rel=3e-4)
        assert greeks.venue_time_ns > 0
    assert compared > 40
    assert np.isfinite(board.mark[world.feed.universe.options()]).sum() > 0.3 * compared
    for i, instrument in enumerate(universe):
        if instrument.kind is Kind.INDEX:
            true = market.spot("BTC", instrument.quote_currency)
            assert board.index[i] == pytest.approx(true, rel=facts.index_steps), instrument.symbol
    del listing


def _venue_of(world: World, i: int):  # type: ignore[no-untyped-def]
    """A venue that lists an instrument of the feed's."""
    symbol = world.feed.universe[i].symbol
    found = [v for v in world.feed.venues if v.universe.find(v.name, symbol) is not None]
    return next((v for v in found if v.greeks(v.universe.find(v.name, symbol)) is not None), found[0])


def _own_id(world: World, i: int) -> int:
    venue = _venue_of(world, i)
    own = venue.universe.find(venue.name, world.feed.universe[i].symbol)
    assert own is not None
    return int(own)


def sentinels(facts: Facts) -> None:
    """Each way of saying "no quote" empties that side and nothing else; both sides can be empty, and come back."""
    world = World(facts.name, [facts.family]).ready()
    board = world.feed.board
    shown = two_sided(world)
    shown = shown[board.bid[shown] > 3 * np.array([world.feed.universe[int(i)].tick_size for i in shown])]
    victims = deque(shown.tolist())
    for side, mine, other in (("bid", board.bid, board.ask), ("ask", board.ask, board.bid)):
        sizes = getattr(board, f"{side}_size")
        for which in range(len(facts.empties[side])):
            i = victims[0]
            victims.rotate(-1)
            symbol = world.feed.universe[i].symbol
            with _showing(world, world.exchange.listing.row_of[symbol], None, None):
                world.alter = emptied(facts, symbol, side, which)
                world.until(lambda i=i, mine=mine: math.isnan(mine[i]), 3)
                assert math.isnan(sizes[i]), (symbol, side, which)
                assert other[i] > 0, (symbol, side, which)
                world.alter = None
                world.until(lambda i=i, mine=mine: mine[i] > 0, 3)
    # The exchange's own ways of saying so, through its own frames.
    i = victims[0]
    row = world.exchange.listing.row_of[world.feed.universe[i].symbol]
    for bid, ask in ((math.nan, None), (None, math.nan), (math.nan, math.nan), (None, None)):
        with _showing(world, row, bid, ask):
            world.until(lambda: _shows(world, i, bid, ask), 15)  # noqa: B023 - called at once
    counters = world.feed.counters
    assert not [name for name in counters if name.startswith("malformed")], counters


def _shows(world: World, i: int, bid: float | None, ask: float | None) -> bool:
    board = world.feed.board
    return math.isnan(board.bid[i]) == (bid is not None) and math.isnan(board.ask[i]) == (ask is not None)


class _showing:
    """The exchange shows these on one row; None is what it would."""

    def __init__(self, world: World, row: int, bid: float | None, ask: float | None) -> None:
        self._quotes, self._update = world.exchange.quotes, world.exchange.quotes.update
        self._row, self._sides = row, (("bid", bid), ("ask", ask))

    def __enter__(self) -> None:
        def update():  # type: ignore[no-untyped-def]
            changed, trades = self._update()
            for name, value in self._sides:
                if value is not None:
                    getattr(self._quotes, name)[self._row] = value
            changed[self._row] = True
            return changed, trades

        self._quotes.update = update  # type: ignore[method-assign]

    def __exit__(self, *error: object) -> None:
        self._quotes.update = self._update  # type: ignore[method-assign]
        rows = np.array([self._row])
        market = self._quotes.market
        self._quotes.distort("spike", rows, market.now_ns + market.step_ns, 0.0)


def damage(facts: Facts) -> None:
    """Broken, cut, repeated, overtaken and unknown messages: counted, told, and never a price that was not shown."""
    world = World(facts.name, [facts.family], books=True, trades=True).ready()
    kept: list[bytes] = []
    number = 0

    def alter(payload: bytes) -> tuple[bytes, ...]:
        nonlocal number
        number += 1
        if facts.quote not in payload:
            return (payload,)
        kept.append(payload)
        match number % 8:
            case 0:
                return payload[: len(payload) // 2], payload
            case 1:
                return payload, payload
            case 2:  # an old one again
                return payload, kept[len(kept) // 2]
            case 3:
                return b"\xff\xfe" + payload, b"{" * 3000, payload, b"", b"[]", b"null"
            case 4:
                return *facts.unknown, payload
            case 5:
                return payload.replace(b":", b"\x00", 1), payload
        return (payload,)

    world.alter = alter
    bad = 0
    for _ in range(20):
        world.run(0.2)
        bad += len(world.wrong())
    assert not bad, world.wrong()
    assert number > 100
    counters = world.feed.counters
    malformed = sum(count for name, count in counters.items() if name.startswith("malformed."))
    assert malformed > 20, counters
    assert len({name for name in counters if name.startswith("malformed.")}) >= 2, counters
    assert world.told(Health.MALFORMED)
    assert len(world.told(Health.MALFORMED)) < 0.5 * malformed + 1, "a flood is told once a second"
    world.alter = None
    world.until(lambda: world.feed.is_ready and not world.late(), 30)
    assert not world.wrong()


def books(facts: Facts) -> None:
    """Snapshot, changes, a gap noticed and mended within a second, crossed and locked books handed on and counted."""
    world = World(facts.name, [facts.family], books=True, expiries=2).ready()
    world.run(2)
    table = world.feed.books
    assert table is not None
    assert _check_books(world) > 20
    # The changes of a few books in one tick are lost: each that changed has a hole.
    few = [symbol for i in two_sided(world)[:8] if (symbol := world.feed.universe[int(i)].symbol)]

    def lose(payload: bytes) -> tuple[bytes, ...]:
        is_lost = _BOOK[facts.name] in payload and any(symbol.encode() in payload for symbol in few)
        return () if is_lost else (payload,)

    before, gaps = dict(table.counters), len(world.told(Health.GAP))
    world.alter = lose
    rows = np.arange(len(world.exchange.listing.universe))
    world.exchange.quotes.distort("spike", rows, world.market.now_ns + int(0.6 * SECOND), 0.3)
    world.run(0.2)
    world.alter = None
    world.until(lambda: len(world.told(Health.GAP)) > gaps, 2.0)
    assert table.counters["gap"] > before.get("gap", 0), "whoever keeps the books learns of it"
    holes = [i for i in world.followed(Kind.OPTION) if i in _kept(table) and table[i].state is BookState.WAITING]
    world.until(lambda: not any(table[i].state is BookState.WAITING for i in holes), 1.0)
    world.run(1.0)
    assert _check_books(world) > 20
    assert not any(table[i].state is BookState.WAITING for i in world.followed(Kind.OPTION) if i in _kept(table))
    assert not world.wrong()
    for kind in ("crossed", "locked"):
        before = dict(table.counters)
        some = np.array(list(world.followed(Kind.OPTION).values()))[:6]
        world.exchange.quotes.distort(kind, some, world.market.now_ns + SECOND)
        world.run(0.6)
        assert table.counters[kind] > before.get(kind, 0), kind
        world.run(1.4)
    assert _check_books(world) > 20


_BOOK = {
    "deribit": b'"channel":"book.',
    "okx": b'"channel":"books"',
    "bybit": b'"topic":"orderbook.',
    "binance": b"@depth",
}


def _kept(table: BookTable) -> set[int]:
    return set(table._books)


def _check_books(world: World) -> int:
    """Every book that is kept is the exchange's, level by level, in coins; how many there are."""
    table, checked = world.feed.books, 0
    assert table is not None
    depth = 25 if world.venue == "bybit" else 400
    for i, row in world.followed(Kind.OPTION).items():
        book = table.get(i)
        if book is None or book.state is BookState.WAITING:
            continue
        there = ladder(world.exchange.quotes, row)
        for mine, theirs in zip(book.levels(), (there.bids, there.asks), strict=True):
            expected = list(theirs.items())[:depth]
            assert [price for price, _ in mine.tolist()] == pytest.approx([p for p, _ in expected], rel=1e-9)
            assert [size for _, size in mine.tolist()] == pytest.approx([s for _, s in expected], rel=1e-9)
        checked += 1
    return checked


def trades(facts: Facts) -> None:
    """Every trade comes once, with its side, its price, and its size in coins."""
    world = World(facts.name, [facts.family], trades=True).ready()
    quotes, update = world.exchange.quotes, world.exchange.quotes.update
    there: list[Trade] = []

    def record():  # type: ignore[no-untyped-def]
        changed, happened = update()
        there.extend(trade for trade in happened if quotes.universe.kind[trade.row] == Kind.OPTION)
        return changed, happened

    quotes.update = record  # type: ignore[method-assign]
    world.events.clear()
    world.until(lambda: len(there) >= 12, 60)
    names, universe = world.exchange.listing.names, world.feed.universe
    told = [event for event in world.events if isinstance(event, TradeEvent)]
    mine = sorted((universe[t.instrument_id].symbol, round(t.price, 9), round(t.size, 9), t.is_buy) for t in told)
    theirs = sorted((names[t.row], round(t.price, 9), round(t.amount, 9), t.is_buy) for t in there)
    assert mine == theirs
    assert len({(t.instrument_id, t.trade_id) for t in told}) == len(told)
    assert all(world.now - 60 * SECOND < t.venue_time_ns <= world.now for t in told)


CASES = (units, sentinels, damage, books, trades)
