"""A risk table as HTML: what a notebook shows."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from volsurf.surface.bumps import NODES
from volsurf.surface.html import BAD, GOOD, STYLE
from volsurf.surface.portfolio_html import number
from volsurf.surface.risk import check_sentence
from volsurf.surface.slices import expiry_label

if TYPE_CHECKING:
    from volsurf.surface.risk import RiskTable


def risk_html(risk: RiskTable) -> str:
    """The bumps of the whole surface as a list, those of single nodes as a matrix of expiries and deltas."""
    usd, coin = risk.total_usd, risk.total_coin
    convexity = risk.convexity_usd.sum(axis=1)
    rows = []
    for i, bump in enumerate(risk.bumps):
        if bump.kind == "node":
            continue
        up, down = risk.checks[i]
        free, sentence = bool(up) and bool(down), check_sentence(up, down)
        mark = f"<span class='badge' style='color:{GOOD if free else BAD}' title='{escape(sentence, quote=True)}'>"
        rows.append(
            f"<tr><th class='text'>{escape(bump.label)}</th><td>{number(float(usd[i]), 2, fixed=True)}</td>"
            f"<td>{number(float(coin[i]), 6)}</td><td>{number(float(convexity[i]), 2, fixed=True)}</td>"
            f"<td>{mark}{'none seen' if free else 'arbitrage'}</span></td></tr>"
        )
    head = "".join(f"<th>{h}</th>" for h in ("bump", "P&amp;L, usd", "P&amp;L, coin", "convexity, usd", "arbitrage"))
    return (
        f"{STYLE}<div class='volsurf'><div><span class='head'>{escape(risk.portfolio.underlying)} risk</span> "
        f"<span class='muted'>{len(risk.portfolio)} positions, repriced both ways</span></div>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{_matrix(risk)}</div>"
    )


def _matrix(risk: RiskTable) -> str:
    if not risk.expiries.size:
        return ""
    vega = risk.vega_usd
    body = "".join(
        f"<tr><th>{expiry_label(int(expiry))}</th>"
        + "".join(f"<td>{number(float(v), 2, fixed=True)}</td>" for v in (*row, row.sum()))
        + "</tr>"
        for expiry, row in zip(risk.expiries, vega, strict=True)
    )
    sums = "".join(f"<td>{number(float(v), 2, fixed=True)}</td>" for v in (*vega.sum(axis=0), vega.sum()))
    head = "".join(f"<th>{h}</th>" for h in ("P&amp;L per node, usd", *NODES, "all"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}<tr><th>all</th>{sums}</tr></tbody></table>"
