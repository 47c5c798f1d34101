"""No bytes whatever make the Bybit protocol raise, and what it makes of them is sound."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings, strategies as st

from tests.feeds.bybit_frames import BTC_USDT, Server, pushed, ticker, ticker_data
from tests.feeds.fuzz import check, golden
from volsurf.feeds.bybit import Bybit
from volsurf.feeds.protocol import Health, HealthEvent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
TOPICS = st.sampled_from(
    [f"tickers.{BTC_USDT[0]}", f"orderbook.25.{BTC_USDT[0]}", "publicTrade.BTC", "tickers.BTC", "kline.1.x", ""]
)
NUMBERS = tuple(ticker_data(""))[1:]


@pytest.fixture(scope="module")
def server() -> Server:
    return Server(Bybit(["BTC", "XRP"], books=True)).connect()


def feed(server: Server, *frames: bytes | str) -> None:
    """Give frames, and look at everything that comes out."""
    for frame in frames:
        server.venue.receive(frame, server.now)
    server.venue.timer(server.now)
    check(server.venue, server.venue.take_quotes(server.now))
    server.venue.events()
    server.collect()
    if server.venue.failure is not None:
        server.venue.disconnected(server.now, "fuzz")
        server.connect()


@given(data=st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_and_any_text(server: Server, data: bytes | str) -> None:
    feed(server, data)


@given(topic=TOPICS, data=JSON, kind=st.sampled_from(["snapshot", "delta", ""]), ts=st.integers(-(10**15), 10**15))
def test_any_data_on_a_real_topic(server: Server, topic: str, data: object, kind: str, ts: int) -> None:
    feed(server, pushed(topic, data, kind, ts))


@given(st.dictionaries(st.sampled_from(NUMBERS), JSON | st.floats().map(str) | st.integers().map(str), max_size=6))
def test_any_value_in_a_ticker_is_a_value_or_none(server: Server, values: dict[str, object]) -> None:
    server.now += 1_000_000
    server.venue.take_quotes(server.now)
    server.say(ticker(BTC_USDT[0], server.ms, **values))
    batch = server.venue.take_quotes(server.now)
    check(server.venue, batch)
    # Whatever stands for one number costs that number and nothing else: the row is there.
    assert batch is not None
    untouched = "askPrice" not in values and "askSize" not in values
    if untouched:
        assert batch.ask[0] == 2785.0
    price = values.get("bidPrice")
    if isinstance(price, str) and math.isfinite(number := _number(price)) and number > 0 and "bidSize" not in values:
        assert batch.bid[0] == number


def _number(text: str) -> float:
    try:
        return float(text) if text.isascii() and "_" not in text and text == text.strip() else math.nan
    except ValueError:
        return math.nan


@given(body=JSON, status=st.sampled_from([0, 200, 403, 500]))
@settings(max_examples=50)
def test_any_answer_to_a_real_request(body: object, status: int) -> None:
    server = Server(Bybit(["BTC"]))
    server.venue.connected(server.now)
    server.collect()
    server.http(server.requests.pop(), status, json.dumps(body).encode())
    server.venue.timer(server.now)
    server.idle(1)
    wrapped = {"retCode": 0, "result": {"list": body if isinstance(body, list) else [body], "nextPageCursor": ""}}
    server = Server(Bybit(["BTC"]))
    server.venue.connected(server.now)
    server.collect()
    server.http(server.requests.pop(), 200, json.dumps(wrapped).encode())
    assert len(server.venue.universe) == 0


@given(cut=st.integers(0, 1500), which=st.integers(0, 10**6))
def test_every_message_cut_anywhere(server: Server, cut: int, which: int) -> None:
    frames = golden("bybit")
    feed(server, frames[which % len(frames)][:cut])


def test_what_is_malformed_is_always_both_counted_and_told() -> None:
    server = Server(Bybit(["BTC"], books=True)).connect()
    venue = server.venue
    halves = 0
    for frame in golden("bybit"):
        half = frame[: len(frame) // 2]
        if not half.strip().startswith(b'{"') or (half.count(b"}") and frame.count(b'{"topic"') > 1):
            continue
        halves += 1
        server.now += 2_000_000_000
        venue.timer(server.now)
        venue.take_quotes(server.now)
        venue.events()
        before = sum(count for name, count in venue.counters.items() if name.startswith("malformed."))
        server.say(half)
        venue.take_quotes(server.now)
        after = sum(count for name, count in venue.counters.items() if name.startswith("malformed."))
        told = [e for e in venue.events() if isinstance(e, HealthEvent) and e.kind is Health.MALFORMED]
        assert (after, len(told)) == (before + 1, 1), half
    assert halves > 60
