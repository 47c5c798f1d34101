"""Ends a recording process by `kill -9` at random instants under load, and recovers.

    python -m tests.bench.kill_capture [--kills 100]

The load is 10,000 messages a second of 600 bytes that shrink little, with ticks, small segments and snapshots, so that some kills
meet a rotation. The process notes the number of each message in shared memory before it is recorded, so what a kill cost is
known to the message. Prints a line per kill and one JSON object at the end; status 1 where a recovery was not clean.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from volsurf.capture.directory import claim, make_options
from volsurf.capture.format import FEED_WIDE, RecordKind
from volsurf.capture.reader import open_capture
from volsurf.capture.records import NUMBER
from volsurf.capture.taps import FeedTap
from volsurf.capture.verify import verify
from volsurf.capture.writer import StreamWriter

STREAM = "feed-0-load"
_PLACE = struct.Struct("<QQ")
"""Number and time of the last message that was recorded."""
_BYTES, _FILLERS = 600, 20_000
"""Longer together than zstd looks back."""


@dataclass(frozen=True)
class Kill:
    """What one kill cost."""

    after_ms: float
    messages: int
    lost_messages: int
    lost_ms: float
    torn_bytes: int
    segments: int
    clean: bool
    said: str


def load(path: str, counter: str, rate: int) -> None:
    """Record until killed."""
    with open(counter, "r+b") as file:
        place = mmap.mmap(file.fileno(), _PLACE.size)
    claimed = claim(path)
    options = make_options({"segment_mb": 2.0, "min_free_mb": 0.0})
    writer = StreamWriter(claimed.path, STREAM, capture=claimed.id, options=options, snapshots=True)
    tap, recorder = FeedTap(writer.recorder), writer.recorder
    letters = np.frombuffer(b'0123456789",:{}abcdef', np.uint8)
    filler = [row.tobytes() for row in letters[np.random.default_rng(1).integers(0, len(letters), (_FILLERS, _BYTES))]]
    number = 0
    print("recording", flush=True)
    started = time.monotonic()
    while True:
        due = int((time.monotonic() - started) * rate)
        while number < due:
            now = time.time_ns()
            _PLACE.pack_into(place, 0, number + 1, now)
            tap.received(0, now, b'{"number":%d,' % number + filler[number % _FILLERS])
            number += 1
        tap.collected(time.time_ns(), 0, 0)
        if recorder.wants_snapshot:
            recorder.wants_snapshot = False
            recorder.put(time.time_ns(), FEED_WIDE, int(RecordKind.SNAPSHOT), NUMBER.pack(0))
        time.sleep(0.002)


def kill_once(folder: Path, seconds: float, rate: int = 10_000) -> Kill:
    """Start a recording in a folder, kill it after so many seconds, and read what is there."""
    path, counter = folder / "capture", folder / "counter"
    counter.write_bytes(bytes(_PLACE.size))
    command = [sys.executable, "-m", "tests.bench.kill_capture", "--load", str(path), str(counter), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    put, put_ns = _PLACE.unpack(counter.read_bytes())
    return _recovered(path, seconds, put, put_ns)


def _recovered(path: Path, seconds: float, put: int, put_ns: int) -> Kill:
    capture = open_capture(path)
    found, last_ns, whole = 0, put_ns, True
    if STREAM in capture.streams:
        for block in capture.blocks(STREAM):
            rows = np.flatnonzero(block.kind == RecordKind.RECEIVED).tolist()
            for row in rows:
                whole = whole and block.payloads[row].startswith(b'{"number":%d,' % found)
                found += 1
            last_ns = int(block.time_ns[rows[-1]]) if rows else last_ns
    verification = verify(capture)
    segments = capture.streams[STREAM].segments if STREAM in capture.streams else []
    return Kill(
        after_ms=round(seconds * 1e3, 1),
        messages=found,
        # The one it was about to record when it was killed counts as lost.
        lost_messages=put - found,
        lost_ms=round((put_ns - last_ns) / 1e6, 1) if found else round(seconds * 1e3, 1),
        torn_bytes=sum(segment.torn_bytes for segment in segments),
        segments=len(segments),
        clean=whole and verification.ok and not capture.is_live and put >= found,
        said="; ".join((*verification.damage, *capture.lost)),
    )


def main() -> int:
    """Run, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--load", nargs=3, metavar=("PATH", "COUNTER", "RATE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        load(args.load[0], args.load[1], int(args.load[2]))
    rng = random.Random(args.seed)
    kills = []
    for number in range(args.kills):
        folder = Path(tempfile.mkdtemp(prefix="volsurf-kill-"))
        try:
            kill = kill_once(folder, rng.uniform(0.05, 2.0), args.rate)
        finally:
            shutil.rmtree(folder)
        kills.append(kill)
        print(f"{number + 1:4d}  {'clean' if kill.clean else 'NOT CLEAN'}  {json.dumps(asdict(kill))}", flush=True)
    lost = [kill.lost_ms for kill in kills]
    summary = {
        "kills": len(kills),
        "clean": sum(kill.clean for kill in kills),
        "lost_ms_median": statistics.median(lost),
        "lost_ms_max": max(lost),
        "lost_messages_max": max(kill.lost_messages for kill in kills),
        "torn": sum(kill.torn_bytes > 0 for kill in kills),
        "messages": sum(kill.messages for kill in kills),
    }
    print(json.dumps(summary))
    return 0 if summary["clean"] == len(kills) and max(lost) <= 1000.0 else 1


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
