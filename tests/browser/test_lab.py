"""The same panels in JupyterLab, where cells compete with them for the kernel and the user picks the theme."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

from tests.browser.conftest import Visit
from tests.browser.market_engine import MarketEngine

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def engine() -> Iterator[MarketEngine]:
    with MarketEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def lab(engine: MarketEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab whose only notebook shows the panels, then blocks the kernel, then computes in it, and shows them
    once more."""
    home = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [
        nbformat.v4.new_code_cell(
            f"import volsurf as vs\nsession = vs.attach({engine.url!r})\nsession.widget(height='520px')"
        ),
        nbformat.v4.new_code_cell("import time\ntime.sleep(12)\nprint('slept')"),
        nbformat.v4.new_code_cell(
            "end = time.time() + 6\nwhile time.time() < end:\n    sum(range(1000))\nprint('computed')"
        ),
        nbformat.v4.new_code_cell("session.widget(underlying='ETH', height='300px')"),
    ]
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "page.ipynb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")
    }
    environment |= {"IPYTHONDIR": str(home / "ipython"), "OPENBLAS_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
    ]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={home / 'work'}"]
    command += [
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api", process, home / "log")
        yield f"http://127.0.0.1:{port}/lab/tree/page.ipynb?reset"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}")


def command(page: Visit, name: str, **arguments: object) -> None:
    page.page.evaluate("([name, args]) => { window.jupyterapp.commands.execute(name, args) }", [name, arguments])


def open_notebook(visit: Open, url: str) -> Visit:
    page = visit(url, height=1000)
    page.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.page.wait_for_function(
        "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=60_000
    )
    # The page may not follow the newest output: what is measured must stay in sight.
    page.page.evaluate("document.querySelectorAll('.jp-toast-container, .Toastify').forEach(e => e.remove())")
    return page


def run_cell(page: Visit, index: int) -> None:
    page.page.evaluate("i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i }", index)
    command(page, "notebook:run-cell")


def test_it_draws_and_goes_on_while_cells_block_and_compute(lab: str, visit: Open) -> None:
    page = open_notebook(visit, lab)
    run_cell(page, 0)
    page.wait_drawn()
    page.page.wait_for_timeout(500)
    assert page.colours("surface") > 500
    assert page.colours("smiles") > 500
    assert page.rate(4.0) >= 8.0
    light = page.ground("smiles")
    page.keep("lab_light")

    run_cell(page, 1)
    page.page.wait_for_timeout(500)
    # Twice the lease: the heartbeats cannot be heard.
    assert page.rate(10.0) >= 8.0
    assert page.told("surface")["state"] == "live"
    page.page.wait_for_selector(".jp-OutputArea-output pre:text-is('slept')", timeout=20_000)

    run_cell(page, 2)
    page.page.wait_for_timeout(300)
    # A pure-Python loop leaves the other thread every fifth millisecond: slower is allowed, stale is not.
    assert page.rate(5.0) >= 4.0
    assert page.told("surface")["state"] == "live"
    page.page.wait_for_selector(".jp-OutputArea-output pre:text-is('computed')", timeout=20_000)

    command(page, "apputils:change-theme", theme="JupyterLab Dark")
    page.page.wait_for_function(
        "ground => getComputedStyle(document.querySelector('.vs-smiles')).backgroundColor !== ground", arg=light
    )
    page.page.wait_for_timeout(600)
    page.keep("lab_dark")
    assert page.rate(2.0) >= 8.0
    page.check()


def test_running_the_cell_again_replaces_the_panels(lab: str, visit: Open) -> None:
    page = open_notebook(visit, lab)
    for _ in range(2):
        run_cell(page, 0)
        page.wait_drawn()
        page.page.wait_for_timeout(700)
    assert page.page.locator(".vs-surface").count() == 1
    assert page.rate(3.0) >= 8.0
    page.check()


def test_two_widgets_of_one_session_and_a_kernel_that_is_restarted(lab: str, visit: Open) -> None:
    page = open_notebook(visit, lab)
    run_cell(page, 0)
    page.wait_drawn()
    # In a side-by-side notebook there is little width.
    page.page.set_viewport_size({"width": 820, "height": 1000})
    run_cell(page, 3)
    page.page.wait_for_function("document.querySelectorAll('.vs-surface[data-frame]').length === 2")
    page.page.wait_for_function(
        "[...document.querySelectorAll('.vs-status button[aria-pressed=true]')].map(b => b.textContent).join() === 'BTC,ETH'"
    )
    page.page.wait_for_timeout(700)
    page.keep("lab_two")
    assert page.rate(3.0) >= 8.0

    page.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.page.wait_for_selector(".vs-surface .vs-notice:has-text('the kernel was restarted')", timeout=15_000)
    page.keep("lab_restarted")
    run_cell(page, 0)
    page.page.wait_for_selector(".vs-surface[data-state=live]", timeout=30_000)
    assert page.rate(3.0) >= 8.0
    page.check()
