"""What a server must know of a venue's protocol to play its recording to a client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import IntEnum
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit


class Keep(IntEnum):
    """What of a channel a client is told that subscribes later than it began."""

    NOTHING = 0
    """It is news: trades."""
    LAST = 1
    """Each message says all there is to say."""
    FIRST = 2
    """A message that later ones change: everything from the last such one on."""
    MORE = 3
    """A change of what was said before."""


class Client(Protocol):
    """A client, as a dialect sees it."""

    path: str
    """It connected to, with the query."""
    scratch: dict[str, int]
    """Whatever the dialect remembers of it."""

    def say(self, payload: bytes) -> None:
        """Send it a message."""

    def join(self, channel: str) -> None:
        """From here on it is sent what comes on a channel."""

    def leave(self, channel: str) -> None:
        """And no more."""


class Dialect(ABC):
    """One venue's protocol, as far as a recording of it is to be served.

    Attributes:
        path: of the websocket, what the server's address ends with.
        pages: bodies of the venue's HTTP answers in the recording, by path and query.
    """

    path = ""

    def __init__(self) -> None:
        self.pages: dict[tuple[str, frozenset[tuple[str, str]]], bytes] = {}

    def accepts(self, path: str) -> bool:
        """Whether a path, without its query, is one of the websocket endpoints."""
        return path == self.path

    def learn_sent(self, connection: int, data: bytes) -> None:
        """What was asked on a websocket when it was recorded."""
        del connection, data

    def learn_heard(self, connection: int, data: bytes) -> None:
        """What came on a websocket and is no push."""
        del connection, data

    def learn_page(self, url: str, body: bytes) -> None:
        """What an HTTP request was answered."""
        target = urlsplit(url)
        self.pages[target.path, frozenset(parse_qsl(target.query))] = body

    def page(self, path: str, query: Mapping[str, str]) -> bytes | None:
        """The recorded body: of the same query or, where there is none, of the one that has most in common with it."""
        wanted = frozenset(query.items())
        if (found := self.pages.get((path, wanted))) is not None:
            return found
        alike = [(len(wanted & asked), body) for (where, asked), body in self.pages.items() if where == path]
        most = max(alike, key=lambda pair: pair[0], default=(0, b""))
        return most[1] if most[0] else None

    def opened(self, client: Client, now: int) -> None:
        """A client connected."""
        del client, now

    @abstractmethod
    def hear(self, client: Client, data: bytes, now: int) -> None:
        """A client said something: answer it."""

    @abstractmethod
    def channel_of(self, data: bytes) -> tuple[str, Keep] | None:
        """The channel a recorded message is a push of; None for replies, acknowledgements and heartbeats."""

    def timer(self, client: Client, now: int) -> None:
        """Called several times a second."""
        del client, now


def between(data: bytes, before: bytes, after: bytes = b'"', within: int = 400) -> str | None:
    """The text between two marks near the beginning of a message."""
    start = data.find(before, 0, within)
    if start < 0:
        return None
    start += len(before)
    end = data.find(after, start)
    return None if end < 0 else data[start:end].decode("utf-8", "replace")
