"""Reading a chain's table: columns to arrays, and a reason for every row that is no option."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IntArray, Settlement

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("underlying", "expiry", "strike", "option_type", "bid", "ask", "settlement", "time")
_VALUES = ("bid", "ask", "bid_size", "ask_size", "last", "mark", "mark_vol", "forward", "index")
_NOTHING = ["", "null", "NULL", "None", "NaN", "nan", "NA", "N/A"]
_MISSING = np.iinfo(np.int64).min
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_NS = 10**17
"""March 1973: an integer below it is in other units than nanoseconds."""
_LONGEST_DATE = len("2026-12-25")
DEFAULT_VENUE = "chain"


@dataclass(frozen=True, slots=True)
class ChainColumns:
    """The table as arrays of shape (n,), one element a row."""

    underlying: list[str]
    venue: list[str]
    expiry_ns: IntArray
    strike: FloatArray
    is_call: BoolArray
    settlement: npt.NDArray[np.int8]
    time_ns: IntArray
    discount: FloatArray
    tick_size: FloatArray
    values: dict[str, FloatArray]
    """Float columns of the board, NaN where empty; -1 where a price could not be read as a number."""
    reason: npt.NDArray[np.uint8]
    """USED where the row is an option."""
    latest_ns: int


def read_csv(path: Path) -> pl.DataFrame:
    """The table of a CSV file; `InputError` where there is none."""
    if not path.is_file():
        raise InputError(f"no file {path}")
    try:
        heads = pl.read_csv(path, n_rows=0).columns
        separator = next((mark for mark in ";\t" if len(heads) == 1 and mark in heads[0]), ",")
        # Spreadsheets of half of Europe write semicolons, because a comma is their decimal point.
        frame = pl.read_csv(
            path,
            separator=separator,
            decimal_comma=separator == ";",
            infer_schema_length=None,
            null_values=_NOTHING,
        )
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    return frame.rename({name: name.strip() for name in frame.columns})


def frame_from_pandas(frame: pd.DataFrame) -> pl.DataFrame:
    """A polars table of a pandas one, column by column, so that pyarrow is not needed."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"from_pandas takes a pandas DataFrame, was {type(frame).__name__}")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].tolist()
        raise InputError(f"the table has the columns {', '.join(map(str, twice))} more than once")
    columns: dict[str, pl.Series] = {}
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            stamps = pd.to_datetime(column, utc=True)
            ns = stamps.dt.tz_localize(None).to_numpy("datetime64[ns]")
            columns[str(name)] = pl.Series(ns).dt.replace_time_zone("UTC")
        elif pd.api.types.is_numeric_dtype(column.dtype) and not column.isna().any():
            columns[str(name)] = pl.Series(column.to_numpy())
        elif pd.api.types.is_numeric_dtype(column.dtype):
            columns[str(name)] = pl.Series(column.to_numpy(np.float64, na_value=np.nan))
        else:
            columns[str(name)] = pl.Series([None if pd.isna(v) else v for v in column.tolist()], strict=False)
    return pl.DataFrame(columns)


def read_chain(frame: pl.DataFrame) -> ChainColumns:
    """Arrays of a chain's table.

    Raises:
        InputError: a column is missing, or holds another kind of value altogether.
    """
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise InputError(
            f"the chain lacks {'the column' if len(missing) == 1 else 'the columns'} {', '.join(missing)}; "
            f"it has {', '.join(frame.columns) or 'none'}"
        )
    n = frame.height
    if n == 0:
        raise InputError("the chain has no rows")
    reason = np.zeros(n, np.uint8)

    def mark(mask: BoolArray, why: QuoteReason) -> None:
        reason[mask & (reason == 0)] = why

    underlying = _text(frame, "underlying")
    venue = _text(frame, "venue") if "venue" in frame.columns else [""] * n
    expiry = _time(frame["expiry"])
    time = _time(frame["time"])
    known = time != _MISSING
    if not known.any():
        raise InputError("the column time holds no time in any row")
    latest = int(time[known].max())
    strike = _number(frame, "strike")
    option_type = [
        text[:1].lower() if text.lower() in ("call", "put", "c", "p") else "" for text in _text(frame, "option_type")
    ]
    settled = [text.lower() for text in _text(frame, "settlement")]
    settlement = np.array([Settlement.LINEAR if text == "linear" else Settlement.INVERSE for text in settled], np.int8)
    values = {name: _number(frame, name) for name in _VALUES if name in frame.columns}
    for name in ("forward", "index", "mark", "mark_vol"):
        # Not a quote: what cannot be a price of its kind is as good as absent.
        if name in values:
            with np.errstate(invalid="ignore"):
                values[name] = np.where((values[name] > 0) & np.isfinite(values[name]), values[name], np.nan)
    discount = _number(frame, "discount") if "discount" in frame.columns else np.full(n, np.nan)
    discount = np.where(np.isnan(discount), 1.0, discount)
    with np.errstate(invalid="ignore"):
        no_discount = ~((discount > 0) & (discount < 2))
        values["bid"] = np.where(no_discount, -1.0, values["bid"])
        no_strike = ~((strike > 0) & np.isfinite(strike))
    mark(np.array([not text for text in underlying]), QuoteReason.BAD_UNDERLYING)
    mark(expiry <= 0, QuoteReason.BAD_EXPIRY)
    mark(no_strike, QuoteReason.BAD_STRIKE)
    mark(np.array([not text for text in option_type]), QuoteReason.BAD_TYPE)
    mark(np.array([text not in ("inverse", "linear") for text in settled]), QuoteReason.BAD_SETTLEMENT)
    time = np.where(known, time, latest)
    is_call = np.array([text == "c" for text in option_type])
    venue = [name or DEFAULT_VENUE for name in venue]
    mark(_duplicated(reason, time, (venue, underlying, expiry, settlement, strike, is_call)), QuoteReason.DUPLICATE)
    return ChainColumns(
        underlying=underlying,
        venue=venue,
        expiry_ns=expiry,
        strike=strike,
        is_call=is_call,
        settlement=settlement,
        time_ns=time,
        discount=np.where(no_discount, 1.0, discount),
        tick_size=np.nan_to_num(_number(frame, "tick_size")) if "tick_size" in frame.columns else np.zeros(n),
        values=values,
        reason=reason,
        latest_ns=latest,
    )


