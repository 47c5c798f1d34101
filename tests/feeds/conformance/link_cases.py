"""Cases of the card about connections and clocks: 7, 8, 13, 14, 15."""

from __future__ import annotations

import numpy as np

from tests.feeds.conformance.facts import Facts, deaf, without
from tests.feeds.conformance.world import SECOND, World, play, same, two_sided
from volsurf.feeds.protocol import Health, InstrumentEvent

HOUR = 3600 * SECOND


def liveness(facts: Facts) -> None:
    """Heartbeats are answered, also in a flood; a silent channel is STALE, then RECOVERED or given up; half-open links end."""
    world = World(facts.name, [facts.family], tick=1.0, expiries=2).ready()
    heard: list[bytes] = []

    def flood(payload: bytes) -> tuple[bytes, ...]:
        heard.append(payload)
        return (*(heard[-1 - n % len(heard)] for n in range(15)), payload) if facts.quote in payload else (payload,)

    world.alter = flood
    world.run(65)
    world.alter = None
    assert len(heard) > 200
    if facts.name == "okx":
        # On a link that speaks nothing is asked of a client; of one that says nothing it asks itself.
        world.alter = deaf
        world.run(12)
        assert world.exchange.counters[facts.heartbeats] >= 1
        world.alter = None
        world.until(lambda: world.feed.is_ready and not world.feed.trouble, 30)
    elif facts.heartbeats:
        assert world.exchange.counters[facts.heartbeats] >= 2
    assert world.exchange.counters["heartbeats_missed"] == 0
    assert not world.told(Health.DISCONNECTED)

    world.events.clear()
    world.alter = without(facts.steady)
    world.until(lambda: world.told(Health.STALE), 50)
    assert world.feed.trouble
    world.alter = None
    world.until(lambda: world.told(Health.RECOVERED, Health.DISCONNECTED), 30)
    world.until(lambda: world.feed.is_ready and not world.feed.trouble, 30)

    world.events.clear()
    world.alter = without(facts.steady)
    world.until(lambda: world.told(Health.DISCONNECTED), facts.lost_seconds)
    world.alter = None
    world.until(lambda: world.feed.is_ready, 90)

    world.events.clear()
    world.alter = deaf
    world.until(lambda: not len(two_sided(world)), facts.half_open_seconds)
    assert len(world.told(Health.DISCONNECTED)) >= len(world.feed.venues)
    world.alter = None
    world.until(lambda: world.feed.is_ready and not world.late(), 90)


def disconnect(facts: Facts) -> None:
    """A disconnect clears what was quoted and nothing else; the next socket finds everything again, ids unchanged."""
    world = World(facts.name, [facts.family]).ready()
    world.run(1)
    board, universe = world.feed.board, world.feed.universe
    options = universe.options()
    ids = {i.symbol: row for row, i in enumerate(universe)}
    quoted = two_sided(world)
    assert len(quoted) > 20
    kept = {name: getattr(board, name).copy() for name in ("mark_vol", "forward", "index")}
    world.retry_ns = 20 * SECOND
    for venue in list(world.sessions):
        world.cut(venue)
    world.collect()
    assert np.isnan(board.bid).all()
    assert np.isnan(board.ask).all()
    for name, before in kept.items():
        assert np.isfinite(before).sum() > 0
        np.testing.assert_array_equal(getattr(board, name), before, err_msg=name)
    assert universe.active[options].all()
    assert not world.feed.is_ready
    assert not world.listings()[1]
    world.run(12)
    for venue in world.feed.venues:
        venue.disconnected(world.client_now, "no answer to the opening handshake in time")
    world.until(lambda: world.feed.is_ready and not world.late(), 60)
    # A pause between two sockets, with an attempt that failed in it, is no step of the clock.
    assert not world.told(Health.CLOCK_STEP)
    assert world.feed.counters.get("clock_steps", 0) == 0
    world.retry_ns = SECOND
    assert {i.symbol: row for row, i in enumerate(universe)} == ids
    assert len(world.told(Health.CONNECTED)) == len(world.told(Health.READY)) == 2 * len(world.feed.venues)
    assert len(two_sided(world)) > 0.9 * len(quoted)
    # A price of which it was just said that it is gone, and nobody looked: it must not come back.
    victim = int(two_sided(world)[0])
    world.exchange.quotes.distort("spike", np.array([world.followed()[victim]]), world.market.now_ns + SECOND, -1.0)
    for venue in list(world.sessions):
        venue.receive(b"{", world.client_now)
        world.cut(venue)
    world.collect()
    assert np.isnan(board.bid).all()


