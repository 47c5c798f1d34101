"""What a faulty wire does to payloads, and that all of it is in the record. No socket, no clock."""

from __future__ import annotations

import json

import pytest

from volsurf.sim.faults import Cut, FaultRun, FaultScript, FaultyWire, Unframed, channel_of

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def deribit(channel: str, number: int) -> bytes:
    data = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": {"n": number}}}
    return json.dumps(data, separators=(",", ":")).encode()


def running(script: str, seed: int = 1) -> FaultRun:
    return FaultRun(FaultScript.parse(script), start_ns=START, seed=seed, venue="deribit")


def numbers(payloads: list[bytes]) -> list[int]:
    return [json.loads(p)["params"]["data"]["n"] for p in payloads]


def stream(wire: FaultyWire, messages: int = 1000, channel: str = "book.X.100ms", first: int = 0) -> list[list[bytes]]:
    """One message a millisecond; what goes out at each."""
    return [wire.send(START + (first + i) * SECOND // 1000, [deribit(channel, first + i)]) for i in range(messages)]


def flat(sent: list[list[bytes]]) -> list[bytes]:
    return [payload for at in sent for payload in at]


@pytest.mark.parametrize(
    ("payload", "kind", "name"),
    [
        (deribit("book.BTC-1DEC26-9-C.100ms", 1), "book", "book.BTC-1DEC26-9-C.100ms"),
        (deribit("ticker.BTC-1DEC26-9-C.100ms", 1), "ticker", "ticker.BTC-1DEC26-9-C.100ms"),
        (deribit("markprice.options.btc_usd", 1), "ticker", "markprice.options.btc_usd"),
        (deribit("trades.option.BTC.100ms", 1), "trade", "trades.option.BTC.100ms"),
        (deribit("deribit_price_index.btc_usd", 1), "index", "deribit_price_index.btc_usd"),
        (deribit("instrument.state.option.BTC", 1), "listing", "instrument.state.option.BTC"),
        (b'{"jsonrpc":"2.0","id":1,"result":["book.X.100ms"]}', "reply", ""),
        (b'{"method":"heartbeat","params":{"type":"test_request"}}', "reply", ""),
        (
            b'{"arg":{"channel":"books","instId":"BTC-USD-1-2-C"},"action":"update","data":[]}',
            "book",
            "books:BTC-USD-1-2-C",
        ),
        (b'{"arg":{"channel":"bbo-tbt","instId":"X"},"data":[]}', "book", "bbo-tbt:X"),
        (b'{"arg":{"channel":"opt-summary","instFamily":"BTC-USD"},"data":[]}', "ticker", "opt-summary:BTC-USD"),
        (b'{"arg":{"channel":"index-tickers","instId":"BTC-USD"},"data":[]}', "index", "index-tickers:BTC-USD"),
        (b'{"id":"1","event":"subscribe","arg":{"channel":"books","instId":"X"},"connId":"a"}', "reply", ""),
        (b"pong", "reply", ""),
        (b'{"topic":"orderbook.25.BTC-1-C","type":"delta","data":{}}', "book", "orderbook.25.BTC-1-C"),
        (b'{"id":"tickers.X-1-2","topic":"tickers.X","ts":1,"type":"snapshot"}', "ticker", "tickers.X"),
        (b'{"topic":"publicTrade.BTC","type":"snapshot"}', "trade", "publicTrade.BTC"),
        (b'{"success":true,"data":{"successTopics":["tickers.X"]},"type":"COMMAND_RESP"}', "reply", ""),
        (b'{"e":"bookTicker","u":5,"s":"BTC-1-2-C","b":"1"}', "ticker", "bookTicker:BTC-1-2-C"),
        (b'{"e":"depthUpdate","E":1,"T":2,"s":"BTC-1-2-C","U":1}', "book", "depthUpdate:BTC-1-2-C"),
        (b'{"stream":"btc-1-2-c@depth@100ms","data":{"e":"depthUpdate"}}', "book", "btc-1-2-c@depth@100ms"),
        (b'{"stream":"btcusdt@optionMarkPrice","data":[{"s":"A"}]}', "ticker", "btcusdt@optionMarkPrice"),
        (b'[{"s":"A","mp":"1","E":1,"e":"markPrice"}]', "ticker", "markPrice:A"),
        (b'{"result":null,"id":1}', "reply", ""),
    ],
)
def test_channels_of_all_venues_are_known(payload: bytes, kind: str, name: str) -> None:
    assert channel_of(payload) == (kind, name)


def test_without_a_fault_everything_passes_as_it_is() -> None:
    run = running("at 10s for 1s gap")
    sent = stream(run.open(START))
    assert numbers(flat(sent)) == list(range(1000))
    assert all(len(at) == 1 for at in sent)
    assert not run.log.records


def test_a_gap_drops_its_share_of_its_channel_and_says_which() -> None:
    run = running("at 200ms for 500ms gap channel=book p=0.2")
    wire = run.open(START)
    other = numbers(flat(stream(wire, channel="ticker.X.100ms")))
    assert other == list(range(1000))
    got = numbers(flat(stream(wire)))
    lost = sorted(set(range(1000)) - set(got))
    assert 60 < len(lost) < 140
    assert lost[0] >= 200
    assert lost[-1] < 700
    assert [r.time_ns for r in run.log.of("gap")] == [START + n * SECOND // 1000 for n in lost]
    assert {r.what for r in run.log.records} == {"book.X.100ms"}
    assert run.log.counts["gap"] == len(lost)


def test_draws_come_from_the_seed() -> None:
    def lost(seed: int) -> list[int]:
        run = running("at 0s for 1s gap p=0.5", seed)
        stream(run.open(START))
        return [r.time_ns for r in run.log.records]

    assert lost(1) == lost(1) != lost(2)


def test_a_count_ends_a_fault() -> None:
    run = running("at 100ms gap count=3")
    assert set(range(1000)) - set(numbers(flat(stream(run.open(START))))) == {100, 101, 102}


def test_answers_are_left_alone_unless_meant() -> None:
    reply = b'{"jsonrpc":"2.0","id":1,"result":"ok"}'
    assert running("at 0s for 1s gap").open(START).send(START, [reply]) == [reply]
    for channel in ("reply", "any"):
        assert running(f"at 0s for 1s gap channel={channel}").open(START).send(START, [reply]) == []


def test_duplicates_come_twice() -> None:
    run = running("at 0s for 1s duplicate p=0.3")
    got = numbers(flat(stream(run.open(START))))
    assert sorted(set(got)) == list(range(1000))
    assert got == sorted(got)
    assert len(got) - 1000 == run.log.counts["duplicate"] > 200


def test_reordered_messages_change_places_within_their_channel_and_none_is_lost() -> None:
    run = running("at 0s for 500ms reorder p=0.3")
    wire = run.open(START)
    got = numbers(flat([a + b for a, b in zip(stream(wire), stream(wire, channel="ticker.X.100ms"), strict=True)]))
    assert sorted(got) == sorted(2 * list(range(1000)))
    book = numbers(flat(stream(running("at 0s for 500ms reorder p=0.3").open(START))))
    assert sorted(book) == list(range(1000))
    late = [i for i, n in enumerate(book[1:], 1) if n < book[i - 1]]
    assert len(late) > 70
    assert book[600:] == list(range(600, 1000))
    # A channel that says nothing more is waited for a second.
    wire = running("at 0s reorder p=1 count=1").open(START)
    assert wire.send(START, [deribit("book.X.100ms", 0)]) == []
    assert wire.send(START + SECOND - 1, []) == []
    assert numbers(wire.send(START + SECOND, [])) == [0]
    wire = running("at 0s reorder p=1 count=1").open(START)
    assert wire.send(START, [deribit("book.X.100ms", 0)]) == []
    assert numbers(wire.send(START + 2, [deribit("book.X.100ms", 1)])) == [1, 0]


def test_what_is_cut_off_or_malformed_is_no_json() -> None:
    for script in ("at 0s for 1s truncate p=1", "at 0s for 1s malformed p=1", "at 0s for 1s malformed p=1 how=utf8"):
        for payload in flat(stream(running(script).open(START), 300)):
            with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
                json.loads(payload)
    payload = flat(stream(running("at 0s for 1s malformed how=frame p=1").open(START), 1))[0]
    assert isinstance(payload, Unframed)


def test_a_silent_wire_loses_everything_and_comes_back() -> None:
    run = running("at 200ms for 300ms silence client=1")
    deaf_to_this, wire = run.open(START), run.open(START)
    assert len(flat(stream(deaf_to_this))) == 1000
    assert numbers(flat(stream(wire))) == [*range(200), *range(500, 1000)]
    assert [(r.kind, r.client) for r in run.log.records] == [("silence", 1)]


def test_a_slow_link_lets_so_many_bytes_a_second_through_in_order() -> None:
    run = running("at 0s for 2s slow rate=20000")
    wire = run.open(START)
    size = len(deribit("book.X.100ms", 500))
    sent = stream(wire, 1000)
    passed = numbers(flat(sent))
    assert passed == list(range(len(passed)))
    assert 15_000 < len(passed) * size < 27_000
    assert wire.backlog > 50_000
    rest = wire.send(START + 2 * SECOND, [deribit("book.X.100ms", 1000)])
    assert numbers(rest) == list(range(len(passed), 1001))
    assert wire.backlog == 0
    assert {r.kind for r in run.log.records} == {"slow"}


def test_a_disconnect_cuts_who_was_there_and_once() -> None:
    run = running("at 1s disconnect how=abort; at 3s disconnect code=1012 reason=restart")
    wire, later = run.open(START), run.open(START + 2 * SECOND)
    assert wire.cut(START + SECOND - 1) is None
    assert wire.cut(START + SECOND) == Cut(0, "")
    assert wire.cut(START + SECOND + 1) is None
    assert later.cut(START + 2 * SECOND) is None
    assert later.cut(START + 4 * SECOND) == Cut(1012, "restart")
    assert later.cut(START + 5 * SECOND) is None
    assert [(r.kind, r.what, r.client) for r in run.log.records] == [
        ("disconnect", "abort", 0),
        ("disconnect", "close", 1),
    ]


def test_several_faults_at_once_strike_one_after_another() -> None:
    run = running("at 0s for 1s duplicate p=1; at 0s for 1s gap p=0.5")
    got = numbers(flat(stream(run.open(START))))
    assert run.log.counts["duplicate"] == 1000
    assert 300 < run.log.counts["gap"] < 700
    # A doubled message that is lost is lost with its double.
    assert len(got) == 2 * (1000 - run.log.counts["gap"])
