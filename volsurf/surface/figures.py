"""Plotly figures of a surface: in three dimensions, smile by smile, and at the money over time.

Every curve has a band of two standard errors on either side. It is grey where the curve is less sure than the quotes beside it
are wide, and where an expiry has too few quotes for a shape of its own.

Backgrounds are transparent and lettering is grey, so a figure can be read on a light and on a dark page. Every trace names its
role in `meta`, so that a page with a theme of its own can colour it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import BoolArray, FloatArray
from volsurf.surface.slices import Smile

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

MARKET_REACH = 3.0
"""Standard deviations from the forward that the surface is drawn to; vols further out are the model's, not the market's."""
ENOUGH_QUOTES = 7
"""Two-sided quotes below which the shape of a smile is mostly its neighbours'."""
_TIMES = 48
_STRIKES = 61
_COLUMNS = 3
_ROW_PIXELS = 250

COLOURS = {
    "bid": "#2f8fd0",
    "ask": "#d98a1f",
    "curve": "#8a7bf0",
    "band": "#8a93a0",
    "unused": "#8a93a0",
    "bad": "#d9541e",
    "text": "#8a93a0",
}
_GRID = "rgba(138,147,160,0.22)"
_GRID_3D = "rgba(138,147,160,0.6)"
_FONT = {"family": "Inter, system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": COLOURS["text"]}


def surface_figure(surface: Surface) -> go.Figure:
    """The surface over standard deviations from the forward and days to expiry, with the quotes that were used as dots.

    Each listed expiry is a white line; the thin lines above and below it are two standard errors away.
    """
    times = _drawn_times(surface)
    y = np.linspace(-MARKET_REACH, MARKET_REACH, _STRIKES)
    atm = surface.vol(k=0.0, years=times)
    k = y[None, :] * (atm * np.sqrt(times))[:, None]
    vol = surface.vol(k=k, years=times[:, None])
    strike = surface.forward(years=times)[:, None] * np.exp(k)
    days = np.repeat(365 * times[:, None], _STRIKES, axis=1)
    figure = go.Figure()
    figure.add_trace(
        go.Surface(
            x=np.broadcast_to(y, vol.shape),
            y=days,
            z=vol,
            customdata=np.stack((strike, k, surface.vol_error(k=k, years=times[:, None])), axis=-1),
            colorscale="Viridis",
            opacity=0.96,
            colorbar={"title": {"text": "vol"}, "tickformat": ".0%", "thickness": 12, "len": 0.7, "outlinewidth": 0},
            contours={"x": {"show": True, "start": -3, "end": 3, "size": 1, "color": "rgba(255,255,255,0.25)"}},
            lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.15, "roughness": 0.6},
            hovertemplate=(
                "<b>%{z:.2%}</b> ± %{customdata[2]:.2%}<br>strike %{customdata[0]:,.0f}<br>k %{customdata[1]:+.3f}, %{x:+.2f} sd"
                "<br>%{y:.1f} days<extra></extra>"
            ),
            meta="surface",
        )
    )
    for smile in surface.smiles:
        if smile.fit is None:
            continue
        deviation = smile.atm_vol * math.sqrt(smile.years)
        row = np.full(_STRIKES, 365 * smile.years)
        curve, error = smile.fitted_vol(y * deviation), smile.vol_error(y * deviation)
        for line, colour, width, role in (
            (curve, "rgba(255,255,255,0.55)", 2, "listed"),
            (curve - 2 * error, COLOURS["curve"], 1, "error"),
            (curve + 2 * error, COLOURS["curve"], 1, "error"),
        ):
            figure.add_trace(
                go.Scatter3d(
                    x=y,
                    y=row,
                    z=line,
                    mode="lines",
                    line={"color": colour, "width": width},
                    hoverinfo="skip",
                    showlegend=False,
                    meta=role,
                )
            )
    figure.add_trace(_quote_dots(surface))
    axis = {"gridcolor": _GRID_3D, "zerolinecolor": _GRID_3D, "showbackground": False, "color": COLOURS["text"]}
    figure.update_layout(
        _layout(None, 620) | {"margin": {"l": 0, "r": 0, "t": 0, "b": 0}},
        scene={
            "xaxis": {**axis, "title": {"text": "standard deviations from the forward"}},
            "yaxis": {**axis, "title": {"text": "days to expiry"}, "type": "log", "tickvals": _day_ticks(365 * times)},
            "zaxis": {**axis, "title": {"text": "vol"}, "tickformat": ".0%"},
            "aspectmode": "manual",
            "aspectratio": {"x": 1.25, "y": 1.45, "z": 0.75},
            # Far enough for the labels of the vol axis to stay inside a figure of 700 pixels.
            "camera": {"eye": {"x": 1.7, "y": -2.0, "z": 0.95}, "center": {"x": -0.12, "y": -0.12, "z": -0.16}},
        },
        showlegend=False,
    )
    return figure


