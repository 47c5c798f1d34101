"""The fit behind `volsurf.surface.event.fit_event`: a search for the jump around fits of the slices under it.

Given the jump, the slices are fitted by the ordinary kernel, enforcement included, to pseudo-quotes. To first order the vol of
the surface at k moves by lambda_u kappa ds(k - up) + lambda_d kappa ds(k - down): ds are the moves of the slice's vol, kappa is
how much a parallel move shows and the lambdas sum to 1. A quote with residual r is therefore put at both places, as the slice's
vol there less r/kappa, with error bar error/kappa and weights lambda. By Jensen's inequality the cost of these pseudo-quotes is
an upper bound of the linearised cost and touches it where the slice stands, so that iterating (majorise, minimise) descends and
stands still exactly at the stationary points of the objective in the surface's own vols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from volsurf.errors import InputError
from volsurf.instruments import FloatArray, IntArray
from volsurf.surface.event import EventJump, event_derivatives
from volsurf.surface.interpolation import slice_derivatives
from volsurf.surface.models import Scores, certified_slices, quoted_ns
from volsurf.surface.slices import Smile
from volsurf.surface.surface import Surface
from volsurf.svi.fit import SVIFit, fit_slices

SEARCHED = 4
"""Expiries after the event that decide on the jump; the later ones hardly see it."""
WORTHWHILE = 0.1
"""Share of the misfit that an event must take away."""
CHANCE = 5.0
"""Cost that it must take away: two numbers chosen at will take 1 of noise, more of shape."""
_INNER, _FINAL = 12, 40
_SIZES, _ODDS = (0.6, 1.2, 1.8), (0.2, 0.5, 0.8)


@dataclass(frozen=True, eq=False)
class Quotes:
    """The used quotes of some smiles, flat."""

    years: FloatArray
    """Of each smile."""
    after: FloatArray
    """1 for a smile after the event, else 0."""
    row: IntArray
    """Smile of each quote."""
    k: FloatArray
    vol: FloatArray
    error: FloatArray
    side: FloatArray

    @classmethod
    def of(cls, smiles: Sequence[Smile], time_ns: int) -> Quotes:
        used = [np.isfinite(s.error) for s in smiles]
        k, vol, error, side = (
            np.concatenate([getattr(s, name)[mine] for s, mine in zip(smiles, used, strict=True)])
            for name in ("log_moneyness", "vol", "error", "side")
        )
        return cls(
            np.array([s.years for s in smiles]),
            np.array([float(s.expiry_ns > time_ns) for s in smiles]),
            np.repeat(np.arange(len(smiles)), [int(mine.sum()) for mine in used]),
            k,
            vol,
            error,
            side.astype(np.float64),
        )

    def curve(self, raw: FloatArray, k: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """w, w' and w'' of each quote's slice at k."""
        a, b, rho, m, sigma = raw[self.row].T
        w, slope, curvature = slice_derivatives((a, b * (1.0 + rho), b * (1.0 - rho), m, sigma), k)
        return np.maximum(w, 1e-12), slope, curvature

    def vols(self, raw: FloatArray, jump: EventJump) -> FloatArray:
        """Vol of the surface at each quote."""
        w = self.curve(raw, self.k)[0]
        mine = self.after[self.row] > 0.0
        if mine.any() and not jump.is_quiet:
            part = replace(self, row=self.row[mine])
            w[mine] = event_derivatives(self.k[mine], lambda z: part.curve(raw, z), jump)[0]
        return np.asarray(np.sqrt(w / self.years[self.row]))

    def residuals(self, raw: FloatArray, jump: EventJump) -> FloatArray:
        """(surface - quote)/error."""
        return (self.vols(raw, jump) - self.vol) / self.error

    def costs(self, residual: FloatArray) -> FloatArray:
        """Huber cost of each smile."""
        size = np.abs(np.where(residual * self.side >= 0.0, residual, 0.0))
        below = np.minimum(size, 1.0)
        return np.asarray(np.bincount(self.row, below * (size - 0.5 * below), self.years.size), np.float64)

    def branches(
        self, raw: FloatArray, jump: EventJump, event: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of each quote and branch, shape (2, n): where it reads the slice, sqrt(w) there, and its vega over the surface's.

        Before the event the two branches are the same place.
        """
        shifts = np.array([jump.up, jump.down])[:, None] * self.after[self.row]
        odds = np.array([jump.probability, 1.0 - jump.probability])[:, None]
        z = self.k - shifts
        base = np.stack([np.sqrt(self.curve(raw, place)[0]) for place in z])
        root = event * np.sqrt(self.years[self.row])
        # The ratio of phi(d1), times the branch's weight. By logarithms, because the wings underflow.
        exponent = 0.5 * ((-self.k / root + 0.5 * root) ** 2 - (-z / base + 0.5 * base) ** 2)
        return z, base, odds * np.exp(np.minimum(exponent + shifts, 50.0))

    def refit(self, raw: FloatArray, jump: EventJump, previous: SVIFit | None, *, enforce: bool) -> SVIFit:
        """One step of the iteration from slices `raw`."""
        event = self.vols(raw, jump)
        years = self.years[self.row]
        z, base, vega = self.branches(raw, jump, event)
        kappa = vega.sum(axis=0)
        share = vega / kappa
        move = (self.vol - event) / kappa
        # A long way off, half way: the slices' vols must stay vols.
        base_vol = base / np.sqrt(years)
        vol = base_vol + np.clip(move, -0.5 * base_vol, 2.0 * base_vol)
        keep = share > 1e-6
        order = np.argsort(np.where(keep, self.row, self.years.size).ravel(), kind="stable")[: int(keep.sum())]
        rows = np.concatenate((self.row, self.row))[order]
        return fit_slices(
            z.ravel()[order],
            vol.ravel()[order],
            np.concatenate((self.error / kappa, self.error / kappa))[order],
            np.searchsorted(rows, np.arange(self.years.size + 1)),
            self.years,
            side=np.concatenate((self.side, self.side))[order].astype(np.int8),
            weight=share.ravel()[order],
            previous=previous,
            enforce=enforce,
        )

    def settle(self, raw: FloatArray, jump: EventJump, steps: int, *, enforce: bool) -> tuple[float, SVIFit]:
        """Cost of the smiles after the event, and the fit of least cost, after at most `steps` steps from slices `raw`."""
        fit: SVIFit | None = None
        best: tuple[float, SVIFit] | None = None
        before = math.inf
        for _ in range(steps):
            fit = self.refit(raw, jump, fit, enforce=enforce)
            raw = fit.raw
            cost = float(self.costs(self.residuals(raw, jump)).sum())
            if best is None or cost < best[0]:
                best = cost, fit
            if not math.isfinite(cost) or abs(before - cost) < 1e-4 * (1.0 + cost):
                break
            before = cost
        assert best is not None
        return float(self.costs(self.residuals(best[1].raw, jump)) @ self.after), best[1]


