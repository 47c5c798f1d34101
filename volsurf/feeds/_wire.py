"""Small things that every venue's JSON asks for: times, names of what went wrong, names in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

LATEST_MS = 9_000_000_000_000
"""In the year 2255: beyond it nanoseconds leave 64 bits."""


class BookGap(Exception):
    """A change of an order book that does not follow the one before it."""


class BadLevel(Exception):
    """A level of an order book that is none, or a number of a change that cannot be."""


def nanoseconds(milliseconds: float) -> int:
    """Nanoseconds of a venue time; 0 for one that cannot be."""
    return int(milliseconds) * 1_000_000 if 0 < milliseconds < LATEST_MS else 0


def malformed_cause(error: Exception) -> str:
    """One word for why a message did not decode: what the counters are named after."""
    if isinstance(error, msgspec.ValidationError):
        return "schema"
    if isinstance(error, RecursionError):
        return "nesting"
    if isinstance(error, UnicodeError) or "UTF-8" in str(error):
        return "utf8"
    return "truncated" if "truncated" in str(error) else "json"


def in_sentence(names: Sequence[str], most: int = 8) -> str:
    """A few names of many, for an event a person reads."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
