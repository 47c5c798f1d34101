"""What the server gives every venue: endpoints, pages, pings, latency, maintenance, and faults on real sockets."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.sim.plain import PlainExchange, PlainSession
from volsurf.sim.faults import FaultScript
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES
from volsurf.sim.server import ExchangeServer

LIMIT = 20.0


def served(market: Market | None = None, **options: Any) -> tuple[PlainExchange, ExchangeServer]:
    exchange = PlainExchange(
        market or Market(1, ("BTC",), start_ns=time.time_ns()), origin_ns=time.time_ns(), **options
    )
    return exchange, ExchangeServer(exchange)


def join(url: str, **options: Any) -> connect:
    return connect(url, max_queue=None, ping_interval=None, close_timeout=1, **options)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 (the server has no event for this)
            await asyncio.sleep(0.005)


async def heard(ws: ClientConnection, wanted: bytes | str) -> None:
    """Read until a message comes."""
    async with asyncio.timeout(LIMIT):
        while await ws.recv() != wanted:
            pass


async def numbers(ws: ClientConnection, count: int) -> list[int]:
    got: list[int] = []
    async with asyncio.timeout(LIMIT):
        while len(got) < count:
            got.append(json.loads(await ws.recv())["n"])
    return got


async def get(url: str) -> tuple[int, bytes, dict[str, str]]:
    def fetch() -> tuple[int, bytes, dict[str, str]]:
        try:
            with urllib.request.urlopen(url, timeout=LIMIT) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    return await asyncio.to_thread(fetch)


async def test_a_session_learns_which_endpoint_and_with_which_query() -> None:
    exchange, server = served()
    async with server:
        base = server.url.removesuffix("/one")
        async with join(server.url), join(base + "/two?streams=a/b"):
            await until(lambda: len(exchange.sessions) == 2)
            assert [session.path for session in exchange.sessions] == ["/one", "/two?streams=a/b"]
        with pytest.raises(InvalidStatus) as refused:
            await join(base + "/three")
        assert refused.value.response.status_code == 404


async def test_pages_have_status_body_and_headers() -> None:
    _, server = served()
    async with server:
        status, body, headers = await get(server.http_url + "/page?say=hi")
        assert (status, body, headers["Retry-After"]) == (429, b'{"said":"hi"}', "7")
        truth = json.loads((await get(server.http_url + "/truth?underlying=BTC_UM&currency=USDT"))[1])
        assert truth["rates"]["USD"] == 1.0
        rate = truth["rates"]["USDT"]
        dollars = json.loads((await get(server.http_url + "/truth?underlying=BTC"))[1])
        assert truth["underlyings"]["BTC"]["spot"] / dollars["underlyings"]["BTC"]["spot"] == pytest.approx(
            rate, rel=1e-3
        )
        assert (await get(server.http_url + "/truth?currency=EUR"))[0] == 404
        assert json.loads((await get(server.http_url + "/faults"))[1]) == {"script": "", "counts": {}, "records": []}


async def test_pings_of_a_session_are_answered_and_it_is_told() -> None:
    exchange, server = served()
    async with server, join(server.url) as ws:
        await until(lambda: exchange.sessions)
        exchange.sessions[0].pings += [b"one", b""]
        await until(lambda: exchange.sessions[0].pongs == [b"one", b""])
        await ws.pong(b"unasked")
        await until(lambda: exchange.sessions[0].pongs[2:] == [b"unasked"])
        await (await ws.ping())
        assert len(await numbers(ws, 3)) == 3


async def test_venues_of_one_market_move_together() -> None:
    market = Market(1, ("BTC",), start_ns=time.time_ns(), step_ns=20_000_000)
    (one, first), (two, second) = served(market), served(market)
    async with first, second:
        assert first.port != second.port
        await until(lambda: one.moves > 5 and two.moves > 5)
    assert abs(one.moves - two.moves) <= 2


async def test_latency_is_the_profiles_and_keeps_the_order() -> None:
    _, server = served(profile=replace(PROFILES["okx"], latency_ms=60.0, jitter_ms=40.0))
    async with server, join(server.url) as ws:
        before = time.monotonic()
        await ws.send("hello")
        await heard(ws, "hello")
        assert time.monotonic() - before > 0.005
        got = await numbers(ws, 20)
        assert got == sorted(got)
        await ws.send("leave")
        # The answer that was delayed comes before the goodbye.
        await ws.send("not heard any more")
        with pytest.raises(ConnectionClosed) as closed:
            await numbers(ws, 1000)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.reason == "as you wish"


async def test_maintenance_cuts_and_refuses_until_it_is_over() -> None:
    exchange, server = served()
    async with server, join(server.url) as ws:
        exchange.begin_maintenance(time.time_ns(), 60.0)
        with pytest.raises(ConnectionClosed) as closed:
            await numbers(ws, 1000)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.reason == "maintenance"
        with pytest.raises(InvalidStatus) as refused:
            await join(server.url)
        assert refused.value.response.status_code == 503
        assert (await get(server.http_url + "/page"))[0] == 503
        assert (await get(server.http_url + "/stats"))[0] == 200
        exchange.end_maintenance()
        async with join(server.url) as again:
            assert await numbers(again, 1)
        assert server.stats["maintenances"] == 1
        assert server.stats["maintenance_refused"] == 2


async def test_a_silent_connection_neither_sends_nor_answers_pings_nor_closes() -> None:
    exchange, server = served()
    async with server, join(server.url) as ws, join(server.url) as other:
        await numbers(ws, 1)
        run = server.inject(FaultScript.parse("at 0s for 600ms silence client=0"))
        await until(lambda: run.log.counts["silence"])
        pong = await ws.ping(b"are you there")
        await ws.send("anyone?")
        await numbers(other, 10)
        assert not asyncio.ensure_future(pong).done()
        assert "anyone?" not in exchange.sessions[0].heard
        before = await numbers(ws, 1)
        # Afterwards the socket is the same one, what was said meanwhile is lost, and what was asked is answered.
        await heard(ws, "anyone?")
        await pong
        assert (await numbers(ws, 1))[0] > before[0]
        assert [(r.kind, r.client) for r in run.log.records] == [("silence", 0)]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_disconnect_is_a_close_frame_or_nothing(how: str) -> None:
    exchange, server = served()
    async with server, join(server.url) as ws:
        run = server.inject(FaultScript.parse(f"at 50ms disconnect how={how} code=1012 reason=restart"))
        with pytest.raises(ConnectionClosed) as closed:
            await numbers(ws, 1000)
        if how == "close":
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "restart")
        else:
            assert closed.value.rcvd is None
        await until(lambda: exchange.sessions[0].is_closed)
        assert run.log.counts == {"disconnect": 1}
        async with join(server.url) as again:
            assert await numbers(again, 3)
        page = json.loads((await get(server.http_url + "/faults"))[1])
        assert page["counts"] == {"disconnect": 1}
        assert page["records"][0]["what"] == how


async def test_gaps_and_slow_links_reach_the_socket() -> None:
    _, server = served()
    async with server, join(server.url) as ws:
        run = server.inject(FaultScript.parse("at 0s for 10m gap p=0.5; at 0s for 10m slow rate=400"))
        got = await numbers(ws, 12)
        assert got == sorted(got)
        missing = set(range(got[0], got[-1])) - set(got)
        assert missing
        assert run.log.counts["gap"] >= len(missing)
        assert run.log.counts["slow"] >= 1


@pytest.mark.parametrize(("how", "code"), [("frame", 1002), ("utf8", 1007)])
async def test_malformed_frames_end_the_connection_at_the_client(how: str, code: int) -> None:
    _, server = served()
    async with server, join(server.url) as ws:
        server.inject(FaultScript.parse(f"at 0s malformed how={how} count=1 p=1"))
        with pytest.raises(ConnectionClosed) as closed:
            await numbers(ws, 1000)
        assert closed.value.sent is not None
        assert closed.value.sent.code == code
        async with join(server.url) as again:
            assert await numbers(again, 3)


async def test_refusals_are_for_who_is_there_and_who_comes_while_they_last() -> None:
    exchange, server = served()
    async with server, join(server.url) as ws:
        await until(lambda: exchange.sessions)
        run = server.inject(FaultScript.parse("at 0s refuse count=2; at 0s for 10m rate_limit client=1"))

        async def ask(client: ClientConnection, *words: str) -> list[str | bytes]:
            answers: list[str | bytes] = []
            for word in words:
                await client.send(word)
                async with asyncio.timeout(LIMIT):
                    while (said := await client.recv()).startswith("{"):  # type: ignore[arg-type]
                        pass
                answers.append(said)
            return answers

        await until(lambda: exchange.sessions[0]._refusals["subscribe"] == 2)
        assert await ask(ws, "subscribe", "hi", "subscribe", "subscribe") == ["no", "hi", "no", "subscribe"]
        async with join(server.url) as late:
            assert await ask(late, "subscribe", "subscribe") == ["slower", "subscribe"]
        assert run.log.counts == {"refuse": 2, "rate_limit": 1}
        assert [(r.kind, r.client) for r in run.log.records] == [("refuse", 0), ("refuse", 0), ("rate_limit", 1)]
    with pytest.raises(ValueError, match="can be refused as"):
        PlainSession("").refuse_next("dance")


async def test_an_expiry_vanishes_and_prices_are_false_as_the_record_says() -> None:
    exchange, server = served()
    async with server:
        chain = sorted(exchange.chain("BTC"))
        run = server.inject(
            FaultScript.parse("at 0s vanish underlying=BTC expiry=1; at 0s for 400ms crossed p=0.5 expiry=2")
        )
        await until(lambda: (exchange.quotes.bid > exchange.quotes.ask).any())
        assert sorted(exchange.chain("BTC")) == [chain[0], *chain[2:]]
        market = exchange.market
        false = run.log.false_at(market.now_ns)
        rows = [exchange.listing.row_of[symbol] for symbol in false]
        assert len(rows) > 5
        assert (exchange.quotes.bid[rows] > exchange.quotes.ask[rows]).all()
        # The third of those that are left after the second went.
        assert set(exchange.quotes.universe.expiry_ns[rows].tolist()) == {chain[3]}
        await until(lambda: not (exchange.quotes.bid > exchange.quotes.ask).any())
        assert not run.log.false_at(market.now_ns)
        assert run.log.false_at(market.now_ns, grace_ns=10**12) == false
        assert (exchange.quotes.bid[rows] < exchange.quotes.ask[rows]).all()
        assert run.log.counts == {"vanish": 1, "crossed": len(rows)}
        assert exchange.counters["vanished"] > 20
        assert run.is_over(time.time_ns())
