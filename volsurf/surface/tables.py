"""A surface as columns, for tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.iv.forward import ForwardSource
from volsurf.surface.slices import SliceFit
from volsurf.svi._published import Enforcement
from volsurf.svi.certificate import Verdict
from volsurf.svi.fit import FitResult

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

Column = list[object] | npt.NDArray[np.generic]


def slice_columns(surface: Surface) -> dict[str, Column]:
    """One element per expiry: forward, fit, certificate."""
    smiles, fits = surface.smiles, [s.fit for s in surface.smiles]

    def of_fit(value: Callable[[SliceFit], object]) -> list[object]:
        return [None if fit is None else value(fit) for fit in fits]

    columns: dict[str, Column] = {
        "underlying": [surface.underlying] * len(smiles),
        "expiry": surface.expiries,
        "time": np.full(len(smiles), surface.time_ns),
        "years": surface.years,
        "forward": np.array([s.forward for s in smiles]),
        "forward_source": [ForwardSource(s.forward_source).name.lower() for s in smiles],
        "mismatch_bp": np.array([s.mismatch_bp for s in smiles]),
        "atm_vol": surface.atm_vol,
        "atm_error": of_fit(lambda f: f.atm_error),
    }
    columns |= _shape_columns(surface)
    for name in ("a", "b", "rho", "m", "sigma"):
        columns[name] = getattr(surface.svi, name)
    columns |= {
        "quotes_used": of_fit(lambda f: f.n_used),
        "inside": of_fit(lambda f: f.inside),
        "rms": of_fit(lambda f: f.rms),
        "result": of_fit(lambda f: FitResult(f.result).name.lower()),
        "enforcement": of_fit(lambda f: Enforcement(f.enforcement).label),
        "butterfly": of_fit(lambda f: Verdict(f.butterfly_verdict).name.lower()),
        "butterfly_k": of_fit(lambda f: f.butterfly_worst_k),
        "butterfly_g": of_fit(lambda f: f.butterfly_worst_value),
        "calendar": of_fit(lambda f: Verdict(f.calendar_verdict).name.lower()),
        "calendar_k": of_fit(lambda f: f.calendar_worst_k),
        "calendar_gain": of_fit(lambda f: f.calendar_worst_value),
    }
    return columns


def _shape_columns(surface: Surface) -> dict[str, Column]:
    """Skew, curvature, 25-delta risk reversal and butterfly with standard errors, NaN where an expiry has no curve of its own."""
    names = ("risk_reversal25", "risk_reversal25_error", "butterfly25", "butterfly25_error")
    shapes = ("atm_skew", "atm_skew_error", "atm_curvature", "atm_curvature_error")
    columns: dict[str, Column] = {}
    own = surface.fitted
    if own.size:
        at = surface.years[own]
        money = surface.atm(years=at)
        wings = (surface.risk_reversal, surface.risk_reversal_error, surface.butterfly, surface.butterfly_error)
        values = [money.skew, money.skew_error, money.curvature, money.curvature_error]
        for name, value in zip(shapes + names, values + [w(0.25, years=at) for w in wings], strict=True):
            columns[name] = column = np.full(len(surface), np.nan)
            column[own] = value
        return columns
    return {name: np.full(len(surface), np.nan) for name in shapes + names}


def quote_columns(surface: Surface) -> dict[str, Column]:
    """One element per quote that has a vol: its band, error bar, reason and the fitted vol."""
    smiles = surface.smiles
    counts = [len(s.strike) for s in smiles]

    def joined(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([getattr(s, name) for s in smiles])

    return {
        "underlying": [surface.underlying] * sum(counts),
        "expiry": np.repeat(surface.expiries, counts),
        "time": np.full(sum(counts), surface.time_ns),
        "strike": joined("strike"),
        "option_type": np.where(joined("is_call"), "call", "put").tolist(),
        "log_moneyness": joined("log_moneyness"),
        "bid_vol": joined("bid_vol"),
        "ask_vol": joined("ask_vol"),
        "vol": joined("vol"),
        "error": joined("error"),
        "fitted_vol": np.concatenate([s.fitted_vol(s.log_moneyness) for s in smiles]),
        "side": joined("side"),
        "reason": [QuoteReason(int(code)).label for code in joined("reason")],
    }
