"""One expiry: its quotes as vols, and the curve through them.

A notebook that only shows what an engine sends reads smiles and never fits one, so the modules that declare kernels are imported
where one of their enums is asked for a sentence, not here: numba costs 0.3 s and 60 MB a kernel process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import BoolArray, FloatArray, IdArray
from volsurf.svi.certificate import Certificate, Verdict
from volsurf.svi.params import RawSVI


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

    def total_variance(self, k: npt.ArrayLike) -> FloatArray:
        """w at log-moneyness k, in its shape."""
        return self.svi.total_variance(k)

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
        return math.nan if self.fit is None else float(np.sqrt(self.fit.total_variance(0.0) / self.years))

    def fitted_vol(self, k: npt.ArrayLike) -> FloatArray:
        """Vol of the curve at log-moneyness k; NaN without a fit."""
        if self.fit is None:
            return np.full(np.shape(k), np.nan)
        return self.fit.svi.vol(k, self.years)

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
