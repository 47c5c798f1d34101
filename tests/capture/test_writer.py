"""The writer's thread: rotation, a disk that fails or is slow, what is lost and what is said of it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import structs

from tests.capture.recorded import FEED, QUICK, Written, messages, read, until
from tests.conftest import ROOT
from volsurf.capture import writer as writer_module
from volsurf.capture.format import FEED_WIDE, RecordKind
from volsurf.capture.reader import open_capture
from volsurf.capture.recorder import OVERHEAD_BYTES, Recorder
from volsurf.capture.records import unpack_loss
from volsurf.capture.verify import verify


class Disk:
    """Stands in for `os.write`: can be full, can take only part, can hang."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.go = threading.Event()
        self.go.set()
        self.calls = 0

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.calls += 1
        self.go.wait()
        if self.room is None:
            return os.write(fd, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # As a disk does on its last bytes: part of the data is taken, and only then it is full.
        taken = os.write(fd, data[: min(len(data), self.room)])
        self.room -= taken
        return taken


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again at once."""
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.005)


def test_segments_rotate_by_size_and_each_ends_with_its_index(tmp_path: Path) -> None:
    with Written(tmp_path / "c", options=structs.replace(QUICK, segment_mb=0.001)) as written:
        for i in range(20):
            written.put(messages(30, start=30 * i))
    capture = open_capture(written.path)
    segments = capture.streams[FEED].segments
    assert len(segments) >= 4
    assert all(segment.is_closed for segment in segments)
    for before, after in pairwise(segments):
        assert after.head.first == before.next_first
        assert after.head.previous_bytes == before.bytes
    assert read(capture) == messages(600)
    assert verify(capture).ok


def test_segments_rotate_by_time(tmp_path: Path) -> None:
    with Written(tmp_path / "c", options=structs.replace(QUICK, segment_seconds=0.05)) as written:
        first = written.writer.segments
        while written.writer.segments < first + 4:
            written.put(messages(1))
    assert len(open_capture(written.path).streams[FEED].segments) >= 4


def test_a_large_run_is_cut_into_blocks(tmp_path: Path) -> None:
    with Written(tmp_path / "c") as written:
        written.put(messages(40_000))
        written.put([(1, 0, 3, bytes(3 << 20)), (2, 0, 3, bytes(3 << 20)), (3, 0, 3, b"")])
    capture = open_capture(written.path)
    assert max(len(block) for block in capture.blocks(FEED)) <= writer_module.BLOCK_RECORDS
    assert len(read(capture)) == 40_003


def test_a_full_disk_loses_nothing_as_long_as_memory_holds(tmp_path: Path) -> None:
    disk = Disk()
    with Written(tmp_path / "c", write=disk.write) as written:
        written.put(messages(10))
        disk.room = 100
        for row in messages(500, start=10):
            written.writer.recorder.put(*row)
        until(lambda: "No space left on device" in written.writer.trouble)
        # What is there is whole blocks: nothing of the one that did not fit stays behind.
        assert open_capture(written.path).streams[FEED].segments[0].torn_bytes == 0
        disk.room = None
        until(lambda: not written.writer.trouble)
    capture = open_capture(written.path)
    assert read(capture) == messages(510)
    assert (capture.lost, written.writer.figures["lost_records"]) == ((), 0)
    assert verify(capture).ok


def test_a_disk_full_for_longer_costs_one_gap_that_is_told_and_reading_starts_anew(tmp_path: Path) -> None:
    disk = Disk()
    options = structs.replace(QUICK, pending_mb=0.02)
    with Written(tmp_path / "c", options=options, write=disk.write, snapshots=True) as written:
        recorder = written.writer.recorder
        written.put(messages(10))
        disk.room = 0
        for row in messages(1000, start=10):
            recorder.put(*row)
        assert 0 < recorder.held_bytes <= 20_000 + 40 + OVERHEAD_BYTES
        lost = recorder.lost_records
        assert 800 < lost < 1000
        assert "lost" in written.writer.trouble
        disk.room = None
        until(lambda: recorder.held_bytes == 0)
        written.put(messages(10, start=1010))
        until(lambda: recorder.wants_snapshot)
        written.put([(1, FEED_WIDE, int(RecordKind.SNAPSHOT), b"\0\0\0\0")])
        assert "the capture lost" in written.writer.trouble
    capture = open_capture(written.path)
    rows = read(capture)
    (told,) = [unpack_loss(row[3]) for row in rows if row[2] == RecordKind.LOST]
    assert (told.records, told.payload_bytes) == (lost, lost * 40)
    kept = [row for row in rows if row[2] == RecordKind.RECEIVED]
    assert kept == messages(1010 - lost) + messages(10, start=1010)
    assert (told.since_ns, told.until_ns) == ((1010 - lost) * 1_000_000, 1009 * 1_000_000)
    (sentence,) = capture.lost
    assert f"{lost:,} records between" in sentence
    assert "the disk did not take them in time" in sentence
    assert [segment.head.is_snapshot for segment in capture.streams[FEED].segments] == [False, True]
    # What is missing is said by the stream itself: nothing is damaged.
    assert verify(capture).ok


def test_a_disk_that_hangs_never_holds_up_who_puts(tmp_path: Path) -> None:
    disk = Disk()
    with Written(tmp_path / "c", write=disk.write, options=structs.replace(QUICK, pending_mb=0.01)) as written:
        written.put(messages(1))
        disk.go.clear()
        calls = disk.calls
        written.writer.recorder.put(*messages(1)[0])
        until(lambda: disk.calls > calls)
        # The thread is in the middle of a write and stays there; this returns all the same.
        for row in messages(5000):
            written.writer.recorder.put(*row)
        assert written.writer.recorder.held_bytes < 20_000
        assert written.writer.recorder.lost_records > 4000
        disk.go.set()
    assert sum("were not kept" in sentence for sentence in open_capture(written.path).lost) == 1


def test_a_disk_with_little_room_is_left_alone(tmp_path: Path) -> None:
    with Written(tmp_path / "c", options=structs.replace(QUICK, min_free_mb=1e12)) as written:
        written.writer.recorder.put(*messages(1)[0])
        until(lambda: "MB are free on the disk" in written.writer.trouble)
        assert not list(written.path.glob("*.vscap"))


def test_no_segment_can_be_begun_on_a_full_disk_and_none_is_left_half_begun(tmp_path: Path) -> None:
    disk = Disk()
    disk.room = 20
    with Written(tmp_path / "c", write=disk.write) as written:
        written.writer.recorder.put(*messages(1)[0])
        until(lambda: written.writer.trouble)
        assert not list(written.path.glob("*.vscap"))
        disk.room = None
        until(lambda: written.writer.records == 1)
    assert read(open_capture(written.path)) == messages(1)


def test_an_end_that_the_disk_does_not_take_is_seen_as_one(tmp_path: Path) -> None:
    disk = Disk()
    written = Written(tmp_path / "c", write=disk.write)
    written.put(messages(3))
    disk.room = 0
    written.__exit__()
    capture = open_capture(written.path)
    assert read(capture) == messages(3)
    assert "its process was ended while it wrote" in capture.lost[0]


def test_an_end_for_which_there_is_no_room_left_is_counted_and_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> None:
        raise OSError(errno.ENOSPC, "too little room")

    with Written(tmp_path / "c") as written:
        written.put(messages(3))
        monkeypatch.setattr(written.writer, "_check_room", no_room)
        for row in messages(5, start=3):
            written.writer.recorder.put(*row)
        until(lambda: written.writer.trouble)
    # The five, and the record that ends a stream.
    assert written.writer.figures["lost_records"] == 6
    capture = open_capture(written.path)
    assert read(capture) == messages(3)
    assert "is missing" in capture.lost[0]


def test_a_segment_is_asked_a_snapshot_for_once(tmp_path: Path) -> None:
    options = structs.replace(QUICK, segment_mb=0.001)
    with Written(tmp_path / "c", options=options, snapshots=True) as written:
        recorder = written.writer.recorder
        written.put([(1, 0, 3, os.urandom(2000))])
        written.put(messages(1))
        until(lambda: recorder.wants_snapshot)
        recorder.wants_snapshot = False
        # A record that still belongs to the segment before must not ask for another.
        recorder.put_together([*messages(1), (1, FEED_WIDE, int(RecordKind.SNAPSHOT), b"\0\0\0\0")])
        until(lambda: written.writer.segments == 2)
        written.put(messages(1))
        assert not recorder.wants_snapshot


def test_a_disk_that_fails_to_sync_a_closed_segment_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(writer_module._log, "error", lambda *args: said.append(args[0] % args[1:]))
    monkeypatch.setattr(writer_module, "SYNC_SECONDS", 3600.0)

    def broken(fd: int) -> None:
        os.close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(writer_module, "_sync", broken)
    with Written(tmp_path / "c", options=structs.replace(QUICK, segment_mb=0.001)) as written:
        for i in range(20):
            written.put(messages(30, start=30 * i))
        until(lambda: any("Input/output error" in sentence for sentence in said))


def test_a_disk_that_never_ends_a_sync_does_not_keep_the_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.capture.recorded import Written, messages, until\n"
        "from volsurf.capture import writer\n"
        "begun = []\n"
        "writer._sync = lambda fd: (begun.append(fd), time.sleep(3600))\n"
        "writer.SYNC_SECONDS = 0.0\n"
        "with Written(Path(sys.argv[1])) as written:\n"
        "    written.put(messages(1))\n"
        "    until(lambda: begun)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], check=True, timeout=30, cwd=ROOT)


def test_a_writer_that_fails_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Written(tmp_path / "c") as written:
        monkeypatch.setattr(writer_module.layout, "encode_block", lambda *a, **k: 1 / 0)
        written.writer.recorder.put(*messages(1)[0])
        until(lambda: "nothing is recorded" in written.writer.trouble)


def test_a_segment_is_never_written_over(tmp_path: Path) -> None:
    with Written(tmp_path / "c") as written:
        written.put(messages(1))
        (written.path / f"{FEED}.000002.vscap").write_bytes(b"somebody else's")
        (written.path / f"{FEED}.closed").write_bytes(b'{"process":1,"sequ')
        written.writer.close()
        written.open_writer()
        written.put(messages(1))
    assert (written.path / f"{FEED}.000002.vscap").read_bytes() == b"somebody else's"
    assert (written.path / f"{FEED}.000003.vscap").exists()


def test_it_syncs_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(writer_module, "_sync", lambda fd: (synced.append(fd), os.close(fd))[0])
    monkeypatch.setattr(writer_module, "SYNC_SECONDS", 3600.0)
    with Written(tmp_path / "c") as written:
        for _ in range(10):
            written.put(messages(1))
        assert synced == []
        monkeypatch.setattr(writer_module, "SYNC_SECONDS", 0.0)
        written.put(messages(1))
        until(lambda: synced)


def test_the_recorder_keeps_its_limit_and_tells_every_loss() -> None:
    recorder = Recorder(1000)
    for i in range(20):
        recorder.put(i, 0, 3, bytes(100))
    kept = recorder.take()
    assert len(kept) == 5
    recorder.put(20, 0, 3, b"")  # taken is not written: there is still no room
    assert recorder.take() == []
    recorder.written(kept)
    recorder.put(21, 7, 3, b"after")
    loss, after = recorder.take()
    assert after == (21, 7, 3, b"after")
    assert unpack_loss(loss[3]).records == 16
    assert (recorder.lost_records, recorder.lost_bytes) == (16, 1500)
    recorder.end(22)
    assert recorder.take() == []


def test_what_belongs_together_is_kept_or_lost_as_a_whole() -> None:
    recorder = Recorder(1000)
    for i in range(20):
        recorder.put(i, 0, 3, bytes(100))
    kept = recorder.take()
    together = [(30, 0, 40 + i, bytes(600)) for i in range(3)]
    recorder.put_together(together)
    assert recorder.take() == []
    assert recorder.lost_records == 15 + 3
    # Larger than the memory there is to be, but whole: half of one could not be read.
    recorder.written(kept)
    recorder.put_together(together)
    loss, *rest = recorder.take()
    assert unpack_loss(loss[3]).records == 18
    assert rest == together
