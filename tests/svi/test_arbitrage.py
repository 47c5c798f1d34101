"""The butterfly certificate: known slices, and every known way to make it say something false."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.svi.exact import butterfly_free, density_polynomial
from tests.svi.oracles import (
    EVASIVE,
    FLAT,
    KNOWN_SLICES,
    ONE_WING,
    QUANTLIB,
    STEEP,
    VOGT,
    KnownSlice,
    parameters,
    random_slices,
)
from volsurf._jit import ensure_compiled
from volsurf.svi import _bernstein as codes, arbitrage
from volsurf.svi.arbitrage import certify_butterfly, check_butterfly
from volsurf.svi.certificate import Certificate, Condition, Verdict
from volsurf.svi.params import RawSVI

LOG_T = np.linspace(-14.0, 14.0, 8001)


def lowest_g_on_dense_scan(svi: RawSVI) -> np.ndarray:
    """Minimum of g over 8001 log-spaced t, t = exp(asinh((k - m)/sigma)), for each slice."""
    t = np.exp(LOG_T)
    inverse, radius = 1.0 / t, np.cosh(LOG_T)
    half, cube = 0.5 / radius, radius**-3.0
    lowest = np.empty(len(svi))
    for i in range(len(svi)):
        a, b, rho, m, sigma = parameters(svi, i)
        right, left = b * (1 + rho) * t, b * (1 - rho) * inverse
        w_inverse = 1.0 / (a + 0.5 * sigma * (right + left))
        slope = (right - left) * half
        monotone = 1.0 - (0.5 * m + 0.25 * sigma * (t - inverse)) * slope * w_inverse
        g = monotone * monotone - 0.25 * slope * slope * (w_inverse + 0.25) + (0.5 * b / sigma) * cube
        lowest[i] = g.min()
    return lowest


@pytest.mark.parametrize("known", KNOWN_SLICES, ids=lambda known: known.name)
def test_known_slices(known: KnownSlice) -> None:
    """A1, A4, A5: verdict, and where it is a violation, the published place and depth."""
    certificate = check_butterfly(known.svi)
    assert butterfly_free(*known.parameters) is known.free
    assert certificate.verdict == (Verdict.PROVED if known.free else Verdict.VIOLATED)
    assert bool(certificate) is known.free
    assert certificate.evidence == "exact-polynomial"
    value = float(known.svi.g(certificate.worst_k))
    assert value == pytest.approx(float(certificate.worst_value), rel=1e-9, abs=1e-12)
    if not known.free:
        assert value < 0
    for found, published in zip((certificate.worst_k, certificate.worst_value), known.lowest, strict=True):
        if np.isfinite(published):
            assert float(found) == pytest.approx(published, rel=2e-5)


def test_vogt_witness_without_report(record_property: pytest.RecordProperty) -> None:
    """A1: the witness that the bare procedure meets lies where g < 0."""
    ensure_compiled("svi")
    verdict, condition, k, g, nodes = certify_butterfly(*(np.array([v]) for v in VOGT.parameters), False)
    assert verdict[0] == Verdict.VIOLATED
    assert condition[0] == Condition.DENSITY
    assert VOGT.negative[0] < k[0] < VOGT.negative[1]
    assert g[0] == pytest.approx(float(VOGT.svi.g(k[0])), rel=1e-9)
    print(f"A1: witness k = {k[0]:.4f}, g = {g[0]:.4f}, {nodes[0]} nodes")
    record_property("A1_witness", (float(k[0]), float(g[0])))


def bisected_slices(count: int) -> tuple[list[RawSVI], np.ndarray]:
    """Slices on the way of a bisection in sigma from a violated to a proved slice, down to neighbouring doubles."""
    ensure_compiled("svi")
    rng = np.random.default_rng(7)
    base = random_slices(rng, 12 * count)
    narrow, wide = base.sigma * 0.2, base.sigma * 5.0
    columns = (base.a, base.b, base.rho, base.m)

    def verdicts(sigma: np.ndarray) -> np.ndarray:
        return certify_butterfly(*columns, sigma, False)[0]

    straddles = (verdicts(narrow) == Verdict.VIOLATED) & (verdicts(wide) == Verdict.PROVED)
    base, bad, good = base[straddles][:count], narrow[straddles][:count], wide[straddles][:count]
    columns = (base.a, base.b, base.rho, base.m)
    path = []
    for _ in range(70):
        middle = 0.5 * (bad + good)
        path.append(RawSVI(*columns, middle))
        proved = verdicts(middle) == Verdict.PROVED
        bad, good = np.where(proved, bad, middle), np.where(proved, middle, good)
    path.append(RawSVI(*columns, good))
    return path, good / bad - 1.0


def test_undecided_band_is_rounding_wide() -> None:
    """Between proved and violated lies no more than the rounding of a few operations, in g's own units."""
    path, _ = bisected_slices(40)
    edge = path[-1]
    for step in (1e-9, 1e-10, 1e-11):
        inside = RawSVI(edge.a, edge.b, edge.rho, edge.m, edge.sigma * (1 + step))
        outside = RawSVI(edge.a, edge.b, edge.rho, edge.m, edge.sigma * (1 - step))
        assert np.mean(check_butterfly(inside).verdict == Verdict.PROVED) >= 0.95
        assert np.mean(check_butterfly(outside).verdict == Verdict.VIOLATED) >= 0.95


