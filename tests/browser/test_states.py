"""What the dashboard says when there is nothing to draw, and how it looks by day."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser.conftest import Visit
from tests.browser.market_engine import MarketEngine
from volsurf.dashboard import launch_dashboard

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def engine() -> Iterator[MarketEngine]:
    with MarketEngine(paused=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(engine: MarketEngine) -> Iterator[str]:
    with launch_dashboard(engine.url, port=0, theme="light", cull_seconds=6.0) as dashboard:
        yield dashboard.url


def test_from_waiting_to_the_first_frame_by_day(engine: MarketEngine, url: str, visit: Open) -> None:
    engine.server.say("compiling kernels: 12 of 40")
    page = visit(url)
    page.page.wait_for_selector(".vs-surface .vs-notice:has-text('compiling kernels: 12 of 40')", timeout=30_000)
    page.page.wait_for_selector(".vs-status:has-text('compiling kernels: 12 of 40')")
    assert page.told("smiles")["state"] == "waiting"
    page.page.wait_for_timeout(300)
    page.keep("dashboard_waiting")
    engine.paused = False
    page.wait_drawn(5.0)
    page.page.wait_for_timeout(1500)
    assert page.page.locator(".vs-surface .vs-notice").inner_text() == ""
    assert page.colours("surface") > 500
    assert page.ground("surface") == "rgb(255, 255, 255)"
    page.keep("dashboard_light")
    page.check()


def test_an_underlying_that_goes_is_named(engine: MarketEngine, url: str, visit: Open) -> None:
    engine.paused = False
    page = visit(url)
    page.wait_drawn()
    page.page.locator(".vs-status button", has_text="ETH").click()
    page.page.wait_for_selector(".vs-status:has-text('9 / 9')")
    engine.underlyings = ("BTC",)
    try:
        page.page.wait_for_selector(".vs-smiles .vs-notice:has-text('no quotes for ETH')", timeout=5000)
        page.page.wait_for_selector(".vs-surface .vs-notice:has-text('no quotes for ETH')", timeout=5000)
        page.keep("dashboard_no_quotes")
    finally:
        engine.underlyings = ("BTC", "ETH")
    page.page.wait_for_selector(".vs-smiles .vs-notice:text-is('')", timeout=5000, state="attached")
    page.check()


def test_an_engine_that_dies_is_named_and_found_again(engine: MarketEngine, url: str, visit: Open) -> None:
    engine.paused = False
    page = visit(url)
    page.wait_drawn()
    engine.close()
    page.page.wait_for_selector(".vs-smiles .vs-notice:has-text('disconnected')", timeout=12_000)
    page.page.wait_for_selector(".vs-status:has-text('disconnected')")
    page.keep("dashboard_disconnected")
    with MarketEngine(port=engine.port):
        page.page.wait_for_selector(".vs-smiles:not(.vs-old)", timeout=15_000)
        assert page.rate(2.0) >= 7.0


def test_a_page_without_an_engine_says_how_to_get_one(visit: Open) -> None:
    with launch_dashboard(None, port=0, theme="dark") as dashboard:
        page = visit(dashboard.url)
        page.page.wait_for_selector("text=No engine to show", timeout=30_000)
        page.page.wait_for_timeout(300)
        page.keep("dashboard_no_engine")
        page.check()
