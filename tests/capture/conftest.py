"""A short recording of a simulated exchange, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capture.recorded import until
from tests.engine.exchange import Exchange
from volsurf.capture.recording import Recording


@pytest.fixture(scope="package")
def exchange() -> Iterator[Exchange]:
    """A simulated Deribit."""
    exchange = Exchange(("BTC",))
    yield exchange
    exchange.close()


@pytest.fixture(scope="package")
def recording(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A finished recording with books and trades, in several segments."""
    path: Path = tmp_path_factory.mktemp("recording") / "capture"
    options = {"books": True, "segment_mb": 0.2, "flush_seconds": 0.02, "min_free_mb": 0}
    with Recording("deribit", "BTC", path, url=exchange.url, **options) as recording:
        until(lambda: recording.is_ready)
        until(lambda: recording.figures["trades"] >= 2 and recording.figures["venues"]["deribit"]["segments"] >= 4)
    return recording
