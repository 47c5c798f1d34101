"""`volsurf sim`: simulated exchanges on loopback that speak the venues' own protocols and know the truth of one market."""

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
    from volsurf.sim.faults import FaultScript
    from volsurf.sim.server import ExchangeServer

HELP = "serve simulated exchanges of one market on loopback"
VENUES = ("deribit", "okx", "bybit", "binance")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--venue",
        type=_venues,
        default=("deribit",),
        metavar="NAME,…",
        help=f"whose protocols to speak, comma-separated, of {', '.join(VENUES)}; each on a port of its own",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        help="of the first venue, the others follow; 0, the default, takes free ones and prints them",
    )
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
        "--underlyings",
        default="BTC,ETH,SOL",
        help="comma-separated, of BTC, ETH, SOL and XRP; BTC_USD, BTC_USD_UM, BTC_USDC or BTC_USDT is one option family",
    )
    parser.add_argument(
        "--mispricing",
        type=float,
        metavar="X",
        help="how far each venue's opinion of the volatility strays from the truth, in half-spreads (default: 0.4, and 0 of "
        "Deribit alone)",
    )
    parser.add_argument(
        "--faults",
        metavar="SCRIPT|FILE|random:SEED",
        help="what goes wrong, e.g. 'at 12s for 3s gap channel=book p=0.2; at 20s disconnect venue=okx'",
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
        "--origin",
        type=_instant,
        metavar="TIME",
        help="real time at which the market stood at --start (default: now); processes with the same --seed, --start and "
        "--origin share one market",
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
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if args.until_eof:
        loop.add_reader(sys.stdin, _watch_input, loop, stopped)
    script = _script(args.faults, args.venue) if args.faults else None
    servers = _servers(args, [name.strip() for name in args.underlyings.split(",") if name.strip()])
    try:
        for venue, server in servers.items():
            try:
                await server.open()
            except OSError as error:
                raise EngineError(f"{venue} could not listen on {args.host}:{server.port}: {error}") from error
        if script is not None:
            for server in servers.values():
                server.inject(script, seed=args.seed)
        _announce(args, servers)
        serving = [asyncio.ensure_future(server.serve_forever()) for server in servers.values()]
        ending = asyncio.ensure_future(stopped.wait())
        # Whichever ends first: the signal, or a fault of a server, which close() raises.
        await asyncio.wait({*serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        for task in (*serving, ending):
            task.cancel()
        await asyncio.gather(*serving, ending, return_exceptions=True)
    finally:
        for server in servers.values():
            await server.close()
    return 0


def _servers(args: argparse.Namespace, names: list[str]) -> dict[str, ExchangeServer]:
    from volsurf.sim.exchange import real_clock
    from volsurf.sim.market import Market
    from volsurf.sim.profiles import profile_of
    from volsurf.sim.venues import make_server, selected

    coins = list(dict.fromkeys(name.partition("_")[0] for name in names))
    now = real_clock()
    market = Market(
        args.seed,
        coins,
        truth=args.truth,
        start_ns=args.start if args.start is not None else now,
        step_ns=int(100_000_000 * max(1.0, args.time_scale)),
        activity=args.activity,
    )
    servers = {}
    for i, venue in enumerate(args.venue):
        profile, missing = selected(profile_of(venue), names)
        if missing:
            print(f"{venue} does not list {', '.join(missing)}", file=sys.stderr, flush=True)
        if not profile.families:
            continue
        # One venue alone quotes the truth; beside others each has an opinion.
        alone = venue == "deribit" and len(args.venue) == 1 and args.mispricing is None
        options = {"probe_seconds": args.probe_seconds} if venue == "deribit" else {}
        servers[venue] = make_server(
            venue,
            market,
            host=args.host,
            port=args.port + i if args.port else 0,
            rate=args.rate,
            time_scale=args.time_scale,
            origin_ns=args.origin if args.origin is not None else now,
            profile=None if alone else profile if args.mispricing is None else profile.mispriced(args.mispricing),
            **options,
        )
    if not servers:
        raise ConfigError(f"none of {', '.join(args.venue)} lists any of {', '.join(names)}")
    return servers


def _script(text: str, venues: tuple[str, ...]) -> FaultScript:
    from volsurf.sim.faults import FaultScript

    if text.startswith("random:"):
        seed = text.removeprefix("random:")
        if not seed.isdigit():
            raise ConfigError(f"--faults random:SEED needs a whole number, was {text!r}")
        return FaultScript.random(int(seed), venues=venues)
    if os.path.isfile(text):
        with open(text, encoding="utf-8") as file:
            text = file.read()
    return FaultScript.parse(text)


def _watch_input(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        # At its end standard input stays readable: without this the loop would spin until the server is closed.
        loop.remove_reader(sys.stdin)
        stopped.set()


def _announce(args: argparse.Namespace, servers: dict[str, ExchangeServer]) -> None:
    pages = {venue: _pages(server, bool(args.faults)) for venue, server in servers.items()}
    if args.json:
        # One venue alone is its own object; several are named.
        print(json.dumps(next(iter(pages.values())) if len(args.venue) == 1 else {"venues": pages}), flush=True)
        return
    for number, (venue, of_venue) in enumerate(pages.items(), 1):
        print(f"{venue} (simulated)  {of_venue['url']}", flush=True)
        said = f"truth {of_venue['truth_url']}   counters {of_venue['stats_url']}"
        if args.faults:
            said += f"   faults {of_venue['faults_url']}"
        print(said + ("   Ctrl-C to stop" if number == len(pages) else ""), file=sys.stderr, flush=True)


def _pages(server: ExchangeServer, faulty: bool) -> dict[str, str | int]:
    names = ("truth", "stats", "faults") if faulty else ("truth", "stats")
    pages: dict[str, str | int] = {"url": server.url, "port": server.port}
    return pages | {f"{name}_url": f"{server.http_url}/{name}" for name in names}


def _venues(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or not set(names) <= set(VENUES):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(VENUES)}, comma-separated, was {text!r}")
    return names


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
