"""Total variance, its derivatives and the forward at any log-moneyness and time of a surface.

Between expiries total variance is linear in time at fixed log-moneyness, so two slices in calendar order stay so. That it keeps
the smile free of butterfly arbitrage is no theorem: it is proved for each interval (`volsurf.svi.blend`), and where it cannot be,
the interval is a mixture of prices, for which it is one. Before the first expiry the first slice is scaled,
w(k, T) = s w1(k/sqrt(s)) with s = T/T1, which keeps the vol of a strike that many standard deviations out and inherits freedom
from arbitrage. Past the last one the at-the-money forward variance of the last interval goes on, at every log-moneyness, up to
twice the last expiry; if that cannot be proved the last slice is scaled, and if not that either it stays as it is.

Which of these holds where is decided once for a surface (`rules`, `late_rule`), for whole intervals: never by the time or strike
asked for. Between expiries the fit has decided it already and the slices carry it, so that a client needs no kernel for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from volsurf.errors import InputError
from volsurf.instruments import BoolArray, FloatArray, IntArray
from volsurf.surface._mixture import Derivatives, durrleman, mixture, price_share, price_share_rate
from volsurf.svi.certificate import Verdict
from volsurf.svi.params import RawSVI

if TYPE_CHECKING:
    from volsurf.surface.surface import Surface

__all__ = [
    "Curve",
    "Derivatives",
    "Late",
    "Rules",
    "durrleman",
    "forward_at",
    "late_rule",
    "rules",
    "total_variance",
    "variance_derivatives",
    "vol_of",
]

T = TypeVar("T", bound=tuple[FloatArray, ...])

HORIZON = 2.0
"""How far vols are extrapolated, in multiples of the last expiry's time."""
_CHUNK = 2048
INTERVAL, THEOREM, NOTHING = "interval", "theorem", "none"
"""Kinds of evidence between slices: bounds over boxes of strike and time that cover both; a mathematical theorem;
none, because the slices themselves are not certified."""


class Late(IntEnum):
    """What the smile does past the last expiry."""

    SHIFTED = 0
    """At-the-money forward variance goes on at every log-moneyness."""
    SCALED = 1
    """The last slice at the same vol so many standard deviations out."""
    HELD = 2
    """Total variance stays as it is."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a surface goes on between its fitted expiries."""

    mixed: BoolArray
    """Of each interval between consecutive fitted expiries, whether prices are mixed; shape (n - 1,)."""
    evidence: tuple[str, ...]
    """Of each interval, what shows that it is free of butterfly arbitrage."""


def vol_of(w: FloatArray, years: FloatArray | float) -> FloatArray:
    """sqrt(w/years) in their broadcast shape, with years = 1 the standard deviation; NaN where w is negative.

    Only a slice without a certificate has such places; `SliceView.certificate` says what is known of it.
    """
    with np.errstate(invalid="ignore"):
        return cast("FloatArray", np.sqrt(w / years))


def variance_derivatives(surface: Surface, k: FloatArray, at: FloatArray) -> Derivatives:
    """w, dw/dk and d2w/dk2 at log-moneyness k and time `at` in years, in their broadcast shape."""
    return Curve(surface, np.asarray(at))(np.asarray(k))


def total_variance(surface: Surface, k: FloatArray, at: FloatArray) -> FloatArray:
    """w at log-moneyness k and time `at`, in their broadcast shape."""
    if at.size <= _CHUNK:
        return Curve(surface, at).total_variance(k)
    # Many times: in pieces whose temporaries stay in the processor's cache, which is several times faster.
    shape = np.broadcast_shapes(k.shape, at.shape)
    k_, at_ = np.broadcast_to(k, shape).ravel(), np.broadcast_to(at, shape).ravel()
    result = np.empty(k_.size)
    for i in range(0, k_.size, _CHUNK):
        piece = slice(i, i + _CHUNK)
        result[piece] = Curve(surface, at_[piece]).total_variance(k_[piece])
    return result.reshape(shape)


