"""Plotly figure of the densities of a surface's expiries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from volsurf.surface.density import density, tails
from volsurf.surface.figures import COLOURS
from volsurf.surface.interpolation import Curve, forward_at, require_fit

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

_POINTS = 241
_GRID = "rgba(138,147,160,0.22)"


def density_figure(surface: Surface, reach: float) -> go.Figure:
    """Densities of ln(S_T/F) in standard deviations at the money, one line an expiry, the normal density dashed.

    Expiries of hours and of years can so be compared: what differs from the dashed line is the smile's doing.
    """
    require_fit(surface)
    y = np.linspace(-reach, reach, _POINTS)
    figure = go.Figure()
    fitted = [surface.smiles[i] for i in surface.fitted.tolist()]
    shades = sample_colorscale("Viridis", np.linspace(0.05, 0.9, len(fitted)).tolist())
    for smile, shade in zip(fitted, shades, strict=True):
        at = np.asarray(smile.years)
        curve = Curve(surface, at)
        deviation = float(np.sqrt(curve(np.zeros(()))[0]))
        k = y * deviation
        w, slope, curvature = curve(k)
        strike = float(forward_at(surface, at)) * np.exp(k)
        figure.add_trace(
            go.Scatter(
                x=y,
                y=density(k, w, slope, curvature) * deviation,
                name=smile.expiry_label,
                mode="lines",
                line={"color": shade, "width": 1.8},
                customdata=np.stack((strike, tails(k, w, slope)[0]), axis=-1),
                hovertemplate=(
                    f"<b>{smile.expiry_label}</b> %{{y:.4f}}<br>price %{{customdata[0]:,.0f}}, %{{x:+.2f}} sd"
                    "<br>P(below) %{customdata[1]:.3%}<extra></extra>"
                ),
                meta="density",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=y,
            y=np.exp(-0.5 * y * y) / math.sqrt(2.0 * math.pi),
            name="normal",
            mode="lines",
            line={"color": COLOURS["text"], "width": 1.2, "dash": "dash"},
            hoverinfo="skip",
            meta="normal",
        )
    )
    axis = {"gridcolor": _GRID, "zerolinecolor": _GRID, "color": COLOURS["text"]}
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={
            "family": "Inter, system-ui, -apple-system, 'Segoe UI', sans-serif",
            "size": 12,
            "color": COLOURS["text"],
        },
        margin={"l": 56, "r": 16, "t": 36, "b": 48},
        title={"text": f"{surface.underlying} density at expiry", "font": {"size": 14}},
        xaxis={"title": {"text": "ln(S/F), standard deviations at the money"}, **axis},
        yaxis={"title": {"text": "density"}, "rangemode": "tozero", **axis},
        hovermode="closest",
    )
    return figure
