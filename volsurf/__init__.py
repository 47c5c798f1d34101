"""Live crypto-option feeds to an arbitrage-certified implied-volatility surface.

    import volsurf as vs

    surface = vs.fit_surface(vs.Chain.from_csv("chain.csv"))      # a static chain
    session = vs.live("deribit", underlyings=["BTC"])             # or a live engine, shown by session.widget()

Names are resolved when they are first used: importing the package loads neither numba nor any plotting, socket or widget
library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "volsurf.errors": (
        "ConfigError",
        "EngineError",
        "FeedError",
        "InputError",
        "NotReadyError",
        "ProtocolError",
        "ReplayError",
        "StreamError",
        "VolsurfError",
    ),
    "volsurf.instruments": ("Instrument", "Kind", "Settlement", "Universe"),
    "volsurf.quotes": ("Field", "QuoteBatch", "QuoteBoard"),
    "volsurf.iv.black": ("Greeks", "black_greeks", "black_price"),
    "volsurf.iv.implied": ("ImpliedVolStatus", "implied_vol", "implied_vol_status"),
    "volsurf.svi.params": ("RawSVI",),
    "volsurf.svi.arbitrage": ("Certificate", "Verdict", "check_butterfly"),
    "volsurf.svi.calendar": ("check_calendar",),
    "volsurf.svi.fit": ("Enforcement", "FitResult", "SVIFit", "fit_svi"),
    "volsurf.svi.ssvi": ("SSVI", "fit_ssvi"),
    "volsurf.svi.essvi": ("ESSVI", "fit_essvi"),
    "volsurf.surface.quote_vols": ("QuoteVols", "quote_vols"),
    "volsurf.surface.smile": ("Smile", "build_smiles", "fit_smiles"),
    "volsurf.surface.surface": ("Surface",),
    "volsurf.surface.consolidated": ("ConsolidatedQuotes", "consolidated_quotes"),
    "volsurf.surface.chain": ("Chain", "fit_surface", "fit_surfaces"),
    "volsurf.surface.event": ("EventJump", "fit_event"),
    "volsurf.surface.positions": ("Portfolio", "Position"),
    "volsurf.surface.portfolio": ("PortfolioValue",),
    "volsurf.surface.risk": ("RiskTable",),
    "volsurf.surface.bumps": ("Bump",),
    "volsurf.diagnostics.quality": ("Report", "diagnose"),
    "volsurf.diagnostics.through": ("ThroughMatrix", "ThroughState", "through_matrix"),
    "volsurf.diagnostics.history": ("ThroughHistory",),
    "volsurf.diagnostics.explain": ("Explanation", "explain"),
    "volsurf.feeds.feed": ("Feed",),
    "volsurf.feeds.book": ("BookState", "OrderBook"),
    "volsurf.feeds.books": ("BookTable",),
    "volsurf.feeds.protocol": ("BookEvent", "TradeEvent"),
    "volsurf.capture.reader": ("Capture", "open_capture"),
    "volsurf.capture.recording": ("Recording", "capture"),
    "volsurf.replay.replay": ("Replay", "replay"),
    "volsurf.engine.frame": ("Frame",),
    "volsurf.engine.session": ("Session", "attach", "live"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"volsurf has no {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if TYPE_CHECKING:
    from volsurf.capture.reader import Capture as Capture, open_capture as open_capture
    from volsurf.capture.recording import Recording as Recording, capture as capture
    from volsurf.diagnostics.explain import Explanation as Explanation, explain as explain
    from volsurf.diagnostics.history import ThroughHistory as ThroughHistory
    from volsurf.diagnostics.quality import Report as Report, diagnose as diagnose
    from volsurf.diagnostics.through import (
        ThroughMatrix as ThroughMatrix,
        ThroughState as ThroughState,
        through_matrix as through_matrix,
    )
    from volsurf.engine.frame import Frame as Frame
    from volsurf.engine.session import Session as Session, attach as attach, live as live
    from volsurf.errors import (
        ConfigError as ConfigError,
        EngineError as EngineError,
        FeedError as FeedError,
        InputError as InputError,
        NotReadyError as NotReadyError,
        ProtocolError as ProtocolError,
        ReplayError as ReplayError,
        StreamError as StreamError,
        VolsurfError as VolsurfError,
    )
    from volsurf.feeds.book import BookState as BookState, OrderBook as OrderBook
    from volsurf.feeds.books import BookTable as BookTable
    from volsurf.feeds.feed import Feed as Feed
    from volsurf.feeds.protocol import BookEvent as BookEvent, TradeEvent as TradeEvent
    from volsurf.instruments import (
        Instrument as Instrument,
        Kind as Kind,
        Settlement as Settlement,
        Universe as Universe,
    )
    from volsurf.iv.black import Greeks as Greeks, black_greeks as black_greeks, black_price as black_price
    from volsurf.iv.implied import (
        ImpliedVolStatus as ImpliedVolStatus,
        implied_vol as implied_vol,
        implied_vol_status as implied_vol_status,
    )
    from volsurf.quotes import Field as Field, QuoteBatch as QuoteBatch, QuoteBoard as QuoteBoard
    from volsurf.replay.replay import Replay as Replay, replay as replay
    from volsurf.surface.bumps import Bump as Bump
    from volsurf.surface.chain import (
        Chain as Chain,
        fit_surface as fit_surface,
        fit_surfaces as fit_surfaces,
    )
    from volsurf.surface.consolidated import (
        ConsolidatedQuotes as ConsolidatedQuotes,
        consolidated_quotes as consolidated_quotes,
    )
    from volsurf.surface.event import EventJump as EventJump, fit_event as fit_event
    from volsurf.surface.portfolio import PortfolioValue as PortfolioValue
    from volsurf.surface.positions import Portfolio as Portfolio, Position as Position
    from volsurf.surface.quote_vols import QuoteVols as QuoteVols, quote_vols as quote_vols
    from volsurf.surface.risk import RiskTable as RiskTable
    from volsurf.surface.smile import Smile as Smile, build_smiles as build_smiles, fit_smiles as fit_smiles
    from volsurf.surface.surface import Surface as Surface
    from volsurf.svi.arbitrage import (
        Certificate as Certificate,
        Verdict as Verdict,
        check_butterfly as check_butterfly,
    )
    from volsurf.svi.calendar import check_calendar as check_calendar
    from volsurf.svi.essvi import ESSVI as ESSVI, fit_essvi as fit_essvi
    from volsurf.svi.fit import (
        Enforcement as Enforcement,
        FitResult as FitResult,
        SVIFit as SVIFit,
        fit_svi as fit_svi,
    )
    from volsurf.svi.params import RawSVI as RawSVI
    from volsurf.svi.ssvi import SSVI as SSVI, fit_ssvi as fit_ssvi
