"""HTTP beside a socket: answers reach the venue, nothing else does, and the socket is read all the while."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from tests.feeds.loopback import TIMEOUT, RecordingBackoff, eventually, tcp_server, websocket_server
from tests.feeds.scripted import Scripted, quote
from volsurf.feeds import _http
from volsurf.feeds._http import HttpRequests
from volsurf.feeds.connection import Connection
from volsurf.feeds.protocol import HttpRequest

Page = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


@contextlib.asynccontextmanager
async def http_server(page: Page) -> AsyncIterator[str]:
    """Gives each request's head to `page`; yields the base address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await page(head, writer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with tcp_server(handle) as url:
        yield url.replace("ws://", "http://")


def fixed(data: bytes) -> Page:
    async def page(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return page


async def never(head: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def asked(request: HttpRequest, seconds: float = 5.0, most_bytes: int = 1 << 20) -> tuple[int, bytes]:
    """The one answer to a request."""
    answers: list[tuple[HttpRequest, int, bytes]] = []
    requests = HttpRequests(lambda *one: answers.append(one), proxy=None, seconds=seconds, most_bytes=most_bytes)
    requests.make([request])
    await eventually(lambda: answers)
    await requests.close()
    ((told, status, body),) = answers
    assert told is request
    assert requests.outstanding == 0
    return status, body


def get(url: str) -> HttpRequest:
    return HttpRequest("GET", url, "key")


async def test_an_answer() -> None:
    heads: list[str] = []

    async def page(head: str, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer(gzip.compress(b'{"ok":1}'), headers="Content-Encoding: gzip\r\n"))

    async with http_server(page) as url:
        assert await asked(get(url + "/eapi/v1/exchangeInfo?a=1")) == (200, b'{"ok":1}')
        assert await asked(HttpRequest("POST", url + "/x", "key", b'{"q":1}', headers=(("x-mine", "1"),))) == (
            200,
            b'{"ok":1}',
        )
    assert heads[0].startswith("GET /eapi/v1/exchangeInfo?a=1 HTTP/1.1")
    assert "user-agent: volsurf" in heads[0].lower()
    assert heads[1].startswith("POST /x ")
    assert "x-mine: 1\r\n" in heads[1]
    assert "content-type: application/json" in heads[1].lower()
    assert "content-length: 7" in heads[1].lower()


@pytest.mark.parametrize("status", [302, 400, 404, 418, 429, 500, 503])
async def test_errors_of_the_venue_come_as_they_are(status: int) -> None:
    said = answer(b'{"code":-1003}', f"{status} Told", "Location: /elsewhere\r\n")
    async with http_server(fixed(said)) as url:
        assert await asked(get(url)) == (status, b'{"code":-1003}')


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", b"RemoteProtocolError"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"RemoteProtocolError"),
        (answer(b"x" * 100)[:-50], b"RemoteProtocolError"),
        (answer(b"not gzip", headers="Content-Encoding: gzip\r\n"), b"DecodingError"),
        (answer(b"x" * 5000), b"more than 4096 bytes"),
        (answer(gzip.compress(bytes(1 << 20)), headers="Content-Encoding: gzip\r\n"), b"more than 4096 bytes"),
    ],
)
async def test_what_is_no_answer(data: bytes, why: bytes) -> None:
    async with http_server(fixed(data)) as url:
        status, body = await asked(get(url), most_bytes=4096)
    assert status == 0
    assert why in body


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "", "ftp://127.0.0.1/x", "http://[::1", "http://no.such.host.invalid/"]
)
async def test_addresses_that_cannot_be_reached(url: str) -> None:
    status, body = await asked(get(url))
    assert status == 0
    assert body


async def test_no_answer_in_time() -> None:
    async with http_server(never) as url:
        assert await asked(get(url), seconds=0.05) == (0, b"no answer within 0.05 s")


async def test_loopback_is_reached_without_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    answers: list[tuple[HttpRequest, int, bytes]] = []
    requests = HttpRequests(lambda *one: answers.append(one))
    async with http_server(fixed(answer(b"ok"))) as url:
        requests.make([get(url), get("http://venue.invalid/x")])
        await eventually(lambda: len(answers) == 2)
    await requests.close()
    told = {request.url: (status, body) for request, status, body in answers}
    assert told[url] == (200, b"ok")
    assert told["http://venue.invalid/x"][0] == 0
    assert b"ConnectError" in told["http://venue.invalid/x"][1], "refused by the proxy, which is not there"


async def test_a_proxy_of_ones_own_is_used() -> None:
    heads: list[str] = []

    async def page(head: str, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer(b"through"))

    answers: list[tuple[HttpRequest, int, bytes]] = []
    async with http_server(page) as url:
        requests = HttpRequests(lambda *one: answers.append(one), proxy=url)
        requests.make([get("http://venue.invalid/x")])
        await eventually(lambda: answers)
        await requests.close()
    assert answers[0][1:] == (200, b"through")
    assert heads[0].startswith("GET http://venue.invalid/x ")


async def test_a_client_that_could_not_be_made_is_made_at_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    make, failures = _http._make_client, [OSError("Too many open files")]

    def fail_once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return make(*arguments)

    monkeypatch.setattr(_http, "_make_client", fail_once)
    told: list[tuple[int, bytes]] = []
    requests = HttpRequests(lambda request, status, body: told.append((status, body)), proxy=None)
    async with http_server(fixed(answer(b"page"))) as url:
        for count in (1, 2):
            requests.make([get(url)])
            await eventually(lambda: len(told) == count)  # noqa: B023
        await requests.close()
    assert told == [(0, b"OSError: Too many open files"), (200, b"page")]


