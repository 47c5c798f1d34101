"""What a recorder is told of a feed: every call into every `Venue`, in the order made and with the time that was passed."""

from __future__ import annotations

from typing import Protocol

from volsurf.feeds.protocol import HttpRequest


class Tap(Protocol):
    """Told what a feed does to its venues, so that the same venues given the same calls give the same batches.

    `connection` is the number of one `Venue` object within its feed: the venues a feed is made of are 0, 1, …, and every twin
    that is made later takes the next. Numbers are never used again; one number lives through as many sockets as its venue.
    All times are ns UTC. A call is reported before the venue gets it. A tap must not raise, and must not wait.

    To play a feed back: make the same venues and a `VenueFeed` of them that connects nothing, and in the order recorded call
    `connected`, `receive`, `timer`, `receive_http` and `disconnected` of `VenueFeed.venue(connection)` and, where `collected`
    was told, `VenueFeed.collect(now)`. After each call empty `data_to_send()` and `http_requests()`. The other methods here are
    told for information: twins and takeovers are decided inside `collect`, and come out the same.
    """

    def opened(self, connection: int, now: int, url: str) -> None:
        """A socket to this address is open; `connected` is told next."""

    def connected(self, connection: int, now: int) -> None:
        """`Venue.connected(now)` is about to be called."""

    def received(self, connection: int, now: int, data: bytes) -> None:
        """`Venue.receive(data, now)`: one websocket message, text as UTF-8. Called per message: it has a microsecond."""

    def timer(self, connection: int, now: int) -> None:
        """`Venue.timer(now)`."""

    def http_answer(self, connection: int, now: int, key: str, status: int, body: bytes) -> None:
        """`Venue.receive_http(key, status, body, now)`."""

    def disconnected(self, connection: int, now: int, reason: str) -> None:
        """`Venue.disconnected(now, reason)`; told of attempts too that never opened a socket."""

    def sent(self, connection: int, now: int, data: bytes) -> None:
        """For information: a message was written to the socket."""

    def http_request(self, connection: int, now: int, request: HttpRequest) -> None:
        """For information: a request was made."""

    def twinned(self, connection: int, now: int, twin: int) -> None:
        """For information: a second socket was asked for, whose venue has the number `twin`."""

    def taken_over(self, connection: int, now: int, by: int) -> None:
        """For information: the venue `by` stands in this one's place from here on."""

    def collected(self, now: int, number: int, checksum: int) -> None:
        """`VenueFeed.collect(now)` was called.

        Args:
            number: of the batch it returned, 0 where it returned none.
            checksum: `zlib.crc32` of `QuoteBatch.to_bytes()`, 0 where there was no batch.
        """
