"""The socket shell against servers on loopback that behave, and that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import shutil
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.feeds.deribit_frames import BTC_OPTIONS, TEST_REQUEST, future_row, option_row, ticker
from tests.feeds.loopback import TIMEOUT, FastWorld, Peer, RecordingBackoff, eventually, tcp_server, websocket_server
from volsurf.errors import ConfigError
from volsurf.feeds._backoff import Backoff
from volsurf.feeds.connection import Connection
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import Event, Health, HealthEvent


class Running:
    """A connection running beside the test."""

    def __init__(self, url: str, underlyings: tuple[str, ...] = ("BTC",), **options: Any) -> None:
        self.venue = Deribit(underlyings, url=url)
        self.backoff = RecordingBackoff(random.Random(7))
        self.connection = Connection(self.venue, backoff=self.backoff, proxy=None, **options)
        self.stop = asyncio.Event()
        self.events: list[Event] = []
        self.task = asyncio.ensure_future(self.connection.run(self.stop))

    def kinds(self) -> Counter[Health]:
        """Health events so far, by kind."""
        self.events += self.venue.events()
        return Counter(event.kind for event in self.events if isinstance(event, HealthEvent))

    def details(self, kind: Health) -> list[str]:
        """What the events of a kind said."""
        self.kinds()
        return [event.detail for event in self.events if isinstance(event, HealthEvent) and event.kind is kind]


@contextlib.asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[Running]:
    """A running connection, stopped at the end; it must stop, and leave nothing behind."""
    before = asyncio.all_tasks()
    run = Running(url, **options)
    try:
        yield run
    finally:
        run.stop.set()
        async with asyncio.timeout(TIMEOUT):
            await asyncio.wait((run.task,))
        if not run.task.cancelled() and run.task.exception() is None:
            leftover = {task for task in asyncio.all_tasks() - before if "connection_lost" not in repr(task)}
            ours = [task for task in leftover if "volsurf" in repr(task)]
            assert not ours, ours


async def test_it_connects_subscribes_receives_and_stops() -> None:
    peer = Peer()

    async def send(connection: ServerConnection) -> None:
        await connection.send(ticker(BTC_OPTIONS[0]).decode())
        await connection.send(TEST_REQUEST.decode())

    peer.when_ready = send
    async with websocket_server(peer) as url, running(url) as run:
        await eventually(lambda: run.venue.is_ready and peer.heard_test.is_set())
        batch = None
        while batch is None:
            batch = run.venue.take_quotes(0)
        assert batch.bid[0] == 0.0065
        assert peer.requests[0] == "public/set_heartbeat"
        assert run.connection.stats.opened == 1
        assert run.connection.is_open
        assert run.connection.messages >= 6
        assert run.connection.last_message_ns > 0
    assert not run.connection.is_open
    assert run.kinds() == {Health.CONNECTED: 1, Health.READY: 1, Health.HEARTBEAT_ANSWERED: 1, Health.DISCONNECTED: 1}
    assert run.details(Health.DISCONNECTED) == ["stopped"]
    assert run.connection.stats.messages >= 6
    assert 0 < run.connection.stats.heartbeat_late_max_ns < 1_000_000_000
    assert not peer.open


async def test_a_disconnect_is_told_and_mended_and_the_pauses_start_again() -> None:
    peer = Peer()
    async with websocket_server(peer) as url, running(url) as run:
        for times in range(1, 4):
            await eventually(lambda times=times: run.kinds()[Health.READY] == times)
            for connection in list(peer.open):
                await connection.close(1012, "service restart")
        await eventually(lambda: run.kinds()[Health.READY] == 4)
        # Each had been ready, so each pause is a first one.
        assert len(run.backoff.pauses) == 3
        assert all(0.25 <= pause <= 0.5 for pause in run.backoff.pauses)
    assert all("1012 service restart" in detail for detail in run.details(Health.DISCONNECTED)[:3])


async def test_an_abrupt_end_of_the_socket_is_a_disconnect() -> None:
    peer = Peer()
    async with websocket_server(peer) as url, running(url) as run:
        await eventually(lambda: run.venue.is_ready)
        for connection in list(peer.open):
            connection.transport.abort()
        await eventually(lambda: run.kinds()[Health.READY] == 2)
    assert "without a word" in run.details(Health.DISCONNECTED)[0]


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def speak_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    await writer.drain()
    await reader.read()
    writer.close()


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (close_at_once, "handshake was refused"),
        (never_answer, "no answer to the opening handshake"),
        (speak_nonsense, "handshake was refused"),
    ],
)
async def test_servers_that_are_none(behaviour: Any, said: str) -> None:
    """The pauses grow, with jitter, and the reason is told each time."""
    async with tcp_server(behaviour) as url, running(url, connect_timeout=0.05) as run:
        await eventually(lambda: len(run.backoff.pauses) >= 5)
    pauses = run.backoff.pauses[:5]
    for attempt, pause in enumerate(pauses):
        assert 0.25 * 2**attempt <= pause <= 0.5 * 2**attempt
    assert len({pause / 2**i for i, pause in enumerate(pauses)}) == 5
    assert run.backoff.resets == 0
    assert all(said in detail for detail in run.details(Health.DISCONNECTED)[:5]), run.details(Health.DISCONNECTED)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        async with running(f"ws://127.0.0.1:{taken.getsockname()[1]}") as run:
            await eventually(lambda: run.kinds()[Health.DISCONNECTED] >= 2)
    assert "could not connect" in run.details(Health.DISCONNECTED)[0]


async def test_too_many_connections_is_http_429() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return Response(429, "Too Many Requests", Headers({"Content-Length": "0"}), b"")

    async with websocket_server(Peer(), process_request=refuse) as url, running(url) as run:
        await eventually(lambda: run.kinds()[Health.DISCONNECTED] >= 2)
    assert "429" in run.details(Health.DISCONNECTED)[0]


async def test_stopping_while_the_handshake_hangs_is_prompt() -> None:
    async with tcp_server(never_answer) as url:
        run = Running(url, connect_timeout=60.0)
        await eventually(lambda: run.connection.stats.attempts == 1)
        await asyncio.sleep(0)
        run.stop.set()
        async with asyncio.timeout(5):
            await run.task


async def test_stopping_while_it_pauses_is_prompt() -> None:
    async with tcp_server(close_at_once) as url:
        run = Running(url)
        run.backoff.next = lambda: 3600.0  # type: ignore[method-assign]
        await eventually(lambda: run.kinds()[Health.DISCONNECTED] == 1)
        run.stop.set()
        async with asyncio.timeout(5):
            await run.task


async def test_cancelling_closes_the_socket_too() -> None:
    peer = Peer()
    async with websocket_server(peer) as url:
        run = Running(url)
        await eventually(lambda: run.venue.is_ready)
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task
        await eventually(lambda: not peer.open)
    assert run.kinds()[Health.DISCONNECTED] == 1


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 made on the spot, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {made}"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True)
    return made, key


async def test_it_speaks_tls(certificate: tuple[Path, Path]) -> None:
    """As every real venue does; only a context that trusts the certificate gets through."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    peer = Peer()
    peer.when_ready = lambda connection: connection.send(ticker(BTC_OPTIONS[0]).decode())
    async with websocket_server(peer, ssl=serving) as url:
        secure = url.replace("ws://", "wss://")
        async with running(secure, ssl_context=trusting) as run:
            await eventually(lambda: run.venue.take_quotes(0) is not None)
        async with running(secure) as run:
            await eventually(lambda: run.kinds()[Health.DISCONNECTED] >= 1)
        assert "could not connect" in run.details(Health.DISCONNECTED)[0]


