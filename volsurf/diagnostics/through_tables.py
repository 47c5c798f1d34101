"""The through matrix as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Column = npt.NDArray[np.generic] | list[str]

_HIDDEN = ("expiry", "venue", "state", "reason", "is_call", "edge_is_bid", "key", "instrument_id", "side")


def table_columns(matrix: ThroughMatrix) -> dict[str, Column]:
    """One element a cell: names first, then the numbers."""
    names = np.array(matrix.venues or ("",), object)
    columns: dict[str, Column] = {
        "underlying": [matrix.underlying] * len(matrix),
        "expiry": matrix.expiries[matrix.expiry],
        "strike": matrix.strike,
        "venue": list(names[matrix.venue]),
        "option_type": list(np.where(matrix.is_call, "call", "put")),
        "state": list(state_labels()[matrix.state]),
        "reason": list(np.array([r.label for r in QuoteReason], object)[matrix.reason]),
        "edge_side": list(np.where(np.isnan(matrix.edge_bp), "", np.where(matrix.edge_is_bid, "bid", "ask"))),
    }
    numbers = {name: getattr(matrix, name) for name in matrix._columns if name not in (*_HIDDEN, "strike")}
    return columns | numbers | {"instrument_id": matrix.instrument_id}


def state_labels() -> npt.NDArray[np.object_]:
    """Labels by state's number."""
    return np.array([s.label for s in ThroughState], object)


def pivot(matrix: ThroughMatrix, value: str) -> pd.DataFrame:
    """See `ThroughMatrix.pivot`."""
    import pandas as pd

    allowed = [n for n in matrix._columns if n not in _HIDDEN] + ["state"]
    if value not in allowed:
        raise InputError(f"the matrix has no column {value!r} to tabulate; it has {', '.join(allowed)}")
    strikes, column = np.unique(matrix.strike, return_inverse=True)
    # Written in rising order of edge, so that of several venues the largest one stays.
    size = np.where(np.isnan(matrix.edge_bp), -np.inf, matrix.edge_bp)
    order = np.lexsort((size, matrix.is_through))
    table: npt.NDArray[np.generic]
    if value == "state":
        table = np.full((len(matrix.expiries), len(strikes)), "", object)
        table[matrix.expiry[order], column[order]] = state_labels()[matrix.state[order]]
    else:
        table = np.full((len(matrix.expiries), len(strikes)), np.nan)
        table[matrix.expiry[order], column[order]] = getattr(matrix, value)[order]
    index = pd.Index(matrix.expiry_labels, name="expiry")
    return pd.DataFrame(table, index=index, columns=pd.Index(strikes, name="strike"))
