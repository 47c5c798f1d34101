"""An explanation laid out for reading: the same sections as text and as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from volsurf.diagnostics.page import DASH, STATE_COLOURS, age, edge_size, number, premium, strike, vol
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.surface.html import STYLE, utc

if TYPE_CHECKING:
    from volsurf.diagnostics.explain import Explanation
    from volsurf.diagnostics.forwards import ForwardCheck
    from volsurf.diagnostics.quote_path import Leg

_SIDES = {0: "two-sided", -1: "only a bid", 1: "only an ask"}

_EXTRA = """
<style>
.volsurf .cols{display:flex;flex-wrap:wrap;gap:0 2.4em;align-items:flex-start}
.volsurf .cols>div{min-width:0}
.volsurf h4{margin:.9em 0 .1em;font-size:12px;letter-spacing:.03em;opacity:.75;font-weight:650}
.volsurf .here>*{background:rgba(138,123,240,.14)}
.volsurf .cols table{margin:.2em 0}
.volsurf .cols td.value{text-align:left;white-space:normal;max-width:34em}
</style>
"""


@dataclass(frozen=True)
class Section:
    """A heading with facts, or with a table."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    marked: int = -1
    """Row to mark."""


def sections(e: Explanation) -> list[Section]:
    """What there is to say, in the order in which it came about: quote, forward, error bar, fit, surroundings, slice."""
    found = [
        _quotes(e),
        _said(e),
        _forward(e),
        _error(e),
        _fit(e),
        _cells("neighbouring strikes", e.neighbours, e.strike),
    ]
    if len(e.other_venues):
        found.append(_cells("the strike elsewhere", e.other_venues, math.nan))
    return [*found, _slice(e)]


def headline(e: Explanation) -> str:
    """The verdict on the cell in a sentence."""
    if e.state in (ThroughState.REJECTED, ThroughState.STALE, ThroughState.MISSING, ThroughState.NO_CURVE):
        why = e.reason.sentence if e.state is ThroughState.REJECTED else e.state.sentence
        return f"{e.state.label}: {why}"
    kind = "bid" if e.edge_is_bid else "ask"
    size = edge_size(abs(e.edge_bp), abs(e.edge_ticks), abs(e.edge_se))
    if e.state.is_through:
        return f"{e.state.sentence}, by {size}"
    return f"{e.state.label}: the {kind} is {size} {'outside the curve' if e.edge_bp > 0 else 'clear of the curve'}"


def _name(leg: Leg) -> str:
    return "call" if leg.is_call else "put"


def _quotes(e: Explanation) -> Section:
    rows = []
    for leg in e.legs:
        for kind, side in (("bid", leg.bid), ("ask", leg.ask)):
            rows.append(
                (
                    f"{_name(leg)} {kind}",
                    premium(side.premium),
                    number(side.size, 2),
                    premium(side.normalised),
                    vol(side.vol),
                    side.status,
                )
            )
    return _table("premiums and their vols", ("", "premium", "size", "per forward", "vol", "solver"), rows)


def _said(e: Explanation) -> Section:
    rows = []
    for leg in e.legs:
        stamped = utc(leg.venue_time_ns) if leg.venue_time_ns > 0 else "no stamp"
        heard = age(leg.age_ns) if leg.receive_time_ns > 0 else "never"
        use = leg.reason.label + (" · read here" if leg is e.leg else "")
        rows.append(
            (_name(leg), leg.symbol, premium(leg.mark), vol(leg.mark_vol), premium(leg.tick), stamped, heard, use)
        )
    heads = ("", "symbol", "mark", "mark vol", "tick", "venue time", "age", "in the ledger")
    return _table(f"what {e.venue} says (premiums in {e.leg.unit})", heads, rows)


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Section:
    """Without the columns of which nothing is known."""
    known = [i for i in range(len(heads)) if any(row[i] != DASH for row in rows)]
    return Section(
        title, heads=tuple(heads[i] for i in known), rows=tuple(tuple(row[i] for i in known) for row in rows)
    )


def _forward(e: Explanation) -> Section:
    f = e.forward
    facts = [
        ("forward", f"{number(f.forward, 2)} ± {number(f.error_bp, 1)} bp"),
        ("venue / parity", f"{number(f.venue_forward, 2)} / {number(f.parity_forward, 2)} from {f.pairs} pairs"),
        ("meaning", f.sentence),
        *_basis(f),
        ("k = ln(K/F)", f"{number(e.log_moneyness, 4, sign=True)}, {number(e.deviations, 2, sign=True)} sd"),
        ("to expiry", f"{number(365 * e.years, 2)} d"),
    ]
    if e.discount != 1.0:
        facts.append(("discount", number(e.discount, 5)))
    return Section("forward", facts=tuple(facts))


def _basis(f: ForwardCheck) -> tuple[tuple[str, str], ...]:
    if f.is_alone:
        return ()
    if f.is_reference:
        return (("market", f"{f.market}, which speaks for the expiry"),)
    return (("market", f"{f.market}, {number(f.basis_bp, 1, sign=True)} bp off the one that speaks for the expiry"),)


def _error(e: Explanation) -> Section:
    if not math.isfinite(e.error.total):
        return Section("error bar", facts=(("none", f"the quote is not in the fit: {e.reason.sentence}"),))
    spread = "half the spread" if e.side == 0 else "one tick"
    parts = (
        (spread + (", both legs" if e.averaged else ""), e.error.half_spread),
        ("forward", e.error.forward),
        ("age", e.error.age),
        ("floor", e.error.floor),
    )
    rows = [(name, number(1e4 * v, 1), f"{v * v / e.error.total**2:.0%}") for name, v in parts]
    rows.append(("error bar", number(1e4 * e.error.total, 1), "100%"))
    return Section("error bar of the vol", heads=("", "bp", "of the square"), rows=tuple(rows), marked=len(rows) - 1)


