"""What recording costs: `python -m tests.bench.bench_capture [--seconds 8]` prints one JSON object.

Each venue's simulator is recorded for some seconds; its frames, over and over at 10,000 a second, are then the load of the
figures: the cost of a message on the feed's thread and on the writer's, the ratio of compression, megabytes an hour; beside them
the same messages written in the usual way, as JSON lines through gzip, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import importlib
import json
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from volsurf.capture.directory import claim, make_options
from volsurf.capture.format import RecordKind
from volsurf.capture.recorder import Recorder
from volsurf.capture.recording import Recording
from volsurf.capture.taps import FeedTap
from volsurf.capture.writer import StreamWriter
from volsurf.sim.market import Market

VENUES = {
    "deribit": "SimulatedDeribit",
    "okx": "SimulatedOkx",
    "bybit": "SimulatedBybit",
    "binance": "SimulatedBinance",
}
RATE = 10_000
BURST = 100
"""Messages of one read of a socket."""


class _Exchange:
    """A simulator in a thread."""

    def __init__(self, venue: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        make = getattr(importlib.import_module(f"volsurf.sim.{venue}"), VENUES[venue])
        self._server = make(Market(7, ["BTC", "ETH"], start_ns=time.time_ns()))
        self._call(self._server.__aenter__())
        self.url = str(self._server.url)

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def close(self) -> None:
        self._call(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)


def record(venue: str, folder: Path, seconds: float) -> tuple[list[bytes], dict[str, Any]]:
    """Frames of a venue's simulator and the figures of their recording."""
    exchange = _Exchange(venue)
    try:
        with Recording(venue, ["BTC", "ETH"], folder / venue, url=exchange.url, books=True, min_free_mb=0) as recording:
            end = time.monotonic() + 60.0
            while not recording.is_ready and time.monotonic() < end:
                time.sleep(0.1)
            recording.wait(seconds)
    finally:
        exchange.close()
    capture = recording.open()
    frames = [
        payload
        for block in capture.blocks(f"feed-0-{venue}")
        for payload, kind in zip(block.payloads, block.kind.tolist(), strict=True)
        if kind == RecordKind.RECEIVED
    ]
    return frames, recording.figures


def _fresh(frames: list[bytes], start: int) -> list[bytes]:
    """A burst of copies: what a socket brings is new, and in the processor's cache."""
    return [b"%b" % frames[i % len(frames)] for i in range(start, start + BURST)]


def tap_cost(frames: list[bytes]) -> float:
    """Nanoseconds a message on the feed's thread, nobody else running: median of bursts."""
    tap = FeedTap(Recorder(1 << 40))
    costs = []
    for start in range(0, 200 * BURST, BURST):
        burst = _fresh(frames, start)
        now = time.time_ns()
        began = time.perf_counter_ns()
        for data in burst:
            tap.received(0, now, data)
        costs.append((time.perf_counter_ns() - began) / BURST)
    return statistics.median(costs)


def steady(frames: list[bytes], folder: Path, seconds: float) -> dict[str, float]:
    """Recording at `RATE` beside its writer: costs of both threads, sizes."""
    claimed = claim(folder / "steady")
    writer = StreamWriter(claimed.path, "feed-0-x", capture=claimed.id, options=make_options({"min_free_mb": 0.0}))
    tap = FeedTap(writer.recorder)
    costs: list[int] = []
    began, sent = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        while sent < (time.monotonic() - began) * RATE:
            burst = _fresh(frames, sent)
            now, started = time.time_ns(), time.perf_counter_ns()
            for data in burst:
                tap.received(0, now, data)
            costs.append(time.perf_counter_ns() - started)
            sent += BURST
        time.sleep(0.002)
    writer.close()
    claimed.release()
    figures = writer.figures
    spent = time.monotonic() - began
    hours = spent / 3600
    return {
        "messages": sent,
        "tap_beside_writer_ns": statistics.median(costs) / BURST,
        "burst_max_us": max(costs) / 1e3,
        "writer_ns": 1e9 * figures["writer_seconds"] / sent,
        "writer_core_percent": 100 * figures["writer_seconds"] / spent,
        "ratio": figures["raw_bytes"] / figures["stored_bytes"],
        "stored_mb_per_hour": figures["stored_bytes"] / 1e6 / hours,
        "raw_mb_per_hour": figures["raw_bytes"] / 1e6 / hours,
        "lost_records": figures["lost_records"],
    }


def json_lines(frames: list[bytes], folder: Path, messages: int) -> dict[str, float]:
    """The same messages as JSON lines through gzip, in one thread."""
    path = folder / "lines.gz"
    raw = 0
    began = time.thread_time()
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i in range(messages):
            line = json.dumps({"t": time.time_ns(), "c": 0, "m": frames[i % len(frames)].decode()})
            raw += len(frames[i % len(frames)])
            file.write(line + "\n")
    spent = time.thread_time() - began
    return {"gzip_ns": 1e9 * spent / messages, "gzip_ratio": raw / path.stat().st_size}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--venues", default=",".join(VENUES))
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    for venue in args.venues.split(","):
        folder = Path(tempfile.mkdtemp(prefix="volsurf-capture-"))
        try:
            frames, recorded = record(venue, folder, args.seconds)
            running = steady(frames, folder, args.seconds)
            figures[venue] = {
                "frames": len(frames),
                "frame_bytes": round(sum(map(len, frames)) / len(frames)),
                "live_ratio": recorded["ratio"],
                "live_messages_per_second": recorded["messages_per_second"],
                "tap_ns": tap_cost(frames),
                **running,
                **json_lines(frames, folder, min(int(running["messages"]), 30_000)),
            }
        except ModuleNotFoundError as error:
            figures[venue] = {"missing": str(error)}
        finally:
            shutil.rmtree(folder)
        rounded = {key: round(v, 2) if isinstance(v, float) else v for key, v in figures[venue].items()}
        figures[venue] = rounded
        print(venue, rounded, flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
