"""What the committed coefficients and the functions made of them claim, checked against 50 digits."""

from __future__ import annotations

import math
import os
import re
import warnings

import llvmlite.binding as llvm
import mpmath as mp
import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from tests.iv import refit_coefficients as refit
from volsurf.iv import _blocks, _coefficients, _greeks, _warm
from volsurf.iv._elementary import exp_minus, log_ratio, log_ratio_coarse
from volsurf.iv._householder import householder
from volsurf.iv._mills import mills_denominator, mills_numerator, small_price_over_vega
from volsurf.iv._seed import seed_inverse_variance, seed_log

Floats = npt.NDArray[np.float64]


def rational(p: tuple[float, ...], q: tuple[float, ...], z: float) -> mp.mpf:
    x = mp.mpf(z)
    return refit.polynomial([mp.mpf(c) for c in p], x) / refit.polynomial([mp.mpf(c) for c in q], x)


class TestCoefficients:
    """The error of the doubles as committed; each rounding of a coefficient adds to that of the fit."""

    def test_mills_ratio(self) -> None:
        grid = np.concatenate([np.linspace(0.0, 8.0, 161), np.geomspace(8.0, 48.0, 60)])
        errors = [
            abs(rational(_coefficients.MILLS_P, _coefficients.MILLS_Q, z) / refit.mills(mp.mpf(z)) - 1) for z in grid
        ]
        assert max(errors) <= 2.5e-16
        assert float(np.median([float(e) for e in errors])) <= 1e-16

    def test_short_mills_ratio(self) -> None:
        p, q = _coefficients.MILLS_SHORT_P, _coefficients.MILLS_SHORT_Q
        assert (
            max(abs(rational(p, q, z) / refit.mills(mp.mpf(z)) - 1) for z in np.linspace(0.0, _warm.LARGEST_Z, 200))
            <= 5e-16
        )

    @pytest.mark.parametrize("name", ["MILLS_P", "MILLS_Q", "MILLS_SHORT_P", "MILLS_SHORT_Q"])
    def test_nothing_cancels(self, name: str) -> None:
        assert min(getattr(_coefficients, name)) > 0.0

    @pytest.mark.parametrize(
        ("name", "function", "low", "high", "largest"),
        [
            ("ATANH", refit.atanh_series, 0.0, 0.0403, 1e-16),
            ("EXP", mp.exp, -math.log(2) / 2, math.log(2) / 2, 1e-16),
            ("SEED_SINH", refit.sinh_squared, 0.0, 9.0, 5e-7),
        ],
    )
    def test_polynomials(self, name: str, function: refit.Function, low: float, high: float, largest: float) -> None:
        coefficients = [mp.mpf(c) for c in getattr(_coefficients, name)]
        for x in np.linspace(low, high, 150):
            value = function(mp.mpf(float(x)))
            assert abs(refit.polynomial(coefficients, mp.mpf(float(x))) / value - 1) <= largest

    def test_normal_variance(self) -> None:
        for a in np.geomspace(1e-3, 9.0, 120):
            lam, value = refit.normal_variance(mp.mpf(float(a)))
            fitted = rational(_coefficients.SEED_NORMAL_P, _coefficients.SEED_NORMAL_Q, float(lam))
            assert abs(fitted / value - 1) <= 1.4e-4

    def test_agree_with_the_fits_they_are_compared_with(self) -> None:
        """Independent fits by the same methods: the leading coefficients are properties of the functions."""
        assert pytest.approx([1.5705927, 0.0780807, 0.0481509, 0.0054904], rel=5e-3) == _coefficients.SEED_NORMAL_P
        assert pytest.approx([1.0, 0.0474373, 0.1960823, 0.0051074, 0.0108362], rel=1e-2) == _coefficients.SEED_NORMAL_Q
        assert _coefficients.SEED_BRIDGE[:3] == pytest.approx([0.0833027050, 0.00238785468, -0.000777887587], rel=2e-2)
        assert _coefficients.ATANH[:4] == pytest.approx([2.0, 2 / 3, 2 / 5, 2 / 7], rel=1e-6)
        assert _coefficients.MILLS_P[0] == math.sqrt(math.pi / 2)
        # M(z) → 1/z.
        assert _coefficients.MILLS_P[-1] == pytest.approx(_coefficients.MILLS_Q[-1], rel=1e-10)

    def test_script_fits_the_committed_mills_ratio_again(self) -> None:
        """A coarser run of the kept script lands on the same function, not on the same digits."""
        nodes = refit.chebyshev(0, 16, 90, centre=4)
        p, q, error = refit.fit_rational(nodes, [refit.mills(z) for z in nodes], 8, 9, sweeps=6)
        assert error < 1e-15
        for z in (0.0, 0.3, 2.0, 9.0, 15.5):
            again = refit.polynomial(p, mp.mpf(z)) / refit.polynomial(q, mp.mpf(z))
            committed = rational(_coefficients.MILLS_SHORT_P, _coefficients.MILLS_SHORT_Q, z)
            assert abs(again / committed - 1) < 2e-15


