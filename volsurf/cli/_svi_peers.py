"""The peers of `volsurf bench svi`: scipy on the same objective, and QuantLib's SVI smile section."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volsurf.cli._svi_slices import Slices
from volsurf.svi.fit import SVIFit

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """The objective of one slice of a fit (see `volsurf.svi._lm`), written for scipy: residuals, Jacobian, loss, bounds."""

    y: Floats
    q: Floats
    g: Floats
    side: npt.NDArray[np.int8]
    centre: Floats
    root_precision: Floats
    slope_max: float

    @classmethod
    def of(cls, slices: Slices, fit: SVIFit, index: int) -> Objective:
        """With the scale and the prior that the fit used, and the quotes that it kept."""
        rows = np.arange(slices.offsets[index], slices.offsets[index + 1])
        rows = rows[fit.use_flat[rows] == 0]
        root = float(np.sqrt(fit.theta[index]))
        atm = root / float(np.sqrt(fit.years[index]))
        return cls(
            slices.k[rows] / root,
            slices.vol[rows] / atm,
            atm / slices.error[rows],
            slices.side[rows],
            fit.prior_centre[index],
            np.sqrt(fit.prior_precision[index]),
            1.95 / root,
        )

    def residuals(self, x: Floats) -> Floats:
        """Of the quotes, then of the prior."""
        r = (self._curve(x)[3] - self.q) * self.g
        return np.concatenate((np.where(r * self.side >= 0.0, r, 0.0), self.root_precision * (x - self.centre)))

    def jacobian(self, x: Floats) -> Floats:
        """Of `residuals`."""
        z, t, t_inverse, v = self._curve(x)
        root = np.sqrt(1.0 + z * z)
        half = 0.5 * np.exp(x[4])
        active = (v - self.q) * self.g * self.side >= 0.0
        d = active * 0.5 * self.g / v
        slope = 0.5 * (x[1] * t - x[2] * t_inverse) / root
        rows = np.column_stack((d, d * half * t, d * half * t_inverse, -d * slope, d * half * (x[1] + x[2]) / root))
        return np.vstack((rows, np.diag(self.root_precision)))

    def loss(self, squares: Floats) -> Floats:
        """Huber with c = 1 for the quotes, plain squares for the prior, as rows rho, rho', rho''."""
        rho = np.vstack((squares, np.ones_like(squares), np.zeros_like(squares)))
        large = squares > 1.0
        large[self.y.size :] = False
        size = np.sqrt(squares[large])
        rho[:, large] = 2.0 * size - 1.0, 1.0 / size, -0.5 / size**3
        return rho

    def _curve(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        z = (self.y - x[3]) * np.exp(-x[4])
        root = np.sqrt(1.0 + z * z)
        t, t_inverse = root + z, root - z
        variance = x[0] + 0.5 * np.exp(x[4]) * (x[1] * t + x[2] * t_inverse)
        return z, t, t_inverse, np.sqrt(np.maximum(variance, 1e-9))

    def solve(self) -> Any:
        """scipy's solution, from the prior's centre, with its default tolerances."""
        from scipy.optimize import least_squares

        lower = np.array([-np.inf, 1e-5, 1e-5, -12.0, np.log(0.005)])
        upper = np.array([np.inf, self.slope_max, self.slope_max, 12.0, np.log(30.0)])
        start = np.clip(self.centre, lower + 1e-6, upper - 1e-6)
        return least_squares(
            self.residuals, start, self.jacobian, bounds=(lower, upper), method="trf", loss=self.loss
        )  # fmt: skip


def time_scipy(slices: Slices, fit: SVIFit) -> tuple[float, Floats]:
    """Processor seconds for all slices, and (the cost of our fit to quotes alone − scipy's)/(1 + scipy's) of each."""
    seconds = 0.0
    gaps = np.empty(len(slices))
    for i in range(len(slices)):
        objective = Objective.of(slices, fit, i)
        begin = time.thread_time()
        solution = objective.solve()
        seconds += time.thread_time() - begin
        gaps[i] = (fit.fitted_cost[i] - solution.cost) / (1.0 + solution.cost)
    return seconds, gaps


def time_quantlib(slices: Slices) -> tuple[float, int] | None:
    """Processor seconds for all slices and how many failed; None where QuantLib is not installed."""
    try:
        import QuantLib as _  # noqa: F401 - loading it is not part of a fit
    except ImportError:
        return None
    seconds = 0.0
    failed = 0
    for i in range(len(slices)):
        rows = slice(slices.offsets[i], slices.offsets[i + 1])
        two_sided = slices.side[rows] == 0
        begin = time.thread_time()
        found = quantlib_slice(slices.k[rows][two_sided], slices.vol[rows][two_sided], float(slices.years[i]))
        seconds += time.thread_time() - begin
        failed += found is None
    return seconds, failed


def quantlib_slice(
    k: Floats, vol: Floats, years: float, *, vega_weighted: bool = True
) -> tuple[float, float, float, float, float] | None:
    """a, b, rho, m and sigma of QuantLib's SVI smile section; None where it raises.

    Its default end criteria and optimiser. Its expiries are whole days: a shorter one counts as one day, and a and b are given
    for that time.

    Raises:
        ImportError: QuantLib is not installed.
    """
    import QuantLib as ql

    today = ql.Date(2, 1, 2026)
    if ql.Settings.instance().evaluationDate != today:
        ql.Settings.instance().evaluationDate = today
    quote = lambda value: ql.QuoteHandle(ql.SimpleQuote(float(value)))  # noqa: E731
    strikes = [float(strike) for strike in np.exp(k)]
    days = max(1, round(years * 365))
    try:
        section = ql.SviInterpolatedSmileSection(
            today + days, quote(1.0), strikes, False, quote(np.median(vol)), [quote(one) for one in vol],
            0.05, 0.2, 0.3, -0.2, 0.0, False, False, False, False, False, vega_weighted,
            ql.EndCriteria(10_000, 100, 1e-8, 1e-8, 1e-8), ql.LevenbergMarquardt(), ql.Actual365Fixed(),
        )  # fmt: skip
        section.volatility(1.0)
    except RuntimeError:
        return None
    return section.a(), section.b(), section.rho(), section.m(), section.sigma()
