"""Between the five published numbers of a slice and its scaled coordinates; see `volsurf.svi._lm` for those."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper

Floats = npt.NDArray[np.float64]


@helper()
def to_raw(x: Floats, theta: float, raw: Floats) -> None:
    root = math.sqrt(theta)
    up, low = root * x[1], root * x[2]
    raw[0] = theta * x[0]
    raw[1] = 0.5 * (up + low)
    raw[2] = (up - low) / (up + low)
    raw[3] = root * x[3]
    raw[4] = root * math.exp(x[4])


@helper()
def from_raw(raw: Floats, theta: float, x: Floats) -> None:
    root = math.sqrt(theta)
    x[0] = raw[0] / theta
    x[1] = raw[1] * (1.0 + raw[2]) / root
    x[2] = raw[1] * (1.0 - raw[2]) / root
    x[3] = raw[3] / root
    x[4] = math.log(raw[4] / root)


@helper()
def variance_at_forward(raw: Floats) -> float:
    return float(raw[0] + raw[1] * (math.sqrt(raw[3] * raw[3] + raw[4] * raw[4]) - raw[2] * raw[3]))
