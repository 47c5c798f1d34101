"""What goes wrong between Binance and a group of connections: silence, missing answers, limits."""

from __future__ import annotations

import json

import pytest

from tests.feeds.binance_frames import (
    BTC_OPTIONS,
    SECOND,
    XRP_OPTIONS,
    Desk,
    book_ticker,
    index,
    listing,
    mark_row,
    marks,
    ready,
)
from volsurf.feeds.protocol import Health


def test_a_first_message_is_due_within_five_seconds() -> None:
    """A stream on the wrong route is acknowledged and silent."""
    desk = ready(["BTC"])
    desk.wait(4.5, tell=False)
    assert desk.market.trouble == ""
    desk.wait(1.5, tell=False)
    said = "; ".join(event.detail for event in desk.health(Health.STALE))
    assert "btcusdt@optionMarkPrice silent for 6 s; it ticks every second on the route /market" in said
    assert "!index@arr" in desk.market.trouble
    desk.wait(12, tell=False)
    assert "not the route /market" in (desk.market.failure or "")


def test_one_chain_that_never_comes_is_trouble_and_no_reason_to_lose_the_others() -> None:
    desk = ready(["BTC", "XRP"], listed=[listing(name) for name in (*BTC_OPTIONS, *XRP_OPTIONS)])
    for _ in range(90):
        desk.wait(1, tell=False)
        time_ms = desk.now // 1_000_000
        desk.say(index(time_ms), marks(*(mark_row(name, time_ms) for name in BTC_OPTIONS)))
    assert desk.market.failure is None
    assert "xrpusdt@optionMarkPrice silent" in desk.market.trouble
    desk.say(marks(mark_row(XRP_OPTIONS[0], desk.now // 1_000_000), pair="XRPUSDT"))
    assert desk.market.trouble == ""
    assert desk.health(Health.RECOVERED)


def test_a_chain_that_used_to_come_and_stopped_costs_the_connection() -> None:
    desk = ready(["BTC"])
    desk.wait(5)
    for _ in range(70):
        desk.wait(1, tell=False)
        desk.say(index(desk.now // 1_000_000))
    assert desk.market.failure == "btcusdt@optionMarkPrice silent for 60 s on a connection that answers"


def test_a_link_that_does_not_answer_is_given_up() -> None:
    desk = ready(["BTC"])
    desk.wait(3)
    desk.wait(11, tell=False, serve=False)
    probes = [request for request in desk.sent[0] if request["method"] == "LIST_SUBSCRIPTIONS"]
    assert len(probes) == 1
    desk.wait(11, tell=False, serve=False)
    assert "LIST_SUBSCRIPTIONS was not answered within 10 s" in (desk.market.failure or "")


def test_a_quiet_public_connection_is_asked_whether_it_lives() -> None:
    desk = ready(["BTC"], listed=[listing(f"BTC-270326-{80_000 + 100 * i}-{k}") for i in range(30) for k in "CP"])
    desk.wait(4)
    assert desk.venues[1].trouble == ""
    desk.wait(3)
    assert "not one of 60 quotes changed" in desk.venues[1].trouble
    assert [request["method"] for request in desk.sent[1]].count("LIST_SUBSCRIPTIONS") == 1
    desk.say(book_ticker(str(desk.listed[30]["symbol"]), desk.now // 1_000_000), member=1)
    desk.wait(1)
    assert desk.venues[1].trouble == ""
    assert desk.health(Health.RECOVERED, member=1)
    desk.wait(50)
    assert desk.venues[1].trouble == ""
    desk.wait(15)
    assert "not one quote changed" in desk.venues[1].trouble
    desk.wait(70)
    assert "not one quote changed" in (desk.venues[1].failure or "")


def test_an_acknowledgement_that_does_not_come() -> None:
    desk = Desk(["BTC"], quotes="none")
    desk.market.connected(desk.now)
    desk.collect(0)
    for request in desk.take_held(0):
        desk.answer_page(0, request)
    desk.wait(10.5, tell=False, serve=False)
    assert [request["method"] for request in desk.sent[0]].count("SUBSCRIBE") == 2
    assert len(desk.health(Health.NO_ACK)) == 1
    assert not desk.market.is_ready
    desk.wait(10.5, tell=False, serve=False)
    assert desk.market.failure == "SUBSCRIBE was not answered within 10 s"


@pytest.mark.parametrize(
    ("status", "said", "pause"),
    [
        (429, b'{"code":-1003,"msg":"Too many requests; current limit is 2400."}', 60),
        (418, b'{"code":-1003,"msg":"Way too many requests; IP banned until 1800000300000."}', 300),
        (418, b"<html>teapot</html>", 120),
        (403, b"", 60),
    ],
)
def test_rest_limits_pause_everything(status: int, said: bytes, pause: int) -> None:
    desk = Desk(["BTC"])
    desk.status = (status, said)
    for venue in desk.venues:
        venue.connected(desk.now)
    desk.collect(0)
    for request in desk.take_held(0):
        desk.answer_page(0, request)
    assert desk.market.not_before == desk.now + pause * SECOND
    assert len(desk.health(Health.RATE_LIMITED)) == 2
    assert "admits no requests" in desk.market.trouble
    desk.status = None
    asked = len(desk.pages)
    desk.wait(min(19, pause) - 1, tell=False)
    assert len([p for p in desk.pages[asked:] if p.key == "listing"]) == 0
    desk.wait(pause + 2)
    assert desk.market.is_ready
    assert desk.market.trouble == ""


def test_pages_that_do_not_come_are_asked_for_again() -> None:
    desk = Desk(["BTC"], quotes="none")
    desk.status = (0, b"no route to host")
    desk.connect()
    desk.wait(4, tell=False)
    assert "listings cannot be read" in desk.market.trouble
    assert "no route to host" in desk.health(Health.NO_ACK)[0].detail
    assert 2 <= len(desk.pages) <= 4
    desk.status = (200, b'{"optionSymbols":')
    desk.wait(8, tell=False)
    assert desk.health(Health.MALFORMED)
    desk.status = (503, b"maintenance")
    desk.wait(20, tell=False)
    assert desk.health(Health.MAINTENANCE)
    desk.status = None
    desk.wait(40)
    assert desk.market.is_ready
    assert desk.market.trouble == ""


def test_another_connection_reads_the_listings_where_the_first_cannot() -> None:
    desk = Desk(["BTC"])
    desk.venues[1].connected(desk.now)
    desk.serve()
    desk.wait(1, tell=False)
    assert desk.venues[1].is_ready


def test_too_many_messages_is_a_pause_before_the_next_socket() -> None:
    desk = ready(["BTC"])
    desk.market.disconnected(desk.now, "closed by the venue with code 1008 Too many requests")
    assert desk.market.not_before == desk.now + 60 * SECOND
    assert desk.health(Health.RATE_LIMITED)
    desk = ready(["BTC"])
    desk.say(json.dumps({"error": {"code": -1003, "msg": "Too many requests"}, "id": 99}).encode())
    assert "Too many requests" in (desk.market.failure or "")
    assert desk.market.not_before == desk.now + 60 * SECOND