async def test_garbage_between_good_messages_does_not_cut_the_connection() -> None:
    peer = Peer()

    async def send(connection: ServerConnection) -> None:
        for _ in range(200):
            await connection.send("garbage")
            await connection.send(b"\x00\xff binary")
            await connection.send(["{", '"frag', "mented"])
        await connection.send(ticker(BTC_OPTIONS[0]).decode())

    peer.when_ready = send
    async with websocket_server(peer) as url, running(url) as run:
        await eventually(lambda: run.venue.take_quotes(0) is not None)
        assert run.venue.counters["malformed.json"] + run.venue.counters["malformed.truncated"] >= 600
        assert run.kinds()[Health.MALFORMED] >= 1
        assert run.connection.stats.opened == 1


async def test_a_server_that_never_acknowledges_is_left_and_tried_again() -> None:
    peer = Peer()
    peer.answers = False
    world = FastWorld(100.0)
    async with websocket_server(peer) as url:
        async with running(url, clock=world.clock, call_later=world.call_later) as run:
            await eventually(lambda: peer.connections >= 3)
        assert run.kinds()[Health.NO_ACK] >= 3
        assert any("not answered within 10 s" in detail for detail in run.details(Health.DISCONNECTED))
        assert len(run.backoff.pauses) >= 2
        assert run.backoff.resets == 0


async def test_a_server_that_falls_silent_is_left_and_the_next_connection_is_ready() -> None:
    peer = Peer()
    world = FastWorld(100.0)

    async def fall_silent(connection: ServerConnection) -> None:
        if peer.connections == 1:
            peer.muted.add(connection)

    peer.when_ready = fall_silent
    async with websocket_server(peer) as url, running(url, clock=world.clock, call_later=world.call_later) as run:
        await eventually(lambda: run.kinds()[Health.READY] >= 2)
    kinds = run.kinds()
    assert kinds[Health.STALE] >= 1
    assert kinds[Health.NO_ACK] >= 1


