"""A second connection takes over from the first: nothing cleared, nothing wrong on the board, whatever goes wrong meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.feeds.scripted import LIFE, NAMES, NOTICE, Scripted, quote
from volsurf.feeds._takeover import CATCH_UP_NS, SHOW_NS
from volsurf.feeds._watch import SECOND
from volsurf.feeds.book import BookState
from volsurf.feeds.protocol import BookEvent, Event, Health, HealthEvent, InstrumentEvent, TradeEvent
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.quotes import Field, QuoteBatch

START = 1_780_000_000_000_000_000
MILLI = 1_000_000


class Scene:
    """A feed without sockets: the test is the venue and the clock.

    Attributes:
        cleared: names of which a batch ever said that they are not quoted any more.
    """

    def __init__(self, *, books: bool = False, make: Callable[[], Scripted] = Scripted) -> None:
        self.now = START
        self.feed = VenueFeed([make()], clock=lambda: self.now, books=books)
        self.events: list[Event] = []
        self.cleared: list[str] = []
        self.first.connected(self.now)
        self.tick()

    @property
    def first(self) -> Scripted:
        """Who stands in the place."""
        (venue,) = self.feed.venues
        assert isinstance(venue, Scripted)
        return venue

    @property
    def second(self) -> Scripted:
        """Who is to take over."""
        twin = self.feed.venue(max(self.feed._connections))
        assert isinstance(twin, Scripted)
        assert twin is not self.first
        return twin

    @property
    def has_second(self) -> bool:
        return max(self.feed._connections) not in self.feed.numbers

    def tick(self, after: int = 10 * MILLI) -> QuoteBatch | None:
        self.now += after
        batch, events = self.feed.collect()
        self.events += events
        if batch is not None:
            empty = np.isnan(batch.bid) & np.isnan(batch.ask) & (batch.fields & Field.QUOTE != 0)
            self.cleared += [self.feed.universe[int(row)].symbol for row in batch.instrument_id[empty]]
        return batch

    def say(
        self, venue: Scripted, name: str, bid: float | None, ask: float | None = 9.0, at: int | None = None
    ) -> None:
        venue.receive(quote(name, bid, ask, self.now if at is None else at), self.now)

    def bid(self, name: str) -> float:
        row = self.feed.universe.find("scripted", name)
        assert row is not None
        return float(self.feed.board.bid[row])

    def told(self, kind: Health) -> list[str]:
        return [event.detail for event in self.events if isinstance(event, HealthEvent) and event.kind is kind]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def want(self) -> Scripted:
        """Make the first ask for a takeover; returns the twin, not connected yet."""
        for name in NAMES:
            self.say(self.first, name, 1.0)
        self.tick()
        self.first.receive(b'{"notice":"service upgrade"}', self.now)
        self.tick()
        return self.second


def test_the_twin_takes_over_when_it_is_ready_and_no_quote_is_cleared() -> None:
    scene = Scene()
    old, twin = scene.first, scene.want()
    assert scene.feed.connections[0].number == 0
    scene.say(old, "A", 1.5)
    scene.tick()
    assert scene.bid("A") == 1.5, "the first still speaks"
    twin.connected(scene.now)
    for name in NAMES:
        scene.say(twin, name, 2.0)
    scene.tick()
    assert scene.first is twin
    assert [scene.bid(name) for name in NAMES] == [2.0] * 4
    assert scene.feed.numbers == [1]
    assert scene.feed.takeovers == scene.feed.counters["takeovers"] == 1
    assert scene.feed.venue(0) is old, "what it still hears belongs to it"
    scene.say(old, "A", 7.0)
    old.disconnected(scene.now, "stopped")
    scene.tick(SHOW_NS)
    assert scene.bid("A") == 2.0
    assert scene.cleared == []
    assert not scene.told(Health.DISCONNECTED)
    assert [said.split(":")[0] for said in scene.told(Health.TAKEOVER)] == [
        "opening a second connection",
        "a second connection took over",
    ]
    assert not scene.of(InstrumentEvent)[1:], "nothing was listed or retired"


def test_what_the_venue_stamped_earlier_does_not_overwrite_what_it_stamped_later() -> None:
    """The twin's socket lags by 30 ms: at the switch it has older quotes than the first had."""
    scene = Scene()
    old, twin = scene.first, scene.want()
    twin.connected(scene.now)
    twin.ready = False
    late = scene.now
    scene.say(twin, "A", 1.0, at=late)
    scene.say(twin, "B", 1.2, at=late + 60 * MILLI)
    scene.tick(30 * MILLI)
    scene.say(old, "A", 5.0, at=late + 30 * MILLI)
    scene.say(old, "B", 5.0, at=late + 30 * MILLI)
    twin.ready = True
    scene.tick()
    assert scene.first is twin
    assert scene.bid("A") == 5.0
    assert scene.bid("B") == 1.2
    scene.say(twin, "A", 4.0, at=late + 20 * MILLI)
    scene.tick()
    assert scene.bid("A") == 5.0, "still earlier than what is shown"
    scene.say(twin, "A", 6.0, at=late + 40 * MILLI)
    scene.tick()
    assert scene.bid("A") == 6.0
    assert scene.cleared == []


