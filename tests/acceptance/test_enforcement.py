"""C2 to C8, and D1 to D5: enforcement on stale, inverted, thin, broken and garbage quotes. C1 is in `test_live`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.acceptance.figures import Figures, Row, expect, proved
from tests.bench import garbage, portfolios
from tests.surface.random_surfaces import realistic
from tests.svi.smile_quotes import Quotes, fitted_vol, smile_surfaces
from volsurf.surface.surface import Surface
from volsurf.svi.fit import Enforcement, FitResult, SVIFit, fit_slices, fit_svi

DAY = 1 / 365


def c2_stale_expiry(full: bool) -> list[Row]:
    """C2: one expiry of each surface off by 5 to 40 %."""
    certified = guarded = count = 0
    moved, reported = [], 0
    surfaces = 10 if full else 4
    stale_places = 12 * np.arange(surfaces) + 6
    for factor in (0.6, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.4):
        quotes = smile_surfaces(surfaces, seed=11, noise=0.35)
        stale = np.isin(quotes.slice_of, stale_places)
        honest = quotes.fit(enforce=True)
        quotes.vol[stale] *= factor
        fit = quotes.fit(enforce=True)
        count += surfaces
        certified += surfaces * proved(fit)
        guarded += int(np.sum(np.bincount(quotes.surface, fit.enforcement == Enforcement.GUARDED) > 0))
        if 0.8 <= factor <= 1.2:
            move = np.abs(fitted_vol(fit, quotes) - fitted_vol(honest, quotes)) / quotes.error
            moved.append(move[~stale])
        if factor in (0.6, 1.4):
            reported += int(np.sum(fit.rms[stale_places] > np.median(fit.rms)))
    others = np.concatenate(moved)
    return [
        Row("C2", f"{count} surfaces with a stale expiry: proved", float(certified), "==", float(count)),
        Row("C2", "… with the guard", float(guarded), "<=", 0.01 * count),
        Row("C2", "… up to 20 % stale: other quotes' curves move, median, half-spreads", float(np.median(others)), "<=", 1.0),
        Row("C2", "… other quotes' curves within a half-spread of before, %", 100 * float(np.mean(others <= 1.0)), ">=", 80.0),
        Row("C2", "… at 40 % the offender's misfit stands out, of all", reported / (2.0 * surfaces), "==", 1.0),
    ]  # fmt: skip


def c3_inverted_front(full: bool) -> list[Row]:
    """C3: total variance falls from the first expiry to the second; the loosely quoted one gives way."""
    k = np.linspace(-0.15, 0.15, 21)
    worst, certified = 0.0, 0
    for tight in (0, 1):
        error = np.full((2, 21), 0.02)
        error[tight] = 0.001
        vol = np.array([0.8 + 0.5 * k**2, 0.5 + 0.4 * k**2])
        fit = fit_svi([k, k], list(vol), list(error), years=[2 * DAY, 4 * DAY])
        certified += proved(fit)
        moves = np.abs(fit.vol(k) - vol).max(axis=1)
        worst = max(worst, float(moves[tight] / moves[1 - tight]))
    return [
        Row("C3", "inverted fronts proved, of 2", float(certified), "==", 2.0),
        Row("C3", "… move of the tight slice over the loose one's", worst, "<=", 0.2),
    ]


def c4_no_bias(full: bool) -> list[Row]:
    """C4: what is certified already, and whose quotes have not changed, keeps its bits."""
    quotes = smile_surfaces(20 if full else 6, seed=1, noise=0.35)
    loose, fit = quotes.fit(), quotes.fit(enforce=True)
    near = loose.calendar_pairs[0]
    clean = [
        s
        for s in np.unique(quotes.surface)
        if loose.butterfly.proved[quotes.surface == s].all() and loose.calendar.proved[quotes.surface[near] == s].all()
    ]
    mine = np.isin(quotes.surface, clean)
    settled = quotes.fit(enforce=True, enforcement_tolerance=5e-4)
    for _ in range(4):
        last, settled = settled, quotes.fit(enforce=True, previous=settled)
    return [
        Row("C4", "clean surfaces looked at", float(len(clean)), ">=", 1.0),
        Row("C4", "… numbers that enforcement changed", float(np.sum(fit.raw[mine] != loose.raw[mine])), "==", 0.0),
        Row(
            "C4",
            "unchanged quotes: numbers that the next frame changes",
            float(np.sum(settled.raw != last.raw)),
            "==",
            0.0,
        ),
    ]


def c5_cost(full: bool) -> list[Row]:
    """C5: what being free of arbitrage costs ordinary surfaces; on real chains see R9."""
    quotes = smile_surfaces(30 if full else 10, seed=13, noise=0.35)
    loose, fit = quotes.fit(), quotes.fit(enforce=True)
    before, after = quotes.rmse_bp(loose), quotes.rmse_bp(fit)
    extra, ratio = after - before, float(np.median(after) / np.median(before))
    p99 = float(np.quantile(extra, 0.99))
    return [
        Row("C5", f"{len(quotes)} slices: RMSE to the truth changed by, 99th percentile, bp", p99, "<=", 20.0),
        Row("C5", "… worst, bp", float(extra.max()), "<=", 25.0),
        Row("C5", "… median RMSE to the truth over the loose fit's", ratio, "<=", 1.0),
    ]  # fmt: skip


def c6_garbage(full: bool) -> list[Row]:
    """C6: garbage surfaces; times are asserted by the command only."""
    rows = garbage.rows(240 if full else 12)
    return rows if full else [row for row in rows if "milliseconds" not in row.what]


def c7_density(full: bool) -> list[Row]:
    """C7: density, martingale and local variance of published surfaces."""
    rng = np.random.default_rng(7)
    mass = mean = 0.0
    lowest, local, points = np.inf, np.inf, 0
    for surface in published(full):
        for years in surface.years[surface.fitted]:
            root = float(np.sqrt(surface.total_variance(0.0, years=years)))
            k = root * np.sinh(np.linspace(-6.0, 6.0, 20_001))
            density = surface.density(k=k, years=years)
            mass = max(mass, abs(float(np.trapezoid(density, k)) - 1.0))
            mean = max(mean, abs(float(np.trapezoid(density * np.exp(k), k)) - 1.0))
        n = 100_000 if full else 5_000
        times = rng.uniform(0.01, 1.9, n) * surface.years[-1]
        k = rng.standard_normal(n) * 4.0 * np.sqrt(surface.total_variance(0.0, years=times))
        lowest = min(lowest, float(surface.density(k=k, years=times).min()))
        local = min(local, float(surface.local_vol(k=k, years=times).min()))
        points += n
    return [
        Row("C7", "density: |mass - 1| at most", mass, "<=", 1e-4),
        Row("C7", "… |mean of S/F - 1| at most", mean, "<=", 1e-4),
        Row("C7", f"… lowest at {points:,} random places", lowest, ">=", 0.0),
        Row("C7", "local vol, lowest at the same places", local, ">=", 1e-9),
    ]


def published(full: bool) -> list[Surface]:
    """Real surfaces where they are, and made-up ones."""
    real = [s for s in portfolios.real_surfaces(6 if full else 1) if len(s.fitted) > 1]
    return [realistic(), *real]


def c8_portfolios(full: bool) -> list[Row]:
    """C8: no portfolio of published options costs less than nothing."""
    return portfolios.rows(published(full), 10_000 if full else 1_000)


def d1_thin_slices(full: bool) -> list[Row]:
    """D1: expiries with none to four quotes between others."""
    table, total, certified = [], 0, 0
    for count, bar in ((0, 450), (1, 450), (2, 200), (3, 150), (4, 100)):
        rng = np.random.default_rng(count)
        quotes = smile_surfaces(20 if full else 8, seed=9, noise=0.35)
        atm = np.sqrt(quotes.params.total_variance(0.0))
        thin = np.isin(np.arange(len(quotes)) % 12, (2, 6, 9))
        keep = ~thin[quotes.slice_of]
        for i in np.flatnonzero(thin):
            rows = np.flatnonzero((quotes.slice_of == i) & (np.abs(quotes.k) < 2 * atm[i]))
            keep[rng.choice(rows, count, replace=False)] = True
        fit = dataclasses.replace(quotes, vol=np.where(keep, quotes.vol, np.nan)).fit(enforce=True)
        k = np.linspace(-2.0, 2.0, 21)[None, :] * atm[:, None]
        away = 1e4 * np.sqrt(np.mean((fit.vol(k) - quotes.params.vol(k, quotes.years)) ** 2, axis=1))
        table.append(
            Row("D1", f"{count} quotes: RMSE to the truth, median, bp", float(np.median(away[thin])), "<=", bar)
        )
        total += 1
        certified += proved(fit) and bool(np.isfinite(fit.raw).all())
    return [*table, Row("D1", "all finite and proved, of 5", float(certified), "==", float(total))]


def _one_sided(quotes: Quotes, side: int) -> float:
    fit = fit_slices(
        quotes.k, quotes.vol, quotes.error, quotes.offsets, quotes.years, side=np.full(quotes.k.size, side, np.int8)
    )
    return _sound(fit)


def _sound(fit: SVIFit) -> float:
    """1 if every number is finite and the surfaces are proved."""
    return float(proved(fit) and bool(np.isfinite(fit.raw).all()))


def d2_to_d5_bad_quotes(full: bool) -> list[Row]:
    """D2 to D5: empty sides, crossed and locked books, impossible expiries, an ask far above."""
    quotes = smile_surfaces(1, seed=8, noise=0.3)
    base = quotes.fit(enforce=True)
    locked = dataclasses.replace(quotes, error=np.where(np.arange(quotes.k.size) % 5, quotes.error, 1e-12)).fit(
        enforce=True
    )
    crossed = dataclasses.replace(quotes, error=np.where(np.arange(quotes.k.size) % 5, quotes.error, -0.01)).fit(
        enforce=True
    )
    k, error = quotes.k.copy(), quotes.error
    k[quotes.offsets[3]] = -np.inf  # a strike of 0
    years = quotes.years.copy()
    years[0] = 0.0
    years[5] = np.nan
    broken = fit_slices(k, quotes.vol, error, quotes.offsets, years)
    invalid = np.flatnonzero(broken.result == FitResult.INVALID)
    at = int(quotes.offsets[4])
    far = fit_slices(
        np.insert(quotes.k, at, 0.0), np.insert(quotes.vol, at, 3.0), np.insert(error, at, 0.01),
        quotes.offsets + (np.arange(len(quotes) + 1) > 4), quotes.years,
        side=np.insert(np.zeros(quotes.k.size, np.int8), at, 1),
    )  # fmt: skip
    moved = 1e4 * float(np.abs(far.vol(0.0) - base.vol(0.0)).max())
    return [
        Row("D2", "all bids missing: finite and proved", _one_sided(quotes, 1), "==", 1.0),
        Row("D2", "all asks missing: finite and proved", _one_sided(quotes, -1), "==", 1.0),
        Row("D3", "locked books: finite and proved", _sound(locked), "==", 1.0),
        Row("D3", "crossed books left out: finite and proved", _sound(crossed), "==", 1.0),
        Row("D4", "expiries of no time and of NaN refused, of 2", float(np.array_equal(invalid, (0, 5))) * 2, "==", 2.0),
        Row("D4", "… the ten others alive and proved", float(proved(broken) and broken.has_curve.sum() == 10), "==", 1.0),
        Row("D5", "an ask far above moves the forward's vol by, bp", moved, "<=", 0.1),
    ]  # fmt: skip


FIGURES: tuple[Figures, ...] = (
    c2_stale_expiry, c3_inverted_front, c4_no_bias, c5_cost, c6_garbage, c7_density, c8_portfolios, d1_thin_slices,
    d2_to_d5_bad_quotes,
)  # fmt: skip


@pytest.mark.parametrize("figures", FIGURES, ids=lambda f: f.__name__)
def test_figures(figures: Figures) -> None:
    expect(figures)
