"""Flags that say how a capture is written, of every command that writes one."""

from __future__ import annotations

import argparse
from typing import Any


def add_options(parser: argparse.ArgumentParser) -> None:
    """Flags of `CaptureOptions`."""
    parser.add_argument("--segment-mb", type=float, default=None, metavar="MB", help="size of a file (default 64)")
    parser.add_argument(
        "--max-gb",
        type=float,
        default=None,
        metavar="GB",
        help="delete the oldest files beyond this size (default: never)",
    )
    parser.add_argument(
        "--keep-days", type=float, default=None, metavar="D", help="delete files older than this (default: never)"
    )
    parser.add_argument("--books", action="store_true", help="record order books too")
    parser.add_argument("--no-trades", action="store_true", help="do not record trades")


def chosen_options(args: argparse.Namespace) -> dict[str, Any]:
    """`CaptureOptions` by name, from the flags of `add_options`."""
    named = {"segment_mb": args.segment_mb, "max_gb": args.max_gb, "keep_days": args.keep_days}
    given = {name: value for name, value in named.items() if value is not None}
    return {**given, "books": args.books, "trades": not args.no_trades}
