"""A report as text, as a notebook shows it, and as tables."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING

from volsurf.diagnostics.forwards import forwards_html
from volsurf.diagnostics.health import SliceHealth
from volsurf.diagnostics.liveness import liveness_html, liveness_text
from volsurf.diagnostics.page import DASH, number, small, vol
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through_view import through_body
from volsurf.surface.html import BAD, GOOD, STYLE, UNSURE, utc

if TYPE_CHECKING:
    import polars as pl

    from volsurf.diagnostics.quality import Report


def report_text(report: Report) -> str:
    """The report for a terminal."""
    lines = [f"{report.underlying}: {report.sentence}", "", str(report.ledger), ""]
    for s in report.slices:
        inside = DASH.rjust(6) if s.inside != s.inside else f"{s.inside:6.1%}"
        rms = DASH.rjust(5) if s.rms != s.rms else f"{s.rms:5.2f}"
        lines.append(f"{s.label:>14}  inside {inside}  rms {rms}  {s.result}")
        lines.extend(f"{'':16}{note}" for note in s.notes)
    flagged = report.flagged_forwards
    if flagged:
        lines += ["", "forwards to look at:", *(f"{f.name:>14}  {f.sentence}" for f in flagged)]
    if report.feeds:
        lines += ["", liveness_text(report.feeds)]
    if report.timings:
        lines += ["", "microseconds: " + ", ".join(f"{step} {us:,.0f}" for step, us in report.timings.items())]
    return "\n".join(lines)


def report_html(report: Report) -> str:
    """The report for a notebook: the surface in a line, health by expiry, edges, forwards, ledger."""
    bad = not report.slices or report.certified < len(report.slices) or any(s.trouble for s in report.slices)
    colour = BAD if bad else GOOD
    through = "" if report.through is None else through_body(report.through)
    flagged = report.flagged_forwards
    several = any(not f.is_alone for f in report.forwards)
    forwards = (
        f"<div style='color:{BAD}'>{len(flagged)} of {len(report.forwards)} forwards to look at</div>"
        if flagged
        else "<div class='muted'>every forward agrees with the parity of its quotes, or is the only one there is</div>"
    )
    if flagged or several:
        # Of several markets each one's distance from the others is worth a look, whatever parity says.
        forwards += forwards_html(report.forwards if several else flagged)
    feeds = f"<details open><summary>feeds</summary>{liveness_html(report.feeds)}</details>" if report.feeds else ""
    timings = ""
    if report.timings:
        steps = ", ".join(f"{escape(step)} {us:,.0f}" for step, us in report.timings.items())
        timings = f"<div class='muted'>microseconds: {steps}</div>"
    return (
        f"{STYLE}<div class='volsurf'><div><span class='head'>{escape(report.underlying)}</span> "
        f"<span class='muted'>diagnosis, {utc(report.time_ns)}</span></div>"
        f"<div style='color:{colour}'>{escape(report.sentence)}</div>{timings}"
        f"{health_table(report.slices)}"
        f"<details open><summary>quotes against the curve</summary>{through}</details>"
        f"{feeds}<details><summary>forwards</summary>{forwards}</details>"
        f"<details><summary>ledger: {report.ledger.used:,d} of {report.ledger.rows:,d} rows used</summary>"
        f"{report.ledger._repr_html_()}</details></div>"
    )


def health_table(slices: tuple[SliceHealth, ...]) -> str:
    """One row an expiry; rows to be shown grey are."""
    heads = (
        "expiry",
        "ATM vol",
        "± bp",
        "used",
        "inside",
        "χ²/dof",
        "ρ₁",
        "min g",
        "min gap",
        "bid",
        "ask",
        "cost",
        "fit",
    )
    head = "".join(f"<th>{h}</th>" for h in heads) + "<th class='text'>look at</th>"
    body = "".join(_health_row(s) for s in slices)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _health_row(s: SliceHealth) -> str:
    proof = GOOD if s.certified else BAD
    marks = [
        ("off its quotes", BAD, s.off_quotes),
        ("grey", UNSURE, s.grey),
        ("guarded", BAD, s.guarded),
        ("shape", BAD, s.shape_misfit),
    ]
    badges = f"<span class='badge' style='color:{proof}' title='{escape(f'{s.butterfly}; {s.calendar}', quote=True)}'>"
    badges += f"{'certified' if s.certified else 'not certified'}</span>"
    badges += "".join(f" <span class='badge' style='color:{c}'>{name}</span>" for name, c, on in marks if on)
    cost = number(s.cost, 1)
    if s.enforcement_cost > 5e-4:
        cost += f" <span class='muted'>+{100 * s.enforcement_cost:.1f}%</span>"
    muted = " style='opacity:.62'" if s.grey else ""
    cells = (
        vol(s.atm_vol),
        number(1e4 * s.atm_error, 0),
        f"{s.used}",
        vol(s.inside, 1),
        number(s.chi2, 2),
        number(s.autocorrelation, 2),
        f"<span title='at k = {number(s.min_g_k, 3)}'>{number(s.min_g, 3)}</span>",
        f"<span title='at k = {number(s.min_gap_k, 3)}'>{small(s.min_gap)}</span>",
        f"{s.bids_through or ''}",
        f"{s.asks_through or ''}",
        f"<span title='{escape(s.enforcement, quote=True)}; {s.passes} passes, {s.solver_steps} solver steps; "
        f"{escape(s.filtered, quote=True)}'>{cost}</span>",
        badges,
    )
    notes = "<br>".join(escape(note) for note in s.notes)
    body = "".join(f"<td>{c}</td>" for c in cells)
    return f"<tr{muted}><th>{escape(s.label)}</th>{body}<td class='text'>{notes}</td></tr>"


def slices_frame(report: Report) -> pl.DataFrame:
    """One row an expiry with every number of its health."""
    import polars as pl

    numbers: dict[str, type[pl.DataType]] = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}
    columns = [pl.Series("expiry", [s.expiry_ns for s in report.slices], pl.Int64).cast(pl.Datetime("ns", "UTC"))]
    for f in fields(SliceHealth):
        kind = numbers.get(str(f.type))
        if kind is not None and f.name != "expiry_ns":
            columns.append(pl.Series(f.name, [getattr(s, f.name) for s in report.slices], kind))
    columns.append(pl.Series("rows", [s.ledger.rows for s in report.slices], pl.Int64))
    columns.append(pl.Series("notes", [list(s.notes) for s in report.slices], pl.List(pl.String)))
    return pl.DataFrame(columns).with_columns(pl.Series("sentence", [s.sentence for s in report.slices], pl.String))


def ledger_frame(report: Report) -> pl.DataFrame:
    """Rows by expiry and reason; they add up to the rows of the underlying."""
    import polars as pl

    rows = [(name, r, n) for name, ledger in report.ledger_by_expiry.items() for r, n in ledger.counts.items()]
    return pl.DataFrame(
        {
            "expiry": [name for name, _, _ in rows],
            "reason": [r.label for _, r, _ in rows],
            "rows": [n for _, _, n in rows],
            "used": [QuoteReason(r).is_used for _, r, _ in rows],
        },
        schema={"expiry": pl.String, "reason": pl.String, "rows": pl.Int64, "used": pl.Boolean},
    )
