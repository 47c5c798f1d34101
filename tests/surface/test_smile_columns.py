from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from tests.surface.quoted_market import NOW, SLICES, Quoted, board_of
from volsurf.instruments import Settlement
from volsurf.quotes import Field, QuoteBatch
from volsurf.surface.quote_vols import QuoteVols, quote_vols
from volsurf.surface.slices import Smile
from volsurf.surface.smile_columns import QUOTE_COLUMNS, SmileColumns


def assert_same(one: list[Smile], other: list[Smile]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for f in fields(Smile):
            np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)


@pytest.fixture(scope="module")
def quotes() -> QuoteVols:
    """Two underlyings, the later one in the alphabet listed first."""
    sol, btc = Quoted("SOL", Settlement.LINEAR, spot=140.0, slices={7: SLICES[7], 30: SLICES[30]}), Quoted()
    board = board_of(sol)
    rows = btc.rows()
    ids = board.universe.add(btc.instrument(r) for r in rows)
    values = {"bid": [r.bid for r in rows], "ask": [r.ask for r in rows], "forward": [r.forward for r in rows]}
    board.apply(QuoteBatch(ids, Field.QUOTE | Field.FORWARD, venue_time_ns=NOW, receive_time_ns=NOW, **values))
    return quote_vols(board, NOW)


def test_columns_follow_the_fields_of_a_smile() -> None:
    names = [f.name for f in fields(Smile)]
    first = names.index(QUOTE_COLUMNS[0])
    assert tuple(names[first : first + len(QUOTE_COLUMNS)]) == QUOTE_COLUMNS


def test_smiles_are_sorted_by_name_and_expiry(quotes: QuoteVols) -> None:
    columns = SmileColumns.of(quotes)
    assert columns.underlying == ("BTC",) * 3 + ("SOL",) * 2
    assert columns.surface.tolist() == [0, 0, 0, 1, 1]
    assert (columns.of_underlying("SOL"), columns.of_underlying("XRP")) == (slice(3, 5), slice(0, 0))
    for smile in columns.smiles():
        assert len(smile.strike) > 10
        assert (np.diff(smile.strike) >= 0).all()
        assert abs(np.log(smile.strike / smile.forward) - smile.log_moneyness).max() < 1e-9


def test_smiles_and_columns_are_inverse(quotes: QuoteVols) -> None:
    smiles = SmileColumns.of(quotes).smiles()
    assert_same(SmileColumns.of_smiles(smiles[::-1]).smiles(), smiles)


def test_selection(quotes: QuoteVols) -> None:
    columns = SmileColumns.of(quotes)
    smiles = columns.smiles()
    assert_same(columns.select([4, 1]).smiles(), [smiles[4], smiles[1]])
    assert columns.select([]).smiles() == []


def test_columns_of_an_underlying_cut_its_quotes(quotes: QuoteVols) -> None:
    columns = SmileColumns.of(quotes)
    mine = columns.quotes_of(columns.of_underlying("SOL"))
    assert columns.strike[mine].max() < 1000 < columns.strike[: mine.start].min()
