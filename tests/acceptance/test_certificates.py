"""A1 to A9: what the certificates say, against dense scans, rational arithmetic and known traps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.acceptance.figures import Figures, Row, expect, proved
from tests.svi.exact import butterfly_free, calendar_free
from tests.svi.oracles import CALENDAR_FAR_OUT, CRYPTO_30D, EVASIVE, VOGT, parameters, random_slices, scale
from tests.svi.smile_quotes import smile_surfaces
from tests.svi.test_arbitrage import bisected_slices, lowest_g_on_dense_scan
from tests.svi.test_calendar import random_pairs
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Verdict
from volsurf.svi.fit import fit_svi
from volsurf.svi.params import RawSVI


def a1_vogt(full: bool) -> list[Row]:
    """A1: the slice that everybody's example is."""
    certificate = check_butterfly(VOGT.svi)
    k = np.linspace(-1.5, 1.5, 41)
    truth = VOGT.svi.vol(k, 1.0)
    fit = fit_svi(k, truth, 0.005, years=1.0)
    away = 1e4 * np.abs(fit.vol(k)[0] - truth)
    return [
        Row("A1", "Vogt: violated (1 = yes)", float(certificate.verdict == Verdict.VIOLATED), "==", 1.0),
        Row("A1", "… g at the witness", float(VOGT.svi.g(certificate.worst_k)), "<=", -1e-12),
        Row("A1", "… its quotes enforced: proved (1 = yes)", float(proved(fit)), "==", 1.0),
        Row("A1", "… RMSE, bp", float(np.sqrt(np.mean(away**2))), "<=", 75.0),
        Row("A1", "… largest miss, bp", float(away.max()), "<=", 170.0),
    ]


def a2_random_slices(full: bool) -> list[Row]:
    """A2: verdicts against 8001 points."""
    svi = random_slices(np.random.default_rng(20260114), 20_000 if full else 5_000)
    certificate = check_butterfly(svi)
    scan = lowest_g_on_dense_scan(svi)
    violated = certificate.verdict == Verdict.VIOLATED
    witness = np.array([float(one.g(k)) for one, k in zip(svi[violated], certificate.worst_k[violated], strict=True)])
    wrong = np.sum(certificate.proved & (scan < -1e-12)) + np.sum(witness > 1e-12)
    shallow = certificate.worst_value[violated] > np.minimum(scan[violated] + 1e-4 * np.abs(scan[violated]), 0)
    return [
        Row("A2", f"{len(svi):,} random slices, {violated.sum():,} violated: disagreements", float(wrong), "==", 0.0),
        Row("A2", "… undecided, %", 100 * float(np.mean(certificate.verdict == Verdict.UNDECIDED)), "<=", 0.1),
        Row("A2", "… violations shallower than the scan's, %", 100 * float(np.mean(shallow)), "<=", 0.1),
    ]


def a3_boundary(full: bool) -> list[Row]:
    """A3: slices bisected to the boundary, decided again by Sturm sequences in rational arithmetic."""
    count = 100 if full else 40
    path, gap = bisected_slices(count)
    wrong = checked = 0
    for svi in (path[-1], *((path[i] for i in (33, 36, 39, 42, 45, 48)) if full else (path[40],))):
        verdict = check_butterfly(svi).verdict
        for i in np.flatnonzero(verdict != Verdict.UNDECIDED):
            checked += 1
            wrong += butterfly_free(*parameters(svi, i)) != (verdict[i] == Verdict.PROVED)
    return [
        Row("A3", f"{count} boundaries, {checked} verdicts checked exactly: false", float(wrong), "==", 0.0),
        Row("A3", "… distance of the last two, relative, median", float(np.median(gap)), "<=", 1e-15),
    ]


def a4_evasion(full: bool) -> list[Row]:
    """A4: negative only on (2.03, 2.27), where grids do not look."""
    certificate = check_butterfly(EVASIVE.svi)
    grids = (np.linspace(-1.5, 1.5, 61), np.linspace(-2.0, 2.0, 401))
    return [
        Row("A4", "evasive slice: violated (1 = yes)", float(certificate.verdict == Verdict.VIOLATED), "==", 1.0),
        Row("A4", "… witness k, above", float(certificate.worst_k), ">=", EVASIVE.negative[0]),
        Row("A4", "… and below", float(certificate.worst_k), "<=", EVASIVE.negative[1]),
        Row(
            "A4",
            "… lowest g that grids of 61 and 401 see",
            float(min(EVASIVE.svi.g(g).min() for g in grids)),
            ">=",
            1e-9,
        ),
    ]


def a5_lee(full: bool) -> list[Row]:
    """A5: slopes of 2 and more are arbitrage however far out."""
    verdict = {u: check_butterfly(RawSVI(50.0, 0.75 * u, 1 / 3, 0.0, 5.0)).verdict for u in (1.999, 2.5, 3.9)}
    exactly_two = check_butterfly(RawSVI(50.0, 2.0, 0.0, 0.0, 5.0)).verdict
    violated = sum(v == Verdict.VIOLATED for v in (exactly_two, verdict[2.5], verdict[3.9]))
    return [
        Row("A5", "slope 1.999 proved (1 = yes)", float(verdict[1.999] == Verdict.PROVED), "==", 1.0),
        Row("A5", "slopes 2.0, 2.5, 3.9 violated, of 3", float(violated), "==", 3.0),
    ]