def smiles_figure(surface: Surface) -> go.Figure:
    """One panel an expiry: bid and ask vols of every strike and the fitted curve with its band, dotted where nobody quotes."""
    smiles = [s for s in surface.smiles if s.fit is not None]
    rows = max(1, math.ceil(len(smiles) / _COLUMNS))
    figure = make_subplots(
        rows=rows,
        cols=_COLUMNS,
        subplot_titles=[_panel_title(s) for s in smiles],
        horizontal_spacing=0.055,
        vertical_spacing=min(0.09, 0.32 / rows),
    )
    for i, smile in enumerate(smiles):
        for trace in _smile_traces(smile, show_legend=i == 0):
            figure.add_trace(trace, row=i // _COLUMNS + 1, col=i % _COLUMNS + 1)
    figure.update_layout(_layout(None, _ROW_PIXELS * rows + 90), hovermode="closest", margin={"t": 64})
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container"}
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, tickformat="~s", nticks=6)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, tickformat=".0%", nticks=6)
    figure.update_annotations(font={**_FONT, "size": 13})
    return figure


def smile_figure(smile: Smile) -> go.Figure:
    """Bid and ask vols of one expiry and the fitted curve with its band."""
    figure = go.Figure(_smile_traces(smile, show_legend=True))
    figure.update_layout(_layout(f"{smile.underlying} {_panel_title(smile)}", 420), hovermode="closest")
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, tickformat="~s", title_text="strike")
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, tickformat=".0%", title_text="vol")
    return figure


def term_figure(surface: Surface) -> go.Figure:
    """Vol at the forward with two standard errors, and the forwards, over days to expiry."""
    smiles = [s for s in surface.smiles if s.fit is not None]
    days = np.array([365 * s.years for s in smiles])
    atm = np.array([s.atm_vol for s in smiles])
    error = np.array(
        [0.0 if s.fit is None or not np.isfinite(s.fit.atm_error) else 2 * s.fit.atm_error for s in smiles]
    )
    labels = [s.expiry_label for s in smiles]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.09)
    figure.add_trace(
        go.Scatter(
            x=days,
            y=atm,
            error_y={"array": error, "thickness": 1, "width": 3, "color": COLOURS["band"]},
            mode="lines+markers",
            line={"color": COLOURS["curve"], "width": 2},
            marker={"size": 7},
            text=labels,
            hovertemplate="<b>%{text}</b><br>at the forward %{y:.2%}<extra></extra>",
            meta="curve",
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=days,
            y=[s.forward for s in smiles],
            mode="lines+markers",
            line={"color": COLOURS["bid"], "width": 2},
            marker={"size": 7, "symbol": ["diamond-open" if s.forward_flagged else "circle" for s in smiles]},
            text=[f"<b>{s.expiry_label}</b><br>{s.forward_sentence}" for s in smiles],
            hovertemplate="%{text}<br>%{y:,.2f}<extra></extra>",
            meta="bid",
        ),
        row=2,
        col=1,
    )
    figure.update_layout(_layout(None, 620), showlegend=False)
    figure.update_xaxes(type="log", gridcolor=_GRID, zeroline=False, tickvals=_day_ticks(days))
    figure.update_xaxes(title_text="days to expiry", row=2, col=1)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False)
    figure.update_yaxes(title_text="vol at the forward", tickformat=".0%", row=1, col=1)
    figure.update_yaxes(title_text="forward", tickformat=",.8~g", row=2, col=1)
    figure.update_yaxes(automargin=True, title_standoff=10)
    return figure


def _layout(title: str | None, height: int) -> dict[str, Any]:
    return {
        "title": None if title is None else {"text": title, "x": 0.02},
        "height": height,
        "margin": {"l": 52, "r": 16, "t": 48 if title else 34, "b": 40},
        "font": _FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"font": {"family": _FONT["family"], "size": 12}},
    }


def _drawn_times(surface: Surface) -> FloatArray:
    """Every fitted expiry, and times between them, evenly spread on the log axis."""
    listed = surface.years[np.isfinite(surface.svi.a)]
    between = np.geomspace(listed[0], listed[-1], _TIMES) if len(listed) > 1 else listed
    # A time next to an expiry would only draw a sliver.
    apart = np.abs(np.log(between[:, None] / listed[None, :])).min(axis=1) > 0.02
    return np.sort(np.concatenate((listed, between[apart])))


