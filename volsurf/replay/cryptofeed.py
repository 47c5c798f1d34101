"""Raw captures of the cryptofeed project: one text line a message.

    configuration: {...}                    what was asked for; not every file has it
    wss://… <-> 1617644856.505972           a connection opened
    wss://… <- 1617644856.8063161: {...}    sent
    1617644856.899453: {...}                received, as is "URL -> EPOCH: {...}"
    https://… -> 1639095383.060881: {...}   the answer to an HTTP request

Times are the receiver's clock in seconds. Only the lines themselves are read here: which venue's protocol they speak is for the
caller to say, and a file of a venue that has no protocol class here is still messages with their times.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from volsurf.errors import InputError

_LINE = re.compile(
    rb"(?:(?P<url>(?:wss?|https?)://\S+) )?(?P<arrow><->|<-|->)? ?(?P<time>[0-9]+(?:\.[0-9]+)?)(?:: (?P<data>.*))?"
)
_CONFIGURATION = b"configuration: "
_GZIP = b"\x1f\x8b"


class Direction(StrEnum):
    """What a line tells."""

    OPENED = "opened"
    SENT = "sent"
    RECEIVED = "received"
    ANSWERED = "answered"
    """The body of an HTTP answer."""


class Line(NamedTuple):
    """One line: what happened, when in ns UTC, where ("" for the connection that is open), and the message."""

    direction: Direction
    time_ns: int
    url: str
    data: bytes


def read_cryptofeed(path: str | Path) -> Iterator[Line]:
    """The lines of a raw capture, plain or gzipped, in order.

    Raises:
        InputError: the file is not there, or holds a line of another form; the message has its number.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except OSError as error:  # gzip.BadGzipFile is one too
        raise InputError(f"{path} cannot be read: {error}") from error
    except EOFError:
        raise InputError(f"{path} is cut short: its gzip stream has no end") from None
    for number, line in enumerate(data.splitlines(), 1):
        if line.startswith(_CONFIGURATION) or not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None or (match["arrow"] == b"<->") != (match["data"] is None):
            raise InputError(f"{path}, line {number}: not a line of a cryptofeed capture: {line[:80]!r}")
        url = (match["url"] or b"").decode("ascii", "replace")
        arrow = match["arrow"] or b"->"
        if arrow == b"<->":
            direction = Direction.OPENED
        elif arrow == b"<-":
            direction = Direction.SENT
        else:
            direction = Direction.ANSWERED if url.startswith("http") else Direction.RECEIVED
        yield Line(direction, _nanoseconds(match["time"]), url, match["data"] or b"")


def is_cryptofeed(path: str | Path) -> bool:
    """Whether a file begins as these do."""
    path = Path(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            first = file.readline(65_536)
    except (OSError, EOFError):
        return False
    return (
        first.startswith(_CONFIGURATION)
        or re.match(rb"(?:wss?|https?)://\S+ (?:<->|<-|->) [0-9]+\.", first) is not None
    )


def _nanoseconds(text: bytes) -> int:
    # Not through a double: one of 1.6e9 s resolves 240 ns, and equal texts must stay in order.
    seconds, _, fraction = text.partition(b".")
    return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
