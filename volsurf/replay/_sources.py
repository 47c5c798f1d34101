"""What can be played: captures, columnar captures and foreign ones, all as players of their streams."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from volsurf.capture.format import CORE
from volsurf.capture.reader import Capture, open_capture
from volsurf.errors import InputError
from volsurf.replay.player import FeedPlayer

if TYPE_CHECKING:
    from volsurf.replay.clocked import Player


class Source(Protocol):
    """One thing to play.

    Attributes:
        capture: where it is one of ours, with streams of calls. rules: of the recorded core. venues: whose feeds there are.
    """

    start_ns: int
    end_ns: int
    capture: Capture | None
    rules: Mapping[str, Any]
    venues: tuple[str, ...]

    @property
    def lost(self) -> Sequence[str]:
        """What is missing, in sentences."""

    def players(self, venues: Collection[str] | None, start_ns: int, end_ns: int, first: int) -> list[Player]:
        """A player of each stream that is wanted; their feeds are numbered from `first`."""


class CaptureSource:
    """A capture in its own, raw form."""

    def __init__(self, capture: Capture) -> None:
        self.capture: Capture | None = capture
        self._capture = capture
        self.start_ns, self.end_ns = capture.start_ns, capture.end_ns
        core = capture.streams.get(CORE)
        self.rules: Mapping[str, Any] = {} if core is None else core.settings.get("rules", {})
        self.venues = tuple(stream.venue for stream in capture.feeds.values())
        if not capture.feeds:
            raise InputError(
                f"{str(capture.path)!r} holds no feed's stream; there are: {', '.join(capture.streams) or 'none'}"
            )

    @property
    def lost(self) -> Sequence[str]:
        """What is missing, in sentences."""
        return self._capture.lost

    def players(self, venues: Collection[str] | None, start_ns: int, end_ns: int, first: int) -> list[Player]:
        """A player of each feed's stream."""
        made: list[Player] = []
        for name, stream in self._capture.feeds.items():
            if venues is not None and stream.venue not in venues:
                continue
            settings: dict[int, Mapping[str, Any]] = {s.head.process: s.head.settings for s in stream.segments}
            blocks = self._capture.blocks(name, start_ns, end_ns, from_snapshot=True)
            made.append(FeedPlayer(blocks, settings.__getitem__, number=first + len(made), stream=name))
        return made


def open_sources(paths: Sequence[str | os.PathLike[str] | Capture]) -> list[Source]:
    """What each path is: a capture's directory, a columnar one, a raw file of cryptofeed."""
    if not paths:
        raise InputError("no capture was named")
    return [CaptureSource(path) if isinstance(path, Capture) else _open(Path(path).expanduser()) for path in paths]


def _open(path: Path) -> Source:
    from volsurf.replay.columnar import ColumnarSource, is_columnar
    from volsurf.replay.cryptofeed import is_cryptofeed
    from volsurf.replay.foreign import ForeignSource

    if not path.exists():
        raise InputError(f"no capture {str(path)!r}")
    if is_columnar(path):
        return ColumnarSource(path)
    if path.is_file():
        if is_cryptofeed(path):
            return ForeignSource(path)
        raise InputError(f"{str(path)!r} is no capture: a directory, Parquet, or a raw file of cryptofeed is")
    return CaptureSource(open_capture(path))
