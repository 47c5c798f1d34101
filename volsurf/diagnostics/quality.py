"""How good a surface is, and what became of every quote behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.errors import InputError

if TYPE_CHECKING:
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.slices import Smile
    from volsurf.surface.surface import Surface

__all__ = ["Ledger", "QuoteReason", "Report", "SliceHealth", "diagnose", "final_reasons", "whole_ledger"]

THIN_QUOTES = 7
"""With fewer two-sided quotes a fit differs from the market's own mark by several vol points now and then."""
LOW_INSIDE = 0.9


@dataclass(frozen=True, slots=True)
class SliceHealth:
    """One expiry: its share of the ledger, how well the curve goes through the quotes, and what to look at."""

    label: str
    expiry_ns: int
    ledger: Ledger
    """Over all options listed for the expiry."""
    two_sided: int
    """Quotes used that have both sides."""
    inside: float
    """Share of the two-sided quotes used that hold the curve; NaN where there is none."""
    rms: float
    """Of (fit - quote) / error bar over the used quotes."""
    autocorrelation: float
    """Of neighbouring residuals by strike: near 1 the curve has the wrong shape, near 0 the misfit is noise."""
    shape_misfit: bool
    """The residuals are larger than the error bars and alike over whole ranges of strikes: five parameters are too few here."""
    certified: bool
    result: str
    """How the fit ended, in a sentence."""
    notes: tuple[str, ...]
    """What a trader should know before using it, in sentences; empty if there is nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What `diagnose` found."""

    underlying: str
    time_ns: int
    ledger: Ledger
    """Over all rows of the underlying, after the fit: outliers have their own reason."""
    slices: tuple[SliceHealth, ...]
    certificate: str
    """The surface's certificate in a sentence."""

    @property
    def inside(self) -> float:
        """Share of two-sided used quotes whose bid and ask hold the curve, over all expiries."""
        counts = sum(s.two_sided for s in self.slices)
        return sum(s.inside * s.two_sided for s in self.slices if s.two_sided) / counts if counts else float("nan")

    def __repr__(self) -> str:
        return (
            f"Report({self.underlying}, {self.ledger.used:,d} of {self.ledger.rows:,d} rows used, {self.inside:.1%} hold the "
            f"curve, {len(self.slices)} expiries)"
        )

    def __str__(self) -> str:
        lines = [f"{self.underlying}: {self.certificate}", "", str(self.ledger), ""]
        for s in self.slices:
            lines.append(f"{s.label:>14}  inside {s.inside:6.1%}  rms {s.rms:5.2f}  {s.result}")
            lines.extend(f"{'':16}{note}" for note in s.notes)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        body = "".join(
            f"<tr><th style='text-align:right'>{escape(s.label)}</th><td>{s.ledger.used}/{s.ledger.rows}</td>"
            f"<td>{s.inside:.1%}</td><td>{s.rms:.2f}</td><td style='text-align:left'>{escape(s.result)}</td>"
            f"<td style='text-align:left'>{'<br>'.join(escape(note) for note in s.notes)}</td></tr>"
            for s in self.slices
        )
        head = "<tr><th>expiry</th><th>used</th><th>inside</th><th>rms</th><th>fit</th><th>look at</th></tr>"
        return (
            f"<p><b>{escape(self.underlying)}</b>: {escape(self.certificate)}</p>{self.ledger._repr_html_()}"
            f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
        )


def diagnose(surface: Surface, quotes: QuoteVols) -> Report:
    """The ledger of a surface's quotes and the health of each fit.

    Raises:
        InputError: the quotes are not those the surface was fitted to.
    """
    if surface.underlying not in quotes.underlyings:
        raise InputError(f"the quotes hold {', '.join(quotes.underlyings)}, the surface is of {surface.underlying}")
    if surface.time_ns != quotes.time_ns:
        raise InputError(f"the surface is of {surface.time_ns} ns, the quotes are of {quotes.time_ns} ns")
    reason = final_reasons((surface,), quotes)
    number = quotes.underlyings.index(surface.underlying)
    mine = quotes.underlying_id == number
    smiles = {s.expiry_ns: s for s in surface.smiles}
    slices: list[SliceHealth] = []
    for i in np.flatnonzero(quotes.layout.underlying_id == number).tolist():
        smile = smiles.get(int(quotes.layout.expiry_ns[i]))
        if smile is None:
            continue
        rows = slice(quotes.expiry_start[i], quotes.expiry_start[i + 1])
        slices.append(_health(smile, Ledger.of(reason[rows], quotes.side[rows])))
    if len(quotes.underlyings) == 1:
        reason = np.concatenate((reason[mine], quotes.refused))
        side = np.concatenate((quotes.side[mine], np.zeros(len(quotes.refused), np.int8)))
    else:
        reason, side = reason[mine], quotes.side[mine]
    return Report(
        surface.underlying, surface.time_ns, Ledger.of(reason, side), tuple(slices), surface.certificate.sentence
    )


