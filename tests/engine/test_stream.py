from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from tests.engine.smiles import FrameMaker
from volsurf.engine import stream
from volsurf.engine.frame import Frame
from volsurf.engine.listener import listen
from volsurf.engine.mirror import FrameMirror
from volsurf.engine.stream import StreamServer

DAYS = (1, 2, 9, 30)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Served:
    """A server, the frames it was given, and clients of it."""

    def __init__(self) -> None:
        listener = listen(0)
        self.port = listener.getsockname()[1]
        self.clock = Clock()
        self.server = StreamServer(listener, clock=self.clock)
        self.maker = FrameMaker()
        self.version = 0

    def publish(self, days: int = 1) -> Frame:
        """A frame in which some expiries of both underlyings changed."""
        self.version += 1
        changed = {day: self.version if i < days else 0 for i, day in enumerate(DAYS)}
        frame = self.maker.make(dict.fromkeys(("BTC", "ETH"), (self.version, changed)))
        self.server.publish(frame)
        return frame

    def client(self, path: str = stream.PATH, **options: object) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, max_size=None, proxy=None, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    served = Served()
    await served.server.start()
    try:
        yield served
    finally:
        await served.server.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (what is waited for is a number, which tells nobody when it changes)
            await asyncio.sleep(0.002)


async def closed(client: ClientConnection) -> Close:
    """How the server closed a connection; what it sent before is passed over."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(10):
            while True:
                await client.recv()
    assert client.close_code is not None
    return Close(client.close_code, client.close_reason or "")


async def next_frame(client: ClientConnection, mirror: FrameMirror) -> Frame:
    async with asyncio.timeout(10):
        data = await client.recv()
    assert isinstance(data, bytes)
    return mirror.apply(data)


async def test_a_snapshot_comes_first_then_patches() -> None:
    async with serving() as served:
        first = served.publish()
        async with served.client() as client:
            mirror = FrameMirror()
            assert (await next_frame(client, mirror)).hash == first.hash
            for _ in range(3):
                frame = served.publish()
                assert (await next_frame(client, mirror)).to_bytes() == frame.to_bytes()
            assert served.server.counters["snapshots_sent"] == 1
            assert served.server.counters["frames_sent"] == 4


async def test_before_the_first_frame_the_status_is_told() -> None:
    async with serving() as served, served.client() as client:
        assert json.loads(await client.recv()) == {"status": "starting"}
        served.server.say("compiling the kernels")
        assert json.loads(await client.recv()) == {"status": "compiling the kernels"}
        frame = served.publish()
        assert (await next_frame(client, FrameMirror())).number == frame.number


async def test_two_clients_have_streams_of_their_own() -> None:
    async with serving() as served:
        served.publish()
        async with served.client() as one:
            first = FrameMirror()
            await next_frame(one, first)
            served.publish()
            await next_frame(one, first)
            async with served.client() as two:
                second = FrameMirror()
                await next_frame(two, second)
                frame = served.publish()
                assert (await next_frame(one, first)).hash == (await next_frame(two, second)).hash == frame.hash
                assert served.server.clients == 2
        await until(lambda: served.server.clients == 0)


async def test_a_slow_client_skips_frames_and_holds_up_nobody() -> None:
    async with serving() as served:
        served.publish()
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", served.port))
        request = (
            f"GET {stream.PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        slow.sendall(request.encode())
        await until(lambda: served.server.clients == 1)
        (laggard,) = served.server._clients
        laggard.connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with served.client() as quick:
            mirror = FrameMirror()
            await next_frame(quick, mirror)
            for _ in range(200):
                frame = served.publish(days=4)
                assert (await next_frame(quick, mirror)).hash == frame.hash
                if frame.number - laggard.sent.number > 20:
                    break
            # It stands still at an old frame, with no more waiting for it than one write's worth of frames.
            stuck = laggard.sent.number
            for _ in range(20):
                frame = served.publish(days=4)
                await next_frame(quick, mirror)
            assert laggard.sent.number == stuck
            waiting = laggard.connection.transport.get_write_buffer_size()
            assert waiting < 65_536 + 2 * len(frame.to_bytes())
            # Once it reads again it gets one patch to the newest frame, not the backlog.
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            while laggard.sent.number != frame.number:
                async with asyncio.timeout(10):
                    await loop.sock_recv(slow, 1 << 16)
            assert served.server.counters["frames_skipped"] >= 40
        slow.close()


async def test_nothing_is_sent_without_a_lease() -> None:
    async with serving() as served:
        served.publish()
        async with served.client() as client, served.client() as other:
            mirror, watched = FrameMirror(), FrameMirror()
            await next_frame(client, mirror)
            await next_frame(other, watched)
            await other.send('{"op": "lease", "seconds": 60}')
            await until(lambda: served.server.counters["heard_lease"] == 1)
            served.clock.now += stream.FIRST_LEASE + 1
            for _ in range(5):
                frame = served.publish()
                await next_frame(other, watched)
            assert served.server.counters["leases_lapsed"] == 1
            assert served.server.counters["frames_sent"] == 7
            # Renewed: one patch from what it has to the newest.
            await client.send('{"op": "lease", "seconds": 10}')
            assert (await next_frame(client, mirror)).number == frame.number


async def test_a_snapshot_is_sent_on_request() -> None:
    async with serving() as served:
        served.publish()
        async with served.client() as client:
            await next_frame(client, FrameMirror())
            lost = served.publish()
            await client.recv()
            await client.send('{"op": "snapshot"}')
            assert (await next_frame(client, FrameMirror())).hash == lost.hash


async def test_a_client_may_want_some_underlyings_only() -> None:
    async with serving() as served:
        served.publish()
        async with served.client() as client:
            mirror = FrameMirror()
            await next_frame(client, mirror)
            await client.send('{"op": "hello", "want": ["ETH", "XRP"]}')
            async with asyncio.timeout(10):
                while list((await next_frame(client, mirror)).surfaces) != ["ETH"]:
                    served.publish()
            frame = served.publish()
            copy = await next_frame(client, mirror)
            while copy.number != frame.number:
                copy = await next_frame(client, mirror)
            assert copy.hash == frame.select(["ETH"]).hash != frame.hash


async def test_what_is_wanted_may_be_said_in_the_address() -> None:
    async with serving() as served:
        frame = served.publish()
        async with served.client(f"{stream.PATH}?want=ETH,XRP") as client:
            copy = await next_frame(client, FrameMirror())
            assert list(copy.surfaces) == ["ETH"]
            assert copy.hash == frame.select(["ETH"]).hash


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"\x00\x01", 1003, "JSON text"),
        ("not json", 1008, "not a message of this protocol"),
        ('{"op": "reboot"}', 1008, "Invalid value 'reboot'"),
        ('{"want": []}', 1008, "missing required field"),
        ('{"op": "lease"}', 1008, "missing required field"),
        ('{"op": "lease", "seconds": 0}', 1008, "more than 0"),
        ('{"op": "lease", "seconds": 1e9}', 1008, "at most 60"),
        ('{"op": "lease", "seconds": "long"}', 1008, "Expected `float`"),
        ('{"op": "hello", "want": ' + json.dumps(["X"] * 65) + "}", 1008, "at most 64"),
        ('{"op": "hello", "want": [' + '"' + "X" * 33 + '"]}', 1008, "32 letters"),
        ('{"op": "hello", "want": {"a": 1}}', 1008, "Expected `array`"),
        ("[" * 2000, 1008, "not a message of this protocol"),
        ("x" * 5000, 1009, ""),
    ],
)
async def test_a_client_that_speaks_nonsense_is_told_why_and_closed(
    message: str | bytes, code: int, reason: str
) -> None:
    async with serving() as served, served.client() as bad, served.client() as good:
        await bad.send(message)
        closing = await closed(bad)
        assert closing.code == code
        assert reason in closing.reason
        await good.recv()
        frame = served.publish()
        assert (await next_frame(good, FrameMirror())).number == frame.number


async def test_a_client_that_never_stops_talking_is_closed() -> None:
    async with serving() as served, served.client() as client:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1000):
                await client.send('{"op": "lease", "seconds": 5}')
                await asyncio.sleep(0)
        assert "messages a second" in (await closed(client)).reason
        assert served.server.counters["messages_refused"] == 1


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 404),
        ("/v2/stream", {}, 404),
        (f"{stream.PATH}?want={'X' * 33}", {}, 400),
        (f"{stream.PATH}?want={','.join('ABCDEFGHIJ' * 7)}", {}, 400),
        (stream.PATH, {"origin": "https://evil.example"}, 403),
        (stream.PATH, {"origin": "null"}, 403),
    ],
)
async def test_other_paths_and_pages_are_refused(path: str, headers: dict[str, str], status: int) -> None:
    async with serving() as served:
        with pytest.raises(InvalidStatus) as refused:
            async with served.client(path, **headers):
                pass
        assert refused.value.response.status_code == status
        assert served.server.counters["requests_refused"] == 1


async def test_a_page_of_this_machine_is_welcome() -> None:
    async with serving() as served, served.client(origin="http://localhost:8866") as client:
        await client.recv()


async def test_clients_are_told_when_the_engine_stops() -> None:
    async with serving() as served, served.client() as client:
        await client.recv()
        await served.server.stop()
        assert (await closed(client)).code == 1001
