"""Standard errors of vols read off a surface, from the covariances of its slices' fits.

A vol depends on the five numbers of one slice, or of two where it lies between or beyond them; slices are fitted to different
quotes, so their errors are taken as independent. The vol of a delta moves with the curve for two reasons, the level at its strike
and the strike itself; differences of vols (risk reversals, flies) are differentiated as such, because their errors go together.

The covariances are those of the objective in the quotes, taken at the published curve: what the constraints of no-arbitrage and
the filter in time add to the quotes is not counted, and can only narrow them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volsurf.instruments import FloatArray, IntArray
from volsurf.surface._mixture import mixture, price_share
from volsurf.surface.delta import delta_log_moneyness, straddle_log_moneyness, straddle_slide, strike_slide
from volsurf.surface.interpolation import (
    Curve,
    Derivatives,
    forward_variance,
    picked,
    picker,
    slice_derivatives,
    slice_parameters,
    vol_of,
)
from volsurf.svi.gradient import variance_gradient

if TYPE_CHECKING:
    from volsurf.surface.slices import SliceFit
    from volsurf.surface.surface import Surface

__all__ = ["VolGradient", "delta_gradient", "error_reason", "vol_error", "vol_gradient"]


@dataclass(frozen=True, slots=True)
class VolGradient:
    """Vols and how they change with the scaled coordinates of the two slices behind them; shape S, gradients S + (5,).

    Differences and multiples of gradients at the same times are those of the same combination of vols.
    """

    vol: FloatArray
    near: IntArray
    far: IntArray
    """Positions of the slices, of a shape that broadcasts with S."""
    by_near: FloatArray
    by_far: FloatArray | None
    """None where one slice is behind all of it."""

    def __getitem__(self, column: int | slice) -> VolGradient:
        """The columns of the last axis, along which the slices behind the vols are the same."""
        by_far = None if self.by_far is None else self.by_far[..., column, :]
        near, far = (p[..., 0] if isinstance(column, int) else p for p in (self.near, self.far))
        return VolGradient(self.vol[..., column], near, far, self.by_near[..., column, :], by_far)

    def __add__(self, other: VolGradient) -> VolGradient:
        by_far = None
        if self.by_far is not None and other.by_far is not None:
            by_far = self.by_far + other.by_far
        return VolGradient(self.vol + other.vol, self.near, self.far, self.by_near + other.by_near, by_far)

    def __mul__(self, factor: float | FloatArray) -> VolGradient:
        each = np.asarray(factor)[..., None]
        by_far = None if self.by_far is None else self.by_far * each
        return VolGradient(self.vol * factor, self.near, self.far, self.by_near * each, by_far)

    def __sub__(self, other: VolGradient) -> VolGradient:
        return self + other * -1.0

    def error(self, surface: Surface) -> FloatArray:
        """Standard error of the combination, shape S; NaN where a slice has no covariance (`error_reason` says why)."""
        covariance = covariances(surface)
        variance = _quadratic(self.by_near, covariance[self.near])
        if self.by_far is not None:
            variance = variance + _quadratic(self.by_far, covariance[self.far])
        return np.sqrt(np.maximum(variance, 0.0))


def vol_error(surface: Surface, k: FloatArray, at: FloatArray) -> FloatArray:
    """Standard error of the vol at log-moneyness k and time `at`, in their broadcast shape."""
    return vol_gradient(surface, k, at).error(surface)


def delta_gradient(surface: Surface, delta: FloatArray, at: FloatArray, premium_adjusted: bool) -> VolGradient:
    """Vol at a delta and its gradient, its strike moving with the curve, in the broadcast shape."""
    k = delta_log_moneyness(surface, delta, at, premium_adjusted)
    return gradient_with(surface, k, at, lambda w, slope: strike_slide(k, w, slope, delta > 0, premium_adjusted))


def vol_gradient(surface: Surface, k: FloatArray, at: FloatArray) -> VolGradient:
    """Vol at a fixed log-moneyness and its gradient."""
    return gradient_with(surface, k, at, None)


def error_reason(fit: SliceFit | None) -> str:
    """Why a slice's vols have no standard error; empty where they have one."""
    if fit is None:
        return "no slice of its own"
    if len(fit.covariance) == 15 and np.isfinite(fit.covariance).all() and np.isfinite(fit.theta):
        return ""
    if fit.is_kept:
        return "its quotes have gone: the last curve they had is kept"
    if fit.is_synthetic:
        return "no usable quote: the neighbours' shape, whose error here is not known"
    return f"the {fit.model} fit came without a covariance"


