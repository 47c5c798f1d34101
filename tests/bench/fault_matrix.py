"""Every fault on every venue, over real sockets: recovered within its bound, counted, no price on the board that was never shown.

python -m tests.bench.fault_matrix [--venues deribit,okx] [--faults disconnect,gap] [--cycles 200] [--json]

A cycle is one fault; with more cycles than faults the matrix goes round, and tasks, file descriptors and memory are compared
between the end of the first round and the end. Without `--cycles` each fault strikes once. Not all of it is in a test run: the
short form is tests/feeds/test_fault_matrix.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import psutil

from tests.feeds.fault_rig import HOLD_SECONDS, LAG, Cell, Rig, is_telling
from volsurf.sim.venues import SIMULATED

RECONNECT, RESYNC = 5.0, 1.0
"""Seconds, the first without back-off."""


@dataclass(frozen=True, slots=True)
class Case:
    """One column of the matrix."""

    name: str
    script: str
    bound: float
    counts: tuple[str, ...]
    """At least one of these must rise; none: nothing a client could notice."""
    forgiving: bool = False
    until: str = ""
    limit: float = 30.0


_BOOK_GAP = ("health.GAP", "book_gaps")
CASES = (
    Case("disconnect", "at 100ms disconnect", RECONNECT, ("health.DISCONNECTED",)),
    Case("abort", "at 100ms disconnect how=abort", RECONNECT, ("health.DISCONNECTED",)),
    Case(
        "silence",
        "at 100ms for 2m silence client={clients}",
        RECONNECT,
        ("health.DISCONNECTED",),
        until="health.DISCONNECTED",
        limit=90.0,
    ),
    Case("gap ticker", "at 0s gap channel=ticker p=0.5 count=60", RESYNC, (), forgiving=True),
    Case("gap book", "at 0s gap channel=book p=0.3 count=12", RESYNC, _BOOK_GAP, forgiving=True),
    Case("duplicate", "at 0s duplicate p=0.3 count=40", RESYNC, (), forgiving=True),
    Case("reorder ticker", "at 0s reorder channel=ticker p=0.3 count=20", RESYNC, (), forgiving=True),
    Case("reorder book", "at 0s reorder channel=book p=0.3 count=20", RESYNC, _BOOK_GAP, forgiving=True),
    Case("truncate", "at 0s truncate p=0.2 count=15", RESYNC, ("malformed",), forgiving=True),
    Case("malformed", "at 0s malformed p=0.2 count=15", RESYNC, ("malformed",), forgiving=True),
    Case("malformed utf8", "at 0s malformed how=utf8 p=0.2 count=15", RESYNC, ("malformed",), forgiving=True),
    Case("malformed frame", "at 0s malformed how=frame p=1 count=1", RECONNECT, ("health.DISCONNECTED",)),
    Case("slow", "at 0s for 2s slow rate=20000", RESYNC, ()),
    Case("refuse", "at 0s for 4s refuse count=1; at 100ms disconnect", RECONNECT, ("health.REFUSED", "errors")),
    Case(
        "rate_limit",
        "at 0s for 4s rate_limit count=1; at 100ms disconnect",
        RECONNECT,
        ("health.RATE_LIMITED",),
        # Binance's own pause is a minute.
        limit=90.0,
    ),
    Case("maintenance", "at 100ms for 2s maintenance", RECONNECT, ("health.DISCONNECTED", "health.MAINTENANCE")),
    Case("crossed", "at 0s for 2s crossed p=0.3", RESYNC, ("books.crossed",)),
    Case("locked", "at 0s for 2s locked p=0.3", RESYNC, ("books.locked",)),
    Case("spike", "at 0s for 2s spike p=0.3 size=0.5", RESYNC, ()),
    Case("clock_jump", "", RECONNECT, ("clock_steps", "health.CLOCK_STEP")),
    Case("suspend", "", RECONNECT, ("clock_steps", "health.CLOCK_STEP")),
    # No bound: what the venue does not say is found when the listing is read again.
    Case("vanish", "at 0s vanish underlying=BTC expiry=3", 0.0, ("retired",), limit=90.0),
)
"""Deviations from the bounds belong here, with their reasons."""
_BY_NAME = {case.name: case for case in CASES}
JUMP, SLEEP = 4.0, 8.0
"""Seconds the client's clock is set back and forth, and the client sleeps."""


_ALLOWED = {"tasks": 0, "descriptors": 0, "megabytes": 25}
"""How much more may be held at the end than after the first round."""


@dataclass(slots=True)
class Footprint:
    """What a process holds."""

    tasks: int
    descriptors: int
    megabytes: float

    @classmethod
    def now(cls) -> Footprint:
        """Of this process and its loop."""
        gc.collect()
        process = psutil.Process()
        return cls(len(asyncio.all_tasks()), process.num_fds(), process.memory_info().rss / 1e6)


def verdict(case: Case, cell: Cell) -> str:
    """ "" where the cell is as it should be, else what is not."""
    faults = []
    bound = case.bound + cell.paused + LAG[cell.venue] + cell.starved
    if cell.recovered != cell.recovered:
        faults.append(f"not recovered ({cell.late} prices late)")
    elif case.bound and cell.recovered > bound:
        faults.append(f"recovered after {cell.recovered:.1f} s, bound {bound:.1f} s")
    if cell.wrong:
        faults.append(f"{cell.wrong} prices never shown, e.g. {cell.note}")
    if cell.untrue:
        faults.append(f"{cell.untrue} prices shown that were not true")
    if case.script and not cell.injected:
        faults.append("nothing was injected")
    if case.counts and not any(name.startswith(case.counts) for name in cell.counted):
        faults.append(f"none of {', '.join(case.counts)} counted")
    return "; ".join(faults)


