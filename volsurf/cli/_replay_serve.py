"""`volsurf replay --serve`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

from volsurf.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from volsurf.replay.server import ReplayServer


def serve(args: argparse.Namespace) -> int:
    """Serve until SIGINT, SIGTERM or the time is over; then 0."""
    if len(args.path) != 1:
        raise ConfigError(f"--serve plays one capture, was given {len(args.path)}")
    if args.every or args.stop or args.verify or args.underlyings:
        raise ConfigError(
            "--serve sends messages, not frames: --every, --to, --verify and --underlyings have no meaning with it"
        )
    return asyncio.run(_serve(args))


async def _serve(args: argparse.Namespace) -> int:
    from volsurf.capture.reader import open_capture
    from volsurf.replay.server import ReplayServer, served_venues

    capture = open_capture(args.path[0])
    wanted = [name.strip() for name in args.venues.split(",")] if args.venues else served_venues(capture)
    if not wanted:
        raise ConfigError(f"{args.path[0]} holds no feed that can be served")
    if args.port and len(wanted) > 1:
        raise ConfigError(f"{', '.join(wanted)} take a port each: leave --port out, or name one with --venues")
    servers = {
        venue: ReplayServer(
            capture,
            venue=venue,
            speed=1.0 if args.speed is None else args.speed,
            restamp=args.restamp,
            loop=args.loop,
            start=args.start,
            port=args.port,
        )
        for venue in wanted
    }
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if args.seconds is not None:
        loop.call_later(args.seconds, stopped.set)
    opened: list[ReplayServer] = []
    try:
        for server in servers.values():
            try:
                await server.open()
            except OSError as error:
                raise EngineError(f"could not listen on port {args.port}: {error}") from error
            opened.append(server)
        _announce({venue: server.url for venue, server in servers.items()}, as_json=args.json)
        serving = [asyncio.ensure_future(server.serve_forever()) for server in servers.values()]
        ending = asyncio.ensure_future(stopped.wait())
        await asyncio.wait({ending, *serving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ending, *serving):
            task.cancel()
        await asyncio.gather(ending, *serving, return_exceptions=True)
    finally:
        for server in opened:
            await server.close()
    return 0


def _announce(urls: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({f"{venue}_url": url for venue, url in urls.items()}), flush=True)
        return
    for venue, url in urls.items():
        print(f"{venue} (recorded)  {url}", flush=True)
    print("the recording begins with the first subscription; Ctrl-C to stop", file=sys.stderr, flush=True)
