"""The shapes that slices are weakly pulled to, held for a second at a time.

The prior of a slice is centred at the median shape of its neighbours in the last surface. Taken anew at every frame it couples
frames: neighbours follow each other's noise round and round, and a refit of the same quotes is not the same fit. Whoever makes
frames therefore keeps one of these and lets the centres move once a second.
"""

from __future__ import annotations

import numpy as np

from volsurf.instruments import FloatArray
from volsurf.surface.smile_columns import SmileColumns

HELD_NS = 1_000_000_000


class PriorCentres:
    """Centres of the slices of any number of underlyings, by underlying and expiry."""

    def __init__(self) -> None:
        self._taken_ns: dict[str, int] = {}
        self._centres: dict[str, dict[int, FloatArray]] = {}

    def of(self, columns: SmileColumns) -> FloatArray:
        """(smiles, 5) in the fit's scaled coordinates; NaN where the neighbours are to be asked again."""
        rows = np.full((len(columns), 5), np.nan)
        for name in dict.fromkeys(columns.underlying):
            if not self._is_held(name, columns):
                continue
            known = self._centres[name]
            place = columns.of_underlying(name)
            for i, expiry_ns in enumerate(columns.expiry_ns[place].tolist(), place.start):
                if expiry_ns in known:
                    rows[i] = known[expiry_ns]
        return rows

    def learn(self, columns: SmileColumns, given: FloatArray, used: FloatArray) -> None:
        """Keep what a fit used where `of` had nothing; a slice that stands alone has no neighbours to keep the shape of."""
        fresh = np.isnan(given[:, 0]) & np.isfinite(used[:, 0])
        for name in dict.fromkeys(columns.underlying):
            place = columns.of_underlying(name)
            if place.stop - place.start < 2:
                continue
            if not self._is_held(name, columns):
                self._taken_ns[name], self._centres[name] = _time_of(name, columns), {}
            known = self._centres[name]
            known.update((int(columns.expiry_ns[i]), used[i]) for i in range(place.start, place.stop) if fresh[i])

    def _is_held(self, name: str, columns: SmileColumns) -> bool:
        taken_ns = self._taken_ns.get(name)
        # A clock that was set back lets go of them as well.
        return taken_ns is not None and 0 <= _time_of(name, columns) - taken_ns < HELD_NS


def _time_of(name: str, columns: SmileColumns) -> int:
    return int(columns.time_ns[columns.of_underlying(name)].max())
