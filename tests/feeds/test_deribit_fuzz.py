"""No bytes whatever make the protocol raise, and what it makes of them is sound."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from tests.feeds.deribit_frames import BTC_OPTIONS, START, Server, notification, ticker, ticker_data
from tests.feeds.fuzz import check, golden
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import Health, HealthEvent

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
CHANNELS = st.sampled_from(
    [
        f"ticker.{BTC_OPTIONS[0]}.100ms",
        f"book.{BTC_OPTIONS[0]}.100ms",
        "trades.option.BTC.100ms",
        "deribit_price_index.btc_usd",
        "markprice.options.btc_usd",
        "instrument.state.option.BTC",
        "platform_state",
        "",
    ]
)


@pytest.fixture(scope="module")
def server() -> Server:
    return Server(Deribit(["BTC", "SOL"], books=True, mark_prices=True)).connect()


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


@given(body=st.dictionaries(st.sampled_from(["id", "method", "params", "result", "error", "usOut", "x"]), JSON))
def test_any_json_object(server: Server, body: dict[str, object]) -> None:
    feed(server, json.dumps(body))


@given(channel=CHANNELS, data=JSON)
def test_any_data_on_any_channel(server: Server, channel: str, data: object) -> None:
    feed(server, notification(channel, data))


@given(changes=st.dictionaries(st.sampled_from(sorted(ticker_data("x"))), JSON, max_size=4))
def test_any_value_in_a_ticker(server: Server, changes: dict[str, object]) -> None:
    frame = ticker(BTC_OPTIONS[0], **changes)
    other_order = notification(f"ticker.{BTC_OPTIONS[0]}.100ms", ticker_data(BTC_OPTIONS[0], **changes))
    feed(server, frame, other_order)


@given(
    numbers=st.dictionaries(
        st.sampled_from(["best_bid_price", "best_ask_price", "best_bid_amount", "mark_price", "mark_iv", "last_price"]),
        st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none(),
    )
)
def test_any_number_in_a_ticker_is_a_value_or_none(server: Server, numbers: dict[str, float | None]) -> None:
    server.venue.take_quotes(server.now)
    before = server.venue.counters.total()
    server.venue.receive(ticker("BTC-PERPETUAL", **numbers), server.now)
    batch = server.venue.take_quotes(server.now)
    check(server.venue, batch)
    # Every finite number decodes: what cannot be a price is no price, and the rest of the message is still taken.
    huge = any(isinstance(value, int) and abs(value) > 10**300 for value in numbers.values())
    assert huge or (batch is not None and server.venue.counters.total() == before + 1)


@given(body=st.lists(JSON, max_size=5) | JSON)
@settings(max_examples=50)
def test_any_answer_to_a_real_request(body: object) -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    for request in server.collect():
        server.reply(request["id"], body)
    server.venue.timer(server.now)
    server.collect()
    assert server.venue.universe is not None
    server.held.clear()
    for request in server.asked[3:]:
        server.reply(request["id"], body)
    server.venue.timer(server.now)


@given(cut=st.integers(0, 2000), which=st.integers(0, 10**6))
def test_every_message_cut_anywhere(server: Server, cut: int, which: int) -> None:
    frames = golden("deribit")
    frame = frames[which % len(frames)]
    feed(server, frame[:cut])


def test_what_is_malformed_is_always_both_counted_and_told() -> None:
    server = Server(Deribit(["BTC"])).connect()
    for frame in golden("deribit"):
        half = frame[: len(frame) // 2]
        try:
            json.loads(half)
        except ValueError:
            pass
        else:
            continue  # two messages in one: its half is whole
        server.events()
        server.now += 2_000_000_000
        server.venue.timer(server.now)
        server.venue.events()
        before = sum(count for name, count in server.venue.counters.items() if name.startswith("malformed."))
        server.say(half)
        server.venue.take_quotes(server.now)
        after = sum(count for name, count in server.venue.counters.items() if name.startswith("malformed."))
        told = [e for e in server.venue.events() if isinstance(e, HealthEvent) and e.kind is Health.MALFORMED]
        assert after == before + 1, half
        assert len(told) == 1
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(golden("deribit")[0][:50])
