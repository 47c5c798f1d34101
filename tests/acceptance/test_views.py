"""E1 to E4 and H1 to H6: forwards, and what is read off a surface."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from tests.acceptance.figures import Figures, Row, expect
from tests.acceptance.test_enforcement import published
from tests.iv.test_forward import Board
from tests.surface.test_swaps import replicated
from tests.svi.oracles import VOGT, random_slices
from tests.svi.test_params import jump_wing_condition, round_trip_error
from volsurf.iv.black import black_price
from volsurf.iv.forward import ForwardSource
from volsurf.iv.implied import implied_vol
from volsurf.svi.params import RawSVI


def e1_parity(full: bool) -> list[Row]:
    """E1: 5 % of the legs stale by a hundredth of a coin, ticks of 0.0001."""
    table = []
    for days in (1.0, 7.0, 30.0):
        rng, errors = np.random.default_rng(7), []
        for _ in range(60 if full else 25):
            board = Board((days,), forward=float(rng.uniform(60_000, 120_000)), strikes=31, tick=1e-4, rng=rng)
            n = len(board.columns["strike"])
            shift = np.where(rng.random(n) < 0.05, rng.choice((-0.01, 0.01), n), 0.0)
            bid = np.maximum(board.columns["bid"] + shift, 1e-4)
            found = board.find(bid=bid, ask=np.maximum(board.columns["ask"] + shift, bid))
            errors.append(1e4 * (found.forward[0] / board.true[0] - 1))
        rms = float(np.sqrt(np.mean(np.square(errors))))
        table.append(Row("E1", f"parity with stale legs, {days:g} d: rms, bp", rms, "<=", 2.5))
    return table


def e2_venue_off(full: bool) -> list[Row]:
    """E2: a venue forward 20 bp off."""
    board = Board((7.0,), half_spread=0.001)
    found = board.find(venue_forward=board.venue(90_000 * 1.002))
    return [
        Row("E2", "venue forward 20 bp off: flagged (1 = yes)", float(found.flagged[0]), "==", 1.0),
        Row("E2", "… parity's used instead (1 = yes)", float(found.source[0] == ForwardSource.PARITY), "==", 1.0),
        Row("E2", "… off by, bp", 1e4 * abs(float(found.forward[0]) / 90_000 - 1), "<=", 0.5),
    ]


def e3_forward_error(full: bool) -> list[Row]:
    """E3: a forward 10 bp off splits puts from calls, and averaging both legs keeps the vol at the forward."""
    years, vol, strike = 30 / 365, 0.5, np.ones(1)
    sides = [
        float(implied_vol(black_price(1.0, strike, years, vol, call), 1.001, strike, years, call)[0])
        for call in (np.array([True]), np.array([False]))
    ]
    return [
        Row("E3", "forward 10 bp off: put vol - call vol, bp", 1e4 * (sides[1] - sides[0]), ">=", 10.0),
        Row("E3", "… mean of both off by, bp", 1e4 * abs(0.5 * sum(sides) - vol), "<=", 10.0),
    ]


def e4_inverse_and_linear(full: bool) -> list[Row]:
    """E4: one market quoted in coin and in dollars."""
    vols = []
    for inverse in (True, False):
        board = Board(inverse=inverse)
        forward = float(board.find().forward[0])
        c = board.columns
        mid = 0.5 * (c["bid"] + c["ask"]) * (forward if inverse else 1.0)
        call = np.arange(len(mid)) % 2 == 1
        vol = implied_vol(mid, forward, c["strike"], float(board.years[0]), call)
        near = np.argsort(np.abs(np.log(c["strike"] / forward)), kind="stable")[:2]
        vols.append(float(np.mean(vol[near])))
    return [
        Row("E4", "coin and dollar quotes: vol at the forward differs by, bp", 1e4 * abs(vols[0] - vols[1]), "<=", 1.0)
    ]


def h1_deltas(full: bool) -> list[Row]:
    """H1: strikes of deltas, forward and premium-adjusted."""
    wanted = np.array([0.25, -0.25, 0.10, -0.10])
    plain = adjusted = 0.0
    rising, holes = 0.0, 0
    for surface in published(full):
        at = surface.years[surface.fitted][:, None]
        for premium in (False, True):
            k = surface.log_moneyness(delta=wanted, years=at, premium_adjusted=premium)
            root = np.sqrt(surface.total_variance(k, years=at))
            d1 = -k / root + 0.5 * root
            sign = np.where(wanted > 0, 1.0, -1.0)
            if premium:
                delta = sign * np.exp(k) * ndtr(sign * (d1 - root))
                adjusted = max(adjusted, float(np.nanmax(np.abs(delta - wanted))))
                step = k + 1e-4 * root
                further = np.sqrt(surface.total_variance(step, years=at))
                later = np.exp(step) * ndtr(-step / further - 0.5 * further)
                rising = max(rising, float(np.nanmax((later - np.abs(delta))[:, wanted > 0])))
                holes += int(np.isnan(k[:, wanted < 0]).sum())
            else:
                plain = max(plain, float(np.abs(sign * ndtr(sign * d1) - wanted).max()))
    flat = published(False)[0]
    unreachable = flat.vol(delta=0.97, years=float(flat.years[-1]), premium_adjusted=True)
    return [
        Row("H1", "25 and 10 delta, forward: off by at most", plain, "<=", 1e-10),
        Row("H1", "… premium-adjusted", adjusted, "<=", 1e-10),
        Row("H1", "… on the right branch: delta rises with the strike by", rising, "<=", 0.0),
        Row("H1", "… puts without a strike", float(holes), "==", 0.0),
        Row("H1", "unreachable premium-adjusted call is NaN (1 = yes)", float(np.isnan(unreachable)), "==", 1.0),
    ]


def h2_tenors(full: bool) -> list[Row]:
    """H2: total variance between expiries rises in time; the forward's is on a straight line."""
    falls, bent = 0.0, 0.0
    for surface in published(full):
        t = surface.years[surface.fitted]
        k = np.linspace(-4.0, 4.0, 50) * np.sqrt(surface.total_variance(0.0, years=t[-1]))
        times = np.geomspace(0.1 * t[0], 1.99 * t[-1], 300)[:, None]
        w = surface.total_variance(k, years=times)
        falls = max(falls, float(np.max(-np.diff(w, axis=0) / w[1:])))
        middle = 0.5 * (t[1:] + t[:-1])
        ends = surface.total_variance(0.0, years=t)
        between = surface.total_variance(0.0, years=middle)
        bent = max(bent, float(np.abs(between / (0.5 * (ends[1:] + ends[:-1])) - 1.0).max()))
    return [
        Row("H2", "total variance at 50 strikes falls in time by at most, relative", falls, "<=", 1e-12),
        Row("H2", "forward's total variance half-way off the line, relative", bent, "<=", 1e-9),
    ]


