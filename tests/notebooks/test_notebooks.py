"""The notebooks run from top to bottom without a network, and lie in the repository without outputs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "dashboards").glob("*.ipynb")])


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


def test_the_dashboard_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLSURF_STREAM", raising=False)
    assert "VOLSURF_STREAM" in printed(run(ROOT / "dashboards" / "surface.ipynb"), "dashboard")
