from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from tests.engine.smiles import smile, still_frame
from volsurf.engine import codec
from volsurf.engine.codec import Header, decode_header, decode_smile, encode_message, encode_smile, read_blocks
from volsurf.engine.mirror import FrameMirror
from volsurf.errors import StreamError
from volsurf.surface.slices import SliceFit, Smile

GOLDEN = Path(__file__).parent / "golden_frame.hex"
SNAPSHOT = still_frame().to_bytes()

# Any bits, so that NaN payloads, signed zeros and denormals are met.
any_bits = st.integers(0, 2**64 - 1).map(lambda bits: float(np.uint64(bits).view(np.float64)))


def bits(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tobytes()
    return np.float64(value).tobytes() if isinstance(value, float) else value


def assert_same_bits(one: Smile, other: Smile) -> None:
    for f in fields(Smile):
        a, b = getattr(one, f.name), getattr(other, f.name)
        if f.name == "fit":
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert all(bits(getattr(a, g.name)) == bits(getattr(b, g.name)) for g in fields(SliceFit))
        else:
            assert bits(a) == bits(b), f.name


@given(
    vols=arrays(np.uint64, st.integers(0, 40), elements=st.integers(0, 2**64 - 1)),
    forward=any_bits,
    a=any_bits,
    fitted=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_smiles_round_trip_bit_for_bit(vols: np.ndarray, forward: float, a: float, fitted: bool) -> None:
    given_smile = smile("BTC", 7, 1, len(vols), fitted)
    fit = None if given_smile.fit is None else replace(given_smile.fit, a=a)
    given_smile = replace(given_smile, bid_vol=vols.view(np.float64), forward=forward, fit=fit)
    block = encode_smile(given_smile)
    assert_same_bits(given_smile, decode_smile(block.data))
    assert encode_smile(decode_smile(block.data)) == block


def test_every_field_of_a_smile_is_carried() -> None:
    # A field that another room adds must not be lost on the way to a client.
    carried = {name for name, _ in codec.COLUMNS} | set(codec._SMILE_SCALARS) | {"fit"}
    assert carried == {f.name for f in fields(Smile)}
    assert set(codec._FIT_FIELDS) == {f.name for f in fields(SliceFit)}


def test_columns_start_on_multiples_of_eight() -> None:
    for quotes in range(9):
        block = encode_smile(smile("BTC", 7, 1, quotes)).data
        assert len(block) % 8 == 0
        decoded = decode_smile(block)
        assert all(getattr(decoded, name).flags.aligned for name, _ in codec.COLUMNS)
        assert not decoded.strike.flags.writeable


def test_golden_bytes() -> None:
    """Version 2 on the wire. A change here breaks every other client: raise the magic's version and say so in the changelog."""
    data = still_frame().to_bytes()
    golden = bytes.fromhex(GOLDEN.read_text())
    assert data == golden
    frame = FrameMirror().apply(golden)
    assert list(frame.surfaces) == ["BTC", "ETH"]
    assert_same_bits(frame.surfaces["ETH"].smiles[1], smile("ETH", 30, 0))


def test_layout_of_the_envelope() -> None:
    data = still_frame().to_bytes()
    assert data[:4] == b"VSF2"
    length = int.from_bytes(data[4:8], "little")
    header = msgspec.msgpack.decode(data[24 : 24 + length])
    assert header["base"] is None
    assert [entry[0] for entry in header["surfaces"]] == ["BTC", "ETH"]
    start = -(-(24 + length) // 8) * 8
    assert start + sum(size for entry in header["surfaces"] for _, size in entry[2]) == len(data)


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", b"VSF2"):
        with pytest.raises(StreamError):
            FrameMirror().apply(prefix + data)
    with pytest.raises(StreamError):
        decode_smile(data)


@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
@settings(max_examples=120, deadline=None)
def test_one_flipped_byte_is_noticed(position: int, flip: int) -> None:
    data = bytearray(SNAPSHOT)
    place = position % len(data)
    data[place] ^= flip
    mirror = FrameMirror()
    with pytest.raises(StreamError):
        mirror.apply(bytes(data))
    assert mirror.frame is None


@given(end=st.integers(0, 10**6), more=st.binary(max_size=9))
@settings(max_examples=100, deadline=None)
def test_cut_or_prolonged_messages_are_refused(end: int, more: bytes) -> None:
    data = SNAPSHOT[: end % len(SNAPSHOT)] + more
    if data != SNAPSHOT:
        with pytest.raises(StreamError):
            FrameMirror().apply(data)


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_well_sealed_nonsense_is_refused(data: st.DataObject) -> None:
    """A header that hashes to what it says, but says something impossible: nothing but a StreamError may come of it."""
    header, start = decode_header(SNAPSHOT)
    blocks = list(read_blocks(SNAPSHOT, start, header).values())
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(header))
    key = data.draw(st.sampled_from(sorted(raw)))
    junk = st.one_of(
        st.none(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=3), st.binary(max_size=20), st.booleans(),
        st.lists(st.lists(st.integers(-(2**40), 2**40), max_size=3), max_size=3), st.dictionaries(st.text(max_size=2), st.none()),
    )  # fmt: skip
    said, raw[key] = raw[key], data.draw(junk)
    head = msgspec.msgpack.encode(raw)
    sealed = codec._ENVELOPE.pack(b"VSF2", len(head), codec._digest(head)) + head + codec._padding(len(head))
    message = sealed + b"".join(block.data for block in blocks)
    try:
        FrameMirror().apply(message)
    except StreamError:
        return
    # Only what the hash does not cover may differ and still pass.
    assert raw[key] == said or key in (
        "number",
        "time_ns",
        "removed",
        "health",
        "feed_numbers",
        "problems",
        "listed",
        "ledger",
        "timings",
    )


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_well_hashed_nonsense_inside_a_block_is_refused(data: st.DataObject) -> None:
    """A peer that hashes correctly but does not encode smiles."""
    block = bytearray(encode_smile(smile("BTC", 7, 1, 3)).data)
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    one = codec.Block(bytes(block), codec._digest(bytes(block)))
    expiry_ns = smile("BTC", 7, 1, 3).expiry_ns
    header = Header(
        number=1,
        base=None,
        time_ns=0,
        state_hash=codec.state_hash({"BTC": (0, {expiry_ns: one})}),
        surfaces=(codec.SurfaceEntry("BTC", 0, ((expiry_ns, len(block)),)),),
    )
    try:
        frame = FrameMirror().apply(encode_message(header, [one]))
    except StreamError:
        return
    assert frame.surfaces["BTC"].smiles[0].expiry_ns == expiry_ns
