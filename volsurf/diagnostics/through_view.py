"""The through matrix as a notebook shows it: a strip of strikes for every expiry, and the largest edges in numbers."""

from __future__ import annotations

from html import escape

import numpy as np

from volsurf.diagnostics.page import STATE_COLOURS, STATE_OPACITY, age, edge_size, number, premium, strike, vol
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.surface.html import STYLE, utc

_SHOWN = 8
_REACH = 4.5
"""Half-width of a strip in standard deviations of the expiry."""
_WIDTH, _LANE = 460, 11

EDGE_STYLE = """
<style>
.volsurf .through td.strip{padding:.15em .7em;text-align:left}
.volsurf .through rect:hover{stroke:currentColor;stroke-width:1.5}
.volsurf .key{display:inline-block;margin-right:1.2em;white-space:nowrap}
.volsurf .key i{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.4em;vertical-align:-.05em}
.volsurf .bid{color:#1585e0;font-weight:600}
.volsurf .ask{color:#e2611a;font-weight:600}
</style>
"""
"""What the tables of this module need besides the style of `volsurf.surface.html`."""


def through_html(matrix: ThroughMatrix) -> str:
    """Counts, one strip an expiry, and the largest edges."""
    moved = matrix.time_ns - matrix.surface_time_ns
    when = f"quotes of {utc(matrix.time_ns)}" + (f", surface {age(moved)} older" if moved else "")
    return (
        f"{STYLE}<div class='volsurf'><div><span class='head'>{escape(matrix.underlying)}</span> "
        f"<span class='muted'>quotes against the fitted surface, {when}</span></div>{through_body(matrix)}</div>"
    )


def through_body(matrix: ThroughMatrix) -> str:
    """The same without heading and page style, for a page that has its own."""
    if not len(matrix):
        return _empty(matrix)
    return f"{EDGE_STYLE}{_legend(matrix)}{_strips(matrix)}{edges_table(matrix)}"


def _empty(matrix: ThroughMatrix) -> str:
    return (
        f"<p class='muted'>no option of {escape(matrix.underlying)} is listed: nothing to compare with the surface</p>"
    )


def _legend(matrix: ThroughMatrix) -> str:
    keys = "".join(
        f"<span class='key' title='{escape(state.sentence, quote=True)}'>"
        f"<i style='background:{STATE_COLOURS[state]};opacity:{max(STATE_OPACITY.get(state, 1.0), 0.4)}'></i>"
        f"{n:,d} {state.label}</span>"
        for state, n in matrix.counts.items()
    )
    return f"<div style='margin:.4em 0'>{keys}</div>"


