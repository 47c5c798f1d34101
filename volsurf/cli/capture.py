"""`volsurf capture`: record raw feeds; look at a recording, check it, turn it into Parquet, take in those of others."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volsurf.cli._capture_options import add_options, chosen_options
from volsurf.cli.live import parse_urls

if TYPE_CHECKING:
    from rich.table import Table

    from volsurf.capture.recording import Recording

_STATUS_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command and of what it can do with a recording."""
    parser.add_argument(
        "--venues", default="deribit", help="comma-separated, of deribit, okx, bybit, binance (default deribit)"
    )
    parser.add_argument("--underlyings", default="BTC,ETH", help="comma-separated (default BTC,ETH)")
    parser.add_argument(
        "--url",
        default=None,
        help="address of the exchange instead of the public one; with several venues each its own: deribit=ws://…,okx=ws://…",
    )
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="connections per venue (default 1)")
    parser.add_argument(
        "--seconds", type=float, default=None, metavar="N", help="end after N seconds (default: Ctrl-C)"
    )
    parser.add_argument(
        "--out",
        default=None,
        metavar="DIR",
        help="where to record (default captures/<UTC time>); beside an earlier recording there the new one is DIR-2, …",
    )
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object with the figures on the last line")
    actions = parser.add_subparsers(title="with a recording", metavar="[ACTION]", dest="action")
    for name, text in (
        ("info", "what is in a recording, and what is missing"),
        ("verify", "read all of it, checking every checksum and sequence; status 1 where something is damaged"),
        ("export", "normalised quotes, trades and order books as Parquet"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("path", metavar="PATH", help="directory of the recording")
        _add_json(action)
        if name == "export":
            _add_export(action)
    action = actions.add_parser("import", help="a capture of another program into one of ours")
    action.add_argument("path", metavar="FILE", help="the file, plain or gzipped")
    action.add_argument("--format", default="cryptofeed", help="of the file: cryptofeed, the default")
    action.add_argument("--venue", required=True, help="whose messages they are, e.g. deribit")
    action.add_argument("--out", default=None, metavar="DIR", help="where to write (default: the file's name, here)")
    _add_json(action)


def run(args: argparse.Namespace) -> int:
    """Record, or do what was asked with a recording."""
    actions = {"info": _info, "verify": _verify, "export": _export, "import": _import}
    return actions[args.action](args) if args.action else _record(args)


def _add_json(parser: argparse.ArgumentParser) -> None:
    # Suppressed, so that the flag of the command itself is not overwritten by one that was not given.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default=None, metavar="DIR", help="a new directory (default: PATH-parquet)")
    parser.add_argument(
        "--every", default="100ms", metavar="T", help="one row at most per instrument and so long (default 100ms)"
    )
    parser.add_argument("--start", default=None, metavar="TIME", help="from this time on, ISO 8601 or +5m")
    parser.add_argument("--end", default=None, metavar="TIME", help="up to this time")


# --- recording --------------------------------------------------------------------------------------------------------
def _record(args: argparse.Namespace) -> int:
    from volsurf.capture.recording import Recording

    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    out = args.out or f"captures/{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        with Recording(
            _names(args.venues),
            _names(args.underlyings),
            out,
            url=parse_urls(args.url),
            shards=args.shards,
            **chosen_options(args),
        ) as recording:
            print(f"recording   {recording.path}", file=sys.stderr if args.json else sys.stdout, flush=True)
            _watch(recording, stop, args.seconds)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    figures = recording.figures
    if args.json:
        print(json.dumps(_flat(recording, figures)))
    else:
        print(_sentence(figures))
        if recording.trouble:
            print(recording.trouble)
    return 0 if figures["messages"] else 1


def _watch(recording: Recording, stop: threading.Event, seconds: float | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    end = None if seconds is None else time.monotonic() + seconds
    last, at = recording.figures, time.monotonic()
    with Live(console=console, transient=True, auto_refresh=False) as display:
        while not stop.is_set() and recording.is_running:
            left = _STATUS_SECONDS if end is None else min(_STATUS_SECONDS, end - time.monotonic())
            if left <= 0:
                return
            stop.wait(left)
            figures, now = recording.figures, time.monotonic()
            if console.is_terminal:
                display.update(_line(figures, last, now - at), refresh=True)
            last, at = figures, now


def _line(figures: dict[str, Any], last: dict[str, Any], seconds: float) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, counts in figures["venues"].items():
        before = last["venues"][name]
        table.add_row(
            name,
            f"{(counts['messages'] - before['messages']) / seconds:,.0f} messages/s",
            f"{(counts['raw_bytes'] - before['raw_bytes']) / seconds / 1e6:,.2f} MB/s",
            f"{counts['stored_bytes'] / 1e6:,.1f} MB, {counts['ratio']:.1f} times smaller",
            f"{counts['lost_records']:,} lost",
            counts["trouble"] or f"{counts['connected']} of {counts['connections']} connected",
        )
    return table


def _flat(recording: Recording, figures: dict[str, Any]) -> dict[str, Any]:
    venues = figures.pop("venues")
    each = ("messages", "raw_bytes", "stored_bytes", "ratio", "lost_records", "trouble")
    by_venue = {f"{name}_{key}": venues[name][key] for name in venues for key in each}
    return {"path": str(recording.path), **figures, **by_venue, "trouble": recording.trouble}


def _sentence(figures: dict[str, Any]) -> str:
    return (
        f"{figures['messages']:,} messages in {figures['seconds']:,.1f} s, {figures['raw_bytes'] / 1e6:,.1f} MB as "
        f"{figures['stored_bytes'] / 1e6:,.1f} MB, {figures['lost_records']:,} records lost"
    )


# --- with a recording -------------------------------------------------------------------------------------------------
def _info(args: argparse.Namespace) -> int:
    from volsurf.capture.info import describe
    from volsurf.capture.reader import open_capture

    figures = describe(open_capture(args.path))
    if args.json:
        print(json.dumps(figures))
        return 0
    print(f"{figures['path']}   {figures['start']} to {figures['end']} UTC, {figures['seconds']:,.1f} s", end="")
    print(", being written" if figures["is_live"] else "")
    for stream in figures["streams"]:
        print(
            f"  {stream['stream']:<20} {stream['records']:>12,} records {stream['messages']:>12,} messages "
            f"{stream['stored_mb']:>10,.2f} MB ({stream['ratio']:.1f} times smaller) in {stream['segments']} segments"
        )
    print(*(f"  missing: {sentence}" for sentence in figures["lost"]), sep="\n", end="\n" if figures["lost"] else "")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from volsurf.capture.reader import open_capture
    from volsurf.capture.verify import verify

    found = verify(open_capture(args.path))
    if args.json:
        counts = {"blocks": found.blocks, "records": found.records, "mb": found.bytes / 1e6}
        print(json.dumps({"path": args.path, "ok": found.ok, **counts, "damage": found.damage, "lost": found.lost}))
    else:
        print(f"{found.blocks:,} blocks, {found.records:,} records, {found.bytes / 1e6:,.1f} MB read")
        for word, sentences in (("missing", found.lost), ("DAMAGED", found.damage)):
            for sentence in sentences:
                print(f"  {word}: {sentence}")
        print("undamaged" if found.ok else "damaged")
    return 0 if found.ok else 1


def _export(args: argparse.Namespace) -> int:
    from volsurf.capture.export import export
    from volsurf.capture.reader import open_capture
    from volsurf.replay._times import instant_ns, period_ns

    capture = open_capture(args.path)
    out = Path(args.out or f"{Path(args.path).name}-parquet")
    begin = capture.start_ns
    manifest = export(
        capture,
        out,
        every_ns=period_ns("--every", args.every),
        start_ns=None if args.start is None else instant_ns("--start", args.start, begin),
        end_ns=None if args.end is None else instant_ns("--end", args.end, begin),
    )
    rows = {f"{table}_rows": count for table, count in manifest.rows.items()}
    if args.json:
        said = {"lost": manifest.lost, "skipped": manifest.skipped}
        counts = {"instruments": manifest.instruments, "messages": manifest.messages, "schema": manifest.schema}
        print(json.dumps({"out": str(out), **rows, **counts, **said}))
    else:
        counted = ", ".join(f"{count:,} {name.removesuffix('_rows')}" for name, count in rows.items())
        print(f"{out}: {counted} of {manifest.instruments:,} instruments")
        for sentence in (*manifest.lost, *manifest.skipped):
            print(f"  missing: {sentence}")
    return 0 if any(manifest.rows.values()) else 1


def _import(args: argparse.Namespace) -> int:
    from volsurf.capture.foreign import import_capture
    from volsurf.capture.info import describe

    out = args.out or Path(args.path).name.removesuffix(".gz").removesuffix(".txt") + "-capture"
    capture = import_capture(args.path, out, venue=args.venue, format=args.format)
    figures = describe(capture)
    is_played = next(iter(capture.feeds.values())).settings.get("protocol", True)
    if args.json:
        print(json.dumps({**figures, "protocol": bool(is_played)}))
    else:
        print(f"{capture.path}: {figures['messages']:,} messages in {figures['seconds']:,.1f} s")
        if not is_played:
            print(f"volsurf does not speak the protocol of {args.venue}: the messages are kept as they came")
    return 0 if figures["messages"] else 1


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
