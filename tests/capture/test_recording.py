"""`vs.capture`: recording without an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import volsurf.capture
from tests.capture.recorded import FEED, until
from tests.engine.exchange import Exchange
from volsurf.capture.format import FEED_WIDE, RecordKind
from volsurf.capture.info import count_records, describe
from volsurf.capture.reader import open_capture
from volsurf.capture.recording import Recording
from volsurf.capture.records import NUMBER, unpack_books, unpack_instruments
from volsurf.capture.verify import verify
from volsurf.errors import ConfigError, FeedError, InputError
from volsurf.instruments import Kind
from volsurf.quotes import QuoteBatch


def test_what_was_received_is_there(recording: Recording) -> None:
    capture = recording.open()
    counts = count_records(capture)[FEED]
    figures = recording.figures
    assert counts["received"] == figures["messages"] > 500
    assert (counts["opened"], counts["connected"], counts["disconnected"], counts["end"]) == (1, 1, 1, 1)
    assert figures["lost_records"] == 0
    assert figures["book_events"] > 100
    assert figures["ratio"] > 3
    assert figures["venues"]["deribit"]["trouble"] == ""
    assert not recording.is_running
    assert capture.lost == ()
    assert verify(capture).ok
    assert describe(capture)["messages"] == figures["messages"]


def test_each_segment_begins_with_the_state_at_that_instant(recording: Recording) -> None:
    capture = recording.open()
    segments = capture.streams[FEED].segments
    assert len(segments) >= 4
    quoted, booked = [], []
    for segment in segments[1:]:
        assert segment.head.is_snapshot
        block = next(segment.blocks())
        assert block.kind[0] == RecordKind.SNAPSHOT
        (count,) = NUMBER.unpack(block.payloads[0])
        rows = list(zip(block.kind.tolist(), block.connection.tolist(), block.payloads, strict=True))[1 : count + 1]
        assert [row[:2] for row in rows[:3]] == [
            (RecordKind.INSTRUMENTS, 0),
            (RecordKind.INSTRUMENTS, FEED_WIDE),
            (RecordKind.QUOTES, FEED_WIDE),
        ]
        listed = unpack_instruments(rows[1][2])
        assert sum(instrument.kind is Kind.OPTION for instrument in listed.instruments) > 500
        quotes = QuoteBatch.from_bytes(rows[2][2])
        assert set(quotes.instrument_id.tolist()) <= set(listed.ids)
        quoted.append(int(np.isfinite(quotes.bid).sum()))
        books = unpack_books(rows[3][2]) if rows[3:] else ()
        assert all(book.is_snapshot for book in books)
        booked.append(len(books))
    # The first one is of a feed that has heard little, the last may be of one that is disconnected.
    assert max(quoted) > 100
    assert max(booked) > 500


def test_it_is_the_public_function_as_well_as_its_package(exchange: Exchange, tmp_path: Path) -> None:
    with volsurf.capture(["deribit"], ["BTC"], tmp_path / "c", url=exchange.url, trades=False) as recording:
        assert isinstance(recording, Recording)
        until(lambda: recording.is_ready)
        assert recording.is_running
        assert not recording.wait(0.01)
        assert "recording, " in repr(recording)
        assert recording.open().is_live
        with pytest.raises(ConfigError, match="is being written by process"):
            Recording("deribit", "BTC", tmp_path / "c", url=exchange.url)
    recording.stop()
    assert "ended" in repr(recording)
    capture = open_capture(recording.path)
    assert capture.streams[FEED].settings["trades"] is False


def test_names_that_are_functions_and_packages_are_both_whatever_is_loaded_first() -> None:
    code = "import volsurf as vs; assert callable(vs.capture); vs.Replay; assert callable(vs.replay); "
    code += "import volsurf.capture.format; volsurf.capture.format.VERSION"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_venue_that_lists_nothing_of_it_ends_with_its_reason(tmp_path: Path) -> None:
    exchange = Exchange(("SOL",))
    try:
        recording = Recording("deribit", "XRP_USDC", tmp_path / "c", url=exchange.url)
        assert recording.wait(20)
        assert "Deribit lists no options of XRP_USDC; there is SOL_USDC" in recording.trouble
        assert not recording.is_ready
        with pytest.raises(FeedError, match="there is SOL_USDC"):
            recording.stop()
        # The conversation in which it was refused is there.
        assert count_records(recording.open())[FEED]["received"] >= 1
    finally:
        exchange.close()


@pytest.mark.parametrize(
    ("venues", "underlyings", "more", "error"),
    [
        ("nosuch", "BTC", {}, "no venue 'nosuch'"),
        ("deribit", [], {}, "underlyings must be names"),
        (["deribit", "deribit"], "BTC", {}, "each once"),
        ("deribit", "BTC", {"colour": 1}, "there are segment_mb"),
        ("deribit", "BTC", {"url": {"okx": "ws://x"}}, "not followed"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_nothing_is_made(
    tmp_path: Path, venues: object, underlyings: object, more: dict[str, object], error: str
) -> None:
    with pytest.raises(InputError, match=error):
        Recording(venues, underlyings, tmp_path / "c", **more)  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()
