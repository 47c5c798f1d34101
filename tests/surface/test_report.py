"""Figures and the page: they hold the numbers of the surface, and the page loads nothing from anywhere."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import volsurf as vs
from tests.surface.quoted_market import DAY, NOW, Quoted, chain_frame
from volsurf.cli import main
from volsurf.instruments import Settlement
from volsurf.surface.chain import Chain
from volsurf.surface.figures import MARKET_REACH, smile_figure, smiles_figure, surface_figure, term_figure
from volsurf.surface.html import fits_table, sparkline
from volsurf.surface.report import report_html

VOID = {"meta", "br", "path", "polyline", "i"}


class Tags(HTMLParser):
    """Every tag that opens closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links.extend(v or "" for k, v in attrs if k in ("src", "href") and tag != "a")
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def chain() -> Chain:
    market = Quoted()
    rows = market.rows()
    i = next(
        i for i, r in enumerate(rows) if r.is_call and r.strike > r.forward * 1.05 and r.expiry_ns == NOW + 30 * DAY
    )
    rows[i] = replace(rows[i], bid=rows[i].bid * 2.5, ask=rows[i].ask * 2.5)
    rows[i + 2] = replace(rows[i + 2], bid=0.0)
    other = chain_frame(Quoted("SOL", Settlement.LINEAR, spot=140.0))
    return Chain.from_polars(pl.concat([chain_frame(market, rows), other]))


@pytest.fixture(scope="module")
def surfaces(chain: Chain) -> dict[str, vs.Surface]:
    return vs.fit_surfaces(chain)


def test_surface_figure_draws_the_surface(surfaces: dict[str, vs.Surface]) -> None:
    surface = surfaces["BTC"]
    drawn = surface.plot().data[0]
    z, x, y = np.array(drawn.z), np.array(drawn.x), np.array(drawn.y)
    assert np.isfinite(z).all()
    assert np.abs(x).max() == MARKET_REACH
    row, column = 10, 7
    years = y[row, column] / 365
    k = np.array(drawn.customdata)[row, column, 1]
    assert z[row, column] == pytest.approx(float(surface.vol(k=k, years=years)), rel=1e-12)
    # Every listed expiry is a row of the mesh, and a line on it.
    for smile in surface.smiles:
        assert np.isclose(y[:, 0], 365 * smile.years).any()
    # The mesh, the quotes, and each expiry with two standard errors on either side.
    assert len(surface.plot().data) == 2 + 3 * len(surface)


def test_smiles_figure_has_a_panel_an_expiry_with_every_quote(surfaces: dict[str, vs.Surface]) -> None:
    surface = surfaces["BTC"]
    figure = smiles_figure(surface)
    assert [a.text.split("<b>")[1].split("</b>")[0] for a in figure.layout.annotations] == [
        s.expiry_label for s in surface.smiles
    ]
    bids = [t for t in figure.data if t.meta == "bid"]
    asks = [t for t in figure.data if t.meta == "ask"]
    left_out = [t for t in figure.data if t.meta == "unused"]
    assert sum(len(t.x) for t in bids) == sum(int((s.used & np.isfinite(s.bid_vol)).sum()) for s in surface.smiles)
    assert sum(len(t.x) for t in asks) == sum(int((s.used & np.isfinite(s.ask_vol)).sum()) for s in surface.smiles)
    assert "six error bars" in left_out[0].text[0]
    assert any("open" in symbol for t in asks for symbol in t.marker.symbol)
    solid = [t for t in figure.data if t.meta == "curve" and t.line.dash == "solid"]
    for trace, smile in zip(solid, surface.smiles, strict=True):
        np.testing.assert_allclose(trace.y, smile.fitted_vol(np.log(np.array(trace.x) / smile.forward)), rtol=1e-9)
    assert len(smile_figure(surface.smiles[1]).data) > 5
    assert len(surface.plot_smiles().data) == len(figure.data)


