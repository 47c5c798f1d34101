"""A session as a notebook shows it: one small table."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volsurf.engine.session import Session
    from volsurf.surface.surface import Surface


def session_html(session: Session) -> str:
    """Where it is connected, how old its picture is, each feed in a sentence, and one row per underlying."""
    status = session.status
    health = session.health
    age = "" if math.isinf(session.age) else f", frame {health['frame']} is {session.age:.1f} s old"
    lines = [f"<b>volsurf session</b> {escape(session.url)}{age}"]
    if status:
        lines.append(f"<i>{escape(status)}</i>")
    lines += [f"{escape(feed.name)}: {escape(feed.sentence)}" for feed in health["feeds"].values()]
    lines += [f"{escape(p.underlying or 'all')}: {escape(p.sentence)}" for p in health["problems"]]
    frame = session._frame
    rows = "" if frame is None else "".join(_row(surface) for surface in frame.surfaces.values())
    table = (
        "<table><thead><tr><th>underlying</th><th>expiries</th><th>certified</th><th>first expiry</th><th>atm vol</th>"
        f"<th>last expiry</th><th>atm vol</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    return "<div>" + "<br>".join(lines) + (table if rows else "") + "</div>"


def _row(surface: Surface) -> str:
    first, last = surface.smiles[0], surface.smiles[-1]
    certified = sum(smile.fit is not None and smile.fit.is_certified for smile in surface.smiles)
    cells = (
        surface.underlying,
        str(len(surface.smiles)),
        str(certified),
        first.expiry_label,
        f"{first.atm_vol:.1%}",
        last.expiry_label,
        f"{last.atm_vol:.1%}",
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
