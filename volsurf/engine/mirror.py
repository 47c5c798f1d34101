"""The client's copy of the engine's state, rebuilt from snapshots and patches and checked against every frame's hash."""

from __future__ import annotations

from collections.abc import Mapping

from volsurf.engine.codec import Block, Header, decode_header, decode_smile, is_patch, read_blocks, state_hash
from volsurf.engine.frame import Frame
from volsurf.errors import StreamError, VolsurfError
from volsurf.surface.slices import Smile
from volsurf.surface.surface import Surface

_Blocks = dict[str, dict[int, Block]]


class FrameMirror:
    """Turns messages into frames. After a `StreamError` the frame is the last good one, and only a snapshot goes on from it."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        """The last frame; None before the first snapshot."""
        self.needs_snapshot = True

    @staticmethod
    def is_patch(data: bytes) -> bool:
        """Whether a message only makes sense after the one before; False also for bytes that are no message."""
        try:
            return is_patch(data)
        except StreamError:
            return False

    def apply(self, data: bytes) -> Frame:
        """The frame of a message. `StreamError` for damaged bytes, a patch of another frame, or a hash that does not match.

        A smile with the same bytes is the same object as in the frame before, and so is a surface of which nothing changed.
        """
        try:
            frame = self._apply(data)
        except StreamError:
            self.needs_snapshot = True
            raise
        except (VolsurfError, ValueError, TypeError) as error:
            self.needs_snapshot = True
            raise StreamError(f"a message holds what is no surface: {error}") from error
        self.frame = frame
        self.needs_snapshot = False
        return frame

    def _apply(self, data: bytes) -> Frame:
        header, start = decode_header(data)
        previous = self.frame
        if header.base is None:
            previous = None
        elif previous is None or self.needs_snapshot:
            raise StreamError(f"a patch of frame {header.base} came before any snapshot")
        elif header.base != previous.number:
            raise StreamError(f"a patch of frame {header.base} came, but the last frame here is {previous.number}")
        sent = read_blocks(data, start, header)
        blocks: _Blocks = {}
        if previous is not None:
            blocks = {n: dict(previous.blocks[n]) for n in previous.surfaces if n not in header.removed}
        times = {} if previous is None else {n: previous.surfaces[n].time_ns for n in blocks}
        for entry in header.surfaces:
            blocks[entry.underlying] = _merge(entry.expiries, entry.underlying, sent, blocks.get(entry.underlying, {}))
            times[entry.underlying] = entry.time_ns
        # The hash comes before the decoding: what is decoded is known to be what the engine encoded.
        if state_hash({name: (times[name], mine) for name, mine in blocks.items()}) != header.state_hash:
            raise StreamError(f"frame {header.number} does not hash to what the engine says it is")
        return _frame(header, blocks, times, self.frame)


def _merge(
    expiries: tuple[tuple[int, int], ...],
    underlying: str,
    sent: Mapping[tuple[str, int], Block],
    had: Mapping[int, Block],
) -> dict[int, Block]:
    merged: dict[int, Block] = {}
    for expiry_ns, length in expiries:
        block = sent.get((underlying, expiry_ns)) if length else had.get(expiry_ns)
        if block is None:
            raise StreamError(f"a patch leaves {underlying} {expiry_ns} unchanged, which is not here")
        merged[expiry_ns] = block
    return merged


def _frame(header: Header, blocks: _Blocks, times: Mapping[str, int], previous: Frame | None) -> Frame:
    # Whatever `previous` holds of the same bytes is used again, after a snapshot as well: who compares objects redraws nothing.
    cache: dict[tuple[str, int], tuple[Smile, Block]] = {}
    surfaces: dict[str, Surface] = {}
    for underlying in sorted(blocks):
        before = None if previous is None else previous.surfaces.get(underlying)
        known = {} if before is None else {smile.expiry_ns: smile for smile in before.smiles}
        old = {} if previous is None or before is None else previous.blocks[underlying]
        smiles: list[Smile] = []
        for expiry_ns, block in blocks[underlying].items():
            same = expiry_ns in known and old[expiry_ns].digest == block.digest
            smile = known[expiry_ns] if same else decode_smile(block.data)
            if (smile.underlying, smile.expiry_ns) != (underlying, expiry_ns):
                raise StreamError(f"the block of {underlying} {expiry_ns} is of {smile.underlying} {smile.expiry_ns}")
            cache[underlying, expiry_ns] = (smile, block)
            smiles.append(smile)
        unchanged = (
            before is not None
            and before.time_ns == times[underlying]
            and len(before.smiles) == len(smiles)
            and all(a is b for a, b in zip(before.smiles, smiles, strict=True))
        )
        surfaces[underlying] = (
            before if unchanged and before is not None else Surface(underlying, times[underlying], tuple(smiles))
        )
    return Frame(
        header.number,
        header.time_ns,
        surfaces,
        {status.name: status for status in header.health},
        header.feed_numbers,
        header.problems,
        header.listed,
        header.ledger,
        header.timings,
        cache,
    )