def test_what_was_held_back_is_believed_once_the_twin_has_caught_up() -> None:
    """A venue whose stamps are not in order must not leave a quote on the board that no connection gives."""
    scene = Scene()
    _, twin = scene.first, scene.want()
    twin.connected(scene.now)
    scene.say(twin, "A", 1.25, at=START - SECOND)
    scene.tick()
    assert scene.first is twin
    assert scene.bid("A") == 1.0
    batch = scene.tick(CATCH_UP_NS + MILLI)
    assert batch is not None
    assert scene.bid("A") == 1.25
    scene.say(twin, "A", 1.5, at=START - 2 * SECOND)
    scene.tick()
    assert scene.bid("A") == 1.5, "from here on the twin's word is the last, whatever its stamp"


def test_what_the_new_connection_does_not_quote_in_time_is_cleared() -> None:
    scene = Scene()
    twin = scene.want()
    twin.connected(scene.now)
    scene.say(twin, "A", 2.0)
    scene.say(twin, "B", None, None)
    scene.tick()
    assert scene.bid("C") == scene.bid("D") == 1.0
    assert scene.cleared == ["B"], "an empty side that the venue stamps is a word"
    scene.say(twin, "C", 3.0)
    scene.tick(SHOW_NS - 20 * MILLI)
    assert scene.cleared == ["B"]
    scene.tick(20 * MILLI)
    assert scene.cleared == ["B", "D"]
    assert scene.bid("A") == 2.0
    scene.say(twin, "D", 4.0)
    scene.tick()
    assert scene.bid("D") == 4.0


def test_the_first_is_cut_before_the_twin_is_ready() -> None:
    """The twin simply becomes the connection: what it has heard stands, the rest is cleared as after any cut."""
    scene = Scene()
    old, twin = scene.first, scene.want()
    twin.connected(scene.now)
    twin.ready = False
    scene.say(twin, "A", 2.0)
    scene.tick()
    old.disconnected(scene.now, "cut")
    scene.tick()
    assert scene.first is twin
    assert scene.bid("A") == 2.0
    assert scene.cleared == ["B", "C", "D"]
    assert scene.told(Health.DISCONNECTED) == ["cut"]
    assert not scene.feed.is_ready
    scene.say(twin, "B", 2.5)
    twin.list_all()
    scene.tick()
    assert scene.bid("B") == 2.5
    assert scene.feed.is_ready


def test_the_first_is_cut_and_the_twin_is_ready_in_the_same_tick() -> None:
    scene = Scene()
    old, twin = scene.first, scene.want()
    old.disconnected(scene.now, "cut")
    twin.connected(scene.now)
    scene.say(twin, "A", 2.0)
    scene.tick()
    assert scene.first is twin
    assert scene.cleared == []
    assert scene.bid("B") == 1.0
    assert not scene.told(Health.DISCONNECTED)


def test_the_first_is_cut_while_the_twin_cannot_connect() -> None:
    """Then the first connects again by itself, and its new socket has its 24 hours before it."""
    scene = Scene()
    old, twin = scene.first, scene.want()
    twin.disconnected(scene.now, "no such host")
    scene.tick()
    assert scene.feed.trouble == "service upgrade, and a second connection fails: no such host"
    old.disconnected(scene.now, "cut")
    scene.tick()
    assert scene.first is old
    assert not scene.has_second
    assert sorted(scene.cleared) == list(NAMES)
    assert old.takeover
    scene.tick()
    assert not scene.has_second, "there is nothing to take over from"
    old.connected(scene.now)
    scene.say(old, "A", 3.0)
    scene.tick()
    assert scene.bid("A") == 3.0
    assert not scene.has_second
    assert scene.feed.takeovers == 0


