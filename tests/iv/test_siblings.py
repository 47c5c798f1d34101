"""Which of several markets speaks for an expiry, and what one lends another."""

from __future__ import annotations

import numpy as np
import pytest

from volsurf.iv.forward import Forwards, ForwardSource
from volsurf.iv.siblings import CARRIED_ERROR, OTHER_CURRENCY_ERROR, SAME_CURRENCY_ERROR, Siblings, reference_markets

VENUE, UNCHECKED, PARITY, CARRIED, NONE = (
    ForwardSource.VENUE,
    ForwardSource.UNCHECKED,
    ForwardSource.PARITY,
    ForwardSource.CARRIED,
    ForwardSource.NONE,
)


def forwards(source: list[ForwardSource], error: list[float]) -> Forwards:
    n = len(source)
    nan, forward = np.full(n, np.nan), np.where(np.array(source) == NONE, np.nan, 100.0)
    return Forwards(
        forward=forward,
        source=np.array(source, np.int8),
        venue_forward=nan,
        parity_forward=nan,
        standard_error=np.array(error),
        parity_low=nan,
        parity_high=nan,
        pairs=np.zeros(n, np.int64),
        mismatch_bp=nan,
        flagged=np.zeros(n, np.bool_),
        root_theta=nan,
        parity_discount=nan,
        discount_error=nan,
    )


@pytest.mark.parametrize(
    ("source", "currency", "error", "heard", "chosen"),
    [
        ([PARITY, VENUE], ["USDT", "USD"], [0.01, 0.9], [1, 1], 1),
        ([PARITY, VENUE], ["USDT", "USDC"], [0.01, 0.9], [1, 1], 1),
        ([PARITY, VENUE], ["EUR", "USDT"], [0.01, 0.9], [1, 1], 1),
        ([VENUE, PARITY], ["USD", "USD"], [0.02, 0.01], [1, 1], 1),
        ([UNCHECKED, PARITY], ["USD", "USD"], [0.01, 0.02], [1, 1], 1),
        # A forward of its own goes before the dollar, a live one before all.
        ([CARRIED, VENUE], ["USD", "USDT"], [0.01, 0.02], [1, 1], 1),
        ([VENUE, VENUE], ["USD", "USDT"], [0.01, 0.02], [0, 1], 1),
        ([NONE, CARRIED], ["USD", "USDT"], [np.nan, 0.02], [0, 0], 1),
        ([NONE, NONE], ["USD", "USDT"], [np.nan, np.nan], [0, 0], 0),
    ],
)
def test_who_speaks_for_the_expiry(
    source: list[ForwardSource], currency: list[str], error: list[float], heard: list[int], chosen: int
) -> None:
    found = forwards(source, error)
    expiry, known = np.zeros(2, np.int64), np.array(heard, np.bool_)
    assert reference_markets(found, expiry, currency, known, np.array([-1])).tolist() == [chosen]


def test_it_changes_for_a_much_tighter_one_only() -> None:
    expiry, heard, before = np.array([0, 0, 1, 1]), np.ones(4, np.bool_), np.array([0, 2])
    currency = ["USD"] * 4
    found = forwards([VENUE] * 4, [0.03, 0.01, 0.05, 0.01])
    assert reference_markets(found, expiry, currency, heard, np.array([-1, -1])).tolist() == [1, 3]
    assert reference_markets(found, expiry, currency, heard, before).tolist() == [0, 3]


def test_it_does_not_change_for_the_luck_of_a_few_pairs() -> None:
    expiry, heard, currency = np.zeros(2, np.int64), np.ones(2, np.bool_), ["USD"] * 2
    # In basis points: either is now the tighter one, by far, and now the other.
    for error in ([0.001, 0.03], [0.03, 0.001], [0.0002, 0.006]):
        found = forwards([VENUE] * 2, error)
        assert reference_markets(found, expiry, currency, heard, np.array([1])).tolist() == [1]


def carry(
    index: list[float], currency: list[str], parity: tuple[float, float] = (np.nan, np.nan), apart_ns: int = 0
) -> tuple[float, float, int]:
    """Forward, error and source that the second of two markets gets; the first has 100 ± 0.01, and its index is as much older."""
    forward, error = np.array([100.0, np.nan]), np.array([0.01, np.nan])
    source = np.array([VENUE, NONE], np.int8)
    siblings = Siblings(np.zeros(2, np.int64), np.arange(2), currency, np.array([0, apart_ns]))
    parities, errors = np.array([100.0, parity[0]]), np.array([0.01, parity[1]])
    siblings.carry(forward, source, error, parities, errors, np.array(index))
    return float(forward[1]), float(error[1] / forward[1]), int(source[1])


@pytest.mark.parametrize(
    ("index", "currency", "forward", "error"),
    [
        ([50.0, 49.9], ["USD", "USDT"], 99.8, CARRIED_ERROR),
        ([50.0, np.nan], ["USD", "USD"], 100.0, SAME_CURRENCY_ERROR),
        ([np.nan, 49.9], ["USD", "USDT"], 100.0, OTHER_CURRENCY_ERROR),
        ([50.0, 0.0], ["USD", "USDT"], 100.0, OTHER_CURRENCY_ERROR),
    ],
)
def test_a_carried_forward_is_moved_by_the_indexes(
    index: list[float], currency: list[str], forward: float, error: float
) -> None:
    found = carry(index, currency)
    assert found[0] == pytest.approx(forward)
    assert found[1] == pytest.approx(np.hypot(error, 1e-4))
    assert found[2] == CARRIED


def test_an_index_that_stopped_makes_a_ratio_uncertain_and_then_worthless() -> None:
    second = 10**9
    errors = [carry([50.0, 49.9], ["USD", "USDT"], apart_ns=n * second)[1] for n in (0, 1, -1, 10, 600)]
    assert errors[0] < errors[1] == errors[2] < errors[3] < errors[4]
    # A vol of 60 % over ten minutes.
    assert errors[4] == pytest.approx(np.hypot(np.hypot(CARRIED_ERROR, 0.6 * np.sqrt(600 / (365 * 86_400))), 1e-4))
    # In one currency the ratio is worth less than none by then, and in two after a day.
    assert carry([50.0, 49.9], ["USD", "USD"], apart_ns=600 * second)[:2] == (
        100.0,
        pytest.approx(np.hypot(SAME_CURRENCY_ERROR, 1e-4)),
    )
    assert carry([50.0, 49.9], ["USD", "USDT"], apart_ns=86_400 * second)[0] == 100.0


def test_a_strike_or_two_are_read_where_they_say_it_more_exactly() -> None:
    assert carry([np.nan, np.nan], ["USD", "USDT"], (99.5, 0.2)) == (99.5, pytest.approx(0.2 / 99.5), PARITY)
    assert carry([50.0, 49.75], ["USD", "USDT"], (99.1, 0.2))[2] == CARRIED


def test_nothing_is_carried_between_expiries() -> None:
    forward, error, source = np.array([100.0, np.nan]), np.array([0.01, np.nan]), np.array([VENUE, NONE], np.int8)
    siblings = Siblings(np.array([0, 1]), np.arange(2), ["USD", "USD"], np.zeros(2, np.int64))
    siblings.carry(forward, source, error, np.full(2, np.nan), np.full(2, np.nan), np.full(2, 50.0))
    assert source.tolist() == [VENUE, NONE]
    assert np.isnan(forward[1])
