"""What one connection asks of Binance: subscriptions on the socket, pages over HTTP, each within the limits of its kind.

Times here are nanoseconds of the connection's own elapsed time (`Watch.elapsed`), which no clock step can move.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from volsurf.feeds._binance_budget import Budget
from volsurf.feeds._binance_messages import encode_request
from volsurf.feeds._lanes import Lane
from volsurf.feeds._watch import SECOND
from volsurf.feeds.protocol import HttpRequest

TIMEOUT = 10 * SECOND
"""For an acknowledgement."""
HTTP_TIMEOUT = 30 * SECOND
"""For a page; the shell gives up sooner."""
PER_MESSAGE = 100
"""Streams of one SUBSCRIBE."""
SUBSCRIBE, UNSUBSCRIBE, LIST = "SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS"
DEPTH_LEVELS, DEPTH_WEIGHT = 50, 1
"""Of a book's snapshot. Fewer levels cost no less, 100 five times as much, and what lies deeper comes with its next change."""


class Request(NamedTuple):
    """One message to the venue, sent or still to be sent."""

    method: str
    streams: tuple[str, ...] = ()
    attempt: int = 1
    is_part: bool = False
    """Of a message that was refused as a whole."""


class Requests:
    """Messages on the socket: five at once and then five a second, half of what Binance admits; pongs count too."""

    def __init__(self) -> None:
        self._number = 0
        self.clear(0)

    def clear(self, elapsed: int) -> None:
        """Forget everything, for a new socket. Numbers go on, so that no old answer can be taken for a new one."""
        self._lane: Lane[Request] = Lane(5, SECOND // 5, elapsed)
        self._pending: dict[int, tuple[Request, int]] = {}
        self._outbox: list[bytes] = []

    def submit(self, request: Request) -> None:
        """Send it when its turn comes."""
        self._lane.waiting.append(request)

    def submit_streams(self, method: str, streams: Iterable[str]) -> None:
        """Send as many messages as these streams need."""
        names = tuple(streams)
        for start in range(0, len(names), PER_MESSAGE):
            self.submit(Request(method, names[start : start + PER_MESSAGE]))

    def pump(self, elapsed: int) -> None:
        """Move what may go to the outbox."""
        while (request := self._lane.take(elapsed)) is not None:
            self._number += 1
            self._pending[self._number] = (request, elapsed + TIMEOUT)
            self._outbox.append(encode_request(self._number, request.method, list(request.streams)))

    def take_outbox(self) -> list[bytes]:
        """What goes to the socket."""
        taken, self._outbox = self._outbox, []
        return taken

    def answered(self, number: int | str | None) -> Request | None:
        """The request an answer belongs to. An error may come without an id: then the one that has waited longest."""
        if number is None and self._pending:
            number = next(iter(self._pending))
        found = self._pending.pop(number, None) if isinstance(number, int) else None
        return None if found is None else found[0]

    def overdue(self, elapsed: int) -> list[Request]:
        """Take out the requests whose time for an answer has passed."""
        late = [number for number, (_, deadline) in self._pending.items() if deadline <= elapsed]
        return [self._pending.pop(number)[0] for number in late]

    @property
    def settled(self) -> bool:
        """No subscription waits for its turn or its answer."""
        waiting = any(request.method == SUBSCRIBE for request in self._lane.waiting)
        return not waiting and not any(request.method == SUBSCRIBE for request, _ in self._pending.values())

    def next_deadline(self, elapsed: int) -> int | None:
        """When `pump` or `overdue` has something to do."""
        times = [] if (ready := self._lane.next_ready(elapsed)) is None else [ready]
        times.extend(deadline for _, deadline in list(self._pending.values())[:1])
        return min(times, default=None)


class Page(NamedTuple):
    """One page to ask for."""

    key: str
    path: str
    attempt: int = 1
    not_before: int = 0

    @property
    def is_depth(self) -> bool:
        """It is a book's snapshot."""
        return self.path.startswith("/eapi/v1/depth")


class Rest:
    """Pages over HTTP, paced by the weights of the address.

    Args:
        base: `https://eapi.binance.com`. budget: what all connections of the feed share.
    """

    def __init__(self, base: str, budget: Budget) -> None:
        self._base, self._budget = base, budget
        self.clear(0)

    def clear(self, elapsed: int) -> None:
        """Forget everything, for a new socket."""
        self._pages: Lane[Page] = Lane(10, SECOND, elapsed)
        self._depths: deque[Page] = deque()
        self._later: list[Page] = []
        self._pending: dict[str, tuple[Page, int]] = {}
        self._outbox: list[HttpRequest] = []

    def submit(self, page: Page) -> None:
        """Ask for a page when its turn comes; one already asked for is not asked for twice."""
        if page.key in self._pending or any(p.key == page.key for p in self._waiting()):
            return
        self._later.append(page)

    def hold(self, now: int, pause: int) -> None:
        """Ask for nothing for a while, on any connection: the venue said so."""
        self._budget.hold(now, pause)

    def pump(self, elapsed: int, now: int) -> None:
        """Move what may go to the outbox."""
        due = [page for page in self._later if page.not_before <= elapsed]
        self._later = [page for page in self._later if page.not_before > elapsed]
        for page in due:
            (self._depths if page.is_depth else self._pages.waiting).append(page)
        if self._budget.held_until(now) > now:
            return
        while (taken := self._pages.take(elapsed)) is not None:
            self._ask(taken, elapsed)
        while self._depths and self._budget.spend(DEPTH_WEIGHT, now):
            self._ask(self._depths.popleft(), elapsed)

    @property
    def has_waiting(self) -> bool:
        """A page waits for its turn."""
        return bool(self._later or self._pages.waiting or self._depths)

    def take_outbox(self) -> list[HttpRequest]:
        """Requests to make."""
        taken, self._outbox = self._outbox, []
        return taken

    def answered(self, key: str) -> Page | None:
        """The page an answer belongs to; None for an answer nobody waits for."""
        found = self._pending.pop(key, None)
        return None if found is None else found[0]

    def drop(self, key: str) -> None:
        """Nobody wants this page any more."""
        self._later = [page for page in self._later if page.key != key]
        for line in (self._pages.waiting, self._depths):
            for page in [page for page in line if page.key == key]:
                line.remove(page)

    def overdue(self, elapsed: int) -> list[Page]:
        """Take out the pages whose time for an answer has passed."""
        late = [key for key, (_, deadline) in self._pending.items() if deadline <= elapsed]
        return [self._pending.pop(key)[0] for key in late]

    def next_deadline(self, elapsed: int, now: int) -> int | None:
        """When `pump` or `overdue` has something to do, as elapsed time."""
        times = [page.not_before for page in self._later]
        if (ready := self._pages.next_ready(elapsed)) is not None:
            times.append(max(ready, elapsed + self._budget.held_until(now) - now))
        if self._depths:
            times.append(elapsed + self._budget.ready_at(DEPTH_WEIGHT, now) - now)
        times.extend(deadline for _, deadline in list(self._pending.values())[:1])
        return min(times, default=None)

    def _ask(self, page: Page, elapsed: int) -> None:
        self._pending[page.key] = (page, elapsed + HTTP_TIMEOUT)
        self._outbox.append(HttpRequest("GET", self._base + page.path, page.key))

    def _waiting(self) -> list[Page]:
        return [*self._later, *self._pages.waiting, *self._depths]
