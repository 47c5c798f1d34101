"""A few real Deribit snapshots through the whole pipeline; `tests/bench/real_chains.py` scores all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.bench.real_chains as real_chains


@pytest.fixture(scope="module")
def scores(shared: Path) -> real_chains.Scores:
    paths = real_chains.snapshots()
    if not paths:
        pytest.skip(f"no Deribit snapshots under {shared}")
    # A calm day, one in the crash of February, the quarter's expiry, and the calm of August.
    return real_chains.score([paths[i] for i in (10, 50, 110, 170)])


def test_every_row_is_counted_and_every_expiry_fitted(scores: real_chains.Scores) -> None:
    assert scores.ledger_rows == scores.rows > 4_000
    assert scores.fitted == scores.expiries > 80


def test_vol_of_the_venues_mark_is_the_venues_vol(scores: real_chains.Scores) -> None:
    gap = np.concatenate(scores.marks)
    # A crash among four files widens the gap: rows of a file are seconds apart, and so are forward and mark.
    assert np.median(gap[:, 1]) < 0.01
    assert np.quantile(gap[gap[:, 0] > 30, 1], 0.99) < 0.07


def test_curve_goes_through_the_quotes(scores: real_chains.Scores) -> None:
    _, _, _, used, inside, _, ticks, _ = np.concatenate(scores.quotes).T
    assert inside[used == 1].mean() > 0.955
    assert (ticks[used == 1] <= 1.0).mean() > 0.99


def test_table_has_every_bar(scores: real_chains.Scores) -> None:
    rows = real_chains.table(scores)
    assert {name for name, *_ in rows} >= {"R2", "R3", "R4", "R6", "R7", "R8", "R13"}
    assert all(np.isfinite(value) for _, _, value, _, _ in rows)
