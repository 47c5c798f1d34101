"""A static chain of option quotes: from a table or a CSV file to a surface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import FloatArray, IdArray, Instrument, Kind, Settlement, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.columns import ChainColumns, frame_from_pandas, read_chain, read_csv
from volsurf.surface.quote_vols import QuoteRules, QuoteVols, quote_vols
from volsurf.surface.slices import expiry_label
from volsurf.surface.smile import fit_columns
from volsurf.surface.smile_columns import SmileColumns
from volsurf.surface.venue_quotes import NO_TICK

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from volsurf.surface.surface import Surface

_DERIBIT_COIN_TICK = (0.0001, ((0.005, 0.0005),))
"""Deribit's ticks of BTC and ETH options paid in coin: 0.0001, and 0.0005 above 0.005 (its page *Tick sizes*)."""
_MINUTE_NS = 60_000_000_000


class Chain:
    """Quotes of one instant, or of a short collection, as a universe and a board of last values.

    Columns of the table it is made from (more are kept, in any order):

    | column | holds |
    | --- | --- |
    | `underlying` | str |
    | `expiry` | datetime (UTC where it names no zone) or integer ns UTC |
    | `strike` | float |
    | `option_type` | "call" or "put" |
    | `bid`, `ask` | in the venue's premium unit; null, NaN or 0 where there is none |
    | `settlement` | "inverse" (premium in coin) or "linear" |
    | `time` | datetime or integer ns UTC, one instant or one per row |
    | `forward` | float; null or absent: from put-call parity |
    | `venue`, `discount`, `bid_size`, `ask_size`, `mark`, `last`, `index`, `tick_size` | optional |
    | `mark_vol` | optional: the venue's own vol, a decimal |

    A row that cannot be used is not an error: it has a `QuoteReason`, and the ledger counts it. Without `tick_size` the tick is
    Deribit's for its coin-settled BTC and ETH options, and elsewhere the coarsest of 1, 5, 10, … times a power of ten that
    99 % of the prices are multiples of; it matters for one-sided quotes only.
    """

    frame: pl.DataFrame
    """The table as it was given."""
    universe: Universe
    board: QuoteBoard
    time_ns: int
    """The newest time in the table, ns UTC: the instant of the surface."""
    reason: npt.NDArray[np.uint8]
    """`QuoteReason` of each row of the table: USED where it became an option, otherwise why not."""
    instrument_id: IdArray
    """Id of each row's option, -1 where it became none."""
    discount: FloatArray
    """Discount of linear premiums by instrument id."""

    def __init__(self, frame: pl.DataFrame) -> None:
        columns = read_chain(frame)
        self.frame = frame
        self.time_ns = columns.latest_ns
        self.reason = columns.reason
        rows = np.flatnonzero(columns.reason == QuoteReason.USED)
        self.universe = Universe(_instruments(columns, rows))
        self.instrument_id = np.full(len(columns.reason), -1, np.int32)
        self.instrument_id[rows] = np.arange(len(rows), dtype=np.int32)
        self.discount = columns.discount[rows]
        self.board = QuoteBoard(self.universe)
        every = Field.QUOTE | Field.MARK | Field.LAST | Field.FORWARD | Field.INDEX
        values: dict[str, npt.ArrayLike] = {name: column[rows] for name, column in columns.values.items()}
        time = columns.time_ns[rows]
        ids = np.arange(len(rows), dtype=np.int32)
        batch = QuoteBatch(
            ids, every, feed=0, number=0, time_ns=self.time_ns, venue_time_ns=time, receive_time_ns=time, **values
        )
        self.board.apply(batch)

    @classmethod
    def from_polars(cls, frame: pl.DataFrame) -> Chain:
        """A chain from a polars table; `InputError` names the column that is missing or of a wrong kind."""
        import polars as pl

        if not isinstance(frame, pl.DataFrame):
            raise InputError(f"from_polars takes a polars DataFrame, was {type(frame).__name__}")
        return cls(frame)

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame) -> Chain:
        """A chain from a pandas table."""
        return cls(frame_from_pandas(frame))

    @classmethod
    def from_csv(cls, path: str | Path) -> Chain:
        """A chain from a CSV file, plain or gzip; times are ISO or integer ns UTC."""
        return cls(read_csv(Path(path)))

    def __len__(self) -> int:
        return len(self.reason)

    def __repr__(self) -> str:
        at = np.datetime64(self.time_ns, "ns").astype("datetime64[s]")
        return f"Chain({len(self)} rows at {at}Z, underlyings {', '.join(self.underlyings) or 'none'})"

    @property
    def underlyings(self) -> tuple[str, ...]:
        """Underlyings that have at least one readable row."""
        return self.universe.underlyings

    def select(self, underlying: str) -> Chain:
        """The rows of one underlying."""
        import polars as pl

        if underlying not in self.underlyings:
            raise InputError(
                f"the chain has no underlying {underlying!r}; it has {', '.join(self.underlyings) or 'none'}"
            )
        return Chain(self.frame.filter(pl.col("underlying").cast(pl.String).str.strip_chars() == underlying))

    def quote_vols(self, *, previous: QuoteVols | None = None, rules: QuoteRules | None = None) -> QuoteVols:
        """Implied vols, error bars and reasons of all rows; the first stage of a fit."""
        refused = self.reason[self.reason != QuoteReason.USED]
        return quote_vols(
            self.board, self.time_ns, previous=previous, rules=rules, discount=self.discount, refused=refused
        )

    def explain(self, quotes: QuoteVols) -> pl.DataFrame:
        """The table as it was given, with `reason`, `bid_vol`, `ask_vol` and `log_moneyness` of every row."""
        import polars as pl

        quoted = np.zeros(len(self.universe), np.int64)
        quoted[quotes.instrument_id] = np.arange(len(quotes))
        options = np.flatnonzero(self.instrument_id >= 0)
        rows = quoted[self.instrument_id[options]]
        code = self.reason.copy()
        code[options] = quotes.reason[rows]
        added: dict[str, list[str] | FloatArray] = {"reason": [QuoteReason(int(c)).label for c in code]}
        for name in ("bid_vol", "ask_vol", "log_moneyness"):
            column = np.full(len(self), np.nan)
            column[options] = getattr(quotes, name)[rows]
            added[name] = column
        return self.frame.with_columns(pl.Series(name, values) for name, values in added.items())