def _day_ticks(days: FloatArray) -> list[float]:
    marks = (0.1, 0.25, 0.5, 1, 2, 3, 7, 14, 30, 60, 90, 180, 365, 730)
    low, high = float(np.min(days)), float(np.max(days))
    return [m for m in marks if low / 1.2 <= m <= high * 1.25]


def _quote_dots(surface: Surface) -> go.Scatter3d:
    x: list[float] = []
    y: list[float] = []
    z: list[float] = []
    text: list[str] = []
    for smile in surface.smiles:
        deviation = smile.atm_vol * math.sqrt(smile.years)
        position = smile.log_moneyness / deviation
        keep = smile.used & (smile.side == 0) & (np.abs(position) <= MARKET_REACH)
        x.extend(position[keep].tolist())
        y.extend([365 * smile.years] * int(keep.sum()))
        z.extend(smile.vol[keep].tolist())
        text.extend(
            f"{smile.expiry_label} {strike:,.0f} {'call' if call else 'put'}<br>{bid:.2%} / {ask:.2%}"
            for strike, call, bid, ask in zip(
                smile.strike[keep], smile.is_call[keep], smile.bid_vol[keep], smile.ask_vol[keep], strict=True
            )
        )
    return go.Scatter3d(
        x=x,
        y=y,
        z=z,
        mode="markers",
        marker={"size": 2.2, "color": COLOURS["ask"], "opacity": 0.9},
        text=text,
        hovertemplate="%{text}<extra></extra>",
        meta="dot",
    )


def _panel_title(smile: Smile) -> str:
    fit = smile.fit
    if fit is None:
        return f"<b>{smile.expiry_label}</b>  no fit"
    error = f" ± {100 * fit.atm_error:.2g}" if math.isfinite(fit.atm_error) else ""
    inside = "" if math.isnan(fit.inside) else f" · {fit.inside:.0%} inside"
    wrong = "not certified" if not fit.is_certified else "guarded" if fit.is_guarded else ""
    flag = f" · <span style='color:{COLOURS['bad']}'>▲ {wrong}</span>" if wrong else ""
    return f"<b>{smile.expiry_label}</b>  {smile.atm_vol:.1%}{error}{inside}{flag}"


def _smile_traces(smile: Smile, *, show_legend: bool) -> list[go.Scatter]:
    used, both = smile.used, np.isfinite(smile.bid_vol) & np.isfinite(smile.ask_vol)
    reach = 5.0 * smile.atm_vol * math.sqrt(smile.years)
    near = np.abs(smile.log_moneyness) <= reach if np.isfinite(reach) else np.ones(len(used), np.bool_)
    traces = _band_traces(smile, show_legend)
    segment = used & both
    gap = np.full(int(segment.sum()), np.nan)
    traces.append(
        go.Scatter(
            x=np.column_stack((smile.strike[segment], smile.strike[segment], gap)).ravel(),
            y=np.column_stack((smile.bid_vol[segment], smile.ask_vol[segment], gap)).ravel(),
            mode="lines",
            line={"color": COLOURS["band"], "width": 1.4},
            opacity=0.7,
            hoverinfo="skip",
            showlegend=False,
            meta="band",
        )
    )
    fitted = smile.fitted_vol(smile.log_moneyness)
    for name, column, symbol in (("bid", smile.bid_vol, "triangle-up"), ("ask", smile.ask_vol, "triangle-down")):
        keep = used & np.isfinite(column)
        alone = np.where(both[keep], symbol, f"{symbol}-open")
        traces.append(
            go.Scatter(
                x=smile.strike[keep],
                y=column[keep],
                mode="markers",
                marker={"size": 6, "color": COLOURS[name], "symbol": alone.tolist()},
                name=name,
                legendgroup=name,
                showlegend=show_legend,
                customdata=np.column_stack((smile.bid_vol[keep], smile.ask_vol[keep], fitted[keep])),
                hovertemplate=(
                    "strike %{x:,.0f}<br>bid %{customdata[0]:.2%}  ask %{customdata[1]:.2%}"
                    "<br>fit %{customdata[2]:.2%}<extra></extra>"
                ),
                meta=name,
            )
        )
    left_out = ~used & near
    if left_out.any():
        middle = np.where(
            both,
            0.5 * (smile.bid_vol + smile.ask_vol),
            np.where(np.isfinite(smile.bid_vol), smile.bid_vol, smile.ask_vol),
        )
        traces.append(
            go.Scatter(
                x=smile.strike[left_out],
                y=middle[left_out],
                mode="markers",
                marker={
                    "size": 5,
                    "color": COLOURS["unused"],
                    "symbol": "x-thin",
                    "line": {"width": 1, "color": COLOURS["unused"]},
                },
                opacity=0.7,
                name="left out",
                legendgroup="left out",
                showlegend=False,
                text=[QuoteReason(int(code)).sentence for code in smile.reason[left_out]],
                hovertemplate="strike %{x:,.0f}  %{y:.2%}<br>%{text}<extra></extra>",
                meta="unused",
            )
        )
    return traces + _curve_traces(smile, show_legend)


