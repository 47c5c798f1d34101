"""Live equals replay: the frames of a recorded engine made again, bit for bit, or not at all."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.replay.sessions import Session, record
from volsurf.capture.format import CORE, RecordKind
from volsurf.capture.reader import open_capture
from volsurf.engine.core import Core, CoreRules
from volsurf.errors import InputError, ReplayError
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import BookEvent, TradeEvent
from volsurf.replay.driver import FeedDriver
from volsurf.replay.replay import Replay, replay


def played(path: Path, **options: object) -> tuple[list[bytes], Replay]:
    """Hashes of an exact replay."""
    player = cast(Replay, replay(path, **options))  # type: ignore[arg-type]
    return [frame.hash for frame in player], player


@pytest.mark.parametrize("name", ["eventful", "four"])
def test_live_and_two_replays_are_one(name: str, request: pytest.FixtureRequest) -> None:
    session: Session = request.getfixturevalue(name)
    first, player = played(session.path)
    second, _ = played(session.path)
    assert first == second == session.hashes
    assert player.verified == player.frames == len(session.hashes)
    assert len(set(session.hashes)) > len(session.hashes) // 2, "the session never moved, so this shows nothing"
    assert not player.lost


def test_faults_are_in_the_capture(eventful: Session) -> None:
    counts = Counter(k for block in eventful.capture.blocks("feed-0-deribit") for k in block.kind.tolist())
    assert counts[RecordKind.CONNECTED] == 2
    assert counts[RecordKind.DISCONNECTED] == 1
    assert counts[RecordKind.BATCH] < counts[RecordKind.COLLECTED], "no batch was conflated: the core was never late"


def test_events_come_beside_the_frames(eventful: Session) -> None:
    kinds = set()
    for frame, events in replay(eventful.path, with_events=True):  # type: ignore[misc]
        kinds |= {type(event) for event in events}
        for event in events:
            assert event.venue_time_ns <= frame.time_ns  # type: ignore[union-attr]
    assert kinds == {TradeEvent, BookEvent}


def test_part_of_it(eventful: Session) -> None:
    hashes, player = played(eventful.path, start="+1s", stop="+2s")
    # The core has to be brought there all the same, so these are the very frames.
    assert hashes == eventful.hashes[9:20]
    assert player.start_ns - eventful.capture.start_ns == 10**9


def test_a_venue_that_hears_otherwise_is_found_out(calm: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Deribit.receive
    count = 0

    def deaf(self: Deribit, data: bytes | str, now: int) -> None:
        nonlocal count
        count += 1
        if count != 1500:
            receive(self, data, now)

    monkeypatch.setattr(Deribit, "receive", deaf)
    with pytest.raises(ReplayError, match=r"feed-0-deribit: at .* batch \d+ is not what it was"):
        played(calm.path)


def test_a_core_that_reckons_otherwise_is_found_out(calm: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volsurf.replay.exact.Core", lambda: Core(CoreRules(smoothing_seconds=0.0)))
    with pytest.raises(ReplayError, match=r"frame \d+ of .* hashes to .* and was recorded as"):
        played(calm.path)
    hashes, player = played(calm.path, verify=False)
    assert len(hashes) == len(calm.hashes)
    assert player.verified == 0


def test_lenient_drivers_count(calm: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volsurf.replay.driver.zlib", SimpleNamespace(crc32=lambda data: 1))
    capture = calm.capture
    settings = capture.streams["feed-0-deribit"].settings
    driver = FeedDriver(capture.blocks("feed-0-deribit"), lambda process: settings, number=0, strict=False)
    entries = list(driver.entries())
    assert entries
    assert driver.differing > driver.batches > 0


def test_without_a_core_there_are_no_frames_to_make_again(calm: Session, tmp_path: Path) -> None:
    shutil.copytree(calm.path, tmp_path / "raw")
    for segment in (tmp_path / "raw").glob(f"{CORE}.*"):
        segment.unlink()
    with pytest.raises(ReplayError, match="no engine's frames are recorded"):
        replay(tmp_path / "raw")


def test_a_missing_stream_is_named(four: Session, tmp_path: Path) -> None:
    shutil.copytree(four.path, tmp_path / "part")
    for segment in (tmp_path / "part").glob("feed-2-*"):
        segment.unlink()
    with pytest.raises(ReplayError, match="feed 2, whose stream is not in the capture"):
        played(tmp_path / "part")


def test_a_stream_that_ends_early_ends_the_frames_and_says_so(calm: Session, tmp_path: Path) -> None:
    copy = tmp_path / "cut"
    shutil.copytree(calm.path, copy)
    (segment,) = copy.glob("feed-0-*.vscap")
    blocks = list(open_capture(copy).blocks("feed-0-deribit"))
    assert len(blocks) > 1
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) * 2 // 3])
    hashes, player = played(copy)
    assert 0 < len(hashes) < len(calm.hashes)
    assert hashes == calm.hashes[: len(hashes)]
    assert any("no frame can be made again after that" in sentence for sentence in player.lost)


def test_a_gap_in_the_middle_stops_it(calm: Session, tmp_path: Path) -> None:
    copy = tmp_path / "gap"
    shutil.copytree(calm.path, copy)
    (segment,) = copy.glob("feed-0-*.vscap")
    index = open_capture(copy).streams["feed-0-deribit"].segments[0].index
    data = bytearray(segment.read_bytes())
    assert len(index) > 3
    data[index[len(index) // 2].offset + 100] ^= 0xFF
    segment.write_bytes(data)
    with pytest.raises(ReplayError, match=r"feed-0-deribit: .* records after .* are missing"):
        played(copy)


@pytest.mark.parametrize(
    "options", [{"underlyings": "BTC"}, {"venues": ["deribit"]}], ids=lambda options: next(iter(options))
)
def test_other_frames_need_a_clock_of_their_own(calm: Session, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="every='1s'"):
        replay(calm.path, **options)  # type: ignore[arg-type]


def test_several_captures_have_no_frames_to_make_again(calm: Session, eventful: Session) -> None:
    with pytest.raises(InputError, match="several captures"):
        replay([calm.path, eventful.path])


def test_a_session_is_the_same_whenever_it_is_made(tmp_path: Path, calm: Session) -> None:
    again = record(tmp_path / "again", books=False, seconds=0.4)
    assert again.hashes == calm.hashes[:4]
    first, second = (
        [
            (int(k), int(t), p)
            for block in session.capture.blocks("feed-0-deribit")
            for k, t, p in zip(block.kind, block.time_ns, block.payloads, strict=True)
            if k == RecordKind.RECEIVED and t <= session.capture.start_ns + 400_000_000
        ]
        for session in (again, calm)
    )
    assert first == second[: len(first)]
