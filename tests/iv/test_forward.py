"""The forward of an expiry against markets whose forward is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from volsurf.iv.black import black_price
from volsurf.iv.forward import Forwards, ForwardSource, expiry_forwards

Floats = npt.NDArray[np.float64]


class Board:
    """Puts and calls of some expiries, quoted around Black prices at a true forward."""

    def __init__(
        self,
        days: tuple[float, ...] = (30.0,),
        *,
        forward: float = 90_000.0,
        vol: float = 0.5,
        inverse: bool = True,
        discount: float = 1.0,
        half_spread: float = 0.004,
        strikes: int = 21,
        tick: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.years = np.array(days) / 365
        self.true = np.full(len(days), forward)
        k, call, unit, bid, ask = [], [], [], [], []
        for years in self.years:
            grid = forward * np.exp(np.linspace(-1.8, 1.8, strikes) * vol * math.sqrt(years))
            if rng is not None:
                grid = np.round(grid, -2)
            for strike in grid:
                for is_call in (False, True):
                    low, high = (
                        discount
                        * float(black_price(forward, strike, years, v, is_call))
                        / (forward if inverse else 1.0)
                        for v in (vol - half_spread, vol + half_spread)
                    )
                    if tick:
                        low, high = math.floor(low / tick) * tick, math.ceil(high / tick) * tick
                    k.append(strike)
                    call.append(is_call)
                    unit.append(1.0)
                    bid.append(low)
                    ask.append(high)
        self.rows_each = 2 * strikes
        n = len(k)
        partner = np.arange(n, dtype=np.int64)
        partner = np.where(partner % 2 == 0, partner + 1, partner - 1)
        self.columns: dict[str, Any] = {
            "start": np.arange(0, n + 1, self.rows_each, dtype=np.int64),
            "partner": partner,
            "strike": np.array(k),
            "inverse": np.full(n, inverse),
            "discount": np.full(n, discount),
            "bid": np.array(bid),
            "ask": np.array(ask),
            "venue_forward": np.full(n, np.nan),
            "time_ns": np.zeros(n, np.int64),
            "years": self.years,
            "underlying_id": np.zeros(len(days), np.int16),
            "index": np.full(len(days), np.nan),
        }

    def find(self, **columns: object) -> Forwards:
        return expiry_forwards(**(self.columns | columns))

    def venue(self, forward: float) -> Floats:
        return np.full(len(self.columns["strike"]), forward)


# A coin premium is not discounted.
@pytest.mark.parametrize(("inverse", "discount"), [(True, 1.0), (False, 1.0), (False, 0.985)])
@pytest.mark.parametrize("days", [0.2, 7.0, 365.0])
def test_parity_finds_the_forward(inverse: bool, discount: float, days: float) -> None:
    board = Board((days,), inverse=inverse, discount=discount)
    found = board.find()
    assert found.source[0] == ForwardSource.PARITY
    assert found.forward[0] == pytest.approx(90_000, rel=2e-5 * math.sqrt(days))
    assert found.parity_low[0] <= 90_000 <= found.parity_high[0]
    assert found.pairs[0] == 21
    # The straddle gives the deviation to expiry before any vol is known.
    assert found.root_theta[0] == pytest.approx(0.5 * math.sqrt(days / 365), rel=0.05)


@pytest.mark.parametrize(("days", "limit_bp"), [(1.0, 2.5), (7.0, 2.5), (30.0, 2.5)])
def test_stale_legs_do_not_move_it(days: float, limit_bp: float) -> None:
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(60):
        board = Board((days,), forward=float(rng.uniform(60_000, 120_000)), strikes=31, tick=1e-4, rng=rng)
        n = len(board.columns["strike"])
        stale = rng.random(n) < 0.05
        shift = np.where(stale, rng.choice((-0.01, 0.01), n), 0.0)
        bid = np.maximum(board.columns["bid"] + shift, 1e-4)
        found = board.find(bid=bid, ask=np.maximum(board.columns["ask"] + shift, bid))
        errors.append(1e4 * (found.forward[0] / board.true[0] - 1))
    assert math.sqrt(np.mean(np.square(errors))) <= limit_bp


def test_venue_forward_inside_its_own_quotes_is_used_as_it_is() -> None:
    board = Board()
    found = board.find(venue_forward=board.venue(90_010.0))
    assert (found.source[0], found.forward[0], bool(found.flagged[0])) == (ForwardSource.VENUE, 90_010.0, False)
    assert found.mismatch_bp[0] == pytest.approx(-1.1, abs=0.5)


def test_venue_forward_twenty_bp_off_is_refused_and_flagged() -> None:
    board = Board((7.0,), half_spread=0.001)
    found = board.find(venue_forward=board.venue(90_000 * 1.002))
    assert found.source[0] == ForwardSource.PARITY
    assert found.forward[0] == pytest.approx(90_000, rel=5e-5)
    assert found.flagged[0]
    assert found.mismatch_bp[0] == pytest.approx(-20, abs=1)


@pytest.mark.parametrize(("days", "flagged"), [(30.0, True), (200.0, False)])
def test_small_mismatch_is_flagged_by_age_of_expiry(days: float, flagged: bool) -> None:
    board = Board((days,), half_spread=0.02)
    found = board.find(venue_forward=board.venue(90_000 * 1.0009))
    assert (found.source[0], bool(found.flagged[0])) == (ForwardSource.VENUE, flagged)


def test_newest_ticker_speaks_for_the_expiry_and_ties_are_settled_by_the_median() -> None:
    board = Board()
    n = len(board.columns["strike"])
    said = np.linspace(89_990, 90_010, n)
    time = np.zeros(n, np.int64)
    time[5] = 9
    assert board.find(venue_forward=said, time_ns=time).venue_forward[0] == said[5]
    assert board.find(venue_forward=said).venue_forward[0] == pytest.approx(90_000, abs=1)
    # A ticker that says nothing, or nonsense, is not the newest.
    said[5] = np.nan
    said[6] = -1.0
    time[6] = 10
    assert board.find(venue_forward=said, time_ns=time).venue_forward[0] == pytest.approx(90_000, abs=1)


def test_few_pairs_leave_the_venue_unchecked() -> None:
    board = Board()
    bid = board.columns["bid"].copy()
    bid[4:] = np.nan
    found = board.find(bid=bid, venue_forward=board.venue(91_234.0))
    assert (found.source[0], found.forward[0], found.pairs[0]) == (ForwardSource.UNCHECKED, 91_234.0, 2)


@pytest.mark.parametrize("index", [np.nan, 89_000.0])
def test_expiry_without_pairs_is_interpolated_between_the_others(index: float) -> None:
    board = Board((10.0, 40.0, 90.0))
    bid = np.full(3 * board.rows_each, np.nan)
    venue = np.repeat([89_100.0, np.nan, 89_900.0], board.rows_each)
    found = board.find(bid=bid, venue_forward=venue, index=np.full(3, index))
    assert found.source[1] == ForwardSource.INTERPOLATED
    first, last = found.forward[0], found.forward[2]
    assert first < found.forward[1] < last
    if np.isfinite(index):
        rate = np.log(found.forward / index) / board.years
        assert rate[1] == pytest.approx(rate[0] + (rate[2] - rate[0]) * 30 / 80)
    assert found.standard_error[1] > found.standard_error[0]


def test_last_resorts_in_order() -> None:
    board = Board()
    bid = board.columns["bid"].copy()
    bid[2:] = np.nan
    one_pair = board.find(bid=bid, index=np.array([89_500.0]))
    assert one_pair.source[0] == ForwardSource.PARITY
    assert one_pair.flagged[0]
    assert one_pair.forward[0] == pytest.approx(90_000, rel=1e-3)
    bid[:] = np.nan
    index_only = board.find(bid=bid, index=np.array([89_500.0]))
    assert (index_only.source[0], index_only.forward[0]) == (ForwardSource.INDEX, 89_500.0)
    nothing = board.find(bid=bid)
    assert nothing.source[0] == ForwardSource.NONE
    assert np.isnan(nothing.forward[0])
    assert np.isnan(nothing.standard_error[0])


def test_inverse_and_linear_quotes_of_one_market_agree() -> None:
    inverse, linear = Board(), Board(inverse=False)
    assert inverse.find().forward[0] == pytest.approx(linear.find().forward[0], rel=1e-5)


def test_crossed_or_empty_legs_make_no_pair() -> None:
    board = Board()
    bid, ask = board.columns["bid"].copy(), board.columns["ask"].copy()
    bid[0], ask[0] = 0.5, 0.4
    ask[3] = np.nan
    assert board.find(bid=bid, ask=ask).pairs[0] == 19


def test_sources_have_sentences() -> None:
    assert all(source.sentence for source in ForwardSource)
