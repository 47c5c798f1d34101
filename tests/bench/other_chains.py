"""R16: chains that no prior was chosen on: Deribit of 2021, 2023, 2025 and August 2026, and the S&P 500 index.

python -m tests.bench.other_chains
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import volsurf as vs
from tests.bench.figures import Row, print_rows
from tests.bench.real_chains_data import real_data
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.feeds._deribit_names import parse_symbol
from volsurf.surface.smile import fit_all_smiles

SPX_CLOSE_UTC_HOUR = 20
"""Four in the afternoon in New York, in summer time."""


def _text(path: Path) -> Any:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def read_quantflow(path: Path) -> pl.DataFrame:
    """A chain of quantflow's fixtures: coin premiums, forwards from the futures' mids."""
    data = _text(path)
    return _raw_deribit(data) if "instruments" in data else _inputs(data, "ETH" if "_eth_" in path.name else "BTC")


def _inputs(data: dict[str, Any], name: str) -> pl.DataFrame:
    forwards: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for item in data["inputs"]:
        if item["security_type"] == "forward":
            forwards[item["maturity"]] = 0.5 * (float(item["bid"]) + float(item["ask"]))
        elif item["security_type"] == "option":
            # The files of 2023 nest a whole quote in each side.
            side = next((item[s] for s in ("bid", "ask") if isinstance(item.get(s), dict)), item)
            is_call = side["call"] if "call" in side else side["option_type"] == "call"
            rows.append(
                {
                    "expiry": side["maturity"],
                    "strike": float(side["strike"]),
                    "option_type": "call" if is_call else "put",
                    "bid": _price(item.get("bid")),
                    "ask": _price(item.get("ask")),
                }
            )
    frame = pl.DataFrame(rows).with_columns(
        forward=pl.col("expiry").replace_strict(forwards, default=None, return_dtype=pl.Float64),
        time=pl.lit(data["ref_date"]),
    )
    return _deribit_frame(frame, name)


def _price(side: Any) -> float | None:
    value = side["price"] if isinstance(side, dict) else side
    return None if value is None else float(value)


def _raw_deribit(data: dict[str, Any]) -> pl.DataFrame:
    books = [f for f in data["futures"] if f["bid_price"] and f["ask_price"]]
    futures = {f["instrument_name"]: 0.5 * (f["bid_price"] + f["ask_price"]) for f in books}
    rows = []
    for option in data["options"]:
        name = option["instrument_name"]
        symbol = parse_symbol(name)
        if symbol is not None:
            rows.append(
                {
                    "expiry": symbol.expiry_ns,
                    "strike": symbol.strike,
                    "option_type": "call" if symbol.is_call else "put",
                    "bid": option["bid_price"],
                    "ask": option["ask_price"],
                    "forward": futures.get("-".join(name.split("-")[:2])),
                }
            )
    frame = pl.DataFrame(rows).with_columns(time=pl.lit(data["as_of"]))
    return _deribit_frame(frame, "BTC")


def read_2021(path: Path) -> pl.DataFrame:
    """A chain of order books of June 2021, with each row's own forward and time."""
    frame = pl.read_csv(path, infer_schema_length=10_000)
    symbols = [parse_symbol(name) for name in frame["instrument_name"].to_list()]
    made = [symbol is not None for symbol in symbols]
    known = [symbol for symbol in symbols if symbol is not None]
    return _deribit_frame(
        frame.filter(made).select(
            pl.Series("expiry", [s.expiry_ns for s in known]),
            pl.Series("strike", [s.strike for s in known]),
            pl.Series("option_type", ["call" if s.is_call else "put" for s in known]),
            time=pl.col("timestamp") * 1_000_000,
            bid=pl.col("best_bid_price"),
            ask=pl.col("best_ask_price"),
            forward=pl.col("underlying_price"),
            mark_vol=pl.col("mark_iv") / 100,
        ),
        "BTC",
    )


