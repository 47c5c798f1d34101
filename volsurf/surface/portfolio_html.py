"""A priced portfolio as an HTML table: what a notebook shows."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from volsurf.surface.html import STYLE, utc

if TYPE_CHECKING:
    from volsurf.surface.portfolio import PortfolioValue

_SHOWN = 40
_MINUS = "\u2212"
_HEADS = (
    "position",
    "quantity",
    "forward",
    "vol",
    "value, coin",
    "value, usd",
    "± se",
    "Δ sticky strike",
    "Δ sticky moneyness",
    "Γ per 1 %",
    "vega per pt",
    "θ per day",
)


def portfolio_html(value: PortfolioValue) -> str:
    """Totals first, then at most 40 positions, those worth most."""
    p, total = value.portfolio, value.total
    order = np.argsort(-np.abs(value.value_usd), kind="stable")[:_SHOWN]
    rows = [
        (
            escape(p.name(i)),
            number(p.quantity[i], 6),
            number(value.forward[i], 2, fixed=True),
            "–" if math.isnan(value.vol[i]) else f"{100 * value.vol[i]:.2f} %",
            number(value.value_coin[i], 6),
            number(value.value_usd[i], 2, fixed=True),
            number(value.error_usd[i], 2, fixed=True),
            number(value.delta_sticky_strike[i], 5),
            number(value.delta_sticky_moneyness[i], 5),
            number(value.gamma[i] * value.forward[i] / 100, 5),
            number(value.vega_usd[i] / 100, 2, fixed=True),
            number(value.theta_usd[i] / 365, 2, fixed=True),
        )
        for i in sorted(order.tolist())
    ]
    sums = (
        f"all {len(value)}",
        "",
        "",
        "",
        number(total["value_coin"], 6),
        number(total["value_usd"], 2, fixed=True),
        number(value.total_error_usd, 2, fixed=True),
        number(total["delta_sticky_strike"], 5),
        number(total["delta_sticky_moneyness"], 5),
        number(float((value.gamma * value.forward).sum()) / 100, 5),
        number(total["vega_usd"] / 100, 2, fixed=True),
        number(total["theta_usd"] / 365, 2, fixed=True),
    )
    body = "".join(
        f"<tr><th>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in (sums, *rows)
    )
    more = f"<p class='muted'>the {_SHOWN} largest of {len(value)} positions</p>" if len(value) > _SHOWN else ""
    return (
        f"{STYLE}<div class='volsurf'><div><span class='head'>{escape(p.underlying)} portfolio</span> "
        f"<span class='muted'>{utc(value.time_ns)}, undiscounted; deltas in coin, premium-adjusted where inverse</span></div>"
        f"<table><thead><tr>{''.join(f'<th>{h}</th>' for h in _HEADS)}</tr></thead><tbody>{body}</tbody></table>{more}</div>"
    )


def number(value: float, digits: int, *, fixed: bool = False) -> str:
    """A number for a table: thousands apart, a real minus sign, a dash for NaN."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else f"{_MINUS}∞")
    text = f"{value:,.{digits}f}" if fixed else f"{value:,.{digits}g}"
    return text.replace("-", _MINUS)
