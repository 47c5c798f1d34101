"""No bytes whatever make a protocol raise, and after them it is as good as new: the short form of `tests.bench.fuzz`."""

from __future__ import annotations

import pytest

from tests.feeds.conformance.facts import FACTS
from tests.feeds.fuzz import Fuzzer


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("venue", FACTS)
def test_damaged_messages(venue: str, seed: int) -> None:
    fuzzer = Fuzzer(venue, seed)
    result = fuzzer.run(4000)
    assert result.counted == result.frames, result.uncounted
    assert result.malformed > 500
    # What a stranger sends must not become names of counters.
    assert len(result.counters) < 80, sorted(result.counters)
    for venue_object in fuzzer.world.feed.venues:
        assert len(venue_object._watch._events) < 2000  # type: ignore[attr-defined]
