"""The fast reading of frames: the same messages as the library's own, however the bytes are cut."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from volsurf.feeds._socket import MOST_BYTES, FastConnection


class FakeTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, *limits: Any) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Pair:
    """A connection under test and the server's protocol at its other end, with no socket between."""

    def __init__(self) -> None:
        self.server = ServerProtocol()
        self.transport = FakeTransport()
        self.times = iter(range(1, 10**9))
        self.connection = FastConnection(
            ClientProtocol(parse_uri("ws://venue/"), max_size=MOST_BYTES),
            clock=lambda: next(self.times),
            ping_interval=None,
        )
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.received: list[tuple[bytes, int]] = []
        self.reads = 0

    async def response(self) -> bytes:
        """The bytes that accept the handshake."""
        self.handshake = asyncio.ensure_future(self.connection.handshake())
        await asyncio.sleep(0)
        self.server.receive_data(bytes(self.transport.written))
        self.transport.written.clear()
        (request,) = self.server.events_received()
        self.server.send_response(self.server.accept(request))  # type: ignore[arg-type]
        return b"".join(self.server.data_to_send())

    def start(self) -> None:
        self.connection.start(lambda message, now: self.received.append((message, now)), self.count)

    def count(self) -> None:
        self.reads += 1

    def said_by_client(self) -> list[Frame]:
        """Frames the client has written."""
        self.server.receive_data(bytes(self.transport.written))
        self.transport.written.clear()
        return [event for event in self.server.events_received() if isinstance(event, Frame)]

    async def done(self) -> None:
        if self.connection.protocol.state is not State.CLOSED:
            self.connection.connection_lost(None)
        await asyncio.wait((self.handshake,))


async def opened() -> Pair:
    pair = Pair()
    response = await pair.response()
    pair.connection.data_received(response)
    await pair.handshake
    pair.start()
    return pair


def written(server: ServerProtocol) -> bytes:
    return b"".join(server.data_to_send())


def some_traffic(rng: random.Random, server: ServerProtocol) -> tuple[bytes, list[bytes], int]:
    """Bytes of a random conversation, the messages in it, and the pings."""
    stream, messages, pings = bytearray(), [], 0
    for _ in range(rng.randrange(1, 12)):
        payload = rng.randbytes(rng.choice((0, 1, 125, 126, 127, 600, 65535, 65536, 70000)))
        payload = payload.hex().encode()[: len(payload)]
        how = rng.randrange(5)
        if how <= 1:
            server.send_text(payload)
        elif how == 2:
            server.send_binary(payload)
        elif how == 3:
            cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(2))
            server.send_text(payload[: cuts[0]], fin=False)
            if rng.random() < 0.5:
                server.send_ping(b"inside")
                pings += 1
            server.send_continuation(payload[cuts[0] : cuts[1]], fin=False)
            server.send_continuation(payload[cuts[1] :], fin=True)
        else:
            server.send_ping(b"?")
            pings += 1
            payload = None  # type: ignore[assignment]
        if payload is not None:
            messages.append(payload)
        stream += written(server)
    return bytes(stream), messages, pings


@pytest.mark.parametrize("seed", range(30))
async def test_messages_come_whole_and_in_order_however_the_bytes_are_cut(seed: int) -> None:
    rng = random.Random(seed)
    pair = await opened()
    stream, messages, pings = some_traffic(rng, pair.server)
    position = 0
    while position < len(stream):
        step = rng.choice((1, 2, 3, 4, 7, 100, 5000, 262_144))
        pair.connection.data_received(stream[position : position + step])
        position += step
    assert [message for message, _ in pair.received] == messages
    assert pair.connection.messages == len(messages)
    pongs = [frame for frame in pair.said_by_client() if frame.opcode is Opcode.PONG]
    assert len(pongs) == pings
    await pair.done()


async def test_one_read_has_one_time_and_one_call_afterwards() -> None:
    pair = await opened()
    before = pair.reads
    pair.server.send_text(b"one")
    pair.server.send_text(b"two")
    pair.connection.data_received(written(pair.server))
    pair.server.send_text(b"three")
    pair.connection.data_received(written(pair.server))
    (_, first), (_, second), (_, third) = pair.received
    assert first == second < third
    assert pair.reads == before + 2
    await pair.done()


