"""How many websocket frames a second one core takes: three ways of reading, and the whole way from socket to quote batch.

    python -m tests.bench.bench_sockets [--seconds S] [--repeats N] [--json]

A second process sends text frames over loopback as fast as they are taken. The ways:

- `asyncio recv`: websockets' asyncio client, `recv(decode=False)` in a loop;
- `sans-I/O`: its `ClientProtocol` under an `asyncio.Protocol` of our own;
- `fast`: volsurf's `FastConnection` (the asyncio client with its frame reading replaced), handing over bytes;
- `quotes`: `VenueFeed` with a `Deribit` on that connection: frames of 1,000 options to one `QuoteBatch` every 10 ms, while the
  sender asks for a heartbeat once a second and times the answer.

The first three do nothing with a frame, so that only the reading is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import socket
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from tests.bench.bench_deribit import NAMES, tickers
from tests.feeds.deribit_frames import TEST_REQUEST, future_row, option_row
from volsurf.feeds._socket import FastConnection
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.venue_feed import VenueFeed

Result = dict[str, float]
PLAIN_SIZE = 600


def text_frame(payload: bytes) -> bytes:
    """A server's unmasked text frame."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


def serve(pipe: Pipe, sessions: int) -> None:
    """The sending process: one connection after another, each until the other end hangs up."""
    plain = b"".join(text_frame((b'{"n":%08d,"x":"' % i).ljust(PLAIN_SIZE - 2, b"x") + b'"}') for i in range(400))
    quotes = [text_frame(frame) for frame in tickers(4)]
    blocks = [b"".join(quotes[start : start + 250]) for start in range(0, len(quotes), 250)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname()[1])
        for _ in range(sessions):
            peer, _ = server.accept()
            with peer, contextlib.suppress(OSError):
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                protocol = ServerProtocol()
                if _handshake(peer, protocol) == "/plain":
                    while True:
                        peer.sendall(plain)
                pipe.send(_blast(peer, protocol, blocks))


def _handshake(peer: socket.socket, protocol: ServerProtocol) -> str:
    events: list[Event] = []
    while not events:
        protocol.receive_data(peer.recv(65536))
        events = protocol.events_received()
    request: Any = events[0]
    protocol.send_response(protocol.accept(request))
    _send(peer, protocol)
    return str(request.path)


def _send(peer: socket.socket, protocol: ServerProtocol) -> None:
    for data in protocol.data_to_send():
        if data:
            peer.sendall(data)


def _blast(peer: socket.socket, protocol: ServerProtocol, blocks: list[bytes]) -> Result:
    """Answer until subscribed, then send quotes at full speed; returns how long heartbeats took to be answered."""
    listing = {"option": [option_row(name) for name in NAMES], "future": [future_row("BTC-PERPETUAL")]}
    subscribed, block, asked_at, next_ask = False, 0, 0.0, 0.0
    waits: list[float] = []
    peer.setblocking(True)
    try:
        while True:
            if subscribed:
                peer.sendall(blocks[block % len(blocks)])
                block += 1
                if not asked_at and time.perf_counter() >= next_ask:
                    peer.sendall(text_frame(TEST_REQUEST))
                    asked_at = time.perf_counter()
                peer.settimeout(1e-9)  # look, do not wait
            try:
                data = peer.recv(1 << 20)
            except (TimeoutError, BlockingIOError):
                data = None
            finally:
                peer.setblocking(True)
            if data is None:
                continue
            if not data:
                break
            protocol.receive_data(data)
            for event in protocol.events_received():
                if not isinstance(event, Frame) or event.opcode is not Opcode.TEXT:
                    return _waits(waits)
                request = json.loads(bytes(event.data))
                method, params = request["method"], request["params"]
                if method == "public/test" and asked_at:
                    waits.append(time.perf_counter() - asked_at)
                    next_ask, asked_at = time.perf_counter() + 1.0, 0.0
                result = listing[params["kind"]] if method.endswith("instruments") else params.get("channels", "ok")
                protocol.send_text(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())
                subscribed = subscribed or any("trades" in channel for channel in params.get("channels", ()))
            _send(peer, protocol)
    except OSError:
        pass
    return _waits(waits)


def _waits(waits: list[float]) -> Result:
    return {"heartbeats": len(waits), "heartbeat_wait_max_ms": 1e3 * max(waits, default=float("nan"))}


async def asyncio_recv(url: str, seconds: float) -> Result:
    """websockets' asyncio client."""
    messages = 0
    socket_ = await connect(url + "/plain", compression=None, ping_interval=None, proxy=None, max_queue=1024)
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        for _ in range(200):
            await socket_.recv(decode=False)
        messages += 200
    result = _result(messages, start, cpu)
    socket_.transport.abort()
    await socket_.wait_closed()
    return result


