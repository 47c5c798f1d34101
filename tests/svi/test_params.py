"""Raw SVI: formula, shapes, the three parametrisations, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.svi.oracles import CRYPTO_30D, KNOWN_SLICES, VOGT, KnownSlice, random_slices
from volsurf.errors import InputError
from volsurf.svi.params import JumpWings, NaturalSVI, RawSVI


def reference(shared: Path, name: str) -> dict:
    path = shared / "data" / "real" / "reference_cases" / name
    if not path.exists():
        pytest.skip(f"validation data not here: {path}")
    return json.loads(path.read_text(encoding="utf-8"))


def as_svi(case: dict) -> RawSVI:
    return RawSVI(*(float(case[name]) for name in ("a", "b", "rho", "m", "sigma")))


# Values


def test_gatheral_jacquier_slices(shared: Path) -> None:
    case = reference(shared, "gatheral_jacquier_2014.json")
    a, b, m, rho, sigma = (float(v) for v in case["example_3_1"]["published"]["values"])
    repairs = case["example_5_1"]["computed_60_digits"]
    slices = [
        (RawSVI(a, b, rho, m, sigma), case["example_3_1"]["computed_60_digits"]["points"]),
        (as_svi(repairs["guaranteed_fix_raw"]), repairs["guaranteed_fix_points"]),
        (as_svi(repairs["optimal_fix_raw"]), repairs["optimal_fix_points"]),
    ]
    for svi, points in slices:
        k, w, g = (np.array([float(point[name]) for point in points]) for name in ("k", "w", "g"))
        # The repairs' raw parameters are printed with 15 digits; g amplifies that near its dips.
        np.testing.assert_allclose(svi.total_variance(k), w, rtol=3e-14)
        np.testing.assert_allclose(svi.g(k), g, rtol=1e-12, atol=1e-13)
    computed = case["example_3_1"]["computed_60_digits"]
    assert float(slices[0][0].minimum_total_variance) == pytest.approx(float(computed["min_total_variance"]), rel=1e-13)
    assert float(slices[0][0].right_slope) == pytest.approx(float(computed["right_wing_slope_b_1_plus_rho"]), rel=1e-15)
    assert float(slices[0][0].left_slope) == pytest.approx(float(computed["left_wing_slope_b_1_minus_rho"]), rel=1e-15)


def test_gatheral_jacquier_jump_wings(shared: Path) -> None:
    case = reference(shared, "gatheral_jacquier_2014.json")["example_5_1"]
    exact, published = case["computed_60_digits"], case["published"]
    jw = VOGT.svi.to_jump_wings(1.0)
    for ours, theirs in (("v", "v"), ("psi", "psi"), ("p", "p"), ("c", "c"), ("v_min", "vt")):
        assert float(getattr(jw, ours)) == pytest.approx(float(exact["jw_of_vogt"][theirs]), rel=1e-13)
    for repair in ("guaranteed", "optimal"):
        numbers = published["jw_of_vogt"] | {name: published[f"{repair}_fix"][name] for name in ("c", "vt")}
        repaired = JumpWings(*(float(numbers[name]) for name in ("v", "psi", "p", "c", "vt")))
        svi = RawSVI.from_jump_wings(repaired, 1.0)
        for name, text in exact[f"{repair}_fix_raw"].items():
            assert float(getattr(svi, name)) == pytest.approx(float(text), rel=2e-14), (repair, name)


def test_third_party_values(shared: Path) -> None:
    for case in reference(shared, "svi_thirdparty_values.json")["cases"]:
        svi = as_svi(case)
        for quantity, function in (
            ("w", svi.total_variance),
            ("g", svi.g),
            ("implied_vol", lambda k, s=svi: s.vol(k, 1.0)),
        ):
            for k, text in case[quantity].items():
                assert float(function(float(k))) == pytest.approx(float(text), rel=6e-10), (case["name"], quantity, k)
        jw = svi.to_jump_wings(1.0)
        for name, theirs in (
            ("c", "call_slope_c"),
            ("p", "put_slope_p"),
            ("v_min", "min_variance"),
            ("psi", "atm_skew"),
        ):
            assert float(getattr(jw, name)) == pytest.approx(float(case[f"jw_{theirs}"]), rel=6e-10)


def test_quantlib_value(shared: Path) -> None:
    case = reference(shared, "quantlib_svi_smile_section.json")
    svi = as_svi(case)
    assert float(svi.total_variance(svi.m)) == pytest.approx(float(case["expected_total_variance_at_m"]), abs=1e-14)


@pytest.mark.parametrize("known", KNOWN_SLICES, ids=lambda known: known.name)
def test_formula_and_derivatives(known: KnownSlice) -> None:
    """w as Gatheral wrote it; g against the second difference of w."""
    a, b, rho, m, sigma = known.parameters
    k = np.linspace(-1.5, 1.5, 31)
    w = a + b * (rho * (k - m) + np.sqrt((k - m) ** 2 + sigma**2))
    np.testing.assert_allclose(known.svi.total_variance(k), w, rtol=1e-13)
    h = 1e-4
    above, below = known.svi.total_variance(k + h), known.svi.total_variance(k - h)
    slope, curvature = (above - below) / (2 * h), (above - 2 * w + below) / h**2
    g = (1 - 0.5 * k * slope / w) ** 2 - 0.25 * slope**2 * (1 / w + 0.25) + 0.5 * curvature
    np.testing.assert_allclose(known.svi.g(k), g, atol=2e-5)


def test_wings_keep_their_slope_at_any_distance() -> None:
    """No clamp and no cancellation: H5."""
    svi = VOGT.svi
    for k in (1e2, 1e5, 1e12):
        rise = float(svi.total_variance(2 * k) - svi.total_variance(k)) / k
        fall = float(svi.total_variance(-2 * k) - svi.total_variance(-k)) / k
        assert rise == pytest.approx(float(svi.right_slope), rel=1e-3 / k + 1e-14)
        assert fall == pytest.approx(float(svi.left_slope), rel=1e-3 / k + 1e-14)
        assert float(svi.g(k)) == pytest.approx((4 - float(svi.right_slope) ** 2) / 16, abs=20 / k + 1e-14)
    one_sided = RawSVI(0.04, 0.05, -1.0, 0.0, 0.3)
    assert float(one_sided.total_variance(1e9)) == pytest.approx(0.04, abs=1e-11)


def test_vol_and_minimum() -> None:
    svi = CRYPTO_30D.svi
    k = np.linspace(-3, 3, 60001)
    assert svi.total_variance(k).min() == pytest.approx(float(svi.minimum_total_variance), rel=1e-8)
    np.testing.assert_allclose(svi.vol(k, 30 / 365) ** 2 * 30 / 365, svi.total_variance(k), rtol=1e-14)
    below_zero = RawSVI(-0.1, 0.1, 0.0, 0.0, 0.1)
    assert np.isnan(below_zero.vol(0.0, 1.0))


# Shapes


def test_shapes() -> None:
    one = VOGT.svi
    batch = random_slices(np.random.default_rng(1), 3)
    assert one.shape == ()
    assert one.total_variance(0.1).shape == ()
    assert one.g(np.zeros((2, 5))).shape == (2, 5)
    assert batch.shape == (3,)
    assert len(batch) == 3
    assert batch.total_variance(0.0).shape == (3,)
    assert batch.vol(np.zeros(7), np.ones(3)).shape == (3, 7)
    assert batch.g(np.zeros((3, 4))).shape == (3, 4)
    k = np.linspace(-1, 1, 3)  # as many as there are slices: still common to all
    assert batch.total_variance(k).shape == (3, 3)
    np.testing.assert_array_equal(batch.total_variance(k[:, None])[:, 0], np.diag(batch.total_variance(k)))
    np.testing.assert_array_equal(batch.vol(k, 0.5)[2], batch[2].vol(k, 0.5))
    assert [s.shape for s in batch] == [(), (), ()]
    assert batch[1:].shape == (2,)
    assert batch[np.array([True, False, True])].shape == (2,)
    assert RawSVI(0.1, [0.1, 0.2], 0.0, 0.0, 0.1).shape == (2,)
    assert len(RawSVI([], [], [], [], [])) == 0
    with pytest.raises(TypeError):
        len(one)
    with pytest.raises(IndexError):
        batch[3]


def test_slices_are_frozen_copies_and_compare_by_bits() -> None:
    a = np.array([0.1, 0.2])
    svi = RawSVI(a, 0.1, 0.0, 0.0, 0.1)
    a[0] = 9.0
    assert svi.a[0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        svi.a[0] = 1.0
    assert svi == RawSVI([0.1, 0.2], [0.1, 0.1], 0.0, 0.0, 0.1)
    assert svi != RawSVI([0.1, np.nextafter(0.2, 1)], 0.1, 0.0, 0.0, 0.1)
    missing = RawSVI(np.nan, np.nan, np.nan, np.nan, np.nan)
    assert missing == RawSVI(np.nan, np.nan, np.nan, np.nan, np.nan)
    assert np.isnan(missing.total_variance(0.0))
    assert np.isnan(missing.g(0.0))


def test_html_shows_at_most_24_slices() -> None:
    html = random_slices(np.random.default_rng(2), 30)._repr_html_()
    assert html.count("<tr>") == 25
    assert "and 6 more" in html
    assert "-0.041" in VOGT.svi._repr_html_()


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": -0.1}, r"b was -0\.1"),
        ({"rho": 1.0000001}, r"rho was 1\.0000001"),
        ({"sigma": 0.0}, r"sigma was 0\.0"),
        ({"sigma": [0.1, -0.2]}, r"sigma of slice 1 was -0\.2"),
        ({"a": np.inf}, "a was inf"),
        ({"m": "x"}, "m must be real numbers"),
        ({"m": [0.0, 1.0], "a": [0.1, 0.2, 0.3]}, "broadcast"),
        ({"m": [[0.0]]}, "one-dimensional"),
    ],
)
def test_parameters_that_are_no_slice(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RawSVI(**({"a": 0.04, "b": 0.1, "rho": 0.0, "m": 0.0, "sigma": 0.1} | change))


def test_arguments_that_do_not_fit() -> None:
    batch = random_slices(np.random.default_rng(3), 3)
    with pytest.raises(InputError, match=r"k has shape \(2, 4\)"):
        batch.total_variance(np.zeros((2, 4)))
    with pytest.raises(InputError, match="years was -1"):
        batch.vol(0.0, -1.0)
    with pytest.raises(InputError, match="years of slice 1 was nan"):
        batch.vol(0.0, [1.0, np.nan, 1.0])
    with pytest.raises(InputError, match="years has shape"):
        batch.to_jump_wings([1.0, 2.0])
    with pytest.raises(InputError, match="total variance at k = 0"):
        RawSVI(-0.1, 0.1, 0.0, 0.0, 0.1).to_jump_wings(1.0)


@pytest.mark.parametrize(
    ("jump_wings", "name"),
    [
        ((0.0, 0.1, 0.5, 0.5, 0.0), "v"),
        ((0.1, 0.1, -0.5, 0.5, 0.05), "p"),
        ((0.1, 0.1, 0.5, -0.5, 0.05), "c"),
        ((0.1, 0.25, 0.5, 0.5, 0.05), "psi"),
        ((0.1, -0.25, 0.5, 0.5, 0.05), "psi"),
        ((0.1, 0.1, 0.5, 0.5, 0.11), "v_min"),
        ((0.1, 0.0, 0.5, 0.5, 0.1), "psi"),  # lowest point at the money: any sigma has these numbers
    ],
)
def test_jump_wings_of_no_slice(jump_wings: tuple[float, ...], name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} was"):
        RawSVI.from_jump_wings(JumpWings(*jump_wings), 1.0)


# Parametrisations


def round_trip_error(svi: RawSVI, back: RawSVI) -> np.ndarray:
    """Largest error of the five parameters, each relative to its natural size."""
    return np.max(
        [
            np.abs(back.a - svi.a) / (np.abs(svi.a) + svi.b * svi.sigma),
            np.abs(back.b / svi.b - 1.0),
            np.abs(back.rho - svi.rho),
            np.abs(back.m - svi.m) / (np.abs(svi.m) + svi.sigma),
            np.abs(back.sigma / svi.sigma - 1.0),
        ],
        axis=0,
    )


def jump_wing_condition(svi: RawSVI, years: float) -> np.ndarray:
    """How much the five numbers magnify their own last digit: they lose sigma where the smile's lowest point is the money."""
    jw = svi.to_jump_wings(years)
    return np.max(
        [
            jw.v / (jw.v - jw.v_min),
            jw.p / (jw.p + 2 * jw.psi),
            jw.c / (jw.c - 2 * jw.psi),
            (jw.p + jw.c) / np.abs(2 * jw.psi),
        ],
        axis=0,
    )