def _fit(e: Explanation) -> Section:
    kind = "bid" if e.edge_is_bid else "ask"
    aim = f"{vol(e.vol)} ({_SIDES[e.side]}{', averaged over both legs' if e.averaged else ''})"
    return Section(
        "at this strike",
        facts=(
            ("quote's vol", aim if math.isfinite(e.vol) else DASH),
            ("fitted vol", f"{vol(e.fitted_vol)} ± {number(1e4 * e.standard_error, 1)} bp"),
            ("fit − quote", f"{number(1e4 * (e.fitted_vol - e.vol), 1, sign=True)} bp, "
                            f"{number(e.residual, 2, sign=True)} error bars"),
            ("weight", f"{e.weight:.1%} of the expiry's, leverage {number(e.leverage, 2)}"),
            ("fair premium", premium(e.fair)),
            ("edge", f"{kind} {edge_size(e.edge_bp, e.edge_ticks, e.edge_se, sign=True)}" if math.isfinite(e.edge_bp) else DASH),
            ("delta, vega", f"{number(e.delta, 3, sign=True)}, {number(e.vega, 4)} of the forward a unit of vol"),
        ),
    )  # fmt: skip


def _cells(title: str, matrix: ThroughMatrix, here: float) -> Section:
    heads = ("strike", "venue", "bid", "ask", "fit", "edge, bp", "u", "state")
    rows = tuple(
        (
            f"{strike(float(matrix.strike[c]))} {'C' if matrix.is_call[c] else 'P'}",
            matrix.venues[matrix.venue[c]],
            vol(float(matrix.bid_vol[c])),
            vol(float(matrix.ask_vol[c])),
            vol(float(matrix.fitted_vol[c])),
            number(float(matrix.edge_bp[c]), 1, sign=True),
            number(float(matrix.u[c]), 2, sign=True),
            ThroughState(int(matrix.state[c])).label,
        )
        for c in range(len(matrix))
    )
    at = np.flatnonzero(matrix.strike == here)
    return Section(title, heads=heads, rows=rows, marked=int(at[0]) if len(at) else -1)


def _slice(e: Explanation) -> Section:
    if e.health is None or e.fit is None:
        return Section("the slice", facts=(("curve", "none at this expiry"),))
    proof = f"{e.fit.butterfly_sentence}; {e.fit.calendar_sentence}"
    return Section(
        "the slice",
        facts=(
            ("health", e.health.sentence),
            ("fit", f"{e.health.result}; {e.health.passes} passes"),
            ("quotes alone", e.fitted_alone_sentence),
            ("certificate", proof),
            ("version", f"{utc(e.fit_time_ns)}, slice {e.fit_hash}"),
        ),
    )


def explanation_text(e: Explanation) -> str:
    """For a terminal."""
    lines = [f"{_title(e)}: {headline(e)}"]
    for s in sections(e):
        lines += ["", s.title]
        lines += [f"  {label:<16}{value}" for label, value in s.facts]
        if s.rows:
            table = [s.heads, *s.rows]
            widths = [max(len(row[i]) for row in table) for i in range(len(s.heads))]
            for n, row in enumerate(table):
                body = "  ".join(
                    c.ljust(w) if i == 0 or i == len(row) - 1 else c.rjust(w)
                    for i, (c, w) in enumerate(zip(row, widths, strict=True))
                )
                lines.append(f"{'> ' if n == s.marked + 1 and s.marked >= 0 else '  '}{body}".rstrip())
    return "\n".join(lines)


def explanation_html(e: Explanation) -> str:
    """For a notebook."""
    found = sections(e)
    wide, narrow = [s for s in found if len(s.heads) > 3], [s for s in found if len(s.heads) <= 3]
    blocks = "".join(f"<div>{_section_html(s)}</div>" for s in narrow[:-1])
    colour = STATE_COLOURS[e.state]
    return (
        f"{STYLE}{_EXTRA}<div class='volsurf'><div><span class='head'>{escape(_title(e))}</span> "
        f"<span class='muted'>{utc(e.time_ns)}</span></div>"
        f"<div><span class='badge' style='color:{colour}'>{escape(e.state.label)}</span> {escape(headline(e))}</div>"
        f"{''.join(_section_html(s) for s in wide[:2])}<div class='cols'>{blocks}</div>"
        f"{''.join(_section_html(s) for s in wide[2:])}<div class='cols'><div>{_section_html(narrow[-1])}</div></div></div>"
    )


def _title(e: Explanation) -> str:
    return f"{e.underlying} {e.label} {strike(e.strike)} {_name(e.leg)}, {e.venue}"


def _section_html(s: Section) -> str:
    if s.facts:
        body = "".join(f"<tr><td>{escape(a)}</td><td class='value'>{escape(b)}</td></tr>" for a, b in s.facts)
        return f"<h4>{escape(s.title)}</h4><table><tbody>{body}</tbody></table>"
    head = "".join(f"<th>{escape(h)}</th>" for h in s.heads)
    body = ""
    for n, row in enumerate(s.rows):
        cells = "".join(f"<td>{escape(c)}</td>" for c in row[1:])
        body += f"<tr{' class=here' if n == s.marked else ''}><th>{escape(row[0])}</th>{cells}</tr>"
    return f"<h4>{escape(s.title)}</h4><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