def fit(smiles: Sequence[Smile], time_ns: int, base: Surface | None) -> Surface:
    """`volsurf.surface.event.fit_event`."""
    from volsurf.surface.smile import fit_smiles

    names = sorted({s.underlying for s in smiles})
    if len(names) != 1:
        raise InputError(f"fit_event fits one underlying, was {', '.join(names) or 'none'}")
    smiles = sorted(smiles, key=lambda s: s.expiry_ns)
    now = max(s.time_ns for s in smiles)
    if time_ns <= now:
        raise InputError(f"the event at {_instant(time_ns)} is over: the quotes are of {_instant(now)}")
    if not any(s.expiry_ns > time_ns and np.isfinite(s.error).any() for s in smiles):
        last = max((s.expiry_ns for s in smiles if np.isfinite(s.error).any()), default=smiles[-1].expiry_ns)
        raise InputError(
            f"no quoted expiry of {names[0]} follows the event at {_instant(time_ns)}; the last one is {_instant(last)}"
        )
    quiet = fit_smiles(smiles) if base is None else base
    if [s.expiry_ns for s in quiet.smiles] != [s.expiry_ns for s in smiles]:
        raise InputError("base must be a surface of the same expiries as the smiles")
    none = EventJump.of_size(time_ns, 0.0, improvement=0.0)
    raw = np.column_stack([getattr(quiet.svi, name) for name in ("a", "b", "rho", "m", "sigma")])
    quotes = Quotes.of(smiles, time_ns)
    plain = float(quotes.costs(quotes.residuals(raw, none)) @ quotes.after)
    unchanged = Surface(names[0], now, quiet.smiles, none)
    if plain < CHANCE or np.isnan(raw).any():
        return unchanged
    near = [i for i, s in enumerate(smiles) if s.expiry_ns > time_ns and np.isfinite(s.error).any()][:SEARCHED]
    jump = _search(Quotes.of([smiles[i] for i in near], time_ns), raw[near], time_ns)
    cost, found = quotes.settle(_shrunk(raw, jump, quotes.after), jump, _FINAL, enforce=True)
    if plain - cost < max(CHANCE, WORTHWHILE * plain):
        return unchanged
    jump = EventJump(time_ns, jump.up, jump.down, jump.probability, 1.0 - cost / plain)
    return Surface(names[0], now, _fitted(smiles, quotes, found, jump), jump)


