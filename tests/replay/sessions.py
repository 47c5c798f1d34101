"""Captured sessions for tests: made in a second or two by simulators under a clock moved by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from volsurf.capture.directory import CaptureOptions
from volsurf.capture.reader import Capture, open_capture
from volsurf.replay.rehearsal import Meddle, Rehearsal

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
"""2027-01-15 08:00:00 UTC"""


class Session(NamedTuple):
    """What was recorded, and what the live core made of it."""

    path: Path
    hashes: list[bytes]
    messages: int

    @property
    def capture(self) -> Capture:
        """Opened anew."""
        return open_capture(self.path)


def record(
    path: Path,
    venues: Sequence[str] = ("deribit",),
    underlyings: Sequence[str] = ("BTC",),
    *,
    seconds: float = 3.0,
    books: bool = True,
    lag: int = 2,
    meddle: Meddle | None = None,
    options: CaptureOptions | None = None,
) -> Session:
    """Play a session and keep it."""
    made = Rehearsal(
        path, venues, underlyings, start_ns=START, books=books, lag=lag, meddle=meddle, options=options, activity=4.0
    )
    hashes = [frame.hash for frame in made.run(seconds)]
    made.close()
    return Session(path, hashes, made.messages)


def faults(script: dict[float, Callable[[Rehearsal], None]]) -> Meddle:
    """Does each thing at its time, seconds after the start."""
    due = sorted((START + round(at * SECOND), do) for at, do in script.items())

    def meddle(session: Rehearsal) -> None:
        while due and due[0][0] <= session.now:
            due.pop(0)[1](session)

    return meddle


def small_blocks(session: Rehearsal) -> None:
    """Give the writers time, so that they write many blocks where a session is over in no time."""
    while any(writer.recorder.held_bytes > 1_000_000 for writer in session._writers):
        time.sleep(0.001)


def cut(venue: str) -> Callable[[Rehearsal], None]:
    """The connection breaks."""
    return lambda session: session.connections[venue][0].cut(session.now, "connection reset by peer")


def drop(venue: str, messages: int) -> Callable[[Rehearsal], None]:
    """So many messages are lost."""

    def do(session: Rehearsal) -> None:
        session.connections[venue][0].dropped = messages

    return do


def silence(venue: str, is_silent: bool) -> Callable[[Rehearsal], None]:
    """Nothing comes any more, or again, although the connection is open."""

    def do(session: Rehearsal) -> None:
        session.connections[venue][0].is_silent = is_silent

    return do
