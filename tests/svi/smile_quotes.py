"""Quotes of known smiles, for every test of the fit that needs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from volsurf.svi.fit import SVIFit, fit_slices
from volsurf.svi.params import RawSVI

Floats = npt.NDArray[np.float64]

DAYS = (2, 4, 8, 15, 30, 58, 93, 149, 184, 240, 330, 540)


@dataclass
class Quotes:
    """Flat quotes of many slices, and the vols that they are noisy copies of."""

    k: Floats
    truth: Floats
    vol: Floats
    error: Floats
    offsets: npt.NDArray[np.int64]
    years: Floats
    surface: npt.NDArray[np.int64]
    params: RawSVI

    def __len__(self) -> int:
        return len(self.years)

    @property
    def slice_of(self) -> npt.NDArray[np.int64]:
        """The slice of each quote."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def fit(self, **options: object) -> SVIFit:
        """All slices in one call, to their quotes alone unless enforcement is asked for."""
        options = {"surface": self.surface, "enforce": False} | options
        return fit_slices(self.k, self.vol, self.error, self.offsets, self.years, **options)  # type: ignore[arg-type]

    def rmse_bp(self, fit: SVIFit) -> Floats:
        """Root mean square of fit − truth over the quoted strikes of each slice, in bp of vol."""
        away = (fitted_vol(fit, self) - self.truth) ** 2
        return 1e4 * np.sqrt(np.add.reduceat(away, self.offsets[:-1]) / np.diff(self.offsets))


def fitted_vol(fit: SVIFit, quotes: Quotes) -> Floats:
    """Vol of the fit at every quote."""
    i = quotes.slice_of
    a, b, rho, m, sigma = fit.raw[i].T
    x = quotes.k - m
    return np.sqrt(np.maximum(a + b * (rho * x + np.hypot(x, sigma)), 0.0) / quotes.years[i])


def smile_surfaces(
    surfaces: int, *, seed: int = 0, half_spread: float = 0.005, noise: float = 0.0, outliers: float = 0.0
) -> Quotes:
    """Surfaces of twelve expiries with SVI truths whose shape changes smoothly in time, 30 to 80 quotes each.

    Args:
        half_spread: error bar at the money, in vol; it doubles two standard deviations away.
        noise: quotes are off by a normal error of this many error bars, cut at the error bar as real mids are.
        outliers: share of quotes 8 to 20 error bars off.
    """
    rng = np.random.default_rng(seed)
    pieces: dict[str, list[Floats]] = {name: [] for name in ("k", "truth", "vol", "error")}
    params, years, surface = [], [], []
    for number in range(surfaces):
        level, slope = rng.uniform(0.35, 0.9), rng.uniform(-0.15, 0.15)
        skew, tilt = rng.uniform(-0.4, 0.1), rng.uniform(0.7, 1.3)
        width = rng.uniform(0.3, 1.2)
        for days in DAYS:
            time = days / 365
            atm = level * (1.0 + slope * np.log(time))
            theta = atm * atm * time
            root = np.sqrt(theta)
            wing = rng.uniform(0.9, 1.1) * tilt * 0.8 * time**-0.05
            rho = skew + rng.uniform(-0.05, 0.05)
            sigma = root * np.exp(width + rng.uniform(-0.1, 0.1))
            m = root * (0.1 + rng.uniform(-0.1, 0.1))
            b = 0.5 * root * wing
            a = theta - b * (-rho * m + np.hypot(m, sigma))
            a = max(a, 0.02 * theta - b * sigma * np.sqrt(1 - rho * rho))
            curve = RawSVI(a, b, rho, m, sigma)
            k = np.sort(rng.uniform(-3.0, 3.0, rng.integers(30, 81))) * root
            truth = curve.vol(k, time)
            error = half_spread * (1.0 + 0.25 * (k / root) ** 2)
            off = np.clip(rng.normal(0.0, noise, k.size), -1.0, 1.0) if noise else np.zeros(k.size)
            wild = rng.uniform(size=k.size) < outliers
            off = np.where(wild, rng.uniform(8, 20, k.size) * rng.choice([-1.0, 1.0], k.size), off)
            pieces["k"].append(k)
            pieces["truth"].append(truth)
            pieces["error"].append(error)
            pieces["vol"].append(np.maximum(truth + off * error, 0.05 * truth))
            params.append((a, b, rho, m, sigma))
            years.append(time)
            surface.append(number)
    sizes = [len(piece) for piece in pieces["k"]]
    return Quotes(
        **{name: np.concatenate(columns) for name, columns in pieces.items()},
        offsets=np.concatenate(([0], np.cumsum(sizes))),
        years=np.array(years),
        surface=np.array(surface),
        params=RawSVI(*np.array(params).T),
    )
