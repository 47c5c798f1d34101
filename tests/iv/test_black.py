"""Prices and greeks against 50-digit truth, finite cases at expiry, the coin-settled relations, published tables."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.conftest import shared_path
from tests.iv.black_truth import Sample, sample, true_greeks
from volsurf.errors import InputError
from volsurf.iv.black import Greeks, black_greeks, black_price
from volsurf.iv.implied import implied_vol_status

REFERENCE = ("data", "real", "reference_cases")


@pytest.fixture(scope="module")
def hard() -> Sample:
    return sample("hard", 1000, seed=4)


class TestPrice:
    def test_against_truth(self, hard: Sample) -> None:
        price = black_price(hard.forward, hard.strike, hard.years, hard.vol, hard.is_call)
        # One rounding of σ√T is a² of them in the price; the kernel adds at most twenty where v is small and h is not.
        a = np.abs(np.log(hard.forward / hard.strike)) / hard.total_vol
        assert np.all(np.abs(price / hard.price - 1.0) <= 4e-15 * (2.0 + a * a))

    @given(
        forward=st.floats(1.0, 1e5),
        moneyness=st.floats(-2.0, 2.0),
        years=st.floats(0.0, 3.0),
        vol=st.floats(0.0, 4.0),
        discount=st.floats(0.1, 1.5),
    )
    @settings(max_examples=200, deadline=None)
    def test_parity_and_bounds(
        self, forward: float, moneyness: float, years: float, vol: float, discount: float
    ) -> None:
        strike = forward * math.exp(moneyness)
        call = black_price(forward, strike, years, vol, True, discount)
        put = black_price(forward, strike, years, vol, False, discount)
        scale = discount * max(forward, strike)
        assert call - put == pytest.approx(discount * (forward - strike), abs=4e-16 * scale)
        assert max(0.0, discount * (forward - strike)) <= call <= discount * forward
        assert max(0.0, discount * (strike - forward)) <= put <= discount * strike

    @pytest.mark.parametrize(("years", "vol"), [(0.0, 0.5), (0.5, 0.0), (0.0, 0.0), (1e-30, 1e-300)])
    def test_intrinsic_without_time_or_vol(self, years: float, vol: float) -> None:
        strikes = np.array([90.0, 100.0, 110.0])
        assert np.array_equal(black_price(100.0, strikes, years, vol, True), [10.0, 0.0, 0.0])
        assert np.array_equal(black_price(100.0, strikes, years, vol, False), [0.0, 0.0, 10.0])

    def test_enormous_vol_is_the_upper_bound(self) -> None:
        assert black_price(100.0, 120.0, 1.0, 1e6, True) == 100.0
        assert black_price(100.0, 120.0, 1.0, 1e6, False) == 120.0

    @pytest.mark.parametrize("position", range(4))
    @pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf])
    def test_bad_rows_are_nan_and_stay_alone(self, position: int, bad: float) -> None:
        columns = [np.full(70, x) for x in (100.0, 110.0, 0.5, 0.4)]
        columns[position][33] = bad
        price = black_price(*columns, True)
        greeks = np.array(black_greeks(*columns, True))
        good = np.arange(70) != 33
        assert math.isnan(price[33])
        assert np.all(np.isnan(greeks[:, 33]))
        assert np.all(price[good] == price[0])
        assert np.all(greeks[:, good] == greeks[:, :1])

    def test_interface(self) -> None:
        assert type(black_price(100.0, 110.0, 0.5, 0.4, True)) is float
        assert black_price(100.0, [90.0, 110.0], [[0.1], [0.2], [0.3]], 0.4, True).shape == (3, 2)
        assert black_price(100.0, 110.0, 0.5, 0.4, True, [0.5, 1.0]) == pytest.approx(
            np.array([0.5, 1.0]) * black_price(100.0, 110.0, 0.5, 0.4, True)
        )
        with pytest.raises(InputError, match="vol must be real numbers"):
            black_price(100.0, 110.0, 0.5, "40%", True)
        with pytest.raises(InputError, match="shapes do not broadcast"):
            black_greeks(np.ones(2), np.ones(3), 0.5, 0.4, True)

    @pytest.mark.parametrize("discount", [0.0, -1.0, math.nan, math.inf])
    def test_impossible_discount(self, discount: float) -> None:
        assert math.isnan(black_price(100.0, 110.0, 0.5, 0.4, True, discount))
        price = black_price(100.0, 110.0, 0.5, 0.4, True, [discount, 1.0])
        assert math.isnan(price[0])
        assert price[1] == black_price(100.0, 110.0, 0.5, 0.4, True)
        assert math.isnan(black_greeks(100.0, 110.0, 0.5, 0.4, True, discount).vega)

    def test_order_does_not_matter(self, hard: Sample) -> None:
        order = np.random.default_rng(0).permutation(hard.price.size)
        columns = (hard.forward, hard.strike, hard.years, hard.vol, hard.is_call)
        price, greeks = black_price(*columns), np.array(black_greeks(*columns))
        for rows in (order, order[:300], order[:5]):
            picked = [column[rows] for column in columns]
            assert np.array_equal(black_price(*picked), price[rows])
            assert np.array_equal(np.array(black_greeks(*picked)), greeks[:, rows])


class TestGreeks:
    @pytest.mark.parametrize("is_call", [True, False])
    @pytest.mark.parametrize("strike", [0.4, 0.9, 1.0, 1.02, 2.5])
    @pytest.mark.parametrize(("years", "vol"), [(0.003, 0.9), (0.25, 0.6), (2.0, 1.4)])
    def test_are_the_derivatives(self, strike: float, years: float, vol: float, is_call: bool) -> None:
        greeks = black_greeks(60_000.0, 60_000.0 * strike, years, vol, is_call)
        d1 = abs(math.log(strike)) / (vol * math.sqrt(years))
        for name, expected in true_greeks(60_000.0, 60_000.0 * strike, years, vol, is_call).items():
            if abs(expected) > 1e-280:
                # Volga at the money is a difference that cancels: d1 d2 is small there.
                tolerance = 1e-13 * (1.0 + d1 * d1) * (10.0 if name in ("volga", "vanna") else 1.0)
                assert getattr(greeks, name) == pytest.approx(expected, rel=tolerance), name

    def test_discount_scales_them_all(self) -> None:
        plain = np.array(black_greeks(100.0, 110.0, 0.5, 0.4, False))
        assert np.array(black_greeks(100.0, 110.0, 0.5, 0.4, False, 0.9)) == pytest.approx(0.9 * plain, rel=1e-15)

    def test_scalars_and_shapes(self) -> None:
        greeks = black_greeks(100.0, 110.0, 0.5, 0.4, True)
        assert isinstance(greeks, Greeks)
        assert all(type(x) is float for x in greeks)
        assert all(x.shape == (2, 3) for x in black_greeks(100.0, np.full((2, 3), 110.0), 0.5, 0.4, True))

    @pytest.mark.parametrize(("years", "vol"), [(0.0, 0.5), (0.5, 0.0)])
    def test_at_expiry(self, years: float, vol: float) -> None:
        strikes = np.array([80.0, 100.0, 125.0])
        call = black_greeks(100.0, strikes, years, vol, True)
        put = black_greeks(100.0, strikes, years, vol, False)
        assert np.array_equal(call.delta, [1.0, 0.5, 0.0])
        assert np.array_equal(put.delta, [0.0, -0.5, -1.0])
        assert np.all(np.array(call)[1:] == 0.0)
        assert np.array_equal(
            black_greeks(100.0, strikes, years, vol, True, premium_adjusted=True).delta, [0.8, 0.5, 0.0]
        )


class TestCoinSettled:
    """The premium is a number of coins, B/F: relations of the inverse contract, and Deribit's own tickers."""

    def test_net_delta_is_delta_minus_premium(self, hard: Sample) -> None:
        columns = (hard.forward, hard.strike, hard.years, hard.vol, hard.is_call)
        plain = black_greeks(*columns)
        net = black_greeks(*columns, premium_adjusted=True)
        coin = black_price(*columns) / hard.forward
        assert net.delta == pytest.approx(np.asarray(plain.delta) - coin, abs=4e-16 * 4, rel=1e-12)
        assert net.gamma == pytest.approx(np.asarray(plain.gamma) - np.asarray(net.delta) / hard.forward, rel=1e-12)
        assert net.vanna == pytest.approx(
            np.asarray(plain.vanna) - np.asarray(plain.vega) / hard.forward, rel=1e-12, abs=1e-300
        )
        for name in ("vega", "theta", "volga"):
            assert np.array_equal(getattr(net, name), getattr(plain, name))

    @pytest.mark.parametrize("is_call", [True, False])
    @pytest.mark.parametrize("strike", [700.0, 1000.0, 1400.0])
    def test_net_delta_is_the_hedge_of_coins(self, strike: float, is_call: bool) -> None:
        """F ∂(B/F)/∂F, and gamma and vanna its derivatives."""
        forward, years, vol = 1000.0, 0.3, 0.8

        def coin(f: float) -> float:
            return black_price(f, strike, years, vol, is_call) / f

        def net(f: float, s: float) -> float:
            return float(black_greeks(f, strike, years, s, is_call, premium_adjusted=True).delta)

        greeks = black_greeks(forward, strike, years, vol, is_call, premium_adjusted=True)
        step = 1e-2
        assert greeks.delta == pytest.approx(
            forward * (coin(forward + step) - coin(forward - step)) / (2 * step), rel=1e-8
        )
        assert greeks.gamma == pytest.approx(
            (net(forward + step, vol) - net(forward - step, vol)) / (2 * step), rel=1e-7
        )
        assert greeks.vanna == pytest.approx((net(forward, vol + 1e-5) - net(forward, vol - 1e-5)) / 2e-5, rel=1e-7)

    def test_parity(self) -> None:
        """C − P = 1 − K/F in coins, so the net deltas differ by −K/F … that of a put bought with coins."""
        call = black_greeks(1000.0, 1300.0, 0.4, 0.7, True, premium_adjusted=True)
        put = black_greeks(1000.0, 1300.0, 0.4, 0.7, False, premium_adjusted=True)
        assert call.delta - put.delta == pytest.approx(1.3, rel=1e-15)

    def test_deribit_mark_price(self) -> None:
        """BTC-7FEB25-106000-P: coins are B over the forward 98763.21, not over the index 100143.63."""
        forward, strike, vol = 98763.21, 106000.0, 0.6086
        # The premium is four parts in five intrinsic: the time value pins the expiry, T follows from it.
        price = 0.1042716 * forward
        assert pytest.approx(0.1042715 * forward / 100143.63, rel=1e-5) == 0.1028342
        total = implied_vol_status(price, forward, strike, 1.0, False)[0]
        years = (total / vol) ** 2
        assert 10.0 < years * 365.0 < 30.0
        assert black_price(forward, strike, years, vol, False) / forward == pytest.approx(0.1042716, abs=5e-8)

    def test_deribit_greeks(self) -> None:
        """BTC-26JUN26-100000-C at F = 116086.34, 45.43 %, 351.89 days; venue units are points of vol and days."""
        years = 351.89 / 365.0
        greeks = black_greeks(116086.34, 100000.0, years, 0.4543, True)
        assert greeks.delta == pytest.approx(0.71138, abs=5e-6)
        assert greeks.vega / 100.0 == pytest.approx(389.29, abs=0.01)
        assert greeks.theta / 365.0 == pytest.approx(-25.130, abs=2e-3)


