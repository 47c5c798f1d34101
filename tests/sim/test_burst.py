"""Bursts: whole frames, valid JSON, live stamps, no two alike."""

from __future__ import annotations

import json
import re

import pytest

from tests.sim.venue import Client, exchange
from volsurf.sim.burst import BurstBuffer, Stampable, stampable
from volsurf.sim.exchange import BURST_BYTES, text_frame


def payloads(data: bytes) -> list[bytes]:
    """The payloads of unmasked text frames laid end to end; fails where they are not."""
    out, at = [], 0
    while at < len(data):
        assert data[at] == 0x81
        size, head = data[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4]), 4
        elif size == 127:
            size, head = int.from_bytes(data[at + 2 : at + 10]), 10
        out.append(data[at + head : at + head + size])
        assert len(out[-1]) == size
        at += head + size
    return out


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_frames_of_every_length(size: int) -> None:
    assert payloads(text_frame(b"x" * size) * 2) == [b"x" * size] * 2


def message(number: int, size: int = 0) -> Stampable:
    body = b'{"n":%d,"t":1000000000000,"pad":"%s","a":5.5}' % (number, b"." * size)
    return stampable(text_frame(body), b'"t":', re.compile(rb'"a":([1-9])'))


def test_only_the_live_digits_change() -> None:
    buffer = BurstBuffer(1)
    buffer.load([message(n, size=n * 40) for n in range(5)])
    data, count = buffer.take(5, 1_234_567_890_123)
    assert count == 5
    for number, payload in enumerate(payloads(data)):
        said = json.loads(payload)
        assert (said["n"], said["t"], len(said["pad"])) == (number, 1_234_567_890_123, number * 40)
        assert said["a"] * 10 % 10 == 5
        assert 1 <= said["a"] < 10


def test_goes_round_and_no_write_is_longer_than_allowed() -> None:
    buffer = BurstBuffer(1)
    buffer.load([message(n, size=1000) for n in range(700)])
    seen = []
    while len(seen) < 1500:
        data, count = buffer.take(10_000, 1_234_567_890_123)
        assert 0 < len(data) <= BURST_BYTES * 1.02
        said = [json.loads(p)["n"] for p in payloads(data)]
        assert len(said) == count
        seen += said
    assert seen[:1400] == [*range(700), *range(700)]


def test_an_empty_buffer_says_nothing() -> None:
    buffer = BurstBuffer(1)
    assert buffer.take(10, 0) == (b"", 0)
    buffer.load([message(1)])
    buffer.load([])
    assert (len(buffer), buffer.mean_bytes, buffer.take(10, 0)) == (0, 0, (b"", 0))


def test_a_clients_tickers_burst_with_the_markets_prices() -> None:
    venue = exchange(("BTC",), bursting=True)
    client = Client(venue)
    names = [n for n in venue.listing.names if n.startswith("BTC-28NOV26-")]
    assert client.session.burst_bytes == 0
    assert len(client.subscribe(*(f"ticker.{n}.100ms" for n in names))) == len(names), "the first state comes as ever"
    seen: set[bytes] = set()
    for _ in range(12):
        assert client.run(1) == [], "ticks send no tickers of their own"
        for _ in range(3):
            client.now += 4_000_000
            data, count = client.session.burst(len(names), client.now)
            assert count == len(names)
            for name, payload in zip(names, payloads(data), strict=True):
                d = json.loads(payload)["params"]["data"]
                row = venue.listing.row_of[name]
                assert d["instrument_name"] == name
                assert d["timestamp"] == venue.market_ns(client.now) // 1_000_000
                assert (d["best_bid_price"] == 0.0) == (d["best_bid_amount"] == 0.0)
                if venue.quotes.stale_until[row] <= venue.market.now_ns and d["best_bid_price"]:
                    assert d["best_bid_price"] == venue.quotes.bid[row]
                assert payload not in seen
                seen.add(payload)
    assert len(seen) == 36 * len(names)
    client.ask("public/unsubscribe", channels=[f"ticker.{n}.100ms" for n in names])
    assert client.session.burst(10, client.now) == (b"", 0)
