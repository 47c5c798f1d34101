"""A surface as an HTML table: what a notebook shows, and the tables of a report."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.trouble import attention, is_off_quotes, off_quotes_sentence
from volsurf.svi._published import Enforcement, Smoothed
from volsurf.svi.certificate import Verdict

if TYPE_CHECKING:
    from volsurf.surface.slices import SliceFit, Smile
    from volsurf.surface.surface import Surface

# Colours that hold on a white and on a near-black page; letters take the page's own colour.
GOOD, BAD, UNSURE = "#1a9e78", "#d9541e", "#a58a1a"
_CURVE, _BAND = "#8a7bf0", "currentColor"
_MINUS = "\u2212"

STYLE = """
<style>
.volsurf{font:13px/1.45 Inter,system-ui,-apple-system,'Segoe UI',sans-serif;font-variant-numeric:tabular-nums}
.volsurf table{border-collapse:collapse;margin:.5em 0;background:none}
.volsurf th,.volsurf td{padding:.28em .7em;text-align:right;border-bottom:1px solid rgba(128,138,150,.25);background:none;
  white-space:nowrap}
.volsurf thead th{font-weight:600;opacity:.65;font-size:11px}
.volsurf tbody th{font-weight:600}
.volsurf .text{text-align:left;white-space:normal}
.volsurf .wide{overflow-x:auto}
.volsurf .badge{font-weight:600;font-size:11px;border-radius:9px;padding:.1em .6em;border:1px solid currentColor;cursor:help}
.volsurf .head{font-size:15px;font-weight:650}
.volsurf .muted{opacity:.65}
</style>
"""


def surface_html(surface: Surface) -> str:
    """The surface as a notebook shows it: one row an expiry, with a small picture of its smile."""
    certificate = surface.certificate
    colour = GOOD if certificate else BAD if certificate.verdict is Verdict.VIOLATED else UNSURE
    warnings = "".join(f"<div style='color:{BAD}'>{escape(text)}</div>" for text in attention(surface.smiles))
    return (
        f"{STYLE}<div class='volsurf'><div><span class='head'>{escape(surface.underlying)}</span> "
        f"<span class='muted'>implied volatility surface, {utc(surface.time_ns)}</span></div>"
        f"<div style='color:{colour}'>{escape(certificate.sentence)}</div>{warnings}{fits_table(surface)}</div>"
    )


def fits_table(surface: Surface, *, parameters: bool = False) -> str:
    """One row an expiry: forward, vol at the forward, share inside, verdicts; with `parameters` the slice's five numbers too."""
    names = ("a", "b", "ρ", "m", "σ") if parameters else ()
    heads = [
        "expiry",
        "fit",
        "days",
        "forward",
        "ATM vol",
        "± bp",
        *names,
        "quotes",
        "inside",
        "rms",
        "smile",
        "butterfly",
        "calendar",
    ]
    body = "".join(_row(smile, parameters) for smile in surface.smiles)
    head = "".join(f"<th class='text'>{h}</th>" if h == "fit" else f"<th>{h}</th>" for h in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(smile: Smile, parameters: bool) -> str:
    fit = smile.fit
    forward = f"<span title='{escape(_forward_title(smile), quote=True)}'>{smile.forward:,.2f}"
    forward += f"<span style='color:{BAD}'> ⚑</span></span>" if smile.forward_flagged else "</span>"
    # How it ended comes first: on a narrow page the last columns are out of sight.
    ended = "not fitted" if fit is None else f"{escape(_short(fit))}{_marks(fit)}"
    cells = [
        f"<th>{smile.expiry_label}</th><td class='text'>{ended}</td>",
        _cell(days(smile.years)),
        f"<td>{forward}</td>",
    ]
    if fit is None:
        columns = 8 + (5 if parameters else 0)
        return f"<tr>{''.join(cells)}<td colspan={columns} class='text'>no usable quote and no neighbour to learn from</td></tr>"
    cells += [_cell(percent(smile.atm_vol, 2)), _cell(basis_points(fit.atm_error))]
    if parameters:
        cells += [_cell(signed(v, 5)) for v in (fit.a, fit.b, fit.rho, fit.m, fit.sigma)]
    cells += [
        _cell(f"{fit.n_used}"),
        _cell(percent(fit.inside, 1)),
        _cell("–" if math.isnan(fit.rms) else f"{fit.rms:.2f}"),
        f"<td style='padding:0 .4em'>{sparkline(smile)}</td>",
        f"<td>{badge(fit.butterfly_verdict, fit.butterfly_sentence)}</td>",
        f"<td>{badge(fit.calendar_verdict, fit.calendar_sentence)}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _forward_title(smile: Smile) -> str:
    gap = "" if math.isnan(smile.mismatch_bp) else f"; parity is {smile.mismatch_bp:+.1f} bp from the venue"
    return f"{smile.forward_sentence}{gap}"


def _short(fit: SliceFit) -> str:
    return fit.sentence.split(":")[0].split(",")[0]


def _marks(fit: SliceFit) -> str:
    """Badges for what was done to the curve besides fitting it, where that matters to whoever quotes from it."""
    marks = []
    if is_off_quotes(fit):
        marks.append(("off its quotes", BAD, off_quotes_sentence(fit)))
    if fit.jump:
        title = (
            "behind a scheduled jump of the price: the parameters and the certificate are those of the world without it"
        )
        marks.append(("event", _CURVE, title))
    if fit.enforcement >= Enforcement.MOVED:
        marks.append((fit.enforcement_label, BAD if fit.is_guarded else UNSURE, fit.enforcement_sentence))
    if fit.smoothed == Smoothed.JUMPED:
        marks.append(("jumped", UNSURE, "the quotes left the last curve by more than noise, and the filter let them"))
    return "".join(
        f" <span class='badge' style='color:{colour}' title='{escape(title, quote=True)}'>{name}</span>"
        for name, colour, title in marks
    )


def badge(verdict: int, sentence: str) -> str:
    """A verdict as a word in its colour, the sentence behind it on hover."""
    name = Verdict(verdict).name.lower()
    colour = {Verdict.PROVED: GOOD, Verdict.VIOLATED: BAD}.get(Verdict(verdict), UNSURE)
    return f"<span class='badge' style='color:{colour}' title='{escape(sentence, quote=True)}'>{name}</span>"


def sparkline(smile: Smile, width: int = 132, height: int = 34) -> str:
    """Bid-ask bars and the fitted curve within three standard deviations, as inline SVG."""
    deviation = smile.atm_vol * math.sqrt(smile.years)
    if not (deviation > 0 and math.isfinite(deviation)):
        return ""
    y = smile.log_moneyness / deviation
    keep = smile.used & (np.abs(y) <= 3) & np.isfinite(smile.bid_vol) & np.isfinite(smile.ask_vol)
    grid = np.linspace(-3, 3, 49)
    curve = smile.fitted_vol(grid * deviation)
    low = float(min(curve.min(), np.quantile(smile.bid_vol[keep], 0.05) if keep.any() else curve.min()))
    high = float(max(curve.max(), np.quantile(smile.ask_vol[keep], 0.95) if keep.any() else curve.max()))
    span = max(high - low, 1e-6)

    def at_x(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.asarray(3 + (np.asarray(value, np.float64) + 3) / 6 * (width - 6))

    def at_y(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.asarray(np.clip(3 + (high - np.asarray(value, np.float64)) / span * (height - 6), 1, height - 1))

    bars = "".join(
        f"M{x:.1f} {top:.1f}V{bottom:.1f}"
        for x, top, bottom in zip(
            at_x(y[keep]), at_y(smile.ask_vol[keep]), at_y(smile.bid_vol[keep]) + 0.4, strict=True
        )
    )
    points = " ".join(f"{x:.1f},{v:.1f}" for x, v in zip(at_x(grid), at_y(curve), strict=True))
    return (
        f"<svg width='{width}' height='{height}' viewBox='0 0 {width} {height}' style='display:block' aria-hidden='true'>"
        f"<path d='{bars}' stroke='{_BAND}' stroke-opacity='.45' stroke-width='1.6' fill='none'/>"
        f"<polyline points='{points}' stroke='{_CURVE}' stroke-width='1.5' fill='none'/></svg>"
    )


def utc(time_ns: int) -> str:
    """2026-02-11 09:30:00 UTC"""
    return str(np.datetime64(time_ns, "ns").astype("datetime64[s]")).replace("T", " ") + " UTC"


def days(years: float) -> str:
    """Days to expiry, with as many decimals as matter."""
    value = 365 * years
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def percent(value: float, decimals: int) -> str:
    """41.3%, or a dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.{decimals}f}%"


def basis_points(value: float) -> str:
    """A vol in basis points: whole ones from ten up, one decimal below; a dash for NaN."""
    return "–" if math.isnan(value) else f"{1e4 * value:.{0 if abs(value) >= 1e-3 else 1}f}"


def signed(value: float, decimals: int) -> str:
    """A number with a true minus sign."""
    return f"{value:.{decimals}f}".replace("-", _MINUS)


def _cell(text: str) -> str:
    return f"<td>{text}</td>"
