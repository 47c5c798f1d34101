"""One simulated venue and the feed that follows it, on real sockets, with everything the venue showed at hand."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from tests.feeds.loopback import FastWorld
from tests.feeds.shown_prices import KEPT_SECONDS, SECOND, ShownPrices
from volsurf.feeds._backoff import Backoff
from volsurf.feeds.protocol import Event, Health, HealthEvent, InstrumentEvent
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.quotes import QuoteBatch
from volsurf.sim.faults import FaultRun, FaultScript, FaultyClock
from volsurf.sim.listing import ExpiryRules
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, VenueProfile
from volsurf.sim.venues import make_server, selected

FAMILY = {"deribit": "BTC", "okx": "BTC_USD", "bybit": "BTC_USDT", "binance": "BTC_USDT"}
LAG = {"deribit": 1.4, "okx": 1.4, "bybit": 1.4, "binance": 2.4}
"""Seconds after which the venue has told a price again, latency and tick included: Binance tells the chain once a second."""
NOTICED_SECONDS = 10.0
"""For so long what a fault makes the feed count may fail to appear."""
STRUCK_SECONDS = 20.0
"""For so long a fault may wait for something to strike."""
HOLD_SECONDS = 0.7
"""For so long everything must be right before it counts as recovered; the time told is that of the beginning."""
_TICK = 0.02
_LOOK = 0.05


class PausesTold(Backoff):
    """Adds the pauses it gave to a sum."""

    def __init__(self, rng: random.Random, told: Callable[[float], None]) -> None:
        super().__init__(rng)
        self._told = told

    def next(self) -> float:
        pause = super().next()
        self._told(pause)
        return pause


def small_profile(venue: str) -> VenueProfile:
    """A venue that lists one family of Bitcoin at fifty strikes or so and has no opinion but the truth."""
    profile, _ = selected(PROFILES[venue], [FAMILY[venue]])
    families = tuple(replace(family, density=0.35 * family.density) for family in profile.families)
    rules = replace(profile.rules, stale_share=0.0)
    expiries = ExpiryRules(dailies=1, weeklies=2, monthlies=1, quarterlies=3)
    return replace(profile, families=families, rules=rules, expiries=expiries).mispriced(0.0)


@dataclass(slots=True)
class Cell:
    """What became of one fault on one venue."""

    venue: str
    fault: str
    injected: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    """Counters and events of the feed that rose."""
    recovered: float = float("nan")
    """Seconds from the end of the fault (of its detection, for a silence) until everything was right; NaN for never."""
    paused: float = 0.0
    """Seconds of back-off in it, or for which the venue asked."""
    wrong: int = 0
    """Prices the venue never showed, over all looks."""
    untrue: int = 0
    """Prices the venue showed that did not bracket the truth and were not false on purpose: a fault of the simulator."""
    starved: float = 0.0
    """Seconds after the fault by which looks came late: what this process did not get, or spent on the venue's side."""
    looks: int = 0
    late: int = 0
    """Prices not current at the last look."""
    note: str = ""


