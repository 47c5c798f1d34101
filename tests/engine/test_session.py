from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import ROOT
from tests.engine.smiles import FrameMaker
from volsurf.engine import client as client_module, session as session_module
from volsurf.engine.client import stream_url
from volsurf.engine.frame import Frame
from volsurf.engine.listener import listen
from volsurf.engine.loop_thread import LoopThread
from volsurf.engine.session import Session, attach
from volsurf.engine.stream import StreamServer
from volsurf.errors import InputError, NotReadyError


class EngineStub:
    """A stream server in a thread of its own, without an engine behind it."""

    def __init__(self, port: int = 0) -> None:
        self.listener = listen(port)
        self.port = self.listener.getsockname()[1]
        self.server = StreamServer(self.listener)
        self.maker = FrameMaker()
        self.version = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self.server.start())

    def run(self, coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)  # type: ignore[arg-type]

    def publish(self, *underlyings: str) -> Frame:
        self.version += 1
        frame = self.maker.make(
            {name: (self.version, {1: self.version, 30: 0}) for name in underlyings or ("BTC", "ETH")}
        )
        self.server.publish(frame)
        return frame

    def stop(self) -> None:
        if self.loop.is_closed():
            return
        self.run(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end, "waited for 15 s"
        time.sleep(0.003)


@pytest.fixture
def engine() -> Iterator[EngineStub]:
    stub = EngineStub()
    yield stub
    stub.stop()


@pytest.fixture
def session(engine: EngineStub) -> Iterator[Session]:
    with attach(str(engine.port)) as session:
        yield session


def test_before_the_first_frame_it_says_what_is_waited_for(engine: EngineStub, session: Session) -> None:
    engine.server.say("compiling the kernels")
    until(lambda: session.status == "compiling the kernels")
    with pytest.raises(NotReadyError, match="compiling the kernels"):
        _ = session.frame
    with pytest.raises(NotReadyError, match=r"not ready after 0\.01 s: compiling"):
        session.wait(0.01)
    engine.server.publish(engine.maker.make({}))
    until(lambda: session.health["frame"] == 1)
    with pytest.raises(NotReadyError, match="waiting for the first surface; venue: all well"):
        _ = session.frame


def test_the_newest_frame_and_its_surfaces(engine: EngineStub, session: Session) -> None:
    frame = engine.publish()
    assert session.wait(10).hash == frame.hash
    assert session.frame.to_bytes() == frame.to_bytes()
    assert session.surface("BTC").smiles[0].forward == frame.surfaces["BTC"].smiles[0].forward
    with pytest.raises(NotReadyError, match=r"no surface of 'XRP' \(it is not listed there\); there are: BTC, ETH"):
        session.surface("XRP")
    assert session.connected
    assert session.status == ""
    assert 0 <= session.age < 10
    assert session.health["feeds"]["venue"].state == "ready"
    assert "frame 1" in repr(session)


def test_frames_are_iterated_newest_first_come(engine: EngineStub, session: Session) -> None:
    engine.publish()
    session.wait(10)
    seen: list[int] = []
    for frame in session.frames():
        seen.append(frame.number)
        if len(seen) == 4:
            break
        engine.publish()
    assert seen == sorted(set(seen))
    assert len(seen) == 4


def test_iteration_ends_when_the_session_is_stopped(engine: EngineStub, session: Session) -> None:
    engine.publish()
    session.wait(10)
    ended = threading.Event()

    def iterate() -> None:
        for _ in session.frames():
            pass
        ended.set()

    threading.Thread(target=iterate, daemon=True).start()
    session.stop()
    assert ended.wait(10)
    with pytest.raises(NotReadyError, match="stopped"):
        session.wait(1)


def test_callbacks_get_every_frame_until_they_unsubscribe(engine: EngineStub, session: Session) -> None:
    got: list[Frame] = []
    unsubscribe = session.on_frame(got.append)
    first = engine.publish()
    until(lambda: len(got) == 1)
    assert got[0].hash == first.hash
    second = engine.publish()
    until(lambda: len(got) == 2)
    # A surface of which nothing changed would be the same object; here both changed.
    assert got[1].surfaces["BTC"].smiles[1] is got[0].surfaces["BTC"].smiles[1]
    unsubscribe()
    unsubscribe()
    engine.publish()
    until(lambda: session.frame.number == second.number + 1)
    assert len(got) == 2


def test_a_callback_that_raises_is_counted_and_logged_and_harms_nobody(
    engine: EngineStub, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Frame] = []

    def broken(frame: Frame) -> None:
        raise ZeroDivisionError("mine")

    session.on_frame(broken)
    session.on_frame(got.append)
    with caplog.at_level(logging.ERROR, logger="volsurf.session"):
        engine.publish()
        until(lambda: len(got) == 1)
    assert session.callback_failures == session.health["callback_failures"] == 1
    assert "ZeroDivisionError" in caplog.text
    engine.publish()
    until(lambda: len(got) == 2)


def test_waiting_on_the_session_from_its_own_thread_is_refused(engine: EngineStub, session: Session) -> None:
    errors: list[BaseException] = []

    def careless(frame: Frame) -> None:
        try:
            session.wait(1)
        except RuntimeError as error:
            errors.append(error)

    session.on_frame(careless)
    engine.publish()
    until(lambda: bool(errors))
    assert "blocks" in str(errors[0])


def test_only_the_underlyings_wanted_are_sent(engine: EngineStub) -> None:
    engine.publish("BTC")
    with attach(str(engine.port), underlyings=["ETH"]) as session:
        with pytest.raises(NotReadyError):
            session.wait(0.05)
        engine.publish()
        assert list(session.wait(10).surfaces) == ["ETH"]


def test_a_damaged_message_is_noticed_and_mended(
    engine: EngineStub, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.publish()
    session.wait(10)
    patch = Frame.patch
    damaged = []

    def damage(frame: Frame, previous: Frame | None) -> bytes:
        data = bytearray(patch(frame, previous))
        if not damaged:
            damaged.append(frame.number)
            data[-5] ^= 1
        return bytes(data)

    monkeypatch.setattr(Frame, "patch", damage)
    engine.publish()
    until(lambda: session.health.get("resyncs") == 1)
    assert "does not hash" in session.health["last_error"]
    last = engine.publish()
    until(lambda: session.frame.number >= damaged[0])
    until(lambda: session.frame.hash == last.hash)
    assert session.status == ""


def test_a_lost_engine_is_said_and_found_again(engine: EngineStub) -> None:
    with attach(str(engine.port)) as session:
        frame = engine.publish()
        session.wait(10)
        engine.stop()
        until(lambda: not session.connected)
        until(lambda: "no connection to the engine" in session.status)
        # The picture stays, and says that it ages.
        assert session.frame.hash == frame.hash
        again = EngineStub(engine.port)
        try:
            new = again.publish("BTC")
            until(lambda: session.connected and session.frame.hash == new.hash)
            assert session.status == ""
            assert session.health["connections"] == 2
        finally:
            again.stop()


def test_an_engine_that_is_not_there_is_said() -> None:
    listener = listen(0)
    port = listener.getsockname()[1]
    listener.close()
    with attach(f"127.0.0.1:{port}") as session:
        until(lambda: "nothing listens there" in session.status)
        with pytest.raises(NotReadyError, match="nothing listens there"):
            _ = session.frame


def test_a_server_that_is_no_engine_is_said(engine: EngineStub) -> None:
    with attach(f"ws://127.0.0.1:{engine.port}/elsewhere") as session:
        until(lambda: "HTTP 404" in session.status)
        assert "volsurf's stream is at /v1/stream" in session.status


def test_a_fault_of_our_own_is_said_and_survived(
    engine: EngineStub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine.publish()
    failures = iter([RuntimeError("a bug")])
    real = client_module.FrameMirror.apply

    def apply(mirror: client_module.FrameMirror, data: bytes) -> Frame:
        for failure in failures:
            raise failure
        return real(mirror, data)

    monkeypatch.setattr(client_module.FrameMirror, "apply", apply)
    with caplog.at_level(logging.ERROR, logger="volsurf.engine.client"), attach(str(engine.port)) as session:
        session.wait(10)
        assert session.health["failures"] == 1
        assert session.health["last_error"] == "RuntimeError: a bug"
    assert "a bug" in caplog.text


def test_stopping_leaves_the_engine_and_a_forgotten_session_does_too(engine: EngineStub) -> None:
    engine.publish()
    session = attach(str(engine.port))
    session.wait(10)
    session.stop()
    until(lambda: engine.server.clients == 0)
    session.stop()
    assert not session.connected
    session = attach(str(engine.port))
    session.wait(10)
    del session
    gc.collect()
    until(lambda: engine.server.clients == 0)


def test_an_old_picture_is_called_old(engine: EngineStub, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.publish()
    session.wait(10)
    monkeypatch.setattr(session_module, "STALE_SECONDS", 0.0)
    assert "no frame for" in session.status


def test_html_names_what_a_person_asks_first(engine: EngineStub, session: Session) -> None:
    engine.publish()
    session.wait(10)
    html = session._repr_html_()
    assert "<td>BTC</td><td>2</td>" in html
    assert "venue: all well" in html


def test_attaching_again_gives_the_same_session_and_no_second_connection(engine: EngineStub) -> None:
    engine.publish()
    with attach(str(engine.port)) as session:
        session.wait(10)
        for same in (f"127.0.0.1:{engine.port}", f"ws://127.0.0.1:{engine.port}/v1/stream"):
            assert attach(same) is session
        with attach(str(engine.port), underlyings=["ETH"]) as other:
            other.wait(10)
            assert other is not session
            assert attach(str(engine.port), underlyings=["ETH"]) is other
            assert engine.server.counters["connections"] == 2
    assert not session.is_alive
    with attach(str(engine.port)) as again:
        again.wait(10)
        assert again is not session


def test_there_is_one_loop_thread_a_process(engine: EngineStub) -> None:
    with attach(str(engine.port)) as one, attach(str(engine.port), underlyings=["BTC"]) as two:
        assert one._loop is two._loop is LoopThread.shared()
    assert sum(thread.name == "volsurf-loop" for thread in threading.enumerate()) == 1


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("8765", "ws://127.0.0.1:8765/v1/stream"),
        ("host:8765", "ws://host:8765/v1/stream"),
        ("ws://127.0.0.1:8765", "ws://127.0.0.1:8765/v1/stream"),
        ("ws://127.0.0.1:8765/", "ws://127.0.0.1:8765/v1/stream"),
        ("wss://desk.example/volsurf/v1/stream", "wss://desk.example/volsurf/v1/stream"),
        ("[::1]:9000", "ws://[::1]:9000/v1/stream"),
    ],
)
def test_addresses_people_type(typed: str, address: str) -> None:
    assert stream_url(typed) == address


@pytest.mark.parametrize("typed", ["", "http://host:80", "ws://", "host:99999", "host:0", "host:port"])
def test_addresses_that_are_none(typed: str) -> None:
    with pytest.raises(InputError, match="address of an engine"):
        stream_url(typed)


LIGHT = """
import sys
import volsurf as vs
with vs.attach(sys.argv[1]) as session:
    frame = session.wait(10)
    frame.surfaces["BTC"].vol(k=0.0, years=0.05)
    frame.surfaces["BTC"].certificate, session._repr_html_(), frame.to_bytes()
assert frame.surfaces["BTC"].certificate.blended == 1
print(sorted({"numba", "scipy", "pandas", "polars", "plotly", "anywidget"} & set(sys.modules)))
"""


def test_a_client_is_light(engine: EngineStub) -> None:
    """A kernel that only shows what an engine sends loads neither kernels nor plotting: 60 MB and a second a visitor."""
    engine.publish()
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(engine.port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "[]"
