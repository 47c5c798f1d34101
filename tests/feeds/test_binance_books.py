"""Order books of Binance kept from changes and a snapshot: every rule of *How to manage a local order book correctly*."""

from __future__ import annotations

import itertools

import pytest

from tests.feeds.binance_frames import BTC_OPTIONS, SECOND, START_MS, XRP_OPTIONS, Desk, depth, index, listing, snapshot
from volsurf.feeds.protocol import BookEvent, Health

NAME = BTC_OPTIONS[0]
LOST = (False, -1, 0)
"""A book that is kept no more until its next snapshot."""


def desk_with(books: bool = True, name: str = NAME, **options: object) -> Desk:
    """A group whose snapshots are not served by themselves."""
    desk = Desk([name.split("-")[0]], [listing(name)], books=books, **options)  # type: ignore[arg-type]
    for venue in desk.venues:
        venue.connected(desk.now)
    for _ in range(5):
        desk.collect(0), desk.collect(1)
        for member, request in list(desk.held):
            if not request.key.startswith("depth:"):
                desk.held.remove((member, request))
                desk.answer_page(member, request)
        for member in (0, 1):
            for asked in desk.unanswered(member):
                desk.answer(member, asked)
        desk.now += SECOND // 4
        for venue in desk.venues:
            venue.timer(desk.now)
    desk.collect(1)
    desk.events(1)
    return desk


def page(desk: Desk, last: int, **sides: object) -> None:
    """Serve the snapshot asked for."""
    desk.collect(1)
    keys = [request.key for _, request in desk.held]
    assert keys == [f"depth:{desk.listed[0]['symbol']}"], keys
    desk.held.clear()
    desk.venues[1].receive_http(keys[0], 200, snapshot(last, **sides), desk.now)  # type: ignore[arg-type]


def books(desk: Desk) -> list[BookEvent]:
    return [event for event in desk.events(1) if isinstance(event, BookEvent)]


def ids(desk: Desk) -> list[tuple[bool, int, int]]:
    return [(event.is_snapshot, event.previous_sequence, event.sequence) for event in books(desk)]


def asked(desk: Desk) -> int:
    desk.collect(1)
    return len([request for request in desk.pages if request.key.startswith("depth:")])


def test_a_snapshot_is_asked_for_once_the_changes_are_subscribed_to() -> None:
    desk = desk_with()
    assert asked(desk) == 1
    assert desk.pages[-1].url == f"https://eapi.binance.com/eapi/v1/depth?symbol={NAME}&limit=50"
    page(desk, 1000, bids=[["6100.0", "2.5"], ["6095.0", "1.0"]], asks=[["6200.0", "1.0"]])
    (event,) = books(desk)
    assert event.is_snapshot
    assert event.bids == ((6100.0, 2.5), (6095.0, 1.0))
    assert event.asks == ((6200.0, 1.0),)
    assert (event.sequence, event.venue_time_ns) == (1000, START_MS * 1_000_000)


def test_changes_are_held_back_and_those_that_end_before_the_snapshot_are_dropped() -> None:
    desk = desk_with()
    desk.say(depth(NAME, 901, 950, 900), depth(NAME, 951, 999, 950), depth(NAME, 1000, 1010, 999), member=1)
    desk.say(depth(NAME, 1011, 1020, 1010, [["6101", "1"]]), member=1)
    assert books(desk) == []
    page(desk, 1005)
    assert ids(desk) == [(True, 0, 1005), (False, 1005, 1010), (False, 1010, 1020)]


def test_the_first_change_must_reach_back_to_the_snapshot() -> None:
    desk = desk_with()
    desk.say(depth(NAME, 1100, 1110, 1099), member=1)
    page(desk, 1005)  # too old: what lies between is lost
    assert books(desk) == []
    assert desk.venues[1].counters["book_snapshots_old"] == 1
    desk.wait(1, tell=False, serve=False)
    page(desk, 1105)
    assert ids(desk) == [(True, 0, 1105), (False, 1105, 1110)]


def test_after_a_quiet_time_a_change_that_follows_the_snapshot_is_taken() -> None:
    """Its ids begin after the snapshot's, but its `pu` says that nothing lies between."""
    desk = desk_with()
    page(desk, 1005)
    desk.say(depth(NAME, 2000, 2001, 1005), member=1)
    assert ids(desk) == [(True, 0, 1005), (False, 1005, 2001)]


def test_a_change_the_snapshot_has_already_is_dropped() -> None:
    desk = desk_with()
    page(desk, 1005)
    desk.say(depth(NAME, 990, 1004, 980), depth(NAME, 1005, 1006, 1004), member=1)
    assert ids(desk) == [(True, 0, 1005), (False, 1005, 1006)]
    assert desk.venues[1].counters["book_repeats"] == 1