async def test_too_many_requests_is_waited_out() -> None:
    peer = Peer()
    world = FastWorld(50.0)

    async def limit(connection: ServerConnection) -> None:
        if peer.connections == 1:
            await connection.send('{"jsonrpc":"2.0","error":{"code":10028,"message":"too_many_requests"}}')

    peer.when_ready = limit
    async with websocket_server(peer) as url, running(url, clock=world.clock, call_later=world.call_later) as run:
        await eventually(lambda: run.kinds()[Health.READY] >= 2 or peer.connections >= 2)
    assert run.kinds()[Health.RATE_LIMITED] == 1
    assert max(world.delays) > 3.0, "the pause was the credits', not the first of the back-off"


async def test_connection_too_slow_is_told_with_its_remedy() -> None:
    peer = Peer()

    async def cut(connection: ServerConnection) -> None:
        if peer.connections == 1:
            await connection.close(1008, "connection_too_slow")

    peer.when_ready = cut
    async with websocket_server(peer) as url, running(url) as run:
        await eventually(lambda: peer.connections >= 2 and run.venue.is_ready)
    assert run.kinds()[Health.TOO_SLOW] == 1
    assert run.venue.counters["connection_too_slow"] == 1


async def test_an_underlying_that_does_not_exist_ends_it_with_what_there_is() -> None:
    async with websocket_server(Peer()) as url:
        run = Running(url, ("FOO",))
        async with asyncio.timeout(TIMEOUT):
            with pytest.raises(ConfigError, match=r"FOO_USDC; there is .*SOL_USDC"):
                await run.task


async def test_loopback_is_reached_without_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ws_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    peer = Peer()
    async with websocket_server(peer) as url:
        venue, stop = Deribit(("BTC",), url=url), asyncio.Event()
        connection = Connection(venue, backoff=RecordingBackoff(random.Random(7)))
        task = asyncio.ensure_future(connection.run(stop))
        await eventually(lambda: venue.is_ready)
        stop.set()
        await task
    assert connection.stats.attempts == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1", "www.deribit.com/ws/api/v2", "", "ws://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="not a websocket address"):
        Connection(Deribit(["BTC"], url=url))


async def test_a_flood_delays_no_heartbeat() -> None:
    """The test request lies among as many messages as the socket takes; its answer comes while they still come."""
    names = [f"BTC-26MAR27-{strike * 1000}-{side}" for strike in range(1, 101) for side in "CP"]
    peer = Peer(
        {("BTC", "option"): [option_row(n) for n in names], ("BTC", "future"): [future_row("BTC-PERPETUAL")]},
    )
    sent = Counter[str]()

    async def flood(connection: ServerConnection) -> None:
        messages = [ticker(name).decode() for name in names]
        while not peer.heard_test.is_set() or sent["messages"] < 20_000:
            if sent["messages"] == 6_000:
                await connection.send(TEST_REQUEST.decode())
            for message in messages:
                await connection.send(message)
            sent["messages"] += len(messages)
            if peer.heard_test.is_set() and not sent["when answered"]:
                sent["when answered"] = sent["messages"]

    peer.when_ready = flood
    async with websocket_server(peer) as url, running(url) as run:
        await eventually(lambda: sent["messages"] >= 20_000 and peer.heard_test.is_set())
        assert sent["when answered"] < 20_000
        await eventually(lambda: bool(run.venue.take_quotes(0)) or run.venue.counters["ticker"] >= sent["messages"])
        assert run.venue.failure is None
    assert run.connection.stats.heartbeat_late_max_ns < 1_000_000_000


async def test_lifecycle_is_logged_and_messages_are_not(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    with caplog.at_level(logging.DEBUG, logger="volsurf.feeds"):
        async with websocket_server(peer) as url, running(url) as run:
            await eventually(lambda: run.venue.is_ready)
            for connection in list(peer.open):
                await connection.close()
            await eventually(lambda: run.kinds()[Health.READY] == 2)
    ours = [record.getMessage() for record in caplog.records if record.name == "volsurf.feeds"]
    assert len(ours) == 3
    assert "connected" in ours[0]
    assert "connecting again in" in ours[1]
    assert not any("jsonrpc" in message for message in ours)


def test_pauses_double_to_a_ceiling_with_jitter_and_start_again_after_success() -> None:
    backoff = Backoff(random.Random(1), first=1.0, factor=2.0, most=20.0)
    pauses = [backoff.next() for _ in range(2000)]
    for attempt, pause in enumerate(pauses):
        longest = min(20.0, 2.0 ** min(attempt, 10))
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == 2000
    same = Backoff(random.Random(1), first=1.0, factor=2.0, most=20.0)
    assert [same.next() for _ in range(5)] == pauses[:5]
    backoff.reset()
    assert backoff.next() <= 1.0


def test_what_the_peer_sends_is_what_deribit_sends() -> None:
    """The tests' own server speaks JSON-RPC with the ids it was given."""
    answer = Peer.__new__(Peer)
    answer.listings = {}
    reply = answer.answer({"id": 7, "method": "public/subscribe", "params": {"channels": ["x"]}})
    assert json.loads(json.dumps(reply))["result"] == ["x"]
    assert reply["id"] == 7
