"""An engine of several venues, of which some cannot be followed: the others are not held up by them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.engine.exchange import Exchange, until
from volsurf._jit import ensure_compiled
from volsurf.engine import live as live_module
from volsurf.engine.live import Engine
from volsurf.engine.session import Session, attach
from volsurf.errors import EngineError


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    ensure_compiled()
    exchange = Exchange(("BTC",))
    yield exchange
    exchange.close()


@pytest.fixture(scope="module")
def without_btc() -> Iterator[Exchange]:
    exchange = Exchange(("ETH",), venue="okx")
    yield exchange
    exchange.close()


@pytest.fixture
def deaf() -> Iterator[str]:
    """Address of a venue that takes connections and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"ws://127.0.0.1:{server.getsockname()[1]}/v5/public/option"


def state(session: Session, name: str) -> str:
    status = session.frame.health.get(name)
    return "" if status is None else status.state


def test_a_venue_that_lists_nothing_of_it_fails_in_every_frame_and_holds_nobody_up(
    exchange: Exchange, without_btc: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "PATIENCE_SECONDS", 1e6)
    addresses = {"deribit": exchange.url, "okx": without_btc.url}
    with Engine(["deribit", "okx"], ["BTC"], url=addresses, port=0) as engine:
        engine.wait_ready(60)
        assert engine.status.startswith("running; feed okx: ")
        with attach(engine.stream_url) as session:
            session.wait(30)
            until(lambda: state(session, "okx") == "failed")
            assert "BTC" in session.frame.health["okx"].sentence
            assert session.frame.health["deribit"].is_live
            # A core that starts later has never heard of it but is told.
            core = engine.pids["core"]
            os.kill(core, signal.SIGKILL)
            until(lambda: engine.pids.get("core", core) != core)
            until(lambda: session.connected and session.health["connections"] >= 2)
            until(lambda: session.age < 1 and session.frame.surfaces and state(session, "okx") == "failed")
            until(lambda: engine.status.startswith("running; feed okx: "))
        assert set(engine.pids) == {"core", "feed deribit"}


def test_a_venue_that_never_becomes_whole_holds_the_others_up_for_a_while_only(
    exchange: Exchange, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "PATIENCE_SECONDS", 0.5)
    addresses = {"deribit": exchange.url, "bybit": deaf}
    with Engine(["deribit", "bybit"], ["BTC"], url=addresses, port=0) as engine:
        engine.wait_ready(60)
        assert engine.status == "running"
        with attach(engine.stream_url) as session:
            session.wait(30)
            assert state(session, "bybit") == "connecting"
            assert session.frame.surfaces["BTC"].certificate


def test_a_feed_whose_process_cannot_live_is_given_up_alone(monkeypatch: pytest.MonkeyPatch, deaf: str) -> None:
    monkeypatch.setattr("volsurf.engine.child.FIRST_BACKOFF", 0.001)
    monkeypatch.setattr("volsurf.engine.child.LONGEST_BACKOFF", 0.001)
    with Engine(["deribit", "bybit"], ["BTC"], url={"deribit": deaf, "bybit": deaf}, port=0) as engine:
        engine._feeds[1]._module = "volsurf.engine.no_such_module"
        if (pid := engine.pids.get("feed bybit")) is not None:
            os.kill(pid, signal.SIGKILL)
        until(lambda: "the feed bybit process ended with status 1, 5 times" in engine.status)
        assert engine.failure is None
        assert "feed deribit" in engine.pids
        engine._feeds[0]._module = "volsurf.engine.no_such_module"
        os.kill(engine.pids["feed deribit"], signal.SIGKILL)
        with pytest.raises(EngineError, match=r"feed bybit process .* feed deribit process ended"):
            engine.wait_ready(60)
