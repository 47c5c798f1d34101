"""What a tap is told is recorded, and comes back as it was told."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from volsurf.capture.format import FEED_WIDE, RecordKind
from volsurf.capture.recorder import Recorder
from volsurf.capture.records import (
    BATCH,
    COLLECTED,
    HANDED,
    NUMBER,
    TICK,
    TOOK,
    unpack_books,
    unpack_http_answer,
    unpack_http_request,
    unpack_instruments,
    unpack_loss,
)
from volsurf.capture.taps import CoreTap, FeedTap
from volsurf.engine.log import FeedStarted, PolicyChange, decode_entry
from volsurf.errors import InputError
from volsurf.feeds.protocol import HttpRequest
from volsurf.feeds.tap import Tap
from volsurf.quotes import Field, QuoteBatch

CALLS = {
    "opened": (RecordKind.OPENED, ("wss://x",), b"wss://x"),
    "connected": (RecordKind.CONNECTED, (), b""),
    "received": (RecordKind.RECEIVED, (b"{}",), b"{}"),
    "timer": (RecordKind.TIMER, (), b""),
    "disconnected": (RecordKind.DISCONNECTED, ("closed – too slow",), "closed – too slow".encode()),
    "sent": (RecordKind.SENT, (b"ping",), b"ping"),
    "twinned": (RecordKind.TWINNED, (7,), NUMBER.pack(7)),
    "taken_over": (RecordKind.TAKEN_OVER, (7,), NUMBER.pack(7)),
}


def test_every_call_is_a_record_of_its_kind() -> None:
    recorder = Recorder(1 << 20)
    tap = FeedTap(recorder)
    for name, (kind, arguments, payload) in CALLS.items():
        getattr(tap, name)(3, 99, *arguments)
        assert recorder.take() == [(99, 3, kind, payload)], name
    assert {name for name in vars(Tap) if not name.startswith("_")} == {
        *CALLS,
        "collected",
        "http_answer",
        "http_request",
    }
    assert get_type_hints(FeedTap.received) == get_type_hints(Tap.received)


def test_requests_answers_and_collections_come_back() -> None:
    recorder = Recorder(1 << 20)
    tap = FeedTap(recorder)
    request = HttpRequest("POST", "https://x/y", "listing", b"\0body")
    tap.http_request(1, 5, request)
    tap.http_answer(1, 6, "listing", 0, b"no answer")
    tap.collected(7, 4, 0xDEADBEEF)
    asked, answered, collected = recorder.take()
    assert unpack_http_request(asked[3]) == request
    assert unpack_http_answer(answered[3]) == ("listing", 0, b"no answer")
    assert (collected[:3], COLLECTED.unpack(collected[3])) == ((7, FEED_WIDE, 12), (4, 0xDEADBEEF))


def test_entries_are_announced_and_batches_stand_for_themselves() -> None:
    import zlib

    recorder = Recorder(1 << 20)
    tap = FeedTap(recorder)
    batch = QuoteBatch([1, 2], int(Field.QUOTE), bid=1.0, number=9, time_ns=41)
    tap.linked(40, 2)
    tap.handed(42, [FeedStarted(0, "deribit"), batch])
    tap.handed(43, [batch])
    linked, handed, entry, stood, again, _ = recorder.take()
    assert NUMBER.unpack(linked[3]) == (2,)
    assert (handed[2], HANDED.unpack(handed[3])) == (RecordKind.HANDED, (1, 2))
    assert decode_entry(entry[3]) == FeedStarted(0, "deribit")
    assert (stood[0], BATCH.unpack(stood[3])) == (41, (9, 2, zlib.crc32(batch.to_bytes())))
    assert HANDED.unpack(again[3]) == (0, 1)


def test_the_core_tells_what_it_took_and_made() -> None:
    recorder = Recorder(1 << 20)
    tap = CoreTap(recorder)
    tap.applied(1, PolicyChange(enforce=False))
    tap.took(2, 3, 4, 5)
    tap.ticked(6, 7, b"hash")
    applied, took, tick = recorder.take()
    assert decode_entry(applied[3]) == PolicyChange(enforce=False)
    assert (took[1], TOOK.unpack(took[3])) == (3, (4, 5))
    assert (tick[0], TICK.unpack_from(tick[3]), tick[3][TICK.size :]) == (6, (7,), b"hash")


@pytest.mark.parametrize(
    "unpack", [unpack_books, unpack_http_answer, unpack_http_request, unpack_instruments, unpack_loss]
)
def test_a_payload_that_is_none_is_an_input_error(unpack: object) -> None:
    for payload in (b"", b"\xc1", b"\x93\x01\x02"):
        with pytest.raises(InputError, match="not "):
            unpack(payload)  # type: ignore[operator]
