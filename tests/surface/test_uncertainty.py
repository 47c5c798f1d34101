"""Standard errors: the fit's own where they must be, and what random draws of the parameters give everywhere else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.surface.random_surfaces import NOW, realistic, surface_of
from tests.surface.test_interpolation import with_rules
from volsurf.instruments import NANOSECONDS_PER_YEAR
from volsurf.surface.event import EventJump
from volsurf.surface.surface import Surface
from volsurf.surface.uncertainty import error_reason
from volsurf.svi.fit import fit_svi
from volsurf.svi.params import RawSVI

Floats = npt.NDArray[np.float64]
YEARS = np.array([14, 30, 60]) / 365
BASE = RawSVI([0.004, 0.009, 0.018], [0.06, 0.09, 0.13], [-0.3, -0.25, -0.2], [0.01, 0.01, 0.02], [0.1, 0.15, 0.2])


def scaled_of(svi: RawSVI, theta: Floats) -> Floats:
    root = np.sqrt(theta)
    u, l = svi.b * (1 + svi.rho) / root, svi.b * (1 - svi.rho) / root
    return np.stack([svi.a / theta, u, l, svi.m / root, np.log(svi.sigma / root)], axis=-1)


def raw_of(x: Floats, theta: Floats) -> RawSVI:
    root = np.sqrt(theta)
    u, l = x[..., 1], x[..., 2]
    return RawSVI(
        theta * x[..., 0], 0.5 * root * (u + l), (u - l) / (u + l), root * x[..., 3], root * np.exp(x[..., 4])
    )


@pytest.fixture(scope="module")
def covariance() -> list[Floats]:
    rng = np.random.default_rng(3)
    # Small enough for the chain rule to be exact to a per cent, correlated as those of fits are.
    roots = rng.normal(size=(3, 5, 5)) * 4e-4
    return [root @ root.T for root in roots]


@pytest.fixture(scope="module")
def draws(covariance: list[Floats]) -> list[Surface]:
    """Surfaces with the slices' parameters drawn around the base."""
    rng = np.random.default_rng(11)
    theta = BASE.total_variance(0.0)
    centre = scaled_of(BASE, theta)
    roots = [np.linalg.cholesky(c) for c in covariance]
    return [
        surface_of(YEARS, raw_of(centre + np.stack([r @ rng.normal(size=5) for r in roots]), theta)) for _ in range(400)
    ]


TIMES = np.array([0.5 * YEARS[0], YEARS[1], 0.4 * YEARS[1] + 0.6 * YEARS[2], 1.6 * YEARS[2]])
"""Scaled, listed, blended, shifted."""
Reading = Callable[[Surface], Floats]
READINGS: dict[str, tuple[Reading, Reading]] = {
    "vol at k": (lambda s: s.vol(k=-0.1, years=TIMES), lambda s: s.vol_error(k=-0.1, years=TIMES)),
    "vol at a delta": (lambda s: s.vol(delta=-0.1, years=TIMES), lambda s: s.vol_error(delta=-0.1, years=TIMES)),
    "vol at an adjusted delta": (
        lambda s: s.vol(delta=0.25, years=TIMES, premium_adjusted=True),
        lambda s: s.vol_error(delta=0.25, years=TIMES, premium_adjusted=True),
    ),
    "vol at an adjusted put delta": (
        lambda s: s.vol(delta=-0.25, years=TIMES, premium_adjusted=True),
        lambda s: s.vol_error(delta=-0.25, years=TIMES, premium_adjusted=True),
    ),
    "risk reversal": (
        lambda s: s.risk_reversal(0.25, years=TIMES),
        lambda s: s.risk_reversal_error(0.25, years=TIMES),
    ),
    "fly": (lambda s: s.fly(0.1, years=TIMES), lambda s: s.fly_error(0.1, years=TIMES)),
    "fly over the straddle": (
        lambda s: s.fly(0.1, years=TIMES, atm="dns"),
        lambda s: s.fly_error(0.1, years=TIMES, atm="dns"),
    ),
    "adjusted butterfly over the straddle": (
        lambda s: s.butterfly(0.2, years=TIMES, premium_adjusted=True, atm="dns"),
        lambda s: s.butterfly_error(0.2, years=TIMES, premium_adjusted=True, atm="dns"),
    ),
    "level": (lambda s: s.atm(years=TIMES).level, lambda s: s.atm(years=TIMES).level_error),
    "skew": (lambda s: s.atm(years=TIMES).skew, lambda s: s.atm(years=TIMES).skew_error),
    "curvature": (lambda s: s.atm(years=TIMES).curvature, lambda s: s.atm(years=TIMES).curvature_error),
}


WINGS: dict[str, tuple[Reading, Reading]] = {
    "risk reversal": (lambda s: s.risk_reversal(years=YEARS[1]), lambda s: s.risk_reversal_error(years=YEARS[1])),
    "fly": (lambda s: s.fly(years=YEARS[1]), lambda s: s.fly_error(years=YEARS[1])),
}


