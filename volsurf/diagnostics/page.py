"""Numbers and colours of the diagnostics' tables."""

from __future__ import annotations

import math

from volsurf.diagnostics.through import ThroughState

DASH = "–"
_MINUS = "\u2212"

STATE_COLOURS = {
    ThroughState.INSIDE: "#8fa3b5",
    ThroughState.BID_THROUGH: "#1585e0",
    ThroughState.ASK_THROUGH: "#e2611a",
    ThroughState.ONE_SIDED: "#9d8cd6",
    ThroughState.REJECTED: "#c2a13a",
    ThroughState.STALE: "#8a6d4f",
    ThroughState.MISSING: "#8a93a0",
    ThroughState.NO_CURVE: "#6b5560",
}
"""They hold on white and on near-black, and bid and ask differ for every kind of colour vision."""
STATE_OPACITY = {
    ThroughState.INSIDE: 0.5,
    ThroughState.MISSING: 0.22,
    ThroughState.ONE_SIDED: 0.75,
    ThroughState.REJECTED: 0.6,
}


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """With thousands separated and a true minus sign; a dash for NaN and infinity."""
    if not math.isfinite(value):
        return DASH
    return f"{value:{'+' if sign else ''},.{decimals}f}".replace("-", _MINUS)


def premium(value: float) -> str:
    """A premium or tick with the digits it has, six significant ones at most."""
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    decimals = min(max(5 - math.floor(math.log10(abs(value))), 0), 8)
    text = f"{value:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", _MINUS)


def edge_size(bp: float, ticks: float, errors: float, *, sign: bool = False) -> str:
    """How large an edge is in the units it has: 12.3 bp, 4.0 ticks, 2.1 standard errors."""
    sizes = ((bp, "bp"), (ticks, "ticks"), (errors, "standard errors"))
    return ", ".join(f"{number(value, 1, sign=sign)} {unit}" for value, unit in sizes if math.isfinite(value))


def small(value: float) -> str:
    """Two significant digits; a dash for NaN."""
    return DASH if not math.isfinite(value) else f"{value:.2g}".replace("-", _MINUS)


def vol(value: float, decimals: int = 2) -> str:
    """41.30%"""
    return DASH if not math.isfinite(value) else f"{100 * value:.{decimals}f}%"


def age(nanoseconds: float) -> str:
    """0.4 s, 3 min, 2 h"""
    seconds = nanoseconds / 1e9
    for limit, unit, name in ((120.0, 1.0, "s"), (7_200.0, 60.0, "min"), (172_800.0, 3_600.0, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def strike(value: float) -> str:
    """90,000 or 0.125"""
    return f"{value:,.10g}"