async def strike(rig: Rig, case: Case) -> Cell:
    """One cell."""
    if case.name == "clock_jump":
        return await _step_clock(rig, case)
    if case.name == "suspend":
        return await _sleep(rig, case)
    return await rig.run(
        case.name,
        case.script,
        counts=() if case.until or case.name == "vanish" else case.counts,
        forgiving=case.forgiving,
        limit=case.limit,
        until=case.until,
    )


async def _step_clock(rig: Rig, case: Case) -> Cell:
    rig.clock.jump(-JUMP)
    cell = await rig.run(case.name, "", limit=case.limit)
    # Setting it right again is a second step.
    rig.clock.jump(JUMP)
    again = await rig.settled(case.limit, cell=cell)
    if again != again:
        cell.recovered = again
    return cell


async def _sleep(rig: Rig, case: Case) -> Cell:
    before = rig.totals()
    with rig.asleep(SLEEP):
        await asyncio.sleep(SLEEP)
    cell = await rig.run(case.name, "", limit=case.limit)
    # The waking may have been noticed before the cell began.
    cell.counted = {name: n for name, n in (rig.totals() - before).items() if is_telling(name)}
    return cell


async def run_venue(venue: str, cases: Sequence[Case], cycles: int, *, quiet: bool) -> dict[str, Any]:
    """All cells of one venue, and what was left lying about."""
    cells: list[tuple[Case, Cell]] = []
    footprints: list[Footprint] = []
    while len(cells) < cycles:
        # What did not recover would be blamed on what follows: that is done to a new venue and a new feed.
        await _go_on(venue, cases, cycles, cells, footprints, quiet=quiet)
    return {"venue": venue, "cells": cells, "footprints": footprints}


async def _go_on(
    venue: str,
    cases: Sequence[Case],
    cycles: int,
    cells: list[tuple[Case, Cell]],
    footprints: list[Footprint],
    *,
    quiet: bool,
) -> None:
    async with Rig(venue) as rig:
        began = await rig.settled(30.0)
        if began != began:
            raise SystemExit(f"{venue}: not ready without any fault: {rig.feed.trouble or rig.shown.late(rig.feed)}")
        await asyncio.sleep(LAG[venue])
        while len(cells) < cycles:
            case = cases[len(cells) % len(cases)]
            if case.name == "vanish" and len(rig.server.exchange.chain("BTC")) < 5:
                # Every one of them is gone for good.
                return
            cell = await strike(rig, case)
            cells.append((case, cell))
            if not quiet:
                _print(case, cell)
            if len(cells) % len(cases) == 0 or len(cells) == cycles:
                footprints.append(Footprint.now())
            if cell.recovered != cell.recovered:
                return


def _print(case: Case, cell: Cell) -> None:
    said = verdict(case, cell)
    counted = ", ".join(f"{name} {n}" for name, n in sorted(cell.counted.items()) if not name.startswith("books.un"))
    print(
        f"{cell.venue:8} {cell.fault:16} {'ok  ' if not said else 'FAIL'} recovered {cell.recovered:5.2f} s "
        f"(paused {cell.paused:4.2f}, starved {cell.starved:4.2f})  {cell.looks:4} looks  "
        f"injected {dict(cell.injected)}  {counted}",
        flush=True,
    )
    if said:
        print(f"{'':25} {said}", flush=True)


def _summary(ran: dict[str, Any], seconds: float) -> dict[str, Any]:
    first, last = ran["footprints"][0], ran["footprints"][-1]
    leaks = [
        f"{name} {getattr(first, name):.0f} → {getattr(last, name):.0f}"
        for name, allowed in _ALLOWED.items()
        if getattr(last, name) - getattr(first, name) > allowed
    ]
    recovered: dict[str, list[float]] = {}
    for case, cell in ran["cells"]:
        recovered.setdefault(case.name, []).append(cell.recovered)
    return {
        "venue": ran["venue"],
        "seconds": round(seconds, 1),
        "cycles": len(ran["cells"]),
        "looks": sum(cell.looks for _, cell in ran["cells"]),
        "slowest_recovery_s": {name: round(max(all_), 2) for name, all_ in recovered.items()},
        "failed": [f"{case.name}: {said}" for case, cell in ran["cells"] if (said := verdict(case, cell))],
        "leaks": leaks,
        "footprint": [asdict(first), asdict(last)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; 1 where a cell or the footprint is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venues", default=",".join(SIMULATED))
    parser.add_argument("--faults", default=",".join(_BY_NAME))
    parser.add_argument("--cycles", type=int, default=0, help="faults per venue; 0, the default, is each once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    cases = [_BY_NAME[name] for name in options.faults.split(",")]
    venues, failed = [], 0
    for venue in options.venues.split(","):
        started = time.monotonic()
        ran = asyncio.run(run_venue(venue, cases, options.cycles or len(cases), quiet=options.json))
        summary = _summary(ran, time.monotonic() - started)
        failed += len(summary["failed"]) + len(summary["leaks"])
        venues.append(summary | {"cells": [msgspec.to_builtins(cell) for _, cell in ran["cells"]]})
        if not options.json:
            print(json.dumps(summary, ensure_ascii=False), flush=True)
    if options.json:
        print(json.dumps({"hold_seconds": HOLD_SECONDS, "venues": venues}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
