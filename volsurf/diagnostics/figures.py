"""Plotly figures of the diagnostics: the through matrix as a heat map, and the residuals of every smile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from volsurf.diagnostics.page import STATE_COLOURS, STATE_OPACITY
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.diagnostics.through_tables import state_labels

if TYPE_CHECKING:
    from volsurf.surface.slices import Smile

_TEXT, _GRID = "#8a93a0", "rgba(138,147,160,0.22)"
_FONT = {"family": "Inter, system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": _TEXT}
_HOVER = (
    "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>bid %{customdata[2]} · ask %{customdata[3]}<br>"
    "fit %{customdata[4]}<br>edge %{customdata[5]}<br>u %{customdata[6]} · leverage %{customdata[7]}<br>%{customdata[8]}"
    "<extra></extra>"
)
_RESIDUAL = "strike %{customdata[0]:,.10g}<br>%{customdata[1]:+.2f} error bars, %{customdata[2]:+.1f} bp<extra></extra>"
_COLUMNS = 4


def through_figure(matrix: ThroughMatrix) -> go.Figure:
    """Expiry (and venue) by strike, a colour a state; the size of an edge stands in its cell, in basis points of vol."""
    several = len(matrix.venues) > 1
    labels = matrix.expiry_labels
    lanes, lane = np.unique(matrix.expiry * max(len(matrix.venues), 1) + matrix.venue, return_inverse=True)
    names = [
        labels[c // len(matrix.venues)] + (f" · {matrix.venues[c % len(matrix.venues)]}" if several else "")
        for c in lanes.tolist()
    ]
    strikes, column = np.unique(matrix.strike, return_inverse=True)
    shape = (len(names), len(strikes))
    state = np.full(shape, np.nan)
    text = np.full(shape, "", object)
    state[lane, column] = matrix.state
    through = matrix.is_through
    text[lane[through], column[through]] = [f"{v:.0f}" for v in matrix.edge_bp[through]]
    hover = np.full((*shape, 9), "", object)
    hover[lane, column] = _hover(matrix)
    figure = go.Figure()
    n = len(ThroughState)
    scale = [(e, _shade(s)) for s in ThroughState for e in (s / n, (s + 1) / n)]
    figure.add_trace(
        go.Heatmap(
            z=state,
            x=[f"{s:,.10g}" for s in strikes],
            y=names,
            text=text,
            texttemplate="%{text}",
            textfont={"size": 9, "color": "#ffffff"},
            customdata=hover,
            colorscale=scale,
            zmin=-0.5,
            zmax=n - 0.5,
            showscale=False,
            xgap=1,
            ygap=2,
            hoverongaps=False,
            hovertemplate=_HOVER,
            meta="through",
        )
    )
    for s, count in matrix.counts.items():
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", name=f"{s.label} ({count:,d})",
                       marker={"symbol": "square", "size": 11, "color": _shade(s)}, hoverinfo="skip", meta=s.name.lower())
        )  # fmt: skip
    if not len(matrix):
        figure.add_annotation(text="no option is listed", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    axis = {"gridcolor": _GRID, "zeroline": False, "showgrid": False, "color": _TEXT}
    figure.update_layout(
        height=140 + max(24 * len(names), 120),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font=_FONT,
        margin={"l": 10, "r": 10, "t": 40, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        xaxis={**axis, "type": "category", "title": {"text": "strike"}, "automargin": True, "nticks": 24},
        yaxis={**axis, "type": "category", "autorange": "reversed", "automargin": True},
    )
    return figure


def _shade(state: ThroughState) -> str:
    red, green, blue = (int(STATE_COLOURS[state][i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{STATE_OPACITY.get(state, 1.0)})"


def _hover(matrix: ThroughMatrix) -> npt.NDArray[np.object_]:
    """Texts of the nine lines of each cell's hover box."""

    def texts(values: npt.NDArray[np.generic], pattern: str) -> list[str]:
        return [format(v, pattern) if math.isfinite(v) else "–" for v in values.tolist()]

    names = np.array(matrix.expiry_labels or [""], object)[matrix.expiry]
    venue = np.array(matrix.venues or ("",), object)[matrix.venue]
    kind = np.where(matrix.is_call, "call", "put")
    side = np.where(matrix.edge_is_bid, "bid", "ask")
    reason = np.array([r.sentence for r in QuoteReason], object)[matrix.reason]
    label = state_labels()[matrix.state]
    bid, ask, fit = (texts(v, ".2%") for v in (matrix.bid_vol, matrix.ask_vol, matrix.fitted_vol))
    error = texts(1e4 * matrix.standard_error, ".1f")
    sizes = [texts(v, "+.1f") for v in (matrix.edge_bp, matrix.edge_ticks, matrix.edge_se)]
    u, lever, apart = texts(matrix.u, "+.2f"), texts(matrix.leverage, ".2f"), texts(matrix.venue_spread_bp, "+.0f")
    rows = np.full((len(matrix), 9), "", object)
    for c in range(len(matrix)):
        why = f"{label[c]}: {reason[c]}" if matrix.state[c] == ThroughState.REJECTED else str(label[c])
        last = f"age {matrix.age_ns[c] / 1e9:.1f} s"
        if matrix.persistence is not None and matrix.frames is not None:
            last += f" · through in {matrix.persistence[c]} of {matrix.frames[c]} frames"
        if apart[c] != "–":
            last += f" · {apart[c]} bp over the other venues, {matrix.agreement[c]} of them through too"
        edge = "–" if sizes[0][c] == "–" else f"{side[c]} {sizes[0][c]} bp, {sizes[1][c]} ticks, {sizes[2][c]} se"
        rows[c] = (f"{names[c]} {matrix.strike[c]:,.10g} {kind[c]} · {venue[c]}", why, bid[c], ask[c],
                   f"{fit[c]} ± {error[c]} bp", edge, u[c], lever[c], last)  # fmt: skip
    return rows