def test_term_figure(surfaces: dict[str, vs.Surface]) -> None:
    figure = term_figure(surfaces["SOL"])
    np.testing.assert_allclose(figure.data[0].y, surfaces["SOL"].atm_vol)
    np.testing.assert_allclose(figure.data[1].y, [s.forward for s in surfaces["SOL"].smiles])


def test_figures_of_slices_without_quotes_or_fit(surfaces: dict[str, vs.Surface]) -> None:
    near, middle, far = surfaces["BTC"].smiles
    empty = {
        n: getattr(middle, n)[:0]
        for n in (
            "strike",
            "log_moneyness",
            "bid_vol",
            "ask_vol",
            "vol",
            "error",
            "side",
            "is_call",
            "instrument_id",
            "reason",
        )
    }
    surface = vs.Surface("BTC", NOW, (near, replace(middle, **empty), far))
    for figure in (surface_figure(surface), smiles_figure(surface), term_figure(surface)):
        assert figure.to_json()
    unfitted = vs.Surface("BTC", NOW, (near, middle.with_fit(None)))
    for figure in (surface_figure(unfitted), smiles_figure(unfitted), term_figure(unfitted)):
        assert figure.to_json()
    assert "no usable quote" in unfitted._repr_html_()
    assert sparkline(middle.with_fit(None)) == ""


def test_page_is_complete_in_itself(chain: Chain, surfaces: dict[str, vs.Surface]) -> None:
    page = report_html(surfaces, chain.quote_vols(), title="a <b>chain</b> & more")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.links == []
    text = " ".join(tags.text)
    assert "a <b>chain</b> & more" in text
    for surface in surfaces.values():
        for smile in surface.smiles:
            assert smile.expiry_label in text
    assert "six error bars" in text
    figures = re.findall(r"<script type='application/json' data-plot='([\w-]+)'>(.*?)</script>", page, re.DOTALL)
    assert [name for name, _ in figures] == [
        f"{kind}-{u}" for u in ("BTC", "SOL") for kind in ("surface", "term", "smiles", "through")
    ]
    for name, data in figures:
        assert json.loads(data)["data"], name
        assert f"id='{name}'" in page
    # The rows of the ledger add up on the page as well.
    ledger = page.split("id='ledger'")[1].split("<script>")[0]
    counts = [int(n.replace(",", "")) for n in re.findall(r"class='count'>([\d,]+)<", ledger)]
    assert sum(counts[:-1]) == counts[-1] == len(chain)


