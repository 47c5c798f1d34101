"""The pure core: an ordered log of entries in, a frame out on every tick.

It reads no clock, does no I/O, holds no lock and draws no random number, so the same log gives bit-identical frames live, in
replay, in a backtest and on another machine. A frame is the parts a quant can hold in a cell, in this order: the board, its
quotes as vols, smiles, the batch fit; plus the bookkeeping of what need not be done again.

What did not change is not refitted. A surface is made again when, of any of its expiries, a quote moved by more than a tenth of
its error bar, quotes came or went, or the forward moved by more than 2 % of a standard deviation; at the latest after a second,
because time passes. It is made as a whole, since each slice is certified against its neighbour.

The temporal filter counts the time since the last refit, not frames. While quotes stand still there is none until that second is
over; by then little of the last curve is wanted (14 % at the default of half a second), so what a surface still lacks of the way
to its quotes is made up in one step, and it never lags by more than the second.

A feed that is not live (silent, disconnected, in maintenance, late) leaves the smiles at the next frame while another feed of the
underlying is live: its quotes get a reason of their own, and count again once it is whole. When the last one goes, the surface
stays as it was last certified.

Every surface that is published is certified for what it is: one that loses its first expiry to time is published again with the
next as the first, whose calendar verdict is then that of a first one. A fit that ends without a proof is not published, and the
last certified surface stays, its age being said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

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
from volsurf.engine.memory import Basis, Underlying, add_outliers, count_reasons
from volsurf.instruments import Kind, Universe
from volsurf.quotes import Field, QuoteBatch, QuoteBoard
from volsurf.surface.prior_centres import PriorCentres
from volsurf.surface.quote_vols import QuoteRules, QuoteVols, quote_vols
from volsurf.surface.slices import expiry_label
from volsurf.surface.smile import after_expiry, fit_columns
from volsurf.surface.smile_columns import SmileColumns
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
    maximum_skew_ns: int = 5 * _SECOND
    """Nor is one whose time stamps are so much further off our clock than those of another: it is late, or its clock is wrong."""
    quote_move: float = 0.1
    """Move of a quote that calls for a refit, in its error bars."""
    forward_move: float = 0.02
    """Move of a forward that does, in standard deviations of the expiry."""
    enforce: bool = True
    """Publish surfaces free of butterfly and calendar arbitrage only."""
    smoothing_seconds: float = 0.5
    """Time constant of the temporal filter: at 10 frames a second a curve keeps 82 % of the last one. 0 is off."""
    quotes: QuoteRules = field(default_factory=QuoteRules)


def _no_lap(step: str) -> None:
    del step


class Core:
    """Applies entries and makes frames."""

    def __init__(self, rules: CoreRules | None = None) -> None:
        self.rules = rules or CoreRules()
        self.universe = Universe()
        self.board = QuoteBoard(self.universe)
        self.quotes: QuoteVols | None = None
        """Of the last frame that looked at the quotes."""
        self._feeds = FeedTable(self.universe, self.board)
        self._known: dict[str, Underlying] = {}
        self._number = 0
        self._step: ClockStep | None = None
        self._quotes_problem: Problem | None = None
        self._centres = PriorCentres()
        self._blocks: BlockCache = {}
        self._unknown_rows = 0
        self._expiries: tuple[int, dict[str, list[int]]] = (-1, {})
        """Version of the universe, and the expiries of its active options by underlying."""

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
                changes = {name: v for name in entry.__struct_fields__ if (v := getattr(entry, name)) is not None}
                self.rules = replace(self.rules, **changes)
                if entry.enforce is not None:
                    self._enforcement_changed()
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
        for name in self._feeds.judge(now_ns, self.rules):
            if name in self._known:
                self._known[name].changed = True
        due = [name for name, known in sorted(self._known.items()) if self._is_due(name, known, now_ns)]
        lap("board")
        columns = self._columns(due, now_ns, lap) if due else None
        if columns is not None:
            self._fit([name for name in due if self._is_dirty(name, columns, now_ns)], columns, now_ns)
        lap("fit")
        return self._result(now_ns)

    def _enforcement_changed(self) -> None:
        for known in self._known.values():
            known.changed, known.basis = True, None
            if self.rules.enforce and known.surface is not None and not known.surface.certificate:
                known.surface = None

    # --- what is left of the last frame ------------------------------------------------------------------------------
    def _expire(self, now_ns: int) -> None:
        universe = self.universe
        over = np.flatnonzero(universe.active & (universe.expiry_ns > 0) & (universe.expiry_ns <= now_ns))
        if over.size:
            universe.retire(over)
        # In its settlement window an option is priced on an average that no curve describes, so its curve goes with the first
        # minute of that, also where no fit is made that would leave it out.
        until_ns = now_ns + self.rules.quotes.settlement_window_ns
        for known in self._known.values():
            if known.surface is not None and known.surface.smiles[0].expiry_ns <= until_ns:
                known.surface = after_expiry(known.surface, until_ns)
                known.changed = True

    def _note_changes(self) -> None:
        changed = self.board.take_changed() & _MATTERS
        for name in self.universe.underlyings:
            self._known.setdefault(name, Underlying())
        touched = np.unique(self.universe.underlying_id[changed != 0])
        for underlying_id in touched.tolist():
            self._known[self.universe.underlyings[underlying_id]].changed = True

    def _is_due(self, name: str, known: Underlying, now_ns: int) -> bool:
        if known.settled and known.surface is not None and not self._feeds.is_live(name):
            # Its quotes are gone or going; the last certified surface stays, and its time says how old it is.
            return False
        return known.changed or self._is_old(known, now_ns)

    def _is_old(self, known: Underlying, now_ns: int) -> bool:
        # A clock that was set back makes everything old.
        return not 0 <= now_ns - known.fitted_ns < self.rules.refit_after_ns

    # --- quotes to smiles ----------------------------------------------------------------------------------------------
    def _columns(self, due: Sequence[str], now_ns: int, lap: Callable[[str], None]) -> SmileColumns | None:
        columns = None
        try:
            self.quotes = quote_vols(
                self.board,
                now_ns,
                previous=self.quotes,
                rules=self.rules.quotes,
                unheard=self._feeds.unheard,
                skew_ns=self._feeds.skews,
            )
            lap("vols")
            columns = SmileColumns.of(self.quotes)
            self._quotes_problem = None
        except Exception as error:  # kept from the feeds and the surfaces there are; the frame says it
            self._quotes_problem = Problem("", "quotes", _sentence("quotes could not be turned into vols", error))
            # In case what was carried over is at fault, the next attempt starts cold.
            self.quotes = None
        for name in due:
            self._known[name].changed = self._quotes_problem is not None
        lap("smiles")
        return columns

    def _is_dirty(self, name: str, columns: SmileColumns, now_ns: int) -> bool:
        known, smiles = self._known[name], columns.of_underlying(name)
        if smiles.start == smiles.stop:
            return False
        if known.basis is None or self._is_old(known, now_ns):
            return True
        return known.basis.is_left_behind(columns, smiles, self.rules)

    # --- smiles to surfaces ----------------------------------------------------------------------------------------------
    def _fit(self, dirty: Sequence[str], columns: SmileColumns, now_ns: int) -> None:
        if not dirty:
            return
        failed: dict[str, Exception] = {}
        try:
            surfaces = self._fitted(dirty, columns)
        except Exception:  # one of them failed the batch: each by itself, so that only the culprit is left behind
            surfaces = {}
            for name in dirty:
                try:
                    surfaces |= self._fitted([name], columns)
                except Exception as error:
                    failed[name] = error
        assert self.quotes is not None
        ledgers = count_reasons(self.quotes, dirty)
        for name in dirty:
            known, smiles = self._known[name], columns.of_underlying(name)
            known.fitted_ns = now_ns
            known.settled = known.settled or self._feeds.is_live(name)
            surface = surfaces.get(name)
            known.trouble = ""
            if name in failed:
                known.trouble = _sentence("the fit failed", failed[name])
            elif surface is None:
                known.trouble = "no expiry has a usable quote"
            elif self.rules.enforce and not surface.certificate:
                known.trouble = f"the fit ended without a proof ({surface.certificate.witness})"
                surface = None
            known.ledger = ledgers[name]
            if surface is not None:
                known.surface = surface
                add_outliers(known.ledger, surface)
            known.basis = Basis.of(columns, smiles, surface)

    def _fitted(self, names: Sequence[str], columns: SmileColumns) -> dict[str, Surface]:
        previous = {name: s for name in names if (s := self._known[name].surface) is not None}
        chosen = [i for i, name in enumerate(columns.underlying) if name in names]
        if len(chosen) < len(columns):
            columns = columns.select(chosen)
        rules = self.rules
        return fit_columns(
            columns,
            previous,
            enforce=rules.enforce,
            smoothing_seconds=rules.smoothing_seconds,
            centres=self._centres,
        )

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
            self._feeds.statuses(now_ns),
            self._feeds.numbers(),
            self._problems(now_ns),
            self._listed(now_ns),
            {name: k.ledger for name, k in known if k.ledger is not None},
            {},
            self._blocks,
        )

    def _problems(self, now_ns: int) -> tuple[Problem, ...]:
        problems = [
            Problem(name, "fit", f"{known.trouble}: {_what_stays(known.surface, now_ns)}")
            for name, known in sorted(self._known.items())
            if known.trouble
        ]
        problems += self._settling(now_ns)
        problems += self._feeds.problems()
        if self._quotes_problem is not None:
            problems.append(self._quotes_problem)
        if self._step is not None and 0 <= now_ns - self._step.time_ns < _CLOCK_NOTICE_NS:
            problems.append(Problem("", "clock", f"this machine's clock was set by {self._step.step_ns / 1e9:+.3f} s"))
        if rows := self.board.unknown_rows - self._unknown_rows:
            self._unknown_rows = self.board.unknown_rows
            problems.append(Problem("", "feed", f"{rows} quotes named an instrument that is not listed"))
        return tuple(problems)

    def _settling(self, now_ns: int) -> list[Problem]:
        until_ns = now_ns + self.rules.quotes.settlement_window_ns
        return [
            Problem(
                name, "expiry", f"{expiry_label(expiry)} is settling on an average of the index and is no longer fitted"
            )
            for name, expiries in self._active_expiries().items()
            for expiry in expiries
            if expiry <= until_ns
        ]

    def _listed(self, now_ns: int) -> dict[str, tuple[int, ...]]:
        # In its last minutes an option is settled on an average and no longer fitted, so it is not missed either.
        until_ns = now_ns + self.rules.quotes.settlement_window_ns
        listed = {
            name: tuple(e for e in expiries if e > until_ns) for name, expiries in self._active_expiries().items()
        }
        return {name: expiries for name, expiries in listed.items() if expiries}

    def _active_expiries(self) -> dict[str, list[int]]:
        universe = self.universe
        if self._expiries[0] != universe.version:
            mask = universe.active & (universe.kind == Kind.OPTION)
            self._expiries = (
                universe.version,
                {
                    name: np.unique(universe.expiry_ns[mask & (universe.underlying_id == i)]).tolist()
                    for i, name in enumerate(universe.underlyings)
                },
            )
        return self._expiries[1]


def frames_of(core: Core, log: Iterable[Entry]) -> Iterator[Frame]:
    """The frames that a log makes: one for each of its ticks."""
    for entry in log:
        if isinstance(entry, Tick):
            yield core.frame(entry.now_ns)
        else:
            core.apply(entry)


def _sentence(what: str, error: Exception) -> str:
    return f"{what} ({type(error).__name__}: {error})"[:400]


def _what_stays(surface: Surface | None, now_ns: int) -> str:
    if surface is None:
        return "no surface yet"
    if now_ns < surface.time_ns:  # the clock was set back
        return "the last surface stays"
    return f"the surface of {(now_ns - surface.time_ns) / 1e9:.1f} s ago stays"
