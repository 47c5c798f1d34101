"""One HTML page about a fitted chain: figures, fits, certificates and the ledger. It loads nothing from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

import plotly.io
import plotly.offline

from volsurf.diagnostics.figures import through_figure
from volsurf.diagnostics.quality import Report, diagnose, whole_ledger
from volsurf.diagnostics.reasons import Ledger
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.diagnostics.through_view import EDGE_STYLE, edges_table
from volsurf.diagnostics.trouble import attention
from volsurf.surface.figures import smiles_figure, surface_figure, term_figure
from volsurf.surface.html import BAD, GOOD, UNSURE, basis_points, fits_table, percent, utc
from volsurf.surface.interpolation import HORIZON
from volsurf.svi.certificate import Verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.surface import Surface

THIRTY_DAYS = 30 / 365


def report_html(surfaces: Mapping[str, Surface], quotes: QuoteVols, *, title: str) -> str:
    """The page: one section an underlying, and the ledger of all rows.

    Args:
        surfaces: by underlying, as `fit_all_smiles` returns them.
        quotes: what they were fitted to.
        title: where the chain comes from, shown in the heading.
    """
    sections = "".join(_section(surface, diagnose(surface, quotes)) for surface in surfaces.values())
    links = "".join(f"<a href='#{escape(name, quote=True)}'>{escape(name)}</a>" for name in surfaces)
    names = ", ".join(surfaces)
    room = files("volsurf.surface")
    style = room.joinpath("report.css").read_text(encoding="utf-8")
    script = room.joinpath("report.js").read_text(encoding="utf-8")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'><meta name='color-scheme' content='light dark'>"
        f"<title>{escape(names)} volatility · volsurf</title><style>{style}</style>"
        f"<script>{plotly.offline.get_plotlyjs()}</script></head><body>"
        f"<header><div class='brand'>volsurf</div><nav>{links}<a href='#ledger'>ledger</a></nav></header>"
        f"<main><div class='title'><h1>{escape(names)} volatility surface{'s' if len(surfaces) > 1 else ''}</h1>"
        f"<p>{escape(title)} · quotes of {utc(quotes.time_ns)}</p></div>"
        f"{sections}{_ledger_section(whole_ledger(surfaces.values(), quotes))}</main>"
        f"<script>{script}</script></body></html>"
    )


def _section(surface: Surface, report: Report) -> str:
    certificate = surface.certificate
    colour = {Verdict.PROVED: GOOD, Verdict.VIOLATED: BAD}.get(certificate.verdict, UNSURE)
    fits = [s.fit for s in surface.smiles if s.fit is not None]
    flagged = sum(s.forward_flagged for s in surface.smiles)
    used, two_sided = sum(f.n_used for f in fits), sum(f.n_two_sided for f in fits)
    tiles = (
        _tile("30-day vol at the forward", *_thirty_days(surface)),
        _tile("expiries fitted", f"{len(fits)}<small>/{len(surface)}</small>", ""),
        _tile("certified", f"{certificate.certified}<small>/{certificate.slices}</small>", "", colour),
        _tile("quotes holding the curve", percent(report.inside, 1), f"{two_sided:,d} two-sided"),
        _tile("quotes used", f"{used:,d}", f"of {report.ledger.rows:,d} rows"),
        _through_tile(report.through),
        _tile("forwards to look at", f"{flagged}", "", BAD if flagged else ""),
    )
    notes = [(s.label, note) for s in report.slices for note in s.notes]
    listed = "".join(f"<li><b>{escape(label)}</b> {escape(note)}</li>" for label, note in notes)
    name = escape(surface.underlying, quote=True)
    warnings = "".join(
        f"<p class='verdict' style='--verdict:{BAD}'>{escape(text)}</p>" for text in attention(surface.smiles)
    )
    return (
        f"<section id='{name}'><h2>{name}</h2>"
        f"<p class='verdict' style='--verdict:{colour}'>{escape(certificate.sentence)}</p>{warnings}"
        f"<div class='tiles'>{''.join(tiles)}</div>"
        f"<div class='pair'><figure><figcaption>Surface</figcaption>{_embed(surface_figure(surface), f'surface-{name}')}</figure>"
        f"<figure><figcaption>Term structure</figcaption>{_embed(term_figure(surface), f'term-{name}')}</figure></div>"
        "<figure><figcaption>Smiles <span>bid and ask vols by strike, the fitted curve, dotted where nobody quotes; × left out"
        f"</span></figcaption>{_embed(smiles_figure(surface), f'smiles-{name}', narrowest=940)}</figure>"
        f"<figure><figcaption>Fits <span>raw SVI: w(k) = a + b(ρ(k − m) + √((k − m)² + σ²)), k = ln(K/F); hover a verdict for "
        f"its witness</span></figcaption><div class='scroll volsurf'>{fits_table(surface, parameters=True)}</div></figure>"
        + _through(report.through, name)
        + (f"<figure><figcaption>What to look at</figcaption><ul class='notes'>{listed}</ul></figure>" if notes else "")
        + "</section>"
    )


def _thirty_days(surface: Surface) -> tuple[str, str]:
    """The vol and its standard error, where the surface reaches that far."""
    if HORIZON * float(surface.years[-1]) < THIRTY_DAYS:
        return "–", "beyond the last expiry's reach"
    vol, error = (float(f(k=0, years=THIRTY_DAYS)) for f in (surface.vol, surface.vol_error))
    return percent(vol, 1), "" if math.isnan(error) else f"± {basis_points(error)} bp"


def _through_tile(matrix: ThroughMatrix | None) -> str:
    counts = {} if matrix is None else matrix.counts
    bids, asks = counts.get(ThroughState.BID_THROUGH, 0), counts.get(ThroughState.ASK_THROUGH, 0)
    detail = f"{bids} bid{'' if bids == 1 else 's'}, {asks} ask{'' if asks == 1 else 's'}"
    return _tile("quotes through the curve", f"{bids + asks}", detail, UNSURE if bids + asks else "")


def _through(matrix: ThroughMatrix | None, name: str) -> str:
    if matrix is None:
        return ""
    return (
        "<figure><figcaption>Quotes against the curve <span>through: a bid above the curve, or an ask below it, by more than a "
        "tick and two standard errors; the number in a cell is by how many basis points of vol</span></figcaption>"
        f"<div class='scroll volsurf'>{EDGE_STYLE}{edges_table(matrix)}</div>"
        f"{_embed(through_figure(matrix), f'through-{name}', narrowest=760)}</figure>"
    )


def _tile(label: str, value: str, detail: str, colour: str = "") -> str:
    style = f" style='color:{colour}'" if colour else ""
    return (
        f"<div class='tile'><div class='label'>{label}</div><div class='value'{style}>{value}</div>"
        f"<div class='detail'>{detail}</div></div>"
    )


def _embed(figure: go.Figure, identity: str, *, narrowest: int = 0) -> str:
    """The figure's data and layout as JSON in a script element; report.js draws it in the page's theme.

    A figure of many panels scrolls sideways on a page that is narrower than `narrowest` pixels: squeezed, its texts overlap.
    """
    data = json.loads(plotly.io.to_json(figure, remove_uids=True, engine="json"))
    data["layout"].pop("template", None)
    # "</" inside a script element would end it.
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    height = figure.layout.height
    return (
        f"<div class='scroll'><div class='plot' id='{identity}' style='height:{height}px;min-width:{narrowest}px'></div></div>"
        f"<script type='application/json' data-plot='{identity}'>{text}</script>"
    )


def _ledger_section(ledger: Ledger) -> str:
    most = max(ledger.counts.values(), default=1)
    rows = "".join(
        f"<tr class='{'used' if reason.is_used else ''}'><td class='count'>{n:,d}</td>"
        f"<td class='share'>{n / ledger.rows:.1%}</td>"
        f"<td class='bar'><i style='width:{max(100 * math.sqrt(n / most), 0.6):.1f}%'></i></td><th>{escape(reason.label)}</th>"
        f"<td class='why'>{escape(reason.sentence)}{_one_sided(ledger) if reason == 0 else ''}</td></tr>"
        for reason, n in ledger.counts.items()
    )
    return (
        "<section id='ledger'><h2>Ledger</h2><figure><figcaption>Every row, and what became of it "
        "<span>bar lengths grow with the square root of the count</span></figcaption>"
        f"<div class='scroll'><table class='ledger'><tbody>{rows}</tbody><tfoot><tr><td class='count'>{ledger.rows:,d}</td>"
        "<td class='share'>100%</td><td></td><th>rows</th><td></td></tr></tfoot></table></div></figure></section>"
    )


def _one_sided(ledger: Ledger) -> str:
    return f"; {ledger.one_sided:,d} of them have one side only and just bound the curve" if ledger.one_sided else ""