def residuals_figure(smiles: Sequence[Smile]) -> go.Figure:
    """One panel an expiry: fit minus quote in error bars over standard deviations from the forward, the band of one shaded."""
    fitted = [s for s in smiles if s.fit is not None]
    rows = max(1, math.ceil(len(fitted) / _COLUMNS))
    figure = make_subplots(
        rows=rows, cols=_COLUMNS, subplot_titles=[s.expiry_label for s in fitted], shared_xaxes=True, shared_yaxes=True,
        horizontal_spacing=0.02, vertical_spacing=min(0.1, 0.3 / rows),
    )  # fmt: skip
    for i, smile in enumerate(fitted):
        place = {"row": i // _COLUMNS + 1, "col": i % _COLUMNS + 1}
        deviation = smile.atm_vol * math.sqrt(smile.years)
        used = smile.used
        u = (smile.fitted_vol(smile.log_moneyness) - smile.vol) / smile.error
        for name, mask, colour, symbol in (
            ("two-sided", used & (smile.side == 0), "#8a7bf0", "circle"),
            ("one-sided", used & (smile.side != 0), STATE_COLOURS[ThroughState.ONE_SIDED], "circle-open"),
        ):
            figure.add_trace(
                go.Scatter(
                    x=smile.log_moneyness[mask] / deviation,
                    # Beyond four error bars a point sits on the rim; its hover has the number.
                    y=np.clip(u[mask], -4, 4),
                    customdata=np.column_stack((smile.strike[mask], u[mask], 1e4 * (u * smile.error)[mask])),
                    mode="markers",
                    marker={"color": colour, "size": 5, "symbol": symbol},
                    name=name,
                    legendgroup=name,
                    showlegend=i == 0,
                    hovertemplate=_RESIDUAL,
                    meta="residuals",
                ),
                **place,
            )
        # After the traces: plotly leaves a panel without traces out.
        figure.add_hrect(y0=-1, y1=1, fillcolor=_TEXT, opacity=0.13, line_width=0, **place)
    figure.update_xaxes(gridcolor=_GRID, zerolinecolor=_GRID, color=_TEXT, range=[-4.7, 4.7], dtick=2)
    figure.update_yaxes(gridcolor=_GRID, zerolinecolor=_TEXT, color=_TEXT, range=[-4.3, 4.3], dtick=2)
    for text, x, y, angle in (
        ("standard deviations from the forward", 0.5, 0, 0),
        ("fit − quote, error bars", 0, 0.5, -90),
    ):
        figure.add_annotation(
            text=text, x=x, y=y, xref="paper", yref="paper", showarrow=False, textangle=angle,
            xshift=-34 if angle else 0, yshift=0 if angle else -38, font={"size": 11},
        )  # fmt: skip
    figure.update_layout(
        height=170 * rows + 120, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font=_FONT,
        margin={"l": 46, "r": 10, "t": 76, "b": 44}, hovermode="closest",
        legend={"orientation": "h", "y": 0.995, "yanchor": "top", "yref": "container", "x": 0},
    )  # fmt: skip
    return figure
