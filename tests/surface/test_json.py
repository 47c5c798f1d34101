"""A surface survives JSON to the last bit, and damaged text never becomes another surface."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from tests.surface.quoted_market import NOW, Quoted, board_of
from tests.surface.random_surfaces import certified_surfaces, ssvi_surface
from volsurf.errors import InputError
from volsurf.surface.event import EventJump
from volsurf.surface.quote_vols import quote_vols
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.smile import build_smiles, fit_smiles
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar

SMALL = ssvi_surface(days=(10, 40), quotes=3)
TEXT = SMALL.to_json()
STRANGE = [
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    5e-324,
    0.1,
    1e308,
    *struct.unpack("<2d", bytes([1, 0, 0, 0, 0, 0, 0xF8, 0xFF] * 2)),
]


def bits(value: object) -> object:
    """Everything there is to a field, NaN payloads included."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, tuple):
        return tuple(bits(one) for one in value)
    if dataclasses.is_dataclass(value):
        return tuple(bits(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "cache")
    return type(value), value


def same(one: Surface, other: Surface) -> bool:
    return bits(one) == bits(other)


@settings(max_examples=25)
@given(certified_surfaces(quotes=4))
def test_every_bit_comes_back_and_certifies_as_before(surface: Surface) -> None:
    back = Surface.from_json(surface.to_json())
    assert same(surface, back)
    for before, after in (
        (check_butterfly(surface.svi), check_butterfly(back.svi)),
        (check_calendar(surface.svi[:-1], surface.svi[1:]), check_calendar(back.svi[:-1], back.svi[1:])),
    ):
        for f in dataclasses.fields(before):
            assert bits(getattr(before, f.name)) == bits(getattr(after, f.name))


def test_a_fitted_surface_comes_back() -> None:
    surface = fit_smiles(build_smiles(quote_vols(board_of(Quoted()), NOW)))
    assert same(surface, Surface.from_json(surface.to_json()))
    bare = Surface(
        surface.underlying, surface.time_ns, tuple(s.with_fit(None) for s in surface.smiles[:1]) + surface.smiles[1:]
    )
    assert same(bare, Surface.from_json(bare.to_json().encode()))


@given(st.data())
def test_any_double_comes_back(data: st.DataObject) -> None:
    double = st.one_of(st.sampled_from(STRANGE), st.floats(width=64))
    integer = st.integers(-(2**63), 2**63 - 1)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "float": double,
        "int": integer,
        "str": st.text(),
        "bool": st.booleans(),
        "tuple[float, ...]": st.lists(double).map(tuple),
    }
    parameters = ("a", "b", "rho", "m", "sigma", "jump")
    smile = SMALL.smiles[0]
    assert smile.fit is not None
    fit = dataclasses.replace(
        smile.fit,
        **{f.name: data.draw(kinds[str(f.type)]) for f in dataclasses.fields(SliceFit) if f.name not in parameters},
    )
    n = data.draw(st.integers(0, 4))
    columns: dict[str, Any] = {
        name: np.array([data.draw(double) for _ in range(n)], np.float64)
        for name in ("strike", "log_moneyness", "bid_vol", "ask_vol", "vol", "error")
    }
    columns["side"] = np.array(data.draw(st.lists(st.integers(-128, 127), min_size=n, max_size=n)), np.int8)
    columns["is_call"] = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_)
    columns["instrument_id"] = np.array(
        data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=n, max_size=n)), np.int32
    )
    columns["reason"] = np.array(data.draw(st.lists(st.integers(0, 255), min_size=n, max_size=n)), np.uint8)
    changed = dataclasses.replace(smile, fit=fit, forward=data.draw(double), mismatch_bp=data.draw(double), **columns)
    surface = Surface("BTC", data.draw(integer), (changed, *SMALL.smiles[1:]))
    assert same(surface, Surface.from_json(surface.to_json()))


def test_an_event_comes_back() -> None:
    event = EventJump.of_size(SMALL.time_ns + 10**15, 0.07, 0.35)
    surface = Surface("BTC", SMALL.time_ns, SMALL.smiles, event)
    back = Surface.from_json(surface.to_json())
    assert back.event == event or bits(back.event) == bits(event)
    np.testing.assert_array_equal(back.vol(k=0.1, years=0.1), surface.vol(k=0.1, years=0.1))


