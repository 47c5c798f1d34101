"""The simulated exchange on real sockets. Every wait is for a condition, with a limit."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from volsurf.sim.deribit import SimulatedDeribit
from volsurf.sim.listing import to_ns
from volsurf.sim.market import Market

LIMIT = 20.0


def server(underlyings: tuple[str, ...] = ("BTC",), *, start_ns: int | None = None, **options: Any) -> SimulatedDeribit:
    market = Market(1, underlyings, start_ns=start_ns or time.time_ns(), step_ns=options.pop("step_ns", 100_000_000))
    return SimulatedDeribit(market, **options)


def join(url: str, **options: Any) -> connect:
    return connect(url, max_size=None, ping_interval=None, close_timeout=1, **options)


async def ask(ws: ClientConnection, method: str, **params: Any) -> Any:
    """The result of a request; what else arrives before it is dropped."""
    await ws.send(json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}))
    async with asyncio.timeout(LIMIT):
        while True:
            said = json.loads(await ws.recv())
            if said.get("id") == method:
                assert "error" not in said, said
                return said["result"]


async def last_words(ws: ClientConnection, into: list[Any] | None = None) -> None:
    """Read until the connection ends, which raises."""
    async with asyncio.timeout(LIMIT):
        while True:
            said = await ws.recv()
            if into is not None:
                into.append(json.loads(said))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something the server does."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 (the server has no event for this)
            await asyncio.sleep(0.01)


async def get(url: str) -> Any:
    def fetch() -> Any:
        with urllib.request.urlopen(url, timeout=LIMIT) as answer:
            return json.load(answer)

    return await asyncio.to_thread(fetch)


async def test_a_client_sees_a_live_market() -> None:
    async with server(("BTC", "SOL")) as sim, join(sim.url) as ws:
        names = [
            row["instrument_name"] for row in await ask(ws, "public/get_instruments", currency="BTC", kind="option")
        ]
        channels = [f"ticker.{name}.100ms" for name in names[:500]]
        assert len(await ask(ws, "public/subscribe", channels=channels)) == 500
        stamps: dict[str, set[int]] = {}
        async with asyncio.timeout(LIMIT):
            while len(stamps) < 500 or min(map(len, stamps.values())) < 3:
                said = json.loads(await ws.recv())["params"]
                stamps.setdefault(said["channel"], set()).add(said["data"]["timestamp"])
        latest = max(max(times) for times in stamps.values())
        assert abs(latest - time.time_ns() // 1_000_000) < 5000, "its time is ours"
        assert sim.stats["messages_sent"] > 1500


async def test_missing_a_test_request_costs_the_connection() -> None:
    async with server(probe_seconds=0.2) as sim, join(sim.url) as ws, join(sim.url) as well_behaved:
        for client in (ws, well_behaved):
            assert await ask(client, "public/set_heartbeat", interval=10) == "ok"

        async def answer() -> None:
            async for message in well_behaved:
                if json.loads(message).get("params", {}).get("type") == "test_request":
                    await well_behaved.send('{"jsonrpc":"2.0","id":1,"method":"public/test"}')

        task = asyncio.create_task(answer())
        with pytest.raises(ConnectionClosed) as closed:
            await last_words(ws)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.reason == "test_request was not answered"
        await until(lambda: sim.stats["heartbeats_answered"] >= 3)
        assert (sim.stats["heartbeats_missed"], sim.stats["clients"]) == (1, 1)
        task.cancel()


async def test_the_thirty_third_connection_is_refused() -> None:
    async with server() as sim:
        clients = [await join(sim.url) for _ in range(32)]
        with pytest.raises(InvalidStatus) as refused:
            await join(sim.url)
        assert refused.value.response.status_code == 429
        await clients.pop().close()
        await until(lambda: sim.stats["clients"] == 31)
        clients.append(await join(sim.url))
        assert sim.stats["connections_refused"] == 1
        for client in clients:
            await client.close()


async def test_a_client_that_does_not_read_is_cut_and_the_others_live() -> None:
    async with server(buffer_limit=64 * 1024) as sim, join(sim.url) as reader:
        # A raw socket, because a library keeps reading for its user.
        raw = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", sim.port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(
            b"GET /ws/api/v2 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await until(lambda: sim.stats["clients"] == 2)
        request = json.dumps({"id": 1, "method": "public/get_instruments", "params": {"currency": "any"}}).encode()
        for _ in range(12):
            raw.sendall(bytes((0x81, 0x80 | len(request))) + bytes(4) + request)
        await until(lambda: sim.stats.get("cut_too_slow", 0) == 1)
        assert await ask(reader, "public/test")
        assert sim.stats["clients"] == 1
        raw.close()


async def test_too_many_requests_end_the_connection() -> None:
    async with server() as sim, join(sim.url) as ws:
        for i in range(12):
            await ws.send(json.dumps({"id": i, "method": "public/subscribe", "params": {"channels": []}}))
        replies: list[Any] = []
        with pytest.raises(ConnectionClosed):
            await last_words(ws, replies)
        codes = [reply.get("error", {}).get("code") for reply in replies]
        assert codes == [None] * 10 + [10028]


async def test_an_accelerated_clock_rolls_the_expiries_in_seconds() -> None:
    start = to_ns(datetime(2026, 11, 27, 7, 58, tzinfo=UTC))
    async with server(start_ns=start, time_scale=600.0, step_ns=60_000_000_000) as sim, join(sim.url) as ws:
        before = {
            row["instrument_name"] for row in await ask(ws, "public/get_instruments", currency="BTC", kind="option")
        }
        dying = sorted(name for name in before if name.startswith("BTC-27NOV26-"))
        assert dying
        await ask(ws, "public/subscribe", channels=["instrument.state.option.BTC"])
        opened, delivered = set(), set()
        async with asyncio.timeout(LIMIT):
            while not (opened and delivered >= set(dying)):
                data = json.loads(await ws.recv())["params"]["data"]
                {"open": opened, "delivered": delivered, "settlement": set()}[data["state"]].add(
                    data["instrument_name"]
                )
        after = {
            row["instrument_name"] for row in await ask(ws, "public/get_instruments", currency="BTC", kind="option")
        }
        assert not after & set(dying)
        assert any(name.startswith("BTC-1DEC26-") for name in after)


@pytest.mark.parametrize("rate", [0.0, 20_000.0])
async def test_bursts_reach_every_client_and_each_message_is_whole(rate: float) -> None:
    async with server(rate=rate) as sim, join(sim.url) as one, join(sim.url) as two:
        names = [
            row["instrument_name"] for row in await ask(one, "public/get_instruments", currency="BTC", kind="option")
        ]
        halves = (names[:200], names[200:400])
        for ws, half in zip((one, two), halves, strict=True):
            await ask(ws, "public/subscribe", channels=[f"ticker.{name}.100ms" for name in half])
        for ws, half in zip((one, two), halves, strict=True):
            seen = set()
            async with asyncio.timeout(LIMIT):
                for _ in range(3000):
                    said = json.loads(await ws.recv())["params"]
                    assert said["data"]["instrument_name"] in half
                    seen.add((said["data"]["instrument_name"], said["data"]["timestamp"]))
            assert len({name for name, _ in seen}) == 200


async def test_the_truth_is_a_page(tmp_path: object) -> None:
    async with server(("BTC", "SOL")) as sim:
        page = await get(f"{sim.http_url}/truth?underlying=SOL_USDC")
        assert list(page["underlyings"]) == ["SOL"]
        slices = page["underlyings"]["SOL"]["slices"]
        assert len(slices) >= 11
        for s in slices:
            assert s["time_ns"] == page["time_ns"]
            assert len(s["strikes"]) == len(s["vols"]) > 10
            k = np.log(np.array(s["strikes"]) / s["forward"])
            p = s["svi"]
            w = p["a"] + p["b"] * (p["rho"] * (k - p["m"]) + np.sqrt((k - p["m"]) ** 2 + p["sigma"] ** 2))
            np.testing.assert_allclose(np.sqrt(w / s["years"]), s["vols"], rtol=1e-9)
        assert set((await get(f"{sim.http_url}/truth"))["underlyings"]) == {"BTC", "SOL"}
        assert (await get(f"{sim.http_url}/stats"))["heartbeats_missed"] == 0
        for page_url in ("/truth?underlying=DOGE", "/nothing"):
            with pytest.raises(urllib.error.HTTPError) as missing:
                await get(sim.http_url + page_url)
            assert missing.value.code == 404
            missing.value.close()


async def test_a_fault_in_a_tick_ends_the_connections_and_is_raised() -> None:
    sim = server()
    await sim.open()
    async with join(sim.url) as ws:
        sim.exchange.quotes.universe = None  # type: ignore[attr-defined]
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(LIMIT):
                await ws.recv()
    with pytest.raises(AttributeError):
        await sim.close()


async def test_closing_frees_the_port_and_tells_the_clients() -> None:
    sim = server()
    await sim.open()
    port = sim.port
    async with join(sim.url) as ws:
        await ask(ws, "public/test")
        await sim.close()
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(LIMIT):
                await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_serves_and_ends_cleanly(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "volsurf.cli", "sim", "--json", "--seed", "3", "--underlyings", "BTC,SOL_USDC"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["url"] == f"ws://127.0.0.1:{said['port']}/ws/api/v2"
        with urllib.request.urlopen(said["truth_url"], timeout=LIMIT) as answer:
            assert set(json.load(answer)["underlyings"]) == {"BTC", "SOL"}
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (0, "", "")


def test_the_command_ends_with_its_standard_input_where_asked() -> None:
    command = [sys.executable, "-m", "volsurf.cli", "sim", "--until-eof", "--underlyings", "BTC"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("deribit (simulated)  ws://127.0.0.1:")
        process.stdin.write("anything said there is ignored\n")
        process.stdin.flush()
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (0, "")
    assert "/truth" in err


@pytest.mark.parametrize(
    "arguments", [["--rate", "fast"], ["--rate", "-3"], ["--venue", "nyse"], ["--start", "noon"], ["--truth", "sabr"]]
)
def test_wrong_flags_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from volsurf.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["sim", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--underlyings", "DOGE"], ["--time-scale", "0"], ["--port", "1"]])
def test_wrong_values_are_reported_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from volsurf.cli import main

    if arguments[0] == "--port" and os.geteuid() == 0:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            arguments = ["--port", str(taken.getsockname()[1])]
            assert main(["sim", *arguments]) == 1
    else:
        assert main(["sim", *arguments]) == 1
    assert capsys.readouterr().err.startswith("volsurf: ")
