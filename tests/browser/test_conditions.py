"""The dashboard where conditions are not the best: little width, no mouse, no WebGL, a graphics card that was reset."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser.conftest import Visit
from tests.browser.market_engine import MarketEngine
from volsurf.dashboard import launch_dashboard

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with (
        MarketEngine(("BTC", "ETH", "SOL_USDC")) as engine,
        launch_dashboard(engine.url, port=0, theme="dark") as dashboard,
    ):
        yield dashboard.url


BOX = "name => { const b = document.querySelector(name).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] }"


def test_a_narrow_page_stacks_its_panels_and_keeps_the_choice_of_underlying(url: str, visit: Open) -> None:
    page = visit(url, width=500)
    page.wait_drawn()
    page.page.wait_for_selector(".vs-status button:has-text('SOL')")
    for button in page.page.locator(".vs-status button").all():
        box = button.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        assert page.page.evaluate("([x, y]) => document.elementFromPoint(x, y)?.textContent", [x, y]) == (
            button.inner_text()
        ), "nothing covers or cuts it"
    surface, smiles = page.page.evaluate(BOX, ".vs-surface"), page.page.evaluate(BOX, ".vs-smiles")
    assert surface[2] - surface[0] > 480
    assert smiles[2] - smiles[0] > 480
    assert smiles[1] >= surface[3]
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.page.wait_for_timeout(400)
    page.keep("dashboard_narrow")
    page.page.locator(".vs-smiles").scroll_into_view_if_needed()
    page.page.wait_for_timeout(1000)
    assert page.rate(3.0, "smiles") >= 8.0
    page.check()


def test_a_keyboard_reaches_everything(url: str, visit: Open) -> None:
    page = visit(url)
    page.wait_drawn()
    names = page.page.eval_on_selector_all("[tabindex='0'][aria-label][role]", "all => all.map(e => e.ariaLabel)")
    assert [name.split(":")[0] for name in names] == ["implied vol surface", "smiles by expiry"]
    page.page.locator(".vs-smiles").focus()
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_selector(".vs-smiles button:has-text('all expiries')", state="visible")
    ring = "getComputedStyle(document.querySelector('.vs-smiles'), '::after').borderTopWidth"
    assert page.page.evaluate(ring) == "2px", "who uses the keyboard sees where it goes"
    page.keep("dashboard_keyboard")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".vs-smiles button:has-text('all expiries')", state="hidden")
    page.page.keyboard.press("ArrowLeft")
    page.page.wait_for_selector(".vs-smiles button:has-text('all expiries')", state="visible")
    page.page.keyboard.press("Escape")

    before = page.page.locator(".vs-surface").screenshot()
    page.page.locator(".vs-surface").focus()
    for _ in range(5):
        page.page.keyboard.press("ArrowLeft")
    page.page.wait_for_timeout(300)
    assert page.page.locator(".vs-surface").screenshot() != before
    page.check()


# A wheel event that nobody prevented goes on to scroll the page.
WHEEL = """([x, y, ctrlKey]) => {
  const target = document.elementFromPoint(x, y);
  const turn = { deltaY: 120, clientX: x, clientY: y, ctrlKey, bubbles: true, cancelable: true };
  return !target.dispatchEvent(new WheelEvent("wheel", turn));
}"""


def test_the_wheel_scrolls_the_page_until_the_surface_is_clicked(url: str, visit: Open) -> None:
    page = visit(url)
    page.wait_drawn()
    left, top, right, bottom = page.page.evaluate(BOX, ".vs-surface")
    at = [(left + right) / 2, (top + bottom) / 2]
    mouse = page.page.mouse
    mouse.move(*at)
    assert page.page.evaluate(WHEEL, [*at, False]) is False
    assert page.page.evaluate(WHEEL, [*at, True]) is True, "ctrl and the wheel zoom at any time"
    mouse.down()
    mouse.up()
    assert page.page.evaluate(WHEEL, [*at, False]) is True
    mouse.move(right + 200, at[1])
    mouse.move(*at)
    assert page.page.evaluate(WHEEL, [*at, False]) is False, "a click long ago does not hold the page for ever"
    page.check()


def test_a_graphics_context_that_is_lost_is_named_and_comes_back(url: str, visit: Open) -> None:
    page = visit(url)
    page.wait_drawn()
    gl = "document.querySelector('.vs-surface > canvas').getContext('webgl2')"
    page.page.evaluate(f"window.lose = {gl}.getExtension('WEBGL_lose_context'); window.lose.loseContext()")
    page.page.wait_for_selector(".vs-surface .vs-notice:has-text('graphics context lost')", timeout=5000)
    assert page.rate(2.0, "smiles") >= 8.0, "the other panel does not mind"
    page.page.evaluate("window.lose.restoreContext()")
    page.page.wait_for_selector(".vs-surface .vs-notice:text-is('')", state="attached", timeout=5000)
    page.page.wait_for_timeout(500)
    assert page.colours("surface") > 500
    page.check()


def test_without_webgl_the_surface_says_so_and_the_smiles_are_drawn(url: str, visit: Open) -> None:
    page = visit("about:blank")
    page.page.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        "  return kind.startsWith('webgl') ? null : real.call(this, kind, ...rest) }"
    )
    page.page.goto(url)
    page.page.wait_for_selector(".vs-surface .vs-notice:has-text('WebGL2 is not available')", timeout=60_000)
    page.page.wait_for_selector(".vs-smiles[data-frame][data-drawn]")
    assert page.colours("smiles") > 500
    page.page.wait_for_timeout(500)
    page.keep("dashboard_no_webgl")
    page.check()
