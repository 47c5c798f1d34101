"""Frames on a clock of one's own."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.replay.sessions import SECOND, START, Session, record, small_blocks
from volsurf.capture.directory import CaptureOptions
from volsurf.capture.format import Block, RecordKind
from volsurf.engine.core import CoreRules
from volsurf.engine.frame import Frame
from volsurf.errors import InputError
from volsurf.feeds.protocol import BookEvent
from volsurf.replay._messages import Messages, Run, Sieve
from volsurf.replay.foreign import memory_block
from volsurf.replay.player import FeedPlayer
from volsurf.replay.replay import Replay, replay


def frames(path: object, every: object = "500ms", **options: object) -> list[Frame]:
    """Played with a clock of one's own."""
    return list(cast(Replay, replay(path, every, **options)))  # type: ignore[arg-type]


def hashes(path: object, every: object = "500ms", **options: object) -> list[bytes]:
    """Of those."""
    return [frame.hash for frame in frames(path, every, **options)]


def records(block: Block) -> list[tuple[int, int, int, bytes]]:
    """The records of a block."""
    return list(
        zip(block.time_ns.tolist(), block.connection.tolist(), block.kind.tolist(), block.payloads, strict=True)
    )


def stream(session: Session) -> list[tuple[int, int, int, bytes]]:
    """The records of a session's first feed."""
    return [row for block in session.capture.blocks("feed-0-deribit") for row in records(block)]


def player(rows: list[tuple[int, int, int, bytes]], session: Session) -> FeedPlayer:
    """Plays records."""
    settings = session.capture.streams["feed-0-deribit"].settings
    return FeedPlayer([memory_block(rows)], lambda process: settings, number=0)


