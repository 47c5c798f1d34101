"""One expiry: its quotes as vols, and the curve through them.

A notebook that only shows what an engine sends reads smiles and never fits one, so the modules that declare kernels are imported
where one of their enums is asked for a sentence, not here: numba costs 0.3 s and 60 MB a kernel process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import BoolArray, FloatArray, IdArray
from volsurf.svi.certificate import Certificate, Condition, Verdict
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class SliceFit:
    """A raw SVI slice, how the fit ended, and what is proved about it.

    Vols and shares are decimals; the residuals behind `cost` and `rms` are in error bars.
    """

    a: float
    b: float
    rho: float
    m: float
    sigma: float
    result: int
    """`FitResult`"""
    cost: float
    """Robust objective at the optimum, prior included; NaN for a synthetic slice."""
    rms: float
    """Root mean square of (fit - quote) / error bar over the used quotes."""
    inside: float
    """Share of the two-sided quotes used whose bid and ask vols hold the curve; NaN where there is none."""
    iterations: int
    n_used: int
    n_two_sided: int
    atm_error: float
    """Standard error of the vol at the forward."""
    butterfly_verdict: int
    """`Verdict` on this slice."""
    butterfly_condition: int
    """`Condition` that decided it."""
    butterfly_worst_k: float
    """Where Durrleman's g is lowest."""
    butterfly_worst_value: float
    """g there."""
    calendar_verdict: int
    """`Verdict` on this slice against the next nearer expiry of the surface; proved for the first."""
    calendar_condition: int
    calendar_worst_k: float
    """Where the gain of total variance is smallest; NaN for the first expiry."""
    calendar_worst_value: float
    theta: float = math.nan
    """Scale of the coordinates (alpha, U, L, mu, varsigma) that `covariance` is in."""
    covariance: tuple[float, ...] = ()
    """Upper triangle, by rows, of the scaled coordinates' 5x5 covariance; empty where there is none."""
    fitted_cost: float = math.nan
    """The objective where the quotes alone would have the curve; what `cost` exceeds it by is the price of no arbitrage."""
    enforcement: int = 0
    """`Enforcement`"""
    solver_steps: int = 0
    """Steps that the joint solver took for the surface."""
    smoothed: int = 0
    """0 as the quotes have it, 1 pulled to the previous curve by the temporal filter, 2 the filter's gate opened: a jump."""
    move: float = math.nan
    """Largest change of vol that enforcement and filter made at the used quotes."""
    autocorrelation: float = math.nan
    """Lag-1, of the residuals by strike."""
    model: str = "svi"
    """Family of curves it was fitted from: "svi", "ssvi" or "essvi"."""
    quoted_ns: int = 0
    """When it was last fitted to quotes of its own, ns UTC; 0 for never."""
    jump: tuple[float, ...] = ()
    """Up, down and probability of the `EventJump` on top of the slice; empty without one."""
    blend_from_ns: int = 0
    """The nearer expiry, ns UTC, that `blend_verdict` is about; 0 where there is none, or nobody has asked."""
    blend_verdict: int = 0
    """`Verdict` on the time since that expiry: total variance linear in it has no butterfly arbitrage at any strike or time."""

    def total_variance(self, k: npt.ArrayLike) -> FloatArray:
        """w at log-moneyness k, in its shape; with the jump, if there is one."""
        if self.jump:
            from volsurf.surface.event import jumped_variance

            return jumped_variance(self.svi, k, self.jump)
        return self.svi.total_variance(k)

    def as_first(self) -> SliceFit:
        """The same slice as the first of its surface, the nearer ones having expired."""
        return replace(
            self,
            calendar_verdict=int(Verdict.PROVED),
            calendar_condition=int(Condition.HOLDS),
            calendar_worst_k=math.nan,
            calendar_worst_value=math.nan,
            blend_from_ns=0,
            blend_verdict=0,
        )

    @property
    def svi(self) -> RawSVI:
        """The slice as a single `RawSVI`."""
        return RawSVI(*(np.asarray(v) for v in (self.a, self.b, self.rho, self.m, self.sigma)))

    @property
    def is_synthetic(self) -> bool:
        """No quote of its own: the shape and level of its neighbours."""
        from volsurf.svi.fit import FitResult

        return self.result == FitResult.SYNTHETIC

    @property
    def is_kept(self) -> bool:
        """Its quotes have all gone for the moment: the curve of `quoted_ns`, with the same vols at the same log-moneyness."""
        from volsurf.svi.fit import FitResult

        return self.result == FitResult.KEPT

    @property
    def is_quoted(self) -> bool:
        """Fitted to quotes of its own; not to be shown as market otherwise."""
        return self.n_used > 0

    @property
    def is_guarded(self) -> bool:
        """Pulled to a curve that is free of arbitrage by construction, because the quotes allow no other: not to be quoted on."""
        from volsurf.svi.fit import Enforcement

        return self.enforcement == Enforcement.GUARDED

    @property
    def enforcement_label(self) -> str:
        """What was done so that the surface is free of arbitrage, in a word or two."""
        from volsurf.svi.fit import Enforcement

        return Enforcement(self.enforcement).label

    @property
    def enforcement_sentence(self) -> str:
        """What was done so that the surface is free of arbitrage, with the price that it had."""
        from volsurf.svi.fit import Enforcement

        done = Enforcement(self.enforcement)
        if done < Enforcement.MOVED or math.isnan(self.move):
            return done.sentence
        return f"{done.sentence} (by at most {1e4 * self.move:.2g} bp of vol at its quotes)"

    @property
    def price_of_no_arbitrage(self) -> float:
        """How much worse the quotes are met than they could be, in the unit of `cost`; NaN without a fit."""
        return self.cost - self.fitted_cost

    @property
    def is_certified(self) -> bool:
        """Free of butterfly arbitrage, and of calendar arbitrage against the next nearer expiry, at every strike."""
        return self.butterfly_verdict == Verdict.PROVED and self.calendar_verdict == Verdict.PROVED

    @property
    def sentence(self) -> str:
        """How the fit ended."""
        from volsurf.svi.fit import FitResult

        return FitResult(self.result).sentence

    @property
    def butterfly_sentence(self) -> str:
        """The butterfly verdict in words, with its witness."""
        return _certificate(
            "butterfly",
            self.butterfly_verdict,
            self.butterfly_condition,
            self.butterfly_worst_k,
            self.butterfly_worst_value,
        )

    @property
    def failure_sentence(self) -> str:
        """The certificate that is not proved, in words, the butterfly first; empty if both are."""
        if self.is_certified:
            return ""
        return self.butterfly_sentence if self.butterfly_verdict != Verdict.PROVED else self.calendar_sentence

    @property
    def calendar_sentence(self) -> str:
        """The calendar verdict in words, with its witness."""
        if math.isnan(self.calendar_worst_k) and self.calendar_verdict == Verdict.PROVED:
            return "the first expiry: nothing nearer to cross"
        return _certificate(
            "calendar", self.calendar_verdict, self.calendar_condition, self.calendar_worst_k, self.calendar_worst_value
        )


