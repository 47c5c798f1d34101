"""Topics that are acknowledged and say nothing.

Bybit acknowledges topics that it never serves (`orderbook.50.…` on the option socket, for one), so an acknowledgement proves
nothing: every ticker and book begins with a snapshot, and one that does not come is asked for once more and then given up by
name. A ticker that has come is followed by others at every move of its forward; one that stops is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable

from volsurf.feeds._bybit_link import Link
from volsurf.feeds._watch import SECOND
from volsurf.feeds._wire import in_sentence
from volsurf.feeds.protocol import Health

FIRST_WORD = 15 * SECOND
"""From the acknowledgement to the snapshot."""
QUIET = 300 * SECOND
"""A ticker without a word for so long may be lost; a new subscription brings a whole one at once and harms nothing."""
COIN_SILENT = 10 * SECOND
COIN_LOST = 60 * SECOND
"""Silence of every ticker of a coin on a link that answers: the subscriptions are gone, so the connection is made anew."""
EXPIRY_SILENT = 20 * SECOND
"""All options of an expiry hang on one forward, which moves many times a second: silent together, they are gone or stuck."""
_LOOK_EVERY = 5 * SECOND


def tickers_of(coin: str) -> str:
    """What the silence of a coin goes by."""
    return f"tickers of {coin}"


class Silence:
    """When each topic of a connection was last heard of, in elapsed time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.silent: set[str] = set()
        """Acknowledged twice and never heard."""
        self._heard: dict[str, int] = {}
        self._restarted: set[str] = set()
        self._look_at = 0
        self._noted_at = 0
        self._silent_expiries: set[str] = set()

    def clear(self) -> None:
        """A new socket: nothing has been heard."""
        self.silent.clear()
        self._silent_expiries.clear()
        self._heard.clear()
        self._restarted.clear()
        self._look_at = self._link.watch.elapsed + _LOOK_EVERY

    def resume(self, topics: Iterable[str]) -> None:
        """These have been heard already."""
        self._heard.update(dict.fromkeys(topics, self._link.watch.elapsed))

    def expect(self) -> None:
        """Count the silence of every coin from here of which an instrument is followed; of no other."""
        watch, universe = self._link.watch, self._link.catalogue.universe
        followed = {universe[row].underlying for row in self._link.catalogue.rows.values()}
        for coin in self._link.coins:
            name = tickers_of(coin)
            if coin not in followed:
                watch.forget(name)
            elif name not in watch.silences:
                watch.expect(name, COIN_SILENT, name + " silent for {silence} s; they come ten times a second")

    @property
    def lost(self) -> str | None:
        """A coin silent for so long that its subscriptions must be doubted."""
        watch = self._link.watch
        return next((coin for coin in self._link.coins if watch.silence_of(tickers_of(coin)) > COIN_LOST), None)

    @property
    def trouble(self) -> str:
        """Topics that are acknowledged and silent, in words; "" where there are none."""
        parts = []
        if self.silent:
            parts.append(f"{len(self.silent)} topics acknowledged but silent: {in_sentence(sorted(self.silent), 3)}")
        if self._silent_expiries:
            parts.append(f"no ticker of any option of {in_sentence(sorted(self._silent_expiries), 3)}")
        return "; ".join(parts)

    def note(self, tickers: dict[bytes, int], books: set[str]) -> None:
        """Learn what was heard since the last call.

        Args:
            tickers: topic → when a message last came, ns UTC. books: topics heard since the last call.
        """
        watch, coins = self._link.watch, set()
        # After a step back of the clock every time is in the future: then all count as heard, once.
        since, self._noted_at = self._noted_at, watch.now
        for topic, at in tickers.items():
            if at >= since:
                name = topic.decode("ascii", "replace")
                self._heard[name] = watch.elapsed
                coins.add(name[8 : name.find("-")])
        elapsed = watch.elapsed
        self._heard.update(dict.fromkeys(books, elapsed))
        for coin in coins:
            self._link.watch.heard_of(tickers_of(coin))
        if self.silent:
            again = sorted(topic for topic in self.silent if topic in self._heard)
            self.silent.difference_update(again)
            if again:
                self._link.watch.report(Health.RECOVERED, f"no longer silent: {in_sentence(again)}")

    def look(self) -> list[str]:
        """Ask again for what is silent, and give up what stays so; coins whose listing may have changed unheard."""
        link, elapsed = self._link, self._link.watch.elapsed
        if elapsed < self._look_at:
            return []
        self._look_at = elapsed + _LOOK_EVERY
        self._heard = {topic: at for topic, at in self._heard.items() if topic in link.topics.owner}
        self.silent.intersection_update(link.topics.owner)
        never, quiet = [], []
        for topic, granted in link.topics.granted.items():
            heard = self._heard.get(topic)
            if link.topics.owner.get(topic) is None or topic in self.silent:
                continue  # trades have no cadence
            if heard is None and elapsed - granted > FIRST_WORD:
                never.append(topic)
            elif heard is not None and topic.startswith("tickers.") and elapsed - max(heard, granted) > QUIET:
                quiet.append(topic)
        first = [topic for topic in never if topic not in self._restarted]
        again = [topic for topic in never if topic in self._restarted]
        for topic in (*first, *quiet):
            link.topics.restart(topic, elapsed)
        self._restarted.update(first)
        link.counters["topics_asked_again"] += len(first) + len(quiet)
        if first:
            link.watch.report(Health.STALE, f"acknowledged but silent: {in_sentence(first)}; asking once more")
        if again:
            self.silent.update(again)
            link.counters["topics_silent"] += len(again)
            link.watch.report(Health.STALE, f"acknowledged again and still silent: {in_sentence(again)}")
        return self._look_at_expiries()

    def _look_at_expiries(self) -> list[str]:
        link, watch, universe = self._link, self._link.watch, self._link.catalogue.universe
        newest: dict[tuple[str, str], int] = {}
        for symbol, row in link.catalogue.rows.items():
            heard = self._heard.get(f"tickers.{symbol}")
            if heard is not None:
                instrument = universe[row]
                name = f"{'-'.join(symbol.split('-')[:2])} in {instrument.quote_currency}"
                key = (name, instrument.underlying)
                newest[key] = max(newest.get(key, 0), heard)
        # What is no longer listed is no longer missed.
        self._silent_expiries.intersection_update(name for name, _ in newest)
        coins = []
        for (name, coin), heard in sorted(newest.items()):
            silent = watch.elapsed - heard > EXPIRY_SILENT
            if silent and name not in self._silent_expiries and watch.silence_of(tickers_of(coin)) <= COIN_SILENT:
                self._silent_expiries.add(name)
                coins.append(coin)
                said = (
                    f"no ticker of any option of {name} for {(watch.elapsed - heard) // SECOND} s; reading the listing"
                )
                watch.report(Health.STALE, said)
            elif not silent and name in self._silent_expiries:
                self._silent_expiries.remove(name)
                watch.report(Health.RECOVERED, f"{name} is heard again")
        return coins