def h3_beyond(full: bool) -> list[Row]:
    """H3: before the first and after the last expiry."""
    lowest, falls = np.inf, 0.0
    for surface in published(full):
        t = surface.years[surface.fitted]
        for times in (t[0] * np.array([0.01, 0.3, 0.9]), t[-1] * np.array([1.01, 1.5, 1.99])):
            root = np.sqrt(surface.total_variance(0.0, years=times))[:, None]
            k = root * np.linspace(-10, 10, 401)
            lowest = min(lowest, float(surface.density(k=k, years=times[:, None]).min()))
        k = np.linspace(-10, 10, 401) * float(np.sqrt(surface.total_variance(0.0, years=t[-1])))
        w = surface.total_variance(
            k, years=np.concatenate((t[:1] * [0.01, 0.3, 0.9, 1.0], t[-1:] * [1.0, 1.5, 1.99]))[:, None]
        )
        falls = max(falls, float(np.max(-np.diff(w, axis=0) / w[1:])))
    return [
        Row("H3", "beyond the expiries: density, lowest of 401 strikes each", lowest, ">=", 0.0),
        Row("H3", "… total variance falls in time by at most, relative", falls, "<=", 1e-12),
    ]


def h4_variance_swaps(full: bool) -> list[Row]:
    """H4: against a strip of 400,000 options."""
    worst = 0.0
    for surface in published(full)[: 4 if full else 2]:
        for years in surface.years[surface.fitted][:: 3 if full else 5]:
            with np.errstate(over="ignore", invalid="ignore"):
                strip = replicated(surface, float(years), coin=False)
            worst = max(worst, 1e4 * abs(float(surface.variance_swap(years=float(years))) - strip))
    return [Row("H4", "variance swap off its replication by at most, bp of vol", worst, "<=", 1.0)]