def covariances(surface: Surface) -> FloatArray:
    """Covariance of each slice's scaled coordinates, shape (n, 5, 5); NaN where there is none."""
    found = surface.cache.get("covariances")
    if isinstance(found, np.ndarray):
        return found
    result = np.full((len(surface), 5, 5), np.nan)
    row, column = np.triu_indices(5)
    for i, smile in enumerate(surface.smiles):
        if smile.fit is not None and not error_reason(smile.fit):
            result[i, row, column] = result[i, column, row] = smile.fit.covariance
    surface.cache["covariances"] = result
    return result


def straddle_gradient(surface: Surface, at: FloatArray, premium_adjusted: bool) -> VolGradient:
    """Vol at the delta-neutral straddle's strike and its gradient."""
    k = straddle_log_moneyness(surface, at, premium_adjusted)
    return gradient_with(surface, k, at, lambda w, slope: straddle_slide(k, w, slope, premium_adjusted))


def gradient_with(
    surface: Surface, k: FloatArray, at: FloatArray, slide: Callable[[FloatArray, FloatArray], FloatArray] | None
) -> VolGradient:
    """Vol at k and its gradient; `slide`, of w and w', is the factor for a k that moves with the curve."""
    curve = Curve(surface, at)
    w, slope, _ = curve(k)
    near, far, by_near, by_far = _variance_gradient(curve, k)
    if curve.after is not None and curve.after.any():
        by_near, by_far = _with_event(curve, k, by_near, by_far)
    # A slice that is not certified may have no vol: NaN, as in the vol itself.
    with np.errstate(divide="ignore", invalid="ignore"):
        per_vol = 0.5 / np.sqrt(w * at)
        if slide is not None:
            per_vol = per_vol * slide(w, slope)
        per_vol = per_vol[..., None]
    return VolGradient(vol_of(w, at), near, far, by_near * per_vol, None if by_far is None else by_far * per_vol)


def _variance_gradient(curve: Curve, k: FloatArray) -> tuple[IntArray, IntArray, FloatArray, FloatArray | None]:
    """Places of the slices, and the gradient of w by the coordinates of each, before an event."""
    surface = curve.surface
    near, far = curve.places
    theta = _thetas(surface)
    z = k if curve.root is None else k / curve.root
    first = variance_gradient(curve.near, theta[near], z)
    if curve.root is not None:
        first = first * np.square(curve.root)[..., None]
    second = None
    if curve.far is not None:
        second = variance_gradient(curve.far, theta[far], z)
        if curve.mixed is not None and curve.mixed.any():
            first, second = _with_mixture(curve, k, first, second, theta)
        else:
            first, second = first * (1.0 - curve.share)[..., None], second * curve.share[..., None]
    if curve.lift is not None:
        near, far, first, second = _with_lift(curve, first, second, theta)
    return near, far, first, second


