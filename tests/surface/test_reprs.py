"""What a plain console shows of a surface's tables: a line or a short table, never every number."""

from __future__ import annotations

import numpy as np
import pytest

from tests.surface.random_surfaces import realistic
from volsurf.errors import InputError
from volsurf.surface.positions import Position


@pytest.mark.parametrize(
    "read",
    [
        lambda s: s.nodes(),
        lambda s: s.risk_reversals(),
        lambda s: s.tenors(),
        lambda s: s.atm(),
        lambda s: s.jump_wings(),
        lambda s: s.local_vol_grid(),
        lambda s: s.forward_vols(),
        lambda s: s.slice_at(years=float(s.years[0])),
        lambda s: s.risk([Position("BTC", int(s.expiries[-1]), 100.0, "call", 1.0)]),
    ],
)
def test_tables_are_short_in_a_console(read: object) -> None:
    surface = realistic()
    table = read(surface)  # type: ignore[operator]
    assert type(table).__name__ in repr(table)
    assert len(repr(table)) < 6000


@pytest.mark.parametrize("k", ["x", [0.0, 0.1], np.nan])
def test_forward_vols_take_one_place(k: object) -> None:
    with pytest.raises(InputError, match=r"k must|log-moneyness"):
        realistic().forward_vols(k)  # type: ignore[arg-type]
