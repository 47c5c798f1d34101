"""Methods of `Surface` that read a smile: deltas, nodes, tenors, standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals, broadcast
from volsurf.instruments import FloatArray

if TYPE_CHECKING:
    from volsurf.surface.atm import AtmNumbers, JumpWingTable
    from volsurf.surface.expiries import Expiry
    from volsurf.surface.nodes import Atm, DeltaTable, Nodes
    from volsurf.surface.slice_view import SliceView
    from volsurf.surface.surface import Surface
    from volsurf.surface.tenors import Tenors


class SmileMethods:
    """Mixed into `Surface`.

    Times are given as one of `expiry`, `years` and `tenor`, places as one of `strike`, `k` and `delta`, as in `Surface.vol`;
    arrays broadcast. Deltas are forward ones, or with `premium_adjusted` those of coin-settled options.
    """

    __slots__ = ()

    def log_moneyness(
        self,
        *,
        strike: npt.ArrayLike | None = None,
        delta: npt.ArrayLike | None = None,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
    ) -> FloatArray:
        """k = ln(K/F) of a strike or of a delta."""
        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        return surface._places(strike, None, delta, at, premium_adjusted)

    def strike(
        self,
        *,
        delta: npt.ArrayLike | None = None,
        k: npt.ArrayLike | None = None,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
    ) -> FloatArray:
        """Strike of a delta, or of a log-moneyness; NaN for a premium-adjusted call delta that no strike has."""
        from volsurf.surface.interpolation import forward_at

        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        return np.asarray(forward_at(surface, at) * np.exp(surface._places(None, k, delta, at, premium_adjusted)))

    def vol_error(
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
        """Standard error of `vol` with the same arguments; at a delta, of the vol at the strike that moves with the curve.

        In vol, in the shape of the arguments. What the quotes leave open at the published curve (`SVIFit.vol_error`), the slices
        on both sides of a time taken as independent. NaN where a slice has no covariance; `nodes` and `tenors` say why.
        """
        from volsurf.surface.uncertainty import delta_gradient, vol_error

        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        if delta is not None and strike is None and k is None:
            delta_ = as_reals("delta", delta)
            broadcast({"delta": delta_, "time": at})
            return delta_gradient(surface, delta_, at, premium_adjusted).error(surface)
        return vol_error(surface, surface._places(strike, k, delta, at, premium_adjusted), at)

    def nodes(self, premium_adjusted: bool = False, *, tenors: str | Sequence[str] | None = None) -> Nodes:
        """Vols at the 17 nodes 5P … 40P, ATM, 40C … 5C of every listed expiry, or of the tenors named."""
        from volsurf.surface.nodes import nodes_of

        return nodes_of(cast("Surface", self), premium_adjusted, tenors)

    def risk_reversal(
        self,
        delta: npt.ArrayLike = 0.25,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
    ) -> FloatArray:
        """Vol of the call less vol of the put of that size of delta."""
        return self._wing("risk_reversal", False, delta, expiry, years, tenor, premium_adjusted)

    def risk_reversal_error(
        self,
        delta: npt.ArrayLike = 0.25,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
    ) -> FloatArray:
        """Standard error of `risk_reversal`."""
        return self._wing("risk_reversal", True, delta, expiry, years, tenor, premium_adjusted)

    def fly(
        self,
        delta: npt.ArrayLike = 0.25,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
        atm: Atm = "forward",
    ) -> FloatArray:
        """Vol of the call plus vol of the put of that size of delta, less twice the vol at the money.

        At the money is the forward, or with `atm="dns"` the strike of the delta-neutral straddle.
        """
        return self._wing("fly", False, delta, expiry, years, tenor, premium_adjusted, atm)

    def fly_error(
        self,
        delta: npt.ArrayLike = 0.25,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
        atm: Atm = "forward",
    ) -> FloatArray:
        """Standard error of `fly`."""
        return self._wing("fly", True, delta, expiry, years, tenor, premium_adjusted, atm)

    def butterfly(
        self,
        delta: npt.ArrayLike = 0.25,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
        atm: Atm = "forward",
    ) -> FloatArray:
        """Half of `fly`: mean vol of the two wings over the vol at the money."""
        return self._wing("butterfly", False, delta, expiry, years, tenor, premium_adjusted, atm)

    def butterfly_error(
        self,
        delta: npt.ArrayLike = 0.25,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
        premium_adjusted: bool = False,
        atm: Atm = "forward",
    ) -> FloatArray:
        """Standard error of `butterfly`."""
        return self._wing("butterfly", True, delta, expiry, years, tenor, premium_adjusted, atm)

    def risk_reversals(
        self, premium_adjusted: bool = False, *, tenors: str | Sequence[str] | None = None
    ) -> DeltaTable:
        """Risk reversals at deltas 5, 10 … 40 of every listed expiry, or of the tenors named, with standard errors."""
        from volsurf.surface.nodes import delta_table

        return delta_table(cast("Surface", self), "risk_reversal", premium_adjusted, "forward", tenors)

    def flies(
        self,
        premium_adjusted: bool = False,
        *,
        tenors: str | Sequence[str] | None = None,
        atm: Atm = "forward",
    ) -> DeltaTable:
        """Flies at deltas 5, 10 … 40 of every listed expiry, or of the tenors named, with standard errors."""
        from volsurf.surface.nodes import delta_table

        return delta_table(cast("Surface", self), "fly", premium_adjusted, atm, tenors)

    def atm(
        self,
        *,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | Sequence[str] | None = None,
    ) -> AtmNumbers:
        """Level, skew and curvature of the vol at the forward, with standard errors; of every listed expiry without a time."""
        from volsurf.surface.atm import at_money

        surface = cast("Surface", self)
        every = expiry is None and years is None and tenor is None
        return at_money(surface, surface.years if every else surface._times(expiry, years, tenor))

    def jump_wings(self) -> JumpWingTable:
        """The listed expiries' slices in trader's numbers."""
        from volsurf.surface.atm import jump_wings_of

        return jump_wings_of(cast("Surface", self))

    def tenors(self, names: str | Sequence[str] | None = None, *, premium_adjusted: bool = False) -> Tenors:
        """The surface at fixed tenors: 1D 2D 1W 2W 1M 2M 3M 6M 9M 1Y, or those named.

        A tenor beyond the horizon, twice the last expiry, has NaN and the reason.
        """
        from volsurf.surface.tenors import DEFAULT_TENORS, tenors_of

        return tenors_of(cast("Surface", self), DEFAULT_TENORS if names is None else names, premium_adjusted)

    def slice_at(
        self, *, expiry: Expiry | None = None, years: float | None = None, tenor: str | None = None
    ) -> SliceView:
        """The whole smile at one time, with its certificate.

        Raises:
            InputError: also if more than one time is given.
        """
        from volsurf.errors import InputError
        from volsurf.surface.slice_view import slice_at

        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        if at.ndim:
            raise InputError(f"slice_at takes one time, was {at.size}")
        return slice_at(surface, float(at))

    def _wing(
        self,
        quantity: str,
        wants_error: bool,
        delta: npt.ArrayLike,
        expiry: Expiry | None,
        years: npt.ArrayLike | None,
        tenor: str | Sequence[str] | None,
        premium_adjusted: bool,
        atm: Atm = "forward",
    ) -> FloatArray:
        from volsurf.surface.nodes import wing_gradient

        surface = cast("Surface", self)
        at = surface._times(expiry, years, tenor)
        delta_ = as_reals("delta", delta)
        broadcast({"delta": delta_, "time": at})
        found = wing_gradient(surface, quantity, delta_, at, premium_adjusted, atm)
        return found.error(surface) if wants_error else found.vol
