from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from volsurf.engine.control import Channel
from volsurf.engine.link import LinkReader, LinkWriter, open_link
from volsurf.engine.log import (
    Entry,
    FeedHealth,
    FeedStarted,
    FeedState,
    InstrumentsAdded,
    InstrumentsRetired,
    Tick,
    frame_entry,
)
from volsurf.engine.outbox import HEALTH_SECONDS, Outbox
from volsurf.errors import InputError
from volsurf.feeds.protocol import Event, Health, HealthEvent, InstrumentEvent
from volsurf.instruments import Instrument, Kind, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard


def some_batch(rows: int, number: int, bid: float = 1.0) -> QuoteBatch:
    return QuoteBatch(np.arange(rows), int(Field.QUOTE), number=number, bid=bid, ask=bid + 1, receive_time_ns=number)


def test_a_message_larger_than_the_socket_is_sent_in_parts_without_blocking() -> None:
    feed_end, core_end = open_link()
    writer, reader = LinkWriter(feed_end), LinkReader(core_end)
    batch = some_batch(60_000, 1)
    assert not writer.send([batch, Tick(5)])
    assert not writer.idle
    with pytest.raises(RuntimeError, match="idle"):
        writer.send([Tick(6)])
    entries: list[Entry] = []
    while len(entries) < 2:
        entries += reader.read()
        writer.flush()
    assert writer.idle
    assert isinstance(entries[0], QuoteBatch)
    assert len(entries[0]) == 60_000
    assert entries[1] == Tick(5)
    writer.close()
    assert reader.read() == []
    assert reader.closed
    reader.close()


def test_a_dead_reader_is_an_os_error_and_a_dead_writer_a_closed_link() -> None:
    feed_end, core_end = open_link()
    writer = LinkWriter(feed_end)
    core_end.close()
    with pytest.raises(OSError, match="Broken pipe"):
        writer.send([Tick(1)])
    writer.close()


def test_bytes_that_are_no_entries_are_refused() -> None:
    feed_end, core_end = open_link()
    feed_end.sendall(frame_entry(b"nonsense"))
    reader = LinkReader(core_end)
    with pytest.raises(InputError):
        reader.read()
    feed_end.close()
    reader.close()


class FakeFeed:
    """A feed of four instruments whose batches and events the test writes."""

    def __init__(self) -> None:
        rows = [Instrument(venue="v", symbol=f"o{i}", kind=Kind.INDEX, underlying="BTC") for i in range(4)]
        self.universe = Universe(rows)
        self.board = QuoteBoard(self.universe)
        self.next: tuple[QuoteBatch | None, list[Event]] = (None, [])

    def collect(self, now: int) -> tuple[QuoteBatch | None, list[Event]]:
        taken, self.next = self.next, (None, [])
        if taken[0] is not None:
            self.board.apply(taken[0])
        return taken

    def snapshot(self, now: int) -> QuoteBatch:
        return self.board.drain(number=99, time_ns=now)


def outbox(state: list[FeedState] | None = None) -> tuple[FakeFeed, Outbox]:
    feed = FakeFeed()
    states = state or [FeedState.READY]
    return feed, Outbox(feed, 0, "v", lambda: FeedHealth(feed=0, name="v", time_ns=1, state=states[-1]))


def test_what_the_core_has_not_read_is_conflated_to_one_row_an_instrument() -> None:
    feed, box = outbox()
    for number, ids, bid in ((1, [0, 1], 1.0), (2, [1, 2], 2.0), (3, [1], 3.0)):
        feed.next = (QuoteBatch(ids, int(Field.QUOTE), number=number, bid=bid, receive_time_ns=number), [])
        box.gather(1)
    (batch, health) = box.take(0.0, 7)
    assert isinstance(batch, QuoteBatch)
    assert isinstance(health, FeedHealth)
    assert batch.instrument_id.tolist() == [0, 1, 2]
    assert batch.bid.tolist() == [1.0, 3.0, 2.0]
    assert (batch.number, batch.time_ns) == (3, 7)
    assert box.take(HEALTH_SECONDS / 2, 8) == []


