"""What is in a capture, in figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from volsurf.capture.format import RecordKind
from volsurf.capture.reader import Capture, Stream, clock


def describe(capture: Capture) -> dict[str, Any]:
    """Figures of a capture, flat, with those of each stream under `streams` and what is missing under `lost`.

    Reads the indexes, not the blocks; `messages` are the frames that venues sent.
    """
    streams = [_stream(stream) for stream in capture.streams.values()]
    seconds = (capture.end_ns - capture.start_ns) / 1e9
    stored_mb = sum(stream["stored_mb"] for stream in streams)
    raw_mb = sum(stream["raw_mb"] for stream in streams)
    manifest = capture.manifest
    return {
        "path": str(capture.path),
        "id": manifest.id if manifest else "",
        "volsurf": manifest.volsurf if manifest else "",
        "start": clock(capture.start_ns),
        "end": clock(capture.end_ns),
        "start_ns": capture.start_ns,
        "end_ns": capture.end_ns,
        "seconds": round(seconds, 3),
        "segments": sum(stream["segments"] for stream in streams),
        "records": sum(stream["records"] for stream in streams),
        "messages": sum(stream["messages"] for stream in streams),
        "messages_per_second": round(sum(stream["messages"] for stream in streams) / seconds, 1) if seconds else 0.0,
        "raw_mb": round(raw_mb, 6),
        "stored_mb": round(stored_mb, 6),
        "ratio": round(raw_mb / stored_mb, 3) if stored_mb else 0.0,
        "is_live": capture.is_live,
        "lost": list(capture.lost),
        "streams": streams,
    }


def _stream(stream: Stream) -> dict[str, Any]:
    index = [entry for segment in stream.segments for entry in segment.index]
    stored, raw = stream.bytes / 1e6, sum(entry.raw for entry in index) / 1e6
    return {
        "stream": stream.name,
        "venue": stream.venue,
        "underlyings": list(stream.settings.get("underlyings", ())),
        "processes": len(stream.processes),
        "segments": len(stream.segments),
        "start_ns": stream.start_ns,
        "end_ns": stream.end_ns,
        "records": stream.records,
        "messages": sum(entry.frames for entry in index),
        "raw_mb": round(raw, 6),
        "stored_mb": round(stored, 6),
        "ratio": round(raw / stored, 3) if stored else 0.0,
        "foreign": str(stream.settings.get("foreign", "")),
    }


def count_records(capture: Capture) -> dict[str, dict[str, int]]:
    """Records of each kind by stream; reads everything."""
    found = {}
    for name in capture.streams:
        total = np.zeros(256, np.int64)
        for block in capture.blocks(name):
            total += np.bincount(block.kind, minlength=256)
        found[name] = {kind.name.lower(): int(total[kind]) for kind in RecordKind if total[kind]}
    return found
