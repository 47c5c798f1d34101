"""Which channels one OKX connection wants, asked for, has and was refused.

OKX acknowledges every channel of a request by itself, and answers what it will not give with one error that quotes the request
and often, not always, the channel. So after an error the others of its request are waited for, and what was not acknowledged
by then is asked for again: without the channel the error named, or in two halves until the bad one stands alone.

Limits of the venue: 64 KB a request, 480 requests an hour and connection (subscribing and unsubscribing alike). Changes are
gathered, so that a hundred books that start again at once cost two requests and not two hundred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from volsurf.feeds._lanes import Lane
from volsurf.feeds._okx_messages import Arg, encode_arg, encode_request
from volsurf.feeds._watch import SECOND

MOST_BYTES = 60_000
"""Of the channels of one request; the venue takes 64 KB."""
GATHER = SECOND // 20
"""How long changes are gathered before they are asked for: at 08:00 UTC listings come and go by the hundred."""
TIMEOUT = 10 * SECOND
"""For an acknowledgement. OKX's own are there within a tenth of a second."""
AFTER_ERROR = SECOND
"""How long the rest of a request that was answered with an error is waited for."""
BURST, INTERVAL = 240, 15 * SECOND
"""240 at once and one every 15 seconds: 480 in the first hour, never more in any."""

SUBSCRIBE, UNSUBSCRIBE = "subscribe", "unsubscribe"
_WORD = re.compile(r"[A-Za-z0-9_.-]+")


class Request(NamedTuple):
    """Channels to subscribe to or leave."""

    op: str
    args: tuple[Arg, ...]
    attempt: int = 1


class _Sent:
    """A request on its way, and which of its channels nothing was heard of yet."""

    def __init__(self, request: Request, deadline: int) -> None:
        self.request = request
        self.left = dict.fromkeys(request.args)
        self.deadline = deadline
        self.has_error = False
        self.refusal = ""
        """What the venue said against it without naming a channel."""


class Refused(NamedTuple):
    """A channel the venue would not give, and its words."""

    arg: Arg
    why: str


class Overdue(NamedTuple):
    """What came of requests whose time is over."""

    silent: list[Request]
    """Not answered at all."""
    dead: list[Request]
    """Those of them that were asked twice, and of which no channel was acknowledged."""
    refused: list[Refused]
    """Channels given up."""


