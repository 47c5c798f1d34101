"""What can go wrong on the client's own machine: its clock, its sleep and its disk."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from volsurf.sim._faults_log import FaultLog

if TYPE_CHECKING:
    from volsurf.sim._faults_script import FaultScript


class FaultyClock:
    """A clock, ns UTC, that can be stepped while somebody reads it: `clock = FaultyClock(time.time_ns)`, `clock()`.

    Args:
        base: the true one.
        script: whose `clock_jump` and `suspend` happen as the true clock passes them, counted from the first reading.
    """

    def __init__(self, base: Callable[[], int], script: FaultScript | None = None) -> None:
        self.log = FaultLog()
        self._base = base
        self._offset = 0
        self._start = base()
        self._asleep_at = 0
        self._asleep_until = 0
        self._due = sorted(script.of_client, key=lambda fault: fault.at_ns) if script is not None else []

    def __call__(self) -> int:
        true = self._base()
        while self._due and true - self._start >= self._due[0].at_ns:
            fault = self._due.pop(0)
            if fault.kind == "suspend":
                self.suspend(fault.for_ns * 1e-9)
            else:
                self.jump(float(fault.options["by"]))
        return (self._asleep_at if true < self._asleep_until else true) + self._offset

    def jump(self, seconds: float) -> None:
        """Step the clock: forward, or back where negative."""
        self.log.add(self(), "clock_jump", f"{seconds:g} s")
        self._offset += round(seconds * 1e9)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: whoever reads the clock sees no time pass for so long, and then all of it at once."""
        if seconds < 0:
            raise ValueError(f"a machine sleeps for 0 s or longer, was {seconds}")
        true = self._base()
        self.log.add(true + self._offset, "suspend", f"{seconds:g} s")
        self._asleep_at, self._asleep_until = true, true + round(seconds * 1e9)


class FullDisk:
    """A disk with room for so many bytes: `disk.open(path)` in place of `open(path, "wb")`.

    Writing past the end writes what there is room for and raises `OSError(ENOSPC)`, as a file system does. Room is shared
    by all files opened through it and is not given back when they are removed: `free(n)` does.
    """

    def __init__(self, after_bytes: int) -> None:
        self.room = after_bytes
        self.refused = 0
        """Writes that did not fit."""

    def open(self, path: str | os.PathLike[str], mode: str = "wb") -> io.FileIO:
        """An unbuffered binary file."""
        return _LimitedFile(self, path, mode.replace("b", ""))

    def free(self, room: int) -> None:
        """Make room."""
        self.room += room

    def take(self, wanted: int) -> int:
        """How many of so many bytes fit; they are then used."""
        fits = min(wanted, self.room)
        self.room -= fits
        return fits


class _LimitedFile(io.FileIO):
    def __init__(self, disk: FullDisk, path: str | os.PathLike[str], mode: str) -> None:
        super().__init__(path, mode)
        self._disk = disk

    def write(self, data: object, /) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        fits = self._disk.take(len(view))
        done = super().write(view[:fits]) if fits else 0
        if fits < len(view):
            self._disk.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.name))
        return done
