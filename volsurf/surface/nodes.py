"""Vols at fixed deltas: the seventeen nodes 5P ... ATM ... 5C, and the risk reversals and flies made of them.

    risk_reversal25 = vol(25C) - vol(25P)      fly25 = vol(25C) + vol(25P) - 2 vol(ATM)      butterfly25 = fly25 / 2

ATM is the forward, or the delta-neutral straddle where asked for. Deltas are forward ones unless premium-adjusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray
from volsurf.surface._rows import Column, Rows, html_table, pandas_frame, polars_frame, rows_of, spread
from volsurf.surface.delta import delta_at_money, delta_log_moneyness, strike_slide
from volsurf.surface.uncertainty import (
    VolGradient,
    delta_gradient,
    error_reason,
    gradient_with,
    straddle_gradient,
    vol_gradient,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import polars as pl

    from volsurf.surface.surface import Surface

Atm = Literal["forward", "dns"]

WINGS = np.arange(5, 45, 5) / 100.0
"""Sizes of the deltas, 0.05 to 0.40."""
NODE_NAMES = (*(f"{d}P" for d in range(5, 45, 5)), "ATM", *(f"{d}C" for d in range(40, 0, -5)))
"""By rising strike."""
_ATM = 8
_DELTAS = np.concatenate([-WINGS, [0.5], WINGS[::-1]])
_IS_CALL = _DELTAS > 0


class NodeStatus(IntEnum):
    """Whether a node has a vol."""

    OK = 0
    INTERPOLATED = 1
    UNREACHABLE = 2
    BEYOND_HORIZON = 3
    NO_VOL = 4

    @property
    def sentence(self) -> str:
        """What it means."""
        return _SENTENCES[self]


_SENTENCES = {
    NodeStatus.OK: "read off the curve",
    NodeStatus.INTERPOLATED: "the expiry has no curve of its own: read between or beyond its neighbours",
    NodeStatus.UNREACHABLE: "no strike has a premium-adjusted call delta that high",
    NodeStatus.BEYOND_HORIZON: "beyond twice the last expiry, where vols are not extrapolated",
    NodeStatus.NO_VOL: "the curve, which is not certified, has no vol here",
}


class _Grid:
    """Tables of a quantity by time and delta."""

    __slots__ = ()

    rows: Rows
    names: tuple[str, ...]
    quantity: str
    status: npt.NDArray[np.int8]
    error_reason: tuple[str, ...]

    def _cells(self) -> dict[str, FloatArray]:
        raise NotImplementedError

    def columns(self, shape: str = "long") -> dict[str, Column]:
        """The table's columns: "long" with a row per time and delta, or "wide" with one per time and the values alone."""
        if shape not in ("long", "wide"):
            raise InputError(f'shape must be "long" or "wide", was {shape!r}')
        cells = self._cells()
        if shape == "wide":
            main = next(iter(cells.values()))
            return self.rows.columns | {name: main[:, j] for j, name in enumerate(self.names)}
        m = len(self.names)
        columns: dict[str, Column] = {
            name: np.repeat(np.asarray(values), m)
            if isinstance(values, np.ndarray)
            else [v for v in values for _ in range(m)]
            for name, values in self.rows.columns.items()
        }
        columns["node"] = [*self.names] * len(self.rows)
        columns |= {name: values.ravel() for name, values in cells.items()}
        columns["status"] = [*(NodeStatus(code).name.lower() for code in self.status.ravel().tolist())]
        columns["error_reason"] = [*(r for r in self.error_reason for _ in range(m))]
        return columns

    def __repr__(self) -> str:
        return f"{type(self).__name__}\n{self.to_polars('wide')}"

    def to_polars(self, shape: str = "long") -> pl.DataFrame:
        """A row per time and delta with its status, or with "wide" a row per time and a column per delta."""
        return polars_frame(self.columns(shape))

    def to_pandas(self, shape: str = "long") -> pd.DataFrame:
        """`to_polars`, for pandas."""
        return pandas_frame(self.columns(shape))

    def _repr_html_(self) -> str:
        columns = self.columns("wide")
        del columns["forward"]
        values = np.column_stack([np.asarray(columns[name], np.float64) for name in self.names])
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        heat = np.nan_to_num((values - low) / max(high - low, 1e-12))
        colours = {
            name: [f"rgba(138,123,240,{0.05 + 0.5 * x:.2f})" for x in heat[:, j]] for j, name in enumerate(self.names)
        }
        return html_table(columns, colours)

    def plot(self) -> go.Figure:
        """A heat map of the values in per cent, as a plotly figure."""
        import plotly.graph_objects as go

        main = next(iter(self._cells().values()))
        error = self._cells()["error"]
        figure = go.Figure(
            go.Heatmap(
                x=list(self.names),
                y=list(self.rows.label),
                z=100.0 * main,
                customdata=100.0 * error,
                colorscale="Viridis",
                hovertemplate="%{y} %{x}: %{z:.2f} % ± %{customdata:.2f}<extra></extra>",
                colorbar={"title": "%"},
            )
        )
        figure.update_yaxes(type="category", autorange="reversed")
        figure.update_xaxes(type="category")
        figure.update_layout(title=self.quantity.replace("_", " "), template="none", margin={"l": 90, "t": 50})
        return figure


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Nodes(_Grid):
    """Vols at the seventeen nodes of each time; arrays of shape (n, 17), in the order of `names`."""

    rows: Rows
    vol: FloatArray
    k: FloatArray
    """Log-moneyness of the node."""
    strike: FloatArray
    error: FloatArray
    """Standard error of the vol at this delta; NaN where `error_reason` says why."""
    delta: FloatArray
    """Of the option, negative for puts; at the money the call's."""
    status: npt.NDArray[np.int8]
    """`NodeStatus` codes; the vol is NaN for UNREACHABLE, BEYOND_HORIZON and NO_VOL."""
    error_reason: tuple[str, ...]
    """Per time, why there are no standard errors; empty where there are."""
    premium_adjusted: bool
    names: tuple[str, ...] = NODE_NAMES
    quantity: str = "vol"

    def _cells(self) -> dict[str, FloatArray]:
        return {"vol": self.vol, "error": self.error, "delta": self.delta, "k": self.k, "strike": self.strike}

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DeltaTable(_Grid):
    """Risk reversals or flies at deltas 5 to 40 of each time; arrays of shape (n, 8)."""

    quantity: str
    """ "risk_reversal" or "fly"."""
    rows: Rows
    value: FloatArray
    error: FloatArray
    """Standard error; NaN where `error_reason` says why."""
    status: npt.NDArray[np.int8]
    """`NodeStatus` codes of the worse of the nodes."""
    error_reason: tuple[str, ...]
    premium_adjusted: bool
    atm: str = "forward"

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """risk_reversal05 … or fly05 …, by delta."""
        return tuple(f"{self.quantity}{round(100 * d):02d}" for d in WINGS)

    @property
    def deltas(self) -> FloatArray:
        """Sizes of the deltas, shape (8,)."""
        return WINGS.copy()

    def _cells(self) -> dict[str, FloatArray]:
        return {self.quantity: self.value, "error": self.error}

    def __len__(self) -> int:
        return len(self.rows)


