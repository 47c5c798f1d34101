"""The temporal filter: less jitter, no lag behind a jump, and nothing at all where it is off."""

from __future__ import annotations

import numpy as np
import pytest

from tests.svi.smile_quotes import Quotes, smile_surfaces
from tests.svi.test_enforce import certified
from volsurf.svi.fit import Enforcement, Smoothed, SVIFit, fit_slices
from volsurf.svi.params import RawSVI

FRAME = 0.1 / 31_536_000


def frames(
    quotes: Quotes, beta: float, count: int, *, level: float = 1.0, enforce: bool = True, seed: int = 0
) -> list[SVIFit]:
    """Fits of the same smiles with fresh noise in every frame; from the middle frame on all vols are `level` times higher."""
    rng = np.random.default_rng(seed)
    fits: list[SVIFit] = []
    for number in range(count):
        noise = quotes.error * np.clip(rng.normal(0.0, 0.4, quotes.k.size), -1, 1)
        vol = quotes.truth * (level if number >= count // 2 else 1.0) + noise
        fits.append(
            fit_slices(
                quotes.k, vol, quotes.error, quotes.offsets, quotes.years - number * FRAME, surface=quotes.surface,
                previous=fits[-1] if fits else None, smoothing=beta, enforce=enforce,
            )
        )  # fmt: skip
    return fits


def jitter(fits: list[SVIFit]) -> float:
    """Root mean square change of the vol at the forward from frame to frame."""
    atm = np.array([fit.vol(0.0) for fit in fits[4:]])
    return float(np.sqrt(np.mean(np.diff(atm, axis=0) ** 2)))


@pytest.fixture(scope="module")
def quotes() -> Quotes:
    return smile_surfaces(1, seed=7)


@pytest.mark.parametrize("enforce", [True, False])
def test_jitter_falls_by_four(quotes: Quotes, enforce: bool) -> None:
    raw, smooth = (frames(quotes, beta, 24, enforce=enforce) for beta in (0.0, 0.8))
    assert all(np.all(fit.smoothed[:] == Smoothed.FILTERED) for fit in smooth[6:])
    assert all(np.all(fit.smoothed == Smoothed.OFF) for fit in raw)
    assert jitter(raw) >= 4 * jitter(smooth)
    if enforce:
        assert all(certified(fit) for fit in smooth)


@pytest.mark.parametrize("level", [1.05, 0.95])
def test_a_jump_is_followed_in_the_frame_it_happens(quotes: Quotes, level: float) -> None:
    fits = frames(quotes, 0.8, 12, level=level)
    before, after = fits[5].vol(0.0), fits[6].vol(0.0)
    assert np.all(fits[6].smoothed == Smoothed.JUMPED)
    followed = (after - before) / ((level - 1) * quotes.params.vol(0.0, quotes.years))
    assert np.median(followed) >= 0.95
    assert followed.min() >= 0.9
    assert all(certified(fit) for fit in fits)


def test_the_gate_stays_shut_on_noise(quotes: Quotes) -> None:
    fits = frames(quotes, 0.8, 30)
    jumped = np.array([fit.smoothed == Smoothed.JUMPED for fit in fits])
    assert jumped.mean() <= 0.01


def test_without_previous_or_share_there_is_no_filter(quotes: Quotes) -> None:
    first = frames(quotes, 0.9, 1)[0]
    assert np.all(first.smoothed == Smoothed.OFF)
    columns = (quotes.k, quotes.truth, quotes.error, quotes.offsets, quotes.years)
    off = fit_slices(*columns, previous=first)
    zero = fit_slices(*columns, previous=first, smoothing=0.0)
    assert np.array_equal(off.raw, zero.raw)
    assert np.all(zero.smoothed == Smoothed.OFF)


def test_each_slice_has_its_own_share(quotes: Quotes) -> None:
    first = frames(quotes, 0.0, 1)[0]
    beta = np.zeros(len(quotes))
    beta[3] = 0.5
    columns = (quotes.k, quotes.truth + 0.2 * quotes.error, quotes.error, quotes.offsets, quotes.years)
    fit = fit_slices(*columns, previous=first, smoothing=beta, enforce=False)
    assert np.flatnonzero(fit.smoothed == Smoothed.FILTERED).tolist() == [3]
    others = np.arange(len(quotes)) != 3
    assert np.array_equal(fit.raw[others], fit.fitted_raw[others])
    assert np.all(fit.enforcement == Enforcement.OFF)
    # Between the last curve and the quotes' own.
    at = [float(f.vol(0.0)[3]) for f in (first, fit)]
    own = float(RawSVI(*fit.fitted_raw[3]).vol(0.0, fit.years[3]))
    assert min(at[0], own) < at[1] < max(at[0], own)


def test_cost_leaves_the_filter_out(quotes: Quotes) -> None:
    smooth = frames(quotes, 0.8, 8)[-1]
    assert np.all(smooth.cost >= smooth.fitted_cost - 1e-9)
    r = smooth.residuals_flat[quotes.offsets[2] : quotes.offsets[3]]
    huber = np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5).sum()
    away = smooth.scaled[2] - smooth.prior_centre[2]
    assert np.isclose(smooth.cost[2], huber + 0.5 * np.sum(smooth.prior_precision[2] * away**2), rtol=1e-6)


def test_a_slice_without_quotes_is_not_filtered(quotes: Quotes) -> None:
    first = frames(quotes, 0.0, 1)[0]
    vol = np.where(quotes.slice_of == 4, np.nan, quotes.truth)
    fit = fit_slices(quotes.k, vol, quotes.error, quotes.offsets, quotes.years, previous=first, smoothing=0.8)
    assert fit.smoothed[4] == Smoothed.OFF
    assert certified(fit)