def test_jump_wings_round_trip(record_property: pytest.RecordProperty) -> None:
    """H6: 1e-12 wherever the numbers hold the information, and never worse than their own conditioning."""
    svi = random_slices(np.random.default_rng(4), 20000)
    svi = svi[svi.total_variance(0.0) > 0]
    error = round_trip_error(svi, RawSVI.from_jump_wings(svi.to_jump_wings(0.3), 0.3))
    condition = jump_wing_condition(svi, 0.3)
    fair = condition < 100
    assert fair.mean() > 0.7
    print(
        f"H6: {fair.sum()} slices, worst round trip {error[fair].max():.1e}; over condition {(error / condition).max():.1e}"
    )
    record_property("H6_worst", float(error[fair].max()))
    assert error[fair].max() <= 1e-12
    assert (error / condition).max() <= 2e-14


@pytest.mark.parametrize(
    "parameters",
    [
        VOGT.parameters,  # negative a
        (0.02, 0.1, 0.3, 0.0, 0.2),  # m = 0, which lemma 3.2 treats apart
        (-0.003, 0.1, -0.4, 0.0, 0.2),
        (0.02, 0.1, 0.999999, 0.05, 0.2),
        (0.02, 0.1, -0.999999, 0.05, 0.2),
        (0.02, 0.1, 1.0, 0.05, 0.2),
        (0.02, 0.1, -1.0, -0.05, 0.2),
        (1e-7, 1e-4, -0.2, 3e-5, 2e-4),  # minutes to expiry
    ],
)
@pytest.mark.parametrize("years", [2e-6, 1.0, 3.0])
def test_jump_wings_round_trip_at_the_edges(parameters: tuple[float, ...], years: float) -> None:
    svi = RawSVI(*parameters)
    back = RawSVI.from_jump_wings(svi.to_jump_wings(years), years)
    assert float(round_trip_error(svi, back)) <= 1e-12


