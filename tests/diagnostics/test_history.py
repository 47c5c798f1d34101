"""A history counts the last frames strike by strike, forgets what is gone, and does not grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.diagnostics.venue_market import board_of_venues, fitted, quotes_of
from tests.surface.quoted_market import DAY, NOW, Quoted
from volsurf.diagnostics.history import ShapeWatch, ThroughHistory
from volsurf.diagnostics.through import ThroughMatrix, ThroughState, through_matrix
from volsurf.errors import InputError
from volsurf.surface.quote_vols import quote_vols

MARKET = Quoted(tick=0.0005)


@pytest.fixture(scope="module")
def matrix() -> ThroughMatrix:
    surface, quotes = fitted(MARKET)
    return through_matrix(surface, quotes)


def frame(matrix: ThroughMatrix, number: int, state: Sequence[int], fit: float = 0.0) -> ThroughMatrix:
    """The matrix some frames later, its first cells in these states and its fitted vols moved."""
    states = matrix.state.copy()
    states[: len(state)] = state
    return replace(
        matrix,
        time_ns=matrix.time_ns + number,
        state=states,
        fitted_vol=matrix.fitted_vol + fit,
        u=matrix.u + 100 * fit,
    )


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=25))
@settings(max_examples=30)
def test_persistence_is_m_of_the_last_n(matrix: ThroughMatrix, states: list[list[int]]) -> None:
    history = ThroughHistory(frames=8)
    fits = np.random.default_rng(0).normal(0, 1e-3, len(states))
    for number, state in enumerate(states):
        seen = history.update(frame(matrix, number, state, float(fits[number])))
        last = np.array(states[max(0, number - 7) : number + 1])
        for cell in range(4):
            now = state[cell]
            bid, ask = (
                (last[:, cell] == ThroughState.BID_THROUGH).sum(),
                (last[:, cell] == ThroughState.ASK_THROUGH).sum(),
            )
            expected = bid if now == ThroughState.BID_THROUGH else ask if now == ThroughState.ASK_THROUGH else bid + ask
            assert seen.persistence is not None
            assert seen.persistence[cell] == expected
        assert seen.frames is not None
        assert seen.fit_stability_bp is not None
        assert seen.u_stability is not None
        assert (seen.frames == len(last)).all()
        if len(last) > 1:
            deviation = np.std(fits[max(0, number - 7) : number + 1], ddof=1)
            np.testing.assert_allclose(seen.fit_stability_bp, 1e4 * deviation, rtol=1e-9)
            two_sided = np.isfinite(matrix.u)
            np.testing.assert_allclose(seen.u_stability[two_sided], 100 * deviation, rtol=1e-9)
            assert np.isnan(seen.u_stability[~two_sided]).all()
        else:
            assert np.isnan(seen.fit_stability_bp).all()


def test_frame_of_the_same_time_replaces_the_last(matrix: ThroughMatrix) -> None:
    history = ThroughHistory(frames=4)
    history.update(frame(matrix, 0, [1]))
    for state in ([1], [1], [0]):
        seen = history.update(frame(matrix, 1, state))
    assert seen.frames is not None
    assert seen.persistence is not None
    assert (int(seen.frames[0]), int(seen.persistence[0])) == (2, 1)
    with pytest.raises(InputError, match="start a new ThroughHistory"):
        history.update(frame(matrix, 0, [1]))


def test_strikes_come_and_go_and_memory_stays(matrix: ThroughMatrix) -> None:
    history = ThroughHistory(frames=5)
    cells = np.arange(len(matrix))
    size = 0
    for number in range(60):
        # A window of strikes that wanders over all of them, as listings do with the forward.
        window = (cells + 3 * number) % len(matrix) < 30
        seen = history.update(replace(frame(matrix, number, [1] * 75), fitted_vol=matrix.fitted_vol).select(window))
        assert seen.frames is not None
        assert seen.persistence is not None
        assert (seen.persistence == seen.frames).all()
        if number == 20:
            size = history.nbytes
    assert history.nbytes == size
    assert "MB" in repr(history)


def test_strike_that_returns_after_the_history_starts_anew(matrix: ThroughMatrix) -> None:
    history = ThroughHistory(frames=3)
    history.update(frame(matrix, 0, [1]))
    rest = np.arange(1, len(matrix))
    for number in range(1, 3):
        history.update(frame(matrix, number, []).select(rest))
    seen = history.update(frame(matrix, 3, [1]))
    assert seen.frames is not None
    assert (seen.frames[0], seen.frames[1]) == (1, 3)


def test_shortest_history_gives_no_slot_twice(matrix: ThroughMatrix) -> None:
    history = ThroughHistory(frames=1)
    history.update(frame(matrix, 0, []).select(np.arange(10)))
    seen = history.update(frame(matrix, 1, [1] * 10))
    assert seen.persistence is not None
    assert (seen.persistence == seen.is_through).all()


def test_rows_of_instruments_that_another_table_lacks_are_free_at_once(matrix: ThroughMatrix) -> None:
    history = ThroughHistory()
    surface, _ = fitted(MARKET)
    size: set[int] = set()
    for number, venue in enumerate(("one", "two", "three")):
        history.update(
            replace(through_matrix(surface, quotes_of(MARKET, {venue: MARKET.rows()})), time_ns=NOW + number)
        )
        size.add(history.nbytes)
    assert len(size) == 1


def test_other_table_of_the_same_instruments_continues(matrix: ThroughMatrix) -> None:
    history = ThroughHistory()
    surface, quotes = fitted(MARKET)
    history.update(through_matrix(surface, quotes))
    # Another universe: other ids for the same symbols, one expiry rolled off, and a newly listed strike.
    rows = [r for r in reversed(MARKET.rows()) if r.expiry_ns > NOW + 7 * DAY]
    extra = replace(rows[0], strike=rows[0].strike * 2)
    later = quotes_of(MARKET, {"one": [extra, *rows]}, NOW + 1_000_000)
    seen = history.update(through_matrix(surface, later))
    assert seen.frames is not None
    known = seen.strike != extra.strike
    assert (seen.frames[known] == 2).all()
    assert (seen.frames[~known] == 1).all()


def test_listing_grows_within_one_universe() -> None:
    surface, _ = fitted(MARKET)
    rows = MARKET.rows()
    first = board_of_venues(MARKET, {"one": rows[:60]})
    history = ThroughHistory()
    history.update(through_matrix(surface, quote_vols(first, NOW)))
    grown = board_of_venues(MARKET, {"one": rows}, first.universe)
    seen = history.update(through_matrix(surface, quote_vols(grown, NOW + 1_000)))
    assert seen.frames is not None
    assert sorted(np.bincount(seen.frames).tolist()) == [0, 30, 45]


def test_underlyings_have_a_history_each(matrix: ThroughMatrix) -> None:
    history = ThroughHistory(frames=4)
    for number in range(6):
        for name in ("BTC", "ETH"):
            seen = history.update(replace(frame(matrix, number, [1]), underlying=name))
    assert seen.frames is not None
    assert seen.frames[0] == 4
    with pytest.raises(InputError, match="at least one frame"):
        ThroughHistory(frames=0)


def test_shape_has_to_last() -> None:
    watch = ShapeWatch(frames=3)
    seen = [watch.update("BTC", t, [1, 2], [True, t != 2]) for t in range(5)]
    assert [s[0] for s in seen] == [False, False, True, True, True]
    assert [s[1] for s in seen] == [False] * 5
    # The same frame again counts once, and an expiry that was away starts anew.
    assert watch.update("BTC", 4, [1, 2], [True, True]) == [True, False]
    assert watch.update("BTC", 5, [1, 2], [True, True]) == [True, True]
    assert watch.update("BTC", 6, [2], [True]) == [True]
    assert watch.update("BTC", 7, [1, 2], [True, True]) == [False, True]
    with pytest.raises(InputError):
        ShapeWatch(frames=0)
