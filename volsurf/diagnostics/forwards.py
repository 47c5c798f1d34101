"""The venue's forward of each market against put-call parity of its quotes, and the markets of an expiry against each other.

A market is one expiry at one venue, with strikes in one currency and premiums settled one way. Where an expiry has several, one
of them speaks for it, and the others are shown by how far they stand off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from volsurf.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from volsurf.surface.quote_vols import QuoteVols


_DISCOUNT_ERRORS = 4.0
_DISCOUNT_GAP = 0.002
"""Smaller gaps in a discount factor move a vol by less than a spread."""


@dataclass(frozen=True, slots=True)
class ForwardCheck:
    """One market: the two forwards, how far apart they are, and what to make of it. Prices in the strike's currency."""

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
    market: str = ""
    """Such as "okx USD inverse"."""
    is_reference: bool = True
    """Its forward is shown as that of the expiry."""
    is_alone: bool = True
    """The expiry has no other market."""
    basis_bp: float = math.nan
    """Its forward over the reference's, basis points."""
    discount: float = 1.0
    """Discount factor of its premiums that the vols assume."""
    parity_discount: float = math.nan
    """What the slope of parity over the strikes shows; NaN for coin premiums and below four pairs."""
    discount_error: float = math.nan
    """Standard error of that."""

    @property
    def name(self) -> str:
        """The expiry, and the market where there are several."""
        return self.label if self.is_alone else f"{self.label} {self.market}"

    @property
    def is_discount_odd(self) -> bool:
        """The quotes show a discount other than the one the vols assume, by more than noise."""
        gap = abs(self.parity_discount - self.discount)
        return gap > max(_DISCOUNT_ERRORS * self.discount_error, _DISCOUNT_GAP)

    @property
    def sentence(self) -> str:
        """What it means for somebody who trades on the vols."""
        return self._forward_sentence + self._discount_sentence

    @property
    def _discount_sentence(self) -> str:
        if not self.is_discount_odd:
            return ""
        return (
            f"; the slope of parity over the strikes shows a discount factor of {self.parity_discount:.4f} ± "
            f"{self.discount_error:.4f} and the vols assume {self.discount:.4f}"
        )

    @property
    def _forward_sentence(self) -> str:
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
    """Of every market of an underlying, in order of expiry; the one that speaks for the expiry comes first."""
    from volsurf.iv.forward import ForwardSource
    from volsurf.surface.slices import expiry_label

    if underlying not in quotes.underlyings:
        raise InputError(f"no underlying {underlying!r}; there are {', '.join(quotes.underlyings)}")
    f, layout = quotes.market_forwards, quotes.layout
    expiry = layout.market_expiry
    is_reference = quotes.reference[expiry] == np.arange(len(expiry))
    mine = np.flatnonzero(layout.underlying_id[expiry] == quotes.underlyings.index(underlying))
    markets_of = np.bincount(expiry, minlength=len(layout.expiry_ns))
    made = []
    for i in mine[np.lexsort((~is_reference[mine], expiry[mine]))].tolist():
        source, expiry_ns = ForwardSource(int(f.source[i])), int(layout.expiry_ns[expiry[i]])
        first = int(layout.market_start[i])
        row = first if layout.by_market is None else int(layout.by_market[first])
        shown = float(f.forward[quotes.reference[expiry[i]]])
        check = ForwardCheck(
            label=expiry_label(expiry_ns),
            expiry_ns=expiry_ns,
            forward=float(f.forward[i]),
            source=source.name.lower(),
            venue_forward=float(f.venue_forward[i]),
            parity_forward=float(f.parity_forward[i]),
            mismatch_bp=float(f.mismatch_bp[i]),
            error_bp=1e4 * float(f.standard_error[i]) / float(f.forward[i]) if f.forward[i] > 0 else math.nan,
            pairs=int(f.pairs[i]),
            flagged=bool(f.flagged[i]),
            source_sentence=source.sentence,
            market=layout.market_name(i),
            is_reference=bool(is_reference[i]),
            is_alone=bool(markets_of[expiry[i]] == 1),
            basis_bp=1e4 * (float(f.forward[i]) / shown - 1.0) if shown > 0 else math.nan,
            discount=float(quotes.venue_quotes.discount[row]),
            parity_discount=float(f.parity_discount[i]),
            discount_error=float(f.discount_error[i]),
        )
        made.append(replace(check, flagged=True) if check.is_discount_odd else check)
    return tuple(made)


def forwards_frame(checks: Iterable[ForwardCheck]) -> pl.DataFrame:
    """One row a market."""
    import polars as pl

    rows = list(checks)
    names = (
        "market",
        "is_reference",
        "forward",
        "source",
        "venue_forward",
        "parity_forward",
        "mismatch_bp",
        "error_bp",
        "basis_bp",
        "discount",
        "parity_discount",
        "discount_error",
        "pairs",
        "flagged",
        "sentence",
    )
    texts, flags = ("market", "source", "sentence"), ("is_reference", "flagged")
    kinds = dict.fromkeys(texts, pl.String) | dict.fromkeys(flags, pl.Boolean) | {"pairs": pl.Int64}
    return pl.DataFrame(
        [
            pl.Series("expiry", [c.expiry_ns for c in rows], pl.Int64).cast(pl.Datetime("ns", "UTC")),
            *(pl.Series(name, [getattr(c, name) for c in rows], kinds.get(name, pl.Float64)) for name in names),
        ]
    )


def forwards_html(checks: Iterable[ForwardCheck]) -> str:
    """A table with what to look at first in colour; with a column for the market where an expiry has several."""
    from volsurf.diagnostics.page import number
    from volsurf.surface.html import BAD

    rows = list(checks)
    several = any(not c.is_alone for c in rows)

    def row(c: ForwardCheck) -> str:
        flag = f"<span style='color:{BAD}'>⚑</span> " if c.flagged else ""
        market = f"<td class='text'>{escape(c.market)}</td>" if several else ""
        basis = f"<td>{'' if c.is_reference else number(c.basis_bp, 1, sign=True)}</td>" if several else ""
        label = escape(c.label) if c.is_reference else ""
        return (
            f"<tr><th>{label}</th>{market}<td>{number(c.forward, 2)}</td>{basis}<td>{number(c.venue_forward, 2)}</td>"
            f"<td>{number(c.parity_forward, 2)}</td><td>{number(c.mismatch_bp, 1, sign=True)}</td>"
            f"<td>{number(c.error_bp, 1)}</td><td>{c.pairs}</td><td class='text'>{flag}{escape(c.sentence)}</td></tr>"
        )

    market, basis = ("<th class='text'>market</th>", "<th>basis, bp</th>") if several else ("", "")
    heads = ("venue", "parity", "parity − venue, bp", "± se, bp", "pairs")
    head = f"<th>expiry</th>{market}<th>forward</th>{basis}" + "".join(f"<th>{h}</th>" for h in heads)
    body = "".join(row(c) for c in rows)
    return f"<table><thead><tr>{head}<th class='text'>meaning</th></tr></thead><tbody>{body}</tbody></table>"
