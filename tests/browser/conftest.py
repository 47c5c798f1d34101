"""A real Chromium for the pages: on a machine without one these tests skip, in CI (`CI` set) they fail.

Playwright's sync interface keeps an event loop of its own in the thread, so its fixture lives for one module only and these
modules hold no coroutine tests.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request


ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"
HARMLESS = (
    "Unsatisfied version",  # Voila 0.5 bundles JupyterLab 4.2 and says so of every newer extension
    "No satisfying version",
    "GPU stall due to ReadPixels",  # software WebGL, when a test or a screenshot reads the canvas
)
"""Console messages that are known and mean nothing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = (
        os.environ.get("CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if path is None:
        message = "no Chromium on this machine (set CHROMIUM to its path)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Software WebGL: newer builds want to be asked for it.
        arguments = ["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-background-networking",
                     "--disable-component-update",
                     "--no-first-run", "--no-default-browser-check",
                     # Not by intercepting requests: that would swallow the farewell of a page that is left.
                     "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]  # fmt: skip
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


class Visit:
    """One page in a context of its own, that notes what went wrong and what it asked of other hosts."""

    def __init__(self, browser: Browser, *, width: int = 1600, height: int = 900, dark: bool = False) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.strangers: list[str] = []
        self.context.on("request", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        self.page.on("console", lambda m: self.errors.append(f"console: {m.text}") if m.type == "error" else None)

    def _note(self, request: Request) -> None:
        if urlsplit(request.url).scheme.startswith("http") and urlsplit(request.url).hostname != "127.0.0.1":
            self.strangers.append(request.url)

    def check(self) -> None:
        """No request left this machine and nothing was reported to the console."""
        assert self.strangers == []
        assert [e for e in self.errors if not any(known in e for known in HARMLESS)] == []

    def eventually(self, true: Callable[[], bool], seconds: float) -> bool:
        """Whether something becomes true within so many seconds; requests of the page go on being answered meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if true():
                return True
            self.page.wait_for_timeout(50)
        return true()

    # --- panels -------------------------------------------------------------------------------------------------
    def wait_drawn(self, timeout: float = 60.0) -> None:
        """All three panels have drawn a frame."""
        for name in ("surface", "smiles", "status"):
            self.page.wait_for_selector(f".vs-{name}[data-frame][data-drawn]", timeout=timeout * 1000)

    def told(self, name: str) -> dict[str, str]:
        """What a panel says about itself: frame, drawn, drawMs, state."""
        return self.page.eval_on_selector(f".vs-{name}", "e => ({...e.dataset})")

    def number(self, name: str = "surface", what: str = "frame") -> int:
        return int(self.told(name)[what])

    def rate(self, seconds: float, name: str = "surface", what: str = "frame") -> float:
        """How many a second, over so many seconds."""
        first, start = self.number(name, what), time.monotonic()
        self.page.wait_for_timeout(seconds * 1000)
        return (self.number(name, what) - first) / (time.monotonic() - start)

    def colours(self, name: str, layer: int = 0) -> int:
        """Distinct colours on a panel's canvas."""
        return self.page.evaluate(
            """([name, layer]) => {
              const from = document.querySelectorAll(`.vs-${name} > canvas`)[layer];
              const to = new OffscreenCanvas(from.width, from.height).getContext("2d");
              to.drawImage(from, 0, 0);
              return new Set(new Uint32Array(to.getImageData(0, 0, from.width, from.height).data.buffer)).size;
            }""",
            [name, layer],
        )

    def ink(self, name: str, role: str) -> str:
        """One of a panel's colours as the page computes it, rgb(r, g, b)."""
        return self.page.eval_on_selector(
            f".vs-{name}",
            """(e, role) => {
              const probe = e.appendChild(document.createElement("i"));
              probe.style.color = `var(--vs-${role})`;
              const colour = getComputedStyle(probe).color;
              probe.remove();
              return colour;
            }""",
            role,
        )

    def painted(self, name: str, role: str, alpha: float = 1.0) -> int:
        """Pixels of a panel's first canvas that have one of its colours, laid over its ground with this opacity."""
        top, under = (
            [float(part) for part in re.findall(r"[\d.]+", self.ink(name, which))[:3]] for which in (role, "background")
        )
        mixed = [alpha * t + (1 - alpha) * u for t, u in zip(top, under, strict=True)]
        return self.page.evaluate(
            """([name, mixed]) => {
              const from = document.querySelector(`.vs-${name} > canvas`);
              const to = new OffscreenCanvas(from.width, from.height).getContext("2d");
              to.drawImage(from, 0, 0);
              const data = to.getImageData(0, 0, from.width, from.height).data;
              let count = 0;
              for (let i = 0; i < data.length; i += 4) count += mixed.every((c, j) => Math.abs(data[i + j] - c) < 2.5);
              return count;
            }""",
            [name, mixed],
        )

    def ground(self, name: str) -> str:
        """Background colour of a panel."""
        return self.page.eval_on_selector(f".vs-{name}", "e => getComputedStyle(e).backgroundColor")

    def keep(self, name: str) -> None:
        """Screenshot into tests/artifacts, to be looked at."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Open pages; each is closed after the test."""
    visits: list[Visit] = []

    def open_page(url: str, **options: object) -> Visit:
        one = Visit(browser, **options)  # type: ignore[arg-type]
        visits.append(one)
        one.page.goto(url, timeout=60_000)
        return one

    yield open_page
    for one in visits:
        one.context.close()
