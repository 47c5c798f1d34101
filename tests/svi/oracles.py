"""Slices and pairs of slices with known answers, for every test of the package that needs one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from volsurf.svi.params import RawSVI


@dataclass(frozen=True)
class KnownSlice:
    """A slice, whether it is free of butterfly arbitrage, and if not, where g is negative and how low."""

    name: str
    parameters: tuple[float, float, float, float, float]
    """(a, b, rho, m, sigma)."""
    free: bool
    negative: tuple[float, float] = (np.nan, np.nan)
    """Log-moneynesses between which g < 0."""
    lowest: tuple[float, float] = (np.nan, np.nan)
    """Log-moneyness and value of the minimum of g."""

    @property
    def svi(self) -> RawSVI:
        return RawSVI(*self.parameters)


VOGT = KnownSlice(
    "vogt",  # Gatheral and Jacquier (2014), example 3.1; one year
    (-0.0410, 0.1331, 0.3060, 0.3586, 0.4153),
    False,
    (0.642407877869381, 1.25691299193213),
    (0.879262541622068, -0.032863573453623),
)
VOGT_WIDE = KnownSlice("vogt with sigma 1", (-0.0410, 0.1331, 0.3060, 0.3586, 1.0), True)
VOGT_REPAIRED = KnownSlice(
    "vogt, repaired",  # example 5.1, the optimised repair
    (-0.030519911031911, 0.10271678178138, 0.100717613202911, 0.272344192925375, 0.412398146911089),
    True,
)
QUANTLIB = KnownSlice(
    "quantlib",  # the slice of QuantLib's SviSmileSection test, which checks the formula only
    (-0.0666, 0.229, 0.439, 0.193, 0.337),
    False,
    lowest=(0.562254264080847, -0.102671351818036),
)
EVASIVE = KnownSlice(
    "grid evasion",  # g < 0 on a short stretch beyond the strikes that grids look at
    (-0.205, 0.298, 0.306, 0.80, 1.06),
    False,
    (2.0341, 2.2703),
    (2.14653, -0.00086224),
)
CRYPTO_30D = KnownSlice(
    "30-day crypto smile",  # 71 % at the money, nearly a parabola between the quoted strikes, as Deribit's are
    (-0.0336, 0.1427, -0.1236, 0.0158, 0.5237),
    True,
)
STEEP = KnownSlice("slopes of 1.999", (5.0, 1.999, 0.0, 0.0, 1.0), True)
FLAT = KnownSlice("flat smile", (0.04, 0.0, 0.0, 0.0, 1.0), True)
ONE_WING = KnownSlice("no right wing at all", (0.04, 0.05, -1.0, 0.0, 0.3), True)

KNOWN_SLICES = (VOGT, VOGT_WIDE, VOGT_REPAIRED, QUANTLIB, EVASIVE, CRYPTO_30D, STEEP, FLAT, ONE_WING)


@dataclass(frozen=True)
class KnownPair:
    """Two slices, near first, and whether the far one is nowhere below."""

    name: str
    near: tuple[float, float, float, float, float]
    far: tuple[float, float, float, float, float]
    free: bool
    crossed: tuple[float, float] = (-np.inf, np.inf)
    """Log-moneynesses between which far < near, where it is."""


CALENDAR_CROSSING = KnownPair(
    "crossing in the left wing only",
    (0.010, 0.12, -0.40, 0.00, 0.15),
    (0.020, 0.12, -0.10, 0.00, 0.15),
    False,
    (-np.inf, -0.2),
)
CALENDAR_FAR_OUT = KnownPair(
    "crossing only beyond k = 5.8, and back",  # the far slice turns up again at 12: both tail slopes are in order
    (0.04, 0.055, 0.8181818181818182, 0.0, 0.05),
    (0.50, 0.110, 0.8181818181818182, 12.0, 0.05),
    False,
    (5.8, 19.5),
)
CALENDAR_CLEAN = KnownPair("a month and three", CRYPTO_30D.parameters, (-0.0504, 0.247, -0.1236, 0.0274, 0.907), True)
CALENDAR_PARALLEL = KnownPair("raised by a constant", (0.01, 0.1, -0.3, 0.0, 0.2), (0.011, 0.1, -0.3, 0.0, 0.2), True)
CALENDAR_SAME = KnownPair("the same slice twice", VOGT.parameters, VOGT.parameters, True)
CALENDAR_FLAT = KnownPair("flat smiles", (0.01, 0.0, 0.0, 0.0, 1.0), (0.02, 0.0, 0.5, 0.1, 0.3), True)
CALENDAR_FLAT_SWAPPED = KnownPair("flat smiles", (0.02, 0.0, 0.0, 0.0, 1.0), (0.01, 0.0, 0.5, 0.1, 0.3), False)
CALENDAR_ONTO_FLAT = KnownPair("a flat far slice", (0.01, 0.1, -0.3, 0.0, 0.2), (0.5, 0.0, 0.0, 0.0, 1.0), False)
CALENDAR_FROM_FLAT = KnownPair("a flat near slice", (0.01, 0.0, 0.0, 0.0, 1.0), (0.02, 0.1, -0.3, 0.0, 0.2), True)

KNOWN_PAIRS = (
    CALENDAR_CROSSING,
    CALENDAR_FAR_OUT,
    CALENDAR_CLEAN,
    CALENDAR_PARALLEL,
    CALENDAR_SAME,
    CALENDAR_FLAT,
    CALENDAR_FLAT_SWAPPED,
    CALENDAR_ONTO_FLAT,
    CALENDAR_FROM_FLAT,
)


def random_slices(rng: np.random.Generator, n: int) -> RawSVI:
    """Smiles from a minute to three years and 10 % to 200 % vol, in every shape raw SVI has, free of arbitrage or not.

    Total variance is positive and both slopes are below 2; nothing else is asked.
    """
    years = 10.0 ** rng.uniform(-5.7, 0.5, n)
    theta = rng.uniform(0.1, 2.0, n) ** 2 * years
    s = np.sqrt(theta)
    u = np.minimum(s * 10.0 ** rng.uniform(-1.5, 0.5, n), 1.99)
    l = np.minimum(s * 10.0 ** rng.uniform(-1.5, 0.5, n), 1.99)
    sigma = s * np.exp(rng.uniform(-2.5, 2.0, n))
    m = s * rng.normal(0.0, 1.0, n)
    t = np.exp(np.arcsinh(-m / sigma))
    a = theta - 0.5 * sigma * (u * t + l / t)
    bottom = sigma * np.sqrt(u * l)
    a = np.where(a + bottom > 0.01 * bottom, a, -bottom * rng.uniform(0.5, 0.99, n))
    return RawSVI(a, 0.5 * (u + l), (u - l) / (u + l), m, sigma)


def parameters(svi: RawSVI, index: int) -> tuple[float, float, float, float, float]:
    """The five doubles of one slice of a batch."""
    one = svi[index]
    return float(one.a), float(one.b), float(one.rho), float(one.m), float(one.sigma)


def scale(svi: RawSVI, factor: float) -> RawSVI:
    """The slice factor * w(k / sqrt(factor)), which is SVI again."""
    root = np.sqrt(factor)
    return RawSVI(svi.a * factor, svi.b * root, svi.rho, svi.m * root, svi.sigma * root)
