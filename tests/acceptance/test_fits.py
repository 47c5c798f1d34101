"""B1 to B8: how well slices are fitted to their quotes alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.acceptance.figures import Figures, Row, expect, proved
from tests.svi.smile_quotes import fitted_vol, smile_surfaces
from tests.svi.test_fit_quality import odd_smiles
from volsurf.svi.fit import QuoteUse, fit_slices, fit_svi
from volsurf.svi.params import RawSVI


def b1_exact_quotes(full: bool) -> list[Row]:
    """B1: the error vanishes with the error bar; at 50 bp the prior is worth half a basis point."""
    table = []
    for half, median, p99 in ((5e-3, 0.5, 10.0), (5e-4, 5e-3, 0.1), (5e-5, 5e-4, 5e-3), (5e-6, 5e-5, 5e-4)):
        quotes = smile_surfaces(40, seed=1, half_spread=half)
        rmse = quotes.rmse_bp(quotes.fit())
        table.append(
            Row("B1", f"exact quotes, h = {1e4 * half:g} bp: RMSE median, bp", float(np.median(rmse)), "<=", median)
        )
        table.append(Row("B1", "… 99th percentile, bp", float(np.percentile(rmse, 99)), "<=", p99))
    return table


def b2_noisy_quotes(full: bool) -> list[Row]:
    """B2: mids a third of a half-spread off; against the truth, and against the best of 40 random restarts."""
    quotes = smile_surfaces(20 if full else 6, seed=3, noise=1 / 3)
    fit = quotes.fit()
    rmse = quotes.rmse_bp(fit)
    rng, best = np.random.default_rng(0), fit.cost.copy()
    for _ in range(40 if full else 10):
        x = rng.uniform((-6.0, 0.05, 0.05, -2.0, -2.0), (0.9, 2.0, 2.0, 2.0, 2.0), (len(quotes), 5))
        # Restarts are handed to the fit as raw slices at each slice's own scale.
        root = np.sqrt(fit.theta)
        up, low = x[:, 1] * root, x[:, 2] * root
        raw = np.column_stack(
            (fit.theta * x[:, 0], (up + low) / 2, (up - low) / (up + low), root * x[:, 3], root * np.exp(x[:, 4]))
        )
        start = dataclasses.replace(fit, raw=raw, fitted_raw=raw)
        best = np.minimum(best, quotes.fit(previous=start, prior_centre=fit.prior_centre).cost)
    within = np.abs(fitted_vol(fit, quotes) - quotes.vol) <= quotes.error
    unbeaten = fit.cost <= best + 1e-3 * (1 + best)
    return [
        Row("B2", f"{len(quotes)} noisy slices: RMSE to the truth, median, bp", float(np.median(rmse)), "<=", 9.0),
        Row("B2", "… 95th percentile, bp", float(np.percentile(rmse, 95)), "<=", 30.0),
        Row("B2", "… quotes within their spread, %", 100 * float(np.mean(within)), ">=", 98.5),
        Row("B2", "… within 0.1 % of the best restart, %", 100 * float(np.mean(unbeaten)), "==", 100.0),
        Row("B2", "… passes, most", float(fit.iterations.max()), "<=", 130.0),
    ]  # fmt: skip


def b3_ranges(full: bool) -> list[Row]:
    """B3: strikes within 5, 7, 10, 15 and 20 % of the forward."""
    worst = 0.0
    for width in (0.05, 0.07, 0.10, 0.15, 0.20):
        for days in (2, 10, 30, 60, 180):
            rng, time = np.random.default_rng(int(1000 * width) + days), days / 365
            for atm, skew in ((0.16, -0.6), (0.45, -0.2), (0.9, 0.1)):
                root = atm * np.sqrt(time)
                curve = RawSVI(0.4 * root**2, 0.5 * root, skew, 0.1 * root, 0.9 * root)
                k = np.log(np.linspace(1 - width, 1 + width, 41))
                truth = curve.vol(k, time)
                vol = truth + rng.uniform(-0.5, 0.5, k.size) * 0.01 * truth
                fit = fit_svi(k, vol, 0.01 * truth, years=time)
                worst = max(worst, abs(float(fit.vol(0.0)[0]) - float(curve.vol(0.0, time))))
    return [Row("B3", "75 ranges of strikes: vol at the forward off by at most, vp", 100 * worst, "<=", 1.0)]


def b4_outliers(full: bool) -> list[Row]:
    """B4: 5 % of the quotes 8 to 20 half-spreads off; one wing quote three times too high."""
    quotes = smile_surfaces(20 if full else 6, seed=5, noise=0.35, outliers=0.05)
    clean = smile_surfaces(20 if full else 6, seed=3, noise=0.35)
    fit = clean.fit()
    vol = clean.vol.copy()
    last = clean.offsets[1:] - 1
    vol[last] *= 3.0
    moved = dataclasses.replace(clean, vol=vol).fit()
    away = 1e4 * np.abs(moved.vol(0.0) - fit.vol(0.0))
    return [
        Row(
            "B4",
            "5 % outliers: RMSE, 95th percentile, bp",
            float(np.percentile(quotes.rmse_bp(quotes.fit()), 95)),
            "<=",
            40.0,
        ),
        Row("B4", "wing quote x3: at the forward, 95th percentile, bp", float(np.percentile(away, 95)), "<=", 3.0),
        Row("B4", "… named an outlier, %", 100 * float(np.mean(moved.use_flat[last] == QuoteUse.OUTLIER)), "==", 100.0),
    ]


def b5_scale(full: bool) -> list[Row]:
    """B5: the unit of price, and vols from 5 to 500 %."""
    quotes = smile_surfaces(2, seed=7, noise=0.35)
    fit, worst = quotes.fit(), 0.0
    strike = 64_000.0 * np.exp(quotes.k)
    for unit in (1e-6, 1e6):
        other = dataclasses.replace(quotes, k=np.log((strike * unit) / (64_000.0 * unit))).fit()
        worst = max(worst, float(np.abs(other.scaled - fit.scaled).max()))
    # Up to 15 days: Lee's bound knows the size of a vol, and at 500 % it is near for longer.
    offsets = quotes.offsets[:5]
    columns = [array[: offsets[-1]] for array in (quotes.k, quotes.vol, quotes.error)]
    base, scaled = fit_slices(*columns, offsets, quotes.years[:4], enforce=False), 0.0
    for factor in (0.05 / 0.6, 0.3, 3.0, 5.0 / 0.6):
        other = fit_slices(*(factor * c for c in columns), offsets, quotes.years[:4], enforce=False)
        scaled = max(scaled, float(np.abs(other.scaled - base.scaled).max()))
    return [
        Row("B5", "prices in other units: scaled parameters off by at most", worst, "<=", 1e-8),
        Row("B5", "vols from 5 to 500 %: scaled parameters off by at most", scaled, "<=", 1e-8),
    ]


def b6_order(full: bool) -> list[Row]:
    """B6: permuted, halved and useless quotes."""
    quotes = smile_surfaces(2, seed=11, noise=0.35)
    fit, k = quotes.fit(), np.array([-0.1, 0.0, 0.1])
    order = np.lexsort((np.random.default_rng(1).uniform(size=quotes.k.size), quotes.slice_of))
    mixed = dataclasses.replace(quotes, k=quotes.k[order], vol=quotes.vol[order], error=quotes.error[order]).fit()
    twice = dataclasses.replace(
        quotes, k=np.repeat(quotes.k, 2), vol=np.repeat(quotes.vol, 2), error=np.repeat(quotes.error, 2),
        offsets=2 * quotes.offsets,
    ).fit(weight=np.full(2 * quotes.k.size, 0.5))  # fmt: skip
    useless = dataclasses.replace(
        quotes, k=np.repeat(quotes.k, 2), error=np.repeat(quotes.error, 2), offsets=2 * quotes.offsets,
        vol=np.column_stack((quotes.vol, np.full(quotes.k.size, np.nan))).ravel(),
    ).fit()  # fmt: skip
    weights = np.tile([1.0, 0.0], quotes.k.size)
    unweighted = dataclasses.replace(
        quotes, k=np.repeat(quotes.k, 2), error=np.repeat(quotes.error, 2), offsets=2 * quotes.offsets,
        vol=np.column_stack((quotes.vol, 2.0 * quotes.vol)).ravel(),
    ).fit(weight=weights)  # fmt: skip
    names = ("permuted", "each as two halves", "NaN quotes between", "weightless quotes between")
    return [
        Row("B6", f"{name}: vol off by at most", float(np.abs(other.vol(k) - fit.vol(k)).max()), "<=", 1e-10)
        for name, other in zip(names, (mixed, twice, useless, unweighted), strict=True)
    ]


def b7_odd_shapes(full: bool) -> list[Row]:
    """B7: flat, straight, bent, one-sided."""
    away, certified = 0.0, 0
    smiles = odd_smiles()
    for _, k, vol in smiles:
        fit = fit_svi(k, vol, 0.003, years=30 / 365)
        certified += proved(fit) and bool(np.isfinite(fit.raw).all())
        away = max(away, float(np.abs(fit.vol(k)[0] - vol).max()) / 0.003)
    return [
        Row("B7", f"{len(smiles)} odd smiles: finite and proved", float(certified), "==", float(len(smiles))),
        Row("B7", "… off their quotes by at most, half-spreads", away, "<=", 1.0),
    ]


def b8_coverage(full: bool) -> list[Row]:
    """B8: how often the standard error holds the truth."""
    quotes = smile_surfaces(1, seed=5)
    rng, inside = np.random.default_rng(2), []
    k = np.linspace(-2.0, 2.0, 5)[None, :] * np.sqrt(quotes.params.total_variance(0.0))[:, None]
    truth = quotes.params.vol(k, quotes.years)
    for _ in range(400 if full else 150):
        vol = quotes.truth + rng.normal(0.0, 1.0, quotes.k.size) * quotes.error
        fit = dataclasses.replace(quotes, vol=vol).fit()
        inside.append(np.abs(fit.vol(k) - truth) < fit.vol_error(k))
    share = 100 * float(np.mean(inside))
    return [
        Row("B8", "one standard error holds the truth, %", share, ">=", 64.0),
        Row("B8", "… and no more, %", share, "<=", 72.0),
    ]


FIGURES: tuple[Figures, ...] = (
    b1_exact_quotes, b2_noisy_quotes, b3_ranges, b4_outliers, b5_scale, b6_order, b7_odd_shapes, b8_coverage,
)  # fmt: skip


@pytest.mark.parametrize("figures", FIGURES, ids=lambda f: f.__name__)
def test_figures(figures: Figures) -> None:
    expect(figures)