def nodes_of(surface: Surface, premium_adjusted: bool, tenors: str | Sequence[str] | None) -> Nodes:
    """`Surface.nodes`."""
    rows = rows_of(surface, tenors)
    readable = rows.readable
    at = rows.years[readable][:, None]
    k, gradient = _seventeen(surface, at, premium_adjusted)
    delta = np.broadcast_to(_DELTAS, k.shape).copy()
    delta[:, _ATM] = delta_at_money(np.square(gradient.vol[:, _ATM]) * at[:, 0], premium_adjusted)
    k_, vol, error, delta_ = (spread(value, readable) for value in (k, gradient.vol, gradient.error(surface), delta))
    out_of_reach = np.zeros(vol.shape, np.bool_)
    out_of_reach[:, _ATM + 1 :] = premium_adjusted & np.isfinite(vol[:, _ATM - 1 :: -1])
    status = _status(surface, rows, vol, out_of_reach)
    strike = rows.forward[:, None] * np.exp(k_)
    return Nodes(rows, vol, k_, strike, error, delta_, status, _error_reasons(surface, rows), premium_adjusted)


def delta_table(
    surface: Surface, quantity: str, premium_adjusted: bool, atm: Atm, tenors: str | Sequence[str] | None
) -> DeltaTable:
    """`Surface.risk_reversals` and `Surface.flies`."""
    return delta_tables(surface, (quantity,), premium_adjusted, atm, rows_of(surface, tenors))[0]


