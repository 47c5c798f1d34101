"""The log-moneyness at which an option has a given delta.

    forward:           call Phi(d1),          put -Phi(-d1)          d1 = -k/sqrt(w) + sqrt(w)/2,  d2 = d1 - sqrt(w)
    premium-adjusted:  call e^k Phi(d2),      put -e^k Phi(-d2)

On a slice free of butterfly arbitrage d1 and d2 fall strictly from plus to minus infinity (Fukasawa 2012), so a forward delta
belongs to one strike, and so does a premium-adjusted put delta. The premium-adjusted call delta rises to a maximum and falls
again: the strike is the one on the right, and above the maximum there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray
from volsurf.surface._mixture import mills
from volsurf.surface.interpolation import Curve, Derivatives

if TYPE_CHECKING:
    from collections.abc import Callable

    from volsurf.surface.surface import Surface

_MAX_ITERATIONS = 120
_CAPPED = 8
_TOLERANCE = 4e-14
"""On d1, or on the logarithm of the delta, relative to its size."""
_MISS = 1e-10
"""A larger one, where the bracket has closed, means that there is no such place."""

Equation: TypeAlias = "Callable[[FloatArray, Derivatives], tuple[FloatArray, FloatArray, FloatArray]]"
"""From k and w, w' and w'' there: a function that falls through zero at the root, its derivative, and one that is positive left
of the branch on which the root lies."""


def delta_log_moneyness(surface: Surface, delta: FloatArray, at: FloatArray, premium_adjusted: bool) -> FloatArray:
    """k = ln(K/F) of the option with this delta, in the broadcast shape; positive deltas are calls', negative ones puts'.

    The delta at the result is within 1e-10 of the one asked for. NaN where a premium-adjusted call delta is out of reach.

    Raises:
        InputError: a delta outside (-1, 1), or 0.
    """
    from scipy.special import ndtri

    if not ((np.abs(delta) < 1) & (delta != 0)).all():
        raise InputError(
            f"deltas must lie between -1 and 1 and not be 0 (calls positive, puts negative, 0.25 not 25), was {delta}"
        )
    call = delta > 0
    # With premium adjustment what e^k Phi(d2) would be with k small: a start to the right or left, as it comes.
    score = np.where(call, 1.0, -1.0) * ndtri(np.abs(delta))
    if not premium_adjusted:
        return log_moneyness_of_score(surface, score, at, 0.5)
    equation = _premium_equation(np.log(np.abs(delta)), call)
    return falling_root(Curve(surface, at), equation, score, -0.5, np.broadcast_shapes(delta.shape, at.shape))


def straddle_log_moneyness(surface: Surface, at: FloatArray, premium_adjusted: bool) -> FloatArray:
    """k at which a straddle has no delta: w/2 for forward deltas, where d1 = 0, and -w/2 for premium-adjusted ones (d2 = 0)."""
    return log_moneyness_of_score(surface, np.zeros(()), at, -0.5 if premium_adjusted else 0.5)


def log_moneyness_of_score(surface: Surface, score: FloatArray, at: FloatArray, half: float) -> FloatArray:
    """k with d1(k) = score for half = 1/2, with d2(k) = score for half = -1/2, in the broadcast shape."""
    shape = np.broadcast_shapes(score.shape, at.shape)
    return falling_root(Curve(surface, at), _d_equation(score, half), score, half, shape)


def delta_at_money(w: FloatArray, premium_adjusted: bool) -> FloatArray:
    """Delta of the call at the forward: Phi(d1), or premium-adjusted Phi(d2)."""
    from scipy.special import ndtr

    return np.asarray(ndtr((-0.5 if premium_adjusted else 0.5) * np.sqrt(w)))


def strike_slide(
    k: FloatArray, w: FloatArray, slope: FloatArray, call: BoolArray, premium_adjusted: bool
) -> FloatArray:
    """By how much more w changes at fixed delta than at fixed k, where the whole curve moves up by a little.

    dw at fixed delta = dw + w' dk with dk such that the delta stays: the partial over the total derivative of the delta by k.
    """
    root = np.sqrt(w)
    if not premium_adjusted:
        return np.asarray(1.0 / (1.0 - 0.5 * k * slope / w - 0.25 * slope))
    sign = np.where(call, 1.0, -1.0)
    ratio = sign / mills(sign * (k / root + 0.5 * root))
    total = 1.0 - ratio / root * (1.0 - 0.5 * k * slope / w + 0.25 * slope)
    return np.asarray((1.0 - ratio / root) / total)


def straddle_slide(k: FloatArray, w: FloatArray, slope: FloatArray, premium_adjusted: bool) -> FloatArray:
    """`strike_slide` of the delta-neutral straddle."""
    quarter = 0.25 if premium_adjusted else -0.25
    return np.asarray(1.0 / (1.0 - 0.5 * k * slope / w + quarter * slope))


def _d_equation(target: FloatArray, half: float) -> Equation:
    """d1 (half = 1/2) or d2 (half = -1/2) less its target."""

    def equation(k: FloatArray, at_k: Derivatives) -> tuple[FloatArray, FloatArray, FloatArray]:
        w, slope, _ = at_k
        root = np.sqrt(w)
        derivative = -(1.0 - 0.5 * k * slope / w - 0.5 * half * slope) / root
        return half * root - k / root - target, derivative, derivative

    return equation


def _premium_equation(target: FloatArray, call: BoolArray) -> Equation:
    """Logarithm of the premium-adjusted delta less its target, the sign changed for puts so that it falls."""
    from scipy.special import log_ndtr

    sign = np.where(call, 1.0, -1.0)

    def equation(k: FloatArray, at_k: Derivatives) -> tuple[FloatArray, FloatArray, FloatArray]:
        w, slope, _ = at_k
        root = np.sqrt(w)
        d2 = -k / root - 0.5 * root
        change = -(1.0 - 0.5 * k * slope / w + 0.25 * slope) / root
        derivative = sign + change / mills(-sign * d2)
        return sign * (k + log_ndtr(sign * d2) - target), derivative, derivative

    return equation


def falling_root(
    curve: Curve, equation: Equation, score: FloatArray, half: float, shape: tuple[int, ...]
) -> FloatArray:
    """k where the equation is zero, NaN where it is nowhere: Newton's method in a bracket, its steps at first at most sqrt(w).

    In a wing of slope near 2 a delta of 1e-4 is thousands of standard deviations out, so the limit doubles after a while.

    It starts where d1 (half = 1/2) or d2 (half = -1/2) would be `score` if the vol were that of the money everywhere. The
    equation counts as positive where its derivative is: there it has yet to reach its maximum, and the root wanted is to the
    right of that.
    """
    # Slices that are not certified may have no vol somewhere: the miss says so.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        root = np.sqrt(curve(np.zeros(()))[0])
        k = np.broadcast_to(root * (half * root - score), shape).copy()
        low, high = np.full(shape, -np.inf), np.full(shape, np.inf)
        size = 1.0 + np.abs(score)
        value = np.full(shape, np.nan)
        for i in range(_MAX_ITERATIONS):
            found = curve(k)
            value, derivative, left = equation(k, found)
            to_the_right = (value > 0) | (left >= 0)
            low, high = np.where(to_the_right, k, low), np.where(to_the_right, high, k)
            root = np.sqrt(found[0])
            done = ((np.abs(value) <= _TOLERANCE * size) & (left < 0)) | (high - low <= 1e-12 * root) | np.isnan(k)
            if done.all():
                break
            limit = root * 2.0 ** max(i - _CAPPED, 0)
            new = k + np.clip(np.where(left < 0, -value / derivative, limit), -limit, limit)
            middle = 0.5 * (low + high)
            inside = (new > low) & (new < high)
            k = np.where(done, k, np.where(inside, new, np.where(np.isfinite(middle), middle, new)))
        return np.where(np.abs(value) <= _MISS * size, k, np.nan)