class Channels:
    """Subscriptions of one connection. Times are its elapsed ones.

    Attributes:
        owner: channel → id of its instrument; None for a channel that belongs to none. granted: acknowledged.
        refused: given up. held: nothing is flushed before discovery is done, so that requests go out full.
    """

    def __init__(self) -> None:
        self._number = 0
        self.owner: dict[Arg, int | None] = {}
        self.granted: set[Arg] = set()
        self.refused: dict[Arg, str] = {}
        self.clear(0)

    def clear(self, elapsed: int) -> None:
        """Forget everything, for a new socket. Numbers go on, so that no old answer can be taken for a new one."""
        self.owner.clear()
        self.granted.clear()
        self.refused.clear()
        self.held = True
        self._subscribe: dict[Arg, None] = {}
        self._unsubscribe: dict[Arg, None] = {}
        self._flush_at: int | None = None
        self._lane: Lane[Request] = Lane(BURST, INTERVAL, elapsed)
        self._sent: dict[str, _Sent] = {}

    def want(self, args: Iterable[Arg], owner: int | None, elapsed: int) -> None:
        """Subscribe, with the next flush."""
        for arg in args:
            self.owner[arg] = owner
            self._subscribe[arg] = None
        self._schedule(elapsed)

    def drop(self, args: Iterable[Arg], elapsed: int) -> None:
        """Unsubscribe, with the next flush, what was ever asked for."""
        for arg in args:
            if arg not in self.owner:
                continue
            only_gathered = arg in self._subscribe and arg not in self.granted
            if not only_gathered and arg not in self.refused:
                self._unsubscribe[arg] = None
            self._subscribe.pop(arg, None)
            self.granted.discard(arg)
            self.refused.pop(arg, None)
            del self.owner[arg]
        self._schedule(elapsed)

    def restart(self, arg: Arg, elapsed: int) -> None:
        """Unsubscribe and subscribe again: the first message of a book is then a whole one."""
        if arg in self.owner:
            self._unsubscribe[arg] = None
            self._subscribe[arg] = None
            self._schedule(elapsed)

    def flush(self, elapsed: int, *, now: bool = False) -> None:
        """Turn what was gathered into requests; those to unsubscribe first, so that a restart is one."""
        at = self.flush_at
        if at is not None and (now or at <= elapsed):
            self._flush_at = None
            for op, gathered in ((UNSUBSCRIBE, self._unsubscribe), (SUBSCRIBE, self._subscribe)):
                self._submit(op, list(gathered))
                gathered.clear()

    def ask_now(self, args: Iterable[Arg]) -> None:
        """Subscribe at once, before discovery."""
        args = list(args)
        self.owner.update(dict.fromkeys(args))
        self._submit(SUBSCRIBE, args)

    def pump(self, elapsed: int) -> list[bytes]:
        """Requests whose time has come."""
        messages = []
        while (request := self._lane.take(elapsed)) is not None:
            self._number += 1
            self._sent[str(self._number)] = _Sent(request, elapsed + TIMEOUT)
            messages.append(encode_request(str(self._number), request.op, request.args))
        return messages

    def acknowledged(self, number: str, op: str, arg: Arg) -> bool:
        """One channel is acknowledged; whether anybody waited for that."""
        sent = self._sent.get(number)
        if sent is None or arg not in sent.left:
            # Acknowledgements need not carry the number.
            sent = next((s for s in self._sent.values() if s.request.op == op and arg in s.left), None)
        if op == SUBSCRIBE and arg in self.owner:
            self.granted.add(arg)
        if sent is None:
            return False
        del sent.left[arg]
        self._drop_if_done(sent)
        return True

    def failed(self, number: str, words: str, said: str, elapsed: int) -> list[Refused]:
        """A request was answered with an error: the channels it names, or the only one there was.

        Args:
            words: of the venue's. said: what to remember of them.
        """
        sent = self._sent.get(number)
        if sent is None and len(self._sent) == 1:
            sent = next(iter(self._sent.values()))
        if sent is None:
            return []
        named = set(_WORD.findall(words))
        left = list(sent.left)
        bad = [arg for arg in left if arg.channel in named and _object(arg) in named] if len(left) > 1 else left
        if 0 < len(bad) < len(left) or len(left) == 1:
            for arg in bad:
                del sent.left[arg]
        else:
            # It names none, or quotes the whole request.
            bad = []
            sent.refusal = said
        sent.has_error = True
        sent.deadline = min(sent.deadline, elapsed + AFTER_ERROR)
        self._drop_if_done(sent)
        return self._refuse(sent.request.op, bad, said)

    def put_off(self, number: str, until: int) -> bool:
        """The venue wants fewer requests: ask this one again, and none before a time. False if it was asked too often."""
        self._lane.hold(until)
        sent = self._sent.pop(number, None)
        if sent is None:
            return True
        self._lane.waiting.appendleft(Request(sent.request.op, tuple(sent.left), sent.request.attempt + 1))
        return sent.request.attempt < 3

    def overdue(self, elapsed: int) -> Overdue:
        """Ask again for what was not acknowledged in time."""
        silent: list[Request] = []
        dead: list[Request] = []
        refused: list[Refused] = []
        for number in [number for number, sent in self._sent.items() if sent.deadline <= elapsed]:
            sent = self._sent.pop(number)
            op, attempt = sent.request.op, sent.request.attempt
            left = [arg for arg in sent.left if op == UNSUBSCRIBE or arg in self.owner]
            if not left:
                continue
            if sent.refusal and len(left) > 1:
                half = len(left) // 2
                self._submit(op, left[:half], attempt)
                self._submit(op, left[half:], attempt)
            elif sent.has_error:
                self._submit(op, left, attempt)
            else:
                silent.append(sent.request)
                if attempt < 2:
                    self._submit(op, left, attempt + 1)
                elif len(left) == len(sent.request.args):
                    dead.append(sent.request)
                else:
                    refused += self._refuse(op, left, "not acknowledged")
        return Overdue(silent, dead, refused)

    @property
    def flush_at(self) -> int | None:
        """When `flush` has something to do."""
        return None if self.held else self._flush_at

    @property
    def settled(self) -> bool:
        """Nothing gathered, and no subscription waits for an answer."""
        waiting = any(request.op == SUBSCRIBE for request in self._lane.waiting)
        return (
            self._flush_at is None and not waiting and not any(s.request.op == SUBSCRIBE for s in self._sent.values())
        )

    def next_deadline(self, elapsed: int) -> int | None:
        """When `flush`, `pump` or `overdue` has something to do."""
        times = [at for at in (self.flush_at, self._lane.next_ready(elapsed)) if at is not None]
        times += [sent.deadline for sent in self._sent.values()]
        return min(times, default=None)

    def _refuse(self, op: str, args: list[Arg], why: str) -> list[Refused]:
        if op == UNSUBSCRIBE:
            return []
        refused = [Refused(arg, why) for arg in args if arg in self.owner]
        self.refused.update((one.arg, why) for one in refused)
        return refused

    def _submit(self, op: str, args: list[Arg], attempt: int = 1) -> None:
        chunk: list[Arg] = []
        size = 0
        for arg in args:
            length = len(encode_arg(arg)) + 1
            if chunk and size + length > MOST_BYTES:
                self._lane.waiting.append(Request(op, tuple(chunk), attempt))
                chunk, size = [], 0
            chunk.append(arg)
            size += length
        if chunk:
            self._lane.waiting.append(Request(op, tuple(chunk), attempt))

    def _drop_if_done(self, sent: _Sent) -> None:
        if not sent.left:
            for number in [number for number, one in self._sent.items() if one is sent]:
                del self._sent[number]

    def _schedule(self, elapsed: int) -> None:
        if (self._subscribe or self._unsubscribe) and self._flush_at is None:
            self._flush_at = elapsed + GATHER


def _object(arg: Arg) -> str:
    """What a channel is of."""
    return arg.instId or arg.instFamily or arg.uly or arg.instType
