"""A surface as JSON text and back, to the last bit.

    {
      "format": "volsurf.surface", "version": 1,
      "units": {...},                                what the numbers are, for people
      "underlying": "BTC", "time_ns": ...,
      "event": null or {"time_ns", "up", "down", "probability", ...},
      "smiles": [                                    in order of expiry
        {"expiry": "25DEC26", "expiry_ns": ..., "forward": ..., "years": ..., ...,
         "quotes": {"strike": [...], "bid_vol": [...], ...},
         "fit": null or {"a": ..., "b": ..., "rho": ..., "m": ..., "sigma": ..., "butterfly_verdict": 1, ...}}
      ],
      "sha256": "..."                                of everything above but the units, as this module would write it
    }

Every double is written with the fewest digits that read back as itself, and -0.0 as -0.0. NaN is null (where its bits are not
those of the usual NaN, "nan:" and 16 hexadecimal digits), infinities are "inf" and "-inf". Names are those of the fields of
`Smile`, `SliceFit` and `EventJump`, verdicts and sources the integers of their enums. Since the certificates are proofs about
exactly these doubles, a slice that is read back certifies as the one that was written.

What is read is checked twice: place by place for its type, and as a whole by writing it again and comparing the digest. So text
that was cut, mistyped or edited is refused, except for a change that means the same, as another way to write a number does.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.surface.event import EventJump
from volsurf.surface.slices import SliceFit, Smile, expiry_label

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

FORMAT = "volsurf.surface"
VERSION = 1

UNITS = {
    "vol": "decimal a square root of a year: 0.65 is 65 %",
    "years": "365 days, from time_ns to expiry_ns",
    "time": "nanoseconds since 1970-01-01 UTC",
    "strike": "the strike's currency, as forward",
    "log_moneyness": "ln(strike/forward)",
    "slice": "w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), w = vol^2 years, k = log-moneyness",
    "side": "0 two-sided, -1 only a bid, 1 only an ask",
    "verdict": "1 proved free of arbitrage, 0 undecided, 2 violated, 3 no smile",
    "number": 'null is NaN, "inf" and "-inf" are infinities',
}
_COLUMNS: dict[str, type[np.generic]] = {
    "strike": np.float64,
    "log_moneyness": np.float64,
    "bid_vol": np.float64,
    "ask_vol": np.float64,
    "vol": np.float64,
    "error": np.float64,
    "side": np.int8,
    "is_call": np.bool_,
    "instrument_id": np.int32,
    "reason": np.uint8,
}
_USUAL_NAN = struct.pack("<d", math.nan)
_INFINITIES = {"inf": math.inf, "-inf": -math.inf}
_INT64 = 2**63


def to_json(surface: Surface) -> str:
    """The text; see the module.

    Raises:
        InputError: a column of a smile has another type than `Smile` says.
    """
    body = _body(surface)
    text = msgspec.json.encode({**body, "sha256": _digest(body)})
    return text.decode("utf-8")


def from_json(text: str | bytes) -> Surface:
    """The surface of a text.

    Raises:
        InputError: it is no such text, of another version, or damaged; the message names the place.
    """
    from volsurf.surface.surface import Surface

    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError) as error:
        raise InputError(f"no JSON text of a surface: {error}") from None
    root = _object(given, "the text")
    if root.get("format") != FORMAT:
        raise InputError(f"format was {root.get('format')!r}; a surface says {FORMAT!r}")
    if root.get("version") != VERSION or isinstance(root.get("version"), bool):
        raise InputError(f"version was {root.get('version')!r}; this volsurf reads version {VERSION}")
    _keys(root, ("format", "version", "units", "underlying", "time_ns", "event", "smiles", "sha256"), "the text")
    underlying = _text(root["underlying"], "underlying")
    if not isinstance(root["smiles"], list):
        raise InputError("smiles: it must be a list")
    smiles = tuple(_smile(one, underlying, f"smiles[{i}]") for i, one in enumerate(root["smiles"]))
    try:
        surface = Surface(underlying, _integer(root["time_ns"], "time_ns"), smiles, _event(root["event"]))
    except InputError as error:
        raise InputError(f"smiles: {error}") from None
    if _text(root["sha256"], "sha256") != _digest(_body(surface)):
        raise InputError("sha256: the text was changed after it was written: its digest is another")
    return surface


def _body(surface: Surface) -> dict[str, object]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "units": UNITS,
        "underlying": surface.underlying,
        "time_ns": int(surface.time_ns),
        "event": None if surface.event is None else _record(surface.event),
        "smiles": [_smile_body(smile) for smile in surface.smiles],
    }


def _digest(body: Mapping[str, object]) -> str:
    # Without the units, which are for people: their wording may change and is not read.
    return hashlib.sha256(msgspec.json.encode({k: v for k, v in body.items() if k != "units"})).hexdigest()


def _smile_body(smile: Smile) -> dict[str, object]:
    body: dict[str, object] = {"expiry": expiry_label(smile.expiry_ns)}
    for f in fields(Smile):
        if f.name not in _COLUMNS and f.name not in ("underlying", "fit"):
            body[f.name] = _written(getattr(smile, f.name))
    body["quotes"] = {name: _column(smile, name) for name in _COLUMNS}
    body["fit"] = None if smile.fit is None else _record(smile.fit)
    return body


def _record(record: SliceFit | EventJump) -> dict[str, object]:
    return {f.name: _written(getattr(record, f.name)) for f in fields(record)}


def _column(smile: Smile, name: str) -> list[object]:
    column = getattr(smile, name)
    if column.dtype != _COLUMNS[name] or column.ndim != 1:
        raise InputError(
            f"{smile.expiry_label}: {name} must be one dimension of {np.dtype(_COLUMNS[name])}, "
            f"was {column.ndim} of {column.dtype}"
        )
    values: list[Any] = column.tolist()
    if _COLUMNS[name] is np.float64 and not np.isfinite(column).all():
        return [_written(value) for value in values]
    return values


def _written(value: Any) -> Any:
    """A field as JSON knows it; numpy scalars as the Python ones they are."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return [_written(one) for one in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    bits = struct.pack("<d", value)
    return None if bits == _USUAL_NAN else f"nan:{bits[::-1].hex()}"


