"""Expiry calendar and strike grids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from volsurf.sim.listing import from_ns, listed_expiries, round_step, strike_grid, to_ns


def days(now: datetime) -> dict[str, str]:
    """`{"2026-11-25": "day", …}`."""
    return {f"{from_ns(expiry):%Y-%m-%d}": period for expiry, period in listed_expiries(to_ns(now)).items()}


def test_the_calendar_of_a_day_in_may() -> None:
    """The eleven expiries that the venue listed on 26 May 2026."""
    assert days(datetime(2026, 5, 26, 19, 27, 44, tzinfo=UTC)) == {
        "2026-05-27": "day",
        "2026-05-28": "day",
        "2026-05-29": "month",
        "2026-05-30": "day",
        "2026-06-05": "week",
        "2026-06-12": "week",
        "2026-06-26": "month",
        "2026-07-31": "month",
        "2026-09-25": "month",
        "2026-12-25": "month",
        "2027-03-26": "month",
    }


def test_eight_oclock_is_the_moment() -> None:
    before = days(datetime(2026, 11, 27, 7, 59, 59, 999_999, tzinfo=UTC))
    after = days(datetime(2026, 11, 27, 8, tzinfo=UTC))
    assert set(before) - set(after) == {"2026-11-27"}
    # A daily comes in behind, and, this being a last Friday, a week and a month too.
    assert set(after) - set(before) == {"2026-12-01", "2026-12-18", "2027-02-26"}


def test_at_least_eleven_expiries_every_day_of_four_years() -> None:
    start = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for i in range(4 * 366):
        expiries = listed_expiries(to_ns(start + timedelta(days=i)))
        assert 11 <= len(expiries) <= 13
        assert all(from_ns(e).hour == 8 for e in expiries)
        months = [from_ns(e) for e, period in expiries.items() if period != "day"]
        assert all(m.weekday() == 4 for m in months)


@pytest.mark.parametrize(
    ("raw", "step"), [(999.0, 500.0), (1000.0, 1000.0), (0.034, 0.025), (0.1, 0.1), (2400, 2000), (4999, 2500)]
)
def test_steps_are_round(raw: float, step: float) -> None:
    assert round_step(raw) == pytest.approx(step)


@pytest.mark.parametrize("years", [2 / 365, 0.05, 0.25, 0.9])
@pytest.mark.parametrize(("spot", "smallest"), [(91_000.0, 500.0), (142.0, 1.0), (1.42, 0.025)])
def test_grids_are_dense_near_the_money_and_reach_the_wings(spot: float, smallest: float, years: float) -> None:
    grid = strike_grid(spot, 0.5, years, density=9.0, smallest_step=smallest)
    deviation = 0.5 * np.sqrt(years)
    assert (np.diff(grid) > 0).all()
    assert grid[0] < spot * np.exp(-2.0 * deviation)
    assert grid[-1] > spot * np.exp(2.5 * deviation)
    inner = np.diff(grid[np.abs(np.log(grid / spot)) < 0.8 * deviation])
    assert inner.max() <= max(smallest, spot * deviation / 9.0) * (1 + 1e-9)
    # Round numbers: 142.5 may be listed, 142.37 may not.
    np.testing.assert_allclose(2 * grid / smallest, np.round(2 * grid / smallest), atol=1e-6)


def test_times_go_there_and_back() -> None:
    moment = datetime(2026, 11, 24, 7, 59, 59, 123_456, tzinfo=UTC)
    assert from_ns(to_ns(moment)) == moment
