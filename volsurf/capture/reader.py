"""Reading a capture: its streams, the time they cover, what of them was lost, their blocks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from volsurf.capture import format as layout
from volsurf.capture.format import Block
from volsurf.capture.segments import Segment, segment_names
from volsurf.errors import InputError


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `capture.json`."""

    id: str
    created_ns: int
    version: int = layout.VERSION
    format: str = "volsurf capture"
    volsurf: str = ""
    host: str = ""
    pid: int = 0
    settings: dict[str, Any] = {}


class Closing(msgspec.Struct, frozen=True):
    """A line of `<stream>.closed`: how the last segment of a process was closed."""

    process: int
    sequence: int
    bytes: int


class Stream:
    """One stream: the segments of the process, or the processes one after the other, that wrote it.

    Attributes:
        name: `"feed-0-deribit"`, `"core"`. segments: in order. closings: of its processes that ended in good order.
    """

    def __init__(self, name: str, path: Path, segments: list[Segment]) -> None:
        self.name = name
        self.segments = segments
        self.closings = _read_closings(path / f"{name}{layout.CLOSED_SUFFIX}")

    def __repr__(self) -> str:
        return f"Stream({self.name}, {len(self.segments)} segments, {self.records:,} records)"

    @property
    def settings(self) -> dict[str, Any]:
        """Of the newest process."""
        return self.segments[-1].head.settings

    @property
    def is_core(self) -> bool:
        """It is the core's, and holds no frames of a venue."""
        return self.name == layout.CORE

    @property
    def venue(self) -> str:
        """Name of the feed's venue; "" for the core."""
        return str(self.settings.get("venue", ""))

    @property
    def feed(self) -> int:
        """Number of the feed; -1 for the core."""
        return int(self.settings.get("feed", -1))

    @property
    def processes(self) -> tuple[int, ...]:
        """Numbers of the processes that wrote what is there, in order."""
        return tuple(dict.fromkeys(segment.head.process for segment in self.segments))

    @property
    def records(self) -> int:
        """Records in all its segments."""
        return sum(segment.records for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Size of its segments on disk."""
        return sum(segment.bytes for segment in self.segments)

    @cached_property
    def start_ns(self) -> int:
        """Least time of a record; 0 where there is none."""
        return min((entry.least_ns for segment in self.segments for entry in segment.index), default=0)

    @cached_property
    def end_ns(self) -> int:
        """Greatest time of a record; 0 where there is none."""
        return max((entry.greatest_ns for segment in self.segments for entry in segment.index), default=0)


class Capture:
    """A capture that is read; `open_capture` opens one.

    Attributes:
        path: the directory. manifest: who made it. streams: by name.
        is_live: somebody is writing it now; what was there when it was opened is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise InputError(f"no capture {str(path)!r}: it is a directory, as `volsurf capture --out` makes it")
        self.is_live = is_written(path)
        by_stream: dict[str, list[Segment]] = {}
        for name in segment_names(path):
            try:
                by_stream.setdefault(name.stream, []).append(Segment(path / str(name)))
            except FileNotFoundError:
                continue  # deleted by its writer since
        self.streams: Mapping[str, Stream] = {
            name: Stream(name, path, segments) for name, segments in sorted(by_stream.items()) if segments
        }
        self.manifest = _read_manifest(path)
        if self.manifest is None and not self.streams:
            raise InputError(
                f"no capture in {str(path)!r}: it holds no {layout.MANIFEST} and no {layout.SUFFIX} segment"
            )

    def __repr__(self) -> str:
        seconds = (self.end_ns - self.start_ns) / 1e9
        return f"Capture({str(self.path)!r}, {', '.join(self.streams) or 'empty'}, {seconds:,.1f} s from {clock(self.start_ns)})"

    @property
    def start_ns(self) -> int:
        """Least time of a record of any stream, ns UTC."""
        return min((stream.start_ns for stream in self.streams.values() if stream.records), default=0)

    @property
    def end_ns(self) -> int:
        """Greatest time of a record of any stream, ns UTC."""
        return max((stream.end_ns for stream in self.streams.values()), default=0)

    @property
    def feeds(self) -> dict[str, Stream]:
        """The streams that hold frames of venues."""
        return {name: stream for name, stream in self.streams.items() if not stream.is_core}

    @property
    def lost(self) -> tuple[str, ...]:
        """What is missing or damaged, a sentence each, by stream; more may come to light as blocks are read."""
        from volsurf.capture.losses import losses_of

        return tuple(sentence for stream in self.streams.values() for sentence in losses_of(stream, self.is_live))

    def blocks(
        self, stream: str, start_ns: int | None = None, end_ns: int | None = None, *, from_snapshot: bool = False
    ) -> Iterator[Block]:
        """The blocks of a stream, in order, that hold records of the times [start_ns, end_ns]; whole, so more comes with them.

        Damaged blocks are left out; `lost` names them from then on.

        Args:
            stream: its name. from_snapshot: begin earlier, where `begin` says that reading can start, and leave nothing out
                from there to `end_ns`.
        """
        segments = self._stream(stream).segments
        begin = self.begin(stream, start_ns) if from_snapshot and start_ns is not None else None
        for segment in segments:
            if begin is None:
                yield from segment.blocks(start_ns, end_ns)
            elif segment.head.sequence >= begin:
                yield from segment.blocks(None, end_ns)

    def begin(self, stream: str, time_ns: int) -> int:
        """Sequence of the last segment opened by `time_ns` that reading can start with: a process's first, or a snapshot."""
        chosen, process = 0, -1
        for segment in self._stream(stream).segments:
            head = segment.head
            if (head.is_snapshot or head.process != process) and (not chosen or head.opened_ns <= time_ns):
                chosen = head.sequence
            process = head.process
        return chosen

    def _stream(self, name: str) -> Stream:
        if name not in self.streams:
            raise InputError(f"no stream {name!r} in {str(self.path)!r}; there are: {', '.join(self.streams)}")
        return self.streams[name]


def open_capture(path: str | os.PathLike[str]) -> Capture:
    """The capture in a directory, to be read; also while it is being written.

    Raises:
        InputError: there is none.
    """
    return Capture(Path(path).expanduser())


def is_written(path: Path) -> bool:
    """Whether a living process writes this capture."""
    try:
        with open(path / layout.LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def clock(time_ns: int) -> str:
    """A time as people read it, UTC."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns % 1_000_000_000 // 1_000_000:03d}"


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return msgspec.json.decode((path / layout.MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        # Its writer was ended while it made it, or it was not copied along; the segments say all that is needed.
        return None


def _read_closings(path: Path) -> dict[int, Closing]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    closings = []
    for line in lines:
        try:
            closings.append(msgspec.json.decode(line, type=Closing))
        except msgspec.DecodeError:
            continue  # cut short with its process; the segment's own footer tells
    return {closing.process: closing for closing in closings}
