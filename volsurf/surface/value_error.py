"""What the standard errors of vols mean for values: position by position, and for a portfolio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from volsurf.instruments import FloatArray
from volsurf.surface.uncertainty import covariances, vol_gradient

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface


def value_errors(surface: Surface, k: FloatArray, at: FloatArray, vega: FloatArray) -> tuple[FloatArray, float]:
    """Standard error of each vol at (k, at), shape (n,), and of the sum of vega times vol.

    Slices are independent; vols of one slice move together by the covariance of its fit, so a spread between two strikes has a
    smaller error than its legs. NaN where a slice has no covariance.
    """
    gradient = vol_gradient(surface, k, at)
    by_slice = np.zeros((len(surface), 5))
    for index, by in ((gradient.near, gradient.by_near), (gradient.far, gradient.by_far)):
        if by is not None:
            place = np.broadcast_to(index, k.shape)
            for i in range(5):
                by_slice[:, i] += np.bincount(place, vega * by[:, i], len(surface))
    moved = by_slice.any(axis=1)
    variance = np.einsum("ni,nij,nj->n", by_slice[moved], covariances(surface)[moved], by_slice[moved]).sum()
    return gradient.error(surface), float(np.sqrt(np.maximum(variance, 0.0)))
