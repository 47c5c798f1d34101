"""The smile at the forward in three numbers: level, skew and curvature of the vol, with standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volsurf.instruments import FloatArray
from volsurf.surface._rows import TableMethods
from volsurf.surface.interpolation import variance_derivatives, vol_of
from volsurf.surface.uncertainty import vol_gradient
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

_STEP = 0.02
"""Of a difference in k for the errors' gradients, in standard deviations: it is 1e-4 of them off."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AtmNumbers(TableMethods):
    """At the forward, in the shape of the times asked for. A slice without a covariance has NaN for its standard errors."""

    years: FloatArray
    level: FloatArray
    """Vol, sqrt(w/T)."""
    skew: FloatArray
    """d vol/dk = w' / (2 sqrt(w T)), per unit of log-moneyness."""
    curvature: FloatArray
    """d2 vol/dk2 = (w''/2 - w'^2/(4 w)) / sqrt(w T)."""
    level_error: FloatArray
    skew_error: FloatArray
    curvature_error: FloatArray


def at_money(surface: Surface, at: FloatArray, *, skew_errors: bool = True) -> AtmNumbers:
    """`Surface.atm`; without `skew_errors` those of skew and curvature are left NaN."""
    w, slope, curvature = variance_derivatives(surface, np.zeros(()), at)
    root, deviation = vol_of(w * at, 1.0), vol_of(w, 1.0)
    if skew_errors:
        k = _STEP * deviation[..., None] * np.array([-1.0, 0.0, 1.0])
        gradient = vol_gradient(surface, k, at[..., None])
        low, level, high = (gradient[i] for i in range(3))
        step = 1.0 / (_STEP * deviation)
        errors = [
            combination.error(surface)
            for combination in (level, (high - low) * (0.5 * step), (high + low - level * 2.0) * (step * step))
        ]
    else:
        errors = [vol_gradient(surface, np.zeros(at.shape), at).error(surface)] + [np.full(at.shape, np.nan)] * 2
    return AtmNumbers(
        at,
        vol_of(w, at),
        0.5 * slope / root,
        (0.5 * curvature - 0.25 * slope * slope / w) / root,
        *errors,
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class JumpWingTable(TableMethods):
    """The slices of the listed expiries in jump-wings numbers (Gatheral and Jacquier 2014, definition 3.3); shape (n,).

    NaN where an expiry has no slice, or none with a vol at the money.
    """

    label: tuple[str, ...]
    expiry: np.ndarray[tuple[int], np.dtype[np.int64]]
    """ns UTC"""
    years: FloatArray
    v: FloatArray
    """At-the-money variance per year."""
    psi: FloatArray
    """Skew of the total vol at the money."""
    p: FloatArray
    """Slope of the put wing over the total vol at the money."""
    c: FloatArray
    """Slope of the call wing over it."""
    v_min: FloatArray
    """Lowest variance per year."""
    status: tuple[str, ...]
    """How the fit ended; "no curve" where there is none."""


def jump_wings_of(surface: Surface) -> JumpWingTable:
    """`Surface.jump_wings`."""
    # A slice that is not certified may have no vol at the money, which jump-wings are in units of.
    svi = surface.svi
    level = np.where(svi.total_variance(0.0) > 0.0, svi.a, np.nan)
    wings = RawSVI(level, svi.b, svi.rho, svi.m, svi.sigma).to_jump_wings(surface.years)
    return JumpWingTable(
        tuple(s.expiry_label for s in surface.smiles),
        surface.expiries,
        surface.years,
        wings.v,
        wings.psi,
        wings.p,
        wings.c,
        wings.v_min,
        tuple("no curve" if s.fit is None else s.fit.sentence for s in surface.smiles),
    )
