"""Tenors: their lengths, and the surface at them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.surface.random_surfaces import realistic
from volsurf.errors import InputError
from volsurf.surface.tenors import DEFAULT_TENORS, tenor_years


@pytest.mark.parametrize(
    ("tenor", "days"),
    [("1D", 1), ("ON", 1), (" 2w ", 14), ("1M", 30), ("18M", 540), ("2Y", 730), ("10 D", 10), ("on", 1)],
)
def test_lengths(tenor: str, days: int) -> None:
    assert tenor_years(tenor) == days / 365
    assert tenor_years(tenor).shape == ()


def test_several_at_once() -> None:
    np.testing.assert_array_equal(tenor_years(["1W", "1M"]), np.array([7, 30]) / 365)
    assert tenor_years(DEFAULT_TENORS).tolist() == sorted(tenor_years(DEFAULT_TENORS))


@pytest.mark.parametrize("wrong", ["", "1", "W", "0D", "1.5M", "-1D", "1H", "1M2W", 7, ["1W", "week"]])
def test_what_is_no_tenor_is_refused(wrong: object) -> None:
    if isinstance(wrong, int):
        wrong = [wrong]
    with pytest.raises(InputError, match=r'a tenor is a whole number of D, W, M or Y .*"ON", was'):
        tenor_years(wrong)  # type: ignore[arg-type]


def test_a_tenor_is_its_time() -> None:
    surface = realistic()
    found = surface.tenors()
    assert found.label == DEFAULT_TENORS
    years = tenor_years(DEFAULT_TENORS)
    np.testing.assert_array_equal(found.atm_vol, surface.vol(k=0.0, years=years))
    np.testing.assert_array_equal(found.atm_vol, surface.vol(k=0.0, tenor=DEFAULT_TENORS))
    np.testing.assert_array_equal(found.forward, surface.forward(years=years))
    np.testing.assert_allclose(found.risk_reversal25, surface.risk_reversal(0.25, years=years), atol=1e-12)
    np.testing.assert_allclose(found.risk_reversal25_error, surface.risk_reversal_error(0.25, years=years), rtol=1e-8)
    np.testing.assert_allclose(found.fly10, surface.fly(0.1, years=years), atol=1e-12)
    np.testing.assert_allclose(found.fly25_error, surface.fly_error(0.25, years=years), rtol=1e-7)
    np.testing.assert_allclose(found.atm_error, surface.vol_error(k=0.0, years=years), rtol=1e-12)
    np.testing.assert_allclose(found.skew, surface.atm(years=years).skew, rtol=1e-14)
    assert set(found.verdict) == {"proved"}
    assert not found.is_extrapolated.any()


def test_where_a_tenor_lies_and_how_it_is_known() -> None:
    surface = realistic(np.array([7, 30, 90]) / 365)
    found = surface.tenors(["1D", "1W", "2W", "4M", "1Y"])
    labels = [s.expiry_label for s in surface.smiles]
    assert found.after == ("", labels[0], labels[0], labels[2], "")  # past the last there still is one before
    assert found.before == (labels[0], labels[0], labels[1], "", "")
    assert found.is_extrapolated.tolist() == [True, False, False, True, True]
    assert found.evidence == ("exact-polynomial", "exact-polynomial", "interval", "exact-polynomial", "")
    assert found.verdict == ("proved",) * 4 + ("",)
    assert found.reason[:4] == ("",) * 4
    assert "beyond the horizon of 0.4932 years" in found.reason[4]
    assert np.isnan([found.atm_vol[4], found.fly25[4], found.forward[4], found.skew[4]]).all()
    assert np.isfinite(found.fly25_error[:4]).all()
    table = found.to_polars()
    assert table.height == 5
    assert table["label"].to_list() == ["1D", "1W", "2W", "4M", "1Y"]
    assert "beyond the horizon" in found._repr_html_()
    with pytest.raises(InputError, match="the tenor 1Y is beyond the horizon"):
        surface.vol(k=0.0, tenor="1Y")


def test_premium_adjusted_tenors() -> None:
    surface = realistic()
    found = surface.tenors("3M", premium_adjusted=True)
    np.testing.assert_allclose(
        found.risk_reversal25, surface.risk_reversal(0.25, tenor=["3M"], premium_adjusted=True), atol=1e-12
    )
