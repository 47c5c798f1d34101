"""One connection's wire: what happens to payloads on their way out. No socket and no clock; it is told the time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volsurf.sim._faults_kinds import CHANNELS, MESSAGE_KINDS, Fault

if TYPE_CHECKING:
    from volsurf.sim._faults_run import FaultRun

LONGEST_HOLD_NS = 1_000_000_000
"""A message whose channel is silent for so long after it comes without having been overtaken."""
_LOOKED_AT = 600
"""Bytes of a payload in which its channel is named."""
_NAME = re.compile(
    rb'"(?:channel|topic|stream)":"(?P<name>[^"]+)"(?:,"inst(?:Id|Family|Type)":"(?P<of>[^"]+)")?|"e":"(?P<event>\w+)"'
)
_SYMBOL = re.compile(rb'"s":"([^"]+)"')
_REPLY = re.compile(rb'"event":"|"op":"|"result":|"type":"COMMAND_RESP"')
_CLASSES = (
    ("listing", re.compile(rb"instrument|optionSymbol|platform_state|status")),
    ("index", re.compile(rb"index|estimated|volatility", re.IGNORECASE)),
    ("trade", re.compile(rb"trade", re.IGNORECASE)),
    ("ticker", re.compile(rb"ticker|quote|opt-summary|mark", re.IGNORECASE)),
    ("book", re.compile(rb"book|bbo|depth")),
)


def channel_of(payload: bytes) -> tuple[str, str]:
    """Class (of `CHANNELS`) and full name of the channel a payload of any of the four venues belongs to."""
    head = payload[:_LOOKED_AT]
    match = _NAME.search(head)
    if match is None or _REPLY.search(head, 0, match.start()):
        return "reply", ""
    name = match["name"] or match["event"]
    of = match["of"] or b""
    if match["event"] and (symbol := _SYMBOL.search(head)):
        of = symbol[1]
    kind = next((kind for kind, pattern in _CLASSES if pattern.search(name)), "other")
    return kind, b":".join(filter(None, (name, of))).decode("utf-8", "replace")


class Unframed(bytes):
    """Bytes to be written as they are, not as a text frame."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a connection ends: with a close frame, or without a word where the code is 0."""

    code: int
    reason: str


