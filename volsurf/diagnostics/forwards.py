"""The venue's forward of each expiry against put-call parity of its quotes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from volsurf.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from volsurf.surface.quote_vols import QuoteVols


@dataclass(frozen=True, slots=True)
class ForwardCheck:
    """One expiry: the two forwards, how far apart they are, and what to make of it. Prices in the strike's currency."""

    label: str
    expiry_ns: int
    forward: float
    """The one in use; NaN where there is none."""
    source: str
    """`ForwardSource` in lower case."""
    venue_forward: float
    parity_forward: float
    mismatch_bp: float
    """Parity over venue, basis points; NaN if either is missing."""
    error_bp: float
    """Standard error of the forward in use, basis points."""
    pairs: int
    """Strikes with both legs two-sided, which parity is read from."""
    flagged: bool
    source_sentence: str

    @property
    def sentence(self) -> str:
        """What it means for somebody who trades on the vols."""
        if math.isnan(self.forward):
            return self.source_sentence
        if math.isnan(self.mismatch_bp):
            return self.source_sentence
        gap = f"parity is {abs(self.mismatch_bp):.1f} bp {'above' if self.mismatch_bp > 0 else 'below'} the venue"
        if not self.flagged:
            return f"{self.source_sentence}; {gap}"
        return (
            f"{self.source_sentence}; {gap}, more than noise: a call and a put of one strike disagree on the vol until one is "
            "right, so check the hedge before trading the skew"
        )


def forward_checks(quotes: QuoteVols, underlying: str) -> tuple[ForwardCheck, ...]:
    """Of every expiry of an underlying, in order of expiry."""
    from volsurf.iv.forward import ForwardSource
    from volsurf.surface.slices import expiry_label

    if underlying not in quotes.underlyings:
        raise InputError(f"no underlying {underlying!r}; there are {', '.join(quotes.underlyings)}")
    f, layout = quotes.expiry_forwards, quotes.layout
    made = []
    for i in np.flatnonzero(layout.underlying_id == quotes.underlyings.index(underlying)).tolist():
        source = ForwardSource(int(f.source[i]))
        made.append(
            ForwardCheck(
                label=expiry_label(int(layout.expiry_ns[i])),
                expiry_ns=int(layout.expiry_ns[i]),
                forward=float(f.forward[i]),
                source=source.name.lower(),
                venue_forward=float(f.venue_forward[i]),
                parity_forward=float(f.parity_forward[i]),
                mismatch_bp=float(f.mismatch_bp[i]),
                error_bp=1e4 * float(f.standard_error[i]) / float(f.forward[i]) if f.forward[i] > 0 else math.nan,
                pairs=int(f.pairs[i]),
                flagged=bool(f.flagged[i]),
                source_sentence=source.sentence,
            )
        )
    return tuple(made)


def forwards_frame(checks: Iterable[ForwardCheck]) -> pl.DataFrame:
    """One row an expiry."""
    import polars as pl

    rows = list(checks)
    names = (
        "forward",
        "source",
        "venue_forward",
        "parity_forward",
        "mismatch_bp",
        "error_bp",
        "pairs",
        "flagged",
        "sentence",
    )
    kinds = {"source": pl.String, "pairs": pl.Int64, "flagged": pl.Boolean, "sentence": pl.String}
    return pl.DataFrame(
        [
            pl.Series("expiry", [c.expiry_ns for c in rows], pl.Int64).cast(pl.Datetime("ns", "UTC")),
            *(pl.Series(name, [getattr(c, name) for c in rows], kinds.get(name, pl.Float64)) for name in names),
        ]
    )


def forwards_html(checks: Iterable[ForwardCheck]) -> str:
    """A table with what to look at first in colour."""
    from volsurf.diagnostics.page import number
    from volsurf.surface.html import BAD

    def row(c: ForwardCheck) -> str:
        flag = f"<span style='color:{BAD}'>⚑</span> " if c.flagged else ""
        return (
            f"<tr><th>{escape(c.label)}</th><td>{number(c.forward, 2)}</td><td>{number(c.venue_forward, 2)}</td>"
            f"<td>{number(c.parity_forward, 2)}</td><td>{number(c.mismatch_bp, 1, sign=True)}</td>"
            f"<td>{number(c.error_bp, 1)}</td><td>{c.pairs}</td><td class='text'>{flag}{escape(c.sentence)}</td></tr>"
        )

    heads = ("expiry", "forward", "venue", "parity", "parity − venue, bp", "± se, bp", "pairs")
    head = "".join(f"<th>{h}</th>" for h in heads) + "<th class='text'>meaning</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(row(c) for c in checks)}</tbody></table>"
