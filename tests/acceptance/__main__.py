"""Print every acceptance figure beside its bar: `python -m tests.acceptance [--json]`; the exit code is 1 if one misses it.

A to F and H are the criteria by letter. Real chains (R1 to R17) have their own command, `python -m tests.bench.real_chains`, and
speed `volsurf bench svi`.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.acceptance import test_certificates, test_enforcement, test_fits, test_live, test_views
from tests.bench.figures import print_rows


def main() -> int:
    """Measure at full size and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    args = parser.parse_args()
    table = [
        row for module in (test_certificates, test_fits, test_enforcement) for f in module.FIGURES for row in f(True)
    ]
    table += [row for f in test_live.FIGURES for row in f()]
    table += [row for f in test_views.FIGURES for row in f(True)]
    table.sort(key=lambda row: (row.name[0], int(row.name[1:])))
    missed = print_rows(table)
    print(f"{sum(row.holds is not None for row in table)} figures with a bar, {len(missed)} missed")
    if args.json:
        print(json.dumps([row._asdict() for row in table]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