def _smile(given: object, underlying: str, place: str) -> Smile:
    one = _object(given, place)
    plain = [f for f in fields(Smile) if f.name not in _COLUMNS and f.name not in ("underlying", "fit")]
    _keys(one, ("expiry", *(f.name for f in plain), "quotes", "fit"), place)
    quotes = _object(one["quotes"], f"{place}.quotes")
    _keys(quotes, tuple(_COLUMNS), f"{place}.quotes")
    columns: dict[str, Any] = {
        name: _array(quotes[name], dtype, f"{place}.quotes.{name}") for name, dtype in _COLUMNS.items()
    }
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise InputError(f"{place}.quotes: the columns must be equally long, were {sorted(lengths)}")
    values = {f.name: _read(one[f.name], str(f.type), f"{place}.{f.name}") for f in plain}
    fit = None if one["fit"] is None else _read_record(one["fit"], SliceFit, f"{place}.fit")
    return Smile(underlying=underlying, fit=fit, **values, **columns)


def _event(given: object) -> EventJump | None:
    return None if given is None else _read_record(given, EventJump, "event")


def _read_record(given: object, kind: Any, place: str) -> Any:
    record = _object(given, place)
    names = tuple(f.name for f in fields(kind))
    _keys(record, names, place)
    values = {f.name: _read(record[f.name], str(f.type), f"{place}.{f.name}") for f in fields(kind)}
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _read(given: object, kind: str, place: str) -> Any:
    """A value of the type that a dataclass declares by this text."""
    if kind == "float":
        return _real(given, place)
    if kind == "int":
        return _integer(given, place)
    if kind == "str":
        return _text(given, place)
    if kind == "bool":
        if not isinstance(given, bool):
            raise InputError(f"{place}: was {_shown(given)}; it must be true or false")
        return given
    if kind == "tuple[float, ...]":
        if not isinstance(given, list):
            raise InputError(f"{place}: was {_shown(given)}; it must be a list of numbers")
        return tuple(_real(one, f"{place}[{i}]") for i, one in enumerate(given))
    raise AssertionError(f"no way to read a {kind}")


def _array(given: object, dtype: Any, place: str) -> npt.NDArray[Any]:
    if not isinstance(given, list):
        raise InputError(f"{place}: was {_shown(given)}; it must be a list")
    if dtype is np.float64:
        if all(type(value) is float for value in given):
            return np.array(given, np.float64)
        return np.array([_real(value, f"{place}[{i}]") for i, value in enumerate(given)], np.float64)
    if dtype is np.bool_:
        for i, value in enumerate(given):
            if not isinstance(value, bool):
                raise InputError(f"{place}[{i}]: was {_shown(value)}; it must be true or false")
        return np.array(given, np.bool_)
    limits = np.iinfo(dtype)
    for i, value in enumerate(given):
        if not limits.min <= _integer(value, f"{place}[{i}]") <= limits.max:
            raise InputError(f"{place}[{i}]: was {value}; it must lie between {limits.min} and {limits.max}")
    return np.array(given, dtype)


def _real(given: object, place: str) -> float:
    if isinstance(given, float):
        return given
    if given is None:
        return math.nan
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) < 2**53:
        return float(given)
    if isinstance(given, str):
        if given in _INFINITIES:
            return _INFINITIES[given]
        if given.startswith("nan:") and len(given) == 20:
            try:
                value = float(struct.unpack(">d", bytes.fromhex(given[4:]))[0])
            except ValueError:
                value = 0.0
            if math.isnan(value):
                return value
    raise InputError(f'{place}: was {_shown(given)}; it must be a number, null for NaN, "inf" or "-inf"')


def _integer(given: object, place: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not -_INT64 <= given < _INT64:
        raise InputError(f"{place}: was {_shown(given)}; it must be an integer")
    return given


def _text(given: object, place: str) -> str:
    if not isinstance(given, str):
        raise InputError(f"{place}: was {_shown(given)}; it must be text")
    return given


def _object(given: object, place: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{place}: was {_shown(given)}; it must be an object")
    return given


def _keys(given: Mapping[str, object], names: tuple[str, ...], place: str) -> None:
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing:
        raise InputError(f"{place}: {', '.join(missing)} missing")
    if unknown:
        raise InputError(f"{place}: {', '.join(map(repr, unknown))} unknown")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
