"""The kinds of faults, what each takes, and one entry of a script."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from volsurf.errors import ConfigError

Value = str | float | int
_DURATION = re.compile(r"([+-]?\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
CHANNELS = ("data", "book", "ticker", "trade", "index", "listing", "other", "reply", "any")
"""Which messages: market data of any channel, one class of it, answers and heartbeats, or everything."""


def parse_duration(text: str) -> int:
    """Nanoseconds of `250ms`, `3s`, `2m`, `1h`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(f"a duration is written like 250ms, 3s, 2m or 1h, was {text!r}")
    return round(float(match[1]) * _UNITS[match[2]])


def duration_text(ns: int) -> str:
    """The shortest way to write a duration to the millisecond."""
    for unit in ("h", "m", "s"):
        if ns and ns % _UNITS[unit] == 0:
            return f"{ns // _UNITS[unit]}{unit}"
    return f"{ns / _UNITS['ms']:.15g}ms" if ns else "0s"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing a kind of fault takes."""

    default: Value
    parse: Callable[[str], Value]
    what: str
    """Of the values that are right."""


def _number(low: float, high: float, what: str) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(what)
        return value

    return parse


def _whole(low: int) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        value = int(text)
        if value < low:
            raise ValueError(text)
        return value

    return parse


def _one_of(*words: str) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        if text not in words:
            raise ValueError(text)
        return text

    return parse


def _choice(default: str, *words: str) -> Parameter:
    return Parameter(default, _one_of(*words), "one of " + ", ".join(words))


def _share(default: float) -> Parameter:
    return Parameter(default, _number(0.0, 1.0, "p"), "a share from 0 to 1")


def _count(default: int, low: int = 1) -> Parameter:
    return Parameter(default, _whole(low), f"a whole number from {low}")


_VENUE = {"venue": Parameter("", str, "a venue's name")}
_CLIENT = _VENUE | {"client": Parameter(-1, _whole(0), "the number of a connection, from 0")}
_CHANNEL = _choice("data", *CHANNELS)
_UNDERLYING = Parameter("", str, "an underlying's name")
_EXPIRY = _count(-1, 0)


def _messages(p: float, **more: Parameter) -> dict[str, Parameter]:
    # count=0: as many as there are.
    return _CLIENT | {"channel": _CHANNEL, "p": _share(p), "count": _count(0, 0)} | more


def _prices(p: float, **more: Parameter) -> dict[str, Parameter]:
    return _VENUE | {"underlying": _UNDERLYING, "expiry": _EXPIRY, "p": _share(p)} | more


KINDS: dict[str, dict[str, Parameter]] = {
    "disconnect": _CLIENT
    | {
        "how": _choice("close", "close", "abort"),
        "code": Parameter(1001, lambda text: _whole(1000)(text), "a close code from 1000"),
        "reason": Parameter("", str, "words"),
    },
    "silence": dict(_CLIENT),
    "slow": _CLIENT | {"rate": Parameter(20_000.0, _number(1.0, math.inf, "rate"), "bytes per second from 1")},
    "gap": _messages(1.0),
    "duplicate": _messages(0.2),
    "reorder": _messages(0.2),
    "truncate": _messages(0.05),
    "malformed": _messages(0.05, how=_choice("json", "json", "utf8", "frame")),
    "refuse": _CLIENT | {"count": _count(1)},
    "rate_limit": _CLIENT | {"count": _count(1)},
    "maintenance": dict(_VENUE),
    "vanish": _prices(1.0, expiry=_count(1, 0)),
    "crossed": _prices(0.2),
    "locked": _prices(0.2),
    "spike": _prices(0.1, size=Parameter(0.5, _number(-0.99, 100.0, "size"), "a share of the price, from -0.99")),
    "clock_jump": {"by": Parameter(1.0, lambda text: parse_duration(text) * 1e-9, "a duration like 3s or -500ms")},
    "suspend": {},
}
"""What each kind takes besides its times."""
WIRE_KINDS = ("disconnect", "silence", "slow")
MESSAGE_KINDS = ("gap", "duplicate", "reorder", "truncate", "malformed")
REFUSAL_KINDS = {"refuse": "subscribe", "rate_limit": "rate_limit"}
MARKET_KINDS = ("crossed", "locked", "spike")
CLIENT_KINDS = ("clock_jump", "suspend")
LASTING = ("silence", "slow", "maintenance", *MARKET_KINDS, "suspend")
"""Kinds that need a `for`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry: what, when (ns since the start of the run), for how long, how often."""

    kind: str
    at_ns: int
    for_ns: int = 0
    """0: at one moment, or, of messages with a count, until there were so many."""
    every_ns: int = 0
    times: int = 1
    """How often, where it comes again; 0 is without end."""
    values: tuple[tuple[str, Value], ...] = ()
    """What differs from the defaults, by name, in order of name."""
    options: dict[str, Value] = field(init=False, repr=False, compare=False, hash=False)
    """All of them, defaults included."""

    def __post_init__(self) -> None:
        known = KINDS[self.kind]
        object.__setattr__(self, "options", {n: p.default for n, p in known.items()} | dict(self.values))

    def __str__(self) -> str:
        words = [f"at {duration_text(self.at_ns)}"]
        if self.every_ns:
            words += [f"every {duration_text(self.every_ns)}", f"times={self.times}"]
        if self.for_ns:
            words.append(f"for {duration_text(self.for_ns)}")
        words.append(self.kind)
        for name, value in self.values:
            text = duration_text(round(float(value) * 1e9)) if name == "by" else _plain(value)
            words.append(f"{name}={text}")
        return " ".join(words)

    @property
    def venue(self) -> str:
        """Where; "" is everywhere."""
        return str(self.options.get("venue", ""))

    @property
    def end_ns(self) -> float:
        """When the last of it is over; infinite where there is no end."""
        if self.every_ns and not self.times:
            return math.inf
        if self.is_counted and not self.for_ns:
            return math.inf
        return self.at_ns + self.every_ns * (self.times - 1) + self.for_ns

    @property
    def is_counted(self) -> bool:
        """Whether it ends with a number of messages rather than with a time."""
        return self.kind in MESSAGE_KINDS and self.options["count"] != 0

    def occurrence(self, since_ns: int) -> int:
        """Which of its times the moment lies in, from 0; −1 for none. One that lasts no time lies there from then on."""
        if since_ns < self.at_ns:
            return -1
        number = (since_ns - self.at_ns) // self.every_ns if self.every_ns else 0
        if self.times and number >= self.times:
            if self.for_ns:
                return -1
            number = self.times - 1
        if self.for_ns and since_ns - self.at_ns - number * self.every_ns >= self.for_ns:
            return -1
        return number

    def started_ns(self, occurrence: int) -> int:
        """When one of its times began, ns since the start of the run."""
        return self.at_ns + occurrence * self.every_ns


def _plain(value: Value) -> str:
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text else text
