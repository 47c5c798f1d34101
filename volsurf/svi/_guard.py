"""The last resort: curves that are free of arbitrage by construction, approached only as far as it takes.

A slice scaled in time, w_λ(k) = λ w(k/√λ), is again SVI, lies above w for λ > 1 and keeps its butterfly freedom for λ ≤ 1 (and in
practice a little beyond); see `volsurf.surface`. From it to the slice that was wanted, the shortest certified way is taken.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from volsurf._jit import helper
from volsurf.svi._bernstein import PROVED
from volsurf.svi._varpro import copy
from volsurf.svi.arbitrage import certify_slice
from volsurf.svi.calendar import certify_pair

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.int8]

HALVINGS = 12


@helper()
def holds(raw: Floats, p: int, candidate: Floats, work: Floats) -> bool:
    """Whether `candidate` is proved as slice p above slice p − 1."""
    a, b, rho, m, sigma = candidate[0], candidate[1], candidate[2], candidate[3], candidate[4]
    if certify_slice(a, b, rho, m, sigma, work)[0] != PROVED:
        return False
    if p == 0:
        return True
    near = raw[p - 1]
    verdict = certify_pair(near[0], near[1], near[2], near[3], near[4], a, b, rho, m, sigma, work)[0]
    return bool(verdict == PROVED)


@helper()
def symmetric(theta: float, raw: Floats) -> None:
    """The symmetric SSVI slice with variance θ at the forward (Gatheral and Jacquier 2014, §4, with ρ = 0)."""
    psi = min(0.5 * math.sqrt(theta), 0.5)
    raw[0] = 0.5 * theta
    raw[1] = 0.5 * psi
    raw[2] = 0.0
    raw[3] = 0.0
    raw[4] = theta / psi


@helper()
def anchor(raw: Floats, p: int, theta: Floats, out: Floats, work: Floats) -> None:
    """Fill `out` with a certified slice p."""
    if p == 0:
        symmetric(theta[0], out)
        if not holds(raw, p, out, work):
            out[0], out[1], out[2], out[3], out[4] = theta[0], 0.0, 0.0, 0.0, math.sqrt(theta[0])
        return
    near = raw[p - 1]
    beyond = max(theta[p] / theta[p - 1] - 1.0, 1e-6)
    for _ in range(30):
        ratio = 1.0 + beyond
        root = math.sqrt(ratio)
        out[0] = ratio * near[0]
        out[1] = root * near[1]
        out[2] = near[2]
        out[3] = root * near[3]
        out[4] = root * near[4]
        if holds(raw, p, out, work):
            return
        beyond *= 0.5
    copy(near, out)


@helper()
def blend(wanted: Floats, safe: Floats, weight: float, out: Floats) -> None:
    """Between the slice that was wanted (weight 0) and the safe one (1): linear in a, U, L and m, geometric in σ."""
    keep = 1.0 - weight
    up = keep * wanted[1] * (1.0 + wanted[2]) + weight * safe[1] * (1.0 + safe[2])
    low = keep * wanted[1] * (1.0 - wanted[2]) + weight * safe[1] * (1.0 - safe[2])
    out[0] = keep * wanted[0] + weight * safe[0]
    out[1] = 0.5 * (up + low)
    out[2] = (up - low) / (up + low) if up + low > 0.0 else 0.0
    out[3] = keep * wanted[3] + weight * safe[3]
    out[4] = math.exp(keep * math.log(wanted[4]) + weight * math.log(safe[4]))


@helper()
def guard(n: int, raw: Floats, theta: Floats, guarded: Bytes, work: Floats) -> None:
    """Make `raw` certified from the first slice on, each as near to itself as a blend with its anchor can be."""
    safe, middle = np.empty(5), np.empty(5)
    for p in range(n):
        if holds(raw, p, raw[p], work):
            continue
        guarded[p] = 1
        anchor(raw, p, theta, safe, work)
        low, high = 0.0, 1.0
        found = np.empty(5)
        copy(safe, found)
        for _ in range(HALVINGS):
            weight = 0.5 * (low + high)
            blend(raw[p], safe, weight, middle)
            if holds(raw, p, middle, work):
                high = weight
                copy(middle, found)
            else:
                low = weight
        copy(found, raw[p])
