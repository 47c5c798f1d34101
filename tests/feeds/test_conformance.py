"""Every case of the conformance card on every venue; `python -m tests.feeds.conformance` prints the card."""

from __future__ import annotations

import re

import pytest

import volsurf.feeds
from tests.feeds.conformance.card import CASES
from tests.feeds.conformance.facts import EXCEPTIONS, FACTS
from volsurf.feeds.registry import VENUES


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize("venue", FACTS)
def test_case(venue: str, number: int) -> None:
    CASES[number](FACTS[venue])


def test_the_card_is_the_list_of_the_guide_over_every_venue() -> None:
    guide = volsurf.feeds.__doc__ or ""
    numbers = [
        int(number) for number in re.findall(r"^ ?(\d+)\. [A-Z]", guide.partition("conformance card asks")[2], re.M)
    ]
    assert numbers == list(CASES)
    assert list(FACTS) == list(VENUES)
    assert all(venue in FACTS and number in CASES and reason for (venue, number), reason in EXCEPTIONS.items())
