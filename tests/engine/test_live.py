from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest

from tests.engine.exchange import Exchange, gone, until
from volsurf._jit import ensure_compiled
from volsurf.engine import live as live_module, session as session_module
from volsurf.engine.link import open_link
from volsurf.engine.listener import default_port
from volsurf.engine.live import Engine
from volsurf.engine.log import frame_entry
from volsurf.engine.session import Session, attach
from volsurf.errors import ConfigError, EngineError, InputError

KEYS = [
    "seconds",
    "frames",
    "frames_per_second",
    "messages",
    "expiries_listed",
    "expiries_fitted",
    "slices_published",
    "slices_certified",
    "heartbeats_missed",
]


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    # On a machine that has never compiled the kernels, not while an engine is being timed.
    ensure_compiled()
    exchange = Exchange(("BTC", "SOL"))
    yield exchange
    exchange.close()


@pytest.fixture(scope="module")
def engine(exchange: Exchange) -> Iterator[Engine]:
    with Engine("deribit", ["BTC"], url=exchange.url, port=0, silent_seconds=1.5) as engine:
        engine.wait_ready(60)
        yield engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with attach(engine.stream_url) as session:
        session.wait(30)
        yield session


def test_every_listed_expiry_is_fitted_ten_times_a_second(engine: Engine, session: Session) -> None:
    before = engine.summary()
    first = session.frame
    until(lambda: session.frame.number >= first.number + 10)
    frame = session.frame
    assert len(frame.surfaces["BTC"].smiles) == len(frame.listed["BTC"]) >= 10
    assert all(smile.fit is not None for smile in frame.surfaces["BTC"].smiles)
    assert frame.health["deribit"].state == "ready"
    assert frame.feed_numbers["deribit"] > first.feed_numbers["deribit"]
    assert frame.timings["total"] > 0
    until(lambda: engine.summary()["frames"] >= before["frames"] + 10)
    after = engine.summary()
    assert list(after) == KEYS
    assert after["messages"] > before["messages"]
    assert after["expiries_fitted"] == after["expiries_listed"] == len(frame.listed["BTC"])
    assert 0 < after["slices_certified"] <= after["slices_published"]


def test_a_feed_that_is_killed_comes_back(engine: Engine, session: Session, exchange: Exchange) -> None:
    old, connections, restarts = engine.pids["feed deribit"], exchange.connections, engine.restarts
    last = session.frame.surfaces["BTC"]
    os.kill(old, signal.SIGKILL)
    until(lambda: engine.pids.get("feed deribit") not in (None, old))
    until(lambda: exchange.connections > connections)
    until(lambda: session.frame.health["deribit"].is_live and session.frame.surfaces["BTC"].time_ns > last.time_ns)
    # At no time was there no surface, and afterwards it is whole.
    assert len(session.frame.surfaces["BTC"].smiles) == len(session.frame.listed["BTC"])
    assert engine.restarts == restarts + 1
    until(lambda: engine.status == "running")
    assert gone([old])


def test_a_core_that_is_killed_gets_everything_from_the_feed(
    engine: Engine, session: Session, exchange: Exchange
) -> None:
    old, connections, frames = engine.pids["core"], exchange.connections, engine.summary()["frames"]
    listed, feed = session.frame.listed["BTC"], engine.pids["feed deribit"]
    os.kill(old, signal.SIGKILL)
    until(lambda: not session.connected)
    until(lambda: session.connected and session.health["connections"] >= 2)
    until(lambda: session.health["frame"] is not None and session.age < 1 and not session.status)
    until(lambda: session.frame.health["deribit"].is_live)
    until(lambda: session.frame.listed["BTC"] == listed and len(session.frame.surfaces["BTC"].smiles) == len(listed))
    # The exchange noticed nothing: the same process, the same connection.
    assert exchange.connections == connections
    assert engine.pids["feed deribit"] == feed
    until(lambda: engine.summary()["frames"] > frames)


