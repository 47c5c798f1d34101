"""What SSVI and eSSVI share: their slice, and the quotes of a whole surface with the objective on them.

A slice of either has three numbers: theta, total variance at the money; rho; psi, the sum of its two wing slopes.

    w(k) = (theta + rho psi k + D)/2,   D = sqrt((psi k)^2 + 2 rho psi theta k + theta^2)          psi = theta phi(theta)

It is raw SVI (Gatheral and Jacquier 2014, section 4). The objective is that of `volsurf.svi._lm` but for the prior: Huber's loss
(c = 1) of (vol - quote)/error, one-sided quotes by their side, and a pull of neighbouring expiries to each other that is weak
where there are quotes and holds a thin or empty expiry where there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volsurf._arguments import as_reals
from volsurf.errors import InputError
from volsurf.svi.params import RawSVI

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEVEL, _RHO, _WIDTH = 0.01, 0.3, 0.3
"""Precisions of the pull between neighbouring expiries a factor e apart in time, in ln(theta/years), rho, ln(psi/sqrt(theta))."""
_THIN = 30.0
"""Times that where one of them has no quotes."""
_FADE = 5.0
"""Quotes at which half of that is left."""
_ANCHOR = 0.01
"""Precision of the pull of a whole surface to rho = 0, psi = sqrt(theta): for a surface that is quoted hardly anywhere."""


def positive_increasing(name: str, values: Floats) -> None:
    """InputError unless the values are finite, positive and strictly increasing."""
    if values.ndim != 1 or not values.size:
        raise InputError(f"{name} must hold one number for each expiry, was of shape {values.shape}")
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"{name} must be positive and finite, was {values.tolist()}")
    if not (np.diff(values) > 0).all():
        raise InputError(f"{name} must increase from expiry to expiry, was {values.tolist()}")


def raw_slices(theta: Floats, rho: Floats, psi: Floats) -> RawSVI:
    """The slices as raw SVI."""
    # A tilt this small is none: centres of nearly equal slices would differ by less than the certificates' scale allows.
    rho = np.where(np.abs(rho) < 1e-9, 0.0, rho)
    cosine2 = (1.0 - rho) * (1.0 + rho)
    width = theta / psi
    return RawSVI(0.5 * theta * cosine2, 0.5 * psi, rho, -rho * width, np.sqrt(cosine2) * width)


def butterfly_cap(theta: Floats, rho: Floats) -> Floats:
    """Largest psi that is known to be free of butterfly arbitrage (Gatheral and Jacquier 2014, theorem 4.2).

    psi (1 + |rho|) < 4 and psi^2 (1 + |rho|) <= 4 theta.
    """
    tilt = 1.0 + np.abs(rho)
    return np.minimum(4.0 / tilt, 2.0 * np.sqrt(theta / tilt))


def total_variance_and_slopes(k: Floats, theta: Floats, rho: Floats, psi: Floats) -> tuple[Floats, Floats]:
    """w, shape (m,), and its derivatives in theta, rho and psi, shape (m, 3), of one quote a row."""
    pull = psi * k
    root = np.sqrt((pull + rho * theta) ** 2 + (1.0 - rho) * (1.0 + rho) * theta**2)
    w = 0.5 * (theta + rho * pull + root)
    slopes = np.column_stack(
        (
            0.5 * (1.0 + (rho * pull + theta) / root),
            0.5 * pull * (1.0 + theta / root),
            0.5 * k * (rho + (pull + rho * theta) / root),
        )
    )
    return w, slopes


@dataclass(frozen=True, eq=False)
class Quotes:
    """The usable quotes of all expiries, flat."""

    years: Floats
    """Of each expiry."""
    rows: Ints
    """Positions among the caller's quotes."""
    expiry: Ints
    """Expiry of each quote."""
    k: Floats
    vol: Floats
    error: Floats
    side: Floats
    weight: Floats
    offsets: Ints
    """The caller's quotes of expiry i are at offsets[i]:offsets[i+1]."""

    @classmethod
    def of(cls, k: Any, vol: Any, error: Any, years: npt.ArrayLike, side: Any, weight: Any) -> Quotes:
        """From what `fit_svi` accepts; raises InputError where it does, and where no quote can be used."""
        from volsurf.svi.fit import _flatten, _matching

        columns, offsets = _flatten("k", k)
        vols, errors = _matching("vol", vol, offsets), _matching("error", error, offsets)
        sides = np.zeros(columns.size) if side is None else _matching("side", side, offsets)
        weights = np.ones(columns.size) if weight is None else _matching("weight", weight, offsets)
        sides = np.where(np.isnan(sides), 0.0, sides)
        if not np.isin(sides, (-1.0, 0.0, 1.0)).all():
            raise InputError("side holds a value that is not -1 (bid-only), 0 (two-sided) or +1 (ask-only)")
        times = np.atleast_1d(as_reals("years", years))
        positive_increasing("years", times)
        if times.size != offsets.size - 1:
            raise InputError(f"years has {times.size} expiries, k has {offsets.size - 1}")
        expiry = np.repeat(np.arange(times.size), np.diff(offsets))
        with np.errstate(invalid="ignore"):
            usable = (
                (np.abs(columns) <= 100.0)
                & ((vols >= 1e-4) & (vols <= 100.0))
                & ((errors > 0.0) & np.isfinite(errors))
                & ((weights >= 1e-12) & (weights <= 1e12))
            )
        if not usable.any():
            raise InputError(
                f"none of the {columns.size} quotes can be used: each needs a finite k, a vol between 0.01 % and 10,000 % and a "
                "positive error bar"
            )
        return cls(
            years=times,
            rows=np.flatnonzero(usable),
            expiry=expiry[usable],
            k=columns[usable],
            vol=vols[usable],
            error=errors[usable],
            side=sides[usable],
            weight=weights[usable],
            offsets=offsets,
        )

    @property
    def counts(self) -> Floats:
        """Quotes of each expiry, by weight."""
        return np.asarray(np.bincount(self.expiry, self.weight, self.years.size), np.float64)

    def levels(self) -> Floats:
        """Rough total variance at the money of each expiry, strictly increasing: where the fits start.

        The median vol of the three quotes nearest the forward; an expiry without any has its neighbours' vol.
        """
        vols = np.full(self.years.size, np.nan)
        for i in np.unique(self.expiry):
            mine = np.flatnonzero(self.expiry == i)
            vols[i] = np.median(self.vol[mine[np.argsort(np.abs(self.k[mine]), kind="stable")[:3]]])
        known = np.flatnonzero(np.isfinite(vols))
        vols = np.interp(np.log(self.years), np.log(self.years[known]), vols[known])
        theta = vols**2 * self.years
        for i in range(1, theta.size):
            theta[i] = max(theta[i], theta[i - 1] * (1.0 + 1e-3))
        return np.asarray(theta)

    def residuals(self, theta: Floats, rho: Floats, psi: Floats) -> tuple[Floats, Floats]:
        """(vol - quote)/error of each quote, shape (m,), and its derivatives in its expiry's three numbers, (m, 3)."""
        i = self.expiry
        w, slopes = total_variance_and_slopes(self.k, theta[i], rho[i], psi[i])
        vol = np.sqrt(w / self.years[i])
        return (vol - self.vol) / self.error, slopes / (2.0 * vol * self.years[i] * self.error)[:, None]

    def counted(self, residual: Floats) -> Floats:
        """The residuals as the objective sees them: 0 on the allowed side of a one-sided quote."""
        return np.where(residual * self.side >= 0.0, residual, 0.0)

    def prior(self, theta: Floats, rho: Floats, psi: Floats) -> Floats:
        """Residuals of the pull between neighbouring expiries and of the anchor; parameters of shape (batch, n)."""
        time = np.log(self.years)
        share = 1.0 / (1.0 + (self.counts / _FADE) ** 6)
        thin = np.maximum(share[1:], share[:-1])
        weight = np.sqrt((1.0 + (_THIN - 1.0) * thin) / np.maximum(np.diff(time), 0.1))
        width = np.log(psi) - 0.5 * np.log(theta)
        return np.concatenate(
            (
                np.sqrt(_LEVEL) * weight * np.diff(np.log(theta) - time),
                np.sqrt(_RHO) * weight * np.diff(rho),
                np.sqrt(_WIDTH) * weight * np.diff(width),
                np.sqrt(_ANCHOR) * rho[:, :1],
                np.sqrt(_ANCHOR) * width[:, :1],
            ),
            axis=1,
        )
