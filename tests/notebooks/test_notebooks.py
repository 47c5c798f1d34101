"""The notebooks run from top to bottom without a network, and lie in the repository without outputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "dashboards").glob("*.ipynb")])


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    """Compiled ahead, so that what is timed is the notebook."""
    subprocess.run([sys.executable, "-m", "volsurf.cli", "compile"], check=True, timeout=600)


def run(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    return notebook


def printed(notebook: nbformat.NotebookNode, cell: str) -> str:
    outputs = next(c for c in notebook.cells if c.id == cell).outputs
    return "".join(
        o.get("text", "") or o.get("data", {}).get("text/html", "") or o.get("data", {}).get("text/plain", "")
        for o in outputs
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_no_outputs_are_kept(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert "/home/" not in cell.source


def test_the_quickstart_runs_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # Inherited by all it starts, also by what detaches itself; others on this machine may start engines meanwhile.
    monkeypatch.setenv("VOLSURF_TEST_RUN", mark := f"{os.getpid()}-{time.time_ns()}")
    notebook = run(ROOT / "notebooks" / "01_quickstart.ipynb")
    assert "<table" in printed(notebook, "fit")
    assert "butterfly arbitrage at any strike" in printed(notebook, "certificate")
    assert "frame" in printed(notebook, "frames")
    # The kernel slept three seconds, and its copy of the stream did not.
    assert int(printed(notebook, "busy").split()[0]) >= 20
    widget = next(c for c in notebook.cells if c.id == "widget").outputs[0]
    assert "application/vnd.jupyter.widget-view+json" in widget["data"]
    assert "status 0" in printed(notebook, "stop")

    def ours(process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            return process.environ().get("VOLSURF_TEST_RUN") == mark
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    _, alive = psutil.wait_procs([p for p in psutil.process_iter() if ours(p)], timeout=10)
    assert [p.cmdline() for p in alive] == []


def seconds(notebook: nbformat.NotebookNode) -> float:
    """From the first cell's start to the last one's end, by the kernel's own clock."""
    times = [c.metadata.execution for c in notebook.cells if c.cell_type == "code"]
    first, last = times[0]["iopub.execute_input"], times[-1]["shell.execute_reply"]
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def figures(notebook: nbformat.NotebookNode) -> int:
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return sum("application/vnd.plotly.v1+json" in o.get("data", {}) for o in outputs)


def test_implied_vol_and_greeks() -> None:
    notebook = run(ROOT / "notebooks" / "02_implied_vol_and_greeks.ipynb")
    assert seconds(notebook) < 60
    assert figures(notebook) == 6
    assert "price is below intrinsic value: no vol gives it" in printed(notebook, "status")
    # What the prose says of the numbers.
    bump = float(re.search(r"to the bump: (\S+)", printed(notebook, "delta")).group(1))  # type: ignore[union-attr]
    assert bump < 1e-7
    out, inside = (float(x) for x in re.findall(r"worst (\S+),", printed(notebook, "accuracy")))
    assert out < 1e-14 < 1e-4 < inside
    speed = dict(re.findall(r"^(.+?)\s{2,}([\d.]+) ns", printed(notebook, "speed"), re.MULTILINE))
    # 0.6 of it on a quiet machine.
    assert float(speed["implied vol, guess 5 bp off"]) < 1.5 * float(speed["implied vol, without a guess"])
    assert "892" in printed(notebook, "ledger")


def test_calibration_and_arbitrage() -> None:
    notebook = run(ROOT / "notebooks" / "03_calibration_and_arbitrage.ipynb")
    assert seconds(notebook) < 60
    assert figures(notebook) == 5
    assert "11 of 11" in printed(notebook, "imports") or "at every strike of 11 expiries" in printed(
        notebook, "imports"
    )
    assert "1 left out as outliers" in printed(notebook, "outlier")
    vogt = printed(notebook, "vogt")
    assert float(re.search(r"lowest g \+(\S+), OK", vogt).group(1)) > 0  # type: ignore[union-attr]
    assert "the density is negative at k = 0.879" in vogt
    assert re.search(r"wide: -0\.\d+ bp", printed(notebook, "butterfly"))
    assert "no butterfly arbitrage at any strike" in printed(notebook, "repair")
    walk = printed(notebook, "walk")
    assert int(re.search(r"(\d+) of them free by the grid only", walk).group(1)) > 0  # type: ignore[union-attr]
    assert "calendar arbitrage in the left wing" in printed(notebook, "calendar")
    joint = printed(notebook, "joint")
    assert joint.count("moved together with its neighbours") == 2
    assert "no calendar arbitrage at any strike" in joint
    guard = printed(notebook, "guard")
    assert "do not quote on it" in guard
    proved, of = re.search(r"proved: (\d+) of (\d+)", guard).groups()  # type: ignore[union-attr]
    assert proved == of
    assert printed(notebook, "peers").count("at every strike of 11 expiries") == 3


def test_surface_analytics_and_diagnostics() -> None:
    notebook = run(ROOT / "notebooks" / "04_surface_analytics_and_diagnostics.ipynb")
    assert seconds(notebook) < 60
    assert figures(notebook) == 7
    assert "±" in printed(notebook, "ask")
    assert "BTC-PERPETUAL" in printed(notebook, "book")
    assert "the same text again: True" in printed(notebook, "json")
    assert "1 quote through it" in printed(notebook, "tamper")
    assert "bid_through" in printed(notebook, "edges").replace(" ", "_")
    assert "bid through" in printed(notebook, "explain")


def test_the_dashboard_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLSURF_STREAM", raising=False)
    assert "VOLSURF_STREAM" in printed(run(ROOT / "dashboards" / "surface.ipynb"), "dashboard")


def test_venues_books_and_replay() -> None:
    notebook = run(ROOT / "notebooks" / "05_venues_books_and_replay.ipynb")
    assert "lost: nothing" in printed(notebook, "capture")
    assert "butterfly and calendar arbitrage" in printed(notebook, "replay")
    assert "trades" in printed(notebook, "events")
    assert "deribit" in printed(notebook, "share")
    assert "'gap'" in printed(notebook, "books")
    assert "Frame(" in printed(notebook, "record")
    assert seconds(notebook) < 600
