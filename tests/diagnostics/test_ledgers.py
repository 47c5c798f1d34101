"""Ledgers by underlying, expiry and venue add up to the rows, whatever the rows are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

import volsurf as vs
from tests.diagnostics.venue_market import board_of_venues
from tests.surface.quoted_market import NOW, Quoted, chain_frame
from volsurf.diagnostics.ledgers import REFUSED, final_reasons, ledgers
from volsurf.diagnostics.quality import diagnose
from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import Settlement
from volsurf.surface.chain import Chain
from volsurf.surface.quote_vols import quote_vols

MARKET = Quoted(tick=0.0005, strikes=9)
ROWS = MARKET.rows()


def together(parts: dict[str, Ledger]) -> Counter[QuoteReason]:
    return sum((Counter(dict(ledger.counts)) for ledger in parts.values()), Counter())


@given(st.lists(st.integers(0, 6), min_size=len(ROWS), max_size=len(ROWS)), st.integers(0, len(ROWS)))
@settings(max_examples=40)
def test_ledgers_add_up_by_expiry_and_venue(damage: list[int], second: int) -> None:
    spoilt = []
    for row, kind in zip(ROWS, damage, strict=True):
        bid, ask = {
            0: (row.bid, row.ask), 1: (np.nan, row.ask), 2: (row.bid, np.nan), 3: (np.nan, np.nan),
            4: (row.ask * 2, row.bid), 5: (-1.0, row.ask), 6: (3 * row.bid, 3 * row.ask),
        }[kind]  # fmt: skip
        spoilt.append(replace(row, bid=bid, ask=ask))
    quotes = quote_vols(board_of_venues(MARKET, {"one": spoilt, "two": ROWS[:second]}), NOW)
    surfaces = {}
    if quotes.used.any():
        surface = vs.fit_smiles(vs.build_smiles(quotes))
        surfaces = {"BTC": surface}
    reason = final_reasons(surfaces.values(), quotes)
    whole = Counter(dict(Ledger.of(reason, quotes.side).counts))
    for by in ("underlying", "expiry", "venue"):
        parts = ledgers(quotes, by, reason=reason)
        assert together(parts) == whole
        assert sum(ledger.rows for ledger in parts.values()) == len(ROWS) + second
    for surface in surfaces.values():
        report = diagnose(surface, quotes)
        assert together(dict(report.ledger_by_expiry)) == together(dict(report.ledger_by_venue)) == whole
        assert report.ledger.rows == len(ROWS) + second
        frame = report.to_polars("ledger")
        assert frame["rows"].sum() == report.ledger.rows
        assert frame.filter("used")["rows"].sum() == report.ledger.used
        assert len(report.through or ()) <= report.ledger.rows


def test_unreadable_rows_and_several_underlyings() -> None:
    frame = pl.concat([chain_frame(Quoted()), chain_frame(Quoted("SOL", Settlement.LINEAR, spot=140.0))])
    spoilt = frame.with_columns(strike=pl.when(pl.int_range(pl.len()) < 2).then(0.0).otherwise("strike"))
    quotes = Chain.from_polars(spoilt).quote_vols()
    by_underlying = ledgers(quotes, "underlying")
    assert {name: ledger.rows for name, ledger in by_underlying.items()} == {"BTC": 148, "SOL": 150, REFUSED: 2}
    assert sum(ledger.rows for ledger in ledgers(quotes, "expiry").values()) == 300
    assert REFUSED not in ledgers(quotes, "venue", refused=False)
    with pytest.raises(InputError, match="was 'strike'"):
        ledgers(quotes, "strike")
