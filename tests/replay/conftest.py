"""Sessions that several tests read."""

from __future__ import annotations

import pytest

from tests.replay.sessions import Session, cut, drop, faults, record, silence, small_blocks
from volsurf.capture.directory import CaptureOptions


@pytest.fixture(scope="session")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Deribit for 3 s, with books and trades: a connection that breaks, messages that are lost, a silence."""
    script = faults(
        {
            0.8: drop("deribit", 7),
            1.2: cut("deribit"),
            2.2: silence("deribit", True),
            2.5: silence("deribit", False),
        }
    )
    return record(tmp_path_factory.mktemp("captures") / "eventful", meddle=script)


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Deribit for 3 s, tickers and trades, nothing goes wrong; in several blocks."""
    options = CaptureOptions(pending_mb=1e6, min_free_mb=0.0, segment_mb=1e6, segment_seconds=1e6, flush_seconds=0.005)
    path = tmp_path_factory.mktemp("captures") / "calm"
    return record(path, books=False, options=options, meddle=small_blocks)


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """All four venues for 1.4 s, with two faults."""
    script = faults({0.6: cut("okx"), 0.9: drop("bybit", 5)})
    venues = ("deribit", "okx", "bybit", "binance")
    return record(tmp_path_factory.mktemp("captures") / "four", venues, seconds=1.4, books=False, meddle=script)
