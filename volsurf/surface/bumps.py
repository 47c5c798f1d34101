"""Bumps of a surface: smooth changes of its vols, its forwards and the time, and whether what they leave is free of arbitrage.

A vol bump adds `size` times a shape to the vol. Shapes are functions of the standardised moneyness y = k/(vol at the
forward sqrt(T)) of the surface before the bump and of the time T:

    parallel     1
    tilt         ln(T/Tp)/ln(Tn/T1), held inside +-1/2, with Tp = sqrt(T1 Tn): the last expiry rises by size over the first
    skew         tanh(y)/(2 tanh(1)): the vol one deviation above the forward rises by size over the one a deviation below
    curvature    tanh(y)^2/tanh(1)^2: the vols one deviation out rise by size, the one at the forward stays
    node         a hat in T on one expiry, times a smooth hat in y on one node; all of them together are the parallel bump

All are bounded, so a bump moves no wing slope. Node hats go from 1 to 0 by the step 6t^5 - 15t^4 + 10t^3 between
neighbouring nodes, which stand where a flat smile has their deltas (25C at y = 0.674); beyond the outer ones they stay 1.
Hats in T are linear between expiries.

A forward bump multiplies every forward by 1 + size. With `sticky="moneyness"` the smile moves along, vol = f(ln(K/F));
with "strike" every strike keeps its vol. A time bump lets `size` years pass: every strike of every expiry keeps its vol,
forwards stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.surface.expiries import Expiry
from volsurf.surface.interpolation import Curve, durrleman, forward_at, require_fit, vol_of
from volsurf.surface.slices import expiry_label

if TYPE_CHECKING:
    from volsurf.surface.portfolio import PortfolioValue
    from volsurf.surface.positions import Positions
    from volsurf.surface.surface import Surface

Shape = tuple[FloatArray, FloatArray, FloatArray]
"""A shape and its first two derivatives by y."""
Sticky = Literal["moneyness", "strike"]

NODES = ("10P", "25P", "ATM", "25C", "10C")
NODE_PLACES = np.array([-1.2815515655446004, -0.6744897501960817, 0.0, 0.6744897501960817, 1.2815515655446004])
"""y of each node: minus the normal quantile of a call's delta."""
VOL_POINT = 0.01
PERCENT = 0.01
DAY = 1.0 / 365.0
_GRID_REACH = 8.0
_GRID_POINTS = 161
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Bump:
    """One change of a surface; made by the classmethods, whose default sizes are the units traders count in."""

    kind: str
    """ "parallel", "tilt", "skew", "curvature", "node", "forward" or "time"."""
    size: float
    """Vol for vol bumps, relative for "forward", years for "time"."""
    expiry_ns: int = 0
    """Of a node bump."""
    node: str = ""
    sticky: Sticky = "moneyness"
    """Of a forward bump."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.size):
            raise InputError(f"the size of a bump must be finite, was {self.size!r}")
        if self.kind == "forward" and self.size <= -1.0:
            raise InputError(f"a forward bump must leave the forward positive, was {self.size!r}")
        if self.kind == "time" and self.size < 0.0:
            raise InputError(f"time runs forward only, was {self.size!r} years")
        if self.kind == "node" and self.node not in NODES:
            raise InputError(f"a node bump is at one of {', '.join(NODES)}, was {self.node!r}")
        if self.sticky not in ("moneyness", "strike"):
            raise InputError(f'sticky must be "moneyness" or "strike", was {self.sticky!r}')
        if self.kind not in ("parallel", "tilt", "skew", "curvature", "node", "forward", "time"):
            raise InputError(f"there is no bump {self.kind!r}")

    @classmethod
    def parallel(cls, size: float = VOL_POINT) -> Bump:
        """Every vol up by `size`."""
        return cls("parallel", size)

    @classmethod
    def tilt(cls, size: float = VOL_POINT) -> Bump:
        """The term structure: the last expiry's vols up by `size` over the first's."""
        return cls("tilt", size)

    @classmethod
    def skew(cls, size: float = VOL_POINT) -> Bump:
        """Calls over puts by `size`, one standard deviation out on each side."""
        return cls("skew", size)

    @classmethod
    def curvature(cls, size: float = VOL_POINT) -> Bump:
        """Both wings over the money by `size`, one standard deviation out."""
        return cls("curvature", size)

    @classmethod
    def at_node(cls, expiry_ns: int, node: str, size: float = VOL_POINT) -> Bump:
        """One expiry's vols around one delta node up by `size`."""
        return cls("node", size, int(expiry_ns), node)

    @classmethod
    def forward(cls, size: float = PERCENT, sticky: Sticky = "moneyness") -> Bump:
        """Every forward up by `size`, relative."""
        return cls("forward", size, sticky=sticky)

    @classmethod
    def time(cls, days: float = 1.0) -> Bump:
        """Days pass."""
        return cls("time", days * DAY)

    @property
    def is_vol(self) -> bool:
        """It changes vols alone."""
        return self.kind not in ("forward", "time")

    @property
    def label(self) -> str:
        """The bump in a few words, with its size."""
        if self.kind == "node":
            return f"{expiry_label(self.expiry_ns)} {self.node} {100 * self.size:+g} vol"
        if self.kind == "forward":
            return f"forward {100 * self.size:+g} %, sticky {self.sticky}"
        if self.kind == "time":
            return f"time {self.size / DAY:+g} d"
        return f"{self.kind} {100 * self.size:+g} vol"

    def reversed(self) -> Bump:
        """The bump the other way; InputError for time."""
        return Bump(self.kind, -self.size, self.expiry_ns, self.node, self.sticky)

    def shape(self, surface: Surface, y: FloatArray, at: FloatArray) -> Shape:
        """What a vol bump of size one adds at standardised moneyness y and time `at`, in their broadcast shape."""
        zero = np.zeros(np.broadcast_shapes(y.shape, at.shape))
        if self.kind == "parallel":
            return zero + 1.0, zero, zero
        if self.kind == "tilt":
            return zero + _tilt(surface, at), zero, zero
        tanh = np.tanh(y) + zero
        rise = 1.0 - tanh**2
        if self.kind == "skew":
            unit = 0.5 / math.tanh(1.0)
            return unit * tanh, unit * rise, -2.0 * unit * tanh * rise
        if self.kind == "curvature":
            unit = 1.0 / math.tanh(1.0) ** 2
            return unit * tanh**2, 2.0 * unit * tanh * rise, 2.0 * unit * rise * (1.0 - 3.0 * tanh**2)
        hat = _time_hat(surface, at, self.expiry_ns)
        value, slope, curvature = _node_hat(y, NODES.index(self.node))
        return hat * value + zero, hat * slope + zero, hat * curvature + zero


