"""Prices that are wrong on purpose: crossed and locked books and spikes, put on some rows of a venue for a while."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.instruments import FloatArray

DISTORTIONS = ("crossed", "locked", "spike")


@dataclass(frozen=True, slots=True, eq=False)
class Distortion:
    """What is wrong with which rows until when (market time)."""

    kind: str
    rows: npt.NDArray[np.intp]
    until_ns: int
    size: float = 0.0
    """Of a spike: by which share prices are off, e.g. 0.5 or -0.3."""


def distorted(kind: str, bid: FloatArray, ask: FloatArray, size: float) -> tuple[FloatArray, FloatArray]:
    """False sides made from true ones, shape (m,); a book with an empty side is neither crossed nor locked."""
    whole = np.isfinite(bid) & np.isfinite(ask)
    if kind == "crossed":
        return np.where(whole, ask, bid), np.where(whole, bid, ask)
    if kind == "locked":
        return np.where(whole, ask, bid), ask
    return bid * (1.0 + size), ask * (1.0 + size)
