"""One connection through everything that goes wrong, under a clock moved by hand."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from tests.feeds.deribit_frames import (
    BTC_OPTIONS,
    HEARTBEAT,
    SECOND,
    START,
    TEST_REQUEST,
    Server,
    index_price,
    let_pass,
    notification,
    option_row,
    ready,
    state_change,
    ticker,
)
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import Health, InstrumentEvent

DAY = 86_400 * SECOND


# Requests that are not answered


def test_a_server_that_never_answers() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    server.collect()
    let_pass(server, 9.5)
    assert server.venue.failure is None
    assert not server.health(Health.NO_ACK)
    let_pass(server, 1)
    unanswered = server.health(Health.NO_ACK)
    assert {event.detail.split()[0] for event in unanswered} == {"public/set_heartbeat", "public/get_instruments"}
    assert server.venue.failure is None, "asked once more first"
    let_pass(server, 11)
    assert server.venue.failure is not None
    assert "not answered within 10 s" in server.venue.failure
    assert not server.venue.is_ready


def test_a_server_that_lists_but_never_acknowledges_subscriptions() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    for request in server.collect():
        server.answer(request)
    server.held.clear()
    for _ in range(44):
        server.wait(0.5, serve=False)
        server.collect()
        for request in server.held:
            if request["method"] == "public/test":
                server.answer(request)
        server.held.clear()
        if server.venue.failure is not None:
            break
    assert "public/subscribe was not answered" in (server.venue.failure or "")
    subscribes = [request for request in server.asked if request["method"] == "public/subscribe"]
    assert len(subscribes) == 2
    assert subscribes[0]["params"] == subscribes[1]["params"]
    assert subscribes[0]["id"] != subscribes[1]["id"]


def test_a_late_answer_to_the_first_asking_harms_nothing() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    first = server.collect()
    let_pass(server, 10.5)
    for request in first:
        server.answer(request)
    assert server.venue.counters["replies_unclaimed"] == 3
    server.held = [request for request in server.asked if request not in first]
    server.serve()
    assert server.venue.is_ready


def test_an_answer_that_is_no_list_is_asked_for_again_and_then_given_up() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    for _ in range(3):
        for request in server.collect():
            if request["method"] == "public/get_instruments" and request["params"]["kind"] == "option":
                server.reply(request["id"], "maintenance page")
            else:
                server.answer(request)
    assert server.venue.counters["malformed.schema"] == 3
    assert "something else than a list" in (server.venue.failure or "")


# Silence


def test_a_silent_server_is_stale_then_probed_then_given_up() -> None:
    server = ready()
    let_pass(server, 9.5)
    assert not server.health()
    let_pass(server, 1)
    stale = server.health(Health.STALE)
    assert [event.detail.split()[1] for event in stale] == ["btc_usd"]
    assert [request["method"] for request in server.held] == ["public/test"]
    assert server.venue.failure is None
    let_pass(server, 10)
    assert server.venue.failure is not None
    assert "public/test was not answered" in server.venue.failure
    assert server.health(Health.NO_ACK)


def test_a_quiet_market_on_a_link_that_lives_is_stale_and_recovers() -> None:
    server = ready()
    server.wait(20, tell=())
    assert len(server.health(Health.STALE)) == 1, "told once, not at every timer"
    assert server.venue.failure is None
    server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000))
    (recovered,) = server.health(Health.RECOVERED)
    assert "btc_usd" in recovered.detail
    server.wait(11, tell=())
    assert len(server.health(Health.STALE)) == 1, "and again when it falls silent again"


def test_an_index_lost_for_a_minute_on_a_living_link_is_a_failure() -> None:
    server = ready()
    server.wait(59, tell=())
    assert server.venue.failure is None
    server.wait(3, tell=())
    assert "btc_usd silent for 60 s" in (server.venue.failure or "")


def test_tickers_that_stop_on_a_living_link_are_stale_then_a_failure() -> None:
    server = ready()
    for _ in range(10):
        server.say(ticker(BTC_OPTIONS[0]))
        server.wait(5)
    assert server.health(Health.STALE) == []
    assert server.venue.silences["quotes"] == (pytest.approx(5 * SECOND, abs=SECOND), 30 * SECOND)
    server.wait(27)
    (stale,) = server.health(Health.STALE)
    assert "no ticker of any instrument" in stale.detail
    assert "no ticker" in server.venue.trouble
    server.say(ticker(BTC_OPTIONS[0]))
    server.wait(1)
    assert [event.detail for event in server.health(Health.RECOVERED)] == ["quotes is heard again"]
    server.wait(59)
    assert server.venue.failure is None
    server.wait(3)
    assert server.venue.failure == "every ticker silent for 60 s on a connection that answers"
    server.venue.disconnected(server.now, "failed")
    assert server.venue.silences == {}


def test_maintenance_excuses_silence() -> None:
    server = ready()
    server.say(ticker(BTC_OPTIONS[0]))
    server.say(notification("platform_state", {"maintenance": True}))
    assert [event.kind for event in server.health()] == [Health.MAINTENANCE]
    server.wait(200, tell=())
    assert server.venue.failure is None


def test_one_silent_index_of_two_is_named() -> None:
    server = ready("BTC", "SOL")
    server.wait(12, tell=("btc_usd",))
    (stale,) = server.health(Health.STALE)
    assert "sol_usdc" in stale.detail


def test_missing_heartbeats_are_stale() -> None:
    server = ready()
    for _ in range(90):
        server.now += SECOND // 2
        server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000))
        server.venue.timer(server.now)
        server.serve()
    (stale,) = server.health(Health.STALE)
    assert "no heartbeat" in stale.detail
    assert server.venue.failure is None
    server.say(HEARTBEAT)
    assert [event.kind for event in server.health()] == [Health.RECOVERED]


# Heartbeats


def test_a_test_request_is_answered_before_everything_else() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    server.say(TEST_REQUEST, TEST_REQUEST)
    methods = [json.loads(data)["method"] for data in server.venue.data_to_send()]
    assert methods[:2] == ["public/test", "public/test"]
    assert set(methods[2:]) == {"public/set_heartbeat", "public/get_instruments"}
    assert server.venue.counters["heartbeats_answered"] == 2


def test_a_refused_heartbeat_is_told_and_none_is_expected() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    requests = server.collect()
    server.error(requests[0]["id"], -32602, "Invalid params", {"reason": "value must be >= 10", "param": "interval"})
    server.held = requests[1:]
    server.serve()
    assert server.venue.is_ready
    assert any("value must be >= 10" in event.detail for event in server.health(Health.REFUSED))
    for _ in range(240):
        server.now += SECOND // 2
        server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000))
        server.venue.timer(server.now)
        server.serve()
    assert not server.health(Health.STALE)


# Clocks


@pytest.mark.parametrize("step", [-3600.0, -1.0, 6.0, 3600.0, 400 * 86400.0, -400 * 86400.0])
def test_a_clock_step_is_told_and_nothing_expires_or_goes_stale(step: float) -> None:
    server = ready()
    server.wait(3)
    server.events()
    before = int(server.venue.universe.active.sum())
    server.now += round(step * SECOND)
    server.venue.timer(server.now)
    (told,) = server.health()
    assert told.kind is Health.CLOCK_STEP
    assert f"{abs(step):.1f} s" in told.detail
    assert ("back" in told.detail) == (step < 0)
    assert [request["method"] for request in server.collect()] == ["public/test"], "the socket may be dead: ask"
    # From here the venue's own time goes on as it was, whatever the local clock says.
    offset = round(step * SECOND)
    for _ in range(120):
        server.now += SECOND // 2
        server.say(index_price("btc_usd", 76900.0, (server.now - offset) // 1_000_000), HEARTBEAT)
        server.venue.timer(server.now)
        server.serve()
    assert server.venue.failure is None
    assert int(server.venue.universe.active.sum()) == before
    assert not server.events()


def test_a_small_correction_of_the_clock_is_none() -> None:
    server = ready()
    for delta in (-0.09, 0.5, -0.05, 0.5):
        server.now += round(delta * SECOND)
        server.venue.timer(server.now)
    assert not server.events()


def test_after_a_suspension_a_dead_socket_is_noticed() -> None:
    server = ready()
    server.now += 3600 * SECOND
    server.venue.timer(server.now)
    assert [event.kind for event in server.health()] == [Health.CLOCK_STEP]
    let_pass(server, 10.5)
    assert "public/test was not answered" in (server.venue.failure or "")


def test_a_step_while_requests_are_pending_neither_expires_nor_forgets_them() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    server.collect()
    server.now -= 7200 * SECOND
    let_pass(server, 8)
    server.now += 7200 * SECOND
    let_pass(server, 1)
    assert not server.health(Health.NO_ACK)
    let_pass(server, 1.5)
    assert server.health(Health.NO_ACK)


def test_the_deadline_is_never_more_than_a_second_away() -> None:
    server = ready()
    for _ in range(100):
        deadline = server.venue.next_deadline
        assert deadline is not None
        assert server.now < deadline <= server.now + SECOND
        server.now = deadline
        server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000), HEARTBEAT)
        server.venue.timer(server.now)
    server.venue.disconnected(server.now, "closed")
    assert server.venue.next_deadline is None


def test_twenty_four_hours() -> None:
    """A day with its 08:00: dailies expire by state and by time, new ones list, and nothing else happens."""
    server = Server(Deribit(["BTC"]))
    tomorrow = [f"BTC-16JAN27-{strike}-{side}" for strike in range(70_000, 80_000, 1_000) for side in "CP"]
    after = [name.replace("16JAN27", "17JAN27") for name in tomorrow]
    server.listings[("BTC", "option")] += [option_row(name) for name in tomorrow if name not in BTC_OPTIONS]
    server.connect()
    server.events()
    started = time.perf_counter()
    server.wait(24 * 3600 - 10, step=1.0)
    assert not [event for event in server.events() if not isinstance(event, InstrumentEvent)]
    assert int(server.venue.universe.active.sum()) == len(server.venue.universe)
    # 08:00: the venue tells of half of what expires, and lists as much again.
    server.listings[("BTC", "option")] = [option_row(name) for name in (*BTC_OPTIONS[:3], *after)]
    server.wait(11, step=1.0)
    server.say(*(state_change(name, "delivered") for name in tomorrow[::2]))
    server.say(*(state_change(name, "open") for name in after))
    server.wait(120, step=1.0)
    events = server.events()
    changes = [event for event in events if isinstance(event, InstrumentEvent)]
    universe = server.venue.universe
    retired = {universe[row].symbol for event in changes for row in event.retired}
    assert retired == set(tomorrow) | {"BTC-16JAN27-75000-P"}
    assert {universe[row].symbol for event in changes for row in event.added} == set(after)
    assert len(events) == len(changes), "and nothing to worry about"
    asked = Counter(request["method"] for request in server.asked)
    assert asked["public/unsubscribe"] <= 2
    assert time.perf_counter() - started < 30