class Curve:
    """A surface at given times, ready to be read at log-moneynesses that broadcast against them."""

    __slots__ = ("after", "at", "far", "lift", "mixed", "near", "places", "root", "share", "surface")

    def __init__(self, surface: Surface, at: FloatArray) -> None:
        near, far, share = _neighbours(surface, at)
        times = surface.years
        first, last = float(times[surface.fitted[0]]), float(times[surface.fitted[-1]])
        self.surface, self.at = surface, at
        self.places = near, far
        self.near = slice_parameters(surface.svi, near)
        self.far = slice_parameters(surface.svi, far) if (near != far).any() else None
        self.share = share
        self.mixed: BoolArray | None = None
        self.root: FloatArray | None = None
        self.lift: FloatArray | None = None
        scale = np.minimum(at / first, 1.0)
        if (late := at > last).any():
            how = late_rule(surface)
            if how is Late.SHIFTED:
                self.lift = forward_variance(surface) * np.maximum(at - last, 0.0)
            elif how is Late.SCALED:
                scale = np.where(late, at / last, scale)
        if (scale != 1.0).any():
            self.root = np.sqrt(scale)
        if self.far is not None:
            mixed = rules(surface).mixed
            if mixed.any():
                # An interval is known by the fitted expiry that begins it.
                self.mixed = (near != far) & mixed[np.minimum(np.searchsorted(surface.fitted, near), len(mixed) - 1)]
        self.after = at > surface.event_years if surface.event is not None else None

    def __call__(self, k: FloatArray) -> Derivatives:
        """w, dw/dk and d2w/dk2."""
        result = self._base(k)
        if self.after is not None and self.after.any():
            from volsurf.surface.event import event_derivatives

            assert self.surface.event is not None
            shape = result[0].shape
            after = np.broadcast_to(self.after, shape)
            quiet = Curve(self.surface.without_event(), np.broadcast_to(self.at, shape)[after])
            jumped = event_derivatives(np.broadcast_to(k, shape)[after], quiet, self.surface.event)
            result = _replaced(result, after, jumped)
        return result

    def total_variance(self, k: FloatArray) -> FloatArray:
        """w alone, in half the time."""
        if self.mixed is not None or self.after is not None:
            return self(k)[0]
        z = k if self.root is None else k / self.root
        w = _slice_variance(self.near, z)
        if self.far is not None:
            w = (1.0 - self.share) * w + self.share * _slice_variance(self.far, z)
        if self.root is not None:
            w = w * (self.root * self.root)
        return w if self.lift is None else w + self.lift

    def _base(self, k: FloatArray) -> Derivatives:
        root = self.root
        z = k if root is None else k / root
        w, slope, curvature = first = slice_derivatives(self.near, z)
        if self.far is not None:
            second = slice_derivatives(self.far, z)
            # Written so that a share of exactly 0 or 1 gives back the slice to the last bit.
            share, rest = self.share, 1.0 - self.share
            w, slope, curvature = (rest * a + share * b for a, b in zip(first, second, strict=True))
            if self.mixed is not None and self.mixed.any():
                w, slope, curvature = self._with_mixture(k, first, second, (w, slope, curvature))
        if root is not None:
            w, slope = w * (root * root), slope * root
        if self.lift is not None:
            w = w + self.lift
        return w, slope, curvature

    def _with_mixture(self, k: FloatArray, first: Derivatives, second: Derivatives, blend: Derivatives) -> Derivatives:
        assert self.far is not None
        assert self.mixed is not None
        shape = blend[0].shape
        chosen = np.broadcast_to(self.mixed, shape)
        zero = np.zeros(())
        theta = [slice_derivatives(p, zero)[0] for p in (self.near, self.far)]
        q = price_share(self.share, *theta)
        pick = picker(chosen)
        mixed = mixture(pick(k), picked(first, pick), picked(second, pick), pick(q))
        return _replaced(blend, chosen, (mixed.w, mixed.slope, mixed.curvature))


def slice_derivatives(parameters: tuple[FloatArray, ...], k: FloatArray) -> Derivatives:
    """w, w' and w'' of slices given by a, U, L, m and sigma, at k."""
    a, u, l, m, sigma = parameters
    x = (k - m) / sigma
    radius2 = 1.0 + x * x
    radius = np.sqrt(radius2)
    large = radius + np.abs(x)  # t or 1/t, whichever exceeds one: a sum, so nothing cancels
    small = 1.0 / large
    positive = x >= 0
    right = u * np.where(positive, large, small)
    left = l * np.where(positive, small, large)
    return a + 0.5 * sigma * (right + left), 0.5 * (right - left) / radius, 0.5 * (u + l) / (sigma * radius2 * radius)


def _slice_variance(parameters: tuple[FloatArray, ...], k: FloatArray) -> FloatArray:
    """w of `slice_derivatives`, by the same operations."""
    a, u, l, m, sigma = parameters
    x = (k - m) / sigma
    large = np.sqrt(1.0 + x * x) + np.abs(x)
    small = 1.0 / large
    positive = x >= 0
    return np.asarray(a + 0.5 * sigma * (u * np.where(positive, large, small) + l * np.where(positive, small, large)))


