"""What OKX refuses, forgets or puts off, and what one connection does about it."""

from __future__ import annotations

import json
import math

import pytest

from tests.feeds.okx_frames import (
    COIN_OPTIONS,
    DOLLAR_OPTIONS,
    FUTURES,
    SECOND,
    START,
    Row,
    Server,
    bbo,
    book,
    index,
    instrument_row,
    ready,
    summary,
    summary_row,
)
from volsurf.feeds.okx import Okx
from volsurf.feeds.protocol import BookEvent, Health

URL = "ws://okx.test/ws/v5/public"


def asked(server: Server, op: str = "subscribe") -> list[list[str]]:
    """Names of the channels of each request so far."""
    said = [request for request in server.asked if request["op"] == op]
    return [[arg.get("instId") or arg.get("instFamily") or arg["instType"] for arg in one["args"]] for one in said]


def until_subscribed() -> Server:
    """A connection whose great subscription is sent and not answered."""
    server = Server(Okx(["BTC"], url=URL))
    server.venue.connected(START)
    server.collect()
    server.answer(server.held.pop())
    while server.unread:
        server.answer_page(server.unread.pop(0))
        server.collect()
    assert len(server.held) == 1
    return server


def serve_for(server: Server, seconds: float) -> None:
    """Answer what is asked while time passes."""
    server.wait(seconds, step=0.25)


def test_one_bad_channel_is_refused_by_name_and_the_rest_is_there() -> None:
    server = Server(Okx(["BTC"], url=URL))
    server.unknown = {FUTURES[0]}
    server.connect()
    serve_for(server, 2)
    assert server.venue.is_ready
    # Asked for once more after the listing was read again: it may just have ended.
    assert list(server.venue.refused_channels) == [f"bbo-tbt:{FUTURES[0]}"]
    assert "60018" in server.venue.refused_channels[f"bbo-tbt:{FUTURES[0]}"]
    assert [FUTURES[0]] in asked(server)
    refusals = server.health(Health.REFUSED)
    assert len(refusals) == 2
    assert "asking once more" in refusals[0].detail
    assert "given up" in refusals[1].detail
    assert server.venue.counters["channels_refused"] == 2


def test_what_has_ended_meanwhile_is_let_go() -> None:
    server = Server(Okx(["BTC"], url=URL))
    server.unknown = {COIN_OPTIONS[0]}
    server.venue.connected(START)
    server.collect()
    while server.unread:
        server.answer_page(server.unread.pop(0))
        server.collect()
    server.rows = [row for row in server.rows if row["instId"] != COIN_OPTIONS[0]]
    server.serve()
    serve_for(server, 2)
    assert server.venue.is_ready
    assert not server.venue.refused_channels
    row = server.venue.universe.find("okx", COIN_OPTIONS[0])
    assert row is not None
    assert not server.venue.universe.active[row]


@pytest.mark.parametrize("quoting", [True, False])
def test_all_or_nothing_is_halved_until_the_bad_one_stands_alone(quoting: bool) -> None:
    """Whether one bad channel spoils its request is not documented, nor whether the error says which it was."""
    server = until_subscribed()
    bad = COIN_OPTIONS[1]

    def answer(request: Row) -> None:
        if any(arg.get("instId") == bad for arg in request.get("args", ())):
            said = f"Invalid request: {json.dumps(request)}" if quoting else "Invalid request"
            server.error(request["id"], "60012", said)
        else:
            Server.answer(server, request)

    server.answer = answer  # type: ignore[method-assign]
    for _ in range(40):
        server.serve()
        server.wait(0.5)
    assert server.venue.is_ready
    assert list(server.venue.refused_channels) == [f"bbo-tbt:{bad}"]
    assert len(server.venue._link.channels.granted) == 3 + 8 + 3
    assert len(asked(server)) < 14, "halves, not one by one"


def test_an_index_that_is_refused_is_not_missed() -> None:
    server = Server(Okx(["BTC"], url=URL))
    server.unknown = {"BTC-USD"}
    server.connect()
    serve_for(server, 2)
    assert server.venue.is_ready
    server.wait(120, tell=())
    assert not any("index" in event.detail for event in server.health(Health.STALE))


def test_what_is_not_acknowledged_is_asked_for_again() -> None:
    server = until_subscribed()
    request = server.held.pop()
    for arg in request["args"][2:]:
        server.event({"event": "subscribe", "arg": arg})  # without a number, as some are
    server.wait(10.5, serve=False)
    assert "was not acknowledged within 10 s" in server.health(Health.NO_ACK)[0].detail
    server.serve()
    assert asked(server)[-1] == asked(server)[-2][:2]
    assert server.venue.is_ready


def test_channels_never_acknowledged_beside_others_are_given_up_by_name() -> None:
    server = until_subscribed()
    for _ in range(2):
        request = server.held.pop()
        for arg in request["args"]:
            # Of the two left over the first time, the first is acknowledged the second time.
            is_other = arg.get("instId") not in (COIN_OPTIONS[0], FUTURES[0])
            if is_other or (len(request["args"]) == 2 and arg == request["args"][0]):
                server.event({"id": request["id"], "event": "subscribe", "arg": arg})
        server.wait(10.5, serve=False)
        server.collect()
    assert server.venue.failure is None
    assert "not acknowledged" in str(server.health(Health.REFUSED)[0].detail)