def test_coefficients_are_within_their_bounds() -> None:
    """The error analysis itself: every computed coefficient against the exact one, in units of its bound."""
    worst = 0.0
    svi = random_slices(np.random.default_rng(11), 400)
    work = np.empty(codes.WORK_SHAPE)
    write = arbitrage._coefficients.py_func  # the same arithmetic, without compiling
    for i in range(len(svi)):
        a, b, rho, m, sigma = parameters(svi, i)
        r, s, level, centre = sigma / b, b * sigma, 2 * a / (b * sigma), m / sigma
        write(work, 0, 1 + rho, 1 - rho, level, centre, r, s, -1.0)
        write(work, 1, 1 + rho, 1 - rho, abs(level), abs(centre), r, s, 1.0)
        denominator, exact = density_polynomial(a, b, rho, m, sigma)
        # 16 sigma P^2 Q^3 g = sigma^2 b^3 * (16 sigma/b p^2 Q^3 g)
        unit = denominator * Fraction(sigma) ** 2 * Fraction(b) ** 3
        for j, coefficient in enumerate(exact):
            error = abs(Fraction(work[0, j]) - coefficient / unit)
            worst = max(worst, float(error / Fraction(work[1, j])))
    print(f"rounding of a coefficient: at most {worst / 2**-53:.1f} u of the 32 u allowed")
    assert worst < codes.COEFFICIENT_ERROR / 2