def _tilt(surface: Surface, at: FloatArray) -> FloatArray:
    first, last = float(surface.years[surface.fitted[0]]), float(surface.years[surface.fitted[-1]])
    if first == last:
        return np.zeros(at.shape)
    return np.clip(np.log(at / math.sqrt(first * last)) / math.log(last / first), -0.5, 0.5)


def _time_hat(surface: Surface, at: FloatArray, expiry_ns: int) -> FloatArray:
    """1 at the expiry, 0 at its fitted neighbours, linear between them, flat beyond the first and the last."""
    expiries, years = surface.expiries[surface.fitted], surface.years[surface.fitted]
    here = np.flatnonzero(expiries == expiry_ns)
    if not here.size:
        raise InputError(
            f"a node bump needs a fitted expiry, was {expiry_label(expiry_ns)}; there are "
            f"{', '.join(expiry_label(int(e)) for e in expiries)}"
        )
    return np.asarray(np.interp(at, years, np.eye(len(years))[here[0]]))


def _node_hat(y: FloatArray, node: int) -> Shape:
    """1 at the node, 0 at its neighbours, and its derivatives by y; on the outside of an outer node 1."""
    places = NODE_PLACES
    value, slope, curvature = np.ones(y.shape), np.zeros(y.shape), np.zeros(y.shape)
    for neighbour in (node - 1, node + 1):
        if not 0 <= neighbour < len(places):
            continue
        width = places[neighbour] - places[node]
        t = np.clip((y - places[node]) / width, 0.0, 1.0)
        beyond = (y - places[node]) / width > 0.0
        value = np.where(beyond, 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2), value)
        slope = np.where(beyond, -30.0 * t**2 * (1.0 - t) ** 2 / width, slope)
        curvature = np.where(beyond, -60.0 * t * (1.0 - t) * (1.0 - 2.0 * t) / width**2, curvature)
    return value, slope, curvature


@dataclass(frozen=True, slots=True)
class GridCheck:
    """Whether a bumped surface is free of arbitrage, as far as a grid can tell."""

    free: bool
    lowest_g: float
    """Lowest Durrleman g on the grid."""
    smallest_gain: float
    """Smallest gain of total variance from one expiry to the next, relative to the nearer; infinite with one expiry."""
    evidence: str
    """ "grid of ..." : unlike a fitted surface, a bumped one has no proof."""
    witness: str = ""
    """Where it fails worst, by kind; empty if it does not."""

    def __bool__(self) -> bool:
        return self.free

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.free:
            return f"no arbitrage found on a {self.evidence}"
        return f"{self.witness} ({self.evidence})"


