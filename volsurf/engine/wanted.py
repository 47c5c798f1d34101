"""What an engine can be asked to follow."""

from __future__ import annotations

from collections.abc import Sequence

from volsurf.errors import InputError

VENUES = ("deribit",)
"""Venues that have a feed."""


def check_wanted(venues: Sequence[str], underlyings: Sequence[str]) -> None:
    """`InputError` where there is no such venue, or nothing to follow."""
    for venue in venues:
        if venue not in VENUES:
            raise InputError(f"no venue {venue!r}; there are: {', '.join(VENUES)}")
    if not venues or len(set(venues)) < len(venues):
        raise InputError(f"venues must be named, each once, were {venues!r}")
    if not underlyings or not all(isinstance(name, str) and name for name in underlyings):
        raise InputError(f"underlyings must be names such as 'BTC', were {underlyings!r}")


def base_currencies(underlyings: Sequence[str]) -> tuple[str, ...]:
    """The names surfaces go by: `"SOL_USDC"` and `"SOL"` are both `"SOL"`, however they are settled."""
    return tuple(dict.fromkeys(name.partition("_")[0] for name in underlyings))
