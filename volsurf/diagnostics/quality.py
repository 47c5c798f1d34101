"""How good a surface is, and what became of every quote behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from volsurf.diagnostics.forwards import ForwardCheck, forward_checks, forwards_frame
from volsurf.diagnostics.health import SliceHealth, misfit, slice_health
from volsurf.diagnostics.ledgers import final_reasons, ledgers, whole_ledger
from volsurf.diagnostics.page import age
from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.diagnostics.through import ThroughMatrix, through_matrix
from volsurf.errors import InputError

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl

    from volsurf.diagnostics.history import ThroughHistory
    from volsurf.diagnostics.liveness import Feed
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.slices import Smile
    from volsurf.surface.surface import Surface

__all__ = ["Ledger", "QuoteReason", "Report", "SliceHealth", "diagnose", "final_reasons", "whole_ledger"]


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What `diagnose` found."""

    underlying: str
    time_ns: int
    """Of the quotes, ns UTC."""
    ledger: Ledger
    """Over all rows of the underlying, after the fit: outliers have their own reason."""
    slices: tuple[SliceHealth, ...]
    """Health of each fitted expiry."""
    certificate: str
    """The surface's certificate in a sentence."""
    ledger_by_expiry: Mapping[str, Ledger] = field(default_factory=dict)
    """The same rows by expiry, those that have no smile included; they add up to `ledger`."""
    ledger_by_venue: Mapping[str, Ledger] = field(default_factory=dict)
    through: ThroughMatrix | None = None
    """Every quote against the curve."""
    forwards: tuple[ForwardCheck, ...] = ()
    """The venues' forwards against parity, by expiry and market."""
    evidence: str = ""
    """Kind of evidence behind the certificate."""
    timings: Mapping[str, float] | None = None
    """Microseconds by step, where the caller measured them."""
    smiles: tuple[Smile, ...] = ()
    surface_time_ns: int = 0
    """Of the surface, ns UTC: earlier than `time_ns` where it was published before these quotes came in."""
    feeds: Mapping[str, Feed] = field(default_factory=dict)
    """How the feeds were, where the caller had them."""

    @property
    def inside(self) -> float:
        """Share of two-sided used quotes whose bid and ask hold the curve, over all expiries."""
        counts = sum(s.two_sided for s in self.slices)
        return sum(s.inside * s.two_sided for s in self.slices if s.two_sided) / counts if counts else float("nan")

    @property
    def certified(self) -> int:
        """Expiries that are proved free of butterfly and calendar arbitrage."""
        return sum(s.certified for s in self.slices)

    @property
    def guarded(self) -> int:
        """Expiries whose curve is the guard's."""
        return sum(s.guarded for s in self.slices)

    @property
    def off_quotes(self) -> int:
        """Expiries whose curve does not follow its quotes."""
        return sum(s.off_quotes for s in self.slices)

    @property
    def misshapen(self) -> int:
        """Expiries whose smile five parameters cannot follow."""
        return sum(s.shape_misfit for s in self.slices)

    @property
    def flagged_forwards(self) -> tuple[ForwardCheck, ...]:
        """Markets whose forwards disagree by more than noise, or cannot be compared."""
        return tuple(f for f in self.forwards if f.flagged)

    @property
    def sentence(self) -> str:
        """The surface in a line: what is proved, how well it fits, what to look at first."""
        through = 0 if self.through is None else int(self.through.is_through.sum())
        parts = [self.certificate]
        if self.off_quotes:
            one = self.off_quotes == 1
            parts.append(
                f"{self.off_quotes} {'expiry does' if one else 'expiries do'} not follow {'its' if one else 'their'} quotes: "
                f"do not quote on {'it' if one else 'them'}"
            )
        if self.inside == self.inside:
            parts.append(f"{self.inside:.1%} of the two-sided quotes hold the curve")
        parts.append(f"{through} quote{'s' if through != 1 else ''} through it" if through else "none through it")
        older = self.time_ns - self.surface_time_ns
        if older > 0 and self.surface_time_ns:
            parts.append(f"the surface is {age(older)} older than the quotes")
        for n, what in (
            (self.guarded, "guarded"),
            (self.misshapen, "misshapen"),
            (sum(s.grey for s in self.slices), "grey"),
        ):
            if n:
                parts.append(f"{n} {'expiry' if n == 1 else 'expiries'} {what}")
        return "; ".join(parts)

    def __repr__(self) -> str:
        held = "no two-sided quote" if self.inside != self.inside else f"{self.inside:.1%} hold the curve"
        rows = f"{self.ledger.used:,d} of {self.ledger.rows:,d} rows used"
        return f"Report({self.underlying}, {rows}, {held}, {len(self.slices)} expiries)"

    def __str__(self) -> str:
        from volsurf.diagnostics.quality_view import report_text

        return report_text(self)

    def _repr_html_(self) -> str:
        from volsurf.diagnostics.quality_view import report_html

        return report_html(self)

    def to_polars(self, rows: str = "slices") -> pl.DataFrame:
        """A table of the report: `rows` is "slices", "through", "forwards", "ledger" or "feeds"."""
        if rows == "slices":
            from volsurf.diagnostics.quality_view import slices_frame

            return slices_frame(self)
        if rows == "through" and self.through is not None:
            return self.through.to_polars()
        if rows == "forwards":
            return forwards_frame(self.forwards)
        if rows == "ledger":
            from volsurf.diagnostics.quality_view import ledger_frame

            return ledger_frame(self)
        if rows == "feeds":
            from volsurf.diagnostics.liveness import liveness_frame

            return liveness_frame(self.feeds)
        raise InputError(f'rows must be "slices", "through", "forwards", "ledger" or "feeds", was {rows!r}')

    def plot_residuals(self) -> go.Figure:
        """Residuals by strike in error bars, one panel an expiry, as a plotly figure: noise is a cloud, a wrong shape a wave."""
        from volsurf.diagnostics.figures import residuals_figure

        return residuals_figure(self.smiles)


