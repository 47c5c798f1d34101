"""The thread that turns a stream's records into blocks and blocks into segments, off everybody's way."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from volsurf.capture import format as layout
from volsurf.capture.directory import CaptureOptions
from volsurf.capture.format import FEED_WIDE, RecordKind, SegmentHead
from volsurf.capture.reader import Closing, _read_closings
from volsurf.capture.recorder import Record, Recorder
from volsurf.capture.records import NUMBER, unpack_loss
from volsurf.capture.retention import Retention
from volsurf.capture.segment_file import SegmentFile, Write
from volsurf.capture.segments import Segment, SegmentName, segment_names

_log = logging.getLogger("volsurf.capture")

BLOCK_RECORDS = 16384
BLOCK_BYTES = 4 << 20
"""A block holds no more than so many records, or payloads of so many bytes: the next one is begun."""
SYNC_SECONDS = 1.0
RETRY_SECONDS = 0.5
RETENTION_SECONDS = 10.0
TROUBLE_SECONDS = 60.0
"""So long after the last loss it is still named."""
_NAMES = {kind.name: int(kind) for kind in RecordKind}


class _Chunk(NamedTuple):
    """Records for one block, and whether a segment begins with it."""

    records: list[Record]
    begins: bool


class StreamWriter:
    """Writes one stream of a capture, in a thread of its own, until `close`.

    Records are left in `recorder` by one other thread. What happens to the disk never reaches that one: a full or slow disk fills
    the recorder, and what then comes is lost, counted, said in `trouble` and in the stream.

    Args:
        path: the capture's directory, claimed by this process or the one that started it. stream: its name.
        capture: the capture's id. settings: kept in the head of every segment.
        snapshots: a new segment waits until its putting thread gives a SNAPSHOT, which `recorder.wants_snapshot` asks for.
        write: stands in for `os.write`. clock: ns UTC.
    """

    def __init__(
        self,
        path: Path,
        stream: str,
        *,
        capture: str,
        options: CaptureOptions,
        settings: dict[str, Any] | None = None,
        snapshots: bool = False,
        write: Write = os.write,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        import zstandard

        self._path, self.stream, self._capture, self._options = path, stream, capture, options
        self._settings, self._snapshots, self._write, self._clock = settings or {}, snapshots, write, clock
        self._compressor = zstandard.ZstdCompressor(level=options.level)
        self.recorder = Recorder(int(options.pending_mb * 1e6))
        self._retention = Retention(path, options)
        self._sequence, self.process = _after(path, stream)
        self._number = 0
        self._file: SegmentFile | None = None
        self._previous_bytes = 0
        self._opened_at = 0.0
        self._asked = False
        """The next segment waits for a snapshot."""
        self._chunks: deque[_Chunk] = deque()
        self._own: list[Record] = []
        self._stop = threading.Event()
        self._syncs: list[Future[None]] = []
        self._unsynced, self._synced_at = False, time.monotonic()
        self._looked_at = time.monotonic()
        self._error = ""
        self.frames = self.raw_bytes = self.stored_bytes = self.records = self.segments = 0
        """Written so far: received frames, bytes before and after compression, records, segments begun."""
        self.busy_seconds = 0.0
        """Processor time of the thread."""
        self._thread = threading.Thread(target=self._run, name=f"volsurf-capture-{stream}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"StreamWriter({self.stream}, {self.records:,} records, {self.trouble or 'well'})"

    @property
    def trouble(self) -> str:
        """What is wrong with the recording now, or was within the last minute, in words; "" where nothing is."""
        recorder = self.recorder
        if not self._thread.is_alive() and not self._stop.is_set():
            return "the capture has ended unexpectedly: nothing is recorded"
        words = []
        if self._error:
            words.append(f"the capture cannot be written: {self._error}")
        if recorder.lost_records and time.monotonic() - recorder.lost_at < TROUBLE_SECONDS:
            words.append(f"the capture lost {recorder.lost_records:,} records ({recorder.lost_bytes / 1e6:,.1f} MB)")
        return "; ".join(words)

    @property
    def figures(self) -> dict[str, float]:
        """Counts so far, flat."""
        return {
            "records": self.records,
            "messages": self.frames,
            "raw_bytes": self.raw_bytes,
            "stored_bytes": self.stored_bytes,
            "segments": self.segments,
            "lost_records": self.recorder.lost_records,
            "lost_bytes": self.recorder.lost_bytes,
            "writer_seconds": self.busy_seconds,
        }

    def report(self) -> dict[str, Any]:
        """`figures` and `trouble`, for another process."""
        return {**self.figures, "trouble": self.trouble}

    def close(self, timeout: float = 10.0) -> None:
        """Write what was left, close the segment, end the thread; call it from the thread that puts records, or after it."""
        if not self._stop.is_set():
            now = self._clock()
            self.recorder.end(now)
            self.recorder.put(now, FEED_WIDE, RecordKind.END, b"")
            self._stop.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.error("%s: the disk did not take the end of the capture within %g s", self.stream, timeout)

    # --- the thread ---------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            while not self._stop.wait(self._pause()):
                self._turn()
            self._turn()
            self._finish()
        except Exception:
            _log.exception("%s: the writer of the capture failed; nothing is recorded any more", self.stream)
            self._stop.clear()  # `trouble` says that it ended by itself

    def _pause(self) -> float:
        return RETRY_SECONDS if self._error else self._options.flush_seconds

    def _turn(self) -> None:
        started = time.thread_time()
        if not self._chunks:
            self._cut([*self._own, *self.recorder.take()])
            self._own.clear()
        try:
            self._check_room()
            while self._chunks:
                self._write_chunk(self._chunks[0])
                done = self._chunks.popleft()
                self.recorder.written([record for record in done.records if record[2] != RecordKind.REMOVED])
            self._keep_up()
            self._error = ""
        except OSError as error:
            text = error.strerror or str(error)
            if not self._error:  # once: words that count megabytes differ at every attempt
                _log.error("%s: the capture cannot be written: %s; trying again", self.stream, text)
            self._error = text
        self.busy_seconds += time.thread_time() - started

    def _cut(self, records: list[Record]) -> None:
        """Into chunks of one block each: a block begins with a LOST, a segment with a SNAPSHOT, whose records stay together."""
        start = size = whole = 0
        begins = False
        for i, record in enumerate(records):
            kind = record[2]
            full = size >= BLOCK_BYTES or i - start >= BLOCK_RECORDS
            if i > start and i >= whole and (full or kind == RecordKind.SNAPSHOT or kind == RecordKind.LOST):
                self._chunks.append(_Chunk(records[start:i], begins))
                start, size, begins = i, 0, False
            if kind == RecordKind.SNAPSHOT:
                begins, whole = True, i + 1 + NUMBER.unpack(record[3])[0]
            size += len(record[3])
        if start < len(records):
            self._chunks.append(_Chunk(records[start:], begins))

    def _write_chunk(self, chunk: _Chunk) -> None:
        due = self._is_due()
        if chunk.begins or (due and not self._snapshots) or self._file is None:
            self._begin(is_snapshot=chunk.begins, first=self._first(chunk))
        elif due and not self._asked:
            self._asked = self.recorder.wants_snapshot = True
        assert self._file is not None
        times, connections, kinds, payloads = zip(*chunk.records, strict=True)
        block = layout.encode_block(
            np.array(times, np.int64),
            np.array(connections, np.uint32),
            np.array(kinds, np.uint8),
            payloads,
            first=self._first(chunk),
            compressor=self._compressor,
        )
        self._file.append(block)
        self._number = self._first(chunk) + len(chunk.records)
        entry = self._file.index[-1]
        self.records += entry.records
        self.frames += entry.frames
        self.raw_bytes += entry.raw
        self.stored_bytes += len(block)
        self._unsynced = True

    def _first(self, chunk: _Chunk) -> int:
        """Number of a chunk's first record."""
        time_ns, _, kind, payload = chunk.records[0]
        del time_ns
        return self._number + (unpack_loss(payload).records if kind == RecordKind.LOST else 0)

    def _is_due(self) -> bool:
        options = self._options
        return self._file is not None and (
            self._file.bytes >= options.segment_mb * 1e6
            or time.monotonic() - self._opened_at >= options.segment_seconds
        )

    def _begin(self, *, is_snapshot: bool, first: int) -> None:
        """Close the segment there is and begin the next one."""
        if self._file is not None:
            self._file.seal(self._compressor)
            self._previous_bytes, sealed, self._file = self._file.bytes, self._file, None
            self._syncs.append(_sync_beside(sealed.fd))
            sealed.close()
        head = SegmentHead(
            stream=self.stream,
            sequence=self._sequence,
            process=self.process,
            opened_ns=self._clock(),
            first=first,
            capture=self._capture,
            volsurf=_version(),
            is_snapshot=is_snapshot,
            previous_bytes=self._previous_bytes,
            settings=self._settings,
            kinds=_NAMES,
        )
        name = SegmentName(self.stream, self._sequence)
        self._file = SegmentFile(self._path / str(name), head, write=self._write)
        self._sequence += 1
        self._asked = False
        self.segments += 1
        self._opened_at = time.monotonic()

    def _check_room(self) -> None:
        if self._options.min_free_mb:
            disk = os.statvfs(self._path)
            free_mb = disk.f_bavail * disk.f_frsize / 1e6
            if free_mb < self._options.min_free_mb:
                raise OSError(
                    f"{free_mb:,.0f} MB are free on the disk, {self._options.min_free_mb:,.0f} MB are to stay so"
                )

    def _keep_up(self) -> None:
        now = time.monotonic()
        done = [sync for sync in self._syncs if sync.done()]
        self._syncs = [sync for sync in self._syncs if sync not in done]
        for sync in done:
            sync.result()  # raises what the disk said
        if self._unsynced and not self._syncs and now - self._synced_at >= SYNC_SECONDS and self._file is not None:
            self._syncs.append(_sync_beside(self._file.fd))
            self._unsynced, self._synced_at = False, now
        if now - self._looked_at >= RETENTION_SECONDS:
            self._looked_at = now
            self._retire()

    def _retire(self) -> None:
        sentence = self._retention.apply(self._clock())
        if sentence:
            _log.warning("%s: %s", self.stream, sentence)
            self._own.append((self._clock(), FEED_WIDE, RecordKind.REMOVED, sentence.encode()))

    def _finish(self) -> None:
        if self._chunks:
            left = [*(record for chunk in self._chunks for record in chunk.records), *self.recorder.take()]
            self.recorder.lost_records += len(left)
            self.recorder.lost_bytes += sum(len(record[3]) for record in left)
            self.recorder.lost_at = time.monotonic()
            _log.error("%s: the disk did not take the end of the capture: %s", self.stream, self._error)
            if self._file is not None:
                # Without a footer, so that readers say that something is missing.
                self._file.close()
            return
        if self._file is None:
            return
        try:
            self._file.seal(self._compressor)
            os.fsync(self._file.fd)
        except OSError as error:
            _log.error("%s: the last segment could not be closed: %s", self.stream, error.strerror)
            return
        finally:
            self._file.close()
        line = Closing(self.process, self._file.head.sequence, self._file.bytes)
        with contextlib.suppress(OSError):  # then it counts as cut off, though nothing is missing
            _append_line(self._path / f"{self.stream}{layout.CLOSED_SUFFIX}", line)


