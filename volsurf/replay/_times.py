"""Periods and instants as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from volsurf.errors import InputError

_UNITS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60 * 1_000_000_000, "h": 3600 * 1_000_000_000}
_PERIOD = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Period = str | float | timedelta
Instant = str | int | datetime


def period_ns(name: str, value: Period) -> int:
    """Nanoseconds of `"100ms"`, `"1s"`, `"5m"`, a timedelta or a number of seconds; InputError naming the argument."""
    ns = 0
    if isinstance(value, timedelta):
        ns = _timedelta_ns(value)
    elif isinstance(value, str):
        match = _PERIOD.fullmatch(value.strip())
        ns = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) < 1e9:
        ns = round(value * 1e9)
    if ns < 1_000_000:
        raise InputError(f"{name} must be a period of a millisecond or more, like '100ms', '1s' or '5m', was {value!r}")
    return ns


def instant_ns(name: str, value: Instant, begin_ns: int) -> int:
    """Nanoseconds UTC of a datetime, of an ISO 8601 text, of integer nanoseconds, or of `"+5m"`: so long after the beginning."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    moment: datetime | None = value if isinstance(value, datetime) else None
    if isinstance(value, str):
        if value.startswith("+"):
            return begin_ns + period_ns(name, value[1:])
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if moment is None:
        raise InputError(
            f"{name} must be a time like '2026-11-24T08:00:00Z', '+5m' after the beginning, a datetime or integer "
            f"nanoseconds UTC, was {value!r}"
        )
    return _timedelta_ns((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH)


def time_text(time_ns: int) -> str:
    """ISO 8601 in UTC with milliseconds."""
    moment = _EPOCH + timedelta(microseconds=time_ns // 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _timedelta_ns(span: timedelta) -> int:
    # total_seconds() is a float and loses nanoseconds of large spans; the three integers do not.
    return ((span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds) * 1000
