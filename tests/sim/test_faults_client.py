"""The client's own machine: clocks that step and disks that are full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from volsurf.sim.faults import FaultScript, FaultyClock, FullDisk

SECOND = 1_000_000_000


class Time:
    now = 0

    def __call__(self) -> int:
        return self.now


def test_a_clock_is_stepped_by_hand() -> None:
    time = Time()
    clock = FaultyClock(time)
    assert clock() == 0
    clock.jump(-3.0)
    assert clock() == -3 * SECOND
    clock.suspend(10.0)
    time.now = SECOND
    assert clock() == -3 * SECOND, "no time passes asleep"
    time.now = 10 * SECOND
    assert clock() == 7 * SECOND, "and all of it on waking"
    assert [(r.kind, r.what) for r in clock.log.records] == [("clock_jump", "-3 s"), ("suspend", "10 s")]
    with pytest.raises(ValueError, match="0 s or longer"):
        clock.suspend(-1.0)


def test_a_clock_follows_a_script() -> None:
    time = Time()
    time.now = 100 * SECOND
    clock = FaultyClock(time, FaultScript.parse("at 2s for 60s suspend; at 1s clock_jump by=-500ms; at 1s disconnect"))
    readings = []
    for seconds in (100, 100.999, 101, 101.999, 102, 103, 162):
        time.now = int(seconds * SECOND)
        readings.append(clock() / SECOND)
    assert readings == [100, 100.999, 100.5, 101.499, 101.5, 101.5, 161.5]
    assert clock.log.counts == {"clock_jump": 1, "suspend": 1}


def test_a_full_disk_takes_what_there_is_room_for(tmp_path: Path) -> None:
    disk = FullDisk(10)
    with disk.open(tmp_path / "a") as a, disk.open(tmp_path / "b") as b:
        assert a.write(b"1234") == 4
        assert b.write(b"567") == 3
        with pytest.raises(OSError, match="No space left") as full:
            a.write(b"890123")
        assert full.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space left"):
            b.write(b"x")
        assert disk.refused == 2
        disk.free(1)
        assert b.write(b"x") == 1
        a.flush()
        assert a.fileno() > 2
    assert (tmp_path / "a").read_bytes() == b"1234890"
    assert (tmp_path / "b").read_bytes() == b"567x"


def test_a_file_can_be_appended_to_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old ")
    with FullDisk(5).open(path, "ab") as file:
        file.write(memoryview(b"new"))
    assert path.read_bytes() == b"old new"
