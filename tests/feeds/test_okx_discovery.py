"""Listing over HTTP, and the subscriptions that follow from it."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.feeds.okx_frames import (
    COIN_OPTIONS,
    DOLLAR_OPTIONS,
    FUTURES,
    OTHERS,
    SECOND,
    START,
    START_MS,
    Server,
    index,
    instrument_row,
    instruments,
    let_pass,
    ready,
    standard_rows,
)
from volsurf.errors import ConfigError
from volsurf.feeds._okx_channels import MOST_BYTES
from volsurf.feeds.okx import DEMO, PRODUCTION, Okx, make, rest_base
from volsurf.feeds.protocol import Health, InstrumentEvent
from volsurf.instruments import Kind

URL = "ws://okx.test/ws/v5/public"


def server(*underlyings: str, **options: object) -> Server:
    return Server(Okx(underlyings or ("BTC",), url=URL, **options))  # type: ignore[arg-type]


def queries(of: Server) -> list[dict[str, str]]:
    return [dict(parse_qsl(urlsplit(page.url).query)) for page in of.pages]


def subscribed(of: Server) -> list[dict[str, str]]:
    return [arg for request in of.asked if request["op"] == "subscribe" for arg in request["args"]]


def test_the_first_words_of_a_connection() -> None:
    one = server()
    one.venue.connected(START)
    one.collect()
    # Listings are followed before they are read: what lists in between is missed by neither.
    assert subscribed(one) == [{"channel": "instruments", "instType": kind} for kind in ("OPTION", "FUTURES", "SWAP")]
    assert [page.url for page in one.pages] == [
        "http://okx.test/api/v5/public/instrument-tick-bands?instType=OPTION",
    ]
    one.answer_page(one.unread.pop())
    one.collect()
    assert queries(one)[1:] == [{"instType": kind, "uly": "BTC-USD"} for kind in ("OPTION", "FUTURES", "SWAP")]
    assert not one.venue.is_ready
    one.serve()
    assert one.venue.is_ready


def test_ready_means_every_family_with_its_futures_and_index() -> None:
    one = server(trades=True, books=True).connect()
    venue = one.venue
    listed = {venue.universe[row].symbol for row in range(len(venue.universe))}
    assert listed == {*COIN_OPTIONS, *DOLLAR_OPTIONS, *FUTURES, "BTC-USD"}
    assert venue.universe[("okx", "BTC-USD")].kind is Kind.INDEX
    wanted = [{"channel": channel, "instId": name} for name in listed - {"BTC-USD"} for channel in ("bbo-tbt", "books")]
    wanted += [{"channel": "index-tickers", "instId": "BTC-USD"}]
    for family in ("BTC-USD", "BTC-USD_UM"):
        wanted += [
            {"channel": "opt-summary", "instFamily": family},
            {"channel": "option-trades", "instType": "OPTION", "instFamily": family},
        ]
    got = subscribed(one)[3:]
    assert sorted(map(str, got)) == sorted(map(str, wanted))
    assert [e.kind for e in one.health()] == [Health.CONNECTED, Health.READY]
    assert venue.universe[("okx", DOLLAR_OPTIONS[0])].tick_steps == ((5.0, 5.0),)


@pytest.mark.parametrize(
    ("underlying", "expected"), [("BTC_USD", COIN_OPTIONS), ("BTC_USD_UM", DOLLAR_OPTIONS), ("ETH", OTHERS)]
)
def test_one_family(underlying: str, expected: tuple[str, ...]) -> None:
    one = server(underlying).connect()
    options = {one.venue.universe[int(i)].symbol for i in one.venue.universe.options()}
    assert options == set(expected)
    family = expected[0].rsplit("-", 3)[0]
    followed = {arg["instFamily"] for arg in subscribed(one) if "instFamily" in arg}
    assert followed == {family}


def test_families_under_another_index_are_found_by_their_ticks() -> None:
    name = "BTC-USDC-270326-80000-C"
    row = instrument_row(name, settleCcy="USDC")
    band = {"instFamily": "BTC-USDC", "tickBand": [{"minPx": "0", "maxPx": "9", "tickSz": "1"}]}
    one = Server(Okx(["BTC"], url=URL), [*standard_rows(), row], [band]).connect()
    assert {"instType": "OPTION", "uly": "BTC-USDC"} in queries(one)
    found = one.venue.universe[("okx", name)]
    assert (found.quote_currency, found.price_index) == ("USDC", "BTC-USDC")


def test_an_underlying_that_is_not_listed_is_told_with_what_there_is() -> None:
    one = server("BTC", "DOGE").connect()
    assert one.venue.is_ready
    (refused,) = one.health(Health.REFUSED)
    assert "no options of DOGE" in refused.detail
    assert "BTC_USD, BTC_USD_UM, ETH_USD" in refused.detail
    assert one.venue.fatal is None


def test_nothing_that_was_asked_for_is_fatal_and_names_what_there_is() -> None:
    one = server("DOGE").connect()
    assert one.venue.fatal is not None
    assert "BTC_USD_UM" in one.venue.fatal
    assert "nothing that was asked for" in (one.venue.failure or "")
    empty = Server(Okx(["BTC"], url=URL), [], []).connect()
    assert empty.venue.fatal is None, "a venue that lists nothing at all may do so later"
    assert empty.venue.failure is not None


def test_shards_divide_the_instruments_and_share_the_index() -> None:
    names: list[set[str]] = []
    for venue in make(["BTC"], url=URL, shards=3):
        assert isinstance(venue, Okx)
        one = Server(venue).connect()
        one.wait(2)  # each may use a third of the address's limit
        assert venue.is_ready
        names.append({arg["instId"] for arg in subscribed(one) if arg["channel"] == "bbo-tbt"})
    assert sum(map(len, names)) == 9
    assert set.union(*names) == {*COIN_OPTIONS, *DOLLAR_OPTIONS, *FUTURES}


def test_requests_stay_below_the_length_the_venue_takes() -> None:
    rows = [instrument_row(f"BTC-USD-270326-{strike}-{side}") for strike in range(20_000, 90_000, 50) for side in "CP"]
    one = Server(Okx(["BTC"], url=URL), rows).connect()
    assert one.venue.is_ready
    sizes = [len(json.dumps(request["args"], separators=(",", ":"))) for request in one.asked]
    assert max(sizes) <= MOST_BYTES < 65_536
    assert sum(len(request["args"]) for request in one.asked) == 3 + 2800 + 2
    assert len(one.asked) == 4, "full requests: 480 an hour is all there is"


def test_addresses() -> None:
    assert rest_base(PRODUCTION) == rest_base(DEMO) == "https://www.okx.com"
    assert rest_base("ws://127.0.0.1:8801/ws/v5/public") == "http://127.0.0.1:8801"
    assert rest_base("wss://mirror.example/ws") == "https://mirror.example"


@pytest.mark.parametrize(("url", "headers"), [(DEMO, (("x-simulated-trading", "1"),)), (PRODUCTION, ())])
def test_the_demo_has_a_listing_of_its_own(url: str, headers: tuple[tuple[str, str], ...]) -> None:
    venue = Okx(["BTC"], url=url)
    venue.connected(1_790_000_000_000_000_000)
    requests = venue.http_requests()
    assert requests
    assert {request.headers for request in requests} == {headers}
    one = Okx(["BTC"], url=URL, rest_url="https://eea.okx.com/")
    one.connected(START)
    assert one.http_requests()[0].url.startswith("https://eea.okx.com/api/v5/public/")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"underlyings": []}, "at least one underlying"),
        ({"underlyings": ["BTC!"]}, "coin such as 'BTC'"),
        ({"shard": (1, 1)}, "shard must be"),
        ({"quotes": "books"}, "'bbo-tbt' or 'tickers'"),
        ({"book_channel": "books50-l2-tbt"}, "'books' or 'books5'"),
    ],
)
def test_arguments_it_cannot_mean(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Okx(**arguments)  # type: ignore[arg-type]


def test_make() -> None:
    venues = make("BTC", shards=2, books=True)
    assert [venue.url for venue in venues] == [PRODUCTION] * 2
    with pytest.raises(ConfigError, match=r"no such option.*interval"):
        make(["BTC"], interval="raw")
    with pytest.raises(ConfigError, match="at least one connection"):
        make(["BTC"], shards=0)


# Pages that do not answer as they should


def fail_page(one: Server, status: int, body: bytes) -> None:
    one.collect()
    page = one.unread.pop(0)
    one.venue.receive_http(page.key, status, body, one.now)


def test_a_page_that_fails_is_asked_for_three_times() -> None:
    one = server()
    one.venue.connected(START)
    one.collect()
    one.answer_page(one.unread.pop(0))
    for attempt in range(3):
        assert one.venue.failure is None
        one.collect()
        for _ in range(3):
            fail_page(one, 0, b"connection refused")
        one.wait(2.1 * (attempt + 1), serve=False, tell=())
    assert "nothing: connection refused" in (one.venue.failure or "")
    assert one.venue.counters["http_errors.0"] == 9
    one.venue.disconnected(one.now, "failed")
    one.held.clear()
    one.unread.clear()
    one.connect()
    assert one.venue.is_ready


def test_maintenance_and_rate_limits_of_pages_say_so() -> None:
    one = server()
    one.venue.connected(START)
    fail_page(one, 503, b'{"code":"50001","data":[],"msg":"Service temporarily unavailable"}')
    (event,) = one.health(Health.MAINTENANCE)
    assert "50001: Service temporarily unavailable" in event.detail
    one.wait(2.1, serve=False, tell=())
    fail_page(one, 429, b'{"code":"50011","data":[],"msg":"Too Many Requests"}')
    assert len(one.health(Health.RATE_LIMITED)) == 1
    assert one.venue.not_before == one.now + 3 * SECOND
    one.wait(3.1, serve=False, tell=())
    one.serve()
    assert one.venue.is_ready


def test_without_ticks_there_is_still_the_lowest() -> None:
    one = server()
    one.venue.connected(START)
    fail_page(one, 200, b'{"code":"51000","data":[],"msg":"Parameter instType error"}')
    assert "51000" in one.health(Health.REFUSED)[0].detail
    one.serve()
    assert one.venue.is_ready
    found = one.venue.universe[("okx", COIN_OPTIONS[0])]
    assert (found.tick_size, found.tick_steps) == (0.0001, ())


def test_an_underlying_the_venue_does_not_know_is_not_listed() -> None:
    one = server("BTC", "DOGE")
    one.venue.connected(START)
    one.collect()
    one.answer_page(one.unread.pop(0))
    one.collect()
    for page in one.unread:
        if "DOGE" in page.url:
            body = b'{"code":"51000","data":[],"msg":"Parameter uly error"}'
            one.venue.receive_http(page.key, 200, body, one.now)
        else:
            one.answer_page(page)
    one.unread.clear()
    one.serve()
    assert one.venue.is_ready
    assert any("no options of DOGE" in event.detail for event in one.health(Health.REFUSED))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{", b'{"code":"0"', b'{"code":"0","data":5}', b'{"code":"0","data":{"a":1}}', b"[]"]
)
def test_pages_that_are_no_pages_are_asked_for_again(body: bytes) -> None:
    one = server()
    one.venue.connected(START)
    fail_page(one, 200, body)
    assert one.venue.failure is None
    one.wait(2.1, serve=True, tell=())
    assert one.venue.is_ready


def test_a_page_without_an_answer() -> None:
    one = server()
    one.venue.connected(START)
    one.collect()
    let_pass(one, 15.1)
    assert one.health(Health.NO_ACK)
    assert len(one.pages) == 2
    # The late answer to the first asking harms nothing.
    one.answer_page(one.pages[0])
    assert one.venue.counters["replies_unclaimed"] == 1


def test_an_answer_after_the_socket_closed_reaches_nobody() -> None:
    one = server()
    one.venue.connected(START)
    one.collect()
    one.venue.disconnected(one.now, "cut")
    one.answer_page(one.unread.pop())
    assert not one.venue.http_requests()
    assert len(one.venue.universe) == 0


# What lists and ends later


def test_what_is_pushed_during_discovery_counts_after_it() -> None:
    one = server()
    one.venue.connected(START)
    late = instrument_row("BTC-USD-270129-90000-C")
    one.say(instruments(late, instrument_row(COIN_OPTIONS[3], state="expired")))
    assert len(one.venue.universe) == 0
    one.serve()
    names = {one.venue.universe[int(i)].symbol for i in one.venue.universe.options()}
    assert late["instId"] in names, "although the page that was read is older"
    assert COIN_OPTIONS[3] not in names


def test_an_announced_option_that_nobody_says_is_live_is_looked_up() -> None:
    one = ready("BTC")
    name = "BTC-USD-270129-90000-C"
    opens = START_MS + 5000
    one.say(instruments(instrument_row(name, state="preopen", listTime=str(opens))))
    one.wait(12)
    assert len(one.pages) == 4, "nothing is asked before it must have opened"
    one.rows.append(instrument_row(name))
    one.wait(5)
    assert len(one.pages) == 5
    assert one.venue.universe.find("okx", name) is not None
    assert any(isinstance(e, InstrumentEvent) and e.added for e in one.events())


def test_an_option_that_never_opens_is_given_up() -> None:
    one = ready("BTC")
    one.say(instruments(instrument_row("BTC-USD-270129-90000-C", state="preopen", listTime=str(START_MS))))
    one.wait(300, step=1.0)
    assert len(one.pages) == 4 + 5
    assert any("never opened" in event.detail for event in one.health(Health.REFUSED))


def test_a_reconnect_reads_the_listing_again_and_lets_go_of_what_has_ended() -> None:
    one = ready("BTC")
    one.venue.disconnected(one.now, "cut")
    one.rows = [row for row in one.rows if row["instId"] != COIN_OPTIONS[3]]
    one.connect()
    assert one.venue.is_ready
    retired = [e.retired for e in one.events() if isinstance(e, InstrumentEvent) and e.retired]
    assert [[one.venue.universe[row].symbol for row in rows] for rows in retired] == [[COIN_OPTIONS[3]]]
    names = {arg.get("instId") for arg in one.asked[-1]["args"]}
    assert COIN_OPTIONS[3] not in names
    assert COIN_OPTIONS[0] in names


def test_both_clocks_must_agree_before_an_expiry_is_believed() -> None:
    one = ready("BTC")
    day = 86_400 * SECOND
    row = one.venue.universe.find("okx", COIN_OPTIONS[3])
    assert row is not None
    # The venue says a year later, this machine does not.
    one.say(index("BTC-USD", 76900, START_MS + 365 * 86_400_000))
    one.venue.timer(one.now)
    assert one.venue.universe.active[row]
    # This machine a day later, the venue does not.
    one.say(index("BTC-USD", 76900, START_MS))
    one.now += day + 31 * SECOND
    one.venue.timer(one.now)
    assert one.venue.universe.active[row]
    # Both, and the grace of 30 s is over.
    one.say(index("BTC-USD", 76900, START_MS + 86_400_000 + 31_000))
    one.venue.timer(one.now)
    assert not one.venue.universe.active[row]
    assert one.venue.universe.active.sum() == 9