def test_a_gap_starts_the_book_anew_at_once() -> None:
    desk = desk_with()
    page(desk, 1005)
    desk.say(depth(NAME, 1006, 1010, 1005), depth(NAME, 1021, 1030, 1020), member=1)
    # Whoever keeps the book is told to empty it.
    assert ids(desk) == [(True, 0, 1005), (False, 1005, 1010), LOST]
    assert desk.venues[1].counters["book_gaps"] == 1
    assert asked(desk) == 2  # without waiting
    desk.say(depth(NAME, 1031, 1040, 1030), member=1)
    page(desk, 1025)
    assert ids(desk) == [(True, 0, 1025), (False, 1025, 1030), (False, 1030, 1040)]


def test_a_gap_is_told_by_name() -> None:
    desk = desk_with()
    page(desk, 1005)
    desk.say(depth(NAME, 1006, 1010, 1005), depth(NAME, 1021, 1030, 1020), member=1)
    gap = desk.health(Health.GAP, member=1)[0]
    assert gap.detail == f"{NAME}: change 1021 to 1030 follows 1020, the last was 1010; starting anew"


def test_repeated_and_late_changes_are_dropped() -> None:
    desk = desk_with()
    page(desk, 1005)
    change = depth(NAME, 1006, 1010, 1005)
    desk.say(change, change, depth(NAME, 1011, 1012, 1010), change, member=1)
    assert ids(desk) == [(True, 0, 1005), (False, 1005, 1010), (False, 1010, 1012)]
    assert desk.venues[1].counters["book_repeats"] == 2
    assert desk.venues[1].counters["book_gaps"] == 0


def test_sizes_are_absolute_and_0_deletes() -> None:
    desk = desk_with()
    page(desk, 1005)
    books(desk)
    desk.say(depth(NAME, 1006, 1010, 1005, [["6100", "0.00"], ["6090", "3"]], [["9999", "0"]]), member=1)
    (event,) = books(desk)
    assert event.bids == ((6100.0, 0.0), (6090.0, 3.0))
    assert event.asks == ((9999.0, 0.0),)  # a level nobody knew is deleted: normal
    assert event.venue_time_ns == START_MS * 1_000_000


def test_contracts_of_several_coins() -> None:
    name = XRP_OPTIONS[0]
    desk = desk_with(name=name)
    page(desk, 1005, bids=[["12.5", "3"]], asks=[])
    (event,) = books(desk)
    assert event.bids == ((0.125, 300.0),)


@pytest.mark.parametrize(
    "change",
    [
        depth(NAME, 1006, 1010, 1005, [["-5", "1"]]),
        depth(NAME, 1006, 1010, 1005, [["0", "1"]]),
        depth(NAME, 1006, 1010, 1005, [], [["5", "-1"]]),
        depth(NAME, 1006, 1010, 1005, [["inf", "1"]]),
        depth(NAME, 1006, 1010, 1005, [["5", "nan"]]),
        depth(NAME, 1010, 1006, 1005),
        depth(NAME, 1006, 1010, -1),
    ],
)
def test_what_is_no_change_starts_the_book_anew(change: bytes) -> None:
    desk = desk_with()
    page(desk, 1005)
    books(desk)
    desk.say(change, member=1)
    assert ids(desk) == [LOST]
    assert desk.venues[1].counters["malformed.book"] == 1
    assert asked(desk) == 2
    page(desk, 1020, bids=[["-1", "1"]])
    assert books(desk) == []
    desk.wait(1, tell=False, serve=False)
    page(desk, 1020)
    assert ids(desk) == [(True, 0, 1020)]


def test_a_snapshot_that_does_not_come_is_asked_for_again() -> None:
    desk = desk_with()
    key = desk.held[0][1].key
    desk.held.clear()
    desk.venues[1].receive_http(key, 0, b"timed out", desk.now)
    assert desk.health(Health.NO_ACK, member=1)
    desk.wait(2, tell=False, serve=False)
    assert asked(desk) == 2
    desk.held.clear()
    desk.venues[1].receive_http(key, 200, b'{"lastUpdateId":"x"}', desk.now)
    assert desk.health(Health.MALFORMED, member=1)
    desk.wait(3, tell=False, serve=False)
    assert asked(desk) == 3
    desk.held.clear()
    desk.wait(31, tell=False, serve=False)  # not a word, not even that there is none
    assert asked(desk) >= 4
    desk.held = desk.held[-1:]
    page(desk, 1005)
    assert ids(desk) == [(True, 0, 1005)]


def test_a_symbol_that_went_meanwhile() -> None:
    desk = desk_with()
    key = desk.held[0][1].key
    desk.held.clear()
    desk.venues[1].receive_http(key, 400, b'{"code":-1121,"msg":"Invalid symbol."}', desk.now)
    assert "Invalid symbol" in desk.health(Health.REFUSED, member=1)[0].detail
    desk.wait(15, tell=False, serve=False)
    assert any(request.key == "listing" for _, request in desk.held)


