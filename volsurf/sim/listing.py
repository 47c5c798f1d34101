"""Which expiries and strikes a crypto-option exchange lists, and when they roll.

Four dailies, three Fridays, three last Fridays of a month, four last Fridays of a quarter, all at 08:00 UTC; strikes on
round numbers, dense near the money. At least eleven expiries at any time of any year. Names and ticks are the venue's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from volsurf.instruments import FloatArray

EXPIRY_HOUR = 8
_NANOSECONDS = 1_000_000_000
_DAY = timedelta(days=1)
_ZONES = ((-3.0, -1.8, 4.0), (-1.8, -0.9, 2.0), (-0.9, 0.9, 1.0), (0.9, 1.8, 2.0), (1.8, 3.5, 4.0))
"""Of a strike grid: from and to, in deviations of ln spot at expiry, and the step as a multiple of the finest."""


@dataclass(frozen=True, slots=True)
class ExpiryRules:
    """How many of each kind are listed."""

    dailies: int = 4
    weeklies: int = 3
    monthlies: int = 3
    quarterlies: int = 4


def to_ns(moment: datetime) -> int:
    """Nanoseconds UTC of an aware datetime, exact."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * _NANOSECONDS + delta.microseconds * 1000


def from_ns(time_ns: int) -> datetime:
    """Aware datetime of nanoseconds UTC, cut to microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)


def listed_expiries(now_ns: int, rules: ExpiryRules = ExpiryRules()) -> dict[int, str]:
    """Expiries listed at an instant, `{expiry_ns: "day" | "week" | "month"}` in order; one that is due now is gone."""
    now = from_ns(now_ns)
    first = now.replace(hour=EXPIRY_HOUR, minute=0, second=0, microsecond=0)
    if first <= now:
        first += _DAY
    found: dict[int, str] = {}
    friday = first + (4 - first.weekday()) % 7 * _DAY
    last_fridays = list(_last_fridays(first, 3 * rules.quarterlies + rules.monthlies))
    quarters = [day for day in last_fridays if day.month % 3 == 0][: rules.quarterlies]
    # The longest-lived kind names the settlement period, so it is entered last.
    for days, period in (
        ((first + i * _DAY for i in range(rules.dailies)), "day"),
        ((friday + 7 * i * _DAY for i in range(rules.weeklies)), "week"),
        (iter(last_fridays[: rules.monthlies] + quarters), "month"),
    ):
        found.update((to_ns(day), period) for day in days)
    return dict(sorted(found.items()))


def _last_fridays(first: datetime, months: int) -> Iterator[datetime]:
    year, month = first.year, first.month
    produced = 0
    while produced < months:
        year_next, month_next = (year + 1, 1) if month == 12 else (year, month + 1)
        last = first.replace(year=year_next, month=month_next, day=1) - _DAY
        day = last - (last.weekday() - 4) % 7 * _DAY
        if day >= first:
            produced += 1
            yield day
        year, month = year_next, month_next


def round_step(raw: float) -> float:
    """The largest of 1, 2, 2.5 and 5 times a power of ten that is not above `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    # The quotient of a power of ten by itself may come out a hair below 1.
    return power * max(m for m in (0.5, 1.0, 2.0, 2.5, 5.0) if m <= raw / power * (1 + 1e-12))


def strike_grid(spot: float, vol: float, years: float, *, density: float, smallest_step: float) -> FloatArray:
    """Strikes an exchange lists for one expiry, rising, shape (n,).

    One step within 0.9 deviations of the money, twice that to 1.8 and four times to the ends at −3 and +3.5, each in
    proportion to the strikes of its zone: a year out the lowest strikes lie as close in ln K as the highest.

    Args:
        density: strikes per deviation near the money.
        smallest_step: the venue's finest grid for this underlying.
    """
    deviation = vol * math.sqrt(years)
    strikes: list[FloatArray] = []
    for low, high, multiple in _ZONES:
        centre = spot * math.exp(0.5 * (low + high) * deviation)
        size = max(smallest_step, round_step(multiple * centre * deviation / density))
        start = math.ceil(spot * math.exp(low * deviation) / size - 1e-9)
        stop = math.floor(spot * math.exp(high * deviation) / size + 1e-9)
        # Multiples of the step counted in integers, so that 142.5 is 285 halves and not a sum of roundings.
        strikes.append(np.round(np.arange(max(start, 1), stop + 1) * size, 10))
    return np.unique(np.concatenate(strikes))
