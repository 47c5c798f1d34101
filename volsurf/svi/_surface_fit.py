"""The fit of a surface of SSVI slices with scipy, and what it publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from volsurf.svi._result import FitResult
from volsurf.svi._ssvi_quotes import Floats, Ints, Quotes
from volsurf.svi.arbitrage import Certificate, check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    from typing import Self

MARGIN = 1e-9
"""Relative room that a published surface keeps from every boundary of its no-arbitrage conditions: they bind often, and a
boundary is where rounding decides."""
RHO_MAX = 0.999
BOUND = 1e-5
"""Share of a parameter's interval that counts as standing on its end."""
_MARGIN_MAX = 1e-4
_STEPS = 200


class Params(Protocol):
    """Parameters of a surface, one or more numbers an expiry."""

    def to_raw(self) -> RawSVI: ...

    def retreated(self, margin: float) -> Self: ...


P = TypeVar("P", bound=Params)


@dataclass(frozen=True, eq=False)
class SurfaceFit(Generic[P]):
    """A surface model fitted to the quotes of all expiries. Arrays have one entry an expiry unless noted."""

    params: P
    """The fitted surface: what is published and certified."""
    raw: RawSVI
    """Its slices."""
    years: Floats
    offsets: Ints
    """The quotes of expiry i are at offsets[i]:offsets[i+1] of the flat arrays."""
    cost: Floats
    """Huber cost of the expiry's residuals; the pull between expiries is not in it."""
    rms: Floats
    """Root mean square of (fit - vol)/error; NaN without quotes."""
    inside: Floats
    """Share of the usable quotes with |fit - vol| <= error; NaN without quotes."""
    n_used: Floats
    """Usable quotes, by weight."""
    result: npt.NDArray[np.int8]
    """`FitResult` codes."""
    iterations: int
    """Steps of the minimisation, all starts together."""
    covariance: Floats
    """(expiries, 3, 3) covariance of theta, rho and psi; NaN where the quotes leave it undetermined."""
    residuals_flat: Floats
    """(fit - vol)/error of every usable quote, NaN for the others."""
    butterfly: Certificate
    calendar: Certificate
    """Of each pair of consecutive expiries."""

    def __len__(self) -> int:
        return int(self.years.size)

    @property
    def residuals(self) -> list[Floats]:
        """`residuals_flat`, one array an expiry."""
        return np.split(self.residuals_flat, self.offsets[1:-1])

    @property
    def atm_error(self) -> Floats:
        """Standard error of the vol at the money."""
        theta = self.raw.total_variance(0.0)
        return np.asarray(0.5 * np.sqrt(self.covariance[:, 0, 0] / (theta * self.years)))

    def vol(self, k: npt.ArrayLike) -> Floats:
        """Fitted vol at log-moneyness `k`, shapes as `RawSVI.vol`."""
        return self.raw.vol(k, self.years)

    @property
    def sentence(self) -> str:
        """How the fit ended, and how close it lies to the quotes."""
        name = type(self.params).__name__
        end = FitResult(int(self.result.max())) if FitResult.NOT_CONVERGED in self.result else FitResult.CONVERGED
        used = self.n_used > 0
        total = float(self.n_used.sum())
        inside = float(np.nansum(self.inside * self.n_used) / total)
        rms = float(np.sqrt(np.nansum(self.rms**2 * self.n_used) / total))
        proved = int(self.butterfly.proved.sum()), int(self.calendar.proved.sum())
        parts = [
            f"{name} of {len(self)} expiries: {end.sentence}",
            f"{total:g} quotes, {100.0 * inside:.0f} % within their error bars (rms {rms:.2f})",
        ]
        if not used.all():
            parts.append(f"{int((~used).sum())} without a quote, from the others")
        parts.append(f"{proved[0]} slices and {proved[1]} pairs proved free of arbitrage")
        return "; ".join(parts)

    def __repr__(self) -> str:
        return f"SurfaceFit({self.sentence})"


Map = Callable[[Floats], tuple[Floats, Floats, Floats]]
"""From coordinates of shape (batch, size) to theta, rho and psi of shape (batch, expiries)."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The best minimum found."""

    x: Floats
    theta: Floats
    rho: Floats
    psi: Floats
    residual: Floats
    """(fit - vol)/error of each usable quote."""
    covariance: Floats
    """(expiries, 3, 3)."""
    at_bound: npt.NDArray[np.bool_]
    """Coordinates that stand on an end of their interval."""
    converged: bool
    steps: int
    """Of all starts together."""