def test_grid_tools_pass_what_the_certificate_fails(record_property: pytest.RecordProperty) -> None:
    """A4."""
    certificate = check_butterfly(EVASIVE.svi)
    low, high = EVASIVE.negative
    assert 2.0 < low < float(certificate.worst_k) < high < 2.3
    assert certificate.verdict == Verdict.VIOLATED
    for grid in (np.linspace(-1.5, 1.5, 61), np.linspace(-2.0, 2.0, 401), np.linspace(-3.0, 3.0, 13)):
        assert EVASIVE.svi.g(grid).min() > 0
    # And with the stretch as narrow as the dip can be made: a millionth of the smile's width.
    sigma = np.linspace(1.0629, 1.0633, 4001)
    a, b, rho, m, _ = EVASIVE.parameters
    family = RawSVI(a, b, rho, m, sigma)
    verdict = check_butterfly(family)
    edge = int(np.argmax(verdict.proved))
    assert 0 < edge < len(sigma) - 1
    last = verdict.worst_value[edge - 1]
    print(
        f"A4: violated with min g = {float(certificate.worst_value):.2e}; shallowest dip of the family found {last:.1e}"
    )
    record_property("A4_shallowest", float(last))
    assert -1e-7 < last < 0
    assert np.all(verdict.proved[edge:])


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [
        (1.999, Verdict.PROVED),
        (1.999999999, Verdict.PROVED),
        (2.0, Verdict.VIOLATED),
        (2.5, Verdict.VIOLATED),
        (3.9, Verdict.VIOLATED),  # QuantLib's own bound is 4
    ],
)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_lee_bound(slope: float, verdict: Verdict, side: float) -> None:
    """A5: the steeper wing has the slope given, the other half of it."""
    rho = side / 3.0
    svi = RawSVI(50.0, 0.75 * slope, rho, 0.0, 5.0)
    assert float(max(svi.right_slope, svi.left_slope)) == pytest.approx(slope, rel=1e-15)
    certificate = check_butterfly(svi)
    if slope == 2.0:
        svi = RawSVI(50.0, 2.0, 0.0, 0.0, 5.0)  # exactly 2 on both sides
        certificate = check_butterfly(svi)
        assert certificate.condition in (Condition.RIGHT_SLOPE, Condition.LEFT_SLOPE)
        assert certificate.worst_value <= 0
    elif verdict == Verdict.VIOLATED:
        assert certificate.condition == (Condition.RIGHT_SLOPE if side > 0 else Condition.LEFT_SLOPE)
        assert np.sign(certificate.worst_k) == side
        assert float(svi.g(certificate.worst_k)) == pytest.approx(float(certificate.worst_value), rel=1e-6)
        assert float(svi.g(certificate.worst_k)) < 0
    assert certificate.verdict == verdict, certificate.sentence()


def test_slope_one_ulp_below_two_is_never_proved_wrongly() -> None:
    below = np.nextafter(2.0, 0.0)
    certificate = check_butterfly(RawSVI(50.0, below, 0.0, 0.0, 5.0))
    assert certificate.verdict == Verdict.UNDECIDED
    assert certificate.condition == Condition.ROUNDING


def test_extreme_slopes_are_decided() -> None:
    """A wing whose slope is 1e-15 of the other's, or none at all, does not drown in the other's rounding."""
    for rho in (0.999, 1 - 1e-6, 1 - 1e-12, np.nextafter(1.0, 0.0), 1.0):
        for sign in (1.0, -1.0):
            one = RawSVI(0.04, 0.05, sign * rho, 0.0, 0.3)
            assert check_butterfly(one).verdict == Verdict.PROVED, rho
            two = RawSVI(-0.0001, 0.15, sign * rho, 0.02 * sign, 0.02)
            free = butterfly_free(*(float(v) for v in (two.a, two.b, two.rho, two.m, two.sigma)))
            expected = Verdict.PROVED if free else Verdict.VIOLATED
            if float(two.minimum_total_variance) > 0:
                assert check_butterfly(two).verdict == expected, rho
            else:
                assert check_butterfly(two).verdict == Verdict.INVALID


@pytest.mark.parametrize(
    ("values", "condition"),
    [
        ((np.nan, 0.1, 0.0, 0.0, 0.1), Condition.NOT_FINITE),
        ((0.1, 0.1, 0.0, np.inf, 0.1), Condition.NOT_FINITE),
        ((0.1, -0.1, 0.0, 0.0, 0.1), Condition.NOT_A_SLICE),
        ((0.1, 0.1, 1.1, 0.0, 0.1), Condition.NOT_A_SLICE),
        ((0.1, 0.1, 0.0, 0.0, 0.0), Condition.NOT_A_SLICE),
        ((-0.1, 0.1, 0.0, 0.0, 0.1), Condition.VARIANCE),
        ((0.0, 0.1, 1.0, 0.0, 0.1), Condition.VARIANCE),  # w falls to 0 towards minus infinity
        ((0.0, 0.0, 0.0, 0.0, 0.1), Condition.VARIANCE),
    ],
)
def test_parameters_that_are_no_smile(values: tuple[float, ...], condition: Condition) -> None:
    ensure_compiled("svi")
    good = VOGT.parameters
    columns = [np.array([x, y]) for x, y in zip(values, good, strict=True)]
    verdict, found, *_ = certify_butterfly(*columns, True)
    assert verdict[0] == Verdict.INVALID
    assert found[0] == condition
    assert verdict[1] == Verdict.VIOLATED  # the neighbour lives


