"""What the simulated OKX answers: every rule of the protocol that a client has to live with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.conftest import shared_path
from tests.sim.okx_venue import Client, exchange, of_channel
from tests.sim.venue import JUST_BEFORE_EIGHT, SECOND, START, TICK
from volsurf.instruments import Kind
from volsurf.sim.okx import MOST_BYTES, MOST_OPERATIONS, OkxExchange

NAME = re.compile(r"(?P<base>[A-Z]+)-(?P<q>USD|USD_UM|USDC|USDT)-(?P<yymmdd>\d{6})-(?P<k>\d+(?:\.\d+)?)-(?P<cp>[CP])")
INSTRUMENTS = "/api/v5/public/instruments"
BANDS = "/api/v5/public/instrument-tick-bands"


@pytest.fixture(scope="module")
def standing() -> Client:
    """Takes a fifth of a second to make; its clock is where the last test left it."""
    return Client(exchange(connections_per_second=10_000))


@pytest.fixture
def client(standing: Client) -> Iterator[Client]:
    fresh = Client(standing.exchange, standing.now)
    yield fresh
    fresh.session.closed()
    standing.exchange.end_maintenance()
    standing.now = fresh.now


def options(client: Client, family: str = "") -> list[str]:
    rows = client.page(INSTRUMENTS, instType="OPTION", uly="BTC-USD")["data"]
    return [row["instId"] for row in rows if family in ("", row["instFamily"])]


# Pages


def test_both_families_are_listed_under_one_underlying(client: Client) -> None:
    rows = client.page(INSTRUMENTS, instType="OPTION", uly="BTC-USD")["data"]
    families = {row["instFamily"] for row in rows}
    assert families == {"BTC-USD", "BTC-USD_UM"}
    for row in rows:
        match = NAME.fullmatch(row["instId"])
        assert match is not None, row["instId"]
        assert row["stk"] == match["k"]
        assert row["optType"] == match["cp"]
        assert row["instFamily"] == f"{match['base']}-{match['q']}"
        assert (row["ctVal"], row["ctMult"], row["ctValCcy"]) == ("1", "0.01", "BTC")
        assert row["settleCcy"] == ("BTC" if match["q"] == "USD" else "USD")
        assert all(isinstance(value, str) for key, value in row.items() if key not in _NOT_TEXT)
    one = client.page(INSTRUMENTS, instType="OPTION", instFamily="BTC-USD_UM")["data"]
    assert [row["instId"] for row in one] == options(client, "BTC-USD_UM")


_NOT_TEXT = ("instIdCode", "futureSettlement", "tradeQuoteCcyList", "upcChg")


def test_rows_have_the_keys_and_types_of_the_captured_listing(client: Client) -> None:
    path = shared_path("venues", "fixtures", "okx", "okxapi_instruments_option_BTC-USD.json")
    captured = {row["instFamily"]: row for row in json.loads(path.read_text("utf-8-sig"))["data"]}
    for row in client.page(INSTRUMENTS, instType="OPTION", uly="BTC-USD")["data"]:
        real = captured[row["instFamily"]]
        assert {key: type(value) for key, value in row.items()} == {key: type(value) for key, value in real.items()}
        same = ("ctType", "ctVal", "ctMult", "ctValCcy", "settleCcy", "uly", "tickSz", "lotSz", "minSz", "state")
        assert {key: row[key] for key in same} == {key: real[key] for key in same}


def test_futures_and_swaps(client: Client) -> None:
    futures = client.page(INSTRUMENTS, instType="FUTURES", uly="BTC-USD")["data"]
    (swap,) = client.page(INSTRUMENTS, instType="SWAP", uly="BTC-USD")["data"]
    assert len(futures) > 3
    assert swap["instId"] == "BTC-USD-SWAP"
    assert swap["expTime"] == ""
    assert all((row["ctVal"], row["ctValCcy"]) == ("100", "USD") for row in (*futures, swap))


def test_tick_bands_have_the_venues_own_slip(client: Client) -> None:
    rows = {row["instFamily"]: row["tickBand"] for row in client.page(BANDS, instType="OPTION")["data"]}
    path = shared_path("venues", "fixtures", "okx", "okxapi_option_tick_bands.json")
    captured = {row["instFamily"]: row["tickBand"] for row in json.loads(path.read_text("utf-8-sig"))["data"]}
    for family, band in rows.items():
        assert band == captured[family]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"instType": "OPTION"},
        {"instType": "BOND", "uly": "BTC-USD"},
        {"instType": "OPTION", "uly": "DOGE-USD"},
        {"instType": "OPTION", "instFamily": "BTC-USDC"},
    ],
)
def test_pages_that_are_refused(client: Client, query: dict[str, str]) -> None:
    page = client.page(INSTRUMENTS, **query)
    assert page["code"] == "51000"
    assert page["data"] == []
    assert "Parameter" in page["msg"]


def test_other_pages(client: Client) -> None:
    assert client.page("/api/v5/public/time")["data"] == [{"ts": str((START + client.now) // 10**6)}]
    assert client.page("/api/v5/public/opt-summary", instFamily="BTC-USD_UM")["data"][0]["instType"] == "OPTION"
    assert client.page("/api/v5/public/nothing")["code"] == "404"
    assert "slices" in client.page("/truth", underlying="BTC")["underlyings"]["BTC"]
    assert client.exchange.http("/nowhere", {}, 0) is None


# Requests


def test_every_channel_is_acknowledged_by_itself_and_then_speaks(client: Client) -> None:
    name = options(client)[0]
    args = [{"channel": "bbo-tbt", "instId": name}, {"channel": "index-tickers", "instId": "BTC-USD"}]
    first, second, *pushed = client.ask("subscribe", *args)
    for answer, arg in ((first, args[0]), (second, args[1])):
        assert answer["event"] == "subscribe"
        assert answer["arg"] == arg
        assert answer["id"] == "1"
        assert answer["connId"]
    assert [push["arg"] for push in pushed] == args
    (left,) = client.ask("unsubscribe", args[1])
    assert left["event"] == "unsubscribe"
    assert not of_channel(client.run(20), "index-tickers")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "60012"),
        (b"\xff\xfe", "60012"),
        ("[]", "60012"),
        ('{"id":"with a space","op":"subscribe","args":[]}', "60012"),
        ('{"id":"' + "a" * 33 + '","op":"subscribe","args":[]}', "60012"),
        ('{"id":7,"op":"subscribe","args":[]}', "60012"),
        ('{"op":"sing","args":[]}', "60019"),
        ('{"op":"login","args":[]}', "60011"),
        ('{"op":"subscribe"}', "60013"),
        ('{"op":"subscribe","args":[]}', "60013"),
        ('{"op":"subscribe","args":["tickers"]}', "60013"),
        ('{"op":"subscribe","args":[{"channel":"nothing","instId":"BTC-USD"}]}', "60018"),
        ('{"op":"subscribe","args":[{"channel":"tickers","instId":"BTC-USD-200101-1-C"}]}', "60018"),
        ('{"op":"subscribe","args":[{"channel":"tickers","instId":5}]}', "60018"),
        ('{"op":"subscribe","args":[{"channel":"index-tickers","instId":"DOGE-USD"}]}', "60018"),
        ('{"op":"subscribe","args":[{"channel":"opt-summary","instFamily":"BTC-USDC"}]}', "60018"),
        ('{"op":"subscribe","args":[{"channel":"option-trades","instFamily":"BTC-USD"}]}', "60018"),
        ('{"op":"subscribe","args":[{"channel":"books-l2-tbt","instId":"BTC-USD-SWAP"}]}', "64003"),
    ],
)
def test_errors(client: Client, text: str | bytes, code: str) -> None:
    (answer,) = client.say(text)
    assert (answer["event"], answer["code"]) == ("error", code)
    assert answer["msg"]
    assert answer["connId"]
    assert client.session.closing is None


def test_one_bad_channel_and_its_neighbours() -> None:
    for all_or_nothing in (False, True):
        client = Client(exchange(all_or_nothing=all_or_nothing))
        good, bad = {"channel": "bbo-tbt", "instId": options(client)[0]}, {"channel": "bbo-tbt", "instId": "X"}
        answers = client.ask("subscribe", good, bad)
        assert [a["event"] for a in answers if "event" in a] == ["error"] if all_or_nothing else ["subscribe", "error"]
        assert "channel:bbo-tbt,instId:X doesn't exist" in answers[0 if all_or_nothing else 1]["msg"]
        assert len(client.session.channels) == (0 if all_or_nothing else 1)


def test_sixty_four_kilobytes_a_request(client: Client) -> None:
    arg = {"channel": "bbo-tbt", "instId": options(client)[0]}
    size = len(json.dumps(arg, separators=(",", ":"))) + 1
    fits = MOST_BYTES // size
    assert client.ask("subscribe", *[arg] * (fits - 1))[0]["event"] == "subscribe"
    (answer,) = client.ask("subscribe", *[arg] * (fits + 2))
    assert (answer["code"], "64 KB" in answer["msg"]) == ("60012", True)


def test_four_hundred_and_eighty_requests_an_hour(client: Client) -> None:
    arg = {"channel": "index-tickers", "instId": "BTC-USD"}
    for _ in range(MOST_OPERATIONS // 2):
        assert client.ask("subscribe", arg)[0]["event"] == "subscribe"
        assert client.ask("unsubscribe", arg)[0]["event"] == "unsubscribe"
    (answer,) = client.ask("subscribe", arg)
    assert (answer["code"], answer["msg"]) == ("60014", "Requests too frequent")
    assert client.say("ping") == [{"pong": True}], "pings are no operations"
    client.now += 3600 * SECOND
    assert client.ask("subscribe", arg)[0]["event"] == "subscribe"


def test_three_connections_a_second() -> None:
    venue = exchange()
    sessions = [venue.open_session(0) for _ in range(4)]
    assert [session.closing is None for session in sessions] == [True, True, True, False]
    assert venue.open_session(SECOND).closing is None


def test_refusals_on_demand(client: Client) -> None:
    arg = {"channel": "index-tickers", "instId": "BTC-USD"}
    client.session.refuse_next("subscribe")
    client.session.refuse_next("rate_limit")
    assert client.ask("subscribe", arg)[0]["code"] == "60014"
    refused = client.ask("subscribe", arg)[0]
    assert (refused["code"], "index-tickers" in refused["msg"]) == ("60012", True)
    assert client.ask("subscribe", arg)[0]["event"] == "subscribe"


# Heartbeats and ends


def wait(client: Client, seconds: int) -> None:
    """Let time pass for one session, without the market."""
    for _ in range(seconds):
        client.now += SECOND
        client.session.timer(client.now)


def test_a_connection_over_which_nothing_goes_is_cut(client: Client) -> None:
    wait(client, 30)
    assert client.session.closing is None
    assert client.say("ping") == [{"pong": True}]
    wait(client, 30)
    assert client.session.closing is None
    wait(client, 2)
    assert client.session.closing == (4004, "No data received in 30s")
    assert client.exchange.counters["heartbeats_missed"] == 1
    assert client.exchange.counters["heartbeats_answered"] >= 1
    assert client.say("ping") == []


def test_data_keep_a_connection(client: Client) -> None:
    client.subscribe("index-tickers", instId="BTC-USD")
    client.run(40, SECOND)
    assert client.session.closing is None


def test_an_upgrade_is_announced_and_then_cuts_those_who_were_there() -> None:
    venue = exchange()
    client = Client(venue)
    client.subscribe("index-tickers", instId="BTC-USD")
    venue.announce_upgrade(client.now)
    (notice,) = client.read()
    assert (notice["event"], notice["code"]) == ("notice", "64008")
    later = venue.open_session(client.now)
    client.run(59, SECOND)
    assert client.session.closing is None
    client.run(2, SECOND)
    assert client.session.closing is not None
    later.timer(client.now)
    assert later.closing != client.session.closing


def test_maintenance_says_so_before(client: Client) -> None:
    client.exchange.begin_maintenance(client.now, 60)
    assert client.read()[0]["code"] == "64008"
    assert client.exchange.in_maintenance(client.now + 59 * SECOND)
    client.session.timer(client.now)
    assert client.session.closing is not None


def test_a_client_that_leaves_leaves_nothing(client: Client) -> None:
    client.subscribe("bbo-tbt", instId=options(client)[0])
    client.session.closed()
    assert not client.exchange.table.feeds
    assert client.session not in client.exchange.sessions
    client.run(3)


# What lists and ends


def test_expiry_and_new_listings_at_eight() -> None:
    client = Client(exchange(start=JUST_BEFORE_EIGHT))
    expiring = [name for name in options(client) if "-261127-" in name]
    assert len(expiring) > 10
    client.subscribe("instruments", instType="OPTION")
    client.subscribe("bbo-tbt", instId=expiring[0])
    said = client.run(25)
    rows = [row for push in of_channel(said, "instruments") for row in push["data"]]
    states = {
        state: {row["instId"] for row in rows if row["state"] == state} for state in ("expired", "preopen", "live")
    }
    assert states["expired"] == set(expiring)
    assert states["preopen"]
    assert states["preopen"] == states["live"], "live a second after their listing"
    order = [row["state"] for row in rows if row["instId"] in states["live"]]
    assert order.index("live") > order.index("preopen")
    assert not client.session.channels[1:], "the expired one's channel is gone without a word"
    assert not set(options(client)) & set(expiring)


def test_an_expiry_vanishes_without_a_word() -> None:
    client = Client(exchange())
    client.subscribe("instruments", instType="OPTION")
    client.subscribe("opt-summary", instFamily="BTC-USD")
    name = options(client, "BTC-USD")[0]
    client.subscribe("bbo-tbt", instId=name)
    row = client.exchange.listing.row_of[name]
    expiry = int(client.exchange.listing.universe.expiry_ns[row])
    gone = client.exchange.vanish("BTC", expiry)
    said = client.run(20)
    assert not of_channel(said, "instruments")
    assert not of_channel(said, "bbo-tbt")
    told = {line["instId"] for push in of_channel(said, "opt-summary") for line in push["data"]}
    names = {client.exchange.listing.names[one] for one in gone}
    assert told
    assert not told & names
    assert not set(options(client)) & names


def test_suspension() -> None:
    client = Client(exchange())
    client.subscribe("instruments", instType="OPTION")
    row = client.exchange.listing.row_of[options(client)[0]]
    client.exchange.suspend([row])
    client.exchange.suspend([row], False)
    states = [push["data"][0]["state"] for push in client.read()]
    assert states == ["suspend", "live"]


# Bursts


def test_bursts_are_distinct_and_stamped_live() -> None:
    venue: OkxExchange = exchange(bursting=True)
    client = Client(venue)
    names = options(client, "BTC-USD")[:40]
    client.ask("subscribe", *[{"channel": "bbo-tbt", "instId": name} for name in names])
    client.now += TICK
    venue.advance(client.now)
    client.session.data_to_send()
    assert client.session.burst_bytes > 100
    seen: set[bytes] = set()
    for _ in range(10):
        data, count = client.session.burst(40, client.now + 5_000_000)
        assert count == 40
        frames = [part for part in re.split(rb'(?=\{"arg")', data) if part.startswith(b'{"arg"')]
        for frame in frames:
            message = json.loads(frame[: frame.rindex(b"}") + 1])
            assert message["arg"]["channel"] == "bbo-tbt"
            assert message["data"][0]["ts"] == str((START + client.now) // 10**6 + 5)
        seen.update(frames)
    assert len(seen) > 300, "sizes differ from round to round"
    assert Kind.OPTION in venue.listing.universe.kind
