"""Faults of every kind on every venue under a clock moved by hand, and some over real sockets.

The whole matrix over sockets, and 200 cycles of it, is `python -m tests.bench.fault_matrix`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from tests.bench.fault_matrix import CASES, strike, verdict
from tests.feeds.fault_rig import Rig
from tests.feeds.hand_rig import START, HandRig
from tests.feeds.loopback import eventually
from volsurf.sim.venues import SIMULATED

SECOND = 1_000_000_000
CASE = {case.name: case for case in CASES}
QUICK = (
    "abort",
    "gap book",
    "reorder book",
    "malformed",
    "malformed frame",
    "slow",
    "refuse",
    "maintenance",
    "crossed",
    "spike",
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Connections say that they are cut, which is the point here."""
    logger = logging.getLogger("volsurf.feeds")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def settled(venue: str, **options: int) -> HandRig:
    rig = HandRig(venue, **options)
    began = rig.settled(20.0)
    assert began == began, f"{venue} is not ready without any fault: {rig.feed.trouble}"
    return rig


def struck(rig: HandRig, name: str) -> str:
    """What is not as it should be; "" where all is."""
    case = CASE[name]
    cell = rig.strike(name, case.script, forgiving=case.forgiving, until=case.until, limit=case.limit)
    return verdict(case, cell)


@functools.cache
def rig_of(venue: str) -> HandRig:
    """One for all quick cells of a venue: each must leave it as it was."""
    return settled(venue)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("venue", SIMULATED)
def test_recovered_in_time_counted_and_no_price_that_was_never_shown(venue: str, name: str) -> None:
    assert struck(rig_of(venue), name) == ""


@pytest.mark.parametrize("name", ["silence", "rate_limit"])
@pytest.mark.parametrize("venue", SIMULATED)
def test_long_waits(venue: str, name: str) -> None:
    assert struck(settled(venue, step_ns=SECOND // 4), name) == ""


@pytest.mark.parametrize(("venue", "step_ns"), [("bybit", SECOND // 2), ("binance", SECOND // 10)])
def test_an_expiry_that_vanishes_is_found_when_the_listing_is_read_again(venue: str, step_ns: int) -> None:
    rig = settled(venue, step_ns=step_ns)
    # Once it has been seen in the chain, that is.
    while rig.now < START + 4 * SECOND:
        rig.step()
    before = set(rig.feed.universe.expiry_ns[rig.feed.universe.active].tolist())
    assert struck(rig, "vanish") == ""
    after = set(rig.feed.universe.expiry_ns[rig.feed.universe.active].tolist())
    assert len(before - after) == 1
    assert after <= before


@pytest.mark.parametrize("venue", SIMULATED)
def test_a_client_that_slept_and_whose_clock_was_set(venue: str) -> None:
    rig = settled(venue, step_ns=SECOND // 4)
    rig.is_asleep = True
    for _ in range(32):
        rig.step()
    assert len(rig.shown.late(rig.feed)), "the venue went on"
    rig.is_asleep = False
    cell = rig.strike("suspend", "")
    assert verdict(CASE["suspend"], cell) == ""
    for seconds in (-4, 0):
        rig.client_ahead_ns = seconds * SECOND
        cell = rig.strike("clock_jump", "")
        assert cell.recovered < 2.0
        assert not cell.wrong
        assert seconds == 0 or cell.counted["clock_steps"] >= 1


async def test_over_real_sockets_and_nothing_is_left() -> None:
    tasks, descriptors = len(asyncio.all_tasks()), psutil.Process().num_fds()
    async with Rig("deribit") as rig:
        began = await rig.settled(20.0)
        assert began == began
        for name in ("abort", "malformed frame"):
            cell = await strike(rig, CASE[name])
            # How long it took says how busy this machine is.
            assert cell.recovered == cell.recovered
            assert not cell.wrong
            assert cell.counted["health.DISCONNECTED"] == cell.counted["health.READY"] == 1
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks and psutil.Process().num_fds() <= descriptors)


def test_the_rig_sees_prices_that_were_never_shown_and_those_that_are_late() -> None:
    rig = settled("deribit")
    assert not len(rig.shown.wrong(rig.feed))
    board = rig.feed.board
    of_venue = rig.shown.rows(rig.feed)
    row = next(i for i in np.flatnonzero(np.isfinite(board.bid)).tolist() if of_venue[i] >= 0)
    true = board.bid[row]
    board.bid[row] = 1.7 * true
    assert rig.shown.wrong(rig.feed).tolist() == [row]
    assert of_venue[row] in rig.shown.late(rig.feed)
    board.bid[row] = true
    assert not len(rig.shown.wrong(rig.feed))
    # What no longer hears of the venue falls behind it.
    rig.is_asleep = True
    for _ in range(30):
        rig.step()
    assert len(rig.shown.late(rig.feed)) > 10
    assert not len(rig.shown.wrong(rig.feed))