async def test_what_was_cancelled_is_never_told() -> None:
    answers: list[tuple[HttpRequest, int, bytes]] = []
    asked_for = asyncio.Event()
    go = asyncio.Event()

    async def page(head: str, writer: asyncio.StreamWriter) -> None:
        asked_for.set()
        await go.wait()
        writer.write(answer(b"late"))

    requests = HttpRequests(lambda *one: answers.append(one), proxy=None)
    async with http_server(page) as url:
        requests.make([get(url)])
        await asked_for.wait()
        await requests.cancel()
        go.set()
        requests.make([get(url)])
        await eventually(lambda: answers)
        await requests.close()
    assert len(answers) == 1


async def test_an_answer_that_was_there_but_not_told_when_the_socket_went_is_never_told() -> None:
    answers: list[tuple[HttpRequest, int, bytes]] = []
    requests = HttpRequests(lambda *one: answers.append(one), proxy=None)

    async def at_once(request: HttpRequest) -> tuple[int, bytes]:
        return 200, b""

    requests._answer = at_once  # type: ignore[method-assign]
    requests.make([get("http://127.0.0.1/")])
    (task,) = requests._tasks
    await asyncio.sleep(0)
    assert task.done()
    assert not answers
    await requests.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not answers


# Under a connection


@contextlib.asynccontextmanager
async def running(venue: Scripted) -> AsyncIterator[Connection]:
    connection = Connection(venue, backoff=RecordingBackoff(random.Random(7)), proxy=None)
    stop = asyncio.Event()
    task = asyncio.ensure_future(connection.run(stop))
    try:
        yield connection
    finally:
        stop.set()
        async with asyncio.timeout(TIMEOUT):
            await task


async def echo(connection: ServerConnection) -> None:
    """A quote a millisecond, until the other side goes."""
    for i in range(1_000_000):
        await connection.send(quote("A", 1.0 + i, None, 1 + i))
        await asyncio.sleep(0.001)


async def test_a_venue_asks_and_is_answered_and_what_it_then_says_is_sent() -> None:
    heard: list[str | bytes] = []

    async def listen(connection: ServerConnection) -> None:
        heard.extend([message async for message in connection])

    async with http_server(fixed(answer(b"[1]"))) as pages, websocket_server(listen) as url:
        venue = Scripted(url=url, ask=pages + "/listing")
        async with running(venue):
            await eventually(lambda: venue.is_ready)
        await eventually(lambda: heard)
    ((key, status, body),) = venue.answers
    assert key.startswith("listing ")
    assert (status, body) == (200, b"[1]")
    assert heard == ['{"subscribe":"all"}']


async def test_the_socket_is_read_while_an_answer_is_awaited() -> None:
    async with http_server(never) as pages, websocket_server(echo) as url:
        venue = Scripted(url=url, ask=pages)
        async with running(venue):
            await eventually(lambda: venue.counters["messages"] > 20)
        assert venue.answers == []


async def test_an_answer_that_comes_after_its_socket_reaches_nobody() -> None:
    """The first socket's request is answered while the second socket's waits: only the second's may come."""
    waiting: list[asyncio.Event] = []

    async def page(head: str, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.Event()
        waiting.append(mine)
        await mine.wait()
        writer.write(answer(str(waiting.index(mine)).encode()))

    sockets: list[ServerConnection] = []

    async def listen(connection: ServerConnection) -> None:
        sockets.append(connection)
        await connection.wait_closed()

    async with http_server(page) as pages, websocket_server(listen) as url:
        venue = Scripted(url=url, ask=pages)
        async with running(venue):
            await eventually(lambda: len(waiting) == 1 and sockets)
            await sockets[0].close()
            await eventually(lambda: len(waiting) == 2)
            waiting[0].set()
            waiting[1].set()
            await eventually(lambda: venue.answers)
    assert [body for _, _, body in venue.answers] == [b"1"]


async def test_what_a_venue_says_at_the_end_of_a_socket_is_not_said_on_the_next() -> None:
    asked: list[str] = []
    heard: list[str | bytes] = []

    class Last(Scripted):
        def disconnected(self, now: int, reason: str) -> None:
            super().disconnected(now, reason)
            self._requests.append(HttpRequest("GET", pages + "/last", "last"))
            self._outbox.append(b"last words")

    async def page(head: str, writer: asyncio.StreamWriter) -> None:
        asked.append(head.split()[1])
        writer.write(answer(b"[]"))

    async def listen(connection: ServerConnection) -> None:
        heard.append(await connection.recv())
        if len(heard) > 1:
            await connection.wait_closed()

    async with http_server(page) as pages, websocket_server(listen) as url:
        venue = Last(url=url, ask=pages + "/listing")
        async with running(venue):
            await eventually(lambda: len(heard) == 2)
    assert asked == ["/listing"] * 2
    assert heard == ['{"subscribe":"all"}'] * 2


async def test_http_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, volsurf.feeds.connection, volsurf.feeds.venue_feed; sys.exit('httpx' in sys.modules)"
    import sys

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
