"""Write `chain_btc_simulated.csv` again: `python data/make_chain.py`.

The same seed and instant give the same file. Nothing in it comes from an exchange.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from volsurf.instruments import Settlement
from volsurf.sim._deribit_listing import DeribitListing
from volsurf.sim.market import Market
from volsurf.sim.quoting import QuoteModel

SEED = 20
START_NS = 1_795_521_600_000_000_000
"""2026-11-24 12:00 UTC"""
SECONDS = 20


def make() -> pl.DataFrame:
    """The BTC options of a simulated venue, quoted around a surface that is known: the last column."""
    market = Market(SEED, ("BTC",), start_ns=START_NS)
    listing = DeribitListing(market)
    listing.update(market.now_ns)
    quotes = QuoteModel(market, listing.universe)
    for step in range(1, SECONDS + 1):
        market.advance(START_NS + step * 1_000_000_000)
        quotes.update()
    universe = listing.universe
    ids = universe.options("BTC")
    expiry, strike = universe.expiry_ns[ids], universe.strike[ids]
    linear = universe.settlement[ids] == Settlement.LINEAR
    columns = {
        "underlying": ["BTC"] * len(ids),
        "expiry": _iso(expiry),
        "strike": strike,
        "option_type": np.where(universe.is_call[ids], "call", "put").tolist(),
        "bid": quotes.bid[ids].round(6),
        "ask": quotes.ask[ids].round(6),
        "bid_size": quotes.bid_size[ids].round(4),
        "ask_size": quotes.ask_size[ids].round(4),
        "forward": quotes.forward[ids].round(4),
        "index": np.full(len(ids), round(market.spot("BTC"), 2)),
        "settlement": np.where(linear, "linear", "inverse").tolist(),
        "time": _iso(np.full(len(ids), market.now_ns)),
        "venue": ["simulated"] * len(ids),
        "true_vol": market.truth_vol("BTC", expiry, strike).round(8),
    }
    return pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))


def _iso(time_ns: np.ndarray) -> list[str]:
    return [f"{np.datetime64(ns, 'ns').astype('datetime64[s]')}Z" for ns in time_ns.tolist()]


if __name__ == "__main__":
    frame = make()
    path = Path(__file__).with_name("chain_btc_simulated.csv")
    frame.write_csv(path)
    print(f"{path}: {frame.height} rows, {frame['expiry'].n_unique()} expiries")
