"""`volsurf sim`: a simulated exchange on loopback that speaks the venue's own protocol and knows the truth."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from volsurf.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from volsurf.sim.exchange import ExchangeServer

HELP = "serve a simulated exchange on loopback"
VENUES = ("deribit",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--venue", choices=VENUES, default="deribit", help="whose protocol it speaks")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one and prints it")
    parser.add_argument("--seed", type=int, default=1, help="of everything random; the same seed is the same market")
    parser.add_argument(
        "--rate",
        type=_rate,
        default=None,
        metavar="realistic|N|max",
        help="the venue's own pace, N ticker messages a second over all clients, or as many as they read",
    )
    parser.add_argument(
        "--truth", choices=("svi", "mixture"), default="svi", help="SVI, or a mixture of lognormals that is not SVI"
    )
    parser.add_argument(
        "--underlyings", default="BTC,ETH,SOL_USDC", help="comma-separated, of BTC, ETH, SOL_USDC and XRP_USDC"
    )
    parser.add_argument(
        "--probe-seconds",
        type=float,
        metavar="S",
        help="send a test_request every S seconds, whatever interval is asked",
    )
    parser.add_argument("--time-scale", type=float, default=1.0, metavar="X", help="market seconds per real second")
    parser.add_argument(
        "--start", type=_instant, metavar="TIME", help="the market's time at the start, ISO 8601 (default: now)"
    )
    parser.add_argument(
        "--activity", type=float, default=1.0, metavar="X", help="multiplies every move; 1 is a calm day"
    )
    parser.add_argument(
        "--until-eof",
        action="store_true",
        help="end when standard input does, so as not to outlive the starting program",
    )
    parser.add_argument("--json", action="store_true", help="print url, port and pages as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, or the end of standard input where asked; then 0."""
    if args.time_scale <= 0 or args.activity < 0 or (args.probe_seconds is not None and args.probe_seconds <= 0):
        raise ConfigError("--time-scale and --probe-seconds must be positive, --activity not negative")
    return asyncio.run(_serve(args))


async def _serve(args: argparse.Namespace) -> int:
    from volsurf.sim.deribit import SimulatedDeribit
    from volsurf.sim.exchange import real_clock
    from volsurf.sim.market import Market

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if args.until_eof:
        loop.add_reader(sys.stdin, _watch_input, loop, stopped)
    market = Market(
        args.seed,
        [name.strip().removesuffix("_USDC") for name in args.underlyings.split(",")],
        truth=args.truth,
        start_ns=args.start if args.start is not None else real_clock(),
        step_ns=int(100_000_000 * max(1.0, args.time_scale)),
        activity=args.activity,
    )
    server = SimulatedDeribit(
        market,
        host=args.host,
        port=args.port,
        rate=args.rate,
        probe_seconds=args.probe_seconds,
        time_scale=args.time_scale,
    )
    try:
        await server.open()
    except OSError as error:
        raise EngineError(f"could not listen on {args.host}:{args.port}: {error}") from error
    try:
        _announce(args, server)
        serving = asyncio.ensure_future(server.serve_forever())
        ending = asyncio.ensure_future(stopped.wait())
        # Whichever ends first: the signal, or a fault of the server, which close() raises.
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        for task in (serving, ending):
            task.cancel()
        await asyncio.gather(serving, ending, return_exceptions=True)
    finally:
        await server.close()
    return 0


def _watch_input(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        # At its end standard input stays readable: without this the loop would spin until the server is closed.
        loop.remove_reader(sys.stdin)
        stopped.set()


def _announce(args: argparse.Namespace, server: ExchangeServer) -> None:
    pages = {
        "url": server.url,
        "port": server.port,
        "truth_url": f"{server.http_url}/truth",
        "stats_url": f"{server.http_url}/stats",
    }
    if args.json:
        print(json.dumps(pages), flush=True)
        return
    print(f"{args.venue} (simulated)  {server.url}", flush=True)
    print(f"truth {pages['truth_url']}   counters {pages['stats_url']}   Ctrl-C to stop", file=sys.stderr, flush=True)


def _rate(text: str) -> float | None:
    if text == "realistic":
        return None
    if text == "max":
        return 0.0
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not rate > 0:
        raise argparse.ArgumentTypeError(f"must be realistic, max or messages per second, was {text!r}")
    return rate


def _instant(text: str) -> int:
    from volsurf.sim.listing import to_ns

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a time like 2026-11-27T07:59:50Z, was {text!r}") from None
    return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
