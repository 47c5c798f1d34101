"""Write `capture_four_venues/`: some seconds of four simulated venues, with order trades, a lost connection and a gap.

    python data/make_capture.py

The session is the same whenever it is made (frames have the same hashes); the files are not, byte for byte: a capture names the
machine and the process that made it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from volsurf.capture.directory import CaptureOptions
from volsurf.capture.format import LOCK, MANIFEST
from volsurf.replay.rehearsal import Rehearsal
from volsurf.sim.listing import to_ns

HERE = Path(__file__).parent
VENUES = ("deribit", "okx", "bybit", "binance")
START = to_ns(datetime(2026, 11, 24, 9, tzinfo=UTC))
SECOND = 1_000_000_000
MOST_BYTES = 5_000_000


def trouble(session: Rehearsal) -> None:
    """Deribit's connection breaks after four seconds, and Bybit loses some messages after six."""
    seconds = (session.now - START) / SECOND
    if seconds == 4.0:
        session.connections["deribit"][0].cut(session.now, "connection reset by peer")
    elif seconds == 6.0:
        session.connections["bybit"][0].dropped = 5


def main() -> None:
    """Make it anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=HERE / "capture_four_venues")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    options = CaptureOptions(
        level=19, pending_mb=1e6, min_free_mb=0.0, segment_mb=1e6, segment_seconds=1e6, flush_seconds=1.0
    )
    session = Rehearsal(args.out, VENUES, ["BTC"], start_ns=START, activity=0.5, options=options, meddle=trouble)
    frames = list(session.run(args.seconds))
    session.close()
    (args.out / LOCK).unlink()
    manifest = args.out / MANIFEST
    # Whose machine it was made on is nobody's business.
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"host": "", "pid": 0}, indent=1) + "\n")
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{args.out}: {session.messages:,} messages, {len(frames)} frames, {size:,} bytes")
    if size > MOST_BYTES:
        raise SystemExit(f"that is more than {MOST_BYTES:,} bytes: make fewer seconds of it")


if __name__ == "__main__":
    main()
