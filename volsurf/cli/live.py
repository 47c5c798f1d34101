"""`volsurf live`: an engine on live feeds, owned by this terminal and ended with it."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from volsurf.cli._capture_options import add_options, chosen_options

if TYPE_CHECKING:
    from rich.table import Table

    from volsurf.engine.live import Engine

_READY_SECONDS = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--venues", default="deribit", help="comma-separated, of deribit, okx, bybit, binance (default deribit)"
    )
    parser.add_argument("--underlyings", default="BTC,ETH", help="comma-separated (default BTC,ETH)")
    parser.add_argument(
        "--url",
        default=None,
        help="address of the exchange instead of the public one, e.g. a simulator's; with several venues each its own: "
        "deribit=ws://…,okx=ws://…",
    )
    parser.add_argument("--seconds", type=float, default=None, metavar="N", help="end N seconds after the first frame")
    parser.add_argument(
        "--port", type=int, default=None, help="of the stream, on loopback (default 8765; 0 for a free one)"
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=1,
        metavar="N",
        help="connections to divide each venue's instruments among (default 1)",
    )
    parser.add_argument("--every", type=float, default=0.1, metavar="S", help="seconds between frames (default 0.1)")
    add_rules(parser)
    parser.add_argument(
        "--capture", default=None, metavar="DIR", help="record everything heard and made, for `volsurf replay`"
    )
    add_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with the run's figures on the last line"
    )


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Flags that say what a surface is to be."""
    parser.add_argument(
        "--smoothing",
        type=float,
        default=None,
        metavar="S",
        help="time constant of the temporal filter in seconds (default 0.5; 0 for none): vols jitter less, and follow a drift "
        "later by up to this time; jumps are followed at once",
    )
    parser.add_argument(
        "--no-enforce",
        action="store_true",
        help="publish what the quotes alone give, with certificates that say where it can be arbitraged",
    )


def run(args: argparse.Namespace) -> int:
    """Start the engine, show how it is doing, end it, report."""
    from volsurf._jit import ensure_compiled
    from volsurf.engine.listener import default_port
    from volsurf.engine.live import Engine

    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # Here, where the progress bar can be seen; the core's process then loads the kernels from disk.
        ensure_compiled()
        with Engine(
            parse_names(args.venues),
            parse_names(args.underlyings),
            url=parse_urls(args.url),
            port=default_port() if args.port is None else args.port,
            frame_seconds=args.every,
            shards=args.shards,
            smoothing_seconds=args.smoothing,
            enforce=not args.no_enforce,
            capture=args.capture,
            capture_options=chosen_options(args),
        ) as engine:
            print(f"stream      {engine.stream_url}", file=sys.stderr if args.json else sys.stdout, flush=True)
            _watch(engine, stop, args.seconds)
            summary: dict[str, Any] = dict(engine.summary())
        if engine.capture_path is not None:
            summary |= _recorded(engine)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if args.json:
        print(json.dumps(summary))
    else:
        for key, value in summary.items():
            print(f"{key:>20}  {value}" if isinstance(value, str) else f"{key:>20}  {value:,}")
    return 0 if summary["frames"] else 1


def parse_urls(text: str | None) -> str | dict[str, str] | None:
    """One address, or `{venue: address}` of "venue=address,venue=address"."""
    if text is None or not re.match(r"[a-z]+=", text):
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    return {venue.strip(): address.strip() for venue, _, address in pairs}


def _recorded(engine: Engine) -> dict[str, Any]:
    figures = engine.capture_figures
    return {
        "capture_path": str(engine.capture_path),
        "capture_records": figures["records"],
        "capture_mb": round(figures["stored_bytes"] / 1e6, 3),
        "capture_lost_records": figures["lost_records"],
        "capture_trouble": figures["trouble"],
    }


def parse_names(text: str) -> tuple[str, ...]:
    """The names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _watch(engine: Engine, stop: threading.Event, seconds: float | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    end: float | None = None
    give_up = time.monotonic() + _READY_SECONDS
    with Live(console=console, transient=True, auto_refresh=False) as display:
        while not stop.is_set():
            summary = engine.summary()
            if engine.failure is not None or (end is None and seconds is not None and time.monotonic() > give_up):
                engine.wait_ready(0.0)  # raises what went wrong
            if end is None and summary["seconds"] > 0 and seconds is not None:
                end = time.monotonic() + seconds - summary["seconds"]
            if end is not None and time.monotonic() >= end:
                return
            if console.is_terminal:
                display.update(_line(engine, summary), refresh=True)
            stop.wait(0.25 if end is None else max(0.0, min(0.25, end - time.monotonic())))


def _line(engine: Engine, summary: dict[str, float]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    if engine.status != "running":
        table.add_row(engine.status, f"{summary['messages']:,} messages", "Ctrl-C to stop")
        return table
    table.add_row(
        f"{summary['frames_per_second']:.1f} frames/s",
        f"{summary['messages']:,} messages",
        f"{summary['expiries_fitted']}/{summary['expiries_listed']} expiries fitted",
        f"{engine.stream_figures.get('clients', 0)} clients",
        *([] if engine.capture_path is None else [_capture_words(engine.capture_figures)]),
        "Ctrl-C to stop",
    )
    return table


def _capture_words(figures: dict[str, Any]) -> str:
    lost = f", {figures['lost_records']:,} records lost" if figures["lost_records"] else ""
    return figures["trouble"] or f"recorded {figures['stored_bytes'] / 1e6:,.1f} MB{lost}"
