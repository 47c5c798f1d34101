"""`volsurf demo`: simulated exchanges, the engine and the dashboard, all on this machine, ended together."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from volsurf.cli.live import add_rules, parse_names
from volsurf.errors import EngineError
from volsurf.feeds.registry import VENUES

if TYPE_CHECKING:
    from volsurf.engine.live import Engine

UNDERLYINGS = ("BTC", "ETH", "SOL")
_START_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--headless", action="store_true", help="do not open a browser; the dashboard is served all the same"
    )
    parser.add_argument("--no-dashboard", action="store_true", help="no dashboard at all: simulator and engine only")
    parser.add_argument(
        "--seconds", type=float, default=None, metavar="N", help="end by itself N seconds after the first frame"
    )
    parser.add_argument("--port", type=int, default=8866, help="port of the dashboard (default 8866; 0 for a free one)")
    parser.add_argument("--stream-port", type=int, default=0, help="port of the engine's stream (default: a free one)")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark", help="of the dashboard")
    parser.add_argument(
        "--venues",
        default=",".join(VENUES),
        help=f"exchanges to simulate, comma-separated (default {','.join(VENUES)}), all around one market",
    )
    parser.add_argument(
        "--faults",
        default=None,
        metavar="SCRIPT|FILE|random:SEED",
        help="what goes wrong meanwhile, see `volsurf sim --help`",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the simulated market")
    parser.add_argument(
        "--truth", choices=("svi", "mixture"), default="svi", help="shape of the simulated market's surface"
    )
    parser.add_argument("--rate", default="realistic", help="messages a second: realistic, a number, or max")
    add_rules(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with the run's figures on the last line"
    )


def run(args: argparse.Namespace) -> int:
    """Start everything, wait for the end, stop everything, report."""
    from volsurf._jit import ensure_compiled

    # Here, where the progress bar can be seen; the engine's processes then load the kernels from disk.
    ensure_compiled()
    from volsurf.engine.live import Engine
    from volsurf.engine.wanted import check_wanted

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    venues = parse_names(args.venues)
    check_wanted(venues, UNDERLYINGS)
    with ExitStack() as stack:
        exchanges = stack.enter_context(_simulator(args, venues))
        engine = stack.enter_context(
            Engine(
                venues,
                UNDERLYINGS,
                url={venue: exchange["url"] for venue, exchange in exchanges.items()},
                port=args.stream_port,
                smoothing_seconds=args.smoothing,
                enforce=not args.no_enforce,
            )
        )
        if not args.no_dashboard:
            from volsurf.dashboard.app import launch_dashboard

            dashboard = launch_dashboard(engine.stream_url, port=args.port, theme=args.theme)
            stack.callback(dashboard.stop)
            _say(args, f"dashboard   {dashboard.url}")
        for venue, exchange in exchanges.items():
            _say(args, f"{venue:<11} {exchange['url']}   (simulated)")
        _say(args, f"stream      {engine.stream_url}")
        engine.wait_ready(_START_SECONDS)
        if not (args.headless or args.no_dashboard):
            webbrowser.open(dashboard.url)
        _watch(args, engine, stop)
        missed = sum(_heartbeats_missed(exchange["stats_url"]) for exchange in exchanges.values())
        summary = engine.summary() | {"heartbeats_missed": missed}
    if args.json:
        print(json.dumps(summary))
    else:
        _report(summary)
    return 0 if summary["frames"] else 1


def _say(args: argparse.Namespace, text: str) -> None:
    # Standard output is for the JSON line when there is one.
    print(text, file=sys.stderr if args.json else sys.stdout, flush=True)


@contextmanager
def _simulator(args: argparse.Namespace, venues: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The addresses of each venue, while the simulators run."""
    command = [
        sys.executable,
        "-m",
        "volsurf.cli",
        "sim",
        "--json",
        "--until-eof",
        "--port",
        "0",
        "--probe-seconds",
        "1",
    ]
    command += ["--venue", ",".join(venues), "--underlyings", ",".join(UNDERLYINGS)]
    command += ["--seed", str(args.seed), "--truth", args.truth, "--rate", args.rate]
    command += [] if args.faults is None else ["--faults", args.faults]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise EngineError(f"the simulated exchange ended with status {process.wait()} before it was ready")
            answer = json.loads(line)
            yield answer["venues"] if len(venues) > 1 else {venues[0]: answer}
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _watch(args: argparse.Namespace, engine: Engine, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    # Counted from the first frame, which came before the dashboard was up.
    end = float("inf") if args.seconds is None else time.monotonic() + args.seconds - engine.summary()["seconds"]
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while not stop.is_set() and time.monotonic() < end:
            stop.wait(min(0.5, max(0.0, end - time.monotonic())))
            if console.is_terminal:
                live.update(_status(engine.summary()), refresh=True)


def _status(summary: dict[str, Any]) -> str:
    return (
        f"{summary['frames_per_second']:.1f} frames/s   {summary['messages']:,} messages   "
        f"{summary['expiries_fitted']}/{summary['expiries_listed']} expiries fitted   Ctrl-C to stop"
    )


def _heartbeats_missed(stats_url: str) -> int:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    with direct.open(stats_url, timeout=5) as answer:
        return int(json.load(answer)["heartbeats_missed"])


def _report(summary: dict[str, Any]) -> None:
    for key, value in summary.items():
        print(f"{key:>20}  {value}")
