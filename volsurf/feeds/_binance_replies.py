"""Answers to what was asked: acknowledgements and errors on the socket, pages over HTTP, and what to do where none comes."""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

from volsurf.feeds import _binance_messages as wire
from volsurf.feeds._binance_books import KEY as DEPTH
from volsurf.feeds._binance_link import Link
from volsurf.feeds._binance_listing import in_sentence, read_listing
from volsurf.feeds._binance_requests import HTTP_TIMEOUT, LIST, SUBSCRIBE, TIMEOUT, Page, Request
from volsurf.feeds._watch import SECOND
from volsurf.feeds.protocol import Health

LISTING, INDEX = "listing", "index:"
TOO_MANY, BANNED, FIREWALL = 429, 418, 403
_BACK_OFF = 60 * SECOND
"""After 429: the minute that weights are counted in."""
_SHORTEST_BAN = 120 * SECOND
_LONGEST_BAN = 3 * 86_400 * SECOND
_UNTIL = re.compile(r"banned until (\d{13})")
_LONGEST_PAUSE = 30 * SECOND
_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)


class Listener(Protocol):
    """What a route wants to hear of answers."""

    def granted(self, streams: tuple[str, ...]) -> None:
        """Streams were acknowledged."""

    def snapshot(self, symbol: str, body: bytes) -> None:
        """The snapshot of a book came; lets decoding errors out."""

    def no_snapshot(self, symbol: str) -> None:
        """The snapshot of a book could not be had."""


