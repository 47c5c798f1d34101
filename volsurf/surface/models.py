"""SSVI and eSSVI on smiles: the same `Surface`, from a family of curves that is free of arbitrage by construction.

They have three numbers an expiry (SSVI: one, and three for the surface) where SVI has five. That fits real smiles worse, and
needs fewer quotes: for comparison, and for markets too thin to fit SVI to. Their slices are raw SVI slices, so everything that
reads a surface reads these too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import FloatArray, IntArray
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Condition, Verdict
from volsurf.svi.essvi import ESSVI, fit_essvi
from volsurf.svi.fit import Enforcement
from volsurf.svi.params import RawSVI
from volsurf.svi.ssvi import SSVI, fit_ssvi

MODELS = ("ssvi", "essvi")
"""Families that `fit_model` fits; "svi" itself is `fit_smiles`."""


def fit_model(smiles: Sequence[Smile], model: str, previous: Surface | None = None) -> Surface:
    """The surface of the smiles of one underlying, fitted with "ssvi" or "essvi".

    Every slice has the family's misfit, error bars and an exact certificate. No quote is left out as an outlier: what three
    numbers cannot follow is the family's fault more often than the quote's.

    Args:
        previous: the last surface; one of the same family and expiries is where the fit starts.

    Raises:
        InputError: another model, no smiles, smiles of more than one underlying, or none with a usable quote.
    """
    if model not in MODELS:
        raise InputError(f'model must be "ssvi" or "essvi" ("svi" is fit_smiles), was {model!r}')
    names = sorted({s.underlying for s in smiles})
    if len(names) != 1:
        raise InputError(f"fit_model fits one underlying, was {', '.join(names) or 'none'}")
    smiles = sorted(smiles, key=lambda s: s.expiry_ns)
    k, vol, error = ([getattr(s, name) for s in smiles] for name in ("log_moneyness", "vol", "error"))
    years, side = np.array([s.years for s in smiles]), [s.side.astype(np.float64) for s in smiles]
    if not any(np.isfinite(one).any() for one in error):
        raise InputError(f"no expiry of {names[0]} has a usable quote")
    fit: Any
    if model == "ssvi":
        fit = fit_ssvi(k, vol, error, years, side=side, start=_start_ssvi(smiles, previous))
    else:
        fit = fit_essvi(k, vol, error, years, side=side, start=_start_essvi(smiles, previous))
    n = len(smiles)
    scores = Scores.of(smiles, fit.residuals)
    slices = certified_slices(
        fit.raw,
        {
            "result": fit.result,
            "cost": fit.cost,
            "fitted_cost": fit.cost,
            "iterations": np.full(n, fit.iterations),
            "atm_error": fit.atm_error,
            "theta": fit.raw.total_variance(0.0),
            "model": np.full(n, model),
            # The family has no arbitrage to take out.
            "enforcement": np.full(n, int(Enforcement.AS_FITTED)),
            "move": np.zeros(n),
            "quoted_ns": quoted_ns(smiles, scores),
            **scores.columns(),
        },
        [scaled_covariance(fit.params, i, fit.covariance[i]) for i in range(n)],
    )
    fitted = [s.with_fit(f, _all_used(s)) for s, f in zip(smiles, slices, strict=True)]
    return Surface(names[0], max(s.time_ns for s in smiles), tuple(fitted))


@dataclass(frozen=True, eq=False)
class Scores:
    """How curves lie to the quotes of their smiles; one entry a slice."""

    rms: FloatArray
    inside: FloatArray
    n_used: FloatArray
    n_two_sided: FloatArray
    autocorrelation: FloatArray

    @classmethod
    def of(cls, smiles: Sequence[Smile], residuals: Sequence[FloatArray]) -> Scores:
        """Of (fit - vol)/error of every quote, NaN for one that is not used."""
        table = np.full((len(smiles), 5), np.nan)
        for row, smile, residual in zip(table, smiles, residuals, strict=True):
            used = np.isfinite(residual)
            two_sided = used & np.isfinite(smile.bid_vol) & np.isfinite(smile.ask_vol)
            row[2:4] = used.sum(), two_sided.sum()
            if used.any():
                counted = np.where(residual * smile.side >= 0.0, residual, 0.0)[used]
                row[0] = np.sqrt((counted**2).mean())
            if two_sided.any():
                vol = (smile.vol + residual * smile.error)[two_sided]
                # The curve is carried through the residual, so an edge is met to rounding only.
                bid, ask = smile.bid_vol[two_sided] - 1e-12, smile.ask_vol[two_sided] + 1e-12
                row[1] = ((vol >= bid) & (vol <= ask)).mean()
                away = residual[two_sided] - residual[two_sided].mean()
                spread = float(away @ away)
                row[4] = float(away[1:] @ away[:-1]) / spread if spread > 0.0 else 0.0
        return cls(*table.T)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """By the names of `SliceFit`."""
        return {
            "rms": self.rms,
            "inside": self.inside,
            "n_used": self.n_used.astype(np.int64),
            "n_two_sided": self.n_two_sided.astype(np.int64),
            "autocorrelation": self.autocorrelation,
        }


def quoted_ns(smiles: Sequence[Smile], scores: Scores) -> IntArray:
    """When each slice had quotes of its own: now, or never."""
    return np.where(scores.n_used > 0, [s.time_ns for s in smiles], 0).astype(np.int64)


def certified_slices(
    raw: RawSVI, columns: dict[str, npt.NDArray[Any]], covariances: Sequence[tuple[float, ...]]
) -> list[SliceFit]:
    """Slices of one surface in order of expiry, with exact certificates of each and of each pair."""
    n = len(raw)
    butterfly, calendar = check_butterfly(raw), check_calendar(raw[:-1], raw[1:])
    verdict, condition = np.full(n, Verdict.PROVED, np.int8), np.full(n, Condition.HOLDS, np.int8)
    worst_k, worst_value = np.full(n, np.nan), np.full(n, np.nan)
    verdict[1:], condition[1:] = calendar.verdict, calendar.condition
    worst_k[1:], worst_value[1:] = calendar.worst_k, calendar.worst_value
    table: dict[str, npt.NDArray[Any]] = {
        **{name: getattr(raw, name) for name in ("a", "b", "rho", "m", "sigma")},
        "butterfly_verdict": butterfly.verdict,
        "butterfly_condition": butterfly.condition,
        "butterfly_worst_k": butterfly.worst_k,
        "butterfly_worst_value": butterfly.worst_value,
        "calendar_verdict": verdict,
        "calendar_condition": condition,
        "calendar_worst_k": worst_k,
        "calendar_worst_value": worst_value,
        **columns,
    }
    rows = zip(*(column.tolist() for column in table.values()), strict=True)
    return [
        SliceFit(**dict(zip(table, row, strict=True)), covariance=covariance)
        for row, covariance in zip(rows, covariances, strict=True)
    ]


def scaled_covariance(params: SSVI | ESSVI, index: int, covariance: FloatArray) -> tuple[float, ...]:
    """Covariance of a slice's (theta, rho, psi) as that of (alpha, U, L, mu, varsigma) in the scale theta; empty where unknown.

    Upper triangle by rows, of rank three. The scale is held fixed, as everywhere.
    """
    if not np.isfinite(covariance).all():
        return ()
    theta, psi = float(params.theta[index]), float(params.psi[index])
    rho = float(np.broadcast_to(params.rho, (len(params),))[index])
    root = np.sqrt(theta)
    jacobian = np.array(
        [
            [0.5 * (1.0 - rho**2) / theta, -rho, 0.0],
            [0.0, 0.5 * psi / root, 0.5 * (1.0 + rho) / root],
            [0.0, -0.5 * psi / root, 0.5 * (1.0 - rho) / root],
            [-rho / (psi * root), -theta / (psi * root), rho * theta / (psi**2 * root)],
            [1.0 / theta, -rho / (1.0 - rho**2), -1.0 / psi],
        ]
    )
    full = jacobian @ covariance @ jacobian.T
    return tuple(full[np.triu_indices(5)].tolist())


def _all_used(smile: Smile) -> npt.NDArray[np.uint8]:
    """The reasons, with what another fit had left out as an outlier taken back in."""
    back = (smile.reason == QuoteReason.OUTLIER) & np.isfinite(smile.error)
    return np.where(back, np.uint8(QuoteReason.USED), smile.reason)


def _known(smiles: Sequence[Smile], previous: Surface | None, model: str) -> RawSVI | None:
    """The slices of the same expiries in a surface of the same family, at today's times with the same vols."""
    if previous is None:
        return None
    last = {s.expiry_ns: s for s in previous.smiles if s.fit is not None and s.fit.model == model}
    if any(s.expiry_ns not in last for s in smiles):
        return None
    found = [last[s.expiry_ns] for s in smiles]
    raw = previous.svi[np.searchsorted(previous.expiries, [s.expiry_ns for s in found])]
    ratio = np.array([s.years / before.years for s, before in zip(smiles, found, strict=True)])
    return RawSVI(raw.a * ratio, raw.b * ratio, raw.rho, raw.m, raw.sigma)


def _start_essvi(smiles: Sequence[Smile], previous: Surface | None) -> ESSVI | None:
    raw = _known(smiles, previous, "essvi")
    if raw is None or not (np.diff(raw.total_variance(0.0)) > 0).all():
        return None
    return ESSVI(raw.total_variance(0.0), raw.rho, 2.0 * raw.b)


def _start_ssvi(smiles: Sequence[Smile], previous: Surface | None) -> SSVI | None:
    raw = _known(smiles, previous, "ssvi")
    if raw is None or len(raw) < 2 or not (np.diff(raw.total_variance(0.0)) > 0).all():
        return None
    theta = raw.total_variance(0.0)
    # psi = eta (theta/(1 + theta))^(1 - gamma): two expiries give both.
    base = np.log(theta / (1.0 + theta))
    power = float(np.log(raw.b[-1] / raw.b[0]) / (base[-1] - base[0]))
    gamma = min(max(1.0 - power, 0.0), 0.998)
    return SSVI(theta, float(raw.rho[0]), float(2.0 * raw.b[0] * np.exp(-(1.0 - gamma) * base[0])), gamma)
