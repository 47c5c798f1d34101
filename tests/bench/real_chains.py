"""Score certified surfaces of real chains against the bars set on the same files, R1 to R17.

    python -m tests.bench.real_chains [--files N] [--quick] [--json]

186 snapshots of BTC and ETH on Deribit (R1 to R13, R15), the fall of February 2026 as a time series (R14), chains that nothing
was chosen on (R16), and other engines on the same slices (R17). The chains are not part of the project, see
`tests.bench.real_chains_data`. `python -m tests.bench.crash_walk` prints the series itself, `python -m tests.bench.rivals` the
table of engines. The exit code is 1 if a bar is missed.
"""

# ruff: noqa: E402 - the number of threads is read when numpy is imported

from __future__ import annotations

import argparse
import json
import os
import sys
import time

# One thread for everybody, before numpy is imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from tests.bench import crash_walk, other_chains, real_chains_nodes, real_chains_score, real_chains_withheld
from tests.bench.figures import Row, print_rows
from tests.bench.real_chains_data import read_snapshot, snapshots

__all__ = ["main", "read_snapshot", "snapshots"]


def rivals_row() -> list[Row]:
    """R17; tens of seconds, nearly all of them the rivals'."""
    from tests.bench import rivals

    scores = rivals.run(rivals.real_slices(every=False))
    mine = scores[rivals.OURS]
    _, gap = rivals.verdict(scores)
    return [
        Row("R17", "inside, certified, over the best of the other engines, points", gap, ">=", -1.0),
        Row("R17", "… surfaces of ours certified, of six", float(mine.clean), "==", 6.0),
    ]


def main() -> int:
    """Print the table; 1 if a bar is missed, 2 without data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=0, help="only N files, evenly spread")
    parser.add_argument(
        "--quick", action="store_true", help="without the withheld quotes, the walk and the other engines"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    args = parser.parse_args()
    paths = snapshots(args.files)
    if not paths:
        print("no snapshots found; set VOLSURF_SHARED", file=sys.stderr)
        return 2
    started = time.perf_counter()
    table = real_chains_score.rows(real_chains_score.score(paths)) + real_chains_nodes.rows(paths)
    if not args.quick:
        table += real_chains_withheld.rows(paths) + crash_walk.rows(crash_walk.walk())
        table += other_chains.rows() + rivals_row()
    # In the order of the bars, information last; within one as they were made.
    table.sort(key=lambda row: int(row.name[1:]) if row.name != "-" else 99)
    print(f"{len(paths)} snapshots, {time.perf_counter() - started:.0f} s")
    missed = print_rows(table)
    if args.json:
        values = {f"{row.name} {row.what}": round(row.measured, 5) for row in table}
        print(json.dumps({"files": len(paths), "missed": [f"{row.name} {row.what}" for row in missed], **values}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