class Replies:
    """The request side of one connection.

    Attributes:
        failure: why the connection must be opened again. not_before: no new connection before this time, ns UTC.
        trouble: what cannot be had for now, in words.
    """

    def __init__(self, link: Link, listener: Listener) -> None:
        self._link, self._listener = link, listener
        self.not_before = 0
        self.clear()

    def clear(self) -> None:
        """A new socket: nothing has failed."""
        self.failure: str | None = None
        self.trouble = ""
        self._probing = False

    def fail(self, reason: str) -> None:
        """This connection must be opened again; the first reason is the one told."""
        if self.failure is None:
            self.failure = reason

    def probe(self) -> None:
        """Ask whether the link lives; its silence is then a failure."""
        if not self._probing:
            self._probing = True
            self._link.requests.submit(Request(LIST))

    def take(self, message: wire.Message) -> None:
        """Take one reply on the socket."""
        link = self._link
        error = message.error
        if error is None and message.code is not None:
            error = wire.ErrorBody(message.code, message.msg)
        request = link.requests.answered(message.id)
        if error is not None:
            self._error(request, error)
        elif request is None:
            link.counters["replies_unclaimed"] += 1
        elif request.method == LIST:
            self._probing = False
        elif request.method == SUBSCRIBE:
            streams = tuple(stream for stream in request.streams if stream in link.asked)
            link.granted.update(streams)
            self._listener.granted(streams)

    def unanswered(self, request: Request) -> None:
        """No answer came in time: ask once more, then give the connection up."""
        said = f"{request.method} was not answered within {TIMEOUT // SECOND} s"
        self._link.counters["unanswered"] += 1
        self._link.watch.report(Health.NO_ACK, said)
        if request.method == LIST or request.attempt >= 2:
            self.fail(said)
        else:
            self._link.requests.submit(request._replace(attempt=request.attempt + 1))

    def _error(self, request: Request | None, error: wire.ErrorBody) -> None:
        link = self._link
        known = -100_000 < error.code < 100_000
        link.counters[f"errors.{error.code}" if known else "errors.other"] += 1
        method = request.method if request is not None else "a request"
        said = f"{method}: {error.msg[:200]} ({error.code if known else 'other'})"
        if is_rate_limit(error.code, error.msg):
            link.watch.report(Health.RATE_LIMITED, said)
            self.not_before = link.watch.now + _BACK_OFF
            self.fail(said)
        elif request is not None and request.method == LIST:
            self._probing = False  # an error is an answer
        elif request is None or request.method != SUBSCRIBE:
            link.watch.report(Health.REFUSED, said)
        elif len(request.streams) > 1:
            # One of them is not to be had, and the message does not say which.
            if not request.is_part:
                link.watch.report(Health.REFUSED, f"{len(request.streams)} streams: {said}; asking for fewer at once")
            half = len(request.streams) // 2
            for part in (request.streams[:half], request.streams[half:]):
                link.requests.submit(Request(SUBSCRIBE, part, is_part=True))
        elif request.attempt < 2:
            link.requests.submit(request._replace(attempt=2))
        else:
            link.refused.update(request.streams)
            link.watch.report(Health.REFUSED, f"{in_sentence(request.streams)} is refused: {said}")
            for stream in request.streams:
                link.watch.forget(stream)

    # Pages

    def read_listings(self) -> None:
        """Ask for what is listed, and first, where somebody needs it, for the money it is listed around."""
        group = self._link.group
        if group.publics:
            guessed = [f"{family.base}{family.quote or 'USDT'}" for family in group.families]
            pairs = list(group.indexes) or guessed
            for pair in pairs:
                if pair not in group.spot:
                    self._link.rest.submit(Page(INDEX + pair, f"/eapi/v1/index?underlying={pair}"))
        self._link.rest.submit(Page(LISTING, "/eapi/v1/exchangeInfo"))

    def take_page(self, key: str, status: int, body: bytes) -> None:
        """Take the answer to an HTTP request. Never raises on a bad one."""
        link = self._link
        page = link.rest.answered(key)
        if page is None:
            link.counters["pages_unclaimed"] += 1
        elif status == 200:
            try:
                self._page(page, body)
                link.counters["pages"] += 1
            except _ERRORS as error:
                link.watch.malformed(wire.malformed_cause(error), body)
                self._ask_again(page, "it was not what it should be")
        else:
            self._no_page(page, status, body)

    def page_overdue(self, page: Page) -> None:
        """No answer came, not even one that there is none."""
        self._link.watch.report(Health.NO_ACK, f"{page.path} was not answered within {HTTP_TIMEOUT // SECOND} s")
        self._ask_again(page, "no answer")

    def _page(self, page: Page, body: bytes) -> None:
        link = self._link
        if page.key == LISTING:
            info = wire.decode_exchange_info(body)
            venue_ns = wire.nanoseconds(info.serverTime)
            link.note_venue_time(venue_ns)
            listed = read_listing(info, link.group.families, venue_ns)
            for sample in listed.unusable:
                link.watch.malformed("listing", sample.encode("utf-8", "replace"))
            first = not link.group.discovered
            link.counters["listings_read"] += 1
            link.group.take_listing(listed)
            self.trouble = ""
            if first:
                self._tell_missing()
        elif page.key.startswith(INDEX):
            price = wire.decode_index_price(body).indexPrice
            if 0 < price < float("inf"):
                link.group.set_spot(page.key.removeprefix(INDEX), price)
        elif page.key.startswith(DEPTH):
            self._listener.snapshot(page.key.removeprefix(DEPTH), body)

    def _tell_missing(self) -> None:
        group = self._link.group
        if sentence := missing_sentence(group.families_listed, [family.name for family in group.missing]):
            self._link.watch.report(Health.REFUSED, sentence)

    def _no_page(self, page: Page, status: int, body: bytes) -> None:
        link = self._link
        try:
            said = wire.decode_rest_error(body)
            text = f"{said.msg[:200]} ({said.code})"
        except _ERRORS:
            text = body[:120].decode("utf-8", "replace")
        link.counters[f"http.{status}" if 0 <= status < 600 else "http.other"] += 1
        sentence = f"{page.path.partition('?')[0]}: {status or 'no answer'}: {text}"
        if status in (TOO_MANY, BANNED, FIREWALL):
            pause = self._ban(text) if status == BANNED else max(_BACK_OFF, self._ban(text, 0))
            link.watch.report(Health.RATE_LIMITED, sentence)
            link.rest.hold(link.watch.now, pause)
            self.not_before = max(self.not_before, link.watch.now + pause)
            self.trouble = f"Binance admits no requests for {pause // SECOND} s"
            link.rest.submit(page._replace(not_before=link.watch.elapsed + pause))
        elif status == 400 and page.key.startswith(INDEX):
            pass  # asked for by a name that was only guessed: the listings will tell
        elif status == 400 and page.key.startswith(DEPTH):
            # No such symbol: it went since the listings were read.
            link.watch.report(Health.REFUSED, sentence)
            link.listing_wanted = True
        else:
            kind = Health.MAINTENANCE if status == 503 else Health.NO_ACK if status == 0 else Health.REFUSED
            link.watch.report(kind, sentence)
            self._ask_again(page, sentence)

    def _ask_again(self, page: Page, why: str) -> None:
        link = self._link
        pause = min(_LONGEST_PAUSE, SECOND << min(page.attempt - 1, 5))
        if page.key == LISTING:
            self.trouble = f"the listings cannot be read: {why}"
        if page.key.startswith(DEPTH):
            self._listener.no_snapshot(page.key.removeprefix(DEPTH))
        else:
            link.rest.submit(page._replace(attempt=page.attempt + 1, not_before=link.watch.elapsed + pause))

    def _ban(self, text: str, shortest: int = _SHORTEST_BAN) -> int:
        match = _UNTIL.search(text)
        told = int(match[1]) * 1_000_000 - self._link.watch.now if match else 0
        return max(shortest, min(told, _LONGEST_BAN))


def is_rate_limit(code: int, text: str) -> bool:
    """Whether an error, or the reason of a close, says that too much was asked."""
    return code in (-1003, TOO_MANY) or "too many" in text.lower()


def missing_sentence(listed: set[str], missing: list[str]) -> str:
    """What was asked for in vain and what there is; "" where nothing is missing."""
    if not missing:
        return ""
    there = in_sentence(sorted(listed), 20) or "nothing at all now"
    return f"Binance lists no options of {', '.join(missing)}; there is {there}"