# Where prices are mixed the gradient of w is another, and the rest of the chain the same: one reading of each kind will do.
@pytest.mark.parametrize(("name", "mixed"), [*((n, False) for n in READINGS), ("vol at k", True), ("fly", True)])
def test_errors_are_the_spread_of_random_draws(
    name: str, mixed: bool, draws: list[Surface], covariance: list[Floats]
) -> None:
    value, error = READINGS[name]
    base = with_rules(surface_of(YEARS, BASE, covariance=covariance), mixed)
    used = draws[:120] if mixed else draws
    spread = np.std([value(with_rules(s, mixed)) for s in used], axis=0)
    # A standard deviation is known to 1/sqrt(2 n): 3.5 % of it from 400 draws, 6.5 % from 120.
    np.testing.assert_allclose(error(base), spread, rtol=0.25 if mixed else 0.14)


def test_errors_go_through_an_event(draws: list[Surface], covariance: list[Floats]) -> None:
    jump = EventJump.of_size(NOW + round(0.06 * NANOSECONDS_PER_YEAR), 0.15)

    def after(surface: Surface) -> Surface:
        return Surface(surface.underlying, surface.time_ns, surface.smiles, jump)

    value, error = READINGS["vol at a delta"]
    spread = np.std([value(after(s)) for s in draws[:150]], axis=0)
    base = surface_of(YEARS, BASE, covariance=covariance)
    np.testing.assert_allclose(error(after(base)), spread, rtol=0.25)
    assert (np.abs(error(after(base))[1:] / error(base)[1:] - 1) > 0.01).any()


def test_at_a_listed_expiry_it_is_the_error_of_the_fit() -> None:
    k = np.linspace(-0.25, 0.25, 25)
    rng = np.random.default_rng(5)
    vols = BASE.vol(k, YEARS) + 0.004 * rng.normal(size=(3, 25))
    fit = fit_svi(np.tile(k, (3, 1)), vols, 0.004, years=YEARS, enforce=False)
    # Draws and covariance both belong to the coordinates scaled by the fit's own theta.
    surface = _with_theta(surface_of(YEARS, fit.params, covariance=list(fit.scaled_covariance)), fit.theta)
    at = np.array([-0.2, -0.05, 0.0, 0.1])
    np.testing.assert_allclose(surface.vol_error(k=at, years=YEARS[:, None]), fit.vol_error(at), rtol=1e-9)


def test_bands_of_fits_to_noisy_quotes_hold_the_truth_as_often_as_they_should() -> None:
    """B8 for risk reversals and flies: 68 % bands of 400 fits hold the truth 64 to 72 % of the time."""
    n, noise = 400, 0.004
    rng = np.random.default_rng(20)
    k = np.linspace(-0.25, 0.25, 41)
    truth = surface_of(YEARS[1:2], BASE[1:2])
    vols = truth.vol(k=k, years=YEARS[1]) + noise * rng.normal(size=(n, 41))
    fit = fit_svi(np.tile(k, (n, 1)), vols, noise, years=np.full(n, YEARS[1]), surface=np.arange(n), enforce=False)
    hits = dict.fromkeys(WINGS, 0)
    for i in range(n):
        one = surface_of(YEARS[1:2], fit.params[i : i + 1], covariance=[fit.scaled_covariance[i]])
        one = _with_theta(one, fit.theta[i : i + 1])
        for name in hits:
            value, error = WINGS[name]
            hits[name] += bool(abs(value(one) - value(truth)) <= error(one))
    for name, count in hits.items():
        assert 0.62 <= count / n <= 0.75, (name, count / n)


def test_without_covariance_errors_are_nan_with_a_reason() -> None:
    surface = surface_of(YEARS, BASE)
    assert np.isnan(surface.vol_error(k=0.0, years=TIMES)).all()
    assert "without a covariance" in error_reason(surface.smiles[0].fit)
    assert error_reason(None) == "no slice of its own"
    nodes = surface.nodes()
    assert np.isfinite(nodes.vol).all()
    assert np.isnan(nodes.error).all()
    assert all("without a covariance" in r for r in nodes.error_reason)
    assert all("without a covariance" in r for r in surface.tenors(["1W", "1M"]).error_reason)
    assert realistic().nodes().error_reason == ("",) * 12


def test_errors_broadcast_like_vols() -> None:
    surface = realistic()
    assert surface.vol_error(k=np.zeros(4), years=np.full((3, 1), 0.1)).shape == (3, 4)
    assert surface.vol_error(delta=0.25, years=0.1).shape == ()
    assert surface.vol_error(strike=90_000, tenor=["1W", "1M"]).shape == (2,)
    assert surface.risk_reversal([0.1, 0.25], years=np.full((3, 1), 0.1)).shape == (3, 2)


def _with_theta(surface: Surface, theta: Floats) -> Surface:
    from dataclasses import replace

    smiles = []
    for smile, scale in zip(surface.smiles, theta.tolist(), strict=True):
        assert smile.fit is not None
        smiles.append(smile.with_fit(replace(smile.fit, theta=scale)))
    return Surface(surface.underlying, surface.time_ns, tuple(smiles))
