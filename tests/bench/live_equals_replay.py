"""A live engine on four simulated venues with faults, captured and replayed twice: are all three the same, frame by frame?

python -m tests.bench.live_equals_replay [--seconds 60] [--underlyings BTC] [--keep DIR] [--json]

The engine is the real one: a process per venue, sockets, a core process and its stream. Three lists of hashes are compared:
those its clients saw, those of the core that lie in the capture, and those of two replays. Exits with 1 where any differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import volsurf as vs
from volsurf.capture.format import CORE, RecordKind
from volsurf.capture.reader import open_capture
from volsurf.capture.records import TICK
from volsurf.engine.live import Engine
from volsurf.replay.replay import Replay, replay
from volsurf.sim.faults import FaultScript
from volsurf.sim.market import Market
from volsurf.sim.venues import SIMULATED, make_server

FAULTS = """
at 5s every 17s times=3 disconnect how=abort venue=deribit
at 7s every 19s times=3 for 2s gap channel=ticker p=0.3
at 9s every 23s times=2 for 1s reorder p=0.3
at 11s every 29s times=2 for 1s duplicate p=0.2
at 14s every 31s times=2 for 2s silence venue=okx
at 16s every 37s times=2 for 1s malformed p=0.02
at 18s for 3s spike underlying=BTC expiry=1 size=0.5 venue=bybit
at 22s disconnect how=close venue=binance
at 26s for 2s crossed underlying=BTC venue=okx
at 33s every 11s times=2 disconnect how=abort venue=bybit
"""


@contextmanager
def simulators(underlyings: Sequence[str], script: str) -> Iterator[dict[str, str]]:
    """Addresses of all simulated venues on one market, served by a thread of this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    now = time.time_ns()
    market = Market(7, list(underlyings), start_ns=now, activity=3.0)

    async def open_all() -> dict[str, Any]:
        servers = {venue: make_server(venue, market, origin_ns=now) for venue in SIMULATED}
        for server in servers.values():
            await server.open()
            server.inject(FaultScript.parse(script))
        return servers

    async def close_all() -> None:
        for server in servers.values():
            await server.close()

    servers = asyncio.run_coroutine_threadsafe(open_all(), loop).result(60)
    try:
        yield {venue: server.url for venue, server in servers.items()}
    finally:
        asyncio.run_coroutine_threadsafe(close_all(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def live(path: Path, seconds: float, underlyings: Sequence[str]) -> dict[int, bytes]:
    """Number → hash of the frames that a client of the live engine saw."""
    seen: dict[int, bytes] = {}
    with (
        simulators(underlyings, FAULTS) as urls,
        Engine(
            list(urls), list(underlyings), url=urls, port=0, capture=path, capture_options={"books": True}
        ) as engine,
    ):
        session = vs.attach(engine.stream_url)
        session.on_frame(lambda frame: seen.__setitem__(frame.number, frame.hash))
        engine.wait_ready(180)
        time.sleep(seconds)
        session.stop()
    return seen


def recorded(path: Path) -> dict[int, bytes]:
    """Number → hash of the core's frames, as it wrote them down."""
    ticks = {}
    for block in open_capture(path).blocks(CORE):
        for kind, payload in zip(block.kind.tolist(), block.payloads, strict=True):
            if kind == RecordKind.TICK:
                ticks[TICK.unpack_from(payload)[0]] = payload[TICK.size :]
    return ticks


def played(path: Path) -> tuple[dict[int, bytes], Replay]:
    """Number → hash of an exact replay; not verified, for that is what is to be found out here."""
    player = replay(path, verify=False)
    assert isinstance(player, Replay)
    return {frame.number: frame.hash for frame in player}, player


def compare(path: Path, seen: dict[int, bytes]) -> dict[str, Any]:
    """The figures."""
    core = recorded(path)
    began = time.perf_counter()
    first, player = played(path)
    took = time.perf_counter() - began
    second, _ = played(path)
    capture = open_capture(path)
    kinds = [k for name in capture.feeds for block in capture.blocks(name) for k in block.kind.tolist()]
    return {
        "frames_recorded": len(core),
        "frames_seen_by_client": len(seen),
        "frames_replayed": len(first),
        "distinct_hashes": len(set(core.values())),
        "client_differs": sum(core.get(number) != digest for number, digest in seen.items()),
        "first_replay_differs": sum(core[number] != first.get(number) for number in core),
        "second_replay_differs": sum(core[number] != second.get(number) for number in core),
        "messages": player.messages,
        "disconnects": kinds.count(RecordKind.DISCONNECTED),
        "replay_seconds": round(took, 2),
        "lost": "; ".join(player.lost),
        "capture_mb": round(sum(stream.bytes for stream in capture.streams.values()) / 1e6, 1),
    }


def main() -> int:
    """Record, replay, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--underlyings", default="BTC")
    parser.add_argument("--keep", type=Path, default=None, help="directory for the capture, kept")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = args.keep or Path(scratch) / "capture"
        figures = compare(path, live(path, args.seconds, args.underlyings.split(",")))
    for name, value in figures.items():
        print(f"{name:>24}  {value}", file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(figures))
    differing = sum(figures[name] for name in figures if name.endswith("_differs"))
    return 0 if figures["frames_recorded"] and not differing else 1


if __name__ == "__main__":
    sys.exit(main())
