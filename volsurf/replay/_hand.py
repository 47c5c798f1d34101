"""One connection of a venue to a simulated exchange, with no socket between them and the clock's reading handed in."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from volsurf.feeds.protocol import Venue
from volsurf.feeds.tap import Tap
from volsurf.sim.exchange import Exchange, Session

_TURNS = 20
"""Question and answer within one step at most; what is left waits for the next."""
_AGAIN_NS = 500_000_000


class HandConnection:
    """Carries messages both ways and tells the tap, as `volsurf.feeds.connection.Connection` does.

    Attributes:
        is_silent: what the exchange says is kept from the venue, though the connection is open.
        dropped: of the exchange's next messages so many are lost. messages, opened, heard_ns: received, sockets, last time.
    """

    def __init__(self, venue: Venue, number: int, exchange: Exchange, tap: Tap | None) -> None:
        self.venue, self._number, self._exchange, self._tap = venue, number, exchange, tap
        self._session: Session | None = None
        self._open_at = 0
        self.is_silent = False
        self.dropped = 0
        self.messages = self.opened = 0
        self.heard_ns = 0

    @property
    def is_open(self) -> bool:
        """Connected now."""
        return self._session is not None

    @property
    def can_burst(self) -> bool:
        """The exchange has market data for it at any rate."""
        return self._session is not None and self._session.burst_bytes > 0

    def step(self, now: int) -> None:
        """Everything that is to be said at this time."""
        if self._session is None:
            if now < max(self._open_at, self.venue.not_before) or self.venue.fatal is not None:
                return
            self._open(now)
        session = self._session
        assert session is not None
        session.timer(now)
        for payload in session.control_pings(now):
            session.receive_pong(payload, now)
        deadline = self.venue.next_deadline
        if deadline is not None and deadline <= now:
            if self._tap is not None:
                self._tap.timer(self._number, now)
            self.venue.timer(now)
        self._talk(session, now)

    def cut(self, now: int, reason: str) -> None:
        """The connection is gone; it is opened again half a second later."""
        if self._session is None:
            return
        self._session.closed()
        self._session = None
        self._open_at = now + _AGAIN_NS
        if self._tap is not None:
            self._tap.disconnected(self._number, now, reason)
        self.venue.disconnected(now, reason)
        self.venue.data_to_send()
        self.venue.http_requests()

    def burst(self, messages: int, now: int) -> int:
        """Market data beyond the venue's own pace; returns how many messages came."""
        sent = 0
        while self._session is not None and sent < messages:
            data, count = self._session.burst(messages - sent, now)
            if not count:
                break
            for payload in _payloads(data):
                self._deliver(payload, now)
            sent += count
        return sent

    def _open(self, now: int) -> None:
        url = self.venue.url
        parts = urlsplit(url)
        self._session = self._exchange.open_session(now, f"{parts.path}?{parts.query}" if parts.query else parts.path)
        self.opened += 1
        if self._tap is not None:
            self._tap.opened(self._number, now, url)
            self._tap.connected(self._number, now)
        self.venue.connected(now)

    def _talk(self, session: Session, now: int) -> None:
        venue, tap = self.venue, self._tap
        for _ in range(_TURNS):
            said = venue.data_to_send()
            for message in said:
                if tap is not None:
                    tap.sent(self._number, now, message)
                session.receive(message, now)
            requests = venue.http_requests()
            for request in requests:
                if tap is not None:
                    tap.http_request(self._number, now, request)
                target = urlsplit(request.url)
                found = self._exchange.http(target.path, dict(parse_qsl(target.query)), now)
                status, body = (404, b"") if found is None else (int(found[0]), found[1])
                if tap is not None:
                    tap.http_answer(self._number, now, request.key, status, body)
                venue.receive_http(request.key, status, body, now)
            heard = session.data_to_send()
            for payload in heard:
                self._deliver(payload, now)
            if session.closing is not None:
                code, why = session.closing
                self.cut(now, f"closed by the venue with code {code} {why}".rstrip())
                return
            if venue.failure is not None:
                self.cut(now, venue.failure)
                return
            if not (said or requests or heard):
                return

    def _deliver(self, payload: bytes, now: int) -> None:
        if self.is_silent:
            return
        if self.dropped:
            self.dropped -= 1
            return
        if self._tap is not None:
            self._tap.received(self._number, now, payload)
        self.venue.receive(payload, now)
        self.messages += 1
        self.heard_ns = now


def _payloads(data: bytes) -> list[bytes]:
    """Payloads of unmasked, unfragmented frames."""
    found, at = [], 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size >= 126:
            length = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + length]), start + length
        found.append(data[start : start + size])
        at = start + size
    return found
