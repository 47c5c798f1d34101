"""Everything that is read off a surface, on surfaces at the edge: nothing warns (warnings are errors here), nothing but
InputError is raised, and certified surfaces have no NaN but where a delta is out of reach or a standard error is not known."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from tests.surface.random_surfaces import NOW, flat_surface, realistic, surface_of
from volsurf.errors import InputError
from volsurf.surface.event import EventJump
from volsurf.surface.interpolation import rules
from volsurf.surface.positions import Position
from volsurf.surface.surface import Surface
from volsurf.svi.params import RawSVI

DAY = 86_400_000_000_000
K = np.concatenate([np.linspace(-0.6, 0.6, 25), [-700.0, 700.0]])[:, None]
REAL = realistic()


def times_of(surface: Surface) -> npt.NDArray[np.float64]:
    first, last = surface.years[0], surface.years[-1]
    return np.array([0.3 * first, first, 0.5 * (first + last), last, 1.7 * last])


def book_of(surface: Surface) -> list[Position]:
    expiry = int(surface.expiries[len(surface) // 2])
    return [Position("BTC", expiry, strike, call) for strike in (3e4, 9e4, 3e5) for call in ("call", "put")]


READ: dict[str, Callable[[Surface], npt.NDArray[np.float64]]] = {
    "vol": lambda s: s.vol(k=K, years=times_of(s)),
    "vol of deltas": lambda s: s.vol(delta=[0.1, -0.1, 0.5, -0.9, 0.999, 1e-4], years=times_of(s)[:, None]),
    "nodes": lambda s: s.nodes().vol,
    "atm_vol": lambda s: s.atm_vol[s.fitted],
    "atm": lambda s: s.atm().curvature,
    "flies": lambda s: s.flies(atm="dns").value,
    "density": lambda s: s.density(k=K[:-2], years=times_of(s)),
    "log density": lambda s: s.density(k=K[:-2], years=times_of(s), log=True),
    "distribution": lambda s: s.distribution(k=K, years=times_of(s)),
    "digital": lambda s: s.digital(90e3, years=times_of(s)),
    "quantile": lambda s: s.quantile([1e-12, 0.1, 0.5, 0.99], years=times_of(s)[:, None], of="log"),
    "variance swap": lambda s: s.variance_swap(years=times_of(s)),
    "gamma swap": lambda s: s.gamma_swap(years=times_of(s)),
    "moments": lambda s: s.moments(years=times_of(s)).kurtosis,
    "local vol": lambda s: s.local_vol(k=K[:-2], years=times_of(s)),
    "local vol grid": lambda s: s.local_vol_grid().vol,
    "forward vol": lambda s: s.forward_vol(0.0, times_of(s), K),
    "forward vols": lambda s: s.forward_vols().vol,
    "price": lambda s: s.price(book_of(s)).value_usd,
    "risk": lambda s: s.risk(book_of(s)).total_usd,
    "slice": lambda s: np.array([s.slice_at(years=float(t)).vol(K[:, 0]) for t in times_of(s)]),
    "json": lambda s: Surface.from_json(s.to_json()).vol(k=0.0, years=times_of(s)),
    "pickle": lambda s: pickle.loads(pickle.dumps(s)).vol(k=0.0, years=times_of(s)),
    "copy": lambda s: copy.deepcopy(s).vol(k=0.0, years=times_of(s)),
}
UNKNOWN: dict[str, Callable[[Surface], object]] = {
    "tenors": lambda s: s.tenors().to_pandas(),
    "premium-adjusted": lambda s: s.vol(delta=[0.1, -0.1, 0.9], years=times_of(s)[:, None], premium_adjusted=True),
    "premium-adjusted nodes": lambda s: s.nodes(True).to_polars("wide"),
    "premium-adjusted errors": lambda s: s.vol_error(
        delta=[0.1, 0.9], years=times_of(s)[:, None], premium_adjusted=True
    ),
    "jump wings": lambda s: s.jump_wings().to_polars(),
    "bump check": lambda s: s.bump().check().sentence,
    "certificates": lambda s: [s.slice_at(years=float(t)).certificate.sentence for t in times_of(s)],
    "tables": lambda s: (s.to_polars(), s.to_pandas(), s.to_polars("quotes"), s.density_table()),
    "pages": lambda s: [x._repr_html_() for x in (s, s.nodes(), s.tenors(), s.forward_vols(), s.risk(book_of(s)))],
}


def with_event(after: int) -> Surface:
    return Surface("BTC", NOW, REAL.smiles, EventJump.of_size(NOW + after, 0.08, 0.4))


def with_holes(*places: int) -> Surface:
    return Surface("BTC", NOW, tuple(replace(s, fit=None) if i in places else s for i, s in enumerate(REAL.smiles)))


CERTIFIED = {
    "one expiry": surface_of([0.1], REAL.svi[5:6]),
    "one minute": surface_of([2e-6], RawSVI([5e-7], [0.0], [0.0], [0.0], [0.1])),
    "three years": realistic(np.array([1e-5, 0.1, 3.0])),
    "flat": flat_surface(),
    "two equal slices": surface_of([0.1, 0.2, 0.5], REAL.svi[[5, 5, 8]]),
    "two equal slices at the end": surface_of([0.1, 0.2, 0.5], REAL.svi[[5, 8, 8]]),
    "no fit at the ends and in the middle": with_holes(0, 3, 11),
    "event before the expiries": with_event(DAY // 2),
    "event at an expiry": with_event(int(REAL.expiries[4]) - NOW),
    "event between expiries": with_event(40 * DAY),
    "event after the expiries": with_event(500 * DAY),
}
NOT_CERTIFIED = {
    "negative variance": surface_of(
        [0.1, 0.2, 0.5],
        RawSVI([-0.03, -0.03, -0.02], [0.1, 0.15, 0.2], [-0.3, -0.2, 0.0], [0.0, 0.0, 0.05], [0.1, 0.1, 0.05]),
    ),
    "negative variance of some": surface_of(
        [0.1, 0.2, 0.5],
        RawSVI([-0.03, 0.03, -0.02], [0.1, 0.15, 0.2], [-0.3, -0.9, 0.0], [0.3, 0.0, 0.05], [0.1, 0.1, 0.05]),
    ),
    "crossing": surface_of([0.1, 0.2, 0.5], REAL.svi[[8, 5, 6]]),
}


@pytest.mark.parametrize("name", CERTIFIED)
def test_certified_surfaces_have_every_number(name: str) -> None:
    surface = CERTIFIED[name]
    assert surface.certificate
    for what, read in READ.items():
        assert np.isfinite(read(surface)).all(), what
    for ask in UNKNOWN.values():
        ask(surface)


@pytest.mark.parametrize("name", NOT_CERTIFIED)
def test_surfaces_without_a_certificate_have_nan_and_say_why(name: str) -> None:
    surface = NOT_CERTIFIED[name]
    for ask in (*READ.values(), *UNKNOWN.values()):
        ask(surface)
    assert not surface.certificate
    assert not surface.slice_at(years=float(surface.years[1])).certificate
    if name != "crossing":
        assert np.isnan(surface.vol(k=K, years=times_of(surface))).any()
        assert np.isnan(surface.price([Position("BTC", int(surface.expiries[-1]), 63e3, "call")]).value_usd).all()
        check = surface.bump().check()
        assert not check
        assert "g = nan" in check.sentence


def test_without_any_fit_everything_refuses() -> None:
    bare = with_holes(*range(12))
    for read in READ.values():
        if read not in (READ["atm_vol"], READ["json"]):
            with pytest.raises(InputError, match="no expiry of BTC could be fitted"):
                read(bare)


def test_flat_surfaces_are_flat_between_expiries_too() -> None:
    surface = flat_surface(0.5)
    assert not rules(surface).mixed.any()
    np.testing.assert_allclose(surface.vol(k=K, years=times_of(surface)), 0.5, rtol=1e-14)
    np.testing.assert_allclose(surface.local_vol(k=K, years=times_of(surface)), 0.5, rtol=1e-12)


def test_equal_slices_have_no_variance_between_them() -> None:
    surface = CERTIFIED["two equal slices"]
    k = np.linspace(-3, 3, 61)[:, None]
    np.testing.assert_array_equal(surface.forward_vol(0.1, [0.13, 0.2], k), 0.0)
    np.testing.assert_allclose(
        surface.total_variance(k, years=[0.13, 0.17]), surface.svi[:1].total_variance(k[:, 0]).T.repeat(2, 1)
    )


def test_an_event_that_is_over_is_refused() -> None:
    for since in (0, DAY):
        with pytest.raises(InputError, match="is over"):
            with_event(-since)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: REAL.vol(k="x", years=0.1),  # type: ignore[arg-type]
        lambda: REAL.vol(k=0.0, years="0.1"),  # type: ignore[arg-type]
        lambda: REAL.vol(k=0.0, tenor=7),  # type: ignore[arg-type]
        lambda: REAL.vol(strike=None, delta={}, years=0.1),  # type: ignore[arg-type]
        lambda: REAL.vol(k=[0.0, 0.1], years=[0.1, 0.2, 0.3]),
        lambda: REAL.vol(delta=[0.1, 0.2], years=[0.1, 0.2, 0.3]),
        lambda: REAL.vol(strike=[1e4, 2e4], years=[0.1, 0.2, 0.3]),
        lambda: REAL.total_variance([0.0, 0.1], years=[0.1, 0.2, 0.3]),
        lambda: REAL.vol_error(delta=[0.1, 0.2], years=[0.1, 0.2, 0.3]),
        lambda: REAL.risk_reversal([0.1, 0.2], years=[0.1, 0.2, 0.3]),
        lambda: REAL.vol(k=0.0, years=[0.1, None]),  # type: ignore[list-item]
    ],
)
def test_wrong_arguments_are_named(ask: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        ask()


def test_columns_of_tables_are_taken_and_nothing_is_not_an_error() -> None:
    import pandas as pd
    import polars as pl

    wanted = REAL.vol(k=[0.0, 0.1], years=[0.1, 0.2])
    for series in (pl.Series, pd.Series):
        np.testing.assert_array_equal(REAL.vol(k=series([0.0, 0.1]), years=series([0.1, 0.2])), wanted)
    assert REAL.vol(k=[], years=0.1).shape == (0,)
    assert REAL.vol(delta=[], years=0.1).shape == (0,)
    assert REAL.variance_swap(years=[]).shape == (0,)
    assert REAL.quantile([], years=0.1).shape == (0,)
    assert len(REAL.nodes(tenors=[])) == 0
    assert len(REAL.tenors([])) == 0
    assert len(REAL.price([])) == 0
    assert round(REAL.vol(k=0.0, years=0.1), 3) > 0  # a scalar for scalars