def fit_surface(chain: Chain, *, rules: QuoteRules | None = None, enforce: bool = True, model: str = "svi") -> Surface:
    """The surface of a chain of one underlying, free of arbitrage unless asked not to be.

    Args:
        enforce: certified free of butterfly and calendar arbitrage at every strike; False publishes what the quotes alone give,
            with certificates that say where it can be arbitraged.
        model: "svi", or "ssvi" or "essvi" for a family with fewer numbers an expiry, see `volsurf.surface.models`.

    Raises:
        InputError: the chain has more than one underlying, or nothing that can be fitted.
    """
    if len(chain.underlyings) > 1:
        raise InputError(
            f"the chain has {len(chain.underlyings)} underlyings ({', '.join(chain.underlyings)}): use fit_surfaces(chain), "
            f"or fit_surface(chain.select({chain.underlyings[0]!r}))"
        )
    return next(iter(fit_surfaces(chain, rules=rules, enforce=enforce, model=model).values()))


def fit_surfaces(
    chain: Chain, *, rules: QuoteRules | None = None, enforce: bool = True, model: str = "svi"
) -> dict[str, Surface]:
    """The surfaces of all underlyings of a chain, by name. An underlying of which no expiry can be fitted is left out.

    Arguments as `fit_surface`.

    Raises:
        InputError: nothing in the chain can be fitted; the message says what became of the rows.
    """
    quotes = chain.quote_vols(rules=rules)
    surfaces = fit_columns(SmileColumns.of(quotes), enforce=enforce, model=model)
    if not surfaces:
        raise InputError(nothing_to_fit(quotes))
    return surfaces


def nothing_to_fit(quotes: QuoteVols) -> str:
    """Why a chain gives no surface, in a sentence."""
    ledger = quotes.ledger()
    counts = ", ".join(f"{n} {reason.label}" for reason, n in ledger.counts.items())
    return f"no expiry of the chain can be fitted: of {ledger.rows} rows {counts or 'there are none'}"


def _instruments(columns: ChainColumns, rows: npt.NDArray[np.intp]) -> list[Instrument]:
    ticks = _ticks(columns, rows)
    made = []
    for row in rows.tolist():
        underlying, venue = columns.underlying[row], columns.venue[row]
        settlement = Settlement(int(columns.settlement[row]))
        expiry, strike, is_call = int(columns.expiry_ns[row]), float(columns.strike[row]), bool(columns.is_call[row])
        label = expiry_label(expiry).replace(" ", "T") if expiry % _MINUTE_NS == 0 else str(expiry)
        kind = "" if settlement is Settlement.INVERSE else "-LINEAR"
        tick, steps = ticks[venue, underlying, settlement]
        own = float(columns.tick_size[row])
        if own > 0:
            tick, steps = own, ()
        made.append(
            Instrument(
                venue=venue,
                symbol=f"{underlying}-{label}-{strike!r}-{'C' if is_call else 'P'}{kind}",
                kind=Kind.OPTION,
                underlying=underlying,
                settlement=settlement,
                expiry_ns=expiry,
                strike=strike,
                is_call=is_call,
                tick_size=tick,
                tick_steps=steps,
            )
        )
    return made


Ticks = tuple[float, tuple[tuple[float, float], ...]]


def _ticks(columns: ChainColumns, rows: npt.NDArray[np.intp]) -> Mapping[tuple[str, str, Settlement], Ticks]:
    members: dict[tuple[str, str, Settlement], list[int]] = {}
    for row in rows.tolist():
        key = (columns.venue[row], columns.underlying[row], Settlement(int(columns.settlement[row])))
        members.setdefault(key, []).append(row)
    ticks: dict[tuple[str, str, Settlement], Ticks] = {}
    for key, mine in members.items():
        venue, underlying, settlement = key
        if venue.lower() == "deribit" and underlying in ("BTC", "ETH") and settlement is Settlement.INVERSE:
            ticks[key] = _DERIBIT_COIN_TICK
        else:
            prices = np.concatenate((columns.values["bid"][mine], columns.values["ask"][mine]))
            ticks[key] = (_common_tick(prices), ())
    return ticks


def _common_tick(prices: FloatArray) -> float:
    """The coarsest 1, 5, 10, … × power of ten that 99 % of the prices are multiples of; 0 without prices."""
    prices = prices[np.isfinite(prices) & (prices > 0)]
    if not prices.size:
        return 0.0
    for exponent in range(3, -9, -1):
        for digit in (5, 1):
            tick = float(f"{digit}e{exponent}")
            steps = prices / tick
            if (np.abs(steps - np.round(steps)) <= 1e-6 * np.maximum(steps, 1.0)).mean() >= 0.99 and steps.min() > 0.5:
                return tick
    return NO_TICK
