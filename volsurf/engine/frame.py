"""One tick's whole result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property

from volsurf.engine.codec import (
    Block,
    FeedStatus,
    Header,
    Problem,
    SurfaceEntry,
    encode_message,
    encode_smile,
    state_hash,
)
from volsurf.surface.slices import Smile
from volsurf.surface.surface import Surface

Blocks = Mapping[int, Block]
BlockCache = MutableMapping[tuple[str, int], tuple[Smile, Block]]


@dataclass(frozen=True, eq=False)
class Frame:
    """The surfaces of one instant, what they were made of, and how the feeds were.

    Frames are compared by `hash`: the same log gives the same hashes on any machine, live or replayed.
    """

    number: int
    """Counts from 1 in one engine."""
    time_ns: int
    """ns UTC"""
    surfaces: Mapping[str, Surface] = field(repr=False)
    """By underlying, in alphabetical order. One that did not change is the very object of the frame before."""
    health: Mapping[str, FeedStatus] = field(default_factory=dict, repr=False)
    """By feed."""
    feed_numbers: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Number of the last batch taken from each feed."""
    problems: tuple[Problem, ...] = field(default=(), repr=False)
    """What failed and was kept from the rest."""
    listed: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    """Expiries, ns UTC, of the options that are listed, by underlying."""
    ledger: Mapping[str, Mapping[str, int]] = field(default_factory=dict, repr=False)
    """By underlying, its option quotes by `QuoteReason` name at its last refit; they add up to the options listed."""
    timings: dict[str, float] = field(default_factory=dict, repr=False)
    """Milliseconds by step, measured around the core; not part of the hash."""
    _cache: BlockCache = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        slices = sum(len(s.smiles) for s in self.surfaces.values())
        return f"Frame({self.number}, {', '.join(self.surfaces) or 'no surface yet'}, {slices} slices)"

    @property
    def refitted(self) -> int:
        """Slices made in this frame; those of the other surfaces are of an earlier one."""
        return sum(len(surface) for surface in self.surfaces.values() if surface.time_ns == self.time_ns)

    @property
    def fit_us_per_slice(self) -> float:
        """Microseconds of fit, enforcement and certificates for each slice made; NaN where none was, or nobody measured."""
        slices = self.refitted
        return 1e3 * self.timings["fit"] / slices if slices and "fit" in self.timings else math.nan

    @cached_property
    def blocks(self) -> Mapping[str, Blocks]:
        """The bytes of every smile, by underlying and expiry. A smile that an earlier frame had is not encoded again."""
        blocks: dict[str, Blocks] = {}
        for underlying, surface in self.surfaces.items():
            mine: dict[int, Block] = {}
            for smile in surface.smiles:
                key = (underlying, smile.expiry_ns)
                known = self._cache.get(key)
                if known is None or known[0] is not smile:
                    known = self._cache[key] = (smile, encode_smile(smile))
                mine[smile.expiry_ns] = known[1]
            blocks[underlying] = mine
        return blocks

    @cached_property
    def hash(self) -> bytes:
        """blake2b-128 over the encoding of all surfaces. Neither the frame's number nor timings nor health are in it."""
        return state_hash({name: (s.time_ns, self.blocks[name]) for name, s in self.surfaces.items()})

    def to_bytes(self) -> bytes:
        """A snapshot."""
        return self._message(None)

    def patch(self, previous: Frame | None) -> bytes:
        """What turns `previous` into this frame; a snapshot without one."""
        return self._message(previous)

    def select(self, underlyings: Iterable[str]) -> Frame:
        """This frame with only some underlyings."""
        wanted = set(underlyings)

        def kept(name: str) -> bool:
            return name in wanted

        return Frame(
            self.number,
            self.time_ns,
            {name: s for name, s in self.surfaces.items() if kept(name)},
            self.health,
            self.feed_numbers,
            tuple(p for p in self.problems if not p.underlying or kept(p.underlying)),
            {name: expiries for name, expiries in self.listed.items() if kept(name)},
            {name: counts for name, counts in self.ledger.items() if kept(name)},
            self.timings,
            {(u, smile.expiry_ns): (smile, self.blocks[u][smile.expiry_ns]) for u, smile in self._smiles() if kept(u)},
        )

    def _smiles(self) -> Iterable[tuple[str, Smile]]:
        return ((name, smile) for name, surface in self.surfaces.items() for smile in surface.smiles)

    def _message(self, previous: Frame | None) -> bytes:
        entries: list[SurfaceEntry] = []
        sent: list[Block] = []
        for name, surface in self.surfaces.items():
            before = None if previous is None else previous.surfaces.get(name)
            if before is surface:
                continue
            had: Blocks = {} if previous is None or before is None else previous.blocks[name]
            expiries: list[tuple[int, int]] = []
            changed = before is None or before.time_ns != surface.time_ns
            for expiry_ns, block in self.blocks[name].items():
                old = had.get(expiry_ns)
                same = old is not None and old.digest == block.digest
                expiries.append((expiry_ns, 0 if same else len(block.data)))
                if not same:
                    sent.append(block)
            if changed or list(had) != [e for e, _ in expiries] or any(length for _, length in expiries):
                entries.append(SurfaceEntry(name, surface.time_ns, tuple(expiries)))
        header = Header(
            number=self.number,
            base=None if previous is None else previous.number,
            time_ns=self.time_ns,
            state_hash=self.hash,
            surfaces=tuple(entries),
            removed=() if previous is None else tuple(n for n in previous.surfaces if n not in self.surfaces),
            health=tuple(self.health.values()),
            feed_numbers=dict(self.feed_numbers),
            problems=self.problems,
            listed={name: tuple(e) for name, e in self.listed.items()},
            ledger={name: dict(counts) for name, counts in self.ledger.items()},
            timings=self.timings,
        )
        return encode_message(header, sent)
