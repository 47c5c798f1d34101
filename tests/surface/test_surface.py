"""Vols, forwards and tables of a surface, inside, between and beyond its expiries."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest

from tests.surface.quoted_market import DAY, NOW, SLICES, Quoted, board_of
from volsurf.errors import InputError
from volsurf.surface.quote_vols import quote_vols
from volsurf.surface.slices import expiry_label
from volsurf.surface.smile import build_smiles, fit_smiles
from volsurf.surface.surface import Surface
from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.certificate import Verdict
from volsurf.svi.params import RawSVI

K = np.linspace(-0.5, 0.5, 50)


@pytest.fixture(scope="module")
def surface() -> Surface:
    return fit_smiles(build_smiles(quote_vols(board_of(Quoted()), NOW)))


def test_listed_expiry_gives_its_own_slice(surface: Surface) -> None:
    for i, smile in enumerate(surface.smiles):
        np.testing.assert_allclose(surface.vol(k=K, expiry=smile.expiry_ns), smile.fitted_vol(K), rtol=1e-14)
        np.testing.assert_allclose(surface.vol(k=K, years=surface.years[i]), smile.fitted_vol(K), rtol=1e-12)
        assert surface.forward(smile.expiry_ns) == smile.forward


def test_strike_and_log_moneyness_agree(surface: Surface) -> None:
    years = np.array([0.01, 0.05, 0.3, 0.6])
    strike = surface.forward(years=years) * np.exp(0.1)
    np.testing.assert_allclose(surface.vol(strike=strike, years=years), surface.vol(k=0.1, years=years), rtol=1e-12)


def test_arguments_broadcast(surface: Surface) -> None:
    assert surface.vol(k=0.0, years=0.1).shape == ()
    assert surface.vol(k=K, years=0.1).shape == (50,)
    assert surface.vol(k=K, expiry=surface.expiries[:, None]).shape == (3, 50)
    assert surface.vol(strike=90_000, years=[0.1, 0.2]).shape == (2,)


def test_total_variance_is_linear_in_time_between_expiries(surface: Surface) -> None:
    t1, t2 = surface.years[:2]
    w1, w2 = surface.total_variance(K, years=t1), surface.total_variance(K, years=t2)
    np.testing.assert_allclose(
        surface.total_variance(K, years=0.25 * t1 + 0.75 * t2), 0.25 * w1 + 0.75 * w2, rtol=1e-12
    )


def test_total_variance_rises_with_time_everywhere(surface: Surface) -> None:
    times = np.geomspace(1e-4, 2 * surface.years[-1], 200)
    w = surface.total_variance(K[None, :], years=times[:, None])
    assert (np.diff(w, axis=0) > 0).all()


def test_before_the_first_expiry_the_slice_is_scaled_and_stays_certified(surface: Surface) -> None:
    fit = surface.smiles[0].fit
    assert fit is not None
    for scale in (0.5, 0.01):
        root = np.sqrt(scale)
        scaled = RawSVI(scale * fit.a, root * fit.b, fit.rho, root * fit.m, root * fit.sigma)
        assert check_butterfly(scaled)
        at = scale * surface.years[0]
        np.testing.assert_allclose(
            surface.total_variance(K * root, years=at), scaled.total_variance(K * root), rtol=1e-12
        )


def test_past_the_last_expiry_forward_variance_goes_on(surface: Surface) -> None:
    t2, t3 = surface.years[-2:]
    w2, w3 = surface.total_variance(0.0, years=t2), surface.total_variance(0.0, years=t3)
    later = surface.total_variance(K, years=1.5 * t3)
    np.testing.assert_allclose(later - surface.total_variance(K, years=t3), (w3 - w2) / (t3 - t2) * 0.5 * t3, rtol=1e-9)


def test_forward_is_log_linear(surface: Surface) -> None:
    market = Quoted()
    days = np.array([1.0, 10.0, 100.0, 300.0])
    np.testing.assert_allclose(surface.forward(years=days / 365), [market.forward(d) for d in days], rtol=1e-12)


def test_one_expiry_is_a_surface() -> None:
    surface = fit_smiles(build_smiles(quote_vols(board_of(Quoted(slices={30: SLICES[30]})), NOW)))
    flat = surface.vol(k=0.0, years=np.array([0.3, 1.0, 2.0]) * 30 / 365)
    np.testing.assert_allclose(flat, surface.atm_vol[0], rtol=1e-9)
    assert (surface.forward(years=[0.01, 0.1]) == surface.smiles[0].forward).all()
    assert surface.certificate


def test_expiry_can_be_written_in_many_ways(surface: Surface) -> None:
    ns = int(surface.expiries[1])
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
    same = surface.smiles[1]
    label = expiry_label(ns)
    east = when.astimezone(timezone(timedelta(hours=5)))
    ways = (
        ns,
        np.int64(ns),
        when,
        when.replace(tzinfo=None),
        east,
        when.date(),
        when.isoformat(),
        f"{when:%Y-%m-%d}",
        label,
        np.datetime64(ns, "ns"),
    )
    for way in ways:
        assert surface.smile(way) is same, way
    import pandas as pd

    assert surface.smile(pd.Timestamp(ns, tz="UTC")) is same
    np.testing.assert_array_equal(surface.vol(k=0, expiry=[label, label]), [same.atm_vol] * 2)
    np.testing.assert_array_equal(surface.vol(k=0, expiry=surface.expiries.astype("datetime64[ns]")), surface.atm_vol)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0.0}, "one of expiry=, years= and tenor="),
        ({"k": 0.0, "years": 0.1, "expiry": NOW}, "one of expiry=, years= and tenor="),
        ({"years": 0.1}, "one of strike=, k= and delta="),
        ({"k": 0.0, "strike": 1.0, "years": 0.1}, "one of strike=, k= and delta="),
        ({"k": 0.0, "years": 0.0}, "years must be positive"),
        ({"k": 0.0, "years": float("nan")}, "years must be positive"),
        ({"k": 0.0, "years": 1.1}, "1.1 years is beyond the horizon of BTC.*0.986301"),
        ({"k": float("nan"), "years": 0.1}, "k must be finite"),
        ({"strike": 0.0, "years": 0.1}, "strikes must be positive"),
        ({"k": 0.0, "expiry": NOW}, "BTC has no expiry .*; listed are .*years= interpolates"),
        ({"k": 0.0, "expiry": "25DEC30"}, "no expiry '25DEC30'; listed are"),
        ({"k": 0.0, "expiry": "soon"}, "was 'soon'"),
        ({"k": 0.0, "expiry": date(2030, 1, 1)}, "no expiries on 2030-01-01; listed are"),
        ({"k": 0.0, "expiry": 1.5}, "an expiry is ns UTC, a datetime, or text"),
    ],
)
def test_wrong_questions_are_answered_with_what_would_be_right(
    surface: Surface, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        surface.vol(**arguments)  # type: ignore[arg-type]


def test_surface_is_immutable(surface: Surface) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        surface.underlying = "ETH"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        surface.years[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        surface.svi.a[0] = 1.0


def test_smiles_must_be_in_order(surface: Surface) -> None:
    with pytest.raises(InputError, match="in order of expiry"):
        Surface("BTC", NOW, surface.smiles[::-1])
    with pytest.raises(InputError, match="at least one smile"):
        Surface("BTC", NOW, ())


def test_unfitted_slice_is_nan_in_the_parameters_and_interpolated_in_the_vols(surface: Surface) -> None:
    near, middle, far = surface.smiles
    gap = Surface("BTC", NOW, (near, middle.with_fit(None), far))
    assert np.isnan(gap.svi.a[1])
    assert np.isnan(gap.atm_vol[1])
    w = gap.total_variance(0.0, expiry=middle.expiry_ns)
    share = (middle.years - near.years) / (far.years - near.years)
    w1, w3 = gap.total_variance(0.0, expiry=near.expiry_ns), gap.total_variance(0.0, expiry=far.expiry_ns)
    assert w == pytest.approx(float(w1 + share * (w3 - w1)))
    assert gap.certificate.slices == 2
    none = Surface("BTC", NOW, tuple(s.with_fit(None) for s in surface.smiles))
    assert none.certificate.verdict is Verdict.INVALID
    with pytest.raises(InputError, match="no expiry of BTC could be fitted"):
        none.vol(k=0.0, years=0.1)


def test_certificate_counts_and_says_where(surface: Surface) -> None:
    assert surface.certificate
    assert surface.certificate.sentence.startswith(
        "free of butterfly and calendar arbitrage at every strike of 3 expiries"
    )
    fit = surface.smiles[1].fit
    assert fit is not None
    spoilt = surface.smiles[1].with_fit(
        dataclasses.replace(fit, butterfly_verdict=int(Verdict.VIOLATED), butterfly_condition=1)
    )
    certificate = Surface("BTC", NOW, (surface.smiles[0], spoilt, surface.smiles[2])).certificate
    assert (certificate.verdict, certificate.certified, certificate.butterfly_proved) == (Verdict.VIOLATED, 2, 2)
    assert spoilt.expiry_label in certificate.witness
    assert "2 of 3 expiries certified" in certificate.sentence


def test_tables(surface: Surface) -> None:
    slices = surface.to_polars()
    assert slices.height == 3
    assert slices["expiry"].cast(pl.Int64).to_list() == surface.expiries.tolist()
    assert slices["butterfly"].to_list() == ["proved"] * 3
    np.testing.assert_array_equal(slices["atm_vol"].to_numpy(), surface.atm_vol)
    quotes = surface.to_polars("quotes")
    assert quotes.height == sum(len(s.strike) for s in surface.smiles)
    assert (quotes["fitted_vol"] - quotes["vol"]).abs().max() < 1e-3  # type: ignore[operator]
    frame = surface.to_pandas()
    assert list(frame.columns) == slices.columns
    assert frame["expiry"].dt.tz is not None
    assert surface.to_pandas("quotes").shape == quotes.shape
    with pytest.raises(InputError, match='"slices" or "quotes"'):
        surface.to_polars("rows")


def test_repr_names_what_it_is(surface: Surface) -> None:
    assert repr(surface) == "Surface(BTC at 2026-05-28T20:26:40Z, 3 expiries, 3 certified free of arbitrage)"
    html = surface._repr_html_()
    assert html.count("<svg") == 3
    assert html.count("proved") == 6
    for smile in surface.smiles:
        assert smile.expiry_label in html
    # Well-formed enough for a browser: every tag that opens closes.
    for tag in ("table", "tr", "td", "div", "span", "svg"):
        assert html.count(f"<{tag}") == html.count(f"</{tag}>"), tag


def test_label_follows_the_venue() -> None:
    christmas = int(datetime(2026, 12, 25, 8, tzinfo=UTC).timestamp()) * 10**9
    assert expiry_label(christmas) == "25DEC26"
    assert expiry_label(christmas + 13 * 3_600_000_000_000) == "25DEC26 21:00"
    assert expiry_label(christmas - 17 * DAY) == "8DEC26"
