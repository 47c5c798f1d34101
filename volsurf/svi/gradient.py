"""How total variance changes with the scaled coordinates (alpha, U, L, mu, varsigma) in which slices are fitted.

    a = theta alpha,  U = sqrt(theta) u,  L = sqrt(theta) l,  m = sqrt(theta) mu,  sigma = sqrt(theta) exp(varsigma)

With t and R as in `volsurf.svi.params`:
    dw/da = 1,  dw/dU = sigma t/2,  dw/dL = sigma/(2t),  dw/dm = -w',  dw/d ln sigma = sigma (U + L)/(2R).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def variance_gradient(parameters: tuple[Floats, ...], theta: Floats, k: Floats) -> Floats:
    """dw/d(scaled coordinates) at log-moneyness k, in the broadcast shape of all with a last axis of five.

    Args:
        parameters: a, U, L, m and sigma of the slices.
        theta: the scale of the coordinates.
    """
    _, up, low, m, sigma = parameters
    root = np.sqrt(theta)
    x = (k - m) / sigma
    radius = np.sqrt(1.0 + x * x)
    large = radius + np.abs(x)
    t = np.where(x >= 0, large, 1.0 / large)
    t_inverse = np.where(x >= 0, 1.0 / large, large)
    result = np.empty((*t.shape, 5))
    result[..., 0] = theta
    result[..., 1] = 0.5 * root * sigma * t
    result[..., 2] = 0.5 * root * sigma * t_inverse
    result[..., 3] = -0.5 * root * (up * t - low * t_inverse) / radius
    result[..., 4] = 0.5 * sigma * (up + low) / radius
    return result