class TestPublishedTables:
    def test_py_vollib(self) -> None:
        """Black-Scholes on a spot S at rate R: forward S e^(Rt), discount e^(−Rt); printed to ten decimals."""
        path = shared_path(*REFERENCE, "py_vollib_test_data.json")
        table = json.loads(path.read_text())
        columns = dict(zip(table["columns"], np.array(table["data"], float).T, strict=True))
        spot, strike, rate, years, vol = (columns[name] for name in ("S", "K", "R", "t", "v"))
        discount = np.exp(-rate * years)
        forward = spot / discount
        for is_call, price, prefix in ((True, "bs_call", "C"), (False, "bs_put", "P")):
            arguments = (forward, strike, years, vol, is_call, discount)
            close = {"rel": 1e-6, "abs": 1e-6}
            assert black_price(*arguments) == pytest.approx(columns[price], **close)
            greeks = black_greeks(*arguments)
            assert np.asarray(greeks.delta) / discount == pytest.approx(columns[prefix + "D"], **close)
            assert np.asarray(greeks.gamma) / discount**2 == pytest.approx(columns[prefix + "G"], **close)
            assert greeks.vega == pytest.approx(columns[prefix + "V"], **close)
            # With the spot held fixed the forward and the discount move with time too.
            premium = black_price(*arguments)
            theta = np.asarray(greeks.theta) - rate * (np.asarray(greeks.delta) * forward - premium)
            assert theta == pytest.approx(columns[prefix + "T"], **close)

    def test_extreme_prices(self) -> None:
        """431 prices from 60 digits, down to 1e-290: solved to what the rounding of the price itself leaves."""
        path: Path = shared_path(*REFERENCE, "black_otm_extreme_60digits.csv")
        with path.open() as file:
            rows = list(csv.DictReader(file))

        def column(name: str) -> np.ndarray:
            return np.array([float(row[name]) for row in rows])

        strike, total = column("strike_over_forward"), column("total_stdev_sigma_sqrt_T")
        price, floor = column("price_as_double"), column("relative_stdev_error_floor_from_price_rounding")
        is_call = np.array([row["otm_type"] == "C" for row in rows])
        vol, status = implied_vol_status(price, 1.0, strike, 1.0, is_call)
        assert np.all(status == 0)
        assert np.all(np.abs(vol / total - 1.0) <= 1.5 * floor + 3e-15)
        a = np.abs(np.log(strike)) / total
        assert np.all(np.abs(black_price(1.0, strike, 1.0, total, is_call) / price - 1.0) <= 4e-15 * (2.0 + a * a))
