"""The times that a table of a surface has a row for, and what all such tables do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray, IntArray
from volsurf.surface.interpolation import HORIZON, forward_at
from volsurf.surface.slices import expiry_label

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from volsurf.surface.surface import Surface

Column = list[object] | npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Listed expiries or fixed tenors, arrays of shape (n,)."""

    label: tuple[str, ...]
    expiry_ns: IntArray
    """ns UTC; 0 for a tenor."""
    years: FloatArray
    forward: FloatArray
    """NaN where there is no curve."""
    reason: tuple[str, ...]
    """Why there is no curve at this time; empty where there is one."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def are_expiries(self) -> bool:
        """Rows of listed expiries, not of tenors."""
        return bool(self.expiry_ns.any())

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """True where there is a curve."""
        return np.array([not r for r in self.reason], np.bool_)

    @property
    def columns(self) -> dict[str, Column]:
        """As columns of a table."""
        columns: dict[str, Column] = {"label": list(self.label)}
        if self.are_expiries:
            columns["expiry"] = self.expiry_ns
        return columns | {"years": self.years, "forward": self.forward}


def spread(values: FloatArray, readable: npt.NDArray[np.bool_]) -> FloatArray:
    """Values of the readable rows as values of all rows, NaN in the others."""
    if readable.all():
        return values
    result = np.full((len(readable), *values.shape[1:]), np.nan)
    result[readable] = values
    return result


def labels_of(surface: Surface) -> tuple[str, ...]:
    """The expiries as traders write them."""
    found = surface.cache.get("labels")
    if not isinstance(found, tuple):
        found = surface.cache["labels"] = tuple(s.expiry_label for s in surface.smiles)
    return found


def rows_of(surface: Surface, tenors: str | Sequence[str] | None) -> Rows:
    """A row per listed expiry, or per tenor where tenors are named; one beyond the horizon has a reason instead of a curve."""
    if tenors is None:
        forwards = np.array([s.forward for s in surface.smiles])
        n = len(surface)
        return Rows(labels_of(surface), surface.expiries, surface.years, forwards, ("",) * n)
    from volsurf.surface.tenors import tenor_years

    names = (tenors,) if isinstance(tenors, str) else tuple(tenors)
    years = tenor_years(names)
    horizon = HORIZON * float(surface.years[-1])
    reasons = tuple(
        f"beyond the horizon of {horizon:.4g} years, twice the last expiry ({expiry_label(int(surface.expiries[-1]))})"
        if late
        else ""
        for late in (years > horizon).tolist()
    )
    forwards = np.where(years > horizon, np.nan, forward_at(surface, years))
    return Rows(tuple(n.strip().upper() for n in names), np.zeros(len(names), np.int64), years, forwards, reasons)


class TableMethods:
    """What frozen dataclasses of equally long columns share: tables for polars, pandas and the notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        # What a plain console has room for: polars elides rows and columns.
        return f"{type(self).__name__}\n{self.to_polars()}"

    def columns(self) -> dict[str, Column]:
        """The columns by name."""
        result: dict[str, Column] = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Rows):
                result |= value.columns
            elif isinstance(value, np.ndarray):
                result[f.name] = np.atleast_1d(value).ravel()
            elif isinstance(value, tuple):
                result[f.name] = list(value)
        return result

    def to_polars(self) -> pl.DataFrame:
        """One row per time."""
        return polars_frame(self.columns())

    def to_pandas(self) -> pd.DataFrame:
        """`to_polars`, for pandas."""
        return pandas_frame(self.columns())

    def _repr_html_(self) -> str:
        return html_table(self.columns())


def polars_frame(columns: dict[str, Column]) -> pl.DataFrame:
    """A frame, the expiry as a time."""
    import polars as pl

    frame = pl.DataFrame(columns)
    return frame.with_columns(pl.col("expiry").cast(pl.Datetime("ns", "UTC"))) if "expiry" in columns else frame


def pandas_frame(columns: dict[str, Column]) -> pd.DataFrame:
    """A frame, the expiry as a time."""
    import pandas as pd

    frame = pd.DataFrame(columns)
    if "expiry" in columns:
        frame["expiry"] = pd.to_datetime(frame["expiry"], utc=True)
    return frame


def html_table(columns: dict[str, Column], background: dict[str, list[str]] | None = None) -> str:
    """An HTML table; `background` has a CSS colour per cell of the columns it names."""
    from volsurf.surface.html import STYLE

    shown = {name: values for name, values in columns.items() if name != "expiry"}
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in shown)
    body = []
    for i in range(len(next(iter(shown.values())))):
        cells = []
        for name, values in shown.items():
            style = f" style='background:{background[name][i]}'" if background and name in background else ""
            cells.append(f"<td{style}>{escape(_text(name, values[i]))}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f"{STYLE}<div class='volsurf'><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _text(name: str, value: object) -> str:
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return "\u2013"
        if name == "forward" or abs(number) >= 1000:
            return f"{number:,.2f}"
        return f"{number:.4f}"
    return "yes" if value is True else "" if value is False else str(value)
