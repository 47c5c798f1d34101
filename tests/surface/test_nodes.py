"""Nodes, risk reversals, flies and jump-wings of a surface."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from tests.surface.random_surfaces import realistic, surface_of
from volsurf.errors import InputError
from volsurf.surface.nodes import NODE_NAMES, WINGS, NodeStatus
from volsurf.surface.surface import Surface
from volsurf.svi.params import RawSVI


@pytest.fixture(scope="module")
def surface() -> Surface:
    return realistic()


@pytest.mark.parametrize("adjusted", [False, True])
def test_nodes_are_the_vols_at_their_deltas(surface: Surface, adjusted: bool) -> None:
    nodes = surface.nodes(adjusted)
    assert nodes.names[:2] == ("5P", "10P")
    assert nodes.names[8] == "ATM"
    assert len(nodes) == 12
    for j, name in enumerate(NODE_NAMES):
        if name == "ATM":
            np.testing.assert_array_equal(nodes.vol[:, j], surface.vol(k=0.0, years=surface.years))
            np.testing.assert_array_equal(nodes.error[:, j], surface.vol_error(k=0.0, years=surface.years))
            continue
        delta = int(name[:-1]) / 100 * (1 if name[-1] == "C" else -1)
        assert (nodes.delta[:, j] == delta).all()
        expected = surface.vol(delta=delta, years=surface.years, premium_adjusted=adjusted)
        np.testing.assert_allclose(nodes.vol[:, j], expected, rtol=1e-10)
        expected = surface.vol_error(delta=delta, years=surface.years, premium_adjusted=adjusted)
        np.testing.assert_allclose(nodes.error[:, j], expected, rtol=1e-8)
    # The forward lies below the 40 % put's strike where vol and time are large.
    assert (np.diff(np.delete(nodes.strike, 8, axis=1), axis=1) > 0).all()
    np.testing.assert_allclose(nodes.k, np.log(nodes.strike / nodes.rows.forward[:, None]), atol=1e-14)
    assert (nodes.status == NodeStatus.OK).all()


@pytest.mark.parametrize("atm", ["forward", "dns"])
@pytest.mark.parametrize("adjusted", [False, True])
def test_risk_reversals_and_flies_are_differences_of_vols(surface: Surface, adjusted: bool, atm: str) -> None:
    t = surface.years[:, None]
    call, put = (surface.vol(delta=s * WINGS, years=t, premium_adjusted=adjusted) for s in (1, -1))
    reversals, flies = surface.risk_reversals(adjusted), surface.flies(adjusted, atm=atm)  # type: ignore[arg-type]
    np.testing.assert_allclose(reversals.value, call - put, atol=1e-12)
    if atm == "forward":
        middle = surface.vol(k=0.0, years=t)
    else:
        middle = surface.vol(delta=0.5, years=t) if not adjusted else None
    if middle is not None:
        np.testing.assert_allclose(flies.value, call + put - 2 * middle, atol=1e-12)
    same = {"years": t, "premium_adjusted": adjusted}
    np.testing.assert_allclose(surface.risk_reversal(WINGS, **same), reversals.value, atol=1e-12)
    np.testing.assert_allclose(surface.risk_reversal_error(WINGS, **same), reversals.error, rtol=1e-8)
    np.testing.assert_allclose(surface.fly(WINGS, **same, atm=atm), flies.value, atol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_allclose(surface.fly_error(WINGS, **same, atm=atm), flies.error, rtol=1e-7)  # type: ignore[arg-type]
    np.testing.assert_allclose(surface.butterfly(WINGS, **same, atm=atm), flies.value / 2, atol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_allclose(surface.butterfly_error(WINGS, **same, atm=atm), flies.error / 2, rtol=1e-7)  # type: ignore[arg-type]


def test_tables(surface: Surface) -> None:
    nodes = surface.nodes()
    long = nodes.to_polars()
    assert long.shape == (12 * 17, 12)
    assert long.filter(pl.col("node") == "25P")["vol"].to_list() == nodes.vol[:, 4].tolist()
    wide = nodes.to_polars("wide")
    assert wide.columns[-17:] == list(NODE_NAMES)
    assert wide["ATM"].to_list() == nodes.vol[:, 8].tolist()
    assert wide["expiry"].cast(pl.Int64).to_list() == surface.expiries.tolist()
    frame = nodes.to_pandas()
    assert list(frame.columns) == long.columns
    assert frame["expiry"].dt.tz is not None
    reversals = surface.risk_reversals().to_polars("wide")
    assert reversals.columns[-8:] == [f"risk_reversal{d:02d}" for d in range(5, 45, 5)]
    assert surface.flies().to_polars().shape == (96, 9)
    with pytest.raises(InputError, match='"long" or "wide"'):
        nodes.to_polars("tall")


def test_pictures(surface: Surface) -> None:
    html = surface.nodes()._repr_html_()
    assert html.count("<tr>") == 13
    assert html.count("rgba(138") >= 12 * 17
    assert "25P" in html
    figure = surface.flies().plot()
    np.testing.assert_array_equal(np.array(figure.data[0].z), 100 * surface.flies().value)
    assert list(figure.data[0].y) == [s.expiry_label for s in surface.smiles]


def test_what_has_no_vol_says_why() -> None:
    flat = surface_of([0.5, 1.0], RawSVI([0.5, 1.0], 0.0, 0.0, 0.0, 1.0))
    nodes = flat.nodes(True)
    assert nodes.status[1, 9] == NodeStatus.UNREACHABLE  # 40C
    assert np.isnan(nodes.vol).tolist() == (nodes.status == NodeStatus.UNREACHABLE).tolist()
    late = flat.nodes(tenors=["6M", "3Y"])
    assert late.rows.label == ("6M", "3Y")
    assert (late.status[1] == NodeStatus.BEYOND_HORIZON).all()
    assert (late.status[0] == NodeStatus.OK).all()
    assert "beyond the horizon of 2 years" in late.rows.reason[1]
    assert "beyond the horizon" in late.error_reason[1]
    gap = Surface("BTC", flat.time_ns, (flat.smiles[0].with_fit(None), flat.smiles[1]))
    assert (gap.nodes().status[0] == NodeStatus.INTERPOLATED).all()
    assert np.isfinite(gap.nodes().vol).all()
    for status in NodeStatus:
        assert status.sentence


def test_jump_wings_are_those_of_the_slices(surface: Surface) -> None:
    table = surface.jump_wings()
    own = surface.svi.to_jump_wings(surface.years)
    np.testing.assert_array_equal(table.psi, own.psi)
    assert table.to_polars().columns == ["label", "expiry", "years", "v", "psi", "p", "c", "v_min", "status"]
    assert "fitted" in table._repr_html_()


def test_at_the_money_numbers_are_derivatives_of_the_vol(surface: Surface) -> None:
    times = np.array([0.5 * surface.years[0], *surface.years, 0.3, 1.5])
    found = surface.atm(years=times)
    step = 1e-4 * np.sqrt(found.level**2 * times)
    low, middle, high = (surface.vol(k=s * step, years=times) for s in (-1, 0, 1))
    np.testing.assert_allclose(found.level, middle, rtol=1e-14)
    np.testing.assert_allclose(found.skew, (high - low) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(found.curvature, (high - 2 * middle + low) / step**2, rtol=1e-4)
    np.testing.assert_array_equal(surface.atm().level, surface.vol(k=0.0, years=surface.years))
    assert surface.atm().to_polars().shape == (12, 7)
    assert surface.atm(tenor="1W").level.shape == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.risk_reversal(-0.25, years=0.1), "takes the size of the delta"),
        (lambda s: s.fly(25, years=0.1), "takes the size of the delta"),
        (lambda s: s.fly(0.25, years=0.1, atm="spot"), 'atm must be "forward" or "dns"'),
        (lambda s: s.flies(atm="spot"), 'atm must be "forward" or "dns"'),
        (lambda s: s.butterfly(0.25), "one of expiry=, years= and tenor="),
        (lambda s: s.nodes(tenors=["soon"]), "was 'soon'"),
    ],
)
def test_wrong_questions_are_answered_with_what_would_be_right(surface: Surface, call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(surface)  # type: ignore[operator]


def test_a_curve_without_a_vol_is_not_a_delta_out_of_reach() -> None:
    surface = surface_of([0.25], RawSVI([-0.02], [0.1], [-0.3], [0.0], [0.1]))  # total variance < 0 at the money
    for table in (surface.nodes(True), surface.flies(True)):
        assert set(table.status.ravel()) == {NodeStatus.NO_VOL}


def test_delta_at_the_money_is_of_the_convention() -> None:
    surface = realistic()
    root = surface.atm_vol * np.sqrt(surface.years)
    np.testing.assert_allclose(surface.nodes().delta[:, 8], norm.cdf(0.5 * root), rtol=1e-12)
    np.testing.assert_allclose(surface.nodes(True).delta[:, 8], norm.cdf(-0.5 * root), rtol=1e-12)