def _drawn_range(smile: Smile) -> tuple[float, float, float]:
    """Log-moneyness of the outermost used quotes, and how far the curve is drawn beyond them."""
    deviation = smile.atm_vol * math.sqrt(smile.years)
    quoted = smile.log_moneyness[smile.used] if smile.used.any() else np.array([-2 * deviation, 2 * deviation])
    return float(quoted.min()), float(quoted.max()), 0.35 * deviation


def _sure(smile: Smile, k: FloatArray, error: FloatArray) -> BoolArray:
    """Where the curve is known better than the two-sided quotes on either side of k are wide."""
    two_sided = smile.used & (smile.side == 0)
    if smile.fit is None or smile.fit.n_two_sided < ENOUGH_QUOTES or not two_sided.any():
        return np.zeros(k.shape, np.bool_)
    at, half = smile.log_moneyness[two_sided], 0.5 * (smile.ask_vol - smile.bid_vol)[two_sided]
    after = np.searchsorted(at, k)
    last = len(at) - 1
    beside = np.maximum(half[np.clip(after - 1, 0, last)], half[np.clip(after, 0, last)])
    return np.asarray((k >= at[0]) & (k <= at[-1]) & (error <= beside))


def _band_traces(smile: Smile, show_legend: bool) -> list[go.Scatter]:
    """Two standard errors on either side of the curve, in the curve's colour or grey."""
    if smile.fit is None:
        return []
    low, high, beyond = _drawn_range(smile)
    k = np.linspace(low - beyond, high + beyond, 121)
    error = smile.vol_error(k)
    if not np.isfinite(error).all():
        return []
    curve, strike, sure = smile.fitted_vol(k), smile.forward * np.exp(k), _sure(smile, k, error)
    traces = []
    for name, wanted, colour in (
        ("±2 standard errors", True, "rgba(138,123,240,0.28)"),
        ("the same, wider than the quotes", False, "rgba(138,147,160,0.25)"),
    ):
        x: list[float] = []
        y: list[float] = []
        # A stretch begins at the last point of the one before it, so that they touch.
        edges = np.flatnonzero(np.diff(np.concatenate(([False], sure == wanted, [False])).astype(np.int8)))
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            mine = slice(max(first - 1, 0) if wanted else first, min(end + 1, len(k)) if wanted else end)
            x += [*strike[mine], *strike[mine][::-1], np.nan]
            y += [*(curve + 2 * error)[mine], *(curve - 2 * error)[mine][::-1], np.nan]
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                fill="toself",
                fillcolor=colour,
                line={"width": 0},
                name=name,
                legendgroup=name,
                showlegend=show_legend,
                hoverinfo="skip",
                meta="sure" if wanted else "unsure",
            )
        )
    return traces


def _curve_traces(smile: Smile, show_legend: bool) -> list[go.Scatter]:
    if smile.fit is None:
        return []
    low, high, beyond = _drawn_range(smile)
    colour = COLOURS["curve"] if smile.fit.n_two_sided >= ENOUGH_QUOTES else COLOURS["unused"]
    traces = []
    for first, last, dash in ((low, high, "solid"), (low - beyond, low, "dot"), (high, high + beyond, "dot")):
        k = np.linspace(first, last, 121 if dash == "solid" else 9)
        traces.append(
            go.Scatter(
                x=smile.forward * np.exp(k),
                y=smile.fitted_vol(k),
                mode="lines",
                line={"color": colour, "width": 2.2, "dash": dash},
                name="fit",
                legendgroup="fit",
                showlegend=show_legend and dash == "solid",
                customdata=np.column_stack((k, smile.vol_error(k))),
                hovertemplate=(
                    "fit %{y:.2%} ± %{customdata[1]:.2%}<br>strike %{x:,.0f}, k %{customdata[0]:+.3f}<extra></extra>"
                ),
                meta="curve",
            )
        )
    return traces
