"""`volsurf compile`: compile the numerical kernels ahead of their first use, for images and fresh machines."""

from __future__ import annotations

import argparse
import json
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")


def run(args: argparse.Namespace) -> int:
    """Compile what is missing, load the rest, and say how long it took."""
    started = time.perf_counter()
    from volsurf._jit import KERNEL_MODULES, cache_directory, ensure_compiled, is_compiled

    cached = is_compiled()
    ensure_compiled()
    seconds = time.perf_counter() - started
    if args.json:
        print(json.dumps({"seconds": round(seconds, 3), "was_cached": cached, "directory": str(cache_directory())}))
    else:
        did = "loaded from" if cached else "compiled into"
        print(f"kernels of {', '.join(KERNEL_MODULES)} {did} {cache_directory()} in {seconds:.1f} s")
    return 0
