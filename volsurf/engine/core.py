"""The pure core: an ordered log of entries in, a frame out on every tick.

It reads no clock, does no I/O, holds no lock and draws no random number, so the same log gives bit-identical frames live, in
replay, in a backtest and on another machine. A frame is the parts a quant can hold in a cell, in this order: the board, its
quotes as vols, smiles, the batch fit; plus the bookkeeping of what need not be done again.

What did not change is not refitted. A surface is made again when, of any of its expiries, a quote moved by more than a tenth of
its error bar, quotes came or went, or the forward moved by more than 2 % of a standard deviation; at the latest after a second,
because time passes. It is made as a whole, since each slice is certified against its neighbour (svi.md §3.7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.engine.codec import Problem
from volsurf.engine.feeds import FeedTable
from volsurf.engine.frame import BlockCache, Frame
from volsurf.engine.log import (
    ClockStep,
    Entry,
    FeedHealth,
    FeedStarted,
    InstrumentsAdded,
    InstrumentsRetired,
    PolicyChange,
    Tick,
)
from volsurf.instruments import Kind, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.quote_vols import QuoteRules, QuoteVols, quote_vols
from volsurf.surface.smile import Smile, build_smiles, fit_all_smiles
from volsurf.surface.surface import Surface

_SECOND = 1_000_000_000
_MATTERS = np.uint16(Field.QUOTE | Field.FORWARD | Field.INDEX)
_CLOCK_NOTICE_NS = 60 * _SECOND


@dataclass(frozen=True, slots=True)
class CoreRules:
    """Thresholds of the core; a `PolicyChange` entry changes them in the course of a log."""

    refit_after_ns: int = _SECOND
    """A surface is made again at the latest after so long."""
    silent_after_ns: int = 5 * _SECOND
    """A feed that has not been heard for so long is not live."""
    quote_move: float = 0.1
    """Move of a quote that calls for a refit, in its error bars."""
    forward_move: float = 0.02
    """Move of a forward that does, in standard deviations of the expiry."""
    quotes: QuoteRules = field(default_factory=QuoteRules)


def _no_lap(step: str) -> None:
    del step


@dataclass(slots=True)
class _Underlying:
    """What the core remembers of one underlying between frames."""

    surface: Surface | None = None
    basis: tuple[Smile, ...] = ()
    """The smiles the surface was fitted to, as they were before the fit."""
    fitted_ns: int = 0
    changed: bool = True
    """Something that matters was written to the board since the last look."""
    settled: bool = False
    """It was fitted while one of its feeds was whole; from then on a feed that is not whole leaves the surface as it is."""
    problem: Problem | None = None
    ledger: dict[str, int] | None = None


class Core:
    """Applies entries and makes frames."""

    def __init__(self, rules: CoreRules | None = None) -> None:
        self.rules = rules or CoreRules()
        self.universe = Universe()
        self.board = QuoteBoard(self.universe)
        self.quotes: QuoteVols | None = None
        """Of the last frame that looked at the quotes."""
        self._feeds = FeedTable(self.universe, self.board)
        self._known: dict[str, _Underlying] = {}
        self._number = 0
        self._step: ClockStep | None = None
        self._quotes_problem: Problem | None = None
        self._blocks: BlockCache = {}
        self._unknown_rows = 0

    def apply(self, entry: Entry) -> None:
        """Take the next entry of the log. A `Tick` is not for here: `frame` makes the frame, `frames_of` runs a whole log."""
        match entry:
            case QuoteBatch():
                self._feeds.quotes(entry)
            case FeedHealth():
                self._feeds.health(entry)
            case InstrumentsAdded():
                self._feeds.added(entry)
            case InstrumentsRetired():
                self._feeds.retired(entry)
            case FeedStarted():
                self._feeds.started(entry)
            case PolicyChange():
                changes = {n: v for n in ("refit_after_ns", "silent_after_ns") if (v := getattr(entry, n)) is not None}
                self.rules = replace(self.rules, **changes)
            case ClockStep():
                self._step = entry
                self._feeds.clock_step(entry)
            case Tick():
                raise TypeError("a tick makes a frame: call frame(now_ns)")

    def frame(self, now_ns: int, lap: Callable[[str], None] = _no_lap) -> Frame:
        """The frame of an instant, ns UTC.

        `lap` is called with the name of each step as it ends ("board", "vols", "smiles", "fit"), for a caller who has a clock.
        """
        self._number += 1
        self._expire(now_ns)
        self._note_changes()
        due = [name for name, known in sorted(self._known.items()) if self._is_due(name, known, now_ns)]
        lap("board")
        smiles = self._smiles(due, now_ns, lap) if due else {}
        dirty = [name for name in due if name in smiles and self._is_dirty(self._known[name], smiles[name], now_ns)]
        self._fit(dirty, smiles, now_ns)
        lap("fit")
        return self._result(now_ns)

    # --- what is left of the last frame ------------------------------------------------------------------------------
    def _expire(self, now_ns: int) -> None:
        universe = self.universe
        over = np.flatnonzero(universe.active & (universe.expiry_ns > 0) & (universe.expiry_ns <= now_ns))
        if over.size:
            universe.retire(over)
        for known in self._known.values():
            surface = known.surface
            if surface is not None and surface.smiles[0].expiry_ns <= now_ns:
                left = tuple(smile for smile in surface.smiles if smile.expiry_ns > now_ns)
                known.surface = Surface(surface.underlying, surface.time_ns, left) if left else None
                known.changed = True

    def _note_changes(self) -> None:
        changed = self.board.take_changed() & _MATTERS
        for name in self.universe.underlyings:
            self._known.setdefault(name, _Underlying())
        touched = np.unique(self.universe.underlying_id[changed != 0])
        for underlying_id in touched.tolist():
            self._known[self.universe.underlyings[underlying_id]].changed = True

    def _is_due(self, name: str, known: _Underlying, now_ns: int) -> bool:
        if known.settled and known.surface is not None and not self._feeds.is_live(name, now_ns, self.rules):
            # Its quotes are gone or going; the last certified surface stays, and its time says how old it is.
            return False
        return known.changed or self._is_old(known, now_ns)

    def _is_old(self, known: _Underlying, now_ns: int) -> bool:
        # A clock that was set back makes everything old.
        return not 0 <= now_ns - known.fitted_ns < self.rules.refit_after_ns

    # --- quotes to smiles ----------------------------------------------------------------------------------------------
    def _smiles(self, due: Sequence[str], now_ns: int, lap: Callable[[str], None]) -> dict[str, list[Smile]]:
        try:
            self.quotes = quote_vols(self.board, now_ns, previous=self.quotes, rules=self.rules.quotes)
            lap("vols")
            smiles = build_smiles(self.quotes)
            self._quotes_problem = None
        except Exception as error:  # kept from the feeds and the surfaces there are; the frame says it
            self._quotes_problem = Problem("", "quotes", _sentence("quotes could not be turned into vols", error))
            # In case what was carried over is at fault, the next attempt starts cold.
            self.quotes = None
            smiles = []
        by_name: dict[str, list[Smile]] = {}
        for smile in smiles:
            by_name.setdefault(smile.underlying, []).append(smile)
        for name in due:
            self._known[name].changed = self._quotes_problem is not None
        lap("smiles")
        return by_name

    def _is_dirty(self, known: _Underlying, smiles: Sequence[Smile], now_ns: int) -> bool:
        if self._is_old(known, now_ns) or len(smiles) != len(known.basis):
            return True
        fits = {} if known.surface is None else {smile.expiry_ns: smile.fit for smile in known.surface.smiles}
        for new, old in zip(smiles, known.basis, strict=True):
            if new.expiry_ns != old.expiry_ns or not np.array_equal(new.instrument_id, old.instrument_id):
                return True
            if not (np.array_equal(new.reason, old.reason) and np.array_equal(new.side, old.side)):
                return True
            with np.errstate(invalid="ignore"):
                if bool((np.abs(new.vol - old.vol) > self.rules.quote_move * old.error).any()):
                    return True
            fit = fits.get(new.expiry_ns)
            deviation = math.inf if fit is None else math.sqrt(max(float(fit.total_variance(0.0)), 0.0))
            if abs(math.log(new.forward / old.forward)) > self.rules.forward_move * deviation:
                return True
        return False

    # --- smiles to surfaces ----------------------------------------------------------------------------------------------
    def _fit(self, dirty: Sequence[str], smiles: dict[str, list[Smile]], now_ns: int) -> None:
        if not dirty:
            return
        previous = {name: s for name in dirty if (s := self._known[name].surface) is not None}
        surfaces: dict[str, Surface] = {}
        failed: dict[str, Exception] = {}
        try:
            surfaces = fit_all_smiles([smile for name in dirty for smile in smiles[name]], previous)
        except Exception:  # one of them failed the batch: each by itself, so that only the culprit is left behind
            for name in dirty:
                try:
                    surfaces |= fit_all_smiles(smiles[name], {name: previous[name]} if name in previous else {})
                except Exception as error:
                    failed[name] = error
        for name in dirty:
            known = self._known[name]
            known.basis, known.fitted_ns = tuple(smiles[name]), now_ns
            known.settled = known.settled or self._feeds.is_live(name, now_ns, self.rules)
            surface = surfaces.get(name)
            if surface is not None:
                known.surface, known.problem = surface, None
            elif name in failed:
                known.problem = Problem(
                    name, "fit", _sentence("the fit failed; a surface there was stays", failed[name])
                )
            else:
                stays = "no surface yet" if known.surface is None else "the last surface stays"
                known.problem = Problem(name, "fit", f"no expiry has a usable quote: {stays}")
            known.ledger = self._count(name, known.surface if surface is not None else None)

    def _count(self, name: str, surface: Surface | None) -> dict[str, int]:
        assert self.quotes is not None
        counts = {reason.name: count for reason, count in self.quotes.ledger(name).counts.items()}
        # The fit has the last word on outliers.
        smiles = () if surface is None else surface.smiles
        outliers = sum(int((smile.reason == QuoteReason.OUTLIER).sum()) for smile in smiles)
        if outliers:
            counts[QuoteReason.USED.name] -= outliers
            counts[QuoteReason.OUTLIER.name] = counts.get(QuoteReason.OUTLIER.name, 0) + outliers
        return counts

    def _result(self, now_ns: int) -> Frame:
        known = sorted(self._known.items())
        surfaces = {name: k.surface for name, k in known if k.surface is not None}
        expiries = {(name, smile.expiry_ns) for name, surface in surfaces.items() for smile in surface.smiles}
        for gone in [key for key in self._blocks if key not in expiries]:
            del self._blocks[gone]
        return Frame(
            self._number,
            now_ns,
            surfaces,
            self._feeds.statuses(now_ns, self.rules),
            self._feeds.numbers(),
            self._problems(now_ns),
            self._listed(now_ns),
            {name: k.ledger for name, k in known if k.ledger is not None},
            {},
            self._blocks,
        )

    def _problems(self, now_ns: int) -> tuple[Problem, ...]:
        problems = [k.problem for _, k in sorted(self._known.items()) if k.problem is not None]
        problems += self._feeds.problems()
        if self._quotes_problem is not None:
            problems.append(self._quotes_problem)
        if self._step is not None and 0 <= now_ns - self._step.time_ns < _CLOCK_NOTICE_NS:
            problems.append(Problem("", "clock", f"this machine's clock was set by {self._step.step_ns / 1e9:+.3f} s"))
        if rows := self.board.unknown_rows - self._unknown_rows:
            self._unknown_rows = self.board.unknown_rows
            problems.append(Problem("", "feed", f"{rows} quotes named an instrument that is not listed"))
        return tuple(problems)

    def _listed(self, now_ns: int) -> dict[str, tuple[int, ...]]:
        universe = self.universe
        # In its last minutes an option is settled on an average and no longer fitted, so it is not missed either.
        trading = universe.expiry_ns > now_ns + self.rules.quotes.settlement_window_ns
        mask = universe.active & (universe.kind == Kind.OPTION) & trading
        listed: dict[str, tuple[int, ...]] = {}
        for i, name in enumerate(universe.underlyings):
            expiries = np.unique(universe.expiry_ns[mask & (universe.underlying_id == i)])
            if expiries.size:
                listed[name] = tuple(expiries.tolist())
        return listed


def frames_of(core: Core, log: Iterable[Entry]) -> Iterator[Frame]:
    """The frames that a log makes: one for each of its ticks."""
    for entry in log:
        if isinstance(entry, Tick):
            yield core.frame(entry.now_ns)
        else:
            core.apply(entry)


def _sentence(what: str, error: Exception) -> str:
    return f"{what} ({type(error).__name__}: {error})"[:400]
