"""What a panel's frame looks like in bytes: the one place on this side that knows (`decode` in live.js is the other).

Little-endian, version 1:

    0       4  magic "VSP1"
    4       4  u32 length h of the header, a multiple of 8
    8       h  header, JSON in UTF-8 padded with spaces: the facts of the frame and "columns": [[name, type, count], …]
    8+h        the columns in that order, each padded to a multiple of 8 bytes; type is one of f8, f4, i4, i1

A fitted smile travels as its five numbers and their covariance, and the browser draws the curve and its error band from
them, so a frame is as small as its quotes and a hover read-out is exact. An engine publishes no event layer, so no slice
carries a jump. Slices are rows of the columns below, in order of
expiry; the marks of all slices follow one another and `marks` says how many belong to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.trouble import Trouble

if TYPE_CHECKING:
    from volsurf.engine.frame import Frame
    from volsurf.surface.slices import Smile
    from volsurf.surface.surface import Surface

MAGIC = b"VSP1"
MARKET_REACH = 5.0
"""|ln(K/F)| / (atm vol · √years) beyond which nothing is shown as market: there venues and SVI differ by tens of vol points."""

_TYPES = {"f8": "<f8", "f4": "<f4", "i4": "<i4", "i1": "i1"}

_NAN = float("nan")


def encode(header: dict[str, object], columns: Sequence[tuple[str, str, npt.ArrayLike]]) -> bytes:
    """One payload. `columns` are (name, type, values); the header must not hold a key "columns"."""
    arrays = [(name, kind, np.ascontiguousarray(values, dtype=_TYPES[kind]).ravel()) for name, kind, values in columns]
    facts = msgspec.json.encode(header | {"columns": [[name, kind, array.size] for name, kind, array in arrays]})
    facts += b" " * (-len(facts) % 8)
    parts = [MAGIC, len(facts).to_bytes(4, "little"), facts]
    for _, _, array in arrays:
        raw = array.tobytes()
        parts += (raw, b"\0" * (-len(raw) % 8))
    # One fresh bytes object: the comm sends it later, from another thread, so it must not share memory with anything live.
    return b"".join(parts)


def frame_facts(frame: Frame, underlying: str) -> dict[str, object]:
    """The part of every header that says which frame it is, of what, and how long the venues have been silent."""
    return {
        "number": frame.number,
        "time_ms": frame.time_ns / 1e6,
        "underlying": underlying,
        "underlyings": list(frame.surfaces),
        "feed_age": feed_age(frame),
    }


def feed_age(frame: Frame) -> float:
    """Seconds since the feed heard of last was heard of; 0 where there is no feed to be silent."""
    return min((status.silent_ns for status in frame.health.values()), default=0) / 1e9


def surface_payload(header: dict[str, object], surface: Surface | None) -> bytes:
    """The fitted slices of a surface and where each was quoted: what the 3-D panel needs."""
    return encode(header | {"kind": "surface"}, _slice_columns(surface.smiles if surface else ()))


def smiles_payload(header: dict[str, object], surface: Surface | None) -> bytes:
    """The fitted slices of a surface and every quote of them as a mark: what the smile charts need."""
    smiles = surface.smiles if surface else ()
    shown = [_shown(smile) for smile in smiles]
    columns = _slice_columns(smiles)
    columns.append(("marks", "i4", [int(mask.sum()) for mask in shown]))
    for name, attribute, kind in (
        ("strike", "strike", "f4"),
        ("bid_vol", "bid_vol", "f4"),
        ("ask_vol", "ask_vol", "f4"),
        ("side", "side", "i1"),
        ("reason", "reason", "i1"),
    ):
        parts = [np.asarray(getattr(smile, attribute))[mask] for smile, mask in zip(smiles, shown, strict=True)]
        columns.append((name, kind, np.concatenate(parts) if parts else np.zeros(0)))
    reasons = next(column for name, _, column in columns if name == "reason")
    columns.append(("excluded", "i1", ~np.isin(reasons, _USED)))
    names = {int(code): QuoteReason(int(code)).label for code in np.unique(reasons)}
    return encode(header | {"kind": "smiles", "reasons": names}, columns)


_USED = np.array([reason for reason in QuoteReason if reason.is_used], np.uint8)


def _slice_columns(smiles: Sequence[Smile]) -> list[tuple[str, str, npt.ArrayLike]]:
    rows = [_slice_row(smile) for smile in smiles]
    columns: list[tuple[str, str, npt.ArrayLike]] = [(n, kind, [row[n] for row in rows]) for n, kind in _SLICE_COLUMNS]
    return [*columns, ("covariance", "f4", [value for smile in smiles for value in _covariance(smile)])]


def _covariance(smile: Smile) -> Sequence[float]:
    """Fifteen numbers, see `SliceFit.covariance`; NaN where there is none."""
    return (smile.fit and smile.fit.covariance) or _NO_COVARIANCE


_SLICE_COLUMNS = (
    ("expiry_ms", "f8"),
    ("years", "f8"),
    ("forward", "f8"),
    ("a", "f8"),
    ("b", "f8"),
    ("rho", "f8"),
    ("m", "f8"),
    ("sigma", "f8"),
    ("theta", "f8"),  # scale of the coordinates the covariance is in
    ("low", "f4"),  # log-moneyness of the outermost quotes that count as market
    ("high", "f4"),
    ("inside", "f4"),  # share of used quotes whose band holds the curve
    ("rms", "f4"),
    ("butterfly_k", "f4"),
    ("calendar_k", "f4"),
    ("move", "f4"),  # largest change of vol that enforcement and filter made at a used quote
    ("used", "i4"),
    ("two_sided", "i4"),
    ("fitted", "i1"),
    ("butterfly", "i1"),  # `Verdict` values
    ("calendar", "i1"),
    ("trouble", "i1"),  # `Trouble`
)
_NUMBERS = ("a", "b", "rho", "m", "sigma", "theta", "inside", "rms", "butterfly_k", "calendar_k", "move")
_CODES = ("used", "two_sided", "fitted", "butterfly", "calendar", "trouble")
_NO_COVARIANCE = (_NAN,) * 15


def _slice_row(smile: Smile) -> dict[str, float]:
    fit = smile.fit
    low, high = _quoted_range(smile)
    row = {"expiry_ms": smile.expiry_ns / 1e6, "years": smile.years, "forward": smile.forward, "low": low, "high": high}
    if fit is None:
        return row | dict.fromkeys(_NUMBERS, _NAN) | dict.fromkeys(_CODES, 0)
    return row | {
        "a": fit.a,
        "b": fit.b,
        "rho": fit.rho,
        "m": fit.m,
        "sigma": fit.sigma,
        "theta": fit.theta,
        "inside": fit.inside,
        "rms": fit.rms,
        "butterfly_k": fit.butterfly_worst_k,
        "calendar_k": fit.calendar_worst_k,
        "move": fit.move,
        "used": fit.n_used,
        "two_sided": fit.n_two_sided,
        "fitted": 1,
        "butterfly": int(fit.butterfly_verdict),
        "calendar": int(fit.calendar_verdict),
        "trouble": int(Trouble.of(fit)),
    }


def atm_vol(smile: Smile) -> float:
    """Vol of the fitted curve at the forward; NaN without a fit."""
    fit = smile.fit
    if fit is None or not smile.years > 0:
        return _NAN
    variance = fit.a + fit.b * (np.hypot(fit.m, fit.sigma) - fit.rho * fit.m)
    return float(np.sqrt(variance / smile.years)) if variance > 0 else _NAN


def _reach(smile: Smile) -> float:
    """Log-moneyness that counts as market on either side; everything where there is no curve to measure it by."""
    reach = MARKET_REACH * atm_vol(smile) * float(np.sqrt(max(smile.years, 0.0)))
    return reach if np.isfinite(reach) else np.inf


def _shown(smile: Smile) -> npt.NDArray[np.bool_]:
    vols = np.isfinite(smile.bid_vol) | np.isfinite(smile.ask_vol)
    return np.asarray(vols & (np.abs(smile.log_moneyness) <= _reach(smile)))


def _quoted_range(smile: Smile) -> tuple[float, float]:
    """Log-moneyness of the outermost two-sided quotes that were used, within reach; (NaN, NaN) where there are none."""
    k = np.asarray(smile.log_moneyness)[_shown(smile) & (np.asarray(smile.side) == 0)]
    return (float(k.min()), float(k.max())) if k.size else (_NAN, _NAN)