def test_a_link_that_breaks_is_made_anew_between_living_processes(
    engine: Engine, session: Session, exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    pids, connections, restarts = engine.pids, exchange.connections, engine.restarts
    before = session.frame
    # The core is handed a link that brings nonsense: it closes the feed's end and then that one.
    ours, theirs = open_link()
    ours.sendall(frame_entry(b"nonsense"))
    engine._core.channel.send_sockets({"op": "link", "feed": 0, "link": 0}, [theirs])
    until(lambda: "the link of the feed deribit process to the core broke" in caplog.text)
    ours.close()
    until(lambda: session.frame.health["deribit"].is_live and session.frame.number > before.number + 5)
    until(lambda: session.frame.surfaces["BTC"].time_ns > before.time_ns + 1_000_000_000)
    # The feed began with all it knows, so nothing was listed twice or lost.
    assert session.frame.listed == before.listed
    assert len(session.frame.surfaces["BTC"].smiles) == len(before.listed["BTC"])
    assert (engine.pids, exchange.connections, engine.restarts) == (pids, connections, restarts)


def test_a_core_that_is_suspended_is_seen_and_goes_on_without_a_backlog(
    engine: Engine, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "STALE_SECONDS", 0.6)
    core, before = engine.pids["core"], session.frame
    os.kill(core, signal.SIGSTOP)
    try:
        until(lambda: "no frame for" in session.status)
    finally:
        os.kill(core, signal.SIGCONT)
    until(lambda: session.status == "" and session.frame.number > before.number + 5)
    # Ticks that passed meanwhile are dropped: frame numbers went on where they were.
    elapsed = (session.frame.time_ns - before.time_ns) / 1e9
    assert session.frame.number - before.number < 10 * (elapsed - 0.5) + 2
    assert session.frame.health["deribit"].is_live


def test_a_feed_that_is_suspended_is_called_silent_and_recovers(engine: Engine, session: Session) -> None:
    feed = engine.pids["feed deribit"]
    os.kill(feed, signal.SIGSTOP)
    try:
        until(lambda: session.frame.health["deribit"].state == "silent")
        assert "nothing heard for" in session.frame.health["deribit"].sentence
        held = session.frame.surfaces["BTC"]
    finally:
        os.kill(feed, signal.SIGCONT)
    until(lambda: session.frame.health["deribit"].is_live and session.frame.surfaces["BTC"].time_ns > held.time_ns)


def test_an_exchange_that_stops_sending_is_called_silent_and_recovers(
    engine: Engine, session: Session, exchange: Exchange
) -> None:
    with exchange.held():
        began = time.time_ns()

        def is_silent_since() -> bool:
            # Heard last about when it fell silent: not the tail of an earlier silence, after which it would be live again.
            frame = session.frame
            health = frame.health["deribit"]
            return health.state == "silent" and frame.time_ns - health.silent_ns > began - 1_000_000_000

        until(is_silent_since)
        held = session.frame.surfaces["BTC"]
        number = session.frame.number
        # Frames go on, and say so.
        until(lambda: session.frame.number > number + 3)
        assert session.frame.surfaces["BTC"] is held
    until(lambda: session.frame.health["deribit"].is_live and session.frame.surfaces["BTC"].time_ns > held.time_ns)


def test_two_clients_get_the_same_frames(engine: Engine, session: Session) -> None:
    with Session(engine.stream_url) as other:
        other.wait(30)
        hashes: dict[int, bytes] = {}
        for frame in other.frames():
            hashes[frame.number] = frame.hash
            if len(hashes) == 3:
                break
        until(lambda: engine.stream_figures["clients"] == 2)
        mine = {}
        for frame in session.frames():
            mine[frame.number] = frame.hash
            if len(mine) == 3:
                break
        assert all(hashes[number] == mine[number] for number in set(hashes) & set(mine))


def test_stopping_leaves_nothing_behind(exchange: Exchange) -> None:
    process = psutil.Process()
    before = process.num_fds()
    with Engine("deribit", ["BTC"], url=exchange.url, port=0) as engine:
        port = urlsplit(engine.stream_url).port
        engine.wait_ready(60)
        pids = list(engine.pids.values())
        assert len(pids) == 2
        started = time.monotonic()
        engine.stop()
        assert time.monotonic() - started < 5
    assert gone(pids)
    assert engine.status == "stopped"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0))
    assert process.num_fds() <= before


def test_a_feed_divides_its_instruments_among_connections(exchange: Exchange) -> None:
    before = exchange.connections
    with Engine("deribit", ["BTC"], url=exchange.url, port=0, shards=2) as engine:
        engine.wait_ready(60)
        assert exchange.connections == before + 2
        session = attach(engine.stream_url)
        frame = session.wait(30)
        assert [smile.expiry_ns for smile in frame.surfaces["BTC"]] == list(frame.listed["BTC"])
        session.stop()


def test_an_engine_that_is_stopped_at_once_says_that_it_was_never_ready(exchange: Exchange) -> None:
    engine = Engine("deribit", ["BTC"], url=exchange.url, port=0)
    engine.stop()
    assert engine.pids == {}
    with pytest.raises(EngineError, match="stopped before it was ready"):
        engine.wait_ready(5)