class TestElementaryFunctions:
    def test_log_ratio(self) -> None:
        rng = np.random.default_rng(1)
        x = np.exp(rng.uniform(-350.0, 350.0, 400))
        y = np.concatenate([np.exp(rng.uniform(-350.0, 350.0, 200)), x[200:] * np.exp(rng.normal(0.0, 1e-3, 200))])
        for a, b in zip(x, y, strict=True):
            exact = mp.log(mp.mpf(a) / mp.mpf(b))
            assert abs(mp.mpf(log_ratio(a, b)) - exact) <= 3e-16 * abs(exact)
            assert abs(mp.mpf(log_ratio_coarse(a, b)) - exact) <= 4e-7
        assert log_ratio(3.0, 3.0) == 0.0
        assert math.isnan(log_ratio(math.nan, 1.0))
        assert math.isnan(log_ratio(1.0, math.nan))

    def test_exp_minus(self) -> None:
        for y in [0.0, 1e-300, *np.random.default_rng(2).uniform(0.0, 708.0, 500)]:
            assert abs(mp.mpf(exp_minus(y)) * mp.exp(mp.mpf(y)) - 1) <= 4e-16
        assert exp_minus(708.0) == exp_minus(1e300) == exp_minus(math.inf) == 0.0
        assert math.isnan(exp_minus(math.nan))

    def test_mills_in_doubles(self) -> None:
        for z in np.linspace(0.0, 48.0, 300):
            value = mills_numerator(z) / mills_denominator(z)
            assert abs(mp.mpf(value) / refit.mills(mp.mpf(float(z))) - 1) <= 1e-15

    def test_series_near_the_money(self) -> None:
        rng = np.random.default_rng(3)
        for _ in range(200):
            v = float(np.exp(rng.uniform(math.log(1e-6), math.log(0.2))))
            h = float(min(0.2, v * rng.uniform(0.0, 30.0)))
            a = h / v
            exact = refit.mills(mp.mpf(h) / v - mp.mpf(v) / 2) - refit.mills(mp.mpf(h) / v + mp.mpf(v) / 2)
            value = small_price_over_vega(a, mills_numerator(a), mills_denominator(a), h, v) / mills_denominator(a)
            # c/c' loses 1 + a² to cancellation, and v moves by c/(c' v) of that: less than one.
            assert abs(mp.mpf(value) / exact - 1) <= 2e-15 * (1.0 + a * a)


@pytest.fixture(scope="module")
def grid() -> tuple[Floats, Floats, Floats]:
    """h, v and c over the domain of the seed's certificate: v ≤ 2.6, h ≤ 3, a ≤ 8."""
    offsets = np.concatenate([[0.0], np.geomspace(1e-3, 3.0, 24)])
    points = [(float(h), float(v)) for v in np.geomspace(3e-4, 2.6, 60) for h in offsets if h / v <= 8.0]
    rows = [(h, v, float(refit.black(mp.mpf(h), mp.mpf(v)))) for h, v in points]
    h, v, c = np.array(rows).T
    return h, v, c