async def test_messages_right_behind_the_handshake_wait_for_whoever_takes_them() -> None:
    pair = Pair()
    response = await pair.response()
    pair.server.send_text(b"early")
    pair.connection.data_received(response + written(pair.server))
    await pair.handshake
    pair.server.send_text(b"later")
    pair.connection.data_received(written(pair.server))
    assert pair.received == []
    pair.start()
    assert [message for message, _ in pair.received] == [b"early", b"later"]
    await pair.done()


async def test_the_handshake_may_come_byte_by_byte() -> None:
    pair = Pair()
    for byte in await pair.response():
        pair.connection.data_received(bytes([byte]))
    await pair.handshake
    assert pair.connection.protocol.state is State.OPEN
    await pair.done()


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nslow", InvalidStatus),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", InvalidStatus),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", InvalidHandshake),
        (b"\x00\xff" * 40_000, InvalidHandshake),
    ],
)
async def test_a_refused_handshake(response: bytes, error: type[Exception]) -> None:
    pair = Pair()
    await pair.response()
    for start in range(0, len(response), 1000):
        pair.connection.data_received(response[start : start + 1000])
    pair.connection.connection_lost(None)
    with pytest.raises(error):
        await pair.handshake


async def test_masked_frames_are_a_protocol_error_and_nothing_after_them_counts() -> None:
    pair = await opened()
    pair.server.send_text(b"good")
    good = written(pair.server)
    masked = Frame(Opcode.TEXT, b"bad").serialize(mask=True)
    pair.connection.data_received(good + masked + good)
    assert [message for message, _ in pair.received] == [b"good"]
    (close,) = pair.said_by_client()
    assert close.opcode is Opcode.CLOSE
    assert close.data[:2] == (1002).to_bytes(2)
    pair.connection.data_received(good)
    assert len(pair.received) == 1
    await pair.done()


async def test_a_message_too_big_is_refused_at_its_header() -> None:
    pair = await opened()
    pair.connection.data_received(b"\x81\x7f" + (MOST_BYTES + 1).to_bytes(8) + b"x")
    (close,) = pair.said_by_client()
    assert close.data[:2] == (1009).to_bytes(2)
    await pair.done()


@pytest.mark.parametrize("frame", [b"\xf1\x00", b"\x83\x00", b"\xc1\x01x", b"\x80\x01x", b"\x09\x01x"])
async def test_frames_that_cannot_be_close_the_connection(frame: bytes) -> None:
    """Extension bits nobody agreed on, opcodes that are none, a continuation of nothing, a control frame in fragments."""
    pair = await opened()
    pair.connection.data_received(frame)
    (close,) = pair.said_by_client()
    assert close.opcode is Opcode.CLOSE
    assert pair.received == []
    await pair.done()


async def test_a_close_is_answered_and_what_follows_ignored() -> None:
    pair = await opened()
    pair.server.send_text(b"last words")
    pair.server.send_close(1008, "connection_too_slow")
    stream = written(pair.server)
    pair.connection.data_received(stream + Frame(Opcode.TEXT, b"too late").serialize(mask=False))
    assert [message for message, _ in pair.received] == [b"last words"]
    assert [frame.opcode for frame in pair.said_by_client()] == [Opcode.CLOSE]
    await pair.done()
    assert pair.connection.close_reason == "connection_too_slow"


async def test_posting_writes_text_now_and_nothing_once_closed() -> None:
    pair = await opened()
    pair.connection.post([b"one", b"two"])
    assert [bytes(frame.data) for frame in pair.said_by_client()] == [b"one", b"two"]
    pair.connection.halt()
    pair.server.send_text(b"ignored")
    pair.connection.data_received(written(pair.server))
    assert pair.received == []
    pair.connection.connection_lost(None)
    pair.connection.post([b"three"])
    assert not pair.transport.written
    await pair.done()