def _search(quotes: Quotes, raw: FloatArray, time_ns: int) -> EventJump:
    """The jump of least cost on the given smiles: the best of a small grid, polished by Nelder and Mead's simplex."""
    from scipy.optimize import minimize

    deviation = math.sqrt(float(raw[0, 0] + raw[0, 1] * (math.hypot(raw[0, 3], raw[0, 4]) - raw[0, 2] * raw[0, 3])))

    def jump_at(x: FloatArray) -> EventJump:
        odds = 1.0 / (1.0 + math.exp(-min(max(x[1], -5.0), 5.0)))
        return EventJump.of_size(time_ns, deviation * math.exp(min(max(x[0], -4.0), 2.0)), odds)

    def cost(x: FloatArray, state: FloatArray) -> tuple[float, FloatArray]:
        jump = jump_at(x)
        value, found = quotes.settle(_shrunk(state, jump, quotes.after), jump, _INNER, enforce=False)
        return value, found.raw

    tried = []
    for size in _SIZES:
        for odds in _ODDS:
            # So that the deviation, not the size, is the same share of the smile's at any odds.
            x = np.array([math.log(size * 0.5 / math.sqrt(odds * (1.0 - odds))), math.log(odds / (1.0 - odds))])
            tried.append((cost(x, raw)[0], x))
    start = min(tried, key=lambda one: one[0])[1]
    found = minimize(
        lambda x: cost(x, raw)[0],
        start,
        method="Nelder-Mead",
        options={
            "initial_simplex": start + np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.4]]),
            "xatol": 2e-3,
            "fatol": 1e-3,
            "maxfev": 80,
        },
    )
    return jump_at(found.x)


def _shrunk(raw: FloatArray, jump: EventJump, after: FloatArray) -> FloatArray:
    """The slices after the event without the variance that the jump takes over: w(k) -> s w(k/sqrt(s)), at least a tenth left."""
    a, b, rho, m, sigma = raw.T
    theta = a + b * (np.hypot(m, sigma) - rho * m)
    scale = np.maximum(1.0 - after * jump.deviation**2 / theta, 0.1)
    root = np.sqrt(scale)
    return np.column_stack((a * scale, b * root, rho, m * root, sigma * root))


def _fitted(smiles: Sequence[Smile], quotes: Quotes, found: SVIFit, jump: EventJump) -> tuple[Smile, ...]:
    """The smiles with their slices of the world without the event, and how the surface with it lies to the quotes."""
    residual = quotes.residuals(found.raw, jump)
    n = len(smiles)
    whole = []
    for i, smile in enumerate(smiles):
        one = np.full(smile.strike.size, np.nan)
        one[np.isfinite(smile.error)] = residual[quotes.row == i]
        whole.append(one)
    costs = quotes.costs(residual)
    upper = np.triu_indices(5)
    scores = Scores.of(smiles, whole)
    slices = certified_slices(
        found.params,
        {
            "result": found.result,
            "cost": costs,
            "fitted_cost": found.fitted_cost,
            "iterations": found.iterations,
            "atm_error": _atm_error(quotes, found, jump),
            "theta": found.theta,
            "enforcement": found.enforcement,
            "solver_steps": found.solver_steps,
            "move": found.move,
            "quoted_ns": quoted_ns(smiles, scores),
            **scores.columns(),
        },
        [tuple(c[upper].tolist()) if np.isfinite(c).all() else () for c in found.scaled_covariance[:n]],
    )
    parts = (jump.up, jump.down, jump.probability)
    return tuple(
        s.with_fit(replace(f, jump=parts) if s.expiry_ns > jump.time_ns else f)
        for s, f in zip(smiles, slices, strict=True)
    )


def _atm_error(quotes: Quotes, found: SVIFit, jump: EventJump) -> FloatArray:
    """Standard error of the surface's vol at the forward, given the jump: as if its two places erred together."""
    n = len(found)
    forward = Quotes(quotes.years, quotes.after, np.arange(n), np.zeros(n), *(np.zeros(n),) * 3)
    z, _, vega = forward.branches(found.raw, jump, forward.vols(found.raw, jump))
    return np.asarray(
        sum(weight * found.vol_error(place[:, None])[:, 0] for weight, place in zip(vega, z, strict=True))
    )


def _instant(time_ns: int) -> str:
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[m]')}Z"
