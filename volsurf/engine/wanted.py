"""What an engine can be asked to follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from volsurf.errors import InputError
from volsurf.feeds.registry import VENUES


def check_wanted(venues: Sequence[str], underlyings: Sequence[str]) -> None:
    """`InputError` where there is no such venue, or nothing to follow."""
    for venue in venues:
        if venue not in VENUES:
            raise InputError(f"no venue {venue!r}; there are {', '.join(VENUES)}")
    if not venues or len(set(venues)) < len(venues):
        raise InputError(f"venues must be named, each once, were {venues!r}")
    if not underlyings or not all(isinstance(name, str) and name for name in underlyings):
        raise InputError(f"underlyings must be names such as 'BTC', were {underlyings!r}")


def check_urls(venues: Sequence[str], url: str | Mapping[str, str] | None) -> dict[str, str]:
    """Addresses by venue; `InputError` where one address stands for several venues, or one is of a venue not followed."""
    if isinstance(url, str):
        if len(venues) > 1:
            raise InputError(f"one address for {', '.join(venues)}: give each its own, {{venue: address}}, was {url!r}")
        return {venues[0]: url}
    urls = dict(url or {})
    if unknown := [venue for venue in urls if venue not in venues]:
        raise InputError(f"an address of {unknown[0]!r}, which is not followed; there are {', '.join(venues)}")
    return urls


def base_currencies(underlyings: Sequence[str]) -> tuple[str, ...]:
    """The names surfaces go by: `"SOL_USDC"` and `"SOL"` are both `"SOL"`, however they are settled."""
    return tuple(dict.fromkeys(name.partition("_")[0] for name in underlyings))