def test_natural_round_trip() -> None:
    svi = random_slices(np.random.default_rng(5), 5000)
    natural = svi.to_natural()
    assert round_trip_error(svi, RawSVI.from_natural(natural)).max() <= 1e-12
    k = np.linspace(-0.5, 0.5, 11)
    delta, mu, rho, omega, zeta = (getattr(natural, name)[:, None] for name in ("delta", "mu", "rho", "omega", "zeta"))
    z = zeta * (k - mu)
    w = delta + 0.5 * omega * (1 + rho * z + np.sqrt((z + rho) ** 2 + 1 - rho**2))
    np.testing.assert_allclose(w, svi.total_variance(k), rtol=1e-10, atol=1e-15)


def test_natural_needs_a_tilt_below_one() -> None:
    with pytest.raises(InputError, match="rho was 1"):
        RawSVI(0.04, 0.1, 1.0, 0.0, 0.1).to_natural()
    with pytest.raises(InputError, match="zeta was 0"):
        RawSVI.from_natural(NaturalSVI(0.0, 0.0, 0.0, 0.1, 0.0))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 10.0))
def test_scaled_slice(seed: int, factor: float) -> None:
    """factor * w(k / sqrt(factor)) is SVI, and g of it is g(z) + (1 - factor) w'(z)^2 / 16."""
    svi = random_slices(np.random.default_rng(seed), 1)[0]
    root = np.sqrt(factor)
    other = RawSVI(svi.a * factor, svi.b * root, svi.rho, svi.m * root, svi.sigma * root)
    z = svi.m + svi.sigma * np.sinh(np.linspace(-4, 4, 41))
    np.testing.assert_allclose(other.total_variance(root * z), factor * svi.total_variance(z), rtol=1e-9)
    x = (z - svi.m) / svi.sigma
    slope = svi.b * (svi.rho + x / np.hypot(1.0, x))
    np.testing.assert_allclose(other.g(root * z), svi.g(z) + (1 - factor) * slope**2 / 16, rtol=1e-8, atol=1e-10)


def test_g_far_beyond_any_strike_is_its_limit_without_a_warning() -> None:
    svi = RawSVI(0.01, 0.1, -0.3, 0.0, 0.2)
    limits = (1.0 - np.array([0.07, 0.13]) ** 2 / 4.0) / 4.0
    assert svi.g([1e200, -1e200]) == pytest.approx(limits, rel=1e-12)
