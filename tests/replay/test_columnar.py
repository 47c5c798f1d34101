"""Playing columns."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest

from tests.replay.sessions import Session
from volsurf.capture.export import MANIFEST, export
from volsurf.errors import InputError
from volsurf.feeds.protocol import BookEvent, TradeEvent
from volsurf.quotes import VALUES
from volsurf.replay.columnar import is_columnar
from volsurf.replay.replay import Replay, replay


@pytest.fixture(scope="module")
def columns(calm: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calm session's."""
    out = tmp_path_factory.mktemp("exports") / "calm"
    export(calm.capture, out, rows_per_file=4000)
    return out


def test_columns_and_messages_give_one_board(calm: Session, columns: Path) -> None:
    raw, flat = cast(Replay, replay(calm.path, "500ms")), cast(Replay, replay(columns, "500ms"))
    assert is_columnar(columns)
    assert not is_columnar(calm.path)
    for mine, other in zip(flat, raw, strict=True):
        assert mine.time_ns == other.time_ns
        ids = [raw.universe.find(i.venue, i.symbol) for i in flat.universe]
        for name in (*VALUES, "venue_time_ns", "receive_time_ns"):
            np.testing.assert_array_equal(getattr(flat.board, name), getattr(raw.board, name)[ids], err_msg=name)


def test_columns_and_messages_give_one_frame(calm: Session, columns: Path) -> None:
    raw, flat = ([frame.hash for frame in cast(Replay, replay(path, "1s"))] for path in (calm.path, columns))
    assert flat == raw


def test_events_of_columns(eventful: Session, tmp_path: Path) -> None:
    export(eventful.capture, tmp_path / "out")
    found = []
    for path in (eventful.path, tmp_path / "out"):
        played = cast(Replay, replay(path, "1s"))
        events = [event for _ in played for event in played.events]
        symbols = [played.universe[event.instrument_id].symbol for event in events]  # type: ignore[union-attr]
        plain = [msgspec.structs.replace(event, instrument_id=0) for event in events]
        found.append(sorted(zip(symbols, map(repr, plain), strict=True)))
        assert {type(event) for event in events} == {TradeEvent, BookEvent}
    assert found[0] == found[1]


def test_seeking_keeps_the_last_values(columns: Path) -> None:
    whole, part = cast(Replay, replay(columns, "1s")), cast(Replay, replay(columns, "1s", start="+2s", stop="+3s"))
    later = list(part)
    assert len(later) < len(list(whole))
    assert np.isfinite(part.board.bid).sum() == np.isfinite(whole.board.bid).sum()


def test_another_version_is_refused(columns: Path, tmp_path: Path) -> None:
    text = (columns / MANIFEST).read_text().replace('"schema": 1', '"schema": 7')
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match="exported as schema 7"):
        replay(tmp_path, "1s")
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        replay(tmp_path, "1s")


def test_frames_of_columns_need_a_clock(columns: Path) -> None:
    with pytest.raises(InputError, match="every='1s'"):
        replay(columns)
