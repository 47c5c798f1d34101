"""Chains of anything: every row is counted, nothing but `InputError` comes out, and no NaN passes for a vol."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from hypothesis import given, settings, strategies as st

import volsurf as vs
from tests.surface.quoted_market import NOW, Quoted, chain_frame
from volsurf.diagnostics.quality import diagnose, whole_ledger
from volsurf.errors import InputError
from volsurf.surface.chain import Chain

FRAME = chain_frame(Quoted())
NASTY = st.sampled_from(
    [None, math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 5e-324, 1e-12, 1e-4, 0.05, 0.9999, 1.0, 1e300]
)
WORD = st.sampled_from([None, "", " ", "call", "PUT", "c", "x", "inverse", "linear", "BTC", "\u0000", "ÄÖ"])
TIME = st.sampled_from([0, 1, NOW - 10**9, NOW, NOW + 60 * 10**9, NOW + 31 * 60 * 10**9, NOW + 10**18, 2**62])
SPOILT = st.lists(
    st.tuples(
        st.integers(0, FRAME.height - 1),
        st.one_of(
            st.tuples(st.sampled_from(["bid", "ask", "strike", "forward"]), NASTY),
            st.tuples(st.sampled_from(["option_type", "settlement", "underlying"]), WORD),
            st.tuples(st.sampled_from(["expiry", "time"]), TIME),
        ),
    ),
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(SPOILT)
def test_any_cells_can_be_spoilt(spoilt: list[tuple[int, tuple[str, object]]]) -> None:
    columns = {name: FRAME[name].to_list() for name in FRAME.columns}
    for name in ("expiry", "time"):
        columns[name] = FRAME[name].cast(pl.Int64).to_list()
    for row, (name, value) in spoilt:
        columns[name][row] = value
    chain = Chain.from_polars(pl.DataFrame(columns, strict=False))
    quotes = chain.quote_vols()
    assert quotes.ledger().rows == FRAME.height
    assert np.isfinite(quotes.vol[quotes.used]).all()
    assert (quotes.error[quotes.reason == 0] > 0).all()
    try:
        surfaces = vs.fit_surfaces(chain)
    except InputError as error:
        message = str(error)
        surfaces = {}
    if not surfaces:
        assert "no expiry of the chain can be fitted" in message
        return
    assert whole_ledger(surfaces.values(), quotes).rows == FRAME.height
    for surface in surfaces.values():
        assert diagnose(surface, quotes).ledger.rows >= sum(len(s.strike) for s in surface.smiles)
        for smile in surface.smiles:
            if smile.fit is not None:
                assert np.isfinite(smile.atm_vol)
        assert surface._repr_html_()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_random_subsets_of_a_good_chain_are_fitted(seed: int, count: int) -> None:
    rows = np.random.default_rng(seed).choice(FRAME.height, count, replace=False)
    frame = FRAME[np.sort(rows).tolist()]
    chain = Chain.from_polars(frame)
    used = chain.quote_vols().ledger().used
    if not used:
        return
    surface = vs.fit_surface(chain)
    assert len(surface) == frame["expiry"].n_unique()
    assert all(s.fit is not None for s in surface.smiles)