def final_reasons(surfaces: Iterable[Surface], quotes: QuoteVols) -> npt.NDArray[np.uint8]:
    """The reason of every row of `quotes` once the fits have spoken: their outliers are marked."""
    reason = quotes.reason.copy()
    rows = np.full(len(quotes.layout.universe), -1, np.int64)
    rows[quotes.instrument_id] = np.arange(len(quotes))
    for surface in surfaces:
        for smile in surface.smiles:
            outliers = smile.instrument_id[smile.reason == QuoteReason.OUTLIER]
            reason[rows[outliers]] = QuoteReason.OUTLIER
    return reason


def whole_ledger(surfaces: Iterable[Surface], quotes: QuoteVols) -> Ledger:
    """Ledger of all rows, those that never became an option and those of other underlyings included, after the fits."""
    reason = np.concatenate((final_reasons(surfaces, quotes), quotes.refused))
    return Ledger.of(reason, np.concatenate((quotes.side, np.zeros(len(quotes.refused), np.int8))))


def _health(smile: Smile, ledger: Ledger) -> SliceHealth:
    fit = smile.fit
    notes: list[str] = []
    if smile.forward_flagged:
        notes.append(f"forward: {smile.forward_sentence}; parity differs from the venue by {smile.mismatch_bp:+.1f} bp")
    if fit is None:
        notes.append("no quote of its own and no neighbour to take the shape from")
        return SliceHealth(
            smile.expiry_label, smile.expiry_ns, ledger, 0, *(np.nan,) * 3, False, False, "not fitted", tuple(notes)
        )
    u = _residuals(smile)
    correlation, runs = _shape(u)
    # Five parameters cannot follow a shelf and a kink: large residuals, alike over whole ranges of strikes.
    misfit = len(u) >= THIN_QUOTES and fit.rms > 1.0 and correlation > 0.4 and runs < len(u) / 3
    if fit.is_synthetic:
        notes.append("synthetic: no usable quote, shape and level are those of the neighbouring expiries")
    elif fit.n_two_sided < THIN_QUOTES:
        notes.append(f"thin: {fit.n_two_sided} two-sided quotes, so the neighbours' shape carries much of the curve")
    if misfit:
        notes.append(
            "the smile has a shape that five parameters cannot follow: trust the quotes, not the curve, between them"
        )
    elif fit.inside < LOW_INSIDE:
        notes.append(f"only {fit.inside:.0%} of the quotes hold the curve")
    if not fit.is_certified:
        notes.append(fit.failure_sentence)
    outliers = ledger.counts.get(QuoteReason.OUTLIER, 0)
    if outliers:
        notes.append(f"{outliers} quote{'s' if outliers > 1 else ''} more than six error bars off, left out")
    return SliceHealth(
        smile.expiry_label,
        smile.expiry_ns,
        ledger,
        fit.n_two_sided,
        fit.inside,
        fit.rms,
        correlation,
        misfit,
        fit.is_certified,
        fit.sentence,
        tuple(notes),
    )


def _residuals(smile: Smile) -> npt.NDArray[np.float64]:
    """(fit - quote) / error bar of the two-sided used quotes, by strike."""
    keep = smile.used & (smile.side == 0)
    return np.asarray((smile.fitted_vol(smile.log_moneyness[keep]) - smile.vol[keep]) / smile.error[keep])


def _shape(u: npt.NDArray[np.float64]) -> tuple[float, int]:
    """Lag-1 autocorrelation, and the number of runs of one sign."""
    if len(u) < 3:
        return 0.0, len(u)
    d = u - u.mean()
    spread = float((d**2).sum())
    correlation = float((d[1:] * d[:-1]).sum()) / spread if spread > 0 else 0.0
    return correlation, 1 + int((np.sign(d[1:]) != np.sign(d[:-1])).sum())
