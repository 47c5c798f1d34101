"""An engine that records: what its processes write, over the end of each of them, belongs together."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.engine.exchange import Exchange, until
from volsurf.capture.format import RecordKind
from volsurf.capture.info import count_records
from volsurf.capture.reader import Capture, open_capture
from volsurf.capture.records import HANDED, TICK, TOOK
from volsurf.capture.verify import verify
from volsurf.engine.core import Core
from volsurf.engine.live import Engine
from volsurf.engine.log import FeedStarted, InstrumentsAdded, PolicyChange, decode_entry
from volsurf.engine.session import Session, attach
from volsurf.errors import ConfigError

FEED = "feed-0-deribit"


@pytest.fixture(scope="module")
def recorded(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """Of an engine whose feed was killed, and then its core."""
    path = tmp_path_factory.mktemp("engine") / "capture"
    with Engine(
        "deribit", ["BTC"], url=exchange.url, port=0, capture=path, capture_options={"flush_seconds": 0.02}
    ) as engine:
        engine.wait_ready(120)
        with pytest.raises(ConfigError, match="is being written by process"):
            Engine("deribit", ["BTC"], url=exchange.url, port=0, capture=path)
        for name, stream in (("feed deribit", FEED), ("core", "core")):
            _settled(engine, name)
            pid = engine.pids[name]
            os.kill(pid, signal.SIGKILL)
            until(lambda: engine.pids.get(name, pid) != pid)  # noqa: B023
            until(lambda: len(open_capture(path).streams[stream].processes) == 2)  # noqa: B023
            # By now the last words of the process that was killed are counted.
            frames = engine.summary()["frames"]
            until(lambda: engine.summary()["frames"] > frames + 5)  # noqa: B023
        assert engine.capture_path == path
    return open_capture(path)


def _settled(engine: Engine, name: str) -> None:
    frames = engine.summary()["frames"]
    until(lambda: engine.summary()["frames"] > frames + 3, what=name)


def rows(capture: Capture, stream: str, process: int | None = None) -> list[tuple[int, int, int, bytes]]:
    return [
        row
        for block in capture.blocks(stream)
        if process in (None, block.process)
        for row in zip(
            block.kind.tolist(), block.connection.tolist(), block.time_ns.tolist(), block.payloads, strict=True
        )
    ]


def test_every_process_records_its_stream_and_says_how_it_ended(recorded: Capture) -> None:
    assert set(recorded.streams) == {"core", FEED}
    assert recorded.streams[FEED].processes == recorded.streams["core"].processes == (1, 2)
    assert len(recorded.lost) == 2
    assert all("its process was ended while it wrote" in sentence for sentence in recorded.lost)
    assert verify(recorded).ok
    settings = recorded.streams[FEED].settings
    assert (settings["venue"], settings["underlyings"], settings["trades"], settings["books"]) == (
        "deribit",
        ["BTC"],
        True,
        False,
    )
    assert recorded.streams["core"].settings["rules"]["enforce"] is True


def test_the_conversation_is_there_from_its_first_word(recorded: Capture) -> None:
    kinds = [row[0] for row in rows(recorded, FEED, 1)]
    calls = [kind for kind in kinds if kind <= RecordKind.DISCONNECTED]
    assert calls[:2] == [RecordKind.OPENED, RecordKind.CONNECTED]
    assert RecordKind.SENT in calls[2:6]
    assert b"public/get_instruments" in b"".join(row[3] for row in rows(recorded, FEED, 1) if row[0] == RecordKind.SENT)
    assert count_records(recorded)[FEED]["received"] > 500


def test_what_was_sent_is_announced_and_what_was_taken_was_sent(recorded: Capture) -> None:
    handed = rows(recorded, FEED, 2)
    first = next(i for i, row in enumerate(handed) if row[0] == RecordKind.HANDED)
    whole, count = HANDED.unpack(handed[first][3])
    entries = handed[first + 1 : first + 1 + count]
    assert whole
    assert [row[0] for row in entries] == [RecordKind.ENTRY, RecordKind.ENTRY, RecordKind.BATCH, RecordKind.ENTRY]
    started, listed = (decode_entry(row[3]) for row in entries[:2])
    assert started == FeedStarted(0, "deribit")
    assert isinstance(listed, InstrumentsAdded)
    links = {TOOK.unpack(row[3])[0] for row in rows(recorded, "core") if row[0] == RecordKind.TOOK}
    # Core and feed were joined when they started, when the feed was new, and when the core was.
    assert links == {1, 2, 3}


def test_the_core_s_own_entries_and_frames_are_there(recorded: Capture) -> None:
    for process in (1, 2):
        told = rows(recorded, "core", process)
        assert told[0][0] == RecordKind.ENTRY
        assert isinstance(decode_entry(told[0][3]), PolicyChange)
        ticks = [row for row in told if row[0] == RecordKind.TICK]
        numbers = [TICK.unpack_from(row[3])[0] for row in ticks]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len({row[3][TICK.size :] for row in ticks}) > 5
        assert np.all(np.diff([row[2] for row in ticks]) > 0)


def test_frames_made_again_from_what_is_there_verbatim_begin_alike(recorded: Capture) -> None:
    # Until the first batch a core is told only what the capture holds as it was: the hash of that frame must be the same.
    core = Core()
    for kind, _, time_ns, payload in rows(recorded, "core", 1):
        if kind == RecordKind.ENTRY:
            core.apply(decode_entry(payload))
        elif kind == RecordKind.TICK:
            assert core.frame(time_ns).hash == payload[TICK.size :]
        else:
            break


def test_a_disk_that_is_too_full_is_said_where_everybody_looks(exchange: Exchange, tmp_path: Path) -> None:
    options = {"min_free_mb": 1e12, "flush_seconds": 0.02}
    with (
        Engine(
            "deribit", ["BTC"], url=exchange.url, port=0, capture=tmp_path / "full", capture_options=options
        ) as engine,
        attach(engine.stream_url) as session,
    ):
        session.wait(120)
        until(lambda: "the capture cannot be written" in _problems(session))
        assert "MB are free on the disk" in _problems(session)
        assert session.frame.surfaces["BTC"].certificate


def _problems(session: Session) -> str:
    return "; ".join(problem.sentence for problem in session.frame.problems)


def test_options_that_cannot_be_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are segment_mb"):
        Engine("deribit", ["BTC"], port=0, capture=tmp_path / "c", capture_options={"colour": "red"})
    assert not (tmp_path / "c").exists()