def _deribit_frame(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.with_columns(underlying=pl.lit(name), settlement=pl.lit("inverse"), venue=pl.lit("deribit"))


def read_spx(path: Path) -> pl.DataFrame:
    """The index chain; forward and discount of each expiry from parity, strikes that two settlements share left out."""
    data = _text(path)
    now = datetime.fromtimestamp(data["quote"]["regularMarketTime"], UTC)
    spot = data["quote"]["regularMarketPrice"]
    pieces = []
    for listed in data["options"]:
        day = datetime.fromtimestamp(listed["expirationDate"], UTC)
        sides = {}
        for kind in ("calls", "puts"):
            rows = [(o["strike"], o.get("bid") or 0.0, o.get("ask") or 0.0) for o in listed[kind]]
            strikes = np.array([r[0] for r in rows])
            once = np.array([np.count_nonzero(strikes == k) == 1 for k in strikes], bool)
            sides[kind] = {r[0]: r for r, single in zip(rows, once, strict=True) if single}
        both = sorted(k for k in sides["calls"].keys() & sides["puts"].keys() if abs(k / spot - 1) < 0.05)
        pairs = [
            (k, 0.5 * (sum(sides["calls"][k][1:]) - sum(sides["puts"][k][1:])))
            for k in both
            if min(*sides["calls"][k][1:], *sides["puts"][k][1:]) > 0
        ]
        expiry = day + timedelta(hours=SPX_CLOSE_UTC_HOUR)
        if len(pairs) < 6 or expiry <= now:
            continue
        k, difference = np.array(pairs).T
        slope, level = np.polyfit(k, difference, 1)
        for kind, table in (("call", sides["calls"]), ("put", sides["puts"])):
            strike, bid, ask = np.array(list(table.values())).T
            pieces.append(
                pl.DataFrame({"strike": strike, "bid": bid, "ask": ask}).with_columns(
                    expiry=pl.lit(expiry),
                    option_type=pl.lit(kind),
                    forward=pl.lit(level / -slope),
                    discount=pl.lit(-slope),
                )
            )
    return pl.concat(pieces).with_columns(
        underlying=pl.lit("SPX"), settlement=pl.lit("linear"), venue=pl.lit("cboe"), time=pl.lit(now)
    )


def _fitted(frame: pl.DataFrame) -> Iterator[vs.Surface]:
    yield from fit_all_smiles(vs.build_smiles(vs.Chain.from_polars(frame).quote_vols())).values()


def _score(surfaces: list[vs.Surface], longest_days: float = np.inf) -> tuple[float, int, bool, int]:
    """Share of the used two-sided quotes inside, slices, whether all are certified, and surfaces with the guard."""
    inside, used = 0.0, 0
    slices = guarded = 0
    for surface in surfaces:
        guarded += any(s.fit is not None and s.fit.is_guarded for s in surface)
        for smile in surface:
            if smile.fit is None:
                continue
            slices += 1
            if 365 * smile.years <= longest_days:
                keep = (smile.side == 0) & ((smile.reason == QuoteReason.USED) | (smile.reason == QuoteReason.OUTLIER))
                fit = smile.fitted_vol(smile.log_moneyness[keep])
                inside += np.count_nonzero((smile.bid_vol[keep] <= fit) & (fit <= smile.ask_vol[keep]))
                used += int(keep.sum())
    return 100 * inside / max(used, 1), slices, all(bool(s.certificate) for s in surfaces), guarded


def rows() -> list[Row]:
    """Measured beside bar; empty where the chains are not here."""
    base = real_data()
    groups = (
        ("quantflow's seven Deribit chains", "deribit_surfaces_quantflow/*.json.gz", read_quantflow, np.inf, 95.0),
        ("Deribit, June 2021", "deribit_chain_202106/*.csv.gz", read_2021, np.inf, 98.5),
        ("S&P 500, up to 30 d", "spx_yahoo_quantflow/*.json.gz", read_spx, 30.0, 83.0),
    )
    table: list[Row] = []
    for name, pattern, read, longest, bar in groups:
        paths = sorted(base.glob(pattern))
        if not paths:
            continue
        surfaces = [surface for path in paths for surface in _fitted(read(path))]
        inside, slices, certified, guarded = _score(surfaces, longest)
        table += [
            Row("R16", f"{name}: {slices} slices, used quotes inside, %", inside, ">=", bar),
            Row("R1", f"{name}: certified (1 = all)", float(certified), "==", 1.0),
            Row("R1", f"{name}: surfaces with the guard", float(guarded), "<=", 0.0),
        ]
    return table


if __name__ == "__main__":
    found = rows()
    sys.exit(1 if not found or print_rows(found) else 0)