def read(text: str | bytes) -> Surface | None:
    try:
        return Surface.from_json(text)
    except InputError:
        return None


@settings(max_examples=300)
@given(
    st.integers(0, len(TEXT) - 1),
    st.sampled_from('0123456789.-+eE"{}[],:nul \\a\x00é'),
    st.sampled_from(["cut", "put", "set", "drop"]),
)
def test_damage_never_makes_another_surface(place: int, mark: str, how: str) -> None:
    text = {
        "cut": TEXT[:place],
        "put": TEXT[:place] + mark + TEXT[place:],
        "set": TEXT[:place] + mark + TEXT[place + 1 :],
        "drop": TEXT[:place] + TEXT[place + 1 :],
    }[how]
    surface = read(text)
    assert surface is None or same(surface, SMALL)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, one in inner for leaf in leaves(one, (*path, key)))]


PLACES = leaves(json.loads(TEXT))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300)
@given(st.sampled_from(PLACES), VALUES)
@example((), None)
@example(("version",), True)
@example(("version",), 2)
def test_another_value_anywhere_is_refused_or_means_the_same(path: tuple[Any, ...], value: Any) -> None:
    document = json.loads(TEXT)
    if not path:
        document = value
    else:
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
    surface = read(json.dumps(document))
    assert surface is None or same(surface, SMALL)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"version":1', '"version":2', "version was 2; this volsurf reads version 1"),
        ("volsurf.surface", "volsurf.chain", "format was 'volsurf.chain'"),
        ('"forward":', '"forwards":', r"smiles\[0\]: forward missing"),
        ('"ask_vol":[', '"ask_vol":["x",', r"smiles\[0\].quotes.ask_vol\[0\]: was 'x'"),
        ('"ask_vol":[', '"ask_vol":[1.0,', r"smiles\[0\].quotes: the columns must be equally long"),
        ('"side":[', '"side":[300,', r"smiles\[0\].quotes.side\[0\]: was 300; it must lie between -128 and 127"),
        ('"forward_error":', '"x":1,"forward_error":', r"smiles\[0\]: 'x' unknown"),
        ('"underlying":"BTC"', '"underlying":7', "underlying: was 7"),
        ('"iterations":5', '"iterations":5.5', r"smiles\[0\].fit.iterations: was 5.5"),
        ('"forward_flagged":false', '"forward_flagged":0', r"smiles\[0\].forward_flagged: was 0"),
        ('"rms":0.4', '"rms":0.41', "sha256"),
        ('"event":null', '"event":{}', "event: time_ns"),
        ('"rho":-0.3', '"rho":-1.3', "rho"),
        ("{", "[", "no JSON text"),
    ],
)
def test_damage_is_named(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError, match=words):
        Surface.from_json(TEXT.replace(old, new, 1))


def test_hostile_text() -> None:
    for text in (
        "",
        "null",
        "[" * 100_000,
        '{"format":"volsurf.surface"}',
        b"\xff\xfe",
        "\ud800",
        '{"a":1e999}',
        "NaN",
    ):
        assert read(text) is None
    with pytest.raises(InputError):
        Surface.from_json(5)  # type: ignore[arg-type]


def test_people_can_read_it() -> None:
    document = json.loads(TEXT)
    assert document["smiles"][0]["expiry"] == SMALL.smiles[0].expiry_label
    assert document["smiles"][0]["quotes"]["bid_vol"][0] is None
    assert document["units"]["years"].startswith("365 days")
    assert list(document)[-1] == "sha256"


def test_a_column_of_another_type_is_not_written() -> None:
    smile: Smile = dataclasses.replace(SMALL.smiles[0], side=SMALL.smiles[0].side.astype(np.int64))
    with pytest.raises(InputError, match="side must be one dimension of int8"):
        Surface("BTC", SMALL.time_ns, (smile,)).to_json()


@pytest.mark.parametrize("value", STRANGE)
def test_strange_doubles_one_by_one(value: float) -> None:
    smile = dataclasses.replace(SMALL.smiles[0], mismatch_bp=value, error=np.full(3, value))
    back = Surface.from_json(Surface("BTC", SMALL.time_ns, (smile,)).to_json()).smiles[0]
    assert bits(back.mismatch_bp) == bits(value)
    assert back.error.tobytes() == smile.error.tobytes()
