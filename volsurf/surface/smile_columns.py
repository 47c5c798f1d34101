"""All smiles of an instant as columns: what the batch fit reads and the frame compares, without an object for each smile.

A smile's quotes are the rows `offsets[i]:offsets[i + 1]` of the columns; `smiles` cuts them into `Smile` objects, views of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.instruments import BoolArray, FloatArray, IdArray, IntArray
from volsurf.surface.quote_vols import QuoteVols
from volsurf.surface.slices import SliceFit, Smile

QUOTE_COLUMNS = (
    "strike",
    "log_moneyness",
    "bid_vol",
    "ask_vol",
    "vol",
    "error",
    "side",
    "is_call",
    "instrument_id",
    "reason",
)
"""The columns of a smile's quotes, in the order of `Smile`'s fields."""

_SLICE_COLUMNS = (
    "expiry_ns",
    "time_ns",
    "forward",
    "years",
    "forward_source",
    "forward_error",
    "mismatch_bp",
    "forward_flagged",
)


@dataclass(frozen=True, slots=True, eq=False)
class SmileColumns:
    """Smiles sorted by underlying and expiry; arrays of shape (smiles,), or (quotes,) where `Smile` has a column."""

    underlying: tuple[str, ...]
    expiry_ns: IntArray
    time_ns: IntArray
    forward: FloatArray
    years: FloatArray
    forward_source: npt.NDArray[np.int8]
    forward_error: FloatArray
    mismatch_bp: FloatArray
    forward_flagged: BoolArray
    offsets: IntArray
    """First quote of each smile, and the number of quotes, shape (smiles + 1,)."""
    strike: FloatArray
    log_moneyness: FloatArray
    bid_vol: FloatArray
    ask_vol: FloatArray
    vol: FloatArray
    error: FloatArray
    side: npt.NDArray[np.int8]
    is_call: BoolArray
    instrument_id: IdArray
    reason: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, quotes: QuoteVols) -> SmileColumns:
        """The smiles of every underlying and expiry, as `build_smiles` makes them."""
        layout, f, reason = quotes.layout, quotes.expiry_forwards, quotes.reason
        first = layout.start[:-1]
        over = np.isin(reason[first], (int(QuoteReason.EXPIRED), int(QuoteReason.EXPIRING)))
        kept = np.flatnonzero(~over & np.isfinite(f.forward))
        drawn = np.isfinite(quotes.vol) & (reason != int(QuoteReason.AVERAGED)) & (reason != int(QuoteReason.ITM_LEG))
        if len(kept) < len(first):
            wanted = np.zeros(len(first), np.bool_)
            wanted[kept] = True
            drawn &= wanted[layout.group]
        rows = np.flatnonzero(drawn)
        bounds = np.searchsorted(rows, layout.start)
        # Universes number underlyings as they are listed; surfaces are in the order of their names.
        names = [quotes.underlyings[i] for i in layout.underlying_id[kept].tolist()]
        made = cls(
            underlying=tuple(names),
            expiry_ns=layout.expiry_ns[kept],
            time_ns=np.full(len(kept), quotes.time_ns),
            forward=f.forward[kept],
            years=quotes.expiry_years[kept],
            forward_source=f.source[kept],
            forward_error=f.standard_error[kept],
            mismatch_bp=f.mismatch_bp[kept],
            forward_flagged=f.flagged[kept],
            offsets=np.concatenate((bounds[kept], bounds[-1:])),
            **{name: getattr(quotes, name)[rows] for name in QUOTE_COLUMNS},
        )
        return made if names == sorted(names) else made.select(sorted(range(len(names)), key=names.__getitem__))

    @classmethod
    def of_smiles(cls, smiles: Sequence[Smile]) -> SmileColumns:
        """The columns of smiles that somebody made or chose; their fits are left behind."""
        ordered = sorted(smiles, key=lambda s: (s.underlying, s.expiry_ns))
        lengths = [0, *(len(s.strike) for s in ordered)]
        return cls(
            underlying=tuple(s.underlying for s in ordered),
            offsets=np.cumsum(lengths, dtype=np.int64),
            **{name: np.array([getattr(s, name) for s in ordered]) for name in _SLICE_COLUMNS},
            **{name: np.concatenate([getattr(s, name) for s in ordered]) for name in QUOTE_COLUMNS},
        )

    def __len__(self) -> int:
        return len(self.underlying)

    @property
    def surface(self) -> IntArray:
        """Number of each smile's underlying, counted from 0 in order."""
        names = self.underlying
        return np.cumsum([a != b for a, b in zip(names, (*names[:1], *names), strict=False)], dtype=np.int64)

    def of_underlying(self, name: str) -> slice:
        """The smiles of one underlying."""
        if name not in self.underlying:
            return slice(0, 0)
        first = self.underlying.index(name)
        return slice(first, first + self.underlying.count(name))

    def quotes_of(self, smiles: slice) -> slice:
        """The rows of consecutive smiles."""
        return slice(int(self.offsets[smiles.start]), int(self.offsets[smiles.stop]))

    def select(self, smiles: Sequence[int]) -> SmileColumns:
        """Some of the smiles, in the order given."""
        index = np.asarray(smiles, np.int64)
        lengths = np.diff(self.offsets)[index]
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        rows = np.repeat(self.offsets[index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return SmileColumns(
            underlying=tuple(self.underlying[i] for i in index.tolist()),
            offsets=offsets,
            **{name: getattr(self, name)[index] for name in _SLICE_COLUMNS},
            **{name: getattr(self, name)[rows] for name in QUOTE_COLUMNS},
        )

    def smiles(
        self, fits: Sequence[SliceFit | None] | None = None, reason: npt.NDArray[np.uint8] | None = None
    ) -> list[Smile]:
        """A `Smile` of each, with its fit, and with the reasons as a fit left them."""
        bounds = self.offsets.tolist()
        columns = [getattr(self, name) for name in QUOTE_COLUMNS[:-1]] + [self.reason if reason is None else reason]
        scalars = (getattr(self, name).tolist() for name in _SLICE_COLUMNS)
        rows = zip(self.underlying, *scalars, strict=True)
        made = []
        for i, (name, expiry_ns, time_ns, forward, years, source, error, mismatch_bp, flagged) in enumerate(rows):
            mine = slice(bounds[i], bounds[i + 1])
            fit = None if fits is None else fits[i]
            # By position: it is made for every smile of every frame.
            row: list[Any] = [name, expiry_ns, time_ns, forward, years]
            row += [column[mine] for column in columns]
            row += [source, error, mismatch_bp, flagged, fit]
            made.append(Smile(*row))
        return made
