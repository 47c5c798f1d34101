"""Expiries as people write them, to nanoseconds UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import IntArray
from volsurf.surface.slices import expiry_label

Expiry = int | str | date | np.datetime64 | np.integer | Sequence["Expiry"] | npt.NDArray[np.generic]
"""ns UTC, a datetime (naive ones are UTC), a numpy datetime64, "25DEC26", an ISO date or time, or an array of these."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VENUE_NAME = re.compile(r"\d{1,2}[A-Z]{3}\d{2}( \d\d:\d\d)?")


def to_nanoseconds(expiry: Expiry, listed: IntArray) -> IntArray:
    """Nanoseconds UTC in the shape of `expiry`; a date alone stands for the listed expiry of that day.

    Raises:
        InputError: what was given is no time.
    """
    if isinstance(expiry, np.ndarray):
        if np.issubdtype(expiry.dtype, np.integer):
            return expiry.astype(np.int64)
        if np.issubdtype(expiry.dtype, np.datetime64):
            return expiry.astype("datetime64[ns]").astype(np.int64)
        return np.array([_one(e, listed) for e in expiry.ravel().tolist()], np.int64).reshape(expiry.shape)
    if isinstance(expiry, Sequence) and not isinstance(expiry, str):
        return np.stack([to_nanoseconds(e, listed) for e in expiry])
    return np.asarray(_one(expiry, listed), np.int64)


def _one(expiry: object, listed: IntArray) -> int:
    # datetime before date, of which it is a kind; a pandas Timestamp is a datetime and knows its nanoseconds.
    if isinstance(expiry, int | np.integer) and not isinstance(expiry, bool):
        return int(expiry)
    if isinstance(expiry, np.datetime64):
        return int(expiry.astype("datetime64[ns]").astype(np.int64))
    if isinstance(expiry, datetime):
        value = getattr(expiry, "value", None)
        return int(value) if isinstance(value, int) else _from_datetime(expiry)
    if isinstance(expiry, date):
        return _of_day(expiry, listed)
    if isinstance(expiry, str):
        text = expiry.strip().upper()
        for ns in listed.tolist():
            if expiry_label(ns) == text:
                return int(ns)
        try:
            if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
                return _of_day(date.fromisoformat(text), listed)
            return _from_datetime(datetime.fromisoformat(expiry.strip()))
        except ValueError:
            if _VENUE_NAME.fullmatch(text):
                names = ", ".join(expiry_label(ns) for ns in listed.tolist())
                raise InputError(f"no expiry {expiry!r}; listed are {names}") from None
            raise InputError(
                f'an expiry is written "25DEC26", "2026-12-25" or as an ISO time, was {expiry!r}'
            ) from None
    raise InputError(f"an expiry is ns UTC, a datetime, or text, was {expiry!r}")


def _from_datetime(when: datetime) -> int:
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    delta = when - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1_000


def _of_day(day: date, listed: IntArray) -> int:
    start = _from_datetime(datetime(day.year, day.month, day.day, tzinfo=UTC))
    same = listed[(listed >= start) & (listed < start + 86_400_000_000_000)]
    if len(same) != 1:
        names = ", ".join(expiry_label(ns) for ns in (same if len(same) else listed).tolist())
        raise InputError(f"{len(same) or 'no'} expiries on {day}; {'they' if len(same) else 'listed'} are {names}")
    return int(same[0])