def test_a_twin_that_fails_is_tried_again_while_the_first_lives() -> None:
    scene = Scene()
    twin = scene.want()
    for _ in range(3):
        twin.connected(scene.now)
        twin.ready = False
        scene.say(twin, "A", 8.0)
        scene.tick()
        twin.disconnected(scene.now, "closed by the venue")
        scene.tick()
        assert scene.second is twin, "its own connection tries again, with its pauses"
        assert scene.bid("A") == 1.0
    assert [said for said in scene.told(Health.TAKEOVER) if "failed" in said] == [
        "the second connection failed: closed by the venue"
    ] * 3
    twin.connected(scene.now)
    scene.tick()
    assert scene.first is twin
    assert scene.cleared == [], "what a failed attempt quoted and lost was never shown"
    assert scene.bid("A") == 1.0


def test_a_twin_that_finds_nothing_is_given_up_and_another_tried_later() -> None:
    scene = Scene()
    twin = scene.want()
    twin.names = (*NAMES, "E")
    twin.connected(scene.now)
    twin.ready = False
    scene.tick()
    row = scene.feed.universe.find("scripted", "E")
    assert row is not None
    twin.unlisted = "the venue lists nothing"
    scene.tick()
    assert not scene.has_second
    assert not scene.feed.universe.active[row], "only the twin knew of it"
    assert scene.told(Health.TAKEOVER)[-1] == "the second connection is given up: the venue lists nothing"
    scene.tick(59 * SECOND)
    assert not scene.has_second
    scene.tick(SECOND)
    again = scene.second
    assert again is not twin
    assert scene.feed.connections[0].number == 0
    again.connected(scene.now)
    scene.tick()
    assert scene.feed.numbers == [2], "numbers are never used again"


def test_a_venue_without_a_twin_is_told_once() -> None:
    class Single(Scripted):
        def twin(self) -> Scripted:
            raise NotImplementedError("no twin")

    scene = Scene(make=Single)
    scene.first.receive(b'{"notice":"service upgrade"}', scene.now)
    for _ in range(3):
        scene.tick()
    assert scene.told(Health.TAKEOVER) == ["service upgrade, and nothing can take over: no twin"]


def test_trades_are_told_once_and_none_is_lost() -> None:
    scene = Scene()
    old, twin = scene.first, scene.want()

    def trade(venue: Scripted, number: int) -> None:
        venue.receive(json.dumps({"i": "A", "trade": str(number), "p": 1.0, "t": number}).encode(), scene.now)

    twin.connected(scene.now)
    twin.ready = False
    trade(old, 1)
    trade(twin, 1)
    trade(twin, 2)
    scene.tick()
    trade(old, 2)
    trade(twin, 3)  # has not come on the first yet
    twin.ready = True
    scene.tick()
    trade(old, 3)
    trade(old, 4)
    trade(twin, 2)
    trade(twin, 4)
    scene.tick()
    assert [event.trade_id for event in scene.of(TradeEvent)] == ["1", "2", "3", "4"]


def test_books_go_on_from_the_twins_own_snapshot() -> None:
    scene = Scene(books=True)
    old = scene.first

    def book(venue: Scripted, name: str, number: int, price: float, after: int | None = None) -> None:
        said = {"i": name, "u": number, "bids": [[price, 1.0]], "t": scene.now}
        venue.receive(json.dumps(said if after is None else {**said, "pu": after}).encode(), scene.now)

    twin = scene.want()
    for name in ("A", "B"):
        book(old, name, 10, 1.0)
        book(old, name, 11, 1.1, after=10)
    scene.tick()
    assert scene.bid("A") == 1.1
    twin.connected(scene.now)
    twin.ready = False
    book(twin, "A", 11, 1.1)
    book(twin, "A", 12, 1.2, after=11)
    scene.tick()
    assert scene.bid("A") == 1.1
    twin.ready = True
    scene.tick()
    row = scene.feed.universe.find("scripted", "A")
    assert row is not None
    last = scene.of(BookEvent)[-1]
    assert (last.instrument_id, last.is_snapshot, last.sequence) == (row, True, 12)
    assert last.bids == ((1.2, 1.0), (1.1, 1.0))
    assert scene.bid("A") == 1.2
    book(twin, "A", 13, 1.3, after=12)
    scene.tick()
    assert scene.bid("A") == 1.3
    assert scene.feed.books is not None
    assert scene.feed.books.counters["gap"] == 0
    # B's book never came: it stands until the bound, then it is empty.
    scene.tick(SHOW_NS - SECOND)
    assert scene.bid("B") == 1.1
    lost = scene.feed.universe.find("scripted", "B")
    assert lost is not None
    assert scene.feed.books[lost].state is BookState.ONE_SIDED
    scene.tick(SECOND)
    assert np.isnan(scene.bid("B"))
    assert scene.feed.books[lost].state is BookState.WAITING
    assert scene.bid("A") == 1.3


