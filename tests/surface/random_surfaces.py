"""Surfaces made from parameters instead of quotes, for the tests of what is read off a surface.

Those from SSVI parameters are free of arbitrage by theorem (Gatheral and Jacquier 2014, theorems 4.1 and 4.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Verdict
from volsurf.svi.params import RawSVI

NOW = 1_780_000_000_000_000_000
SPOT, CARRY = 60_000.0, 0.05
DAYS = (2, 9, 37, 93, 182, 366)
Floats = npt.NDArray[np.float64]


def ssvi(theta: Floats, rho: float, eta: float, gamma: float) -> RawSVI:
    """The slices of SSVI with phi = eta theta^-gamma (1 + theta)^(gamma - 1)."""
    phi = eta * theta**-gamma * (1.0 + theta) ** (gamma - 1.0)
    cosine2 = 1.0 - rho * rho
    return RawSVI(0.5 * theta * cosine2, 0.5 * theta * phi, rho, -rho / phi, np.sqrt(cosine2) / phi)


def surface_of(
    years: npt.ArrayLike, svi: RawSVI, *, covariance: Sequence[Floats] | None = None, quotes: int = 0, **changes: Any
) -> Surface:
    """A surface of these slices with the certificates that they have.

    Args:
        covariance: of the scaled coordinates, a matrix a slice.
        quotes: how many each smile has, on the curve: half of them two-sided.
        changes: fields of `SliceFit` that are to be other than they are.
    """
    butterfly, calendar = check_butterfly(svi), check_calendar(svi[:-1], svi[1:])
    fields = ("verdict", "condition", "worst_k", "worst_value")
    smiles = []
    for i, at in enumerate(np.asarray(years, np.float64).tolist()):
        certificates = {f"butterfly_{name}": getattr(butterfly, name)[i].item() for name in fields}
        first = dict(zip(fields, (int(Verdict.PROVED), 0, np.nan, np.nan), strict=True))
        certificates |= {f"calendar_{n}": getattr(calendar, n)[i - 1].item() if i else first[n] for n in fields}
        fit = SliceFit(
            *(float(v[i]) for v in (svi.a, svi.b, svi.rho, svi.m, svi.sigma)),
            result=0, cost=1.0, rms=0.4, inside=1.0, iterations=5, n_used=quotes, n_two_sided=quotes, atm_error=2e-3,
            **certificates,
        )  # fmt: skip
        if covariance is not None:
            theta, upper = float(svi.total_variance(0.0)[i]), covariance[i][np.triu_indices(5)]
            fit = dataclasses.replace(fit, theta=theta, covariance=tuple(upper.tolist()))
        smiles.append(_smile(at, dataclasses.replace(fit, **changes), quotes))
    return Surface("BTC", NOW, tuple(smiles))


def _smile(years: float, fit: SliceFit, quotes: int) -> Smile:
    forward = SPOT * float(np.exp(CARRY * years))
    k = np.linspace(-2, 2, quotes) * np.sqrt(max(float(fit.total_variance(0.0)), 0.0))
    vol = fit.svi.vol(k, years)
    return Smile(
        underlying="BTC", expiry_ns=NOW + round(years * NANOSECONDS_PER_YEAR), time_ns=NOW, forward=forward, years=years,
        strike=forward * np.exp(k), log_moneyness=k, bid_vol=np.where(k < 0, np.nan, vol - 0.01), ask_vol=vol + 0.01,
        vol=vol, error=np.full(quotes, 0.01), side=np.where(k < 0, 1, 0).astype(np.int8), is_call=k >= 0,
        instrument_id=np.arange(quotes, dtype=np.int32), reason=np.zeros(quotes, np.uint8), forward_source=1,
        forward_error=0.5, mismatch_bp=np.nan, forward_flagged=False, fit=fit,
    )  # fmt: skip


def ssvi_surface(
    vol: float = 0.6,
    rho: float = -0.3,
    eta: float = 1.0,
    gamma: float = 0.5,
    days: Sequence[float] = DAYS,
    atm_error: float = 0.002,
    **more: Any,
) -> Surface:
    """A surface with a term structure that rises gently, and independent errors of its coordinates."""
    years = np.array(days) / 365
    covariance = [atm_error**2 * np.eye(5)] * len(years)
    svi = ssvi(vol**2 * years * (1 + 0.2 * years), rho, eta, gamma)
    return surface_of(years, svi, covariance=covariance, **more)


def flat_surface(vol: float = 0.5, days: Sequence[float] = (10, 40, 200)) -> Surface:
    """A surface without a smile: every closed form is Black's."""
    years = np.array(days) / 365
    return surface_of(years, RawSVI(vol**2 * years, 0.0, 0.0, 0.0, 1.0))


def realistic(years: npt.ArrayLike | None = None) -> Surface:
    """Twelve expiries from a day to a year with a crypto-like skew and covariances."""
    at = np.array([1, 2, 3, 7, 14, 21, 30, 60, 90, 180, 270, 365]) / 365 if years is None else np.asarray(years)
    rng = np.random.default_rng(7)
    covariance = []
    for _ in at:
        root = rng.normal(size=(5, 5)) * np.array([0.01, 0.01, 0.01, 0.02, 0.02])[:, None]
        covariance.append(root @ root.T)
    svi = ssvi(0.55**2 * at * (1 + 0.1 * np.sqrt(at)), -0.25, 0.9, 0.45)
    return surface_of(at, svi, covariance=covariance)


@st.composite
def certified_surfaces(
    draw: st.DrawFn, *, least: int = 1, first: float = 1e-6, last: float = 3.0, quotes: int = 0
) -> Surface:
    """Certified surfaces of `least` to six expiries between `first` and `last` years (30 seconds to 3 years).

    SSVI with gamma <= 1/2 and eta (1 + |rho|) < 2 is free of arbitrage, and the exact checks say so.
    """
    n = draw(st.integers(least, 6))
    span = np.log(last / first)
    gaps = np.array(draw(st.lists(st.floats(0.05, 1.0), min_size=n, max_size=n)))
    start = draw(st.floats(0.0, 0.7))
    years = first * np.exp(span * (start + (1.0 - start) * np.cumsum(gaps) / gaps.sum()) * 0.999)
    vol = draw(st.floats(0.1, 1.5))
    bumps = np.array(draw(st.lists(st.floats(0.3, 3.0), min_size=n, max_size=n)))
    theta = vol**2 * np.cumsum(np.diff(years, prepend=0.0) * bumps)
    rho = round(draw(st.floats(-0.9, 0.9)), 3)
    share, gamma = draw(st.floats(0.05, 0.98)), draw(st.floats(0.05, 0.5))
    surface = surface_of(years, ssvi(theta, rho, share * 2 / (1 + abs(rho)), gamma), quotes=quotes)
    assert surface.certificate, surface.certificate.sentence
    return surface
