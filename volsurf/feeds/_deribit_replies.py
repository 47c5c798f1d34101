"""Answers to requests: listings, acknowledgements, errors, and what to do about answers that do not come."""

from __future__ import annotations

import msgspec

from volsurf.feeds import _deribit_messages as wire
from volsurf.feeds._deribit_catalogue import Key
from volsurf.feeds._deribit_channels import SUBSCRIBE, UNSUBSCRIBE
from volsurf.feeds._deribit_link import Link
from volsurf.feeds._deribit_notifications import Notifications
from volsurf.feeds._deribit_requests import TIMEOUT, Request
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import in_sentence, nanoseconds
from volsurf.feeds.protocol import Health, InstrumentEvent

LISTING = "public/get_instruments"
TOO_MANY_REQUESTS, RAW_NOT_ALLOWED, INVALID_PARAMS = 10028, 13778, -32602
_MOST_ATTEMPTS = 3
_MOST_LOOKUPS = 5
_PAUSE = 2 * SECOND
_DOUBT_EVERY = 10 * SECOND
_DOUBT_AGAIN = 60 * SECOND
_CREDIT_WAIT = 5 * SECOND
"""After 10028: the pool of 30000 credits is full again after 3 s."""


class Replies:
    """The request side of one connection.

    Attributes:
        failure: why the connection must be opened again. fatal: why that would not help.
        not_before: no new connection before this time, ns UTC.
    """

    def __init__(self, link: Link, notifications: Notifications) -> None:
        self._link = link
        self._notifications = notifications
        self.not_before = 0
        self.fatal: str | None = None
        self.clear()

    def clear(self) -> None:
        """A new socket: nothing is discovered, nothing has failed."""
        self.failure: str | None = None
        self.is_ready = False
        self._discovering: set[Key] = set(self._link.catalogue.keys)
        self._looking_up: set[Key] = set()
        self._lookups: dict[Key, int] = {}
        self._lookup_at: dict[Key, int] = {}
        self._doubt_at = 0
        self._probing = False
        self._overhears = False
        self._link.channels.held = True

    def fail(self, reason: str) -> None:
        """This connection must be opened again; the first reason is the one told."""
        if self.failure is None:
            self.failure = reason

    def too_slow(self) -> None:
        """The venue cut us off for reading too slowly."""
        self._link.counters["connection_too_slow"] += 1
        detail = "Deribit cut the connection: it was read too slowly; use more shards, or interval 'agg2'"
        self._link.watch.report(Health.TOO_SLOW, detail)

    def probe(self) -> None:
        """Ask whether the link lives; its silence is then a failure."""
        if not self._probing:
            self._probing = True
            self._link.requests.submit(Request("public/test", {}, "probe"))

    def ask_listing(self, key: Key, *, complete: bool = False) -> None:
        """Ask what is listed under a currency. One at a time for each: a burst of new listings is one question."""
        if not complete:
            if key in self._looking_up or key in self._discovering:
                return
            self._looking_up.add(key)
        params = {"currency": key[0], "kind": key[1], "expired": False}
        self._link.requests.submit(Request(LISTING, params, "complete" if complete else "lookup"))

    def look_up_announced(self) -> None:
        """Ask for the listings of what was announced since the last call."""
        for key, names in self._notifications.announced.items():
            if names and self._link.watch.elapsed >= self._lookup_at.get(key, 0):
                self.ask_listing(key)

    def look_up_doubted(self) -> None:
        """Read the listings of options nothing is said of any more, though of others it is: they may have left without a word."""
        elapsed = self._link.watch.elapsed
        if elapsed < self._doubt_at or not self.is_ready:
            return
        self._doubt_at = elapsed + _DOUBT_EVERY
        keys = {self._link.catalogue.key_of(row) for row in self._link.doubted()}
        for key in [key for key in self._link.catalogue.keys if key in keys]:
            self._doubt_at = elapsed + _DOUBT_AGAIN
            self._link.counters["listings_doubted"] += 1
            params = {"currency": key[0], "kind": key[1], "expired": False}
            self._link.requests.submit(Request(LISTING, params, "doubt"))

    def take(self, message: wire.Message) -> None:
        """Take one reply; lets decoding errors out."""
        link = self._link
        request = link.requests.answered(message.id)
        self._link.venue_time_ns = nanoseconds(message.usOut / 1000) or self._link.venue_time_ns
        if message.error is not None:
            self._error(request, message.error)
        elif request is None:
            link.counters["replies_unclaimed"] += 1
            if self._overhears:
                self._overhear(message)
        elif request.purpose == "probe":
            self._probing = False
        else:
            try:
                if request.method == LISTING:
                    self._listing(request, wire.decode_rows(message.result))
                elif request.method == SUBSCRIBE:
                    self._acknowledged(request, wire.decode_channels(message.result))
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._ask_again_or_fail(request, f"{request.method} was answered with something else than a list")
                raise

    def unanswered(self, request: Request) -> None:
        """No answer came in time: ask once more, then give the connection up."""
        seconds = TIMEOUT // SECOND
        said = f"{request.method} was not answered within {seconds} s"
        self._link.counters["unanswered"] += 1
        self._link.watch.report(Health.NO_ACK, said)
        if request.purpose == "probe" or request.attempt >= 2:
            self.fail(said)
        else:
            self._again(request)

    def check_ready(self) -> None:
        """Report READY once everything that was asked first has its answer."""
        if self.is_ready or self.failure is not None or self._discovering or not self._link.channels.settled:
            return
        self.is_ready = True
        channels = self._link.channels
        missing = len(channels.refused) + len(channels.retrying)
        left_out = f", {missing} left out" if missing else ""
        self._link.watch.report(
            Health.READY,
            f"{len(self._link.catalogue.rows)} instruments, {len(channels.granted)} channels{left_out}",
        )

    def resume(self) -> None:
        """Everything that the catalogue follows was subscribed to and acknowledged; what others asked for is overheard."""
        link = self._link
        self._discovering.clear()
        self._want_channels()
        link.channels.want(link.common_channels(), None, link.watch.elapsed)
        link.channels.assume()
        link.channels.held = False
        link.requests.mute()
        link.note_expiries()
        self._overhears = True
        self.check_ready()

    def _overhear(self, message: wire.Message) -> None:
        """An answer to what this connection asked before it was resumed: only a listing says anything new."""
        try:
            rows = wire.decode_rows(message.result)
            names = [wire.decode_listing(row).instrument_name for row in rows]
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        concerned = (self._link.catalogue.concerns(name, any_shard=True) for name in names)
        if (key := next(filter(None, concerned), None)) is not None:
            self._listing(Request(LISTING, {"currency": key[0], "kind": key[1]}, "lookup"), rows)

    def _want_channels(self) -> None:
        """Subscribe to what is followed and has no channels yet."""
        link = self._link
        elapsed = link.watch.elapsed
        for row in link.catalogue.rows.values():
            if (channels := link.channels_of(row))[0] not in link.channels.owner:
                link.channels.want(channels, row, elapsed)
        for name in link.catalogue.index_rows:
            if (channels := link.index_channels(name))[0] not in link.channels.owner:
                link.channels.want(channels, None, elapsed)
                link.expect_index(name)

    def _again(self, request: Request, pause: int = 0) -> None:
        not_before = self._link.watch.elapsed + pause
        self._link.requests.submit(request._replace(attempt=request.attempt + 1), not_before)

    def _ask_again_or_fail(self, request: Request, why: str, pause: int = 0) -> None:
        if request.attempt < _MOST_ATTEMPTS:
            self._again(request, pause)
        else:
            self.fail(why)

    def _listing(self, request: Request, rows: list[msgspec.Raw]) -> None:
        link = self._link
        key: Key = (request.params["currency"], request.params["kind"])
        complete = request.purpose == "complete"
        self._discovering.discard(key)
        self._looking_up.discard(key)
        doubt = request.purpose == "doubt"
        change = link.catalogue.take_listing(key, rows, link.venue_time_ns, complete=complete or doubt)
        for sample in change.unusable:
            link.watch.malformed("listing", sample.encode("utf-8", "replace"))
        # What was listed a moment ago may be missing from the venue's cache: doubted is only what is silent.
        retired = sorted(link.doubted().intersection(change.retired)) if doubt else change.retired
        if doubt and retired:
            names = in_sentence([link.catalogue.universe[row].symbol for row in retired], 3)
            link.watch.report(Health.STALE, f"silent, and listed no more without a word: {names}")
        link.retire(retired)
        if change.added:
            link.watch.emit(InstrumentEvent(added=tuple(change.added)))
        self._want_channels()
        self._retry_left_out(key, change.listed)
        self._check_announced(key)
        link.note_expiries()
        self._notifications.update_halted()
        if complete and not self._discovering:
            self._discovered()

    def _discovered(self) -> None:
        link = self._link
        listed = in_sentence(sorted(link.catalogue.listed_markets), 20)
        missing = link.catalogue.missing_markets
        sentence = f"Deribit lists no options of {', '.join(missing)}; there is {listed or 'nothing at all now'}"
        if missing:
            link.watch.report(Health.REFUSED, sentence)
        if not link.catalogue.rows:
            # With an empty answer of the venue, asking again later may help; with one that names others, it cannot.
            self.fatal = sentence if missing and listed else None
            self.fail("nothing that was asked for is listed")
            return
        link.channels.want(link.common_channels(), None, link.watch.elapsed)
        link.channels.held = False
        link.channels.flush(link.watch.elapsed, now=True)

    def _retry_left_out(self, key: Key, listed: set[str]) -> None:
        link = self._link
        rows = {row for channel in link.channels.retrying if (row := link.channels.owner[channel]) is not None}
        rows = {row for row in rows if link.catalogue.key_of(row) == key}
        link.retire([row for row in rows if link.catalogue.universe[row].symbol not in listed])
        again = [channel for channel in link.channels.retrying if link.channels.owner[channel] in rows]
        link.channels.retry(again, link.watch.elapsed)

    def _check_announced(self, key: Key) -> None:
        # The answer may come from a cache older than the announcement, so a few more look-ups follow, each a second later.
        names = self._notifications.announced.get(key)
        if not names:
            return
        names.difference_update(self._link.catalogue.rows)
        self._lookups[key] = self._lookups.get(key, 0) + 1
        self._lookup_at[key] = self._link.watch.elapsed + self._lookups[key] * SECOND
        if names and self._lookups[key] >= _MOST_LOOKUPS:
            self._link.watch.report(Health.REFUSED, f"announced but not listed: {in_sentence(sorted(names))}")
            names.clear()
        if not names:
            self._lookups[key] = 0

    def _acknowledged(self, request: Request, granted: list[str]) -> None:
        link = self._link
        first, again = link.channels.acknowledged(request.channels, granted)
        if first:
            link.counters["channels_left_out"] += len(first)
            link.watch.report(
                Health.REFUSED, f"left out of the acknowledgement: {in_sentence(first)}; asking once more"
            )
            rows = [row for channel in first if (row := link.channels.owner[channel]) is not None]
            # In their order: a replay must number its requests as the live connection did.
            for key in dict.fromkeys(key for row in rows if (key := link.catalogue.key_of(row)) is not None):
                self.ask_listing(key)
            common = [channel for channel in first if link.channels.owner[channel] is None]
            link.channels.retry(common, link.watch.elapsed)
        if again:
            link.counters["channels_refused"] += len(again)
            link.watch.report(Health.REFUSED, f"left out again and given up: {in_sentence(again)}")
            for name in link.catalogue.index_rows:
                if link.index_channels(name)[0] in again:
                    link.watch.forget(name)

    def _error(self, request: Request | None, error: wire.ErrorBody) -> None:
        link = self._link
        method = request.method if request is not None else "a request"
        said = f"{method}: {error.message[:200]} ({error.code:.6g}) {bytes(error.data)[:120].decode('utf-8', 'replace')}".rstrip()
        known = -100_000 < error.code < 100_000
        link.counters[f"errors.{error.code:.0f}" if known else "errors.other"] += 1
        if error.code == TOO_MANY_REQUESTS or "too_many_requests" in error.message:
            link.watch.report(Health.RATE_LIMITED, said)
            self.not_before = link.watch.now + _CREDIT_WAIT
            self.fail(said)
            return
        if "connection_too_slow" in error.message:
            self.too_slow()
            self.fail("connection_too_slow")
            return
        link.watch.report(Health.REFUSED, said)
        if request is None or request.method == UNSUBSCRIBE:
            return
        if error.code == RAW_NOT_ALLOWED and request.method == SUBSCRIBE and self._link.interval == "raw":
            self._fall_back()
        elif request.method == "public/test":
            self._probing = False  # an error is an answer
        elif request.method == "public/set_heartbeat":
            link.no_heartbeats()
        elif error.code == INVALID_PARAMS or error.code == RAW_NOT_ALLOWED:
            self._refused(request)
        else:
            self._ask_again_or_fail(request, said, _PAUSE)

    def _refused(self, request: Request) -> None:
        if request.method == SUBSCRIBE:
            self._acknowledged(request, [])
        elif request.method == LISTING:
            key: Key = (request.params["currency"], request.params["kind"])
            self._looking_up.discard(key)
            if key in self._discovering:
                self._discovering.discard(key)
                if not self._discovering:
                    self._discovered()

    def _fall_back(self) -> None:
        # The whole message was refused, and the next ones will be: subscribe to everything again at the finest open interval.
        link = self._link
        elapsed = link.watch.elapsed
        rows = list(link.catalogue.rows.values())
        for row in rows:
            link.channels.drop(self._link.channels_of(row), elapsed)
        self._link.interval = "100ms"
        for row in rows:
            link.channels.want(self._link.channels_of(row), row, elapsed)
        common = [channel for channel, owner in link.channels.owner.items() if owner is None]
        link.channels.want(common, None, elapsed)
