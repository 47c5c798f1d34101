"""The cases by number, and the card of what they said."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable

from tests.feeds.conformance import link_cases as links, listing_cases as listings, quote_cases as quotes
from tests.feeds.conformance.facts import EXCEPTIONS, FACTS, Facts

CASES: dict[int, Callable[[Facts], None]] = {
    1: listings.discovery,
    2: listings.limits,
    3: listings.grants,
    4: quotes.units,
    5: quotes.sentinels,
    6: quotes.damage,
    7: links.liveness,
    8: links.disconnect,
    9: listings.listing_changes,
    10: quotes.books,
    11: quotes.trades,
    12: listings.refusals,
    13: links.clocks,
    14: links.takeover,
    15: links.determinism,
    16: listings.unlisted,
}


def title(number: int) -> str:
    """First line of what a case says it asks."""
    return (CASES[number].__doc__ or "").splitlines()[0]


def lines(venues: Iterable[str] = tuple(FACTS), numbers: Iterable[int] = tuple(CASES)) -> Iterable[tuple[bool, str]]:
    """Run the cases; for each line of the card whether it is no failure, and the line."""
    for number in numbers:
        yield True, f"{number:2d}. {title(number)}"
        for venue in venues:
            began = time.perf_counter()
            try:
                CASES[number](FACTS[venue])
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = str(error).splitlines() or [where.line or ""]
                yield False, f"      {venue:8s} FAILED: {said[0][:200]} ({where.name}, line {where.lineno})"
                continue
            reason = EXCEPTIONS.get((venue, number))
            seconds = f"({time.perf_counter() - began:.1f} s)"
            yield True, f"      {venue:8s} passed {seconds}" + (f"; exception: {reason}" if reason else "")