def minimise(quotes: Quotes, to_slices: Map, starts: list[Floats], low: Floats, high: Floats) -> Solution:
    """Minimise with scipy's trust-region reflective method from each start, inside the box."""
    from scipy.optimize import least_squares

    size = quotes.k.size
    step = 1e-7 * (high - low)

    def residuals(x: Floats) -> Floats:
        one = to_slices(x[None, :])
        quoted = quotes.residuals(*(value[0] for value in one))[0]
        return np.concatenate((quotes.counted(quoted), quotes.prior(*one)[0]))

    def jacobian(x: Floats) -> Floats:
        # Forward where there is room, else backward: the map is defined inside its box only.
        signed = np.where(x + step <= high, step, -step)
        near = to_slices(np.vstack((x, x + np.diag(signed))))
        moved = (np.stack(near)[:, 1:] - np.stack(near)[:, :1]) / signed[:, None]
        residual, slopes = quotes.residuals(*(value[0] for value in near))
        slopes = np.where(residual * quotes.side >= 0.0, 1.0, 0.0)[:, None] * slopes
        out = np.zeros((size, x.size))
        for i in range(3):
            out += slopes[:, i, None] * moved[i][:, quotes.expiry].T
        prior = quotes.prior(*near)
        return np.vstack((out, ((prior[1:] - prior[0]) / signed[:, None]).T))

    def loss(squares: Floats) -> Floats:
        rho = np.vstack((squares, np.ones_like(squares), np.zeros_like(squares)))
        large = squares > 1.0
        large[size:] = False
        root = np.sqrt(squares[large])
        rho[:, large] = 2.0 * root - 1.0, 1.0 / root, -0.5 / root**3
        rho[:, :size] *= quotes.weight
        return rho

    best: Any = None
    steps = 0
    for start in starts:
        inner = np.clip(start, low + BOUND * (high - low), high - BOUND * (high - low))
        found = least_squares(
            residuals, inner, jacobian, bounds=(low, high), method="trf", loss=loss, x_scale="jac",
            xtol=1e-8, ftol=1e-6, gtol=1e-8, max_nfev=_STEPS,
        )  # fmt: skip
        steps += int(found.njev)
        if best is None or found.cost < best.cost:
            best = found
    x = np.asarray(best.x)
    theta, rho, psi = (value[0] for value in to_slices(x[None, :]))
    residual = quotes.residuals(theta, rho, psi)[0]
    at_bound = (x <= low + BOUND * (high - low)) | (x >= high - BOUND * (high - low))
    covariance = _covariance(quotes, to_slices, x, jacobian(x), residual, at_bound, step)
    return Solution(x, theta, rho, psi, residual, covariance, at_bound, bool(best.status > 0), steps)


def _covariance(
    quotes: Quotes,
    to_slices: Map,
    x: Floats,
    jacobian: Floats,
    residual: Floats,
    at_bound: npt.NDArray[np.bool_],
    step: Floats,
) -> Floats:
    """s^2 (J' W J)^-1 of the coordinates that are free, carried to theta, rho and psi of each expiry.

    W are Huber's weights; s^2 is the weighted mean square residual, at least 1/4 (the noise inside a spread).
    """
    out = np.full((quotes.years.size, 3, 3), np.nan)
    free = np.flatnonzero(~at_bound)
    size = residual.size
    counted = quotes.counted(residual)
    omega = quotes.weight / np.maximum(np.abs(counted), 1.0)
    rows = jacobian[:, free]
    normal = (rows[:size] * omega[:, None]).T @ rows[:size] + rows[size:].T @ rows[size:]
    try:
        inverse = np.linalg.inv(normal)
    except np.linalg.LinAlgError:
        return out
    moved = np.stack([np.stack(to_slices(x[None, :] + sign * np.diag(step)[free])) for sign in (1.0, -1.0)])
    slopes = (moved[0] - moved[1]) / (2.0 * step[free])[None, :, None]
    noise = max(0.25, float(omega @ counted**2) / max(float(quotes.weight.sum()) - free.size, 1.0))
    out[:] = noise * np.einsum("apn,pq,bqn->nab", slopes, inverse, slopes)
    return out


def publish(quotes: Quotes, params: P, solution: Solution, at_bound: npt.NDArray[np.bool_]) -> SurfaceFit[P]:
    """The fit, with certificates of the doubles that are published; `at_bound` has one entry an expiry."""
    raw = params.to_raw()
    butterfly, calendar = check_butterfly(raw), check_calendar(raw[:-1], raw[1:])
    margin = MARGIN
    while not (butterfly and calendar) and margin < _MARGIN_MAX:
        margin *= 10.0
        params = params.retreated(margin)
        raw = params.to_raw()
        butterfly, calendar = check_butterfly(raw), check_calendar(raw[:-1], raw[1:])
    n = quotes.years.size
    vol = np.sqrt(raw[quotes.expiry].total_variance(quotes.k[:, None])[:, 0] / quotes.years[quotes.expiry])
    residual = (vol - quotes.vol) / quotes.error
    counted = quotes.counted(residual)
    size = np.abs(counted)

    def total(values: Floats) -> Floats:
        return np.asarray(np.bincount(quotes.expiry, quotes.weight * values, n))

    counts = quotes.counts
    below = np.minimum(size, 1.0)
    two_sided = np.bincount(quotes.expiry, quotes.weight * (quotes.side == 0.0), n)
    result = np.full(n, FitResult.CONVERGED, np.int8)
    result[at_bound] = FitResult.AT_BOUND
    result[two_sided < 7.0] = FitResult.TOO_FEW_QUOTES
    if not solution.converged:
        result[:] = FitResult.NOT_CONVERGED
    result[counts == 0.0] = FitResult.SYNTHETIC
    flat = np.full(int(quotes.offsets[-1]), np.nan)
    flat[quotes.rows] = residual
    with np.errstate(invalid="ignore", divide="ignore"):
        rms, inside = np.sqrt(total(counted**2) / counts), total((size <= 1.0).astype(np.float64)) / counts
    return SurfaceFit(
        params=params,
        raw=raw,
        years=quotes.years,
        offsets=quotes.offsets,
        cost=total(below * (size - 0.5 * below)),
        rms=rms,
        inside=inside,
        n_used=counts,
        result=result,
        iterations=solution.steps,
        covariance=solution.covariance,
        residuals_flat=flat,
        butterfly=butterfly,
        calendar=calendar,
    )
