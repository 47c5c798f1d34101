from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.engine.exchange import Exchange, gone, until
from volsurf._jit import ensure_compiled
from volsurf.capture.reader import open_capture
from volsurf.capture.verify import verify
from volsurf.engine import rendezvous, shared
from volsurf.engine.rendezvous import EngineRecord
from volsurf.engine.session import live
from volsurf.errors import ConfigError, EngineError, InputError, NotReadyError

RECORD = EngineRecord(
    pid=2**22,
    stream_url="ws://127.0.0.1:1/v1/stream",
    venues=("deribit",),
    underlyings=("BTC",),
    url=None,
    every=0.1,
    version="0",
)


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    runtime = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    yield runtime / "volsurf"
    for record in (runtime / "volsurf").glob("*.json"):
        shared.end(record.stem)


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    ensure_compiled()
    exchange = Exchange(("BTC", "SOL"))
    yield exchange
    exchange.close()


def test_a_record_is_found_while_its_engine_lives_and_removed_after() -> None:
    assert rendezvous.find("desk") is None
    alive = rendezvous.claim("desk")
    assert alive is not None
    assert rendezvous.find("desk") is None  # it has not said where it is yet
    rendezvous.publish("desk", RECORD)
    assert rendezvous.find("desk") == RECORD
    assert rendezvous.claim("desk") is None
    assert rendezvous.find("other") is None
    alive.close()
    # Its process id may belong to anybody now; the lock decides.
    assert rendezvous.find("desk") is None
    assert not (rendezvous.directory() / "desk.json").exists()


def test_a_record_of_another_version_is_no_record() -> None:
    alive = rendezvous.claim("desk")
    assert alive is not None
    (rendezvous.directory() / "desk.json").write_text('{"pid": "many"}')
    assert rendezvous.find("desk") is None
    alive.close()


def test_only_one_at_a_time_may_start_or_end_an_engine() -> None:
    with rendezvous.exclusive("desk", 1.0):
        with (
            pytest.raises(EngineError, match="another process has been starting or ending engine 'desk'"),
            rendezvous.exclusive("desk", 0.05),
        ):
            pass
        with rendezvous.exclusive("other", 0.05):
            pass


def test_the_folder_is_this_users_only(folder: Path) -> None:
    assert rendezvous.directory() == folder
    assert folder.stat().st_mode & 0o077 == 0


def test_without_a_runtime_folder_the_state_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert rendezvous.directory() == tmp_path / "state" / "volsurf"


@pytest.mark.parametrize("name", ["", "../etc", "a/b", ".hidden", "x" * 65])
def test_names_that_could_not_be_files(name: str) -> None:
    with pytest.raises(InputError, match="an engine's name"):
        live("deribit", ["BTC"], name=name)


def test_the_idle_time_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared.idle_seconds() == 30.0
    monkeypatch.setenv("VOLSURF_ENGINE_IDLE_SECONDS", "2.5")
    assert shared.idle_seconds() == 2.5
    monkeypatch.setenv("VOLSURF_ENGINE_IDLE_SECONDS", "soon")
    with pytest.raises(ConfigError, match="VOLSURF_ENGINE_IDLE_SECONDS"):
        shared.idle_seconds()


OTHER_KERNEL = """
import json, sys
import volsurf as vs
from volsurf.engine import rendezvous
session = vs.live("deribit", ["BTC"], url=sys.argv[1])
frame = session.wait(60)
print(json.dumps({"pid": rendezvous.find("default").pid, "slices": len(frame.surfaces["BTC"].smiles)}))
"""