def test_a_batch_that_is_read_at_once_passes_through_untouched() -> None:
    feed, box = outbox()
    batch = some_batch(3, 5)
    feed.next = (batch, [])
    box.gather(1)
    assert box.take(0.0, 1)[0] is batch


def test_listings_are_held_back_as_ids_and_their_order_is_kept() -> None:
    feed, box = outbox()
    feed.next = (some_batch(2, 1), [InstrumentEvent(added=(0, 1, 2)), InstrumentEvent(retired=(1,))])
    box.gather(1)
    feed.next = (None, [InstrumentEvent(retired=(0,)), InstrumentEvent(added=(0,))])
    box.gather(1)
    added, batch, retired, _ = box.take(0.0, 1)
    assert isinstance(added, InstrumentsAdded)
    assert added.ids == (2, 0)
    assert isinstance(batch, QuoteBatch)
    assert retired == InstrumentsRetired(0, (1,))


def test_a_new_reader_is_told_everything() -> None:
    feed, box = outbox()
    feed.next = (some_batch(3, 1), [InstrumentEvent(added=(0, 1, 2, 3))])
    box.gather(1)
    box.take(0.0, 1)
    feed.universe.retire([3])
    box.begin()
    started, added, batch, health = box.take(0.01, 2)
    assert started == FeedStarted(0, "v")
    assert isinstance(added, InstrumentsAdded)
    assert added.ids == (0, 1, 2)
    assert isinstance(batch, QuoteBatch)
    assert batch.instrument_id.tolist() == [0, 1, 2]
    assert isinstance(health, FeedHealth)


def test_health_is_told_when_due_and_at_once_when_the_state_changes() -> None:
    states = [FeedState.SUBSCRIBING]
    feed, box = outbox(states)
    assert [type(e) for e in box.take(0.0, 1)] == [FeedHealth]
    assert box.take(0.1, 1) == []
    states.append(FeedState.READY)
    assert [type(e) for e in box.take(0.15, 1)] == [FeedHealth]
    assert box.take(0.2, 1) == []
    assert [type(e) for e in box.take(0.15 + HEALTH_SECONDS, 1)] == [FeedHealth]
    feed.next = (
        None,
        [
            HealthEvent(Health.DISCONNECTED, 1, "closed with code 1008 test_request was not answered"),
            HealthEvent(Health.HEARTBEAT_ANSWERED, 2),
        ],
    )
    box.gather(1)
    assert box.heartbeats_missed == 1
    assert box.detail == "disconnected: closed with code 1008 test_request was not answered"


def test_what_the_venue_refused_is_remembered_until_it_is_asked_again() -> None:
    feed, box = outbox()
    feed.next = (
        None,
        [HealthEvent(Health.REFUSED, 1, "no options of XRP"), HealthEvent(Health.READY, 2, "2 channels")],
    )
    box.gather(1)
    assert (box.refused, box.detail) == ("no options of XRP", "ready: 2 channels")
    feed.next = (None, [HealthEvent(Health.CONNECTED, 3)])
    box.gather(1)
    assert box.refused == ""


def test_the_control_channel_carries_messages_and_sockets() -> None:
    ours, theirs = Channel.pair()
    child = Channel(theirs)
    one, other = socket.socketpair()
    ours.send({"op": "a", "n": 1})
    ours.send_sockets({"op": "link"}, [other])
    first, second = child.receive()
    assert first == {"op": "a", "n": 1}
    assert second["op"] == "link"
    with socket.socket(fileno=second["fds"][0]) as received:
        one.sendall(b"hello")
        assert received.recv(5) == b"hello"
    one.close()
    ours.close()
    assert child.receive() == []
    assert child.closed
    child.send({"op": "to nobody"})
    child.close()


def test_descriptors_nobody_took_are_closed_with_the_channel() -> None:
    ours, theirs = Channel.pair()
    child = Channel(theirs)
    one, other = socket.socketpair()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    ours.send({"op": "odd"}, [other.fileno()])
    child.receive()
    child.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before - 1  # the channel's own
    for sock in (one, other):
        sock.close()
    ours.close()
