"""A script at work on one venue: wires for its connections, refusals, maintenance, false prices, and the record of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.instruments import Kind
from volsurf.sim._faults_kinds import MARKET_KINDS, REFUSAL_KINDS, Fault
from volsurf.sim._faults_log import FaultLog
from volsurf.sim._faults_script import FaultScript
from volsurf.sim._faults_wire import FaultyWire

if TYPE_CHECKING:
    from volsurf.sim.exchange import Exchange, Session


class FaultRun:
    """One venue's run of a script.

    Args:
        script: whose entries for other venues are left out.
        start_ns: real time from which the script counts.
        seed: of which message is struck and of which prices are false.
        venue: its name.
    """

    def __init__(self, script: FaultScript, *, start_ns: int, seed: int = 1, venue: str = "") -> None:
        self.script = script.of(venue) if venue else script
        self.start_ns = start_ns
        self.log = FaultLog()
        self._seed = seed
        self._now = start_ns
        self._rng = np.random.default_rng([seed, 7])
        self._clients = 0
        self._taken: Counter[Fault] = Counter()
        self._done: set[tuple[int, int]] = set()

    def open(self, now: int, session: Session | None = None) -> FaultyWire:
        """A connection was opened: its wire. A refusal that lasts is also for those that come while it does."""
        client, self._now = self._clients, now
        self._clients += 1
        if session is not None:
            for fault in self.script:
                if fault.kind in REFUSAL_KINDS and fault.for_ns and fault.occurrence(now - self.start_ns) >= 0:
                    self._refuse(fault, client, session)
        return FaultyWire(self, client, now, self._seed)

    def take(self, fault: Fault) -> bool:
        """Whether a fault of messages may strike once more; it then has."""
        if self.is_spent(fault):
            return False
        self._taken[fault] += 1
        return True

    def is_spent(self, fault: Fault) -> bool:
        """Whether a fault of messages has struck as often as it may."""
        return fault.is_counted and self._taken[fault] >= int(fault.options["count"])

    def step(self, now: int, exchange: Exchange, clients: Iterable[tuple[int, Session]] = ()) -> None:
        """Do what is due of the venue's own faults and of the market's; call it at every tick, before the venue moves.

        Args:
            clients: numbers and sessions of the connections that are open.
        """
        self._now = now
        for number, fault in enumerate(self.script):
            occurrence = fault.occurrence(now - self.start_ns)
            if occurrence < 0 or (number, occurrence) in self._done:
                continue
            self._done.add((number, occurrence))
            if fault.kind in REFUSAL_KINDS:
                for client, session in clients:
                    self._refuse(fault, client, session)
            elif fault.kind == "maintenance":
                exchange.begin_maintenance(now, fault.for_ns * 1e-9)
                self.log.add(now, "maintenance", str(fault))
            elif fault.kind == "vanish":
                self._vanish(fault, now, exchange)
            elif fault.kind in MARKET_KINDS:
                self._distort(fault, now, exchange)

    def is_over(self, now: int) -> bool:
        """Whether nothing more will happen."""
        return now - self.start_ns >= self.script.end_ns

    def _refuse(self, fault: Fault, client: int, session: Session) -> None:
        if fault.options["client"] in (-1, client):
            session.refuse_next(REFUSAL_KINDS[fault.kind], int(fault.options["count"]))
            session.on_refused = lambda what: self._note_refusal(what, client)

    def _note_refusal(self, what: str, client: int) -> None:
        kind = next(kind for kind, word in REFUSAL_KINDS.items() if word == what)
        self.log.add(self._now, kind, what, client)

    def _vanish(self, fault: Fault, now: int, exchange: Exchange) -> None:
        for underlying, expiry_ns, _ in self._books(fault, exchange):
            gone = exchange.vanish(underlying, expiry_ns)
            if gone:
                self.log.add(now, "vanish", f"{underlying} {expiry_ns}")

    def _distort(self, fault: Fault, now: int, exchange: Exchange) -> None:
        quotes, universe = exchange.quotes, exchange.quotes.universe
        # What the market's present step shows is made false with the next.
        from_ns, until_ns = exchange.market.now_ns, exchange.market_ns(now + fault.for_ns)
        for _, _, rows in self._books(fault, exchange):
            rows = rows[np.isfinite(quotes.bid[rows]) & np.isfinite(quotes.ask[rows])]
            rows = rows[self._rng.random(len(rows)) < float(fault.options["p"])]
            if len(rows):
                quotes.distort(fault.kind, rows, until_ns, float(fault.options.get("size", 0.0)))
                symbols = [universe[int(row)].symbol for row in rows]
                self.log.add_false(symbols, fault.kind, from_ns, until_ns)
                for symbol in symbols:
                    self.log.add(now, fault.kind, symbol)

    def _books(self, fault: Fault, exchange: Exchange) -> list[tuple[str, int, npt.NDArray[np.intp]]]:
        universe = exchange.quotes.universe
        names = np.array(universe.underlyings)
        found = []
        for underlying in exchange.market.underlyings:
            if fault.options["underlying"] not in ("", underlying):
                continue
            options = universe.active & (universe.kind == Kind.OPTION) & (names[universe.underlying_id] == underlying)
            expiries = np.unique(universe.expiry_ns[options]).tolist()
            wanted = int(fault.options["expiry"])
            for expiry_ns in expiries if wanted < 0 else expiries[wanted : wanted + 1]:
                rows = np.flatnonzero(options & (universe.expiry_ns == expiry_ns))
                # What is listed since the last update has no quote yet.
                found.append((underlying, int(expiry_ns), rows[rows < len(exchange.quotes.bid)].astype(np.intp)))
        return found
