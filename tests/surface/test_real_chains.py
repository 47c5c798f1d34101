"""A few real Deribit snapshots through the whole pipeline; `tests/bench/real_chains.py` scores all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.real_chains_data import snapshots
from tests.bench.real_chains_score import QUOTE_COLUMNS, Scores, rows, score


@pytest.fixture(scope="module")
def scores(shared: Path) -> Scores:
    paths = snapshots()
    if not paths:
        pytest.skip(f"no Deribit snapshots under {shared}")
    # A calm day, one in the crash of February, the quarter's expiry, and the calm of August.
    return score([paths[i] for i in (10, 50, 110, 170)])


def test_every_row_is_counted_and_every_expiry_certified(scores: Scores) -> None:
    assert scores.ledger_rows == scores.rows > 4_000
    assert len(scores.slices) == scores.expiries > 80
    assert scores.certified == scores.surfaces == 8
    assert scores.guarded == 0


def test_vol_of_the_venues_mark_is_the_venues_vol(scores: Scores) -> None:
    gap = np.concatenate(scores.marks)
    # A crash among four files widens the gap: rows of a file are seconds apart, and so are forward and mark.
    assert np.median(gap[:, 1]) < 0.01
    assert np.quantile(gap[gap[:, 0] > 30, 1], 0.99) < 0.07


def test_curve_goes_through_the_quotes(scores: Scores) -> None:
    q = dict(zip(QUOTE_COLUMNS, np.concatenate(scores.quotes).T, strict=True))
    used = q["used"] == 1
    assert q["inside"][used].mean() > 0.955
    assert (q["ticks"][used] <= 1.0).mean() > 0.99
    assert q["raw_inside"][used].mean() - q["inside"][used].mean() < 0.005


def test_table_has_every_bar(scores: Scores) -> None:
    table = rows(scores)
    assert {row.name for row in table} >= {"R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R13", "R15"}
    assert all(np.isfinite(row.measured) for row in table)
    assert [row.what for row in table if row.name in ("R1", "R9") and not row.holds] == []
