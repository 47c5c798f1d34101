from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.engine.tape import Market, moving_log
from volsurf.engine.log import (
    MAXIMUM_ENTRY_BYTES,
    ClockStep,
    EntrySplitter,
    FeedHealth,
    FeedStarted,
    FeedState,
    InstrumentsRetired,
    PolicyChange,
    Tick,
    decode_entry,
    encode_entry,
    frame_entry,
    log_from_bytes,
    log_to_bytes,
)
from volsurf.errors import InputError
from volsurf.quotes import QuoteBatch

ENTRIES = [
    FeedStarted(0, "deribit"),
    InstrumentsRetired(0, (3, 5)),
    FeedHealth(feed=1, name="okx", time_ns=2**60, state=FeedState.SUBSCRIBING, messages=7, detail="half way"),
    PolicyChange(refit_after_ns=5),
    PolicyChange(enforce=False, smoothing_seconds=0.25),
    ClockStep(7, -5),
    Tick(2**62),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: type(e).__name__)
def test_entries_round_trip(entry: object) -> None:
    assert decode_entry(encode_entry(entry)) == entry  # type: ignore[arg-type]


def test_a_whole_log_round_trips() -> None:
    log = moving_log(Market(underlyings=("BTC",), days=(1.0,), strikes=5), frames=3)
    again = log_from_bytes(log_to_bytes(log))
    assert [type(e) for e in again] == [type(e) for e in log]
    for one, other in zip(log, again, strict=True):
        # Strikes may be NaN and batches hold arrays, so the bytes are what is compared.
        assert encode_entry(one) == encode_entry(other)


@given(st.lists(st.integers(1, 400), max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    log = [*ENTRIES, QuoteBatch([1, 2, 3], 1, bid=[1.0, np.nan, 2.0])]
    data = log_to_bytes(log)  # type: ignore[arg-type]
    splitter, pieces, start = EntrySplitter(), [], 0
    for cut in cuts:
        pieces += splitter.feed(data[start : start + cut])
        start += cut
    pieces += splitter.feed(data[start:])
    assert splitter.unfinished == 0
    assert pieces == [encode_entry(entry) for entry in log]  # type: ignore[arg-type]


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_anything_else_is_an_input_error(data: bytes) -> None:
    for prefix in (b"", b"VSQB"):
        with pytest.raises(InputError):
            decode_entry(prefix + data)


def test_an_impossible_length_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(InputError, match="broken"):
        EntrySplitter().feed((MAXIMUM_ENTRY_BYTES + 1).to_bytes(4, "little"))


def test_a_log_cut_short_is_refused() -> None:
    data = log_to_bytes(ENTRIES)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="middle of an entry"):
        log_from_bytes(data[:-3])
    assert frame_entry(b"abc") == b"\x03\0\0\0abc"
