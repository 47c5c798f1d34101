"""The event layer: W-shaped smiles to a few basis points, free of arbitrage, and quiet smiles left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.surface.quoted_market import DAY, NOW
from volsurf.diagnostics.reasons import QuoteReason
from volsurf.engine.codec import decode_smile, encode_smile
from volsurf.errors import InputError
from volsurf.iv.black import black_price
from volsurf.surface.event import EVENT_EVIDENCE, EventJump, event_derivatives, fit_event, jumped_variance
from volsurf.surface.slices import Smile
from volsurf.surface.smile import fit_smiles
from volsurf.surface.surface import Surface
from volsurf.svi.certificate import EXACT_POLYNOMIAL
from volsurf.svi.params import RawSVI

EVENT = NOW + DAY
Floats = np.ndarray
SLICE = RawSVI(0.0002, 0.02, -0.2, 0.003, 0.03)


def flat(days: float, vol: float = 0.4) -> RawSVI:
    """A smile that is as good as flat."""
    return RawSVI(vol * vol * days / 365 - 1e-7, 1e-5, 0.0, 0.0, 0.01)


def crypto(days: float) -> RawSVI:
    """A nearly parabolic 40 % smile with the shape of real ones."""
    root = 0.4 * np.sqrt(days / 365)
    up, low = 0.7 * root, 0.9 * root
    shape = RawSVI(0.0, 0.5 * (up + low), (up - low) / (up + low), 0.05 * root, np.e * root)
    return RawSVI(root**2 - float(shape.total_variance(0.0)), shape.b, shape.rho, shape.m, shape.sigma)


def smile(days: float, raw: RawSVI, jump: EventJump | None, *, half: float = 0.003, count: int = 41) -> Smile:
    """Quotes around the slice, with the jump if it lies before the expiry."""
    expiry, years = NOW + int(days * DAY), days / 365
    there = jump is not None and expiry > EVENT
    deviation = np.sqrt(float(raw.total_variance(0.0)) + (jump.deviation**2 if jump and there else 0.0))
    k = deviation * np.linspace(-3.0, 3.0, count)
    w = jumped_variance(raw, k, (jump.up, jump.down, jump.probability)) if jump and there else raw.total_variance(k)
    vol, n = np.sqrt(w / years), count
    return Smile(
        underlying="BTC",
        expiry_ns=expiry,
        time_ns=NOW,
        forward=100.0,
        years=years,
        strike=100.0 * np.exp(k),
        log_moneyness=k,
        bid_vol=vol - half,
        ask_vol=vol + half,
        vol=vol,
        error=np.full(n, half),
        side=np.zeros(n, np.int8),
        is_call=k >= 0,
        instrument_id=np.arange(n, dtype=np.int32),
        reason=np.full(n, QuoteReason.USED, np.uint8),
        forward_source=0,
        forward_error=0.0,
        mismatch_bp=np.nan,
        forward_flagged=False,
    )


def noisy(given: Smile, rng: np.random.Generator) -> Smile:
    """The same with quotes moved by up to 0.8 of their half-spread."""
    move = rng.uniform(-0.8, 0.8, given.vol.size) * given.error
    return replace(given, vol=given.vol + move, bid_vol=given.bid_vol + move, ask_vol=given.ask_vol + move)


def misfit(surface: Surface, quoted: Smile) -> float:
    """RMSE in basis points of vol."""
    away = surface.vol(k=quoted.log_moneyness, expiry=quoted.expiry_ns) - quoted.vol
    return 1e4 * float(np.sqrt((away**2).mean()))


def slice_functions(raw: RawSVI) -> Callable[[Floats], tuple[Floats, Floats, Floats]]:
    def derivatives(z: Floats) -> tuple[Floats, Floats, Floats]:
        x = z - raw.m
        root = np.hypot(x, raw.sigma)
        return raw.total_variance(z), raw.b * (raw.rho + x / root), raw.b * raw.sigma**2 / root**3

    return derivatives


@pytest.mark.parametrize("move", [0.02, 0.03, 0.04])
def test_two_point_event_on_a_short_flat_smile(move: float, record_property: pytest.RecordProperty) -> None:
    """A two-day 40 % smile with a two-point event of ±2, 3, 4 %: SVI misses by about 100, 300 and 700 bp."""
    quoted = smile(2, flat(2), EventJump.of_size(EVENT, np.log1p(move) - np.log1p(-move)))
    plain, surface = fit_smiles([quoted]), fit_event([quoted], EVENT)
    before, after = misfit(plain, quoted), misfit(surface, quoted)
    print(f"±{100 * move:.0f} %: SVI {before:.0f} bp, with the event {after:.2f} bp")
    record_property("rmse_bp", (float(before), float(after)))
    assert before > 80
    assert after <= 5
    event = surface.event
    assert event is not None
    assert np.expm1(event.up) == pytest.approx(move, abs=2e-4)
    assert event.probability == pytest.approx(0.5, abs=0.01)
    assert event.improvement > 0.95
    assert "misfit" in event.sentence
    fit = surface.smiles[0].fit
    assert fit is not None
    assert fit.rms < 0.2
    assert fit.inside == 1.0
    np.testing.assert_allclose(
        surface.smiles[0].fitted_vol(quoted.log_moneyness),
        surface.vol(k=quoted.log_moneyness, expiry=quoted.expiry_ns),
        rtol=1e-12,
    )


@pytest.fixture(scope="module")
def market() -> tuple[list[Smile], Surface, EventJump]:
    """A noisy market with an expiry before the event, and its surface."""
    jump = EventJump.of_size(EVENT, 0.06, 0.3)
    rng = np.random.default_rng(5)
    days = (0.5, 2, 3, 9, 30, 180)
    smiles = [noisy(smile(d, crypto(d), jump, half=0.004, count=25), rng) for d in days]
    return smiles, fit_event(smiles, EVENT), jump


def test_event_of_a_whole_market(market: tuple[list[Smile], Surface, EventJump]) -> None:
    smiles, surface, jump = market
    assert surface.event is not None
    assert surface.event.size == pytest.approx(jump.size, abs=0.004)
    assert surface.event.probability == pytest.approx(jump.probability, abs=0.05)
    assert surface.certificate
    plain = fit_smiles(smiles)
    for quoted in smiles[1:3]:
        assert misfit(surface, quoted) < 0.5 * misfit(plain, quoted)
    assert all(misfit(surface, quoted) < 25 for quoted in smiles)
    jumps = [s.fit.jump for s in surface.smiles if s.fit]
    assert jumps[0] == ()
    assert all(one == (surface.event.up, surface.event.down, surface.event.probability) for one in jumps[1:])


def test_event_surface_says_what_its_certificate_rests_on(market: tuple[list[Smile], Surface, EventJump]) -> None:
    _, surface, _ = market
    assert surface.certificate
    assert surface.certificate.evidence == EVENT_EVIDENCE
    assert surface.without_event().certificate.evidence == EXACT_POLYNOMIAL
    after = surface.years > surface.event_years
    higher = surface.atm_vol > surface.without_event().atm_vol
    assert after.any()
    assert np.array_equal(higher, after)


def test_event_surface_survives_text_and_stream(market: tuple[list[Smile], Surface, EventJump]) -> None:
    surface = market[1]
    again = Surface.from_json(surface.to_json())
    assert again.event == surface.event
    k = np.linspace(-0.1, 0.1, 5)
    np.testing.assert_array_equal(again.vol(k=k, years=0.02), surface.vol(k=k, years=0.02))
    for mine in surface.smiles:
        sent = decode_smile(encode_smile(mine).data)
        np.testing.assert_array_equal(sent.fitted_vol(k), mine.fitted_vol(k))
        assert mine.fit is not None
        assert 0 < mine.fit.atm_error < 0.01


def test_portfolios_of_the_event_surface(market: tuple[list[Smile], Surface, EventJump]) -> None:
    """Butterflies and calendars at random strikes, inside and far outside the quotes, at the expiries, between them and on both
    sides of the event, priced from the vols: none is free."""
    _, surface, _ = market
    rng = np.random.default_rng(11)
    years = surface.years
    worst = {"butterfly": np.inf, "calendar": np.inf}
    event = surface.event_years
    years = np.sort(np.concatenate((years, 0.5 * (years[1:] + years[:-1]), event * np.array([1 - 1e-6, 1 + 1e-6]))))
    for i in range(len(years)):
        deviation = float(np.sqrt(surface.total_variance(0.0, years=years[i])))
        k = np.sort(rng.uniform(-12.0, 12.0, (1000, 3)), axis=1) * deviation
        strike = np.exp(k)
        vol = surface.vol(k=k, years=years[i])
        price = black_price(1.0, strike, years[i], vol, True)
        weight = (strike[:, 2] - strike[:, 1]) / (strike[:, 2] - strike[:, 0])
        cost = weight * price[:, 0] + (1.0 - weight) * price[:, 2] - price[:, 1]
        worst["butterfly"] = min(worst["butterfly"], float(cost.min()))
        slope = np.diff(price, axis=1) / np.diff(strike, axis=1)
        assert (slope <= 1e-10).all()
        assert (slope >= -1.0 - 1e-10).all()
        if i:
            near = black_price(1.0, strike, years[i - 1], surface.vol(k=k, years=years[i - 1]), True)
            worst["calendar"] = min(worst["calendar"], float((price - near).min()))
    print("cheapest portfolios:", worst)
    assert min(worst.values()) >= -1e-10


def test_density_of_the_event_surface_has_two_humps_and_mass_one(
    market: tuple[list[Smile], Surface, EventJump],
) -> None:
    quoted = smile(2, flat(2), EventJump.of_size(EVENT, 0.08))
    surface = fit_event([quoted], EVENT)
    fit = surface.smiles[0].fit
    assert fit is not None
    k = np.linspace(-0.4, 0.4, 8001)
    jump = surface.event
    w, slope, curvature = event_derivatives(k, slice_functions(fit.svi), jump)
    g = (1 - 0.5 * k * slope / w) ** 2 - 0.25 * slope**2 * (1 / w + 0.25) + 0.5 * curvature
    d2 = -k / np.sqrt(w) - 0.5 * np.sqrt(w)
    density = g * np.exp(-0.5 * d2**2) / np.sqrt(2 * np.pi * w)
    assert density.min() > -1e-12
    assert np.trapezoid(density, k) == pytest.approx(1.0, abs=1e-4)
    assert np.trapezoid(density * np.exp(k), k) == pytest.approx(1.0, abs=1e-4)
    humps = np.count_nonzero((density[1:-1] > density[:-2]) & (density[1:-1] > density[2:]) & (density[1:-1] > 1.0))
    assert humps == 2


@pytest.mark.parametrize("seed", range(3))
def test_quiet_smiles_keep_their_svi(seed: int) -> None:
    rng = np.random.default_rng(seed)
    smiles = [noisy(smile(d, crypto(d), None, half=0.004, count=25), rng) for d in (0.5, 2, 9, 30)]
    plain = fit_smiles(smiles)
    surface = fit_event(smiles, EVENT)
    assert surface.event is not None
    assert surface.event.is_quiet
    assert surface.event.improvement == 0.0
    assert surface.event.sentence.startswith("no event")
    assert surface.svi == plain.svi
    k = np.linspace(-0.2, 0.2, 9)
    np.testing.assert_array_equal(surface.vol(k=k, years=0.02), plain.vol(k=k, years=0.02))
    assert fit_event(smiles, EVENT, base=plain).svi == plain.svi


def test_event_that_cannot_be_fitted() -> None:
    smiles = [smile(d, crypto(d), None, count=11) for d in (0.5, 2)]
    with pytest.raises(InputError, match="no quoted expiry of BTC follows the event"):
        fit_event(smiles, NOW + 3 * DAY)
    with pytest.raises(InputError, match="is over"):
        fit_event(smiles, NOW)
    with pytest.raises(InputError, match="one underlying, was none"):
        fit_event([], EVENT)
    with pytest.raises(InputError, match="base must be a surface of the same expiries"):
        fit_event(smiles, EVENT, base=fit_smiles(smiles[:1]))
    bare = replace(smiles[1], error=np.full(11, np.nan))
    with pytest.raises(InputError, match="no quoted expiry"):
        fit_event([smiles[0], bare], EVENT)


@pytest.mark.parametrize(
    ("jump", "message"),
    [
        ((0.02, -0.02, 0.0), "probability must lie between 0 and 1"),
        ((0.02, -0.02, 0.9), "must leave the forward where it is"),
        ((-0.02, -0.02, 0.5), "down <= 0 <= up"),
        ((np.nan, -0.02, 0.5), "down <= 0 <= up"),
    ],
)
def test_jumps_that_are_none(jump: tuple[float, float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EventJump(EVENT, *jump)


def test_size_must_be_positive() -> None:
    with pytest.raises(InputError, match="size must be finite and not negative"):
        EventJump.of_size(EVENT, -0.1)
    with pytest.raises(InputError, match="probability"):
        EventJump.of_size(EVENT, 0.1, 1.0)


@given(size=st.floats(0.0, 2.0), probability=st.floats(0.001, 0.999))
def test_jump_is_a_martingale(size: float, probability: float) -> None:
    jump = EventJump.of_size(EVENT, size, probability)
    assert probability * np.exp(jump.up) + (1 - probability) * np.exp(jump.down) == pytest.approx(1.0, abs=1e-13)
    assert jump.size == pytest.approx(size)


def reference(k: float, jump: EventJump) -> tuple[float, float, float]:
    """w, w' and w'' with 60 digits, by differences of a root."""
    with mp.workdps(60):
        a, b, rho, m, sigma = (mp.mpf(float(v)) for v in (SLICE.a, SLICE.b, SLICE.rho, SLICE.m, SLICE.sigma))
        p, side = mp.mpf(jump.probability), 1 if k >= 0 else -1

        def base(z: mp.mpf) -> mp.mpf:
            return a + b * (rho * (z - m) + mp.sqrt((z - m) ** 2 + sigma**2))

        def price(z: mp.mpf, w: mp.mpf) -> mp.mpf:
            d1 = -z / mp.sqrt(w) + mp.sqrt(w) / 2
            d2 = d1 - mp.sqrt(w)
            return side * (mp.ncdf(side * d1) - mp.exp(z) * mp.ncdf(side * d2))

        def w(z: mp.mpf) -> mp.mpf:
            branches = ((p, mp.mpf(jump.up)), (1 - p, mp.mpf(jump.down)))
            target = mp.log(sum(q * mp.exp(d) * price(z - d, base(z - d)) for q, d in branches))
            start = mp.sqrt(base(z) + mp.mpf("0.0005"))
            root = mp.findroot(lambda s: mp.log(price(z, s * s)) - target, (start, start * mp.mpf("1.05")), tol=1e-80)
            return root**2

        z, h = mp.mpf(k), mp.mpf("1e-12")
        low, middle, high = w(z - h), w(z), w(z + h)
        return float(middle), float((high - low) / (2 * h)), float((high - 2 * middle + low) / h**2)


