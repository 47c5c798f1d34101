"""Acknowledgements and listings: what discovery found, which topics were refused, and what to do about it."""

from __future__ import annotations

import msgspec

from volsurf.feeds import _bybit_messages as wire
from volsurf.feeds._bybit_link import Link
from volsurf.feeds._bybit_listing import read_listing
from volsurf.feeds._bybit_names import Family
from volsurf.feeds._bybit_rest import Listings
from volsurf.feeds._bybit_silence import Silence
from volsurf.feeds._bybit_topics import TIMEOUT
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import in_sentence
from volsurf.feeds.protocol import Health, InstrumentEvent

_SECOND_LOOK = 5 * SECOND
"""What a listing misses but was not due to expire is believed gone when the next one misses it too."""
_REFUSED_PAUSE = 2 * SECOND
KNOWN_COINS = "BTC, ETH, SOL, XRP and DOGE had options in 2026"


class Answers:
    """The asking side of one connection.

    Attributes:
        failure: why the connection must be opened again. fatal: why that would not help.
    """

    def __init__(self, link: Link, silence: Silence) -> None:
        self._link, self._silence = link, silence
        self.listings: Listings
        self.fatal: str | None = None
        self.clear()

    def clear(self) -> None:
        """A new socket: nothing is discovered, nothing has failed."""
        self.failure: str | None = None
        self.is_ready = False
        self._discovering = set(self._link.coins)
        self._families: dict[str, set[Family]] = {}
        self._missed: dict[str, set[int]] = {}
        self._added: list[int] = []

    def resume(self) -> None:
        """Discovered and subscribed already."""
        self._discovering.clear()
        self.is_ready = True

    def fail(self, reason: str) -> None:
        """This connection must be opened again; the first reason is the one told."""
        if self.failure is None:
            self.failure = reason

    def listed(self, coin: str, rows: list[msgspec.Raw]) -> None:
        """Take the whole listing of a coin."""
        link = self._link
        found = read_listing(rows, link.families)
        self._families[coin] = found.families
        if found.unusable:
            link.counters["listings_unusable"] += len(found.unusable)
            link.watch.report(Health.MALFORMED, f"listings not usable: {in_sentence(found.unusable, 3)}")
        mine = [i for i in found.instruments if link.catalogue.is_mine(i.symbol) and not self._is_over(i.expiry_ns)]
        named = {instrument.symbol for instrument in mine}
        gone = {
            row for name, row in link.catalogue.rows.items() if name not in named and link.catalogue.key_of(row) == coin
        }
        # A new connection quotes nothing yet: there the first listing is believed.
        twice = gone if coin in self._discovering else gone & self._missed.pop(coin, set())
        if once := gone - twice:
            self._missed[coin] = once
            self.listings.read_again([coin], _SECOND_LOOK)
        link.retire(sorted(twice))
        added = link.follow(mine, coin)
        self._discovering.discard(coin)
        if link.topics.held:
            self._added += added
            if not self._discovering:
                self._discovered()
        else:
            self._follow(added)
            link.topics.retry(list(link.topics.retrying), link.watch.elapsed)

    def acknowledged(self, message: wire.Message) -> None:
        """Take an acknowledgement of either shape, or a refusal; lets decoding errors out."""
        link = self._link
        told = bytes(message.data)
        topics = wire.decode_topics(told) if told not in (b"", b"null") else wire.Topics()
        success, failed = topics.successTopics or [], topics.failTopics or []
        answered = link.topics.answered(success, failed, link.watch.elapsed)
        if answered.refused:
            link.counters["topics_refused_once"] += len(answered.refused)
            said = f"topics refused: {in_sentence(answered.refused)}; reading the listing and asking once more"
            link.watch.report(Health.REFUSED, said)
            self.listings.read_again()
        if answered.given_up:
            link.counters["topics_refused"] += len(answered.given_up)
            link.watch.report(Health.REFUSED, f"topics refused again and given up: {in_sentence(answered.given_up)}")
        if message.success is False and not (success or failed):
            # A refusal names neither the topics nor, for certain, the command: what has no answer is asked for again.
            link.counters["commands_refused"] += 1
            too_many = "too many" in message.ret_msg.lower()
            said = f"{message.op or 'a command'}: {message.ret_msg[:200] or 'no reason given'}"
            link.watch.report(Health.RATE_LIMITED if too_many else Health.REFUSED, said)
            link.topics.hasten(link.watch.elapsed + _REFUSED_PAUSE)

    def look_after_topics(self) -> None:
        """Ask again for what was not acknowledged; give the connection up when that stays unanswered."""
        missing, failed = self._link.topics.overdue(self._link.watch.elapsed)
        if missing:
            said = f"{missing} topics were not acknowledged within {TIMEOUT // SECOND} s"
            self._link.counters["unanswered"] += 1
            self._link.watch.report(Health.NO_ACK, said)
            if failed:
                self.fail(said)

    def check_ready(self) -> None:
        """Report READY once everything that was asked first has its answer."""
        topics = self._link.topics
        if self.is_ready or self.failure is not None or self._discovering or topics.held or not topics.settled:
            return
        if self.fatal is not None:
            return
        self.is_ready = True
        missing = len(topics.refused) + len(topics.retrying) + len(topics.left_out)
        left_out = f", {missing} left out" if missing else ""
        self._link.watch.report(
            Health.READY, f"{len(self._link.catalogue.rows)} instruments, {len(topics.granted)} topics{left_out}"
        )

    def _discovered(self) -> None:
        link = self._link
        there = set().union(*self._families.values())
        missing = [family for family in link.families if family not in there]
        # "BTC" stands for what there is of Bitcoin: one family of the two is enough.
        coins = {family.base for family in there}
        told = [family for family in missing if family.base not in coins or self._is_named_alone(family)]
        if told:
            names = in_sentence(sorted(family.name for family in there)) or "nothing"
            absent = in_sentence(sorted({self._said(family, coins) for family in told}))
            said = f"Bybit lists no options of {absent}; of the coins asked for there is {names}"
            if not any(family in there for family in link.families):
                self.fatal = f"{said} ({KNOWN_COINS})"
            link.watch.report(Health.REFUSED, said)
        link.topics.held = False
        self._follow(self._added)
        self._added = []

    def _is_named_alone(self, family: Family) -> bool:
        return sum(other.base == family.base for other in self._link.families) == 1

    def _said(self, family: Family, coins: set[str]) -> str:
        return family.name if family.base in coins or self._is_named_alone(family) else family.base

    def _follow(self, added: list[int]) -> None:
        if added:
            self._link.watch.emit(InstrumentEvent(added=tuple(added)))
        self._link.subscribe_to_all()
        self._silence.expect()

    def _is_over(self, expiry_ns: int) -> bool:
        return expiry_ns <= self._link.venue_time_ns