def test_a_book_crossed_for_seconds_is_asked_for_again() -> None:
    class Restarting(Scripted):
        def restart_book(self, instrument_id: int, now: int) -> None:
            restarted.append((self.universe[instrument_id].symbol, now))

    restarted: list[tuple[str, int]] = []
    flushed: list[int] = []
    scene = Scene(books=True, make=Restarting)
    scene.feed.connections[0].flush = lambda: flushed.append(scene.now)  # type: ignore[method-assign]
    crossed = {"i": "B", "u": 1, "bids": [[2.0, 1.0]], "asks": [[1.0, 1.0]], "t": scene.now}
    scene.first.receive(json.dumps(crossed).encode(), scene.now)
    scene.tick()
    scene.tick(SECOND)
    assert restarted == []
    scene.tick(2 * SECOND)
    assert restarted == [("B", scene.now)]
    assert flushed == [scene.now], "what it asks for is sent at once"


def test_books_of_a_connection_that_is_cut_are_empty() -> None:
    scene = Scene(books=True)
    scene.first.receive(json.dumps({"i": "A", "u": 1, "bids": [[1.0, 2.0]], "t": scene.now}).encode(), scene.now)
    batch = scene.tick()
    assert batch is not None
    assert (batch.bid[0], batch.bid_size[0], batch.bid_depth[0]) == (1.0, 2.0, 2.0)
    scene.first.disconnected(scene.now, "cut")
    scene.tick()
    assert np.isnan(scene.bid("A"))


def test_listings_of_the_two_are_reconciled() -> None:
    """C expired while both were connected and only the first said so; the twin lists E, and D no more."""
    scene = Scene()
    old, twin = scene.first, scene.want()
    twin.names = ("A", "B", "C", "E")
    twin.connected(scene.now)
    twin.ready = False
    scene.tick()
    before = len(scene.of(InstrumentEvent))
    old.receive(b'{"i":"C","gone":1}', scene.now)
    twin.receive(b'{"i":"C","gone":1}', scene.now)
    scene.say(twin, "E", 5.0)
    scene.tick()
    twin.ready = True
    scene.tick()
    universe = scene.feed.universe
    ids = {name: universe.find("scripted", name) for name in "ABCDE"}
    told = scene.of(InstrumentEvent)[before:]
    assert [row for event in told for row in event.added] == [ids["E"]]
    assert [row for event in told for row in event.retired] == [ids["C"], ids["D"]]
    assert [name for name, row in ids.items() if row is not None and universe.active[row]] == ["A", "B", "E"]
    assert np.isnan(scene.bid("D"))
    assert scene.bid("E") == 5.0


def test_three_days_of_a_venue_that_cuts_after_24_hours() -> None:
    """The venue counts up, each socket hears every count, with a delay of its own; the clock goes in steps of two minutes."""
    scene = Scene()
    feed = scene.feed
    opened = {0: scene.now}
    lag = 20 * MILLI
    step, steps = 120 * SECOND, 73 * 30
    for count in range(steps):
        scene.now = START + count * step
        truth = 1.0 + count * 1e-3
        name = NAMES[count % len(NAMES)]
        for number in sorted(feed._connections):
            venue = feed.venue(number)
            assert isinstance(venue, Scripted)
            if number not in opened:
                opened[number] = scene.now
                venue.connected(scene.now)
                for each in NAMES:
                    scene.say(venue, each, scene.bid(each), at=scene.now - lag)
            elif scene.now - opened[number] >= LIFE:
                venue.disconnected(scene.now, "24 hours are over")
            venue.timer(scene.now)
            scene.say(venue, name, truth, at=scene.now - lag * (number % 2))
        scene.tick()
        if count >= len(NAMES):
            assert scene.bid(name) == truth
    assert feed.takeovers == steps * step // (LIFE - NOTICE) == 3
    assert scene.cleared == []
    assert not scene.told(Health.DISCONNECTED)
    assert feed.counters["messages"] >= steps, "those of the venues that were replaced included"


def test_numbers_can_be_given_for_a_replay_from_the_middle() -> None:
    feed = VenueFeed([Scripted(), Scripted()], numbers=[7, 3])
    assert feed.numbers == [7, 3]
    assert feed.venue(3) is feed.venues[1]
    assert feed.venue(0) is None
    with pytest.raises(Exception, match="as many different numbers"):
        VenueFeed([Scripted(), Scripted()], numbers=[7, 7])