def _duplicated(reason: npt.NDArray[np.uint8], time: IntArray, key: tuple[object, ...]) -> BoolArray:
    """All but the newest row of each contract; of equally new ones the last stays."""
    keep: dict[tuple[object, ...], int] = {}
    columns = [part.tolist() if isinstance(part, np.ndarray) else part for part in key]
    for row, contract in enumerate(zip(*columns, strict=True)):
        if reason[row]:
            continue
        best = keep.get(contract)
        if best is None or time[row] >= time[best]:
            keep[contract] = row
    duplicated = reason == 0
    duplicated[list(keep.values())] = False
    return np.asarray(duplicated)


def _text(frame: pl.DataFrame, name: str) -> list[str]:
    column = frame[name]
    if column.dtype.is_float() and column.fill_nan(None).is_null().all():
        # How pandas keeps a column of nothing.
        return [""] * frame.height
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise InputError(f"the column {name} must hold text, was {column.dtype}")
    return [(value or "").strip() for value in column.cast(pl.String).to_list()]


def _number(frame: pl.DataFrame, name: str) -> FloatArray:
    """Floats, NaN for nulls; text that is no number becomes -1, which no price or strike can be."""
    column = frame[name]
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        empty = text.is_null() | text.is_in(_NOTHING)
        number = text.cast(pl.Float64, strict=False)
        column = pl.select(pl.when(empty).then(None).otherwise(number.fill_null(-1.0))).to_series()
    elif not (column.dtype.is_numeric() or column.dtype == pl.Null):
        raise InputError(f"the column {name} must hold numbers, was {column.dtype}")
    return np.array(column.cast(pl.Float64).fill_null(np.nan).to_numpy(), np.float64)


def _time(column: pl.Series) -> IntArray:
    """Nanoseconds UTC; `_MISSING` for nulls and text that is no time."""
    if isinstance(column.dtype, pl.Datetime):
        utc = column if column.dtype.time_zone is None else column.dt.convert_time_zone("UTC")
        return np.array(utc.dt.cast_time_unit("ns").cast(pl.Int64).fill_null(_MISSING).to_numpy(), np.int64)
    if column.dtype.is_integer():
        ns = column.cast(pl.Int64).fill_null(_MISSING).to_numpy()
        if (ns != _MISSING).any() and 0 < ns.max() < _EARLIEST_NS:
            raise InputError(
                f"integers in the column {column.name} are nanoseconds since 1970, the largest was {ns.max()}"
            )
        return np.array(ns, np.int64)
    if column.dtype == pl.String:
        read = {text: _parse(text) for text in column.unique().to_list() if text is not None}
        if column.len() and read and not any(column.drop_nulls().str.contains(r"\d.*[T :]\d|^\d+$")):
            raise InputError(
                f"the column {column.name} must hold ISO times such as 2026-12-25T08:00:00Z, with the time of day, "
                f"was {next(iter(read))!r}"
            )
        return np.array([_MISSING if text is None else read[text] for text in column.to_list()], np.int64)
    if column.dtype == pl.Null:
        return np.full(column.len(), _MISSING, np.int64)
    raise InputError(
        f"the column {column.name} must hold datetimes with a time of day, ISO text or integer ns UTC, was {column.dtype}"
    )


def _parse(text: str) -> int:
    text = text.strip()
    if text.isdigit():
        return int(text) if _EARLIEST_NS < int(text) < 2**63 else _MISSING
    if len(text) <= _LONGEST_DATE:
        return _MISSING  # a day without its time of day: eight hours are a third of a daily option's life
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return _MISSING
    delta = (when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1_000