def _with_lift(
    curve: Curve, first: FloatArray, second: FloatArray | None, theta: FloatArray
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Adds what the forward variance of the last interval owes to the last slice and to the one before it."""
    surface = curve.surface
    near, far = curve.places
    last, before = surface.fitted[-1], surface.fitted[-2:][0]
    late = (curve.at > surface.years[last])[..., None]
    if second is None:
        second = np.zeros_like(first)
    width = float(surface.years[last] - surface.years[before]) or float(surface.years[last])
    beyond = (np.maximum(curve.at - surface.years[last], 0.0) / width)[..., None]
    if last != before and forward_variance(surface) == 0.0:
        beyond = 0.0 * beyond
    zero = np.zeros(())
    by_last, by_before = (variance_gradient(slice_parameters(surface.svi, i), theta[i], zero) for i in (last, before))
    # Past the last expiry one slice stands at both places: the one before it takes the place of the near one.
    second = np.where(late, first + beyond * by_last, second)
    first = np.where(late, -beyond * by_before if last != before else 0.0 * first, first)
    return np.where(late[..., 0], before, near), np.where(late[..., 0], last, far), first, second


def _with_mixture(
    curve: Curve, k: FloatArray, first: FloatArray, second: FloatArray, theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The gradients with the weights of a mixture of prices where it stands in for the blend."""
    assert curve.far is not None
    assert curve.mixed is not None
    shape = first.shape[:-1]
    zero = np.zeros(())
    one, two = slice_derivatives(curve.near, k), slice_derivatives(curve.far, k)
    money = [slice_derivatives(p, zero)[0] for p in (curve.near, curve.far)]
    by_money = [
        variance_gradient(p, theta[i], zero) for p, i in zip((curve.near, curve.far), curve.places, strict=True)
    ]
    chosen = np.broadcast_to(curve.mixed, shape)
    weight_near, weight_far = (np.array(np.broadcast_to(v, shape)) for v in (1.0 - curve.share, curve.share))
    per_share = np.zeros(shape)
    pick = picker(chosen)
    mixed = mixture(pick(k), picked(one, pick), picked(two, pick), pick(price_share(curve.share, *money)))
    weight_near[chosen], weight_far[chosen], per_share[chosen] = mixed.weight_near, mixed.weight_far, mixed.per_share
    # How the weight q follows the totals at the money, which it is made to match.
    step = [1e-5 * m for m in money]
    up_near, down_near = (price_share(curve.share, money[0] + s * step[0], money[1]) for s in (1.0, -1.0))
    up_far, down_far = (price_share(curve.share, money[0], money[1] + s * step[1]) for s in (1.0, -1.0))
    by_near = (up_near - down_near) / (2.0 * step[0])
    by_far = (up_far - down_far) / (2.0 * step[1])
    return (
        first * weight_near[..., None] + by_money[0] * (per_share * by_near)[..., None],
        second * weight_far[..., None] + by_money[1] * (per_share * by_far)[..., None],
    )


def _with_event(
    curve: Curve, k: FloatArray, by_near: FloatArray, by_far: FloatArray | None
) -> tuple[FloatArray, FloatArray | None]:
    """The gradients through an event's jump, by differences: vol after it depends on the quiet smile at two strikes.

    The jump itself is taken as known.
    """
    from volsurf.surface.event import event_derivatives

    event = curve.surface.event
    assert event is not None
    assert curve.after is not None
    shape = by_near.shape[:-1]
    after = np.broadcast_to(curve.after, shape)
    times, place = np.broadcast_to(curve.at, shape)[after], np.broadcast_to(k, shape)[after]
    quiet = Curve(curve.surface.without_event(), times)
    step = 1e-5
    results = [np.array(by_near), None if by_far is None else np.array(by_far)]
    for side, result in enumerate(results):
        if result is None:
            continue
        for coordinate in range(5):
            ends = []
            for sign in (1.0, -1.0):

                def moved(z: FloatArray, by: float = sign * step, one: int = coordinate, of: int = side) -> Derivatives:
                    w, slope, curvature = quiet(z)
                    gradients = _variance_gradient(quiet, z)[2:]
                    chosen = gradients[of]
                    return (w if chosen is None else w + by * chosen[..., one]), slope, curvature

                ends.append(event_derivatives(place, moved, event)[0])
            result[after, coordinate] = (ends[0] - ends[1]) / (2.0 * step)
    assert results[0] is not None
    return results[0], results[1]


def _thetas(surface: Surface) -> FloatArray:
    found = surface.cache.get("thetas")
    if isinstance(found, np.ndarray):
        return found
    made = np.array([np.nan if s.fit is None else s.fit.theta for s in surface.smiles])
    surface.cache["thetas"] = made
    return made


def _quadratic(gradient: FloatArray, covariance: FloatArray) -> FloatArray:
    product = (gradient[..., None, :] @ covariance)[..., 0, :]
    # A slice that has no weight in a combination does not spoil it where it has no covariance.
    return np.asarray(np.where(gradient == 0, 0.0, product * gradient).sum(axis=-1))
