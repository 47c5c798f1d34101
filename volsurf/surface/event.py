"""A scheduled event as a jump of two sizes on top of certified slices: the W-shaped smiles that SVI cannot have.

At the event the price is multiplied by an independent J, e^up with probability p and e^down otherwise, E[J] = 1. With c_b the
forward-normalised call price of the world without the event, every expiry after it has

    c(k) = p e^up c_b(k - up) + (1 - p) e^down c_b(k - down)

The surface is free of arbitrage at every strike if the base is. Butterfly: c is the call price of X J, X the base's price at
that expiry, hence that of a distribution with mean 1. Calendar: X_1 <= X_2 in convex order (that is what certified slices in
order mean) gives E[f(X_1 J)] = E[E[f(X_1 j)]_(j=J)] <= E[f(X_2 J)] for every convex f, because x -> f(x j) is convex for each j
and J is independent; and an expiry before the event is below one after it, since by Jensen E[f(X_2 J)] >= E[f(X_2)] >=
E[f(X_1)]. So the evidence is a theorem on slices that are themselves certified exactly.

Prices are handled as logarithms of out-of-the-money ones, so that far wings, whose prices no double holds, keep their digits.
Notation: s = sqrt(w), d2 = -k/s - s/2, M(x) = (1 - Phi(x))/phi(x) (Mills' ratio).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volsurf.errors import InputError
from volsurf.instruments import FloatArray
from volsurf.surface._mixture import Derivatives, durrleman, implied_root, log_call, mills

if TYPE_CHECKING:
    from volsurf.surface.slices import Smile
    from volsurf.surface.surface import Surface
    from volsurf.svi.params import RawSVI

Flags = npt.NDArray[np.bool_]

EVENT_EVIDENCE = "theorem on certified base slices"
"""Kind of evidence for a surface with an event: see the proof above."""
MARTINGALE_TOLERANCE = 1e-9
_LOG_SMALLEST = -640.0
"""ln of a price that doubles still hold with all their digits."""


@dataclass(frozen=True, slots=True)
class EventJump:
    """An independent two-point jump of the price at one instant.

    Raises:
        InputError: the probability is not between 0 and 1, down <= 0 <= up does not hold, or the jump has a mean other than 1.
    """

    time_ns: int
    """The instant, ns UTC."""
    up: float
    """ln of the move up, >= 0."""
    down: float
    """ln of the move down, <= 0."""
    probability: float
    """Of the move up."""
    improvement: float = math.nan
    """Share of the misfit of the expiries after it that the event took away; NaN for a jump that was not fitted."""

    def __post_init__(self) -> None:
        if not 0.0 < self.probability < 1.0:
            raise InputError(f"probability must lie between 0 and 1, was {self.probability!r}")
        if not (math.isfinite(self.up) and math.isfinite(self.down) and self.down <= 0.0 <= self.up):
            raise InputError(f"a jump needs down <= 0 <= up, was down {self.down!r}, up {self.up!r}")
        mean = self.probability * math.exp(self.up) + (1.0 - self.probability) * math.exp(self.down)
        if abs(mean - 1.0) > MARTINGALE_TOLERANCE:
            raise InputError(
                f"a jump must leave the forward where it is, the mean was {mean!r}: EventJump.of_size chooses sizes that do"
            )

    @classmethod
    def of_size(cls, time_ns: int, size: float, probability: float = 0.5, improvement: float = math.nan) -> EventJump:
        """The jump whose moves are `size` apart, up - down = size >= 0 in logarithms, and which has mean 1."""
        if not (math.isfinite(size) and size >= 0.0):
            raise InputError(f"size must be finite and not negative, was {size!r}")
        if not 0.0 < probability < 1.0:
            raise InputError(f"probability must lie between 0 and 1, was {probability!r}")
        down = 0.0 - math.log1p(probability * math.expm1(size))
        return cls(time_ns, size + down, down, probability, improvement)

    @property
    def size(self) -> float:
        """Distance of the two moves, in logarithms."""
        return self.up - self.down

    @property
    def deviation(self) -> float:
        """Standard deviation of ln J: how much the event adds to sqrt(w) at the money, roughly."""
        return self.size * math.sqrt(self.probability * (1.0 - self.probability))

    @property
    def is_quiet(self) -> bool:
        """Nothing jumps: the surface is that of the slices."""
        return self.size == 0.0

    @property
    def sentence(self) -> str:
        """The jump in words, and what it does for the fit."""
        if self.is_quiet:
            return "no event: the quotes after that time are explained as well without a jump"
        moves = (
            f"{100.0 * math.expm1(self.up):+.2f} % with probability {100.0 * self.probability:.0f} %, "
            f"{100.0 * math.expm1(self.down):+.2f} % otherwise"
        )
        if math.isnan(self.improvement):
            return f"event of {moves}"
        return f"event of {moves}: takes away {100.0 * self.improvement:.0f} % of the misfit of the expiries after it"


def event_derivatives(k: FloatArray, base: Callable[[FloatArray], Derivatives], jump: EventJump | None) -> Derivatives:
    """w, dw/dk and d2w/dk2 of the surface with the jump, at log-moneynesses k of times after it.

    Args:
        base: the same three of the surface without it, at log-moneynesses in the shape of k.

    NaN where k is, or where a base that is not certified has no vol.
    """
    k = np.asarray(k, np.float64)
    if jump is None or jump.is_quiet:
        return base(k)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _jumped(k, base, jump)


def _jumped(k: FloatArray, base: Callable[[FloatArray], Derivatives], jump: EventJump) -> Derivatives:
    right = k >= 0.0
    sign = np.where(right, 1.0, -1.0)
    parts = []
    for shift, probability in ((jump.up, jump.probability), (jump.down, 1.0 - jump.probability)):
        z = k - shift
        w, slope, curvature = base(z)
        root = np.sqrt(w)
        d2 = -z / root - 0.5 * root
        half = 0.5 * slope / root
        g = durrleman(z, w, slope, curvature)
        # Price, tail probability and density of this branch, each as a logarithm or over phi(d2).
        log_price = math.log(probability) + shift + _log_price(z, root, right)
        tail = probability * (mills(-sign * d2) - sign * half)
        parts.append((log_price, d2, tail, probability * g / root))
    log_price = np.logaddexp(parts[0][0], parts[1][0])
    root = _root_of(log_price, k, right)
    w = root**2
    d2 = -k / root - 0.5 * root
    tail, density = np.zeros(k.shape), np.zeros(k.shape)
    for _, branch_d2, branch_tail, branch_density in parts:
        ratio = np.exp(0.5 * (d2 - branch_d2) * (d2 + branch_d2))
        tail += ratio * branch_tail
        density += ratio * branch_density
    # Tail beyond k: Phi(sign d2) - sign phi(d2) ds/dk.
    half = sign * (mills(-sign * d2) - tail)
    slope = 2.0 * root * half
    g = root * density
    curvature = 2.0 * (g - (1.0 - 0.5 * k * slope / w) ** 2 + 0.25 * slope**2 * (1.0 / w + 0.25))
    return w, slope, curvature


def _log_price(k: FloatArray, root: FloatArray, call: Flags) -> FloatArray:
    """ln of the normalised price of the call where `call`, else of the put; in the money with its intrinsic value."""
    # Of the out-of-the-money option: a put at k < 0 is e^k calls at -k.
    out = log_call(np.abs(k), root)[0] + np.minimum(k, 0.0)
    inside = np.where(call, k < 0.0, k > 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        intrinsic = np.log(np.abs(np.expm1(np.where(inside, k, 0.0))))
    return np.where(inside, np.logaddexp(out, intrinsic), out)


def _root_of(log_price: FloatArray, k: FloatArray, call: Flags) -> FloatArray:
    """sqrt(w) of out-of-the-money prices given as logarithms.

    The solver of `volsurf.iv` where a double holds the price, elsewhere that of the logarithm.
    """
    from volsurf.iv.implied import implied_vol

    flat_k, target = np.atleast_1d(k).ravel(), np.atleast_1d(log_price).ravel()
    root = np.full(flat_k.shape, np.nan)
    held = target > _LOG_SMALLEST
    if held.any():
        is_call = np.atleast_1d(call).ravel()[held]
        root[held] = implied_vol(np.exp(target[held]), 1.0, np.exp(flat_k[held]), 1.0, is_call)
    far = ~held
    if far.any():
        distance = np.abs(flat_k[far])
        wanted = target[far] - np.minimum(flat_k[far], 0.0)
        # ln price < -d1^2/2 there, so that this d1 is further out than the price's own, and the root of it smaller.
        d1 = np.sqrt(-2.0 * wanted)
        guess = np.sqrt(d1**2 + 2.0 * distance) - d1
        root[far] = implied_root(distance, wanted, guess, np.full(guess.shape, np.inf), guess)
    return root.reshape(np.shape(k))


def jumped_variance(svi: RawSVI, k: npt.ArrayLike, jump: tuple[float, ...]) -> FloatArray:
    """w of one slice with the jump (up, down, probability) on top, at log-moneynesses k, in their shape."""
    from volsurf.surface.interpolation import slice_derivatives

    parameters = (svi.a, svi.b * (1.0 + svi.rho), svi.b * (1.0 - svi.rho), svi.m, svi.sigma)
    up, down, probability = jump
    found = EventJump(0, up, down, probability)
    return event_derivatives(np.asarray(k, np.float64), lambda z: slice_derivatives(parameters, z), found)[0]


def fit_event(smiles: Sequence[Smile], time_ns: int, *, base: Surface | None = None) -> Surface:
    """The surface of smiles of one underlying with a jump at `time_ns`, free of arbitrage by the theorem above.

    The size of the jump and its odds are searched for on the four nearest expiries after it; the slices of all expiries are then
    fitted under it together, and certified. The smiles of the result carry the slices of the world without the event: read vols
    from the surface. Its `event.sentence` says what the jump is worth. Where it takes away less than a tenth of the misfit, or
    less than its two more numbers would by chance, there is no event: its size is 0 and the surface is the SVI one.

    Args:
        base: the surface of the same smiles without an event, if it is at hand.

    Raises:
        InputError: no smiles, smiles of more than one underlying, an event that is over, or none with quotes after it.
    """
    from volsurf.surface._event_fit import fit

    return fit(smiles, time_ns, base)