def _certificate(kind: str, verdict: int, condition: int, k: float, value: float) -> str:
    one = Certificate(
        kind,
        np.array([verdict], np.int8),
        np.array([condition], np.int8),
        np.array([k]),
        np.array([value]),
        np.zeros(1, np.int32),
    )
    return one.sentence(0)


@dataclass(frozen=True, slots=True, eq=False)
class Smile:
    """One (underlying, expiry): its quotes as vols, sorted by strike, and the fitted slice.

    The quotes are those with a vol: used ones, and those that were left out for a reason that can be drawn (too wide, too far
    out, an outlier). Arrays have shape (n,).
    """

    underlying: str
    expiry_ns: int
    """ns UTC"""
    time_ns: int
    """When the quotes were, ns UTC."""
    forward: float
    years: float
    strike: FloatArray
    log_moneyness: FloatArray
    bid_vol: FloatArray
    """NaN on an empty side."""
    ask_vol: FloatArray
    vol: FloatArray
    """What the fit aims at, see `QuoteVols.vol`."""
    error: FloatArray
    """Error bar of `vol`; NaN for a quote that is not used."""
    side: npt.NDArray[np.int8]
    """0 two-sided, -1 only a bid, +1 only an ask."""
    is_call: BoolArray
    instrument_id: IdArray
    reason: npt.NDArray[np.uint8]
    """`QuoteReason`"""
    forward_source: int
    """`ForwardSource`"""
    forward_error: float
    """Standard error of the forward."""
    mismatch_bp: float
    """Forward by parity over the venue's, basis points; NaN if either is missing."""
    forward_flagged: bool
    fit: SliceFit | None = None

    def __repr__(self) -> str:
        vol = "no fit" if self.fit is None else f"atm vol {self.atm_vol:.4f}"
        return f"Smile({self.underlying} {self.expiry_label}, {len(self.strike)} quotes, {vol})"

    @property
    def expiry_label(self) -> str:
        """As traders write it: 25DEC26; with the time of day where that is not 08:00 UTC."""
        return expiry_label(self.expiry_ns)

    @property
    def used(self) -> BoolArray:
        """True for the quotes in the fit."""
        return np.asarray(self.reason == QuoteReason.USED)

    @property
    def atm_vol(self) -> float:
        """Vol of the curve at the forward; NaN without a fit."""
        return float(self.fitted_vol(0.0))

    def fitted_vol(self, k: npt.ArrayLike) -> FloatArray:
        """Vol of the curve at log-moneyness k; NaN without a fit."""
        if self.fit is None:
            return np.full(np.shape(k), np.nan)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(self.fit.total_variance(k) / self.years))

    def vol_error(self, k: npt.ArrayLike) -> FloatArray:
        """Standard error of the curve's vol at log-moneyness k, in its shape; NaN where the fit has no covariance."""
        from volsurf.surface.surface import Surface

        if self.fit is None:
            return np.full(np.shape(k), np.nan)
        return Surface(self.underlying, self.time_ns, (self,)).vol_error(k=k, expiry=self.expiry_ns)

    def plot(self) -> go.Figure:
        """Bids, asks and the fitted curve with its band of two standard errors, as a plotly figure."""
        from volsurf.surface.figures import smile_figure

        return smile_figure(self)

    @property
    def forward_sentence(self) -> str:
        """Where the forward comes from."""
        from volsurf.iv.forward import ForwardSource

        return ForwardSource(self.forward_source).sentence

    def with_fit(self, fit: SliceFit | None, reason: npt.NDArray[np.uint8] | None = None) -> Smile:
        """A copy that carries a fit, and the reasons as the fit left them."""
        # dataclasses.replace, without its checks: this runs for every smile of every frame.
        values = [getattr(self, name) for name in _SMILE_FIELDS]
        values[_REASON] = self.reason if reason is None else reason
        values[_FIT] = fit
        return Smile(*values)


_SMILE_FIELDS = tuple(f.name for f in fields(Smile))
_REASON, _FIT = _SMILE_FIELDS.index("reason"), _SMILE_FIELDS.index("fit")

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def expiry_label(expiry_ns: int) -> str:
    """25DEC26 for an expiry at 08:00 UTC, 25DEC26 21:00 otherwise; months in English whatever the locale."""
    day = np.datetime64(expiry_ns, "ns").astype("datetime64[s]").item()
    label = f"{day.day}{_MONTHS[day.month - 1]}{day.year % 100:02d}"
    return label if (day.hour, day.minute, day.second) == (8, 0, 0) else f"{label} {day:%H:%M}"
