"""Methods of `Surface` that price: densities, swaps, local and forward vols, portfolios and their risk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_flags, as_reals, broadcast
from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.surface.expiries import Expiry

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl

    from volsurf.surface.bumps import Bump, BumpedSurface
    from volsurf.surface.forward_vol import ForwardVols
    from volsurf.surface.localvol import LocalVolGrid
    from volsurf.surface.portfolio import PortfolioValue
    from volsurf.surface.positions import Positions
    from volsurf.surface.risk import RiskTable
    from volsurf.surface.surface import Surface
    from volsurf.surface.swaps import Moments

Of = Literal["log", "price"]
PaidIn = Literal["cash", "coin"]
SettledIn = Literal["linear", "inverse"]
Unit = Literal["vol", "variance"]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} must be {' or '.join(map(repr, allowed))}, was {value!r}")


class PricingMethods:
    """Mixed into `Surface`. Times and places are given as in `Surface.vol`; results have their broadcast shape."""

    __slots__ = ()

    def density(
        self,
        *,
        strike: npt.ArrayLike | None = None,
        k: npt.ArrayLike | None = None,
        delta: npt.ArrayLike | None = None,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        of: Of | None = None,
        log: bool = False,
    ) -> FloatArray:
        """Risk-neutral density at a place: of ln(S_T/F) per unit of log-moneyness, or of S_T per unit of the strike's currency.

        g(k) phi(d2)/sqrt(w), and that over K; nowhere negative on a certified surface. See `volsurf.surface.density`.

        Args:
            of: "log" or "price"; by default "price" where places are strikes and "log" otherwise.
            log: the logarithm of the density, which far wings need: minus infinity where it is zero, NaN where negative.

        Raises:
            InputError: as `Surface.vol`.
        """
        from volsurf.surface.density import density, log_density

        surface, at, place = self._asked(strike, k, delta, expiry, years, tenor)
        of = of if of is not None else "price" if strike is not None else "log"
        _one_of("of", of, ("log", "price"))
        terms = _derivatives(surface, place, at)
        if of == "log":
            return (log_density if log else density)(place, *terms)
        ln_strike = place + np.log(surface.forward(years=at))
        if log:
            return log_density(place, *terms) - ln_strike
        with np.errstate(under="ignore", over="ignore"):
            return density(place, *terms) / np.exp(ln_strike)

    def distribution(
        self,
        *,
        strike: npt.ArrayLike | None = None,
        k: npt.ArrayLike | None = None,
        delta: npt.ArrayLike | None = None,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        above: bool = False,
    ) -> FloatArray:
        """P(S_T < K), or with `above` P(S_T > K), under the forward measure: Phi(-d2) + phi(d2) w'/(2 sqrt(w)).

        Ask for `above` rather than one minus the other: each tail has its own relative accuracy, down to 1e-300.
        """
        from volsurf.surface.density import tails

        surface, at, place = self._asked(strike, k, delta, expiry, years, tenor)
        w, slope, _ = _derivatives(surface, place, at)
        return tails(place, w, slope)[int(above)]

    def digital(
        self,
        strike: npt.ArrayLike,
        is_call: npt.ArrayLike = True,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        paid_in: PaidIn = "cash",
    ) -> FloatArray:
        """Undiscounted worth of a digital that pays one unit if S_T ends above the strike (a put: below).

        The smile's slope is in it: -dC/dK at the fitted smile, not Black's N(d2).

        Args:
            paid_in: "cash", a unit of the strike's currency, worth a probability; or "coin", one coin, whose worth is in coin.
        """
        from volsurf.surface.density import tails

        _one_of("paid_in", paid_in, ("cash", "coin"))
        surface, at, place = self._asked(strike, None, None, expiry, years, tenor)
        calls = as_flags("is_call", is_call)
        broadcast({"strike": place, "time": at, "is_call": calls})
        w, slope, _ = _derivatives(surface, place, at)
        below, above = tails(place, w, slope, coin=paid_in == "coin")
        return np.asarray(np.where(calls, above, below))

    def quantile(
        self,
        probability: npt.ArrayLike,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        of: Of = "price",
    ) -> FloatArray:
        """The price (or with `of="log"` ln(S_T/F)) below which S_T ends with a given probability under the forward measure.

        Raises:
            InputError: a probability outside [0, 1].
        """
        from volsurf.surface.density import quantile_at

        _one_of("of", of, ("log", "price"))
        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        k = quantile_at(surface, as_reals("probability", probability), at)
        return k if of == "log" else np.asarray(surface.forward(years=at) * np.exp(k))

    def density_table(self, points: int = 201, reach: float = 5.0) -> pl.DataFrame:
        """Densities and probabilities of every expiry, on `points` places up to `reach` standard deviations from the
        forward."""
        from volsurf.surface.density import density_table

        return density_table(cast("Surface", self), points, reach)

    def density_plot(self, reach: float = 4.0) -> go.Figure:
        """Every expiry's density over standard deviations from the forward, beside the normal one, as a plotly figure."""
        from volsurf.surface.density_figure import density_figure

        return density_figure(cast("Surface", self), reach)

    def variance_swap(
        self,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        settlement: SettledIn = "linear",
        unit: Unit = "vol",
    ) -> FloatArray:
        """Fair strike of a variance swap from now to a time, as a vol (its square with `unit="variance"`), in the times' shape.

        K^2 T = E[-2 ln(S_T/F)] (Gatheral 2006, chapter 11; Fukasawa 2012). With `settlement="inverse"` realised variance
        is paid in coin, whose fair strike is the gamma swap's: see `volsurf.surface.swaps`.
        """
        _one_of("settlement", settlement, ("linear", "inverse"))
        return self._swap(expiry, years, tenor, settlement == "inverse", unit)

    def gamma_swap(
        self,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        unit: Unit = "vol",
    ) -> FloatArray:
        """Fair strike of a gamma swap, which weighs variance by S_t/F: K^2 T = E[2 (S_T/F) ln(S_T/F)]; as `variance_swap`."""
        return self._swap(expiry, years, tenor, True, unit)

    def log_contract(
        self,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        paid_in: PaidIn = "cash",
    ) -> FloatArray:
        """Undiscounted worth of ln(S_T/F) paid in the strike's currency, E[ln(S_T/F)], or in coin, E[(S_T/F) ln(S_T/F)]."""
        _one_of("paid_in", paid_in, ("cash", "coin"))
        coin = paid_in == "coin"
        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        return np.asarray((0.5 if coin else -0.5) * self._swap(None, at, None, coin, "variance") * at)

    def moments(
        self,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
    ) -> Moments:
        """Mean, variance, skewness and kurtosis of ln(S_T/F) that the smile implies."""
        from volsurf.surface.swaps import moments_at

        surface = cast("Surface", self)
        return moments_at(surface, surface._times(expiry, years, tenor))

    def local_vol(
        self,
        *,
        strike: npt.ArrayLike | None = None,
        k: npt.ArrayLike | None = None,
        delta: npt.ArrayLike | None = None,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
    ) -> FloatArray:
        """Dupire's local vol, sqrt(dw/dT / g); at an expiry the value from the right, see `volsurf.surface.localvol`.

        NaN where the surface is not free of arbitrage. After a scheduled event it is the quiet world's, averaged by
        density; the jump itself is in no local vol.
        """
        from volsurf.surface.localvol import local_variance_at

        surface, at, place = self._asked(strike, k, delta, expiry, years, tenor)
        return np.asarray(np.sqrt(local_variance_at(surface, place, at)))

    def local_vol_grid(self, points: int = 41, reach: float = 4.0) -> LocalVolGrid:
        """Local vol at both ends of every interval between expiries, on standard deviations from the forward."""
        from volsurf.surface.localvol import local_vol_grid

        return local_vol_grid(cast("Surface", self), points, reach)

    def forward_vol(
        self,
        start: Expiry | float | npt.ArrayLike,
        end: Expiry | float | npt.ArrayLike,
        k: npt.ArrayLike = 0.0,
    ) -> FloatArray:
        """Vol between two times at one forward log-moneyness: sqrt((w(k, T2) - w(k, T1)) / (T2 - T1)).

        Args:
            start: years (floats; 0 is now), tenors ("1M"), or expiries (ns UTC as integers, datetimes, "25DEC26").
            end: likewise.
            k: log-moneyness to the forward of each time; 0 for the at-the-money-forward vol.

        Never NaN on a surface free of calendar arbitrage.

        Raises:
            InputError: an end that is not after its start, or what `Surface.vol` refuses.
        """
        from volsurf.surface.forward_vol import forward_vol_at, time_of

        surface = cast("Surface", self)
        return forward_vol_at(surface, time_of(surface, start), time_of(surface, end), as_reals("k", k))

    def forward_vols(self, k: float = 0.0) -> ForwardVols:
        """Forward vols from now to the first expiry and between neighbouring expiries, with standard errors."""
        from volsurf.surface.forward_vol import forward_vols_of

        return forward_vols_of(cast("Surface", self), k)

    def price(self, positions: Positions) -> PortfolioValue:
        """Values and greeks of positions off the surface, in coin and in the strike's currency.

        Args:
            positions: a sequence of `Position`, a `Portfolio`, or a polars or pandas table with its columns.

        Raises:
            InputError: a row that cannot be priced, named by its number.
        """
        from volsurf.surface.portfolio import price_positions
        from volsurf.surface.positions import Portfolio

        surface = cast("Surface", self)
        return price_positions(surface, Portfolio.of(positions, surface))

    def bump(self, *bumps: Bump) -> BumpedSurface:
        """The surface after bumps, which prices and tells whether it is still free of arbitrage: see
        `volsurf.surface.bumps`."""
        from volsurf.surface.bumps import BumpedSurface

        return BumpedSurface(cast("Surface", self), bumps)

    def risk(self, positions: Positions, bumps: Sequence[Bump] | None = None) -> RiskTable:
        """P&L of positions under bumps: by default parallel, tilt, skew, curvature, forward, time, and every (expiry, node)."""
        from volsurf.surface.positions import Portfolio
        from volsurf.surface.risk import risk_of

        surface = cast("Surface", self)
        return risk_of(surface, Portfolio.of(positions, surface), bumps)

    def to_json(self) -> str:
        """The surface as JSON text from which `from_json` restores every bit: see `volsurf.surface.json`."""
        from volsurf.surface.json import to_json

        return to_json(cast("Surface", self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Surface:
        """The surface of a text that `to_json` wrote.

        Raises:
            InputError: another format or version, or damage; it names the place.
        """
        from volsurf.surface.json import from_json

        return from_json(text)

    def _asked(
        self,
        strike: npt.ArrayLike | None,
        k: npt.ArrayLike | None,
        delta: npt.ArrayLike | None,
        expiry: Expiry | None,
        years: npt.ArrayLike | None,
        tenor: str | Sequence[str] | None,
    ) -> tuple[Surface, FloatArray, FloatArray]:
        """The surface, the times in years and the log-moneynesses."""
        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        return surface, at, surface._places(strike, k, delta, at)

    def _swap(
        self,
        expiry: Expiry | None,
        years: npt.ArrayLike | None,
        tenor: str | Sequence[str] | None,
        coin: bool,
        unit: Unit,
    ) -> FloatArray:
        from volsurf.surface.swaps import swap_variance

        _one_of("unit", unit, ("vol", "variance"))
        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        variance = swap_variance(surface, at, coin) / at
        return np.asarray(variance if unit == "variance" else np.sqrt(variance))


def _derivatives(surface: Surface, k: FloatArray, at: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    from volsurf.surface.interpolation import variance_derivatives

    return variance_derivatives(surface, k, at)
