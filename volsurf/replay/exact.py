"""The frames of an engine's run, made again entry by entry from the recorded core's log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from volsurf.capture.format import CORE, Block, RecordKind
from volsurf.capture.reader import Capture
from volsurf.capture.records import TICK, TOOK
from volsurf.engine.core import Core
from volsurf.engine.frame import Frame
from volsurf.engine.log import Entry, decode_entry
from volsurf.errors import ReplayError
from volsurf.feeds.protocol import Event
from volsurf.replay._times import time_text
from volsurf.replay._translate import EventTranslator
from volsurf.replay.driver import FeedDriver


class ExactPlayer:
    """Plays a capture's core stream, and of the feeds what that took.

    Args:
        verify: compare each frame's hash with the recorded one. strict: raise where a batch or frame differs, else count.

    Attributes:
        core: as it is now. verified, differing: frames equal to the recorded ones, and not. notes: why it stopped early.
    """

    def __init__(self, capture: Capture, *, verify: bool = True, strict: bool = True) -> None:
        if CORE not in capture.streams:
            raise ReplayError(
                f"{capture.path}: no engine's frames are recorded in it (it has {', '.join(capture.streams) or 'no stream'}), "
                "so there are none to make again; give every='1s' for frames of a clock of your own"
            )
        self._capture, self._verify, self._strict = capture, verify, strict
        self.core = Core()
        self.verified = self.differing = 0
        self.notes: list[str] = []
        self.events: list[Event] = []
        self.time_ns = capture.streams[CORE].start_ns
        self._drivers: dict[int, FeedDriver] = {}
        self._translators: dict[int, EventTranslator] = {}

    @property
    def messages(self) -> int:
        """Received by all feeds so far."""
        return sum(driver.messages for driver in self._drivers.values())

    @property
    def differing_batches(self) -> int:
        """Batches that were not the recorded ones."""
        return sum(driver.differing for driver in self._drivers.values())

    def play(self) -> Iterator[Frame]:
        """The frames, in order; trades and changes of books since the frame before lie in `events`, under the core's ids."""
        process = due = 0
        for block in self._capture.blocks(CORE):
            if block.process != process:
                # A core's process that began anew knew nothing.
                process, due = block.process, 0
                self.core = Core()
                self._translators.clear()
            if block.first != due:
                raise ReplayError(
                    f"core: {block.first - due:,} records after {time_text(self.time_ns)} are missing, so that frames cannot "
                    "be made exactly as they were from there on; give every=… for frames of what is there"
                )
            due = block.first + len(block)
            for frame in self._play(block):
                if frame is None:
                    return
                yield frame

    def _play(self, block: Block) -> Iterator[Frame | None]:
        rows = zip(block.kind.tolist(), block.connection.tolist(), block.time_ns.tolist(), block.payloads, strict=True)
        for kind, feed, now, payload in rows:
            if kind == RecordKind.TOOK:
                link, count = TOOK.unpack(payload)
                driver = self._driver(feed)
                entries = driver.take(link, count)
                if entries is None:
                    self.notes.append(
                        f"{driver.stream} ends at {time_text(driver.time_ns)}, before the core's recording does at "
                        f"{time_text(self._capture.streams[CORE].end_ns)}: no frame can be made again after that"
                    )
                    yield None
                    return
                for entry in entries:
                    self._apply(feed, entry)
            elif kind == RecordKind.ENTRY:
                self.core.apply(decode_entry(payload))
            elif kind == RecordKind.TICK:
                self.time_ns = now
                yield self._frame(now, payload)

    def _apply(self, feed: int, entry: Entry) -> None:
        self.core.apply(entry)
        self._translator(feed).learn(entry)

    def _frame(self, now: int, payload: bytes) -> Frame:
        (number,) = TICK.unpack_from(payload)
        recorded = payload[TICK.size :]
        frame = self.core.frame(now)
        self.events = []
        for feed, driver in self._drivers.items():
            self.events += self._translator(feed).translate(driver.events)
            driver.events.clear()
        if self._verify and recorded:
            if (frame.number, frame.hash) == (number, recorded):
                self.verified += 1
            else:
                self._differs(frame, number, recorded)
        return frame

    def _differs(self, frame: Frame, number: int, recorded: bytes) -> None:
        self.differing += 1
        if self._strict:
            raise ReplayError(
                f"frame {number} of {time_text(frame.time_ns)} hashes to {frame.hash.hex()} and was recorded as "
                f"{recorded.hex()}: made by {self._made_by()}, played by this one; verify=False plays on"
            )

    def _made_by(self) -> str:
        segment = self._capture.streams[CORE].segments[0]
        return f"volsurf {segment.head.volsurf}"

    def _translator(self, feed: int) -> EventTranslator:
        if feed not in self._translators:
            self._translators[feed] = EventTranslator(self.core.universe)
        return self._translators[feed]

    def _driver(self, feed: int) -> FeedDriver:
        driver = self._drivers.get(feed)
        if driver is not None:
            return driver
        for name, stream in self._capture.feeds.items():
            if stream.feed == feed:
                settings: dict[int, Mapping[str, Any]] = {s.head.process: s.head.settings for s in stream.segments}
                blocks = self._capture.blocks(name)
                driver = FeedDriver(blocks, settings.__getitem__, number=feed, stream=name, strict=self._strict)
                self._drivers[feed] = driver
                return driver
        raise ReplayError(
            f"the core took entries of feed {feed}, whose stream is not in the capture (there are "
            f"{', '.join(self._capture.feeds) or 'none'})"
        )
