"""Feed the Deribit protocol damaged messages until one makes it raise.

    python -m tests.bench.fuzz_deribit [MESSAGES] [--seed S]

Prints the counters at the end; an exception that escapes is printed with the seed that brings it back.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.feeds.mutations import run

CHUNK = 10_000


def main() -> int:
    """Run the chunks, each from its own seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("messages", type=int, nargs="?", default=200_000)
    parser.add_argument("--seed", type=int, default=1000, help="of the first chunk of 10,000; the next has the next")
    arguments = parser.parse_args()
    start = time.perf_counter()
    counters: dict[str, int] = {}
    for chunk in range(-(-arguments.messages // CHUNK)):
        seed = arguments.seed + chunk
        try:
            venue = run(min(CHUNK, arguments.messages - chunk * CHUNK), seed)
        except Exception:
            print(f"escaped with --seed {seed}", file=sys.stderr)
            raise
        for name, count in venue.counters.items():
            counters[name] = counters.get(name, 0) + count
    for name, count in sorted(counters.items()):
        print(f"{name:28s} {count:10,d}")
    print(f"{arguments.messages:,d} damaged messages in {time.perf_counter() - start:.1f} s, no exception")
    return 0


if __name__ == "__main__":
    sys.exit(main())
