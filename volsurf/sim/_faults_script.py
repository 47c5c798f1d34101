"""Scripts of faults: read from compact text or TOML, drawn at random, written as text."""

from __future__ import annotations

import math
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volsurf.errors import ConfigError
from volsurf.sim._faults_kinds import CLIENT_KINDS, KINDS, LASTING, MESSAGE_KINDS, Fault, Value, parse_duration

_TIMES = ("at", "for", "every")
_MOST_RANDOM = {
    # Longest a drawn fault lasts, seconds; 0 where it is one moment.
    "disconnect": 0.0,
    "silence": 4.0,
    "slow": 4.0,
    "gap": 3.0,
    "duplicate": 3.0,
    "reorder": 3.0,
    "truncate": 3.0,
    "malformed": 3.0,
    "refuse": 5.0,
    "rate_limit": 5.0,
    "maintenance": 4.0,
    "vanish": 0.0,
    "crossed": 4.0,
    "locked": 4.0,
    "spike": 4.0,
}


@dataclass(frozen=True)
class FaultScript:
    """Entries in the order in which they were written."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FaultScript:
        """The script of a compact text, or of TOML where it begins with a table.

        Raises:
            ConfigError: an entry cannot be read; the message has its number, its text and what would be right.
        """
        if any(line.strip().startswith("[[") for line in text.splitlines()):
            return cls._parse_toml(text)
        lines = (line.partition("#")[0] for line in text.splitlines())
        entries = [entry.strip() for line in lines for entry in line.split(";")]
        return cls(tuple(_parse_entry(i + 1, entry) for i, entry in enumerate(e for e in entries if e)))

    @classmethod
    def _parse_toml(cls, text: str) -> FaultScript:
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the script of faults is no TOML: {error}") from error
        entries = tables.pop("fault", [])
        if tables or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise ConfigError(f"a script of faults in TOML has tables [[fault]] and nothing else, was {sorted(tables)}")
        return cls(tuple(_parse_table(i + 1, entry) for i, entry in enumerate(entries)))

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        seconds: float = 60.0,
        faults: int = 12,
        kinds: Sequence[str] = (),
        venues: Sequence[str] = (),
    ) -> FaultScript:
        """A script drawn from a seed: so many faults of some kinds, at any time of a run but its first and last tenth.

        Args:
            seconds: length of the run.
            kinds: of those a server does; none named is all of them.
            venues: each fault strikes one of these; none named is all at once.
        """
        if unknown := [k for k in kinds if k not in _MOST_RANDOM]:
            raise ConfigError(f"faults that can be drawn are {sorted(_MOST_RANDOM)}, was {unknown}")
        rng = np.random.default_rng([seed, 6])
        chosen = tuple(kinds) or tuple(_MOST_RANDOM)
        drawn = []
        for _ in range(faults):
            kind = chosen[int(rng.integers(len(chosen)))]
            at = 0.1 * seconds + 0.8 * seconds * float(rng.random())
            lasts = min(_MOST_RANDOM[kind], 0.1 * seconds) * float(rng.uniform(0.25, 1.0))
            values: dict[str, Value] = {}
            if kind in MESSAGE_KINDS:
                values["p"] = round(float(rng.uniform(0.02, 0.3)), 2)
            if kind == "disconnect" and rng.random() < 0.5:
                values["how"] = "abort"
            if venues:
                values["venue"] = venues[int(rng.integers(len(venues)))]
            # To the millisecond, so that the text says all of it.
            at_ns, for_ns = (round(s * 1000) * 1_000_000 for s in (at, lasts))
            drawn.append(Fault(kind, at_ns, for_ns, values=_different(kind, values)))
        return cls(tuple(sorted(drawn, key=lambda fault: fault.at_ns)))

    def __str__(self) -> str:
        return "; ".join(map(str, self.faults))

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)

    def __len__(self) -> int:
        return len(self.faults)

    def of(self, venue: str) -> FaultScript:
        """What strikes one venue."""
        return FaultScript(tuple(f for f in self.faults if f.venue in ("", venue) and f.kind not in CLIENT_KINDS))

    @property
    def of_client(self) -> FaultScript:
        """What the client does to itself: `FaultyClock` follows it."""
        return FaultScript(tuple(f for f in self.faults if f.kind in CLIENT_KINDS))

    @property
    def end_ns(self) -> float:
        """When the last fault is over, ns since the start of the run."""
        return max((fault.end_ns for fault in self.faults), default=0.0)


def _parse_entry(number: int, text: str) -> Fault:
    where = f"fault {number} ({text!r})"
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    kind, times, values = "", {}, {}
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if equals:
            values[name] = value
        elif word in _TIMES:
            if not words:
                raise ConfigError(f"{where}: {word!r} needs a duration after it, like 3s")
            times[word] = words.pop(0)
        elif kind:
            raise ConfigError(f"{where}: is it {kind!r} or {word!r}? options are written name=value")
        else:
            kind = word
    return _build(where, kind, times, values)


def _parse_table(number: int, table: Mapping[str, Any]) -> Fault:
    where = f"fault {number} ({dict(table)!r})"
    texts = {name: value if isinstance(value, str) else f"{value:.12g}" for name, value in table.items()}
    times = {name: texts.pop(name) for name in _TIMES if name in texts}
    return _build(where, texts.pop("kind", ""), times, texts)


def _build(where: str, kind: str, times: Mapping[str, str], texts: Mapping[str, str]) -> Fault:
    if kind not in KINDS:
        raise ConfigError(
            f"{where}: {f'there is no fault {kind!r}' if kind else 'no kind'}; there are {', '.join(KINDS)}"
        )
    spans = {}
    for name, text in times.items():
        try:
            spans[name] = parse_duration(text)
        except ConfigError as error:
            raise ConfigError(f"{where}: {name!r}: {error}") from error
        if spans[name] < 0:
            raise ConfigError(f"{where}: {name!r} must not be negative, was {text!r}")
    if "at" not in spans:
        raise ConfigError(f"{where}: when? begin with e.g. 'at 12s'")
    known, values = KINDS[kind], {}
    repeats = 0 if "every" in spans else 1
    for name, text in texts.items():
        if name == "times":
            repeats = _repeats(where, text, spans)
            continue
        if name not in known:
            raise ConfigError(f"{where}: {kind} takes {', '.join(known) or 'nothing'}, not {name!r}")
        try:
            values[name] = known[name].parse(text)
        except (ValueError, ConfigError):
            raise ConfigError(f"{where}: {name!r} must be {known[name].what}, was {text!r}") from None
    fault = Fault(
        kind,
        spans["at"],
        spans.get("for", 0),
        spans.get("every", 0),
        repeats,
        _different(kind, values),
    )
    if kind in LASTING and not fault.for_ns:
        raise ConfigError(f"{where}: {kind} lasts: add e.g. 'for 3s'")
    if kind in MESSAGE_KINDS and not fault.for_ns and not fault.is_counted:
        raise ConfigError(f"{where}: for how long? add e.g. 'for 3s', or count=1")
    if fault.every_ns and fault.for_ns > fault.every_ns:
        raise ConfigError(f"{where}: lasts longer than the {times['every']} after which it comes again")
    return fault


def _different(kind: str, values: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted((name, value) for name, value in values.items() if value != KINDS[kind][name].default))


def _repeats(where: str, text: str, spans: Mapping[str, int]) -> int:
    if "every" not in spans:
        raise ConfigError(f"{where}: 'times' goes with 'every'")
    if not text.isdigit() or math.isinf(float(text)):
        raise ConfigError(f"{where}: 'times' must be a whole number, 0 for without end, was {text!r}")
    return int(text)
