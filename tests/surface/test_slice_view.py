"""The smile at any one time, and what is proved about it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.surface.random_surfaces import certified_surfaces, realistic, surface_of
from tests.surface.test_interpolation import with_rules
from volsurf.errors import InputError
from volsurf.surface.interpolation import INTERVAL, THEOREM, Late
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.calendar import check_calendar
from volsurf.svi.certificate import EXACT_POLYNOMIAL, Verdict
from volsurf.svi.params import RawSVI

K = np.linspace(-1.0, 1.0, 21)


@settings(max_examples=40)
@given(certified_surfaces(first=1e-4), st.floats(1e-3, 0.999), st.floats(1.001, 2.0))
def test_outside_the_expiries_it_is_a_slice_whose_doubles_are_certified(
    surface: Surface, early: float, late: float
) -> None:
    """H3."""
    first, last = surface.svi[0], surface.svi[len(surface) - 1]
    before, past = (surface.slice_at(years=float(y)) for y in (early * surface.years[0], late * surface.years[-1]))
    for view in (before, past):
        assert view.certificate, view.certificate.sentence
        assert view.svi is not None
        assert view.is_extrapolated
        assert check_butterfly(view.svi)
        k = K * np.sqrt(view.total_variance(0.0)) * 5
        np.testing.assert_allclose(view.total_variance(k), surface.total_variance(k, years=view.years), rtol=1e-11)
        assert (view.g(k) >= 0).all()
    assert before.svi is not None
    assert past.svi is not None
    assert check_calendar(before.svi, first)
    assert check_calendar(last, past.svi)
    assert (before.kind, before.after) == ("scaled", "")
    assert (past.kind, past.before) == ("shifted", "")


def test_between_expiries_it_is_a_blend_with_a_proof() -> None:
    surface = realistic()
    view = surface.slice_at(tenor="10D")
    assert view.kind == "blend"
    assert view.svi is None
    assert view.certificate.evidence == INTERVAL
    assert view.certificate
    assert view.after == surface.smiles[3].expiry_label
    assert view.before == surface.smiles[4].expiry_label
    assert view.forward == surface.forward(tenor="10D")
    np.testing.assert_array_equal(view.vol(K), surface.vol(k=K, tenor="10D"))
    assert (view.g(np.linspace(-3, 3, 1001)) > 0).all()
    mixed = with_rules(realistic()).slice_at(tenor="10D")
    assert (mixed.kind, mixed.certificate.evidence) == ("mixture", THEOREM)
    assert mixed.certificate
    np.testing.assert_array_equal(mixed.vol(K), with_rules(realistic()).vol(k=K, tenor="10D"))


@pytest.mark.parametrize("late", [Late.SCALED, Late.HELD])
def test_past_the_last_expiry_by_the_other_rules(late: Late) -> None:
    surface = with_rules(realistic(), False, late)
    view = surface.slice_at(years=1.5)
    assert view.kind == late.name.lower()
    assert view.certificate
    assert view.svi is not None
    np.testing.assert_allclose(view.total_variance(K), surface.total_variance(K, years=1.5), rtol=1e-12)
    if late is Late.HELD:
        np.testing.assert_array_equal(view.total_variance(K), surface.svi[11].total_variance(K))


def test_a_listed_expiry_is_its_own_slice() -> None:
    surface = realistic()
    view = surface.slice_at(expiry=int(surface.expiries[5]))
    assert view.svi == surface.svi[5]
    assert view.kind == "listed"
    assert (view.certificate.verdict, view.certificate.evidence) == (Verdict.PROVED, EXACT_POLYNOMIAL)
    assert not view.is_extrapolated
    assert "listed" in repr(view)


def test_certificates_of_uncertified_slices_do_not_claim_anything() -> None:
    surface = surface_of([1.0, 2.0], RawSVI([-0.0410, 0.3], 0.1331, 0.3060, 0.3586, 0.4153))  # Vogt's slice first
    for years in (0.9, 1.0, 1.5):
        view = surface.slice_at(years=years)
        assert not view.certificate, years
        assert view.certificate.sentence
    assert surface.slice_at(years=1.5).certificate.evidence == "none"
    assert surface.slice_at(years=2.5).certificate
    assert surface.tenors(["18M"]).verdict == ("undecided",)


def test_a_last_slice_that_cannot_be_shifted_is_scaled_or_held() -> None:
    """A slice on the edge of butterfly arbitrage: g of the scaled one falls with the scale."""
    found = set()
    for factor in (1.0, 0.9, 0.5):
        low, high = 0.01, 1.0
        for _ in range(60):  # the narrowest bottom that is still proved
            middle = 0.5 * (low + high)
            svi = RawSVI([0.02 * factor], [0.9], [-0.4], [0.05], [middle])
            low, high = (low, middle) if check_butterfly(svi) else (middle, high)
        surface = surface_of([0.5], RawSVI([0.02 * factor], [0.9], [-0.4], [0.05], [high]))
        assert surface.certificate
        view = surface.slice_at(years=0.9)
        assert view.certificate, view.certificate.sentence
        found.add(view.kind)
    assert found <= {"shifted", "scaled", "held"}


def test_one_time_is_asked_for() -> None:
    surface = realistic()
    with pytest.raises(InputError, match="one time, was 2"):
        surface.slice_at(years=[0.1, 0.2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="beyond the horizon"):
        surface.slice_at(years=2.1)


def test_rules_are_the_same_for_a_copy_of_the_surface() -> None:
    from volsurf.surface.interpolation import rules

    one = realistic()
    two = Surface(one.underlying, one.time_ns, tuple(dataclasses.replace(s) for s in one.smiles))
    assert rules(one).evidence == rules(two).evidence
    assert rules(one) is rules(one)