class TestSeedAndStep:
    def test_seed_certificate(self, grid: tuple[Floats, Floats, Floats]) -> None:
        h, v, c = grid

        @njit(error_model="numpy")
        def seeds(c: Floats, h: Floats, out: Floats) -> None:
            for i in range(c.size):
                r1 = math.expm1(h[i])
                out[i] = 1.0 / math.sqrt(seed_inverse_variance(seed_log(c[i], r1), c[i], r1, h[i]))

        out = np.empty(c.size)
        seeds(c, h, out)
        error = np.abs(out / v - 1.0)
        assert error.max() <= 1.7e-4
        assert math.sqrt((error**2).mean()) <= 7e-5

    @pytest.mark.parametrize(("off", "left"), [(1e-3, 1e-14), (3e-3, 2e-13), (1e-2, 6e-11), (3e-2, 2e-8)])
    def test_step_is_of_fifth_order(self, grid: tuple[Floats, Floats, Floats], off: float, left: float) -> None:
        """What a step leaves, from 50-digit residuals: the error of the formula alone."""
        worst = 0.0
        for h, v, _ in zip(*(x[::7] for x in grid), strict=True):
            for start in (v * (1.0 + off), v * (1.0 - off)):
                exact, at = (refit.black(mp.mpf(h), mp.mpf(x)) for x in (v, start))
                slope = mp.npdf(mp.mpf(h) / start - mp.mpf(start) / 2)
                low = h / start > start / 2
                d = mp.log(exact / at) if low else mp.log((1 - exact) / (1 - at))
                rho = at / slope if low else -(1 - at) / slope
                e, size = householder(float(d), float(rho), h, start, 1.0 / start)
                worst = max(worst, abs(start * (1.0 + e) / v - 1.0))
                assert size >= abs(e)
        assert worst <= left

    def test_size_is_large_where_the_price_vanished(self) -> None:
        """ρ rounded to zero makes both steps zero; that must not look like a root."""
        _, size = householder(700.0, 0.0, 10.0, 0.02, 50.0)
        assert size > 0.1


class TestVectorCode:
    """Every pass must be compiled to packed instructions: a scalar one is five times slower and gives the same numbers."""

    @pytest.mark.skipif(
        not llvm.get_host_cpu_features().get("avx2") or "NUMBA_CPU_NAME" in os.environ,
        reason="compiled for a processor without AVX2, where some passes stay scalar",
    )
    def test_packed_instructions(self) -> None:
        n = np.uint64(64)
        column, flags, work = np.full(64, 0.5), np.ones(64, np.bool_), np.full(_greeks.GREEKS_WORK, 0.5)
        begin = np.uint64(0)
        calls = {
            _blocks.begin_cold: (column, column, column, flags, begin, n, work),
            _blocks.seed: (n, work),
            _blocks.mills: (0.2, n, work),
            _blocks.price_over_vega: (n, work),
            _blocks.residual: (n, work),
            _blocks.correct: (n, work),
            _blocks.finish_cold: (column, begin, n, work, column.copy()),
            _warm.begin_warm: (column, column, column, column, flags, column, begin, n, work),
            _warm.price_over_vega_warm: (n, work),
            _warm.finish_warm: (column, begin, n, work, column.copy()),
            _greeks._density: (n, work),
            _greeks._delta: (column, column, flags, False, begin, n, work),
            _greeks._others: (column, column, column, column, False, begin, n, work),
        }
        for function, arguments in calls.items():
            function(*arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # "inspection disabled" would make the test pass on nothing
                code = next(iter(function.inspect_asm().values()))
            packed = re.findall(r"\bv?(?:fn?m(?:add|sub)\d+|mul|div)pd\s.*%[xyz]mm", code)
            assert len(packed) >= 2, function.__name__