def _after(path: Path, stream: str) -> tuple[int, int]:
    """Sequence of the next segment of a stream and number of the process that writes it."""
    mine = [name for name in segment_names(path) if name.stream == stream]
    closings = _read_closings(path / f"{stream}{layout.CLOSED_SUFFIX}")
    last = max(closings.values(), key=lambda closing: closing.process, default=None)
    sequence = max([name.sequence for name in mine] + ([last.sequence] if last else [0]))
    process = last.process if last else 0
    if mine:
        with contextlib.suppress(layout.Damage):
            process = max(process, Segment(path / str(mine[-1])).head.process)
    return sequence + 1, process + 1


def _append_line(path: Path, closing: Closing) -> None:
    import msgspec

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(file, msgspec.json.encode(closing) + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


def _sync_beside(fd: int) -> Future[None]:
    """Sync a file, which may be closed meanwhile, in a thread of its own.

    A disk that takes seconds for it must neither keep records in memory meanwhile, where a killed process loses them, nor keep
    this process from ending.
    """
    own, done = os.dup(fd), Future[None]()

    def run() -> None:
        try:
            _sync(own)
        except OSError as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="volsurf-capture-sync", daemon=True).start()
    return done


def _sync(fd: int) -> None:
    try:
        os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
    finally:
        os.close(fd)


def _version() -> str:
    from volsurf import __version__

    return __version__
