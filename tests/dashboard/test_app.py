"""Starting, finding and ending the dashboard server; what browsers see of it is in tests/browser."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from volsurf.cli import main
from volsurf.dashboard import app, launch_dashboard, notebooks_folder
from volsurf.errors import ConfigError, EngineError


def test_it_serves_ends_and_ends_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A configuration in the working directory is somebody else's: it must not reach the server.
    (tmp_path / "voila.json").write_text('{"VoilaConfiguration": {"strip_sources": false, "template": "reveal"}}')
    (tmp_path / "ipykernel.py").write_text("raise SystemExit('a module of the working directory was imported')")
    monkeypatch.chdir(tmp_path)
    with launch_dashboard("ws://127.0.0.1:1/v1/stream", port=0) as dashboard:
        assert dashboard.is_alive
        with urllib.request.urlopen(f"{dashboard.url}voila/static/voila.js", timeout=10) as answer:
            assert answer.status == 200
        # The page of one visit: a kernel starts and runs the notebook while it is read.
        with urllib.request.urlopen(dashboard.url, timeout=60) as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
            assert any(c.startswith("_xsrf=") for c in answer.headers.get_all("Set-Cookie")), (
                "with it the page may end its kernel"
            )
        assert "vs.attach" not in text
        assert "--ground: #0e1115" in text
        children = psutil.Process(dashboard.pid).children(recursive=True)
        assert len(children) == 1
    assert not dashboard.is_alive
    dashboard.stop()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert repr(dashboard).endswith("stopped)")


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match=str(taken.getsockname()[1])):
        launch_dashboard(None, port=taken.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "words"), [({"theme": "blue"}, "dark or light"), ({"notebook": "no/such.ipynb"}, "no/such.ipynb")]
)
def test_wrong_arguments_are_named(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        launch_dashboard(None, port=0, **arguments)  # type: ignore[arg-type]


def test_a_server_that_dies_while_starting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match="ended with status 1"):
        launch_dashboard(None, port=0)


def test_notebooks_are_found_in_a_checkout_and_in_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (notebooks_folder() / "surface.ipynb").is_file()
    monkeypatch.setattr(app, "__file__", str(tmp_path / "site" / "volsurf" / "dashboard" / "app.py"))
    with pytest.raises(ConfigError, match="_dashboards"):
        notebooks_folder()
    installed = tmp_path / "site" / "volsurf" / "_dashboards"
    installed.mkdir(parents=True)
    (installed / "surface.ipynb").write_text("{}")
    assert notebooks_folder() == installed


def test_a_visit_too_many_is_turned_away(tmp_path: Path) -> None:
    notebook = tmp_path / "page.ipynb"
    notebook.write_bytes((notebooks_folder() / "surface.ipynb").read_bytes())
    (tmp_path / "voila.json").write_text('{"DashboardServer": {"visitors": 1}}')
    with launch_dashboard(None, port=0, notebook=notebook) as dashboard:
        urllib.request.urlopen(dashboard.url, timeout=60).read()
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(dashboard.url, timeout=60)
        assert refusal.value.code == 503
        refusal.value.close()
        assert len(psutil.Process(dashboard.pid).children()) == 1


def test_the_server_ends_with_a_parent_that_was_killed() -> None:
    script = (
        "import sys, time; from volsurf.dashboard import launch_dashboard\n"
        "d = launch_dashboard(None, port=0); print(d.pid, d.url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        server = psutil.Process(int(pid))
        urllib.request.urlopen(url, timeout=60).read()
        family = [server, *server.children(recursive=True)]
        assert len(family) == 2
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_a_dashboard_kernel_stays_light() -> None:
    """What the notebook does, and what it must not drag in: half a dozen visitors share one machine."""
    script = (
        "import json, sys, volsurf as vs\n"
        "session = vs.attach('ws://127.0.0.1:1'); session.widget(); session.stop()\n"
        "print(json.dumps([m for m in ('numba', 'scipy', 'pandas', 'polars', 'plotly', 'matplotlib') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []


def test_the_command_serves_until_its_time_is_up(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test run keeps its own handlers
    assert main(["dashboard", "--attach", "8765", "--port", "0", "--headless", "--seconds", "0.2"]) == 0
    out = capfd.readouterr().out
    assert "http://127.0.0.1:" in out
    assert "ws://127.0.0.1:8765/v1/stream" in out


def test_the_command_refuses_an_address_that_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "--attach", "http://x", "--headless"]) == 1
    assert "address of an engine" in capfd.readouterr().err