def variance_per_year(surface: Surface, k: FloatArray, at: FloatArray) -> FloatArray:
    """dw/dT at fixed log-moneyness, from the right; constant between expiries wherever w is linear in time."""
    shape = np.broadcast_shapes(np.shape(k), np.shape(at))
    k_, at_ = np.broadcast_to(k, shape).ravel(), np.broadcast_to(at, shape).ravel()
    if surface.event is not None and (at_ > surface.event_years).any():
        step = 1e-6 * at_
        return np.asarray(((Curve(surface, at_ + step)(k_)[0] - Curve(surface, at_)(k_)[0]) / step).reshape(shape))
    times = surface.years[surface.fitted]
    place = np.searchsorted(times, at_, side="right")
    early, late = place == 0, place == len(times)
    near, far = surface.fitted[np.maximum(place - 1, 0)], surface.fitted[np.minimum(place, len(times) - 1)]
    mixed = rules(surface).mixed
    how = late_rule(surface) if late.any() else Late.HELD
    scale = np.where(early, at_ / times[0], np.where(late & (how is Late.SCALED), at_ / times[-1], 1.0))
    z = k_ / np.sqrt(scale)
    one, two = slice_parameters(surface.svi, near), slice_parameters(surface.svi, far)
    first, second = slice_derivatives(one, z), slice_derivatives(two, z)
    width = surface.years[far] - surface.years[near]
    rate = np.divide(second[0] - first[0], width, out=np.zeros_like(at_), where=width > 0)
    if mixed.any():
        chosen = ~early & ~late & mixed[np.clip(place - 1, 0, len(mixed) - 1)]
        if chosen.any():
            pick = picker(chosen)
            money = tuple(slice_derivatives(picked(p, pick), np.zeros(()))[0] for p in (one, two))
            share = pick((at_ - surface.years[near]) / np.where(width > 0, width, 1.0))
            rate[chosen] = _mixture_rate(
                pick(z), (picked(first, pick), picked(second, pick)), (money[0], money[1]), share, pick(width)
            )
    scaled = (first[0] - 0.5 * z * first[1]) / np.where(early, times[0], times[-1])
    rate = np.where(early, scaled, rate)
    after = {Late.SHIFTED: np.full_like(at_, forward_variance(surface)), Late.SCALED: scaled, Late.HELD: 0.0}
    return np.asarray(np.where(late, after[how], rate).reshape(shape))


def _mixture_rate(
    k: FloatArray,
    slices: tuple[Derivatives, Derivatives],
    money: tuple[FloatArray, FloatArray],
    share: FloatArray,
    width: FloatArray,
) -> FloatArray:
    """dw/dT of the price mixture of two slices, `money` their total variances at the money."""
    # At the near expiry itself, where q is 0, the limit from the right.
    share = np.maximum(share, 1e-9)
    per_share = mixture(k, *slices, price_share(share, *money)).per_share
    return np.asarray(per_share * price_share_rate(share, *money) / width)


def forward_variance(surface: Surface) -> float:
    """At-the-money variance per year over the last interval; not negative even where the slices cross."""
    last = surface.fitted[-2:]
    w = slice_derivatives(slice_parameters(surface.svi, last), np.zeros(len(last)))[0]
    if len(last) == 1:
        return float(w[0] / surface.years[last[0]])
    return max(float((w[1] - w[0]) / (surface.years[last[1]] - surface.years[last[0]])), 0.0)


def forward_at(surface: Surface, at: FloatArray) -> FloatArray:
    """Forward at a time, log-linear in time between expiries; outside, the carry of the nearest interval goes on."""
    forward = np.array([s.forward for s in surface.smiles])
    years = surface.years
    if len(surface) == 1:
        return np.full(np.shape(at), forward[0])
    i = np.clip(np.searchsorted(years, at), 1, len(surface) - 1)
    slope = np.log(forward[i] / forward[i - 1]) / (years[i] - years[i - 1])
    # Counted from the nearer end, so that a listed expiry gives back its own forward to the last bit.
    nearer = np.where(at - years[i - 1] <= years[i] - at, i - 1, i)
    return np.asarray(forward[nearer] * np.exp(slope * (at - years[nearer])))


def rules(surface: Surface) -> Rules:
    """How the surface goes on between its expiries; decided when first asked, kept with the surface."""
    found = surface.cache.get("interpolation")
    if not isinstance(found, Rules):
        found = surface.cache["interpolation"] = _decide(surface)
    return found


def late_rule(surface: Surface) -> Late:
    """How the surface goes on past its last expiry; decided when first asked, kept with the surface."""
    found = surface.cache.get("late")
    if not isinstance(found, Late):
        found = surface.cache["late"] = _decide_late(surface)
    return found


