"""Where a slice and a pair come closest to arbitrage: no worse than dense scans, and whole surfaces as slices one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.svi.oracles import CALENDAR_FLAT, EVASIVE, FLAT, parameters, random_slices
from tests.svi.test_arbitrage import lowest_g_on_dense_scan
from tests.svi.test_calendar import random_pairs, smallest_gain_on_dense_scan
from volsurf.svi._surface_certificates import surface_certificates
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Condition, Verdict
from volsurf.svi.params import RawSVI


def test_lowest_g_of_random_slices() -> None:
    svi = random_slices(np.random.default_rng(31), 4000)
    certificate = check_butterfly(svi)
    scan = lowest_g_on_dense_scan(svi)
    # Proved slices may have their lowest g at the end of a wing, further out than anybody looks.
    inner = scan < np.minimum((4 - svi.right_slope**2), (4 - svi.left_slope**2)) / 16 - 1e-3
    assert inner.sum() > 2000
    assert np.mean(certificate.worst_value[inner] <= scan[inner] + 1e-6 + 1e-5 * np.abs(scan[inner])) >= 0.999
    for i in range(0, len(svi), 40):
        assert float(svi[i].g(certificate.worst_k[i])) == pytest.approx(certificate.worst_value[i], rel=1e-9, abs=1e-12)


def test_smallest_gain_of_random_pairs() -> None:
    near, far = random_pairs(np.random.default_rng(32), 3000)
    certificate = check_calendar(near, far)
    scan = smallest_gain_on_dense_scan(near, far)
    # Where a wing's slopes are out of order the gain falls without end.
    inner = ~np.isin(certificate.condition, (Condition.RIGHT_SLOPE, Condition.LEFT_SLOPE))
    size = np.abs(near.a) + near.b * near.sigma
    assert (
        np.mean(certificate.worst_value[inner] <= scan[inner] + 1e-3 * np.abs(scan[inner]) + 1e-9 * size[inner])
        >= 0.999
    )
    k = certificate.worst_k
    there = far.total_variance(k[:, None])[:, 0] - near.total_variance(k[:, None])[:, 0]
    assert np.all(np.abs(there - certificate.worst_value) <= 1e-12 * (1 + np.abs(k)) * (1 + np.abs(there)))


def test_smiles_far_from_the_money_and_flat_ones() -> None:
    """A centre a million widths away takes the coarse scan; a flat smile has g = 1 everywhere."""
    far = RawSVI(0.04, 0.1, 0.2, 1e4, 0.01)
    certificate = check_butterfly(far)
    assert np.isfinite(certificate.worst_k)
    assert float(far.g(certificate.worst_k)) == pytest.approx(float(certificate.worst_value), rel=1e-6)
    flat = check_butterfly(FLAT.svi)
    assert (float(flat.worst_k), float(flat.worst_value)) == (0.0, 1.0)
    gain = check_calendar(RawSVI(*CALENDAR_FLAT.near), RawSVI(*CALENDAR_FLAT.far))
    assert (float(gain.worst_k), float(gain.worst_value)) == (0.0, CALENDAR_FLAT.far[0] - CALENDAR_FLAT.near[0])


def test_whole_surfaces_are_certified_as_their_slices_are() -> None:
    rng = np.random.default_rng(33)
    svi = random_slices(rng, 60)
    raw = np.array([parameters(svi, i) for i in range(60)])
    raw[[7, 20]] = np.nan
    raw[3] = EVASIVE.parameters
    surface = np.repeat([4, 9, 2], 20)
    order = np.lexsort((rng.permutation(60), surface)).astype(np.int64)
    butterfly, calendar, near, far = surface_certificates(raw, order, surface)
    alive = np.setdiff1d(np.arange(60), (7, 20))
    alone = check_butterfly(RawSVI(*raw[alive].T))
    for name in ("verdict", "condition", "worst_k", "worst_value", "nodes"):
        np.testing.assert_array_equal(getattr(butterfly, name)[alive], getattr(alone, name))
    assert np.all(butterfly.verdict[[7, 20]] == Verdict.INVALID)
    kept = order[~np.isin(order, (7, 20))]
    pairs = [(i, j) for i, j in itertools.pairwise(kept) if surface[i] == surface[j]]
    np.testing.assert_array_equal(np.column_stack((near, far)), pairs)
    together = check_calendar(RawSVI(*raw[near].T), RawSVI(*raw[far].T))
    for name in ("verdict", "condition", "worst_k", "worst_value", "nodes"):
        np.testing.assert_array_equal(getattr(calendar, name), getattr(together, name))
    nothing = surface_certificates(raw[:0], order[:0], surface[:0])
    assert all(len(part) == 0 for part in nothing)
