"""An underlying's fitted smiles at one instant, and the vols between and beyond them (see `volsurf.surface.interpolation`).

Methods take a time as one of `expiry` (a listed one, see `Expiry`), `years` and `tenor` ("1W", "3M", ...), and a place as one of
`strike`, `k` = ln(K/F) and `delta`; arrays broadcast against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals, broadcast
from volsurf.errors import InputError
from volsurf.instruments import NANOSECONDS_PER_YEAR, FloatArray, IntArray
from volsurf.surface._pricing_methods import PricingMethods
from volsurf.surface._smile_methods import SmileMethods
from volsurf.surface.expiries import Expiry, to_nanoseconds
from volsurf.surface.interpolation import HORIZON, INTERVAL, THEOREM, forward_at, rules, total_variance, vol_of
from volsurf.surface.slices import Smile, expiry_label
from volsurf.svi.certificate import EXACT_POLYNOMIAL, Verdict
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import polars as pl

    from volsurf.surface.event import EventJump


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
    intervals: int
    """Between consecutive expiries that have a slice."""
    blended: int
    """Intervals on which total variance linear in time is proved; on the others of a certified surface prices are mixed."""
    evidence: str = EXACT_POLYNOMIAL
    """Of the slices."""

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PROVED

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self:
            expiries = f"{self.slices} expir{'y' if self.slices == 1 else 'ies'}"
            free = f"free of butterfly and calendar arbitrage at every strike of {expiries} ({self.evidence})"
            mixed = self.intervals - self.blended
            how = f"{INTERVAL}, {mixed} by {THEOREM}" if mixed else INTERVAL
            return f"{free} and at every time between them ({how})" if self.intervals else free
        return f"{self.certified} of {self.slices} expiries certified free of arbitrage; {self.witness}"


@dataclass(frozen=True, slots=True, eq=False)
class Surface(SmileMethods, PricingMethods):
    """The implied-vol surface of one underlying: immutable, `smiles` in order of expiry."""

    underlying: str
    time_ns: int
    """The instant it is of, ns UTC."""
    smiles: tuple[Smile, ...]
    event: EventJump | None = None
    """A scheduled jump that multiplies the price at one instant: the smiles' slices are then those of the world without it."""
    years: FloatArray = field(init=False, repr=False)
    """Time to each expiry, shape (n,)."""
    expiries: IntArray = field(init=False, repr=False)
    """Expiries, ns UTC, shape (n,)."""
    svi: RawSVI = field(init=False, repr=False)
    """The slices, shape (n,); NaN where an expiry could not be fitted."""
    fitted: IntArray = field(init=False, repr=False)
    """Positions of the expiries that have a slice, in order."""
    cache: dict[str, object] = field(init=False, repr=False, default_factory=dict)
    """Results that follow from the surface alone and are asked for again and again, by the name of who keeps them."""

    def __post_init__(self) -> None:
        if not self.smiles:
            raise InputError(f"a surface of {self.underlying} needs at least one smile")
        order = [s.expiry_ns for s in self.smiles]
        if any(a >= b for a, b in pairwise(order)):
            raise InputError("the smiles of a surface must be in order of expiry, each expiry once")
        if self.event is not None and self.event.time_ns <= self.time_ns:
            raise InputError(
                f"the event at {np.datetime64(self.event.time_ns, 'ns').astype('datetime64[s]')}Z is over: the vols of a surface "
                "of a later time have no jump in them, leave event out"
            )
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
        object.__setattr__(self, "fitted", np.flatnonzero(~np.isnan(slices[:, 0])))

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
        delta: npt.ArrayLike | None = None,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
    ) -> FloatArray:
        """Implied vol at a strike, log-moneyness or delta, for a listed expiry, a tenor or any time up to twice the last one.

        Give one of `strike`, `k` = ln(K/F) and `delta`, and one of `expiry`, `years` and `tenor`. A positive delta is a call's, a
        negative one a put's: forward deltas, or with `premium_adjusted` those of coin-settled options. A premium-adjusted call
        delta above the highest there is gives NaN, and so does a place where a slice that is not certified has negative total
        variance (`slice_at` says what is known of a time's smile).

        Raises:
            InputError: an expiry that is not listed, a time that is not positive or beyond the horizon, a strike that is not
                positive, a delta outside (-1, 1) or 0.
        """
        at = self._times(expiry, years, tenor)
        return vol_of(total_variance(self, self._places(strike, k, delta, at, premium_adjusted), at), at)

    def total_variance(
        self,
        k: npt.ArrayLike,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
    ) -> FloatArray:
        """Total variance w = vol^2 T at log-moneyness k, times as `vol`; NaN where k is."""
        at, k_ = self._times(expiry, years, tenor), as_reals("k", k)
        broadcast({"k": k_, "time": at})
        return total_variance(self, k_, at)

    def forward(
        self,
        expiry: Expiry | None = None,
        *,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
    ) -> FloatArray:
        """Forward of a listed expiry, or at any time up to the horizon: log-linear in time between expiries.

        Outside the expiries the carry of the nearest interval goes on; with one expiry there is no carry to go by.
        """
        return forward_at(self, self._times(expiry, years, tenor))

    @property
    def event_years(self) -> float:
        """Time to the event; infinite where there is none."""
        if self.event is None:
            return np.inf
        return (self.event.time_ns - self.time_ns) / NANOSECONDS_PER_YEAR

    def without_event(self) -> Surface:
        """The surface of the world in which the event does not happen: what the slices say by themselves."""
        if self.event is None:
            return self
        quiet = self.cache.get("quiet")
        if not isinstance(quiet, Surface):
            quiet = self.cache["quiet"] = Surface(self.underlying, self.time_ns, self.smiles)
        return quiet

    @property
    def atm_vol(self) -> FloatArray:
        """Vol at the forward of each expiry, shape (n,); NaN without a fit."""
        if self.event is not None:
            return np.array([s.atm_vol for s in self.smiles])
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
        evidence = EXACT_POLYNOMIAL
        if self.event is not None and not self.event.is_quiet:
            from volsurf.surface.event import EVENT_EVIDENCE

            evidence = EVENT_EVIDENCE
        between = rules(self).evidence if fits else ()
        blended = between.count(INTERVAL)
        return SurfaceCertificate(
            verdict, len(fits), butterfly, calendar, certified, witness, len(between), blended, evidence
        )

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

    def _times(
        self, expiry: Expiry | None, years: npt.ArrayLike | None, tenor: str | Sequence[str] | None = None
    ) -> FloatArray:
        """The time asked for in years, checked."""
        if sum(given is not None for given in (expiry, years, tenor)) != 1:
            raise InputError("give one of expiry=, years= and tenor=")
        if expiry is not None:
            wanted = to_nanoseconds(expiry, self.expiries)
            return np.asarray(self.years[self._listed(wanted)])
        if tenor is not None:
            from volsurf.surface.tenors import tenor_years

            years = tenor_years(tenor)
        at = as_reals("years", cast("npt.ArrayLike", years))
        horizon = HORIZON * float(self.years[-1])
        if not (np.isfinite(at) & (at > 0)).all():
            raise InputError(f"years must be positive and finite, was {years!r}")
        if (at > horizon).any():
            asked = f"{float(at.max()):g} years" if tenor is None else f"the tenor {tenor}"
            raise InputError(
                f"{asked} is beyond the horizon of {self.underlying}: vols are extrapolated to "
                f"{horizon:g} years, twice the last expiry ({self.smiles[-1].expiry_label})"
            )
        return at

    def _places(
        self,
        strike: npt.ArrayLike | None,
        k: npt.ArrayLike | None,
        delta: npt.ArrayLike | None,
        at: FloatArray,
        premium_adjusted: bool = False,
    ) -> FloatArray:
        """The log-moneyness asked for, checked."""
        if sum(given is not None for given in (strike, k, delta)) != 1:
            raise InputError("give one of strike=, k= and delta=")
        if strike is not None:
            strike_ = as_reals("strike", strike)
            broadcast({"strike": strike_, "time": at})
            if not (np.isfinite(strike_) & (strike_ > 0)).all():
                raise InputError(f"strikes must be positive and finite, was {strike!r}")
            return np.asarray(np.log(strike_ / forward_at(self, at)))
        if k is not None:
            k_ = as_reals("k", k)
            broadcast({"k": k_, "time": at})
            if not np.isfinite(k_).all():
                raise InputError(f"k must be finite, was {k!r}")
            return k_
        from volsurf.surface.delta import delta_log_moneyness

        delta_ = as_reals("delta", cast("npt.ArrayLike", delta))
        broadcast({"delta": delta_, "time": at})
        return delta_log_moneyness(self, delta_, at, premium_adjusted)
