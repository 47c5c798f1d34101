"""A fitted batch of slices, and the sentences that say how each fit ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals
from volsurf.svi._published import Continuation, Enforcement
from volsurf.svi._surface_certificates import surface_certificates
from volsurf.svi.certificate import Certificate
from volsurf.svi.gradient import variance_gradient
from volsurf.svi.params import RawSVI, check_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]


class FitResult(IntEnum):
    """How the fit of one slice ended; the gravest that applies."""

    CONVERGED = 0
    AT_BOUND = 1
    TOO_FEW_QUOTES = 2
    NOT_CONVERGED = 3
    SYNTHETIC = 4
    NO_DATA = 5
    INVALID = 6
    KEPT = 7
    """Of a surface that continues: the fit of its pseudo-quotes says nothing, see `volsurf.surface.kept_curves`."""

    @property
    def sentence(self) -> str:
        """What it means for somebody who trades on the curve."""
        return _SENTENCES[self]


_SENTENCES = {
    FitResult.CONVERGED: "fitted",
    FitResult.AT_BOUND: "fitted, but a wing or the smile's width stands on its limit: trust it between the quotes only",
    FitResult.TOO_FEW_QUOTES: "fewer than 7 two-sided quotes: the shape is mostly the neighbouring expiries', show it grey",
    FitResult.NOT_CONVERGED: "the iteration budget ran out before the fit settled: keep the previous curve",
    FitResult.SYNTHETIC: "no usable quote: a copy of the neighbouring expiries' shape, show it grey and do not quote on it",
    FitResult.NO_DATA: "no usable quote here nor at any other expiry of the surface: there is no curve",
    FitResult.INVALID: "time to expiry is not a positive number: expired, or wrong input; there is no curve",
    FitResult.KEPT: "its quotes have gone: the last curve with the same vols, show it grey and do not quote on it",
}


class QuoteUse(IntEnum):
    """What became of one quote in the fit."""

    USED = 0
    OUTLIER = 1
    """More than six error bars from the fit of the others."""
    NOT_FINITE = 2
    """NaN or infinite, or |k| > 100."""
    BAD_VOL = 3
    """Vol not between 0.01 % and 10,000 %."""
    BAD_ERROR = 4
    """Error bar zero, negative or infinite."""
    ZERO_WEIGHT = 5
    """Weight not between 1e-12 and 1e12."""
    NO_SLICE = 6
    """The slice itself is invalid."""


@dataclass(frozen=True, eq=False)
class SVIFit:
    """Fitted slices of one or many surfaces, in the order in which they were given. Arrays have one entry a slice unless noted.

    Two curves are kept of each slice: the one its quotes alone would have (`fitted_…`), and the published one, certified where
    enforcement was asked for. Parameters, residuals and statistics without a prefix are those of the published curve. The
    covariance is that of the objective at the published curve, without what the constraints and the filter take from it.

    Fields that end in `flat` have one entry a quote, those of slice i at `offsets[i]:offsets[i+1]`. The scaled coordinates and
    the objective are those of `volsurf.svi._lm`.
    """

    years: Floats
    surface: Ints
    """Number of the surface each slice belongs to."""
    key: Ints
    """Identity by which a later fit finds its start in this one."""
    order: Ints
    """Slice indices sorted by surface, then years."""
    offsets: Ints
    raw: Floats
    """(slices, 5) published a, b, rho, m, sigma, the doubles that were certified; NaN for NO_DATA and INVALID."""
    result: Bytes
    """`FitResult` codes."""
    iterations: Ints
    """Passes over the quotes, both stages of a cold fit together."""
    statistics: Floats
    """(slices, 8): the columns behind the properties below, see `volsurf.svi._measure`."""
    theta: Floats
    """Scale θ = years·σ_ATM², σ_ATM the median vol of the three strikes nearest the forward."""
    scaled: Floats
    """(slices, 5) published (α, Û, L̂, μ, ς)."""
    prior_centre: Floats
    prior_precision: Floats
    """(slices, 5) centre and diagonal precision of the prior, in scaled coordinates."""
    scaled_covariance: Floats
    """(slices, 5, 5) of the scaled coordinates."""
    residuals_flat: Floats
    """(fit − vol)/error of every usable quote, NaN for the others."""
    use_flat: Bytes
    """`QuoteUse` codes."""
    fitted_raw: Floats
    """(slices, 5) a, b, rho, m, sigma as the quotes alone have them."""
    fitted_scaled: Floats
    """(slices, 5) (α, Û, L̂, μ, ς) as the quotes alone have them."""
    fitted_cost: Floats
    """Objective there; what `cost` exceeds it by is the price of being free of arbitrage and of the filter."""
    enforcement: Bytes
    """`Enforcement` codes."""
    smoothed: Bytes
    """`Smoothed` codes."""
    solver_steps: Ints
    """Steps of the joint solver for the surface of the slice; 0 where its fits were certified as they stood."""
    move: Floats
    """Largest |published − fitted| vol over the used quotes (at the forward, without any); NaN without a curve."""

    def __len__(self) -> int:
        return int(self.years.size)

    def __repr__(self) -> str:
        ends = np.bincount(self.result, minlength=len(FitResult)).tolist()
        tally = ", ".join(f"{n} {end.name.lower()}" for end, n in zip(FitResult, ends, strict=True) if n)
        return f"SVIFit({len(self)} slices: {tally or 'none'}; {self.use_flat.size} quotes)"

    @cached_property
    def params(self) -> RawSVI:
        """The slices; NaN where there is no curve."""
        a, b, rho, m, sigma = np.ascontiguousarray(self.raw.T)
        return RawSVI(a, b, rho, m, sigma)

    @property
    def cost(self) -> Floats:
        """Objective at the published curve: Huber cost of the residuals plus the prior, without the filter's pull."""
        return self.statistics[:, 0]

    @property
    def rms(self) -> Floats:
        """Root mean square of (fit − vol)/error over the used quotes; a one-sided quote on its allowed side counts 0."""
        return self.statistics[:, 1]

    @property
    def inside(self) -> Floats:
        """Share of the used quotes with |fit − vol| ≤ error: inside bid and ask where `error` is the half-spread."""
        return self.statistics[:, 2]

    @property
    def n_used(self) -> Floats:
        """Used quotes, by weight: their number where no weight was given."""
        return self.statistics[:, 3]

    @property
    def n_rejected(self) -> Ints:
        """Quotes left out as outliers."""
        return self.statistics[:, 4].astype(np.int64)

    @property
    def autocorrelation(self) -> Floats:
        """Lag-1 autocorrelation, by strike, of the two-sided residuals: near 1 the smile has a shape that SVI has not."""
        return self.statistics[:, 5]

    @property
    def sign_runs(self) -> Floats:
        """Runs of equal sign of those residuals about their mean."""
        return self.statistics[:, 6]

    @property
    def residuals(self) -> list[Floats]:
        """`residuals_flat`, one array a slice."""
        return np.split(self.residuals_flat, self.offsets[1:-1]) if len(self) else []

    @property
    def use(self) -> list[Bytes]:
        """`use_flat`, one array a slice."""
        return np.split(self.use_flat, self.offsets[1:-1]) if len(self) else []

    @property
    def continuation(self) -> Continuation:
        """What the next fit needs of this one."""
        return Continuation(self.key, self.years, self.raw, self.result, self.fitted_raw)

    @property
    def has_curve(self) -> npt.NDArray[np.bool_]:
        """True where there are parameters."""
        return np.isfinite(self.raw[:, 0])

    @cached_property
    def _certificates(self) -> tuple[Certificate, Certificate, Ints, Ints]:
        return surface_certificates(self.raw, self.order, self.surface)

    @property
    def butterfly(self) -> Certificate:
        """Certificate of each slice."""
        return self._certificates[0]

    @property
    def calendar_pairs(self) -> tuple[Ints, Ints]:
        """Indices of near and far slice of each pair of consecutive expiries, surface by surface, that have curves."""
        return self._certificates[2:]

    @property
    def calendar(self) -> Certificate:
        """Certificate of each of `calendar_pairs`."""
        return self._certificates[1]

    @cached_property
    def covariance(self) -> Floats:
        """(slices, 5, 5) covariance of (a, b, rho, m, sigma)."""
        root = np.sqrt(self.theta)
        up, low = self.scaled[:, 1], self.scaled[:, 2]
        jacobian = np.zeros((len(self), 5, 5))
        jacobian[:, 0, 0] = self.theta
        jacobian[:, 1, 1] = jacobian[:, 1, 2] = 0.5 * root
        jacobian[:, 2, 1] = 2.0 * low / (up + low) ** 2
        jacobian[:, 2, 2] = -2.0 * up / (up + low) ** 2
        jacobian[:, 3, 3] = root
        jacobian[:, 4, 4] = root * np.exp(self.scaled[:, 4])
        return np.asarray(jacobian @ self.scaled_covariance @ jacobian.transpose(0, 2, 1))

    def vol(self, k: npt.ArrayLike) -> Floats:
        """Fitted vol at log-moneyness `k`: (n,) for a scalar, (n, m) for m strikes or an (n, m) array; NaN without a curve."""
        return self.params.vol(k, np.where(self.has_curve, self.years, 1.0))

    def vol_error(self, k: npt.ArrayLike) -> Floats:
        """Standard error of the fitted vol at log-moneyness `k`, shapes as `vol`; NaN for slices that were not fitted.

        √(J C Jᵀ) with C = ŝ²A⁻¹: A the Gauss–Newton matrix of the objective, ŝ² the noise that the residuals show, raised by
        (1+ρ₁)/(1−ρ₁) for their autocorrelation.
        """
        moneyness = as_reals("k", k)
        check_rows(moneyness, self.years.shape)
        columns = np.broadcast_to(np.atleast_1d(moneyness), (len(self), np.atleast_1d(moneyness).shape[-1]))
        a, b, rho, m, sigma = (self.raw[:, i, None] for i in range(5))
        gradient = variance_gradient((a, b * (1.0 + rho), b * (1.0 - rho), m, sigma), self.theta[:, None], columns)
        variance = np.einsum("imp,ipq,imq->im", gradient, self.scaled_covariance, gradient)
        years = np.where(self.has_curve, self.years, 1.0)[:, None]
        error = 0.5 * np.sqrt(variance / (self.params.total_variance(columns) * years))
        return np.asarray(error[:, 0] if moneyness.ndim == 0 else error)

    def sentence(self, index: int) -> str:
        """How the fit of slice `index` ended, and how close it lies to its quotes."""
        result = FitResult(int(self.result[index]))
        first = int(self.offsets[index])
        use = self.use_flat[first : int(self.offsets[index + 1])]
        bad = int(np.count_nonzero(use >= QuoteUse.NOT_FINITE))
        parts = [result.sentence]
        if np.isfinite(self.rms[index]):
            inside = f"{100.0 * self.inside[index]:.0f} % within their error bars"
            parts.append(f"{self.n_used[index]:g} quotes, {inside} (rms {self.rms[index]:.2f})")
        if self.n_rejected[index]:
            parts.append(f"{self.n_rejected[index]} left out as outliers")
        if self.enforcement[index] >= Enforcement.MOVED:
            parts.append(
                f"{Enforcement(int(self.enforcement[index])).sentence} (by {1e4 * self.move[index]:.2g} bp of vol)"
            )
        if bad and result != FitResult.INVALID:
            parts.append(f"{bad} unusable (NaN, or a vol, error bar or weight that is not positive)")
        return "; ".join(parts)

    def _repr_html_(self) -> str:
        """The first 40 slices with parameters, misfit, verdict and sentence."""
        rows = []
        for i in range(min(len(self), 40)):
            numbers = "".join(f"<td>{value:.5g}</td>" for value in (self.years[i], *self.raw[i], self.rms[i]))
            verdict = self.butterfly.sentence(i) if self.has_curve[i] else "no curve"
            rows.append(f"<tr><th>{i}</th>{numbers}<td>{self.sentence(i)}</td><td>{verdict}</td></tr>")
        heads = "".join(
            f"<th>{name}</th>" for name in ("", "years", "a", "b", "ρ", "m", "σ", "rms", "fit", "butterfly")
        )
        more = f"<p>and {len(self) - 40} more</p>" if len(self) > 40 else ""
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"