def h5_wings(full: bool) -> list[Row]:
    """H5: nothing is clamped: the slope is continuous however far out, and the wings keep theirs."""
    worst = flat = 0.0
    for surface in published(full):
        for years in surface.years[surface.fitted]:
            root = float(np.sqrt(surface.total_variance(0.0, years=years)))
            k = root * np.sinh(np.linspace(-7.0, 7.0, 40_001))
            slope = np.diff(surface.total_variance(k, years=years)) / np.diff(k)
            worst = max(worst, float(np.abs(np.diff(slope)).max()) / float(np.abs(slope).max()))
        svi = surface.svi
        far = 1e6 * np.sqrt(svi.total_variance(0.0)[surface.fitted])
        measured = (
            svi[surface.fitted].total_variance(2 * far[:, None])[:, 0]
            - svi[surface.fitted].total_variance(far[:, None])[:, 0]
        )
        flat = max(flat, float(np.abs(measured / far / svi[surface.fitted].right_slope - 1.0).max()))
    return [
        Row("H5", "largest step of w' on 40,000 strikes, of its largest value", worst, "<=", 0.01),
        Row("H5", "slope a million deviations out off the wing's, relative", flat, "<=", 1e-4),
    ]


def h6_jump_wings(full: bool) -> list[Row]:
    """H6: parameters to jump wings and back."""
    svi = random_slices(np.random.default_rng(4), 20_000 if full else 4_000)
    svi = svi[svi.total_variance(0.0) > 0]
    error = round_trip_error(svi, RawSVI.from_jump_wings(svi.to_jump_wings(0.3), 0.3))
    condition = jump_wing_condition(svi, 0.3)
    fair = condition < 100
    edges = [
        VOGT.parameters,
        (0.02, 0.1, 0.3, 0.0, 0.2),
        (0.02, 0.1, 0.999999, 0.05, 0.2),
        (0.02, 0.1, -1.0, -0.05, 0.2),
    ]
    edge = max(
        float(round_trip_error(one, RawSVI.from_jump_wings(one.to_jump_wings(1.0), 1.0)))
        for one in (RawSVI(*p) for p in edges)
    )
    return [
        Row(
            "H6",
            f"{fair.sum():,} slices to jump wings and back, relative, at most",
            float(error[fair].max()),
            "<=",
            1e-12,
        ),
        Row("H6", "… ill-conditioned ones, over their condition", float((error / condition).max()), "<=", 2e-14),
        Row("H6", "negative a, m = 0, rho near 1 and -1", edge, "<=", 1e-12),
    ]


FIGURES: tuple[Figures, ...] = (
    e1_parity, e2_venue_off, e3_forward_error, e4_inverse_and_linear, h1_deltas, h2_tenors, h3_beyond, h4_variance_swaps,
    h5_wings, h6_jump_wings,
)  # fmt: skip


@pytest.mark.parametrize("figures", FIGURES, ids=lambda f: f.__name__)
def test_figures(figures: Figures) -> None:
    expect(figures)
