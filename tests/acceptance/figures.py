"""What the acceptance modules share: rows of figures, and the test that holds them to their bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.bench.figures import Row
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.fit import SVIFit
from volsurf.svi.params import RawSVI

__all__ = ["Figures", "Row", "expect", "proved"]

Figures = Callable[[bool], list[Row]]
"""Measures one criterion; True for the full size that the command prints, False for a test's."""


def expect(figures: Figures) -> None:
    """Assert that every figure of a criterion meets its bar."""
    rows = figures(False)
    assert any(row.holds is not None for row in rows)
    assert [row for row in rows if row.holds is False] == []


def proved(fit: SVIFit) -> bool:
    """Whether the published doubles of every surface are free of arbitrage, looked at afresh."""
    order: Sequence[int] = fit.order[fit.has_curve[fit.order]]
    svi = RawSVI(*fit.raw[order].T)
    surface = fit.surface[order]
    pairs = np.flatnonzero(surface[1:] == surface[:-1])
    return bool(check_butterfly(svi)) and bool(check_calendar(svi[pairs], svi[pairs + 1]))
