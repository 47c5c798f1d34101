"""Which channels one connection wants, asked for, has and was refused.

Deribit leaves an unknown channel out of its acknowledgement without a word, so each acknowledgement is compared with what
was asked. A channel left out is asked for once more after its instrument was looked up again; then it is given up by name.
"""

from __future__ import annotations

from collections.abc import Iterable

from volsurf.feeds._deribit_requests import Request, RequestQueue
from volsurf.feeds._watch import SECOND

MOST_CHANNELS = 500
"""Per message."""
GATHER = SECOND // 20
"""How long changes are gathered before they are asked for: at 08:00 UTC listings come and go by the hundred."""

SUBSCRIBE, UNSUBSCRIBE = "public/subscribe", "public/unsubscribe"


class Channels:
    """Subscriptions of one connection.

    Attributes:
        granted: acknowledged. refused: given up.
        owner: channel → id of its instrument; None for a channel that belongs to none.
        retrying: left out once; asked for again after the look-up.
        held: nothing is flushed before discovery is done, so that messages go out full.
    """

    def __init__(self, requests: RequestQueue) -> None:
        self._requests = requests
        self.owner: dict[str, int | None] = {}
        self.granted: set[str] = set()
        self.refused: set[str] = set()
        self.retrying: dict[str, None] = {}  # in order, because a replay must ask for them in the same one
        self._retried: set[str] = set()
        self._subscribe: dict[str, None] = {}
        self._unsubscribe: dict[str, None] = {}
        self.held = True
        self._flush_at: int | None = None

    def clear(self) -> None:
        """Forget everything, for a new socket."""
        for store in (self.owner, self.granted, self.refused, self._retried):
            store.clear()
        self.retrying.clear()
        self._subscribe.clear()
        self._unsubscribe.clear()
        self._flush_at = None

    def want(self, channels: Iterable[str], owner: int | None, elapsed: int) -> None:
        """Subscribe, with the next flush."""
        for channel in channels:
            self.owner[channel] = owner
            self._subscribe[channel] = None
        self._schedule(elapsed)

    def assume(self) -> None:
        """Everything wanted was acknowledged long ago: this connection is played back from its middle."""
        self.granted.update(self.owner)
        self._subscribe.clear()
        self._unsubscribe.clear()
        self._flush_at = None

    def drop(self, channels: Iterable[str], elapsed: int) -> None:
        """Unsubscribe, with the next flush, what was ever asked for."""
        for channel in channels:
            if channel not in self.owner:
                continue
            only_gathered = channel in self._subscribe and channel not in self.granted
            if not only_gathered:
                self._unsubscribe[channel] = None
            self._subscribe.pop(channel, None)
            self.retrying.pop(channel, None)
            for store in (self.granted, self.refused, self._retried):
                store.discard(channel)
            del self.owner[channel]
        self._schedule(elapsed)

    def restart(self, channel: str, elapsed: int) -> None:
        """Unsubscribe and subscribe again: the first message of a book is then a whole one."""
        self._unsubscribe[channel] = None
        self._subscribe[channel] = None
        self._schedule(elapsed)

    def retry(self, channels: Iterable[str], elapsed: int) -> None:
        """Ask once more for channels that were left out."""
        again = [channel for channel in channels if channel in self.retrying]
        for channel in again:
            del self.retrying[channel]
        self._retried.update(again)
        self._subscribe.update(dict.fromkeys(again))
        self._schedule(elapsed)

    def flush(self, elapsed: int, *, now: bool = False) -> None:
        """Turn what was gathered into requests; those to unsubscribe first, so that a restart is one."""
        at = self.flush_at
        if at is None or not (now or at <= elapsed):
            return
        self._flush_at = None
        for method, gathered in ((UNSUBSCRIBE, self._unsubscribe), (SUBSCRIBE, self._subscribe)):
            channels = list(gathered)
            gathered.clear()
            for start in range(0, len(channels), MOST_CHANNELS):
                self._requests.submit(Request(method, {"channels": channels[start : start + MOST_CHANNELS]}))

    def acknowledged(self, asked: list[str], granted: list[str]) -> tuple[list[str], list[str]]:
        """Compare an acknowledgement with what was asked: channels left out the first time, and those left out again."""
        got = set(granted)
        self.granted.update(channel for channel in asked if channel in got and channel in self.owner)
        left_out = [channel for channel in asked if channel not in got and channel in self.owner]
        again = [channel for channel in left_out if channel in self._retried]
        first = [channel for channel in left_out if channel not in self._retried]
        self.refused.update(again)
        self.retrying.update(dict.fromkeys(first))
        return first, again

    @property
    def flush_at(self) -> int | None:
        """When `flush` has something to do: not while earlier requests wait for credits, so that what is wanted meanwhile goes
        out in one message with them at last, however many books lose changes at once."""
        return None if self.held or self._requests.is_waiting(SUBSCRIBE) else self._flush_at

    @property
    def settled(self) -> bool:
        """Nothing gathered, and no subscription waits for an answer."""
        return self._flush_at is None and self._requests.outstanding(SUBSCRIBE) == 0

    def _schedule(self, elapsed: int) -> None:
        if (self._subscribe or self._unsubscribe) and self._flush_at is None:
            self._flush_at = elapsed + GATHER
