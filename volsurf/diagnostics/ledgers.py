"""What became of every row, as ledgers: of all rows, and by underlying, expiry or venue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import Ledger, QuoteReason
from volsurf.errors import InputError
from volsurf.instruments import BoolArray

if TYPE_CHECKING:
    from volsurf.surface.quote_vols import QuoteVols
    from volsurf.surface.surface import Surface

REFUSED = "unreadable"
"""Under this name `ledgers` counts the rows that never became an option: they have no venue or expiry to go by."""


def final_reasons(surfaces: Iterable[Surface], quotes: QuoteVols) -> npt.NDArray[np.uint8]:
    """The reason of every row of `quotes` once the fits have spoken: their outliers are marked."""
    reason = quotes.reason.copy()
    rows = np.full(len(quotes.layout.universe), -1, np.int64)
    rows[quotes.instrument_id] = np.arange(len(quotes))
    for surface in surfaces:
        if not surface.smiles:
            continue
        ids, strike, smile_reason = (
            np.concatenate([getattr(smile, name) for smile in surface.smiles])
            for name in ("instrument_id", "strike", "reason")
        )
        outlier = (smile_reason == QuoteReason.OUTLIER) & (ids < len(rows))
        marked, strike = rows[ids[outlier]], strike[outlier]
        # By quotes of a later chain an id can name another option; and what is not used any more has a reason of its own.
        marked = marked[(marked >= 0) & (quotes.strike[marked] == strike) & (reason[marked] == QuoteReason.USED)]
        reason[marked] = QuoteReason.OUTLIER
    return reason


def whole_ledger(surfaces: Iterable[Surface], quotes: QuoteVols) -> Ledger:
    """Ledger of all rows, those that never became an option and those of other underlyings included, after the fits."""
    reason = np.concatenate((final_reasons(surfaces, quotes), quotes.refused))
    return Ledger.of(reason, np.concatenate((quotes.side, np.zeros(len(quotes.refused), np.int8))))


def ledgers(
    quotes: QuoteVols,
    by: str,
    *,
    reason: npt.NDArray[np.uint8] | None = None,
    rows: BoolArray | None = None,
    refused: bool = True,
) -> dict[str, Ledger]:
    """The rows of `quotes` in several ledgers that add up to the whole.

    Args:
        by: "underlying", "expiry" or "venue".
        reason: of each row, as `final_reasons` returns them; before the fits if not given.
        rows: which rows to count; all of them if not given.
        refused: count the rows that never became an option too, under "unreadable".
    """
    from volsurf.surface.slices import expiry_label

    layout = quotes.layout
    if by == "underlying":
        code, names = quotes.underlying_id.astype(np.int64), list(quotes.underlyings)
    elif by == "expiry":
        # One expiry of two underlyings is one entry.
        times, position = np.unique(layout.expiry_ns, return_inverse=True)
        code, names = position[layout.group], [expiry_label(int(t)) for t in times]
    elif by == "venue":
        code, names = layout.venue.astype(np.int64), list(layout.venues)
    else:
        raise InputError(f'ledgers are by "underlying", "expiry" or "venue", was {by!r}')
    reason = quotes.reason if reason is None else reason
    side = quotes.side
    if rows is not None:
        code, reason, side = code[rows], reason[rows], side[rows]
    order = np.argsort(code, kind="stable")
    bounds = np.searchsorted(code[order], np.arange(len(names) + 1))
    made = {}
    for i, name in enumerate(names):
        mine = order[bounds[i] : bounds[i + 1]]
        if len(mine):
            made[name] = Ledger.of(reason[mine], side[mine])
    if refused and len(quotes.refused):
        made[REFUSED] = Ledger.of(quotes.refused)
    return made