def test_a_server_that_never_acknowledges_is_given_up() -> None:
    server = until_subscribed()
    server.held.clear()
    server.wait(10.5, serve=False)
    assert server.venue.failure is None
    server.collect()
    server.held.clear()
    server.wait(10.5, serve=False)
    assert "subscribe was not acknowledged within 10 s, twice" in (server.venue.failure or "")


def test_too_many_requests_are_put_off_and_then_the_connection_is() -> None:
    server = until_subscribed()
    for attempt in range(3):
        request = server.held.pop()
        server.error(request["id"], "60014", "Requests too frequent")
        assert server.venue.not_before == server.now + 2 * SECOND
        assert (server.venue.failure is None) == (attempt < 2)
        server.wait(1.5, serve=False)
        assert not server.collect()
        server.wait(1.0, serve=False)
        again = server.collect()
        if attempt < 2:
            assert [one["args"] for one in again] == [request["args"]]
    assert "60014" in (server.venue.failure or "")
    assert len(server.health(Health.RATE_LIMITED)) == 3


def test_a_connection_that_is_ready_survives_a_rate_limit() -> None:
    server = ready("BTC", books=True)
    name = COIN_OPTIONS[0]
    server.say(book(name, 10, -1, [("0.006", "5")]), book(name, 30, 20))
    server.now += SECOND // 10
    server.venue.timer(server.now)
    unsubscribe, subscribe = server.collect()
    server.held.clear()
    server.answer(unsubscribe)
    server.error(subscribe["id"], "60014", "Requests too frequent")
    server.wait(2.5)
    assert server.venue.failure is None
    assert server.asked[-1]["args"] == subscribe["args"]


def test_a_storm_of_gaps_costs_two_requests() -> None:
    rows = [instrument_row(f"BTC-USD-270326-{strike}-C") for strike in range(50_000, 60_000, 100)]
    server = ready("BTC", books=True, rows=rows)
    for row in rows:
        server.say(book(row["instId"], 10, -1), book(row["instId"], 30, 20))
    server.now += SECOND // 10
    server.venue.timer(server.now)
    sent = server.collect()
    assert [(one["op"], len(one["args"])) for one in sent] == [("unsubscribe", 100), ("subscribe", 100)]
    assert server.venue.counters["book_gaps"] == 100


def test_the_hourly_budget_is_never_exceeded() -> None:
    server = ready("BTC", books=True)
    name = COIN_OPTIONS[0]
    times: list[int] = []
    for number in range(3600):
        # A book that breaks every second.
        server.say(index("BTC-USD", 76900, server.now // 10**6), book(name, 10, -1), book(name, 30, 20))
        server.now += SECOND
        server.venue.timer(server.now)
        times += [server.now] * len([one for one in server.collect() if one["op"] != "ping"])
        while server.held:
            server.answer(server.held.pop(0))
        assert server.venue.failure is None, number
    assert 400 < len(times) <= 480
    assert server.venue.next_deadline is not None


def test_a_book_can_be_asked_to_start_again() -> None:
    server = ready("BTC", books=True)
    row = server.venue.universe.find("okx", COIN_OPTIONS[0])
    assert row is not None
    server.say(book(COIN_OPTIONS[0], 10, -1, [("0.006", "5")]))
    server.venue.restart_book(row, server.now)
    server.wait(0.2, serve=False)
    assert [one["op"] for one in server.collect()] == ["unsubscribe", "subscribe"]
    server.say(book(COIN_OPTIONS[0], 11, 10, [("0.006", "6")]))
    events = [event for event in server.events() if isinstance(event, BookEvent)]
    assert [event.previous_sequence for event in events] == [0, -1], "its old changes are passed over"
    without = ready("BTC")
    without.venue.restart_book(row, without.now)
    without.wait(0.2, serve=False)
    assert not without.collect()


def test_options_that_are_said_no_more_of_are_looked_up() -> None:
    """An expiry that vanishes without a word: `opt-summary` goes on and leaves it out."""
    server = ready("BTC")
    server.say(*[bbo(name) for name in COIN_OPTIONS], summary(*[summary_row(name) for name in COIN_OPTIONS]))
    board = server.values()
    assert board[COIN_OPTIONS[2]]["bid"] == 0.0065
    gone = COIN_OPTIONS[2]
    server.rows = [row for row in server.rows if row["instId"] != gone]
    pages = len(server.pages)
    for _ in range(90):
        server.say(summary(*[summary_row(name) for name in COIN_OPTIONS if name != gone]))
        board |= server.values()
        server.wait(0.5)
    board |= server.values()
    row = server.venue.universe.find("okx", gone)
    assert row is not None
    assert not server.venue.universe.active[row]
    assert math.isnan(board[gone]["bid"]), "its price is gone from the board"
    assert len(server.pages) == pages + 1
    assert server.venue.universe.active.sum() == 9
    assert DOLLAR_OPTIONS[0] in {server.venue.universe[int(i)].symbol for i in server.venue.universe.options()}