class Rig:
    """`async with Rig("okx") as rig: cell = await rig.run("gap", "at 0s for 1s gap channel=book p=0.3")`.

    Args:
        books: follow order books, whose tops then are what the board shows.
        speed: venue and feed live so many times faster than the loop; the server still ticks ten times a second of the loop's.

    Attributes:
        true_clock: of the venue, ns UTC. clock: of the feed.
    """

    def __init__(self, venue: str, *, books: bool = True, seed: int = 1, speed: float = 1.0) -> None:
        self.venue = venue
        world = FastWorld(speed)
        self.true_clock: Callable[[], int] = time.time_ns if speed == 1.0 else world.clock
        self.clock = FaultyClock(self.true_clock)
        now = self.true_clock()
        self.market = Market(seed, ("BTC",), start_ns=now)
        self.server = make_server(
            venue, self.market, profile=small_profile(venue), origin_ns=now, clock=self.true_clock
        )
        self.events: list[Event] = []
        self.paused = 0.0
        """Seconds of back-off, of the connection that had most."""
        self._books = books
        self._feed_options = {} if speed == 1.0 else {"call_later": world.call_later}
        self._stop = asyncio.Event()
        # A fast world ticks seldom: what was told at a tick may be read after the next.
        lag, kept = max(LAG[venue], 0.4 * speed), KEPT_SECONDS * max(1.0, 0.2 * speed)
        self.shown = ShownPrices(self.server.exchange, lag=lag, kept=kept)

    async def __aenter__(self) -> Self:
        advance = self.server.exchange.advance

        def advance_and_record(now: int) -> None:
            advance(now)
            self.shown.record()

        self.server.exchange.advance = advance_and_record  # type: ignore[method-assign]
        await self.server.open()
        options = {"books": True} if self._books else {}
        more: dict[str, dict[str, Any]] = {"binance": {"quotes": "all"}, "bybit": {"relist_seconds": 20.0}}
        venues = make_venues(
            self.venue, [FAMILY[self.venue]], url=self.server.url, **options, **more.get(self.venue, {})
        )
        self.feed = VenueFeed(venues, tick=_TICK, clock=self.clock, books=self._books, seed=1, **self._feed_options)
        self._pauses = [0.0] * len(venues)
        for i, connection in enumerate(self.feed.connections):
            connection._backoff = PausesTold(random.Random(i), functools.partial(self._note_pause, i))
        self._task = asyncio.create_task(self.feed.run(self._stop, self._on_tick))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        await self._task
        await self.server.close()

    def _note_pause(self, connection: int, seconds: float) -> None:
        self._pauses[connection] += seconds
        self.paused = max(self._pauses)

    def _on_tick(self, batch: QuoteBatch | None, events: list[Event]) -> None:
        del batch
        self.events += [e for e in events if isinstance(e, HealthEvent | InstrumentEvent)]

    @contextlib.contextmanager
    def asleep(self, seconds: float) -> Iterator[None]:
        """The client's machine sleeps: no time passes on its clock and nothing is read; the venue goes on."""
        self.clock.suspend(seconds)
        sockets = [c._socket.transport for c in self.feed.connections if c._socket is not None]
        for transport in sockets:
            transport.pause_reading()
        try:
            yield
        finally:
            for transport in sockets:
                if not transport.is_closing():
                    transport.resume_reading()

    def totals(self) -> Counter[str]:
        """The feed's counters, books' included, and its events by kind."""
        counts = Counter({name: n for name, n in self.feed.counters.items() if n})
        if self.feed.books is not None:
            counts.update({f"books.{name}": n for name, n in self.feed.books.counters.items()})
        counts.update(f"health.{e.kind.name}" for e in self.events if isinstance(e, HealthEvent))
        counts["retired"] = sum(len(e.retired) for e in self.events if isinstance(e, InstrumentEvent))
        return counts

    async def settled(self, seconds: float, *, since_ns: int = 0, cell: Cell | None = None) -> float:
        """Wait until the feed is ready, without trouble and current, and stays so; the loop's time when that began, or NaN."""
        loop = asyncio.get_running_loop()
        end, began, looks = loop.time() + seconds, float("nan"), 0
        while loop.time() < end:
            if self._task.done():
                self._task.result()
            late = self.shown.late(self.feed, since_ns)
            if cell is not None:
                self._look(cell)
                cell.late = len(late)
            good = self.feed.is_ready and not self.feed.trouble and not len(late)
            if not good:
                began = float("nan")
            elif began != began:
                began, looks = loop.time(), 0
            # Where the loop is slow, time alone says little: it must have been right at as many looks.
            elif loop.time() - began >= HOLD_SECONDS and looks >= HOLD_SECONDS / _LOOK:
                return began
            looks += 1
            await self._pause(cell)
        return float("nan")

    async def _pause(self, cell: Cell | None) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(_LOOK)
        if cell is not None:
            cell.starved += loop.time() - before - _LOOK

    def _look(self, cell: Cell) -> None:
        cell.looks += 1
        now = self.clock()
        asked = max((venue.not_before - now) * 1e-9 for venue in self.feed.venues)
        self.paused = max(self.paused, asked)
        wrong = self.shown.wrong(self.feed)
        if len(wrong) and not cell.note:
            row = int(wrong[0])
            cell.note = (
                f"{self.feed.universe[row].symbol} showed {self.feed.board.bid[row]:g} / {self.feed.board.ask[row]:g}"
            )
        cell.wrong += len(wrong)

    async def run(
        self,
        fault: str,
        script: str,
        *,
        counts: Sequence[str] = (),
        forgiving: bool = False,
        limit: float = 30.0,
        until: str = "",
    ) -> Cell:
        """Let something happen, watch every price meanwhile, and wait until all is right again.

        Args:
            script: for the server, `{clients}` stands for each connection that is open.
            counts: beginnings of what the feed counts, one of which is waited for, for some seconds, before recovery is.
            forgiving: prices not told again since the fault may be old: the venue has no way to make a lost one good.
            limit: seconds to wait for recovery.
            until: a counter that must rise, once for every connection struck, before the fault counts as noticed, and from
                which recovery is timed.
        """
        cell = Cell(self.venue, fault)
        loop = asyncio.get_running_loop()
        before = self.totals()
        self._pauses, self.paused, self.shown.untrue = [0.0] * len(self._pauses), 0.0, 0
        run = self.inject(script)
        await self._lasts(run, cell)
        noticed = loop.time() + NOTICED_SECONDS
        while counts and loop.time() < noticed and not any(n.startswith(tuple(counts)) for n in self.totals() - before):
            self._look(cell)
            await asyncio.sleep(_LOOK)
        ended, ended_ns = loop.time(), self.market.now_ns
        if until:
            end, wanted = loop.time() + limit, before[until] + run.log.counts.total()
            while self.totals()[until] < wanted and loop.time() < end:
                self._look(cell)
                await asyncio.sleep(_LOOK)
            ended = loop.time()
        began = await self.settled(limit, since_ns=ended_ns if forgiving else 0, cell=cell)
        cell.recovered = max(0.0, began - ended) if began == began else began
        cell.paused = self.paused
        cell.untrue = self.shown.untrue
        cell.injected = dict(run.log.counts)
        cell.counted = {name: n for name, n in (self.totals() - before).items() if n and is_telling(name)}
        return cell

    def inject(self, script: str) -> FaultRun:
        """Begin a script on this venue; `{clients}` in an entry is written out once for each open connection."""
        entries = []
        for entry in script.split(";"):
            if "{clients}" in entry:
                entries += [entry.replace("{clients}", str(i)) for i in range(self.server.stats["clients"])]
            else:
                entries.append(entry)
        return self.server.inject(FaultScript.parse("; ".join(entries)))

    async def _lasts(self, run: FaultRun, cell: Cell) -> None:
        ends = lasts(run.script)
        at_most = asyncio.get_running_loop().time() + STRUCK_SECONDS
        while self.true_clock() - run.start_ns < ends or not has_struck(run):
            self._look(cell)
            await asyncio.sleep(_LOOK)
            if asyncio.get_running_loop().time() > at_most:
                return


