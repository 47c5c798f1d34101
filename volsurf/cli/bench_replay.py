"""`volsurf bench replay`: a captured session of all simulated venues, played to frames, and its columns written to the board.

The capture is made once by the simulators under a clock moved by hand and kept in the cache directory; every run then reads it
from disk: checksums, decompression, the venues' own parsing, the core and its frames, each with its hash. Keys of the JSON
object:

* `raw_messages_per_second`: venue messages played to frames of `--every`, over the wall clock, the median of `rounds`;
  `raw_messages_per_cpu_second` over this process's processor time: on a quiet machine both are one;
* `columnar_quotes_per_second`: rows of the exported Parquet read, conflated to one second and written to the core's board, frames
  excluded; `columnar_quotes_per_cpu_second` likewise;
* `session_messages_per_second`, `messages`, `composition`: what was played; `mebibytes` on disk, `raw_mebibytes` unpacked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

# One thread for everybody, set before numpy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["POLARS_MAX_THREADS"] = "1"

from volsurf.errors import InputError

if TYPE_CHECKING:
    from volsurf.capture.reader import Capture

VENUES = ("deribit", "okx", "bybit", "binance")
_COLUMNS_NS = 20_000_000
"""Period of the export: finer than its default, so that there is something to read."""
_START_NS = 1_795_000_000_000_000_000
"""2026-11-18 11:06:40 UTC: the sessions are the same whenever they are made."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object with the figures on the last line")
    parser.add_argument("--venues", default=",".join(VENUES), help=f"comma-separated (default {','.join(VENUES)})")
    parser.add_argument("--underlyings", default="BTC", help="comma-separated (default BTC)")
    parser.add_argument(
        "--rate",
        type=float,
        default=40_000,
        metavar="N",
        help="messages a second of the session, about (default 40000)",
    )
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of the session (default 20)")
    parser.add_argument("--every", default="1s", help="period of the frames (default 1s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="times it is played (default 5)")
    parser.add_argument("--path", default=None, help="play this capture instead of making one")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure, print, and return the figures."""
    from volsurf._jit import ensure_compiled
    from volsurf.capture.reader import open_capture

    if args.rounds < 1 or args.seconds < 2 or args.rate < 0:
        raise InputError("--rounds must be at least 1, --seconds at least 2, and --rate not negative")
    ensure_compiled()
    path = Path(args.path) if args.path else _made(args)
    capture = open_capture(path)
    composition = _composition(capture)
    messages = sum(composition.values())
    seconds = (capture.end_ns - capture.start_ns) / 1e9
    wall, cpu, frames = _play_raw(path, args.every, args.rounds, messages)
    rows, columns, columns_cpu = _play_columns(capture, path, args.rounds)
    figures: dict[str, object] = {
        "raw_messages_per_second": round(wall),
        "raw_messages_per_cpu_second": round(cpu),
        "columnar_quotes_per_second": round(columns),
        "columnar_quotes_per_cpu_second": round(columns_cpu),
        "messages": messages,
        "quotes": rows,
        "frames": frames,
        "session_seconds": round(seconds, 3),
        "session_messages_per_second": round(messages / seconds),
        "mebibytes": round(sum(stream.bytes for stream in capture.streams.values()) / 2**20, 1),
        "raw_mebibytes": round(
            sum(e.raw for s in capture.streams.values() for g in s.segments for e in g.index) / 2**20, 1
        ),
        "rounds": args.rounds,
        "composition": ", ".join(f"{name} {count:,}" for name, count in composition.items()),
    }
    to = sys.stderr if args.json else sys.stdout
    for key, value in figures.items():
        print(f"{key:>30}  {value if isinstance(value, str) else format(value, ',')}", file=to)
    if args.json:
        print(json.dumps(figures))
    return figures


def _play_raw(path: Path, every: str, rounds: int, messages: int) -> tuple[float, float, int]:
    """Messages a second of wall and of processor time, and frames a round."""
    from volsurf.replay.replay import replay

    walls, cpus, frames = [], [], 0
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        player = replay(path, every)
        for frame in player:
            assert frame.hash
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        frames = player.frames
        if player.messages != messages:
            raise InputError(f"{player.messages:,} of {messages:,} messages were played; {'; '.join(player.lost)}")
    return messages / statistics.median(walls), messages / statistics.median(cpus), frames


def _play_columns(capture: Capture, path: Path, rounds: int) -> tuple[int, float, float]:
    """Rows of the export, and rows a second of wall and of processor time to the board."""
    from volsurf.capture.export import export
    from volsurf.engine.core import Core
    from volsurf.replay.columnar import ColumnarSource

    out = path.with_name(f"{path.name}-columns")
    if not out.exists():
        export(capture, out, every_ns=_COLUMNS_NS)
    walls, cpus, rows = [], [], 0
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        source = ColumnarSource(out)
        core, rows = Core(), 0
        players = source.players(None, source.start_ns, source.end_ns, 0)
        tick = source.start_ns
        while any(player.next_ns is not None for player in players):
            tick += 1_000_000_000
            for player in players:
                player.advance(tick)
                for entry in player.entries:
                    core.apply(entry)
                player.entries.clear()
                player.events.clear()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        rows = sum(player.messages for player in players)
    return rows, rows / statistics.median(walls), rows / statistics.median(cpus)


def _composition(capture: Capture) -> dict[str, int]:
    """Messages by venue."""
    return {
        stream.venue: sum(entry.frames for segment in stream.segments for entry in segment.index)
        for stream in capture.feeds.values()
    }


def _made(args: argparse.Namespace) -> Path:
    """The capture of these arguments, from the cache or made now."""
    from rich.console import Console
    from rich.progress import Progress

    from volsurf import __version__
    from volsurf._jit import cache_directory
    from volsurf.capture.format import VERSION
    from volsurf.replay.rehearsal import Rehearsal

    venues = [name.strip() for name in args.venues.split(",") if name.strip()]
    underlyings = [name.strip() for name in args.underlyings.split(",") if name.strip()]
    name = "-".join([*venues, *underlyings, f"{args.rate:g}", f"{args.seconds:g}s", __version__, f"format{VERSION}"])
    folder = cache_directory().parent / "captures"
    path = folder / name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    making = folder / f"{name}.{os.getpid()}"
    session = Rehearsal(
        making, venues, underlyings, start_ns=_START_NS, rate=args.rate, frame_seconds=1.0, batch_seconds=0.5
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("making the capture (first run)", total=args.seconds)
        for _ in session.run(args.seconds):
            progress.advance(task)
    session.close()
    # Whole or not at all: two runs at once must not read each other's half.
    try:
        making.rename(path)
    except OSError:
        if not path.exists():
            raise
    return path
