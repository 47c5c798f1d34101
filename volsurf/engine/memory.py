"""What the core remembers of an underlying from one frame to the next, and when that no longer does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import FloatArray
from volsurf.surface.quote_vols import QuoteVols
from volsurf.surface.slices import Smile
from volsurf.surface.smile_columns import SmileColumns
from volsurf.surface.surface import Surface

if TYPE_CHECKING:
    from volsurf.engine.core import CoreRules

_REASONS = {int(reason): reason.name for reason in QuoteReason}


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The quotes that a surface was fitted to, as they were before the fit."""

    columns: SmileColumns
    smiles: slice
    """Of the columns, those of this underlying."""
    deviation: FloatArray
    """Total standard deviation of each at the money; infinite where there was no curve."""

    @classmethod
    def of(cls, columns: SmileColumns, smiles: slice, surface: Surface | None) -> Basis:
        """What the surface was made of; None where nothing came of it."""
        if surface is None:
            return cls(columns, smiles, np.full(smiles.stop - smiles.start, math.inf))
        return cls(columns, smiles, np.array([_deviation(smile) for smile in surface.smiles]))

    def is_left_behind(self, columns: SmileColumns, smiles: slice, rules: CoreRules) -> bool:
        """Whether today's quotes are others, or moved by more than the rules leave alone."""
        old, before = self.columns, self.smiles
        if not np.array_equal(columns.expiry_ns[smiles], old.expiry_ns[before]):
            return True
        now, then = columns.quotes_of(smiles), old.quotes_of(before)
        for column in ("instrument_id", "reason", "side"):
            if not np.array_equal(getattr(columns, column)[now], getattr(old, column)[then]):
                return True
        # Forwards are what venues say: their ratio may be anything, and is no move only where it is one.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
            moved = np.abs(columns.vol[now] - old.vol[then]) > rules.quote_move * old.error[then]
            drift = np.abs(np.log(columns.forward[smiles] / old.forward[before]))
            # Of several markets in an expiry each has a forward of its own, which shows in the moneyness of its quotes only.
            shift = np.abs(columns.log_moneyness[now] - old.log_moneyness[then])
            allowed = np.repeat(
                rules.forward_move * self.deviation, np.diff(columns.offsets[smiles.start : smiles.stop + 1])
            )
        return bool(moved.any() or (drift > rules.forward_move * self.deviation).any() or (shift > allowed).any())


@dataclass(slots=True)
class Underlying:
    """What the core remembers of one underlying between frames."""

    surface: Surface | None = None
    basis: Basis | None = None
    fitted_ns: int = 0
    changed: bool = True
    """Something that matters was written to the board since the last look."""
    settled: bool = False
    """It was fitted while one of its feeds was whole; from then on a feed that is not whole leaves the surface as it is."""
    trouble: str = ""
    """Why its last fit gave no surface, in words."""
    ledger: dict[str, int] | None = None


def count_reasons(quotes: QuoteVols, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """By underlying, its quotes by reason: used ones first, then the most frequent."""
    kinds = len(QuoteReason)
    owner = quotes.layout.underlying_id[quotes.layout.group].astype(np.int64)
    tally = np.bincount(owner * kinds + quotes.reason, minlength=len(quotes.underlyings) * kinds).reshape(-1, kinds)
    counts: dict[str, dict[str, int]] = {}
    for name in names:
        mine = tally[quotes.underlyings.index(name)].tolist()
        reasons = sorted((r for r, count in enumerate(mine) if count), key=lambda r: (r > 1, -mine[r], r))
        counts[name] = {_REASONS[r]: mine[r] for r in reasons}
    return counts


def add_outliers(ledger: dict[str, int], surface: Surface) -> None:
    """The fit has the last word on outliers."""
    reason = np.concatenate([smile.reason for smile in surface.smiles])
    outliers = int(np.count_nonzero(reason == int(QuoteReason.OUTLIER)))
    if outliers:
        ledger[QuoteReason.USED.name] -= outliers
        ledger[QuoteReason.OUTLIER.name] = ledger.get(QuoteReason.OUTLIER.name, 0) + outliers


def _deviation(smile: Smile) -> float:
    fit = smile.fit
    if fit is None:
        return math.inf
    # Total variance at the forward, with plain numbers: this runs for every smile of every frame.
    w = fit.a + fit.b * (math.hypot(fit.m, fit.sigma) - fit.rho * fit.m)
    return math.sqrt(max(w, 0.0))
