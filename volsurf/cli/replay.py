"""`volsurf replay`: frames from a capture again, or a server that plays it to any client in the venue's own protocol."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from typing import TYPE_CHECKING

from volsurf.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from volsurf.replay.replay import Replay

HELP = "play a capture: frames as they were or on a clock of your own, or a server that speaks its venue's protocol"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "path",
        nargs="+",
        help="a capture's directory, an exported one (Parquet), a raw file of cryptofeed; several merge",
    )
    parser.add_argument(
        "--every",
        default=None,
        metavar="1s",
        help="period of the frames, e.g. 100ms, 1s, 5m (default: the frames of the recorded engine, bit for bit)",
    )
    parser.add_argument(
        "--speed",
        type=_speed,
        default=None,
        metavar="X|max",
        help="1 is the capture's own pace (default: max; --serve: 1)",
    )
    parser.add_argument("--from", dest="start", default=None, metavar="T", help="ISO 8601, or +5m after the beginning")
    parser.add_argument("--to", dest="stop", default=None, metavar="T", help="likewise")
    parser.add_argument("--underlyings", default=None, help="comma-separated; only these")
    parser.add_argument("--venues", default=None, help="comma-separated; only these")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="play the recorded engine's frames again and compare every hash (no --every)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with the run's figures on the last line"
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument("--serve", action="store_true", help="serve the capture in its venue's own protocol instead")
    serving.add_argument("--port", type=int, default=0, help="of the server, on loopback (default: a free one)")
    serving.add_argument("--restamp", action="store_true", help="move the venue's times in messages to now")
    serving.add_argument("--loop", action="store_true", help="begin again at the end")
    serving.add_argument("--seconds", type=float, default=None, metavar="N", help="end the server after N seconds")


def run(args: argparse.Namespace) -> int:
    """Play, and report; 1 where nothing was made or a frame was not what it was."""
    if args.serve:
        from volsurf.cli._replay_serve import serve

        return serve(args)
    if args.verify and args.every:
        raise ConfigError("--verify compares with the recorded engine's frames; --every makes others: give one of them")
    from volsurf._jit import ensure_compiled
    from volsurf.replay.replay import replay

    ensure_compiled()
    player = replay(
        list(args.path),
        args.every,
        args.start,
        args.stop,
        args.speed,
        underlyings=_names(args.underlyings),
        venues=_names(args.venues),
    )
    figures = _play(player, quiet=args.json)
    figures["verified"] = player.verified
    for sentence in player.lost:
        print(f"missing: {sentence}", file=sys.stderr)
    if args.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:>20}  {value if isinstance(value, str) else format(value, ',')}")
    return 0 if player.frames else 1


def _play(player: Replay, *, quiet: bool) -> dict[str, float | int | str]:
    digest = hashlib.blake2b(digest_size=16)
    slices = events = 0
    begun = time.perf_counter()
    with _progress(player, quiet=quiet) as progress:
        task = progress.add_task("", total=1.0)
        for frame in player:
            digest.update(frame.hash)
            slices += sum(len(surface) for surface in frame.surfaces.values())
            events += len(player.events)
            progress.update(
                task,
                completed=player.progress,
                description=f"{_time(frame.time_ns)}  {player.frames:,} frames  {player.messages:,} messages",
            )
    seconds = time.perf_counter() - begun
    return {
        "seconds": round(seconds, 3),
        "played_seconds": round((player.time_ns - player.start_ns) / 1e9, 3),
        "frames": player.frames,
        "slices": slices,
        "events": events,
        "messages": player.messages,
        "messages_per_second": round(player.messages / seconds) if seconds else 0,
        "hash": digest.hexdigest(),
    }


def _progress(player: Replay, *, quiet: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    del player
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)


def _time(time_ns: int) -> str:
    from volsurf.replay._times import time_text

    return time_text(time_ns)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive or max, was {text!r}")
    return speed