def delta_tables(
    surface: Surface, quantities: Sequence[str], premium_adjusted: bool, atm: Atm, rows: Rows
) -> list[DeltaTable]:
    """Tables of "risk_reversal" or "fly" from the same nodes."""
    readable = rows.readable
    at = rows.years[readable][:, None]
    _, gradient = _seventeen(surface, at, premium_adjusted)
    calls, puts = gradient[:_ATM:-1], gradient[:_ATM]
    reasons = _error_reasons(surface, rows)
    tables = []
    for quantity in quantities:
        if quantity == "risk_reversal":
            wanted = calls - puts
        else:
            middle = gradient[_ATM : _ATM + 1]
            if checked_atm(atm) == "dns":
                middle = straddle_gradient(surface, at, premium_adjusted)
            wanted = calls + puts + middle * -2.0
        value, error = (spread(v, readable) for v in (wanted.vol, wanted.error(surface)))
        out_of_reach = premium_adjusted & np.isfinite(spread(puts.vol, readable))
        status = _status(surface, rows, value, out_of_reach)
        tables.append(DeltaTable(quantity, rows, value, error, status, reasons, premium_adjusted, atm))
    return tables


def wing_gradient(
    surface: Surface, quantity: str, delta: FloatArray, at: FloatArray, premium_adjusted: bool, atm: Atm
) -> VolGradient:
    """Value and gradient of a risk reversal, fly or butterfly at any delta and time, which broadcast."""
    if not ((delta > 0) & (delta < 1)).all():
        raise InputError(
            f"a {quantity.replace('_', ' ')} takes the size of the delta, between 0 and 1 (0.25), was {delta}"
        )
    shape = np.broadcast_shapes(delta.shape, at.shape)
    at_ = np.broadcast_to(at, shape)
    call, put = (
        delta_gradient(surface, np.broadcast_to(sign * delta, shape), at_, premium_adjusted) for sign in (1.0, -1.0)
    )
    if quantity == "risk_reversal":
        return call - put
    if checked_atm(atm) == "forward":
        middle = vol_gradient(surface, np.zeros(()), at_)
    else:
        middle = straddle_gradient(surface, at_, premium_adjusted)
    fly = call + put + middle * -2.0
    return fly * 0.5 if quantity == "butterfly" else fly


def checked_atm(atm: str) -> str:
    """InputError unless it is one of the two."""
    if atm not in ("forward", "dns"):
        raise InputError(f'atm must be "forward" or "dns" (the delta-neutral straddle), was {atm!r}')
    return atm


def _seventeen(surface: Surface, at: FloatArray, premium_adjusted: bool) -> tuple[FloatArray, VolGradient]:
    """Log-moneyness of the nodes at times of shape (n, 1), and their vols with gradients."""
    k = np.zeros((len(at), len(NODE_NAMES)))
    wings = np.arange(len(NODE_NAMES)) != _ATM
    k[:, wings] = delta_log_moneyness(surface, _DELTAS[wings], at, premium_adjusted)

    def slide(w: FloatArray, slope: FloatArray) -> FloatArray:
        factor = strike_slide(k, w, slope, _IS_CALL, premium_adjusted)
        factor[:, _ATM] = 1.0
        return factor

    return k, gradient_with(surface, k, at, slide)


def _status(surface: Surface, rows: Rows, values: FloatArray, out_of_reach: BoolArray) -> npt.NDArray[np.int8]:
    """`out_of_reach` says of a value that is missing whether the delta is the reason: the curve has the put of its size."""
    status = np.full(values.shape, NodeStatus.OK, np.int8)
    if rows.are_expiries:
        status[[s.fit is None for s in surface.smiles]] = NodeStatus.INTERPOLATED
    missing = np.isnan(values)
    status[missing] = NodeStatus.NO_VOL
    status[missing & out_of_reach] = NodeStatus.UNREACHABLE
    status[~rows.readable] = NodeStatus.BEYOND_HORIZON
    return status


def _error_reasons(surface: Surface, rows: Rows) -> tuple[str, ...]:
    """Per row, why the vols have no standard error: the first reason of the slices behind it."""
    reasons = surface.cache.get("error_reasons")
    if not isinstance(reasons, list):
        reasons = surface.cache["error_reasons"] = [error_reason(s.fit) for s in surface.smiles]
    if not any(reasons) and all(not r for r in rows.reason):
        return ("",) * len(rows)
    from volsurf.surface.interpolation import slices_behind

    result = []
    for years, reason in zip(rows.years.tolist(), rows.reason, strict=True):
        behind = [] if reason else slices_behind(surface, years)
        result.append(reason or next((reasons[i] for i in behind if reasons[i]), ""))
    return tuple(result)
