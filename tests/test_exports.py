"""The public names are pinned: adding one is a decision, and losing one breaks notebooks."""

from __future__ import annotations

import subprocess
import sys

import volsurf as vs

PUBLIC = """
    BookEvent BookState BookTable Bump Capture Certificate Chain ConfigError ConsolidatedQuotes ESSVI
    Enforcement EngineError EventJump Explanation Feed FeedError Field FitResult Frame Greeks ImpliedVolStatus
    InputError Instrument Kind NotReadyError OrderBook Portfolio PortfolioValue Position ProtocolError
    QuoteBatch QuoteBoard QuoteVols RawSVI Recording Replay ReplayError Report RiskTable SSVI SVIFit Session Settlement
    Smile StreamError Surface ThroughHistory ThroughMatrix ThroughState TradeEvent Universe Verdict
    VolsurfError attach black_greeks black_price build_smiles capture check_butterfly check_calendar
    consolidated_quotes diagnose explain fit_essvi fit_event fit_smiles fit_ssvi fit_surface fit_surfaces
    fit_svi implied_vol implied_vol_status live open_capture quote_vols replay through_matrix
"""


def test_public_names_are_pinned() -> None:
    assert vs.__all__ == sorted(PUBLIC.split())


def test_every_public_name_resolves_and_is_documented() -> None:
    for name in vs.__all__:
        value = getattr(vs, name)
        assert value.__doc__, f"{name} has no docstring"


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(vs, "surfcae")


def test_import_loads_nothing_heavy() -> None:
    heavy = "numba scipy pandas polars plotly websockets anywidget ipywidgets rich asyncio"
    code = f"import sys, volsurf; print([m for m in '{heavy}'.split() if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