def cli(exchange: Exchange, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "volsurf.cli",
        "live",
        "--underlyings",
        "BTC",
        "--url",
        exchange.url,
        "--port",
        "0",
    ]
    return subprocess.Popen(
        [*command, "--json", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def stream_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("stream"), line
    return line.split()[1]


def wait_for_a_surface(process: subprocess.Popen[str], session: Session) -> None:
    until(lambda: not session.status or process.poll() is not None)
    if process.poll() is not None:
        pytest.fail(f"the command ended with status {process.returncode}: {process.communicate()[1][-2000:]}")
    session.wait(60)


def test_the_command_ends_cleanly_on_ctrl_c_and_prints_its_figures(exchange: Exchange) -> None:
    with cli(exchange) as process:
        with attach(stream_of(process)) as session:
            wait_for_a_surface(process, session)
            until(lambda: session.frame.health["deribit"].is_live)
            number = session.frame.number
            until(lambda: session.frame.number > number + 3)
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert len(children) == 2
        # A terminal sends it to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    figures = json.loads(output.splitlines()[-1])
    assert list(figures) == KEYS
    assert figures["frames"] > 0
    assert figures["expiries_fitted"] == figures["expiries_listed"]
    assert gone(children)


def test_the_rules_of_a_surface_can_be_chosen(exchange: Exchange) -> None:
    with cli(exchange, "--smoothing", "0", "--no-enforce") as process:
        with attach(stream_of(process)) as session:
            wait_for_a_surface(process, session)
            number = session.frame.number
            until(lambda: session.frame.number > number + 20)
            fits = [smile.fit for smile in session.surface("BTC").smiles]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert {(fit.enforcement_label, fit.smoothed) for fit in fits if fit is not None} == {("off", 0)}


def test_nothing_outlives_a_parent_that_is_killed(exchange: Exchange) -> None:
    with cli(exchange, "--seconds", "600") as process:
        with attach(stream_of(process)) as session:
            wait_for_a_surface(process, session)
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert len(children) == 2
        # One of them cannot even look: it is suspended.
        os.kill(children[0], signal.SIGSTOP)
        process.kill()
        process.wait(10)
        until(lambda: gone(children), 10)


def test_a_process_that_cannot_live_is_given_up_with_its_reason(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "CORE_MODULE", "volsurf.engine.no_such_module")
    monkeypatch.setattr("volsurf.engine.child.FIRST_BACKOFF", 0.001)
    with Engine("deribit", ["BTC"], url=exchange.url, port=0) as engine:
        with pytest.raises(EngineError, match="the core process ended with status 1, 5 times without a frame"):
            engine.wait_ready(60)
        assert engine.failure is not None
        until(lambda: not engine.pids)


def test_an_underlying_the_venue_does_not_list_ends_the_engine_with_what_there_is(exchange: Exchange) -> None:
    with (
        Engine("deribit", ["DOGE"], url=exchange.url, port=0) as engine,
        pytest.raises(EngineError, match=r"feed deribit: .*DOGE"),
    ):
        engine.wait_ready(60)


def test_wrong_arguments_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no venue 'mtgox'; there are deribit"):
        Engine("mtgox")
    with pytest.raises(InputError, match="underlyings"):
        Engine("deribit", [])
    with pytest.raises(InputError, match="one address for deribit, okx: give each its own"):
        Engine(["deribit", "okx"], ["BTC"], url="ws://127.0.0.1:1")
    with pytest.raises(InputError, match="an address of 'bybit', which is not followed"):
        Engine(["deribit", "okx"], ["BTC"], url={"bybit": "ws://127.0.0.1:1"})
    with pytest.raises(InputError, match="shards"):
        Engine("deribit", ["BTC"], shards=0)
    with pytest.raises(InputError, match="frame_seconds"):
        Engine("deribit", ["BTC"], frame_seconds=0.0)
    with pytest.raises(InputError, match="smoothing_seconds must be between 0 and 60 seconds, was -1"):
        Engine("deribit", ["BTC"], smoothing_seconds=-1.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EngineError, match=r"port \d+ cannot be opened .*port 0 takes a free one"):
            Engine("deribit", ["BTC"], port=taken.getsockname()[1])
    monkeypatch.setenv("VOLSURF_PORT", "many")
    with pytest.raises(ConfigError, match="VOLSURF_PORT"):
        default_port()
    monkeypatch.setenv("VOLSURF_PORT", "9001")
    assert default_port() == 9001