def test_undecidable_inputs_are_undecided() -> None:
    """A minimum of total variance within rounding of zero, and scales the error bounds do not cover."""
    hairline = RawSVI(-0.1 * 0.3, 0.1, 0.0, 0.0, 0.3)
    assert check_butterfly(hairline).condition in (Condition.ROUNDING, Condition.VARIANCE)
    assert not check_butterfly(hairline)
    assert check_butterfly(RawSVI(0.04, 1e-200, 0.0, 0.0, 0.3)).condition == Condition.SCALE
    assert check_butterfly(RawSVI(1e200, 0.1, 0.0, 0.0, 0.3)).condition == Condition.SCALE
    assert check_butterfly(RawSVI(0.04, 0.1, 0.0, 1e200, 0.3)).condition == Condition.SCALE


def test_kernel_codes_are_the_enums() -> None:
    for name in Verdict.__members__:
        assert getattr(codes, name) == Verdict[name]
    for name in Condition.__members__:
        assert getattr(codes, name) == Condition[name]


def test_certificate_shapes_and_words() -> None:
    batch = RawSVI(*np.array([FLAT.parameters, VOGT.parameters, ONE_WING.parameters, STEEP.parameters]).T)
    certificate = check_butterfly(batch)
    assert certificate.verdict.shape == (4,)
    assert len(certificate) == 4
    np.testing.assert_array_equal(certificate.proved, [True, False, True, True])
    assert not certificate
    assert check_butterfly(batch[:1])
    assert check_butterfly(batch[0]).verdict.shape == ()
    assert "negative at k = 0.879" in certificate.sentence(1)
    assert certificate.sentence(0).startswith("no butterfly arbitrage at any strike")
    html = certificate._repr_html_()
    assert "3 proved, 1 violated" in html
    assert html.count("<tr>") == 4
    assert len(check_butterfly(RawSVI([], [], [], [], []))) == 0
    missing = check_butterfly(RawSVI(np.nan, 0.1, 0.0, 0.0, 0.1))
    assert missing.verdict == Verdict.INVALID
    assert "NaN" in missing.sentence()
    assert np.isnan(missing.worst_k)


@pytest.mark.parametrize("kind", ["butterfly", "calendar"])
@pytest.mark.parametrize("condition", list(Condition))
def test_every_condition_has_its_sentence(kind: str, condition: Condition) -> None:
    other = {"butterfly": {Condition.CROSSING}, "calendar": {Condition.DENSITY, Condition.VARIANCE}}[kind]
    if condition in other:
        return
    certificate = Certificate(
        kind,
        np.int8(Verdict.UNDECIDED).reshape(()),
        np.int8(condition).reshape(()),
        np.float64(0.5).reshape(()),
        np.float64(-0.25).reshape(()),
        np.int32(0).reshape(()),
    )
    sentence = certificate.sentence()
    assert sentence
    assert "{" not in sentence


def test_quantlib_slice_is_a_violation(record_property: pytest.RecordProperty) -> None:
    certificate = check_butterfly(QUANTLIB.svi)
    assert float(certificate.worst_value) == pytest.approx(-0.102671351818036, rel=1e-8)
    record_property("quantlib_worst_g", float(certificate.worst_value))


def test_exact_oracle_knows_its_polynomial() -> None:
    """The rational oracle's polynomial is 16 sigma P^2 Q^3 g, so that it may judge the kernel."""
    a, b, rho, m, sigma = VOGT.parameters
    denominator, polynomial = density_polynomial(a, b, rho, m, sigma)
    for t in (0.3, 1.0, 2.5):
        p = sigma * b * ((1 + rho) * t * t + (1 - rho)) + 2 * a * t
        k = m + 0.5 * sigma * (t - 1 / t)
        expected = 16 * sigma * p**2 * (1 + t * t) ** 3 * float(VOGT.svi.g(k))
        exact = sum(Fraction(c, denominator) * Fraction(t) ** i for i, c in enumerate(polynomial))
        assert float(exact) == pytest.approx(expected, rel=1e-11)