def test_books_start_again_with_the_socket() -> None:
    desk = desk_with()
    page(desk, 1005)
    desk.venues[1].disconnected(desk.now, "gone")
    desk.venues[1].connected(desk.now)
    books(desk)
    desk.serve()
    desk.wait(1, tell=False)
    desk.say(depth(NAME, 1001, 1010, 1000), member=1)
    assert ids(desk) == [(True, 0, 1000), (False, 1000, 1010)]


def many_books(count: int, shards: int = 8) -> Desk:
    names = [f"BTC-270326-{50_000 + 100 * i}-{kind}" for i in range(count // 2) for kind in "CP"]
    return Desk(["BTC"], [listing(name) for name in names], books=True, shards=shards)


def test_snapshots_are_paced_by_their_weight_over_all_connections() -> None:
    desk = many_books(800).connect()
    counts = []
    for _ in range(14):
        counts.append(asked_by_all(desk))
        desk.wait(1, tell=False)
    # A quarter of the 2400 admitted at once, then half of them a minute.
    assert max(counts[:3]) <= 600 + 3 * 20
    assert counts[2] >= 600
    assert max(later - before for before, later in itertools.pairwise(counts[2:])) <= 21
    assert asked_by_all(desk) == 800


def asked_by_all(desk: Desk) -> int:
    for member in range(len(desk.venues)):
        desk.collect(member)
    return len([request for request in desk.pages if request.key.startswith("depth:")])


@pytest.mark.parametrize("levels", [5, 10, 20])
def test_partial_depth_is_whole_every_time_and_never_a_gap(levels: int) -> None:
    desk = desk_with(partial_depth=levels)
    stream = f"depth{levels}@100ms"
    assert f"{NAME.lower()}@{stream}" in desk.venues[1]._link.granted
    assert asked(desk) == 0
    desk.say(depth(NAME, 2000, 2003, 17, [["6100", "1"]], [["6200", "2"]], stream), member=1)
    desk.say(depth(NAME, 9000, 9003, 4000, [["6105", "1"]], [], stream), member=1)
    desk.say(depth(NAME, 2000, 2003, 17, [["6100", "1"]], [["6200", "2"]], stream), member=1)  # late
    desk.say(depth(NAME, 9004, 9004, 9003, [["0", "1"]], [], stream), member=1)
    assert ids(desk) == [(True, 0, 2003), (True, 0, 9003)]
    assert desk.venues[1].counters["book_gaps"] == 0
    assert desk.venues[1].counters["book_repeats"] == 1
    assert desk.venues[1].counters["malformed.book"] == 1


def test_what_is_held_back_is_bounded() -> None:
    desk = desk_with()
    for number in range(3000):
        desk.say(depth(NAME, 1000 + number, 1000 + number, 999 + number), member=1)
    row = desk.venues[1].universe.find("binance", NAME)
    assert row is not None
    assert len(desk.venues[1]._route._books._books[row].held) == 1000  # type: ignore[attr-defined]
    page(desk, 1500)
    assert books(desk) == []  # too old for what was kept


def test_a_book_that_cannot_be_right_is_asked_for_again() -> None:
    desk = desk_with()
    page(desk, 1005)
    row = desk.venues[1].universe.find("binance", NAME)
    assert row is not None
    desk.venues[1].restart_book(row, desk.now)
    assert asked(desk) == 2
    page(desk, 1006)
    assert ids(desk) == [(True, 0, 1005), LOST, (True, 0, 1006)]
    desk.market.restart_book(row, desk.now)  # keeps none
    assert asked(desk) == 2


def test_a_book_followed_no_more_is_emptied() -> None:
    names = [f"BTC-270326-{70_000 + 100 * i}-{kind}" for i in range(100) for kind in "CP"]
    desk = Desk(["BTC"], [listing(name) for name in names], books=True).connect()
    desk.wait(60, tell=False)
    kept = {e.instrument_id for e in books(desk) if e.is_snapshot}
    assert len(kept) == 100
    desk.say(index(desk.now // 1_000_000, BTCUSDT="70000"))
    desk.wait(1, tell=False)
    lost = {e.instrument_id for e in books(desk) if not e.is_snapshot}
    assert lost == kept
    followed = {desk.venues[1].universe[row].strike for row in desk.venues[1]._link.catalogue.rows.values()}
    assert followed == set(range(70_000, 75_000, 100))


def test_a_limit_that_one_page_ran_into_holds_for_all() -> None:
    desk = many_books(800).connect()
    desk.wait(2, tell=False)
    desk.status = (429, b'{"code":-1003,"msg":"Too many requests."}')
    desk.wait(0.5, tell=False)
    had = asked_by_all(desk)
    assert 600 < had < 700
    desk.wait(55, tell=False)
    assert asked_by_all(desk) == had
    desk.status = None
    desk.wait(20, tell=False)
    assert {f"depth:{row['symbol']}" for row in desk.listed} <= {request.key for request in desk.pages}