def lasts(script: FaultScript) -> float:
    """How long to let a script run, ns since its start: what ends with a count or with the client's noticing has no end."""
    # What is held back to be overtaken comes after a second at the latest.
    ends = (
        min(f.end_ns, f.at_ns + (0 if f.is_counted else 3 * SECOND)) + (SECOND if f.kind == "reorder" else 0)
        for f in script
    )
    return max(ends, default=0) + 0.2 * SECOND


def has_struck(run: FaultRun) -> bool:
    """Whether every fault was done at least once, and one with a count as often as that."""
    wanted = Counter[str]()
    for fault in run.script:
        wanted[fault.kind] += int(fault.options["count"]) if fault.is_counted else 1
    return all(run.log.counts[kind] >= times for kind, times in wanted.items())


def is_telling(name: str) -> bool:
    """What is not counted of every message anyway."""
    return name.startswith(("malformed", "health", "errors", "http", "books.", "retired", "clock", "takeovers")) or any(
        word in name
        for word in (
            "gap",
            "repeat",
            "unanswered",
            "refused",
            "late",
            "stale",
            "unknown",
            "awaiting",
            "slow",
            "left_out",
        )
    )


def health(cell: Cell, kind: Health) -> int:
    """How many events of a kind a cell counted."""
    return cell.counted.get(f"health.{kind.name}", 0)
