"""Keeping a capture to its limits: the oldest whole segments go, the newest of a stream never does."""

from __future__ import annotations

import os
from pathlib import Path

from volsurf.capture import format as layout
from volsurf.capture.directory import CaptureOptions, earlier
from volsurf.capture.reader import is_written
from volsurf.capture.segments import segment_names

_DAY_NS = 86_400_000_000_000


class Retention:
    """Deletes segments of a capture, and of finished ones made in the same place before it."""

    def __init__(self, path: Path, options: CaptureOptions) -> None:
        self._path, self._options = path, options

    def apply(self, now_ns: int) -> str:
        """Delete what is beyond the limits; returns what was done, in words, "" for nothing."""
        options = self._options
        if options.max_gb is None and options.keep_days is None:
            return ""
        segments = self._segments()
        total = sum(size for _, size, _, _ in segments)
        limit = None if options.max_gb is None else options.max_gb * 1e9
        oldest_ns = None if options.keep_days is None else now_ns - int(options.keep_days * _DAY_NS)
        removed: list[str] = []
        removed_bytes = 0
        for changed_ns, size, path, may_go in segments:
            too_old = oldest_ns is not None and changed_ns < oldest_ns
            too_much = limit is not None and total > limit
            if may_go and (too_old or too_much) and _delete(path):
                total -= size
                removed_bytes += size
                removed.append(str(path.relative_to(self._path.parent)))
        self._sweep()
        if not removed:
            return ""
        names = removed[0] if len(removed) == 1 else f"{removed[0]} to {removed[-1]}"
        return f"{len(removed)} oldest segments ({removed_bytes / 1e6:,.0f} MB) were deleted to keep to the limits: {names}"

    def _segments(self) -> list[tuple[int, int, Path, bool]]:
        """When each segment was last written, its size, its path and whether it may go; oldest first."""
        found = []
        for capture in (*earlier(self._path), self._path):
            if not capture.is_dir():
                continue
            is_over = capture != self._path and not is_written(capture)
            names = segment_names(capture)
            newest = {name.stream: name.sequence for name in names}
            for name in names:
                path = capture / str(name)
                try:
                    status = path.stat()
                except FileNotFoundError:  # another stream's writer was first
                    continue
                may_go = is_over or (capture == self._path and name.sequence < newest[name.stream])
                found.append((status.st_mtime_ns, status.st_size, path, may_go))
        return sorted(found, key=lambda item: item[0])

    def _sweep(self) -> None:
        """Remove earlier captures of which no segment is left."""
        for capture in earlier(self._path):
            if not is_written(capture) and not segment_names(capture):
                for leftover in (
                    *capture.glob(f"*{layout.CLOSED_SUFFIX}"),
                    capture / layout.MANIFEST,
                    capture / layout.LOCK,
                ):
                    _delete(leftover)
                try:
                    os.rmdir(capture)
                except OSError:
                    continue  # it holds something that is not ours


def _delete(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