class _SansIO(asyncio.Protocol):
    def __init__(self, url: str) -> None:
        self.protocol = ClientProtocol(parse_uri(url))
        self.messages = 0
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.protocol.send_request(self.protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Frame):
                bytes(event.data)
                self.messages += 1
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)


async def sans_io(url: str, seconds: float) -> Result:
    """Its sans-I/O core."""
    uri = parse_uri(url)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(lambda: _SansIO(url + "/plain"), uri.host, uri.port)
    await asyncio.sleep(0.1)
    start, cpu, before = time.perf_counter(), time.process_time(), protocol.messages
    await asyncio.sleep(seconds)
    result = _result(protocol.messages - before, start, cpu)
    transport.abort()
    await protocol.lost
    return result


async def fast(url: str, seconds: float) -> Result:
    """The connection volsurf uses."""
    sizes = [0]

    def take(message: bytes, now: int) -> None:
        sizes[0] += 1

    def factory(*args: Any, **keywords: Any) -> FastConnection:
        return FastConnection(*args, clock=time.time_ns, **keywords)

    socket_: Any = await connect(
        url + "/plain",
        compression=None,
        ping_interval=None,
        proxy=None,
        create_connection=factory,  # type: ignore[arg-type]
    )
    socket_.start(take, lambda: None)
    await asyncio.sleep(0.1)
    start, cpu, before = time.perf_counter(), time.process_time(), sizes[0]
    await asyncio.sleep(seconds)
    result = _result(sizes[0] - before, start, cpu)
    socket_.transport.abort()
    await socket_.wait_closed()
    return result


async def quotes(url: str, seconds: float) -> Result:
    """From the socket to one batch every 10 ms."""
    feed = VenueFeed([Deribit(["BTC"], url=url + "/quotes")], tick=0.01, proxy=None)
    stop = asyncio.Event()
    rows = [0]

    def on_tick(batch: Any, events: Any) -> None:
        rows[0] += 0 if batch is None else len(batch)

    running = asyncio.ensure_future(feed.run(stop, on_tick))
    await asyncio.sleep(1.0)
    assert feed.is_ready
    start, cpu, before = time.perf_counter(), time.process_time(), feed.counters["ticker"]
    batches, rows[0] = feed.batches, 0
    await asyncio.sleep(seconds)
    result = _result(feed.counters["ticker"] - before, start, cpu)
    result |= {"batches_per_second": (feed.batches - batches) / seconds, "rows_per_second": rows[0] / seconds}
    stats = feed.connections[0].stats
    result |= {"timer_late_max_ms": stats.timer_late_max_ns / 1e6, "malformed": feed.counters.get("malformed.json", 0)}
    stop.set()
    await running
    return result


def _result(messages: int, start: float, cpu: float) -> Result:
    elapsed, used = time.perf_counter() - start, time.process_time() - cpu
    return {"frames_per_second": messages / elapsed, "cpu_us_per_frame": 1e6 * used / messages}


WAYS: dict[str, Callable[[str, float], Awaitable[Result]]] = {
    "asyncio recv": asyncio_recv,
    "sans-I/O": sans_io,
    "fast": fast,
    "quotes": quotes,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each; the best is shown")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    sender = multiprocessing.Process(target=serve, args=(theirs, len(WAYS) * arguments.repeats), daemon=True)
    sender.start()
    url = f"ws://127.0.0.1:{ours.recv()}"
    table: dict[str, Result] = {}
    for _ in range(arguments.repeats):
        for name, way in WAYS.items():
            result = asyncio.run(way(url, arguments.seconds))  # type: ignore[arg-type]
            if name == "quotes":
                result |= ours.recv()
            if name not in table or result["frames_per_second"] > table[name]["frames_per_second"]:
                table[name] = result
    sender.join(5)
    sender.kill()
    for name, result in table.items():
        rate, cpu = result.pop("frames_per_second"), result.pop("cpu_us_per_frame")
        rest = ", ".join(f"{key} {value:.1f}" for key, value in result.items())
        print(f"{name:14s} {rate:12,.0f} frames/s {cpu:8.2f} µs CPU a frame   {rest}")
        result |= {"frames_per_second": rate, "cpu_us_per_frame": cpu}
    if arguments.json:
        print(json.dumps({f"{n}.{k}": round(v, 3) for n, result in table.items() for k, v in result.items()}))


if __name__ == "__main__":
    main()