def a6_flat_smiles(full: bool) -> list[Row]:
    """A6: five vols within half a percent, as Wystup (2018) quotes them."""
    rng = np.random.default_rng(6)
    certified, rmse = 0, []
    count = 200 if full else 60
    for _ in range(count):
        years, level = rng.choice([1 / 52, 1 / 12, 0.25, 0.5, 1.0, 2.0]), rng.uniform(0.06, 0.15)
        vol = level * (1.0 + rng.uniform(-0.0025, 0.0025, 5))
        k = level * np.sqrt(years) * np.array([-1.28, -0.67, 0.0, 0.67, 1.28])
        fit = fit_svi(k, vol, np.full(5, 5e-4), years=years)
        certified += proved(fit)
        rmse.append(1e4 * np.sqrt(np.mean((fit.vol(k)[0] - vol) ** 2)))
    return [
        Row("A6", f"{count} flat smiles of five quotes: proved", float(certified), "==", float(count)),
        Row("A6", "… RMSE, largest, bp", float(max(rmse)), "<=", 5.0),
    ]


def a7_calendars(full: bool) -> list[Row]:
    """A7: tangent, equal, far-crossing and reversed slices."""
    near, far = random_pairs(np.random.default_rng(17), 400 if full else 120)
    certificate = check_calendar(near, far)
    decided = np.flatnonzero(certificate.verdict != Verdict.UNDECIDED)
    wrong = sum(calendar_free(parameters(near, i), parameters(far, i)) != bool(certificate.proved[i]) for i in decided)
    svi = random_slices(np.random.default_rng(8), 2_000)
    lower = RawSVI(np.nextafter(svi.a, -np.inf), svi.b, svi.rho, svi.m, svi.sigma)
    shift = 1e-10 * np.abs(svi.total_variance(0.0))
    raised, sunk = (RawSVI(svi.a + s * shift, svi.b, svi.rho, svi.m, svi.sigma) for s in (1, -1))
    out = check_calendar(RawSVI(*CALENDAR_FAR_OUT.near), RawSVI(*CALENDAR_FAR_OUT.far))
    base, found = CRYPTO_30D.svi, 0
    for side in (1.0, -1.0):
        u, l = (base.right_slope * (1 - 1e-6 if side > 0 else 1.5), base.left_slope * (1 - 1e-6 if side < 0 else 1.5))
        far = RawSVI(base.a + 0.2, 0.5 * (u + l), (u - l) / (u + l), base.m, base.sigma)
        found += check_calendar(base, far).verdict == Verdict.VIOLATED
    return [
        Row("A7", f"{len(decided)} random pairs decided exactly: false verdicts", float(wrong), "==", 0.0),
        Row("A7", "2,000 equal pairs proved", float(check_calendar(svi, svi).proved.sum()), "==", 2000.0),
        Row("A7", "… one ulp lower: proved", float(check_calendar(svi, lower).proved.sum()), "==", 0.0),
        Row("A7", "… 1e-10 lower: proved", float(check_calendar(svi, sunk).proved.sum()), "==", 0.0),
        Row("A7", "… 1e-10 higher: proved, %", 100 * float(check_calendar(svi, raised).proved.mean()), ">=", 99.0),
        Row("A7", "crossing found at k", float(out.worst_k), ">=", 5.0),
        Row("A7", "wings reversed by 1e-6 found, of 2", float(found), "==", 2.0),
    ]


def a8_scale(full: bool) -> list[Row]:
    """A8: from three years down to a minute."""
    svi = random_slices(np.random.default_rng(3), 3_000 if full else 1_000)
    base = check_butterfly(svi).proved
    factors = (1e-6, 1e-4, 1e-2, 0.1, 0.5, 0.9, 0.999)
    worse = sum(int(np.sum(base & ~check_butterfly(scale(svi, f)).proved)) for f in factors)
    larger = scale(svi[svi.minimum_total_variance * 10 < 4], 10.0)
    disagree = int(np.sum(check_butterfly(larger).proved & (lowest_g_on_dense_scan(larger) < -1e-12)))
    return [
        Row(
            "A8",
            f"{len(factors) * int(base.sum()):,} slices scaled down to 1e-6: worse verdicts",
            float(worse),
            "==",
            0.0,
        ),
        Row("A8", "scaled up ten times: disagreements with the scan", float(disagree), "==", 0.0),
    ]


def a9_round_trip(full: bool) -> list[Row]:
    """A9: published, written, read and certified again."""
    fit = smile_surfaces(10 if full else 3, seed=2, noise=0.35).fit(enforce=True)
    back = np.array(json.loads(json.dumps(fit.raw.tolist())))
    near, far = fit.calendar_pairs
    again = (check_butterfly(RawSVI(*back.T)), check_calendar(RawSVI(*back[near].T), RawSVI(*back[far].T)))
    same = all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for one, two in zip((fit.butterfly, fit.calendar), again, strict=True)
        for name in ("verdict", "condition", "worst_k", "worst_value", "nodes")
    )
    return [
        Row("A9", "numbers that changed by way of JSON", float(np.sum(back != fit.raw)), "==", 0.0),
        Row("A9", "certificates identical to the bit (1 = yes)", float(same), "==", 1.0),
    ]


FIGURES: tuple[Figures, ...] = (
    a1_vogt, a2_random_slices, a3_boundary, a4_evasion, a5_lee, a6_flat_smiles, a7_calendars, a8_scale, a9_round_trip,
)  # fmt: skip


@pytest.mark.parametrize("figures", FIGURES, ids=lambda f: f.__name__)
def test_figures(figures: Figures) -> None:
    expect(figures)
