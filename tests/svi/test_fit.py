"""The fit as a caller meets it: shapes in, fields out, bad input, warm starts, determinism."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.svi.smile_quotes import Quotes, fitted_vol, smile_surfaces
from volsurf.errors import InputError
from volsurf.svi._batch import AT_BOUND, CONVERGED, INVALID, NO_DATA, NOT_CONVERGED, SYNTHETIC, TOO_FEW_QUOTES
from volsurf.svi.fit import FitResult, QuoteUse, SVIFit, fit_slices, fit_svi


@pytest.fixture(scope="module")
def quotes() -> Quotes:
    return smile_surfaces(2, seed=1, noise=0.35)


@pytest.fixture(scope="module")
def fit(quotes: Quotes) -> SVIFit:
    return quotes.fit()


def slices_of(quotes: Quotes, array: np.ndarray) -> list[np.ndarray]:
    return np.split(array, quotes.offsets[1:-1])


def same(left: SVIFit, right: SVIFit) -> bool:
    """Bit for bit."""
    return all(
        np.array_equal(getattr(left, f.name), getattr(right, f.name), equal_nan=True) for f in dataclasses.fields(left)
    )


# Shapes in.


def test_list_padded_and_flat_input_give_the_same_bits(quotes: Quotes, fit: SVIFit) -> None:
    columns = [slices_of(quotes, array) for array in (quotes.k, quotes.vol, quotes.error)]
    options = {"years": quotes.years, "surface": quotes.surface, "enforce": False}
    listed = fit_svi(*columns, **options)
    assert same(listed, fit)
    width = int(np.diff(quotes.offsets).max())
    padded = np.full((3, len(quotes), width), np.nan)
    for j, column in enumerate(columns):
        for i, piece in enumerate(column):
            padded[j, i, : piece.size] = piece
    table = fit_svi(*padded, **options)
    assert np.array_equal(table.raw, fit.raw)
    assert np.array_equal(table.iterations, fit.iterations)
    assert [r.size for r in table.residuals] == [width] * len(quotes)


def test_one_slice_as_a_plain_array(quotes: Quotes) -> None:
    k, vol, error = (slices_of(quotes, array)[4] for array in (quotes.k, quotes.vol, quotes.error))
    one = fit_svi(k, vol, error, years=quotes.years[4], enforce=False)
    assert len(one) == 1
    assert one.params.shape == (1,)
    assert one.result[0] == FitResult.CONVERGED
    assert len(one.calendar) == 0
    by_scalar = fit_svi(list(k), list(vol), 0.005, years=[quotes.years[4]], side=0, enforce=False)
    assert by_scalar.result[0] == FitResult.CONVERGED


def test_no_slices_at_all() -> None:
    empty = fit_svi([], [], [], years=[], enforce=False)
    assert len(empty) == 0
    assert empty.residuals == []
    assert empty.params.shape == (0,)
    assert bool(empty.butterfly)


def test_read_only_input_is_neither_changed_nor_refused(quotes: Quotes, fit: SVIFit) -> None:
    columns = [quotes.k.copy(), quotes.vol.copy(), quotes.error.copy(), quotes.years.copy()]
    for column in columns:
        column.flags.writeable = False
    k, vol, error, years = columns
    assert same(fit_slices(k, vol, error, quotes.offsets, years, surface=quotes.surface, enforce=False), fit)
    assert quotes.years.flags.writeable
    assert quotes.surface.flags.writeable


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"vol": [[0.5, 0.5]]}, "vol"),
        ({"error": [[0.01, 0.01]]}, "error"),
        ({"side": [[0, 0, 2]]}, "side"),
        ({"side": [[0, 0]]}, "side"),
        ({"years": [0.1, 0.2]}, "years"),
        ({"surface": [0, 1]}, "surface"),
        ({"k": [[[0.0]]]}, "k"),
        ({"k": ["a"]}, "k"),
        ({"weight": [[1.0]]}, "weight"),
        ({"years": "a"}, "years"),
        ({"error": "a"}, "error"),
        ({"key": [1.5]}, "key"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused_by_name(change: dict[str, object], word: str) -> None:
    arguments = {"k": [[-0.1, 0.0, 0.1]], "vol": [[0.5, 0.5, 0.5]], "error": [[0.01, 0.01, 0.01]], "years": [0.1]}
    with pytest.raises(InputError, match=word):
        fit_svi(**(arguments | change), enforce=False)


def test_repr_is_a_line(fit: SVIFit) -> None:
    assert repr(fit).startswith(f"SVIFit({len(fit)} slices: ")
    assert repr(fit_svi([], [], 0.01, years=[], enforce=False)) == "SVIFit(0 slices: none; 0 quotes)"


def test_masked_quotes_are_not_fitted() -> None:
    """A padded table as numpy writes it: a mask, and anything at all beneath it."""
    k = np.ma.masked_greater(np.array([np.linspace(-0.3, 0.3, 9), np.full(9, 7.0)]), 1.0)
    k[1, :8] = np.linspace(-0.3, 0.2, 8)
    fit = fit_svi(k, 0.5 + 0.1 * k**2, 0.01, years=[0.1, 0.2], enforce=False)
    assert fit.use_flat.tolist() == 17 * [QuoteUse.USED] + [QuoteUse.NOT_FINITE]
    shorter = [np.asarray(k[0]), np.asarray(k[1, :8])]
    plain = fit_svi(shorter, [0.5 + 0.1 * one**2 for one in shorter], 0.01, years=[0.1, 0.2], enforce=False)
    assert np.array_equal(fit.raw, plain.raw)


@pytest.mark.parametrize("weight", [5e-324, 1e-13, 1e13, 1e308])
def test_weights_beyond_arithmetic_are_refused(weight: float) -> None:
    fit = fit_svi([0.0], [0.5], [1.0], years=1.0, side=[-1], weight=[weight], enforce=False)
    assert fit.use_flat.tolist() == [QuoteUse.ZERO_WEIGHT]
    assert fit.result.tolist() == [FitResult.NO_DATA]


def test_log_moneyness_of_another_number_of_slices_is_refused(fit: SVIFit) -> None:
    for asked in (fit.vol, fit.vol_error):
        with pytest.raises(InputError, match=r"k has shape \(2, 3\)"):
            asked(np.zeros((2, 3)))


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 2, 1, 3], [], [[0, 3]]])
def test_offsets_must_cover_the_quotes(offsets: list[int]) -> None:
    with pytest.raises(InputError, match="offsets"):
        fit_slices([0.0, 0.1, 0.2], [0.5] * 3, [0.01] * 3, offsets, [0.1] * max(len(offsets) - 1, 0))


def test_smoothing_is_a_share() -> None:
    for beta in (-0.1, 1.0, np.nan, [0.5, 0.5]):
        with pytest.raises(InputError, match="smoothing"):
            fit_svi([0.0], [0.5], [0.01], years=0.1, smoothing=beta)


@pytest.mark.parametrize("name", ["tolerance", "enforcement_tolerance"])
@pytest.mark.parametrize("value", [0.0, -1e-6, np.nan])
def test_tolerances_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be above 0"):
        fit_slices([0.0], [0.5], [0.01], [0, 1], [0.1], **{name: value})  # type: ignore[arg-type]


def test_a_prior_centre_has_a_row_for_each_slice() -> None:
    with pytest.raises(InputError, match=r"prior_centre must be of shape \(1, 5\)"):
        fit_slices([0.0], [0.5], [0.01], [0, 1], [0.1], prior_centre=np.zeros((2, 5)))


# Fields out.


def test_fields_agree_with_each_other(quotes: Quotes, fit: SVIFit) -> None:
    vol = fitted_vol(fit, quotes)
    r = (vol - quotes.vol) / quotes.error
    assert np.allclose(fit.residuals_flat, r, atol=1e-8)
    assert np.allclose(np.concatenate(fit.residuals), r, atol=1e-8)
    counts = np.diff(quotes.offsets)
    assert np.array_equal(fit.n_used, counts)
    assert np.allclose(fit.rms, np.sqrt(np.add.reduceat(r * r, quotes.offsets[:-1]) / counts))
    assert np.allclose(fit.inside, np.add.reduceat((np.abs(r) <= 1).astype(float), quotes.offsets[:-1]) / counts)
    assert np.allclose(fit.vol(0.1)[:, None], fit.vol([0.1]))
    assert fit.vol_error([0.0, 0.1]).shape == (len(quotes), 2)
    assert fit.vol_error(np.zeros((len(quotes), 3))).shape == (len(quotes), 3)
    assert np.all(fit.vol_error(0.0) > 0)
    assert len(fit.butterfly) == len(quotes)
    assert len(fit.calendar) == len(quotes) - 2
    for array in (fit.raw, fit.result, fit.residuals_flat, fit.years):
        assert not array.flags.writeable


def test_covariance_of_the_raw_parameters_gives_the_same_error_bar(quotes: Quotes, fit: SVIFit) -> None:
    k = 0.07
    for i in range(0, len(quotes), 5):
        gradient = np.empty(5)
        for j in range(5):
            step = 1e-6 * max(abs(fit.raw[i, j]), 1e-3)
            up, down = fit.raw[i].copy(), fit.raw[i].copy()
            up[j] += step
            down[j] -= step
            value = [a + b * (rho * (k - m) + np.hypot(k - m, s)) for a, b, rho, m, s in (up, down)]
            gradient[j] = (np.sqrt(value[0] / quotes.years[i]) - np.sqrt(value[1] / quotes.years[i])) / (2 * step)
        assert np.sqrt(gradient @ fit.covariance[i] @ gradient) == pytest.approx(fit.vol_error(k)[i], rel=1e-4)


def test_calendar_pairs_stay_within_a_surface_and_follow_years(quotes: Quotes) -> None:
    shuffled = np.random.default_rng(3).permutation(len(quotes))
    columns = [[slices_of(quotes, array)[i] for i in shuffled] for array in (quotes.k, quotes.vol, quotes.error)]
    mixed = fit_svi(*columns, years=quotes.years[shuffled], surface=quotes.surface[shuffled], enforce=False)
    near, far = mixed.calendar_pairs
    assert np.all(mixed.years[near] < mixed.years[far])
    assert np.array_equal(mixed.surface[near], mixed.surface[far])
    back = np.argsort(shuffled)
    assert np.array_equal(mixed.raw[back], quotes.fit().raw)


def test_every_result_has_a_sentence_and_the_kernel_uses_the_same_codes(fit: SVIFit) -> None:
    assert len({result.sentence for result in FitResult}) == len(FitResult)
    assert [CONVERGED, AT_BOUND, TOO_FEW_QUOTES, NOT_CONVERGED, SYNTHETIC, NO_DATA, INVALID] == [
        FitResult.CONVERGED,
        FitResult.AT_BOUND,
        FitResult.TOO_FEW_QUOTES,
        FitResult.NOT_CONVERGED,
        FitResult.SYNTHETIC,
        FitResult.NO_DATA,
        FitResult.INVALID,
    ]
    assert "quotes" in fit.sentence(0)
    assert "<table>" in fit._repr_html_()


# Bad input: a reason each, and the neighbours live.


def test_bad_quotes_carry_their_reasons_and_change_nothing(quotes: Quotes, fit: SVIFit) -> None:
    bad = [
        (np.nan, 0.5, 0.01, 1.0, QuoteUse.NOT_FINITE),
        (np.inf, 0.5, 0.01, 1.0, QuoteUse.NOT_FINITE),
        (1e3, 0.5, 0.01, 1.0, QuoteUse.NOT_FINITE),
        (0.0, np.nan, 0.01, 1.0, QuoteUse.NOT_FINITE),
        (0.0, np.inf, 0.01, 1.0, QuoteUse.NOT_FINITE),
        (0.0, 0.5, np.nan, 1.0, QuoteUse.NOT_FINITE),
        (0.0, 0.0, 0.01, 1.0, QuoteUse.BAD_VOL),
        (0.0, -0.5, 0.01, 1.0, QuoteUse.BAD_VOL),
        (0.0, 1e9, 0.01, 1.0, QuoteUse.BAD_VOL),
        (0.0, 0.5, 0.0, 1.0, QuoteUse.BAD_ERROR),
        (0.0, 0.5, -0.01, 1.0, QuoteUse.BAD_ERROR),
        (0.0, 0.5, np.inf, 1.0, QuoteUse.BAD_ERROR),
        (0.0, 0.5, 0.01, 0.0, QuoteUse.ZERO_WEIGHT),
        (0.0, 0.5, 0.01, -1.0, QuoteUse.ZERO_WEIGHT),
        (0.0, 0.5, 0.01, np.nan, QuoteUse.ZERO_WEIGHT),
    ]
    columns = []
    for j, array in enumerate((quotes.k, quotes.vol, quotes.error, np.ones(quotes.k.size))):
        columns.append([np.concatenate(([row[j] for row in bad], piece)) for piece in slices_of(quotes, array)])
    k, vol, error, weight = columns
    spoilt = fit_svi(k, vol, error, years=quotes.years, surface=quotes.surface, weight=weight, enforce=False)
    assert np.array_equal(spoilt.raw, fit.raw)
    for use, residual in zip(spoilt.use, spoilt.residuals, strict=True):
        assert list(use[: len(bad)]) == [row[4] for row in bad]
        assert np.all(use[len(bad) :] == QuoteUse.USED)
        assert np.all(np.isnan(residual[: len(bad)]))
    assert "15 unusable" in spoilt.sentence(0)


@pytest.mark.parametrize("years", [0.0, -0.1, np.nan, np.inf, 1e-12])
def test_slice_without_a_time_to_expiry_is_invalid_and_its_neighbours_live(quotes: Quotes, years: float) -> None:
    times = quotes.years.copy()
    times[3] = years
    fit = dataclasses.replace(quotes, years=times).fit()
    assert fit.result[3] == FitResult.INVALID
    assert np.all(np.isnan(fit.raw[3]))
    assert np.all(fit.use[3] == QuoteUse.NO_SLICE)
    others = np.delete(np.arange(len(quotes)), 3)
    assert np.all(fit.result[others] == FitResult.CONVERGED)
    assert np.all(np.isfinite(fit.raw[others]))
    assert not fit.butterfly.proved[3]
    assert len(fit.calendar) == len(quotes) - 3
    assert np.isnan(fit.vol(0.0)[3])
    assert np.isnan(fit.vol_error(0.0)[3])
    assert "no curve" in fit._repr_html_()


def test_slice_without_quotes_is_a_flagged_copy_of_its_neighbours(quotes: Quotes) -> None:
    vol = quotes.vol.copy()
    for i in (0, 6, 11):
        vol[quotes.offsets[i] : quotes.offsets[i + 1]] = np.nan
    fit = dataclasses.replace(quotes, vol=vol).fit()
    for i in (0, 6, 11):
        assert fit.result[i] == FitResult.SYNTHETIC
        assert np.all(np.isfinite(fit.raw[i]))
        assert fit.n_used[i] == 0
        assert np.isnan(fit.rms[i])
        assert fit.vol(0.0)[i] == pytest.approx(np.sqrt(fit.theta[i] / fit.years[i]), rel=1e-9)
    # At the forward, vol is flat outside the quoted expiries and total variance straight between them.
    assert fit.theta[0] / fit.years[0] == pytest.approx(fit.theta[1] / fit.years[1], rel=1e-12)
    assert fit.theta[11] / fit.years[11] == pytest.approx(fit.theta[10] / fit.years[10], rel=1e-12)
    share = (fit.years[6] - fit.years[5]) / (fit.years[7] - fit.years[5])
    assert fit.theta[6] == pytest.approx((1 - share) * fit.theta[5] + share * fit.theta[7], rel=1e-12)


def test_without_any_quote_there_is_no_curve_and_no_exception() -> None:
    fit = fit_svi([[np.nan] * 5, []], [[np.nan] * 5, []], [[np.nan] * 5, []], years=[0.1, 0.2], enforce=False)
    assert np.all(fit.result == FitResult.NO_DATA)
    assert np.all(np.isnan(fit.raw))
    assert len(fit.calendar) == 0
    assert "no curve" in fit.sentence(0)


number = st.one_of(
    st.floats(-3, 3), st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324, 1e-9, 100.0, 1e8])
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(number, number, number, st.sampled_from([-1, 0, 1]), number), max_size=12),
            number,
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_comes_in_a_curve_or_a_reason_comes_out(
    slices: list[tuple[list[tuple[float, ...]], float, int]],
) -> None:
    columns = [[np.array([quote[j] for quote in piece[0]]) for piece in slices] for j in range(5)]
    k, vol, error, side, weight = columns
    fit = fit_svi(
        k,
        vol,
        error,
        years=[s[1] for s in slices],
        surface=[s[2] for s in slices],
        side=side,
        weight=weight,
        enforce=False,
    )
    again = fit_svi(
        k, vol, error, years=[s[1] for s in slices], surface=[s[2] for s in slices], side=side, weight=weight,
        previous=fit, enforce=False,
    )  # fmt: skip
    for one in (fit, again):
        no_curve = np.isin(one.result, (FitResult.NO_DATA, FitResult.INVALID))
        assert np.array_equal(~no_curve, np.isfinite(one.raw).all(axis=1))
        assert np.array_equal(no_curve, np.isnan(one.raw).all(axis=1))
        assert np.all(one.iterations <= 3 * 130 + 6)
        assert one.params.shape == (len(slices),)
        assert len(one.butterfly) == len(slices)
        for i in range(len(slices)):
            assert one.sentence(i)
        used = one.use_flat == QuoteUse.USED
        assert np.all(np.isfinite(one.residuals_flat[used]))


# One-sided quotes.


def test_one_sided_quotes_bind_on_one_side_only(quotes: Quotes, fit: SVIFit) -> None:
    i = 5
    k, vol, error = (slices_of(quotes, array)[i] for array in (quotes.k, quotes.vol, quotes.error))
    alone = fit_svi(k, vol, error, years=quotes.years[i], enforce=False)
    at = float(k[10])
    curve = float(alone.vol(at)[0])

    def with_quote(offer: float, side: int) -> float:
        more = fit_svi(
            np.append(k, at), np.append(vol, offer), np.append(error, error[10]), years=quotes.years[i],
            side=np.append(np.zeros(k.size), side), enforce=False,
        )  # fmt: skip
        return 1e4 * float(np.abs(more.vol(k)[0] - alone.vol(k)[0]).max())

    assert with_quote(curve + 0.10, 1) < 1e-9
    assert with_quote(curve - 0.10, -1) < 1e-9
    assert with_quote(curve - 0.02, 1) > 1.0
    assert with_quote(curve + 0.02, -1) > 1.0


@pytest.mark.parametrize("side", [-1, 1])
def test_a_surface_with_one_side_of_every_book_missing_is_finite(quotes: Quotes, side: int) -> None:
    fit = quotes.fit(side=np.full(quotes.k.size, side))
    assert np.all(fit.result == FitResult.TOO_FEW_QUOTES)
    assert np.all(np.isfinite(fit.raw))
    r = (fitted_vol(fit, quotes) - quotes.vol) / quotes.error
    assert np.mean(r * side <= 1.0) > 0.95
