"""The band around a curve: two standard errors wide, and grey where it says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from tests.widgets import small_market as market
from volsurf.surface.figures import COLOURS, smile_figure, smiles_figure, surface_figure
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.surface import Surface
from volsurf.svi._published import Enforcement
from volsurf.svi.certificate import Verdict


def by_role(figure: go.Figure, role: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.meta == role]


def at(figure: go.Figure, role: str, strike: float) -> tuple[float, float] | None:
    """Lowest and highest of a band at a strike, None where it is not there."""
    found = []
    for trace in by_role(figure, role):
        x, y = np.array(trace.x, float), np.array(trace.y, float)
        for piece in np.split(np.arange(x.size), np.flatnonzero(np.isnan(x)) + 1):
            half = (piece.size - 1) // 2
            top = piece[:half]
            if half > 1 and x[top[0]] <= strike <= x[top[-1]]:
                bottom = piece[half : 2 * half][::-1]
                found.append((np.interp(strike, x[bottom], y[bottom]), np.interp(strike, x[top], y[top])))
    assert len(found) <= 1, "bands do not overlap"
    return found[0] if found else None


@pytest.fixture
def smile() -> Smile:
    return market.smile("BTC", 6, market.START_NS)


def with_fit(smile: Smile, **changes: object) -> Smile:
    assert isinstance(smile.fit, SliceFit)
    return smile.with_fit(replace(smile.fit, **changes))


def test_the_band_is_two_standard_errors_on_either_side(smile: Smile) -> None:
    figure = smile.plot()
    for strike in smile.forward * np.exp(np.array([-0.1, 0.0, 0.08])):
        k = np.log(strike / smile.forward)
        vol, error = float(smile.fitted_vol(k)), float(smile.vol_error(k))
        low, high = at(figure, "sure", strike)  # type: ignore[misc]
        assert low == pytest.approx(vol - 2 * error, abs=1e-4)
        assert high == pytest.approx(vol + 2 * error, abs=1e-4)
        assert at(figure, "unsure", strike) is None


def test_it_is_grey_beyond_the_quotes_and_where_the_quotes_are_tighter(smile: Smile) -> None:
    figure = smile_figure(smile)
    two_sided = smile.strike[smile.used & (smile.side == 0)]
    beyond = smile.strike[smile.used].min() * 0.999
    assert beyond < two_sided.min()
    assert at(figure, "unsure", beyond) is not None
    assert at(figure, "sure", beyond) is None
    # Quotes so tight that no fit is as sure as they are.
    middle = 0.5 * (smile.bid_vol + smile.ask_vol)
    tight = replace(smile, bid_vol=middle - 1e-6, ask_vol=middle + 1e-6)
    assert at(smile_figure(tight), "sure", smile.forward) is None
    assert at(smile_figure(tight), "unsure", smile.forward) is not None


def test_few_quotes_make_the_curve_and_all_of_its_band_grey(smile: Smile) -> None:
    thin = smile_figure(with_fit(smile, n_two_sided=6))
    assert at(thin, "sure", smile.forward) is None
    assert at(thin, "unsure", smile.forward) is not None
    assert {trace.line.color for trace in by_role(thin, "curve")} == {COLOURS["unused"]}
    assert {trace.line.color for trace in by_role(smile_figure(smile), "curve")} == {COLOURS["curve"]}


def test_no_covariance_no_band(smile: Smile) -> None:
    figure = smile_figure(with_fit(smile, covariance=()))
    assert not by_role(figure, "sure")
    assert not by_role(figure, "unsure")
    assert by_role(figure, "curve")


def test_a_smile_without_a_fit_is_only_its_quotes(smile: Smile) -> None:
    figure = smile_figure(smile.with_fit(None))
    assert not by_role(figure, "curve")
    assert by_role(figure, "bid")
    assert "no fit" in figure.layout.title.text


def test_the_title_tells_the_error_and_what_not_to_quote_on(smile: Smile) -> None:
    title = smile_figure(smile).layout.title.text
    assert smile.fit is not None
    assert f"{smile.atm_vol:.1%} ± {100 * smile.fit.atm_error:.2g} ·" in title
    assert "▲" not in title
    assert "▲ guarded" in smile_figure(with_fit(smile, enforcement=int(Enforcement.GUARDED))).layout.title.text
    bad = with_fit(smile, calendar_verdict=int(Verdict.VIOLATED), enforcement=int(Enforcement.GUARDED))
    assert "▲ not certified" in smile_figure(bad).layout.title.text


def test_every_panel_of_the_smiles_has_its_band() -> None:
    surface = market.surface("BTC", market.START_NS)
    figure = smiles_figure(surface)
    assert len(by_role(figure, "sure")) == len(surface)
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert len(shown) == len(set(shown)), "the legend names each thing once"


def test_each_listed_expiry_of_the_surface_lies_between_its_errors() -> None:
    surface = Surface("BTC", market.START_NS, market.surface("BTC", market.START_NS).smiles[4:7])
    figure = surface_figure(surface)
    listed, errors = by_role(figure, "listed"), by_role(figure, "error")
    assert len(errors) == 2 * len(listed) == 6
    for i, line in enumerate(listed):
        low, high = (np.array(t.z, float) for t in errors[2 * i : 2 * i + 2])
        assert (low < np.array(line.z, float)).all()
        assert (np.array(line.z, float) < high).all()
    assert "±" in by_role(figure, "surface")[0].hovertemplate
