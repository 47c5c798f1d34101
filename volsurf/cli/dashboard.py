"""`volsurf dashboard`: the dashboard for an engine that runs already, here or elsewhere."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import webbrowser

from volsurf.dashboard.app import DEFAULT_PORT, STREAM_VARIABLE, launch_dashboard
from volsurf.errors import EngineError

DEFAULT_STREAM = "ws://127.0.0.1:8765"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--attach",
        metavar="URL",
        default=os.environ.get(STREAM_VARIABLE, DEFAULT_STREAM),
        help=f"stream of the engine (default: ${STREAM_VARIABLE}, else {DEFAULT_STREAM})",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"port on loopback (default {DEFAULT_PORT}; 0 for a free one)"
    )
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--headless", action="store_true", help="do not open a browser")
    parser.add_argument("--seconds", type=float, default=None, metavar="N", help="end by itself after N seconds")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, SIGTERM or the time is up."""
    from volsurf.engine.client import stream_url

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stream = stream_url(args.attach)
    with launch_dashboard(stream, port=args.port, theme=args.theme) as dashboard:
        print(f"dashboard   {dashboard.url}\nstream      {stream}", flush=True)
        if not args.headless:
            webbrowser.open(dashboard.url)
        waited = 0.0
        while not stop.wait(0.25) and (args.seconds is None or waited < args.seconds):
            waited += 0.25
            if not dashboard.is_alive and not stop.is_set():
                raise EngineError("the dashboard server ended by itself; see its messages above")
    return 0