class BumpedSurface:
    """A surface after bumps. Vol bumps add up, forward bumps multiply, times add up; the surface beneath is never changed.

    Raises:
        InputError: a node bump at an expiry that is not fitted; vols that a bump takes to zero or below, where they are
        asked for.
    """

    def __init__(self, surface: Surface, bumps: Sequence[Bump]) -> None:
        require_fit(surface)
        self.surface = surface
        self.bumps = tuple(bumps)
        self._vol_bumps = [b for b in self.bumps if b.is_vol]
        self._factor = math.prod(1.0 + b.size for b in self.bumps if b.kind == "forward")
        # Log-moneyness at which the unbumped smile is read: that of the old forward where strikes keep their vols.
        self._shift = sum(math.log1p(b.size) for b in self.bumps if b.kind == "forward" and b.sticky == "strike")
        self._passed = sum(b.size for b in self.bumps if b.kind == "time")

    def __repr__(self) -> str:
        return f"BumpedSurface({self.surface.underlying}: {'; '.join(b.label for b in self.bumps) or 'unchanged'})"

    def forwards(self, at: FloatArray) -> FloatArray:
        """Forward of expiries `at` years from the surface's own time."""
        return np.asarray(forward_at(self.surface, at) * self._factor)

    def years_left(self, at: FloatArray) -> FloatArray:
        """Time they still have to run; zero where they expired meanwhile."""
        return np.maximum(at - self._passed, 0.0)

    def vol_and_skew(self, k: FloatArray, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vol at log-moneyness k to the bumped forward and its derivative by k, in the broadcast shape."""
        vol, skew, _ = self._vol(k, at)
        return vol, skew

    def vol(
        self,
        *,
        k: npt.ArrayLike,
        expiry: Expiry | None = None,
        years: npt.ArrayLike | None = None,
        tenor: str | None = None,
    ) -> FloatArray:
        """Implied vol at log-moneyness k to the bumped forward; times as `Surface.vol`, from the surface's own time."""
        at = self.surface._times(expiry, years, tenor)
        return self._vol(np.asarray(k, np.float64), at)[0]

    def price(self, positions: Positions) -> PortfolioValue:
        """Values and greeks as `Surface.price`; standard errors are those of the surface beneath."""
        from volsurf.surface.portfolio import price_positions
        from volsurf.surface.positions import Portfolio

        return price_positions(self.surface, Portfolio.of(positions, self.surface), self)

    def check(self) -> GridCheck:
        """Whether it is still free of arbitrage: g and the gains of total variance on a grid of standard deviations."""
        surface = self.surface
        every = surface.years[surface.fitted]
        live = every > self._passed
        at, expiries = every[live], surface.expiries[surface.fitted][live]
        evidence = f"grid of {_GRID_POINTS} places within {_GRID_REACH:g} standard deviations at {len(at)} expiries"
        if not len(at):
            return GridCheck(True, math.nan, math.inf, evidence)
        w0 = Curve(surface, at)(np.zeros(()))[0]
        y = np.linspace(-_GRID_REACH, _GRID_REACH, _GRID_POINTS)
        k = y * vol_of(w0, 1.0)[:, None]
        w, slope, curvature = self._variance(k, at[:, None])
        g = durrleman(k, w, slope, curvature)
        lowest = np.unravel_index(int(np.argmin(g)), g.shape)
        witnesses = []
        # NaN, where the surface beneath has no vol, is the lowest there is.
        if not g[lowest] >= -_ROUNDING:
            where = f"{expiry_label(int(expiries[lowest[0]]))} has g = {g[lowest]:.4g} at k = {k[lowest]:.4g}"
            witnesses.append(f"butterfly arbitrage: {where}")
        gain = np.array([np.inf])
        if len(at) > 1:
            # Each pair at the places of both its expiries.
            later = self._variance(k[:-1], at[1:, None])[0] / w[:-1] - 1.0
            earlier = w[1:] / self._variance(k[1:], at[:-1, None])[0] - 1.0
            gain = np.stack((later, earlier))
            if not gain.min() >= -_ROUNDING:
                side, pair, place = np.unravel_index(int(np.argmin(gain)), gain.shape)
                witnesses.append(
                    f"calendar arbitrage: {expiry_label(int(expiries[pair + 1]))} has less total variance than "
                    f"{expiry_label(int(expiries[pair]))} at k = {k[pair + side, place]:.4g}"
                )
        return GridCheck(not witnesses, float(g[lowest]), float(gain.min()), evidence, "; ".join(witnesses))

    def _vol(self, k: FloatArray, at: FloatArray) -> Shape:
        """Vol and its first two derivatives by k."""
        place = k + self._shift
        curve = Curve(self.surface, at)
        w, slope, curvature = curve(place)
        vol = vol_of(w, at)
        skew = 0.5 * slope / (vol * at)
        bend = (0.5 * curvature / at - skew**2) / vol
        if self._vol_bumps:
            deviation = vol_of(curve(np.zeros(()))[0], 1.0)
            for bump in self._vol_bumps:
                value, by_y, by_y2 = bump.shape(self.surface, place / deviation, at)
                vol = vol + bump.size * value
                skew = skew + bump.size * by_y / deviation
                bend = bend + bump.size * by_y2 / deviation**2
            check_vols(vol, self._vol_bumps)
        return vol, skew, bend

    def _variance(self, k: FloatArray, at: FloatArray) -> Shape:
        """w and its first two derivatives by k."""
        vol, skew, bend = self._vol(k, at)
        left = self.years_left(at)
        return vol**2 * left, 2.0 * vol * skew * left, 2.0 * (skew**2 + vol * bend) * left


def check_vols(vol: FloatArray, bumps: Sequence[Bump]) -> None:
    """InputError where bumps take a vol to zero or below; where there was none to begin with there is NaN."""
    if (vol <= 0.0).any():
        names = "; ".join(b.label for b in bumps)
        raise InputError(f"the bump {names} takes a vol to {100 * float(np.nanmin(vol)):.4g} %: make it smaller")
