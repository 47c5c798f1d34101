"""What OKX lists, asked over HTTP: ticks of all option families, then options, futures and swaps of each underlying wanted."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from volsurf.feeds import _okx_messages as wire
from volsurf.feeds._lanes import Lane
from volsurf.feeds._okx_link import Key, Link
from volsurf.feeds._okx_listing import KINDS, bands_of
from volsurf.feeds._okx_names import Family, parse_family
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import in_sentence, malformed_cause
from volsurf.feeds.protocol import Health, HttpRequest

INSTRUMENTS_PAGE = "/api/v5/public/instruments"
BANDS_PAGE = "/api/v5/public/instrument-tick-bands"
TIMEOUT = 15 * SECOND
BURST, INTERVAL = 10, SECOND // 10
"""20 requests in two seconds and address are allowed."""
TOO_MANY = ("50011", "50061")
MAINTENANCE_CODES = ("50001", "50013")
_MOST_ATTEMPTS = 3
_MOST_LOOKUPS = 5
_PAUSE = 2 * SECOND
_RATE_PAUSE = 3 * SECOND
SUMMARY_SILENCE = 30 * SECOND
"""An option that `opt-summary` leaves out for so long may be listed no more."""
_OPENING_GRACE = 10 * SECOND
"""Options go live a little after their `listTime`."""


class Ask(NamedTuple):
    """One question. `key` is None for the ticks."""

    key: Key | None
    whole: bool = True
    """The answer says what has ended. A look-up of something new does not: it may come from a cache."""
    attempt: int = 1
    not_before: int = 0


class Discovery:
    """The HTTP side of one connection.

    Args:
        base: address of the pages, without a slash at the end. share: of the limits per address this connection may use.
        demo: ask for the demo's listing, which the same pages give.

    Attributes:
        failure: why the connection must be opened again. fatal: why that would not help. not_before: no new connection before
        this time, ns UTC.
    """

    def __init__(self, link: Link, base: str, share: float, *, demo: bool = False) -> None:
        self._link, self._base, self._share = link, base, share
        self._headers = (("x-simulated-trading", "1"),) if demo else ()
        self._number = 0
        self.not_before = 0
        self.fatal: str | None = None
        self.clear()

    def clear(self) -> None:
        """A new socket: nothing is discovered."""
        self.failure: str | None = None
        self.is_done = False
        self._open: set[Key | None] = set()
        self._waiting: list[Ask] = []
        self._made: list[HttpRequest] = []
        self._lane: Lane[Ask] = Lane(BURST * self._share, INTERVAL / self._share, self._link.watch.elapsed)
        self._pending: dict[str, tuple[Ask, int]] = {}
        self._lookups: dict[Key, int] = {}
        self._lookup_at: dict[Key, int] = {}
        self._doubt_at = 0
        self._doubted_at: dict[Key, int] = {}

    def begin(self) -> None:
        """Ask for everything."""
        self._open.add(None)
        self._submit(Ask(None))

    def resume(self) -> None:
        """As if everything had been answered."""
        self.is_done = True

    def fail(self, reason: str) -> None:
        """This connection must be opened again; the first reason is the one told."""
        if self.failure is None:
            self.failure = reason

    def look_up(self, key: Key) -> None:
        """Read a listing again. One at a time for each: a burst of new listings is one question."""
        asked = [ask.key for ask in (*self._waiting, *self._lane.waiting, *(ask for ask, _ in self._pending.values()))]
        if key not in asked:
            self._submit(Ask(key, whole=False))

    def look_up_announced(self) -> None:
        """Read the listings of what should be traded by now and was not said to be."""
        link = self._link
        certain = min(link.watch.now, link.venue_time_ns) - _OPENING_GRACE
        late: dict[Key, list[str]] = {}
        for name, (key, opens_ns) in link.announced.items():
            if opens_ns < certain:
                late.setdefault(key, []).append(name)
        for key, names in late.items():
            if link.watch.elapsed < self._lookup_at.get(key, 0):
                continue
            count = self._lookups[key] = self._lookups.get(key, 0) + 1
            self._lookup_at[key] = link.watch.elapsed + count * _OPENING_GRACE
            if count <= _MOST_LOOKUPS:
                self.look_up(key)
            else:
                link.watch.report(Health.REFUSED, f"announced and never opened: {in_sentence(sorted(names))}")
                for name in names:
                    del link.announced[name]
                self._lookups[key] = 0

    def look_up_doubted(self) -> None:
        """Read the listings of options nothing is said of any more, though of others of their family it is."""
        link = self._link
        if link.watch.elapsed < self._doubt_at:
            return
        self._doubt_at = link.watch.elapsed + SUMMARY_SILENCE // 3
        for key in sorted(link.doubt(link.watch.now - SUMMARY_SILENCE)):
            if link.watch.elapsed >= self._doubted_at.get(key, 0):
                self._doubted_at[key] = link.watch.elapsed + 2 * SUMMARY_SILENCE
                link.counters["listings_doubted"] += 1
                self.look_up(key)

    def pump(self) -> None:
        """Make the requests whose time has come."""
        elapsed = self._link.watch.elapsed
        for ask in [ask for ask in self._waiting if ask.not_before <= elapsed]:
            self._waiting.remove(ask)
            self._lane.waiting.append(ask)
        while (next_ask := self._lane.take(elapsed)) is not None:
            self._number += 1
            key = f"okx-{self._number}"
            self._pending[key] = next_ask, elapsed + TIMEOUT
            self._made.append(HttpRequest("GET", self._base + _page(next_ask), key, headers=self._headers))

    def take_requests(self) -> list[HttpRequest]:
        """Requests to make now."""
        made, self._made = self._made, []
        return made

    def take(self, number: str, status: int, body: bytes) -> None:
        """Take one answer."""
        pending = self._pending.pop(number, None)
        if pending is None:
            self._link.counters["replies_unclaimed"] += 1
            return
        ask = pending[0]
        try:
            answer = wire.decode_answer(body) if body[:1] == b"{" else wire.Answer()
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._link.watch.malformed(malformed_cause(error), body)
            answer = wire.Answer()
        code = str(answer.code)
        said = f"{_page(ask)} was answered with {_words(status, code, answer.msg, body)}"
        if status == 200 and code == "0":
            self._answered(ask, answer)
            return
        self._link.counters[f"http_errors.{status if 100 <= status < 600 else 0}"] += 1
        if status == 429 or code in TOO_MANY:
            self._link.watch.report(Health.RATE_LIMITED, said)
            self.not_before = self._link.watch.now + _RATE_PAUSE
            self._again(ask, said, _RATE_PAUSE)
        elif code.startswith("51"):
            # The venue understood and there is no such thing.
            self._link.watch.report(Health.REFUSED, said)
            self._close(ask)
        else:
            kind = Health.MAINTENANCE if status == 503 or code in MAINTENANCE_CODES else Health.REFUSED
            self._link.watch.report(kind, said)
            self._again(ask, said, _PAUSE * ask.attempt)

    def give_up_overdue(self) -> None:
        """Ask again for what was not answered in time."""
        elapsed = self._link.watch.elapsed
        for number in [number for number, (_, deadline) in self._pending.items() if deadline <= elapsed]:
            ask, _ = self._pending.pop(number)
            said = f"{_page(ask)} was not answered within {TIMEOUT // SECOND} s"
            self._link.counters["unanswered"] += 1
            self._link.watch.report(Health.NO_ACK, said)
            self._again(ask, said, 0)

    def next_deadline(self, elapsed: int) -> int | None:
        """When `pump` or `give_up_overdue` has something to do."""
        times = [deadline for _, deadline in self._pending.values()]
        times += [ask.not_before for ask in self._waiting]
        ready = self._lane.next_ready(elapsed)
        return min([*times, *([] if ready is None else [ready])], default=None)

    def _submit(self, ask: Ask) -> None:
        self._waiting.append(ask)

    def _again(self, ask: Ask, why: str, pause: int) -> None:
        if ask.attempt < _MOST_ATTEMPTS:
            not_before = self._link.watch.elapsed + pause
            self._submit(ask._replace(attempt=ask.attempt + 1, not_before=not_before))
        elif ask.key is None or not ask.whole:
            # Without the bands there is still the lowest tick, and a look-up may fail.
            self._close(ask)
        else:
            self.fail(why)

    def _answered(self, ask: Ask, answer: wire.Answer) -> None:
        try:
            rows = wire.decode_rows(answer.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._link.watch.malformed(malformed_cause(error), bytes(answer.data))
            self._again(ask, f"{_page(ask)} was answered with something else than a list", _PAUSE)
            return
        if ask.key is None:
            self._take_bands(rows)
        else:
            names = self._link.take_rows(rows, whole=ask.key if ask.whole else None)
            self._link.retry(ask.key, names)
        self._close(ask)

    def _take_bands(self, rows: list[msgspec.Raw]) -> None:
        link = self._link
        for raw in rows:
            try:
                row = wire.decode_bands(raw)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                link.watch.malformed("bands", bytes(raw))
                continue
            bands = bands_of(row)
            if bands is None:
                link.watch.malformed("bands", bytes(raw))
            else:
                link.bands[row.instFamily] = bands

    def _close(self, ask: Ask) -> None:
        if ask.key not in self._open:
            return
        self._open.discard(ask.key)
        if ask.key is None:
            # The ticks come first: they are part of the instruments, and they name families nobody would think to ask for.
            for uly in dict.fromkeys((*(wanted.uly for wanted in self._link.wanted), *self._other_ulys())):
                for kind in KINDS:
                    self._open.add((kind, uly))
                    self._submit(Ask((kind, uly)))
        if not self._open and not self.is_done:
            self._finish()

    def _other_ulys(self) -> list[str]:
        families = [family for name in self._link.bands if (family := parse_family(name)) is not None]
        return [family.uly for family in families if self._link.wants(family)]

    def _finish(self) -> None:
        link = self._link
        listed = link.listed | {family for name in link.bands if (family := parse_family(name)) is not None}
        missing = [wanted.name for wanted in link.wanted if not any(wanted.holds(family) for family in link.listed)]
        there_is = in_sentence(sorted(_as_asked(family) for family in listed), 20)
        sentence = f"OKX lists no options of {', '.join(missing)}; there is {there_is or 'nothing at all now'}"
        if missing:
            link.watch.report(Health.REFUSED, sentence)
        if len(missing) == len(link.wanted):
            # With an empty answer of the venue, asking again later may help; with one that names others, it cannot.
            self.fatal = sentence if listed else None
            self.fail("nothing that was asked for is listed")
            return
        self.is_done = True
        link.want_common()
        link.channels.held = False
        link.channels.flush(link.watch.elapsed, now=True)


def _page(ask: Ask) -> str:
    if ask.key is None:
        return f"{BANDS_PAGE}?{urlencode({'instType': 'OPTION'})}"
    kind, uly = ask.key
    return f"{INSTRUMENTS_PAGE}?{urlencode({'instType': kind, 'uly': uly})}"


def _as_asked(family: Family) -> str:
    return f"{family.base}_{family.quote}"


def _words(status: int, code: str, message: str, body: bytes) -> str:
    if status == 0:
        return f"nothing: {body[:200].decode('utf-8', 'replace')}"
    if code not in ("", "0"):
        return f"{code}: {message[:200]}"
    return f"HTTP {status} {body[:80].decode('utf-8', 'replace')!r}"
