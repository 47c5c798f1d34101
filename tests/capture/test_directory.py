"""Who may write where, and which old segments go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec import structs

from tests.capture.recorded import FEED, QUICK, Written, messages, read, write
from volsurf.capture.directory import CaptureOptions, claim, make_options
from volsurf.capture.format import RecordKind
from volsurf.capture.reader import open_capture
from volsurf.capture.retention import Retention
from volsurf.errors import ConfigError

HOLD = "import sys; from volsurf.capture.directory import claim; c = claim(sys.argv[1]); print(c.path, flush=True); input()"
DAY_NS = 86_400_000_000_000


def test_two_processes_cannot_write_one_directory(tmp_path: Path) -> None:
    path = tmp_path / "captures"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(path)
        with pytest.raises(ConfigError, match=f"is being written by process {other.pid}: choose another directory"):
            claim(path)
        # Also where the one that lives is a later one beside it.
        other.kill()
        other.wait()
        with claim_closed(path) as beside:
            assert beside == tmp_path / "captures-2"
            with pytest.raises(ConfigError, match=f"'{beside}' is being written by process {os.getpid()}"):
                claim(path)


class claim_closed:
    """A claim as a context."""

    def __init__(self, path: Path) -> None:
        self._claim = claim(path)

    def __enter__(self) -> Path:
        return self._claim.path

    def __exit__(self, *error: object) -> None:
        self._claim.release()


def test_a_finished_capture_is_left_as_it_is_and_the_next_made_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "captures"
    first = write(path, [messages(3)])
    second = write(path, [messages(5)])
    third = write(path, [messages(7)])
    assert [c.path.name for c in (first, second, third)] == ["captures", "captures-2", "captures-3"]
    assert open_capture(path).streams[FEED].records == 4
    assert open_capture(third.path).streams[FEED].records == 8


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    with claim_closed(tmp_path) as path:
        assert path == tmp_path
        assert (path / "capture.json").exists()


def test_a_name_that_only_looks_like_a_later_one_is_nobody_s(tmp_path: Path) -> None:
    write(tmp_path / "run-7", [messages(1)])
    with claim_closed(tmp_path / "run-7") as path:
        assert path.name == "run-7-2"


def test_a_directory_that_cannot_be_made_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"no capture can be made in .*: Not a directory"):
        claim(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"segment_mb": 0}, "segment_mb of a capture must be positive, was 0"),
        ({"flush_seconds": 2.0}, "must be at most 1, was 2.0"),
        ({"max_gb": 0.1}, "must leave room for four segments of 64 MB"),
        ({"level": 25}, "between 1 and 19, was 25"),
        ({"min_free_mb": -1.0}, "must not be negative"),
        ({"colour": "red"}, "`colour`.*there are segment_mb"),
        ({"books": "yes"}, "Expected `bool`"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make_options(options)


def test_options_have_their_defaults() -> None:
    assert make_options(None) == CaptureOptions()
    assert make_options({"books": True}).books


def small(**more: float) -> CaptureOptions:
    return structs.replace(QUICK, segment_mb=0.0001, **more)


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.glob("*.vscap"))


def test_the_oldest_segments_go_when_the_capture_is_too_large_and_the_newest_never(tmp_path: Path) -> None:
    with Written(tmp_path / "c", options=small()) as written:
        for i in range(8):
            written.put(messages(50, start=50 * i))
        before = names(written.path)
        sizes = [(written.path / name).stat().st_size for name in before]
        limit = structs.replace(small(), max_gb=sum(sizes[-3:]) / 1e9)
        said = Retention(written.path, limit).apply(time.time_ns())
        assert names(written.path) == before[-3:]
        assert f"{len(before) - 3} oldest segments" in said
        assert before[0] in said
        tiny = structs.replace(small(), max_gb=1e-12)
        Retention(written.path, tiny).apply(time.time_ns())
        assert names(written.path) == before[-1:]
        assert Retention(written.path, tiny).apply(time.time_ns()) == ""
    assert open_capture(written.path).lost == (f"feed-0-deribit: its first {len(before) - 1} segments were removed",)


def test_old_segments_go_and_with_the_last_one_an_earlier_capture(tmp_path: Path) -> None:
    old = write(tmp_path / "c", [messages(5)])
    stranger = write(tmp_path / "other", [messages(5)])
    with Written(tmp_path / "c", options=small()) as written:
        written.put(messages(50))
        written.put(messages(50))
        retention = Retention(written.path, structs.replace(small(), keep_days=1.0))
        assert retention.apply(time.time_ns()) == ""
        assert retention.apply(time.time_ns() + 2 * DAY_NS) != ""
        assert len(names(written.path)) == 1
    assert not old.path.exists()
    assert stranger.path.exists()


def test_the_writer_keeps_to_the_limits_and_says_so_in_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volsurf.capture.writer.RETENTION_SECONDS", 0.0)
    with Written(tmp_path / "c", options=small(max_gb=1e-6)) as written:
        for i in range(10):
            written.put(messages(50, start=50 * i))
    capture = open_capture(written.path)
    assert sum(path.stat().st_size for path in written.path.glob("*.vscap")) < 3000
    rows = read(capture)
    assert any(b"deleted to keep to the limits" in row[3] for row in rows if row[2] == RecordKind.REMOVED)
    # What the writer itself has to say was never in the memory that it frees.
    assert written.writer.recorder.held_bytes == 0
