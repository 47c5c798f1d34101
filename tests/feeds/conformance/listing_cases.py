"""Cases of the card about what is listed, asked for and granted: 1, 2, 3, 9, 12, 16."""

from __future__ import annotations

import math
import re

import numpy as np

from tests.feeds.conformance.facts import Facts
from tests.feeds.conformance.world import EIGHT, SECOND, World, two_sided
from volsurf.feeds.protocol import Health
from volsurf.instruments import Instrument, Kind
from volsurf.sim.exchange import Session

_OWN_WORDS = ("price_index", "is_discounted", "contract_size")
"""Of an instrument: what the exchange's table says in its own way; compared by what it means."""


def discovery(facts: Facts) -> None:
    """Everything of what was asked for, with its terms, and nothing of what is listed beside it."""
    world = World(facts.name, ["BTC"], beside=["ETH"]).ready()
    listing = world.exchange.listing
    theirs = {
        listing.names[row]: listing.universe[row]
        for row in np.flatnonzero(listing.universe.active).tolist()
        if listing.universe[row].underlying == "BTC"
    }
    mine = {instrument.symbol: instrument for instrument in world.feed.universe}
    indexes = {symbol for symbol, instrument in mine.items() if instrument.kind is Kind.INDEX}
    assert mine.keys() - indexes == theirs.keys()
    assert {instrument.kind for instrument in theirs.values()} == facts.kinds
    for symbol, instrument in theirs.items():
        found = mine[symbol]
        for name in set(Instrument.__struct_fields__) - set(_OWN_WORDS):
            one, other = getattr(found, name), getattr(instrument, name)
            assert one == other or (one != one and other != other), (symbol, name, one, other)
        assert found.contract_size == instrument.contract_size
        # The index by which it is settled is followed too.
        assert found.price_index in indexes, (symbol, found.price_index)
    # One index for each currency of a strike.
    assert len(indexes) == len({(i.quote_currency) for i in theirs.values()})


def limits(facts: Facts) -> None:
    """Number, length and rate of what is sent; connections that share everything without overlap."""
    world = World(facts.name, ["BTC"], books=True, trades=True, shards=2, density=1.0, expiries=4).ready()
    world.run(1)
    refused = {
        name: count
        for name, count in world.exchange.counters.items()
        if count and any(word in name for word in ("refused", "error", "cut_", "frequent", "silent", "missed"))
    }
    assert not refused, "the exchange minded"
    assert max(facts.largest(message) for _, _, message in world.sent) <= facts.limit
    for number in set(world.feed.numbers):
        times = [at for of, at, _ in world.sent if of == number]
        assert all(later - at >= SECOND for at, later in zip(times, times[facts.per_second :], strict=False))
    pages = sorted(at for _, at, _ in world.asked)
    assert facts.name == "binance" or all(
        later - at >= SECOND for at, later in zip(pages, pages[facts.per_second :], strict=False)
    )
    options = {i.symbol for i in world.feed.universe if i.kind is not Kind.INDEX}
    granted = [set(_contracts(session, options)) for session in world.sessions.values()]
    shares = [share for share in granted if share]
    assert len(shares) >= 2
    assert sum(map(len, shares)) == len(set().union(*shares)), "two connections follow one instrument"
    assert facts.name == "binance" or set().union(*shares) == options


def grants(facts: Facts) -> None:
    """Every channel is granted, or refused and named; READY is said once."""
    world = World(facts.name, [facts.family]).ready()
    listed = set(world.exchange.listing.names)
    granted = [symbol for session in world.sessions.values() for symbol in _contracts(session, listed)]
    assert len(world.told(Health.READY)) == len(world.feed.venues)
    assert len(set(granted)) == len(granted)
    assert set(granted) == listed
    assert not world.told(Health.REFUSED, Health.NO_ACK)

    world = World(facts.name, [facts.family])
    listing = world.exchange.listing
    lost = next(name for name in listing.names if listing.universe[listing.row_of[name]].kind is Kind.OPTION)
    row = listing.row_of.pop(lost)
    world.until(lambda: world.feed.is_ready, 60)
    world.run(2)
    assert len(world.told(Health.READY)) == len(world.feed.venues)
    if facts.name != "binance":
        assert any(lost in event.detail for event in world.told(Health.REFUSED)), world.told()
    listing.row_of[lost] = row
    board = world.feed.board
    mine = world.feed.universe.find(facts.name, lost)
    assert mine is None or facts.name == "binance" or (math.isnan(board.bid[mine]) and math.isnan(board.ask[mine]))
    assert len(two_sided(world)) > 20


def _channels(session: object) -> list[str]:
    for name in ("channels", "topics", "streams"):
        if hasattr(session, name):
            return list(getattr(session, name))
    raise AssertionError(session)


