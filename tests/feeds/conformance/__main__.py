"""Print the conformance card; the exit code is 1 where a venue failed a case."""

from __future__ import annotations

import argparse
import sys

from tests.feeds.conformance.card import CASES, lines
from tests.feeds.conformance.facts import FACTS


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.feeds.conformance", description=__doc__)
    parser.add_argument("--venue", choices=list(FACTS), action="append", help="all where not given")
    parser.add_argument("--case", type=int, choices=list(CASES), action="append", help="all where not given")
    arguments = parser.parse_args()
    failed = 0
    for passed, line in lines(arguments.venue or FACTS, arguments.case or CASES):
        failed += not passed
        print(line, flush=True)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