def test_frames_stand_on_whole_periods(calm: Session) -> None:
    made = frames(calm.path, "500ms")
    assert [frame.time_ns - START for frame in made] == [SECOND // 2 * n for n in range(1, 7)]
    assert [frame.number for frame in made] == [1, 2, 3, 4, 5, 6]
    assert all(frame.surfaces["BTC"].certificate for frame in made)


def test_every_message_is_played_once(eventful: Session) -> None:
    played = cast(Replay, replay(eventful.path, "1s"))
    assert len(list(played)) == 3
    assert played.messages == eventful.messages
    assert played.progress == 1.0
    assert played.lost == ()


@pytest.mark.parametrize("name", ["eventful", "four"])
def test_what_is_left_out_changes_nothing(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Session = request.getfixturevalue(name)
    quick = hashes(session.path)
    monkeypatch.setattr("volsurf.replay.player.FEWEST", 1 << 60)
    assert hashes(session.path) == quick


def test_how_often_a_feed_is_collected_changes_nothing(calm: Session) -> None:
    once, often = player(stream(calm), calm), player(stream(calm), calm)
    end = START + 3 * SECOND
    once.advance(end)
    for at in range(START, end + 1, SECOND // 20):
        often.advance(at)
    boards = [p._recorded.feed.board for p in (once, often) if p._recorded is not None]
    for name in ("bid", "ask", "mark", "mark_vol", "forward", "index", "venue_time_ns", "receive_time_ns"):
        np.testing.assert_array_equal(getattr(boards[0], name), getattr(boards[1], name))


def test_the_feeds_health_is_the_recorded_one(eventful: Session) -> None:
    states = [frame.health["deribit"].state for frame in frames(eventful.path, "100ms")]
    assert states[:6] == ["ready"] * 6
    assert "disconnected" in states
    assert states[-1] == "ready"


def test_without_reports_health_is_what_the_venues_say(calm: Session) -> None:
    rows = [row for row in stream(calm) if row[2] <= RecordKind.TAKEN_OVER]
    alone = player(rows, calm)
    alone.advance(START + SECOND)
    (health,) = [entry for entry in alone.entries if type(entry).__name__ == "FeedHealth"]
    assert (health.name, health.state, health.connected) == ("deribit", "ready", 1)  # type: ignore[union-attr]
    assert health.messages == alone.messages > 1000  # type: ignore[union-attr]


def books(played: Replay) -> dict[str, tuple[tuple[float, float], ...]]:
    """Best bid and ask with their sizes, by symbol, of every book that is open."""
    found = {}
    for made in played._player._players:  # type: ignore[union-attr]
        assert isinstance(made, FeedPlayer)
        assert made._recorded is not None
        feed = made._recorded.feed
        assert feed.books is not None
        for event in feed.books.snapshots():
            found[feed.universe[event.instrument_id].symbol] = (*event.bids[:1], *event.asks[:1])
    return found


@pytest.mark.parametrize("venue", ["deribit", "okx"])
def test_reading_starts_at_a_snapshot(venue: str, tmp_path: Path) -> None:
    small = CaptureOptions(segment_mb=0.4, pending_mb=1e6, min_free_mb=0.0, flush_seconds=0.005)

    session = record(tmp_path / "segments", [venue], seconds=1.5, options=small, meddle=small_blocks)
    segments = session.capture.feeds[f"feed-0-{venue}"].segments
    starts = [segment.head.opened_ns for segment in segments if segment.head.is_snapshot]
    assert starts, "no segment begins with a snapshot"
    begin = starts[0] + SECOND // 10
    whole, part = (cast(Replay, replay(session.path, "250ms", start=start)) for start in (None, begin))
    full = {frame.time_ns: frame for frame in whole}
    first = next(part)
    told = [event for event in part.events if isinstance(event, BookEvent)]
    assert told
    assert all(event.is_snapshot for event in told)
    for frame in (first, *part):
        mine, other = frame.surfaces["BTC"], full[frame.time_ns].surfaces["BTC"]
        assert len(mine) == len(other)
        # A surface is smoothed over time, so one that begins anew is near, not the same.
        np.testing.assert_allclose(mine.nodes().vol, other.nodes().vol, atol=3e-3)
    assert part.messages < session.messages, "nothing was left out, so it did not start at a snapshot"
    np.testing.assert_array_equal(part.board.bid, _in_order(whole, part, "bid"))
    assert books(part) == books(whole)


def _in_order(one: Replay, other: Replay, name: str) -> np.ndarray:
    """A column of one board in the order of the other's instruments."""
    ids = [one.universe.find(i.venue, i.symbol) for i in other.universe]
    return np.asarray(getattr(one.board, name)[ids])


def test_a_clock_that_was_set_back(calm: Session) -> None:
    back = 3600 * SECOND
    rows = [
        (time - back if time > START + 1_200_000_000 and kind != RecordKind.BATCH else time, connection, kind, payload)
        for time, connection, kind, payload in stream(calm)
        if kind not in (RecordKind.ENTRY, RecordKind.BATCH, RecordKind.HANDED)
    ]
    played = player(rows, calm)
    played.advance(START + SECOND)
    assert played.shift_ns == 0
    played.advance(START + 2 * SECOND)
    assert played.shift_ns == pytest.approx(-back, abs=SECOND // 5)
    played.advance(START + 4 * SECOND)
    assert played.is_over
    assert played.messages == calm.messages


def test_captures_merge_in_time(calm: Session, four: Session, tmp_path: Path) -> None:
    shutil.copytree(four.path, tmp_path / "okx")
    for segment in [*(tmp_path / "okx").glob("feed-[023]-*"), *(tmp_path / "okx").glob("core.*")]:
        segment.unlink()
    made = frames([calm.path, tmp_path / "okx"], "1s")
    assert [frame.time_ns - START for frame in made] == [SECOND, 2 * SECOND, 3 * SECOND]
    assert set(made[0].health) == {"deribit", "okx"}
    venues = {frame.health["okx"].messages for frame in made}
    assert len(venues) > 1


def test_some_venues_and_underlyings(four: Session) -> None:
    (first, *_) = frames(four.path, "1s", venues=["okx", "bybit"])
    assert set(first.health) == {"okx", "bybit"}
    none = cast(Replay, replay(four.path, "1s", underlyings=["ETH"]))
    assert not any(frame.surfaces for frame in none)
    assert any("no option of ETH" in sentence for sentence in none.lost)
    with pytest.raises(InputError, match="no feed of kraken in the capture; there are: binance, bybit, deribit, okx"):
        replay(four.path, "1s", venues="kraken")


def test_rules_of_ones_own(calm: Session) -> None:
    assert hashes(calm.path, rules=CoreRules(smoothing_seconds=0.0)) != hashes(calm.path)


def test_events_are_of_the_core(eventful: Session) -> None:
    played = cast(Replay, replay(eventful.path, "1s"))
    seen = 0
    for frame in played:
        for event in played.events:
            assert played.universe[event.instrument_id].venue == "deribit"  # type: ignore[union-attr]
            seen += 1
        del frame
    assert seen > 1000


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("+1s", 1.0),
        ("2027-01-15T08:00:01.200Z", 1.5),
        (datetime(2027, 1, 15, 8, 0, 2), 2.0),
        (datetime(2027, 1, 15, 8, 0, 2, tzinfo=UTC), 2.0),
        (START + 2 * SECOND, 2.0),
    ],
    ids=str,
)
def test_beginning_at_a_time(calm: Session, start: object, first: float) -> None:
    made = frames(calm.path, timedelta(milliseconds=500), start=start)
    assert (made[0].time_ns - START) / SECOND == first
    assert made[-1].time_ns == START + 3 * SECOND


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": "soon"}, "every must be a period of a millisecond or more"),
        ({"every": 0.0}, "every must be a period"),
        ({"every": "1s", "start": "noon"}, "start must be a time like"),
        ({"every": "1s", "start": "+10m"}, "nothing to play from"),
        ({"every": "1s", "start": "+2s", "stop": "+1s"}, "nothing to play from"),
        ({"every": "1s", "speed": 0.0}, "speed must be positive"),
        ({"every": "1s", "venues": []}, "venues must be names"),
    ],
    ids=lambda value: str(value),
)
def test_what_cannot_be_asked(calm: Session, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replay(calm.path, **options)  # type: ignore[arg-type]


def test_a_path_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no capture"):
        replay(tmp_path / "nowhere", "1s")
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    with pytest.raises(InputError, match="is no capture"):
        replay(tmp_path / "notes.txt", "1s")


def test_pace(calm: Session) -> None:
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    inner = cast(Replay, replay(calm.path, "1s"))
    paced = Replay(
        inner._player,
        inner._sources,
        start_ns=inner.start_ns,
        end_ns=inner.end_ns,
        speed=2.0,
        sleep=sleep,
        monotonic=lambda: now[0],
    )
    assert len(list(paced)) == 3
    assert slept == pytest.approx([0.5, 0.5])


def test_a_long_silence_is_skipped(calm: Session) -> None:
    rows = stream(calm)
    late = [(time + 600 * SECOND, c, k, p) for time, c, k, p in rows if time > START + 2 * SECOND and k < 20]
    played = player([row for row in rows if row[0] <= START + 2 * SECOND] + late, calm)
    assert played.next_ns is not None
    from volsurf.replay.clocked import ClockedPlayer

    clocked = ClockedPlayer([_One(played)], every_ns=SECOND, start_ns=START, end_ns=START + 700 * SECOND)  # type: ignore[list-item]
    made = list(clocked.play())
    assert [(frame.time_ns - START) // SECOND for frame in made] == [1, 2, 603]
    assert "nothing was recorded from" in clocked.notes[0]


class _One:
    """A source of one player."""

    venues = ("deribit",)

    def __init__(self, made: FeedPlayer) -> None:
        self._made = made
        self.rules: dict[str, object] = {}

    def players(self, *_: object, **__: object) -> list[FeedPlayer]:
        return [self._made]


def test_names_decide_what_is_replaced() -> None:
    from volsurf.feeds.protocol import Replaceable

    def wanted(messages: list[bytes], rule: Replaceable, blocks: int = 1, timers: bool = False) -> list[bytes]:
        rows = [(1, 0, RecordKind.RECEIVED, message) for message in messages]
        if timers:
            rows = [row for pair in zip(rows, [(1, 0, RecordKind.TIMER, b"")] * len(rows), strict=True) for row in pair]
        size = -(-len(rows) // blocks)
        runs = []
        for at in range(0, len(rows), size):
            part = rows[at : at + size]
            runs.append(Run(Messages(memory_block(part), np.arange(len(part))), 0, len(part)))
        found = Sieve(rule).wanted(runs)
        kept = [payload for run, rows in zip(runs, found, strict=True) for payload in run.messages.take(rows)]
        return [payload for payload in kept if payload]

    plain = Replaceable(b'{"t":"')
    a1, a2, b1, ab = b'{"t":"a","n":1}', b'{"t":"a","n":2}', b'{"t":"b","n":1}', b'{"t":"ab"}'
    assert wanted([a1, b1, ab, a2], plain) == [b1, ab, a2]
    assert wanted([a1, b'{"t":"a', b'{"t":'], plain) == [a1, b'{"t":"a', b'{"t":']
    marked = Replaceable(b'{"t":"', b',"n":', 1)
    assert wanted([a1, b'{"t":"a","change":1}', a2], marked) == [b'{"t":"a","change":1}', a2]
    # Across blocks, and never past the last one before a timer, which asks whether anything was heard.
    assert wanted([a1, b1, ab, a2], plain, blocks=2) == [b1, ab, a2]
    assert wanted([a1, a2, a1, a2], plain, timers=True) == [a1, a2, a1, a2]
    numbered = Replaceable(b'{"t":"', number_at=6)
    # 2 came before 1: the venue holds 2 and finds 1 late, so both are needed.
    assert wanted([a1, a2, a1], numbered) == [a2, a1]
    assert wanted([a1, a1, a2], numbered) == [a2]


def test_the_capture_in_the_repository() -> None:
    path = ROOT / "data" / "capture_four_venues"
    assert sum(file.stat().st_size for file in path.iterdir()) < 5_000_000
    played = cast(Replay, replay(path, "1s"))
    last = list(played)[-1]
    assert set(last.health) == {"deribit", "okx", "bybit", "binance"}
    assert all(status.state == "ready" for status in last.health.values())
    assert last.surfaces["BTC"].certificate
    assert played.lost == ()