def _decide(surface: Surface) -> Rules:
    smiles = [surface.smiles[i] for i in surface.fitted.tolist()]
    evidence = []
    missing = []
    for i, (near, far) in enumerate(pairwise(smiles)):
        assert near.fit is not None
        assert far.fit is not None
        if not (near.fit.butterfly_verdict == Verdict.PROVED and far.fit.is_certified):
            evidence.append(NOTHING)
            continue
        evidence.append(INTERVAL if far.fit.blend_verdict == Verdict.PROVED else THEOREM)
        if far.fit.blend_from_ns != near.expiry_ns:
            # Nobody has asked, or somebody cut out the neighbour that the fit had.
            missing.append(i)
    if missing:
        from volsurf.svi.blend import check_blend

        svi, at = surface.svi[surface.fitted], np.array(missing)
        proved = check_blend(svi[at], svi[at + 1]).verdict == Verdict.PROVED
        for i, sure in zip(missing, proved.tolist(), strict=True):
            evidence[i] = INTERVAL if sure else THEOREM
    return Rules(np.array([one == THEOREM for one in evidence], np.bool_), tuple(evidence))


def _decide_late(surface: Surface) -> Late:
    """Past the last expiry all times together: what holds at the horizon and in between."""
    from volsurf.svi.arbitrage import check_butterfly
    from volsurf.svi.blend import PROVED, check_blend

    at = int(surface.fitted[-1])
    fit, last = surface.smiles[at].fit, surface.svi[at : at + 1]
    if fit is None or fit.butterfly_verdict != Verdict.PROVED:
        return Late.SHIFTED
    horizon = HORIZON * float(surface.years[-1])
    shifted = shift(last, forward_variance(surface) * (horizon - float(surface.years[at])))
    # The shifted slices on the way are blends of the first and the furthest.
    if check_butterfly(shifted) and (check_blend(last, shifted).verdict == PROVED).all():
        return Late.SHIFTED
    # g of a scaled slice falls with the scale: what holds at the horizon holds before.
    return Late.SCALED if check_butterfly(scale_slices(last, horizon / float(surface.years[at]))) else Late.HELD


def shift(svi: RawSVI, by: float) -> RawSVI:
    """The slices with total variance `by` more at every log-moneyness."""
    return RawSVI(svi.a + by, svi.b, svi.rho, svi.m, svi.sigma)


def scale_slices(svi: RawSVI, scale: float) -> RawSVI:
    """w(k) -> scale w(k/sqrt(scale)), of which a slice is a slice again."""
    root = float(np.sqrt(scale))
    return RawSVI(scale * svi.a, root * svi.b, svi.rho, root * svi.m, root * svi.sigma)


def require_fit(surface: Surface) -> None:
    """InputError unless an expiry is fitted."""
    if not surface.fitted.size:
        raise InputError(f"no expiry of {surface.underlying} could be fitted")


def _neighbours(surface: Surface, at: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Per time the slices before and after and the share of the second; the same slice twice at and outside the fitted times."""
    fitted = surface.fitted
    require_fit(surface)
    times = surface.years[fitted]
    place = np.searchsorted(times, at)
    far = fitted[np.minimum(place, len(fitted) - 1)]
    near = np.where(surface.years[far] <= at, far, fitted[np.maximum(place - 1, 0)])
    width = surface.years[far] - surface.years[near]
    share = np.divide(at - surface.years[near], width, out=np.zeros(at.shape), where=width > 0)
    return near, far, share


def slice_parameters(svi: RawSVI, index: IntArray) -> tuple[FloatArray, ...]:
    """a, U, L, m and sigma of the slices at these positions."""
    b, rho = svi.b[index], svi.rho[index]
    return svi.a[index], b * (1.0 + rho), b * (1.0 - rho), svi.m[index], svi.sigma[index]


def picker(chosen: BoolArray) -> Callable[[FloatArray], FloatArray]:
    """Takes the chosen elements of arrays that broadcast to the shape of `chosen`."""
    return lambda value: np.broadcast_to(value, chosen.shape)[chosen]


def picked(values: T, pick: Callable[[FloatArray], FloatArray]) -> T:
    return cast("T", tuple(pick(value) for value in values))


def _replaced(values: Derivatives, chosen: BoolArray, by: Derivatives) -> Derivatives:
    w, slope, curvature = (np.array(np.broadcast_to(value, chosen.shape)) for value in values)
    w[chosen], slope[chosen], curvature[chosen] = by
    return w, slope, curvature


def slices_behind(surface: Surface, years: float) -> list[int]:
    """Positions of the slices that the smile at a time is made of, one or two."""
    near, far, _ = _neighbours(surface, np.array(years))
    last = surface.fitted[-1]
    found = {int(near), int(far)}
    if years > surface.years[last] and late_rule(surface) is Late.SHIFTED:
        found |= set(surface.fitted[-2:].tolist())
    return sorted(found)