def test_the_life_of_a_shared_engine(exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = live("deribit", ["BTC"], url=exchange.url, idle_seconds=1.0, capture="captures")
    record = rendezvous.find("default")
    assert record is not None
    session.wait(60)
    children = [child.pid for child in psutil.Process(record.pid).children(recursive=True)]
    assert len(children) == 2
    assert os.getsid(record.pid) == record.pid  # a signal to the kernel's group does not reach it
    # Running the cell again gives the same session, and no second engine.
    assert live("deribit", ["BTC"], url=exchange.url) is session
    # Another kernel, or this one after a restart, finds it; when it dies the engine stays for the others.
    other = subprocess.run(
        [sys.executable, "-c", OTHER_KERNEL, exchange.url],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
        cwd=ROOT,
    )
    assert json.loads(other.stdout) == {"pid": record.pid, "slices": len(session.frame.surfaces["BTC"].smiles)}
    with pytest.raises(
        EngineError, match=r"engine 'default' follows BTC of deribit at .*: give this one another name="
    ):
        live("deribit", ["ETH"], url=exchange.url)
    with pytest.raises(EngineError, match="follows BTC"):
        live("deribit", ["BTC"])
    with pytest.raises(EngineError, match=r"has smoothing_seconds=the default and enforce=True: give this one another"):
        live("deribit", ["BTC"], url=exchange.url, enforce=False)
    with pytest.raises(EngineError, match="smoothing_seconds=the default"):
        live("deribit", ["BTC"], url=exchange.url, smoothing_seconds=2.0)
    # What it hears and makes is recorded where the kernel asked for it, whatever directory that is in by now.
    monkeypatch.chdir("/")
    assert session.capture_path == tmp_path / "captures"
    assert live("deribit", ["BTC"], url=exchange.url, capture=tmp_path / "captures") is session
    with pytest.raises(EngineError, match=r"engine 'default' records in '.*captures': give this one another name="):
        live("deribit", ["BTC"], url=exchange.url, capture=tmp_path / "others")
    with pytest.raises(ConfigError, match="there are segment_mb"):
        live("deribit", ["BTC"], url=exchange.url, capture=tmp_path / "captures", capture_options={"colour": "red"})
    assert exchange.connections == 1
    # When its last client has left, so does it, and takes everything along.
    session.stop()
    with pytest.raises(NotReadyError, match="stopped"):
        _ = session.wait(1)
    until(lambda: gone([record.pid, *children]), 20)
    assert rendezvous.find("default") is None
    assert session.capture_path is None
    recorded = open_capture(tmp_path / "captures")
    assert set(recorded.streams) == {"core", "feed-0-deribit"}
    assert recorded.lost == ()
    assert verify(recorded).ok


def test_a_shared_engine_that_is_killed_takes_its_processes_along_and_is_started_anew(
    exchange: Exchange, tmp_path: Path
) -> None:
    session = live("deribit", ["BTC"], url=exchange.url, name="desk")
    record = rendezvous.find("desk")
    assert record is not None
    session.wait(60)
    children = [child.pid for child in psutil.Process(record.pid).children(recursive=True)]
    with pytest.raises(EngineError, match="engine 'desk' records nothing: give this one another name="):
        live("deribit", ["BTC"], url=exchange.url, name="desk", capture=tmp_path)
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: gone([record.pid, *children]), 10)
    until(lambda: "engine 'desk' has ended" in session.status)
    last, seen = session.frame, []
    session.on_frame(seen.append)
    again = live("deribit", ["BTC"], url=exchange.url, name="desk")
    second = rendezvous.find("desk")
    assert second is not None
    assert second.pid != record.pid
    # Whoever holds the session, a widget say, goes on with the new engine.
    assert again is session
    assert session.url == second.stream_url != record.stream_url
    until(lambda: seen and session.status == "")
    assert session.frame.time_ns > last.time_ns
    again.stop(engine=True)
    until(lambda: gone([second.pid]), 10)
    assert rendezvous.find("desk") is None
    assert not shared.end("desk")


def test_an_engine_that_gives_up_tells_its_sessions_why(exchange: Exchange) -> None:
    with live("deribit", ["DOGE"], url=exchange.url, name="desk") as session:
        until(lambda: "Deribit lists no options of DOGE" in session.status)
        with pytest.raises(NotReadyError, match="engine 'desk' has ended: volsurf: feed deribit"):
            _ = session.frame
    assert rendezvous.find("desk") is None


def test_an_engine_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = rendezvous.claim("desk")
    assert alive is not None
    # One that lives but never said where: the new process finds the name taken and ends.
    with pytest.raises(EngineError, match="there is an engine 'desk' that has not said where"):
        live("deribit", ["BTC"], name="desk")
    alive.close()
