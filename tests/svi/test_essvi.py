"""eSSVI: free of arbitrage by construction, down to the doubles; and its fit to whole surfaces, thin ones too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from volsurf.errors import InputError
from volsurf.svi._ssvi_quotes import Quotes, raw_slices, total_variance_and_slopes
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import Verdict
from volsurf.svi.essvi import ESSVI, box_of, fit_essvi, slices_of
from volsurf.svi.fit import FitResult

YEARS = np.array([2, 9, 30, 91, 182, 365]) / 365
TRUTH = ESSVI.from_intervals(
    [-0.1, -0.15, -0.2, -0.3, -0.28, -0.25], 0.3 * np.diff(YEARS, prepend=0.0), [0.75, 0.3, 0.4, 0.5, 0.6, 0.35]
)
HALF = 0.004


def quotes(
    model: ESSVI, years: np.ndarray = YEARS, *, counts: int | list[int] = 21, noise: int | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """k, vol and error of each expiry, out to three standard deviations."""
    sizes = [counts] * len(years) if isinstance(counts, int) else counts
    raw = model.to_raw()
    k = [
        np.sqrt(theta) * np.linspace(-3.0, 3.0, n) if n != 1 else np.zeros(1)
        for theta, n in zip(model.theta, sizes, strict=True)
    ]
    vol = [raw[i].vol(k[i], years[i]) for i in range(len(years))]
    if noise is not None:
        rng = np.random.default_rng(noise)
        vol = [v + rng.uniform(-0.8, 0.8, v.size) * HALF for v in vol]
    return k, vol, [np.full(v.size, HALF) for v in vol]


share = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))
step = st.one_of(st.just(0.0), st.floats(-9.0, 1.0).map(lambda exponent: 10.0**exponent))


@settings(max_examples=300)
@given(
    expiries=st.lists(st.tuples(st.floats(-0.999, 0.999), step, share), min_size=1, max_size=8),
    first=st.tuples(st.floats(-8.0, 0.0), st.floats(1e-6, 1.0)),
)
def test_every_point_of_the_box_is_proved(
    expiries: list[tuple[float, float, float]], first: tuple[float, float]
) -> None:
    rho, increment, shares = (np.array(column) for column in zip(*expiries, strict=True))
    increment *= 10.0 ** first[0]
    increment[0], shares[0] = 10.0 ** first[0], first[1]
    raw = ESSVI.from_intervals(rho, increment, shares).to_raw()
    assert (check_butterfly(raw).verdict == Verdict.PROVED).all()
    assert (check_calendar(raw[:-1], raw[1:]).verdict == Verdict.PROVED).all()


def test_outside_the_box_is_not_proved() -> None:
    """So that the certificates above say something."""
    steep = ESSVI([0.01, 0.02], [-0.3, -0.3], [0.50, 0.51])
    assert not check_butterfly(steep.to_raw()).proved[0]
    crossing = ESSVI([0.01, 0.02], [-0.3, 0.3], [0.1, 0.11]).to_raw()
    assert not check_calendar(crossing[:-1], crossing[1:])


def test_slice_is_the_formula_of_the_paper() -> None:
    """Gatheral and Jacquier (2014), equation 4.1, in theta, rho and phi."""
    theta, rho, psi = np.array([0.04]), np.array([-0.4]), np.array([0.25])
    k = np.linspace(-2.0, 2.0, 9)
    phi = psi / theta
    w = 0.5 * theta * (1.0 + rho * phi * k + np.sqrt((phi * k + rho) ** 2 + 1.0 - rho**2))
    model = ESSVI(theta, rho, psi)
    np.testing.assert_allclose(model.total_variance(k)[0], w, rtol=1e-13)
    raw = raw_slices(theta, rho, psi)
    assert (raw.right_slope + raw.left_slope)[0] == pytest.approx(psi[0])
    assert model.total_variance(0.0)[0] == pytest.approx(theta[0])


def test_slopes_of_total_variance() -> None:
    k, x = np.linspace(-1.0, 1.0, 7), np.array([0.05, -0.3, 0.3])
    w, slopes = total_variance_and_slopes(k, *x)
    for i, h in enumerate(1e-6 * np.eye(3)):
        moved = [total_variance_and_slopes(k, *(x + sign * h))[0] for sign in (1.0, -1.0)]
        np.testing.assert_allclose(slopes[:, i], (moved[0] - moved[1]) / 2e-6, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(w, ESSVI(*x).total_variance(k)[0], rtol=1e-14)


def test_box_and_slices_invert_each_other() -> None:
    box = box_of(TRUTH.theta, TRUTH.rho, TRUTH.psi)
    theta, rho, psi = (value[0] for value in slices_of(*(value[None] for value in box)))
    np.testing.assert_allclose(theta, TRUTH.theta, rtol=1e-12)
    np.testing.assert_allclose(psi, TRUTH.psi, rtol=1e-10)
    np.testing.assert_array_equal(rho, TRUTH.rho)


def test_recovers_a_surface() -> None:
    fit = fit_essvi(*quotes(TRUTH), YEARS)
    assert fit.butterfly
    assert fit.calendar
    assert (fit.result <= FitResult.AT_BOUND).all()
    for vol, k, truth in zip(fit.residuals, *quotes(TRUTH)[:2], strict=True):
        assert k.size == truth.size
        assert np.abs(vol).max() * HALF < 3e-5
    np.testing.assert_allclose(fit.params.theta, TRUTH.theta, rtol=1e-3)
    np.testing.assert_allclose(fit.params.rho, TRUTH.rho, atol=5e-3)
    assert fit.inside.min() == 1.0
    assert "126 quotes, 100 % within" in fit.sentence
    assert "6 slices and 5 pairs proved" in fit.sentence


def test_error_bars_cover_the_truth() -> None:
    """z-scores of the level at the money over noisy surfaces, noise uniform in the spread: about standard normal."""
    truth = np.sqrt(TRUTH.theta / YEARS)
    scores = []
    for seed in range(12):
        k, vol, error = quotes(TRUTH, noise=seed)
        fit = fit_essvi(k, vol, error, YEARS)
        scores.append((fit.vol(0.0) - truth) / fit.atm_error)
    size = float(np.sqrt(np.mean(np.square(scores))))
    assert 0.5 < size < 1.6


def test_a_start_gives_the_same_fit_in_fewer_steps() -> None:
    k, vol, error = quotes(TRUTH, noise=3)
    cold = fit_essvi(k, vol, error, YEARS)
    warm = fit_essvi(k, vol, error, YEARS, start=cold.params)
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.vol(0.0), cold.vol(0.0), atol=2e-5)


def test_thin_and_empty_expiries() -> None:
    counts = [3, 0, 1, 2, 0, 3]
    fit = fit_essvi(*quotes(TRUTH, counts=counts), YEARS)
    assert fit.butterfly
    assert fit.calendar
    assert fit.result.tolist() == [FitResult.SYNTHETIC if n == 0 else FitResult.TOO_FEW_QUOTES for n in counts]
    assert np.isnan(fit.rms[1])
    assert "2 without a quote" in fit.sentence
    error = np.abs(fit.vol(0.0) - np.sqrt(TRUTH.theta / YEARS))
    assert error[[0, 2, 5]].max() < 1e-3
    assert error.max() < 0.03


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_single_expiry_with_hardly_a_quote(count: int) -> None:
    k, vol, error = (column[:1] for column in quotes(TRUTH, counts=[count] * 6))
    fit = fit_essvi(k, vol, error, YEARS[:1])
    assert fit.butterfly
    assert np.abs(fit.residuals_flat).max() < 1.0


def test_one_sided_quotes_pull_from_their_side_only() -> None:
    k, vol, error = quotes(TRUTH)
    plain = fit_essvi(k, vol, error, YEARS)
    far_ask = [
        np.append(column, value) for column, value in zip((k[2], vol[2], error[2]), (0.1, 2.0, 1e-3), strict=True)
    ]
    side = [np.zeros(column.size) for column in k]
    side[2] = np.append(side[2], 1.0)
    columns = [[*column[:2], extra, *column[3:]] for column, extra in zip((k, vol, error), far_ask, strict=True)]
    asked = fit_essvi(*columns, YEARS, side=side)
    np.testing.assert_allclose(asked.vol(0.0), plain.vol(0.0), atol=1e-6)
    assert asked.cost[2] == pytest.approx(plain.cost[2], abs=1e-6)
    assert asked.residuals[2][-1] < -100
    side[2][-1] = -1.0
    bid = fit_essvi(*columns, YEARS, side=side)
    assert abs(float(bid.vol(0.0)[2] - plain.vol(0.0)[2])) > 1e-4


def test_unusable_quotes_are_left_out() -> None:
    k, vol, error = quotes(TRUTH)
    spoilt = [np.append(column, (np.nan, 5.0, 0.0)) for column in vol]
    more_k = [np.append(column, (0.0, np.inf, 0.0)) for column in k]
    more_error = [np.append(column, (HALF, HALF, HALF)) for column in error]
    fit = fit_essvi(more_k, spoilt, more_error, YEARS)
    np.testing.assert_allclose(fit.vol(0.0), fit_essvi(k, vol, error, YEARS).vol(0.0), atol=1e-9)
    assert fit.n_used.tolist() == [21.0] * 6
    assert np.isnan(fit.residuals[0][-3:]).all()


def test_weights_count_quotes() -> None:
    k, vol, error = quotes(TRUTH, noise=5)
    twice = [[np.concatenate((one, one)) for one in column] for column in (k, vol, error)]
    weight = [np.full(2 * one.size, 0.5) for one in k]
    both, plain = fit_essvi(*twice, YEARS, weight=weight), fit_essvi(k, vol, error, YEARS)
    np.testing.assert_allclose(both.vol(0.0), plain.vol(0.0), atol=2e-6)


def test_crossing_quotes_are_fitted_without_arbitrage() -> None:
    """An inverted market, that no surface can follow."""
    k, vol, error = quotes(TRUTH)
    vol[1] = 2.0 * vol[1]
    fit = fit_essvi(k, vol, error, YEARS)
    assert fit.butterfly
    assert fit.calendar
    assert fit.rms[1] > 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"theta": [0.02, 0.01]}, "theta must increase"),
        ({"theta": [0.01, np.nan]}, "theta must be positive and finite"),
        ({"rho": 1.0}, "rho must lie between -1 and 1"),
        ({"psi": [0.1, -0.1]}, "psi must be positive"),
        ({"psi": [0.1, 0.1, 0.1]}, r"psi has shape \(3,\), theta has shape \(2,\)"),
    ],
)
def test_parameters_that_are_no_surface(arguments: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"theta": [0.01, 0.02], "rho": -0.2, "psi": 0.1}
    with pytest.raises(InputError, match=message):
        ESSVI(**{**good, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (([0.9999, 0.0], [0.1, 0.1], [0.5, 0.5]), "rho must lie in"),
        (([0.0, 0.0], [0.0, 0.1], [0.5, 0.5]), "the first positive"),
        (([0.0, 0.0], [0.1, -0.1], [0.5, 0.5]), "not negative"),
        (([0.0, 0.0], [0.1, 0.1], [0.0, 0.5]), "the first above 0"),
        (([0.0, 0.0], [0.1, 0.1], [0.5, 1.5]), r"shares must lie in \[0, 1\]"),
        (([0.0], [0.1, 0.1], [0.5, 0.5]), "one number for each expiry"),
    ],
)
def test_points_outside_the_box(point: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ESSVI.from_intervals(*point)


def test_bad_input() -> None:
    k, vol, error = quotes(TRUTH)
    with pytest.raises(InputError, match="years must increase"):
        fit_essvi(k, vol, error, YEARS[::-1])
    with pytest.raises(InputError, match="years has 5 expiries, k has 6"):
        fit_essvi(k, vol, error, YEARS[:5])
    with pytest.raises(InputError, match="none of the 126 quotes can be used"):
        fit_essvi(k, vol, [0.0 * one for one in error], YEARS)
    with pytest.raises(InputError, match="vol has"):
        fit_essvi(k, vol[:5], error, YEARS)
    with pytest.raises(InputError, match="start has 2 expiries, the quotes have 6"):
        fit_essvi(k, vol, error, YEARS, start=ESSVI([0.1, 0.2], 0.0, 0.1))
    with pytest.raises(InputError, match="side holds"):
        fit_essvi(k, vol, error, YEARS, side=[np.full(one.size, 2.0) for one in k])


def test_levels_start_from_the_neighbours_where_nothing_is_quoted() -> None:
    k, vol, error = quotes(TRUTH, counts=[21, 0, 21, 21, 21, 0])
    found = Quotes.of(k, vol, error, YEARS, None, None).levels()
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(np.sqrt(found / YEARS), np.sqrt(TRUTH.theta / YEARS), rtol=0.1)
