"""What the last frames say of an edge and of a smile's shape: whether it persists, and how steady the curve is under it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from volsurf.diagnostics.through import ThroughMatrix, ThroughState
from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IntArray, Universe

FRAMES = 40
"""Frames that a history looks back on: four seconds of a live engine."""
SHAPE_FRAMES = 5
"""A smile has to look misshapen in so many frames in a row: one bad quote can do it for one."""


class ThroughHistory:
    """The last frames of through matrices, strike by strike.

    Rows belong to the instrument that names a strike (`ThroughMatrix.key`), so they survive other instruments being listed or
    retired and the forward passing the strike. A row whose strike is gone for `frames` frames is given to the next new strike:
    memory stays with the number of strikes listed, never with the number ever seen. Underlyings have a history each.
    """

    def __init__(self, frames: int = FRAMES) -> None:
        if frames < 1:
            raise InputError(f"a history needs at least one frame, was {frames!r}")
        self.frames = frames
        self.shapes = ShapeWatch()
        """The same for the shape of each expiry's smile."""
        self._rings: dict[str, _Ring] = {}

    def __repr__(self) -> str:
        known = ", ".join(f"{name} {len(ring)} strikes" for name, ring in self._rings.items())
        return f"ThroughHistory(frames={self.frames}; {known or 'empty'}; {self.nbytes / 1e6:.1f} MB)"

    @property
    def nbytes(self) -> int:
        """Memory of the columns."""
        return sum(ring.nbytes for ring in self._rings.values())

    def update(self, matrix: ThroughMatrix) -> ThroughMatrix:
        """Take a frame in; its matrix with `frames`, `persistence`, `fit_stability_bp` and `u_stability`.

        A frame of the same time as the last one replaces it, so that looking twice does not count twice.

        Raises:
            InputError: the matrix is of an earlier time than the last one.
        """
        ring = self._rings.get(matrix.underlying)
        if ring is None:
            ring = self._rings[matrix.underlying] = _Ring(self.frames, matrix.universe)
        return ring.update(matrix)