@pytest.mark.parametrize("k", [0.0, -1e-9, 0.01, -0.02, 0.05, -0.1, 0.3, -0.5, 2.0, -5.0, 30.0, -60.0])
def test_derivatives_against_sixty_digits(k: float) -> None:
    """In the wings too, where no double holds the price."""
    jump = EventJump.of_size(EVENT, 0.06, 0.3)
    found = [float(v[0]) for v in event_derivatives(np.array([k]), slice_functions(SLICE), jump)]
    expected = reference(k, jump)
    assert found[0] == pytest.approx(expected[0], rel=1e-13)
    assert found[1] == pytest.approx(expected[1], rel=1e-10)
    assert found[2] == pytest.approx(expected[2], rel=1e-6, abs=1e-12)


@settings(max_examples=50)
@given(
    size=st.floats(1e-4, 0.5),
    probability=st.floats(0.02, 0.98),
    scale=st.floats(-3.0, 1.0),
)
def test_event_adds_variance_and_keeps_the_density_positive(size: float, probability: float, scale: float) -> None:
    factor = 10.0**scale
    root = np.sqrt(factor)
    raw = RawSVI(SLICE.a * factor, SLICE.b * root, SLICE.rho, SLICE.m * root, SLICE.sigma * root)
    k = np.linspace(-3.0, 3.0, 301)
    jump = EventJump.of_size(EVENT, size, probability)
    w, slope, curvature = event_derivatives(k, slice_functions(raw), jump)
    g = (1 - 0.5 * k * slope / w) ** 2 - 0.25 * slope**2 * (1 / w + 0.25) + 0.5 * curvature
    assert np.isfinite(w).all()
    assert (w >= raw.total_variance(k) * (1 - 1e-12)).all()
    assert g.min() > -1e-9


def test_no_jump_is_the_base_bit_for_bit() -> None:
    k = np.linspace(-1.0, 1.0, 11)
    for jump in (None, EventJump.of_size(EVENT, 0.0)):
        for found, base in zip(
            event_derivatives(k, slice_functions(SLICE), jump), slice_functions(SLICE)(k), strict=True
        ):
            np.testing.assert_array_equal(found, base)
    assert "event of +2" in EventJump.of_size(EVENT, 0.04).sentence