def _contracts(session: object, symbols: set[str]) -> list[str]:
    """Instruments that channels of a client are of, one for each channel."""
    upper = {symbol.upper(): symbol for symbol in symbols}
    parts = (part for name in _channels(session) for part in re.split(r'[."@]', name.upper()))
    return [upper[part] for part in parts if part in upper]


def listing_changes(facts: Facts) -> None:
    """What expires and what is listed during the session; an expiry that vanishes without a word."""
    world = World(facts.name, [facts.family], start=EIGHT - 3 * SECOND, tick=0.5)
    world.until(lambda: world.feed.is_ready, 2.5)
    universe = world.feed.universe
    dying = {i.symbol for i in universe if i.expiry_ns == EIGHT}
    before = {i.symbol for i in universe}
    assert dying
    world.until(lambda: world.now > EIGHT + 2 * SECOND and _agrees(world), 200)
    added, retired = world.listings()
    assert retired == dying
    assert added - before == {i.symbol for i in universe} - before
    assert added - before, "something is listed at eight"
    gone = [row for row, i in enumerate(universe) if i.symbol in dying]
    assert np.isnan(world.feed.board.bid[gone]).all()
    assert np.isnan(world.feed.board.ask[gone]).all()
    for session in world.sessions.values():
        assert not [name for name in _channels(session) if any(symbol in name for symbol in dying)]

    expiry = max(i.expiry_ns for i in universe)
    gone = np.flatnonzero((universe.expiry_ns == expiry) & (universe.kind == Kind.OPTION) & universe.active).tolist()
    assert np.isfinite(world.feed.board.bid[gone]).any()
    world.exchange.vanish("BTC", expiry)
    world.until(
        lambda: not (np.isfinite(world.feed.board.bid[gone]) | np.isfinite(world.feed.board.ask[gone])).any(), 90
    )
    world.until(lambda: not universe.active[gone].any(), 90)
    assert not world.wrong()


def _agrees(world: World) -> bool:
    """Both list the same."""
    universe, listing = world.feed.universe, world.exchange.listing
    active = np.flatnonzero(universe.active & (universe.kind != Kind.INDEX)).tolist()
    listed = {listing.names[row] for row in np.flatnonzero(listing.universe.active).tolist()}
    return {universe[i].symbol for i in active} == listed and world.feed.is_ready


def refusals(facts: Facts) -> None:
    """A refused subscription, a rate limit and maintenance: told, waited out, recovered from."""
    for what in ("subscribe", "rate_limit"):
        world = World(facts.name, [facts.family], tick=0.5)
        _refuse_first(world, what)
        world.run(1)
        world.until(lambda world=world: world.feed.is_ready, 120)
        kinds = (Health.REFUSED,) if what == "subscribe" else (Health.RATE_LIMITED, Health.TOO_SLOW)
        assert world.told(*kinds), (what, world.told())
        world.until(lambda world=world: not world.late(), 20)
        assert len(two_sided(world)) > 20
    world = World(facts.name, [facts.family], tick=0.5).ready()
    quoted = len(two_sided(world))
    world.exchange.begin_maintenance(world.now, 5.0)
    world.run(4)
    assert not world.feed.is_ready
    assert len(two_sided(world)) == 0
    assert world.told(Health.MAINTENANCE, Health.DISCONNECTED)
    world.until(lambda: world.feed.is_ready and not world.late(), 120)
    assert len(two_sided(world)) > 0.8 * quoted
    assert not world.wrong()


def _refuse_first(world: World, what: str) -> None:
    """The first client that comes is refused something."""
    opened = world.exchange.open_session

    def open_refusing(now: int, path: str = "") -> Session:
        session = opened(now, path)
        session.refuse_next(what)
        world.exchange.open_session = opened  # type: ignore[method-assign]
        return session

    world.exchange.open_session = open_refusing  # type: ignore[method-assign]


def unlisted(facts: Facts) -> None:
    """What is not listed is refused by name, with the names of what is; fatal only where nothing is left."""
    for names, fatal in (([facts.family, "DOGE"], False), (["DOGE"], True)):
        world = World(facts.name, [facts.family], beside=["SOL"] if facts.name == "deribit" else [])
        world.ask(names)
        world.until(
            lambda world=world, fatal=fatal: any(v.fatal for v in world.feed.venues) if fatal else world.feed.is_ready,
            30,
        )
        world.run(1)
        said = " ".join(event.detail for event in world.told(Health.REFUSED))
        assert "DOGE" in said, said
        assert facts.family in said or "SOL_USDC" in said or (facts.name == "bybit" and fatal), said
        for venue in world.feed.venues:
            assert bool(venue.fatal) == fatal
            assert not fatal or "DOGE" in str(venue.fatal)