def clocks(facts: Facts) -> None:
    """Steps of the local clock and a suspended process: told, nothing expires or retires for them."""
    world = World(facts.name, [facts.family], tick=0.5, expiries=2).ready()
    quoted = len(two_sided(world))
    first = min(i.expiry_ns for i in world.feed.universe if i.expiry_ns)
    for step in (first - world.now + HOUR, -first + world.now - 2 * HOUR, 0):
        world.events.clear()
        world.skew = step
        world.run(0.5)
        assert world.told(Health.CLOCK_STEP), step
        world.run(3)
        assert not [e for e in world.events if isinstance(e, InstrumentEvent) and e.retired]
        assert not world.told(Health.STALE)
        assert world.feed.is_ready
        assert len(two_sided(world)) > 0.9 * quoted
        world.until(lambda step=step: bool(world.feed.trouble) == bool(step), 5)
    world.events.clear()
    world.asleep = True
    world.run(40)
    world.asleep = False
    world.run(0.5)
    assert world.told(Health.CLOCK_STEP)
    world.until(lambda: world.feed.is_ready and not world.late() and not world.feed.trouble, 30)
    assert not world.listings()[1]
    assert not world.wrong()


def takeover(facts: Facts) -> None:
    """Where a connection's life is limited a second one takes over before its end, and no quote is cleared."""
    world = World(facts.name, [facts.family], books=True, expiries=2).ready()
    quoted = len(two_sided(world))
    first = list(world.feed.venues)
    for venue in first:
        twin = venue.twin()
        assert type(twin) is type(venue)
        assert twin.url == venue.url
        assert not twin.is_ready
        assert venue.takeover == ""
    if facts.name == "okx":
        world.exchange.announce_upgrade(world.now, seconds=30.0)  # type: ignore[attr-defined]
    elif facts.aged is not None:
        for venue in first:
            facts.aged(venue)
    else:
        world.run(1)
        assert not world.told(Health.TAKEOVER)
        return
    least = quoted
    for _ in range(200):
        world.run(0.2)
        least = min(least, len(two_sided(world)))
        if world.feed.takeovers == len(first) and world.now % SECOND == 0:
            break
    assert world.feed.takeovers == len(first)
    assert least > 0.95 * quoted
    assert world.feed.is_ready
    assert not set(world.feed.venues) & set(first)
    world.run(2)
    assert not world.late()
    assert len(world.told(Health.TAKEOVER)) == 2 * len(first)


def determinism(facts: Facts) -> None:
    """The same calls give the same batches, whoever looks in between; `resume` goes on as if it had been there."""
    world = World(facts.name, [facts.family], books=True, trades=True, expiries=2).ready()
    for venue in list(world.sessions)[:1]:
        world.cut(venue)
    world.until(lambda: world.feed.is_ready, 30)
    world.run(2)
    assert sum(checksum != 0 for checksum in world.checksums) > 10
    assert play(world.new_feed(), world.calls) == world.checksums
    assert play(world.new_feed(), world.calls, curious=True) == world.checksums

    middle = len(world.calls)
    others = world.new_feed()
    for number, venue in zip(others.numbers, others.venues, strict=True):
        live = world.feed.venue(number)
        assert live is not None
        venue.resume([live.universe[i] for i in np.flatnonzero(live.universe.active).tolist()], world.client_now)
    rows = np.array(list(world.followed().values()))
    world.exchange.quotes.distort("spike", rows, world.market.now_ns + SECOND, 0.2)  # so that each is told again
    world.run(4)
    play(others, world.calls[middle:])
    compared = 0
    for i in two_sided(world).tolist():
        mine = others.universe.find(facts.name, world.feed.universe[i].symbol)
        assert mine is not None
        for name in ("bid", "ask", "bid_size", "ask_size"):
            one, other = getattr(others.board, name)[mine], getattr(world.feed.board, name)[i]
            assert same(float(one), float(other)), (world.feed.universe[i].symbol, name)
        compared += 1
    assert compared > 15
    assert others.is_ready