class FaultyWire:
    """The outgoing side of one connection.

    Args:
        client: its number, from 0 in order of opening.
        opened_ns: real time of opening, ns.
    """

    def __init__(self, run: FaultRun, client: int, opened_ns: int, seed: int) -> None:
        self.client = client
        self._run = run
        self._opened = opened_ns - run.start_ns
        self._faults = [f for f in run.script if f.options.get("client", -1) in (-1, client)]
        self._message_faults = [f for f in self._faults if f.kind in MESSAGE_KINDS]
        self._rng = np.random.default_rng([seed, 5, client])
        self._held: dict[str, tuple[int, bytes]] = {}
        """By channel, what is to come after its next message, and since when."""
        self._queue: list[bytes] = []
        self._credit = 0.0
        self._credit_ns = opened_ns
        self._cuts_done: set[tuple[int, int]] = set()
        self._silence: tuple[int, int] | None = None

    @property
    def backlog(self) -> int:
        """Bytes that wait for a slow link."""
        return sum(map(len, self._queue))

    def send(self, now: int, payloads: Iterable[bytes]) -> list[bytes]:
        """What of these goes out now, after what was held back; call it at every tick, also with nothing to send."""
        since = now - self._run.start_ns
        out = list(payloads)
        if self.is_silent(now):
            return []
        active = [f for f in self._message_faults if f.occurrence(since) >= 0 and not self._run.is_spent(f)]
        if active or self._held:
            out = self._disturb(now, out, active)
        return self._limit(now, since, out)

    def is_silent(self, now: int) -> bool:
        """Whether nothing goes out and nothing that comes in is looked at; the socket stays."""
        since = now - self._run.start_ns
        for number, fault in enumerate(self._faults):
            occurrence = fault.occurrence(since) if fault.kind == "silence" else -1
            if occurrence >= 0:
                if self._silence != (number, occurrence):
                    self._silence = (number, occurrence)
                    self._run.log.add(now, "silence", str(fault), self.client)
                return True
        return False

    def cut(self, now: int) -> Cut | None:
        """How this connection is to end now, if it is; each disconnect cuts those that were open when it was due."""
        since = now - self._run.start_ns
        for number, fault in enumerate(self._faults):
            if fault.kind != "disconnect":
                continue
            occurrence = fault.occurrence(since)
            if occurrence < 0 or (number, occurrence) in self._cuts_done:
                continue
            self._cuts_done.add((number, occurrence))
            if self._opened <= fault.started_ns(occurrence):
                how, reason = str(fault.options["how"]), str(fault.options["reason"])
                self._run.log.add(now, "disconnect", how, self.client)
                return Cut(0 if how == "abort" else int(fault.options["code"]), reason)
        return None

    def _disturb(self, now: int, payloads: list[bytes], active: list[Fault]) -> list[bytes]:
        out: list[bytes] = []
        # A channel that says nothing more is not waited for.
        overdue = [name for name, (since, _) in self._held.items() if now - since >= LONGEST_HOLD_NS]
        out += [self._held.pop(name)[1] for name in overdue]
        for payload in payloads:
            kind, name = channel_of(payload)
            before = self._held.pop(name, None)
            sent = [payload]
            for fault in active:
                if sent and self._strikes(fault, kind):
                    sent = self._strike(fault, name, sent, now)
                    self._run.log.add(now, fault.kind, name or kind, self.client)
            out += sent
            if before is not None:
                out.append(before[1])
        return out

    def _strikes(self, fault: Fault, kind: str) -> bool:
        channel = fault.options["channel"]
        if channel != "any" and channel != kind and not (channel == "data" and kind != "reply"):
            return False
        p = float(fault.options["p"])
        if p < 1.0 and self._rng.random() >= p:
            return False
        return self._run.take(fault)

    def _strike(self, fault: Fault, name: str, sent: list[bytes], now: int) -> list[bytes]:
        payload = sent[-1]
        match fault.kind:
            case "gap":
                return []
            case "duplicate":
                return [*sent, payload]
            case "reorder":
                self._held[name] = (now, payload)
                return sent[:-1]
            case "truncate":
                return [*sent[:-1], payload[: int(self._rng.integers(1, max(2, len(payload))))]]
        return [*sent[:-1], self._malform(payload, str(fault.options["how"]))]

    def _malform(self, payload: bytes, how: str) -> bytes:
        at = int(self._rng.integers(1, max(2, len(payload))))
        if how == "frame":
            # Reserved bits and a reserved opcode: no client may accept this.
            return Unframed(b"\xff\x02\x00\x00")
        # A control character is legal nowhere in JSON, so that no number is changed into another one.
        return payload[:at] + (b"\xc3\x28" if how == "utf8" else b"\x01") + payload[at:]

    def _limit(self, now: int, since: int, out: list[bytes]) -> list[bytes]:
        rates = [
            (number, float(f.options["rate"]))
            for number, f in enumerate(self._faults)
            if f.kind == "slow" and f.occurrence(since) >= 0
        ]
        if not rates and not self._queue:
            self._credit, self._credit_ns = 0.0, now
            return out
        if rates and not self._queue and out:
            self._run.log.add(now, "slow", f"{min(r for _, r in rates):g} bytes/s", self.client)
        self._queue += out
        if not rates:
            sent, self._queue = self._queue, []
            return sent
        rate = min(rate for _, rate in rates)
        # A quarter of a second of credit at most: a link is not faster for having been idle.
        self._credit = min(self._credit + rate * (now - self._credit_ns) * 1e-9, max(0.25 * rate, 1.0))
        self._credit_ns = now
        ready = 0
        while ready < len(self._queue) and self._credit > 0:
            self._credit -= len(self._queue[ready])
            ready += 1
        sent, self._queue = self._queue[:ready], self._queue[ready:]
        return sent


assert {kind for kind, _ in _CLASSES} <= set(CHANNELS)
