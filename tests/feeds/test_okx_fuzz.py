"""No bytes whatever make the OKX protocol raise, and what it makes of them is sound."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies as st

from tests.feeds.fuzz import check, golden
from tests.feeds.okx_frames import COIN_OPTIONS, SECOND, START, Server, instrument_row, push, summary_row
from volsurf.feeds.okx import Okx
from volsurf.feeds.protocol import Health, HealthEvent

NAME = COIN_OPTIONS[0]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
ARGS = st.sampled_from(
    [
        {"channel": "bbo-tbt", "instId": NAME},
        {"channel": "books", "instId": NAME},
        {"channel": "opt-summary", "instFamily": "BTC-USD"},
        {"channel": "index-tickers", "instId": "BTC-USD"},
        {"channel": "option-trades", "instType": "OPTION", "instFamily": "BTC-USD"},
        {"channel": "instruments", "instType": "OPTION"},
        {"channel": ""},
    ]
)
TEXT = st.text(max_size=12) | st.floats(allow_nan=True).map(str) | st.integers().map(str)


@pytest.fixture(scope="module")
def server() -> Server:
    return Server(Okx(["BTC"], url="ws://okx.test", books=True, trades=True)).connect()


def feed(server: Server, *frames: bytes | str) -> None:
    """Give frames, and look at everything that comes out."""
    for frame in frames:
        server.venue.receive(frame, server.now)
    server.venue.timer(server.now)
    check(server.venue, server.venue.take_quotes(server.now))
    server.venue.events()
    server.collect()
    server.held.clear()
    server.unread.clear()
    if server.venue.failure is not None:
        server.venue.disconnected(server.now, "fuzz")
        server.connect()


@given(data=st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_and_any_text(server: Server, data: bytes | str) -> None:
    feed(server, data)


@given(body=st.dictionaries(st.sampled_from(["id", "event", "arg", "data", "action", "code", "msg", "x"]), JSON))
@settings(max_examples=30)
def test_any_json_object(server: Server, body: dict[str, object]) -> None:
    feed(server, json.dumps(body))


@given(arg=ARGS, data=JSON, action=st.sampled_from(["", "snapshot", "update"]))
@settings(max_examples=30)
def test_any_data_on_any_channel(server: Server, arg: dict[str, str], data: object, action: str) -> None:
    feed(server, push(arg, data), push(arg, [data], action=action))


@given(changes=st.dictionaries(st.sampled_from(sorted(summary_row(NAME))), TEXT, max_size=5))
@settings(max_examples=30)
def test_any_text_in_a_summary(server: Server, changes: dict[str, str]) -> None:
    feed(server, push({"channel": "opt-summary", "instFamily": "BTC-USD"}, [summary_row(NAME) | changes]))


@given(level=st.lists(TEXT | st.floats(allow_nan=False) | st.integers(), max_size=4), ts=TEXT)
@settings(max_examples=30)
def test_any_level(server: Server, level: list[object], ts: str) -> None:
    feed(
        server, push({"channel": "bbo-tbt", "instId": NAME}, [{"asks": [level], "bids": [level], "ts": ts, "seqId": 1}])
    )
    books = [{"asks": [level], "bids": [], "ts": ts, "seqId": 1, "prevSeqId": -1}]
    feed(server, push({"channel": "books", "instId": NAME}, books, action="snapshot"))


@given(changes=st.dictionaries(st.sampled_from(sorted(instrument_row(NAME))), TEXT | JSON, max_size=3))
@settings(max_examples=30)
def test_any_row_of_a_listing(changes: dict[str, object]) -> None:
    feed(
        Server(Okx(["BTC"], url="ws://okx.test")).connect(),
        push({"channel": "instruments", "instType": "OPTION"}, [instrument_row(NAME) | changes]),
    )


@given(status=st.sampled_from([0, 200, 200, 200, 404, 429, 500, 503]), body=st.binary(max_size=60) | JSON)
@settings(max_examples=30)
def test_any_answer_to_a_page(status: int, body: object) -> None:
    server = Server(Okx(["BTC"], url="ws://okx.test"))
    server.venue.connected(START)
    raw = body if isinstance(body, bytes) else json.dumps({"code": "0", "data": body}).encode()
    for _ in range(3):
        server.collect()
        for page in server.unread:
            server.venue.receive_http(page.key, status, raw, server.now)
        server.unread.clear()
        server.now += 4 * SECOND
        server.venue.timer(server.now)
    assert server.venue.take_quotes(server.now) is None


@given(cut=st.integers(0, 2000), which=st.integers(0, 10**6))
def test_every_message_cut_anywhere(server: Server, cut: int, which: int) -> None:
    frames = golden("okx")
    feed(server, frames[which % len(frames)][:cut])


def test_what_is_malformed_is_always_both_counted_and_told() -> None:
    server = Server(Okx(["BTC"], url="ws://okx.test")).connect()
    checked = 0
    for frame in golden("okx"):
        half = frame[: len(frame) // 2]
        if not frame.startswith(b"{") or half == frame or frame.startswith(b"{}"):
            continue
        server.now += 2 * SECOND
        server.venue.timer(server.now)
        server.venue.events()
        before = sum(count for name, count in server.venue.counters.items() if name.startswith("malformed."))
        # A quote of what is not followed, or of the channel not asked for, is never decoded.
        unknown = server.venue.counters["quote_unknown"]
        server.say(half)
        server.venue.take_quotes(server.now)
        after = sum(count for name, count in server.venue.counters.items() if name.startswith("malformed."))
        told = [e for e in server.venue.events() if isinstance(e, HealthEvent) and e.kind is Health.MALFORMED]
        if server.venue.counters["quote_unknown"] > unknown:
            continue
        assert after == before + 1, half
        assert len(told) == 1
        checked += 1
    assert checked > 80