def csv_of(frame: pl.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "chain.csv"
    frame.write_csv(path)
    return path


def test_command_prints_figures_that_add_up(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert main(["fit", str(csv_of(chain.frame, tmp_path)), "--html", str(page), "--json"]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out.splitlines()[-1])
    assert figures["rows"] == 300
    assert sum(v for k, v in figures.items() if k.startswith("ledger_")) == 300
    assert (figures["underlyings"], figures["expiries_listed"], figures["expiries_fitted"]) == (2, 6, 6)
    assert figures["slices_certified"] == 6
    assert figures["BTC_atm_vol_30d"] == pytest.approx(0.44, abs=0.02)
    for word in ("Forwards", "Fits", "Certificates", "Ledger", "outlier", "rows in the file"):
        assert word in out
    assert page.stat().st_size > 3e6


def test_terminal_without_unicode_gets_question_marks(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["fit", str(csv_of(chain.frame, tmp_path)), "--underlying", "BTC", "--json"]) == 0
    sys.stdout.flush()
    assert json.loads(raw.getvalue().splitlines()[-1])["slices_off_quotes"] == 0


def test_figures_are_json_where_no_quote_has_two_sides(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asks = chain.frame.with_columns(bid=pl.lit(0.0))
    assert main(["fit", str(csv_of(asks, tmp_path)), "--underlying", "BTC", "--json"]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out.splitlines()[-1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert figures["inside_percent"] is figures["BTC_inside_percent"] is None
    assert "nan" not in out
    only = Chain.from_polars(asks).select("BTC")
    assert "no two-sided quote" in repr(vs.diagnose(vs.fit_surface(only), only.quote_vols()))


def test_name_with_markup_is_shown_as_it_is(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "[red]<b>x</b>"
    table = chain.frame.filter(pl.col("underlying") == "BTC").with_columns(underlying=pl.lit(name))
    page = tmp_path / "page.html"
    assert main(["fit", str(csv_of(table, tmp_path)), "--html", str(page)]) == 0
    assert capsys.readouterr().out.startswith(f"{name}  2026-")
    assert "<b>x" not in page.read_text(encoding="utf-8").split("</header>")[1].replace("<b>4JUN26", "")


def test_curve_off_its_quotes_is_marked_on_page_and_terminal(
    surfaces: dict[str, vs.Surface], capsys: pytest.CaptureFixture[str]
) -> None:
    near = surfaces["BTC"].smiles[0]
    assert near.fit is not None
    off = near.with_fit(replace(near.fit, inside=0.2, rms=31.0, jump=(math.log(1.5), math.log(0.5), 0.5)))
    table = fits_table(vs.Surface("BTC", NOW, (off,)))
    assert ">off its quotes</span>" in table
    assert ">event</span>" in table
    assert "20% of" in table
    assert "off its quotes" not in fits_table(vs.Surface("BTC", NOW, (near,)))


def test_no_number_is_cut_in_eighty_columns(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["fit", str(csv_of(chain.frame, tmp_path)), "--underlying", "BTC"]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert max(len(line) for line in out.splitlines()) <= 80
    fit = next(s.fit for s in vs.fit_surface(chain.select("BTC")))
    assert fit is not None
    for value in (fit.a, fit.b, fit.rho, fit.m, fit.sigma):
        assert f"{value:+.7f}" in out


def test_command_for_one_underlying(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(csv_of(chain.frame, tmp_path)), "--underlying", "SOL", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["rows"] == 150
    assert "BTC_atm_vol_30d" not in figures


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, [], "no file"),
        (lambda f: f.drop("strike"), [], "lacks the column strike"),
        (
            lambda f: f.with_columns(bid=pl.lit(None), ask=pl.lit(None)),
            [],
            "no expiry of the chain can be fitted: of 300 rows 300 no quote",
        ),
        (lambda f: f, ["--underlying", "DOGE"], "no underlying 'DOGE'; it has BTC, SOL"),
        (lambda f: f, ["--html", "/nowhere/at/all.html"], "no directory /nowhere/at"),
    ],
)
def test_command_fails_with_a_sentence(
    change: object, arguments: list[str], message: str, chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain.csv"
    if callable(change):
        change(chain.frame).write_csv(path)
    assert main(["fit", str(path), *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("volsurf: ")
    assert captured.out == ""


def test_example_chain_is_fitted_to_its_truth() -> None:
    chain = Chain.from_csv(Path(__file__).resolve().parents[2] / "data" / "chain_btc_simulated.csv")
    surface = vs.fit_surface(chain)
    assert surface.certificate
    quotes = surface.to_polars("quotes").filter(pl.col("reason") == "used")
    truth = chain.frame.select(
        pl.col("expiry").str.to_datetime(time_zone="UTC", time_unit="ns"), "strike", "option_type", "true_vol"
    )
    both = quotes.join(truth, on=["expiry", "strike", "option_type"])
    assert both.height == quotes.height > 400
    near = both.filter(pl.col("log_moneyness").abs() < 0.02)
    assert (near["fitted_vol"] - near["true_vol"]).abs().median() < 5e-4  # type: ignore[operator]
    two_sided = both.filter(pl.col("side") == 0)
    half = 0.5 * (two_sided["ask_vol"] - two_sided["bid_vol"])
    assert ((two_sided["fitted_vol"] - two_sided["true_vol"]).abs() <= half).mean() > 0.97  # type: ignore[operator]
