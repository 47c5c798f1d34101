"""Requests to Deribit: paced by its credits, numbered, and given up on after a while.

Times here are nanoseconds of the connection's own elapsed time (`Watch.elapsed`), which no clock step can move.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from volsurf.feeds._deribit_messages import encode_request
from volsurf.feeds._lanes import Lane
from volsurf.feeds._watch import SECOND

TIMEOUT = 10 * SECOND
"""For an answer. Deribit's own are there within milliseconds."""
_MOST_UNWATCHED = 100


class Request(NamedTuple):
    """One request, sent or still to be sent."""

    method: str
    params: dict[str, Any]
    purpose: str = ""
    """What the sender wants to know when the answer comes."""
    attempt: int = 1

    @property
    def channels(self) -> list[str]:
        """Channels asked for, of a subscription."""
        channels: list[str] = self.params.get("channels", [])
        return channels


class RequestQueue:
    """Requests waiting for credits, requests waiting for an answer, and what goes to the socket next.

    Args:
        share: part of the per-address limits this connection may use, 1 / number of connections.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._share = share
        self.clear(0)

    def clear(self, elapsed: int) -> None:
        """Forget everything, for a new socket. Numbers begin again with it, so a replay can begin in the middle of a capture."""
        share = self._share
        self._number = 0
        self._muted = False
        # subscribe: 3000 of 30000 credits each, 10000 a second, so ten and then one every 0.3 s; some are left unused, because a
        # message that is delayed and the next that is not arrive closer together than they were sent, and the penalty is the end
        # of the connection. get_instruments: 1 a second, burst 50. Others: 500 of 50000.
        subscriptions: Lane[Request] = Lane(8 * share, 0.33 * SECOND / share, elapsed)
        listings: Lane[Request] = Lane(50 * share, SECOND / share, elapsed)
        others: Lane[Request] = Lane(100 * share, 0.05 * SECOND / share, elapsed)
        self._lanes = (others, listings, subscriptions)
        self._lane_of = {
            "public/subscribe": subscriptions,
            "public/unsubscribe": subscriptions,
            "public/get_instruments": listings,
        }
        self._pending: dict[int, tuple[Request, int]] = {}
        self._unwatched: dict[int, Request] = {}
        self._urgent: list[bytes] = []
        self._outbox: list[bytes] = []

    def mute(self) -> None:
        """Nobody answers until the next socket: a connection is played back from its middle."""
        self._muted = True

    def submit(self, request: Request, not_before: int = 0) -> None:
        """Send it as soon as its credits allow, in order among those that share them; none of them before a time."""
        if not self._muted:
            lane = self._lane_of.get(request.method, self._lanes[0])
            lane.waiting.append(request)
            lane.hold(not_before)

    def urgent(self, method: str) -> None:
        """Send it now, ahead of everything: an answer to a heartbeat. Its reply is expected but not waited for."""
        if self._muted:
            return
        if len(self._unwatched) >= _MOST_UNWATCHED:
            self._unwatched.clear()
        self._number += 1
        self._unwatched[self._number] = Request(method, {}, "heartbeat")
        self._urgent.append(encode_request(self._number, method, {}))

    def pump(self, elapsed: int) -> None:
        """Move what has its credits to the outbox."""
        for lane in self._lanes:
            while (request := lane.take(elapsed)) is not None:
                self._number += 1
                self._pending[self._number] = (request, elapsed + TIMEOUT)
                self._outbox.append(encode_request(self._number, request.method, request.params))

    def take_outbox(self) -> list[bytes]:
        """What goes to the socket, heartbeat answers first."""
        taken = self._urgent + self._outbox
        self._urgent, self._outbox = [], []
        return taken

    def answered(self, number: int | str | None) -> Request | None:
        """The request an answer belongs to; None for an answer nobody waits for."""
        if not isinstance(number, int):
            return None
        found = self._pending.pop(number, None)
        return self._unwatched.pop(number, None) if found is None else found[0]

    def overdue(self, elapsed: int) -> list[Request]:
        """Take out the requests whose time for an answer has passed."""
        late = [number for number, (_, deadline) in self._pending.items() if deadline <= elapsed]
        return [self._pending.pop(number)[0] for number in late]

    def is_waiting(self, method: str) -> bool:
        """Requests that share the credits of this method have not been sent for want of them."""
        return bool(self._lane_of[method].waiting)

    def outstanding(self, method: str) -> int:
        """Requests of a method that wait for credits or an answer."""
        waiting = sum(request.method == method for lane in self._lanes for request in lane.waiting)
        return waiting + sum(request.method == method for request, _ in self._pending.values())

    def next_deadline(self, elapsed: int) -> int | None:
        """When `pump` or `overdue` has something to do."""
        times = [ready for lane in self._lanes if (ready := lane.next_ready(elapsed)) is not None]
        # Deadlines lie a fixed time after sending, so the oldest request's is the first.
        times.extend(deadline for _, deadline in list(self._pending.values())[:1])
        return min(times, default=None)