def _strips(matrix: ThroughMatrix) -> str:
    several = len(matrix.venues) > 1
    rows = []
    bounds = np.searchsorted(matrix.expiry, np.arange(len(matrix.expiries) + 1))
    for i, label in enumerate(matrix.expiry_labels):
        mine = matrix.select(np.arange(bounds[i], bounds[i + 1]))
        state = mine.state
        counts = np.bincount(state, minlength=len(ThroughState))
        curve = np.count_nonzero(state <= ThroughState.ASK_THROUGH)
        best = mine.largest_cells(1)
        largest = "" if not len(best) else _edge(mine, int(best[0]))
        quiet = int(counts[ThroughState.STALE] + counts[ThroughState.MISSING])
        rows.append(
            f"<tr><th>{escape(label)}</th><td class='strip'>{_strip(mine)}</td>"
            f"<td class='bid'>{counts[ThroughState.BID_THROUGH] or ''}</td>"
            f"<td class='ask'>{counts[ThroughState.ASK_THROUGH] or ''}</td>"
            f"<td>{counts[ThroughState.INSIDE]}/{curve}</td><td>{quiet or ''}</td><td>{largest}</td></tr>"
        )
    lanes = f"; lanes from the top: {', '.join(escape(v) for v in matrix.venues)}" if several else ""
    head = (
        f"<th>expiry</th><th class='text'>strikes, −{_REACH:g} to +{_REACH:g} sd from the forward{lanes}</th><th>bid</th>"
        "<th>ask</th><th>inside</th><th>no quote</th><th>largest edge</th>"
    )
    return f"<table class='through'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _strip(matrix: ThroughMatrix) -> str:
    """One expiry as inline SVG: a lane a venue, a mark a strike. Cells that are through carry their numbers on hover."""
    height = _LANE * len(matrix.venues) + 4
    y = _standardised(matrix)
    x = 4 + (np.clip(y, -_REACH, _REACH) + _REACH) / (2 * _REACH) * (_WIDTH - 8)
    top = 2 + _LANE * matrix.venue
    parts = [f"<path d='M{_WIDTH / 2:.1f} 0V{height}' stroke='currentColor' stroke-opacity='.35'/>"]
    for state in ThroughState:
        cells = np.flatnonzero(matrix.state == state)
        if not len(cells):
            continue
        if state.is_through:
            for c in cells.tolist():
                tip = escape(cell_sentence(matrix, c), quote=True)
                parts.append(
                    f"<rect x='{x[c] - 2.5:.1f}' y='{top[c]}' width='5' height='{_LANE - 2}' rx='1' "
                    f"fill='{STATE_COLOURS[state]}'><title>{tip}</title></rect>"
                )
            continue
        lines = "".join(f"M{x[c]:.1f} {top[c] + 1}v{_LANE - 4}" for c in cells.tolist())
        tip = f"<title>{escape(state.label)}: {escape(state.sentence)}</title>"
        parts.append(
            f"<path d='{lines}' stroke='{STATE_COLOURS[state]}' stroke-width='2.4' fill='none' "
            f"stroke-opacity='{STATE_OPACITY.get(state, 1.0)}'>{tip}</path>"
        )
    return f"<svg width='{_WIDTH}' height='{height}' viewBox='0 0 {_WIDTH} {height}' style='display:block'>{''.join(parts)}</svg>"


def _standardised(matrix: ThroughMatrix) -> np.ndarray:
    """Log-moneyness in standard deviations by the curve next to the forward; by rank of strike where there is no curve."""
    k = matrix.log_moneyness
    known = np.isfinite(k) & np.isfinite(matrix.fitted_vol)
    if known.any():
        nearest = np.flatnonzero(known)[np.argmin(np.abs(k[known]))]
        years = (matrix.expiries[matrix.expiry[nearest]] - matrix.time_ns) / (365 * 86_400e9)
        deviation = matrix.fitted_vol[nearest] * np.sqrt(max(years, 0.0))
        if deviation > 0:
            return np.asarray(np.where(np.isfinite(k), k / deviation, 0.0))
    _, rank = np.unique(matrix.strike, return_inverse=True)
    return np.asarray((rank + 0.5) / max(int(rank.max(initial=0)) + 1, 1) * 2 * _REACH - _REACH)


def _edge(matrix: ThroughMatrix, c: int) -> str:
    kind = "bid" if matrix.edge_is_bid[c] else "ask"
    return f"<span class='{kind}'>{kind} {number(float(matrix.edge_bp[c]), 0)} bp</span> at {strike(float(matrix.strike[c]))}"


