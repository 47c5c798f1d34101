"""The dashboard as visitors get it: Voila, Chromium, an engine's stream."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psutil
import pytest

from tests.browser.conftest import Visit
from tests.browser.market_engine import MarketEngine
from volsurf.dashboard import DashboardProcess, launch_dashboard

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def engine() -> Iterator[MarketEngine]:
    with MarketEngine(("BTC", "ETH", "SOL_USDC")) as engine:
        yield engine


@pytest.fixture(scope="module")
def dashboard(engine: MarketEngine) -> Iterator[DashboardProcess]:
    with launch_dashboard(engine.url, port=0, theme="dark", cull_seconds=6.0) as dashboard:
        yield dashboard
    assert not dashboard.is_alive


def kernels(dashboard: DashboardProcess) -> list[psutil.Process]:
    return [
        p
        for p in psutil.Process(dashboard.pid).children(recursive=True)
        if p.is_running() and p.status() != psutil.STATUS_ZOMBIE
    ]


def test_it_draws_at_the_engines_pace_and_leaves_no_kernel(dashboard: DashboardProcess, visit: Open) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    page.page.wait_for_timeout(1000)
    assert page.colours("surface") > 500
    assert page.colours("smiles") > 500
    before = page.page.locator(".vs-smiles").screenshot()
    rate = page.rate(5.0)
    assert rate >= 8.0
    assert page.page.locator(".vs-smiles").screenshot() != before
    assert page.told("surface")["state"] == "live"
    page.keep("dashboard_dark")
    page.check()
    assert len(kernels(dashboard)) == 1
    page.page.goto("about:blank")
    assert page.eventually(lambda: not kernels(dashboard), 3.0), "leaving the page ends its kernel"


def test_what_a_trader_does(dashboard: DashboardProcess, visit: Open) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    mouse = page.page.mouse

    surface = page.page.locator(".vs-surface").bounding_box()
    assert surface is not None
    x, y = surface["x"] + 0.45 * surface["width"], surface["y"] + 0.55 * surface["height"]
    readout = "document.querySelectorAll('.vs-surface > canvas')[1].dataset.readout ?? ''"
    for dy in range(-120, 121, 20):
        mouse.move(x, y + dy)
        page.page.wait_for_timeout(120)
        if page.page.evaluate(readout):
            break
    text = page.page.evaluate(readout)
    assert re.fullmatch(
        r"\d+\.\d\d% ±\d+(\.\d\d)?   [\d.]+Δ (put|call) \| strike [\d,]+ \| \d+ \w{3} \d\d · [\d.]+ [hd] \| ln K/F [+−]\d\.\d{3}"
        r"( \| [a-z ]+: do not quote on it)?",
        text,
    ), text

    mouse.down()
    mouse.move(x + 160, y + 40, steps=4)
    mouse.up()
    page.page.locator(".vs-surface button", has_text="axis: delta").click()
    page.page.wait_for_selector(".vs-surface button:has-text('axis: ln K/F')")
    page.page.wait_for_timeout(600)
    page.keep("dashboard_turned")

    smiles = page.page.locator(".vs-smiles").bounding_box()
    assert smiles is not None
    mouse.click(smiles["x"] + 0.5 * smiles["width"], smiles["y"] + 0.4 * smiles["height"])
    page.page.wait_for_selector(".vs-smiles button:has-text('all expiries')", state="visible")
    mouse.move(smiles["x"] + 0.4 * smiles["width"], smiles["y"] + 0.5 * smiles["height"])
    page.page.wait_for_function("document.querySelector('.vs-smiles > canvas').dataset.readout?.startsWith('strike')")
    page.keep("dashboard_one_expiry")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".vs-smiles button:has-text('all expiries')", state="hidden")

    page.page.locator(".vs-status button", has_text="ETH").click()
    page.page.wait_for_function("document.querySelector('.vs-status button[aria-pressed=true]').textContent === 'ETH'")
    page.page.wait_for_function("document.querySelector('.vs-status').textContent.includes('9 / 9')")
    page.page.wait_for_timeout(500)
    page.keep("dashboard_eth")
    page.check()


def test_error_bands_and_what_not_to_quote_on_are_seen(dashboard: DashboardProcess, visit: Open) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    page.page.wait_for_selector(".vs-alert:has-text('30NOV26 17:36 has arbitrage: do not quote on it and 3 more')")
    told = page.page.locator(".vs-alert").get_attribute("title")
    assert told is not None
    assert "11DEC26 17:36 is guarded: do not quote on it" in told.split("\n")
    fact = page.page.locator(".vs-fact", has_text="30-day ATM vol").locator("b")
    assert re.fullmatch(r"\d+\.\d% ±0\.\d\d", fact.inner_text())
    certified = page.page.locator(".vs-fact", has_text="arbitrage-free").locator("b")
    assert certified.inner_text() == "9 / 12"
    assert certified.evaluate("e => getComputedStyle(e).color") == page.ink("status", "bad")

    assert page.painted("smiles", "band", 0.34) > 600, "two standard errors, where the curve is surer than the quotes"
    assert page.painted("smiles", "muted", 0.18) > 100, "and in grey, where it is not"
    assert page.painted("smiles", "unsure") > 500, "the frame of the guarded expiry"
    assert page.painted("smiles", "bad") > 1000, "the frames of those with arbitrage"

    page.page.locator(".vs-smiles").focus()
    for _ in range(6):
        page.page.keyboard.press("ArrowRight")
    page.page.wait_for_selector(".vs-smiles button:has-text('all expiries')", state="visible")
    page.page.wait_for_timeout(300)
    assert page.painted("smiles", "band", 0.34) > 1500
    box = page.page.locator(".vs-smiles").bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    page.page.wait_for_function("document.querySelector('.vs-smiles > canvas').dataset.readout?.startsWith('strike')")
    text = page.page.evaluate("document.querySelector('.vs-smiles > canvas').dataset.readout")
    assert re.search(r"\| SVI \d+\.\d\d% ±\d+(\.\d\d)?   ln K/F [+−]\d\.\d{3} \| guarded: do not quote on it$", text), (
        text
    )
    page.keep("dashboard_guarded")
    page.check()


def test_an_engine_that_stops_is_seen_to_have_stopped(
    dashboard: DashboardProcess, engine: MarketEngine, visit: Open
) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    engine.paused = True
    try:
        page.page.wait_for_selector(".vs-surface.vs-old", timeout=8000)
        # Each panel watches its own age, so they do not turn in the same instant.
        page.page.wait_for_function(
            "document.querySelector('.vs-smiles .vs-notice').innerText.startsWith('no frame for')"
        )
        page.page.wait_for_function("document.querySelector('.vs-status').textContent.includes('no frame for')")
        page.keep("dashboard_stale")
    finally:
        engine.paused = False
    page.page.wait_for_selector(".vs-surface:not(.vs-old)", timeout=8000)
    assert page.told("surface")["state"] == "live"
    page.check()


def test_a_silent_venue_is_told_apart_from_a_silent_engine(
    dashboard: DashboardProcess, engine: MarketEngine, visit: Open
) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    engine.silent_ns = 12_000_000_000
    try:
        page.page.wait_for_selector(".vs-smiles.vs-old", timeout=8000)
        assert page.page.locator(".vs-smiles .vs-notice").inner_text().startswith("feed stale for 1")
    finally:
        engine.silent_ns = 40_000_000
    page.page.wait_for_selector(".vs-smiles:not(.vs-old)", timeout=8000)


def feed_lines(page: Visit) -> list[str]:
    return [" | ".join(row.locator("td").all_inner_texts()) for row in page.page.locator(".vs-feeds tr").all()[1:]]


def box(page: Visit, selector: str) -> dict[str, float]:
    found = page.page.locator(selector).bounding_box()
    assert found is not None
    return dict(found)


def test_each_feed_has_a_line_and_a_narrow_page_keeps_its_name_state_delay_and_age(
    dashboard: DashboardProcess, engine: MarketEngine, visit: Open
) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    page.page.wait_for_selector(".vs-feeds td:has-text('12,340')", timeout=10_000)
    (line,) = feed_lines(page)
    assert line == "● deribit | 12,340 | 5.2 ms · 18 ms | +3.4 ms | 92 ms · 640 ms | 0 | 0 | 0 | ready"
    one = box(page, ".vs-status")["height"]
    assert one < 95
    page.keep("dashboard_one_feed")
    engine.feeds = 4
    try:
        page.page.wait_for_selector(".vs-feeds tr:nth-child(5)", timeout=5_000)
        page.page.wait_for_selector(".vs-status:has-text('3 of 4 venues')")
        deribit, okx, bybit, binance = feed_lines(page)
        assert deribit.startswith("● deribit | 12,340 | ")
        assert okx.endswith("| −35 ms · 61 ms | −41 ms | 92 ms · 640 ms | 12 / 11 | 1 | 3 | ready")
        assert bybit.startswith("■ bybit | ")
        assert bybit.endswith("| 7.5 s · 13 s | +7.3 s | 92 ms · 5.4 s | 0 | 0 | 0 | late · left out of BTC, ETH")
        assert binance.endswith("| ready · index BTCUSDT silent for 14 s, limit 10 s")
        # Panels below give way, nothing lies over anything, and no line is cut off.
        status, surface = box(page, ".vs-status"), box(page, ".vs-surface")
        assert one + 50 < status["height"] < 180
        assert surface["y"] >= status["y"] + status["height"] - 1
        last = box(page, ".vs-feeds tr:last-child")
        assert last["y"] + last["height"] <= status["y"] + status["height"] + 1
        # A feed that is new has no rate before there is one.
        page.page.wait_for_selector(".vs-feeds td:has-text('4,100')", timeout=10_000)
        page.keep("dashboard_four_feeds")

        page.page.set_viewport_size({"width": 520, "height": 1000})
        page.page.wait_for_selector(".vs-feeds .vs-fine", state="hidden")
        shown = [th.inner_text() for th in page.page.locator(".vs-feeds th").all() if th.is_visible()]
        assert shown == ["venue", "delay · 95 %", "quotes' age · 95 %", "state"]
        table, host = box(page, ".vs-feeds"), box(page, ".vs-status")
        assert table["width"] <= host["width"] + 1
        page.keep("dashboard_four_feeds_narrow")
        page.check()
    finally:
        engine.feeds = 1


HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  Object.defineProperty(document, "visibilityState", { configurable: true, get: () => (hidden ? "hidden" : "visible") });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_costs_nothing_and_wakes_at_once(dashboard: DashboardProcess, visit: Open) -> None:
    page = visit("about:blank")
    received: list[int] = []
    page.page.on("websocket", lambda socket: socket.on("framereceived", lambda data: received.append(len(data))))
    page.page.goto(dashboard.url)
    page.wait_drawn()
    page.page.evaluate(HIDE, True)
    page.page.wait_for_timeout(7000)  # the lease
    received.clear()
    page.page.wait_for_timeout(3000)
    assert sum(received) < 2_000, "nothing is sent to a tab nobody sees"
    page.page.evaluate(HIDE, False)
    page.page.wait_for_function("document.querySelector('.vs-surface').dataset.state === 'live'", timeout=3000)
    assert page.rate(3.0) >= 8.0
    # The farewell is sent only by a page that is left, so leave it.
    page.page.goto("about:blank")
    assert page.eventually(lambda: not kernels(dashboard), 3.0)


def test_a_tab_that_was_killed_leaves_no_kernel_for_long(dashboard: DashboardProcess, visit: Open) -> None:
    other = visit("about:blank")
    assert other.eventually(lambda: not kernels(dashboard), 30.0), (
        "the pages of the tests before were closed without a word, too"
    )
    page = visit(dashboard.url)
    page.wait_drawn()
    assert len(kernels(dashboard)) == 1
    page.context.close()  # no beforeunload: as a crash
    assert len(kernels(dashboard)) == 1
    # 5 s of lease, 6 s of idleness, and a look every second; then the process must go.
    assert other.eventually(lambda: not kernels(dashboard), 25.0)


def test_visitors_share_the_engine_and_hold_one_connection_each(
    dashboard: DashboardProcess, engine: MarketEngine, visit: Open
) -> None:
    others = visit("about:blank")
    assert others.eventually(lambda: not kernels(dashboard), 30.0)
    one, two = visit(dashboard.url, width=1000, height=600), visit(dashboard.url, width=1000, height=600)
    for page in (one, two):
        page.wait_drawn()
    assert len(kernels(dashboard)) == 2
    for kernel in kernels(dashboard):
        assert (
            len([c for c in kernel.net_connections("tcp") if c.raddr and c.raddr.port == urlsplit(engine.url).port])
            == 1
        )


def ask(url: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_a_client_without_the_subprotocol_is_refused(dashboard: DashboardProcess, visit: Open) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    kernel = page.page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    for headers in (UPGRADE, UPGRADE | {"Sec-WebSocket-Protocol": "v0.kernel, other"}):
        status, _ = ask(dashboard.url, f"/api/kernels/{kernel}/channels", headers)
        assert status == 400
    foreign = UPGRADE | {"Sec-WebSocket-Protocol": "v1.kernel.websocket.jupyter.org", "Origin": "http://evil.example"}
    assert ask(dashboard.url, f"/api/kernels/{kernel}/channels", foreign)[0] == 403
    assert page.rate(2.0) >= 8.0, "and nobody else notices"


@pytest.mark.parametrize(
    "path", ["/api/contents", "/api/kernels", "/api/sessions", "/voila/files/surface.ipynb", "/voila/files/voila.json"]
)
def test_nothing_but_the_page_is_published(dashboard: DashboardProcess, path: str) -> None:
    status, text = ask(dashboard.url, path, {})
    assert status in (302, 403, 404), text
    assert "vs.attach" not in text


def test_a_page_of_another_name_is_refused(dashboard: DashboardProcess) -> None:
    assert ask(dashboard.url, "/", {"Host": "rebound.example"})[0] == 403


def test_the_page_shows_no_source_and_keeps_to_this_host(dashboard: DashboardProcess, visit: Open) -> None:
    page = visit(dashboard.url)
    page.wait_drawn()
    html = page.page.content()
    assert "vs.attach" not in html
    assert "jsdelivr" not in re.sub(r'<meta name="removed"[^>]*>', "", html)
    page.check()
