"""An underlying's fitted smiles at one instant, and the vols between and beyond them.

Between expiries total variance is linear in time at fixed log-moneyness, so two slices in calendar order stay so. Before the
first expiry the first slice is scaled, w(k, T) = s w1(k/sqrt(s)) with s = T/T1, which keeps the vol of a strike that many
standard deviations out and inherits freedom from arbitrage. Past the last one the at-the-money forward variance of the last
interval goes on, at every log-moneyness, up to twice the last expiry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import FloatArray, IntArray
from volsurf.surface.expiries import Expiry, to_nanoseconds
from volsurf.surface.slices import Smile, expiry_label
from volsurf.svi.certificate import EXACT_POLYNOMIAL, Verdict
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import polars as pl

HORIZON = 2.0
"""How far vols are extrapolated, in multiples of the last expiry's time."""


@dataclass(frozen=True, slots=True)
class SurfaceCertificate:
    """What is proved about a whole surface."""

    verdict: Verdict
    """PROVED if every slice and every pair of neighbouring expiries is; otherwise the gravest verdict there is."""
    slices: int
    butterfly_proved: int
    """Slices free of butterfly arbitrage at every strike."""
    calendar_proved: int
    """Slices free of calendar arbitrage against the next nearer expiry (the first one is)."""
    certified: int
    """Slices that are both."""
    witness: str
    """Where it fails first, in words; empty if it does not."""
    evidence: str = EXACT_POLYNOMIAL

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PROVED

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self:
            return (
                f"free of butterfly and calendar arbitrage at every strike of {self.slices} expiries ({self.evidence})"
            )
        return f"{self.certified} of {self.slices} expiries certified free of arbitrage; {self.witness}"


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The implied-vol surface of one underlying: immutable, `smiles` in order of expiry."""

    underlying: str
    time_ns: int
    """The instant it is of, ns UTC."""
    smiles: tuple[Smile, ...]
    years: FloatArray = field(init=False, repr=False)
    """Time to each expiry, shape (n,)."""
    expiries: IntArray = field(init=False, repr=False)
    """Expiries, ns UTC, shape (n,)."""
    svi: RawSVI = field(init=False, repr=False)
    """The slices, shape (n,); NaN where an expiry could not be fitted."""
    _fitted: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.smiles:
            raise InputError(f"a surface of {self.underlying} needs at least one smile")
        order = [s.expiry_ns for s in self.smiles]
        if any(a >= b for a, b in pairwise(order)):
            raise InputError("the smiles of a surface must be in order of expiry, each expiry once")
        nothing = (np.nan,) * 5
        slices = np.array(
            [nothing if s.fit is None else (s.fit.a, s.fit.b, s.fit.rho, s.fit.m, s.fit.sigma) for s in self.smiles]
        )
        years = np.array([s.years for s in self.smiles])
        expiries = np.array(order, np.int64)
        for array in (years, expiries):
            array.flags.writeable = False
        object.__setattr__(self, "years", years)
        object.__setattr__(self, "expiries", expiries)
        object.__setattr__(self, "svi", RawSVI(*slices.T))
        object.__setattr__(self, "_fitted", np.flatnonzero(~np.isnan(slices[:, 0])))

    def __len__(self) -> int:
        return len(self.smiles)

    def __iter__(self) -> Iterator[Smile]:
        return iter(self.smiles)

    def __repr__(self) -> str:
        at = np.datetime64(self.time_ns, "ns").astype("datetime64[s]")
        return (
            f"Surface({self.underlying} at {at}Z, {len(self)} expiries, "
            f"{self.certificate.certified} certified free of arbitrage)"
        )

    def _repr_html_(self) -> str:
        from volsurf.surface.html import surface_html

        return surface_html(self)

    def smile(self, expiry: Expiry) -> Smile:
        """The smile of one listed expiry: ns UTC, a datetime, "25DEC26", or an ISO date or time."""
        return self.smiles[int(self._listed(np.atleast_1d(to_nanoseconds(expiry, self.expiries)))[0])]

    def vol(
        self,
        *,
        strike: npt.ArrayLike | None = None,
        k: npt.ArrayLike | None = None,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
    ) -> FloatArray:
        """Implied vol at a strike or log-moneyness, for a listed expiry or any time up to twice the last one.

        Give one of `strike` and `k` = ln(K/F), and one of `expiry` and `years`; they broadcast against each other.

        Raises:
            InputError: an expiry that is not listed, a time that is not positive or beyond the horizon, a strike that is not
                positive.
        """
        at = self._times(expiry, years)
        if (strike is None) == (k is None):
            raise InputError("vol needs one of strike= and k=")
        if k is None:
            strike_ = np.asarray(strike, np.float64)
            if not (np.isfinite(strike_) & (strike_ > 0)).all():
                raise InputError(f"strikes must be positive and finite, was {strike!r}")
            k_ = np.log(strike_ / self._forward(at))
        else:
            k_ = np.asarray(k, np.float64)
            if not np.isfinite(k_).all():
                raise InputError(f"k must be finite, was {k!r}")
        return np.sqrt(self._total_variance(k_, at) / at)

    def total_variance(
        self, k: npt.ArrayLike, *, expiry: Expiry | None = None, years: npt.ArrayLike | None = None
    ) -> FloatArray:
        """Total variance w = vol^2 T at log-moneyness k, as `vol`."""
        return self._total_variance(np.asarray(k, np.float64), self._times(expiry, years))

    def forward(self, expiry: Expiry | None = None, *, years: npt.ArrayLike | None = None) -> FloatArray:
        """Forward of a listed expiry, or at any time up to the horizon: log-linear in time between expiries.

        Outside the expiries the carry of the nearest interval goes on; with one expiry there is no carry to go by.
        """
        return self._forward(self._times(expiry, years))

    @property
    def atm_vol(self) -> FloatArray:
        """Vol at the forward of each expiry, shape (n,); NaN without a fit."""
        return self.svi.vol(0.0, self.years)

    @property
    def certificate(self) -> SurfaceCertificate:
        """What is proved about the surface."""
        fits = [(s, s.fit) for s in self.smiles if s.fit is not None]
        butterfly = sum(f.butterfly_verdict == Verdict.PROVED for _, f in fits)
        calendar = sum(f.calendar_verdict == Verdict.PROVED for _, f in fits)
        certified = sum(f.is_certified for _, f in fits)
        witness = ""
        for smile, fit in fits:
            if not fit.is_certified:
                witness = f"{smile.expiry_label}: {fit.failure_sentence}"
                break
        found = {v for _, f in fits for v in (f.butterfly_verdict, f.calendar_verdict)}
        gravest = (Verdict.INVALID, Verdict.VIOLATED, Verdict.UNDECIDED)
        verdict = next((v for v in gravest if v in found), Verdict.PROVED if fits else Verdict.INVALID)
        return SurfaceCertificate(verdict, len(fits), butterfly, calendar, certified, witness)

    def to_polars(self, rows: str = "slices") -> pl.DataFrame:
        """The surface as a table: one row per expiry, or with `rows="quotes"` one per quote with its fitted vol."""
        import polars as pl

        from volsurf.surface.tables import quote_columns, slice_columns

        if rows not in ("slices", "quotes"):
            raise InputError(f'rows must be "slices" or "quotes", was {rows!r}')
        frame = pl.DataFrame(slice_columns(self) if rows == "slices" else quote_columns(self))
        return frame.with_columns(pl.col("expiry", "time").cast(pl.Datetime("ns", "UTC")))

    def to_pandas(self, rows: str = "slices") -> pd.DataFrame:
        """As `to_polars`, for pandas."""
        import pandas as pd

        from volsurf.surface.tables import quote_columns, slice_columns

        if rows not in ("slices", "quotes"):
            raise InputError(f'rows must be "slices" or "quotes", was {rows!r}')
        frame = pd.DataFrame(slice_columns(self) if rows == "slices" else quote_columns(self))
        for name in ("expiry", "time"):
            frame[name] = pd.to_datetime(frame[name], unit="ns", utc=True)
        return frame

    def plot(self) -> go.Figure:
        """The surface in three dimensions with its quotes, as a plotly figure."""
        from volsurf.surface.figures import surface_figure

        return surface_figure(self)

    def plot_smiles(self) -> go.Figure:
        """Every expiry's bids, asks and fitted curve, as a plotly figure."""
        from volsurf.surface.figures import smiles_figure

        return smiles_figure(self)

    def _listed(self, expiry_ns: IntArray) -> IntArray:
        position = np.minimum(np.searchsorted(self.expiries, expiry_ns), len(self) - 1)
        wrong = self.expiries[position] != expiry_ns
        if wrong.any():
            asked = expiry_label(int(expiry_ns[wrong].flat[0]))
            raise InputError(
                f"{self.underlying} has no expiry {asked}; listed are "
                f"{', '.join(s.expiry_label for s in self.smiles)} (years= interpolates between them)"
            )
        return np.asarray(position)

    def _times(self, expiry: Expiry | None, years: npt.ArrayLike | None) -> FloatArray:
        if (expiry is None) == (years is None):
            raise InputError("give one of expiry= and years=")
        if expiry is not None:
            wanted = to_nanoseconds(expiry, self.expiries)
            return np.asarray(self.years[self._listed(wanted)])
        at = np.asarray(years, np.float64)
        horizon = HORIZON * float(self.years[-1])
        if not (np.isfinite(at) & (at > 0)).all():
            raise InputError(f"years must be positive and finite, was {years!r}")
        if (at > horizon).any():
            raise InputError(
                f"{float(at.max()):g} years is beyond the horizon of {self.underlying}: vols are extrapolated to "
                f"{horizon:g} years, twice the last expiry ({self.smiles[-1].expiry_label})"
            )
        return at

    def _total_variance(self, k: FloatArray, at: FloatArray) -> FloatArray:
        fitted = self._fitted
        if not fitted.size:
            raise InputError(f"no expiry of {self.underlying} could be fitted")
        shape = np.broadcast_shapes(k.shape, at.shape)
        k_, at_ = np.broadcast_to(k, shape).ravel(), np.broadcast_to(at, shape).ravel()
        times = self.years[fitted]
        position = np.searchsorted(times, at_)
        near = fitted[np.clip(position - 1, 0, len(fitted) - 1)]
        far = fitted[np.clip(position, 0, len(fitted) - 1)]
        # Before the first expiry both are the first slice, read at the scaled log-moneyness.
        early = at_ < times[0]
        scale = np.where(early, at_ / times[0], 1.0)
        z = (k_ / np.sqrt(scale))[:, None]
        w_near = self.svi[near].total_variance(z)[:, 0] * scale
        w_far = self.svi[far].total_variance(z)[:, 0] * scale
        width = self.years[far] - self.years[near]
        share = np.divide(at_ - self.years[near], width, out=np.zeros_like(at_), where=width > 0)
        w = w_near + share * (w_far - w_near)
        late = at_ > times[-1]
        w[late] = w_far[late] + self._forward_variance() * (at_[late] - times[-1])
        return np.asarray(w.reshape(shape))

    def _forward_variance(self) -> float:
        """At-the-money variance per year over the last interval; not negative even where the slices cross."""
        last = self._fitted[-2:]
        w = self.svi[last].total_variance(0.0)
        if len(last) == 1:
            return float(w[0] / self.years[last[0]])
        return max(float((w[1] - w[0]) / (self.years[last[1]] - self.years[last[0]])), 0.0)

    def _forward(self, at: FloatArray) -> FloatArray:
        forward = np.array([s.forward for s in self.smiles])
        if len(self) == 1:
            return np.full(at.shape, forward[0])
        i = np.clip(np.searchsorted(self.years, at), 1, len(self) - 1)
        slope = np.log(forward[i] / forward[i - 1]) / (self.years[i] - self.years[i - 1])
        # Counted from the nearer end, so that a listed expiry gives back its own forward to the last bit.
        nearer = np.where(at - self.years[i - 1] <= self.years[i] - at, i - 1, i)
        return np.asarray(forward[nearer] * np.exp(slope * (at - self.years[nearer])))