class _Ring:
    """Frames as rows of arrays of shape (frames, slots)."""

    def __init__(self, frames: int, universe: Universe) -> None:
        self._frames = frames
        self._universe = universe
        self._slot: IntArray = np.full(len(universe), -1, np.int64)
        self._time_ns: int | None = None
        self._now = -1
        self._state = np.full((frames, 0), -1, np.int8)
        self._fit = np.full((frames, 0), np.nan)
        self._u = np.full((frames, 0), np.nan)

    def __len__(self) -> int:
        return int((self._slot >= 0).sum())

    @property
    def nbytes(self) -> int:
        return self._slot.nbytes + self._state.nbytes + self._fit.nbytes + self._u.nbytes

    def update(self, matrix: ThroughMatrix) -> ThroughMatrix:
        if self._time_ns is not None and matrix.time_ns < self._time_ns:
            raise InputError(
                f"the history of {matrix.underlying} has a frame of {self._time_ns} ns, was given one of {matrix.time_ns} ns: "
                "start a new ThroughHistory to go back in time"
            )
        if matrix.universe is not self._universe:
            self._move_to(matrix.universe)
        if self._time_ns != matrix.time_ns:
            self._now = (self._now + 1) % self._frames
        self._time_ns = matrix.time_ns
        now = self._now
        self._state[now], self._fit[now], self._u[now] = -1, np.nan, np.nan
        slots = self._slots(matrix.key)
        # As long as nothing was listed or retired the slots are in order, and a view does.
        slot = slice(0, len(slots)) if np.array_equal(slots, np.arange(len(slots))) else slots
        self._state[now, slot], self._fit[now, slot], self._u[now, slot] = matrix.state, matrix.fitted_vol, matrix.u
        state = self._state[:, slot]
        is_bid, is_ask = state == ThroughState.BID_THROUGH, state == ThroughState.ASK_THROUGH
        bids, asks = is_bid.sum(axis=0), is_ask.sum(axis=0)
        mine = matrix.state
        held = np.where(
            mine == ThroughState.BID_THROUGH, bids, np.where(mine == ThroughState.ASK_THROUGH, asks, bids + asks)
        )
        return replace(
            matrix,
            frames=(state >= 0).sum(axis=0).astype(np.int16),
            persistence=held.astype(np.int16),
            fit_stability_bp=1e4 * _deviation(self._fit[:, slot]),
            u_stability=_deviation(self._u[:, slot]),
        )

    def _slots(self, key: npt.NDArray[np.integer]) -> IntArray:
        """Column of each strike, new ones included."""
        if len(self._universe) > len(self._slot):
            self._slot = np.concatenate((self._slot, np.full(len(self._universe) - len(self._slot), -1, np.int64)))
        fresh = key[self._slot[key] < 0]
        if len(fresh):
            gone: BoolArray = np.all(self._state < 0, axis=0)
            # A strike that is here now is not gone, though this frame's row is still empty.
            gone[self._slot[key[self._slot[key] >= 0]]] = False
            owners = np.flatnonzero(self._slot >= 0)
            self._slot[owners[gone[self._slot[owners]]]] = -1
            free = np.flatnonzero(gone)
            missing = len(fresh) - len(free)
            if missing > 0:
                free = np.concatenate((free, np.arange(missing) + self._state.shape[1]))
                pad = ((0, 0), (0, missing))
                self._state = np.pad(self._state, pad, constant_values=-1)
                self._fit = np.pad(self._fit, pad, constant_values=np.nan)
                self._u = np.pad(self._u, pad, constant_values=np.nan)
            self._slot[fresh] = free[: len(fresh)]
        return np.asarray(self._slot[key])

    def _move_to(self, universe: Universe) -> None:
        """The ids of another table of instruments, by venue and symbol: chains of successive instants number their own."""
        slot = np.full(len(universe), -1, np.int64)
        for known in np.flatnonzero(self._slot >= 0).tolist():
            row = self._universe[known]
            found = universe.find(row.venue, row.symbol)
            if found is not None and universe[found].expiry_ns == row.expiry_ns:
                slot[found] = self._slot[known]
        taken = np.zeros(self._state.shape[1], np.bool_)
        taken[slot[slot >= 0]] = True
        # What the new table does not have cannot come back under its old id.
        self._state[:, ~taken], self._fit[:, ~taken], self._u[:, ~taken] = -1, np.nan, np.nan
        self._universe, self._slot = universe, slot


def _deviation(values: FloatArray) -> FloatArray:
    """Standard deviation of each column over its finite rows; NaN where there are fewer than two."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        d = np.where(known, values - np.where(known, values, 0.0).sum(axis=0) / count, 0.0)
        return np.asarray(np.where(count > 1, np.sqrt((d * d).sum(axis=0) / (count - 1)), np.nan))


class ShapeWatch:
    """For how many frames in a row each smile has looked as if five parameters could not follow it."""

    def __init__(self, frames: int = SHAPE_FRAMES) -> None:
        if frames < 1:
            raise InputError(f"a shape is watched over at least one frame, was {frames!r}")
        self.frames = frames
        self._time_ns: dict[str, int] = {}
        self._seen: dict[str, dict[int, tuple[int, int]]] = {}

    def __repr__(self) -> str:
        return f"ShapeWatch(frames={self.frames}; {sum(len(s) for s in self._seen.values())} expiries)"

    def update(self, underlying: str, time_ns: int, expiries: Iterable[int], misfit: Iterable[bool]) -> list[bool]:
        """Take a frame in and say, for each expiry, whether the misfit has lasted. A frame of the same time replaces the last.

        An expiry that is not among them is forgotten.
        """
        again = self._time_ns.get(underlying) == time_ns
        before = self._seen.get(underlying, {})
        now: dict[int, tuple[int, int]] = {}
        lasting = []
        for expiry, bad in zip(expiries, misfit, strict=True):
            last, current = before.get(expiry, (0, 0))
            start = last if again else current
            now[expiry] = (start, start + 1 if bad else 0)
            lasting.append(now[expiry][1] >= self.frames)
        self._seen[underlying], self._time_ns[underlying] = now, time_ns
        return lasting
