"""Which topics one connection wants, asked for, has and was refused, within what Bybit lets one connection have.

All topics of a connection together may have 21,000 characters (*Connect*: "args limits"), counted here as the venue would read
them: with quotes and commas. What does not fit is left out by name, whole, and asked for as soon as an expiry makes room.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from volsurf.feeds._bybit_messages import encode_command
from volsurf.feeds._watch import SECOND

MOST_CHARACTERS = 21_000
MOST_ARGS = 500
"""Per message; Bybit takes 2000."""
GATHER = SECOND // 20
"""How long changes are gathered before they are asked for: at 08:00 UTC listings come and go by the hundred."""
TIMEOUT = 10 * SECOND
"""For an acknowledgement."""
_FRAME = 2  # the brackets of the array
_AROUND = 3  # two quotes and a comma

SUBSCRIBE, UNSUBSCRIBE = "subscribe", "unsubscribe"


@dataclass(slots=True)
class Asked:
    """One message, and its topics that have no answer yet. Answers name topics only: no number, no operation."""

    op: str
    topics: dict[str, None]
    deadline: int
    attempt: int = 1


@dataclass(slots=True)
class Answered:
    """What an acknowledgement changed: topics granted, and those refused for the first time and again."""

    granted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)


class Topics:
    """Subscriptions of one connection.

    Attributes:
        owner: topic → id of its instrument; None for a topic that belongs to none.
        granted: topic → elapsed time of its acknowledgement. refused: given up. left_out: for which there is no room.
        retrying: refused once; asked for again after a look-up.
        held: nothing is flushed before discovery is done, so that messages go out full.
    """

    def __init__(self) -> None:
        self.owner: dict[str, int | None] = {}
        self.granted: dict[str, int] = {}
        self.refused: set[str] = set()
        self.retrying: set[str] = set()
        self.left_out: dict[str, int | None] = {}
        self.held = True
        self.characters = _FRAME
        self._retried: set[str] = set()
        self._subscribe: dict[str, None] = {}
        self._unsubscribe: dict[str, None] = {}
        self._asked: list[Asked] = []
        self._outbox: list[bytes] = []
        self._flush_at: int | None = None
        self._number = 0

    def clear(self) -> None:
        """Forget everything, for a new socket."""
        for store in (self.owner, self.granted, self.refused, self.retrying, self.left_out, self._retried):
            store.clear()
        for gathered in (self._subscribe, self._unsubscribe, self._asked, self._outbox):
            gathered.clear()
        self.characters = _FRAME
        self._flush_at = None
        self.held = True

    def want(self, topic: str, owner: int | None, elapsed: int) -> bool:
        """Subscribe, with the next flush; False where there is no room for it."""
        if topic in self.owner:
            return True
        if self.characters + len(topic) + _AROUND > MOST_CHARACTERS:
            self.left_out[topic] = owner
            return False
        self.left_out.pop(topic, None)
        self.characters += len(topic) + _AROUND
        self.owner[topic] = owner
        self._subscribe[topic] = None
        self._schedule(elapsed)
        return True

    def drop(self, topics: Iterable[str], elapsed: int) -> None:
        """Unsubscribe, with the next flush, what was ever asked for."""
        for topic in topics:
            self.left_out.pop(topic, None)
            if topic not in self.owner:
                continue
            if topic not in self._subscribe or topic in self.granted:
                self._unsubscribe[topic] = None
            self._subscribe.pop(topic, None)
            self.granted.pop(topic, None)
            for store in (self.refused, self.retrying, self._retried):
                store.discard(topic)
            del self.owner[topic]
            self.characters -= len(topic) + _AROUND
        self._schedule(elapsed)

    def restart(self, topic: str, elapsed: int) -> None:
        """Unsubscribe and subscribe again: the first message of a topic is a whole one."""
        self._unsubscribe[topic] = None
        self._subscribe[topic] = None
        self.granted.pop(topic, None)
        self._schedule(elapsed)

    def retry(self, topics: Iterable[str], elapsed: int) -> None:
        """Ask once more for topics that were refused."""
        again = [topic for topic in topics if topic in self.retrying]
        self.retrying.difference_update(again)
        self._retried.update(again)
        self._subscribe.update(dict.fromkeys(again))
        self._schedule(elapsed)

    def resume(self, topics: dict[str, int | None], elapsed: int) -> None:
        """These are had already."""
        self.owner.update(topics)
        self.granted.update(dict.fromkeys(topics, elapsed))
        self.characters += sum(len(topic) + _AROUND for topic in topics)
        self.held = False

    def flush(self, elapsed: int) -> None:
        """Turn what was gathered into messages; those to unsubscribe first, so that a restart is one."""
        at = self.flush_at
        if at is None or at > elapsed:
            return
        self._flush_at = None
        for op, gathered in ((UNSUBSCRIBE, self._unsubscribe), (SUBSCRIBE, self._subscribe)):
            topics = list(gathered)
            gathered.clear()
            for start in range(0, len(topics), MOST_ARGS):
                self._ask(op, topics[start : start + MOST_ARGS], elapsed, attempt=1)

    def answered(self, success: list[str], failed: list[str], elapsed: int) -> Answered:
        """Take an acknowledgement: each topic in it answers the oldest message that asked for it."""
        result = Answered()
        for topic in success:
            if self._settle(topic) == SUBSCRIBE and topic in self.owner:
                self.granted[topic] = elapsed
                result.granted.append(topic)
        for topic in failed:
            if self._settle(topic) == SUBSCRIBE and topic in self.owner:
                again = topic in self._retried
                (self.refused if again else self.retrying).add(topic)
                (result.given_up if again else result.refused).append(topic)
        self._asked = [asked for asked in self._asked if asked.topics]
        return result

    def delivers(self, topic: str, elapsed: int) -> None:
        """A message on a topic says more than an acknowledgement of it."""
        if topic in self.owner and topic not in self.granted:
            self.granted[topic] = elapsed
            for asked in self._asked:
                asked.topics.pop(topic, None)

    def overdue(self, elapsed: int) -> tuple[int, bool]:
        """Ask once more for subscriptions without an answer; how many topics, and whether some have now failed twice."""
        late = [asked for asked in self._asked if asked.deadline <= elapsed]
        self._asked = [asked for asked in self._asked if asked.deadline > elapsed]
        missing, failed = 0, False
        for asked in late:
            topics = [topic for topic in asked.topics if topic in self.owner]
            # What is no longer wanted may stay unanswered.
            if asked.op == UNSUBSCRIBE or not topics:
                continue
            missing += len(topics)
            failed |= asked.attempt > 1
            self._ask(SUBSCRIBE, topics, elapsed, asked.attempt + 1)
        return missing, failed

    def hasten(self, until: int) -> None:
        """Wait no longer than until then for the answers that are due."""
        for asked in self._asked:
            asked.deadline = min(asked.deadline, until)

    def take_outbox(self) -> list[bytes]:
        """What goes to the socket."""
        taken, self._outbox = self._outbox, []
        return taken

    @property
    def flush_at(self) -> int | None:
        """When `flush` has something to do."""
        return None if self.held else self._flush_at

    @property
    def next_deadline(self) -> int | None:
        """When `flush` or `overdue` has something to do."""
        times = [asked.deadline for asked in self._asked]
        return min([*times, self.flush_at] if self.flush_at is not None else times, default=None)

    @property
    def settled(self) -> bool:
        """Nothing gathered, and no subscription waits for an answer."""
        return self._flush_at is None and not any(asked.op == SUBSCRIBE and asked.topics for asked in self._asked)

    def _ask(self, op: str, topics: list[str], elapsed: int, attempt: int) -> None:
        self._number += 1
        self._asked.append(Asked(op, dict.fromkeys(topics), elapsed + TIMEOUT, attempt))
        self._outbox.append(encode_command(self._number, op, topics))

    def _settle(self, topic: str) -> str:
        for asked in self._asked:
            if topic in asked.topics:
                del asked.topics[topic]
                return asked.op
        return ""

    def _schedule(self, elapsed: int) -> None:
        if (self._subscribe or self._unsubscribe) and self._flush_at is None:
            self._flush_at = elapsed + GATHER