def diagnose(
    surface: Surface,
    quotes: QuoteVols,
    *,
    history: ThroughHistory | None = None,
    timings: Mapping[str, float] | None = None,
    feeds: Mapping[str, Feed] | None = None,
) -> Report:
    """The ledger of a surface's quotes, the health of each fit, the forwards, and every quote against the curve.

    Args:
        surface: may be older than the quotes, as one is that an engine carries between refits: how well it fits is then as of its
            own quotes, and the ledger, the forwards and what trades through it are as of these.
        history: takes this frame in; edges and misshapen smiles are then judged by the last frames, not by this one alone.
        timings: microseconds by step, from a caller with a clock; passed through to the report.
        feeds: how the feeds are, `Frame.health`; passed through to the report.

    Raises:
        InputError: the quotes do not hold the surface's underlying, or are older than the surface.
    """
    matrix = through_matrix(surface, quotes, history)
    reason = final_reasons((surface,), quotes)
    mine = quotes.underlying_id == quotes.underlyings.index(surface.underlying)
    # Rows that never became an option name no underlying for certain: with several they are in the whole ledger only.
    alone = len(quotes.underlyings) == 1
    by_expiry = ledgers(quotes, "expiry", reason=reason, rows=mine, refused=alone)
    by_venue = ledgers(quotes, "venue", reason=reason, rows=mine, refused=alone)
    refused = quotes.refused if alone else quotes.refused[:0]
    ledger = Ledger.of(
        np.concatenate((reason[mine], refused)), np.concatenate((quotes.side[mine], np.zeros(len(refused), np.int8)))
    )
    numbers = misfit(surface.smiles)
    wrong = numbers.wrong_shape.tolist()
    if history is not None:
        wrong = history.shapes.update(surface.underlying, quotes.time_ns, surface.expiries.tolist(), wrong)
    position = {int(expiry): i for i, expiry in enumerate(matrix.expiries)}
    bounds = np.searchsorted(matrix.expiry, np.arange(len(matrix.expiries) + 1))
    slices = []
    for i, smile in enumerate(surface.smiles):
        place = position.get(smile.expiry_ns)
        if place is None:
            continue
        cells = matrix.select(np.arange(bounds[place], bounds[place + 1]))
        own = by_expiry[smile.expiry_label]
        slices.append(slice_health(surface.smiles, i, own, cells, numbers, shape_misfit=wrong[i]))
    certificate = surface.certificate
    return Report(
        underlying=surface.underlying,
        time_ns=quotes.time_ns,
        surface_time_ns=surface.time_ns,
        ledger=ledger,
        slices=tuple(slices),
        certificate=certificate.sentence,
        ledger_by_expiry=by_expiry,
        ledger_by_venue=by_venue,
        through=matrix,
        forwards=forward_checks(quotes, surface.underlying),
        evidence=certificate.evidence,
        timings=None if timings is None else dict(timings),
        smiles=surface.smiles,
        feeds={} if feeds is None else dict(feeds),
    )
