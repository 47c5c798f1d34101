"""The calendar certificate: known pairs, touching slices decided again in rational arithmetic, and far wings."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tests.svi.exact import calendar_free
from tests.svi.oracles import (
    CALENDAR_CROSSING,
    CALENDAR_FAR_OUT,
    CALENDAR_PARALLEL,
    CRYPTO_30D,
    KNOWN_PAIRS,
    VOGT,
    KnownPair,
    parameters,
    random_slices,
    scale,
)
from volsurf._jit import ensure_compiled
from volsurf.errors import InputError
from volsurf.svi import _bernstein as codes, calendar
from volsurf.svi.calendar import certify_calendar, check_calendar
from volsurf.svi.certificate import Condition, Verdict
from volsurf.svi.params import RawSVI


def columns(near: RawSVI, far: RawSVI) -> list[np.ndarray]:
    return [np.atleast_1d(getattr(svi, name)) for svi in (near, far) for name in ("a", "b", "rho", "m", "sigma")]


def random_pairs(rng: np.random.Generator, n: int) -> tuple[RawSVI, RawSVI]:
    """A slice and a later one: more total variance, wings a little steeper, skew and centre moved by a random amount."""
    near = random_slices(rng, n)
    near = near[near.minimum_total_variance > 0]
    n = len(near)
    factor = 1 + 10.0 ** rng.uniform(-4, 0.3, n)
    root = np.sqrt(factor)
    width = near.sigma
    far = RawSVI(
        near.a * factor + near.b * width * 0.1 * rng.normal(size=n) * (factor - 1),
        near.b * root * (1 + 0.3 * (root - 1) * rng.uniform(-0.5, 2, n)),
        np.clip(near.rho + 0.2 * (root - 1) * rng.normal(size=n), -0.999, 0.999),
        near.m * root + 0.3 * (root - 1) * width * rng.normal(size=n),
        width * root * (1 + 0.2 * (root - 1) * rng.normal(size=n)).clip(0.5),
    )
    return near, far


def smallest_gain_on_dense_scan(near: RawSVI, far: RawSVI) -> np.ndarray:
    """Minimum of w_far - w_near over 1202 points around both smiles and far out, for each pair."""
    u = np.linspace(-12, 12, 601)
    k = np.concatenate([svi.m[:, None] + svi.sigma[:, None] * np.sinh(u) for svi in (near, far)], axis=1)
    return (far.total_variance(k) - near.total_variance(k)).min(axis=1)


@pytest.mark.parametrize("known", KNOWN_PAIRS, ids=lambda known: known.name)
def test_known_pairs(known: KnownPair) -> None:
    near, far = RawSVI(*known.near), RawSVI(*known.far)
    certificate = check_calendar(near, far)
    assert calendar_free(known.near, known.far) is known.free
    assert certificate.verdict == (Verdict.PROVED if known.free else Verdict.VIOLATED)
    k = float(certificate.worst_k)
    gain = float(far.total_variance(k) - near.total_variance(k))
    assert gain == pytest.approx(float(certificate.worst_value), rel=1e-9, abs=1e-15)
    if not known.free:
        assert gain < 0
        assert known.crossed[0] <= k <= known.crossed[1]


def test_crossing_far_beyond_any_quote(record_property: pytest.RecordProperty) -> None:
    """A7: slopes of both wings are in order and no grid on |k| <= 5 sees anything."""
    near, far = RawSVI(*CALENDAR_FAR_OUT.near), RawSVI(*CALENDAR_FAR_OUT.far)
    assert far.right_slope > near.right_slope
    assert far.left_slope > near.left_slope
    grid = np.linspace(-5, 5, 2001)
    assert (far.total_variance(grid) - near.total_variance(grid)).min() > 0
    certificate = check_calendar(near, far)
    assert certificate.verdict == Verdict.VIOLATED
    assert certificate.condition == Condition.CROSSING
    print(f"A7: crossing at k = {float(certificate.worst_k):.2f} found, depth {float(certificate.worst_value):.3f}")
    record_property("A7_far_crossing_k", float(certificate.worst_k))


def test_wings_reversed_by_a_millionth(record_property: pytest.RecordProperty) -> None:
    """A7: a far slope that is 1e-6 of itself too low, whichever side; and 1e-12."""
    near = CRYPTO_30D.svi
    for shrink in (1e-6, 1e-9, 1e-12):
        for side in (1.0, -1.0):
            u = near.right_slope * (1 - shrink if side > 0 else 1.5)
            l = near.left_slope * (1 - shrink if side < 0 else 1.5)
            far = RawSVI(near.a + 0.2, 0.5 * (u + l), (u - l) / (u + l), near.m, near.sigma)
            certificate = check_calendar(near, far)
            assert certificate.verdict == Verdict.VIOLATED
            assert certificate.condition == (Condition.RIGHT_SLOPE if side > 0 else Condition.LEFT_SLOPE)
            assert np.sign(certificate.worst_k) == side
            assert certificate.worst_value < 0
            k = certificate.worst_k
            if shrink > 1e-12:  # beyond, the difference of two such variances is below their last digit
                assert far.total_variance(k) < near.total_variance(k)
            back = check_calendar(far, near)
            assert back.verdict == Verdict.VIOLATED
    record_property("A7_wing_reversal", float(shrink))


def test_touching_slices_against_rational_arithmetic(record_property: pytest.RecordProperty) -> None:
    """A7: pairs that touch at one point (a double root), then moved by up to 1e-10 of themselves either way."""
    rng = np.random.default_rng(17)
    near, far = random_pairs(rng, 6000)
    ensure_compiled("svi")
    _, condition, k, gain, _ = certify_calendar(*columns(near, far), True)
    inner = np.flatnonzero((np.abs(gain) > 1e-6 * far.minimum_total_variance) & (condition <= Condition.CROSSING))
    inner = inner[~np.isin(condition[inner], (Condition.RIGHT_SLOPE, Condition.LEFT_SLOPE))][:60]
    near, far, k, gain = near[inner], far[inner], k[inner], gain[inner]
    # Newton's method on the slope of the difference brings the touching point to the last digit.
    for _ in range(6):
        first = second = 0.0
        for svi, sign in ((far, 1.0), (near, -1.0)):
            x = (k - svi.m) / svi.sigma
            radius = np.hypot(1.0, x)
            first = first + sign * svi.b * (svi.rho + x / radius)
            second = second + sign * svi.b / (svi.sigma * radius**3)
        step = np.where(second > 0, first / np.where(second > 0, second, 1.0), 0.0)
        k = k - np.clip(step, -0.1 * near.sigma, 0.1 * near.sigma)
    gain = (far.total_variance(k[:, None]) - near.total_variance(k[:, None]))[:, 0]
    false_proofs = false_violations = undecided = checked = sharp = 0
    for shift in (1e-10, -1e-10, 1e-13, -1e-13, 0.0):
        size = far.total_variance(k[:, None])[:, 0]
        moved = RawSVI(far.a - gain + shift * size, far.b, far.rho, far.m, far.sigma)
        verdict = check_calendar(near, moved).verdict
        for i in range(len(near)):
            free = calendar_free(parameters(near, i), parameters(moved, i))
            checked += 1
            false_proofs += verdict[i] == Verdict.PROVED and not free
            false_violations += verdict[i] == Verdict.VIOLATED and free
            undecided += verdict[i] == Verdict.UNDECIDED
            sharp += abs(shift) == 1e-10 and verdict[i] != Verdict.UNDECIDED
    print(
        f"A7: {checked} touching pairs, {false_proofs} falsely proved, {false_violations} falsely violated, "
        f"{undecided} undecided; at 1e-10 {sharp} of {2 * len(near)} decided"
    )
    record_property("A7_false", int(false_proofs + false_violations))
    assert len(near) == 60
    assert false_proofs == false_violations == 0
    assert sharp >= 0.95 * 2 * len(near)


def test_coefficients_are_within_their_bounds() -> None:
    """The error analysis itself: every computed coefficient against the exact one, in units of its bound."""
    worst = 0.0
    near, far = random_pairs(np.random.default_rng(12), 400)
    work = np.empty(codes.WORK_SHAPE)
    write = calendar._coefficients.py_func  # the same arithmetic, without compiling
    for i in range(len(near)):
        a1, b1, rho1, m1, sigma1 = parameters(near, i)
        a2, b2, rho2, m2, sigma2 = parameters(far, i)
        write(work, b1 / b2, rho1, rho2, 2 * (a1 - a2) / (b2 * sigma1), (m1 - m2) / sigma1, sigma2 / sigma1, 1.0)
        a1, b1, rho1, m1, sigma1, a2, b2, rho2, m2, sigma2 = map(Fraction, (*parameters(near, i), *parameters(far, i)))
        unit, gap, slope = b2 * sigma1, m1 - m2, b2 * rho2
        e = [
            sigma1 * (b1 * (1 - rho1) + slope) / unit,
            (2 * (a1 - a2) - 2 * slope * gap) / unit,
            sigma1 * (b1 * (1 + rho1) - slope) / unit,
        ]
        d, z = gap / sigma1, sigma2 / sigma1
        h = [
            1 - e[0] ** 2,
            -4 * d - 2 * e[0] * e[1],
            4 * d * d - 2 + 4 * z * z - e[1] ** 2 - 2 * e[0] * e[2],
            4 * d - 2 * e[1] * e[2],
            1 - e[2] ** 2,
        ]
        for column, exact in enumerate([*h, *e]):
            worst = max(worst, float(abs(Fraction(work[0, column]) - exact) / Fraction(work[1, column])))
    print(f"rounding of a coefficient: at most {worst / 2**-53:.1f} u of the 32 u allowed")
    assert worst < codes.COEFFICIENT_ERROR / 2


def test_random_pairs_agree_with_dense_scan(record_property: pytest.RecordProperty) -> None:
    near, far = random_pairs(np.random.default_rng(5), 3000)
    certificate = check_calendar(near, far)
    scan = smallest_gain_on_dense_scan(near, far)
    size = np.abs(near.a) + near.b * near.sigma
    proved, violated = certificate.proved, certificate.verdict == Verdict.VIOLATED
    wrong = int(np.sum(proved & (scan < -1e-12 * size)) + np.sum(violated & (certificate.worst_value >= 0)))
    undecided = float(np.mean(certificate.verdict == Verdict.UNDECIDED))
    print(
        f"A7: {len(near)} random pairs, {proved.sum()} proved, {violated.sum()} violated, {wrong} disagree with 1202 points; "
        f"{100 * undecided:.3f} % undecided"
    )
    record_property("A7_random_disagreements", int(wrong))
    assert min(proved.sum(), violated.sum()) > 500
    assert wrong == 0
    assert undecided <= 0.001
    crossing = certificate.condition == Condition.CROSSING
    np.testing.assert_array_less(
        certificate.worst_value[crossing], scan[crossing] + 0.05 * np.abs(scan[crossing]) + 1e-18
    )


def test_random_pairs_agree_with_rational_arithmetic() -> None:
    near, far = random_pairs(np.random.default_rng(6), 150)
    certificate = check_calendar(near, far)
    for i in range(len(near)):
        if certificate.verdict[i] != Verdict.UNDECIDED:
            assert calendar_free(parameters(near, i), parameters(far, i)) == bool(certificate.proved[i])
    assert np.mean(certificate.verdict == Verdict.UNDECIDED) < 0.01


def test_a_slice_never_crosses_itself(record_property: pytest.RecordProperty) -> None:
    """A7: equal doubles are in order, one ulp less is not called proved."""
    svi = random_slices(np.random.default_rng(8), 2000)
    assert check_calendar(svi, svi)
    lower = RawSVI(np.nextafter(svi.a, -np.inf), svi.b, svi.rho, svi.m, svi.sigma)
    certificate = check_calendar(svi, lower)
    assert not np.any(certificate.proved)
    record_property("A7_one_ulp_below_proved", int(certificate.proved.sum()))
    raised = RawSVI(svi.a + 1e-9 * np.abs(svi.a), svi.b, svi.rho, svi.m, svi.sigma)
    assert np.mean(check_calendar(svi, raised).proved) > 0.99


def test_parallel_slices_are_in_order() -> None:
    """Equal slopes are not strictly increasing, and yet there is nothing wrong: variance added at every strike alike."""
    near = RawSVI(*CALENDAR_PARALLEL.near)
    for added in (1e-9, 1e-4, 0.5):
        far = RawSVI(near.a + added, near.b, near.rho, near.m, near.sigma)
        assert check_calendar(near, far).verdict == Verdict.PROVED
        assert check_calendar(far, near).verdict == Verdict.VIOLATED
    wider = RawSVI(near.a + 0.01, near.b, near.rho, near.m, near.sigma * 1.1)
    assert check_calendar(near, wider).verdict == Verdict.PROVED


def test_scaled_slices_are_in_order(record_property: pytest.RecordProperty) -> None:
    """A8: of a slice free of butterfly arbitrage, factor * w(k / sqrt(factor)) rises with the factor at every k."""
    from volsurf.svi.arbitrage import check_butterfly

    svi = random_slices(np.random.default_rng(9), 2000)
    svi = svi[check_butterfly(svi).proved]
    failures = pairs = 0
    factors = (1e-6, 1e-3, 0.1, 0.5, 0.95, 1.0, 1.05, 2.0)
    for low, high in itertools.pairwise(factors):
        certificate = check_calendar(scale(svi, low), scale(svi, high))
        # Above one the larger slice need not be free of butterflies, and then the order is not promised.
        promised = check_butterfly(scale(svi, high)).proved
        failures += int(np.sum(~certificate.proved & promised))
        pairs += int(promised.sum())
    print(f"A8: {pairs} pairs of scaled slices, {failures} not proved")
    record_property("A8_calendar_failures", int(failures))
    assert pairs > 5000
    assert failures == 0


def test_a_batch_against_one_slice_and_shapes() -> None:
    svi = random_slices(np.random.default_rng(10), 4)
    tiny = scale(CRYPTO_30D.svi, 1e-6)
    certificate = check_calendar(tiny, svi)
    assert certificate.verdict.shape == (4,)
    assert check_calendar(svi, tiny).verdict.shape == (4,)
    assert check_calendar(tiny, CRYPTO_30D.svi).verdict.shape == ()
    assert check_calendar(svi[:0], svi[:0])
    ladder = RawSVI([0.01, 0.02, 0.03], 0.1, 0.0, 0.0, 0.2)
    assert check_calendar(ladder[:-1], ladder[1:])
    with pytest.raises(InputError, match=r"near has shape \(4,\), far has \(3,\)"):
        check_calendar(svi, ladder)


def test_a_bad_slice_leaves_its_neighbours_alone() -> None:
    ladder = RawSVI([0.01, np.nan, 0.03, 0.04], 0.1, 0.0, 0.0, 0.2)
    certificate = check_calendar(ladder[:-1], ladder[1:])
    np.testing.assert_array_equal(certificate.verdict, [Verdict.INVALID, Verdict.INVALID, Verdict.PROVED])
    assert np.isnan(certificate.worst_k[0])
    assert "NaN" in certificate.sentence(0)
    ensure_compiled("svi")
    values = columns(VOGT.svi, VOGT.svi)
    values[4] = np.array([-1.0])
    assert certify_calendar(*values, True)[1][0] == Condition.NOT_A_SLICE
    values[4] = np.array([1e-200])
    assert certify_calendar(*values, True)[1][0] == Condition.SCALE


def test_words() -> None:
    certificate = check_calendar(
        RawSVI(*np.array([CALENDAR_CROSSING.near, CALENDAR_FAR_OUT.near, CALENDAR_PARALLEL.near]).T),
        RawSVI(*np.array([CALENDAR_CROSSING.far, CALENDAR_FAR_OUT.far, CALENDAR_PARALLEL.far]).T),
    )
    assert "left wing" in certificate.sentence(0)
    assert "below near by 0.734" in certificate.sentence(1)
    assert certificate.sentence(2).startswith("no calendar arbitrage at any strike")
    assert "calendar: 1 proved, 2 violated" in certificate._repr_html_()
