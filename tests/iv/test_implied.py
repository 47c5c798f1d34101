"""Implied vols against 50-digit prices, at the edges of what has a vol, and whatever stands beside them in the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.iv.black_truth import Sample, sample, true_prices
from volsurf.errors import InputError
from volsurf.iv.black import black_greeks, black_price
from volsurf.iv.implied import ImpliedVolStatus, implied_vol, implied_vol_status, solve, solve_columns, solve_greeks

SETS = ("ord", "live", "hard")


@pytest.fixture(scope="module")
def samples() -> dict[str, Sample]:
    return {name: sample(name) for name in SETS}


@pytest.fixture(scope="module")
def mixed() -> Sample:
    """Lanes of every kind: certified at once, after a second step, and by the bracketed iteration."""
    return sample("hard", 2000, seed=3)


class TestAccuracy:
    @pytest.mark.parametrize("name", SETS)
    def test_cold(self, samples: dict[str, Sample], name: str) -> None:
        options = samples[name]
        vol, status = implied_vol_status(*options.inputs)
        assert np.all(status == ImpliedVolStatus.OK)
        assert np.abs(vol / options.vol - 1.0).max() <= 1e-14

    @pytest.mark.parametrize("name", SETS)
    @pytest.mark.parametrize("off", [-0.003, 1e-4, 0.003])
    def test_warm_step(self, samples: dict[str, Sample], name: str, off: float) -> None:
        options = samples[name]
        vol = implied_vol(*options.inputs, guess=options.vol * (1.0 + off))
        rounding = 4e-15 / options.total_vol
        truncation = 1e-14 if abs(off) < 1e-3 else 1e-12
        assert np.all(np.abs(vol / options.vol - 1.0) <= rounding + truncation)

    @pytest.mark.parametrize("factor", [0.01, 0.5, 0.97, 1.1, 3.0, 50.0])
    def test_bad_guesses_cost_time_and_not_accuracy(self, mixed: Sample, factor: float) -> None:
        vol, status = implied_vol_status(*mixed.inputs, guess=mixed.vol * factor)
        assert np.all(status == ImpliedVolStatus.OK)
        assert np.abs(vol / mixed.vol - 1.0).max() <= 1e-14

    @pytest.mark.parametrize("guess", [math.nan, 0.0, -0.4, math.inf, -math.inf, 1e-300, 1e300])
    def test_useless_guesses_are_ignored(self, mixed: Sample, guess: float) -> None:
        vol = implied_vol(*mixed.inputs, guess=guess)
        assert np.abs(vol / mixed.vol - 1.0).max() <= 1e-14

    @pytest.mark.parametrize("name", SETS)
    def test_in_the_money_twins(self, samples: dict[str, Sample], name: str) -> None:
        """The same options bought on the other side: what the rounding of the price leaves of the vol comes back."""
        options = samples[name]
        twins = true_prices(options.forward, options.strike, options.years, options.vol, ~options.is_call)
        # A twin whose time value is a few units in the last place of its price says nothing.
        told = options.price > 1e3 * np.spacing(twins)
        vol = implied_vol(twins, options.forward, options.strike, options.years, ~options.is_call)
        vega = np.asarray(black_greeks(*options.inputs[1:4], options.vol, options.is_call).vega)
        # Rounding of the price itself, and of |F − K|, which is not a double either.
        noise = (np.spacing(twins) + np.spacing(np.abs(options.forward - options.strike))) / vega
        assert told.sum() > 0.5 * told.size
        assert np.all((np.abs(vol - options.vol) <= 2.0 * noise + 1e-14 * options.vol)[told])

    def test_wide_grid_ends_at_the_right_root(self) -> None:
        """From h = 1e-8 to 30, v from 1e-6 to 16, cold and from guesses up to e^±7 off: no certificate is false."""
        rng = np.random.default_rng(5)
        n = 60_000
        h = np.exp(rng.uniform(math.log(1e-8), math.log(30.0), n))
        v = np.where(
            rng.random(n) < 0.6, h / np.exp(rng.uniform(math.log(1e-2), math.log(36.0), n)), rng.uniform(1e-3, 16.0, n)
        )
        v = np.clip(v, 1e-6, 16.0)
        strike = np.exp(np.where(rng.random(n) < 0.5, h, -h))
        is_call = strike >= 1.0
        price = black_price(1.0, strike, 1.0, v, is_call)
        c = price / np.minimum(1.0, strike)
        u = np.abs(np.log(strike)) / v - 0.5 * v
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            elasticity = c * math.sqrt(2.0 * math.pi) * np.exp(0.5 * u * u) / v
            noise = 4.0 * elasticity * 2.2e-16 * (6.0 + u * u) + 2e-14
        told = (c > 0.0) & (c < 1.0) & (noise < 1e-3)
        assert told.sum() > 0.6 * n
        vol, status = implied_vol_status(price, 1.0, strike, 1.0, is_call)
        assert np.all(status[told] == ImpliedVolStatus.OK)
        assert np.all((np.abs(vol / v - 1.0) <= noise)[told])
        guess = v * np.exp(rng.uniform(-7.0, 7.0, n))
        vol, status = implied_vol_status(price, 1.0, strike, 1.0, is_call, guess=guess)
        assert np.all(status[told] == ImpliedVolStatus.OK)
        assert np.all((np.abs(vol / v - 1.0) <= noise + 1e-11 + 1e-14 / v)[told])

    @given(
        forward=st.floats(1e-3, 1e6),
        deviations=st.floats(-5.0, 5.0),
        days=st.floats(0.02, 1500.0),
        vol=st.floats(0.03, 3.5),
        is_call=st.booleans(),
        discount=st.floats(0.5, 1.1),
    )
    @settings(max_examples=300, deadline=None)
    def test_price_to_vol_to_price(
        self, forward: float, deviations: float, days: float, vol: float, is_call: bool, discount: float
    ) -> None:
        years = days / 365.0
        strike = forward * math.exp(deviations * vol * math.sqrt(years))
        price = black_price(forward, strike, years, vol, is_call, discount)
        found, status = implied_vol_status(price, forward, strike, years, is_call, discount)
        intrinsic = discount * max(forward - strike if is_call else strike - forward, 0.0)
        if status != ImpliedVolStatus.OK:
            # Only where rounding has left no time value, or no distance to the upper bound.
            bound = discount * (forward if is_call else strike)
            assert price - intrinsic <= 4.0 * np.spacing(price) or bound - price <= 4.0 * np.spacing(bound)
            return
        again = black_price(forward, strike, years, found, is_call, discount)
        assert again == pytest.approx(price, rel=1e-13, abs=4.0 * np.spacing(price))


class TestBoundaries:
    """The strike is 1.1 forwards unless said otherwise."""

    CASES = (
        # price, forward, strike, years, is_call, vol, status
        (0.0, 100.0, 110.0, 0.5, True, 0.0, ImpliedVolStatus.AT_INTRINSIC),
        (10.0, 100.0, 110.0, 0.5, False, 0.0, ImpliedVolStatus.AT_INTRINSIC),
        (0.0, 100.0, 100.0, 0.5, True, 0.0, ImpliedVolStatus.AT_INTRINSIC),
        (-1e-300, 100.0, 110.0, 0.5, True, math.nan, ImpliedVolStatus.BELOW_INTRINSIC),
        (-1.0, 100.0, 110.0, 0.5, True, math.nan, ImpliedVolStatus.BELOW_INTRINSIC),
        (9.999, 100.0, 110.0, 0.5, False, math.nan, ImpliedVolStatus.BELOW_INTRINSIC),
        (100.0, 100.0, 110.0, 0.5, True, math.nan, ImpliedVolStatus.ABOVE_MAXIMUM),
        (110.0, 100.0, 110.0, 0.5, False, math.nan, ImpliedVolStatus.ABOVE_MAXIMUM),
        (1e9, 100.0, 110.0, 0.5, True, math.nan, ImpliedVolStatus.ABOVE_MAXIMUM),
        (100.0, 100.0, 100.0, 0.5, True, math.nan, ImpliedVolStatus.ABOVE_MAXIMUM),
        (5.0, 100.0, 110.0, 0.0, True, math.nan, ImpliedVolStatus.INVALID_INPUT),
        (5.0, 100.0, 110.0, -0.5, True, math.nan, ImpliedVolStatus.INVALID_INPUT),
        (5.0, 0.0, 110.0, 0.5, True, math.nan, ImpliedVolStatus.INVALID_INPUT),
        (5.0, -100.0, 110.0, 0.5, True, math.nan, ImpliedVolStatus.INVALID_INPUT),
        (5.0, 100.0, 0.0, 0.5, True, math.nan, ImpliedVolStatus.INVALID_INPUT),
        (5.0, 100.0, -110.0, 0.5, False, math.nan, ImpliedVolStatus.INVALID_INPUT),
        (-5.0, -100.0, -110.0, 0.5, True, math.nan, ImpliedVolStatus.INVALID_INPUT),
        *(
            (*row, 0.5, call, math.nan, ImpliedVolStatus.INVALID_INPUT)
            for bad in (math.nan, math.inf, -math.inf)
            for row in ((bad, 100.0, 110.0), (5.0, bad, 110.0), (5.0, 100.0, bad))
            for call in (True, False)
        ),
        *((5.0, 100.0, 110.0, bad, True, math.nan, ImpliedVolStatus.INVALID_INPUT) for bad in (math.nan, math.inf)),
    )

    @pytest.mark.parametrize("row", CASES)
    @pytest.mark.parametrize("guess", [None, 0.4])
    def test_table(
        self, row: tuple[float, float, float, float, bool, float, ImpliedVolStatus], guess: float | None
    ) -> None:
        *inputs, vol, status = row
        found, found_status = implied_vol_status(*inputs, guess=guess)
        assert found_status is status
        assert found == vol or (math.isnan(found) and math.isnan(vol))

    def test_smallest_prices_have_vols(self) -> None:
        """Down to where doubles end; the other side, one rounding below the maximum, too."""
        vol, status = implied_vol_status([1e-200, 1e-300, 5e-324], 1.0, 1.1, 1.0, True)
        assert np.all(status == ImpliedVolStatus.OK)
        again = black_price(1.0, 1.1, 1.0, vol[:2], True)
        assert again == pytest.approx([1e-200, 1e-300], rel=1e-12)
        assert 0.0 < vol[2] < vol[1] < vol[0]
        highest, status_high = implied_vol_status(np.nextafter(1.0, 0.0), 1.0, 1.1, 1.0, True)
        assert status_high is ImpliedVolStatus.OK
        assert 16.0 < highest < 17.0

    def test_forwards_of_any_size(self) -> None:
        """Outside the normal range of the vector passes the scalar solver sees to it."""
        for scale in (1e-305, 1e-200, 1e-8, 1e8, 1e200, 1e304):
            price = float(black_price(1.0, 1.2, 0.5, 0.7, True)) * scale
            assert implied_vol(price, scale, 1.2 * scale, 0.5, True) == pytest.approx(0.7, rel=1e-13)

    def test_status_sentences(self) -> None:
        assert len({status.sentence for status in ImpliedVolStatus}) == 5


class TestNeighbours:
    def test_call_put_symmetry_to_the_last_bit(self, mixed: Sample) -> None:
        price, forward, strike, years, is_call = mixed.inputs
        assert np.array_equal(
            implied_vol(price, forward, strike, years, is_call), implied_vol(price, strike, forward, years, ~is_call)
        )

    @pytest.mark.parametrize("warm", [False, True])
    def test_order_and_length_do_not_matter(self, mixed: Sample, warm: bool) -> None:
        rng = np.random.default_rng(1)
        n = mixed.price.size
        guess = mixed.vol * np.where(rng.random(n) < 0.8, 1.001, 1.3)
        guess[::17] = np.nan

        def solved(rows: np.ndarray) -> np.ndarray:
            inputs = [column[rows] for column in mixed.inputs]
            return implied_vol(*inputs, guess=guess[rows] if warm else None)

        every = solved(np.arange(n))
        order = rng.permutation(n)
        assert np.array_equal(solved(order), every[order])
        for length in (1, 2, 31, 32, 33, 255, 256, 257, 511, 513, 700):
            rows = rng.permutation(n)[:length]
            assert np.array_equal(solved(rows), every[rows])

    @pytest.mark.parametrize("warm", [False, True])
    def test_bad_rows_harm_nobody_else(self, mixed: Sample, warm: bool) -> None:
        rng = np.random.default_rng(2)
        guess = mixed.vol * 1.001 if warm else None
        before = implied_vol(*mixed.inputs, guess=guess)
        columns = [column.copy() for column in mixed.inputs]
        bad = rng.random(before.size) < 0.2
        rows = np.flatnonzero(bad)
        for row in rows:
            columns[rng.integers(4)][row] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e308, 5e-324])
        after, status = implied_vol_status(*columns, guess=guess)
        assert np.array_equal(after[~bad], before[~bad])
        assert np.all(status[~bad] == ImpliedVolStatus.OK)
        assert np.all(np.isnan(after[bad]) == (status[bad] >= ImpliedVolStatus.BELOW_INTRINSIC))


class TestInterface:
    def test_scalars_in_scalars_out(self) -> None:
        vol = implied_vol(5.0, 100.0, 110.0, 0.5, True)
        assert type(vol) is float
        same, status = implied_vol_status(5.0, 100.0, 110.0, 0.5, True)
        assert same == vol
        assert status is ImpliedVolStatus.OK

    def test_broadcasting(self) -> None:
        strikes = np.array([90.0, 100.0, 110.0])
        years = np.array([[0.1], [0.5]])
        price = black_price(100.0, strikes, years, 0.4, [True, False, True])
        vol, status = implied_vol_status(price, 100, strikes, years, [True, False, True])
        assert vol.shape == status.shape == (2, 3)
        assert status.dtype == np.int8
        assert vol == pytest.approx(np.full((2, 3), 0.4), rel=1e-12)
        assert implied_vol(np.empty((0, 3)), 100.0, strikes, 0.5, True).shape == (0, 3)

    def test_views_and_other_types(self) -> None:
        price = np.asfortranarray(np.repeat(np.linspace(3.0, 9.0, 6)[:, None], 4, axis=1)).astype(np.float32)
        vol = implied_vol(price, 100, 105, 1, np.int8(1))
        every_other = implied_vol(price[::2, 1], [100], [105], 1, 1)
        assert np.array_equal(every_other, vol[::2, 1])

    def test_no_kind_of_array_compiles_anything(self) -> None:
        """Read-only columns are what polars and pandas hand out; unaligned ones come from packed records."""
        columns = [np.full(5, x) for x in (5.0, 100.0, 110.0, 0.5)]
        expected = implied_vol(*columns, True)
        before = len(solve_columns.signatures)
        for column in columns:
            column.flags.writeable = False
        assert np.array_equal(implied_vol(*columns, True), expected)
        records = np.zeros(5, np.dtype([("flag", np.int8), ("price", np.float64)]))
        records["price"] = 5.0
        assert np.array_equal(implied_vol(records["price"], *columns[1:], True), expected)
        assert np.array_equal(implied_vol(columns[0].astype(">f8"), *columns[1:], True), expected)
        assert np.array_equal(implied_vol(np.broadcast_to(5.0, 5), *columns[1:], True), expected)
        assert implied_vol(np.empty((0, 5)), *columns[1:], True).shape == (0, 5)
        assert len(solve_columns.signatures) == before

    @pytest.mark.parametrize(
        ("position", "value", "message"),
        [
            (0, "5", "price must be real numbers"),
            (1, None, "forward must be real numbers"),
            (2, 1j, "strike must be real numbers"),
            (3, np.array(["1"]), "years must be real numbers"),
            (4, "call", "is_call must be True for a call"),
            (4, 0.5, "is_call must be True for a call"),
            (4, [1, -1], "is_call must be True for a call"),
            (5, "1", "discount must be real numbers"),
        ],
    )
    def test_wrong_types(self, position: int, value: object, message: str) -> None:
        arguments: list[object] = [5.0, 100.0, 110.0, 0.5, True, 1.0]
        arguments[position] = value
        with pytest.raises(InputError, match=message):
            implied_vol(*arguments)

    def test_missing_elements_are_bad_rows(self) -> None:
        """What lies under a mask is no price: pandas and xarray leave a fill value there."""
        expected = (0.0, ImpliedVolStatus.INVALID_INPUT, 0.0)
        for price in (np.ma.masked_equal([5.0, 9999.0, 5.0], 9999.0), np.array([5.0, None, 5.0], object)):
            vol, status = implied_vol_status(price, 100.0, 110.0, 0.5, True)
            assert tuple(status) == expected
            assert tuple(np.isnan(vol)) == (False, True, False)
        whole = np.ma.masked_equal([90, -999], -999)
        assert np.isnan(black_price(100.0, whole, 0.5, 0.4, True)).tolist() == [False, True]
        with pytest.raises(InputError, match="is_call must be True"):
            implied_vol(5.0, 100.0, 110.0, 0.5, np.ma.array([True, False], mask=[False, True]))
        with pytest.raises(InputError, match="forward must be real numbers"):
            implied_vol(5.0, np.array([100.0, "100"], object), 110.0, 0.5, True)
        with pytest.raises(InputError, match="price is no array of numbers"):
            implied_vol([[5.0], [5.0, 6.0]], 100.0, 110.0, 0.5, True)

    @pytest.mark.parametrize(("v", "limit"), [(1.0, 2e-13), (3.0, 2e-12), (5.0, 6e-12), (15.9, 2e-10)])
    def test_what_a_warm_step_leaves(self, v: float, limit: float) -> None:
        """At the inflexion, where it is largest, with the largest step that is certified."""
        strike = math.exp(0.5 * v * v)
        price = black_price(1.0, strike, 1.0, v, True)
        cold = implied_vol(price, 1.0, strike, 1.0, True)
        off = np.array([-4.01e-3, -4e-3, -3.9e-3, 3.9e-3, 4e-3, 4.01e-3])
        warm = implied_vol(price, 1.0, strike, 1.0, True, guess=cold * (1.0 + off))
        assert np.abs(warm / cold - 1.0).max() <= limit

    def test_wrong_shapes(self) -> None:
        with pytest.raises(InputError, match=r"price \(3,\).*strike \(2,\).*guess \(3,\)"):
            implied_vol(np.ones(3), 100.0, np.ones(2), 0.5, True, guess=np.ones(3))
        with pytest.raises(InputError, match="guess must be real numbers"):
            implied_vol(1.0, 100.0, 100.0, 0.5, True, guess="0.4")

    def test_discount(self) -> None:
        discount = np.array([0.7, 0.9, 1.0, 1.02])
        price = black_price(100.0, 120.0, 0.8, 0.55, [True, False, True, False], discount)
        vol = implied_vol(price, 100.0, 120.0, 0.8, [True, False, True, False], discount)
        assert vol == pytest.approx(np.full(4, 0.55), rel=1e-13)

    def test_discounted_intrinsic_is_at_intrinsic(self) -> None:
        rng = np.random.default_rng(8)
        forward, strike, discount = rng.uniform(50.0, 200.0, (3, 1000)) * np.array([[1.0], [1.0], [0.01]])
        is_call = forward > strike
        price = discount * np.abs(forward - strike)
        vol, status = implied_vol_status(price, forward, strike, 0.5, is_call, discount)
        assert np.all(status == ImpliedVolStatus.AT_INTRINSIC)
        assert np.all(vol == 0.0)

    @pytest.mark.parametrize("discount", [0.0, -1.0, math.nan, math.inf])
    def test_impossible_discount(self, discount: float) -> None:
        vol, status = implied_vol_status(5.0, 100.0, 110.0, 0.5, True, discount)
        assert math.isnan(vol)
        assert status is ImpliedVolStatus.INVALID_INPUT

    def test_column_entries(self, mixed: Sample) -> None:
        """The entries without checks give the same vols, and greeks beside them, also where the solve is warm."""
        n = mixed.price.size
        vol, status, greeks = np.empty(n), np.empty(n, np.int8), np.empty((6, n))
        solve(*mixed.inputs, np.empty(0), vol, status)
        assert np.array_equal(vol, implied_vol(*mixed.inputs))
        for guess in (np.empty(0), mixed.vol * 1.002):
            for adjusted in (False, True):
                solve_greeks(*mixed.inputs, guess, vol, status, greeks, premium_adjusted=adjusted)
                expected = black_greeks(*mixed.inputs[1:4], vol, mixed.is_call, premium_adjusted=adjusted)
                assert np.array_equal(greeks, np.array(expected))