def cell_sentence(matrix: ThroughMatrix, c: int) -> str:
    """One cell in words, with all its numbers."""
    state = ThroughState(int(matrix.state[c]))
    name = (
        f"{matrix.underlying} {matrix.expiry_labels[matrix.expiry[c]]} {strike(float(matrix.strike[c]))} "
        f"{'call' if matrix.is_call[c] else 'put'}, {matrix.venues[matrix.venue[c]]}"
    )
    if state in (ThroughState.REJECTED, ThroughState.MISSING, ThroughState.STALE):
        why = QuoteReason(int(matrix.reason[c])).sentence if state is ThroughState.REJECTED else state.sentence
        return f"{name}: {state.label}, {why}"
    bp = float(matrix.edge_bp[c])
    kind = "bid" if matrix.edge_is_bid[c] else "ask"
    place = f"{kind} {edge_size(*(abs(float(v[c])) for v in (matrix.edge_bp, matrix.edge_ticks, matrix.edge_se)))}"
    where = (
        "through the curve"
        if state.is_through
        else "outside, within what the curve is uncertain"
        if bp > 0
        else "from it"
    )
    held = ""
    if matrix.persistence is not None and matrix.frames is not None and state.is_through:
        held = f"; through in {matrix.persistence[c]} of the last {matrix.frames[c]} frames"
    agree = (
        f"; {matrix.agreement[c]} other venue{'s' if matrix.agreement[c] > 1 else ''} too"
        if matrix.agreement[c]
        else ""
    )
    return f"{name}: {place} {where}; fit {vol(float(matrix.fitted_vol[c]))}{held}{agree}"


def edges_table(matrix: ThroughMatrix, n: int = _SHOWN) -> str:
    """The largest edges; where nothing is through, a sentence and what comes closest."""
    cells = matrix.largest_cells(n)
    note = ""
    total = int(matrix.is_through.sum())
    if total > len(cells):
        note = f"<div class='muted'>the {len(cells)} largest of {total}; <code>largest(n)</code> lists more</div>"
    if not total:
        cells = matrix.largest_cells(min(n, 5), "edge_ticks", through=False)
        note = "<div class='muted'>no bid or ask is through the curve by more than a tick and two standard errors"
        note += "; these come closest</div>" if len(cells) else "</div>"
        if not len(cells):
            return note
    several, held = len(matrix.venues) > 1, matrix.persistence is not None
    heads = ["expiry", "strike", *(["venue"] if several else []), "side", "bid", "ask", "fit", "± se", "edge, bp", "ticks",
             "in premium", "se", "leverage", *(["others", "vs others, bp"] if several else []),
             *(["persists", "fit sd, bp"] if held else []), "age"]  # fmt: skip
    body = "".join(_edge_row(matrix, int(c), several) for c in cells)
    head = "".join(f"<th>{h}</th>" for h in heads)
    return f"{note}<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _edge_row(matrix: ThroughMatrix, c: int, several: bool) -> str:
    kind = "bid" if matrix.edge_is_bid[c] else "ask"
    cells = [
        matrix.expiry_labels[matrix.expiry[c]],
        f"{strike(float(matrix.strike[c]))} {'C' if matrix.is_call[c] else 'P'}",
    ]
    if several:
        cells.append(matrix.venues[matrix.venue[c]])
    numbers = [
        vol(float(matrix.bid_vol[c])),
        vol(float(matrix.ask_vol[c])),
        vol(float(matrix.fitted_vol[c])),
        number(1e4 * float(matrix.standard_error[c]), 0),
        number(float(matrix.edge_bp[c]), 1),
        number(float(matrix.edge_ticks[c]), 1),
        premium(float(matrix.edge_price[c])),
        number(float(matrix.edge_se[c]), 1),
        number(float(matrix.leverage[c]), 2),
    ]
    if several:
        numbers += [
            f"{matrix.agreement[c]} too" if matrix.agreement[c] else "",
            number(float(matrix.venue_spread_bp[c]), 0, sign=True),
        ]
    if matrix.persistence is not None and matrix.frames is not None and matrix.fit_stability_bp is not None:
        numbers += [f"{matrix.persistence[c]} of {matrix.frames[c]}", number(float(matrix.fit_stability_bp[c]), 1)]
    numbers.append(age(float(matrix.age_ns[c])))
    text = "".join(f"<td>{escape(v)}</td>" for v in cells[1:]) + f"<td class='{kind}'>{kind}</td>"
    return f"<tr><th>{escape(cells[0])}</th>{text}{''.join(f'<td>{v}</td>' for v in numbers)}</tr>"
